"""`hub:owner/name[@revision][:config][?text=COLUMN&audio=COLUMN&...]`: a dataset of the Hugging Face Hub, streamed.

    source = open("fixie-ai/common_voice_17_0:es")
    for item in source.read("dev"): ...

Only what is read is downloaded, and `datasets` decodes no audio, because it would need torchcodec. Columns are found
by the names that datasets usually give them (`find_columns`), or named after the `?`: text, audio, speaker, id,
language.
"""

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from pathlib import PurePosixPath
from urllib.parse import parse_qsl

from lengua.data.sources import Dropped, Utterance
from lengua.data.sources.clip_table import EXTRA_COLUMNS, name_hash
from lengua.data.sources.common_voice import MAX_CLIP_BYTES
from lengua.data.splits import split_name
from lengua.models.languages import language_code
from lengua.runtime.errors import RequestError
from lengua.runtime.hub import HUB_TIMEOUT_S, explain_hub_error, fetch_repo_info, hub_timeout, root_cause_of
from lengua.runtime.parallel import Prefetcher, call_with_timeout

# Text as it is written comes before text made plain: a model learns to write from it.
KNOWN_COLUMN_NAMES = {
    "audio": ("audio", "speech", "wav", "flac", "mp3"),
    "text": (
        *("sentence", "text", "raw_transcription", "transcription", "transcript"),
        *("normalized_text", "normalised_text", "raw_text", "utterance", "label_text"),
    ),
    "speaker": ("client_id", "speaker_id", "speaker", "spk_id"),
    "id": ("path", "file_name", "file", "audio_id", "utt_id", "segment_id"),
    "language": ("locale", "language", "lang"),
}
REQUIRED_COLUMNS = ("audio", "text")
DURATION_UNITS_S = {"duration_s": 1.0, "duration_ms": 0.001, "audio_duration": 1.0}
"""Columns that tell a length, and what one of their units is in seconds."""


@dataclass(frozen=True)
class Columns:
    """The name of each column, empty where there is none."""

    audio: str
    text: str
    speaker: str = ""
    id: str = ""
    language: str = ""

    def clip(self, row: Mapping) -> str:
        """Return the name of a row's clip without folder and ending, or an empty text."""
        path = row.get(self.id) or (row.get(self.audio) or {}).get("path") or ""
        return PurePosixPath(str(path)).stem

    def extra(self, row: Mapping) -> dict[str, str]:
        """Return what else a row tells of its speaker and its votes, as text."""
        values = {name: row.get(column) for column, name in EXTRA_COLUMNS.items() if column in row}
        return {name: str(value) for name, value in values.items() if value not in (None, "", "nan")}

    def seconds(self, row: Mapping) -> float | None:
        """Return the length that a row tells, or None."""
        for name, unit in DURATION_UNITS_S.items():
            if isinstance(value := row.get(name), int | float) and value > 0:
                return value * unit
        return None


def find_columns(names: Iterable[str], sounds: Iterable[str], chosen: Mapping[str, str], where: str) -> Columns:
    """Return the columns to read.

    Args:
        names: all columns.
        sounds: those that hold audio, by their type.
        chosen: columns that were named explicitly: {"text": "normalized_text"}.
        where: the data set, for messages.

    Raises:
        RequestError: no audio, no text, or a column that was chosen is not there.
    """
    names, sounds = list(names), list(sounds)
    have = ", ".join(names)
    for role, name in chosen.items():
        if name not in (sounds if role == "audio" else names):
            do = f"name one of them, ?{role}=COLUMN behind the data set, or leave it out"
            raise RequestError(f"a column {name!r} of {role} in {where}", f"the columns {have}", do)
    found = {role: next((name for name in known if name in names), "") for role, known in KNOWN_COLUMN_NAMES.items()}
    found["audio"] = found["audio"] if found["audio"] in sounds else next(iter(sounds), "")
    columns = Columns(**found | dict(chosen))
    for role in REQUIRED_COLUMNS:
        if not getattr(columns, role):
            known = ", ".join(KNOWN_COLUMN_NAMES[role])
            do = f"name it: hub:NAME?{role}=COLUMN" if role == "text" else "choose a data set of recordings"
            raise RequestError(f"a column with the {role} ({known}) in {where}", f"the columns {have}", do)
    return columns


def cell_audio(value) -> tuple[bytes, str | None]:
    """Return the audio in a cell, and why it cannot be used.

    A path alone is never followed: it would be a path of this machine, named by a stranger.
    """
    data = (value or {}).get("bytes")
    if not data:
        return b"", "no audio" if data is None else "empty clip"
    return data, f"clip over {MAX_CLIP_BYTES >> 20} MB" if len(data) > MAX_CLIP_BYTES else None


