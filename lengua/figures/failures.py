"""The figure of the failures: errors of each by kind, and the loss that hides them."""

from collections.abc import Mapping
from pathlib import Path

from lengua.figures.canvas import FAINT, GREY, INK, SKY, VERMILION, new_figure, write_png
from lengua.scoring import percent

KINDS = {"substitutions": SKY, "deletions": GREY, "insertions": VERMILION}
ROW_IN, HEAD_IN, FOOT_IN = 0.42, 0.95, 0.45
TEXT = 10


def failures_figure(failures: Mapping[str, dict], path: Path) -> None:
    """Draw failures {name: {"title", "wer", "loss", "words", "substitutions", ...}}, one bar each."""
    height = HEAD_IN + ROW_IN * len(failures) + FOOT_IN
    figure = new_figure(height)
    axes = figure.add_axes((0.33, FOOT_IN / height, 0.5, ROW_IN * len(failures) / height))
    for place, failure in enumerate(failures.values()):
        _draw_failure(axes, place, failure)
    axes.set_ylim(len(failures) - 0.5, -0.5)
    axes.axvline(1, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_xlim(0, 1.12 * max(failure["wer"] for failure in failures.values()))
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.tick_params(left=False, labelleft=False, colors=FAINT, labelsize=TEXT - 1)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    top = 1 - 0.36 / height
    figure.text(0.02, top, "One thing broken at a time", color=INK, size=TEXT + 5, weight="bold", va="center")
    figure.text(0.97, top - 0.42 / height, "loss a token", color=FAINT, size=TEXT - 1, ha="right", va="center")
    _draw_legend(figure, 0.33, top - 0.42 / height)
    write_png(figure, path)


def _draw_failure(axes, place: int, failure: dict) -> None:
    """Draw one bar, its name before it, WER behind it and loss at the edge."""
    start = 0.0
    for kind, colour in KINDS.items():
        share = failure[kind] / max(1, failure["words"])
        axes.barh(place, share, left=start, height=0.56, color=colour)
        start += share
    clear = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}  # of the line at 100 %
    axes.annotate(
        percent(failure["wer"]), (start, place), (5, 0), textcoords="offset points", va="center", size=TEXT, bbox=clear
    )
    at = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "va": "center", "size": TEXT}
    axes.annotate(failure["title"], (0, place), (-8, 0), ha="right", color=INK, **at)
    axes.annotate(f"{failure['loss']:.2f}", (1.28, place), (0, 0), ha="right", color=INK, **at)


def _draw_legend(figure, left: float, height: float) -> None:
    """Name the colours."""
    for place, (kind, colour) in enumerate(KINDS.items()):
        figure.text(left + 0.145 * place, height, "■", color=colour, size=TEXT + 2, va="center")
        figure.text(left + 0.02 + 0.145 * place, height, kind, color=FAINT, size=TEXT - 1, va="center")
