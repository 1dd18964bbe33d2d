"""Sound inside a page: the audio that a store kept, as data: URIs, bounded so that the page stays light."""

from base64 import b64encode
from collections.abc import Sequence
from typing import NamedTuple

from lengua import audio
from lengua.errors import LenguaError
from lengua.store import Split

MOST_A_CLIP, MOST_A_PAGE = 2_000_000, 8_000_000
"""Letters of base64 that one clip and all clips of a page may take."""
KINDS = ((b"fLaC", "audio/flac"), (b"OggS", "audio/ogg"), (b"ID3", "audio/mpeg"))
NOT_KEPT = "no sound: the store does not keep this clip"
TOO_LARGE = "no sound: the clip is too large for this page"
PAGE_FULL = f"no sound: this page holds {MOST_A_PAGE / 1e6:.0f} MB of it already"
UNREADABLE = "no sound: the kept audio cannot be read"


class Player(NamedTuple):
    """What a page plays: `uri`, or else `note` says why it does not."""

    uri: str | None
    note: str = ""


def players(split: Split | None, ids: Sequence[str], each: int = MOST_A_CLIP, most: int = MOST_A_PAGE) -> dict:
    """Return a player by id for each of some utterances; earlier ones come first when room runs out."""
    places = {} if split is None else {id: place for place, id in enumerate(split.column("id"))}
    found, left = {}, most
    for id in dict.fromkeys(ids):
        found[id] = _player(split[places[id]].audio if id in places else None, each, left)
        left -= len(found[id].uri or "")
    return found


def media_type(data: bytes) -> str | None:
    """Return the type of what a browser plays, told by its first bytes; None for anything else."""
    for begin, kind in KINDS:
        if data.startswith(begin):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "audio/wav"
    if data[4:8] == b"ftyp":
        return "audio/mp4"
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return "audio/webm"
    return "audio/mpeg" if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0 else None


def _player(data: bytes | None, each: int, left: int) -> Player:
    if not data:
        return Player(None, NOT_KEPT)
    kind = media_type(data)
    if kind is None:  # GSM, AMR and their like: no browser plays them
        try:
            data, kind = audio.as_flac(audio.load(data)), "audio/flac"
        except LenguaError:
            return Player(None, UNREADABLE)
    if 4 * len(data) / 3 > each:
        return Player(None, TOO_LARGE)
    uri = f"data:{kind};base64,{b64encode(data).decode('ascii')}"
    return Player(uri) if len(uri) <= left else Player(None, PAGE_FULL)
