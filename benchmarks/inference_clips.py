"""What the programs of benchmarks/inference.py hear: clips of Common Voice and of the run's own test set, in memory."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from common_voice import SHARED

from lengua import audio
from lengua.data.store import open_store
from lengua.runtime.errors import LenguaError

PAUSE_S = (0.3, 1.2)
"""Between two sentences of the long recording."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class Clip:
    """One recording, and what is said in it."""

    set: str
    speaker: str
    text: str
    samples: np.ndarray = field(repr=False)

    @property
    def seconds(self) -> float:
        """How long it is."""
        return audio.duration_s(self.samples)


def clips_of(store: Path, split: str, common_voice: Path | None, language: str, count: int) -> list[Clip]:
    """Return so many clips of each set that is there, Common Voice first.

    Raises:
        LenguaError: neither of them is.
    """
    released = common_voice or SHARED.parent / language
    found = common_voice_clips(released, count) if has_clips(released) else []
    if (store / "manifest.json").is_file():
        found += store_clips(store, split, count)
    if not found:
        raise LenguaError("clips", f"no Common Voice at {released} and no store at {store}", "name one: --store")
    return found


def has_clips(release: Path) -> bool:
    """Return whether a language's folder of Common Voice stands there."""
    return (release / "validated.tsv").is_file()


def common_voice_clips(release: Path, count: int) -> list[Clip]:
    """Return clips spread over the validated ones of a language, speaker after speaker."""
    with open(release / "validated.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    rows.sort(key=lambda row: (row["client_id"], row["path"]))
    title = f"Common Voice {release.name}"
    return [
        Clip(title, row["client_id"], row["sentence"], audio.load(release / "clips" / row["path"]))
        for row in spread(rows, count)
    ]


def store_clips(path: Path, split: str, count: int) -> list[Clip]:
    """Return clips spread over a split of a store.

    Raises:
        LenguaError: it kept no sound.
    """
    store = open_store(path)
    rows = spread(store.split(split), count)
    if silent := [row.id for row in rows if not row.audio]:
        found = f"none of {silent[0]} in {path}"
        raise LenguaError("a store that kept the sound of its clips", found, f"build it with --keep-audio {split}")
    title = f"{store.manifest['source']}, {split}"
    return [Clip(title, row.speaker, row.text, audio.load(row.audio)) for row in rows]


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Return so many items, evenly spread; all of them where there are no more."""
    count = min(count, len(items))
    return [items[len(items) * index // count] for index in range(count)]


def joined(clips: Sequence[Clip], minutes: float, seed: int = 17) -> tuple[np.ndarray, str]:
    """Return (samples, text) of clips one after another with pauses, until so many minutes are full.

    Each pass over the clips has an order of its own. A pause is as loud as the quietest tenth of a second of the clip
    before it: no room is as silent as zeros.
    """
    rng = np.random.default_rng(seed)
    parts, texts, wanted, length = [], [], minutes * 60 * audio.SAMPLE_RATE, 0
    while length < wanted:
        for index in rng.permutation(len(clips)):
            pause = room_tone(clips[index].samples, rng.uniform(*PAUSE_S), rng)
            parts += [clips[index].samples, pause]
            texts.append(clips[index].text)
            length += len(clips[index].samples) + len(pause)
            if length >= wanted:
                break
    return np.concatenate(parts), " ".join(texts)


def room_tone(samples: np.ndarray, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Return noise as loud as the quietest tenth of a second of a recording."""
    size = min(audio.SAMPLE_RATE // 10, len(samples))
    blocks = samples[: len(samples) // size * size].reshape(-1, size)
    level = float(np.sqrt(np.mean(np.square(blocks), axis=1)).min())
    return (level * rng.standard_normal(round(seconds * audio.SAMPLE_RATE))).astype(np.float32)
