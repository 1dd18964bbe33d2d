"""What a sampler decides: which clips share a batch and a window, and what of them is hidden."""

import math
from dataclasses import dataclass

from lengua.batches.masks import Masks
from lengua.batches.packing import Packing
from lengua.mel import WINDOW_FRAMES

PADDED_PART = 4
"""A batch in the longest window has this part of the clips of another: it takes the memory and the time of many."""


@dataclass(frozen=True)
class Draw:
    """One clip of a batch as a sampler drew it: the row's index and the frames of the window it is put in."""

    index: int
    window: int
    masks: Masks | None = None
    """What of the clip is hidden."""


@dataclass(frozen=True)
class Pack:
    """Clips that share one window, one behind the other."""

    draws: tuple[Draw, ...]
    window: int
    timestamps: bool
    """Whether the labels say when each clip begins and ends."""


@dataclass(frozen=True)
class Drawing:
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
    def padded_size(self) -> int:
        """Clips of a padded batch: a few, unless every batch is padded or clips share windows anyway."""
        alike = self.packing or self.padded_share == 1
        return self.batch_size if alike else max(1, self.batch_size // PADDED_PART)

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
        if self.packing:
            return -(-clips // self.batch_size)
        padded = self.padded_batches(clips)
        return padded + -(-max(0, clips - padded * self.padded_size) // self.batch_size)
