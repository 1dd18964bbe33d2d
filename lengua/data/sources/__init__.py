"""Where utterances come from. A source is download and prepare, nothing else: it decodes no audio.

    source = open_source("sample:es")
    for item in source.read("train"): ...   # Utterance or Dropped

The names of sources (`SOURCE` in every command) are in `SCHEMES`.
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lengua.runtime.errors import RequestError

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Utterance:
    """One clip of speech and its words. `id` is stable across runs; everything is joined by it, never by order."""

    id: str
    audio: Path | bytes
    text: str
    language: str
    """A Whisper language code such as "es"."""
    speaker: str
    duration_s: float | None = None
    """Seconds, where the source knows them without decoding."""
    split: str = "train"
    extra: dict[str, str] = field(default_factory=dict)
    """What else the source tells: accent, age, gender, up_votes, ..."""


@dataclass(frozen=True)
class Dropped:
    """An item that the source itself left out, with a reason short enough to count by."""

    id: str
    reason: str


class Source(Protocol):
    """What every source offers."""

    uri: str
    """The URI without any path of this machine, as the manifest of a store records it."""
    revision: str
    """Changes whenever the items that `read` yields change."""
    licence: str
    attribution: str
    """Whom to name wherever the audio or its text is shown; empty when nobody asked for it."""

    def read(self, split: str) -> Iterator[Utterance | Dropped]:
        """Yield the items of one split, in an order that is the same on every machine.

        A source may also offer `survey(split)`, the same items without a look at any audio, and `read_many(splits)`,
        which yields (split, item) for several splits in one pass.
        """


SCHEMES = {
    "sample": "sample:es, real Spanish speech from Debian packages (fr, it, ru: test clips only)",
    "folder": "folder:PATH, your own recordings with a metadata.csv or metadata.jsonl",
    "common_voice": "common_voice:PATH, an unpacked Common Voice folder or its .tar.gz as it is",
    "collective": "collective:DATASET_ID, Mozilla Data Collective (needs MDC_API_KEY)",
    "hub": "hub:owner/name[:config], a data set of the Hugging Face Hub",
}


def is_source(name: str) -> bool:
    """Return whether `name` is a source URI rather than a path or a model id."""
    return name.partition(":")[0] in SCHEMES


def open_source(uri: str, language: str | None = None) -> Source:
    """Open a source by its URI; `language` is needed where the source does not carry one.

    Raises:
        RequestError: the scheme is unknown, or what it points to is not there.
    """
    scheme, _, rest = uri.partition(":")
    if scheme not in SCHEMES or not rest:
        known = "; ".join(SCHEMES.values())
        raise RequestError("a source", repr(uri), f"name one of these: {known}")
    return importlib.import_module(f"lengua.data.sources.{scheme}").open(rest, language)
