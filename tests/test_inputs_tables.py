"""What people really bring: linked folders, other toolkits' tables, names from elsewhere, transcripts with remarks."""

import os
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from test_audio import tone
from test_sources_common_voice import OLD, line
from test_sources_folder import items_of, kept, reasons, refused, write

from lengua.data import features
from lengua.data.features import NoUsableUtterances
from lengua.data.labels import clean_transcript
from lengua.data.sources import open_source
from lengua.data.store import open_store
from lengua.models.languages import language_code
from lengua.options import FeatureOptions
from lengua.runtime.errors import RequestError


def sounds(folder, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, tone(16_000, 2, 200 + 20 * number), 16_000)


def test_recordings_may_be_links_to_anywhere(tmp_path):
    folder, store = tmp_path / "mine", tmp_path / "annex"
    sounds(store, "a.wav", "b/c.wav")
    folder.mkdir()
    (folder / "a.wav").symlink_to(store / "a.wav")
    (folder / "b").symlink_to(store / "b")
    source = open_source(write(folder, "file_name,text\na.wav,uno\nb/c.wav,dos\nb/../../annex/a.wav,tres\n"), "es")
    assert sorted(item.text for item in kept(source)) == ["dos", "uno"]
    assert set(reasons(source).values()) == {"path outside the folder"}, "a path in a table may not leave the folder"


def test_a_build_without_a_result_leaves_nothing_behind(tmp_path):
    folder, out = tmp_path / "mine", tmp_path / "stores/mine"
    sounds(folder, "there.wav")
    uri = write(folder, "file_name,text,split\na.wav,uno,train\n")
    options = FeatureOptions(uri, out, language="es", workers=1)
    with pytest.raises(NoUsableUtterances, match="missing file: 1"):
        features.build(options)
    assert not out.exists()
    os.link(folder / "there.wav", folder / "a.wav")
    assert features.build(options).splits["train"]["utterances"] == 1


def test_a_release_with_validated_alone_is_split_by_speaker(tmp_path):
    folder = tmp_path / "cv-corpus-26.0-delta-2026-09-11/es"
    rows = [
        {"client_id": f"s{number % 20}", "path": f"{number}.mp3", "sentence": f"Frase {number}"} for number in range(60)
    ]
    (folder / "clips").mkdir(parents=True)
    for one in rows:
        (folder / "clips" / one["path"]).write_bytes(b"ID3")
    text = "\n".join(["\t".join(OLD), *(line(OLD, **one) for one in rows)])
    (folder / "validated.tsv").write_text(f"{text}\n", encoding="utf-8")
    source = open_source(f"common_voice:{folder}")
    found = {split: list(source.read(split)) for split in ("train", "dev", "test")}
    assert sum(map(len, found.values())) == 60
    assert all(items and {item.split for item in items} == {split} for split, items in found.items())
    assert len({(item.speaker, item.split) for items in found.values() for item in items}) == 20, "none in two splits"
    assert "validated.tsv" in source.remark and "speaker" in source.remark
    assert len(list(source.read("validated"))) == 60
    assert [item.id for item in source.survey("train")] and len(list(source.survey("dev"))) == len(found["dev"])


def test_names_written_on_another_system_are_found(tmp_path):
    folder = tmp_path / "mine"
    sounds(folder, unicodedata.normalize("NFD", "niño.wav"), "sub/VOZ.WAV", "Ünter/x.wav")
    source = open_source(write(folder, "file_name,text\nniño.wav,uno\nsub\\voz.wav,dos\nünter/x.WAV,tres\n"), "es")
    assert reasons(source) == {} and all(item.audio.is_file() for item in kept(source))
    assert len({item.audio for item in kept(source)}) == 3
    sounds(folder, "a.wav", "A.wav")
    both = open_source(write(folder, "file_name,text\na.wav,uno\nA.WAV,dos\n"), "es")
    assert reasons(both) == {"A.WAV": "missing file"}, "of two that differ in case alone none is guessed at"


SPLITS_OF_AUDIOFOLDER = {"train": "train", "validation": "dev", "test": "test"}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_an_audiofolder_with_a_table_in_each_split(kind, tmp_path):
    for place in SPLITS_OF_AUDIOFOLDER:
        sounds(tmp_path / place, "a.wav", "b.wav")
        cells = {"file_name": ["a.wav", "b.wav"], "transcription": [f"{place} uno", f"{place} dos"]}
        table, path = pa.table(cells), tmp_path / place / f"metadata.{kind}"
        if kind == "parquet":
            pq.write_table(table, path)
        elif kind == "csv":
            path.write_text(
                "file_name,transcription\n" + "".join(f"{a},{b}\n" for a, b in zip(*cells.values(), strict=True))
            )
        else:
            table.to_pandas().to_json(path, orient="records", lines=True)
    items = items_of(open_source(f"folder:{tmp_path}", "es"))
    assert {(item.text.split()[0], item.split) for item in items} == set(SPLITS_OF_AUDIOFOLDER.items())
    assert all(item.audio.is_file() for item in items) and len({item.id for item in items}) == 6
    (tmp_path / "test" / "metadata.tsv").write_text("file_name\ttext\n")
    assert "metadata.tsv" in refused(f"folder:{tmp_path}").found


