"""common_voice:PATH: every release's columns, folder and archive alike, and archives that mean harm."""

import gzip
import io
import random
import shutil
import tarfile
import time
import tracemalloc
from pathlib import Path

import pytest

from lengua.data.sources import SPLITS, Dropped, Utterance
from lengua.data.sources import tar_archive as archives
from lengua.data.sources.clip_table import ClipTable, read_durations, strip_csv_quotes
from lengua.data.sources.common_voice import MAX_CLIP_BYTES, open
from lengua.runtime.errors import LenguaError, RequestError

OLD = "client_id path sentence up_votes down_votes age gender accent locale segment".split()
NEW = """
    client_id path sentence_id sentence sentence_domain up_votes down_votes age gender accents variant locale segment
""".split()
ROOT = "cv-corpus-25.0-2026-03-09/sv-SE"


def line(columns: list[str], **cells: str) -> str:
    return "\t".join(cells.get(column, "") for column in columns)


def table(columns: list[str], *rows: dict[str, str]) -> bytes:
    return "".join(f"{text}\n" for text in ["\t".join(columns), *(line(columns, **row) for row in rows)]).encode()


def row(number: int, **cells: str) -> dict[str, str]:
    told = {"path": f"clip_{number}.mp3", "sentence": f"Mening nummer {number}.", "client_id": f"s{number % 3}"}
    return {**told, "up_votes": "2", "down_votes": "0", "locale": "sv-SE", **cells}


@pytest.fixture
def release(tmp_path) -> Path:
    """A release of ten clips in the newest format, with every table that Common Voice ships."""
    folder = tmp_path / ROOT
    (folder / "clips").mkdir(parents=True)
    for number in range(10):
        (folder / f"clips/clip_{number}.mp3").write_bytes(b"ID3" + bytes([number]) * (number + 1))
    rows = [row(number, accents="skånska" if number == 4 else "", age="twenties") for number in range(9)]
    for name, numbers in {"train": [5, 1, 4], "dev": [2, 0], "test": [3], "validated": range(6)}.items():
        (folder / f"{name}.tsv").write_bytes(table(NEW, *(rows[number] for number in numbers)))
    (folder / "other.tsv").write_bytes(table(NEW, *rows[6:8]))
    (folder / "invalidated.tsv").write_bytes(table(NEW, rows[8]))
    (folder / "reported.tsv").write_text("sentence_id\tsentence\tlocale\treason\n")
    (folder / "clip_durations.tsv").write_text("clip\tduration[ms]\nclip_1.mp3\t5184\nclip_3.mp3\t?\nclip_4.mp3\t940\n")
    return folder


def packed(folder: Path, out: Path | None = None, names: list[str] | None = None) -> Path:
    """Pack a release as Common Voice does, by name, or its files in the order of `names`."""
    out = out or folder.parent / "packed.tar.gz"
    found = names or sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    with tarfile.open(out, "w:gz") as archive:
        for name in found:
            archive.add(folder / name, f"{folder.parent.name}/{folder.name}/{name}")
    return out


