"""Packing: utterances joined to windows of up to 30 s, as Whisper itself was trained, so that long audio keeps working.

Log-mels are absolute values, so those of joined speech are the joined log-mels, cut off at the floor of the loudest.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from lengua.mel import FRAMES_PER_SECOND, floor_of


@dataclass(frozen=True)
class Packing:
    """How windows are packed."""

    tokenizer: Tokenizer
    """Counts label tokens, so that no window has more than the decoder has positions."""
    timestamps_share: float
    """Share of windows whose labels say when each utterance begins and ends."""


def share_windows(frames: Sequence[int], tokens: Sequence[int], longest: int, most_tokens: int) -> list[list[int]]:
    """Return which clips share a window: as few windows as will do, filled evenly, so that little is padding.

    Args:
        frames: of every clip.
        tokens: of every clip in a label.
        longest: frames of a full window.
        most_tokens: that a window may have.

    Returns:
        clips by number, each in one window, in their order. What is too long for any window has one of its own.
    """
    needs, room = list(zip(frames, tokens, strict=True)), (longest, most_tokens)
    count = max(1, math.ceil(sum(frames) / longest))
    while (windows := _spread(needs, room, count)) is None:
        count += 1
    return [sorted(window) for window in windows if window]


def _spread(needs: list[tuple[int, int]], room: tuple[int, int], count: int) -> list[list[int]] | None:
    """Put the longest clip first, each into the emptiest of `count` windows that has room; None: one found none."""
    windows: list[list[int]] = [[] for _ in range(count)]
    for clip in sorted(range(len(needs)), key=lambda clip: -needs[clip][0]):
        fitting = [window for window in windows if not window or _fit([*window, clip], needs, room)]
        if not fitting:
            return None
        min(fitting, key=lambda window: sum(needs[other][0] for other in window)).append(clip)
    return windows


def _fit(window: list[int], needs: list[tuple[int, int]], room: tuple[int, int]) -> bool:
    return all(sum(needs[clip][unit] for clip in window) <= most for unit, most in enumerate(room))


def join(mels: Sequence[np.ndarray], peaks: Sequence[float]) -> tuple[np.ndarray, float]:
    """Return (log-mel, peak) of clips one behind the other: float32, shape (frames of all, n_mels)."""
    peak = max(peaks)
    return np.maximum(np.concatenate(mels), np.float32(floor_of(peak))), peak


def spans(frames: Sequence[int], durations_s: Sequence[float]) -> list[tuple[float, float]]:
    """Return when each of joined clips begins and ends, in seconds: a clip ends a little before its last frame."""
    starts = np.cumsum([0, *frames[:-1]]) / FRAMES_PER_SECOND
    return [(float(start), float(start) + duration) for start, duration in zip(starts, durations_s, strict=True)]
