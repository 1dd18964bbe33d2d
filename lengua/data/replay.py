"""Experience replay: other speech is mixed into training, against catastrophic forgetting.

    replay = Replay(open_store("stores/en").split("train"), share=0.1, language="es")
    mixture = Mixture(open_store("stores/es").split("train"), replay)
    mixture[index] for index in mixture.drawn(epoch=0)      # every clip of es, and one of en for each nine

A label is in the language of its clip. The clips of an epoch are drawn by (seed, epoch, id), like everything else.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lengua.data.splits import sentence_key
from lengua.data.store import Row, Split
from lengua.runtime.errors import RequestError
from lengua.runtime.rng import keyed_uniform


@dataclass(frozen=True)
class ForeignRow(Row):
    """A row whose label is in its own language, and not in the run's."""


def label_language(row: Row, of_run: str | None = None) -> str | None:
    """Return the language of a row's label: that of the run, but for what is replayed."""
    return row.language if isinstance(row, ForeignRow) else of_run


class Replay:
    """The clips of a split from which every epoch draws some.

    Args:
        share: of all clips of an epoch.
        language: of the run.
        barred_ids: clips of dev, which must not be learned.
        barred_texts: their references, `normalised`, which must not be learned either.

    Raises:
        RequestError: a share that is none.
    """

    def __init__(
        self,
        split: Split,
        share: float,
        language: str,
        seed: int = 17,
        barred_ids: Collection[str] = (),
        barred_texts: Collection[str] = (),
    ):
        if not 0 < share < 1:
            raise RequestError("--replay-share above 0 and below 1", str(share), "0.1 is one clip in ten")
        columns = zip(split.column("id"), split.column("text"), strict=True)
        barred = [id in barred_ids or sentence_key(text) in barred_texts for id, text in columns]
        kept = np.flatnonzero(np.logical_not(barred))
        self.split, self.left_out = split.subset(kept), len(split) - len(kept)
        self.share, self.language, self.seed = share, language, seed
        self.ids = [f"replay/{id}" for id in self.split.column("id")]
        """Two stores may name their clips alike."""

    def __len__(self) -> int:
        return len(self.split)

    @property
    def frames(self) -> np.ndarray:
        """Frames of every clip that may be drawn: int32, shape (clips,)."""
        return self.split.frames

    def column(self, name: str) -> list:
        return self.ids if name == "id" else self.split.column(name)

    @property
    def languages(self) -> list[str | None]:
        """The language of each label, None where it is the run's."""
        return [None if one in ("", self.language) else one for one in self.column("language")]

    def __getitem__(self, index: int) -> Row:
        row = replace(self.split[index], id=self.ids[index])
        return row if row.language in ("", self.language) else ForeignRow(**vars(row))

    def beside(self, clips: int) -> int:
        return round(clips * self.share / (1 - self.share))

    def count(self, clips: int) -> int:
        """Return how many clips are replayed at once beside so many others.

        Raises:
            RequestError: there are not so many.
        """
        count = self.beside(clips)
        if count > len(self):
            most = len(self) / (clips + len(self))
            found = f"{len(self)} in the store to replay, beside {clips}"
            do = f"lower --replay-share to {int(1000 * most) / 1000:g}, or build a larger store"
            raise RequestError(f"{count} clips for a share of {self.share:g}", found, do)
        return count

    def drawn(self, clips: int, epoch: int, where: str = "") -> list[int]:
        """Return which clips are replayed beside so many others.

        Args:
            where: the part of the epoch that those others are.
        """
        chances = [keyed_uniform(self.seed, epoch, id, f"replay {where}") for id in self.ids]
        return sorted(np.argsort(chances, kind="stable")[: self.count(clips)].tolist())


class Mixture(Sequence[Row]):
    """The rows of a split, and behind them all that may be replayed; `drawn` tells which of them make an epoch."""

    def __init__(self, main: Split, replay: Replay):
        self.main, self.replay = main, replay
        self.clips = len(main) + replay.count(len(main))
        """Clips of an epoch."""

    def __len__(self) -> int:
        return len(self.main) + len(self.replay)

    @property
    def frames(self) -> np.ndarray:
        """Frames of every row: int32, shape (rows,)."""
        return np.concatenate([self.main.frames, self.replay.frames])

    def column(self, name: str) -> list:
        return [*self.main.column(name), *self.replay.column(name)]

    @property
    def languages(self) -> list[str | None]:
        """The language of each label, None where it is the run's."""
        return [*[None] * len(self.main), *self.replay.languages]

    def __getitem__(self, index: int) -> Row:
        return self.main[index] if index < len(self.main) else self.replay[index - len(self.main)]

    def drawn(self, epoch: int) -> np.ndarray:
        """Return the rows of an epoch: every one of the split, and some that are replayed."""
        replayed = len(self.main) + np.array(self.replay.drawn(len(self.main), epoch), np.int64)
        return np.concatenate([np.arange(len(self.main)), replayed])


def clips_per_epoch(split: Sequence[Row]) -> int:
    return split.clips if isinstance(split, Mixture) else len(split)


def without_replay(split: Sequence[Row]) -> Sequence[Row]:
    """Return the split that a run is about, without what is replayed; its rows are the first of a mixture."""
    return split.main if isinstance(split, Mixture) else split
