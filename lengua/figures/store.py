"""Figures of a feature store: how long its clips are, how fast they are spoken, by whom, and what was left out.

    draw(open_store("stores/sample-es"), Path("stores/sample-es-figures"))

`dropped.png` is drawn only where something was left out, and nothing else of an empty store. Equal stores give equal
bytes.
"""

from itertools import cycle
from pathlib import Path

import numpy as np

from lengua.figures.canvas import BLUE, EDGE_IN, FAINT, GREY, INK, SKY, VERMILION, WIDTH_IN, write_png
from lengua.figures.pages import (
    BAR_IN,
    FULL_IN,
    HALF_IN,
    HEAD_IN,
    LINE_IN,
    RIGHT_IN,
    Bar,
    axes_at,
    cut,
    draw_bars,
    page,
    plot_at,
    write,
    write_pair,
)
from lengua.figures.statistics import (
    FAR,
    NOT_TOLD,
    TOLD,
    Clips,
    Far,
    Group,
    clips_of,
    durations,
    farthest,
    hours_by,
    robust_z,
    shown,
)
from lengua.mel import FRAMES_PER_SECOND, band_centres
from lengua.store import Row, Store

SPLIT_COLOURS = (BLUE, SKY, VERMILION, "#009e73", "#e69f00", "#cc79a7")
FEW_TO_MANY = ("#9fcdea", BLUE, "#00223a")
IN_A_ROW = 4
"""Splits that a line of the legend holds."""
PICTURE_IN = 2.2
"""Height of a log-mel with its text."""
WAYS = [
    np.array([far * np.cos(turn), far * np.sin(turn)])
    for far in range(15, 90, 12)
    for turn in np.deg2rad([0, 30, -30, 60, -60, 90, -90, 180])
]
"""Where the number of a point may stand, from beside it to farther off: in points of print."""


def draw(store: Store, folder: Path) -> list[Path]:
    """Draw the store's figures into a folder, and remove those of an earlier call that no longer hold."""
    clips, written = clips_of(store), []
    for name, make in FIGURES.items():
        path, figure = Path(folder) / name, make(store, clips)
        if figure is None:
            path.unlink(missing_ok=True)
        else:
            write_png(figure, path)
            written.append(path)
    return written


