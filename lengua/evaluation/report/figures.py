"""Figures as PNG: WER by set, group or failure mode as bars, and curves of one run or of several.

    wer_figure(results["rows"], Path("wer.png"))
    draw_curves({"baseline": records, "lora": records}, Path("runs/compare.png"))

Data are rows of results.json and records of history.jsonl. A page places its title, notes, axes and text in inches from
the left and the top. Texts from data are cut to their room, and a dollar in them is no formula. matplotlib is imported
when something is drawn, and without pyplot, whose state a notebook or thread shares.
"""

import io
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import cycle, groupby, product
from pathlib import Path
from typing import NamedTuple

from lengua.runtime.errors import LenguaError
from lengua.runtime.files import write_bytes
from lengua.scoring import counted, percent

# Okabe & Ito's palette, safe for colour-blind readers, and a grey for what was there before.
GREY, SKY, BLUE, VERMILION = "#9a9a9a", "#56b4e9", "#0072b2", "#d55e00"
PALETTE = (BLUE, VERMILION, "#009e73", "#e69f00", "#cc79a7", SKY)
INK, FAINT = "#222222", "#6b6b6b"
WIDTH_IN, DPI = 9.0, 200  # 1800 px, shown at 900 in a README: sharp on any screen
EDGE_IN, GAP_IN = 0.18, 0.15
FULL_IN, HALF_IN = WIDTH_IN - 2 * EDGE_IN, (WIDTH_IN - 2 * EDGE_IN - 0.5) / 2  # widths: of all, of one column of two
PAGE_HEAD_IN, NOTE_LINE_IN = 1.1, 0.24  # heights: title and notes, a line of text
BASE = "base"  # what `model` says in rows of the untouched model


def write_png(figure, path: Path) -> None:
    """Write the PNG whole or not at all; without a date or version in it, equal data give equal bytes."""
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    write_bytes(Path(path), png.getvalue())


def new_page(title: str, notes: Sequence[str], height_in: float):
    """Return a white figure, 1800 px wide, with a title, two notes at most, and so much space below them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, PAGE_HEAD_IN + height_in), dpi=DPI, facecolor="white")
    write_text(figure, EDGE_IN, 0.4, title, size=15, weight="bold")
    for place, note in enumerate(notes):
        write_text(figure, EDGE_IN, 0.7 + NOTE_LINE_IN * place, note, FULL_IN, color=FAINT)
    return figure


def axes_at(figure, x: float, top: float, wide: float, tall: float):
    """Add axes at inches from the left and the top of a figure."""
    height = figure.get_figheight()
    return figure.add_axes((x / WIDTH_IN, 1 - (top + tall) / height, wide / WIDTH_IN, tall / height))


def clean_axes(axes, x_name: str) -> None:
    """Leave of the frame what holds numbers, and name the side below."""
    axes.set_xlabel(x_name, color=FAINT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=FAINT)


def write_text(figure, x: float, y: float, text: str, wide: float = math.inf, **look) -> None:
    """Write a line at inches from the left and the top, cut to so many inches."""
    look = {"color": INK, "size": 11, **look}
    text = truncate_to_width(text, wide, look["size"])
    figure.text(x / WIDTH_IN, 1 - y / figure.get_figheight(), text, parse_math=False, **look)


def write_pair(
    figure, x: float, y: float, wide: float, pair: tuple[str, str], size: float = 11, weight: str = "normal"
) -> None:
    """Write a name and, fainter, what stands beside it; both are cut so as to fit into so many inches."""
    name = truncate_to_width(pair[0], wide, size)
    write_text(figure, x, y, name, size=size, weight=weight)
    taken = text_width_in(name, size, weight) + GAP_IN
    if pair[1] and wide - taken > 0.5:
        write_text(figure, x + taken, y, pair[1], wide - taken, size=size, color=FAINT)


def text_width_in(text: str, size: float, weight: str = "normal") -> float:
    """Return how many inches a line takes."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(size=size, weight=weight)
    return _text_measurer().get_text_width_height_descent(text, font, False)[0] / DPI


@lru_cache(maxsize=1)
def _text_measurer():
    from matplotlib.backends.backend_agg import RendererAgg

    return RendererAgg(1, 1, DPI)


