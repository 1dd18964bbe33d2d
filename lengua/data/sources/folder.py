"""`folder:PATH`: one's own recordings. PATH holds metadata.csv (.tsv, .jsonl, .parquet) beside the audio.

    file_name,text
    clips/0001.wav,"Buenos días, ¿cómo está?"

`text` may be called `sentence` or `transcription`. Optional columns: id, language, speaker, split, duration_s; all
others go to `extra`. Folders called train, validation and test are splits, with a table in each or with one above them
(Hugging Face's audiofolder). A metadata.csv as LJSpeech has it (id|text|normalised text, with wavs/) is read, too.

A bad audio file is dropped and counted. Bad metadata is an error that names file and line (`read_metadata`), and is
never guessed at. Recordings may be links to anywhere; a path that is written in a table may not leave the folder.
"""

import hashlib
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath

from lengua.data.sources import Dropped, Utterance
from lengua.data.sources.metadata import MetadataRow, metadata_files, read_metadata
from lengua.data.splits import assign_splits, sentence_key, split_name
from lengua.models.languages import language_code
from lengua.runtime.errors import RequestError

FOLDER_TEXT_COLUMNS = ("text", "sentence", "transcription")
OPTIONAL_COLUMNS = ("id", "language", "speaker", "split", "duration_s")
MIN_SPEAKERS_FOR_SPLIT = 10
"""From so many speakers on, a split is made by speaker, so that dev and test are of voices never trained on."""
FOLDER_RULES_VERSION = 2
"""Raise this when a rule below changes what `read` yields; it is part of the revision."""


def open(path: str, language: str | None = None) -> "FolderSource":
    """Open a folder of recordings; `language` is for metadata that does not tell it.

    Raises:
        RequestError: no such folder, no or several metadata files, or metadata that cannot be read as meant.
    """
    folder = Path(path).expanduser()
    tables = metadata_files(folder)
    recordings = [one for metadata in tables for one in _read_recordings(folder, metadata, language)]
    if len(tables) > 1:
        check_ids(folder, [one.row for one in recordings])
    return FolderSource(folder.resolve(), tables, tuple(recordings))


def _read_recordings(folder: Path, metadata: Path, language: str | None) -> list["Recording"]:
    columns, rows = read_metadata(metadata)
    texts = text_column(metadata, columns)
    if not rows:
        raise RequestError(f"recordings in {metadata}", "no row below the column names", "add one row for each file")
    if metadata.parent != folder:  # its file names begin there
        inner = metadata.parent.name
        rows = [replace(row, cells={**row.cells, "file_name": f"{inner}/{row['file_name']}"}) for row in rows]
    check_ids(metadata, rows)
    languages = row_languages(metadata, rows, language)
    splits = row_splits(metadata, rows, columns, texts)
    return list(map(Recording, rows, (row[texts] for row in rows), languages, splits, [texts] * len(rows)))


def text_column(metadata: Path, columns: list[str]) -> str:
    """Return the column that holds the words; raise RequestError where that or file_name is missing."""
    texts = [column for column in FOLDER_TEXT_COLUMNS if column in columns]
    if "file_name" in columns and texts:
        return texts[0]
    found = f"the columns {', '.join(map(repr, columns))}" if columns else "no columns"
    other_separator = metadata.suffix == ".csv" and any(";" in column or "\t" in column for column in columns)
    do = "separate the columns by commas" if other_separator else "name the columns so in the metadata"
    raise RequestError(f"the columns file_name and text (or sentence, transcription) in {metadata}", found, do)


def check_ids(where: Path, rows: list[MetadataRow]) -> None:
    """Raise RequestError where two rows have one id."""
    lines: dict[str, int] = {}
    for row in rows:
        first = lines.setdefault(row.id, row.line)
        if first != row.line:
            found = f"{row.id!r} on line {first} and on line {row.line}"
            raise RequestError(f"one row for each id in {where}", found, "remove one, or add a column id")


def row_languages(metadata: Path, rows: list[MetadataRow], language: str | None) -> list[str]:
    """Return Whisper's code for each row: its language column, else `language`."""
    default, codes = language_code(language) if language else None, []
    for row in rows:
        place = f"on line {row.line} of {metadata}"
        try:
            code = language_code(row["language"]) if row["language"] else default
        except RequestError as error:
            raise RequestError(error.expected, f"{error.found} {place}", error.do) from error
        if not code:
            do = "pass --language, or add a column language"
            raise RequestError("a language for each recording", f"none {place}", do)
        codes.append(code)
    return codes


