"""Pages of figures: a title, notes, axes and lines of text at inches from the left and the top, bars under their names.

What people wrote (texts, ids, accents) is cut to the room that it has, and a dollar in it is no formula.
"""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from lengua.figures.canvas import DPI, EDGE_IN, FAINT, INK, WIDTH_IN, new_figure

HEAD_IN, LINE_IN, BAR_IN = 1.1, 0.24, 0.42  # heights: title and notes, a line of text, a bar under its name
FULL_IN, HALF_IN = WIDTH_IN - 2 * EDGE_IN, (WIDTH_IN - 2 * EDGE_IN - 0.5) / 2  # widths: of all, of one column of two
RIGHT_IN = WIDTH_IN - EDGE_IN - HALF_IN  # where the right column begins
NUMBERS_IN = 0.95  # what an axis and its numbers take
GAP_IN = 0.15
LEAST = 0.002
"""Share of the width that a bar has at least, so that one clip of a million is seen."""


class Bar(NamedTuple):
    """A bar under a line of text: its name, a note beside that, and at the line's end a value."""

    name: str
    note: str
    value: str
    share: float
    colour: str


def page(title: str, notes: Sequence[str], height_in: float):
    """Return a figure with a title, two notes at most, and so much space below them."""
    figure = new_figure(HEAD_IN + height_in)
    write(figure, EDGE_IN, 0.4, title, size=15, weight="bold")
    for place, note in enumerate(notes):
        write(figure, EDGE_IN, 0.7 + LINE_IN * place, cut(note, FULL_IN, 11), size=11, color=FAINT)
    return figure


def axes_at(figure, x: float, top: float, wide: float, tall: float):
    """Add axes at inches from the left and the top of a figure."""
    height = figure.get_figheight()
    return figure.add_axes((x / WIDTH_IN, 1 - (top + tall) / height, wide / WIDTH_IN, tall / height))


def plot_at(figure, top: float, tall: float, x_name: str, y_name: str):
    """Add axes as wide as the page, with named sides and room for the numbers on the left."""
    axes = axes_at(figure, NUMBERS_IN, top, WIDTH_IN - NUMBERS_IN - EDGE_IN, tall)
    axes.set_xlabel(x_name, color=FAINT)
    axes.set_ylabel(y_name, color=FAINT)
    axes.yaxis.set_label_coords((EDGE_IN + 0.1 - NUMBERS_IN) / (WIDTH_IN - NUMBERS_IN - EDGE_IN), 0.5)
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=FAINT)
    return axes


def write(figure, x: float, y: float, text: str, **look) -> None:
    """Write a line at inches from the left and the top."""
    look = {"color": INK, **look}
    figure.text(x / WIDTH_IN, 1 - y / figure.get_figheight(), text, parse_math=False, **look)


def write_pair(figure, x: float, y: float, wide: float, pair: tuple[str, str], size: float) -> None:
    """Write a name and, fainter, what stands beside it; both are cut so as to fit into so many inches."""
    name = cut(pair[0], wide, size)
    write(figure, x, y, name, size=size)
    taken = width_of(name, size) + GAP_IN
    if pair[1] and wide - taken > 0.5:
        write(figure, x + taken, y, cut(pair[1], wide - taken, size), size=size, color=FAINT)


def draw_bars(figure, bars: list[Bar], x: float, top: float, wide: float) -> None:
    """Draw bars one below another, in a column that is `wide` inches."""
    axes = axes_at(figure, x, top, wide, len(bars) * BAR_IN)
    axes.axis("off")
    axes.set(xlim=(0, 1), ylim=(len(bars), 0))
    for place, bar in enumerate(bars):
        line = top + (place + 0.58) * BAR_IN
        write(figure, x + wide, line, bar.value, size=11, ha="right")
        write_pair(figure, x, line, wide - width_of(bar.value, 11) - GAP_IN, (bar.name, bar.note), 11)
        axes.barh(place + 0.84, max(bar.share, LEAST), height=0.22, color=bar.colour, linewidth=0)


def width_of(text: str, size: float) -> float:
    """Return how many inches a line takes."""
    from matplotlib.font_manager import FontProperties

    return _measure().get_text_width_height_descent(text, FontProperties(size=size), False)[0] / DPI


@lru_cache(maxsize=1)
def _measure():
    from matplotlib.backends.backend_agg import RendererAgg

    return RendererAgg(1, 1, DPI)


def cut(text: str, wide: float, size: float) -> str:
    """Return as much of a text as fits into so many inches, on one line."""
    text = " ".join(text.split())
    if width_of(text, size) <= wide:
        return text
    fits = bisect_right(range(1, len(text)), wide, key=lambda letters: width_of(text[:letters] + "…", size))
    return text[:fits].rstrip() + "…"