# huggingface_hub makes a request again for half a minute; datasets would go on for ten.
DATASETS_RETRY_SETTINGS = {
    "STREAMING_READ_MAX_RETRIES": 1,
    "STREAMING_READ_RETRY_INTERVAL": 1,
    "STREAMING_READ_SERVER_UNAVAILABLE_RETRY_INTERVAL": 1,
    "STREAMING_READ_RATE_LIMIT_RETRY_INTERVAL": 1,
    "STREAMING_OPEN_MAX_RETRIES": 3,
    "STREAMING_OPEN_RETRY_INTERVAL": 1,
}


def open_streams(name: str, config: str | None, revision: str) -> dict:
    """Return the splits of a data set as `datasets.IterableDataset`, by name.

    With the revision given, `datasets` asks the Hub alone, and no viewer of it.

    Raises:
        RequestError: `datasets` is missing, the data set has no such config, several, none, or needs a script.
    """
    datasets = import_datasets()
    try:
        with hub_timeout(HUB_TIMEOUT_S):
            splits = datasets.load_dataset(name, config, revision=revision, streaming=True)
    except ValueError as error:
        raise _about_config(error, name, config) from error
    except (FileNotFoundError, RuntimeError) as error:
        if root_cause_of(error) is not error:
            raise root_cause_of(error) from error
        message = str(error).partition("\n")[0]
        raise RequestError(f"a data set {name} of Parquet or audio files", message, "choose another") from error
    for split, dataset in splits.items():
        if dataset.features is None:
            dataset = dataset._resolve_features()  # by its first rows; there is no public way
        for column, kind in dataset.features.items():
            if isinstance(kind, datasets.Audio):
                dataset = dataset.cast_column(column, datasets.Audio(decode=False))
        splits[split] = dataset
    return dict(splits)


def import_datasets():
    """Return the package `datasets`, made less patient.

    Raises:
        RequestError: it is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        do = "install it: pip install 'lengua[train]'"
        raise RequestError("the package datasets, for hub: sources", "none on this machine", do) from error
    for name, value in DATASETS_RETRY_SETTINGS.items():
        setattr(datasets.config, name, value)
    return datasets


def _about_config(error: ValueError, name: str, config: str | None) -> RequestError:
    message = str(error)
    names = message.partition("[")[2].partition("]")[0].replace("'", "") or "none of that name"
    if "BuilderConfig" not in message and "Config name is missing" not in message:
        return RequestError(f"a data set {name} that datasets can read", message.partition("\n")[0], "choose another")
    expected = f"a config {config!r} in {name}" if config else f"one config in {name}"
    return RequestError(expected, names, f"name one of them: hub:{name}:CONFIG")


@contextmanager
def ensure_event_loop() -> Iterator[None]:
    """Give a thread the event loop that `datasets` expects every thread to have."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        yield
    finally:
        asyncio.set_event_loop(None)
        loop.close()


ROW_TIMEOUT_S = 45.0
"""How long a stream may stand still. Requests that fail are made again by huggingface_hub within this time."""
STREAM_BATCH_ROWS = 16
ROWS_TO_JUDGE = 16
"""Rows whose names must differ if names are to tell clips apart."""
HUB_ADDRESS_PATTERN = re.compile(
    r"(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?(?::(?P<config>[^?]+))?(?:\?(?P<chosen>.*))?"
)
HF_DOWNLOAD = "download it with `hf download {} --repo-type dataset` and read it as folder:PATH"


@dataclass(frozen=True)
class HubAddress:
    """What stands behind `hub:`, understood."""

    name: str
    revision: str | None = None
    config: str | None = None
    chosen: dict[str, str] = field(default_factory=dict)
    """Columns that were named, by what they hold."""

    def __str__(self) -> str:
        columns = "&".join(f"{role}={name}" for role, name in sorted(self.chosen.items()))
        return self.name + (f":{self.config}" if self.config else "") + (f"?{columns}" if columns else "")


def parse_hub_address(text: str) -> HubAddress:
    """Return the address in a text such as "owner/name:es?text=normalized_text".

    Raises:
        RequestError: it is none, or names a column for something unknown.
    """
    found = HUB_ADDRESS_PATTERN.fullmatch(text)
    chosen = dict(parse_qsl(found["chosen"] or "")) if found else {}
    if not found or not set(chosen) <= set(KNOWN_COLUMN_NAMES):
        form = f"hub:owner/name[:config], and behind a ? columns for {', '.join(KNOWN_COLUMN_NAMES)}"
        raise RequestError(form, f"hub:{text}", "put it right")
    return HubAddress(found["name"], found["revision"], found["config"], chosen)


def open(path: str, language: str | None = None) -> "HubSource":
    """Open a data set; `language` is for those that do not tell it.

    Raises:
        RequestError: no such data set or config, a gated one, or one without audio or text.
        LenguaError: the Hub is down, refuses, or does not answer.
    """
    address = parse_hub_address(path)
    info = fetch_repo_info(address.name, "dataset", address.revision)
    source = HubSource(address, info.sha, info.card_data.to_dict() if info.card_data else {}, language)
    _ = source.columns, source.default_language  # what is wrong is refused at once
    return source


