"""Figures of a feature store: durations, speaking rates, speakers, log-mels, and what was left out.

    draw_store_figures(open_store("stores/sample-es"), Path("stores/sample-es-figures"))

Statistics are vectorised over the light columns (seconds for 1.6 million clips); log-mels are read only of clips that
are shown. `dropped.png` is drawn only where something was left out, and nothing else of an empty store. Equal stores
give equal bytes.
"""

import json
import sys
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lengua.audio.log_mel import FRAMES_PER_SECOND, band_centres_hz
from lengua.data.store import Row, Split, Store
from lengua.evaluation.report.figures import (
    BLUE,
    EDGE_IN,
    FAINT,
    GREY,
    HALF_IN,
    INK,
    NOTE_LINE_IN,
    PAGE_HEAD_IN,
    PALETTE,
    VERMILION,
    WIDTH_IN,
    Bar,
    BarGroup,
    axes_at,
    bars_page,
    clean_axes,
    new_page,
    truncate_to_width,
    write_pair,
    write_png,
    write_text,
)
from lengua.scoring import counted

SPEAKER_KEYS = ("accent", "age", "gender")
UNSTATED_NAME = "not told"
MAX_LISTED = 10
"""Groups and outliers that are named; what is behind them is counted."""
OUTLIER_Z = 3.5
"""Robust deviations from which a clip is called far (Iglewicz and Hoaglin, 1993)."""
BAR_WIDTHS_S = (0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0)
"""Widths that a bar of the histogram of durations may have, in seconds."""
MAX_BARS = 80
SAMPLE_QUANTILES = (0.02, 0.06, 0.48, 0.52, 0.94, 0.98)
"""Where in a split, from its shortest to its longest clip, the clips are taken whose log-mel is drawn."""


@dataclass(frozen=True)
class ClipColumns:
    """The light columns of every split, one after another.

    seconds: float64; characters: int64; speakers: for accent, age and gender, the names that occur ("" where none is
    stated) and the number of its name for each clip. All of shape (clips,).
    """

    splits: dict[str, Split]
    seconds: np.ndarray
    characters: np.ndarray
    speakers: dict[str, tuple[list[str], np.ndarray]]

    def row(self, index: int) -> Row:
        """Return a clip with its text and log-mel."""
        for split in self.splits.values():
            if index < len(split):
                return split[index]
            index -= len(split)
        raise IndexError(index)

    @property
    def pace(self) -> np.ndarray:
        """Characters per second: float64, shape (clips,)."""
        return self.characters / np.maximum(self.seconds, 1e-3)


class SpeakerGroup(NamedTuple):
    """Clips that share what their speakers tell of themselves."""

    name: str
    hours: float
    clips: int


class PaceOutlier(NamedTuple):
    """A clip whose characters per second lie far from the median: z robust deviations."""

    id: str
    text: str
    seconds: float
    pace: float
    z: float


def read_clip_columns(store: Store) -> ClipColumns:
    """Read what the figures need, without any log-mel."""
    splits = {name: store.split(name) for name, count in store.manifest["splits"].items() if count["utterances"]}
    seconds = [np.array(split.column("duration_s"), np.float64) for split in splits.values()]
    characters = [np.fromiter(map(len, split.column("text")), np.int64) for split in splits.values()]
    speakers = _speaker_columns([split.column("extra") for split in splits.values()])
    return ClipColumns(
        splits, np.concatenate([[], *seconds]), np.concatenate([np.empty(0, np.int64), *characters]), speakers
    )


def _speaker_columns(extras: list[list[str]]) -> dict[str, tuple[list[str], np.ndarray]]:
    """Return `ClipColumns.speakers`. Many clips have the same `extra`: each is parsed once."""
    coded = pa.chunked_array(extras, pa.string()).dictionary_encode().combine_chunks()
    parsed = [_speaker(json.loads(text)) for text in coded.dictionary.to_pylist()]
    return {key: _numbered([one[place] for one in parsed], coded.indices) for place, key in enumerate(SPEAKER_KEYS)}


def _speaker(extra: dict) -> tuple[str, ...]:
    return tuple(sys.intern(" ".join(str(extra.get(key) or "").split())) for key in SPEAKER_KEYS)


