"""`common_voice:PATH`: a release of Common Voice, unpacked or as the .tar.gz it was downloaded as.

    source = open("cv-corpus-25.0-2026-03-09-es.tar.gz")
    for item in source.read("dev"): ...              # one pass over the archive
    for split, item in source.read_many(SPLITS): ... # one pass for all of them
    for item in source.survey("train"): ...          # what there is, without the audio: no pass

Splits are those of train.tsv, dev.tsv and test.tsv, and "validated" where it is asked for (it holds the other three).
A release with validated.tsv alone, as the deltas are, is split by speaker.
Both forms of a release yield the same utterances: a folder by clip name, an archive in its own order, which is the same
where it was packed by name, as Common Voice's are. What cannot be used comes last, in the order of the table.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import NoReturn

import numpy as np

from lengua.data.sources import Dropped, Utterance
from lengua.data.sources.clip_table import EXTRA_COLUMNS, ClipTable, name_hash
from lengua.data.sources.releases import SPLIT_TABLES, SPONTANEOUS_PREFIX, PackedRelease, UnpackedRelease
from lengua.data.splits import assign_splits
from lengua.models.languages import language_code
from lengua.runtime.errors import LenguaError, RequestError

MAX_CLIP_BYTES = 64 * 2**20
FIRST_ROWS_BYTES = 16 * 2**10
"""Bytes of a table that hold its first rows."""
COMMON_VOICE_RULES_VERSION = 2
"""Raise this when a rule changes what `read` yields; it is part of the revision."""


def open(path: str, language: str | None = None) -> "CommonVoiceSource":
    """Open a release; `language` chooses where there are several, or names Whisper's where it does not know the locale.

    Raises:
        RequestError: nothing there, neither a release nor a .tar.gz, or more than one language.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise RequestError("a Common Voice folder or its .tar.gz", f"nothing at {place}", "check the path")
    release = UnpackedRelease if place.is_dir() else PackedRelease
    source = CommonVoiceSource(release(place, language), language)
    if place.is_dir():
        _ = source.language  # a folder that is wrong is refused at once
    return source


