"""Batch samplers: which clips share a batch and a window, with what margins, padding and masks.

Every clip comes once an epoch; order, margins and batches are drawn anew in each, all from (seed, epoch, id).

Some batches (`--packed-share`), or with `--window packed` all, join utterances to windows of up to 30 s, as Whisper was
trained, so that long audio keeps working: a model that only ever saw one utterance a window stops behind the first.
Log-mels are absolute values: those of joined speech are the joined log-mels, clamped to the floor of the loudest.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tokenizers import Tokenizer

from lengua.audio.augmentation import SpecAugmentMasks
from lengua.audio.log_mel import FRAMES_PER_SECOND, WINDOW_FRAMES, silence_floor
from lengua.audio.windows import bucket_by_length, window_of
from lengua.data.replay import Mixture
from lengua.data.store import Split
from lengua.data.streaming import StreamBlock
from lengua.models.tokens import MAX_LABEL_TOKENS, word_tokens
from lengua.runtime.rng import keyed_uniform


@dataclass(frozen=True)
class Packing:
    """How windows are packed."""

    tokenizer: Tokenizer
    """Counts label tokens, so that no window has more than the decoder has positions."""
    timestamps_share: float
    """Share of windows whose labels say when each utterance begins and ends."""
    share: float = 1.0
    """Share of batches that are packed; 1 in a run whose window is packed."""
    max_pause_s: float = 0.0
    """Between two utterances there is silence of 0 to so many seconds."""


def pack_windows(frames: Sequence[int], tokens: Sequence[int], longest: int, most_tokens: int) -> list[list[int]]:
    """Return which clips share a window of at most so many frames and label tokens, by number, in their order.

    As few windows as will do, filled evenly, so that little is padding. What is too long has a window of its own.
    """
    sizes, room = np.array([frames, tokens]).T, (longest, most_tokens)
    count = max(1, math.ceil(sum(frames) / longest))
    while (windows := _spread(sizes, room, count)) is None:
        count += 1
    return [sorted(window) for window in windows if window]


def _spread(sizes: np.ndarray, room: tuple[int, int], count: int) -> list[list[int]] | None:
    """Put the longest clip first, each into the emptiest of `count` windows that has room; None: one found none."""
    windows, filled = [[] for _ in range(count)], np.zeros((count, 2), np.int64)
    for clip in np.argsort(-sizes[:, 0], kind="stable").tolist():
        fits = (filled + sizes[clip] <= room).all(axis=1) | (filled == 0).all(axis=1)
        if not fits.any():
            return None
        emptiest = int(np.where(fits, filled[:, 0], np.iinfo(np.int64).max).argmin())
        windows[emptiest].append(clip)
        filled[emptiest] += sizes[clip]
    return windows


def join_mels(mels: Sequence[np.ndarray], peaks: Sequence[float], pauses: Sequence[int]) -> tuple[np.ndarray, float]:
    """Return (log-mel, peak) of clips, frames of silence behind each: float32, shape (frames of all, n_mels)."""
    peak = max(peaks)
    floor = np.float32(silence_floor(peak))
    parts = [np.pad(mel, ((0, pause), (0, 0)), constant_values=floor) for mel, pause in zip(mels, pauses, strict=True)]
    return np.maximum(np.concatenate(parts), floor), peak


def utterance_times(
    frames: Sequence[int], durations_s: Sequence[float], pauses: Sequence[int]
) -> list[tuple[float, float]]:
    """Return when each of joined clips begins and ends, in seconds: a clip ends a little before its last frame."""
    starts = np.cumsum([0, *np.add(frames, pauses)[:-1]]) / FRAMES_PER_SECOND
    return [(float(start), float(start) + duration) for start, duration in zip(starts, durations_s, strict=True)]


PADDED_BATCH_DIVISOR = 4
"""A batch in the longest window has this part of the clips of another: it takes the memory and the time of many."""


@dataclass(frozen=True)
class SampledClip:
    """One clip of a batch as a sampler drew it: the row's index and the frames of the window it is put in."""

    index: int
    window: int
    masks: SpecAugmentMasks | None = None
    """What of the clip is hidden."""


@dataclass(frozen=True)
class SampledPack:
    """Clips that share one window, one behind the other."""

    draws: tuple[SampledClip, ...]
    window: int
    timestamps: bool
    """Whether the labels say when each clip begins and ends."""
    pauses: tuple[int, ...]
    """Frames of silence behind each clip; none behind the last."""


