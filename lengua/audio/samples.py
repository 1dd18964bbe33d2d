"""Samples in memory: their scale, channels and rate; how loud they are; their bytes as a file."""

import io

import numpy as np

from lengua.runtime.errors import RequestError

SamplesAndRate = tuple[np.ndarray, int]
"""Samples as they come out of a file, and their rate."""
SAMPLE_RATE = 16_000
SUPPORTED_RATES_HZ = range(4_000, 384_001)
MAX_CHANNELS = 64  # more of them are samples in the wrong place

LOUDNESS_BLOCK_SAMPLES = SAMPLE_RATE // 10
"""Samples over which loudness is measured: 100 ms."""
SILENCE_RMS = 0.002
"""-54 dB of full scale. Speech in Common Voice peaks above it even in its quietest clips; room noise stays below."""


def duration_s(samples: np.ndarray) -> float:
    """Seconds of audio at 16 kHz."""
    return len(samples) / SAMPLE_RATE


def is_silent(samples: np.ndarray) -> bool:
    """Return whether no 100 ms of the raw level reaches the level of speech (`SILENCE_RMS`)."""
    return bool(loudest_energy(samples) < LOUDNESS_BLOCK_SAMPLES * SILENCE_RMS**2)


def loudest_energy(samples: np.ndarray) -> float:
    """Return the sum of the squares in the loudest 100 ms (`BLOCK` samples) of 16 kHz audio."""
    blocks = np.pad(samples, (0, -len(samples) % LOUDNESS_BLOCK_SAMPLES)).reshape(-1, LOUDNESS_BLOCK_SAMPLES)
    return np.einsum("ij,ij->i", blocks, blocks).max(initial=0.0)  # without a copy of the squares


def as_flac(samples: np.ndarray) -> bytes:
    """Return 16 kHz audio as the bytes of a FLAC file, which every player and `load` can open."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def as_float(samples: np.ndarray, name: str) -> np.ndarray:
    """Scale integer samples by the width of their type; leave floats as they are.

    Raises:
        RequestError: they are no numbers, or not of the shape of audio.
    """
    samples = np.asarray(samples)
    shaped = samples.ndim == 1 or (samples.ndim == 2 and samples.shape[1] <= MAX_CHANNELS)
    if not shaped or (samples.dtype.kind not in "fi" and samples.dtype != np.uint8):
        expected = "samples as floats or signed integers, shape (n,) or (n, channels)"
        found = f"{samples.dtype} of shape {samples.shape} in {name}"
        raise RequestError(expected, found, "turn the array into float32 within [-1, 1], channels last")
    if samples.dtype == np.uint8:  # 8-bit WAV is the one unsigned format, centred at 128
        return (samples.astype(np.float32) - 128) / 128
    if np.issubdtype(samples.dtype, np.integer):
        return samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    return samples.astype(np.float32)


CANCELLED_SHARE = 0.01
"""Of the loudest channel's energy: where less is left in the mean, the channels cancel each other (antiphase)."""


def to_mono(samples: np.ndarray, rate: int = SAMPLE_RATE) -> np.ndarray:
    """Return the mean of all channels, or in seconds in which they cancel each other the loudest one: shape (n,)."""
    if samples.ndim == 1 or samples.shape[1] == 1:
        return samples.reshape(-1)
    mean = samples.mean(axis=1, dtype=np.float32)
    for at in range(0, len(samples), rate):
        part, mixed = samples[at : at + rate], mean[at : at + rate]
        energy = np.einsum("ij,ij->j", part, part)
        if mixed @ mixed < CANCELLED_SHARE * energy.max(initial=0.0):
            mixed[:] = part[:, energy.argmax()]
    return mean


def resample_to_16_khz(samples: np.ndarray, rate: int) -> np.ndarray:
    """Return samples of any rate at 16 kHz."""
    import soxr

    return samples if rate == SAMPLE_RATE else soxr.resample(samples, rate, SAMPLE_RATE)


def peak_amplitude(samples: np.ndarray, name: str) -> float:
    """Return the largest absolute value; 0 of nothing.

    Raises:
        RequestError: there is something among the samples that is not a number.
    """
    peak = float(max(samples.max(initial=0.0), -samples.min(initial=0.0)))
    if not np.isfinite(peak):
        raise RequestError("audio samples", f"NaN or infinity in {name}", "export the clip again")
    return peak


def limit_peak(samples: np.ndarray, peak: float) -> np.ndarray:
    """Scale down what exceeds full scale (Vorbis overshoots)."""
    return np.ascontiguousarray(samples / peak if peak > 1 else samples, dtype=np.float32)


def require_rate(rate: int, name: str) -> None:
    """Refuse what no recorder has."""
    if rate not in SUPPORTED_RATES_HZ:
        raise RequestError("a sampling rate of 4 to 384 kHz", f"{rate} Hz in {name}", "convert it to 16 kHz first")


def require_samples(count: int, name: str) -> None:
    if not count:
        raise RequestError("audio", f"no samples in {name}", "record or export the clip again")
