"""Is there a voice? Silero's voice activity detector, as faster-whisper packages it (silero-vad v6, MIT)."""

import threading

import numpy as np

from lengua.audio import SAMPLE_RATE

FRAME = 512
"""Samples that get one probability: 32 ms."""
CLEARLY = 0.5
"""Probability from which Silero's authors speak of speech."""
LOUD_ENOUGH, MOST_GAIN = 0.02, 10.0
"""Where the loudest 100 ms stay below this RMS, Silero hears them louder, by no more than this."""

_opening = threading.Lock()


def voice(samples: np.ndarray) -> np.ndarray:
    """Return the probability of speech in each 32 ms: float32, shape (n // 512 + 1,)."""
    padded = np.zeros((len(samples) // FRAME + 1) * FRAME, np.float32)  # of our own: the detector writes into it
    padded[: len(samples)] = samples
    padded *= np.clip(LOUD_ENOUGH / max(_loudest_rms(samples), 1e-9), 1.0, MOST_GAIN)
    return _detector()(padded).reshape(-1)


def voiced_s(samples: np.ndarray) -> float:
    """Return how many seconds of a stretch are clearly a voice."""
    return np.count_nonzero(voice(samples) >= CLEARLY) * FRAME / SAMPLE_RATE


def _loudest_rms(samples: np.ndarray) -> float:
    """Return the level of the loudest 100 ms."""
    size = SAMPLE_RATE // 10
    blocks = np.pad(samples, (0, -len(samples) % size)).reshape(-1, size)
    return float(np.sqrt(np.einsum("ij,ij->i", blocks, blocks).max(initial=0.0) / size))


def _detector():
    """Return the one detector of the process. It keeps no state between calls: threads may share it."""
    from faster_whisper.vad import get_vad_model

    with _opening:
        return get_vad_model()
