"""Clips to compare programs on: spread over the test split of a store or a source, else over its dev split."""

from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lengua import audio, mel
from lengua.errors import RequestError
from lengua.options import PublishOptions
from lengua.runs import read_run
from lengua.sources import Utterance, is_source, open_source
from lengua.store import Store, is_store, open_store

SPLITS = ("test", "dev")
SURVEYED = 50
"""Clips of a source that are looked at for each one that is taken: a source may have no end."""
DO = "name a store or a source with --clips, or leave the comparison out with --parity-clips 0"


class Clip(NamedTuple):
    """A clip of at most 30 s, and what is said in it."""

    id: str
    reference: str
    samples: np.ndarray
    """float32 at 16 kHz."""


def clips_for(run: str | Path, options: PublishOptions, language: str | None = None) -> list[Clip]:
    """Return `options.parity_clips` clips of `options.clips`, else of the store that the run learned from.

    Args:
        run: a run's folder, or a model folder, which has no store of its own.
        language: that of the clips, for a source that does not tell.

    Raises:
        RequestError: no such store or source, or none that kept the sound of its clips.
    """
    if options.parity_clips <= 0:
        return []
    name = options.clips or _own_store(Path(run))
    if name is None:
        raise RequestError("clips to compare programs on", f"no store of {run} on this machine", DO)
    if is_source(str(name)):
        clips = _of_source(str(name), options.parity_clips, language)
    else:
        clips = _of_store(open_store(Path(name)), options.parity_clips)
    if not clips:
        raise RequestError("clips with their sound in test or dev", f"none in {name}", DO)
    return clips


def _own_store(run: Path) -> Path | None:
    """Return the store that a run learned from, if it is still there."""
    found = read_run(run) if run.is_dir() else None
    places = (run / "store", Path(found.options["source"])) if found else (run / "store",)
    return next((place for place in places if is_store(place)), None)


def _of_store(store: Store, count: int) -> list[Clip]:
    for name in SPLITS:
        if not store.manifest["splits"].get(name, {}).get("utterances"):
            continue
        split = store.split(name)
        rows = (split[index] for index in spread(len(split), count))
        if clips := [Clip(row.id, row.text, audio.load(row.audio)) for row in rows if row.audio]:
            return clips
    return []


def _of_source(uri: str, count: int, language: str | None) -> list[Clip]:
    source = open_source(uri, language)
    for name in SPLITS:
        items = list(islice((item for item in source.read(name) if isinstance(item, Utterance)), SURVEYED * count))
        chosen = [items[index] for index in spread(len(items), count)]
        loaded = [Clip(item.id, item.text, audio.load(item.audio)) for item in chosen]
        if clips := [clip for clip in loaded if 0 < len(clip.samples) <= mel.WINDOW_SAMPLES]:
            return clips
    return []


def spread(items: int, count: int) -> list[int]:
    """Return the places of `count` of so many items, evenly from first to last."""
    count = min(items, count)
    return [items * (2 * index + 1) // (2 * count) for index in range(count)]
