"""Curves of several runs: dev WER and loss, over optimiser steps and over time, each run named where its line ends.

    draw_curves({"baseline": records, "lora": records}, Path("runs/compare.png"))

Records have "step", "seconds" and "loss" or "dev_wer", as a run's history.jsonl holds them.
"""

import math
from dataclasses import dataclass
from itertools import cycle, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lengua.evaluation.report.figures import (
    BLUE,
    COLUMN_GAP_IN,
    EDGE_IN,
    FAINT,
    INK,
    PAGE_HEAD_IN,
    SKY,
    VERMILION,
    WIDTH_IN,
    axes_at,
    new_page,
    text_width_in,
    truncate_to_width,
    write_png,
    write_text,
)
from lengua.scoring import percent

CURVE_COLOURS = (BLUE, VERMILION, "#009e73", "#e69f00", "#cc79a7", SKY, INK)
CURVE_STYLES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
PANEL_TITLE_IN, MIN_PANEL_IN, PANEL_FOOT_IN = 0.35, 2.3, 0.6  # heights: over a panel, of it at least, below it
PANELS_LEFT_IN, PANELS_GAP_IN = 0.65, 0.25  # widths: left of the panels, between the two
LABEL_LINE_IN, LABEL_MARK_IN, MAX_LABEL_IN = (
    0.2,
    0.3,
    2.2,
)  # a line of labels: its height, its piece of line, its widest text
SMOOTHING_DIVISOR = 8
"""Loss is shown as the mean over one part in so many of a run."""
TIME_UNITS = ((7200, 3600, "hours"), (120, 60, "minutes"), (0, 1, "seconds"))
"""From so many seconds on, time is told in units of so many, of this name."""
CURVE_NOTES = (
    "Over optimiser steps on the left, over time on the right, evaluations included. Lower is better.",
    "The large dot is a run's best on dev, the checkpoint that is kept. Loss is a running mean.",
)


class CurvePoint(NamedTuple):
    """One value of a curve; the interval is that of a dev WER, where somebody wrote it down."""

    step: int
    seconds: float
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class CurveRow:
    """What two panels beside each other show."""

    title: str
    curves: dict[str, list[CurvePoint]]
    labels: dict[str, str]
    """What stands at the end of each line."""
    top: float
    """The largest value that is shown."""
    marked: bool
    """Whether points are marked, and the lowest one most."""


def draw_curves(histories: dict[str, list[dict]], path: Path) -> bool:
    """Draw the histories of runs by their names. Returns whether there was anything to draw."""
    rows = [row for row in (wer_row(histories), loss_row(histories)) if row]
    if rows:
        write_png(_drawn(rows, list(histories)), path)
    return bool(rows)


def wer_row(histories: dict[str, list[dict]]) -> CurveRow | None:
    """Return dev WER in per cent. What is over three times the worst run's best is cut off: an early look may loop."""
    curves = _curves(histories, "dev_wer", 100)
    if not curves:
        return None
    best = {name: min(point.value for point in points) for name, points in curves.items()}
    labels = {name: f"{percent(value / 100)} {name}" for name, value in best.items()}
    highest = max(point.high or point.value for points in curves.values() for point in points)
    top = min(highest, 3 * max(best.values())) or 1
    title = "Word error rate on dev, %" + (f" (what is above {top:.0f} is not shown)" if top < highest else "")
    return CurveRow(title, curves, labels, top, True)


def loss_row(histories: dict[str, list[dict]]) -> CurveRow | None:
    """Return training loss, smoothed."""
    curves = {name: smooth_curve(points) for name, points in _curves(histories, "loss").items()}
    if not curves:
        return None
    highest = max(point.value for points in curves.values() for point in points)
    return CurveRow("Training loss", curves, {name: name for name in curves}, highest or 1, False)


