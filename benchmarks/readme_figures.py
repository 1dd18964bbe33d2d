"""Put the figures of RESULTS.md that the README shows into the README: lengua beside what people use instead.

    python benchmarks/readme_figures.py

A test holds the README against RESULTS.md, so that no figure in it is typed. Run this after a --record.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from recording import RESULTS, run

from lengua.runtime.errors import LenguaError
from lengua.runtime.files import write_bytes

README = RESULTS.parent.parent / "README.md"
HEADER = ["", "lengua", "beside it", "times better", "measured", "commit"]
PROVENANCE = r"\((\d{4}-\d\d-\d\d), commit (\w+\+?), (.*)\)\n"
"""What `recording.record` writes behind a command: date, commit, hardware."""
DO = "run its benchmark with --record, or change benchmarks/readme_figures.py"


@dataclass(frozen=True)
class Options:
    """Renew the part of the README that is made from RESULTS.md."""

    readme: Path = README
    """The file to renew."""


def main(options: Options) -> None:
    """Renew the README."""
    measured = RESULTS.read_text(encoding="utf-8")
    write_bytes(options.readme, filled(options.readme.read_text(encoding="utf-8"), measured).encode())


def filled(readme: str, measured: str) -> str:
    """Return the README with its generated part made from RESULTS.md."""
    sections = [(Section(measured, title), make) for title, make in ROWS]
    rows = [[*make(section), section.said(PROVENANCE), section.said(PROVENANCE, 2)] for section, make in sections]
    table = [f"| {' | '.join(cells)} |" for cells in (HEADER, ["---"] * len(HEADER), *rows)]
    machines = "; ".join(dict.fromkeys(section.said(PROVENANCE, 3) for section, _ in sections))
    part = "\n".join([*table, "", f"whisper-base on {machines}. The commands: [RESULTS.md](benchmarks/RESULTS.md)."])
    pattern = re.compile(r"(<!-- measured -->\n).*?(<!-- /measured -->)", re.DOTALL)
    assert pattern.search(readme), "README.md lacks <!-- measured --> ... <!-- /measured -->"
    return pattern.sub(lambda found: f"{found[1]}{part}\n{found[2]}", readme)


class Section:
    """One section of RESULTS.md: its text, and the cells of its tables by the names of row and column.

    What is asked for and is not there is a LenguaError.
    """

    def __init__(self, measured: str, title: str):
        found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", measured, re.DOTALL | re.MULTILINE)
        if not found:
            raise LenguaError(f"a section {title!r} in RESULTS.md", "none", DO)
        self.title, self.text = title, found[1]
        self.tables = [table_of(lines) for lines in re.findall(r"(?:^\|.*\|\n)+", self.text, re.MULTILINE)]

    def cell(self, row: str, column: str = "") -> str:
        """Return the first cell whose row and column begin so; of the first column but one, where none is named."""
        for header, rows in self.tables:
            place = next((index for index, name in enumerate(header) if index and name.startswith(column)), None)
            cells = next((cells for cells in rows if cells[0].startswith(row)), None)
            if place is not None and cells is not None:
                return cells[place]
        raise LenguaError(f"a cell {row!r}, {column!r} in {self.title!r} of RESULTS.md", "none", DO)

    def number(self, row: str, column: str = "") -> float:
        """Return the first number in a cell: "1,220 / 1,217" -> 1220."""
        cell = self.cell(row, column)
        if not (found := re.search(r"\d[\d,]*(?:\.\d+)?", cell)):
            raise LenguaError(f"a number in {row!r}, {column!r} in {self.title!r} of RESULTS.md", repr(cell), DO)
        return float(found[0].replace(",", ""))

    def said(self, pattern: str, group: int = 1) -> str:
        """Return what a pattern finds in the section's text."""
        if not (found := re.search(pattern, self.text)):
            raise LenguaError(f"{pattern!r} in {self.title!r} of RESULTS.md", "none", DO)
        return found[group]


