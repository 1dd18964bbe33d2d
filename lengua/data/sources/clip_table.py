"""The tables of Common Voice: clip, sentence and speaker in little memory, for the column names of every release.

    table = ClipTable(Path("es/train.tsv").read_bytes(), "train.tsv")
    for name in table.names(): ...          # clips, by name
    table.cells(table.find("common_voice_es_1.mp3"))["sentence"]

A row is kept as its bytes and four numbers, so a table of 400,000 rows takes about its own size in memory.
"""

from array import array
from collections.abc import Iterable, Iterator
from functools import cached_property
from hashlib import blake2b

import numpy as np

from lengua.data.splits import split_name
from lengua.runtime.errors import RequestError

CLIP_COLUMNS = ("path", "audio_file")
CLIP_TEXT_COLUMNS = ("sentence", "transcription")
# What goes along with an utterance, by the names that releases have given it.
EXTRA_COLUMNS = {
    "age": "age",
    "gender": "gender",
    "accent": "accent",
    "accents": "accent",
    "variant": "variant",
    "sentence_domain": "sentence_domain",
    "up_votes": "up_votes",
    "down_votes": "down_votes",
}


def name_hash(name: str) -> int:
    """Return 64 bits that stand for a name."""
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def clip_name(cell: str) -> str:
    """Return the file name of a clip; the first releases left out the ending."""
    cell = cell.strip()
    return f"{cell}.mp3" if cell and "." not in cell else cell


def strip_csv_quotes(cell: str) -> str:
    """Undo the CSV quotes that some sentences came in, and leave all other quotes alone.

    Both kinds live in one file, and the plain ones need not come in pairs.
    """
    wrapped = len(cell) > 1 and cell[0] == cell[-1] == '"' and '""' in cell[1:-1]
    return cell[1:-1].replace('""', '"') if wrapped else cell


class NameNumbers:
    """A number for each of many names, in 12 bytes each. Of a name that comes twice the first counts."""

    def __init__(self):
        self.keys, self.values = array("Q"), array("I")

    def add(self, name: str, value: int) -> None:
        """Remember a number; what does not fit 32 bits becomes the largest that does."""
        self.keys.append(name_hash(name))
        self.values.append(min(max(value, 0), 2**32 - 1))

    def get(self, name: str) -> int | None:
        """Return the number of a name, or None."""
        keys, values = self._sorted
        place = int(np.searchsorted(keys, key := np.uint64(name_hash(name))))
        return int(values[place]) if place < len(keys) and keys[place] == key else None

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        keys = np.frombuffer(self.keys, np.uint64) if self.keys else np.empty(0, np.uint64)
        order = np.argsort(keys, kind="stable")
        return keys[order], np.frombuffer(self.values, np.uint32)[order] if self.values else np.empty(0, np.uint32)

    def __len__(self) -> int:
        return len(self.keys)


def read_durations(lines: Iterable[bytes]) -> NameNumbers:
    """Return the milliseconds of each clip in a clip_durations.tsv; what is no number is passed over."""
    found, rows = NameNumbers(), iter(lines)
    columns = [column.strip().lower() for column in next(rows, b"").decode("utf-8-sig", "replace").split("\t")]
    places = [columns.index(name) for name in ("clip", "duration[ms]") if name in columns]
    for line in rows if len(places) == 2 else ():
        cells = line.decode("utf-8", "replace").split("\t")
        milliseconds = cells[places[1]].strip() if len(cells) > max(places) else ""
        if milliseconds.isdecimal():
            found.add(clip_name(cells[places[0]]), int(milliseconds))
    return found


def listed_clips(lines: Iterable[bytes]) -> Iterator[int]:
    """Yield the number of every clip that a table names; none where it is not a table of clips."""
    rows = iter(lines)
    columns = next(rows, b"").decode("utf-8-sig", "replace").strip().split("\t")
    place = next((columns.index(name) for name in CLIP_COLUMNS if name in columns), None)
    for line in rows if place is not None else ():
        cells = line.split(b"\t", place + 1)
        if len(cells) > place:
            yield name_hash(clip_name(cells[place].decode("utf-8", "replace")))


