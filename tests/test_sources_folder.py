"""folder:PATH: one's own recordings, good and bad."""

import json
import shutil
from pathlib import Path

import pytest

from lengua.data.sources import SPLITS, Dropped, Utterance, open_source
from lengua.data.splits import assign_splits
from lengua.runtime.errors import RequestError


def items_of(source) -> list[Utterance | Dropped]:
    return [item for split in SPLITS for item in source.read(split)]


def kept(source) -> list[Utterance]:
    return [item for item in items_of(source) if isinstance(item, Utterance)]


def reasons(source) -> dict[str, str]:
    return {item.id: item.reason for item in items_of(source) if isinstance(item, Dropped)}


@pytest.fixture
def folder(tmp_path):
    """A folder with twelve recordings; metadata is for the test to write. (No source decodes: any bytes will do.)"""
    root = tmp_path / "recordings"
    (root / "clips").mkdir(parents=True)
    for number in range(12):
        (root / f"clips/{number}.wav").write_bytes(b"RIFF" + bytes(number))
    return root


def write(folder: Path, text: str | bytes, name: str = "metadata.csv") -> str:
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return f"folder:{folder}"


def refused(uri: str, language: str | None = "es") -> RequestError:
    with pytest.raises(RequestError) as caught:
        open_source(uri, language)
    assert str(caught.value).startswith("expected ")
    return caught.value


TWELVE = "file_name,text\n" + "".join(
    f"clips/{number}.wav,frase número {'abcdefghijkl'[number]}\n" for number in range(12)
)


def test_folder_with_a_csv(folder):
    source = open_source(write(folder, TWELVE), "spanish")
    utterances = kept(source)
    assert len(utterances) == 12 and reasons(source) == {}
    assert source.uri == "folder:recordings"
    assert str(folder.parent) not in source.uri + source.revision
    first = next(item for item in utterances if item.id == "clips/0.wav")
    assert first.audio == folder / "clips/0.wav" and first.audio.is_file()
    assert (first.text, first.language, first.speaker, first.duration_s) == ("frase número a", "es", "", None)
    assert {item.split for item in utterances} == set(SPLITS)


def test_folder_with_every_column(folder):
    header = "id,file_name,sentence,language,speaker,split,duration_s,accent,age\n"
    rows = (
        'a1,clips/0.wav,"Hej, på dig",sv-SE,anna,Validation,1.5,skånska,\nb2,clips/1.wav,Hola,Spanish,eva,test,,,30\n'
    )
    source = open_source(write(folder, header + rows))
    dev, test = kept(source)
    assert (dev.id, dev.text, dev.language, dev.speaker, dev.split) == ("a1", "Hej, på dig", "sv", "anna", "dev")
    assert (dev.duration_s, dev.extra) == (1.5, {"accent": "skånska"})
    assert (test.id, test.language, test.split, test.duration_s) == ("b2", "es", "test", None)
    assert test.extra == {"age": "30"}
    assert [item.id for item in source.read("dev")] == ["a1"]


def test_csv_as_spreadsheets_write_it(folder):
    text = '\ufefffile_name,transcription\r\nclips/0.wav,"Dijo ""sí"",\r\ny se fue"\r\n\r\nclips/1.wav,Adiós\r\n'
    by_id = {item.id: item.text for item in kept(open_source(write(folder, text), "es"))}
    assert by_id == {"clips/0.wav": 'Dijo "sí", y se fue', "clips/1.wav": "Adiós"}


def test_jsonl(folder):
    rows = [
        {"file_name": "clips/0.wav", "text": "Hola", "duration_s": 2, "votes": 3, "note": None, "tags": ["a"]},
        {"file_name": "clips/1.wav", "text": "línea\u2028partida"},
    ]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    by_id = {item.id: item for item in kept(open_source(write(folder, text, "metadata.jsonl"), "es"))}
    assert by_id["clips/0.wav"].duration_s == 2.0
    assert by_id["clips/0.wav"].extra == {"votes": "3", "tags": '["a"]'}
    assert by_id["clips/1.wav"].text == "línea partida"


