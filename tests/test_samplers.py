"""batches: everything random is a function of (seed, epoch, id), and nothing is lost or wasted."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT

from lengua.audio import log_mel
from lengua.audio.augmentation import SpecAugmentMasks, apply_masks
from lengua.data.store import Row, Split, write_shard
from lengua.data.streaming import StreamBlock
from lengua.models.checkpoints import load_tokenizer
from lengua.models.tokens import IGNORE_INDEX, decoder_pair, end_token
from lengua.runtime.rng import keyed_uniform
from lengua.training.dataset import ClipDataset, Collator
from lengua.training.samplers import BatchPlan, LengthBucketSampler, Packing, SampledClip, dev_batches, make_sampler

ROWS, BATCH = 203, 8
LOW, HIGH = 0.3, 1.5

DRAWS = """
import json, sys
from pathlib import Path
from lengua.training.samplers import BatchPlan, LengthBucketSampler
from lengua.data.store import Split
sampler = LengthBucketSampler(Split([Path(sys.argv[1])], 80), BatchPlan(8, (0.3, 1.5), 0.08, seed=17))
for epoch in (0, 1, 5):
    sampler.set_epoch(epoch)
    print(json.dumps([[(draw.index, draw.window) for draw in batch] for batch in sampler]))
"""


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    """A shard of clips of 0.5 to 7 s, in no order; their log-mel is blank."""
    lengths = np.random.default_rng(17).integers(50, 700, ROWS).tolist()
    rows = [
        Row(f"clip-{number}", "hola", "es", "a", frames / 100, frames, 1.0, np.zeros((frames, 80), np.uint8))
        for number, frames in enumerate(lengths)
    ]
    path = tmp_path_factory.mktemp("lengths") / "shard-00000.parquet"
    write_shard(path, rows)
    return path


@pytest.fixture
def split(shard):
    return Split([shard], 80)


def sampler(split, epoch=0, share=0.08, seed=17, longest=3000, margin=(LOW, HIGH)) -> LengthBucketSampler:
    drawn = LengthBucketSampler(split, BatchPlan(BATCH, margin, share, seed, longest))
    drawn.set_epoch(epoch)
    return drawn


def test_chance_depends_on_each_of_its_arguments_and_on_nothing_else():
    assert keyed_uniform(17, 0, "clip", "margin") == pytest.approx(0.6248128, abs=1e-7)  # the same in every version
    others = [(18, 0, "clip", "margin"), (17, 1, "clip", "margin"), (17, 0, "b", "margin"), (17, 0, "clip", "order")]
    assert len({keyed_uniform(17, 0, "clip", "margin"), *(keyed_uniform(*other) for other in others)}) == 5
    many = [keyed_uniform(17, 0, str(number), "margin") for number in range(4000)]
    assert 0 <= min(many) < 0.01 and 0.99 < max(many) < 1
    assert np.histogram(many, 10)[0] == pytest.approx(400, abs=80)


def test_another_process_draws_the_same_batches(shard, split):
    done = subprocess.run(
        [sys.executable, "-c", DRAWS, shard],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=True,
    )
    drawn = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(drawn) == 3
    for epoch, batches in zip((0, 1, 5), drawn, strict=True):
        expected = list(sampler(split, epoch))
        assert [[SampledClip(*draw) for draw in batch] for batch in batches] == expected
        assert list(sampler(split, epoch)) == expected  # nor does it depend on what was drawn before


def test_every_row_comes_once_an_epoch_and_no_two_epochs_are_the_same(split):
    seen = []
    for epoch in range(4):
        batches = list(sampler(split, epoch))
        assert len(batches) == len(sampler(split)) == 27
        assert sorted(draw.index for batch in batches for draw in batch) == list(range(ROWS))
        assert sorted(map(len, batches)) == [2, 2, 7] + [BATCH] * 24
        seen.append(batches)
    assert list(sampler(split, 2)) == seen[2], "nor does it depend on what was drawn before"
    assert all(a != b for at, a in enumerate(seen) for b in seen[:at])
    company = [{frozenset(draw.index for draw in batch) for batch in batches} for batches in seen]
    assert len(company[0] & company[1]) < 5, "clips keep changing whom they share a batch with"
    assert list(sampler(split, seed=18)) != seen[0]


def test_margins_are_within_their_bounds(split):
    margins = []
    for epoch in range(6):
        for batch in sampler(split, epoch, share=0.0):
            window, longest = batch[0].window, max(int(split.frames[draw.index]) for draw in batch)
            assert {draw.window for draw in batch} == {window}
            assert longest + 100 * LOW <= window <= longest + 100 * HIGH + 7
            margins.append(window - longest)
    assert min(margins) < 80 and max(margins) > 130, "they are drawn from all of the range"


def test_the_padded_share_is_what_was_asked(split):
    for share, padded in ((0.04, 1), (0.08, 2), (0.3, 10), (0.8, 51)):
        batches = list(sampler(split, share=share))
        assert [len(batch) for batch in batches if batch[0].window == 3000] == [2] * padded
        assert padded / len(batches) == pytest.approx(share, abs=0.015)
    assert max(batch[0].window for batch in sampler(split, share=0.0)) < 1000
    everything = list(sampler(split, share=1.0))
    assert {batch[0].window for batch in everything} == {3000} and sorted(map(len, everything)) == [3] + [8] * 25


def test_every_clip_gets_its_turn_in_a_padded_batch(split):
    padded = [draw.index for epoch in range(200) for b in sampler(split, epoch) if b[0].window == 3000 for draw in b]
    assert len(padded) == 200 * 4 and len(set(padded)) > 0.95 * ROWS
    lengths = split.frames[padded]
    assert lengths.mean() == pytest.approx(split.frames.mean(), rel=0.05), "of any length"


@pytest.mark.parametrize(
    ("clips", "batch_size", "share", "padded", "batches"),
    [
        (1, 8, 0.08, 0, 1),
        (8, 8, 0.08, 0, 1),
        (9, 8, 0.08, 0, 2),
        (850, 8, 0.08, 9, 113),
        (850, 1, 0.08, 68, 850),
        (850, 8, 0.0, 0, 107),
        (3, 8, 0.99, 1, 2),
        (11, 2, 0.999, 11, 11),
        (850, 8, 1.0, 107, 107),
        (0, 8, 0.08, 0, 0),
    ],
)
def test_batches_are_counted_before_they_are_drawn(clips, batch_size, share, padded, batches):
    drawing = BatchPlan(batch_size, (LOW, HIGH), share, 17)
    assert (drawing.padded_batches(clips), drawing.batches(clips)) == (padded, batches)
    blank = [Row(f"{at}", "hola", "es", "a", 1.0, 100, 1.0, np.zeros((100, 80), np.uint8)) for at in range(clips)]
    drawn = list(make_sampler(StreamBlock(0, 0, blank, []), drawing))
    assert len(drawn) == batches and sum(batch[0].window == 3000 for batch in drawn) == padded
    assert sorted(draw.index for batch in drawn for draw in batch) == list(range(clips))


def test_no_window_is_longer_than_the_models(split):
    windows = [batch[0].window for epoch in range(4) for batch in sampler(split, epoch, longest=400)]
    assert max(windows) == 400 and min(windows) < 300


def test_little_is_wasted_on_padding_shorter_clips_to_the_longest(split):
    def waste(batches) -> float:
        frames = [[int(split.frames[draw.index]) for draw in batch] for batch in batches]
        return sum(max(batch) * len(batch) for batch in frames) / sum(map(sum, frames)) - 1

    naive = [[SampledClip(index, 0) for index in range(at, min(at + BATCH, ROWS))] for at in range(0, ROWS, BATCH)]
    assert waste(naive) > 0.5
    assert all(waste(sampler(split, epoch)) < 0.25 for epoch in range(4))
    assert waste(dev_batches(split, BATCH, 0.5, 3000)) < 0.05


def test_dev_batches_hold_every_row_once_with_one_margin(split):
    for margin, longest in ((0.5, 3000), (None, 3000), (None, 100)):
        batches = dev_batches(split, BATCH, margin, longest)
        assert sorted(draw.index for batch in batches for draw in batch) == list(range(ROWS))
        if margin is None:
            assert {draw.window for batch in batches for draw in batch} == {longest}
    assert dev_batches(split, BATCH, 0.5, 3000) == dev_batches(split, BATCH, 0.5, 3000)


def test_a_batch_is_what_the_model_reads(tiny_store, tiny_model):
    rows, tokenizer = tiny_store.split("train"), load_tokenizer(tiny_model)
    dataset, collator = ClipDataset(rows), Collator(tokenizer, "es")
    batch = collator([dataset[SampledClip(index, 96)] for index in (0, 13, 4)])
    assert set(batch) == {"input_features", "decoder_input_ids", "labels"}
    assert batch["input_features"].shape == (3, 80, 96) and batch["input_features"].dtype == torch.float32
    inputs, labels = batch["decoder_input_ids"], batch["labels"]
    assert inputs.dtype == labels.dtype == torch.int64 and inputs.shape == labels.shape
    for index, ids, targets in zip((0, 13, 4), inputs.tolist(), labels.tolist(), strict=True):
        pair = decoder_pair(tokenizer, rows[index].text, "es")
        size = len(pair[0])
        assert (ids[:size], targets[:size]) == pair
        assert set(ids[size:]) <= {end_token(tokenizer)} and set(targets[size:]) <= {IGNORE_INDEX}
        assert targets.count(end_token(tokenizer)) == 1, "one end token in the loss, although it is the padding, too"
    assert len({len(decoder_pair(tokenizer, rows[index].text, "es")[0]) for index in (0, 13, 4)}) > 1


def test_a_clip_is_followed_by_its_own_silence(tiny_store):
    rows = tiny_store.split("train")
    floors = set()
    for index in range(len(rows)):
        clip, row = ClipDataset(rows)[SampledClip(index, 200)], rows[index]
        np.testing.assert_array_equal(clip.features[:, : row.frames], row.log_mel().T)
        silence = clip.features[:, row.frames :]
        assert silence.shape[1] > 100 and (silence == np.float32(log_mel.silence_floor(row.peak))).all()
        floors.add(float(silence[0, 0]))
    assert len(floors) > 5, "each its own, and never zero"
    assert 0.0 not in floors


@pytest.mark.parametrize("packing", [False, True])
def test_two_processes_share_all_batches_the_smaller_one_too(packing, split, tiny_model):
    """As accelerate shares them; 203 clips are batches of 8, a smaller one, and padded ones anywhere among them."""
    from accelerate.data_loader import BatchSamplerShard

    packs = Packing(load_tokenizer(tiny_model), 0.2) if packing else None
    for epoch in range(6):
        drawn = make_sampler(split, BatchPlan(BATCH, (LOW, HIGH), 0.08, 17, packing=packs), epoch, ranks=2)
        shares = [list(BatchSamplerShard(drawn, 2, rank, even_batches=False)) for rank in (0, 1)]
        assert list(map(len, shares)) == [13, 13]
        assert [batch for pair in zip(*shares, strict=True) for batch in pair] == list(drawn)


# SpecAugment


def test_a_stretch_and_a_band_are_hidden_behind_silence_and_nothing_else():
    mel = np.arange(400 * 80, dtype=np.float32).reshape(400, 80)
    shown = apply_masks(mel, SpecAugmentMasks(time=(0.999, 0.5), band=(0.5, 0.999)), silence=-1.25)
    expected = mel.copy()
    expected[160:240] = -1.25  # a fifth of 400 frames; in the middle of the 320 places that are left
    expected[:, 66:80] = -1.25  # half of 27 bins, as far up as they go
    np.testing.assert_array_equal(shown, expected)
    assert mel.min() == 0, "what was given is left as it was"
    np.testing.assert_array_equal(apply_masks(mel, SpecAugmentMasks((0.0, 0.9), (0.0, 0.9)), -1.25), mel)


@pytest.mark.parametrize(("frames", "n_mels", "most"), [(3000, 80, 100), (400, 128, 80), (34, 80, 6), (3, 80, 0)])
def test_no_more_is_hidden_than_the_policy_allows(frames, n_mels, most):
    hidden = []
    for draw in np.random.default_rng(17).random((400, 4)):
        shown = apply_masks(
            np.ones((frames, n_mels), np.float32), SpecAugmentMasks(tuple(draw[:2]), tuple(draw[2:])), 0.0
        )
        hidden.append([(shown == 0).all(axis=1), (shown == 0).all(axis=0)])
    time, band = (np.array(side) for side in zip(*hidden, strict=True))
    assert time.sum(axis=1).max() == most and band.sum(axis=1).max() == n_mels * 27 // 80
    assert band.sum(axis=1).min() == 0 and band[:, 0].any() and band[:, -1].any()
    assert most == 0 or (time[:, :100].any() and time[:, -100:].any())


def test_what_is_hidden_depends_on_seed_epoch_and_id_alone(split):
    def masks(seed=17, epoch=0, batch=BATCH) -> dict:
        drawn = LengthBucketSampler(split, BatchPlan(batch, (LOW, HIGH), 0.08, seed, spec_augment=True), epoch)
        return {draw.index: draw.masks for batch in drawn for draw in batch}

    first = masks()
    assert len(set(first.values())) == ROWS and masks(batch=3) == first
    for others in (masks(seed=18), masks(epoch=1)):
        assert not set(others.values()) & set(first.values())


def test_hiding_changes_nothing_else_of_a_draw_and_dev_is_never_hidden(split):
    shown = list(sampler(split))
    hidden = list(LengthBucketSampler(split, BatchPlan(BATCH, (LOW, HIGH), 0.08, 17, spec_augment=True)))
    assert [[(draw.index, draw.window) for draw in batch] for batch in hidden] == [
        [(draw.index, draw.window) for draw in batch] for batch in shown
    ]
    assert {draw.masks for batch in [*shown, *dev_batches(split, BATCH, 0.5, 3000)] for draw in batch} == {None}


def test_a_clip_is_hidden_behind_its_own_floor_and_never_behind_zeros(tiny_store):
    rows = tiny_store.split("train")
    clips, masks = ClipDataset(rows), SpecAugmentMasks((0.999, 0.3), (0.999, 0.4))
    for index in range(len(rows)):
        plain, hidden = clips[SampledClip(index, 100)].features, clips[SampledClip(index, 100, masks)].features
        changed = plain != hidden
        assert changed.mean() > 0.05
        assert (
            set(hidden[changed]) == {np.float32(log_mel.silence_floor(rows[index].peak))} and 0.0 not in hidden[changed]
        )