class ClipTable:
    """The rows of one table. Those that cannot be used are in `faults`, by row, each with its reason."""

    def __init__(self, data: bytes, name: str, split: str | None = None):
        """Read a table; of one with a split column, only the rows of `split`.

        Raises:
            RequestError: the first line does not name the columns that are needed.
        """
        self.data, self.name = data, name
        self.columns = self._header()
        self.clip = next(column for column in CLIP_COLUMNS if column in self.columns)
        self.text = next(column for column in CLIP_TEXT_COLUMNS if column in self.columns)
        self.starts, self.ends, self.keys = array("q"), array("q"), array("Q")
        self.faults: dict[int, str] = {}
        self._scan(split)

    def __len__(self) -> int:
        return len(self.starts)

    def cells(self, row: int) -> dict[str, str]:
        """Return the cells of a row by column."""
        line = self._line(row).decode("utf-8", "replace")
        return dict(zip(self.columns, map(strip_csv_quotes, line.removesuffix("\r").split("\t")), strict=False))

    def clip_of(self, row: int) -> str:
        """Return the file name of a row's clip."""
        place = self.columns.index(self.clip)
        cells = self._line(row).split(b"\t", place + 1)
        return clip_name(cells[place].decode("utf-8", "replace")) if len(cells) > place else ""

    def id_of(self, row: int) -> str:
        """Return the id of a row: its clip's name without the ending, else where it stands."""
        name = self.clip_of(row)
        line = self.data.count(b"\n", 0, self.starts[row]) + 1 if not name else 0
        return name.rpartition(".")[0] or name or f"{self.name}, line {line}"

    def names(self) -> list[str]:
        """Return the clips of all usable rows, by name."""
        return sorted(self.clip_of(int(row)) for row in self._index[1])

    def find(self, name: str) -> int | None:
        """Return the usable row of a clip, or None."""
        keys, rows = self._index
        place = int(np.searchsorted(keys, key := np.uint64(name_hash(name))))
        return int(rows[place]) if place < len(keys) and keys[place] == key else None

    def leave_out(self, reasons: dict[int, str]) -> None:
        """Add faults that were found outside of the table, such as missing clips."""
        self.faults.update(reasons)
        self.__dict__.pop("_index", None)

    def _line(self, row: int) -> bytes:
        return self.data[self.starts[row] : self.ends[row]]

    def _header(self) -> list[str]:
        line = self.data.partition(b"\n")[0].decode("utf-8-sig", "replace")
        columns = [column.strip() for column in line.split("\t")]
        if not all(any(name in columns for name in names) for names in (CLIP_COLUMNS, CLIP_TEXT_COLUMNS)):
            found = f"{', '.join(map(repr, columns))[:200]} in {self.name}"
            raise RequestError("the columns path and sentence, in UTF-8 and between tabs", found, "get the table again")
        return columns

    def _scan(self, split: str | None) -> None:
        """Find where the rows are, and those that cannot be used."""
        start = self.data.find(b"\n") + 1 or len(self.data)
        while start < len(self.data):
            end = self.data.find(b"\n", start) % (len(self.data) + 1)  # the last line may have no end
            line = self.data[start:end]
            if line.strip() and self._is_of(split, line):
                self.starts.append(start)
                self.ends.append(end)
                self.keys.append(name_hash(self.clip_of(len(self.keys))))
                if reason := self._fault(line):
                    self.faults[len(self) - 1] = reason
            start = end + 1
        usable = self._usable()
        first = np.unique(np.asarray(self.keys)[usable], return_index=True)[1]
        self.faults.update(dict.fromkeys(np.delete(usable, first).tolist(), "named twice"))

    def _is_of(self, split: str | None, line: bytes) -> bool:
        if split is None or "split" not in self.columns:
            return True
        cells = line.decode("utf-8", "replace").split("\t")
        place = self.columns.index("split")
        return len(cells) > place and split_name(cells[place]) == split

    def _fault(self, line: bytes) -> str | None:
        try:
            cells = line.decode().removesuffix("\r").split("\t")
        except UnicodeDecodeError:
            return "not UTF-8"
        if len(cells) != len(self.columns):
            return "broken row"
        name = clip_name(cells[self.columns.index(self.clip)])
        if not name or "/" in name or "\\" in name or "\0" in name or name.startswith("."):
            return "no clip name" if not name else "path outside the folder"
        return None if any(map(str.isalnum, cells[self.columns.index(self.text)])) else "no text"

    def _usable(self) -> np.ndarray:
        """The rows without a fault, ascending."""
        kept = np.ones(len(self), bool)
        kept[list(self.faults)] = False
        return np.flatnonzero(kept)

    @cached_property
    def _index(self) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of all usable clips, ascending, and the rows that name them."""
        rows = self._usable()
        keys = np.asarray(self.keys)[rows]
        order = np.argsort(keys)
        return keys[order], rows[order]
