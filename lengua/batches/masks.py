"""SpecAugment: a stretch of time and a band of each clip are hidden behind the clip's own silence.

transformers hides with zeros, which in Whisper's log-mel are noise, and draws from a global generator. Here a sampler
draws what is hidden, as it draws everything (lengua.batches.samplers), and this module hides it.

The sizes are those of the policy LibriSpeech Basic (Park et al., SpecAugment, 2019), which whisper-large-v2 was trained
with, without its time warp; and for clips shorter than LibriSpeech's, a stretch is at most a share of the clip.
"""

from dataclasses import dataclass

import numpy as np

MOST_FRAMES = 100
MOST_OF_TIME = 0.2
MOST_OF_BINS = 27 / 80


@dataclass(frozen=True)
class Masks:
    """What of a clip is hidden, whatever its shape: sizes and places, each between 0 and 1."""

    time: tuple[float, float]
    band: tuple[float, float]


def hide(mel: np.ndarray, masks: Masks, silence: float) -> np.ndarray:
    """Return a log-mel, shape (frames, n_mels), with `silence` where it is masked."""
    frames, n_mels = mel.shape
    hidden = mel.copy()
    hidden[_stretch(masks.time, frames, min(MOST_FRAMES, int(frames * MOST_OF_TIME)))] = silence
    hidden[:, _stretch(masks.band, n_mels, int(n_mels * MOST_OF_BINS))] = silence
    return hidden


def _stretch(mask: tuple[float, float], length: int, most: int) -> slice:
    """Return a slice of 0 to `most` entries, anywhere in `length`."""
    size, place = mask
    width = int(size * (most + 1))
    start = int(place * (length - width + 1))
    return slice(start, start + width)
