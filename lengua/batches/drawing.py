"""What a sampler decides: which clips share a batch and a window, and what of them is hidden."""

from dataclasses import dataclass

from lengua.batches.masks import Masks
from lengua.batches.packing import Packing
from lengua.mel import WINDOW_FRAMES


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
    """Clips, however many share a window."""
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