def packed_with(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    """Pack a small good release, and whatever else is given."""
    with tarfile.open(path, "w:gz") as archive:
        good = [(f"{ROOT}/train.tsv", table(OLD, row(0), row(1))), (f"{ROOT}/clips/clip_0.mp3", b"ID3")]
        for info, data in [*((named(name, data), data) for name, data in good), *members]:
            archive.addfile(info, io.BytesIO(data))
    return path


def named(name: str, data: bytes = b"", **fields) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def by_id(source, split: str = "train") -> dict[str, Utterance]:
    return {item.id: item for item in source.read(split) if isinstance(item, Utterance)}


def reasons(source, split: str = "train") -> dict[str, str]:
    return {item.id: item.reason for item in source.read(split) if isinstance(item, Dropped)}


def content(item: Utterance | Dropped):
    """Return an item with the bytes of its audio in place of where they are."""
    if isinstance(item, Dropped):
        return item
    audio = item.audio if isinstance(item.audio, bytes) else item.audio.read_bytes()
    return (item.id, audio, item.text, item.language, item.speaker, item.duration_s, item.split, item.extra)


# What is read


def test_a_folder_in_the_newest_format(release):
    source = open(str(release))
    assert source.uri == f"common_voice:{ROOT}" and source.licence == "CC0-1.0" and source.language == "sv"
    assert [item.id for item in source.read("train")] == ["clip_1", "clip_4", "clip_5"]
    found = by_id(source)["clip_4"]
    assert found.audio == release / "clips/clip_4.mp3"
    assert (found.text, found.speaker, found.language, found.split) == ("Mening nummer 4.", "s1", "sv", "train")
    assert found.extra == {"age": "twenties", "accent": "skånska", "up_votes": "2", "down_votes": "0"}
    assert [item.duration_s for item in source.read("train")] == [5.184, 0.94, None]
    assert [len(by_id(source, split)) for split in (*SPLITS, "validated")] == [3, 2, 1, 6]
    assert source.left_out == {"clip in no table": 1}


@pytest.mark.parametrize("tables_first", [False, True])
def test_the_archive_yields_what_the_folder_yields(release, tables_first):
    (release / "clips/clip_5.mp3").unlink()
    (release / "clips/clip_2.mp3").write_bytes(b"")
    names = sorted(str(path.relative_to(release)) for path in release.rglob("*") if path.is_file())
    if tables_first:
        names.sort(key=lambda name: name.startswith("clips"))
    folder, packing = open(str(release)), open(str(packed(release, names=names)))
    for split in (*SPLITS, "validated"):
        assert [content(item) for item in folder.read(split)] == [content(item) for item in packing.read(split)]
    assert list(map(str, folder.read_many(SPLITS))) != [] and folder.uri == packing.uri
    assert folder.revision == packing.revision and folder.left_out == packing.left_out == {"clip in no table": 1}
    assert reasons(packing) == {"clip_5": "missing clip"} and reasons(packing, "dev") == {"clip_2": "empty clip"}


def test_several_splits_come_in_one_pass(release, monkeypatch):
    source = open(str(packed(release)))
    source.revision  # noqa: B018 - the first pass
    opened = []
    monkeypatch.setattr(
        archives, "BoundedGzipReader", lambda *given, real=archives.BoundedGzipReader: opened.append(1) or real(*given)
    )
    found = list(source.read_many(("train", "dev", "validated")))
    assert len(opened) == 1
    assert [split for split, item in found if item.id == "clip_1"] == ["train", "validated"]
    assert len(found) == 3 + 2 + 6
    assert [item for split, item in found if split == "dev"] == list(source.read("dev"))


def test_a_survey_reads_no_clip(release):
    (release / "clips/clip_1.mp3").unlink()
    for source in (open(str(release)), open(str(packed(release)))):
        surveyed = list(source.survey("train"))
        assert [item.id for item in surveyed] == ["clip_5", "clip_1", "clip_4"]
        assert surveyed[1] == Dropped("clip_1", "missing clip") and surveyed[2].audio == b""
        assert surveyed[2].extra["accent"] == "skånska" and surveyed[2].duration_s == 0.94


def test_the_parent_of_one_language_is_enough_and_of_two_it_is_asked(release):
    assert open(str(release.parent)).uri == f"common_voice:{ROOT}"
    shutil.copytree(release, release.parent / "es")
    for name in ("train", "dev", "test", "validated"):
        path = release.parent / f"es/{name}.tsv"
        path.write_text(path.read_text().replace("sv-SE", "es"))
    with pytest.raises(RequestError, match="found es, sv-SE; name the folder of one of them, or pass --language"):
        open(str(release.parent))
    assert open(str(release.parent), "spanish").language == "es"
    with tarfile.open(both := release.parent / "both.tar.gz", "w:gz") as archive:
        archive.add(release.parent / "es", "cv/es")
        archive.add(release, "cv/sv-SE")
    with pytest.raises(RequestError, match="one language in"):
        list(open(str(both)).read("train"))
    assert open(str(both), "sv").language == "sv" and len(by_id(open(str(both), "es"))) == 3


def test_old_releases(tmp_path):
    folder = tmp_path / "cv-corpus-2/es"
    (folder / "clips").mkdir(parents=True)
    (folder / "clips/abc.mp3").write_bytes(b"ID3")
    columns = "client_id path sentence up_votes down_votes age gender accent".split()
    said = {"client_id": "s", "path": "abc", "sentence": "Hola.", "accent": "caribe"}
    (folder / "validated.tsv").write_bytes(table(columns, said).replace(b"\n", b"\r\n"))
    source = open(str(folder))
    assert by_id(source, "validated")["abc"].extra == {"accent": "caribe"} and source.language == "es"
    assert sum(len(by_id(source, split)) for split in SPLITS) == 1


def test_spontaneous_speech(tmp_path):
    folder = tmp_path / "sps-corpus-2.0-2026-03-09-sv-SE"
    (folder / "audios").mkdir(parents=True)
    rows = []
    for number, split in enumerate(["train", "dev", "test", "train", ""]):
        (folder / f"audios/s-{number}.mp3").write_bytes(b"ID3")
        text = f"Svar {number}" if number != 3 else ""
        rows.append({"audio_file": f"s-{number}.mp3", "transcription": text, "split": split, "duration_ms": "1500"})
    columns = "client_id audio_id audio_file duration_ms prompt transcription age gender split".split()
    (folder / "ss-corpus-sv-SE.tsv").write_bytes(table(columns, *rows))
    for source in (open(str(folder)), open(str(packed(folder)))):
        assert source.language == "sv" and list(by_id(source)) == ["s-0"] and reasons(source) == {"s-3": "no text"}
        assert by_id(source, "dev")["s-1"].duration_s == 1.5
        assert len(list(source.read("validated"))) == 5


def test_a_locale_that_whisper_does_not_know_needs_a_language(release):
    for path in release.glob("*.tsv"):
        path.write_text(path.read_text().replace("sv-SE", "ab"))
    with pytest.raises(RequestError, match=r"the locale 'ab' in .*; pass --language"):
        open(str(release))
    assert open(str(release), "ru").language == "ru"


def test_a_language_that_contradicts_the_locale_is_refused(release):
    with pytest.raises(RequestError, match="leave --language out"):
        open(str(release), "es")
    assert open(str(release), "swedish").language == "sv"


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ('"Hon sa ""ja"" och gick"', 'Hon sa "ja" och gick'),
        ('"""Ja"", sa hon"', '"Ja", sa hon'),
        ('"Ja", sa hon', '"Ja", sa hon'),
        ('Hon sa "ja', 'Hon sa "ja'),
        ('"Ja." "Nej."', '"Ja." "Nej."'),
        ('"', '"'),
        ('""', '""'),
        ('"Ja."', '"Ja."'),
    ],
)
def test_the_quoting_trap(cell, text):
    assert strip_csv_quotes(cell) == text
    read = ClipTable(table(OLD, row(0, sentence=cell), row(1)), "train.tsv")
    assert len(read) == 2 and read.cells(0)["sentence"] == text and read.cells(1)["sentence"] == "Mening nummer 1."


