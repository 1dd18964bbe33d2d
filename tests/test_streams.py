"""A stream gives a store's rows without a store; killed, it goes on with the rows it would have seen; ranks share."""

import os
import subprocess
import sys
from dataclasses import replace
from itertools import islice

import pytest
from conftest import ROOT, losses, tiny_training

from lengua.data import features
from lengua.data.store import open_store
from lengua.data.streaming import ITEMS_PER_CHUNK, Stream
from lengua.options import FeatureOptions, Filters, TrainOptions
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import file_sha256, read_json, read_jsonl
from lengua.training import trainer
from lengua.training.dataset import Collator, StreamedBatches, StreamPosition
from lengua.training.samplers import BatchPlan
from lengua.training.train import train

DRAWING = BatchPlan(batch_size=4, margin_s=(0.0, 0.1), padded_share=0.1, seed=17, longest=100)


@pytest.fixture
def packed(tiny_release) -> str:
    """The tiny release as its archive."""
    return f"common_voice:{tiny_release.parent.parent}/es.tar.gz"


@pytest.fixture
def options(packed, tiny_model, tmp_path) -> TrainOptions:
    """Thirty steps of four clips, streamed in windows of 16, evaluated at 10, 20 and 30."""
    streamed = {"stream": True, "shuffle_window": 16, "workers": 1, "steps": 30, "evaluations": 3}
    return tiny_training(packed, tiny_model, tmp_path / "run", learning_rate=1e-3, **streamed)


def stream(source: str, window: int = 16, workers: int = 1, **more) -> Stream:
    return Stream(FeatureOptions(source, workers=workers), "train", window, **more)


def epoch(blocks) -> list:
    """Return the blocks of the first epoch that comes."""
    blocks, kept = iter(blocks), []
    for block in blocks:
        if kept and block.epoch != kept[0].epoch:
            break
        kept.append(block)
    return kept


def content(row) -> tuple:
    return tuple(value for name, value in vars(row).items() if name not in ("mel", "audio")), row.mel.tobytes()


def ids(batches) -> list[list[str]]:
    return [[clip.row.id for clip in batch] for batch in batches]


def flat(lists: list[list[str]]) -> list[str]:
    return [name for names in lists for name in names]


# The same rows


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stream_gives_the_rows_of_the_store(packed, tiny_release, tmp_path, workers):
    built = features.build(FeatureOptions(f"common_voice:{tiny_release}", tmp_path / "store", workers=1))
    stored = list(open_store(built.path).split("train"))
    blocks = epoch(stream(packed, workers=workers).blocks())
    assert [len(block) for block in blocks] == [16, 16, 16, 2] and len(stored) == 50
    assert [content(row) for block in blocks for row in block] == [content(row) for row in stored]


def test_what_is_left_out_is_told_and_what_is_filtered_too(packed):
    asked = FeatureOptions(packed, workers=1, max_seconds=0.5, filters=Filters(max_utterances=30))
    blocks = epoch(Stream(asked, window=64).blocks())
    reasons = {item.reason for block in blocks for item in block.dropped}
    assert reasons == {"longer than 0.5 s", "over the cap"}
    assert 0 < sum(map(len, blocks)) < 30


def test_a_stream_goes_on_from_any_block(packed):
    blocks = list(islice(stream(packed).blocks(), 10))
    assert [(block.epoch, block.number) for block in blocks[:6]] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]
    for start in (0, 2, 3, 5):
        again = list(islice(stream(packed).blocks(blocks[start].epoch, blocks[start].number), 3))
        assert [block.column("id") for block in again] == [block.column("id") for block in blocks[start : start + 3]]


def test_ranks_see_each_row_once(packed, ranks=3):
    whole = [row.id for block in epoch(stream(packed).blocks()) for row in block]
    shares = [epoch(stream(packed, rank=rank, ranks=ranks).blocks()) for rank in range(ranks)]
    seen = [row.id for share in shares for block in share for row in block]
    assert len(seen) == len(set(seen)) == 50 and set(seen) == set(whole)
    assert all(len(block) == 16 for share in shares for block in share[:-1])


def test_windows_are_whole_chunks_and_the_length_is_known(packed, tiny_folder):
    assert stream(packed, window=17).window == 2 * ITEMS_PER_CHUNK
    assert stream(packed).items == 50
    assert Stream(FeatureOptions(tiny_folder, language="es"), "dev").items == 4


def test_a_stream_without_a_row_ends(packed):
    with pytest.raises(LenguaError, match="expected rows of the split 'train'; found none"):
        list(islice(Stream(FeatureOptions(packed, workers=1, max_seconds=0.1)).blocks(), 5))


# Batches