def _numbered(names: list[str], of_clip: pa.Array) -> tuple[list[str], np.ndarray]:
    """Number the names of distinct extras; `of_clip` holds, for each clip, which of them is its own."""
    coded = pa.array(names, pa.string()).dictionary_encode()
    return coded.dictionary.to_pylist(), coded.indices.to_numpy()[of_clip.to_numpy()]


def hours_by(clips: ClipColumns, key: str, most: int = MAX_LISTED) -> list[SpeakerGroup]:
    """Return the groups of an accent, age or gender: the largest, then what others there are, then who tells none."""
    names, number = clips.speakers[key]
    hours = np.bincount(number, clips.seconds, len(names)) / 3600
    counts = np.bincount(number, minlength=len(names)).tolist()
    groups = sorted(map(SpeakerGroup, names, hours.tolist(), counts), key=lambda group: (-group.hours, group.name))
    named, unnamed = [group for group in groups if group.name], [group for group in groups if not group.name]
    if len(named) > most + 1:  # one more is as well named
        rest = named[most:]
        others = SpeakerGroup(f"others ({len(rest)})", sum(one.hours for one in rest), sum(one.clips for one in rest))
        named = [*named[:most], others]
    return named + [group._replace(name=UNSTATED_NAME) for group in unnamed]


def duration_histogram(clips: ClipColumns) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return edges in seconds, shape (bars + 1,), and how many clips of each split lie between them."""
    step, longest = _step(clips.seconds), clips.seconds.max()
    edges = step * np.arange(np.floor(longest / step) + 2)
    parts = np.split(clips.seconds, np.cumsum([len(split) for split in clips.splits.values()])[:-1])
    return edges, {name: np.histogram(part, edges)[0] for name, part in zip(clips.splits, parts, strict=True)}


def _step(seconds: np.ndarray) -> float:
    """Return a round width of a bar near Freedman and Diaconis' rule, that leaves bars few enough to see."""
    low, high = np.quantile(seconds, [0.25, 0.75])
    wide_enough = [step for step in BAR_WIDTHS_S if seconds.max() <= MAX_BARS * step] or BAR_WIDTHS_S[-1:]
    return max(
        (step for step in wide_enough if step <= 2 * (high - low) / len(seconds) ** (1 / 3)), default=wide_enough[0]
    )


def robust_z(values: np.ndarray) -> np.ndarray:
    """Return how many robust deviations each value is from the median: of the median absolute deviation, as sigmas.

    Where more than half of the values are equal, the mean absolute deviation stands in (Iglewicz and Hoaglin, 1993).
    """
    away = values - np.median(values)
    spread = 1.4826 * np.median(np.abs(away)) or 1.2533 * np.mean(np.abs(away))
    return away / spread if spread else away


def pace_outliers(clips: ClipColumns, most: int = MAX_LISTED) -> list[PaceOutlier]:
    """Return the clips whose characters per second are farthest from the median, the farthest first."""
    pace = clips.pace
    z = robust_z(pace)
    chosen = [int(k) for k in np.argsort(-np.abs(z), kind="stable")[:most] if z[k]]
    rows = [clips.row(k) for k in chosen]
    return [
        PaceOutlier(r.id, r.text, r.duration_s, float(pace[k]), float(z[k])) for k, r in zip(chosen, rows, strict=True)
    ]


def sample_rows(split: Split) -> list[int]:
    """Return six clips of a split, fewer if it has fewer: two short ones, two of middle length, two long ones."""
    by_length = np.argsort(split.frames, kind="stable")
    return by_length[sorted({round(at * (len(split) - 1)) for at in SAMPLE_QUANTILES})].tolist()


DENSITY_COLOURS = ("#9fcdea", BLUE, "#00223a")
LEGEND_COLUMNS = 4
PICTURE_IN, AXIS_NUMBERS_IN = 2.2, 0.95  # height of a log-mel with its text, width of an axis and its numbers
NUMBER_OFFSETS = [
    np.array([far * np.cos(turn), far * np.sin(turn)])
    for far in range(15, 90, 12)
    for turn in np.deg2rad([0, 30, -30, 60, -60, 90, -90, 180])
]
"""Where the number of a point may stand, from beside it to farther off: in points of print."""


def draw_store_figures(store: Store, folder: Path) -> list[Path]:
    """Draw the store's figures into a folder, and remove those of an earlier call that no longer hold."""
    clips, written = read_clip_columns(store), []
    for name, make in STORE_FIGURES.items():
        drawn = len(clips.seconds) or name == DROPPED_FIGURE
        path, figure = Path(folder) / name, make(store, clips) if drawn else None
        if figure is None:
            path.unlink(missing_ok=True)
        else:
            write_png(figure, path)
            written.append(path)
    return written


