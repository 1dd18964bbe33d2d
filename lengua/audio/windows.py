"""Windows: how many frames the encoder is given for a clip, and which clips share a batch."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from lengua.audio.log_mel import FRAMES_PER_SECOND, WINDOW_FRAMES

FRAME_MULTIPLE = 8
"""Windows are rounded up to this many frames: few shapes for the allocator, an even number for the convolution."""
DECODE_GROUP_CLIPS = 8
"""Clips of like length that share one window in decoding. Not an option: what a model says depends on its window, and
must not depend on how many clips fit into memory at a time."""


def window_of(frames: int, margin_s: float | None, longest: int = WINDOW_FRAMES) -> int:
    """Return the window, in frames, of a clip with a margin behind it; the model's `longest` where it is None."""
    if margin_s is None:
        return longest
    needed = frames + round(margin_s * FRAMES_PER_SECOND)
    return min(-(-needed // FRAME_MULTIPLE) * FRAME_MULTIPLE, longest)


def bucket_by_length(
    frames: Sequence[int], batch_size: int, margin_s: float | None, longest: int = WINDOW_FRAMES
) -> Iterator[tuple[list[int], int]]:
    """Yield (indices, window) batches of clips of like length, longest first, all with the same margin."""
    order = np.argsort(-np.asarray(frames, dtype=np.int64), kind="stable").tolist()
    for at in range(0, len(order), batch_size):
        batch = order[at : at + batch_size]
        yield batch, window_of(int(frames[batch[0]]), margin_s, longest)


def decoding_batches(
    frames: Sequence[int], batch_size: int, margin_s: float | None, longest: int = WINDOW_FRAMES
) -> Iterator[tuple[list[int], int]]:
    """Yield (indices, window) as `bucket_by_length` does, each clip in the same window whatever the batch size.

    Windows are given to `DECODE_GROUP_CLIPS` clips of like length; those in equal windows are then cut into batches.
    """
    grouped = groupby(bucket_by_length(frames, DECODE_GROUP_CLIPS, margin_s, longest), key=lambda group: group[1])
    for window, groups in grouped:
        indices = [index for group, _ in groups for index in group]
        for at in range(0, len(indices), batch_size):
            yield indices[at : at + batch_size], window