# What is left out


def test_bad_rows_are_dropped_and_good_ones_kept(release):
    secret = release.parent / "secret.mp3"
    secret.write_bytes(b"secret")
    (release / "clips/link.mp3").symlink_to(secret)
    (release / "clips/folder.mp3").mkdir()
    with (release / "clips/huge.mp3").open("wb") as file:
        file.truncate(MAX_CLIP_BYTES + 1)
    lines = {
        line(OLD, **row(1)): None,
        line(OLD, **row(2, path="clip_2")): None,
        line(OLD, **row(1, sentence="En gång till.")): "named twice",
        line(OLD, **row(0, path="nowhere.mp3")): "missing clip",
        line(OLD, **row(0, path="link.mp3")): None,
        line(OLD, **row(0, path="folder.mp3")): "missing clip",
        line(OLD, **row(0, path="huge.mp3")): "clip over 64 MB",
        line(OLD, **row(0, path="../../secret.mp3")): "path outside the folder",
        line(OLD, **row(0, path=str(secret))): "path outside the folder",
        line(OLD, **row(0, path="")): "no clip name",
        line(OLD, **row(3, sentence=" … ")): "no text",
        line(OLD, **row(4)) + "\tmore": "broken row",
        "s1\tclip_5.mp3\tEn rad": "broken row",
        "slutet av en rad": "broken row",
    }
    data = "\n".join(["\t".join(OLD), *lines]).encode() + b"\n" + line(OLD, **row(6, sentence="må")).encode("latin-1")
    (release / "train.tsv").write_bytes(data)
    source = open(str(release))
    assert sorted(by_id(source)) == ["clip_1", "clip_2", "link"]
    found = [item.reason for item in source.read("train") if isinstance(item, Dropped)]
    assert found == [reason for reason in lines.values() if reason] + ["not UTF-8"]
    assert reasons(source)["train.tsv, line 15"] == "broken row"


