"""Decode audio: a clip as a whole (`load`), or a recording of any length in constant memory (`stream`).

libsndfile reads what it can, because it is several times faster; FFmpeg (PyAV) reads the rest. The blocks of
`stream`, concatenated, are what `load` returns.
"""

import errno
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lengua.audio.samples import (
    SAMPLE_RATE,
    as_float,
    limit_peak,
    peak_amplitude,
    require_rate,
    require_samples,
    resample_to_16_khz,
    to_mono,
)
from lengua.runtime.errors import RequestError

MAX_RECORDING_S = 12 * 3600
"""A bound on what `load` unpacks; two hours are 460 MB as float32. `stream` has none."""

AudioInput = Path | str | bytes | tuple[np.ndarray, int]

# FFmpeg guesses the format from the content, whatever the file is called. Some of its demuxers (HLS, DASH, concat,
# image sequences, SDP, ...) hold no media but names of other files, which FFmpeg opens: an uploaded text would be read
# as the sound of another file of this machine. So only containers and raw streams that hold their media are allowed.
MEDIA_FORMATS = """
    aac ac3 ac4 aiff alaw amr amrnb amrwb ape asf asf_o au avi caf dsf dts dtshd dv eac3 f32be f32le f64be f64le flac
    flv g722 g723_1 g726 g726le g729 gsm iff ilbc ircam lc3 live_flv loas matroska mov mp3 mpc mpc8 mpeg mpegts mulaw
    mxf nut ogg oma qcp rm s16be s16le s24be s24le s32be s32le s8 sbc shn sln sox swf tak truehd tta u8 voc w64 wav wsd
    wtv wv xwma
""".split()
FFMPEG_OPTIONS = {"format_whitelist": ",".join(MEDIA_FORMATS), "protocol_whitelist": "file,pipe"}


def load(source: AudioInput, max_seconds: float = MAX_RECORDING_S) -> np.ndarray:
    """Decode, mix down, resample.

    Args:
        source: a path, the bytes of a file, or (samples, rate) with samples of shape (n,) or (n, channels).
        max_seconds: stop reading there; what comes after is not decoded.

    Returns:
        float32, shape (samples,), at 16 kHz, within [-1, 1].

    Raises:
        RequestError: missing, a folder, empty, not audio, or samples that are not numbers.
    """
    name = source_name(source)
    if isinstance(source, tuple):
        samples, rate = as_float(source[0], name), source[1]
    else:
        samples, rate = _decode(require_readable(source), name, max_seconds)
    require_rate(rate, name)
    require_samples(len(samples), name)
    samples = resample_to_16_khz(to_mono(samples[: int(max_seconds * rate)]), rate)
    return limit_peak(samples, peak_amplitude(samples, name))


def source_name(source: AudioInput) -> str:
    """Return what messages call a source."""
    return str(source) if isinstance(source, str | Path) else "the recording"


def require_readable(source: Path | str | bytes) -> Path | bytes:
    """Return a file or bytes that are there.

    Raises:
        RequestError: missing, a folder, or empty.
    """
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
        raise RequestError("audio", f"an empty file ({source_name(source)}, 0 bytes)", "record or copy it again")
    return source


def open_soundfile(source: Path | bytes):
    """Open by libsndfile.

    Raises:
        soundfile.LibsndfileError: it cannot read that, or takes it for empty, as it does a WAV whose recorder was
            killed before it wrote the length into the header; FFmpeg reads such a file to its end.
    """
    import soundfile

    file = soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source)
    if not file.frames:
        file.close()
        raise soundfile.LibsndfileError(0, "no samples: ")
    return file


def open_ffmpeg(source: Path | bytes):
    """Open by FFmpeg, which may read nothing but this one source. The only place where `av.open` is called.

    Raises:
        av.FFmpegError, ValueError: FFmpeg cannot read it, or it is none of MEDIA_FORMATS.
    """
    import av

    return av.open(io.BytesIO(source) if isinstance(source, bytes) else f"file:{source}", options=FFMPEG_OPTIONS)


def ffmpeg_frames(source: Path | bytes, name: str, refusal: Exception) -> Iterator[tuple[np.ndarray, int]]:
    """Yield (samples of shape (n, channels), rate) until the stream ends or breaks off.

    Raises:
        RequestError: there is no sound in it, or none that FFmpeg can read; `refusal` is the error of libsndfile.
    """
    import av

    try:
        with open_ffmpeg(source) as container:
            if not container.streams.audio:
                found = f"{'pictures and no sound' if container.streams.video else 'no sound'} in {name}"
                raise RequestError("audio, or a video with sound", found, "export it with its sound track")
            rate = container.streams.audio[0].rate
            for samples in _decoded(container):
                yield samples, rate
    except (av.FFmpegError, ValueError, AttributeError) as error:  # none with a known codec
        found = f"{name}, which neither libsndfile ({_reason(refusal)}) nor FFmpeg ({_reason(error)}) can read"
        raise RequestError("audio (WAV, MP3, FLAC, Ogg, M4A, WebM, ...)", found, "check that it plays") from error


