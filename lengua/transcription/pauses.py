"""A recording of any length -> stretches of speech that a model can hear at once, cut at the pauses between them.

Silero says every 32 ms how surely somebody speaks. A stretch begins where that is sure and ends with a pause, a longer
one after a lone word, so that it stays with its sentence. What would be longer than 28 s is cut where speech is least
sure.

Nothing but the last minute and a half is kept, whatever the length of the recording. The detector hears fixed parts of
it, so the stretches do not depend on how the blocks come.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from lengua import mel
from lengua.audio import SAMPLE_RATE, is_silent
from lengua.transcription.voice import CLEARLY, FRAME, voice

MAX_SEGMENT_SECONDS = 28
NOT_SURELY = 0.35
"""Probability of speech under which a pause begins; it lasts until the next frame of clear speech. Silero's."""
PAD = SAMPLE_RATE // 5
"""Samples of the pause that stay with the speech before it, and as many with the speech after it."""
LONGEST = (MAX_SEGMENT_SECONDS * SAMPLE_RATE - 2 * PAD) // FRAME
"""Frames of the longest stretch."""
SHORT_S, LONG_PAUSE_S, SHORT_PAUSE_S = 1.0, 1.0, 0.42
"""A pause of a second ends any stretch, one of 0.42 s those that are longer than a second."""
assert 2 * PAD <= SHORT_PAUSE_S * SAMPLE_RATE, "two pads fit into every pause"

PART, WARM_UP = 960, 64
"""Frames that the detector hears at a time: 30.7 s, and 2 s before them, in which it finds its feet."""
KEPT = 90 * SAMPLE_RATE
"""Samples that are kept: a part, a stretch before it, and some more."""
assert KEPT > (PART + WARM_UP + LONGEST) * FRAME + 2 * LONG_PAUSE_S * SAMPLE_RATE

SMOOTH = 11
"""Frames over which sureness is averaged where there is no pause to cut at: 0.35 s."""


@dataclass(frozen=True, eq=False)
class Span:
    """A stretch of a recording."""

    start: int
    """Its first sample, counted from the start of the recording."""
    samples: np.ndarray
    """float32, shape (n,), 16 kHz."""

    @property
    def end(self) -> int:
        """The sample behind its last."""
        return self.start + len(self.samples)


def spans(blocks: Iterable[np.ndarray]) -> Iterator[Span]:
    """Yield what to decode: the whole of a recording of at most 30 s, stretches of speech of a longer one.

    Args:
        blocks: float32, 16 kHz, of any sizes, as `lengua.audio.stream` gives them.

    Yields:
        Spans of at most 28 s (30 s where it is the whole) in their order, none reaching into the next.
    """
    tape = _Tape(blocks)
    if tape.reach(mel.WINDOW_SAMPLES + 1) <= mel.WINDOW_SAMPLES:
        if tape.end:
            yield Span(0, tape.cut(0, tape.end))
        return
    for first, last in stretches(_probabilities(tape)):
        yield Span(first, tape.cut(first, min(last, tape.end)))


def spoken_part(span: Span) -> tuple[int, int]:
    """Return the (first, last) samples between which somebody speaks in a span; all of it where nobody surely does."""
    found = list(stretches(voice(span.samples).tolist()))
    if not found:
        return span.start, span.end
    return span.start + found[0][0], min(span.start + found[-1][1], span.end)


def stretches(probabilities: Iterable[float]) -> Iterator[tuple[int, int]]:
    """Yield the (first, last) samples of each stretch of speech, as soon as its end is sure.

    Args:
        probabilities: of speech, one for each 512 samples.
    """
    again, stretch, before = deque(), None, 0
    for number, probability in _numbered(probabilities, again):
        if stretch is None and probability < CLEARLY:
            continue
        stretch = stretch or _Stretch(number)
        stretch.hear(probability)
        if stretch.is_over:
            last = stretch.last
        elif stretch.is_full:
            cut = stretch.best_cut()
            again.extend(enumerate(stretch.heard[cut:], stretch.first + cut))
            last = (stretch.first + cut) * FRAME
        else:
            continue
        yield max(before, stretch.first * FRAME - PAD), last
        stretch, before = None, last
    if stretch:
        yield max(before, stretch.first * FRAME - PAD), stretch.last


class _Stretch:
    """Speech from its first frame on, with the pauses in it."""

    def __init__(self, first: int):
        self.first = first
        self.heard: list[float] = []
        self.pause: int | None = None
        """Where in `heard` the pause began that still lasts."""

    def hear(self, probability: float) -> None:
        if probability >= CLEARLY:
            self.pause = None
        elif probability < NOT_SURELY and self.pause is None:
            self.pause = len(self.heard)
        self.heard.append(probability)

    @property
    def is_full(self) -> bool:
        return len(self.heard) >= LONGEST

    @property
    def is_over(self) -> bool:
        if self.pause is None or self.is_full:
            return self.pause is not None
        needed = LONG_PAUSE_S if self.pause * FRAME < SHORT_S * SAMPLE_RATE else SHORT_PAUSE_S
        return (len(self.heard) - self.pause) * FRAME >= needed * SAMPLE_RATE

    @property
    def last(self) -> int:
        """The sample behind the last one, with the pad as far as it was heard."""
        end = len(self.heard) if self.pause is None else self.pause
        return self.first * FRAME + min(end * FRAME + PAD, len(self.heard) * FRAME)

    def best_cut(self) -> int:
        """Return the place in `heard`'s second half where speech is least sure; the last one of equals."""
        smooth = np.convolve(self.heard, np.ones(SMOOTH) / SMOOTH, mode="same")
        half = len(smooth) // 2
        return len(smooth) - SMOOTH - int(np.argmin(smooth[half:-SMOOTH][::-1])) - 1


def _numbered(probabilities: Iterable[float], again: deque) -> Iterator[tuple[int, float]]:
    """Yield (number, probability); those in `again`, which the reader fills, come before the next."""
    for frame in enumerate(probabilities):
        while again:
            yield again.popleft()
        yield frame
    while again:
        yield again.popleft()


def _probabilities(tape: "_Tape") -> Iterator[float]:
    at = 0
    while tape.reach((at + PART) * FRAME) > at * FRAME:
        first = max(0, at - WARM_UP)
        part = tape.cut(first * FRAME, min((at + PART) * FRAME, tape.end))
        heard = np.zeros(-(-len(part) // FRAME)) if is_silent(part) else voice(part)
        yield from heard[at - first :][:PART].tolist()
        at += PART


class _Tape:
    """The last part of a recording that comes in blocks."""

    def __init__(self, blocks: Iterable[np.ndarray]):
        self.end = 0
        """Samples that have come."""
        self._blocks = iter(blocks)
        self._kept = np.empty(0, np.float32)

    def reach(self, end: int) -> int:
        """Read until so many samples have come, or all; return how many have."""
        fresh = []
        while self.end < end and (block := next(self._blocks, None)) is not None:
            fresh.append(block)
            self.end += len(block)
        if fresh:
            self._kept = np.concatenate([self._kept[-KEPT:], *fresh])
        return self.end

    def cut(self, first: int, last: int) -> np.ndarray:
        """Return a copy of samples that are still there."""
        start = self.end - len(self._kept)
        assert start <= first <= last <= self.end, (start, first, last, self.end)
        return self._kept[first - start : last - start].copy()
