"""Figures of an evaluation as PNG: WER by set, training history, WER by group, failure modes.

    wer_figure(results["rows"], Path("wer.png"))

Data are rows of results.json and records of history.jsonl. The helpers of layout come first: a page places its title,
notes, axes and text in inches from the left and the top. Texts from data are cut to their room, and a dollar in them is
no formula. matplotlib is imported when something is drawn, and without pyplot, whose state a notebook or thread shares.
"""

import io
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from lengua.runtime.errors import LenguaError
from lengua.runtime.files import write_bytes
from lengua.scoring import percent

# Okabe & Ito's palette, safe for colour-blind readers, and a grey for what was there before.
GREY, SKY, BLUE, VERMILION = "#9a9a9a", "#56b4e9", "#0072b2", "#d55e00"
INK, FAINT = "#222222", "#6b6b6b"
WIDTH_IN, DPI = 9.0, 200  # 1800 px, shown at 900 in a README: sharp on any screen
EDGE_IN = 0.18


def new_figure(height_in: float):
    """Return an empty white figure, 1800 px wide, that no window and no pyplot knows of."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, facecolor="white")


def write_png(figure, path: Path) -> None:
    """Write the PNG whole or not at all; without a date or version in it, equal data give equal bytes."""
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    write_bytes(Path(path), png.getvalue())


PAGE_HEAD_IN, NOTE_LINE_IN, NAMED_BAR_IN = (
    1.1,
    0.24,
    0.42,
)  # heights: title and notes, a line of text, a bar under its name
FULL_IN, HALF_IN = WIDTH_IN - 2 * EDGE_IN, (WIDTH_IN - 2 * EDGE_IN - 0.5) / 2  # widths: of all, of one column of two
RIGHT_COLUMN_IN = WIDTH_IN - EDGE_IN - HALF_IN  # where the right column begins
AXIS_NUMBERS_IN = 0.95  # what an axis and its numbers take
COLUMN_GAP_IN = 0.15
MIN_BAR_SHARE = 0.002
"""Share of the width that a bar has at least, so that one clip of a million is seen."""


class Bar(NamedTuple):
    """A bar under a line of text: its name, a note beside that, and at the line's end a value."""

    name: str
    note: str
    value: str
    share: float
    colour: str


def new_page(title: str, notes: Sequence[str], height_in: float):
    """Return a figure with a title, two notes at most, and so much space below them."""
    figure = new_figure(PAGE_HEAD_IN + height_in)
    write_text(figure, EDGE_IN, 0.4, title, size=15, weight="bold")
    for place, note in enumerate(notes):
        write_text(
            figure, EDGE_IN, 0.7 + NOTE_LINE_IN * place, truncate_to_width(note, FULL_IN, 11), size=11, color=FAINT
        )
    return figure


def axes_at(figure, x: float, top: float, wide: float, tall: float):
    """Add axes at inches from the left and the top of a figure."""
    height = figure.get_figheight()
    return figure.add_axes((x / WIDTH_IN, 1 - (top + tall) / height, wide / WIDTH_IN, tall / height))


def plot_at(figure, top: float, tall: float, x_name: str, y_name: str):
    """Add axes as wide as the page, with named sides and room for the numbers on the left."""
    axes = axes_at(figure, AXIS_NUMBERS_IN, top, WIDTH_IN - AXIS_NUMBERS_IN - EDGE_IN, tall)
    axes.set_xlabel(x_name, color=FAINT)
    axes.set_ylabel(y_name, color=FAINT)
    axes.yaxis.set_label_coords((EDGE_IN + 0.1 - AXIS_NUMBERS_IN) / (WIDTH_IN - AXIS_NUMBERS_IN - EDGE_IN), 0.5)
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=FAINT)
    return axes


def write_text(figure, x: float, y: float, text: str, **look) -> None:
    """Write a line at inches from the left and the top."""
    look = {"color": INK, **look}
    figure.text(x / WIDTH_IN, 1 - y / figure.get_figheight(), text, parse_math=False, **look)


