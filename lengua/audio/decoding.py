"""Decode audio: a clip as a whole (`load`), or a recording of any length in constant memory (`stream`).

libsndfile reads what it can read whole, because it is several times faster; FFmpeg (`lengua.audio.ffmpeg`) reads the
rest. The blocks of `stream`, concatenated, are what `load` returns.
"""

import io
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from lengua.audio.ffmpeg import choose_track, open_ffmpeg, read_by_ffmpeg, track_name
from lengua.audio.joined import is_joined_mp3, split_joined
from lengua.audio.samples import (
    SAMPLE_RATE,
    SamplesAndRate,
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
    pieces = list(_up_to(max_seconds, _read_pieces(source, name, min(WHOLE_BLOCK_S, max_seconds), track)))
    require_samples(sum(len(samples) for samples, _ in pieces), name)
    runs = [(rate, [samples for samples, _ in run]) for rate, run in groupby(pieces, key=lambda piece: piece[1])]
    samples = _joined([resample_to_16_khz(_joined(parts), rate) for rate, parts in runs])
    return limit_peak(samples, peak_amplitude(samples, name))


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Concatenate, without a copy of a single one: most clips are."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _up_to(seconds: float, pieces: Iterable[SamplesAndRate]) -> Iterator[SamplesAndRate]:
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
            number = choose_track(container, source_name(source), track) + 1 if streams else 1
            names = tuple(map(track_name, streams)) if len(streams) > 1 else ()
            return RecordingInfo(seconds, names, number)
    except (av.FFmpegError, ValueError):
        return RecordingInfo()


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
            size = max(1, min(int(block_s * file.samplerate), file.frames))
            while len(block := file.read(size, dtype="float32", always_2d=True)):
                seen += len(block)
                yield to_mono(block, file.samplerate), file.samplerate
    except soundfile.LibsndfileError as refusal:
        for samples, rate in read_by_ffmpeg(source, name, refusal, block_s, track):
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