def test_one_table_over_folders_that_are_splits(tmp_path):
    names = [f"{place}/{number}.wav" for place in SPLITS_OF_AUDIOFOLDER for number in range(4)]
    sounds(tmp_path, *names)
    rows = "".join(f"{name},frase {number}\n" for number, name in enumerate(names))
    items = items_of(open_source(write(tmp_path, f"file_name,text\n{rows}"), "es"))
    assert {(item.id.split("/")[0], item.split) for item in items} == set(SPLITS_OF_AUDIOFOLDER.items())


def test_ljspeech_is_read(tmp_path):
    sounds(tmp_path, "wavs/LJ001-0001.wav", "wavs/LJ001-0002.wav")
    table = 'LJ001-0001|Capítulo 1, "Hola"|Capítulo uno, "Hola"\nLJ001-0002|Adiós|Adiós\n'
    source = open_source(write(tmp_path, table), "es")
    assert {item.text for item in kept(source)} == {'Capítulo uno, "Hola"', "Adiós"} and reasons(source) == {}


def test_other_manifests_are_refused_with_the_line_that_converts_them(tmp_path):
    (tmp_path / "train_manifest.json").write_text('{"audio_filepath": "a.wav", "text": "hola", "duration": 1.0}\n')
    error = refused(f"folder:{tmp_path}")
    assert "NeMo" in error.do and "train_manifest.json > metadata.jsonl" in error.do
    (tmp_path / "wav.scp").write_text("u1 a.wav\n")
    (tmp_path / "text").write_text("u1 hola\n")
    assert "Kaldi" in refused(f"folder:{tmp_path}").do
    (tmp_path / "mine.zip").write_bytes(b"PK")
    assert "unzip" in refused(f"folder:{tmp_path}/mine.zip").do


@pytest.mark.parametrize(
    ("text", "label", "rules"),
    [
        ("&quot;Hola&quot; &amp; adi&oacute;s", '"Hola" & adiós', ("entities of HTML",)),
        ("Hola [risas] a todos <noise>", "Hola a todos", ("remarks in brackets",)),
        ("HOLA A TODOS, ¿QUÉ TAL?", "Hola a todos, ¿qué tal?", ("all capitals",)),
        ("ONU", "ONU", ()),
        ("La ONU y la UE", "La ONU y la UE", ()),
        ("R & B; tal", "R & B; tal", ()),
        ("Tres (3) veces", "Tres (3) veces", ()),
        ("nan", "", ()),
        ("[risas]", "", ("remarks in brackets",)),
        ("你好 世界 你好", "你好 世界 你好", ()),
    ],
)
def test_what_nobody_said_is_no_label(text, label, rules):
    assert clean_transcript(text) == (label, rules)


def test_cleaned_and_dropped_texts_are_counted_in_the_manifest(tmp_path):
    texts = ["Hola a todos", "HOLA A TODOS OTRA VEZ", "&quot;Sí&quot;, dijo", "el <unk> azul", "nan", "[ruido] bueno"]
    sounds(tmp_path / "mine", *(f"{number}.wav" for number in range(len(texts))))
    rows = "".join(f'{number}.wav,"{text}",train\n' for number, text in enumerate(texts))
    uri = write(tmp_path / "mine", f"file_name,text,split\n{rows}")
    built = features.build(FeatureOptions(uri, tmp_path / "store", language="es", workers=1))
    assert {rule: one["count"] for rule, one in built.cleaned.items()} == {
        "all capitals": 1,
        "entities of HTML": 1,
        "remarks in brackets": 1,
    }
    assert built.cleaned["all capitals"]["examples"] == ["1.wav"]
    assert {reason: one["count"] for reason, one in built.dropped.items()} == {
        "a word that nobody understood": 1,
        "no text": 1,
    }
    store = open_store(tmp_path / "store")
    assert set(store.split("train").column("text")) == {"Hola a todos", "Hola a todos otra vez", '"Sí", dijo', "bueno"}
    assert store.manifest["cleaned"] == built.cleaned


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *[(name, "es") for name in ("es_419", "es-MX", "castellano", "Español", "español (México)", "ES")],
        *[("pt-BR", "pt"), ("zh-CN", "zh"), ("zh_TW", "zh"), ("zh-HK", "yue"), ("nb_NO", "no"), ("svenska", "sv")],
        *[("català", "ca"), ("한국어", "ko"), ("русский", "ru"), ("Haitian Creole", "ht"), ("fil", "tl")],
    ],
)
def test_a_language_by_any_of_its_names(name, code):
    assert language_code(name) == code


def test_what_is_no_language_is_refused_without_a_wild_guess():
    with pytest.raises(RequestError, match="'klingon'; give a code such as es"):
        language_code("klingon")
    with pytest.raises(RequestError, match="did you mean spanish"):
        language_code("spansh")