def test_tsv_keeps_plain_quotes_and_undoes_csv_quotes(folder):
    rows = ['clips/0.wav\t"Hola', "clips/1.wav\tuna, dos", 'clips/2.wav\t"Dijo ""sí"""', 'clips/3.wav\t"Sí"']
    text = "\n".join(["file_name\tsentence", *rows])
    by_id = {item.id: item.text for item in kept(open_source(write(folder, text, "metadata.tsv"), "es"))}
    assert set(by_id.values()) == {'"Hola', "una, dos", 'Dijo "sí"', '"Sí"'}


def test_splits_follow_speakers_from_ten_on(folder):
    rows = [f"clips/{number}.wav,frase {letter},{letter}" for number, letter in enumerate("abcdefghijkl")]
    utterances = kept(open_source(write(folder, "\n".join(["file_name,text,speaker", *rows])), "es"))
    assert {item.speaker: item.split for item in utterances} == assign_splits("abcdefghijkl")
    same_text = [f"clips/{number}.wav,La misma frase,{letter}" for number, letter in enumerate("abcdefghi")]
    few = kept(open_source(write(folder, "\n".join(["file_name,text,speaker", *same_text])), "es"))
    assert len({item.split for item in few}) == 1


def test_bad_rows_are_dropped_and_good_ones_kept(folder):
    (folder.parent / "secret.wav").write_bytes(b"secret")
    (folder / "link.wav").symlink_to(folder.parent / "secret.wav")
    (folder / "inner.wav").symlink_to(folder / "clips/3.wav")
    (folder / "empty.wav").write_bytes(b"")
    (folder / "loop.wav").symlink_to(folder / "loop.wav")
    rows = {
        "clips/0.wav,Hola": None,
        "clips/../clips/1.wav,Hola": None,
        "inner.wav,Hola": None,
        "nowhere.wav,Hola": "missing file",
        "clips,Hola": "missing file",
        "loop.wav,Hola": "missing file",
        f"{'x' * 300}.wav,Hola": "missing file",
        "../secret.wav,Hola": "path outside the folder",
        f"{folder.parent}/secret.wav,Hola": "path outside the folder",
        "/etc/hostname,Hola": "path outside the folder",
        "link.wav,Hola": None,
        "empty.wav,Hola": "empty file",
        "clips/2.wav,": "no text",
        "clips/3.wav, ... ": "no text",
        "clips/4.wav": "no text",
        ",Hola": "no file name",
        "clips/5.wav,Hola, mundo": "more cells than columns",
    }
    source = open_source(write(folder, "\n".join(["file_name,text", *rows])), "es")
    expected = {row.split(",")[0] or f"line {line}": reason for line, (row, reason) in enumerate(rows.items(), start=2)}
    assert reasons(source) == {id_: reason for id_, reason in expected.items() if reason}
    assert {item.id for item in kept(source)} == {id_ for id_, reason in expected.items() if not reason}


@pytest.mark.parametrize("duration", ["nan", "-1", "0", "inf", "two"])
def test_unusable_durations_are_dropped(folder, duration):
    source = open_source(write(folder, f"file_name,text,duration_s\nclips/0.wav,Hola,{duration}\n"), "es")
    assert reasons(source) == {"clips/0.wav": "unusable duration_s"}


def test_null_characters_in_file_names_are_dropped(folder):
    row = json.dumps({"file_name": "clips/0.wav\0", "text": "Hola"})
    assert set(reasons(open_source(write(folder, row, "metadata.jsonl"), "es")).values()) == {"missing file"}


def test_revision_follows_metadata_files_and_language(folder):
    uri = write(folder, TWELVE)
    first = open_source(uri, "es").revision
    assert open_source(uri, "es").revision == first
    assert open_source(uri, "sv").revision != first
    (folder / "clips/3.wav").write_bytes(b"longer than before")
    second = open_source(uri, "es").revision
    assert second != first
    write(folder, TWELVE.replace("frase", "línea"))
    assert open_source(uri, "es").revision not in (first, second)


