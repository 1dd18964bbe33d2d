"""Reading metadata files: CSV, tab-separated or JSON Lines into rows that know the line they stand on.

    columns, rows = read_rows(Path("recordings/metadata.csv"))
    rows[0].line, rows[0]["file_name"]

What cannot be read as it was meant is an error with file and line, never a guess.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lengua.errors import RequestError


@dataclass(frozen=True)
class Row:
    """One row: its cells by column name, all of them text and stripped, and the line of the file it starts on."""

    line: int
    cells: dict[str, str] = field(default_factory=dict)
    surplus: bool = False
    """Whether it holds more cells than the header: a comma that should have been in quotes."""

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")


def read_rows(path: Path) -> tuple[list[str], list[Row]]:
    """Return the column names, in their order, and the rows of a .csv, .tsv or .jsonl file.

    Raises:
        RequestError: not UTF-8, broken quoting or broken JSON; the message has the file and the line.
    """
    text = decoded(path)
    if path.suffix == ".jsonl":
        rows = list(_objects(path, text))
        return list(dict.fromkeys(column for row in rows for column in row.cells)), rows
    return _delimited(path, text)


def decoded(path: Path) -> str:
    """Return the file's text; UTF-8, with or without a byte order mark."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{data[error.start]:02x} at offset {error.start}, line {line}"
        raise RequestError(f"UTF-8 text in {path}", found, "save the file as UTF-8") from error


def _objects(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise _broken(path, number, f"{error.msg} at column {error.colno}") from error
        if not isinstance(value, dict):
            raise _broken(path, number, f"a JSON {type(value).__name__}, not an object")
        yield Row(number, {column.strip(): _cell(content) for column, content in value.items()})


def _cell(content) -> str:
    if content is None:
        return ""
    return content.strip() if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _delimited(path: Path, text: str) -> tuple[list[str], list[Row]]:
    """Read CSV with quotes, or tab-separated text, where a quote is mostly just a quote."""
    tabs = path.suffix == ".tsv"
    dialect = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {"strict": True}
    reader = csv.reader(io.StringIO(text, newline=""), **dialect)
    rows, line = [], 1
    try:
        columns = [name.strip() for name in next(reader, [])]
        line = reader.line_num + 1
        for cells in reader:
            if any(cells):
                values = [_unquoted(cell) if tabs else cell for cell in cells]
                named = dict(zip(columns, map(str.strip, values), strict=False))
                rows.append(Row(line, named, surplus=any(cells[len(columns) :])))
            line = reader.line_num + 1
    except csv.Error as error:
        raise _broken(path, line, str(error)) from error
    return columns, rows


def _unquoted(cell: str) -> str:
    """Undo CSV quotes in a tab-separated cell, where they and plain quotes live side by side."""
    if len(cell) > 1 and cell[0] == cell[-1] == '"' and '""' in cell[1:-1]:
        return cell[1:-1].replace('""', '"')
    return cell


def _broken(path: Path, line: int, found: str) -> RequestError:
    what = "one JSON object a line" if path.suffix == ".jsonl" else "well-formed CSV"
    return RequestError(f"{what} in {path}", f"{found}, line {line}", "put that line right")
