"""The tables of Common Voice: clip, sentence and speaker in little memory, for the column names of every release.

    table = ClipTable(Path("es/train.tsv").read_bytes(), "train.tsv")
    for name in table.names(): ...          # clips, by name
    table.cells(table.find("common_voice_es_1.mp3"))["sentence"]

A row is kept as its bytes and two numbers, so a table of 400,000 rows takes little more than its size in memory.
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

    def __init__(self, keys: array | None = None, values: array | None = None):
        self.keys, self.values = keys or array("Q"), values or array("I")

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
        keys = np.array(self.keys, np.uint64)
        order = np.argsort(keys, kind="stable")
        return keys[order], np.array(self.values, np.uint32)[order]

    def __len__(self) -> int:
        return len(self.keys)


def _split_header(line: bytes) -> list[str]:
    return [column.strip() for column in line.decode("utf-8-sig", "replace").split("\t")]


def _cell(line: bytes, place: int) -> str:
    cells = line.split(b"\t", place + 1)
    return cells[place].decode("utf-8", "replace").strip() if len(cells) > place else ""


def read_durations(lines: Iterable[bytes]) -> NameNumbers:
    """Return the milliseconds of each clip in a clip_durations.tsv; what is no number is passed over."""
    durations, rows = NameNumbers(), iter(lines)
    columns = [column.lower() for column in _split_header(next(rows, b""))]
    if {"clip", "duration[ms]"} <= set(columns):
        for line in rows:
            clip, milliseconds = (_cell(line, columns.index(name)) for name in ("clip", "duration[ms]"))
            if milliseconds.isdecimal():
                durations.add(clip_name(clip), int(milliseconds))
    return durations


def listed_clips(lines: Iterable[bytes]) -> Iterator[int]:
    """Yield the number of every clip that a table names; none where it is not a table of clips."""
    rows = iter(lines)
    columns = _split_header(next(rows, b""))
    place = next((columns.index(name) for name in CLIP_COLUMNS if name in columns), None)
    if place is not None:
        yield from (name_hash(clip_name(_cell(line, place))) for line in rows)


class ClipTable:
    """The rows of one table. Those that cannot be used are in `faults`, by row, each with its reason."""

    def __init__(self, data: bytes, name: str, split: str | None = None):
        """Read a table; of one with a split column, only the rows of `split`.

        Raises:
            RequestError: the first line does not name the columns that are needed.
        """
        header, *lines = data.split(b"\n")
        self.name, self.columns = name, _split_header(header)
        clip, text = (
            next((one for one in names if one in self.columns), None) for names in (CLIP_COLUMNS, CLIP_TEXT_COLUMNS)
        )
        if not clip or not text:
            found = f"{', '.join(map(repr, self.columns))[:200]} in {name}"
            raise RequestError("the columns path and sentence, in UTF-8 and between tabs", found, "get the table again")
        self.text, self._clip_place, self._text_place = text, self.columns.index(clip), self.columns.index(text)
        self.lines: list[bytes] = []
        self.keys, self.numbers = array("Q"), array("L")
        self.faults: dict[int, str] = {}
        self._fill(lines, self.columns.index("split") if split and "split" in self.columns else None, split)

    def _fill(self, lines: Iterable[bytes], split_place: int | None, split: str | None) -> None:
        usable: set[int] = set()
        for number, line in enumerate(lines, start=2):
            if not line.strip() or (split_place is not None and split_name(_cell(line, split_place)) != split):
                continue
            self.lines.append(line)
            self.numbers.append(number)
            self.keys.append(key := name_hash(self.clip_of(len(self.keys))))
            if fault := self._fault(line) or ("named twice" if key in usable else None):
                self.faults[len(self) - 1] = fault
            else:
                usable.add(key)

    def __len__(self) -> int:
        return len(self.lines)

    def cells(self, row: int) -> dict[str, str]:
        line = self.lines[row].decode("utf-8", "replace")
        return dict(zip(self.columns, map(strip_csv_quotes, line.removesuffix("\r").split("\t")), strict=False))

    def clip_of(self, row: int) -> str:
        return clip_name(_cell(self.lines[row], self._clip_place))

    def id_of(self, row: int) -> str:
        """Return the id of a row: its clip's name without the ending, else where it stands."""
        name = self.clip_of(row)
        return name.rpartition(".")[0] or name or f"{self.name}, line {self.numbers[row]}"

    def names(self) -> list[str]:
        """Return the clips of all usable rows, by name."""
        return sorted(self.clip_of(row) for row in self._index.values)

    def find(self, name: str) -> int | None:
        """Return the usable row of a clip, or None."""
        return self._index.get(name)

    def leave_out(self, reasons: dict[int, str]) -> None:
        """Add faults that were found outside of the table, such as missing clips."""
        self.faults.update(reasons)
        self.__dict__.pop("_index", None)

    def _fault(self, line: bytes) -> str | None:
        try:
            cells = line.decode().removesuffix("\r").split("\t")
        except UnicodeDecodeError:
            return "not UTF-8"
        if len(cells) != len(self.columns):
            return "broken row"
        name = clip_name(cells[self._clip_place])
        if not name or "/" in name or "\\" in name or "\0" in name or name.startswith("."):
            return "no clip name" if not name else "path outside the folder"
        return None if any(map(str.isalnum, cells[self._text_place])) else "no text"

    @cached_property
    def _index(self) -> NameNumbers:
        """The usable rows, by their clips."""
        rows = array("I", (row for row in range(len(self)) if row not in self.faults))
        return NameNumbers(array("Q", (self.keys[row] for row in rows)), rows)
