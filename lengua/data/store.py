"""The feature store: Parquet shards of one-byte log-mel and labels, and a manifest that is written last.

    STORE/manifest.json                 its presence means that the store is complete
    STORE/{split}/shard-00000.parquet   also opens as an ordinary Hugging Face dataset

A clip of 4.8 s takes about 38 kB instead of the 960 kB of padded float32. The manifest records everything that
decides the bytes of the store, and its counts; it holds no time and no path, so equal inputs give equal bytes.
"""

import copy
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lengua import audio
from lengua.audio import log_mel
from lengua.data.sources import Dropped, Source
from lengua.models.tokens import MAX_LABEL_TOKENS
from lengua.options import FeatureOptions
from lengua.runtime.errors import RequestError
from lengua.runtime.files import read_json, write_bytes, write_json

MANIFEST_FILE = "manifest.json"
STORE_FORMAT, STORE_FORMAT_VERSION = "lengua-feature-store", 1
DROPPED_METADATA_KEY = "lengua.dropped"
"""Where a shard keeps [id, reason] of what was left out on the way to it."""
CLEANED_KEY = "lengua.cleaned"
"""In a row's extra: the rules that changed its text."""
ROWS_PER_GROUP = 32
"""Rows that one random read brings into memory: about 1 MB."""

SHARD_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("language", pa.string()),
        ("speaker", pa.string()),
        ("duration_s", pa.float64()),
        ("extra", pa.string()),
        ("frames", pa.int32()),
        ("peak", pa.float32()),
        ("mel", pa.binary()),
        ("audio", pa.binary()),
    ]
)
LIGHT_COLUMNS = ["id", "text", "language", "speaker", "duration_s", "extra", "frames", "peak"]


@dataclass(frozen=True)
class Row:
    """One stored utterance. `mel` is uint8 of shape (frames, n_mels); see `lengua.audio.log_mel.decode`."""

    id: str
    text: str
    language: str
    speaker: str
    duration_s: float
    frames: int
    peak: float
    mel: np.ndarray = field(repr=False)
    audio: bytes | None = field(default=None, repr=False)
    extra: dict[str, str] = field(default_factory=dict)

    def log_mel(self) -> np.ndarray:
        """Return the float32 log-mel, shape (frames, n_mels)."""
        return log_mel.decode(self.peak, self.mel)


def write_shard(path: Path, made: Iterable[Row | Dropped]) -> None:
    """Write one shard whole or not at all, its rows as they come; what was dropped is kept in its metadata."""
    made, dropped = iter(made), []
    rows = (item for item in made if isinstance(item, Row) or dropped.append([item.id, item.reason]))
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, SHARD_SCHEMA, compression="zstd", use_dictionary=False) as file:
        while group := list(islice(rows, ROWS_PER_GROUP)):
            columns = {name: [getattr(row, name) for row in group] for name in SHARD_SCHEMA.names}
            columns["extra"] = [json.dumps(extra, ensure_ascii=False, sort_keys=True) for extra in columns["extra"]]
            columns["mel"] = [mel.tobytes() for mel in columns["mel"]]
            file.write_table(pa.table(columns, schema=SHARD_SCHEMA))
        file.add_key_value_metadata({DROPPED_METADATA_KEY: json.dumps(dropped, ensure_ascii=False)})
    write_bytes(path, memoryview(sink.getvalue()))


@dataclass(frozen=True)
class ShardSummary:
    rows: int
    seconds: float
    speakers: frozenset[str]
    languages: Counter
    bytes: int
    dropped: list[Dropped]
    cleaned: list[Dropped]
    """The rules that changed a text, in the place of a reason."""


def read_shard_summary(path: Path) -> ShardSummary:
    with pq.ParquetFile(path) as file:
        light = file.read(columns=["id", "duration_s", "speaker", "language", "extra"])
        dropped = json.loads(file.metadata.metadata[DROPPED_METADATA_KEY.encode()])
    return ShardSummary(
        rows=light.num_rows,
        seconds=float(sum(light["duration_s"].to_pylist())),
        speakers=frozenset(light["speaker"].to_pylist()),
        languages=Counter(light["language"].to_pylist()),
        bytes=path.stat().st_size,
        dropped=[Dropped(*item) for item in dropped],
        cleaned=[
            Dropped(row, rule)
            for row, extra in zip(light["id"].to_pylist(), light["extra"].to_pylist(), strict=True)
            if f'"{CLEANED_KEY}"' in extra
            for rule in json.loads(extra).get(CLEANED_KEY, "").split(", ")
        ],
    )


