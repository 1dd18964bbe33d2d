"""The figure of the groups: WER of accents, ages, voices and lengths, each with its interval and its size."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from lengua.errors import LenguaError
from lengua.figures.canvas import BLUE, EDGE_IN, FAINT, GREY, INK, SKY, WIDTH_IN, write_png
from lengua.figures.pages import HEAD_IN, axes_at, cut, page, write, write_pair
from lengua.scoring import percent

KIND_IN, BAR_IN, FOOT_IN = 0.5, 0.34, 0.15  # heights
NAME_IN, VALUE_IN = 3.4, 0.9  # widths
NOTES = (
    "The line is the 95 % interval. Pale: too few people or words to be more than a hint.",
    "The dotted line is the WER of all clips together.",
)


SHOWN = 12
"""Groups of one kind that are drawn: a test set may have thousands of speakers."""


def groups_figure(groups: Sequence[dict], overall: float, path: Path, shown: int = SHOWN) -> None:
    """Draw groups of an analysis ({"key", "group", "wer", "wer_low", "wer_high", "clips", "small", ...}), kind by kind.

    Of a kind with many, the first are drawn, which are those with most clips.

    Raises:
        LenguaError: there are none.
    """
    if not groups:
        raise LenguaError("groups of an evaluation", "none", "evaluate a model first: lengua evaluate MODEL SOURCE")
    kinds = [(key, list(some)) for key, some in groupby(groups, key=lambda group: group["key"])]
    drawn = [group for _, some in kinds for group in some[:shown]]
    height = KIND_IN * len(kinds) + BAR_IN * len(drawn) + FOOT_IN
    figure = page("Who is understood how well", NOTES, height)
    left = EDGE_IN + NAME_IN
    axes = axes_at(figure, left, HEAD_IN, WIDTH_IN - EDGE_IN - VALUE_IN - left, height)
    axes.axis("off")
    most = max(max(group["wer_high"] or 0, group["wer"]) for group in drawn) or 1
    axes.set(xlim=(0, 1.05 * most), ylim=(height, 0))
    y = 0.0
    for key, some in kinds:
        y += KIND_IN
        rest = f": {shown} of {len(some):,}" if len(some) > shown else ""
        write(figure, EDGE_IN, HEAD_IN + y - 0.13, f"by {key.replace('_', ' ')}{rest}", size=12, weight="bold")
        end = y + BAR_IN * len(some[:shown])
        axes.plot([overall, overall], [y, end], color=FAINT, linewidth=1, linestyle=(0, (1, 2)))
        for group in some[:shown]:
            y += BAR_IN
            _draw_group(figure, axes, group, y - BAR_IN / 2)
    write_png(figure, path)


def _draw_group(figure, axes, group: dict, y: float) -> None:
    """Draw one bar: name and size before it, WER at the end of the line."""
    line = HEAD_IN + y + 0.05
    name = cut(str(group["group"]), NAME_IN - 1.2, 11)
    write_pair(figure, EDGE_IN, line, NAME_IN - 0.1, (name, _size(group)), 11)
    write(figure, WIDTH_IN - EDGE_IN, line, percent(group["wer"]), size=11, ha="right", weight="bold")
    axes.barh(y, group["wer"], height=BAR_IN * 0.66, color=_colour(group), linewidth=0)
    if group["wer_low"] is not None:
        for colour, width in (("white", 3.0), (INK, 1.4)):
            axes.plot([group["wer_low"], group["wer_high"]], [y, y], color=colour, linewidth=width)


def _size(group: dict) -> str:
    return f"{group['clips']:,} clip{'s' * (group['clips'] != 1)}"


def _colour(group: dict) -> str:
    """Grey for what nobody told, pale for what is small."""
    if group["group"] == "unknown":
        return GREY
    return SKY if group["small"] else BLUE
