"""What each command prints of its result, on standard output.

What a command alone needs is imported there: transcribing works without the packages of training and reports.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lengua.doctor import format_doctor_report
from lengua.inference import FileText, TranscriptChunk

TERMINAL_COLUMNS = ("set", "model", "window", "WER (95 % interval)", "change", "S / D / I", "ms a clip")
"""Columns of the table that fit a terminal; results.json has them all."""
PARITY_TERMINAL_COLUMNS = ("program", "opens", "WER", "clips with other words")
"""Columns of the comparison of programs that fit one."""


def nothing(result) -> None:
    """Print nothing: the command has printed all while it ran."""


def features(result) -> None:
    """Print the counts of a store and of what was dropped, and draw its figures."""
    print(f"{result.path}: {'built' if result.built else 'already complete'}, {result.bytes / 1e6:.1f} MB")
    for split, count in result.splits.items():
        clips, hours, voices = count["utterances"], count["hours"], count["speakers"]
        each = count["bytes"] / 1000 / max(clips, 1)
        print(f"  {split:<6} {clips:>7} clips  {hours:8.2f} h  {voices:>6} speakers  {each:6.1f} kB a clip")
    if result.pushed:
        print(f"  pushed: {result.pushed}")
    for reason, found in result.dropped.items():
        print(f"  left out: {reason:<26} {found['count']:>6}  e.g. {', '.join(found['examples'][:2])}")
    for rule, found in result.cleaned.items():
        print(f"  cleaned: {rule:<26} {found['count']:>6}  e.g. {', '.join(found['examples'][:2])}")
    print(f"  figures: {_draw_figures(result.path)}")
    if result.splits.get("train", {}).get("utterances"):
        print(f"next: lengua train {result.path} --out runs/NAME")
    else:
        print(f"next: lengua evaluate MODEL {result.path} --split {next(iter(result.splits))}")


def _draw_figures(store: Path) -> str:
    """Draw a store's figures and return where they are; a full or read-only disk does not undo a complete store."""
    from lengua.data.store import open_store
    from lengua.evaluation.report.store_figures import draw_store_figures

    folder = store.with_name(f"{store.name}-figures")  # in the store, `datasets` would take them for data
    try:
        drawn = draw_store_figures(open_store(store), folder)
    except OSError as error:
        return f"none, for they could not be written ({error})"
    return f"{folder}/ ({', '.join(path.stem for path in drawn)})"


def train(result) -> None:
    """Print whether it is better than its base, where the model is and how good it is on dev."""
    if result.verdict:
        print(result.verdict)
    print(f"{result.model}: {result.steps} steps in {result.seconds / 60:.1f} min, dev WER {result.dev_wer:.1%}")
    if result.stopped:
        print(f"stopped early: {result.stopped}")
    print(f"next: lengua evaluate {result.path} STORE")


def evaluate(result) -> None:
    """Print the table of results, the summary of errors, and the files that have more."""
    print_results(result.rows)
    print("\n".join(["", *result.summary, ""]))
    print(f"{result.path}/report.html, {result.path}/results.json, {result.path}/hypotheses.jsonl")


def compare(result) -> None:
    """Print the table of runs, what one must know to read it, and where their curves are."""
    from lengua.training.compare import runs_table

    bases = {row.base for row in result.rows}
    if len(bases) == 1:
        print(f"all from {bases.pop()}")
    runs_table(result.rows).to_terminal(folded="what differs")
    for note in result.notes:
        print(f"note: {note}")
    print(f"{result.figure or 'nothing to draw yet'}, {result.page}")


def transcribe(results: Iterator[TranscriptChunk | FileText]) -> int:
    """Print text as it is decoded, or where it was written; failures and what was dropped go to standard error."""
    code = 0
    for result in results:
        if isinstance(result, TranscriptChunk):
            print(result.text, end="", flush=True)
            continue
        if result.error:
            code = max(code, result.error.exit_code)
            print(f"lengua: {result.error}", file=sys.stderr)
        if result.out:
            minutes = f"{result.duration_s / 60:.1f} min in {result.seconds / 60:.1f} min"
            print(f"{result.file}: {result.out}, {result.segments} segments, {minutes}", flush=True)
        if result.suppressed:
            counts = ", ".join(f"{reason} {count}" for reason, count in sorted(result.suppressed.items()))
            print(f"{result.file}: no text where there is no speech ({counts})", file=sys.stderr)
    return code


def publish(result) -> None:
    """Print what was written, what each program made of the same clips, and where it went."""
    from lengua.publishing.parity import parity_table

    print(f"{result.path}: {', '.join(result.formats)}, {result.bytes / 1e6:.0f} MB")
    if result.parity is None:
        print("the programs that open it were not compared")
    else:
        parity_table(result.parity).select(PARITY_TERMINAL_COLUMNS).to_terminal()
    for sentence in result.joined_losses:
        print(sentence)
    if result.repo:
        print(f"{result.repo}: revision {result.revision}, tag {result.tag}, {_seen_by(result)}\n{result.url}")
    if result.space:
        print(f"{result.space_path}: the Space, uploaded\n{result.space}")
    if result.space and result.private:
        print(f"{result.repo} is private: give the Space a token that may read it, as the secret HF_TOKEN")


def _seen_by(result) -> str:
    return "private" if result.private else "for everybody to read"


def doctor(result) -> None:
    """Print the findings."""
    print(format_doctor_report(result))


def demo(result) -> None:
    """Print the table, ten truth / before / after, and what there is to try next."""
    print("\ntruth / before / after")
    for example in result.examples:
        print(f"\n  {example.reference}\n  {example.before}\n  {example.after}")
    print()
    print_results(result.rows)
    for id, text in result.heard:
        print(f"heard {id}: {text}")
    took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result.seconds.items())
    print(f"\n{result.figure}; {took}")
    print(f"next: lengua transcribe YOUR.mp3 --model {result.path}, or make app")


def print_results(rows: list[dict]) -> None:
    """Print the before/after table; what became worse comes first."""
    from lengua.evaluation.report import tables

    table = replace(tables.results_table(rows), notes=tables.worsened(rows))
    table.select(TERMINAL_COLUMNS).to_terminal()
