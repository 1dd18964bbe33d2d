"""Rows -> batches. What is random (order, margin, which batches are padded) is a function of (seed, epoch, id).

    drawn = Drawing(batch_size=8, margin_s=(0.3, 1.5), padded_share=0.08, seed=17)
    sampler = LengthBuckets(split, drawn)         # yields lists of Draw, clips of like length together
    loader = DataLoader(ClipDataset(split), batch_sampler=sampler, collate_fn=Collator(tokenizer, "es"))
    loader = DataLoader(StreamedBatches(stream, drawn, batches=500), batch_size=None, collate_fn=...)

The samplers decide everything; dataset and collator keep no state, so they work in any process. A stream is drawn from
block by block, each as if it were a small split, and knows the place after its last batch: set, it goes on from there.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice

import numpy as np
import torch
from tokenizers import Tokenizer

from lengua.labels import IGNORED, decoder_pair, end_token
from lengua.mel import FRAMES_PER_SECOND, WINDOW_FRAMES, fill
from lengua.sources.ahead import Ahead
from lengua.store import Row, Split
from lengua.streams import Block, Stream
from lengua.windows import like_lengths, window_of


def chance(seed: int, epoch: int, id: str, what: str) -> float:
    """Return a number in [0, 1) that depends on its arguments alone: the source of all randomness in training."""
    digest = blake2b(f"{seed}\0{epoch}\0{id}\0{what}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


@dataclass(frozen=True)
class Draw:
    """One clip of a batch as a sampler drew it: the row's index and the frames of the window it is put in."""

    index: int
    window: int


@dataclass(frozen=True)
class Drawing:
    """How batches are drawn."""

    batch_size: int
    margin_s: tuple[float, float]
    """Seconds of silence behind the speech: drawn for each clip and epoch between these two."""
    padded_share: float
    """Share of batches whose window is the longest."""
    seed: int
    longest: int = WINDOW_FRAMES
    """Frames of the model's full window."""


class LengthBuckets:
    """Batch sampler: clips of like length together, order and margins anew in every epoch, all from (seed, epoch, id).

    Trainer's own grouping reads lengths only from a `datasets.Dataset` and draws from the global generator. Where
    several processes share the batches, those that are too few for all of them are left out, others in every epoch.
    """

    def __init__(self, split: Split | Block, drawing: Drawing, epoch: int = 0, ranks: int = 1):
        self.ids, self.frames = split.column("id"), split.frames
        self.drawing, self.epoch, self.batch_size, self.ranks = drawing, epoch, drawing.batch_size, ranks
        self.drop_last = False

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws."""
        self.epoch = epoch

    def __len__(self) -> int:
        batches = -(-len(self.ids) // self.batch_size)
        return batches - batches % self.ranks

    def __iter__(self) -> Iterator[list[Draw]]:
        windows = np.array([self._window(index) for index in range(len(self.ids))])
        # One second of jitter lets neighbours change from epoch to epoch without mixing short clips with long ones.
        jitter = np.array([self._chance(id, "bucket") for id in self.ids]) * FRAMES_PER_SECOND
        by_length = np.argsort(windows + jitter, kind="stable")
        batches = [by_length[at : at + self.batch_size] for at in range(0, len(by_length), self.batch_size)]
        batches.sort(key=lambda batch: self._chance(self.ids[batch[0]], "order"))
        for batch in batches[: len(self)]:
            padded = self._chance(self.ids[batch[0]], "padded") < self.drawing.padded_share
            window = self.drawing.longest if padded else int(windows[batch].max())
            yield [Draw(int(index), window) for index in batch]

    def _window(self, index: int) -> int:
        low, high = self.drawing.margin_s
        margin = low + (high - low) * self._chance(self.ids[index], "margin")
        return window_of(int(self.frames[index]), margin, self.drawing.longest)

    def _chance(self, id: str, what: str) -> float:
        return chance(self.drawing.seed, self.epoch, id, what)


def dev_batches(split: Split, batch_size: int, margin_s: float | None, longest: int) -> list[list[Draw]]:
    """Return batches for measuring: longest first, one margin for all, or the full window where it is None."""
    return [
        [Draw(index, window) for index in indices]
        for indices, window in like_lengths(split.frames, batch_size, margin_s, longest)
    ]


@dataclass(frozen=True)
class Clip:
    """One row put into its window."""

    row: Row
    features: np.ndarray
    """float32, shape (n_mels, window): the speech, then the clip's own silence."""


class ClipDataset(torch.utils.data.Dataset):
    """Rows of a split, or of a block of a stream, taken by `Draw`."""

    def __init__(self, split: Split | Block):
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, draw: Draw) -> Clip:
        row = self.split[draw.index]
        return Clip(row, fill(row.log_mel(), draw.window, row.peak))


@dataclass(frozen=True)
class Place:
    """Where a stream stands: the batches of a block of an epoch that have been taken."""

    epoch: int = 0
    block: int = 0
    batches: int = 0


class StreamedBatches(torch.utils.data.IterableDataset):
    """So many batches of a stream, from `place` on, which follows every batch that is taken.

    The next block is made in the background while the last is trained on.
    """

    def __init__(self, stream: Stream, drawing: Drawing, batches: int, place: Place = Place()):
        self.stream, self.drawing, self.batches, self.place = stream, drawing, batches, place
        self.dropped: Counter = Counter()
        """How many items were left out, by reason, in the blocks that were begun."""

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[Clip]]:
        return islice(self._from(self.place), self.batches)

    def _from(self, start: Place) -> Iterator[list[Clip]]:
        for block in Ahead(self.stream.blocks(start.epoch, start.block), None, depth=1):
            here = (block.epoch, block.number)
            taken = start.batches if here == (start.epoch, start.block) else 0
            clips = ClipDataset(block)
            self.dropped.update(item.reason for item in block.dropped)
            for draws in islice(LengthBuckets(block, self.drawing, block.epoch), taken, None):
                taken += 1
                self.place = Place(*here, taken)
                yield [clips[draw] for draw in draws]


class Collator:
    """Clips -> input_features (batch, n_mels, window), decoder_input_ids and labels (batch, tokens)."""

    def __init__(self, tokenizer: Tokenizer, language: str):
        self._tokenizer, self.language = tokenizer, language  # Trainer would save a `tokenizer`

    def __call__(self, clips: list[Clip]) -> dict[str, torch.Tensor]:
        features = torch.from_numpy(np.stack([clip.features for clip in clips]))
        pairs = [decoder_pair(self._tokenizer, clip.row.text, self.language) for clip in clips]
        inputs, labels = zip(*pairs, strict=True)
        end = end_token(self._tokenizer)
        return {
            "input_features": features,
            "decoder_input_ids": _padded(inputs, end),
            "labels": _padded(labels, IGNORED),
        }


def _padded(sequences, value: int) -> torch.Tensor:
    longest = max(map(len, sequences))
    return torch.tensor([[*sequence, *[value] * (longest - len(sequence))] for sequence in sequences])
