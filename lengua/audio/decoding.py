"""Decode audio: a clip as a whole (`load`), or a recording of any length in constant memory (`stream`).

libsndfile reads what it can read whole, because it is several times faster; FFmpeg (PyAV) reads the rest. Sampling rate
and channels may change within a file, and sound that starts late in a container, or has a hole, keeps its place on the
container's clock. The blocks of `stream`, concatenated, are what `load` returns.
"""

import errno
import io
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from lengua.audio.joined import is_joined_mp3, split_joined
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


def load(source: AudioInput, max_seconds: float = MAX_RECORDING_S, track: int | None = None) -> np.ndarray:
    """Decode, mix down, resample.

    Args:
        source: a path, the bytes of a file, or (samples, rate) with samples of shape (n,) or (n, channels).
        max_seconds: stop reading there; what comes after is not decoded.
        track: as `stream` takes it.

    Returns:
        float32, shape (samples,), at 16 kHz, within [-1, 1].

    Raises:
        RequestError: missing, a folder, empty, not audio, or samples that are not numbers.
    """
    name = source_name(source)
    if isinstance(source, tuple):
        source = (
            source[0][: int(max_seconds * source[1])] if np.ndim(source[0]) and source[1] > 0 else source[0],
            source[1],
        )
    pieces = list(_up_to(max_seconds, _read_pieces(source, name, min(WHOLE_BLOCK_S, max_seconds), track)))
    require_samples(sum(len(samples) for samples, _ in pieces), name)
    runs = [(rate, [samples for samples, _ in run]) for rate, run in groupby(pieces, key=lambda piece: piece[1])]
    parts = [resample_to_16_khz(np.concatenate(parts), rate) for rate, parts in runs]
    samples = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return limit_peak(samples, peak_amplitude(samples, name))


def _up_to(seconds: float, pieces: Iterable["SamplesAndRate"]) -> Iterator["SamplesAndRate"]:
    """Yield pieces, the last one cut, until they last so many seconds."""
    for samples, rate in pieces:
        yield samples[: round(seconds * rate)], rate
        seconds -= len(samples) / rate
        if seconds <= 0:
            return


def source_name(source: AudioInput) -> str:
    """Return what messages call a source."""
    return str(source) if isinstance(source, str | Path) else "the recording"


def require_readable(source: Path | str | bytes) -> Path | bytes:
    """Return a file or bytes that are there; of standard input ("-") or a pipe, which can be read once, its bytes.

    Raises:
        RequestError: missing, a folder, empty, or more than MAX_PIPE_BYTES in a pipe.
    """
    if isinstance(source, bytes):
        size = len(source)
    elif str(source) == STDIN:
        return require_readable(_read_pipe(sys.stdin.buffer))
    else:
        source = Path(source)
        if not source.exists():
            raise RequestError("an audio file", f"no file at {source}", "check the path")
        if source.is_dir():
            raise RequestError("an audio file", f"the folder {source}", "name the files in it: FOLDER/*.mp3")
        if not source.is_file():
            with open(source, "rb") as file:
                return require_readable(_read_pipe(file))
        size = source.stat().st_size
    if not size:
        raise RequestError("audio", f"an empty file ({source_name(source)}, 0 bytes)", "record or copy it again")
    return source


STDIN = "-"
MAX_PIPE_BYTES = 1 << 30
"""A pipe is held in memory; a file has no such bound."""


def _read_pipe(file) -> bytes:
    if len(data := file.read(MAX_PIPE_BYTES + 1)) > MAX_PIPE_BYTES:
        raise RequestError("at most 1 GiB through a pipe", "more", "write it to a file, and name that")
    return data


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


@dataclass(frozen=True)
class RecordingInfo:
    """What a recording's header says, without decoding it."""

    duration_s: float | None = None
    """None where the header does not say, or counts only the first part of a joined file."""
    tracks: tuple[str, ...] = ()
    """Of a container with several: what each is, by its title and language."""
    track: int = 1
    """The one that is read, counted from 1."""


def recording_info(source: AudioInput, track: int | None = None) -> RecordingInfo:
    """Return what a recording is by its header.

    Raises:
        RequestError: missing, a folder, empty, or without such a track.
    """
    import av
    import soundfile

    if isinstance(source, tuple):
        return RecordingInfo(len(source[0]) / source[1] if source[1] else None)
    source = require_readable(source)
    try:
        if split_joined(source) or is_joined_mp3(source):
            return RecordingInfo()
        with open_soundfile(source) as file:
            return RecordingInfo(file.frames / file.samplerate if file.frames < UNKNOWN_LENGTH else None)
    except soundfile.LibsndfileError:
        pass
    try:
        with open_ffmpeg(source) as container:
            streams = container.streams.audio
            # without a clock it is guessed from the bitrate
            known = streams and container.duration and container.start_time is not None
            seconds = container.duration / av.time_base if known else None
            number = _choose_track(container, source_name(source), track) + 1 if streams else 1
            names = tuple(map(_track_name, streams)) if len(streams) > 1 else ()
            return RecordingInfo(seconds, names, number)
    except (av.FFmpegError, ValueError):
        return RecordingInfo()