def write_pair(figure, x: float, y: float, wide: float, pair: tuple[str, str], size: float) -> None:
    """Write a name and, fainter, what stands beside it; both are cut so as to fit into so many inches."""
    name = truncate_to_width(pair[0], wide, size)
    write_text(figure, x, y, name, size=size)
    taken = text_width_in(name, size) + COLUMN_GAP_IN
    if pair[1] and wide - taken > 0.5:
        write_text(figure, x + taken, y, truncate_to_width(pair[1], wide - taken, size), size=size, color=FAINT)


def draw_bars(figure, bars: list[Bar], x: float, top: float, wide: float) -> None:
    """Draw bars one below another, in a column that is `wide` inches."""
    axes = axes_at(figure, x, top, wide, len(bars) * NAMED_BAR_IN)
    axes.axis("off")
    axes.set(xlim=(0, 1), ylim=(len(bars), 0))
    for place, bar in enumerate(bars):
        line = top + (place + 0.58) * NAMED_BAR_IN
        write_text(figure, x + wide, line, bar.value, size=11, ha="right")
        write_pair(figure, x, line, wide - text_width_in(bar.value, 11) - COLUMN_GAP_IN, (bar.name, bar.note), 11)
        axes.barh(place + 0.84, max(bar.share, MIN_BAR_SHARE), height=0.22, color=bar.colour, linewidth=0)


def text_width_in(text: str, size: float) -> float:
    """Return how many inches a line takes."""
    from matplotlib.font_manager import FontProperties

    return _text_measurer().get_text_width_height_descent(text, FontProperties(size=size), False)[0] / DPI


@lru_cache(maxsize=1)
def _text_measurer():
    from matplotlib.backends.backend_agg import RendererAgg

    return RendererAgg(1, 1, DPI)


def truncate_to_width(text: str, wide: float, size: float) -> str:
    """Return as much of a text as fits into so many inches, on one line."""
    text = " ".join(text.split())
    if text_width_in(text, size) <= wide:
        return text
    fits = bisect_right(range(1, len(text)), wide, key=lambda letters: text_width_in(text[:letters] + "…", size))
    return text[:fits].rstrip() + "…"


BASE = "base"  # what `model` says in rows of the untouched model

WER_TITLE_IN, WER_SET_IN, WER_BAR_IN, WER_FOOT_IN = 0.95, 0.5, 0.34, 0.15  # heights
WER_LETTER_IN, WER_TIMES_IN = 0.087, 1.3  # widths: a letter of a label, the column of times
WER_NOTES = (
    "Lower is better; the thin line is the 95 % interval.",
    "padded: the model hears 30 s, mostly silence; adaptive: the speech and a short margin.",
)


def wer_figure(rows: list[dict], path: Path) -> None:
    """Draw WER by set, model and window: bars, intervals as lines through their ends, ms a clip beside them.

    Raises:
        LenguaError: no rows.
    """
    if not rows:
        raise LenguaError("rows of results.json", "none", "evaluate a model first: lengua evaluate MODEL SOURCE")
    rows = order_rows(rows)
    figure, axes = _wer_canvas(rows)
    y, drawn = 0.0, None
    for row in rows:
        if row["set"] != drawn:
            y, drawn = y + WER_SET_IN, row["set"]
            _draw_set(axes, row, y - 0.11)
        y += WER_BAR_IN
        _draw_bar(axes, row, y - WER_BAR_IN / 2)
    write_png(figure, path)


def history_figure(history: list[dict], path: Path) -> None:
    """Draw training loss and dev WER over optimiser steps, from records with "step" and "loss" or "dev_wer".

    Raises:
        LenguaError: neither loss nor dev WER in any record.
    """
    loss, dev_wer = _curve(history, "loss"), _curve(history, "dev_wer")
    panels = [(draw, points) for draw, points in ((_draw_loss, loss), (_draw_dev_wer, dev_wer)) if points]
    if not panels:
        raise LenguaError("loss or dev_wer in the history", f"{len(history)} records without", "draw it after a step")
    figure = new_figure(3.6)
    for axes, (draw, points) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw(axes, *zip(*points, strict=True))
        axes.set_xlabel("optimiser step", color=FAINT)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=FAINT)
    figure.tight_layout(w_pad=3)
    write_png(figure, path)