def shard_path(store: Path, split: str, index: int) -> Path:
    return store / split / f"shard-{index:05}.parquet"


def write_manifest(store: Path, manifest: dict) -> None:
    """Write the manifest; with it the store is complete."""
    write_json(store / MANIFEST_FILE, {"format": STORE_FORMAT, "version": STORE_FORMAT_VERSION, **manifest})


def is_store(path: Path) -> bool:
    return (Path(path) / MANIFEST_FILE).is_file()


def missing_shards(store: Path, manifest: dict) -> list[Path]:
    """Return the shards that a manifest counts and that are not there."""
    counted = ((split, index) for split, count in manifest["splits"].items() for index in range(count["shards"]))
    return [path for split, index in counted if not (path := shard_path(store, split, index)).is_file()]


class Split(Sequence[Row]):
    """The rows of one split, read from disk when they are asked for. Light columns are in memory."""

    def __init__(self, shards: list[Path], n_mels: int):
        self.shards, self.n_mels = shards, n_mels
        tables = [_read_light_columns(shard) for shard in shards] or [SHARD_SCHEMA.empty_table().select(LIGHT_COLUMNS)]
        self._light = pa.concat_tables([table.replace_schema_metadata() for table in tables])
        self._starts = np.cumsum([0, *(table.num_rows for table in tables)])
        self._places = np.arange(self._light.num_rows)
        self._groups = lru_cache(maxsize=64)(self._read_group)

    def __len__(self) -> int:
        return self._light.num_rows

    @property
    def frames(self) -> np.ndarray:
        """Frames of every row: int32, shape (rows,)."""
        return self._light["frames"].to_numpy()

    def column(self, name: str) -> list:
        """Return one light column: id, text, language, speaker, duration_s, extra, frames or peak."""
        return self._light[name].to_pylist()

    def __getitem__(self, index: int) -> Row:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        place = int(self._places[index])
        shard = int(np.searchsorted(self._starts, place, side="right")) - 1
        group, offset = divmod(place - int(self._starts[shard]), ROWS_PER_GROUP)
        heavy = self._groups(shard, group)
        [light] = self._light.slice(index, 1).to_pylist()
        values = np.frombuffer(heavy["mel"][offset].as_py(), np.uint8).reshape(light["frames"], self.n_mels)
        extra = json.loads(light.pop("extra"))
        return Row(**light, extra=extra, mel=values, audio=heavy["audio"][offset].as_py())

    def subset(self, indices: Sequence[int]) -> "Split":
        """Return a view of some rows, in this order."""
        view = copy.copy(self)
        view._light, view._places = self._light.take(indices), self._places[indices]
        return view

    def _read_group(self, shard: int, group: int) -> pa.Table:
        with pq.ParquetFile(self.shards[shard], memory_map=True) as file:
            return file.read_row_group(group, columns=["mel", "audio"])

    def __getstate__(self) -> dict:
        return {key: value for key, value in self.__dict__.items() if key != "_groups"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._groups = lru_cache(maxsize=64)(self._read_group)


def _read_light_columns(shard: Path) -> pa.Table:
    try:
        with pq.ParquetFile(shard) as file:  # read_table would look at the folder, too
            return file.read(columns=LIGHT_COLUMNS)
    except pa.ArrowInvalid as error:
        raise RequestError("a whole shard", f"{shard} cut off or changed", "copy it again or build it again") from error


class Store:
    """A complete feature store. `store.split("train")` gives its rows."""

    def __init__(self, path: Path, manifest: dict):
        self.path, self.manifest = path, manifest

    @property
    def n_mels(self) -> int:
        return self.manifest["n_mels"]

    @property
    def language(self) -> str:
        """The one language of the store, or the most frequent one."""
        return max(self.manifest["languages"], key=self.manifest["languages"].get)

    def split(self, name: str) -> Split:
        """Return the rows of a split.

        Raises:
            RequestError: the store has no rows of that name.
        """
        count = read_split_counts(self.manifest, name, self.path)
        shards = [shard_path(self.path, name, index) for index in range(count["shards"])]
        return Split(shards, self.n_mels)


def open_store(path: Path, n_mels: int | None = None) -> Store:
    """Open a complete store.

    Raises:
        RequestError: no such folder, no manifest, another format version, a shard missing, another mel size.
    """
    path = Path(path)
    if not is_store(path):
        found = f"{path} without {MANIFEST_FILE}" if path.is_dir() else f"no folder {path}"
        raise RequestError("a feature store", found, f"build it (again): lengua features SOURCE --out {path}")
    manifest = check_manifest(read_json(path / MANIFEST_FILE), path, n_mels)
    if missing := missing_shards(path, manifest):
        raise RequestError("every shard of the manifest", f"no {missing[0]}", "copy it again or build it again")
    return Store(path, manifest)


def check_manifest(manifest: dict, place: Path | str, n_mels: int | None = None) -> dict:
    """Return the manifest of a store, wherever that stands.

    Raises:
        RequestError: it is none, or of another version or mel size.
    """
    stated = [manifest.get(name) if isinstance(manifest, dict) else None for name in ("format", "version")]
    if stated != [STORE_FORMAT, STORE_FORMAT_VERSION]:
        found = f"{stated[0]} version {stated[1]} in {place}"
        raise RequestError(f"a {STORE_FORMAT} of version {STORE_FORMAT_VERSION}", found, "build it again")
    if n_mels not in (None, manifest["n_mels"]):
        found = f"{manifest['n_mels']} in {place}"
        raise RequestError(f"features of {n_mels} mel bins", found, f"build them with --n-mels {n_mels}")
    return manifest


def read_split_counts(manifest: dict, split: str, place: Path | str) -> dict:
    """Return what a manifest counts of one split.

    Raises:
        RequestError: the store has no rows of that name.
    """
    counts = manifest["splits"]
    if not counts.get(split, {}).get("utterances"):
        have = ", ".join(f"{name} ({count['utterances']})" for name, count in counts.items())
        found = f"{have or 'nothing'} in {place}"
        raise RequestError(f"utterances of the split {split!r}", found, "name another split, or add recordings")
    return counts[split]


def build_plan(source: Source, options: FeatureOptions) -> dict:
    """Return everything that decides the bytes of the store."""
    return {
        "source": source.uri,
        "revision": source.revision,
        "licence": source.licence,
        "attribution": source.attribution,
        "n_mels": options.n_mels,
        "sampling_rate": audio.SAMPLE_RATE,
        "hop_length": log_mel.HOP_LENGTH,
        "limit": options.limit,
        "filters": {
            "min_seconds": options.min_seconds,
            "max_seconds": options.max_seconds,
            "min_chars_per_second": options.min_chars_per_second,
            "max_chars_per_second": options.max_chars_per_second,
            "max_label_tokens": MAX_LABEL_TOKENS,
            **json.loads(json.dumps(asdict(options.filters))),
        },
        "splits": list(options.splits),
        "keep_audio": list(options.keep_audio),
        "versions": {name: version(name) for name in ("numpy", "pyarrow", "soundfile", "av", "soxr", "asrfront")},
    }


def count_shards(summaries: dict[str, list[ShardSummary]]) -> dict:
    """Return what finished shards hold, by split, by language and by the reasons of what was dropped."""
    shards = [shard for split in summaries.values() for shard in split]
    languages = sum((shard.languages for shard in shards), Counter())
    cleaned = count_reasons([item for shard in shards for item in shard.cleaned])
    return {
        "splits": {
            split: {
                "utterances": sum(shard.rows for shard in parts),
                "hours": round(sum(shard.seconds for shard in parts) / 3600, 4),
                "speakers": len(frozenset().union(*(shard.speakers for shard in parts))),
                "shards": len(parts),
                "bytes": sum(shard.bytes for shard in parts),
            }
            for split, parts in summaries.items()
        },
        "languages": dict(sorted(languages.items())),
        "dropped": count_reasons([item for shard in shards for item in shard.dropped]),
        **({"cleaned": cleaned} if cleaned else {}),
        "bytes": sum(shard.bytes for shard in shards),
    }


def count_reasons(dropped: list[Dropped]) -> dict[str, dict]:
    """Return {reason: {count, examples}}, most frequent first."""
    reasons = Counter(item.reason for item in dropped)
    return {
        reason: {"count": count, "examples": [item.id for item in dropped if item.reason == reason][:5]}
        for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    }
