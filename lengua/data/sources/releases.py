"""A release of Common Voice: its layout, as a folder or as the .tar.gz in which it is distributed.

The layout is RELEASE/LOCALE/{train,dev,test,validated,...}.tsv beside clips/, or, for spontaneous speech,
ss-corpus-LOCALE.tsv beside audios/.

In the archive clips come in its own order: Common Voice packs them by name, with the tables of the splits behind the
clips. So a first pass reads the tables, and only the sizes of the clips; each reading of clips is one pass more. A
pass over 52 GB of Spanish takes minutes and 100 MB of memory; nothing is kept on disk.
"""

import heapq
import os
import stat
import zlib
from array import array
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path, PurePosixPath

import numpy as np

from lengua.data.sources.clip_table import ClipTable, NameNumbers, listed_clips, name_hash, read_durations
from lengua.data.sources.tar_archive import ArchiveMember, BrokenArchive, read_members, require_gzip
from lengua.models.languages import language_code
from lengua.runtime.errors import LenguaError, RequestError

MAX_TABLE_BYTES = 2 * 2**30
CLIP_FOLDERS = ("clips", "audios")
SPLIT_TABLES = {"train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv", "validated": "validated.tsv"}
SPONTANEOUS_PREFIX = "ss-corpus-"
DURATIONS_FILE = "clip_durations.tsv"


