"""The page of `lengua compare`: the table of runs, their dev WER as bars, and their curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lengua.figures.curves import Row, loss_row, wer_row
from lengua.pages import drawing
from lengua.pages.rendering import render
from lengua.report import with_interval


def write_comparison(
    path: Path,
    table: list[list[str]],
    runs: Sequence[Any],
    histories: dict[str, list[dict]],
    notes: Sequence[str] = (),
) -> Path:
    """Write the page of several runs and return its path.

    Args:
        table: header and lines, as `lengua.comparison.table` returns them.
        runs: a `lengua.comparison.Compared` for each.
        histories: records of history.jsonl by the name of the run.
        notes: what one must know to read the table.
    """
    panels = [panel for panel in (wer_row(histories), loss_row(histories)) if panel]
    facts = {
        "title": best_of(runs),
        "table": table,
        "bars_of_runs": bars(runs),
        "curves": [_panel(panel, list(histories)) for panel in panels],
        "notes": [*close_to_best(runs), *notes],
        "language": "",
    }
    return render(path, "compare.html", facts)


def best_of(runs: Sequence[Any]) -> str:
    """Return one sentence: which run has the lowest WER on dev."""
    known = _by_wer(runs)
    return f"Lowest on dev: {known[0].run}, {with_interval(vars(known[0]))}" if known else "No run was evaluated on dev"


def close_to_best(runs: Sequence[Any]) -> list[str]:
    """Return a sentence if other runs lie within the interval of the best: then their order may be chance."""
    known = _by_wer(runs)
    if not known or known[0].wer_high is None:
        return []
    close = [run.run for run in known[1:] if run.wer <= known[0].wer_high]
    lie = "lies" if len(close) == 1 else "lie"
    return [f"{', '.join(close)} {lie} within the interval of {known[0].run}: the order may be chance"] if close else []


def _by_wer(runs: Sequence[Any]) -> list:
    return sorted((run for run in runs if run.wer is not None), key=lambda run: run.wer)


def bars(runs: Sequence[Any]) -> list[dict]:
    """Return a bar for each run that has a WER: name, drawing and value."""
    rows = [vars(run) for run in runs if run.wer is not None]
    most = drawing.longest(rows)
    return [
        {
            "name": row["run"],
            "value": (value := with_interval(row)),
            "drawing": drawing.bar(
                row["wer"], row["wer_low"], row["wer_high"], most, "adaptive", f"{row['run']}: {value}"
            ),
        }
        for row in rows
    ]


def _panel(panel: Row, names: list[str]) -> dict:
    """Return a chart and the labels around it; a run has one colour in all panels."""
    looks = dict(zip(names, drawing.strokes(len(names)), strict=True))
    lines = [panel.curves.get(name, []) for name in names]
    last = max((point.step for line in lines for point in line), default=0)
    return {
        "title": panel.title,
        "drawing": drawing.curves(lines, panel.top, panel.marked, f"{panel.title} over optimiser steps, to {last:,}"),
        "cut": any(point.value > panel.top for line in lines for point in line),
        "ticks": [f"{panel.top * part:.3g}" for part in (1, 0.75, 0.5, 0.25, 0)],
        "last": last,
        "legend": [
            {"name": panel.labels.get(name, name), "key": drawing.key(*looks[name])}
            for name, line in zip(names, lines, strict=True)
            if line
        ],
    }
