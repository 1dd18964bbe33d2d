"""Put figures into the README: of RESULTS.md, lengua beside what people use instead; of a demo, its table and texts.

    python benchmarks/readme_figures.py                    # after a --record
    python benchmarks/readme_figures.py --run runs/demo    # and keep this demo's results.json as benchmarks/demo.json

A test holds the README against RESULTS.md and demo.json, so that no figure in it is typed.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from harness import RESULTS, ROOT, run

from lengua.evaluation.report.tables import examples, markdown_table
from lengua.runtime.errors import LenguaError
from lengua.runtime.files import read_json, read_jsonl, write_bytes, write_json

README, DEMO = ROOT / "README.md", ROOT / "benchmarks/demo.json"
SHOWN = 10
"""Examples of the demo."""
HEADER = ["", "lengua", "beside it", "times better", "measured", "commit"]
PROVENANCE = r"\((\d{4}-\d\d-\d\d), commit (\w+\+?), (.*)\)\n"
"""What `harness.record` writes behind a command: date, commit, hardware."""
DO = "run its benchmark with --record, or change benchmarks/readme_figures.py"


@dataclass(frozen=True)
class Options:
    """Renew the parts of the README that are made from measurements."""

    run: Path | None = None
    """A finished demo to take as the recorded one."""
    readme: Path = README
    """The file to renew."""
    demo: Path = DEMO
    """Where the results of the recorded demo are kept."""


def main(options: Options) -> None:
    if options.run:
        write_json(options.demo, demo_results(options.run))
    readme, measured = options.readme.read_text(encoding="utf-8"), RESULTS.read_text(encoding="utf-8")
    write_bytes(options.readme, filled(readme, measured, read_json(options.demo)).encode())


def demo_results(run: Path) -> dict:
    """Return the results of a finished demo, with examples and times."""
    results = read_json(run / "evaluation/results.json")
    shown = examples(read_jsonl(run / "evaluation/hypotheses.jsonl"), SHOWN)
    seconds = read_json(run / "demo.json")["seconds"]
    return {**results, "examples": [example._asdict() for example in shown], "seconds": seconds}


def filled(readme: str, measured: str, demo: dict) -> str:
    """Return the README with its generated parts made from the text of RESULTS.md and a demo's results."""
    parts = {"measured": measured_part(measured), "results": results_part(demo), "examples": examples_part(demo)}
    for name, part in parts.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        assert pattern.search(readme), f"README.md lacks <!-- {name} --> ... <!-- /{name} -->"
        readme = pattern.sub(lambda found, part=part: f"{found[1]}{part}\n{found[2]}", readme)
    return readme


def results_part(results: dict) -> str:
    """Return the table and what it was measured with."""
    row, minutes = results["rows"][0], sum(results["seconds"].values()) / 60
    training = results["seconds"]["training"] / 60
    return (
        f"{markdown_table(results['rows'], results.get('verdicts'))}\n"
        f"{row['interval']}; {row['decoding']}. {results['hardware']}; {results['date']}, commit {results['commit']}. "
        f"The demo took {minutes:.0f} minutes, {training:.0f} of them training."
    )


def examples_part(results: dict) -> str:
    """Return the reference and the hypotheses of base and fine-tuned model as a table."""
    cells = [
        [item[name].replace("|", "\\|") for name in ("reference", "before", "after")] for item in results["examples"]
    ]
    lines = ["| reference | base | fine-tuned |", "| --- | --- | --- |", *(f"| {' | '.join(line)} |" for line in cells)]
    return "\n".join(lines)


def measured_part(measured: str) -> str:
    """Return a row of figures for each measurement that the README shows, and the machines."""
    sections = [(Section(measured, title), make) for title, make in ROWS]
    rows = [[*make(section), section.said(PROVENANCE), section.said(PROVENANCE, 2)] for section, make in sections]
    table = [f"| {' | '.join(cells)} |" for cells in (HEADER, ["---"] * len(HEADER), *rows)]
    machines = "; ".join(dict.fromkeys(section.said(PROVENANCE, 3) for section, _ in sections))
    return "\n".join([*table, "", f"whisper-base on {machines}. The commands: [RESULTS.md](benchmarks/RESULTS.md)."])


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
    found = [section.cell("all", side).split() for side in ("Transcriber", "no gates", "faster-whisper")]
    ours, none, other = (f"{words} in {recordings} recordings" for words, *_, recordings in found)
    return ["words invented where nobody speaks", ours, f"{none} without the gates; {other} faster-whisper", ""]


def strangers(section: Section) -> list[str]:
    """WER of speakers who are not in the sample, with intervals, and the verdict."""
    rows = [cells for _, table in section.tables for cells in table]
    wer = {(model, window): interval for _, model, window, interval, *_ in rows}
    clips = section.said(r"(\d+) clips of")
    verdict = section.said(r"(\w+) on test \(fine-tuned, adaptive\)").lower()
    name, before = f"**WER of strangers**, {clips} clips", f"{wer['base', 'padded']} untouched"
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
