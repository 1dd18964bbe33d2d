"""Windows: how many frames the encoder is given for a clip, and which clips share a batch."""

from collections.abc import Iterator, Sequence

import numpy as np

from lengua.mel import FRAMES_PER_SECOND, WINDOW_FRAMES

FRAME_MULTIPLE = 8
"""Windows are rounded up to this many frames: few shapes for the allocator, an even number for the convolution."""


def window_of(frames: int, margin_s: float | None, longest: int = WINDOW_FRAMES) -> int:
    """Return the window, in frames, of a clip with a margin behind it; the model's `longest` where it is None."""
    if margin_s is None:
        return longest
    needed = frames + round(margin_s * FRAMES_PER_SECOND)
    return min(-(-needed // FRAME_MULTIPLE) * FRAME_MULTIPLE, longest)


def like_lengths(
    frames: Sequence[int], batch_size: int, margin_s: float | None, longest: int = WINDOW_FRAMES
) -> Iterator[tuple[list[int], int]]:
    """Yield (indices, window) batches of clips of like length, longest first, all with the same margin."""
    order = np.argsort(-np.asarray(frames, dtype=np.int64), kind="stable").tolist()
    for at in range(0, len(order), batch_size):
        batch = order[at : at + batch_size]
        yield batch, window_of(int(frames[batch[0]]), margin_s, longest)