def row_splits(metadata: Path, rows: list[MetadataRow], columns: list[str], texts: str) -> list[str]:
    """Return the split of each row: its column, else the folder of its recording (train/, test/, ...), where all are
    in such folders; else by speaker where there are enough, else by text."""
    if "split" in columns:
        splits = [split_name(row["split"]) for row in rows]
        if None in splits:
            wrong = rows[splits.index(None)]
            found = f"{wrong['split']!r} on line {wrong.line} of {metadata}"
            raise RequestError("one of the splits train, dev (validation, valid) and test", found, "name one of these")
        return splits
    splits = [
        split_name(PurePosixPath(posix_path(row["file_name"])).parts[:1][0]) if row["file_name"] else None
        for row in rows
    ]
    if all(splits):
        return splits
    speakers = [row["speaker"] for row in rows]
    if all(speakers) and len(set(speakers)) >= MIN_SPEAKERS_FOR_SPLIT:
        keys = speakers
    else:
        keys = [sentence_key(row[texts]) or row.id for row in rows]
    assigned = assign_splits(keys)
    return [assigned[key] for key in keys]


@dataclass(frozen=True)
class Recording:
    """One row, understood. Whether its file is any good is found out when it is read."""

    row: MetadataRow
    text: str
    language: str
    split: str
    text_column: str


@dataclass(frozen=True)
class FolderSource:
    """The utterances of one folder, in the order of its metadata. Fulfils `lengua.data.sources.Source`."""

    folder: Path
    tables: tuple[Path, ...]
    recordings: tuple[Recording, ...]
    licence: str = ""
    attribution: str = ""

    @property
    def uri(self) -> str:
        return f"folder:{self.folder.name}"

    @cached_property
    def revision(self) -> str:
        """A hash of the metadata, of how it was understood, and of the name and size of every file."""
        tables = b"".join(table.read_bytes() for table in self.tables)
        digest = hashlib.blake2b(f"{FOLDER_RULES_VERSION} ".encode() + tables, digest_size=8)
        for recording in self.recordings:
            name = recording.row["file_name"]
            size = file_size(self.folder, name)
            digest.update(repr((name, size, recording.language, recording.split)).encode())
        return digest.hexdigest()

    def read(self, split: str) -> Iterator[Utterance | Dropped]:
        return (self._item(recording) for recording in self.recordings if recording.split == split)

    survey = read
    """A look over a split costs no decoding here."""

    def _item(self, recording: Recording) -> Utterance | Dropped:
        row, known = recording.row, ("file_name", recording.text_column, *OPTIONAL_COLUMNS)
        if reason := recording_fault(self.folder, recording):
            return Dropped(row.id, reason)
        return Utterance(
            id=row.id,
            audio=find_file(self.folder, row["file_name"]),
            text=" ".join(recording.text.split()),
            language=recording.language,
            speaker=row["speaker"],
            duration_s=float(row["duration_s"]) if row["duration_s"] else None,
            split=recording.split,
            extra={name: cell for name, cell in row.cells.items() if cell and name not in known},
        )


def recording_fault(folder: Path, recording: Recording) -> str | None:
    name = recording.row["file_name"]
    if recording.row.surplus:
        return "more cells than columns"
    if not name:
        return "no file name"
    if not is_inside(folder, name):
        return "path outside the folder"
    if not (size := file_size(folder, name)):
        return "missing file" if size is None else "empty file"
    if not sentence_key(recording.text):
        return "no text"
    return None if is_duration(recording.row["duration_s"]) else "unusable duration_s"


def is_inside(folder: Path, file_name: str) -> bool:
    """Return whether a path that is written in a table stays in the folder; links in it may lead anywhere."""
    name = posix_path(file_name).replace("\0", "")
    return Path(os.path.normpath(folder / name)).is_relative_to(os.path.normpath(folder))


def posix_path(file_name: str) -> str:
    """Return a path as it is written here: tables from Windows have backslashes."""
    return file_name.replace("\\", "/")


def find_file(folder: Path, file_name: str) -> Path:
    """Return where a file of a table is: under its name, or under one that differs in accents' encoding or in case.

    macOS decomposes accents, and cameras and recorders write .WAV; a table may have been written elsewhere.
    """
    path = folder / file_name
    if not _exists(path):
        path = folder / posix_path(file_name)
    if not _exists(path):
        for part in path.relative_to(folder).parts[:-1]:
            folder = folder / _names_in(folder).get(_folded(part), part)
        return folder / _names_in(folder).get(_folded(path.name), path.name)
    return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or with a null character
        return False


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


@lru_cache(maxsize=64)
def _names_in(folder: Path) -> dict[str, str]:
    """Return the names in a folder by their folded form; of two that are alike, none."""
    names = [entry.name for entry in os.scandir(folder)] if _exists(folder) and folder.is_dir() else []
    folded = Counter(map(_folded, names))
    return {_folded(name): name for name in names if folded[_folded(name)] == 1}


def file_size(folder: Path, file_name: str) -> int | None:
    """Return the bytes of a file in the folder; None where there is no such file."""
    path = find_file(folder, file_name)
    try:
        return path.stat().st_size if path.is_file() else None
    except (OSError, ValueError):
        return None


def is_duration(cell: str) -> bool:
    """Return whether a duration_s cell is empty or a positive number of seconds."""
    try:
        return not cell or (math.isfinite(float(cell)) and float(cell) > 0)
    except ValueError:
        return False