@dataclass
class PackedLocale:
    """What one pass over an archive found out about one of its languages."""

    tables: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """Those that utterances are read from: their size, and themselves, deflated."""
    sizes: NameNumbers = field(default_factory=NameNumbers)
    durations: NameNumbers = field(default_factory=NameNumbers)
    listed: array = field(default_factory=lambda: array("Q"))
    """The numbers of all clips that any table names."""

    def note_table(self, name: str, member: ArchiveMember) -> None:
        """Take from a table what will be needed.

        Raises:
            LenguaError: it is larger than any table is.
        """
        if member.size > MAX_TABLE_BYTES:
            found = f"{member.size >> 30} GB in {member.name}"
            raise LenguaError(f"tables under {MAX_TABLE_BYTES >> 30} GB", found, "get the archive again")
        if name == DURATIONS_FILE:
            self.durations = read_durations(member.lines())
            return
        lines = self._deflating(name, member.lines()) if is_needed_table(name) else member.lines()
        self.listed.extend(listed_clips(lines))
        deque(lines, maxlen=0)  # what names no clips has been read no further than its first line

    def _deflating(self, name: str, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the lines of a table, and keep it, deflated, when the last has gone by."""
        deflating, pieces, size = zlib.compressobj(level=1), [], 0
        for line in lines:
            pieces.append(deflating.compress(line))
            size += len(line)
            yield line
        self.tables[name] = size, b"".join([*pieces, deflating.flush()])


class PackedRelease:
    """A release as a .tar.gz. A first pass finds the tables, wherever they stand; each reading is one pass more."""

    def __init__(self, path: Path, language: str | None = None):
        require_gzip(path)
        self.path, self.wish = path, language

    @cached_property
    def root(self) -> str:
        """The folder in the archive that holds the one language which is read."""
        roots = sorted(root for root, locale in self._contents[0].items() if locale.tables)
        if not roots and self.broken:
            found = f"an end before its tables ({self.broken})"
            raise LenguaError(f"a whole archive {self.path}", found, "download it again")
        return choose_locale(roots, self.path, self.wish)

    @property
    def tables(self) -> tuple[str, ...]:
        return tuple(sorted(self._locale.tables))

    def table(self, name: str) -> bytes:
        size, deflated = self._locale.tables[name]
        return zlib.decompress(deflated, bufsize=max(1, size))

    def size(self, clip: str) -> int | None:
        return self._locale.sizes.get(clip)

    @property
    def durations(self) -> NameNumbers:
        return self._locale.durations

    def clips(self, tables: Sequence[ClipTable]) -> Iterator[tuple[str, bytes]]:
        """Yield the clips of the tables' usable rows as they come.

        Raises:
            LenguaError: the archive is cut off or damaged; it comes after all clips that could be read.
        """
        read = 0
        try:
            for member in read_members(self.path):
                root, name = clip_place(member)
                if root == self.root and any(table.find(name) is not None for table in tables):
                    yield name, member.read()
                    read += 1
        except BrokenArchive as error:
            found = f"{self.path}, from which {read} clips could be read: {error}"
            raise LenguaError("a whole archive", found, "download it again; what was done is kept") from error

    @cached_property
    def left_out(self) -> dict[str, int]:
        return self._contents[1] | count_unlisted_clips(self._locale.sizes.keys, self._locale.listed)

    @property
    def broken(self) -> str | None:
        """Why the archive cannot be read to its end, or None."""
        return self._contents[2]

    @property
    def _locale(self) -> PackedLocale:
        return self._contents[0][self.root]

    @cached_property
    def _contents(self) -> tuple[dict[str, PackedLocale], dict[str, int], str | None]:
        """What one pass finds: the locales by their folders, unreadable files by reason, why the archive breaks off."""
        locales: dict[str, PackedLocale] = defaultdict(PackedLocale)
        faults, broken = Counter(), None
        try:
            for member in read_members(self.path):
                root, clip = clip_place(member)
                if member.fault:
                    faults[member.fault] += 1
                elif clip:
                    locales[root].sizes.add(clip, member.size)
                elif member.name.endswith(".tsv"):
                    root, _, name = member.name.rpartition("/")
                    locales[root].note_table(name, member)
        except BrokenArchive as error:
            broken = str(error)
        return dict(locales), dict(faults), broken


def clip_place(member: ArchiveMember) -> tuple[str, str]:
    """Return (root, name) of a clip in an archive; empty texts for what is none."""
    folder, _, name = member.name.rpartition("/")
    root, _, kind = folder.rpartition("/")
    return (root, name) if kind in CLIP_FOLDERS and not member.fault else ("", "")


def is_needed_table(name: str) -> bool:
    return name in SPLIT_TABLES.values() or (name.startswith(SPONTANEOUS_PREFIX) and name.endswith(".tsv"))


def choose_locale(roots: Sequence[str], place: Path, language: str | None) -> str:
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


def _clip_folder(folder: Path) -> Path | None:
    return next((folder / name for name in CLIP_FOLDERS if (folder / name).is_dir()), None)


def _needed_tables(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.tsv") if is_needed_table(path.name))


class UnpackedRelease:
    broken: str | None = None
    """What is missing is missing; a folder cannot break off."""

    def __init__(self, place: Path, language: str | None = None):
        candidates = [place, *sorted(path for path in place.iterdir() if path.is_dir())]
        found = [folder for folder in candidates if _clip_folder(folder) and _needed_tables(folder)]
        by_root = {str(folder): folder for folder in ([place] if place in found else found)}
        self.folder = by_root[choose_locale(list(by_root), place, language)].resolve()
        self.clip_folder = _clip_folder(self.folder)
        self.root = f"{self.folder.parent.name}/{self.folder.name}"
        self.tables = tuple(_needed_tables(self.folder))

    def table(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def size(self, clip: str) -> int | None:
        """Return the bytes of a clip, or of what a link leads to; None where there is no such file."""
        try:
            found = os.stat(self.clip_folder / clip)
        except (OSError, ValueError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    @cached_property
    def durations(self) -> NameNumbers:
        try:
            with open(self.folder / DURATIONS_FILE, "rb") as lines:
                return read_durations(lines)
        except FileNotFoundError:
            return NameNumbers()

    def clips(self, tables: Sequence[ClipTable]) -> Iterator[tuple[str, Path]]:
        """Yield the clips of the tables' usable rows, by name."""
        for name, _ in groupby(heapq.merge(*(table.names() for table in tables))):
            yield name, self.clip_folder / name

    @cached_property
    def left_out(self) -> dict[str, int]:
        known = array("Q")
        for path in self.folder.glob("*.tsv"):
            with open(path, "rb") as lines:
                known.extend(listed_clips(lines))
        return count_unlisted_clips(
            array("Q", (name_hash(entry.name) for entry in os.scandir(self.clip_folder))), known
        )


def count_unlisted_clips(clips: array, known: array) -> dict[str, int]:
    """Count the clips that no table names, each by its number; nothing where there is none."""
    count = np.setdiff1d(np.asarray(clips), np.asarray(known)).size
    return {"clip in no table": count} if count else {}