def table_of(text: str) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a Markdown table, as lists of cells."""
    lines = [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in text.strip().splitlines()]
    return lines[0], lines[2:]


def features(section: Section) -> list[str]:
    """Clips a second of two processes, beside the usual recipe as it is published and tuned."""
    sides = ("lengua", "the same, tuned", "usual recipe")
    ours, tuned, usual = (section.number("clips/s, 2 processes", side) for side in sides)
    beside = f"{tuned:g} usual recipe, tuned; {usual:g} as published"
    return ["features, clips a second", f"{ours:g}", beside, f"{ours / tuned:.1f}"]


def disk(section: Section) -> list[str]:
    """Bytes of a clip in a store."""
    ours, usual = (section.number("kB a clip on disk", side) for side in ("lengua", "usual recipe"))
    return ["features, kB a clip", f"{ours:g}", f"{usual:g} padded, float32", f"{usual / ours:.0f}"]


def training(section: Section) -> list[str]:
    """Clips a second in bfloat16, beside the usual recipe in both precisions."""
    sides = ("lengua, bfloat16", "usual recipe, bfloat16", "usual recipe, float32")
    ours, same, usual = (section.number(side, "clips/s") for side in sides)
    beside = f"{same:g} usual recipe, padded; {usual:g} in float32, too"
    name = f"training, clips a second, {section.said(r'counts as ([0-9]+) %')} % of the steps padded"
    return [name, f"{ours:g}", beside, f"{ours / same:.0f}; {ours / usual:.0f}"]


def inference(section: Section) -> list[str]:
    """Milliseconds a clip, beside those that pad to 30 s and the one that can be told not to: as usual, or as we do."""
    pad = ("faster-whisper int8", "transformers float32", "whisper.cpp float16")
    programs = (*pad, f"{pad[-1]}, audio_ctx + 128", f"{pad[-1]}, audio_ctx by our margin")
    ours, *theirs = (section.number(program, "ms a clip") for program in ("Transcriber", *programs))
    told = [f"{ms:g} {program.split()[0]}" for ms, program in zip(theirs, programs, strict=True)]
    beside = f"{', '.join(told[:-2])}; {told[-2]} with its short window, {theirs[-1]:g} with ours"
    name = f"a clip of {section.said(r'mean ([0-9.]+) s')} s, ms"
    return [
        name,
        f"{ours:g}",
        beside,
        f"{min(theirs[:-2]) / ours:.1f}; {theirs[-2] / ours:.1f}, {theirs[-1] / ours:.1f}",
    ]


def hour(section: Section) -> list[str]:
    """An hour of speech, read as one file."""
    times, seconds = section.number("times real time"), section.number("seconds, the start")
    return ["60 minutes of speech, s", f"{seconds:g}", f"{times:g} times real time", ""]


def silence(section: Section) -> list[str]:
    """Words where nobody speaks: with lengua's gates, without them, and of faster-whisper."""
    ours, none, other = (section.cell("all", side) for side in ("Transcriber", "no gates", "faster-whisper"))
    return [
        "words where nobody speaks, in how many recordings",
        ours,
        f"{none} without the gates; {other} faster-whisper",
        "",
    ]


def strangers(section: Section) -> list[str]:
    """WER of speakers who are not in the sample, with intervals, and the verdict."""
    rows = [cells for _, table in section.tables for cells in table]
    wer = {(model, window): interval for _, model, window, interval, *_ in rows}
    clips = section.said(r"(\d+) validated clips")
    verdict = section.said(r"(\w+) on test \(fine-tuned, adaptive\)").lower()
    name, before = f"**WER of strangers**, {clips} clips of Common Voice", f"{wer['base', 'padded']} untouched"
    return [name, wer["fine-tuned", "adaptive"], before, f"**{verdict}**"]


ROWS = (
    ("Features", features),
    ("Features", disk),
    ("Training, whisper-base, cpu", training),
    ("Inference", inference),
    ("60 minutes of speech", hour),
    ("Silence and noise: openai/whisper-base", silence),
    ("Common Voice es", strangers),
)
"""Sections of RESULTS.md, and what makes a row of each."""

if __name__ == "__main__":
    run(main, Options)
