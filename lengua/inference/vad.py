"""Voice activity detection: a recording of any length to spans of speech of at most 28 s, cut at pauses.

Silero's detector (silero-vad v6, MIT, as faster-whisper packages it) gives a probability of speech every 32 ms. A span
begins where that is high and ends with a pause, a longer one after a lone word, so that it stays with its sentence. A
longer span is cut where the probability is lowest.

Only the last minute and a half of samples is held. The detector runs on fixed parts of the recording, so the spans do
not depend on the sizes of the blocks that come in.
"""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from lengua.audio import SAMPLE_RATE, is_silent, log_mel
from lengua.audio.samples import LOUDNESS_BLOCK_SAMPLES, loudest_energy

VAD_FRAME_SAMPLES = 512
"""Samples that get one probability: 32 ms."""
SPEECH_THRESHOLD = 0.5
"""Probability from which Silero's authors speak of speech."""
VAD_TARGET_RMS, MAX_VAD_GAIN = 0.02, 10.0
"""Where the loudest 100 ms stay below this RMS, Silero hears them louder, by no more than this."""

_detector_lock = threading.Lock()


def speech_probabilities(samples: np.ndarray) -> np.ndarray:
    """Return the probability of speech in each 32 ms: float32, shape (n // 512 + 1,)."""
    from faster_whisper.vad import get_vad_model

    padded = np.pad(samples, (0, VAD_FRAME_SAMPLES - len(samples) % VAD_FRAME_SAMPLES)).astype(np.float32)
    loudest_rms = float(np.sqrt(loudest_energy(samples) / LOUDNESS_BLOCK_SAMPLES))
    padded *= np.clip(VAD_TARGET_RMS / max(loudest_rms, 1e-9), 1.0, MAX_VAD_GAIN)
    with _detector_lock:  # while it is opened: it keeps no state between calls, so threads may share it
        detector = get_vad_model()
    return detector(padded).reshape(-1)


def voiced_s(samples: np.ndarray) -> float:
    """Return how many seconds of a stretch are clearly a voice."""
    return np.count_nonzero(speech_probabilities(samples) >= SPEECH_THRESHOLD) * VAD_FRAME_SAMPLES / SAMPLE_RATE


MAX_SEGMENT_SECONDS = 28
PAUSE_THRESHOLD = 0.35
"""Probability of speech under which a pause begins; it lasts until the next frame of clear speech. Silero's."""
PAD_SAMPLES = SAMPLE_RATE // 5
"""Samples of the pause that stay with the speech before it, and as many with the speech after it."""
MAX_STRETCH_FRAMES = (MAX_SEGMENT_SECONDS * SAMPLE_RATE - 2 * PAD_SAMPLES) // VAD_FRAME_SAMPLES
"""Frames of the longest stretch."""
SHORT_STRETCH_S, LONG_PAUSE_S, SHORT_PAUSE_S = 1.0, 1.0, 0.42
"""A pause of a second ends any stretch, one of 0.42 s those that are longer than a second."""
assert 2 * PAD_SAMPLES <= SHORT_PAUSE_S * SAMPLE_RATE, "two pads fit into every pause"

VAD_PART_FRAMES, VAD_WARM_UP_FRAMES = 960, 64
"""Frames that the detector hears at a time: 30.7 s, and 2 s before them, in which it finds its feet."""
RING_BUFFER_SAMPLES = 90 * SAMPLE_RATE
"""Samples that are kept: a part, a stretch before it, and some more."""
assert (
    RING_BUFFER_SAMPLES
    > (VAD_PART_FRAMES + VAD_WARM_UP_FRAMES + MAX_STRETCH_FRAMES) * VAD_FRAME_SAMPLES + 2 * LONG_PAUSE_S * SAMPLE_RATE
)

SMOOTHING_FRAMES = 11
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


def speech_spans(blocks: Iterable[np.ndarray]) -> Iterator[Span]:
    """Yield what to decode: the whole of a recording of at most 30 s, stretches of speech of a longer one.

    Args:
        blocks: float32, 16 kHz, of any sizes, as `lengua.audio.stream` gives them.

    Yields:
        Spans of at most 28 s (30 s where it is the whole) in their order, none reaching into the next.
    """
    tape = _RingBuffer(blocks)
    if tape.reach(log_mel.WINDOW_SAMPLES + 1) <= log_mel.WINDOW_SAMPLES:
        if tape.end:
            yield Span(0, tape.cut(0, tape.end))
        return
    for first, last in speech_stretches(_probabilities(tape)):
        yield Span(first, tape.cut(first, min(last, tape.end)))


