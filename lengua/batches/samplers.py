"""Batch samplers: every clip once an epoch, order, margins and company anew in each, all from (seed, epoch, id)."""

from collections.abc import Iterator

import numpy as np

from lengua.batches.drawing import Draw, Drawing, Pack
from lengua.batches.masks import Masks
from lengua.batches.packing import share_windows
from lengua.chance import chance
from lengua.labels import MAX_LABEL_TOKENS, word_tokens
from lengua.mel import FRAMES_PER_SECOND
from lengua.replay import Mixture
from lengua.store import Split
from lengua.streams import Block
from lengua.windows import like_lengths, window_of

MASKED = ("masked time", "masked band")
JITTER_S = 0.2
"""Lets neighbours change from epoch to epoch, as their margins do, without mixing short clips with long ones."""
UNSAID = 4
"""Tokens of a label with timestamps that belong to no utterance: three of the prompt, and the end."""


class Sampler:
    """What batch samplers share: an epoch of all clips (of a mixture, of those drawn), from (seed, epoch, id).

    Trainer's own grouping reads lengths only from a `datasets.Dataset` and draws from the global generator. Where
    several processes share the batches, those that are too few for all of them are left out, others in every epoch.
    """

    batch_size = None  # told one, accelerate would leave out what comes before a batch that is smaller
    drop_last = False

    def __init__(self, split: Split | Block | Mixture, drawing: Drawing, epoch: int = 0, ranks: int = 1):
        self.ids, self.frames = split.column("id"), split.frames
        self.mixture = split if isinstance(split, Mixture) else None
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

    def _draw(self, index: int, window: int) -> Draw:
        return Draw(int(index), window, self._masks(self.ids[index]) if self.drawing.spec_augment else None)

    def _masks(self, id: str) -> Masks:
        time, band = ((self._chance(id, f"{what} size"), self._chance(id, f"{what} place")) for what in MASKED)
        return Masks(time, band)

    def _window(self, index: int, frames: int) -> int:
        """Return the window of so many frames and the margin of a clip."""
        low, high = self.drawing.margin_s
        margin = low + (high - low) * self._chance(self.ids[index], "margin")
        return window_of(frames, margin, self.drawing.longest)

    def _shuffled(self, clips: np.ndarray, what: str) -> np.ndarray:
        return clips[np.argsort([self._chance(self.ids[index], what) for index in clips], kind="stable")]

    def _chance(self, id: str, what: str) -> float:
        return chance(self.drawing.seed, self.epoch, id, what)


class LengthBuckets(Sampler):
    """Clips of like length together, a few of any length padded; order and margins anew in every epoch."""

    def __iter__(self) -> Iterator[list[Draw]]:
        few, many = self.drawing.padded_size, self.drawing.batch_size
        clips = self._shuffled(self._clips(), "padded")
        padded, others = np.split(clips, [self.drawing.padded_batches(len(clips)) * few])
        windows = np.zeros(len(self.ids), np.int64)
        windows[padded] = self.drawing.longest
        windows[others] = [self._window(index, int(self.frames[index])) for index in others]
        batches = [*cut(padded, few), *cut(self._by_length(others, windows[others]), many)]
        batches.sort(key=lambda batch: self._chance(self.ids[batch[0]], "order"))
        for batch in batches[: len(self)]:
            window = int(windows[batch].max())
            yield [self._draw(index, window) for index in batch]

    def _by_length(self, clips: np.ndarray, windows: np.ndarray) -> np.ndarray:
        jitter = np.array([self._chance(self.ids[index], "bucket") for index in clips])
        return clips[np.argsort(windows + jitter * JITTER_S * FRAMES_PER_SECOND, kind="stable")]


class PackedWindows(Sampler):
    """Clips in any order, those of a batch joined to as few windows as hold them; a window has one language."""

    def __init__(self, split: Split | Block | Mixture, drawing: Drawing, epoch: int = 0, ranks: int = 1):
        super().__init__(split, drawing, epoch, ranks)
        self.texts, self.languages = split.column("text"), getattr(split, "languages", None)

    def __iter__(self) -> Iterator[list[Pack]]:
        batches = cut(self._shuffled(self._clips(), "order"), self.drawing.batch_size)
        for batch in batches[: len(self)]:
            yield self._packed(batch.tolist())

    def _packed(self, batch: list[int]) -> list[Pack]:
        shared = [indices for alike in self._by_language(batch) for indices in self._shared(alike)]
        fullest = max(sum(int(self.frames[index]) for index in indices) for indices in shared)
        padded = self._chance(self.ids[batch[0]], "padded") < self.drawing.padded_share
        window = self.drawing.longest if padded else self._window(batch[0], fullest)
        return [self._pack(indices, window) for indices in shared]

    def _by_language(self, batch: list[int]) -> list[list[int]]:
        if self.languages is None:
            return [batch]
        spoken = dict.fromkeys(self.languages[index] for index in batch)
        return [[index for index in batch if self.languages[index] == one] for one in spoken]

    def _shared(self, clips: list[int]) -> list[list[int]]:
        """Return which clips share a window."""
        frames = [int(self.frames[index]) for index in clips]
        tokens = [len(word_tokens(self.drawing.packing.tokenizer, self.texts[index])) + 2 for index in clips]
        shared = share_windows(frames, tokens, self.drawing.longest, MAX_LABEL_TOKENS - UNSAID)
        return [[clips[place] for place in places] for places in shared]

    def _pack(self, indices: list[int], window: int) -> Pack:
        timestamps = self._chance(self.ids[indices[0]], "timestamps") < self.drawing.packing.timestamps_share
        draws = tuple(self._draw(index, int(self.frames[index])) for index in indices)
        return Pack(draws, window, timestamps)


def cut(clips: np.ndarray, size: int) -> list[np.ndarray]:
    """Return clips in batches of a size; the last may be smaller."""
    return [clips[at : at + size] for at in range(0, len(clips), size)]


def sampler_of(split: Split | Block | Mixture, drawing: Drawing, epoch: int = 0, ranks: int = 1) -> Sampler:
    """Return the sampler that draws batches in this way."""
    kind = PackedWindows if drawing.packing else LengthBuckets
    return kind(split, drawing, epoch, ranks)


def dev_batches(split: Split, batch_size: int, margin_s: float | None, longest: int) -> list[list[Draw]]:
    """Return batches for measuring: longest first, one margin for all, or the full window where it is None."""
    return [
        [Draw(index, window) for index in indices]
        for indices, window in like_lengths(split.frames, batch_size, margin_s, longest)
    ]
