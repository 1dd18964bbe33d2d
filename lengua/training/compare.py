"""Several runs side by side: how good on dev, at what cost, and what each did otherwise than the others.

lengua compare runs/baseline runs/lora
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lengua.evaluation.report import write_comparison
from lengua.evaluation.report.figures import draw_curves
from lengua.evaluation.report.tables import DASH, Table, with_interval
from lengua.options import CompareOptions
from lengua.runtime.errors import RequestError
from lengua.training.runs import Run, read_run

IGNORED_OPTIONS = {"source", "out", "base", "resume", "recipe", "workers", "device"}
"""Options that are no choice of a run, or that the table tells by itself."""
RUNS_HEADER = ["run", "what differs", "best dev WER", "steps", "time", "clips/s", "state"]


@dataclass(frozen=True)
class RunSummary:
    """One run of the table."""

    run: str
    path: Path
    recipe: str | None
    base: str
    differs: dict[str, Any]
    """Options that this run has and most of the others have not."""
    wer: float | None
    """The lowest WER on dev, as a fraction; None before the first evaluation."""
    wer_low: float | None
    """Its interval, where the history holds one."""
    wer_high: float | None
    best_step: int | None
    steps: int
    seconds: float
    """Of training, evaluations included, over all starts of a run that was interrupted."""
    clips_per_second: float | None
    finished: bool
    state: str
    """finished, or how far it came."""


@dataclass(frozen=True)
class CompareResult:
    """The table and the figure."""

    rows: list[RunSummary]
    figure: Path | None
    """None where no run has anything to draw yet."""
    page: Path
    """The same for a browser."""
    notes: list[str]
    """What one must know to read the table."""


def compare(options: CompareOptions) -> CompareResult:
    """Read the runs, draw their curves, write the page of both, and return them.

    Raises:
        RequestError: no runs are named, one is not there, or none of them is a run.
    """
    runs, notes = _read_all(options.runs)
    names = run_names(runs)
    rows = [_summarise(*one) for one in zip(runs, names, differences(runs), strict=True)]
    figure = options.out or runs[0].path.parent / "compare.png"
    histories = {name: run.history for name, run in zip(names, runs, strict=True)}
    drawn, notes = figure if draw_curves(histories, figure) else None, notes + _cautions(runs, names)
    page = write_comparison(figure.with_suffix(".html"), runs_table(rows), rows, drawn, notes)
    return CompareResult(rows, drawn, page, notes)


def runs_table(rows: list[RunSummary]) -> Table:
    """Return a line for each run; the base stands among what differs, if it does."""
    several = len({row.base for row in rows}) > 1
    return Table(RUNS_HEADER, [_cells(row, several) for row in rows], "llrrrrl")


def differences(runs: list[Run]) -> list[dict[str, Any]]:
    """Return for each run the options that others have otherwise; a value of more than half, or none, is left out."""
    differs: list[dict[str, Any]] = [{} for _ in runs]
    for name in runs[0].options:
        values = [run.options.get(name) for run in runs]
        counts = Counter(map(json.dumps, values))
        for run, value in zip(differs, values, strict=True):
            rare = len(counts) > 1 and 2 * counts[json.dumps(value)] <= len(runs)
            if rare and value is not None and name.partition(".")[0] not in IGNORED_OPTIONS:
                run[name] = value
    return differs


def run_names(runs: list[Run]) -> list[str]:
    """Return a name for each run: its folder's, or the whole path where two folders have one name."""
    often = Counter(run.name for run in runs)
    return [run.name if often[run.name] == 1 else str(run.path) for run in runs]


def format_option(name: str, value: Any) -> str:
    """Write an option and its value as people do: learning_rate 5e-6."""
    values = value if isinstance(value, list) else [value]
    return f"{name} {' '.join(map(_word, values)) or 'none'}"


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return np.format_float_scientific(value, trim="-", exp_digits=1) if 0 < value < 0.01 else f"{value:g}"
    return str(value)


def _read_all(paths: tuple[Path, ...]) -> tuple[list[Run], list[str]]:
    """Return the runs among some paths, each once, and a note for every other folder; runs/* has files, too."""
    paths = list(dict.fromkeys(map(Path, paths)))
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise RequestError("folders of runs", f"nothing at {', '.join(missing)}", "check the names, or try runs/*")
    found = {path: read_run(path) for path in paths}
    runs = [run for run in found.values() if run]
    if not runs:
        named = ", ".join(map(str, paths)) or "none named"
        raise RequestError("runs, with a run.json in each", named, "name folders that `lengua train --out` wrote")
    others = [path for path, run in found.items() if not run and path.is_dir()]
    return runs, [f"{path} is left out: no run.json, so no run" for path in others]


def _summarise(run: Run, name: str, differs: dict[str, Any]) -> RunSummary:
    same = {key: getattr(run, key) for key in ("path", "recipe", "steps", "seconds", "clips_per_second", "finished")}
    best = {key: run.best.get(f"dev_{key}") for key in ("wer", "wer_low", "wer_high")}
    base, step = run.options["base"], run.best.get("step")
    return RunSummary(run=name, base=base, differs=differs, best_step=step, state=run.state, **same, **best)


def _cautions(runs: list[Run], names: list[str]) -> list[str]:
    """Return what makes these runs hard to compare, and what is wrong with their files."""
    notes = [
        f"{name}: {run.unreadable} lines of history.jsonl cannot be read and are left out"
        for run, name in zip(runs, names, strict=True)
        if run.unreadable
    ]
    manifests = [run.manifest for run in runs]
    data = list(map(_describe_dev, manifests)) if all(manifests) else [run.options["source"] for run in runs]
    if len(set(data)) > 1:
        of_each = {what: [name for name, other in zip(names, data, strict=True) if other == what] for what in data}
        measured = "; ".join(f"{', '.join(some)} on {what}" for what, some in of_each.items())
        notes.append(f"dev differs, so the WER of one says nothing of another's: {measured}")
    if len({run.options["window"] for run in runs}) > 1:
        notes.append("dev WER is measured in the window that each run trained for, adaptive or 30 s")
    return notes


def _describe_dev(manifest: dict) -> str:
    dev = manifest["splits"].get("dev", {})
    size = f"{dev.get('utterances', 0)} clips of {60 * dev.get('hours', 0):.1f} min"
    return f"{manifest['source']} at {manifest['revision']}, {size}"


def _cells(row: RunSummary, with_base: bool) -> list[str]:
    """Return a line of the table. A recipe is named where the run is not named after it."""
    differs = [format_option(name, value) for name, value in row.differs.items()]
    differs = ", ".join([Path(row.base).name, *differs] if with_base else differs)
    by_recipe = row.recipe if row.recipe != row.run else None
    return [
        row.run,
        ": ".join(filter(None, (by_recipe, differs))) or DASH,
        DASH if row.wer is None else with_interval(vars(row)),
        str(row.steps),
        f"{row.seconds / 60:.1f} min" if row.seconds >= 60 else f"{row.seconds:.0f} s",
        DASH if row.clips_per_second is None else f"{row.clips_per_second:.1f}",
        row.state,
    ]