def spoken_part(span: Span) -> tuple[int, int]:
    """Return the (first, last) samples between which somebody speaks in a span; all of it where nobody surely does."""
    found = list(speech_stretches(speech_probabilities(span.samples).tolist()))
    if not found:
        return span.start, span.end
    return span.start + found[0][0], min(span.start + found[-1][1], span.end)


def speech_stretches(probabilities: Iterable[float]) -> Iterator[tuple[int, int]]:
    """Yield the (first, last) samples of each stretch of speech, as soon as its end is sure.

    Args:
        probabilities: of speech, one for each 512 samples.
    """
    frames, again, stretch, before = enumerate(probabilities), deque(), None, 0
    while (frame := again.popleft() if again else next(frames, None)) is not None:
        number, probability = frame
        if stretch is None and probability < SPEECH_THRESHOLD:
            continue
        stretch = stretch or _Stretch(number)
        stretch.add(probability)
        if stretch.is_over:
            last = stretch.last
        elif stretch.is_full:
            cut = stretch.best_cut()
            again.extend(enumerate(stretch.probabilities[cut:], stretch.first + cut))
            last = (stretch.first + cut) * VAD_FRAME_SAMPLES
        else:
            continue
        yield max(before, stretch.first * VAD_FRAME_SAMPLES - PAD_SAMPLES), last
        stretch, before = None, last
    if stretch:
        yield max(before, stretch.first * VAD_FRAME_SAMPLES - PAD_SAMPLES), stretch.last


class _Stretch:
    """Speech from its first frame on, with the pauses in it."""

    def __init__(self, first: int):
        self.first = first
        self.probabilities: list[float] = []
        self.pause: int | None = None
        """Where in `probabilities` the pause began that still lasts."""

    def add(self, probability: float) -> None:
        if probability >= SPEECH_THRESHOLD:
            self.pause = None
        elif probability < PAUSE_THRESHOLD and self.pause is None:
            self.pause = len(self.probabilities)
        self.probabilities.append(probability)

    @property
    def is_full(self) -> bool:
        return len(self.probabilities) >= MAX_STRETCH_FRAMES

    @property
    def is_over(self) -> bool:
        if self.pause is None or self.is_full:
            return self.pause is not None
        needed = LONG_PAUSE_S if self.pause * VAD_FRAME_SAMPLES < SHORT_STRETCH_S * SAMPLE_RATE else SHORT_PAUSE_S
        return (len(self.probabilities) - self.pause) * VAD_FRAME_SAMPLES >= needed * SAMPLE_RATE

    @property
    def last(self) -> int:
        """The sample behind the last one, with the pad as far as audio has come in."""
        end = len(self.probabilities) if self.pause is None else self.pause
        return self.first * VAD_FRAME_SAMPLES + min(
            end * VAD_FRAME_SAMPLES + PAD_SAMPLES, len(self.probabilities) * VAD_FRAME_SAMPLES
        )

    def best_cut(self) -> int:
        """Return the place in the second half where speech is least sure; the last one of equals."""
        smooth = np.convolve(self.probabilities, np.ones(SMOOTHING_FRAMES) / SMOOTHING_FRAMES, mode="same")
        half = len(smooth) // 2
        return len(smooth) - SMOOTHING_FRAMES - int(np.argmin(smooth[half:-SMOOTHING_FRAMES][::-1])) - 1


def _probabilities(tape: "_RingBuffer") -> Iterator[float]:
    at = 0
    while tape.reach((at + VAD_PART_FRAMES) * VAD_FRAME_SAMPLES) > at * VAD_FRAME_SAMPLES:
        first = max(0, at - VAD_WARM_UP_FRAMES)
        part = tape.cut(first * VAD_FRAME_SAMPLES, min((at + VAD_PART_FRAMES) * VAD_FRAME_SAMPLES, tape.end))
        found = np.zeros(-(-len(part) // VAD_FRAME_SAMPLES)) if is_silent(part) else speech_probabilities(part)
        yield from found[at - first :][:VAD_PART_FRAMES].tolist()
        at += VAD_PART_FRAMES


class _RingBuffer:
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
            self._kept = np.concatenate([self._kept[-RING_BUFFER_SAMPLES:], *fresh])
        return self.end

    def cut(self, first: int, last: int) -> np.ndarray:
        """Return a copy of samples that are still there."""
        start = self.end - len(self._kept)
        assert start <= first <= last <= self.end, (start, first, last, self.end)
        return self._kept[first - start : last - start].copy()