def _choose_track(container, name: str, track: int | None) -> int:
    """Return the index, among the sound tracks, of the one to read: asked for, marked as default, or the longest.

    Raises:
        RequestError: no sound, or no such track.
    """
    from av.stream import Disposition

    streams = container.streams.audio
    if not streams:
        found = f"{'pictures and no sound' if container.streams.video else 'no sound'} in {name}"
        raise RequestError("audio, or a video with sound", found, "export it with its sound track")
    if track is not None:
        if not 1 <= track <= len(streams):
            names = ", ".join(f"{number} ({_track_name(one)})" for number, one in enumerate(streams, 1))
            raise RequestError(f"a sound track {track}", f"{names} in {name}", "name one of them with --track")
        return track - 1
    marked = [index for index, stream in enumerate(streams) if stream.disposition & Disposition.default]
    if len(marked) == 1:
        return marked[0]
    lengths = [_track_seconds(stream) for stream in streams]
    return lengths.index(max(lengths))


def _track_seconds(stream) -> float:
    """Return how long a track is, which Matroska says in a tag (HH:MM:SS.fraction); 0 where it is not said."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    parts = stream.metadata.get("DURATION", "").split(":")
    try:
        hours, minutes, seconds = map(float, parts)
    except ValueError:
        return 0.0
    return 3600 * hours + 60 * minutes + seconds


def _track_name(stream) -> str:
    parts = [stream.metadata.get(key, "") for key in ("title", "language")]
    return ", ".join(filter(None, parts)) or f"{stream.codec_context.name}, {stream.codec_context.layout.name}"


MIN_HOLE_S, MAX_HOLE_S = 0.1, 3600.0
"""Shorter ones are delays of codecs; where the clock leaps further, another recording begins."""


def _read_by_ffmpeg(
    source: Path | bytes, name: str, refusal: Exception, block_s: float, track: int | None = None
) -> Iterator["SamplesAndRate"]:
    """Yield (mono samples, rate) until the stream ends or breaks off.

    Raises:
        RequestError: there is no sound in it, or none that FFmpeg can read; `refusal` is the error of libsndfile.
    """
    import av

    try:
        with open_ffmpeg(source) as container:
            stream = container.streams.audio[_choose_track(container, name, track)]
            yield from _in_blocks(_on_clock(container, stream), block_s)
    except (av.FFmpegError, ValueError, AttributeError) as error:  # none with a known codec
        found = f"{name}, which neither libsndfile ({_reason(refusal)}) nor FFmpeg ({_reason(error)}) can read"
        raise RequestError("audio (WAV, MP3, FLAC, Ogg, M4A, WebM, ...)", found, "check that it plays") from error


def _in_blocks(pieces: Iterable["SamplesAndRate"], block_s: float) -> Iterator["SamplesAndRate"]:
    """Mix down and join pieces of shape (n, channels), for FFmpeg's frames are small."""
    held, size = [], 0
    for samples, rate in pieces:
        if held and (size >= block_s * held[0][1] or (rate, samples.shape[1]) != (held[0][1], held[0][0].shape[1])):
            yield to_mono(np.concatenate([one for one, _ in held]), held[0][1]), held[0][1]
            held, size = [], 0
        held.append((samples, rate))
        size += len(samples)
    if held:
        yield to_mono(np.concatenate([one for one, _ in held]), held[0][1]), held[0][1]


def _on_clock(container, stream) -> Iterator["SamplesAndRate"]:
    """Yield (samples of shape (n, channels), rate) of each frame, and silence where the container's clock has a hole.

    A clock that runs backwards, or ahead beyond the recording's end, belongs to another recording that was joined.
    """
    import av

    resampler, setup = None, None
    start_s = None if container.start_time is None else container.start_time / av.time_base
    end_s = container.duration / av.time_base if container.duration else MAX_HOLE_S
    written_s = 0.0
    for frame in _frames(container, stream):
        rate = frame.sample_rate
        if setup != (setup := (rate, frame.format.name, frame.layout.name)):
            resampler = av.AudioResampler(format="fltp")
        blocks = [block.to_ndarray().T for block in resampler.resample(frame)]
        hole_s = 0.0 if start_s is None or frame.time is None else frame.time - start_s - written_s
        if abs(hole_s) > MIN_HOLE_S:
            if 0 < hole_s <= MAX_HOLE_S and written_s + hole_s < end_s + 1 and blocks:
                silence = np.zeros((rate, blocks[0].shape[1]), np.float32)
                for at in range(0, round(hole_s * rate), rate):
                    yield silence[: round(hole_s * rate) - at], rate
                written_s += hole_s
            else:
                start_s += hole_s
        for block in blocks:
            yield block, rate
            written_s += len(block) / rate


