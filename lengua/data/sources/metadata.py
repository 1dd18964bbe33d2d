"""The tables that tell of a folder of recordings: which there are, and their rows.

    for path in metadata_files(folder):
        columns, rows = read_metadata(path)

Read are .csv, .tsv, .jsonl and .parquet, and LJSpeech's table without a header; a manifest of another toolkit is
refused with the line that converts it.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lengua.data.sources.clip_table import strip_csv_quotes
from lengua.data.splits import split_name
from lengua.runtime.errors import RequestError

METADATA_NAMES = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")
LJSPEECH_COLUMNS = ("id", "text", "normalised")


@dataclass(frozen=True)
class MetadataRow:
    """One row: its cells by column name, all of them text and stripped, and the line of the file it starts on."""

    line: int
    cells: dict[str, str] = field(default_factory=dict)
    surplus: bool = False
    """Whether it holds more cells than the header: a comma that should have been in quotes."""

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")

    @property
    def id(self) -> str:
        """Its id column, else its file name, else where it stands."""
        return self["id"] or self["file_name"] or f"line {self.line}"


def read_metadata(path: Path) -> tuple[list[str], list[MetadataRow]]:
    """Return the column names, in their order, and the rows of a .csv, .tsv, .jsonl or .parquet file.

    Raises:
        RequestError: not UTF-8, broken quoting, JSON or Parquet; the message has the file and the line.
    """
    if path.suffix == ".parquet":
        return _parquet(path)
    text = read_utf8(path)
    if path.suffix == ".csv" and (rows := _ljspeech(text)):
        return ["file_name", "text"], rows
    if path.suffix == ".jsonl":
        rows = list(_objects(path, text))
        return list(dict.fromkeys(column for row in rows for column in row.cells)), rows
    return _delimited(path, text)


def read_utf8(path: Path) -> str:
    """Return the file's text; UTF-8, with or without a byte order mark."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{data[error.start]:02x} at offset {error.start}, line {line}"
        raise RequestError(f"UTF-8 text in {path}", found, "save the file as UTF-8") from error


def _objects(path: Path, text: str) -> Iterator[MetadataRow]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise _broken(path, number, f"{error.msg} at column {error.colno}") from error
        if not isinstance(value, dict):
            raise _broken(path, number, f"a JSON {type(value).__name__}, not an object")
        yield MetadataRow(number, {column.strip(): _cell(content) for column, content in value.items()})


def _cell(content) -> str:
    if content is None:
        return ""
    return content.strip() if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _delimited(path: Path, text: str) -> tuple[list[str], list[MetadataRow]]:
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
                values = map(strip_csv_quotes, cells) if tabs else cells
                named = dict(zip(columns, map(str.strip, values), strict=False))
                rows.append(MetadataRow(line, named, surplus=any(cells[len(columns) :])))
            line = reader.line_num + 1
    except csv.Error as error:
        raise _broken(path, line, str(error)) from error
    return columns, rows


def _parquet(path: Path) -> tuple[list[str], list[MetadataRow]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise RequestError(f"a Parquet table in {path}", str(error).partition("\n")[0], "write it again") from error
    rows = ({name: _cell(value) for name, value in row.items()} for row in table.to_pylist())
    return table.column_names, [MetadataRow(number, cells) for number, cells in enumerate(rows, start=1)]


def _ljspeech(text: str) -> list[MetadataRow]:
    """Return the rows of a table without header, id|text|normalised text, whose recordings are wavs/ID.wav."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines or any(line.count("|") not in (1, 2) for line in lines) or "file_name" in lines[0]:
        return []
    rows = [dict(zip(LJSPEECH_COLUMNS, map(str.strip, line.split("|")), strict=False)) for line in lines]
    return [
        MetadataRow(number, {"file_name": f"wavs/{row['id']}.wav", "text": row.get("normalised") or row["text"]})
        for number, row in enumerate(rows, start=1)
    ]


def _broken(path: Path, line: int, found: str) -> RequestError:
    what = "one JSON object a line" if path.suffix == ".jsonl" else "well-formed CSV"
    return RequestError(f"{what} in {path}", f"{found}, line {line}", "put that line right")


def metadata_files(folder: Path) -> tuple[Path, ...]:
    """Return the folder's table, or that of each folder in it that is called as a split is.

    Raises:
        RequestError: none, or several in one place.
    """
    expected = f"a folder with one of {', '.join(METADATA_NAMES)}"
    if not folder.is_dir():
        found = f"a file, {folder}" if folder.exists() else f"nothing at {folder}"
        raise RequestError(expected, found, _how_to_unpack(folder) or "name the folder that holds the metadata file")
    inner = sorted(one for one in folder.iterdir() if split_name(one.name) and one.is_dir())
    present = {
        place: [place / name for name in METADATA_NAMES if (place / name).is_file()] for place in (folder, *inner)
    }
    for place, tables in present.items():
        if len(tables) > 1:
            found = f"{' and '.join(path.name for path in tables)} in {place}"
            raise RequestError(expected, found, "keep the one that counts")
    if present[folder]:
        return (present[folder][0],)
    if found := tuple(table for place in inner for table in present[place]):
        return found
    do = _how_to_convert(folder) or "write one with the columns file_name and text"
    raise RequestError(expected, f"none of them in {folder}", do)


def _how_to_unpack(path: Path) -> str:
    return f"unpack it, and name the folder: {UNPACKERS[path.suffix]} {path}" if path.suffix in UNPACKERS else ""


UNPACKERS = {".zip": "unzip", ".tar": "tar -xf", ".gz": "tar -xf", ".xz": "tar -xf", ".bz2": "tar -xf"}


def _how_to_convert(folder: Path) -> str:
    """Return the line that makes a metadata file of the manifest of another toolkit, if there is one."""
    if (folder / "wav.scp").is_file() and (folder / "text").is_file():
        fields = '{id: .[0], file_name: .[1], text: (.[2:] | join(" "))}'
        join = f"join <(sort wav.scp) <(sort text) | jq -Rc 'split(\" \") | {fields}'"
        return f"make it of Kaldi's wav.scp and text: {join} > metadata.jsonl"
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.jsonl")]):
        with path.open("rb") as file:
            if b'"audio_filepath"' in file.readline(2**16):
                convert = "jq -c '{file_name: .audio_filepath, text, duration_s: .duration}'"
                return f"make it of NeMo's manifest: {convert} {path.name} > metadata.jsonl"
    return ""
