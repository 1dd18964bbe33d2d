"""hub:owner/name: foreign columns, splits and troubles. Against the real clients."""

import io
import json
import time
from importlib.util import find_spec

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import a_hub, sha256  # noqa: F401 - a fixture

from lengua.data.sources import hub as known
from lengua.data.sources.hub import HubAddress, HubSource, parse_hub_address
from lengua.runtime.errors import RequestError
from lengua.runtime.parallel import Prefetcher, call_with_timeout

IMPORTS = """
from itertools import islice
from lengua.data.sources import hub
from lengua.data.sources.hub import open
"""
# huggingface_hub rests ever longer between its tries; tests need not.
HURRY = """
rest = time.sleep
time.sleep = lambda seconds: rest(min(seconds, 0.1))
"""
README = b"---\nlanguage: [es]\nlicense: cc0-1.0\n---\n"


def parquet(rows: list[dict], row_group_size: int = 2, features: dict | None = None) -> bytes:
    table = pa.Table.from_pylist(rows)
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=row_group_size, compression="none")
    return sink.getvalue()


def row(number: int, size: int = 20, **cells) -> dict:
    """A row as the Common Voice mirrors have it."""
    name = f"common_voice_es_{number}.mp3"
    audio = {"bytes": b"ID3" + bytes([number % 251]) * size, "path": name}
    told = {"client_id": f"s{number % 3}", "path": name, "audio": audio, "sentence": f"Frase  {number}"}
    return {**told, "up_votes": 2, "gender": "female", "accent": "", "locale": "es", **cells}


MIRROR = {
    "README.md": README,
    "es/train-00000-of-00002.parquet": parquet([row(number) for number in range(5)]),
    "es/train-00001-of-00002.parquet": parquet([row(number) for number in range(5, 8)]),
    "es/validation-00000-of-00001.parquet": parquet([row(8)]),
    "es/test-00000-of-00001.parquet": parquet(
        [row(9), row(10, sentence=""), row(11, audio={"bytes": b"", "path": "x"})]
    ),
}
TWO_CONFIGS = b"""---
license: other
configs:
- {config_name: es, data_files: [{split: train, path: es/*}]}
- {config_name: sv-SE, data_files: [{split: train, path: sv/*}]}
---
"""


def only(told: list[dict]) -> dict:
    (one,) = told
    return one


# The address and the columns


def test_addresses():
    for text, expected in {
        "a/b": HubAddress("a/b"),
        "a/b:es": HubAddress("a/b", config="es"),
        "a/b@main:sv-SE": HubAddress("a/b", "main", "sv-SE"),
        "a-1/b_2.c:es?text=raw%20text&audio=x": HubAddress("a-1/b_2.c", None, "es", {"text": "raw text", "audio": "x"}),
    }.items():
        assert parse_hub_address(text) == expected
    for text in ("", "b", "a/b/c", "a/../b", "a/b?words=x", "a/b c", "https://x/a/b"):
        with pytest.raises(RequestError, match=r"hub:owner/name\[:config\], and behind a \? columns for audio, text"):
            parse_hub_address(text)


@pytest.mark.parametrize(
    ("names", "text", "speaker", "id_"),
    [
        ("client_id path audio sentence locale", "sentence", "client_id", "path"),
        ("id audio transcription raw_transcription gender", "raw_transcription", "", ""),
        ("audio original_path transcript speaker_id file", "transcript", "speaker_id", "file"),
        ("audio_id audio raw_text normalized_text speaker_id", "normalized_text", "speaker_id", "audio_id"),
    ],
)
def test_columns_of_well_known_sets(names, text, speaker, id_):
    found = known.find_columns(names.split(), ["audio"], {}, "x")
    assert (found.audio, found.text, found.speaker, found.id) == ("audio", text, speaker, id_)


def test_columns_that_are_chosen_or_missing():
    found = known.find_columns(
        ["audio", "sound", "text", "words"], ["audio", "sound"], {"audio": "sound", "text": "words"}, "x"
    )
    assert (found.audio, found.text) == ("sound", "words")
    assert known.find_columns(["recording", "text"], ["recording"], {}, "x").audio == "recording"
    for names, sounds, chosen, told in [
        (["audio", "label"], ["audio"], {}, r"a column with the text \(.*name it: hub:NAME\?text=COLUMN"),
        (["audio", "text"], [], {}, r"a column with the audio .*found the columns audio, text"),
        (["audio", "text"], ["audio"], {"text": "words"}, r"a column 'words' of text in x"),
        (["audio", "text"], ["audio"], {"audio": "text"}, r"a column 'text' of audio in x"),
    ]:
        with pytest.raises(RequestError, match=told):
            known.find_columns(names, sounds, chosen, "x")


def test_a_path_without_bytes_is_never_followed(tmp_path):
    (tmp_path / "secret.mp3").write_bytes(b"secret")
    assert known.cell_audio({"bytes": None, "path": str(tmp_path / "secret.mp3")}) == (b"", "no audio")
    assert known.cell_audio(None) == (b"", "no audio")
    assert known.cell_audio({"bytes": b"", "path": "x"}) == (b"", "empty clip")


