"""A recording of any length in constant memory: block after block, as `load` would have given it whole."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lengua.audio.files import AudioInput, ffmpeg_frames, name_of, open_ffmpeg, open_soundfile, readable
from lengua.audio.samples import SAMPLE_RATE, as_float, mono, peak_of, require_rate, require_samples, within

Piece = tuple[np.ndarray, int]
"""Mono samples as they come out of the file, and their rate."""


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
    name, heard, peak = name_of(source), 0, 1.0
    for block in _at_16_khz(_pieces(source, name, block_s), name):
        if len(block):
            heard += len(block)
            peak = max(peak, peak_of(block, name))
            yield within(block, peak)
    require_samples(heard, name)


def seconds_of(source: AudioInput) -> float | None:
    """Return how long a recording is by its header, without reading it; None where that does not say.

    Raises:
        RequestError: missing, a folder, or empty.
    """
    import soundfile

    if isinstance(source, tuple):
        return len(source[0]) / source[1] if source[1] else None
    source = readable(source)
    try:
        with open_soundfile(source) as file:
            return file.frames / file.samplerate if file.frames < UNKNOWN else None
    except soundfile.LibsndfileError:
        return _seconds_by_ffmpeg(source)


UNKNOWN = 1 << 62
"""Frames that libsndfile tells of a stream whose header leaves them open."""


def _seconds_by_ffmpeg(source: Path | bytes) -> float | None:
    import av

    try:
        with open_ffmpeg(source) as container:
            known = container.streams.audio and container.duration
            return container.duration / av.time_base if known else None
    except (av.FFmpegError, ValueError):
        return None


def _pieces(source: AudioInput, name: str, block_s: float) -> Iterator[Piece]:
    if not isinstance(source, tuple):
        yield from _of_file(readable(source), name, block_s)
        return
    samples, rate = np.asarray(source[0]), source[1]
    require_rate(rate, name)
    size = max(1, int(block_s * rate)) if samples.ndim else 1
    for at in range(0, len(samples) if samples.ndim else 1, size):
        yield mono(as_float(samples[at : at + size] if samples.ndim else samples, name)), rate


def _of_file(source: Path | bytes, name: str, block_s: float) -> Iterator[Piece]:
    """Read by soundfile; where that gives up, in the middle of a file as well, FFmpeg goes on from there."""
    import soundfile

    seen = 0
    try:
        with open_soundfile(source) as file:
            file.seekable = _never  # else soundfile seeks after every block, where libsndfile stands already
            size = max(1, int(block_s * file.samplerate))
            while len(block := file.read(size, dtype="float32", always_2d=True)):
                seen += len(block)
                yield mono(block), file.samplerate
    except soundfile.LibsndfileError as refusal:
        yield from _gathered(_after(seen, ffmpeg_frames(source, name, refusal)), block_s)


def _never() -> bool:
    return False


def _after(seen: int, frames: Iterator[Piece]) -> Iterator[Piece]:
    for samples, rate in frames:
        if seen < len(samples):
            yield mono(samples[seen:]), rate
        seen = max(0, seen - len(samples))


def _gathered(pieces: Iterator[Piece], block_s: float) -> Iterator[Piece]:
    """Join the small frames of FFmpeg."""
    held, size, rate = [], 0, SAMPLE_RATE
    for samples, rate in pieces:
        held.append(samples)
        size += len(samples)
        if size >= block_s * rate:
            yield np.concatenate(held), rate
            held, size = [], 0
    if held:
        yield np.concatenate(held), rate


def _at_16_khz(pieces: Iterator[Piece], name: str) -> Iterator[np.ndarray]:
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
