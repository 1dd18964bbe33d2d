"""A release of Common Voice as the .tar.gz in which it is handed out.

Clips come in the archive's own order. Those that Common Voice packs are in the order of names (its bundler walks each
folder by name), with the tables of the splits behind the clips: so a first pass looks for the tables, and reads of the
clips only how large they are; each reading of clips is one pass more. 52 GB of Spanish take minutes a pass, and 100 MB
of memory; nothing is kept on disk.
"""

import zlib
from array import array
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from lengua.errors import LenguaError
from lengua.sources.archive import Broken, Member, check, members
from lengua.sources.clip_table import Numbers, Table, listed, read_durations
from lengua.sources.releases import CLIP_FOLDERS, DURATIONS, choose, is_needed, strays

MAX_TABLE_BYTES = 2 * 2**30


@dataclass
class Locale:
    """What one pass over an archive found out about one of its languages."""

    tables: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """Those that utterances are read from: their size, and themselves, deflated."""
    sizes: Numbers = field(default_factory=Numbers)
    durations: Numbers = field(default_factory=Numbers)
    listed: array = field(default_factory=lambda: array("Q"))
    """The numbers of all clips that any table names."""


@dataclass
class Contents:
    """What one pass over an archive found out."""

    locales: dict[str, Locale] = field(default_factory=dict)
    """By the folder in the archive that holds the tables and the clips."""
    faults: Counter = field(default_factory=Counter)
    """How many files are not to be read, by reason."""
    broken: str | None = None


class Packed:
    """A release as a .tar.gz. A first pass finds the tables, wherever they stand; each reading is one pass more."""

    def __init__(self, path: Path, language: str | None = None):
        check(path)
        self.path, self.wish = path, language

    @cached_property
    def root(self) -> str:
        """The folder in the archive that holds the one language which is read."""
        roots = sorted(root for root, locale in self._contents.locales.items() if locale.tables)
        if not roots and self.broken:
            found = f"an end before its tables ({self.broken})"
            raise LenguaError(f"a whole archive {self.path}", found, "download it again")
        return choose(roots, self.path, self.wish)

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables that utterances are read from."""
        return tuple(sorted(self._locale.tables))

    def table(self, name: str) -> bytes:
        """Return the bytes of a table."""
        size, deflated = self._locale.tables[name]
        return zlib.decompress(deflated, bufsize=max(1, size))

    def size(self, clip: str) -> int | None:
        """Return the bytes of a clip, or None."""
        return self._locale.sizes.get(clip)

    @property
    def durations(self) -> Numbers:
        """Milliseconds by clip."""
        return self._locale.durations

    def clips(self, tables: Sequence[Table]) -> Iterator[tuple[str, bytes]]:
        """Yield the clips of the tables' usable rows as they come.

        Raises:
            LenguaError: the archive is cut off or damaged; it comes after all clips that could be read.
        """
        read = 0
        try:
            for member in members(self.path):
                root, name = clip_place(member)
                if root == self.root and any(table.find(name) is not None for table in tables):
                    yield name, member.read()
                    read += 1
        except Broken as error:
            found = f"{self.path}, from which {read} clips could be read: {error}"
            raise LenguaError("a whole archive", found, "download it again; what was done is kept") from error

    @cached_property
    def left_out(self) -> dict[str, int]:
        """How many files are in no table, or not to be read."""
        return dict(self._contents.faults) | strays(self._locale.sizes.keys, self._locale.listed)

    @property
    def broken(self) -> str | None:
        """Why the archive cannot be read to its end, or None."""
        return self._contents.broken

    @property
    def _locale(self) -> Locale:
        return self._contents.locales[self.root]

    @cached_property
    def _contents(self) -> "Contents":
        contents = Contents()
        try:
            for member in members(self.path):
                if member.fault:
                    contents.faults[member.fault] += 1
                else:
                    note(member, contents.locales)
        except Broken as error:
            contents.broken = str(error)
        return contents


def clip_place(member: Member) -> tuple[str, str]:
    """Return (root, name) of a clip in an archive; empty texts for what is none."""
    folder, _, name = member.name.rpartition("/")
    root, _, kind = folder.rpartition("/")
    return (root, name) if kind in CLIP_FOLDERS and not member.fault else ("", "")


def note(member: Member, locales: dict[str, Locale]) -> None:
    """Remember of a file in an archive what will be needed: a table, or the size of a clip."""
    root, clip = clip_place(member)
    if clip:
        locales.setdefault(root, Locale()).sizes.add(clip, member.size)
    elif member.name.endswith(".tsv"):
        if member.size > MAX_TABLE_BYTES:
            found = f"{member.size >> 30} GB in {member.name}"
            raise LenguaError(f"tables under {MAX_TABLE_BYTES >> 30} GB", found, "get the archive again")
        root, _, name = member.name.rpartition("/")
        _note_table(name, member, locales.setdefault(root, Locale()))


def _note_table(name: str, member: Member, locale: Locale) -> None:
    if name == DURATIONS:
        locale.durations = read_durations(member.lines())
    else:
        lines = _kept(name, member.lines(), locale) if is_needed(name) else member.lines()
        locale.listed.extend(listed(lines))
        deque(lines, maxlen=0)  # what names no clips has been read no further than its first line


def _kept(name: str, lines: Iterable[bytes], locale: Locale) -> Iterator[bytes]:
    """Yield the lines of a table, and keep it, deflated, when the last has gone by."""
    deflating, pieces, size = zlib.compressobj(level=1), [], 0
    for line in lines:
        pieces.append(deflating.compress(line))
        size += len(line)
        yield line
    locale.tables[name] = size, b"".join([*pieces, deflating.flush()])
