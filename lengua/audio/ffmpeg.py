"""Sound by FFmpeg (PyAV): containers with their tracks and their clock, and every codec that libsndfile lacks.

Sound that starts late in a container, or has a hole, keeps its place on the container's clock; rate and channels may
change from frame to frame.
"""

import errno
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from lengua.audio.samples import SamplesAndRate, to_mono
from lengua.runtime.errors import RequestError

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


def open_ffmpeg(source: Path | bytes):
    """Open by FFmpeg, which may read nothing but this one source. The only place where `av.open` is called.

    Raises:
        av.FFmpegError, ValueError: FFmpeg cannot read it, or it is none of MEDIA_FORMATS.
    """
    import av

    return av.open(io.BytesIO(source) if isinstance(source, bytes) else f"file:{source}", options=FFMPEG_OPTIONS)


def choose_track(container, name: str, track: int | None) -> int:
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
            names = ", ".join(f"{number} ({track_name(one)})" for number, one in enumerate(streams, 1))
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


def track_name(stream) -> str:
    parts = [stream.metadata.get(key, "") for key in ("title", "language")]
    return ", ".join(filter(None, parts)) or f"{stream.codec_context.name}, {stream.codec_context.layout.name}"


MIN_HOLE_S, MAX_HOLE_S = 0.1, 3600.0
"""Shorter ones are delays of codecs; where the clock leaps further, another recording begins."""


def read_by_ffmpeg(
    source: Path | bytes, name: str, refusal: Exception, block_s: float, track: int | None = None
) -> Iterator[SamplesAndRate]:
    """Yield (mono samples, rate) until the stream ends or breaks off.

    Raises:
        RequestError: there is no sound in it, or none that FFmpeg can read; `refusal` is the error of libsndfile.
    """
    import av

    try:
        with open_ffmpeg(source) as container:
            stream = container.streams.audio[choose_track(container, name, track)]
            yield from _in_blocks(_on_clock(container, stream), block_s)
    except (av.FFmpegError, ValueError, AttributeError) as error:  # none with a known codec
        found = f"{name}, which neither libsndfile ({_reason(refusal)}) nor FFmpeg ({_reason(error)}) can read"
        raise RequestError("audio (WAV, MP3, FLAC, Ogg, M4A, WebM, ...)", found, "check that it plays") from error


def _in_blocks(pieces: Iterable[SamplesAndRate], block_s: float) -> Iterator[SamplesAndRate]:
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


def _on_clock(container, stream) -> Iterator[SamplesAndRate]:
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