def test_tables_without_the_columns_are_explained(release):
    (release / "train.tsv").write_bytes("client_id\tpath\tsentence\n".encode("utf-16"))
    with pytest.raises(RequestError, match="the columns path and sentence, in UTF-8"):
        open(str(release)).revision  # noqa: B018
    (release / "train.tsv").write_bytes(b"")
    with pytest.raises(RequestError, match=r"in train\.tsv; get the table again"):
        list(open(str(release)).read("train"))


def test_nothing_there_or_nothing_of_common_voice(tmp_path):
    with pytest.raises(RequestError, match="nothing at"):
        open(str(tmp_path / "nowhere"))
    with pytest.raises(RequestError, match=r"clips/ beside train\.tsv.*; found none in"):
        open(str(tmp_path))
    with tarfile.open(tmp_path / "other.tar.gz", "w:gz") as archive:
        archive.addfile(named("a/b.txt", b"text"), io.BytesIO(b"text"))
    with pytest.raises(RequestError, match=r"clips/ beside train\.tsv.*; found none in"):
        list(open(str(tmp_path / "other.tar.gz")).read("train"))


# Archives that are damaged


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"<html>"])
def test_what_is_not_gzip_is_refused_at_once(tmp_path, data):
    (tmp_path / "es.tar.gz").write_bytes(data)
    with pytest.raises(RequestError, match=r"a gzipped archive \(\.tar\.gz\), or an unpacked folder"):
        open(str(tmp_path / "es.tar.gz"))


