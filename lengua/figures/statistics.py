"""What the figures of a feature store show: hours by group, durations, and the clips whose pace is odd.

Pure functions over the light columns, vectorised: 1.6 million clips are a matter of seconds. No log-mel is read but
that of the clips that are named.
"""

import json
import sys
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lengua.store import Row, Split, Store

TOLD = ("accent", "age", "gender")
NOT_TOLD = "not told"
MOST = 10
"""Groups and outliers that are named; what is behind them is counted."""
FAR = 3.5
"""Robust deviations from which a clip is called far (Iglewicz and Hoaglin, 1993)."""
STEPS = (0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0)
"""Widths that a bar of the histogram of durations may have, in seconds."""
MOST_BARS = 80
SHOWN_AT = (0.02, 0.06, 0.48, 0.52, 0.94, 0.98)
"""Where in a split, from its shortest to its longest clip, the clips are taken whose log-mel is drawn."""


@dataclass(frozen=True)
class Clips:
    """The light columns of every split, one after another.

    seconds: float64; characters: int64; told: for accent, age and gender, the names that occur ("" where nothing is
    told) and the number of its name for each clip. All of shape (clips,).
    """

    splits: dict[str, Split]
    seconds: np.ndarray
    characters: np.ndarray
    told: dict[str, tuple[list[str], np.ndarray]]

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


class Group(NamedTuple):
    """Clips that share what their speakers tell of themselves."""

    name: str
    hours: float
    clips: int


class Far(NamedTuple):
    """A clip whose characters per second lie far from the median: z robust deviations."""

    id: str
    text: str
    seconds: float
    pace: float
    z: float


def clips_of(store: Store) -> Clips:
    """Read what the figures need, without any log-mel."""
    splits = {name: store.split(name) for name, count in store.manifest["splits"].items() if count["utterances"]}
    seconds = [np.array(split.column("duration_s"), np.float64) for split in splits.values()]
    characters = [np.fromiter(map(len, split.column("text")), np.int64) for split in splits.values()]
    told = _told([split.column("extra") for split in splits.values()])
    return Clips(splits, np.concatenate([[], *seconds]), np.concatenate([np.empty(0, np.int64), *characters]), told)


def _told(extras: list[list[str]]) -> dict[str, tuple[list[str], np.ndarray]]:
    """Return `Clips.told`. Many clips have the same `extra`: each is parsed once."""
    coded = pa.chunked_array(extras, pa.string()).dictionary_encode().combine_chunks()
    parsed = [_speaker(json.loads(text)) for text in coded.dictionary.to_pylist()]
    return {key: _numbered([one[place] for one in parsed], coded.indices) for place, key in enumerate(TOLD)}


def _speaker(extra: dict) -> tuple[str, ...]:
    return tuple(sys.intern(" ".join(str(extra.get(key) or "").split())) for key in TOLD)


def _numbered(names: list[str], of_clip: pa.Array) -> tuple[list[str], np.ndarray]:
    """Number the names of distinct extras; `of_clip` holds, for each clip, which of them is its own."""
    coded = pa.array(names, pa.string()).dictionary_encode()
    return coded.dictionary.to_pylist(), coded.indices.to_numpy()[of_clip.to_numpy()]


def hours_by(clips: Clips, key: str, most: int = MOST) -> list[Group]:
    """Return the groups of an accent, age or gender: the largest, then what others there are, then who tells none."""
    names, number = clips.told[key]
    hours = np.bincount(number, clips.seconds, len(names)) / 3600
    counts = np.bincount(number, minlength=len(names)).tolist()
    groups = sorted(map(Group, names, hours.tolist(), counts), key=lambda group: (-group.hours, group.name))
    told, none = [group for group in groups if group.name], [group for group in groups if not group.name]
    if len(told) > most + 1:  # one more is as well named
        rest = told[most:]
        others = Group(f"others ({len(rest)})", sum(one.hours for one in rest), sum(one.clips for one in rest))
        told = [*told[:most], others]
    return told + [group._replace(name=NOT_TOLD) for group in none]


def durations(clips: Clips) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return edges in seconds, shape (bars + 1,), and how many clips of each split lie between them."""
    step, longest = _step(clips.seconds), clips.seconds.max()
    edges = step * np.arange(np.floor(longest / step) + 2)
    parts = np.split(clips.seconds, np.cumsum([len(split) for split in clips.splits.values()])[:-1])
    return edges, {name: np.histogram(part, edges)[0] for name, part in zip(clips.splits, parts, strict=True)}


def _step(seconds: np.ndarray) -> float:
    """Return a round width of a bar near Freedman and Diaconis' rule, that leaves bars few enough to see."""
    low, high = np.quantile(seconds, [0.25, 0.75])
    wide_enough = [step for step in STEPS if seconds.max() <= MOST_BARS * step] or STEPS[-1:]
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


def farthest(clips: Clips, most: int = MOST) -> list[Far]:
    """Return the clips whose characters per second are farthest from the median, the farthest first."""
    pace = clips.pace
    z = robust_z(pace)
    chosen = [int(k) for k in np.argsort(-np.abs(z), kind="stable")[:most] if z[k]]
    rows = [clips.row(k) for k in chosen]
    return [Far(r.id, r.text, r.duration_s, float(pace[k]), float(z[k])) for k, r in zip(chosen, rows, strict=True)]


def shown(split: Split) -> list[int]:
    """Return six clips of a split, fewer if it has fewer: two short ones, two of middle length, two long ones."""
    by_length = np.argsort(split.frames, kind="stable")
    return by_length[sorted({round(at * (len(split) - 1)) for at in SHOWN_AT})].tolist()
