"""packed batches: every clip once an epoch, none of it cut, and labels that say what is heard and when."""

import numpy as np
import pytest

from lengua.audio import log_mel
from lengua.data.store import Row
from lengua.data.streaming import Stream, StreamBlock
from lengua.models.checkpoints import load_tokenizer
from lengua.models.tokens import IGNORE_INDEX, MAX_LABEL_TOKENS, decoder_pair, timestamped_pair, word_tokens
from lengua.options import FeatureOptions
from lengua.training.dataset import ClipDataset, Collator, StreamedBatches
from lengua.training.samplers import (
    BatchPlan,
    PackedWindowSampler,
    Packing,
    SampledClip,
    SampledPack,
    join_mels,
    make_sampler,
    pack_windows,
    utterance_times,
)

CLIPS, BATCH = 203, 24
PROMPT = ["<|startoftranscript|>", "<|es|>", "<|transcribe|>"]


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return load_tokenizer(tiny_model)


def row(number: int, text: str, duration_s: float, peak: float = 1.0) -> Row:
    """A clip of noise as long as it is said to be."""
    frames = int(np.ceil(duration_s * 100)) + 2
    coded = np.random.default_rng(number).integers(0, 256, (frames, 80), dtype=np.uint8)
    return Row(f"clip-{number}", text, "es", "a", duration_s, frames, peak, coded)


@pytest.fixture(scope="module")
def block():
    """Clips of 0.5 to 7 s, in no order."""
    lengths = np.random.default_rng(17).integers(50, 700, CLIPS) / 100
    return StreamBlock(
        0, 0, [row(number, "qué tal", length, peak=length / 10) for number, length in enumerate(lengths)], []
    )


def sampler(block, tokenizer, epoch=0, share=0.2, seed=17, longest=3000, margin=(0.3, 1.5), padded=0.0, batch=BATCH):
    drawing = BatchPlan(batch, margin, padded, seed, longest, packing=Packing(tokenizer, share))
    return make_sampler(block, drawing, epoch)


def frames_of(block, pack) -> int:
    return sum(block[draw.index].frames for draw in pack.draws) + sum(pack.pauses)


def test_every_clip_comes_once_an_epoch_and_no_two_epochs_are_the_same(block, tokenizer):
    seen = []
    for epoch in range(4):
        drawn = sampler(block, tokenizer, epoch)
        batches = list(drawn)
        assert isinstance(drawn, PackedWindowSampler) and len(batches) == len(drawn) == 9
        sizes = [sum(len(pack.draws) for pack in batch) for batch in batches]
        assert sizes == [BATCH] * 8 + [CLIPS % BATCH]
        assert sorted(draw.index for batch in batches for pack in batch for draw in pack.draws) == list(range(CLIPS))
        seen.append(batches)
    assert list(sampler(block, tokenizer, 2)) == seen[2]
    assert all(a != b for at, a in enumerate(seen) for b in seen[:at])
    assert list(sampler(block, tokenizer, seed=18)) != seen[0]
    order = [[draw.index for batch in batches for pack in batch for draw in pack.draws] for batches in seen]
    assert all(np.corrcoef(indices, np.arange(CLIPS))[0, 1] < 0.3 for indices in order)


@pytest.mark.parametrize("longest", [3000, 1000])
def test_no_window_is_longer_than_the_models_and_no_clip_is_cut(longest, block, tokenizer):
    windows = []
    for batch in (batch for epoch in range(3) for batch in sampler(block, tokenizer, epoch, longest=longest)):
        assert {pack.window for pack in batch} == {batch[0].window}
        assert batch[0].window <= longest and batch[0].window % 8 == 0
        fullest = max(frames_of(block, pack) for pack in batch)
        assert fullest <= batch[0].window <= max(fullest + 158, fullest)
        windows += [(pack.window, frames_of(block, pack)) for pack in batch]
    assert max(window for window, _ in windows) == longest
    filled = np.array(windows, float)
    assert filled[:, 1].sum() / filled[:, 0].sum() > 0.8, "little is padding"


def test_a_share_of_batches_is_padded_to_the_full_window(block, tokenizer):
    drawn = [batch[0].window for epoch in range(60) for batch in sampler(block, tokenizer, epoch, padded=0.25, batch=4)]
    assert sum(window == 3000 for window in drawn) / len(drawn) == pytest.approx(0.25, abs=0.02)