def test_lengths():
    columns = known.Columns("audio", "text")
    assert columns.seconds({"duration_ms": 1500}) == 1.5 and columns.seconds({"duration_s": 2}) == 2
    assert columns.seconds({"duration": 2}) is None and columns.seconds({"duration_s": None}) is None


# Reading ahead


def test_reading_ahead_keeps_order_and_stops_with_its_reader():
    fetched = []
    source = (fetched.append(number) or number for number in range(1000))
    found = [number for number, _ in zip(Prefetcher(source, 5, depth=4), range(10), strict=False)]
    assert found == list(range(10)) and len(fetched) < 20
    assert list(Prefetcher([], 5)) == [] and list(Prefetcher(range(50), 5, depth=1)) == list(range(50))


def test_what_is_raised_while_reading_ahead_is_raised_in_its_place():
    def broken():
        yield 1
        raise KeyError("two")

    found = []
    with pytest.raises(KeyError):
        found.extend(found.append(item) or [] for item in Prefetcher(broken(), 5))
    assert found[0] == 1
    with pytest.raises(TimeoutError, match=r"nothing came for 0\.2 s"):
        call_with_timeout(0.2, lambda: time.sleep(3))
    assert call_with_timeout(2, lambda: 7) == 7


# Data sets of recordings


def test_a_mirror_of_common_voice(hub):
    repo = hub.repo("dataset", "eva/voices", MIRROR)
    code = """
source = open("eva/voices")
show(lambda: [source.uri, source.revision, source.licence, source.attribution])
for split in ("train", "dev", "test", "validation"): show(lambda: list(source.read(split)))
show(lambda: source.shards("train"))
"""
    about, train, dev, test, validation, shards = (told["value"] for told in hub.client(code, IMPORTS))
    sha = repo.commits[-1].oid
    assert about == ["hub:eva/voices", sha, "cc0-1.0", "eva/voices on the Hugging Face Hub"]
    assert [item["id"] for item in train] == [f"common_voice_es_{number}" for number in range(8)]
    first = train[0]
    assert (first["text"], first["speaker"], first["language"], first["split"]) == ("Frase 0", "s0", "es", "train")
    assert first["extra"] == {"up_votes": "2", "gender": "female"} and first["duration_s"] is None
    assert [item["id"] for item in dev] == [item["id"] for item in validation] == ["common_voice_es_8"]
    assert (dev[0]["split"], validation[0]["split"]) == ("dev", "validation")
    reasons = {"common_voice_es_10": "no text", "common_voice_es_11": "empty clip"}
    assert {item["id"]: item["reason"] for item in test[1:]} == reasons
    assert shards == 2
    assert not hub.times("GET", "parquet.*main") and not any("datasets-server" in path for path in hub.asked)


def test_other_columns_classes_and_names(hub):
    features = {
        "id": {"dtype": "int64", "_type": "Value"},
        "audio": {"sampling_rate": 16000, "_type": "Audio"},
        "transcription": {"dtype": "string", "_type": "Value"},
        "plain": {"dtype": "string", "_type": "Value"},
        "gender": {"names": ["male", "female"], "_type": "ClassLabel"},
        "language": {"dtype": "string", "_type": "Value"},
    }
    audio = {"bytes": b"RIFF", "path": "audio.wav"}
    rows = [
        {"id": 7, "audio": audio, "transcription": "Uno.", "plain": "uno", "gender": 1, "language": "Spanish"},
        {"id": 7, "audio": audio, "transcription": "Två.", "plain": "två", "gender": 0, "language": "Klingon"},
    ]
    hub.repo("dataset", "eva/fleurs", {"data/train-00000-of-00001.parquet": parquet(rows, features=features)})
    code = """
show(lambda: list(open("eva/fleurs").read("train")))
show(lambda: list(open("eva/fleurs?text=plain&id=plain", "sv").read("train")))
show(lambda: open("eva/fleurs?text=words"))
"""
    found, chosen, wrong = hub.client(code, IMPORTS)
    first, second = found["value"]
    assert first["id"] == "train-00000-000000", "clips that are all called the same are told apart by their places"
    assert (first["text"], first["language"], first["extra"]) == ("Uno.", "es", {"gender": "female"})
    assert second == {"id": "train-00000-000001", "reason": "unknown language"}
    assert [(item["id"], item["text"], item["language"]) for item in chosen["value"]] == [
        ("uno", "uno", "es"),
        ("två", "två", "sv"),
    ]
    assert "expected a column 'words' of text in hub:eva/fleurs?text=words" in wrong["error"]