def order_rows(rows: list[dict]) -> list[dict]:
    """Sort rows: sets and models as they first appear, but in each set the base first, and padded before adaptive."""
    sets, models = (list(dict.fromkeys(row[key] for row in rows)) for key in ("set", "model"))
    models.sort(key=lambda model: model != BASE)
    return sorted(rows, key=lambda r: (sets.index(r["set"]), models.index(r["model"]), r["window"] != "padded"))


def _wer_canvas(rows: list[dict]):
    """Return figure and axes; y counts inches downwards, so that bars are as thick for one set as for twenty."""
    height = len(rows) * WER_BAR_IN + len({row["set"] for row in rows}) * WER_SET_IN + WER_FOOT_IN
    left = EDGE_IN + min(WER_LETTER_IN * max(len(_label(row)) for row in rows), WIDTH_IN / 2)
    figure, top = new_figure(height + WER_TITLE_IN), height + WER_TITLE_IN
    axes = figure.add_axes((left / WIDTH_IN, 0, (WIDTH_IN - WER_TIMES_IN - left) / WIDTH_IN, height / top))
    axes.set_ylim(height, 0)
    axes.set_xlim(0, 1.15 * max(max(row.get("wer_high") or 0, row["wer"]) for row in rows) or 1)
    axes.axis("off")
    _write_title(figure, top)
    return figure, axes


def _write_title(figure, top: float) -> None:
    """Write the title and two notes at the top of a figure `top` inches high."""
    edge, lines = EDGE_IN / WIDTH_IN, [1 - y / top for y in (0.36, 0.64, 0.86)]
    figure.text(edge, lines[0], "Word error rate before and after fine-tuning", size=15, weight="bold", color=INK)
    for line, note in zip(lines[1:], WER_NOTES, strict=True):
        figure.text(edge, line, note, size=11, color=FAINT)
    figure.text(1 - edge, lines[2], "time a clip", size=11, color=FAINT, ha="right")


def _label(row: dict) -> str:
    return f"{row['model']}, {row['window']}"


def _across(axes, x: float) -> float:
    """Turn inches from the left edge of the figure into a share of the axes' width."""
    box = axes.get_position()
    return (x / WIDTH_IN - box.x0) / box.width


def _draw_set(axes, row: dict, y: float) -> None:
    """Write the name of the set, and how much speech it is, over its bars."""
    place = {"transform": axes.get_yaxis_transform(), "va": "baseline"}
    size = [f"{row[key]:,} {key}" for key in ("utterances", "words") if row.get(key)]
    name = axes.text(_across(axes, EDGE_IN), y, row["set"], size=12, weight="bold", color=INK, **place)
    beside = {"xycoords": name, "xy": (1, 0), "xytext": (8, 0), "textcoords": "offset points"}
    axes.annotate(", ".join(size), size=11, color=FAINT, va="bottom", **beside)


def _draw_bar(axes, row: dict, y: float) -> None:
    """Draw one row: its name, bar, WER and ms a clip."""
    place = {"transform": axes.get_yaxis_transform(), "va": "center_baseline", "color": INK, "size": 11}
    axes.text(_across(axes, EDGE_IN), y, _label(row), **place)
    axes.barh(y, row["wer"], height=WER_BAR_IN * 0.72, color=_wer_bar_colour(row), linewidth=0)
    beside = {"xy": (_draw_interval(axes, row, y), y), "xytext": (6, 0), "textcoords": "offset points"}
    axes.annotate(percent(row["wer"]), size=12, weight="bold", color=INK, va="center_baseline", **beside)
    if row.get("ms_per_clip") is not None:
        axes.text(_across(axes, WIDTH_IN - EDGE_IN), y, f"{row['ms_per_clip']:,.0f} ms", ha="right", **place)


