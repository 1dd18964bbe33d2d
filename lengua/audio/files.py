"""Files of sound: what can be read, by which library, and a clip read whole."""

import errno
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lengua.audio.samples import as_float, mono, peak_of, require_rate, require_samples, resampled, within
from lengua.errors import RequestError

MAX_SECONDS = 12 * 3600
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
    name = name_of(source)
    if isinstance(source, tuple):
        samples, rate = as_float(source[0], name), source[1]
    else:
        samples, rate = _decode(readable(source), name, max_seconds)
    require_rate(rate, name)
    require_samples(len(samples), name)
    samples = resampled(mono(samples[: int(max_seconds * rate)]), rate)
    return within(samples, peak_of(samples, name))


def name_of(source: AudioInput) -> str:
    """Return what messages call a source."""
    return str(source) if isinstance(source, str | Path) else "the recording"


def readable(source: Path | str | bytes) -> Path | bytes:
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
        raise RequestError("audio", f"an empty file ({name_of(source)}, 0 bytes)", "record or copy it again")
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
        RequestError: there is no sound in it, or none that FFmpeg can read; `refusal` is what libsndfile said.
    """
    import av

    try:
        with open_ffmpeg(source) as container:
            if not container.streams.audio:
                raise _without_sound(container, name)
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
        return _decode_by_ffmpeg(source, name, max_seconds, refusal)


def _decode_by_ffmpeg(source: Path | bytes, name: str, max_seconds: float, refusal: Exception):
    blocks, seen, rate = [np.empty((0, 1), np.float32)], 0, 16_000
    for block, rate in ffmpeg_frames(source, name, refusal):
        blocks.append(block)
        seen += len(block)
        if seen >= max_seconds * rate:
            break
    return np.concatenate(blocks[1:] or blocks), rate


def _decoded(container) -> Iterator[np.ndarray]:
    import av

    resampler, heard = av.AudioResampler(format="fltp"), False
    try:
        for frame in container.decode(audio=0):
            for block in resampler.resample(frame):
                heard = True
                yield block.to_ndarray().T
    except av.FFmpegError:  # a file cut off in the middle: what was heard so far is kept
        if not heard:
            raise


def _without_sound(container, name: str) -> RequestError:
    found = "pictures and no sound" if container.streams.video else "no sound"
    return RequestError("audio, or a video with sound", f"{found} in {name}", "export it with its sound track")


def _reason(error: Exception) -> str:
    if getattr(error, "errno", None) == errno.EINVAL:  # also what FFmpeg says of a format that is not allowed
        return "a damaged file, or a playlist or script, which holds no sound of its own"
    told = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return told.partition("\n")[0].strip(" .") or type(error).__name__
