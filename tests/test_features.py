"""features: a store from a source; what is left out is counted, what was interrupted goes on, equal goes to equal."""

import csv
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT, chirp, digests

from lengua.data import features
from lengua.data import features as rows
from lengua.data.sources import Dropped, Utterance
from lengua.data.store import count_reasons, is_store, open_store, read_shard_summary
from lengua.options import FeatureOptions
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import read_json, write_json

INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from lengua.data import features
from lengua.options import FeatureOptions
features.ITEMS_PER_SHARD = 2

def watch(progress):
    if progress.done >= 6:
        os.killpg(0, signal.SIGINT) if sys.argv[3] == "SIGINT" else os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    source, out = sys.argv[1], Path(sys.argv[2])
    features.build(FeatureOptions(source, out, language="es", workers=int(sys.argv[4])), watch)
"""


@pytest.fixture
def build(tiny_folder, tiny_model, monkeypatch):
    """Return a function that builds a store of the tiny folder in shards of two items, in this process."""
    monkeypatch.setattr(features, "ITEMS_PER_SHARD", 2)

    def build(out: Path, source: str = tiny_folder, watch=features.unwatched, **options) -> features.FeatureResult:
        told = {"language": "es", "workers": 1, "base": str(tiny_model), **options}
        return features.build(FeatureOptions(source, out, **told), watch)

    return build


def recordings(folder: Path, clips: list[tuple], **columns) -> str:
    """Write a folder of recordings from (name, text, samples or bytes or None) and return its URI."""
    folder.mkdir()
    for name, _, content in clips:
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        elif content is not None:
            soundfile.write(folder / name, content, 16_000)
    with open(folder / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("file_name", "text", "split"), *((name, text, "train") for name, text, _ in clips)])
    return f"folder:{folder}"


# What is in a store


def test_a_store_holds_every_clip_of_its_source(build, tmp_path, tiny_folder):
    told = []
    result = build(tmp_path / "store", watch=told.append)
    assert result.built and result.dropped == {} and result.path == tmp_path / "store"
    assert {split: count["utterances"] for split, count in result.splits.items()} == {"train": 15, "dev": 4, "test": 5}
    assert result.splits["train"]["shards"] == 8 and result.splits["train"]["speakers"] == 2
    assert [progress.done for progress in told] == sorted({progress.done for progress in told})
    assert told[0].done == 0 and told[-1].done == told[-1].total == 24
    store = open_store(tmp_path / "store")
    with open(Path(tiny_folder.removeprefix("folder:")) / "metadata.csv", encoding="utf-8", newline="") as file:
        rows = {row["file_name"]: row for row in csv.DictReader(file)}
    seen = 0
    for split in ("train", "dev", "test"):
        for row in store.split(split):
            expected = rows[row.id]
            assert (row.text, row.speaker, split) == (expected["text"], expected["speaker"], expected["split"])
            assert 0.3 <= row.duration_s <= 0.91 and row.language == "es"
            assert (row.audio is None) == (split == "train")
            seen += 1
    assert seen == len(rows) == 24
    assert sum((tmp_path / "store" / name).stat().st_size for name in digests(tmp_path / "store")) > result.bytes


def test_large_v3_has_128_mel_bins(build, tmp_path):
    build(tmp_path / "store", n_mels=128, splits=("dev",))
    store = open_store(tmp_path / "store", n_mels=128)
    assert store.split("dev")[0].log_mel().shape[1] == 128 and list(store.manifest["splits"]) == ["dev"]


def test_a_limit_holds_for_each_split(build, tmp_path):
    result = build(tmp_path / "store", limit=3)
    assert [count["utterances"] for count in result.splits.values()] == [3, 3, 3]


def test_kept_audio_is_as_recorded_or_what_every_player_knows(build, tmp_path):
    import av

    with av.open(str(tmp_path / "clip.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray((chirp(1, 200) * 32767).astype(np.int16)[None], "s16", "mono")
        frame.rate = 16_000
        for block in av.AudioResampler("fltp", "mono", 16_000, 1024).resample(frame):
            container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    clips = [("a.m4a", "uno dos", (tmp_path / "clip.m4a").read_bytes()), ("b.wav", "tres", chirp(1, 300))]
    soundfile.write(tmp_path / "clip.mp3", chirp(1, 300), 16_000)
    clips.append(("c.mp3", "cuatro", (tmp_path / "clip.mp3").read_bytes()))
    source = recordings(tmp_path / "source", clips)
    build(tmp_path / "store", source, keep_audio=("train",))
    kept = {row.id: row.audio for row in open_store(tmp_path / "store").split("train")}
    assert kept["a.m4a"][:4] == b"fLaC"
    assert kept["b.wav"] == (tmp_path / "source/b.wav").read_bytes()
    assert kept["c.mp3"] == (tmp_path / "clip.mp3").read_bytes()


# What is left out


def test_every_reason_to_leave_a_clip_out_is_counted(build, tmp_path):
    speech, long_text = chirp(2, 200), "ñandú " * 88
    clips = [
        ("good.wav", "buenos días", speech),
        ("letters.wav", '«"…"»', speech),
        ("no-text.wav", "", speech),
        ("silent.wav", "hola", np.zeros(16_000)),
        ("noise.wav", "hola", np.random.default_rng(17).uniform(-0.001, 0.001, 16_000)),
        ("short.wav", "a", chirp(0.15, 200)),
        ("long.wav", "una frase larga, larga", chirp(30.2, 200)),
        ("hours.wav", "una frase más larga", chirp(90, 200)),
        ("tokens.wav", long_text, chirp(28, 200)),
        ("hurried.wav", "esto no se puede decir en tan poco tiempo", chirp(0.5, 200)),
        ("slow.wav", "a", chirp(4, 200)),
        ("slow-but-short.wav", "a", chirp(2.5, 200)),
        ("text.wav", "hola", b"Esto no es audio." * 20),
        ("empty.wav", "hola", b""),
        ("missing.wav", "hola", None),
        ("cut.wav", "buenos días", b""),
    ]
    soundfile.write(tmp_path / "whole.wav", speech, 16_000)
    clips[-1] = ("cut.wav", "buenos días", (tmp_path / "whole.wav").read_bytes()[:40_000])
    result = build(tmp_path / "store", recordings(tmp_path / "source", clips))
    expected = {
        "no text": ["letters.wav", "no-text.wav"],
        "no speech energy": ["silent.wav", "noise.wav"],
        "shorter than 0.2 s": ["short.wav"],
        "longer than 30 s": ["long.wav", "hours.wav"],
        "label over 448 tokens": ["tokens.wav"],
        "text and audio disagree": ["hurried.wav", "slow.wav"],
        "unreadable audio": ["text.wav"],
        "empty file": ["empty.wav"],
        "missing file": ["missing.wav"],
    }
    assert {reason: found["examples"] for reason, found in result.dropped.items()} == expected
    assert {reason: found["count"] for reason, found in result.dropped.items()} == {
        reason: len(ids) for reason, ids in expected.items()
    }
    store = open_store(tmp_path / "store")
    assert store.manifest["dropped"] == result.dropped
    kept = [row.id for row in store.split("train")]
    assert sorted(kept) == ["cut.wav", "good.wav", "slow-but-short.wav"]
    assert len(kept) + sum(found["count"] for found in result.dropped.values()) == len(clips)


def test_a_row_is_made_alike_from_a_path_and_from_bytes(tmp_path):
    soundfile.write(tmp_path / "a.wav", chirp(1, 200), 16_000)
    options = FeatureOptions()
    made = [
        rows.make_row(Utterance("a", source, "  «¡Hola!» ", "es", "x", split="test", extra={"age": "20"}), options)
        for source in (tmp_path / "a.wav", (tmp_path / "a.wav").read_bytes())
    ]
    assert made[0].text == "¡Hola!" and made[0].extra == {"age": "20"} and made[0].duration_s == 1
    assert np.array_equal(made[0].mel, made[1].mel) and made[0].audio == made[1].audio
    too_large = Utterance("b", b"\0" * (rows.MAX_KEPT_AUDIO_BYTES + 1), "hola", "es", "x")
    assert rows.make_row(too_large, options) == Dropped("b", "unreadable audio")


def test_a_source_of_which_nothing_is_left_is_an_error_that_tells_why(build, tmp_path):
    source = recordings(tmp_path / "source", [("a.wav", "hola", np.zeros(16_000)), ("b.wav", "", chirp(1, 200))])
    with pytest.raises(LenguaError, match=r"at least one usable utterance; found none \(") as caught:
        build(tmp_path / "store", source)
    assert "no speech energy: 1" in str(caught.value) and "no text: 1" in str(caught.value)
    assert caught.value.exit_code == 1 and not is_store(tmp_path / "store")


# The same again, and going on


def test_equal_inputs_give_equal_bytes_by_any_number_of_workers(build, tmp_path):
    build(tmp_path / "one")
    build(tmp_path / "again")
    build(tmp_path / "two", workers=2)
    assert digests(tmp_path / "one") == digests(tmp_path / "again") == digests(tmp_path / "two")
    assert len(digests(tmp_path / "one")) == 8 + 2 + 3 + 1


def test_a_complete_store_is_not_built_again(build, tmp_path):
    build(tmp_path / "store")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    result = build(tmp_path / "store")
    assert not result.built and result.splits["train"]["utterances"] == 15
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")} == before


def test_a_lost_shard_is_made_again_and_no_other(build, tmp_path):
    build(tmp_path / "store")
    before = digests(tmp_path / "store")
    lost, other = tmp_path / "store/train/shard-00003.parquet", tmp_path / "store/train/shard-00002.parquet"
    lost.unlink()
    made = other.stat().st_mtime_ns
    assert build(tmp_path / "store").built
    assert digests(tmp_path / "store") == before and other.stat().st_mtime_ns == made


@pytest.mark.parametrize(("name", "workers"), [("SIGKILL", 2), ("SIGINT", 1)])
def test_a_build_stopped_by_a_signal_leaves_no_half_shard_and_can_go_on(name, workers, build, tiny_folder, tmp_path):
    """A real process, killed in the middle, or interrupted with all of its group as Ctrl-C does."""
    (tmp_path / "stopped.py").write_text(INTERRUPTED, encoding="utf-8")
    store = tmp_path / "store"
    process = subprocess.Popen(
        [sys.executable, tmp_path / "stopped.py", tiny_folder, store, name, str(workers)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        errors = process.communicate(timeout=60)[1].decode()  # returns once no worker is left that holds the pipe
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -getattr(signal, name), errors
    assert not is_store(store) and (store / "building.json").is_file()
    shards = sorted(store.rglob("shard-*.parquet"))
    assert 3 <= len(shards) < 13 and all(read_shard_summary(shard).rows == 2 for shard in shards)
    if workers == 1:
        assert not list(store.rglob(".*")), "an exception takes its half-written file along"
    with pytest.raises(RequestError, match="build it"):
        open_store(store)
    made = {shard: shard.stat().st_mtime_ns for shard in shards}
    base = FeatureOptions().base  # which decides no byte here: no text is long enough to be counted in tokens
    assert build(store, base=base).built
    assert {shard: shard.stat().st_mtime_ns for shard in shards} == made
    build(tmp_path / "whole")
    assert digests(store) == digests(tmp_path / "whole")


# Folders and options


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(build, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/diary.txt").write_text("mío", encoding="utf-8")
    (tmp_path / "file").touch()
    (tmp_path / "web").mkdir()
    write_json(tmp_path / "web/manifest.json", {"name": "an app"})
    for out in ("out", "file", "web"):
        with pytest.raises(RequestError, match="a new or empty folder"):
            build(tmp_path / out)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["diary.txt"]
    assert [path.name for path in (tmp_path / "web").iterdir()] == ["manifest.json"]
    (tmp_path / "empty").mkdir()
    assert build(tmp_path / "empty").built


@pytest.mark.parametrize("complete", [True, False])
def test_other_options_want_another_folder(complete, build, tmp_path):
    build(tmp_path / "store")
    if not complete:
        manifest = read_json(tmp_path / "store/manifest.json")
        found = ("format", "version", "dropped", "bytes", "languages")
        plan = {key: manifest[key] for key in manifest if key not in found}
        write_json(tmp_path / "store/building.json", {**plan, "splits": list(manifest["splits"])})
        (tmp_path / "store/manifest.json").unlink()
    before = digests(tmp_path / "store")
    for changed, key in (({"limit": 2}, "limit"), ({"n_mels": 128}, "n_mels"), ({"max_seconds": 9.0}, "filters")):
        with pytest.raises(RequestError, match=f"made with another {key}"):
            build(tmp_path / "store", **changed)
    assert digests(tmp_path / "store") == before
    assert build(tmp_path / "store").built is not complete


def test_a_source_that_changed_wants_another_folder(build, tmp_path, tiny_folder):
    source = shutil.copytree(tiny_folder.removeprefix("folder:"), tmp_path / "tonos")
    build(tmp_path / "store", f"folder:{source}")
    soundfile.write(source / "clips/00.wav", chirp(0.8, 500), 16_000)
    with pytest.raises(RequestError, match="made with another revision"):
        build(tmp_path / "store", f"folder:{source}")


def test_a_store_does_not_know_where_it_was_built(build, tmp_path, tiny_folder):
    """Nor when: the same folder elsewhere, built later, gives the same bytes."""
    source = shutil.copytree(tiny_folder.removeprefix("folder:"), tmp_path / "deep/down/tonos")
    build(tmp_path / "here")
    build(tmp_path / "there/store", f"folder:{source}")
    assert digests(tmp_path / "here") == digests(tmp_path / "there/store")


def test_dropped_reasons_are_counted_most_frequent_first():
    dropped = [Dropped(str(number), "b") for number in range(7)]
    dropped += [Dropped("x", "a"), Dropped("y", "c"), Dropped("z", "c")]
    counted = count_reasons(dropped)
    assert list(counted) == ["b", "c", "a"] and counted["b"] == {"count": 7, "examples": ["0", "1", "2", "3", "4"]}
    assert Counter({reason: found["count"] for reason, found in counted.items()}).total() == len(dropped)
