"""A source as a stream of rows: what its store would hold, by the same code, with nothing kept on disk.

    stream = Stream(FeatureOptions("hub:fixie-ai/common_voice_17_0:es"))
    for block in stream.blocks():                        # epoch after epoch, without end
        block.rows, block.epoch, block.number
    for block in stream.blocks(epoch=1, number=40): ...  # resumes where the first loop would be

A block is a window of the source, in the source's order; training shuffles within it. With N processes each takes
every N-th item, so that together they see all of them once. The rows of a block depend on the source and the options
alone, not on the number of workers that decode.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import count, islice

import numpy as np

from lengua.audio.augmentation import Augmenter, is_augmenting
from lengua.data import hub_store
from lengua.data.features import AugmentFunction, count_items, limited_items, make_rows
from lengua.data.replay import Replay, label_language
from lengua.data.sources import Dropped, Source, Utterance, open_source
from lengua.data.store import Row
from lengua.options import Augmentation, FeatureOptions
from lengua.runtime import parallel
from lengua.runtime.errors import LenguaError, RequestError

ITEMS_PER_CHUNK = 16
"""Items that cross to a worker process at a time."""


@dataclass(frozen=True)
class StreamBlock(Sequence[Row]):
    """The rows of one window of a stream; to samplers it is what a split of a store is."""

    epoch: int
    number: int
    rows: list[Row]
    dropped: list[Dropped]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    @property
    def frames(self) -> np.ndarray:
        """Frames of every row: int32, shape (rows,)."""
        return np.array([row.frames for row in self.rows], np.int32)

    def column(self, name: str) -> list:
        return [getattr(row, name) for row in self.rows]

    @property
    def languages(self) -> list[str | None]:
        """The language of each label, None where it is the run's."""
        return [label_language(row) for row in self.rows]


def _make_chunk(
    items: Sequence[Utterance | Row | Dropped], options: FeatureOptions, alter: AugmentFunction | None
) -> list[Row | Dropped]:
    return list(make_rows(items, options, alter))


class Stream:
    """One split of a source or of a feature store on the Hub, read anew in every epoch.

    Args:
        options: as for the feature stage; `out` is not looked at.
        split: the one that is read.
        window: items of each process in a block, rounded up to whole chunks. A row of 5 s takes 40 kB, and three
            blocks are in memory: the one in use, the next, and the one that is being made.
        rank: which of `ranks` training processes this is.
        augment: what is done to the sound of clips, other in every epoch.
        seed: drives that, together with the epoch and the id of each clip.
        replay: clips that are learned along, others beside every block.

    Raises:
        RequestError: sound to augment is not at hand.
    """

    def __init__(
        self,
        options: FeatureOptions,
        split: str = "train",
        window: int = 2048,
        rank: int = 0,
        ranks: int = 1,
        augment: Augmentation | None = None,
        seed: int = 17,
        replay: Replay | None = None,
    ):
        self.options = replace(options, splits=(split,), keep_audio=())
        self.split, self.rank, self.ranks = split, rank, ranks
        self.chunks, self.replay = -(-window // ITEMS_PER_CHUNK), replay
        self.window = self.chunks * ITEMS_PER_CHUNK
        if replay:
            replay.count(self.window)  # so that it is refused now, if there are too few
        self.origin: Source | hub_store.HubStore = hub_store.find_hub_store(options.source) or open_source(
            options.source, options.language
        )
        self.augment, self.seed = augment if augment and is_augmenting(augment) else None, seed
        if self.augment and isinstance(self.origin, hub_store.HubStore):
            found = f"the feature store {options.source}"
            raise RequestError("sound to augment", found, "use --spec-augment, which needs none")

    @property
    def revision(self) -> str:
        return self.origin.revision

    @cached_property
    def items(self) -> int | None:
        """How many items an epoch has over all processes, where that is known without reading them."""
        if isinstance(self.origin, hub_store.HubStore):
            items = self.origin.manifest["splits"][self.split]["utterances"]
        else:
            items = count_items(self.origin, self.options)
        return items + self.replay.beside(items) if items and self.replay else items

    def blocks(self, epoch: int = 0, number: int = 0) -> Iterator[StreamBlock]:
        """Yield block after block, from one block of one epoch on; there is no last one.

        What comes before is passed over without being decoded.

        Raises:
            LenguaError: a whole epoch gave no row.
        """
        for at in count(epoch):
            rows = 0
            for block in self._epoch(at, number):
                rows += len(block)
                yield block
            if not rows and not number:
                found = f"none in {self.options.source}"
                raise LenguaError(f"rows of the split {self.split!r}", found, "look at it with lengua features")
            number = 0

    def _epoch(self, epoch: int, number: int) -> Iterator[StreamBlock]:
        items = islice(self._items(), number * self.window * self.ranks + self.rank, None, self.ranks)
        chunks = parallel.batched(items, ITEMS_PER_CHUNK)
        alter = self.augment and Augmenter(self.augment, self.seed, epoch, self.options.max_seconds)
        make = partial(_make_chunk, options=self.options, alter=alter)
        made = parallel.map_in_processes(make, chunks, self.options.workers)
        for index, results in enumerate(parallel.batched(made, self.chunks), start=number):
            every = [item for chunk in results for item in chunk]
            rows, dropped = ([item for item in every if isinstance(item, kind)] for kind in (Row, Dropped))
            if self.replay:
                drawn = self.replay.drawn(len(rows), epoch, f"block {index} of {self.rank}")
                rows += [self.replay[place] for place in drawn]
            yield StreamBlock(epoch, index, rows, dropped)

    def _items(self) -> Iterator[Utterance | Row | Dropped]:
        if isinstance(self.origin, hub_store.HubStore):
            return self.origin.rows(self.split)
        return (item for _, item in limited_items(self.origin, self.options))