def _draw_interval(axes, row: dict, y: float) -> float:
    """Draw the interval, if there is one, edged in white against the bar; return where bar and interval end."""
    if row.get("wer_low") is None or row.get("wer_high") is None:
        return row["wer"]
    for colour, width in (("white", 3.0), (INK, 1.4)):
        axes.plot([row["wer_low"], row["wer_high"]], [y, y], color=colour, linewidth=width, solid_capstyle="butt")
    return max(row["wer"], row["wer_high"])


def _wer_bar_colour(row: dict) -> str:
    if row["model"] == BASE:
        return GREY
    return BLUE if row["window"] == "adaptive" else SKY


def _curve(history: list[dict], key: str) -> list[tuple[int, float]]:
    return sorted((record["step"], record[key]) for record in history if record.get(key) is not None)


def _draw_loss(axes, steps: list[int], losses: list[float]) -> None:
    axes.plot(steps, losses, color=BLUE, linewidth=1.6, marker="o" if len(steps) == 1 else None)
    axes.set_title("Training loss", loc="left", weight="bold", color=INK)
    axes.set_ylim(bottom=0)


def _draw_dev_wer(axes, steps: list[int], rates: list[float]) -> None:
    """Draw dev WER in per cent; the first and the best are labelled, for the best is the checkpoint kept."""
    axes.plot(steps, [100 * rate for rate in rates], color=VERMILION, linewidth=1.6, marker="o")
    for k in {0, rates.index(min(rates))}:
        above = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center"}
        axes.annotate(percent(rates[k]), (steps[k], 100 * rates[k]), weight="bold", color=INK, **above)
    axes.set_title("Word error rate on dev, %", loc="left", weight="bold", color=INK)
    axes.set_ylim(0, 115 * max(rates) or 1)
    axes.margins(x=0.1)


GROUP_KIND_IN, GROUP_BAR_IN, GROUP_FOOT_IN = 0.5, 0.34, 0.15  # heights
GROUP_NAME_IN, GROUP_VALUE_IN = 3.4, 0.9  # widths
GROUP_NOTES = (
    "The line is the 95 % interval. Pale: too few people or words to be more than a hint.",
    "The dotted line is the WER of all clips together.",
)


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
    kinds = [(key, list(some)) for key, some in groupby(groups, key=lambda group: group["key"])]
    drawn = [group for _, some in kinds for group in some[:shown]]
    height = GROUP_KIND_IN * len(kinds) + GROUP_BAR_IN * len(drawn) + GROUP_FOOT_IN
    figure = new_page("Who is understood how well", GROUP_NOTES, height)
    left = EDGE_IN + GROUP_NAME_IN
    axes = axes_at(figure, left, PAGE_HEAD_IN, WIDTH_IN - EDGE_IN - GROUP_VALUE_IN - left, height)
    axes.axis("off")
    most = max(max(group["wer_high"] or 0, group["wer"]) for group in drawn) or 1
    axes.set(xlim=(0, 1.05 * most), ylim=(height, 0))
    y = 0.0
    for key, some in kinds:
        y += GROUP_KIND_IN
        rest = f": {shown} of {len(some):,}" if len(some) > shown else ""
        write_text(
            figure, EDGE_IN, PAGE_HEAD_IN + y - 0.13, f"by {key.replace('_', ' ')}{rest}", size=12, weight="bold"
        )
        end = y + GROUP_BAR_IN * len(some[:shown])
        axes.plot([overall, overall], [y, end], color=FAINT, linewidth=1, linestyle=(0, (1, 2)))
        for group in some[:shown]:
            y += GROUP_BAR_IN
            _draw_group(figure, axes, group, y - GROUP_BAR_IN / 2)
    write_png(figure, path)