def test_folder_may_move(folder, tmp_path):
    source = open_source(write(folder, TWELVE), "es")
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.copytree(folder, tmp_path / "elsewhere" / "recordings")
    again = open_source(f"folder:{moved}", "es")
    assert (again.uri, again.revision) == (source.uri, source.revision)
    assert [item.id for item in items_of(again)] == [item.id for item in items_of(source)]


def test_not_one_metadata_file(folder):
    assert "nothing at" in refused(f"folder:{folder}/nowhere").found
    assert "none of them in" in refused(f"folder:{folder}").found
    write(folder, TWELVE)
    assert "a file, " in refused(f"folder:{folder}/metadata.csv").found
    write(folder, "", "metadata.jsonl")
    assert "metadata.csv and metadata.jsonl" in refused(f"folder:{folder}").found


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("metadata.csv", "file_name,text\n", "no row"),
        ("metadata.csv", 'file_name,text\nclips/0.wav,Hola\nclips/1.wav,"Adiós\nclips/2.wav,Hola\n', "line 3"),
        ("metadata.csv", "file_name,text,split\na.wav,Hola,train\nb.wav,Hola,practice\n", "'practice' on line 3"),
        ("metadata.jsonl", '{"file_name": "clips/0.wav", "text": "Hola"}\n{"file_name": ', "line 2"),
        ("metadata.jsonl", '{"file_name": "clips/0.wav", "text": "Hola"}\n[1]', "a JSON list, not an object, line 2"),
    ],
)
def test_unusable_metadata_names_the_line(name, text, found, folder):
    assert found in refused(write(folder, text, name)).found


@pytest.mark.parametrize(
    ("text", "found", "do"),
    [
        ("file_name,words\na,b\n", "the columns 'file_name', 'words'", "name the columns"),
        ("path,text\na,b\n", "the columns 'path', 'text'", "name the columns"),
        ("file_name;text\na;b\n", "the columns 'file_name;text'", "separate the columns by commas"),
        ("", "no columns", "name the columns"),
    ],
)
def test_missing_column(folder, text, found, do):
    error = refused(write(folder, text))
    assert found in error.found and do in error.do
    assert "file_name and text (or sentence, transcription)" in error.expected
    assert str(folder / "metadata.csv") in error.expected


def test_wrong_encoding_names_the_place(folder):
    error = refused(write(folder, "file_name,text\nclips/0.wav,mañana\n".encode("latin-1")))
    assert "byte 0xf1 at offset 29, line 2" in error.found
    assert "UTF-8" in error.expected and "save the file as UTF-8" in error.do
    assert "offset 0, line 1" in refused(write(folder, TWELVE.encode("utf-16"))).found


def test_duplicate_id_names_both_lines(folder):
    error = refused(write(folder, 'file_name,text\nclips/0.wav,"una\nlarga"\nclips/1.wav,Hola\nclips/0.wav,Adiós\n'))
    assert "'clips/0.wav' on line 2 and on line 5" in error.found
    error = refused(write(folder, "id,file_name,text\nx,clips/0.wav,Hola\nx,clips/1.wav,Adiós\n"))
    assert "'x' on line 2 and on line 3" in error.found


def test_language_must_come_from_somewhere(folder):
    error = refused(write(folder, TWELVE), language=None)
    assert "line 2" in error.found and "--language" in error.do
    rows = "file_name,text,language\nclips/0.wav,Hola,es\nclips/1.wav,Hej,\n"
    assert "line 3" in refused(write(folder, rows), language=None).found
    assert {item.language for item in kept(open_source(write(folder, rows), "sv"))} == {"es", "sv"}
    wrong = refused(write(folder, rows.replace(",es", ",klingon")))
    assert "'klingon' on line 2" in wrong.found and str(folder) in wrong.found
