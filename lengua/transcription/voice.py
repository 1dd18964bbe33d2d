"""Is there a voice? Silero's voice activity detector, as faster-whisper packages it (silero-vad v6, MIT)."""

import threading

import numpy as np

from lengua.audio import SAMPLE_RATE
from lengua.audio.samples import BLOCK, loudest_energy

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
    loudest_rms = float(np.sqrt(loudest_energy(samples) / BLOCK))
    padded *= np.clip(LOUD_ENOUGH / max(loudest_rms, 1e-9), 1.0, MOST_GAIN)
    return _detector()(padded).reshape(-1)


def voiced_s(samples: np.ndarray) -> float:
    """Return how many seconds of a stretch are clearly a voice."""
    return np.count_nonzero(voice(samples) >= CLEARLY) * FRAME / SAMPLE_RATE


def _detector():
    """Return the one detector of the process. It keeps no state between calls: threads may share it."""
    from faster_whisper.vad import get_vad_model

    with _opening:
        return get_vad_model()