def _draw_group(figure, axes, group: dict, y: float) -> None:
    """Draw one bar: name and size before it, WER at the end of the line."""
    line = PAGE_HEAD_IN + y + 0.05
    name = truncate_to_width(str(group["group"]), GROUP_NAME_IN - 1.2, 11)
    write_pair(figure, EDGE_IN, line, GROUP_NAME_IN - 0.1, (name, _group_size(group)), 11)
    write_text(figure, WIDTH_IN - EDGE_IN, line, percent(group["wer"]), size=11, ha="right", weight="bold")
    axes.barh(y, group["wer"], height=GROUP_BAR_IN * 0.66, color=_group_bar_colour(group), linewidth=0)
    if group["wer_low"] is not None:
        for colour, width in (("white", 3.0), (INK, 1.4)):
            axes.plot([group["wer_low"], group["wer_high"]], [y, y], color=colour, linewidth=width)


def _group_size(group: dict) -> str:
    return f"{group['clips']:,} clip{'s' * (group['clips'] != 1)}"


def _group_bar_colour(group: dict) -> str:
    """Grey for what nobody told, pale for what is small."""
    if group["group"] == "unknown":
        return GREY
    return SKY if group["small"] else BLUE


ERROR_COLOURS = {"substitutions": SKY, "deletions": GREY, "insertions": VERMILION}
FAILURE_ROW_IN, FAILURE_HEAD_IN, FAILURE_FOOT_IN = 0.42, 0.95, 0.45
FAILURE_TEXT_PT = 10


def failures_figure(failures: Mapping[str, dict], path: Path) -> None:
    """Draw failures {name: {"title", "wer", "loss", "words", "substitutions", ...}}, one bar each."""
    height = FAILURE_HEAD_IN + FAILURE_ROW_IN * len(failures) + FAILURE_FOOT_IN
    figure = new_figure(height)
    axes = figure.add_axes((0.33, FAILURE_FOOT_IN / height, 0.5, FAILURE_ROW_IN * len(failures) / height))
    for place, failure in enumerate(failures.values()):
        _draw_failure(axes, place, failure)
    axes.set_ylim(len(failures) - 0.5, -0.5)
    axes.axvline(1, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_xlim(0, 1.12 * max(failure["wer"] for failure in failures.values()))
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.tick_params(left=False, labelleft=False, colors=FAINT, labelsize=FAILURE_TEXT_PT - 1)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    top = 1 - 0.36 / height
    figure.text(
        0.02, top, "One thing broken at a time", color=INK, size=FAILURE_TEXT_PT + 5, weight="bold", va="center"
    )
    figure.text(
        0.97, top - 0.42 / height, "loss a token", color=FAINT, size=FAILURE_TEXT_PT - 1, ha="right", va="center"
    )
    _draw_legend(figure, 0.33, top - 0.42 / height)
    write_png(figure, path)


def _draw_failure(axes, place: int, failure: dict) -> None:
    """Draw one bar, its name before it, WER behind it and loss at the edge."""
    start = 0.0
    for kind, colour in ERROR_COLOURS.items():
        share = failure[kind] / max(1, failure["words"])
        axes.barh(place, share, left=start, height=0.56, color=colour)
        start += share
    clear = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}  # of the line at 100 %
    axes.annotate(
        percent(failure["wer"]),
        (start, place),
        (5, 0),
        textcoords="offset points",
        va="center",
        size=FAILURE_TEXT_PT,
        bbox=clear,
    )
    at = {
        "xycoords": axes.get_yaxis_transform(),
        "textcoords": "offset points",
        "va": "center",
        "size": FAILURE_TEXT_PT,
    }
    axes.annotate(failure["title"], (0, place), (-8, 0), ha="right", color=INK, **at)
    axes.annotate(f"{failure['loss']:.2f}", (1.28, place), (0, 0), ha="right", color=INK, **at)


def _draw_legend(figure, left: float, height: float) -> None:
    """Name the colours."""
    for place, (kind, colour) in enumerate(ERROR_COLOURS.items()):
        figure.text(left + 0.145 * place, height, "■", color=colour, size=FAILURE_TEXT_PT + 2, va="center")
        figure.text(left + 0.02 + 0.145 * place, height, kind, color=FAINT, size=FAILURE_TEXT_PT - 1, va="center")
