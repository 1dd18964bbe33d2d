"""What each command prints of its result, on standard output."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from lengua import comparison, report
from lengua.doctor import describe
from lengua.figures.store import draw as draw_store
from lengua.store import open_store
from lengua.transcription import FileText

SHOWN = ("set", "model", "window", "WER (95 % interval)", "change", "S / D / I", "ms a clip")
"""Columns of the table that fit a terminal; results.json has them all."""
WIDTH = 100
FOLDED = 22
"""Letters that a column of several lines has at least."""


def nothing(result) -> None:
    """Print nothing: the command has said all while it ran."""


def features(result) -> None:
    """Print what went into the store and what did not, and draw it."""
    print(f"{result.path}: {'built' if result.built else 'already complete'}, {result.bytes / 1e6:.1f} MB")
    for split, count in result.splits.items():
        clips, hours, voices = count["utterances"], count["hours"], count["speakers"]
        each = count["bytes"] / 1000 / max(clips, 1)
        print(f"  {split:<6} {clips:>7} clips  {hours:8.2f} h  {voices:>6} speakers  {each:6.1f} kB a clip")
    if result.pushed:
        print(f"  pushed: {result.pushed}")
    for reason, found in result.dropped.items():
        print(f"  left out: {reason:<26} {found['count']:>6}  e.g. {', '.join(found['examples'][:2])}")
    print(f"  figures: {_drawn(result.path)}")
    if result.splits.get("train", {}).get("utterances"):
        print(f"next: lengua train {result.path} --out runs/NAME")
    else:
        print(f"next: lengua evaluate MODEL {result.path} --split {next(iter(result.splits))}")


def _drawn(store: Path) -> str:
    """Draw a store and say where; a disk that is full or not to be written does not undo a store that is whole."""
    folder = store.with_name(f"{store.name}-figures")  # in the store, `datasets` would take them for data
    try:
        drawn = draw_store(open_store(store), folder)
    except OSError as error:
        return f"none, for they could not be written ({error})"
    return f"{folder}/ ({', '.join(path.stem for path in drawn)})"


def train(result) -> None:
    """Print where the model is and how good it is on dev."""
    print(f"{result.model}: {result.steps} steps in {result.seconds / 60:.1f} min, dev WER {result.dev_wer:.1%}")
    if result.stopped:
        print(f"stopped early: {result.stopped}")
    print(f"next: lengua evaluate {result.path} STORE")


def evaluate(result) -> None:
    """Print the table of results, what is wrong, and where there is more."""
    grid(result.rows)
    print("\n".join(["", *result.summary, ""]))
    print(f"{result.path}/report.html, {result.path}/results.json, {result.path}/hypotheses.jsonl")


def compare(result) -> None:
    """Print the table of runs, what one must know to read it, and where their curves are."""
    bases = {row.base for row in result.rows}
    if len(bases) == 1:
        print(f"all from {bases.pop()}")
    header, *lines = comparison.table(result.rows)
    _show(header, lines, left=("run", "what differs", "state"), folded="what differs")
    for note in result.notes:
        print(f"note: {note}")
    print(f"{result.figure or 'nothing to draw yet'}, {result.page}")


def transcribe(results: Iterator[FileText]) -> int:
    """Print each text as it comes, under its file's name where there are several; return the exit code."""
    code = 0
    for result in results:
        if result.error:
            code = result.error.exit_code
            print(f"lengua: {result.error}", file=sys.stderr)
        else:
            print(f"{result.file}: {result.text}", flush=True)
    return code


def publish(result) -> None:
    """Print what was written."""
    print(f"{result.path}: {', '.join(result.formats)}, {result.bytes / 1e6:.0f} MB")


def doctor(result) -> None:
    """Print the findings."""
    print(describe(result))


def demo(result) -> None:
    """Print the table, ten truth / before / after, and what there is to try next."""
    print("\ntruth / before / after")
    for example in result.examples:
        print(f"\n  {example.reference}\n  {example.before}\n  {example.after}")
    print()
    grid(result.rows)
    for id, text in result.heard:
        print(f"heard {id}: {text}")
    took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result.seconds.items())
    print(f"\n{result.figure}; {took}")
    print(f"next: lengua transcribe YOUR.mp3 --model {result.path}, or make app")


def grid(rows: list[dict]) -> None:
    """Print the before/after table; what became worse comes first."""
    for sentence in report.worsened(rows):
        print(sentence)
    header, *lines = report.table(rows)
    shown = [index for index, name in enumerate(header) if name in SHOWN]
    _show([header[index] for index in shown], [[line[index] for index in shown] for line in lines], left=SHOWN[:3])


def _show(header: list[str], lines: list[list[str]], left: Sequence[str], folded: str = "") -> None:
    """Print a table: columns of words to the left, figures to the right, one column in several lines if it must."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for name in header:
        look = {"min_width": FOLDED} if name == folded else {"no_wrap": True}
        table.add_column(name, justify="left" if name in left else "right", **look)
    for line in lines:
        table.add_row(*line)
    Console(width=max(Console().width, WIDTH)).print(table)
