"""What all figures share: their size, their colours, and how a PNG is written.

matplotlib is imported when something is drawn, and without pyplot: no state is shared with a notebook or a thread.
"""

import io
from pathlib import Path

from lengua.files import write_bytes

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
