"""Batches of a stream, which can go on from where they were left."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch

from lengua.batches.clips import Clip, ClipDataset, PackedClip
from lengua.batches.drawing import Drawing
from lengua.batches.samplers import sampler_of
from lengua.sources.ahead import Ahead
from lengua.streams import Stream


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

    def __iter__(self) -> Iterator[list[Clip | PackedClip]]:
        return islice(self._from(self.place), self.batches)

    def _from(self, start: Place) -> Iterator[list[Clip | PackedClip]]:
        for block in Ahead(self.stream.blocks(start.epoch, start.block), None, depth=1):
            here = (block.epoch, block.number)
            taken = start.batches if here == (start.epoch, start.block) else 0
            clips = ClipDataset(block)
            self.dropped.update(item.reason for item in block.dropped)
            for draws in islice(sampler_of(block, self.drawing, block.epoch), taken, None):
                taken += 1
                self.place = Place(*here, taken)
                yield [clips[draw] for draw in draws]