def test_an_archive_cut_off_keeps_what_came_before(release, tmp_path):
    clips = [f"clips/clip_{number}.mp3" for number in range(6)]
    for name in clips:
        (release / name).write_bytes(random.Random(name).randbytes(5000))
    whole = packed(release, names=["clip_durations.tsv", "train.tsv", *clips]).read_bytes()
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(whole[: len(whole) * 3 // 4])
    source, kept = open(str(cut)), []
    with pytest.raises(LenguaError) as caught:
        kept.extend(map(content, source.read("train")))
    assert [item[0] for item in kept] == ["clip_1"]
    assert kept == [content(item) for item in open(str(release)).read("train")][:1]
    assert f"{cut}, from which 1 clips could be read: it ends in the middle" in caught.value.found
    assert "download it again; what was done is kept" in caught.value.do
    assert source.revision == open(str(cut)).revision != open(str(release)).revision


@pytest.mark.parametrize("kept", [0.02, 0.5])
def test_an_archive_cut_off_before_its_tables(release, kept):
    path = packed(release, names=["clips/clip_1.mp3", "clips/clip_4.mp3", "train.tsv"])
    path.write_bytes(path.read_bytes()[: int(len(path.read_bytes()) * kept)])
    with pytest.raises(LenguaError, match=r"packed\.tar\.gz; found an end before its tables \(it ends in the middle\)"):
        list(open(str(path)).read("train"))


def test_an_archive_cut_off_between_its_tables(release):
    path = packed(release, names=["dev.tsv", "clips/clip_2.mp3", "clips/clip_0.mp3", "train.tsv"])
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(whole[: whole.index(b"train.tsv") + 600]))
    with pytest.raises(LenguaError, match=r"the tables dev\.tsv and no more: the archive breaks off \(unexpected end"):
        list(open(str(path)).read("train"))


@pytest.mark.parametrize("where", ["data", "checksum", "header"])
def test_damage_in_the_middle_is_told(release, where):
    names = ["train.tsv", *(f"clips/clip_{number}.mp3" for number in range(6))]
    path = packed(release, names=names)
    data = bytearray(gzip.decompress(path.read_bytes()))
    if where == "header":
        place = data.index(f"{ROOT}/clips/clip_4.mp3".encode())
        data[place : place + 512] = b"\xee" * 512
        path.write_bytes(gzip.compress(bytes(data)))
    else:
        whole = bytearray(path.read_bytes())
        place = -8 if where == "checksum" else len(whole) // 2
        whole[place : place + 4] = b"\xff\x00\xff\x00"
        path.write_bytes(whole)
    with pytest.raises(LenguaError, match="expected a whole archive"):
        list(open(str(path)).read("train"))


# Archives that mean harm


def test_names_and_links_that_leave_the_archive_reach_nothing(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    strange = [
        (named(f"{ROOT}/clips/../clips/clip_1.mp3", b"x"), b"x"),
        (named("../clips/clip_1.mp3", b"x"), b"x"),
        (named(f"/{ROOT}/clips/clip_1.mp3", b"x"), b"x"),
        (named(f"{ROOT}/clips/clip_1.mp3", type=tarfile.SYMTYPE, linkname=str(tmp_path / "secret")), b""),
        (named(f"{ROOT}/clips/clip_1.mp3", type=tarfile.LNKTYPE, linkname="../secret"), b""),
        (named(f"{ROOT}/clips/clip_1.mp3", type=tarfile.CHRTYPE, devmajor=1, devminor=3), b""),
        (named(f"{ROOT}/clips/clip_1.mp3", type=tarfile.FIFOTYPE), b""),
        (named(f"{ROOT}/dev.tsv", type=tarfile.SYMTYPE, linkname="train.tsv"), b""),
    ]
    source = open(str(packed_with(tmp_path / "evil.tar.gz", *strange)))
    assert [item.id for item in source.read("train")] == ["clip_0", "clip_1"]
    assert reasons(source) == {"clip_1": "missing clip"}
    assert source.left_out == {"name outside the archive": 3, "link or device in the archive": 5}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.tar.gz", "secret"]


def test_a_clip_of_200_mb_is_dropped_unread(tmp_path):
    class Zeros(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return bytes(size)

    path = tmp_path / "big.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=0) as archive:
        rows = table(OLD, row(0), row(1))
        archive.addfile(named(f"{ROOT}/train.tsv", rows), io.BytesIO(rows))
        archive.addfile(named(f"{ROOT}/clips/clip_0.mp3", size=200 * 2**20), Zeros())
        archive.addfile(named(f"{ROOT}/clips/clip_1.mp3", b"ID3"), io.BytesIO(b"ID3"))
    source = open(str(path))
    tracemalloc.start()
    assert list(by_id(source)) == ["clip_1"] and reasons(source) == {"clip_0": "clip over 64 MB"}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20, f"{peak >> 20} MB for an archive of 200 MB"


def test_a_bomb_is_refused_before_it_has_gone_off(tmp_path):
    path = tmp_path / "bomb.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(named(f"{ROOT}/clips/clip_0.mp3", size=10 * 2**40).tobuf(tarfile.GNU_FORMAT))
        for _ in range(160):
            file.write(bytes(2**20))
    start = time.perf_counter()
    with pytest.raises(LenguaError, match="do not use this file; it is made to fill a disk"):
        list(open(str(path)).read("train"))
    assert time.perf_counter() - start < 10


def test_a_name_of_many_megabytes_is_refused(tmp_path):
    long = named("././@LongLink", type=tarfile.GNUTYPE_LONGNAME, size=2**33)
    path = packed_with(tmp_path / "long.tar.gz")
    whole = gzip.decompress(path.read_bytes()).rstrip(b"\0")
    whole += bytes(-len(whole) % 512)
    path.write_bytes(gzip.compress(whole + long.tobuf(tarfile.GNU_FORMAT) + bytes(4096)))
    with pytest.raises(LenguaError, match="1 clips could be read: a name of 8192 MB"):
        list(open(str(path)).read("train"))


# Memory and real clips


def test_memory_does_not_grow_with_the_archive(tmp_path):
    def peak(clips: int) -> int:
        path = tmp_path / f"{clips}.tar.gz"
        with tarfile.open(path, "w:gz", compresslevel=0) as archive:
            for number in range(clips):
                archive.addfile(named(f"{ROOT}/clips/clip_{number}.mp3", bytes(3000)), io.BytesIO(bytes(3000)))
            rows = table(OLD, *map(row, range(clips)))
            archive.addfile(named(f"{ROOT}/train.tsv", rows), io.BytesIO(rows))
        tracemalloc.start()
        assert sum(1 for _ in open(str(path)).read("train")) == clips
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(10)
    few, many = peak(200), peak(2000)
    assert many - few < 1800 * 1000, f"{(many - few) // 1800} bytes a clip"


def test_durations_in_an_unknown_unit_are_not_believed():
    assert read_durations([b"clip\tduration[ms]\n", b"a.mp3\t1000\n"]).get("a.mp3") == 1000
    assert len(read_durations([b"clip\tduration\n", b"a.mp3\t1000\n"])) == 0
    assert len(read_durations([])) == 0