def _decode(source: Path | bytes, name: str, max_seconds: float) -> tuple[np.ndarray, int]:
    """Return samples of shape (n, channels) and their rate, by soundfile or else by PyAV."""
    import soundfile

    try:
        with open_soundfile(source) as file:
            return file.read(int(max_seconds * file.samplerate), dtype="float32", always_2d=True), file.samplerate
    except soundfile.LibsndfileError as refusal:
        blocks, count, rate = [], 0, SAMPLE_RATE
        for block, rate in ffmpeg_frames(source, name, refusal):
            blocks.append(block)
            count += len(block)
            if count >= max_seconds * rate:
                break
        return np.concatenate(blocks or [np.empty((0, 1), np.float32)]), rate


def _decoded(container) -> Iterator[np.ndarray]:
    import av

    resampler, is_empty = av.AudioResampler(format="fltp"), True
    try:
        for frame in container.decode(audio=0):
            for block in resampler.resample(frame):
                is_empty = False
                yield block.to_ndarray().T
    except av.FFmpegError:  # a file cut off in the middle: what came so far is kept
        if is_empty:
            raise


def _reason(error: Exception) -> str:
    if getattr(error, "errno", None) == errno.EINVAL:  # also what FFmpeg says of a format that is not allowed
        return "a damaged file, or a playlist or script, which holds no sound of its own"
    message = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return message.partition("\n")[0].strip(" .") or type(error).__name__


SamplesAndRate = tuple[np.ndarray, int]
"""Mono samples as they come out of the file, and their rate."""
UNKNOWN_LENGTH = 1 << 62
"""Frames that libsndfile tells of a stream whose header leaves them open."""


def stream(source: AudioInput, block_s: float = 10.0) -> Iterator[np.ndarray]:
    """Decode, mix down and resample, block after block; joined, the blocks are what `load` gives.

    But for one thing: where samples exceed full scale, `load` scales all by the highest peak, and this by the highest
    so far. A file cut off in the middle ends there. One that grows meanwhile ends where it ended when libsndfile opened
    it; what FFmpeg reads, it reads to the end that it comes to.

    Args:
        source: a path, the bytes of a file, or (samples, rate) with samples of shape (n,) or (n, channels).
        block_s: about how long a block is.

    Yields:
        float32, shape (samples,), at 16 kHz, within [-1, 1]; never empty.

    Raises:
        RequestError: as `load` does, with the block that shows it.
    """
    name, count, peak = source_name(source), 0, 1.0
    for block in _resample_stream(_read_pieces(source, name, block_s), name):
        if len(block):
            count += len(block)
            peak = max(peak, peak_amplitude(block, name))
            yield limit_peak(block, peak)
    require_samples(count, name)


def recording_duration_s(source: AudioInput) -> float | None:
    """Return how long a recording is by its header, without reading it; None where that does not say.

    Raises:
        RequestError: missing, a folder, or empty.
    """
    import av
    import soundfile

    if isinstance(source, tuple):
        return len(source[0]) / source[1] if source[1] else None
    source = require_readable(source)
    try:
        with open_soundfile(source) as file:
            return file.frames / file.samplerate if file.frames < UNKNOWN_LENGTH else None
    except soundfile.LibsndfileError:
        pass
    try:
        with open_ffmpeg(source) as container:
            known = container.streams.audio and container.duration
            return container.duration / av.time_base if known else None
    except (av.FFmpegError, ValueError):
        return None


def _read_pieces(source: AudioInput, name: str, block_s: float) -> Iterator[SamplesAndRate]:
    if not isinstance(source, tuple):
        yield from _read_file(require_readable(source), name, block_s)
        return
    samples, rate = np.asarray(source[0]), source[1]
    require_rate(rate, name)
    size = max(1, int(block_s * rate)) if samples.ndim else 1
    for at in range(0, len(samples) if samples.ndim else 1, size):
        yield to_mono(as_float(samples[at : at + size] if samples.ndim else samples, name)), rate


def _read_file(source: Path | bytes, name: str, block_s: float) -> Iterator[SamplesAndRate]:
    """Read by soundfile; where that gives up, in the middle of a file as well, FFmpeg goes on from there."""
    import soundfile

    seen = 0
    try:
        with open_soundfile(source) as file:
            file.seekable = lambda: False  # else soundfile seeks after every block, where libsndfile stands already
            size = max(1, int(block_s * file.samplerate))
            while len(block := file.read(size, dtype="float32", always_2d=True)):
                seen += len(block)
                yield to_mono(block), file.samplerate
    except soundfile.LibsndfileError as refusal:
        held, size, rate = [], 0, SAMPLE_RATE
        for samples, rate in ffmpeg_frames(source, name, refusal):
            if seen < len(samples):
                held.append(to_mono(samples[seen:]))
                size += len(held[-1])
            seen = max(0, seen - len(samples))
            if size >= block_s * rate:  # FFmpeg's frames are small
                yield np.concatenate(held), rate
                held, size = [], 0
        if held:
            yield np.concatenate(held), rate


def _resample_stream(pieces: Iterator[SamplesAndRate], name: str) -> Iterator[np.ndarray]:
    import soxr

    resampler = None
    for samples, rate in pieces:
        require_rate(rate, name)
        if rate == SAMPLE_RATE:
            yield samples
            continue
        resampler = resampler or soxr.ResampleStream(rate, SAMPLE_RATE, 1)
        yield resampler.resample_chunk(np.ascontiguousarray(samples))
    if resampler:
        yield resampler.resample_chunk(np.empty(0, np.float32), last=True)