def test_a_share_of_an_adaptive_runs_batches_joins_clips_with_pauses_between(block, tokenizer):
    def drawn(share: float, epoch: int = 0) -> list:
        packing = Packing(tokenizer, 0.5, share, max_pause_s=1.5) if share else None
        return list(make_sampler(block, BatchPlan(8, (0.3, 1.5), 0.1, 17, packing=packing), epoch))

    batches = [batch for epoch in range(20) for batch in drawn(0.25, epoch)]
    packed = [batch for batch in batches if isinstance(batch[0], SampledPack)]
    assert len(packed) / len(batches) == pytest.approx(0.25, abs=0.03) and len(drawn(0.25)) == len(drawn(0.0))
    clips = [one for batch in drawn(0.25) for pack in batch for one in getattr(pack, "draws", [pack])]
    assert sorted(one.index for one in clips) == list(range(CLIPS))
    assert drawn(0.25) == drawn(0.25) != drawn(0.25, epoch=1)
    packs = [pack for batch in packed for pack in batch]
    sizes, pauses = [len(pack.draws) for pack in packs], [pause for pack in packs for pause in pack.pauses[:-1]]
    assert {1, 2, 3, 8} <= set(sizes) and max(pack.window for pack in packs) == 3000
    assert all(pack.pauses[-1] == 0 and frames_of(block, pack) <= pack.window for pack in packs)
    assert min(pauses) < 15 and max(pauses) > 135 and np.mean(pauses) == pytest.approx(75, abs=8)


@pytest.mark.parametrize(
    ("frames", "tokens", "expected"),
    [
        ([1000, 2000, 1500, 500], [9, 9, 9, 9], [[1, 3], [0, 2]]),  # 25 s each
        ([1600, 1600, 1600], [9, 9, 9], [[0], [1], [2]]),  # 48 s in all, but no two go together
        ([1000, 2000, 1500, 500], [15, 15, 15, 9], [[0, 3], [1], [2]]),  # too many words for two windows
        ([4000, 100], [9, 9], [[0], [1]]),
        ([100], [30], [[0]]),
    ],
)
def test_clips_share_as_few_windows_as_will_do(frames, tokens, expected):
    assert sorted(pack_windows(frames, tokens, 3000, most_tokens=25)) == sorted(expected)


def test_no_label_is_longer_than_the_decoder(tokenizer):
    text = "una frase larga " * 6
    rows = [row(number, text + "x" * (number % 7), 0.8) for number in range(80)]
    block, longest = StreamBlock(0, 0, rows, []), 0
    for share in (0.0, 1.0):
        for batch in sampler(block, tokenizer, share=share, batch=40):
            lengths = [len(ClipDataset(block)[pack].pair(tokenizer, "es")[1]) for pack in batch]
            longest = max(longest, *lengths)
            assert max(lengths) <= MAX_LABEL_TOKENS
    assert longest > 0.8 * MAX_LABEL_TOKENS, "the bound was met"


def test_timestamps_are_as_frequent_as_asked_and_a_function_of_seed_epoch_and_id(block, tokenizer):
    def stamped(share: float, epoch: int = 0) -> dict:
        drawn = sampler(block, tokenizer, epoch, share, batch=4)
        return {pack.draws[0].index: pack.timestamps for batch in drawn for pack in batch}

    many = [stamp for epoch in range(40) for stamp in stamped(0.2, epoch).values()]
    assert len(many) > 2000 and np.mean(many) == pytest.approx(0.2, abs=0.03)
    assert not any(stamped(0.0).values()) and all(stamped(1.0).values())
    assert stamped(0.2) == stamped(0.2) != stamped(0.2, epoch=1)


# What is heard


def test_joined_log_mels_are_cut_off_at_the_floor_of_the_loudest():
    quiet = np.array([[-1.5, -0.9], [0.2, -1.0]], np.float32)  # peak 0.2
    loud = np.array([[-0.8, 1.2]], np.float32)  # peak 1.2, floor -0.8
    joined, peak = join_mels([quiet, loud], [0.2, 1.2], [1, 0])
    assert peak == 1.2 and joined.dtype == np.float32
    np.testing.assert_allclose(joined, [[-0.8, -0.8], [0.2, -0.8], [-0.8, -0.8], [-0.8, 1.2]])