@dataclass(frozen=True)
class BatchPlan:
    """How batches are drawn."""

    batch_size: int
    """Clips, however many share a window; fewer in a padded batch."""
    margin_s: tuple[float, float]
    """Seconds of silence behind the speech: drawn for each clip and epoch between these two."""
    padded_share: float
    """Share of batches whose window is the longest."""
    seed: int
    longest: int = WINDOW_FRAMES
    """Frames of the model's full window."""
    spec_augment: bool = False
    """Whether a stretch and a band of every clip are hidden, others in every epoch."""
    packing: Packing | None = None
    """None: a window for every clip."""

    @property
    def all_packed(self) -> bool:
        """Whether clips share windows in every batch."""
        return self.packing is not None and self.packing.share == 1

    @property
    def padded_size(self) -> int:
        """Clips of a padded batch: a few, unless every batch is padded or clips share windows anyway."""
        alike = self.all_packed or self.padded_share == 1
        return self.batch_size if alike else max(1, self.batch_size // PADDED_BATCH_DIVISOR)

    @property
    def mean_size(self) -> float:
        """Clips of a batch, on average."""
        return self.padded_share * self.padded_size + (1 - self.padded_share) * self.batch_size

    def padded_batches(self, clips: int) -> int:
        """Return how many batches of so many clips are padded; of very few clips, none may be."""
        whole = math.ceil if self.padded_share == 1 else round
        return whole(self.padded_share * clips / self.mean_size)

    def batches(self, clips: int) -> int:
        """Return how many batches so many clips make."""
        if self.all_packed:
            return -(-clips // self.batch_size)
        padded = self.padded_batches(clips)
        return padded + -(-max(0, clips - padded * self.padded_size) // self.batch_size)

    def packed_batches(self, clips: int) -> int:
        """Return in how many batches of so many clips the clips share windows."""
        return round(self.packing.share * self.batches(clips)) if self.packing else 0


MASK_KEYS = ("masked time", "masked band")
BUCKET_JITTER_S = 0.2
"""Lets neighbours change from epoch to epoch, as their margins do, without mixing short clips with long ones."""
LABEL_OVERHEAD_TOKENS = 4
"""Tokens of a label with timestamps that belong to no utterance: three of the prompt, and the end."""


class EpochSampler:
    """What batch samplers share: an epoch of all clips (of a mixture, of those drawn), from (seed, epoch, id).

    Trainer's own grouping reads lengths only from a `datasets.Dataset` and draws from the global generator. Where
    several processes share the batches, those that are too few for all of them are left out, others in every epoch.
    """

    batch_size = None  # given one, accelerate would leave out what comes before a batch that is smaller
    drop_last = False

    def __init__(self, split: Split | StreamBlock | Mixture, drawing: BatchPlan, epoch: int = 0, ranks: int = 1):
        self.ids, self.frames = split.column("id"), split.frames
        self.mixture = split if isinstance(split, Mixture) else None
        self.texts = split.column("text") if drawing.packing else []
        self.languages = getattr(split, "languages", [""] * len(self.ids))
        self.drawing, self.epoch, self.ranks = drawing, epoch, ranks

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws."""
        self.epoch = epoch

    def __len__(self) -> int:
        batches = self.drawing.batches(self.mixture.clips if self.mixture else len(self.ids))
        return batches - batches % self.ranks

    def _clips(self) -> np.ndarray:
        """Return the clips of this epoch."""
        return self.mixture.drawn(self.epoch) if self.mixture else np.arange(len(self.ids))

    def _draw(self, index: int, window: int) -> SampledClip:
        if not self.drawing.spec_augment:
            return SampledClip(int(index), window)
        id = self.ids[index]
        time, band = ((self._chance(id, f"{what} size"), self._chance(id, f"{what} place")) for what in MASK_KEYS)
        return SampledClip(int(index), window, SpecAugmentMasks(time, band))

    def _window(self, index: int, frames: int) -> int:
        """Return the window of so many frames and the margin of a clip."""
        low, high = self.drawing.margin_s
        margin = low + (high - low) * self._chance(self.ids[index], "margin")
        return window_of(frames, margin, self.drawing.longest)

    def _shuffled(self, clips: np.ndarray, what: str) -> np.ndarray:
        return clips[np.argsort([self._chance(self.ids[index], what) for index in clips], kind="stable")]

    def _packed(self, batch: list[int]) -> list[SampledPack]:
        """Join the clips of a batch to as few windows as hold them; a window has one language.

        Where only some batches are packed, what a window may hold is drawn, so that pairs are as frequent as tens.
        """
        id, longest = self.ids[batch[0]], self.drawing.longest
        room = longest if self.drawing.all_packed else round(longest * self._chance(id, "room"))
        languages = dict.fromkeys(self.languages[index] for index in batch)
        alike = ([index for index in batch if self.languages[index] == language] for language in languages)
        packs = [self._pack(*window) for clips in alike for window in self._shared(clips, room)]
        fullest = max(sum(draw.window for draw in pack.draws) + sum(pack.pauses) for pack in packs)
        padded = self._chance(id, "padded") < self.drawing.padded_share
        window = longest if padded else self._window(batch[0], fullest)
        return [replace(pack, window=window) for pack in packs]

    def _shared(self, clips: list[int], room: int) -> Iterator[tuple[list[int], tuple[int, ...]]]:
        """Yield which clips share a window, and the silence behind each."""
        packing = self.drawing.packing
        most = packing.max_pause_s * FRAMES_PER_SECOND
        pauses = [round(most * self._chance(self.ids[index], "pause")) for index in clips]
        frames = np.minimum(self.frames[clips] + pauses, self.drawing.longest).astype(int).tolist()
        tokens = [len(word_tokens(packing.tokenizer, self.texts[index])) + 2 for index in clips]
        for places in pack_windows(frames, tokens, max(room, *frames), MAX_LABEL_TOKENS - LABEL_OVERHEAD_TOKENS):
            yield [clips[at] for at in places], (*(pauses[at] for at in places[:-1]), 0)

    def _pack(self, indices: list[int], pauses: tuple[int, ...]) -> SampledPack:
        timestamps = self._chance(self.ids[indices[0]], "timestamps") < self.drawing.packing.timestamps_share
        draws = tuple(self._draw(index, int(self.frames[index])) for index in indices)
        return SampledPack(draws, 0, timestamps, pauses)

    def _chance(self, id: str, what: str) -> float:
        return keyed_uniform(self.drawing.seed, self.epoch, id, what)


class LengthBucketSampler(EpochSampler):
    """Clips of like length together, a few of any length padded or packed; order and margins anew in every epoch."""

    def __iter__(self) -> Iterator[list[SampledClip] | list[SampledPack]]:
        few, many = self.drawing.padded_size, self.drawing.batch_size
        clips = self._shuffled(self._clips(), "padded")
        padded, others = np.split(clips, [self.drawing.padded_batches(len(clips)) * few])
        packed, others = np.split(others, [self.drawing.packed_batches(len(clips)) * many])
        windows = np.zeros(len(self.ids), np.int64)
        windows[padded] = self.drawing.longest
        windows[others] = [self._window(index, int(self.frames[index])) for index in others]
        jitter = np.array([self._chance(self.ids[index], "bucket") for index in others])
        by_length = np.argsort(windows[others] + jitter * BUCKET_JITTER_S * FRAMES_PER_SECOND, kind="stable")
        shared = split_into_batches(packed, many)
        batches = [*split_into_batches(padded, few), *split_into_batches(others[by_length], many), *shared]
        shared = {int(batch[0]) for batch in shared}
        batches.sort(key=lambda batch: self._chance(self.ids[batch[0]], "order"))
        for batch in batches[: len(self)]:
            if int(batch[0]) in shared:
                yield self._packed(batch.tolist())
            else:
                window = int(windows[batch].max())
                yield [self._draw(index, window) for index in batch]


class PackedWindowSampler(EpochSampler):
    """Clips in any order, those of a batch joined to as few windows as hold them."""

    def __iter__(self) -> Iterator[list[SampledPack]]:
        batches = split_into_batches(self._shuffled(self._clips(), "order"), self.drawing.batch_size)
        for batch in batches[: len(self)]:
            yield self._packed(batch.tolist())


def split_into_batches(clips: np.ndarray, size: int) -> list[np.ndarray]:
    """Return clips in batches of a size; the last may be smaller."""
    return [clips[at : at + size] for at in range(0, len(clips), size)]


def make_sampler(
    split: Split | StreamBlock | Mixture, drawing: BatchPlan, epoch: int = 0, ranks: int = 1
) -> EpochSampler:
    """Return the sampler that draws batches in this way."""
    kind = PackedWindowSampler if drawing.all_packed else LengthBucketSampler
    return kind(split, drawing, epoch, ranks)


def dev_batches(split: Split, batch_size: int, margin_s: float | None, longest: int) -> list[list[SampledClip]]:
    """Return batches for measuring: longest first, one margin for all, or the full window where it is None."""
    return [
        [SampledClip(index, window) for index in indices]
        for indices, window in bucket_by_length(split.frames, batch_size, margin_s, longest)
    ]
