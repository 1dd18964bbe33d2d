"""`hub:owner/name[@revision][:config][?text=COLUMN&audio=COLUMN&...]`: a data set of the Hugging Face Hub, streamed.

    source = open("fixie-ai/common_voice_17_0:es")
    for item in source.read("dev"): ...

Nothing is downloaded but what is read, and nothing decoded: `datasets` would want torchcodec for that. Columns are
found by their names (`lengua.sources.columns`) or named behind the `?`: text, audio, speaker, id, language.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from urllib.parse import parse_qsl

from lengua.errors import RequestError
from lengua.hub import explained, look_up
from lengua.languages import language_code
from lengua.sources import Dropped, Utterance
from lengua.sources.ahead import Ahead, within
from lengua.sources.clip_table import number_of
from lengua.sources.columns import KNOWN, Columns, find, is_sound, sound
from lengua.sources.splitting import split_name

STALL_S = 45.0
"""How long a stream may stand still. Requests that fail are made again by huggingface_hub within this time."""
BATCH = 16
ROWS_TO_JUDGE = 16
"""Rows whose names must differ if names are to tell clips apart."""
ADDRESS = re.compile(
    r"(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?(?::(?P<config>[^?]+))?(?:\?(?P<chosen>.*))?"
)
HF_DOWNLOAD = "download it with `hf download {} --repo-type dataset` and read it as folder:PATH"


@dataclass(frozen=True)
class Address:
    """What stands behind `hub:`, understood."""

    name: str
    revision: str | None = None
    config: str | None = None
    chosen: dict[str, str] = field(default_factory=dict)
    """Columns that were named, by what they hold."""

    def __str__(self) -> str:
        columns = "&".join(f"{role}={name}" for role, name in sorted(self.chosen.items()))
        return self.name + (f":{self.config}" if self.config else "") + (f"?{columns}" if columns else "")


def parse(text: str) -> Address:
    """Return the address in a text such as "owner/name:es?text=normalized_text".

    Raises:
        RequestError: it is none, or names a column for something unknown.
    """
    found = ADDRESS.fullmatch(text)
    chosen = dict(parse_qsl(found["chosen"] or "")) if found else {}
    if not found or not set(chosen) <= set(KNOWN):
        form = f"hub:owner/name[:config], and behind a ? columns for {', '.join(KNOWN)}"
        raise RequestError(form, f"hub:{text}", "put it right")
    return Address(found["name"], found["revision"], found["config"], chosen)


def open(path: str, language: str | None = None) -> "HubSource":
    """Open a data set; `language` is for those that do not tell it.

    Raises:
        RequestError: no such data set or config, a gated one, or one without audio or text.
        LenguaError: the Hub is down, refuses, or does not answer.
    """
    address = parse(path)
    info = look_up(address.name, "dataset", address.revision)
    source = HubSource(address, info.sha, info.card_data.to_dict() if info.card_data else {}, language)
    _ = source.columns, source.default_language  # what is wrong is told at once
    return source


@dataclass(frozen=True)
class HubSource:
    """The utterances of one config of one data set. Fulfils `lengua.sources.Source`."""

    address: Address
    revision: str
    card: dict
    """The metadata of its card."""
    wish: str | None = None

    @property
    def uri(self) -> str:
        return f"hub:{self.address}"

    @property
    def licence(self) -> str:
        told = self.card.get("license") or ""
        return ", ".join(told) if isinstance(told, list) else str(told)

    @property
    def attribution(self) -> str:
        return f"{self.address.name} on the Hugging Face Hub"

    @cached_property
    def default_language(self) -> str | None:
        """The language of rows that do not tell theirs: the one asked for, that of the config, or of the card.

        Raises:
            RequestError: nothing tells it, and no column does either.
        """
        if self.wish:
            return language_code(self.wish)
        on_card = self.card.get("language") or []
        told = [on_card] if isinstance(on_card, str) else list(on_card)
        for name in (self.address.config, told[0] if len(told) == 1 else None):
            if name and (code := known_code(name)):
                return code
        if self.columns.language:
            return None
        raise RequestError(f"a language for {self.uri}", "none in its name, card or columns", "pass --language")

    @cached_property
    def columns(self) -> Columns:
        """Which columns are read."""
        features = next(iter(self._splits.values())).features or {}
        sounds = [name for name, kind in features.items() if is_sound(kind)]
        return find(features, sounds, self.address.chosen, self.uri)

    def shards(self, split: str) -> int:
        """Return in how many parts a split can be read."""
        return self._split(split).num_shards

    def read(self, split: str) -> Iterator[Utterance | Dropped]:
        """Yield the items of one split, in the order of the data set."""
        read, seen = 0, set()
        with telling(self, lambda: f"{split}, after {read} rows"):
            rows = (row for index in range(self.shards(split)) for row in self._rows(split, index))
            for place, row in Ahead(rows, STALL_S):
                item = self._item(row, split, place)
                number = number_of(item.id)
                yield Dropped(item.id, "named twice") if number in seen else item
                seen.add(number)
                read += 1

    def _rows(self, split: str, index: int) -> Iterator[tuple[str, dict]]:
        """Yield the rows of one part, each with its place in the split.

        By batches: plain iteration would leave rows out in a worker of torch's DataLoader, thinking to share them.
        """
        from lengua.sources.hub_streams import event_loop

        dataset = self._split(split)
        part = dataset.shard(dataset.num_shards, index) if dataset.num_shards > 1 else dataset
        with event_loop():
            for number, batch in enumerate(part.iter(batch_size=BATCH)):
                for offset, cells in enumerate(zip(*batch.values(), strict=True)):
                    yield f"{split}-{index:05}-{number * BATCH + offset:06}", dict(zip(batch, cells, strict=True))

    def _item(self, row: dict, split: str, place: str) -> Utterance | Dropped:
        id_ = (self._named and self.columns.clip(row)) or place
        audio, reason = sound(row.get(self.columns.audio))
        text = " ".join(str(row.get(self.columns.text) or "").split())
        language = known_code(str(row.get(self.columns.language) or "")) or self.default_language
        if reason := reason or ("no text" if not text else None if language else "unknown language"):
            return Dropped(id_, reason)
        speaker, extra = str(row.get(self.columns.speaker) or ""), self.columns.extra(self._spelled(row))
        return Utterance(id_, audio, text, language, speaker, self.columns.seconds(row), split, extra)

    def _spelled(self, row: dict) -> dict:
        """Return a row with names in place of the numbers of classes."""
        features = next(iter(self._splits.values())).features
        classes = {name: kind for name, kind in features.items() if hasattr(kind, "int2str")}
        return row | {name: kind.int2str(row[name]) for name, kind in classes.items() if isinstance(row[name], int)}

    @cached_property
    def _named(self) -> bool:
        """Whether the clips' names tell them apart; in some data sets all are called the same."""
        split = next(iter(self._splits))
        rows = (row for _, row in islice(self._rows(split, 0), ROWS_TO_JUDGE))
        names = [self.columns.clip(row) for row in Ahead(rows, STALL_S)]
        return all(names) and len(set(names)) == len(names)

    def _split(self, split: str):
        """Return the data set's split of this name, or the one that means the same."""
        means = {name: split_name(name) for name in self._splits}
        name = split if split in means else next((name for name, meant in means.items() if meant == split), None)
        if name is None:
            raise RequestError(
                f"the split {split!r} in {self.uri}", ", ".join(means), "name one of these with --splits"
            )
        return self._splits[name]

    @cached_property
    def _splits(self) -> dict:
        """The splits as streams, by the data set's own names, with the audio left as bytes."""
        from lengua.sources.hub_streams import import_datasets, open_streams

        import_datasets()  # which takes seconds, and is not the Hub's fault
        with telling(self, lambda: "its splits"):
            return within(STALL_S, lambda: open_streams(self.address.name, self.address.config, self.revision))


@contextmanager
def telling(source: HubSource, where) -> Iterator[None]:
    """Turn whatever `datasets` and huggingface_hub raise into one sentence on where it happened."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except ImportError as error:
        found = "audio files beside a table, which datasets can read with torchcodec only"
        do = HF_DOWNLOAD.format(source.address.name)
        raise RequestError(f"a data set with the audio in its rows ({source.uri})", found, do) from error
    except (*HfHubHTTPError.__bases__, ValueError, RuntimeError) as error:  # OSError; HTTPError of httpx or httpx2
        raise explained(error, f"{source.uri} ({where()})", STALL_S) from error


def known_code(name: str) -> str | None:
    """Return Whisper's code for a name such as es, Spanish, sv-SE or es_419; None where there is none."""
    try:
        return language_code(name.replace("_", "-")) if name else None
    except RequestError:
        return None