def test_configs_splits_and_languages_are_asked_for(hub):
    files = {"README.md": TWO_CONFIGS, "es/a.parquet": parquet([row(1)]), "sv/a.parquet": parquet([row(2, locale="")])}
    hub.repo("dataset", "eva/two", files)
    bare = [{"audio": {"bytes": b"ID3", "path": "a.mp3"}, "text": "Hej"}]
    hub.repo("dataset", "eva/bare", {"train.parquet": parquet(bare)})
    hub.repo("dataset", "eva/texts", {"train.parquet": parquet([{"text": "Hej"}])})
    code = """
show(lambda: [item.language for item in open("eva/two:sv-SE").read("train")])
for name in "eva/two eva/two:fr eva/bare eva/texts eva/missing eva/two@nowhere:es".split(): show(lambda: open(name))
show(lambda: list(open("eva/two:es").read("dev")))
show(lambda: [item.language for item in open("eva/bare", "swedish").read("train")])
"""
    swedish, several, wrong, bare, texts, missing, revision, split, asked = hub.client(code, IMPORTS)
    assert swedish["value"] == asked["value"] == ["sv"]
    assert "expected one config in eva/two; found es, sv-SE; name one of them: hub:eva/two:CONFIG" in several["error"]
    assert "expected a config 'fr' in eva/two; found es, sv-SE" in wrong["error"]
    assert "expected a language for hub:eva/bare; found none in its name, card or columns" in bare["error"]
    assert "expected a column with the audio" in texts["error"]
    assert "found the Hub has none for this token" in missing["error"]
    assert "something missing in it" in revision["error"]
    assert "expected the split 'dev' in hub:eva/two:es; found train; name one of these with --splits" in split["error"]
    assert all(told["exit_code"] == 2 for told in (several, wrong, bare, texts, missing, revision, split))


def test_gated_and_empty_sets_and_audio_beside_a_table(hub):
    hub.repo("dataset", "eva/gated", MIRROR, gated=True)
    hub.repo("dataset", "eva/empty", {"README.md": README})
    table = b"file_name,transcription\na.wav,Hola\n"
    hub.repo("dataset", "eva/folder", {"train/a.wav": b"RIFF", "train/metadata.csv": table, "README.md": README})
    code = """
for name in ("eva/gated", "eva/empty", "eva/folder"): show(lambda: list(open(name).read("train")))
"""
    gated, empty, folder = hub.client(code, IMPORTS)
    assert "expected access to the dataset eva/gated; found it is gated; accept its terms" in gated["error"]
    assert "expected a data set eva/empty of Parquet or audio files" in empty["error"]
    assert empty["seconds"] < 10
    if find_spec("torchcodec"):
        assert [item["text"] for item in folder["value"]] == ["Hola"]
    else:
        assert "download it with `hf download eva/folder --repo-type dataset` and read it as folder:" in folder["error"]


def voices(hub, faults: list[dict], times: float) -> list[str]:
    """Make a data set for each fault in its stream; return their names."""
    rows = [row(number, size=5000) for number in range(40)]
    for number, fault in enumerate(faults):
        hub.repo("dataset", f"eva/voices{number}", {"README.md": README, "train.parquet": parquet(rows, 10)})
        hub.fail("GET", rf"eva/voices{number}/resolve/.*train\.parquet", times=times, **fault)
    return [f"eva/voices{number}" for number in range(len(faults))]


def test_passing_trouble_in_a_stream_is_waited_out(hub):
    names = voices(hub, [{"status": 500}, {"keep": 0.5}, {"status": 429, "headers": {"Retry-After": "1"}}], times=2)
    code = f"for name in {names}: show(lambda: [item.id for item in open(name).read('train')])"
    for told in hub.client(code, IMPORTS + HURRY):
        assert told["value"] == [f"common_voice_es_{number}" for number in range(40)]


def test_trouble_that_stays_ends_a_stream_in_seconds(hub):
    names = voices(hub, [{"status": 500}, {"status": 503}, {"hang_s": 60}, {"keep": 0.2}], times=float("inf"))
    code = f"hub.ROW_TIMEOUT_S = 4.0\nfor name in {names}: show(lambda: list(open(name).read('train')))"
    found = hub.client(code, IMPORTS + HURRY, HF_HUB_DOWNLOAD_TIMEOUT="1")
    for name, told in zip(names, found, strict=True):
        assert f"expected an answer about hub:{name} (its splits)" in told["error"]
        assert told["exit_code"] == 1 and told["seconds"] < 12


def test_what_came_before_trouble_in_a_stream_is_kept(hub):
    hub.repo("dataset", "eva/voices", MIRROR)
    hub.fail("GET", r"/resolve/.*train-00001", status=500)
    code = """
hub.ROW_TIMEOUT_S, found = 20.0, []
source = open("eva/voices")
show(lambda: [found.append(item.id) for item in source.read("train")])
show(lambda: found)
"""
    broken, found = hub.client(code, IMPORTS + HURRY)
    assert "expected an answer about hub:eva/voices (train, after 5 rows); found " in broken["error"]
    assert found["value"] == [f"common_voice_es_{number}" for number in range(5)]


def test_a_source_tells_its_language_from_what_there_is():
    def language(config=None, card=None, wish=None):
        return HubSource(HubAddress("a/b", config=config), "sha", card or {}, wish).default_language

    assert language(config="es_419") == "es" and language(card={"language": "sv"}) == "sv"
    assert language(card={"language": ["sv"]}, wish="spanish") == "es"
