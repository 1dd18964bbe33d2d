"""A feature store in a few lines: what it holds, what was left out on the way and why, whose the recordings are."""

from pathlib import Path
from typing import Protocol

from lengua.files import read_json
from lengua.notebook.tables import grid
from lengua.publishing.markdown import Ready, escaped
from lengua.store import MANIFEST


class Stored(Protocol):
    """A store, or the result of building one."""

    path: Path


def splits_table(store: Stored) -> str:
    """Return Markdown from the manifest: clips, minutes and speakers of each split, and what was left out."""
    manifest = read_json(store.path / MANIFEST)
    rows = [
        [split, f"{count['utterances']:,}", f"{60 * count['hours']:.1f}", f"{count['speakers']:,}"]
        for split, count in manifest["splits"].items()
    ]
    for reason, found in manifest["dropped"].items():
        rows.append([Ready(f"*left out: {escaped(reason)}*"), f"{found['count']:,}", "", ""])
    return "\n\n".join([grid(["", "clips", "minutes", "speakers"], rows), *whose(manifest)])


def whose(manifest: dict) -> list[str]:
    """Return whom to name for the recordings, where anybody asked for it."""
    told = manifest.get("attribution")
    return [f"Recordings: {escaped(told)}."] if told else []