def _frames(container, stream) -> Iterator:
    """Yield what can be decoded, to the end or to where a file breaks off; a bad packet does not end it."""
    import av

    failure, is_empty = None, True
    try:
        for packet in container.demux(stream):
            try:
                for frame in packet.decode():
                    is_empty = False
                    yield frame
            except av.FFmpegError as error:
                failure = error
    except av.FFmpegError as error:  # cut off in the middle
        failure = error
    if is_empty and failure:
        raise failure


def _reason(error: Exception) -> str:
    if getattr(error, "errno", None) == errno.EINVAL:  # also what FFmpeg says of a format that is not allowed
        return "a damaged file, or a playlist or script, which holds no sound of its own"
    message = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return message.partition("\n")[0].strip(" .") or type(error).__name__


SamplesAndRate = tuple[np.ndarray, int]
"""Samples as they come out of the file, and their rate."""
UNKNOWN_LENGTH = 1 << 62
"""Frames that libsndfile tells of a stream whose header leaves them open."""
WHOLE_BLOCK_S = 10.0
"""Read at a time."""


def stream(source: AudioInput, block_s: float = WHOLE_BLOCK_S, track: int | None = None) -> Iterator[np.ndarray]:
    """Decode, mix down and resample, block after block; joined, the blocks are what `load` gives.

    But for one thing: where samples exceed full scale, `load` scales all by the highest peak, and this by the highest
    so far. A file cut off in the middle ends there. One that grows meanwhile ends where it ended when libsndfile opened
    it; what FFmpeg reads, it reads to the end that it comes to.

    Args:
        source: a path, the bytes of a file, or (samples, rate) with samples of shape (n,) or (n, channels).
        block_s: about how long a block is.
        track: of a container with several sound tracks, counted from 1. Default: the one marked so, else the longest.

    Yields:
        float32, shape (samples,), at 16 kHz, within [-1, 1]; never empty.

    Raises:
        RequestError: as `load` does, with the block that shows it.
    """
    name, count, peak = source_name(source), 0, 1.0
    for block in _resample_stream(_read_pieces(source, name, block_s, track)):
        if len(block):
            count += len(block)
            peak = max(peak, peak_amplitude(block, name))
            yield limit_peak(block, peak)
    require_samples(count, name)


def _read_pieces(source: AudioInput, name: str, block_s: float, track: int | None) -> Iterator[SamplesAndRate]:
    """Yield (mono samples, rate), the rate one that a recorder has."""
    pieces = _read_array(source, name, block_s) if isinstance(source, tuple) else None
    for samples, rate in pieces or _read_file(require_readable(source), name, block_s, track):
        require_rate(rate, name)
        yield samples, rate


def _read_array(source: SamplesAndRate, name: str, block_s: float) -> Iterator[SamplesAndRate]:
    samples, rate = np.asarray(source[0]), source[1]
    require_rate(rate, name)
    size = max(1, int(block_s * rate)) if samples.ndim else 1
    for at in range(0, len(samples) if samples.ndim else 1, size):
        yield to_mono(as_float(samples[at : at + size] if samples.ndim else samples, name), rate), rate


def _read_file(source: Path | bytes, name: str, block_s: float, track: int | None) -> Iterator[SamplesAndRate]:
    """Read by soundfile; where that gives up, in the middle of a file as well, FFmpeg goes on from there."""
    import soundfile

    seen = 0
    try:
        if parts := split_joined(source):
            for part in parts:
                yield from _read_file(part, name, block_s, track)
            return
        if is_joined_mp3(source):
            raise soundfile.LibsndfileError(0, "joined from several: ")
        with open_soundfile(source) as file:
            file.seekable = lambda: False  # else soundfile seeks after every block, where libsndfile stands already
            size = max(1, int(block_s * file.samplerate))
            while len(block := file.read(size, dtype="float32", always_2d=True)):
                seen += len(block)
                yield to_mono(block, file.samplerate), file.samplerate
    except soundfile.LibsndfileError as refusal:
        for samples, rate in _read_by_ffmpeg(source, name, refusal, block_s, track):
            if seen < len(samples):
                yield samples[seen:], rate
            seen = max(0, seen - len(samples))


def _resample_stream(pieces: Iterator[SamplesAndRate]) -> Iterator[np.ndarray]:
    import soxr

    resampler, before = None, None
    for samples, rate in pieces:
        if resampler and rate != before:
            yield resampler.resample_chunk(np.empty(0, np.float32), last=True)
            resampler = None
        before = rate
        if rate == SAMPLE_RATE:
            yield samples
            continue
        resampler = resampler or soxr.ResampleStream(rate, SAMPLE_RATE, 1)
        yield resampler.resample_chunk(np.ascontiguousarray(samples))
    if resampler:
        yield resampler.resample_chunk(np.empty(0, np.float32), last=True)