def test_joined_log_mels_are_those_of_joined_speech():
    """Each clip is followed by two frames of the zeros behind it; at the border each hears a little of the other."""
    random = np.random.default_rng(17)
    clips = [random.normal(0, loud, 160 * length).astype(np.float32) for loud, length in ((0.02, 90), (0.3, 70))]
    joined, _ = join_mels(
        [log_mel.log_mel(clip) for clip in clips], [float(log_mel.log_mel(clip).max()) for clip in clips], [0, 0]
    )
    heard = log_mel.log_mel(np.concatenate([np.pad(clip, (0, 320)) for clip in clips])[:-320])
    assert len(joined) == len(heard) == 92 + 72
    inside = [*range(90), *range(94, 164)]
    np.testing.assert_allclose(joined[inside], heard[inside], atol=2e-3)


def test_a_packed_clip_is_its_clips_and_then_the_silence_of_the_loudest(block):
    pack = SampledPack((SampledClip(3, 0), SampledClip(7, 0)), 1600, False, (50, 0))
    clip, rows = ClipDataset(block)[pack], [block[3], block[7]]
    assert clip.rows == tuple(rows) and clip.features.shape == (80, 1600)
    floor = np.float32(log_mel.silence_floor(max(row.peak for row in rows)))
    at = 0
    for row in rows:
        part = clip.features[:, at : at + row.frames]
        np.testing.assert_array_equal(part, np.maximum(row.log_mel().T, floor))
        at += row.frames
        assert (clip.features[:, at : at + 50] == floor).all()
        at += 50 * (row is rows[0])
    assert (clip.features[:, at:] == floor).all() and clip.features.min() == floor


# What is said


def words(tokenizer, text: str) -> list[str]:
    return [tokenizer.id_to_token(token) for token in word_tokens(tokenizer, text)]


def test_timestamps_stand_around_each_utterance(tokenizer):
    rows = (row(0, "hola", 4.8), row(1, "qué tal", 3.217), row(2, "sí", 0.5))
    assert [row.frames for row in rows] == [482, 324, 52]
    pack = SampledPack(tuple(SampledClip(number, 0) for number in range(3)), 900, True, (0, 100, 0))
    inputs, labels = ClipDataset(StreamBlock(0, 0, list(rows), []))[pack].pair(tokenizer, "es")
    said = ["<|0.00|>", *words(tokenizer, "hola"), "<|4.80|>", "<|4.82|>", *words(tokenizer, "qué tal"), "<|8.04|>"]
    said += ["<|9.06|>", *words(tokenizer, "sí"), "<|9.56|>"]
    assert [tokenizer.id_to_token(token) for token in inputs] == [*PROMPT, *said]
    assert labels[:2] == [IGNORE_INDEX, IGNORE_INDEX] and len(labels) == len(inputs)
    assert [tokenizer.id_to_token(token) for token in labels[2:]] == [*said, "<|endoftext|>"]
    assert words(tokenizer, "hola")[0].startswith("Ġ"), "as Whisper writes it"


def test_without_timestamps_the_texts_are_joined_with_a_space(tokenizer):
    block = StreamBlock(0, 0, [row(0, "hola", 4.8), row(1, "qué tal", 3.2)], [])
    pair = ClipDataset(block)[SampledPack((SampledClip(0, 0), SampledClip(1, 0)), 900, False, (0, 0))].pair(
        tokenizer, "es"
    )
    assert pair == decoder_pair(tokenizer, "hola qué tal", "es")


def test_no_time_is_before_the_last_and_none_is_behind_the_window(block, tokenizer):
    seen = 0
    for batch in sampler(block, tokenizer, share=1.0):
        for pack in batch:
            rows = [block[draw.index] for draw in pack.draws]
            times = utterance_times([row.frames for row in rows], [row.duration_s for row in rows], pack.pauses)
            ticks = [round(time * 50) for span in times for time in span]
            assert ticks[0] == 0 and sorted(ticks) == ticks and ticks[-1] * 2 <= pack.window
            seen += len(times)
    assert seen == CLIPS


def test_the_last_time_of_a_full_window_has_its_token(tokenizer):
    inputs, _ = timestamped_pair(tokenizer, [(0.0, 15.009, "hola"), (15.011, 30.0, "sí")], "es")
    stamps = [tokenizer.id_to_token(token) for token in inputs if tokenizer.id_to_token(token)[2:3].isdigit()]
    assert stamps == ["<|0.00|>", "<|15.00|>", "<|15.02|>", "<|30.00|>"]