@dataclass(frozen=True)
class HubSource:
    """The utterances of one config of one data set. Fulfils `lengua.data.sources.Source`."""

    address: HubAddress
    revision: str
    card: dict
    """The metadata of its card."""
    wish: str | None = None

    @property
    def uri(self) -> str:
        return f"hub:{self.address}"

    @property
    def licence(self) -> str:
        licence = self.card.get("license") or ""
        return ", ".join(licence) if isinstance(licence, list) else str(licence)

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
        languages = [on_card] if isinstance(on_card, str) else list(on_card)
        for name in (self.address.config, languages[0] if len(languages) == 1 else None):
            if name and (code := language_code_or_none(name)):
                return code
        if self.columns.language:
            return None
        raise RequestError(f"a language for {self.uri}", "none in its name, card or columns", "pass --language")

    @cached_property
    def columns(self) -> Columns:
        """Which columns are read."""
        features = next(iter(self._splits.values())).features or {}
        sounds = [  # datasets' own type, or bytes with a path
            name
            for name, kind in features.items()
            if type(kind).__name__ == "Audio" or (isinstance(kind, dict) and {"bytes", "path"} <= set(kind))
        ]
        return find_columns(features, sounds, self.address.chosen, self.uri)

    def shards(self, split: str) -> int:
        """Return in how many parts a split can be read."""
        return self._split(split).num_shards

    def read(self, split: str) -> Iterator[Utterance | Dropped]:
        """Yield the items of one split, in the order of the data set."""
        read, seen = 0, set()
        with explaining_stream_errors(self, lambda: f"{split}, after {read} rows"):
            rows = (row for index in range(self.shards(split)) for row in self._rows(split, index))
            for place, row in Prefetcher(rows, ROW_TIMEOUT_S):
                item = self._item(row, split, place)
                number = name_hash(item.id)
                yield Dropped(item.id, "named twice") if number in seen else item
                seen.add(number)
                read += 1

    def _rows(self, split: str, index: int) -> Iterator[tuple[str, dict]]:
        """Yield the rows of one part, each with its place in the split.

        By batches: plain iteration would leave rows out in a worker of torch's DataLoader, thinking to share them.
        """
        dataset = self._split(split)
        part = dataset.shard(dataset.num_shards, index) if dataset.num_shards > 1 else dataset
        with ensure_event_loop():
            batches = part.iter(batch_size=STREAM_BATCH_ROWS)
            rows = (zip(batch, cells, strict=True) for batch in batches for cells in zip(*batch.values(), strict=True))
            for number, row in enumerate(rows):
                yield f"{split}-{index:05}-{number:06}", dict(row)

    def _item(self, row: dict, split: str, place: str) -> Utterance | Dropped:
        id_ = (self._named and self.columns.clip(row)) or place
        audio, reason = cell_audio(row.get(self.columns.audio))
        text = " ".join(str(row.get(self.columns.text) or "").split())
        language = language_code_or_none(str(row.get(self.columns.language) or "")) or self.default_language
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
        names = [self.columns.clip(row) for row in Prefetcher(rows, ROW_TIMEOUT_S)]
        return all(names) and len(set(names)) == len(names)

    def _split(self, split: str):
        """Return the data set's split of this name, or the one that means the same."""
        means = {name: split_name(name) for name in self._splits}
        name = split if split in means else next((name for name, meant in means.items() if meant == split), None)
        if name is None:
            do = "name one of these with --splits"
            raise RequestError(f"the split {split!r} in {self.uri}", ", ".join(means), do)
        return self._splits[name]

    @cached_property
    def _splits(self) -> dict:
        """The splits as streams, by the data set's own names, with the audio left as bytes."""
        import_datasets()  # which takes seconds, and is not the Hub's fault
        ask = partial(open_streams, self.address.name, self.address.config, self.revision)
        with explaining_stream_errors(self, lambda: "its splits"):
            return call_with_timeout(ROW_TIMEOUT_S, ask)


@contextmanager
def explaining_stream_errors(source: HubSource, where) -> Iterator[None]:
    """Turn whatever `datasets` and huggingface_hub raise into one sentence on where it happened."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except ImportError as error:
        found = "audio files beside a table, which datasets can read with torchcodec only"
        do = HF_DOWNLOAD.format(source.address.name)
        raise RequestError(f"a data set with the audio in its rows ({source.uri})", found, do) from error
    except (*HfHubHTTPError.__bases__, ValueError, RuntimeError) as error:  # OSError; HTTPError of httpx or httpx2
        raise explain_hub_error(error, f"{source.uri} ({where()})", ROW_TIMEOUT_S) from error


def language_code_or_none(name: str) -> str | None:
    """Return Whisper's code for a name such as es, Spanish, sv-SE or es_419; None where there is none."""
    try:
        return language_code(name.replace("_", "-")) if name else None
    except RequestError:
        return None