def smooth_curve(points: list[CurvePoint]) -> list[CurvePoint]:
    """Return the running mean, over fewer values at both ends."""
    near = np.ones(2 * (len(points) // SMOOTHING_DIVISOR // 2) + 1)
    values = np.array([point.value for point in points])
    means = np.convolve(values, near, "same") / np.convolve(np.ones(len(values)), near, "same")
    return [point._replace(value=float(mean)) for point, mean in zip(points, means, strict=True)]


def spread_labels(wanted: list[float], gap: float, high: float) -> list[float]:
    """Return places between 0 and `high`, a gap apart and in the order of those wanted, as near to them as they get.

    Without the gaps below each, that is an isotonic regression: crowded ones share their mean.
    """
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    crowds = []
    for below, index in enumerate(order):
        mean, count = wanted[index] - below * gap, 1
        while crowds and crowds[-1][0] > mean:
            other, others = crowds.pop()
            mean, count = (other * others + mean * count) / (others + count), others + count
        crowds.append((mean, count))
    lowest = [min(max(mean, 0), high - (len(order) - 1) * gap) for mean, count in crowds for _ in range(count)]
    return [lowest[below] + below * gap for below in np.argsort(order)]


def _curves(histories: dict[str, list[dict]], key: str, times: float = 1) -> dict[str, list[CurvePoint]]:
    """Return the points of each run that has any; a loss that is no number has none."""
    curves = {
        name: [_point(record, key, times) for record in history if _is_number(record.get(key))]
        for name, history in histories.items()
    }
    return {name: points for name, points in curves.items() if points}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _point(record: dict, key: str, times: float) -> CurvePoint:
    low, high = (times * end if (end := record.get(f"{key}_{side}")) is not None else None for side in ("low", "high"))
    return CurvePoint(record["step"], record["seconds"], times * record[key], low, high)


def _drawn(rows: list[CurveRow], names: list[str]):
    """Return the figure: two panels for each row, and right of them the names of its lines."""
    tall = max(MIN_PANEL_IN, LABEL_LINE_IN * len(names))
    each = PANEL_TITLE_IN + tall + PANEL_FOOT_IN
    figure = new_page("Runs side by side", CURVE_NOTES, len(rows) * each)
    looks = dict(zip(names, cycle(product(CURVE_STYLES, CURVE_COLOURS)), strict=False))
    unit = next(unit for unit in TIME_UNITS if _longest(rows) >= unit[0])
    widest = max(
        text_width_in(truncate_to_width(label, MAX_LABEL_IN, 10), 10) for row in rows for label in row.labels.values()
    )
    wide = (WIDTH_IN - PANELS_LEFT_IN - PANELS_GAP_IN - 3 * COLUMN_GAP_IN - LABEL_MARK_IN - widest - EDGE_IN) / 2
    for place, row in enumerate(rows):
        top = PAGE_HEAD_IN + PANEL_TITLE_IN + place * each
        write_text(figure, EDGE_IN, top - 0.12, row.title, size=12, weight="bold")
        left = axes_at(figure, PANELS_LEFT_IN, top, wide, tall)
        right = axes_at(figure, PANELS_LEFT_IN + wide + PANELS_GAP_IN, top, wide, tall)
        _draw_panel(left, row, looks, 0, 1, "optimiser step")
        _draw_panel(right, row, looks, 1, unit[1], unit[2])
        right.tick_params(labelleft=False)
        _name_lines(right, row, looks, unit[1], tall)
    return figure


def _longest(rows: list[CurveRow]) -> float:
    return max(point.seconds for row in rows for points in row.curves.values() for point in points)


def _draw_panel(axes, row: CurveRow, looks: dict, column: int, divisor: float, x_name: str) -> None:
    """Draw every curve of a row over steps (column 0) or over time (column 1)."""
    for name, points in row.curves.items():
        style, colour = looks[name]
        x = [point[column] / divisor for point in points]
        look = {"color": colour, "linestyle": style, "linewidth": 1.6}
        axes.plot(x, [point.value for point in points], marker=_marker(row, points), markersize=3.5, **look)
        if row.marked:
            _mark_best(axes, x, points, colour)
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.08 * row.top)
    axes.set_xlabel(x_name, color=FAINT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=FAINT)
    axes.grid(axis="y", color="#ececec", linewidth=0.8)
    axes.set_axisbelow(True)


def _marker(row: CurveRow, points: list[CurvePoint]) -> str | None:
    return "o" if row.marked or len(points) == 1 else None


def _mark_best(axes, x: list[float], points: list[CurvePoint], colour: str) -> None:
    """Put a large dot on the lowest point, and its interval, where it has one, as a line through it."""
    best = min(range(len(points)), key=lambda index: points[index].value)
    low, high = points[best].low, points[best].high
    axes.plot(x[best], points[best].value, "o", markersize=7, color=colour, clip_on=False)
    if low is not None and high is not None:
        axes.plot([x[best]] * 2, [low, high], color=colour, linewidth=1)


def _name_lines(axes, row: CurveRow, looks: dict, divisor: float, tall: float) -> None:
    """Write each run's name right of the panel, as high as its line ends, and lead the eye there."""
    top = axes.get_ylim()[1]
    ends = {name: points[-1] for name, points in row.curves.items()}
    places = spread_labels([min(end.value / top, 1) * tall for end in ends.values()], LABEL_LINE_IN, tall)
    box = axes.get_position()
    begin = box.x1 * WIDTH_IN + 2 * COLUMN_GAP_IN
    bottom = (1 - box.y0) * axes.figure.get_figheight()
    for (name, end), place in zip(ends.items(), places, strict=True):
        style, colour = looks[name]
        across = [(begin + side - box.x0 * WIDTH_IN) / (box.width * WIDTH_IN) for side in (0, LABEL_MARK_IN)]
        mark = {"transform": axes.transAxes, "clip_on": False, "color": colour, "linestyle": style, "linewidth": 1.6}
        axes.plot(across, [place / tall] * 2, **mark)
        thread = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.6, "shrinkA": 0, "shrinkB": 3}
        where = {"xytext": (across[0], place / tall), "textcoords": "axes fraction", "annotation_clip": False}
        axes.annotate("", (end.seconds / divisor, min(end.value, top)), **where, arrowprops=thread)
        label = truncate_to_width(row.labels[name], MAX_LABEL_IN, 10)
        write_text(axes.figure, begin + LABEL_MARK_IN + COLUMN_GAP_IN / 2, bottom - place, label, size=10, va="center")
