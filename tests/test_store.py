"""store: rows come back as they were, from anywhere, in little memory; what is no whole store is refused."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lengua.audio import log_mel
from lengua.data.sources import Dropped
from lengua.data.store import (
    ROWS_PER_GROUP,
    SHARD_SCHEMA,
    Row,
    Split,
    open_store,
    read_shard_summary,
    write_manifest,
    write_shard,
)
from lengua.runtime.errors import RequestError
from lengua.runtime.files import file_sha256, read_json, write_json


@pytest.fixture
def copy(tiny_store, tmp_path):
    """A copy of the tiny store that a test may change."""
    return shutil.copytree(tiny_store.path, tmp_path / "store")


def refused(path, **options) -> RequestError:
    with pytest.raises(RequestError) as caught:
        open_store(path, **options)
    assert caught.value.exit_code == 2
    return caught.value


def made_row(number: int, frames: int, random: np.random.Generator | None = None, **others) -> Row:
    values = np.full((frames, 80), number % 256, np.uint8)
    values = random.integers(0, 256, (frames, 80), np.uint8) if random else values
    return Row(f"clip-{number}", f"texto {number}", "es", "a", frames / 100, frames, 0.5 + number, values, **others)


def same(one: Row, other: Row) -> bool:
    fields = ("id", "text", "language", "speaker", "duration_s", "frames", "peak", "audio", "extra")
    return all(getattr(one, name) == getattr(other, name) for name in fields) and np.array_equal(one.mel, other.mel)


# Rows


def test_a_row_comes_back_as_it_was(tmp_path):
    extra = {"accent": "México", "up_votes": "2", "a": "ñ"}
    rows = [made_row(1, 40, audio=b"OggS...", extra=extra), made_row(2, 7)]
    write_shard(tmp_path / "train/shard-00000.parquet", rows)
    back = Split([tmp_path / "train/shard-00000.parquet"], 80)
    assert len(back) == 2 and same(back[0], rows[0]) and same(back[1], rows[1])
    assert back[1].audio is None and back[1].extra == {}
    assert back.column("id") == ["clip-1", "clip-2"] and back.frames.tolist() == [40, 7]
    assert json.loads(back.column("extra")[0]) == extra


def test_the_log_mel_of_a_row_is_that_of_its_clip(tiny_store, tiny_folder):
    from lengua import audio

    row = tiny_store.split("test")[0]
    samples = audio.load(row.audio)  # dev and test keep what was recorded
    log = log_mel.log_mel(samples)
    assert row.frames == len(log) and row.duration_s == pytest.approx(len(samples) / 16_000, abs=1e-3)
    np.testing.assert_allclose(row.log_mel(), log, atol=0.004)
    assert row.peak == log.max() and row.log_mel().max() == pytest.approx(row.peak, abs=1e-6)
    assert row.audio == (Path(tiny_folder.removeprefix("folder:")) / row.id).read_bytes()
    assert tiny_store.split("train")[0].audio is None


def test_random_access_is_sequential_access(tmp_path):
    """Over shard and row group borders, forwards, backwards and in no order."""
    sizes = [ROWS_PER_GROUP + 1, 1, 2 * ROWS_PER_GROUP, 0, 5]
    rows = [made_row(number, 3 + number % 5) for number in range(sum(sizes))]
    at = 0
    for index, size in enumerate(sizes):
        write_shard(tmp_path / f"{index}.parquet", rows[at : at + size])
        at += size
    split = Split([tmp_path / f"{index}.parquet" for index in range(len(sizes))], 80)
    assert len(split) == len(rows) == len(list(split))
    assert all(map(same, split, rows))
    order = np.random.default_rng(17).permutation(len(rows)).tolist()
    assert all(same(split[index], rows[index]) for index in order)
    assert all(same(split[-1 - index], rows[-1 - index]) for index in range(len(rows)))
    for outside in (len(rows), -len(rows) - 1):
        with pytest.raises(IndexError):
            split[outside]


def test_a_view_of_some_rows_is_a_split(tiny_store):
    split, order = tiny_store.split("train"), [7, 2, 11]
    view = split.subset(order)
    assert len(view) == 3 and all(same(view[at], split[index]) for at, index in enumerate(order))
    assert view.column("id") == [split[index].id for index in order] and same(view.subset([2])[0], split[11])
    assert all(map(same, pickle.loads(pickle.dumps(view)), view)) and len(split) == 15
    assert view.frames.tolist() == [split[index].frames for index in order]


def test_a_split_goes_to_other_processes(tiny_store):
    split = tiny_store.split("train")
    expected = list(split)
    other = pickle.loads(pickle.dumps(split))
    assert all(map(same, other, expected)) and len(other) == 15
    assert len(pickle.dumps(split)) < 20_000, "no log-mel travels along"


def test_reading_everything_takes_little_memory(tmp_path):
    random = np.random.default_rng(17)
    for index in range(12):
        rows = [made_row(index * 400 + number, 25, random) for number in range(400)]
        write_shard(tmp_path / f"{index}.parquet", rows)
    total = 12 * 400 * 25 * 80
    split = Split([tmp_path / f"{index}.parquet" for index in range(12)], 80)
    before, most = pa.total_allocated_bytes(), 0
    for index in range(0, len(split), 7):
        assert split[index].mel.shape == (25, 80)
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 0.6 * total, "only some row groups are kept"
    one = Split([tmp_path / "0.parquet"], 80)
    before = pa.total_allocated_bytes()
    assert one[0].frames == 25 and pa.total_allocated_bytes() - before < 3 * ROWS_PER_GROUP * 25 * 80


# Shards


def test_equal_rows_are_equal_bytes(tmp_path):
    for name in ("a", "b"):
        extra = {"b": "2", "a": "1"} if name == "a" else {"a": "1", "b": "2"}
        write_shard(tmp_path / name, [made_row(1, 30, extra=extra), Dropped("x", "no text")])
    assert file_sha256(tmp_path / "a") == file_sha256(tmp_path / "b")


def test_a_shard_tells_what_was_dropped_on_the_way_to_it(tmp_path):
    dropped = [Dropped("clip/ñ", "no text"), Dropped("b", "unreadable audio")]
    rows = [made_row(1, 100), made_row(2, 50)]
    write_shard(tmp_path / "a", [*rows, *dropped])
    summary = read_shard_summary(tmp_path / "a")
    assert (summary.rows, summary.seconds, summary.speakers) == (2, 1.5, {"a"})
    assert summary.dropped == dropped and summary.bytes == (tmp_path / "a").stat().st_size
    write_shard(tmp_path / "none", dropped)
    assert read_shard_summary(tmp_path / "none").rows == 0 and pq.read_schema(tmp_path / "none").equals(SHARD_SCHEMA)


def test_a_shard_that_fails_leaves_the_old_one(tmp_path):
    write_shard(tmp_path / "a", [made_row(1, 30)])
    before = file_sha256(tmp_path / "a")
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        write_shard(tmp_path / "a", [Row(1, None, "es", "a", "long", 1, 0.0, np.zeros((1, 80), np.uint8))])
    assert file_sha256(tmp_path / "a") == before and os.listdir(tmp_path) == ["a"]


# Stores


def test_a_store_opens_as_an_ordinary_dataset(tiny_store, tmp_path):
    from datasets import load_dataset

    files = {split: str(tiny_store.path / split / "*.parquet") for split in ("train", "dev", "test")}
    dataset = load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in dataset.items()} == {"train": 15, "dev": 4, "test": 5}
    for split, rows in dataset.items():
        for found, row in zip(rows, tiny_store.split(split), strict=True):
            values = np.frombuffer(found["mel"], np.uint8).reshape(found["frames"], 80)
            np.testing.assert_array_equal(log_mel.decode(found["peak"], values), row.log_mel())
            assert (found["id"], found["text"], found["speaker"]) == (row.id, row.text, row.speaker)
            assert json.loads(found["extra"]) == row.extra and found["audio"] == row.audio


def test_folders_that_are_no_store_are_refused(copy, tmp_path):
    assert "no folder" in refused(tmp_path / "missing").found
    assert "without manifest.json" in refused(tmp_path).found
    (copy / "manifest.json").rename(copy / "building.json")
    error = refused(copy)
    assert "without manifest.json" in error.found and f"--out {copy}" in error.do


def test_another_mel_size_is_refused(copy):
    assert open_store(copy, n_mels=80).n_mels == 80
    error = refused(copy, n_mels=128)
    assert "80" in error.found and "--n-mels 128" in error.do


def test_a_missing_shard_is_refused(copy):
    (copy / "dev/shard-00000.parquet").unlink()
    assert "dev/shard-00000.parquet" in refused(copy).found


def test_a_shard_cut_off_is_refused(copy):
    shard = copy / "dev/shard-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(RequestError, match="cut off or changed"):
        open_store(copy).split("dev")
    assert len(open_store(copy).split("train")) == 15, "the good ones are kept"


@pytest.mark.parametrize("changes", [{"version": 2}, {"version": None}, {"format": "something-else"}])
def test_another_version_or_format_is_refused(changes, copy):
    write_json(copy / "manifest.json", {**read_json(copy / "manifest.json"), **changes})
    assert "version" in refused(copy).found


def test_a_manifest_that_is_no_json_is_refused(copy):
    text = (copy / "manifest.json").read_text("utf-8")
    for broken in (text[: len(text) // 2], "", "[]", "17"):
        (copy / "manifest.json").write_text(broken, encoding="utf-8")
        assert str(copy) in str(refused(copy))


def test_a_split_that_is_not_there_is_refused(copy, tmp_path):
    with pytest.raises(RequestError, match=r"'validation'; found train \(15\), dev \(4\), test \(5\)"):
        open_store(copy).split("validation")
    write_manifest(tmp_path / "empty", {"n_mels": 80, "splits": {"train": {"utterances": 0, "shards": 0}}})
    with pytest.raises(RequestError, match=r"found train \(0\) in"):
        open_store(tmp_path / "empty").split("train")
