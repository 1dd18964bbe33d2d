"""Files that were joined by writing one behind the other: which parts of them a decoder would not read.

libsndfile stops at the end that the first header names. Of an Ogg, FLAC or WAV each part is a whole file of its own; of
an MP3 the parts are frames, which FFmpeg reads to the end.
"""

import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OGG_PAGE = re.compile(rb"OggS\0([\0-\7])", re.DOTALL)
OGG_FIRST_PAGE = 2
"""Flag of the page that begins a stream (RFC 3533, section 6)."""
FLAC_START = re.compile(rb"fLaC\0\0\0\x22|fLaC\x80\0\0\x22")
"""The marker and the header of STREAMINFO, always 34 bytes and always first."""
ID3_HEADER_BYTES, WAV_HEADER_BYTES = 10, 8

MPEG1 = 3
MP3_RATES = {MPEG1: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
MP3_KBITS = {True: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)}
MP3_KBITS[False] = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
MP3_FRAME_BYTES = {
    (version << 3 | 2, bits + 1 << 4 | index << 2 | padding << 1): (144 if version == MPEG1 else 72)
    * 1000
    * kbit
    // rate
    + padding
    for version, rates in MP3_RATES.items()
    for index, rate in enumerate(rates)
    for bits, kbit in enumerate(MP3_KBITS[version == MPEG1])
    for padding in (0, 1)
}
"""Bytes of a frame of layer III by its header: the second byte without sync and checksum bits, the third without the
private bit (ISO 11172-3, 2.4.1.3)."""


@contextmanager
def _contents(source: Path | bytes) -> Iterator[bytes | mmap.mmap]:
    """Give the bytes of a source without reading all of them into memory."""
    if isinstance(source, bytes):
        yield source
        return
    with open(source, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def split_joined(source: Path | bytes) -> list[bytes]:
    """Return the parts of a joined Ogg, FLAC or WAV as files of their own; nothing of any other file."""
    with _contents(source) as data:
        find = {b"OggS": _ogg_starts, b"fLaC": _flac_starts, b"RIFF": _wav_starts}.get(data[:4])
        starts = list(find(data)) if find else []
        ends = [*starts[1:], len(data)]
        return [data[start:end] for start, end in zip(starts, ends, strict=True)] if len(starts) > 1 else []


def _ogg_starts(data) -> Iterator[int]:
    """Where chained streams begin: a first page behind one that is none (several firsts in a row are multiplexed)."""
    before_is_first = False
    for page in OGG_PAGE.finditer(data):
        is_first = bool(page[1][0] & OGG_FIRST_PAGE)
        if is_first and not before_is_first:
            yield page.start()
        before_is_first = is_first


def _flac_starts(data) -> Iterator[int]:
    return (found.start() for found in FLAC_START.finditer(data))


def _wav_starts(data) -> Iterator[int]:
    at = 0
    while data[at : at + 4] == b"RIFF":
        yield at
        size = int.from_bytes(data[at + 4 : at + WAV_HEADER_BYTES], "little")
        at += WAV_HEADER_BYTES + size + size % 2


def is_joined_mp3(source: Path | bytes) -> bool:
    """Return whether an MP3 has frames that its first ones do not announce: another format, or more than were counted.

    Of one that has neither a count nor a change of format, libsndfile reads every frame.
    """
    with _contents(source) as data:
        at = _behind_id3(data)
        first = data[at : at + 256]
        if len(first) < 4 or first[0] != 0xFF or not (size := _frame_bytes(first)):
            return False
        tag = max(first.find(b"Xing"), first.find(b"Info"))
        if tag >= 0 and first[tag + 7] & 2:  # the count of bytes is there, behind that of frames
            place = tag + 8 + 4 * (first[tag + 7] & 1)
            return len(data) - at > int.from_bytes(first[place : place + 4], "big") + MP3_TRAILER_BYTES
        # frames of one size, as of a constant bitrate: nothing else stands where the next ones begin
        if data[at::size] == b"\xff" * len(data[at::size]) and len(set(data[at + 2 :: size])) == 1:
            return False
        return _changes_format(data, at)


MP3_TRAILER_BYTES = 512
"""Tags behind the last frame are no speech; larger ones cost only the time of a closer look."""


def _behind_id3(data) -> int:
    if data[:3] != b"ID3":
        return 0
    a, b, c, d = data[6:ID3_HEADER_BYTES]
    return ID3_HEADER_BYTES + (a << 21 | b << 14 | c << 7 | d)


def _frame_bytes(header) -> int | None:
    return MP3_FRAME_BYTES.get((header[1] & 0x1E, header[2] & 0xFE))


def _changes_format(data, at: int) -> bool:
    """Whether, frame after frame, something else comes than the format of the first, but for tags at the end."""
    formats = set()
    while at + 4 <= len(data):
        header = data[at : at + 4]
        size = _frame_bytes(header) if header[0] == 0xFF else None
        if size is None:
            return len(data) - at > MP3_TRAILER_BYTES and data.find(b"\xff", at) >= 0
        formats.add((header[1] & 0x18, header[2] & 0x0C, header[3] >> 6 == 3))
        if len(formats) > 1:
            return True
        at += size
    return False