@dataclass(frozen=True)
class CommonVoiceSource:
    """The utterances of one language of one release. Fulfils `lengua.data.sources.Source`."""

    release: UnpackedRelease | PackedRelease
    wish: str | None = None
    """The language that was asked for."""
    licence: str = "CC0-1.0"
    attribution: str = ""

    @property
    def uri(self) -> str:
        return f"common_voice:{self.release.root}"

    @cached_property
    def language(self) -> str:
        """Whisper's code for the locale of the release.

        Raises:
            RequestError: Whisper does not know the locale, or another language was asked for.
        """
        locale = self._locale
        try:
            code = language_code(locale)
        except RequestError as error:
            if self.wish:
                return language_code(self.wish)
            do = "pass --language with the nearest language that Whisper knows"
            raise RequestError(error.expected, f"the locale {locale!r} in {self.uri}", do) from error
        if self.wish and language_code(self.wish) != code:
            raise RequestError(f"speech in {code} in {self.uri}", f"--language {self.wish}", "leave --language out")
        return code

    @cached_property
    def revision(self) -> str:
        """A hash of the tables, of the lengths of the clips, and of the names and sizes of those in the tables."""
        digest = blake2b(f"{COMMON_VOICE_RULES_VERSION} {self.language} ".encode(), digest_size=8)
        sizes = 0
        for name in self.release.tables:
            data = self.release.table(name)
            digest.update(data)
            table = ClipTable(data, name)
            clips = (table.clip_of(row) for row in range(len(table)))
            sizes += sum(name_hash(f"{clip} {self.release.size(clip)}") for clip in clips)
        for numbers in (self.release.durations.keys, self.release.durations.values):
            digest.update(numbers.tobytes())
        digest.update(str(sizes).encode())
        return digest.hexdigest()

    @property
    def left_out(self) -> dict[str, int]:
        """How many files are in no table, or not to be read, by reason; they belong to no split."""
        return self.release.left_out

    def read(self, split: str) -> Iterator[Utterance | Dropped]:
        return (item for _, item in self.read_many((split,)))

    def read_many(self, splits: Sequence[str]) -> Iterator[tuple[str, Utterance | Dropped]]:
        """Yield the items of several splits, each with its split, in one pass.

        Raises:
            RequestError: the release has no such split.
            LenguaError: the archive is cut off; it comes after all that could be read.
        """
        tables = {split: self._table(split) for split in splits}
        taken = {split: np.zeros(len(table), bool) for split, table in tables.items()}
        for name, audio in self.release.clips(list(tables.values())):
            for split, table in tables.items():
                row = table.find(name)
                if row is not None and not taken[split][row]:
                    taken[split][row] = True
                    yield split, self._utterance(table, row, split, audio)
        for split, table in tables.items():
            for row, reason in sorted(table.faults.items()):
                yield split, Dropped(table.id_of(row), reason)

    def survey(self, split: str) -> Iterator[Utterance | Dropped]:
        """Yield the items of one split without their audio (it is empty), in the order of the table."""
        table = self._table(split)
        for row in range(len(table)):
            reason = table.faults.get(row)
            yield Dropped(table.id_of(row), reason) if reason else self._utterance(table, row, split)

    @property
    def _locale(self) -> str:
        """What the rows call the language, else the name of the table or of the folder."""
        name = self.release.tables[0]
        if name.startswith(SPONTANEOUS_PREFIX):
            return name.removeprefix(SPONTANEOUS_PREFIX).removesuffix(".tsv")
        for name in self.release.tables:
            table = ClipTable(self.release.table(name)[:FIRST_ROWS_BYTES], name)
            if len(table) and (locale := table.cells(0).get("locale")):
                return locale
        return self.release.root.rpartition("/")[2]

    def _table(self, split: str) -> ClipTable:
        """Return the table of a split; rows without a usable clip are among its faults."""
        tables, name = self.release.tables, SPLIT_TABLES.get(split)
        spontaneous = next((table for table in tables if table.startswith(SPONTANEOUS_PREFIX)), None)
        if name in tables:
            table = ClipTable(self.release.table(name), name)
        elif name and set(SPLIT_TABLES.values()).intersection(tables) == {SPLIT_TABLES["validated"]}:
            table = self._split_by_speaker(split)
        elif name and spontaneous:
            table = ClipTable(self.release.table(spontaneous), spontaneous, None if split == "validated" else split)
        else:
            self._refuse(split)
        rows = (row for row in range(len(table)) if row not in table.faults)
        reasons = ((row, clip_fault(self.release.size(table.clip_of(row)))) for row in rows)
        table.leave_out({row: reason for row, reason in reasons if reason})
        return table

    def _split_by_speaker(self, split: str) -> ClipTable:
        """Return those rows of validated.tsv whose speakers belong to a split."""
        name = SPLIT_TABLES["validated"]
        header, *lines = self.release.table(name).split(b"\n")
        lines = [line for line in lines if line.strip()]
        table = ClipTable(b"\n".join([header, *lines]), name)
        speakers = [table.cells(row).get("client_id") or table.id_of(row) for row in range(len(table))]
        splits = assign_splits(speakers)
        chosen = [line for line, speaker in zip(lines, speakers, strict=True) if splits[speaker] == split]
        return ClipTable(b"\n".join([header, *chosen]), name)

    @property
    def remark(self) -> str:
        """What whoever builds a store of it should know, or ""."""
        alone = set(SPLIT_TABLES.values()).intersection(self.release.tables) == {SPLIT_TABLES["validated"]}
        return "train, dev and test are made of validated.tsv, by speaker" if alone else ""

    def _refuse(self, split: str) -> NoReturn:
        found = f"the tables {', '.join(self.release.tables)}"
        if self.release.broken:
            found += f" and no more: the archive breaks off ({self.release.broken})"
            raise LenguaError(f"the split {split!r} of {self.uri}", found, "download it again")
        has_validated = SPLIT_TABLES["validated"] in self.release.tables
        do = "name splits that it has: --splits validated" if has_validated else "name others with --splits"
        raise RequestError(f"the split {split!r} of {self.uri}", found, do)

    def _utterance(self, table: ClipTable, row: int, split: str, audio: Path | bytes = b"") -> Utterance:
        cells = table.cells(row)
        stated = cells.get("duration_ms", "")  # of spontaneous speech
        milliseconds = self.release.durations.get(table.clip_of(row)) or (int(stated) if stated.isdecimal() else 0)
        return Utterance(
            id=table.id_of(row),
            audio=audio,
            text=" ".join(cells[table.text].split()),
            language=self.language,
            speaker=cells.get("client_id", ""),
            duration_s=milliseconds / 1000 if milliseconds else None,
            split=split,
            extra={name: cells[column] for column, name in EXTRA_COLUMNS.items() if cells.get(column)},
        )


def clip_fault(size: int | None) -> str | None:
    """Return why a clip of so many bytes is left out, or None; None bytes are those of no clip."""
    if not size:
        return "missing clip" if size is None else "empty clip"
    return f"clip over {MAX_CLIP_BYTES >> 20} MB" if size > MAX_CLIP_BYTES else None