def durations_figure(store: Store, clips: Clips):
    """Return a histogram of durations, split upon split; None for an empty store."""
    if not len(clips.seconds):
        return None
    edges, counts = durations(clips)
    low, middle, high = np.quantile(clips.seconds, [0.05, 0.5, 0.95])
    notes = _size(clips), f"Half are shorter than {middle:.1f} s; nine in ten last {low:.1f} to {high:.1f} s."
    legend_in = LINE_IN * -(-len(counts) // IN_A_ROW)
    figure = page("How long the clips are", notes, 3.4 + legend_in)
    axes = plot_at(figure, HEAD_IN + legend_in, 2.75, "seconds", "clips")
    below = np.zeros(len(edges) - 1)
    for (name, count), colour in zip(counts.items(), cycle(SPLIT_COLOURS), strict=False):
        look = {"color": colour, "edgecolor": "white", "linewidth": 0.5}
        axes.bar(edges[:-1], count, np.diff(edges), below, align="edge", label=f"{name}: {_clips(count.sum())}", **look)
        below += count
    axes.set_xlim(0, edges[-1])
    place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": IN_A_ROW, "borderaxespad": 0}
    axes.legend(**place, frameon=False, handlelength=0.8, labelcolor=INK)
    return figure


def pace_figure(store: Store, clips: Clips):
    """Return characters per second over duration, the farthest clips numbered and listed; None for an empty store."""
    if not len(clips.seconds):
        return None
    pace, far = clips.pace, farthest(clips)
    beyond = f"{(np.abs(robust_z(pace)) > FAR).sum():,} of {_clips(len(pace))}"
    notes = (
        f"Median {np.median(pace):.1f} characters a second; {beyond} over {FAR} robust deviations (z) away.",
        "The darker, the more clips. The farthest are numbered; look whether text and audio agree.",
    )
    figure = page("How fast they are spoken", notes, 4.0 + LINE_IN * (len(far) + 1))
    axes = plot_at(figure, HEAD_IN + 0.1, 3.1, "seconds", "characters per second")
    extent = (0, 1.05 * max(clips.seconds.max(), 1), 0, 1.08 * max(pace.max(), 1))
    _draw_density(axes, clips.seconds, pace, extent)
    _number(axes, [(one.seconds, one.pace) for one in far])
    _list_far(figure, far, HEAD_IN + 3.95)
    return figure


def speakers_figure(store: Store, clips: Clips):
    """Return hours by accent, age and gender; where none of them is told, a note that says so."""
    if not len(clips.seconds):
        return None
    if not any(any(names) for names, _ in clips.told.values()):
        return page("Who speaks", (_size(clips), "The source tells neither accent nor age nor gender."), 0)
    groups = {key: hours_by(clips, key) for key in TOLD}
    most = max(group.hours for of_key in groups.values() for group in of_key) or 1
    accents, ages, genders = ([_group_bar(group, most) for group in groups[key]] for key in TOLD)
    below = len(ages) + 1.7  # heights in bars: the panel of genders begins there
    tall = max(len(accents), below + len(genders)) + 1
    figure = page(
        "Who speaks", (_size(clips), "As the speakers tell it themselves; all bars to one scale."), tall * BAR_IN
    )
    _draw_panel(figure, "By accent", accents, EDGE_IN, 0)
    _draw_panel(figure, "By age", ages, RIGHT_IN, 0)
    _draw_panel(figure, "By gender", genders, RIGHT_IN, below * BAR_IN)
    return figure


def _draw_panel(figure, title: str, bars: list[Bar], x: float, y: float) -> None:
    top = HEAD_IN + 0.2 + y
    write(figure, x, top, title, size=12, weight="bold")
    draw_bars(figure, bars, x, top + 0.06, HALF_IN)


def log_mel_figure(store: Store, clips: Clips):
    """Return pictures of the log-mels of six clips of the largest split; None for an empty store."""
    if not len(clips.seconds):
        return None
    name, split = max(clips.splits.items(), key=lambda item: len(item[1]))
    rows = [split[index] for index in shown(split)]
    notes = (
        "Hertz upwards, as the model's bands lie; seconds to the right; from a clip's own silence to its own peak.",
        f"Two short, two median and two long clips of {name}.",
    )
    figure = page("What the model hears", notes, PICTURE_IN * -(-len(rows) // 2))
    for place, row in enumerate(rows):
        x, y = (EDGE_IN, RIGHT_IN)[place % 2], HEAD_IN + place // 2 * PICTURE_IN
        write(figure, x, y + 0.15, cut(row.text, HALF_IN, 11), size=11)
        write(figure, x, y + 0.37, cut(f"{row.id}, {row.duration_s:.1f} s", HALF_IN, 10), size=10, color=FAINT)
        _draw_log_mel(axes_at(figure, x + 0.5, y + 0.47, HALF_IN - 0.5, 1.3), row)
    return figure


def dropped_figure(store: Store, clips: Clips):
    """Return how many utterances were left out for which reason, with an example each; None where none was."""
    dropped = store.manifest["dropped"]
    if not dropped:
        return None
    total, most = (function(one["count"] for one in dropped.values()) for function in (sum, max))
    bars = [
        Bar(reason, f"e.g. {one['examples'][0]}", f"{one['count']:,}", one["count"] / most, VERMILION)
        for reason, one in dropped.items()
    ]
    kept = _clips(len(clips.seconds))
    figure = page("What was left out, and why", (f"{total:,} left out; {kept} in the store.",), len(bars) * BAR_IN)
    draw_bars(figure, bars, EDGE_IN, HEAD_IN - 0.2, FULL_IN)
    return figure


FIGURES = {
    "durations.png": durations_figure,
    "pace.png": pace_figure,
    "speakers.png": speakers_figure,
    "log_mel.png": log_mel_figure,
    "dropped.png": dropped_figure,
}


def _group_bar(group: Group, most: float) -> Bar:
    value = f"{_hours(group.hours)}, {_clips(group.clips)}"
    return Bar(group.name, "", value, group.hours / most, GREY if group.name == NOT_TOLD else BLUE)


def _draw_density(axes, x: np.ndarray, y: np.ndarray, extent: tuple[float, float, float, float]) -> None:
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    colours = LinearSegmentedColormap.from_list("few to many", FEW_TO_MANY)
    cells = axes.hexbin(x, y, gridsize=(70, 17), extent=extent, mincnt=1, cmap=colours, linewidths=0.1)
    cells.set_norm(LogNorm(1, max(2, cells.get_array().max())))
    axes.set(xlim=extent[:2], ylim=extent[2:])


def _number(axes, points: list[tuple[float, float]]) -> None:
    """Ring points and number them from 1, each number beside its point, where it hides no other."""
    from matplotlib.patheffects import withStroke

    to_print = 72 / axes.figure.dpi  # pixels to points of print, in which offsets are
    rings = [axes.transData.transform(point) * to_print for point in points]
    inside = axes.get_window_extent().get_points() * to_print + ((8, 8), (-8, -8))
    thread = {"arrowstyle": "-", "color": VERMILION, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
    look = {"size": 10, "weight": "bold", "color": VERMILION, "ha": "center", "va": "center"}
    taken = [*rings]
    for number, (point, ring) in enumerate(zip(points, rings, strict=True), start=1):
        offset = next((way for way in WAYS if _is_free(ring + way, taken, inside)), WAYS[0])
        taken.append(ring + offset)
        axes.plot(*point, "o", markersize=6, markerfacecolor="none", color=VERMILION, clip_on=False)
        text = axes.annotate(str(number), point, offset, textcoords="offset points", arrowprops=thread, **look)
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def _is_free(place: np.ndarray, taken: list[np.ndarray], inside: np.ndarray) -> bool:
    return (
        (inside[0] <= place).all()
        and (place <= inside[1]).all()
        and not any((np.abs(place - other) < (14, 11)).all() for other in taken)
    )


def _list_far(figure, far: list[Far], top: float) -> None:
    """Write one line for each far clip: its number, seconds, pace, distance, id and text."""
    ends, begin = (0.45, 1.1, 1.85, 2.4), 2.6  # where columns of numbers end, and where names begin
    for end, heading in zip(ends[1:], ("seconds", "a second", "z"), strict=True):
        write(figure, end, top, heading if far else "", size=10, color=FAINT, ha="right")
    for number, one in enumerate(far, start=1):
        y = top + number * LINE_IN
        write(figure, ends[0], y, str(number), size=10, weight="bold", color=VERMILION, ha="right")
        for end, value in zip(ends[1:], (f"{one.seconds:.1f}", f"{one.pace:.1f}", f"{one.z:+.1f}"), strict=True):
            write(figure, end, y, value.replace("-", "−"), size=10, ha="right")
        pair = cut(one.id, 3.5, 10), one.text
        write_pair(figure, begin, y, WIDTH_IN - EDGE_IN - begin, pair, 10)


def _draw_log_mel(axes, row: Row) -> None:
    """Draw the stored bytes: time to the right, the bands upwards as the model has them, named in Hz."""
    bands = row.mel.shape[1]
    extent = (0, row.frames / FRAMES_PER_SECOND, -0.5, bands - 0.5)
    axes.imshow(row.mel.T, "magma", aspect="auto", origin="lower", vmin=0, vmax=255, extent=extent)
    hertz = np.array([250, 1000, 2000, 4000])
    axes.set_yticks(np.interp(hertz, band_centres(bands), np.arange(bands)), [f"{value:,}" for value in hertz])
    axes.tick_params(colors=FAINT, labelsize=9)
    axes.spines[:].set_visible(False)


def _hours(hours: float) -> str:
    """Write an amount of speech in its own unit."""
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.0f} s"


def _clips(count: int) -> str:
    return f"{count:,} clip{'' if count == 1 else 's'}"


def _size(clips: Clips) -> str:
    return f"{_clips(len(clips.seconds))}, {_hours(clips.seconds.sum() / 3600)}."