def truncate_to_width(text: str, wide: float, size: float) -> str:
    """Return as much of a text as fits into so many inches, on one line."""
    text = " ".join(text.split())
    if wide == math.inf or text_width_in(text, size) <= wide:
        return text
    fits = bisect_right(range(1, len(text)), wide, key=lambda letters: text_width_in(text[:letters] + "…", size))
    return text[:fits].rstrip() + "…"


# Bars


class Bar(NamedTuple):
    """One line of a page of bars."""

    name: str
    value: str
    parts: Sequence[tuple[float, str]]
    """Lengths and colours, from the left."""
    note: str = ""
    """Beside the name, fainter."""
    interval: tuple[float | None, float | None] = (None, None)
    right: str = ""
    """At the right edge."""


class BarGroup(NamedTuple):
    """Bars under one title; all of a page are to one scale."""

    title: str
    bars: Sequence[Bar]
    note: str = ""


GROUP_TITLE_IN, BAR_IN, BARS_FOOT_IN = 0.5, 0.34, 0.15  # heights
MAX_BAR_NAME_IN, BAR_VALUE_IN, BAR_RIGHT_IN = 3.4, 0.95, 0.95  # widths


def bars_page(title: str, notes: Sequence[str], groups: Sequence[BarGroup], mark: float | None = None):
    """Return a page of bars, each with its name, interval and value; `mark` is a dotted line across all of them."""
    bars = [bar for group in groups for bar in group.bars]
    height = GROUP_TITLE_IN * sum(bool(group.title) for group in groups) + BAR_IN * len(bars) + BARS_FOOT_IN
    figure = new_page(title, notes, height)
    names = min(max(_name_width_in(bar) for bar in bars), MAX_BAR_NAME_IN)
    left = EDGE_IN + names + GAP_IN
    right = EDGE_IN + BAR_VALUE_IN + (BAR_RIGHT_IN if any(bar.right for bar in bars) else 0)
    axes = axes_at(figure, left, PAGE_HEAD_IN, WIDTH_IN - right - left, height)
    axes.axis("off")
    axes.set(xlim=(0, max(map(_end, bars)) or 1), ylim=(height, 0))
    y = 0.0
    for group in groups:
        y += GROUP_TITLE_IN if group.title else 0
        if group.title:
            write_pair(figure, EDGE_IN, PAGE_HEAD_IN + y - 0.13, FULL_IN, (group.title, group.note), 12, weight="bold")
        if mark is not None:
            axes.plot([mark] * 2, [y, y + BAR_IN * len(group.bars)], color=FAINT, linewidth=1, linestyle=(0, (1, 2)))
        for bar in group.bars:
            y += BAR_IN
            _draw_bar(figure, axes, bar, y - BAR_IN / 2, names)
    return figure


def _name_width_in(bar: Bar) -> float:
    return text_width_in(" ".join(f"{bar.name} {bar.note}".split()), 11) + GAP_IN


def _end(bar: Bar) -> float:
    return max(sum(length for length, _ in bar.parts), bar.interval[1] or 0)


def _draw_bar(figure, axes, bar: Bar, y: float, names: float) -> None:
    """Draw one bar; its interval is edged in white against it."""
    line, start = PAGE_HEAD_IN + y + 0.05, 0.0
    write_pair(figure, EDGE_IN, line, names, (bar.name, bar.note))
    write_text(figure, WIDTH_IN - EDGE_IN, line, bar.right, ha="right")
    for length, colour in bar.parts:
        axes.barh(y, length, left=start, height=BAR_IN * 0.7, color=colour, linewidth=0)
        start += length
    if None not in bar.interval:
        for colour, width in (("white", 3.0), (INK, 1.4)):
            axes.plot(bar.interval, [y, y], color=colour, linewidth=width, solid_capstyle="butt")
    beside = {"xytext": (6, 0), "textcoords": "offset points", "va": "center_baseline", "annotation_clip": False}
    clear = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}  # of the dotted line
    axes.annotate(bar.value, (_end(bar), y), size=11, weight="bold", color=INK, bbox=clear, **beside)


