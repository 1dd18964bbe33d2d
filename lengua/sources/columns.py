"""Which column of a foreign data set holds the audio, the words, the speaker; by the names that data sets give them.

columns = find(["path", "audio", "sentence", "client_id"], {"audio"}, {"text": "sentence"})
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from lengua.errors import RequestError
from lengua.sources.clip_table import EXTRA_COLUMNS
from lengua.sources.common_voice import MAX_CLIP_BYTES

# Text as it is written comes before text made plain: a model learns to write from it.
KNOWN = {
    "audio": ("audio", "speech", "wav", "flac", "mp3"),
    "text": (
        *("sentence", "text", "raw_transcription", "transcription", "transcript"),
        *("normalized_text", "normalised_text", "raw_text", "utterance", "label_text"),
    ),
    "speaker": ("client_id", "speaker_id", "speaker", "spk_id"),
    "id": ("path", "file_name", "file", "audio_id", "utt_id", "segment_id"),
    "language": ("locale", "language", "lang"),
}
NEEDED = ("audio", "text")
SECONDS = {"duration_s": 1.0, "duration_ms": 0.001, "audio_duration": 1.0}
"""Columns that tell a length, and what one of their units is in seconds."""


@dataclass(frozen=True)
class Columns:
    """The name of each column, empty where there is none."""

    audio: str
    text: str
    speaker: str = ""
    id: str = ""
    language: str = ""

    def clip(self, row: Mapping) -> str:
        """Return the name of a row's clip without folder and ending, or an empty text."""
        told = row.get(self.id) or (row.get(self.audio) or {}).get("path") or ""
        return PurePosixPath(str(told)).stem

    def extra(self, row: Mapping) -> dict[str, str]:
        """Return what else a row tells of its speaker and its votes, as text."""
        told = {name: row.get(column) for column, name in EXTRA_COLUMNS.items() if column in row}
        return {name: str(value) for name, value in told.items() if value not in (None, "", "nan")}

    def seconds(self, row: Mapping) -> float | None:
        """Return the length that a row tells, or None."""
        for name, unit in SECONDS.items():
            if isinstance(value := row.get(name), int | float) and value > 0:
                return value * unit
        return None


def find(names: Iterable[str], sounds: Iterable[str], chosen: Mapping[str, str], where: str) -> Columns:
    """Return the columns to read.

    Args:
        names: all columns.
        sounds: those that hold audio, by their type.
        chosen: what was said explicitly: {"text": "normalized_text"}.
        where: the data set, for messages.

    Raises:
        RequestError: no audio, no text, or a column that was chosen is not there.
    """
    names, sounds = list(names), list(sounds)
    have = ", ".join(names)
    for role, name in chosen.items():
        if name not in (sounds if role == "audio" else names):
            do = f"name one of them, ?{role}=COLUMN behind the data set, or leave it out"
            raise RequestError(f"a column {name!r} of {role} in {where}", f"the columns {have}", do)
    found = {role: next((name for name in known if name in names), "") for role, known in KNOWN.items()}
    found["audio"] = found["audio"] if found["audio"] in sounds else next(iter(sounds), "")
    columns = Columns(**found | dict(chosen))
    for role in NEEDED:
        if not getattr(columns, role):
            known = ", ".join(KNOWN[role])
            do = f"name it: hub:NAME?{role}=COLUMN" if role == "text" else "choose a data set of recordings"
            raise RequestError(f"a column with the {role} ({known}) in {where}", f"the columns {have}", do)
    return columns


def is_sound(kind) -> bool:
    """Return whether a column of this type can hold audio files: datasets' own type, or bytes with a path."""
    return type(kind).__name__ == "Audio" or (isinstance(kind, dict) and {"bytes", "path"} <= set(kind))


def sound(value) -> tuple[bytes, str | None]:
    """Return the audio in a cell, and why it cannot be used.

    A path alone is never followed: it would be a path of this machine, named by a stranger.
    """
    data = (value or {}).get("bytes")
    if not data:
        return b"", "no audio" if data is None else "empty clip"
    return data, f"clip over {MAX_CLIP_BYTES >> 20} MB" if len(data) > MAX_CLIP_BYTES else None
