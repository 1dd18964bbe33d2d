"""Any usual audio file, its bytes, or an array -> mono float32 at 16 kHz. The only decoder in the project.

soundfile (libsndfile) decodes WAV, FLAC, Ogg, Opus and MP3 about four times faster than PyAV; PyAV carries its own
FFmpeg and opens the rest: M4A, WebM, G.722, GSM, the sound of videos. Nothing needs a program of the system.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lengua.errors import RequestError

SAMPLE_RATE = 16_000
RATES = range(4_000, 384_001)
MAX_CHANNELS = 64  # more of them are samples in the wrong place
MAX_SECONDS = 12 * 3600
"""A bound on what one file may unpack to; two hours are 460 MB as float32."""

SILENCE_RMS = 0.002
"""-54 dB of full scale. Speech in Common Voice peaks above it even in its quietest clips; room noise stays below."""

AudioInput = Path | str | bytes | tuple[np.ndarray, int]


def load(source: AudioInput, max_seconds: float = MAX_SECONDS) -> np.ndarray:
    """Decode, mix down, resample.

    Args:
        source: a path, the bytes of a file, or (samples, rate) with samples of shape (n,) or (n, channels).
        max_seconds: stop reading there; what comes after is not decoded.

    Returns:
        float32, shape (samples,), at 16 kHz, within [-1, 1].

    Raises:
        RequestError: missing, a folder, empty, not audio, or samples that are not numbers.
    """
    name = _name(source)
    if isinstance(source, tuple):
        samples, rate = _as_float(source[0], name), source[1]
    else:
        samples, rate = _decode(_readable(source), name, max_seconds)
    if rate not in RATES:
        raise RequestError("a sampling rate of 4 to 384 kHz", f"{rate} Hz in {name}", "convert it to 16 kHz first")
    if not len(samples):
        raise RequestError("audio", f"no samples in {name}", "record or export the clip again")
    return _limited(_resampled(_mono(samples[: int(max_seconds * rate)]), rate), name)


def duration_s(samples: np.ndarray) -> float:
    """Seconds of audio at 16 kHz."""
    return len(samples) / SAMPLE_RATE


def is_silent(samples: np.ndarray) -> bool:
    """Return whether no 100 ms of the raw level reaches the level of speech (`SILENCE_RMS`)."""
    size = SAMPLE_RATE // 10
    blocks = np.pad(samples, (0, -len(samples) % size)).reshape(-1, size)
    energy = np.einsum("ij,ij->i", blocks, blocks)  # without a copy of the squares
    return bool(energy.max(initial=0.0) < size * SILENCE_RMS**2)


def as_flac(samples: np.ndarray) -> bytes:
    """Return 16 kHz audio as the bytes of a FLAC file, which every player and `load` can open."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _name(source: AudioInput) -> str:
    return str(source) if isinstance(source, str | Path) else "the recording"


def _readable(source: Path | str | bytes) -> Path | bytes:
    if isinstance(source, bytes):
        size = len(source)
    else:
        source = Path(source)
        if not source.exists():
            raise RequestError("an audio file", f"no file at {source}", "check the path")
        if source.is_dir():
            raise RequestError("an audio file", f"the folder {source}", "name the files in it: FOLDER/*.mp3")
        size = source.stat().st_size
    if not size:
        raise RequestError("audio", f"an empty file ({_name(source)}, 0 bytes)", "record or copy it again")
    return source


def _decode(source: Path | bytes, name: str, max_seconds: float) -> tuple[np.ndarray, int]:
    """Return samples of shape (n, channels) and their rate, by soundfile or else by PyAV."""
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            return file.read(int(max_seconds * file.samplerate), dtype="float32", always_2d=True), file.samplerate
    except soundfile.LibsndfileError as refusal:
        return _decode_by_av(source, name, max_seconds, refusal)


def _decode_by_av(source: Path | bytes, name: str, max_seconds: float, refusal: Exception):
    import av

    try:
        with av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as container:
            rate = container.streams.audio[0].rate
            blocks = list(_blocks(container, int(max_seconds * rate)))
    except (av.FFmpegError, IndexError, ValueError, AttributeError) as error:  # no stream, or none with a known codec
        found = f"{name}, which neither libsndfile ({_reason(refusal)}) nor FFmpeg ({_reason(error)}) can read"
        raise RequestError("audio (WAV, MP3, FLAC, Ogg, M4A, WebM, ...)", found, "check that it plays") from error
    return (np.concatenate(blocks) if blocks else np.empty((0, 1), np.float32)), rate


def _blocks(container, max_samples: int) -> Iterator[np.ndarray]:
    """Yield float32 blocks of shape (n, channels) until the stream ends, breaks off, or reaches `max_samples`."""
    import av

    resampler = av.AudioResampler(format="fltp")
    seen = 0
    try:
        for frame in container.decode(audio=0):
            for block in resampler.resample(frame):
                yield block.to_ndarray().T
                seen += block.samples
            if seen >= max_samples:
                return
    except av.FFmpegError:  # a file cut off in the middle: what was heard so far is kept
        if not seen:
            raise


def _reason(error: Exception) -> str:
    told = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return told.partition("\n")[0].strip(" .") or type(error).__name__


def _as_float(samples: np.ndarray, name: str) -> np.ndarray:
    """Scale integer samples by the width of their type; leave floats as they are."""
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


def _mono(samples: np.ndarray) -> np.ndarray:
    if samples.ndim == 1 or samples.shape[1] == 1:
        return samples.reshape(-1)
    return samples.mean(axis=1, dtype=np.float32)


def _resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    import soxr

    return samples if rate == SAMPLE_RATE else soxr.resample(samples, rate, SAMPLE_RATE)


def _limited(samples: np.ndarray, name: str) -> np.ndarray:
    """Scale down what exceeds full scale (Vorbis overshoots); refuse what is not a number."""
    peak = float(max(samples.max(initial=0.0), -samples.min(initial=0.0)))
    if not np.isfinite(peak):
        raise RequestError("audio samples", f"NaN or infinity in {name}", "export the clip again")
    return np.ascontiguousarray(samples / peak if peak > 1 else samples, dtype=np.float32)
