"""Whisper's log-mel spectrogram of the speech alone, its one-byte codec, and exact silence.

Whisper's features are (max(log10 mel, peak - 8) + 4) / 4, so silence behind a clip is not zero but that clip's own
floor, peak - 2 (never under -1.5, the value of digital zero). Knowing it, a clip can be stored without its padding
and refilled to 30 s exactly.

asrfront computes the spectrogram: in C, a third of what numpy took (LOG.md), and with the same bits on every CPU by its
own account. Source of the formulas: openai/whisper, audio.py; Slaney's mel scale: Auditory Toolbox (1998).
"""

import numpy as np
from asrfront import whisper

from lengua.audio.samples import SAMPLE_RATE

N_FFT = 400  # 25 ms
HOP_LENGTH = 160  # 10 ms
FRAMES_PER_SECOND = SAMPLE_RATE // HOP_LENGTH
assert FRAMES_PER_SECOND == 100

WINDOW_SECONDS = 30
WINDOW_SAMPLES = WINDOW_SECONDS * SAMPLE_RATE
WINDOW_FRAMES = WINDOW_SECONDS * FRAMES_PER_SECOND
assert WINDOW_FRAMES == 3000

LOG_MEL_MIN = -1.5  # (log10 1e-10 + 4) / 4: digital silence
LOG_MEL_RANGE = 2.0  # 8 decades of power below the peak, in units of 4


def log_mel(samples: np.ndarray, n_mels: int = 80) -> np.ndarray:
    """Return the log-mel of a clip without padding, as WhisperFeatureExtractor gives it in its first frames.

    Args:
        samples: float32, shape (n,), 16 kHz, at most 30 s; what comes after is not looked at.
        n_mels: 80, or 128 for whisper-large-v3.

    Returns:
        float32, shape (frames, n_mels), frames = ceil(n / 160) + 2, at most 3000: every frame that hears the clip.
    """
    samples = samples[:WINDOW_SAMPLES]
    frames = min(-(-len(samples) // HOP_LENGTH) + 2, WINDOW_FRAMES)
    tail = min(WINDOW_SAMPLES - len(samples), N_FFT + 2 * HOP_LENGTH)
    log = whisper.log_mel(np.pad(samples, (0, tail)), n_mels, pad_or_trim=False)
    return np.maximum(log[:, :frames].T, np.float32(LOG_MEL_MIN))  # log10 of 1e-10 is a little under -10 in float32


def silence_floor(peak: float) -> float:
    """Return the value of silence in a clip whose loudest log-mel is `peak`."""
    return max(float(peak) - LOG_MEL_RANGE, LOG_MEL_MIN)


def encode(mel: np.ndarray) -> tuple[float, np.ndarray]:
    """Return (peak, bytes): uint8 of the same shape, where b stands for floor + b / 255 * (peak - floor).

    The error is at most half a step: (peak - floor) / 510, under 0.004 of a log-mel unit.
    """
    peak = float(np.float32(mel.max()))
    floor = silence_floor(peak)
    span = peak - floor
    scaled = (mel - floor) * (255 / span) if span > 0 else np.zeros_like(mel)
    return peak, np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)


def decode(peak: float, coded: np.ndarray) -> np.ndarray:
    """Return the float32 log-mel that `encode` wrote; silence comes back exactly as `silence_floor(peak)`."""
    floor = silence_floor(peak)
    return (floor + coded.astype(np.float32) * np.float32((peak - floor) / 255)).astype(np.float32)


def pad_with_silence(mel: np.ndarray, frames: int, peak: float | None = None) -> np.ndarray:
    """Return (n_mels, frames): the clip, transposed as models read it, then its own silence.

    `peak` is the clip's loudest log-mel (default: that of `mel`). A clip longer than `frames` is cut.
    """
    floor = silence_floor(mel.max() if peak is None else peak)
    window = np.full((mel.shape[1], frames), floor, dtype=np.float32)
    kept = min(len(mel), frames)
    window[:, :kept] = mel[:kept].T
    return window


def band_centres_hz(n_mels: int) -> np.ndarray:
    """Return where each of Slaney's triangular filters hears most, in Hz: float64, shape (n_mels,)."""
    return _mel_to_hz(np.linspace(_hz_to_mel(0.0), _hz_to_mel(SAMPLE_RATE / 2), n_mels + 2))[1:-1]


def _hz_to_mel(hz: float) -> float:
    """Slaney: 200/3 Hz a mel up to 1 kHz (15 mel), then 27 mel for each factor of 6.4."""
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