def test_batches_are_shuffled_within_the_window_and_anew_in_every_epoch(packed):
    drawn = list(StreamedBatches(stream(packed), DRAWING, batches=26))
    assert all(len(batch) <= 4 for batch in drawn) and sum(map(len, drawn)) == 100
    first, second = ids(drawn[:13]), ids(drawn[13:])
    in_order = [row.id for block in epoch(stream(packed).blocks()) for row in block]
    assert sorted(flat(first)) == sorted(flat(second)) == in_order
    assert first != second and flat(first) != in_order
    assert set(flat(first[:4])) == set(in_order[:16])  # one window
    assert ids(StreamedBatches(stream(packed, workers=2), DRAWING, batches=26)) == ids(drawn)


@pytest.mark.parametrize("taken", [0, 1, 4, 13, 20])
def test_batches_go_on_from_their_place(packed, taken):
    whole = StreamedBatches(stream(packed), DRAWING, batches=26)
    every = [([clip.row.id for clip in batch], batch[0].features.shape, whole.place) for batch in whole]
    place = every[taken - 1][2] if taken else StreamPosition()
    again = StreamedBatches(stream(packed), DRAWING, 26 - taken, place)
    assert [([clip.row.id for clip in batch], batch[0].features.shape, again.place) for batch in again] == every[taken:]


def test_a_position_is_for_the_very_stream_it_was_saved_from(packed, tmp_path):
    for rank in range(2):
        position = StreamPosition(3, 1, rank)
        StreamedBatches(stream(packed, rank=rank, ranks=2), DRAWING, 1, position).save_position(tmp_path)
    batches = StreamedBatches(stream(packed, rank=1, ranks=2), DRAWING, 1)
    batches.load_position(tmp_path)
    assert batches.place == StreamPosition(3, 1, 1)
    for other in (stream(packed), stream(packed, rank=2, ranks=3), stream(packed, window=64, ranks=2)):
        with pytest.raises(RequestError, match="train with as before"):
            StreamedBatches(other, DRAWING, 1).load_position(tmp_path)


# Training


class Killed(BaseException):
    """Ends a run as a kill does: nothing is saved any more."""


class RecordingCollator(Collator):
    """Writes down the ids and the window of each batch of training."""

    batches: list[list]

    def __call__(self, clips):
        """Collate; the ids of dev come after those of train."""
        if clips[0].row.id < "common_voice_es_00050":
            self.batches.append([*(clip.row.id for clip in clips), clips[0].features.shape[1]])
        return super().__call__(clips)


def killed(step: int):
    def watch(progress):
        if progress.stage == "training" and progress.done == step and "WER" not in progress.note:
            raise Killed

    return watch


def test_killed_and_resumed_it_sees_the_clips_it_would_have_seen(options, tmp_path, monkeypatch):
    """Killed at three steps; what follows the last checkpoint (every tenth step saves one) is done again."""
    monkeypatch.setattr(trainer, "Collator", RecordingCollator)

    def batches_of(out, die_at: int) -> list[list]:
        monkeypatch.setattr(RecordingCollator, "batches", [], raising=False)
        try:
            train(replace(options, out=out), killed(die_at))
        except Killed:
            assert die_at
        return RecordingCollator.batches

    whole = batches_of(tmp_path / "whole", 0)
    assert len(whole) == 30
    for start, die_at in ((0, 7), (0, 20), (10, 23), (20, 0)):
        seen = batches_of(tmp_path / "cut", die_at)
        assert seen == whole[start : die_at or 30], f"from step {start} to {die_at}"
    weights = [file_sha256(tmp_path / name / "model/model.safetensors") for name in ("whole", "cut")]
    assert weights[0] == weights[1]
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["history.jsonl", "model", "run.json", "store"]
    assert list(read_json(tmp_path / "cut/store/manifest.json")["splits"]) == ["dev"]
    assert [record["epoch"] for record in read_jsonl(tmp_path / "cut/history.jsonl") if record["step"] == 30] != [0]


def test_epochs_make_steps_where_the_length_is_known(options):
    assert train(replace(options, steps=None, epochs=1.0, evaluations=1)).steps == 14  # one is padded
    with pytest.raises(RequestError, match="leave out --stream"):
        train(replace(options, source=str(options.out / "store"), out=options.out.parent / "other"))


@pytest.mark.slow
def test_two_processes_learn_together(options):
    """A real run of two processes: both share the clips, one of them writes and speaks."""
    asked = f"{options.source} --base {options.base} --out {options.out} --steps 14 --batch-size 4 --evaluations 2"
    more = "--margin-s 0 0.1 --precision fp32 --device cpu --workers 1 --learning-rate 1e-3"
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "lengua", "train"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*start, *asked.split(), *more.split(), "--stream", "--shuffle-window", "16"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("14 steps") == 1 and done.stderr.count("training: 14/14") >= 1
    history = read_jsonl(options.out / "history.jsonl")
    assert [record["step"] for record in history if "dev_wer" in record] == [7, 14]
    assert len(losses(options.out)) == 2 and (options.out / "model").is_dir()
