"""A feature store on the Hub: pushed as an ordinary dataset with a card, copied from there, or read without copying.

    push_store(Path("stores/es"), "owner/es-features").url
    if store := find_hub_store("hub:ana/es-features"):
        store.copy(Path("stores/es"), ("train", "dev"))     # the same bytes that were pushed
        for row in store.rows("train"): ...                 # lengua.data.store.Row

A store made from Mozilla Data Collective is private by default, because its terms forbid redistribution; so is one
made from own recordings, whose speakers should consent first. A shard is one request of about 10 MB; the next one is
requested while the last is read.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from lengua.data.sources.hub import HubAddress, parse_hub_address
from lengua.data.store import (
    MANIFEST_FILE,
    STORE_FORMAT,
    Row,
    check_manifest,
    read_split_counts,
    shard_path,
    write_manifest,
)
from lengua.runtime.errors import RequestError
from lengua.runtime.files import read_json, write_bytes
from lengua.runtime.hub import download_file, fetch_repo_info, upload_folder
from lengua.runtime.parallel import Prefetcher

NO_REHOSTING_REASON = "the terms of Mozilla Data Collective forbid to hand on a data set that was downloaded there"
CONSENT_REASON = "whoever speaks in these recordings should be asked before everyone can listen"
PRIVATE_REASONS = {"collective": NO_REHOSTING_REASON, "common_voice": NO_REHOSTING_REASON, "folder": CONSENT_REASON}
HUB_LICENCES = {
    "CC0-1.0": "cc0-1.0",
    "CC-BY-4.0": "cc-by-4.0",
    "CC-BY-SA-4.0": "cc-by-sa-4.0",
    "Apache-2.0": "apache-2.0",
}
"""Licences by the name that the Hub has for them."""


@dataclass(frozen=True)
class StorePushResult:
    """Where a store went."""

    repo_id: str
    revision: str
    private: bool
    because: str | None
    """Why it is private, where that was not asked for."""
    url: str


def private_reason(source: str) -> str | None:
    """Return why a store made from this source is private unless it is made public explicitly, or None."""
    return PRIVATE_REASONS.get(source.partition(":")[0])


def push_store(store: Path, repo_id: str, private: bool | None = None) -> StorePushResult:
    """Upload a complete store as one commit; shards of an earlier push that it no longer has go with the same commit.

    Args:
        private: None makes it private where `private_reason` gives a reason, and public else.

    Raises:
        RequestError: no complete store, no token that may write, or a public data set where a private one is meant.
        LenguaError: the upload broke off; run again, it sends what is missing.
    """
    from huggingface_hub import constants

    if not (store / MANIFEST_FILE).is_file():
        raise RequestError(
            "a complete feature store", f"no {MANIFEST_FILE} in {store}", "build it with lengua features"
        )
    manifest = read_json(store / MANIFEST_FILE)
    because = private_reason(manifest["source"]) if private is None else None
    hidden = bool(because) if private is None else private
    card = store_card(manifest, repo_id, because).encode()
    message = f"Feature store of {manifest['source']}"
    replaces = ("*/shard-*.parquet", MANIFEST_FILE)
    revision = upload_folder(store, repo_id, "dataset", hidden, message, {"README.md": card}, replaces)
    return StorePushResult(repo_id, revision, hidden, because, f"{constants.ENDPOINT}/datasets/{repo_id}")


def store_card(manifest: dict, repo_id: str, because: str | None = None) -> str:
    """Return the card of a store: source, licence, counts, filters, and how to read its rows."""
    rows = [f"{_front_matter(manifest)}# {repo_id.partition('/')[2]}", "", *_about(manifest, because), ""]
    return "\n".join([*rows, *_counts(manifest), "", *_reading(manifest, repo_id), ""])


def _front_matter(manifest: dict) -> str:
    """Return the YAML on top; JSON is YAML, so names from outside cannot break out of it."""
    licence = manifest["licence"]
    splits = [split for split, count in manifest["splits"].items() if count["utterances"]]
    files = [{"split": split, "path": f"{split}/shard-*.parquet"} for split in splits]
    fields = {
        "license": HUB_LICENCES.get(licence, "other"),
        **({} if licence in HUB_LICENCES else {"license_name": licence or "see the source"}),
        "language": sorted(manifest["languages"]),
        "task_categories": ["automatic-speech-recognition"],
        "tags": ["lengua", "whisper", "log-mel"],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    return "\n".join(["---", *lines, "---", ""])


def _about(manifest: dict, because: str | None) -> list[str]:
    thanks = f" Attribution: {manifest['attribution']}." if manifest["attribution"] else ""
    lines = [
        f"Log-mel features and labels for training Whisper, made by lengua from `{manifest['source']}`, revision",
        f"`{manifest['revision']}`. Licence of the speech: {manifest['licence'] or 'not given by the source'}.{thanks}",
    ]
    return [*lines, "", f"This data set is private: {because}."] if because else lines


def _counts(manifest: dict) -> list[str]:
    kept = ["| split | utterances | hours | speakers |", "|---|---|---|---|"]
    for split, count in manifest["splits"].items():
        kept.append(f"| {split} | {count['utterances']} | {count['hours']:.2f} | {count['speakers']} |")
    left = [f"| {reason} | {entry['count']} |" for reason, entry in manifest["dropped"].items()]
    dropped = ["", "| left out because | utterances |", "|---|---|", *left] if left else []
    filters = ", ".join(f"{name} {value}" for name, value in manifest["filters"].items() if value not in (None, [], ()))
    return [*kept, *dropped, "", f"Filters: {filters}."]


def _reading(manifest: dict, repo_id: str) -> list[str]:
    split = next((split for split, count in manifest["splits"].items() if count["utterances"]), "train")
    return [
        "A clip is stored as one byte a value, from its own silence (0) to its loudest point (255). To read one:",
        "",
        "```python",
        "import numpy as np",
        "from datasets import load_dataset",
        "",
        f'row = next(iter(load_dataset("{repo_id}", split="{split}", streaming=True)))',
        f'coded = np.frombuffer(row["mel"], np.uint8).reshape(row["frames"], {manifest["n_mels"]})',
        'floor = max(row["peak"] - 2, -1.5)',
        'log_mel = floor + coded / 255 * (row["peak"] - floor)',
        'print(row["text"], log_mel.shape)',
        "```",
    ]


SHARD_BATCH_ROWS = 32


def find_hub_store(uri: str) -> "HubStore | None":
    """Return the feature store behind a hub: source, at the revision that it has now; None where it is something else.

    Raises:
        RequestError: no such data set, or a store of another version.
        LenguaError: the Hub is down, refuses, or does not answer.
    """
    scheme, _, rest = uri.partition(":")
    if scheme != "hub":
        return None
    address = parse_hub_address(rest)
    info = fetch_repo_info(address.name, "dataset", address.revision)
    if MANIFEST_FILE not in {file.rfilename for file in info.siblings or []}:
        return None
    manifest = json.loads(download_file(address.name, info.sha, MANIFEST_FILE, repo_type="dataset"))
    if not isinstance(manifest, dict) or manifest.get("format") != STORE_FORMAT:
        return None
    return HubStore(address, info.sha, check_manifest(manifest, uri))


@dataclass(frozen=True)
class HubStore:
    """A complete feature store of the Hub."""

    address: HubAddress
    revision: str
    manifest: dict

    @property
    def uri(self) -> str:
        return f"hub:{self.address}"

    def rows(self, split: str) -> Iterator[Row]:
        """Yield the rows of a split, in the order of the store.

        Raises:
            RequestError: the store has no rows of that name.
        """
        shards = read_split_counts(self.manifest, split, self.uri)["shards"]
        for data in Prefetcher(self._shards(split, range(shards)), None, depth=1):
            yield from read_shard_rows(data, self.manifest["n_mels"])

    def copy(self, out: Path, splits: Sequence[str], tell: Callable[[int, int], None]) -> None:
        """Write the shards of some splits as they are, those that are there left alone; the manifest comes last.

        Args:
            tell: called with the bytes that are there and those that there will be.
        """
        counts = {split: self.manifest["splits"][split] for split in splits}
        done, total = 0, sum(count["bytes"] for count in counts.values())
        for split, count in counts.items():
            paths = [shard_path(out, split, index) for index in range(count["shards"])]
            missing = [index for index, path in enumerate(paths) if not path.is_file()]
            done += sum(path.stat().st_size for path in paths if path.is_file())
            for index, data in zip(missing, Prefetcher(self._shards(split, missing), None, depth=1), strict=True):
                write_bytes(paths[index], data)
                done += len(data)
                tell(done, total)
        tell(done, total)
        write_manifest(out, self.manifest | {"splits": counts})

    def _shards(self, split: str, indices: Iterable[int]) -> Iterator[bytes]:
        fetch = partial(download_file, self.address.name, self.revision, repo_type="dataset")
        max_bytes = self.manifest["splits"][split]["bytes"]
        return (fetch(shard_path(Path(), split, index).as_posix(), max_bytes) for index in indices)


def read_shard_rows(data: bytes, n_mels: int) -> Iterator[Row]:
    """Yield the rows of a shard."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(pa.BufferReader(data)).iter_batches(batch_size=SHARD_BATCH_ROWS):
        for row in batch.to_pylist():
            coded = np.frombuffer(row["mel"], np.uint8).reshape(row["frames"], n_mels)
            yield Row(**{**row, "mel": coded, "extra": json.loads(row["extra"])})