def order_rows(rows: list[dict]) -> list[dict]:
    """Sort rows: sets and models as they first appear, but in each set the base first, and padded before adaptive."""
    sets, models = (list(dict.fromkeys(row[key] for row in rows)) for key in ("set", "model"))
    models.sort(key=lambda model: model != BASE)
    return sorted(rows, key=lambda r: (sets.index(r["set"]), models.index(r["model"]), r["window"] != "padded"))


def wer_figure(rows: list[dict], path: Path) -> None:
    """Draw WER by set, model and window: bars with their intervals, ms a clip beside them.

    Raises:
        LenguaError: no rows.
    """
    if not rows:
        raise LenguaError("rows of results.json", "none", "evaluate a model first: lengua evaluate MODEL SOURCE")
    notes = (
        "Lower is better; the thin line is the 95 % interval. On the right: time a clip.",
        "padded: the model hears 30 s, mostly silence; adaptive: the speech and a short margin.",
    )
    groups = [
        BarGroup(name, [_row_bar(row) for row in some], _set_size(some[0]))
        for name, some in ((key, list(some)) for key, some in groupby(order_rows(rows), key=lambda row: row["set"]))
    ]
    write_png(bars_page("Word error rate before and after fine-tuning", notes, groups), path)


def _row_bar(row: dict) -> Bar:
    colour = GREY if row["model"] == BASE else BLUE if row["window"] == "adaptive" else SKY
    took = f"{row['ms_per_clip']:,.0f} ms" if row.get("ms_per_clip") is not None else ""
    interval = row.get("wer_low"), row.get("wer_high")
    return Bar(
        f"{row['model']}, {row['window']}", percent(row["wer"]), [(row["wer"], colour)], interval=interval, right=took
    )


def _set_size(row: dict) -> str:
    return ", ".join(f"{row[key]:,} {key}" for key in ("utterances", "words") if row.get(key))


MAX_GROUPS_SHOWN = 12
"""Groups of one kind that are drawn: a test set may have thousands of speakers."""


def groups_figure(groups: Sequence[dict], overall: float, path: Path, shown: int = MAX_GROUPS_SHOWN) -> None:
    """Draw groups of an analysis ({"key", "group", "wer", "wer_low", "wer_high", "clips", "small", ...}), kind by kind.

    Of a kind with many, the first are drawn, which are those with most clips.

    Raises:
        LenguaError: there are none.
    """
    if not groups:
        raise LenguaError("groups of an evaluation", "none", "evaluate a model first: lengua evaluate MODEL SOURCE")
    notes = (
        "The line is the 95 % interval. Pale: too few people or words to be more than a hint.",
        "The dotted line is the WER of all clips together.",
    )
    kinds = [(key, list(some)) for key, some in groupby(groups, key=lambda group: group["key"])]
    drawn = [
        BarGroup(
            f"by {key.replace('_', ' ')}" + (f": {shown} of {len(some):,}" if len(some) > shown else ""),
            [_group_bar(group) for group in some[:shown]],
        )
        for key, some in kinds
    ]
    write_png(bars_page("Who is understood how well", notes, drawn, overall), path)


def _group_bar(group: dict) -> Bar:
    """Grey for what nobody stated, pale for what is small."""
    colour = GREY if group["group"] == "unknown" else SKY if group["small"] else BLUE
    name, size = truncate_to_width(str(group["group"]), MAX_BAR_NAME_IN - 1.2, 11), counted(group["clips"], "clip")
    return Bar(name, percent(group["wer"]), [(group["wer"], colour)], size, (group["wer_low"], group["wer_high"]))


ERROR_COLOURS = {"substitutions": SKY, "deletions": GREY, "insertions": VERMILION}


def failures_figure(failures: Mapping[str, dict], path: Path) -> None:
    """Draw failures {name: {"title", "wer", "loss", "words", "substitutions", ...}}, one bar each."""
    bars = [
        Bar(
            one["title"],
            percent(one["wer"]),
            [(one[kind] / max(1, one["words"]), colour) for kind, colour in ERROR_COLOURS.items()],
            right=f"{one['loss']:.2f}",
        )
        for one in failures.values()
    ]
    note = "The dotted line is a WER of 100 %. On the right: loss a token."
    figure = bars_page("One thing broken at a time", (note,), [BarGroup("", bars)], 1.0)
    for place, (kind, colour) in enumerate(ERROR_COLOURS.items()):
        write_text(figure, EDGE_IN + 1.5 * place, 0.7 + NOTE_LINE_IN, "■", color=colour)
        write_text(figure, EDGE_IN + 0.2 + 1.5 * place, 0.7 + NOTE_LINE_IN, kind, color=FAINT)
    write_png(figure, path)


