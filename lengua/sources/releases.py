"""A release of Common Voice as a folder, and what there is to know about releases in any form.

The layout is RELEASE/LOCALE/{train,dev,test,validated,...}.tsv beside clips/, or, of spontaneous speech,
ss-corpus-LOCALE.tsv beside audios/. The archive of a release is in `lengua.sources.packed`; it tells the same.
"""

import heapq
import os
import stat
from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path, PurePosixPath

import numpy as np

from lengua.errors import RequestError
from lengua.languages import language_code
from lengua.sources.clip_table import Numbers, Table, listed, number_of, read_durations
from lengua.sources.folder import inside

CLIP_FOLDERS = ("clips", "audios")
SPLIT_TABLES = {"train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv", "validated": "validated.tsv"}
SPONTANEOUS = "ss-corpus-"
DURATIONS = "clip_durations.tsv"


def is_needed(name: str) -> bool:
    """Return whether utterances are read from the table of this name."""
    return name in SPLIT_TABLES.values() or (name.startswith(SPONTANEOUS) and name.endswith(".tsv"))


def choose(roots: Sequence[str], place: Path, language: str | None) -> str:
    """Return the one locale folder among several, or the one of `language`.

    Raises:
        RequestError: there is none, or more than one could be meant.
    """
    wanted = [root for root in roots if language and _code(root) == language_code(language)]
    if len(chosen := wanted or list(roots)) == 1:
        return chosen[0]
    if not roots:
        expected = "a Common Voice release: clips/ beside train.tsv, dev.tsv, test.tsv or validated.tsv"
        raise RequestError(expected, f"none in {place}", "name the folder of one language, or its .tar.gz")
    names = ", ".join(PurePosixPath(root).name for root in chosen)
    raise RequestError(f"one language in {place}", names, "name the folder of one of them, or pass --language")


def _code(root: str) -> str | None:
    try:
        return language_code(PurePosixPath(root).name)
    except RequestError:
        return None


class Unpacked:
    """A release as a folder."""

    broken: str | None = None
    """What is missing is missing; a folder cannot break off."""

    def __init__(self, place: Path, language: str | None = None):
        candidates = [place, *sorted(path for path in place.iterdir() if path.is_dir())]
        found = [folder for folder in candidates if is_locale(folder)]
        by_root = {str(folder): folder for folder in ([place] if place in found else found)}
        self.folder = by_root[choose(list(by_root), place, language)].resolve()
        self.clip_folder = next(self.folder / name for name in CLIP_FOLDERS if (self.folder / name).is_dir())
        self.root = f"{self.folder.parent.name}/{self.folder.name}"
        self.tables = tuple(sorted(path.name for path in self.folder.glob("*.tsv") if is_needed(path.name)))

    def table(self, name: str) -> bytes:
        """Return the bytes of a table."""
        return (self.folder / name).read_bytes()

    def size(self, clip: str) -> int | None:
        """Return the bytes of a clip; None where there is no such file, or only a link that leaves the folder."""
        try:
            found = os.lstat(path := self.clip_folder / clip)
            if stat.S_ISLNK(found.st_mode):
                found = path.stat() if inside(self.folder, str(path.relative_to(self.folder))) else found
        except (OSError, ValueError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    @cached_property
    def durations(self) -> Numbers:
        """Milliseconds by clip."""
        try:
            with open(self.folder / DURATIONS, "rb") as lines:
                return read_durations(lines)
        except FileNotFoundError:
            return Numbers()

    def clips(self, tables: Sequence[Table]) -> Iterator[tuple[str, Path]]:
        """Yield the clips of the tables' usable rows, by name."""
        for name, _ in groupby(heapq.merge(*(table.names() for table in tables))):
            yield name, self.clip_folder / name

    @cached_property
    def left_out(self) -> dict[str, int]:
        """How many files are in no table."""
        known = array("Q")
        for path in self.folder.glob("*.tsv"):
            with open(path, "rb") as lines:
                known.extend(listed(lines))
        return strays(array("Q", (number_of(entry.name) for entry in os.scandir(self.clip_folder))), known)


def strays(clips: array, known: array) -> dict[str, int]:
    """Count the clips that no table names, each by its number; nothing where there is none."""
    count = np.setdiff1d(np.asarray(clips), np.asarray(known)).size
    return {"clip in no table": count} if count else {}


def is_locale(folder: Path) -> bool:
    """Return whether a folder is one language of a release."""
    has_clips = any((folder / name).is_dir() for name in CLIP_FOLDERS)
    return has_clips and any(is_needed(path.name) for path in folder.glob("*.tsv"))
