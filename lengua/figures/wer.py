"""Figures of a report, drawn from rows of results.json and records of history.jsonl: PNGs for a README or a card."""

from pathlib import Path

from lengua.errors import LenguaError
from lengua.figures.canvas import BLUE, EDGE_IN, FAINT, GREY, INK, SKY, VERMILION, WIDTH_IN, new_figure, write_png
from lengua.scoring import percent

BASE = "base"  # what `model` says in rows of the untouched model

TITLE_IN, SET_IN, BAR_IN, FOOT_IN = 0.95, 0.5, 0.34, 0.15  # heights
LETTER_IN, TIMES_IN = 0.087, 1.3  # widths: a letter of a label, the column of times
NOTES = (
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
    rows = ordered(rows)
    figure, axes = _wer_canvas(rows)
    y, drawn = 0.0, None
    for row in rows:
        if row["set"] != drawn:
            y, drawn = y + SET_IN, row["set"]
            _draw_set(axes, row, y - 0.11)
        y += BAR_IN
        _draw_bar(axes, row, y - BAR_IN / 2)
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


def ordered(rows: list[dict]) -> list[dict]:
    """Sort rows: sets and models as they first appear, but in each set the base first, and padded before adaptive."""
    sets, models = (list(dict.fromkeys(row[key] for row in rows)) for key in ("set", "model"))
    models.sort(key=lambda model: model != BASE)
    return sorted(rows, key=lambda r: (sets.index(r["set"]), models.index(r["model"]), r["window"] != "padded"))


def _wer_canvas(rows: list[dict]):
    """Return figure and axes; y counts inches downwards, so that bars are as thick for one set as for twenty."""
    height = len(rows) * BAR_IN + len({row["set"] for row in rows}) * SET_IN + FOOT_IN
    left = EDGE_IN + min(LETTER_IN * max(len(_label(row)) for row in rows), WIDTH_IN / 2)
    figure, top = new_figure(height + TITLE_IN), height + TITLE_IN
    axes = figure.add_axes((left / WIDTH_IN, 0, (WIDTH_IN - TIMES_IN - left) / WIDTH_IN, height / top))
    axes.set_ylim(height, 0)
    axes.set_xlim(0, 1.15 * max(max(row.get("wer_high") or 0, row["wer"]) for row in rows) or 1)
    axes.axis("off")
    _write_title(figure, top)
    return figure, axes


def _write_title(figure, top: float) -> None:
    """Write the title and two notes at the top of a figure `top` inches high."""
    edge, lines = EDGE_IN / WIDTH_IN, [1 - y / top for y in (0.36, 0.64, 0.86)]
    figure.text(edge, lines[0], "Word error rate before and after fine-tuning", size=15, weight="bold", color=INK)
    for line, note in zip(lines[1:], NOTES, strict=True):
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
    axes.barh(y, row["wer"], height=BAR_IN * 0.72, color=_colour(row), linewidth=0)
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


def _colour(row: dict) -> str:
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