def durations_figure(store: Store, clips: ClipColumns):
    """Return a histogram of durations, split upon split."""
    edges, counts = duration_histogram(clips)
    low, middle, high = np.quantile(clips.seconds, [0.05, 0.5, 0.95])
    notes = _size(clips), f"Half are shorter than {middle:.1f} s; nine in ten last {low:.1f} to {high:.1f} s."
    legend_in = NOTE_LINE_IN * -(-len(counts) // LEGEND_COLUMNS)
    figure = new_page("How long the clips are", notes, 3.4 + legend_in)
    axes = _wide_axes(figure, PAGE_HEAD_IN + legend_in, 2.75, "clips")
    below = np.zeros(len(edges) - 1)
    for (name, count), colour in zip(counts.items(), cycle(PALETTE), strict=False):
        look = {"color": colour, "edgecolor": "white", "linewidth": 0.5}
        axes.bar(
            edges[:-1],
            count,
            np.diff(edges),
            below,
            align="edge",
            label=f"{name}: {counted(count.sum(), 'clip')}",
            **look,
        )
        below += count
    axes.set_xlim(0, edges[-1])
    place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": LEGEND_COLUMNS, "borderaxespad": 0}
    axes.legend(**place, frameon=False, handlelength=0.8, labelcolor=INK)
    return figure


def pace_figure(store: Store, clips: ClipColumns):
    """Return characters per second over duration, the farthest clips numbered and listed."""
    pace, far = clips.pace, pace_outliers(clips)
    beyond = f"{(np.abs(robust_z(pace)) > OUTLIER_Z).sum():,} of {counted(len(pace), 'clip')}"
    notes = (
        f"Median {np.median(pace):.1f} characters a second; {beyond} over {OUTLIER_Z} robust deviations (z) away.",
        "The darker, the more clips. The farthest are numbered; look whether text and audio agree.",
    )
    figure = new_page("How fast they are spoken", notes, 4.0 + NOTE_LINE_IN * (len(far) + 1))
    axes = _wide_axes(figure, PAGE_HEAD_IN + 0.1, 3.1, "characters per second")
    extent = (0, 1.05 * max(clips.seconds.max(), 1), 0, 1.08 * max(pace.max(), 1))
    _draw_density(axes, clips.seconds, pace, extent)
    _number(axes, [(one.seconds, one.pace) for one in far])
    _list_outliers(figure, far, PAGE_HEAD_IN + 3.95)
    return figure


def speakers_figure(store: Store, clips: ClipColumns):
    """Return hours by accent, age and gender; where none of them is stated, a note that says so."""
    if not any(any(names) for names, _ in clips.speakers.values()):
        return new_page("Who speaks", (_size(clips), "The source tells neither accent nor age nor gender."), 0)
    notes = _size(clips), "As the speakers tell it themselves; all bars to one scale."
    groups = [BarGroup(f"By {key}", [_speaker_bar(group) for group in hours_by(clips, key)]) for key in SPEAKER_KEYS]
    return bars_page("Who speaks", notes, groups)


def log_mel_figure(store: Store, clips: ClipColumns):
    """Return pictures of the log-mels of six clips of the largest split."""
    name, split = max(clips.splits.items(), key=lambda item: len(item[1]))
    rows = [split[index] for index in sample_rows(split)]
    notes = (
        "Hertz upwards, as the model's bands lie; seconds to the right; from a clip's own silence to its own peak.",
        f"Two short, two median and two long clips of {name}.",
    )
    figure = new_page("What the model hears", notes, PICTURE_IN * -(-len(rows) // 2))
    for place, row in enumerate(rows):
        x = EDGE_IN if place % 2 == 0 else WIDTH_IN - EDGE_IN - HALF_IN
        y = PAGE_HEAD_IN + place // 2 * PICTURE_IN
        write_text(figure, x, y + 0.15, row.text, HALF_IN)
        write_text(figure, x, y + 0.37, f"{row.id}, {row.duration_s:.1f} s", HALF_IN, size=10, color=FAINT)
        _draw_log_mel(axes_at(figure, x + 0.5, y + 0.47, HALF_IN - 0.5, 1.3), row)
    return figure


def dropped_figure(store: Store, clips: ClipColumns):
    """Return how many utterances were left out for which reason, with an example each; None where none was."""
    dropped = store.manifest["dropped"]
    if not dropped:
        return None
    bars = [
        Bar(reason, f"{one['count']:,}", [(one["count"], VERMILION)], f"e.g. {one['examples'][0]}")
        for reason, one in dropped.items()
    ]
    left_out = sum(one["count"] for one in dropped.values())
    note = f"{left_out:,} left out; {counted(len(clips.seconds), 'clip')} in the store."
    return bars_page("What was left out, and why", (note,), [BarGroup("", bars)])


DROPPED_FIGURE = "dropped.png"  # the one that an empty store has, too
STORE_FIGURES = {
    "durations.png": durations_figure,
    "pace.png": pace_figure,
    "speakers.png": speakers_figure,
    "log_mel.png": log_mel_figure,
    DROPPED_FIGURE: dropped_figure,
}


def _speaker_bar(group: SpeakerGroup) -> Bar:
    colour = GREY if group.name == UNSTATED_NAME else BLUE
    return Bar(group.name, _hours(group.hours), [(group.hours, colour)], counted(group.clips, "clip"))


def _wide_axes(figure, top: float, tall: float, y_name: str):
    """Add axes over seconds as wide as the page, with room for the numbers on the left."""
    axes = axes_at(figure, AXIS_NUMBERS_IN, top, WIDTH_IN - AXIS_NUMBERS_IN - EDGE_IN, tall)
    axes.set_ylabel(y_name, color=FAINT)
    axes.yaxis.set_label_coords((EDGE_IN + 0.1 - AXIS_NUMBERS_IN) / (WIDTH_IN - AXIS_NUMBERS_IN - EDGE_IN), 0.5)
    axes.yaxis.set_major_formatter("{x:,g}")
    clean_axes(axes, "seconds")
    return axes


def _draw_density(axes, x: np.ndarray, y: np.ndarray, extent: tuple[float, float, float, float]) -> None:
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    colours = LinearSegmentedColormap.from_list("few to many", DENSITY_COLOURS)
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
        offset = next((way for way in NUMBER_OFFSETS if _is_free(ring + way, taken, inside)), NUMBER_OFFSETS[0])
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


def _list_outliers(figure, far: list[PaceOutlier], top: float) -> None:
    """Write one line for each far clip: its number, seconds, pace, distance, id and text."""
    ends, begin = (0.45, 1.1, 1.85, 2.4), 2.6  # where columns of numbers end, and where names begin
    for end, heading in zip(ends[1:], ("seconds", "a second", "z"), strict=True):
        write_text(figure, end, top, heading if far else "", size=10, color=FAINT, ha="right")
    for number, one in enumerate(far, start=1):
        y = top + number * NOTE_LINE_IN
        write_text(figure, ends[0], y, str(number), size=10, weight="bold", color=VERMILION, ha="right")
        for end, value in zip(ends[1:], (f"{one.seconds:.1f}", f"{one.pace:.1f}", f"{one.z:+.1f}"), strict=True):
            write_text(figure, end, y, value.replace("-", "−"), size=10, ha="right")
        pair = truncate_to_width(one.id, 3.5, 10), one.text
        write_pair(figure, begin, y, WIDTH_IN - EDGE_IN - begin, pair, 10)


def _draw_log_mel(axes, row: Row) -> None:
    """Draw the stored bytes: time to the right, the bands upwards as the model has them, named in Hz."""
    bands = row.mel.shape[1]
    extent = (0, row.frames / FRAMES_PER_SECOND, -0.5, bands - 0.5)
    axes.imshow(row.mel.T, "magma", aspect="auto", origin="lower", vmin=0, vmax=255, extent=extent)
    hertz = np.array([250, 1000, 2000, 4000])
    axes.set_yticks(np.interp(hertz, band_centres_hz(bands), np.arange(bands)), [f"{value:,}" for value in hertz])
    axes.tick_params(colors=FAINT, labelsize=9)
    axes.spines[:].set_visible(False)


def _hours(hours: float) -> str:
    """Write an amount of speech in its own unit."""
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.0f} s"


def _size(clips: ClipColumns) -> str:
    return f"{counted(len(clips.seconds), 'clip')}, {_hours(clips.seconds.sum() / 3600)}."
