"""Bars and curves as inline SVG, made of text: they take the page's colours, light or dark, and any width.

Nothing but numbers and a label, which is escaped, goes into them; words beside them are the template's.
"""

from collections.abc import Sequence
from html import escape
from itertools import product

from lengua.figures.canvas import BLUE, INK
from lengua.figures.curves import COLOURS, Point
from lengua.figures.wer import BASE

DASHES = ("none", "6 3", "2 3")


def bar(value: float, low: float | None, high: float | None, most: float, look: str, label: str) -> str:
    """Return a bar of `value` of `most`, with a line from `low` to `high` where both are known."""
    parts = [f'<rect width="{_share(value, most)}" height="100%"/>']
    if low is not None and high is not None:
        ends = [_share(end, most) for end in (low, high)]
        parts += [f'<line class="{line}" x1="{ends[0]}" x2="{ends[1]}" y1="50%" y2="50%"/>' for line in ("edge", "ci")]
        parts += [f'<line class="ci" x1="{end}" x2="{end}" y1="25%" y2="75%"/>' for end in ends]
    return f'<svg class="bar {look}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def longest(rows: Sequence[dict]) -> float:
    """Return what the widest bar stands for: the highest WER or end of an interval, never 0."""
    return max((max(row["wer"], row.get("wer_high") or 0) for row in rows), default=0) or 1


def look_of(row: dict, opponent: str | None = BASE) -> str:
    """Return the colour of a row's bar, by name, as in figures: the opponent grey, adaptive blue, padded sky."""
    if row["model"] in (BASE, opponent):
        return "base"
    return "adaptive" if row.get("window") == "adaptive" else "padded"


def strokes(count: int) -> list[tuple[str, str]]:
    """Return a colour and a dash for each of so many lines, no two alike as long as there are any left."""
    looks = [(colour, dash) for dash, colour in product(DASHES, COLOURS)]
    return [looks[place % len(looks)] for place in range(count)]


def curves(lines: Sequence[Sequence[Point]], top: float, marked: bool, label: str) -> str:
    """Return lines over optimiser steps, from 0 to `top`; what is above is cut off, points are marked if asked."""
    last = max((point.step for line in lines for point in line), default=0) or 1
    drawn = [f'<path class="grid" d="M0 {y} H100"/>' for y in (0, 25, 50, 75, 100)]
    for line, (colour, dash) in zip(lines, strokes(len(lines)), strict=True):
        if not line:
            continue
        places = [(100 * point.step / last, 100 - 100 * min(point.value, top) / top) for point in line]
        path = " L".join(f"{x:.2f} {y:.2f}" for x, y in places)
        drawn.append(f'<path class="line" d="M{path}" style="stroke:{_ink(colour)};stroke-dasharray:{dash}"/>')
        dots = "".join(f"M{x:.2f} {y:.2f}h0" for x, y in places) if marked or len(places) == 1 else ""
        drawn += [f'<path class="dots" d="{dots}" style="stroke:{_ink(colour)}"/>'] if dots else []
    box = 'viewBox="0 0 100 100" preserveAspectRatio="none"'
    return f'<svg class="curves" {box} role="img" aria-label="{escape(label)}">{"".join(drawn)}</svg>'


def key(colour: str, dash: str) -> str:
    """Return a piece of line, for a legend."""
    look = f"stroke:{_ink(colour)};stroke-dasharray:{dash}"
    return f'<svg class="key" aria-hidden="true"><line x1="0" x2="100%" y1="50%" y2="50%" style="{look}"/></svg>'


def _ink(colour: str) -> str:
    """Return the colour, or the page's own where a dark page would swallow it."""
    return {INK: "var(--ink)", BLUE: "var(--blue)"}.get(colour, colour)


def _share(value: float, most: float) -> str:
    return f"{min(100.0, max(0.0, 100 * value / most)):.2f}%"