# Curves


class CurvePoint(NamedTuple):
    """One value of a curve; the interval is that of a dev WER, where somebody wrote it down."""

    step: int
    seconds: float
    value: float
    low: float | None = None
    high: float | None = None


class CurveRow(NamedTuple):
    """What two panels beside each other show."""

    title: str
    curves: dict[str, list[CurvePoint]]
    labels: dict[str, str]
    """What the legend says of each."""
    top: float
    """The largest value that is shown."""
    marked: bool
    """Whether points are marked, and the lowest one most."""


PANEL_TITLE_IN, MIN_PANEL_IN, PANEL_FOOT_IN = 0.35, 2.3, 0.6  # heights: over a panel, of it at least, below it
PANELS_LEFT_IN, PANELS_GAP_IN = 0.65, 0.25  # widths: left of the panels, between the two
LEGEND_LINE_IN, LEGEND_KEY_IN, MAX_LEGEND_TEXT_IN = 0.24, 0.6, 2.2
CURVE_STYLES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
SMOOTHING_DIVISOR = 8
"""Loss is shown as the mean over one part in so many of a run."""
TIME_UNITS = ((7200, 3600, "hours"), (120, 60, "minutes"), (0, 1, "seconds"))
"""From so many seconds on, time is given in units of so many, of this name."""
CURVE_NOTES = (
    "Over optimiser steps on the left, over time on the right, evaluations included. Lower is better.",
    "The large dot is a run's best on dev, the checkpoint that is kept. Loss is a running mean.",
)


def draw_curves(histories: dict[str, list[dict]], path: Path) -> bool:
    """Draw dev WER and loss of runs by their names. Returns whether there was anything to draw.

    Args:
        histories: records of history.jsonl, with "step", "seconds" and "loss" or "dev_wer".
    """
    rows = [row for row in (wer_row(histories), loss_row(histories)) if row]
    if rows:
        write_png(_curves_page(rows, list(histories)), path)
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


def loss_row(histories: dict[str, list[dict]], smooth: bool = True) -> CurveRow | None:
    """Return training loss, as a running mean if not as it is."""
    curves = _curves(histories, "loss")
    if smooth:
        curves = {name: smooth_curve(points) for name, points in curves.items()}
    if not curves:
        return None
    highest = max(point.value for points in curves.values() for point in points)
    return CurveRow("Training loss", curves, {name: name for name in curves}, highest or 1, False)


def smooth_curve(points: list[CurvePoint]) -> list[CurvePoint]:
    """Return the running mean, over fewer values at both ends."""
    reach, values = len(points) // SMOOTHING_DIVISOR // 2, [point.value for point in points]
    near = [values[max(0, k - reach) : k + reach + 1] for k in range(len(values))]
    return [point._replace(value=sum(some) / len(some)) for point, some in zip(points, near, strict=True)]


def _curves(histories: dict[str, list[dict]], key: str, scale: float = 1) -> dict[str, list[CurvePoint]]:
    """Return the points of each run that has any; a loss that is no number has none."""
    curves = {
        name: [_point(record, key, scale) for record in history if _is_number(record.get(key))]
        for name, history in histories.items()
    }
    return {name: points for name, points in curves.items() if points}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _point(record: dict, key: str, scale: float) -> CurvePoint:
    low, high = (None if (end := record.get(f"{key}_{side}")) is None else scale * end for side in ("low", "high"))
    return CurvePoint(record["step"], record.get("seconds", 0), scale * record[key], low, high)