def test_a_batch_of_packed_clips_is_what_the_model_reads(block, tokenizer):
    clips, collate = ClipDataset(block), Collator(tokenizer, "es")
    for packs in sampler(block, tokenizer, share=0.5):
        batch = collate([clips[pack] for pack in packs])
        assert set(batch) == {"input_features", "decoder_input_ids", "labels"}
        assert batch["input_features"].shape == (len(packs), 80, packs[0].window)
        assert batch["decoder_input_ids"].shape == batch["labels"].shape
        stamped = [tokenizer.token_to_id("<|0.00|>") in ids for ids in batch["decoder_input_ids"].tolist()]
        plain = [tokenizer.token_to_id("<|notimestamps|>") in ids for ids in batch["decoder_input_ids"].tolist()]
        assert stamped == [pack.timestamps for pack in packs] == [not other for other in plain]


def test_what_is_hidden_of_a_packed_clip_is_hidden_in_its_part_alone(block, tokenizer):
    drawing = BatchPlan(8, (0.3, 1.5), 0.0, 17, spec_augment=True, packing=Packing(tokenizer, 0.2))
    pack = next(pack for batch in make_sampler(block, drawing) for pack in batch if len(pack.draws) > 2)
    whole = SampledPack(
        tuple(SampledClip(draw.index, draw.window) for draw in pack.draws), pack.window, pack.timestamps, pack.pauses
    )
    clips = ClipDataset(block)
    hidden, shown = clips[pack].features, clips[whole].features
    changed, at = hidden != shown, 0
    floor = np.float32(log_mel.silence_floor(max(block[draw.index].peak for draw in pack.draws)))
    assert set(hidden[changed]) == {floor}
    for draw in pack.draws:
        part = changed[:, at : at + block[draw.index].frames]
        assert part.shape[1] == draw.window and part.all(axis=0).sum() <= draw.window // 5
        at += draw.window
    assert not changed[:, at:].any()


def test_a_stream_is_packed_block_by_block_and_goes_on_from_its_place(tiny_folder, tiny_model, tokenizer):
    stream = Stream(FeatureOptions(tiny_folder, language="es", base=str(tiny_model), workers=1))
    drawing = BatchPlan(4, (0.0, 0.1), 0.0, 17, longest=100, spec_augment=True, packing=Packing(tokenizer, 0.5))
    streamed = StreamedBatches(stream, drawing, batches=8)
    seen, places = [], []
    for batch in streamed:
        seen.append([[row.id for row in clip.rows] for clip in batch])
        places.append(streamed.place)
    epochs = [sorted(id for batch in seen[at : at + 4] for window in batch for id in window) for at in (0, 4)]
    assert len(epochs[0]) == 15 and epochs[0] == epochs[1] and seen[:4] != seen[4:]
    again = StreamedBatches(stream, drawing, batches=3, place=places[4])
    assert [[[row.id for row in clip.rows] for clip in batch] for batch in again] == seen[5:]


@pytest.mark.real
def test_whisper_itself_hears_the_times_that_the_labels_say(base_model, spoken_es):
    """Of six utterances in a window; half of the times to a tenth of a second, for pauses are where one looks."""
    import torch

    from lengua import audio
    from lengua.models.whisper import load_model

    tokenizer, rows = load_tokenizer(base_model), []
    for path, text in list(spoken_es.items())[:18]:
        samples = audio.load(path)
        peak, coded = log_mel.encode(log_mel.log_mel(samples))
        rows.append(Row(path.name, text, "es", "a", audio.duration_s(samples), len(coded), peak, coded))
    model, block, first = (
        load_model(base_model, "es").eval(),
        StreamBlock(0, 0, rows, []),
        tokenizer.token_to_id("<|0.00|>"),
    )
    clips, collate, late = ClipDataset(block), Collator(tokenizer, "es"), []
    for packs in sampler(block, tokenizer, share=1.0, padded=1.0, batch=6):
        batch = collate([clips[pack] for pack in packs])
        labels = batch.pop("labels")
        with torch.no_grad():
            heard = model(**batch).logits[..., first:].argmax(-1)
        times = labels >= first
        late += (0.02 * (heard[times] - (labels[times] - first))).abs().tolist()
    assert len(late) == 36 and np.median(late) <= 0.1 and np.mean(late) < 0.3