def _curves_page(rows: list[CurveRow], names: list[str]):
    """Return the figure: two panels for each row, and right of them the legend, in the order in which lines end."""
    tall = max(MIN_PANEL_IN, LEGEND_LINE_IN * len(names))
    each = PANEL_TITLE_IN + tall + PANEL_FOOT_IN
    figure = new_page("Runs side by side", CURVE_NOTES, len(rows) * each)
    styles = dict(zip(names, cycle(product(CURVE_STYLES, PALETTE)), strict=False))
    longest = max(point.seconds for row in rows for points in row.curves.values() for point in points)
    _, divisor, unit = next(unit for unit in TIME_UNITS if longest >= unit[0])
    labels = [label for row in rows for label in row.labels.values()]
    legend = LEGEND_KEY_IN + min(max(text_width_in(label, 10) for label in labels), MAX_LEGEND_TEXT_IN)
    wide = (WIDTH_IN - PANELS_LEFT_IN - PANELS_GAP_IN - legend - EDGE_IN - GAP_IN) / 2
    for place, row in enumerate(rows):
        top = PAGE_HEAD_IN + PANEL_TITLE_IN + place * each
        write_text(figure, EDGE_IN, top - 0.12, row.title, size=12, weight="bold")
        left = axes_at(figure, PANELS_LEFT_IN, top, wide, tall)
        right = axes_at(figure, PANELS_LEFT_IN + wide + PANELS_GAP_IN, top, wide, tall)
        _draw_panel(left, row, styles, 0, 1, "optimiser step")
        _draw_panel(right, row, styles, 1, divisor, unit)
        right.tick_params(labelleft=False)
        _add_legend(right, row)
    return figure


def _draw_panel(axes, row: CurveRow, styles: dict, column: int, divisor: float, x_name: str) -> None:
    """Draw every curve of a row over steps (column 0) or over time (column 1); the best with its interval."""
    for name, points in row.curves.items():
        style, colour = styles[name]
        x, values = [point[column] / divisor for point in points], [point.value for point in points]
        marker = "o" if row.marked or len(points) == 1 else None
        axes.plot(x, values, color=colour, linestyle=style, linewidth=1.6, marker=marker, markersize=3.5, label=name)
        if row.marked:
            best = values.index(min(values))
            axes.plot(x[best], values[best], "o", markersize=7, color=colour, clip_on=False)
            if None not in (interval := points[best][3:]):
                axes.plot([x[best]] * 2, interval, color=colour, linewidth=1)
    axes.set(xlim=(0, None), ylim=(0, 1.08 * row.top))
    axes.grid(axis="y", color="#ececec", linewidth=0.8)
    axes.set_axisbelow(True)
    clean_axes(axes, x_name)


def _add_legend(axes, row: CurveRow) -> None:
    lines = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    order = sorted(row.curves, key=lambda name: -row.curves[name][-1].value)
    labels = [truncate_to_width(row.labels[name], MAX_LEGEND_TEXT_IN, 10) for name in order]
    legend = axes.legend(
        [lines[name] for name in order],
        labels,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        frameon=False,
        labelcolor=INK,
        handlelength=1.6,
    )
    for text in legend.get_texts():
        text.set(parse_math=False, size=10)


def history_figure(history: list[dict], path: Path) -> None:
    """Draw training loss and dev WER over optimiser steps; of dev WER, the first and the best are labelled.

    Raises:
        LenguaError: neither loss nor dev WER in any record.
    """
    both = ((loss_row({"": history}, smooth=False), BLUE), (wer_row({"": history}), VERMILION))
    rows = [(row, colour) for row, colour in both if row]
    if not rows:
        raise LenguaError("loss or dev_wer in the history", f"{len(history)} records without", "draw it after a step")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, 3.6), dpi=DPI, facecolor="white")
    for axes, (row, colour) in zip(figure.subplots(1, len(rows), squeeze=False)[0], rows, strict=True):
        _draw_panel(axes, row, {"": ("-", colour)}, 0, 1, "optimiser step")
        axes.set_title(row.title.partition(" (")[0], loc="left", weight="bold", color=INK)
        if row.marked:
            points, above = row.curves[""], {"xytext": (0, 8), "textcoords": "offset points", "ha": "center"}
            last, highest = points[-1].step or 1, max(point.value for point in points) or 1
            axes.set(xlim=(-0.1 * last, 1.1 * last), ylim=(0, 1.15 * highest))
            for point in {points[0], min(points, key=lambda point: point.value)}:
                at = point.step, point.value
                axes.annotate(percent(point.value / 100), at, weight="bold", color=INK, **above)
    figure.tight_layout(w_pad=3)
    write_png(figure, path)
