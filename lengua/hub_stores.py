"""A feature store on the Hub: copied to this machine shard by shard, or read without keeping any of it on disk.

    if store := find("hub:ana/es-features"):
        store.copy(Path("stores/es"), ("train", "dev"))     # the very bytes that were pushed
        for row in store.rows("train"): ...                 # lengua.store.Row

A shard is one request of about 10 MB, the next of which is under way while the last is read.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from lengua.files import write_bytes
from lengua.hub import ask, look_up
from lengua.sources.ahead import Ahead
from lengua.sources.hub import Address, parse
from lengua.store import FORMAT, MANIFEST, Row, checked, counts_of_split, shard_path, write_manifest

SHARD_PATIENCE_S = 20.0
"""How long a download may stand still before it is begun anew; there are three tries."""
BATCH = 32


def find(uri: str) -> "HubStore | None":
    """Return the feature store behind a hub: source, at the revision that it has now; None where it is something else.

    Raises:
        RequestError: no such data set, or a store of another version.
        LenguaError: the Hub is down, refuses, or does not answer.
    """
    scheme, _, rest = uri.partition(":")
    if scheme != "hub":
        return None
    address = parse(rest)
    info = look_up(address.name, "dataset", address.revision)
    if MANIFEST not in {file.rfilename for file in info.siblings or []}:
        return None
    manifest = json.loads(download(address, info.sha, MANIFEST))
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        return None
    return HubStore(address, info.sha, checked(manifest, uri))


@dataclass(frozen=True)
class HubStore:
    """A complete feature store of the Hub."""

    address: Address
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
        shards = counts_of_split(self.manifest, split, self.uri)["shards"]
        for data in Ahead(self._shards(split, range(shards)), None, depth=1):
            yield from rows_of(data, self.manifest["n_mels"])

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
            for index, data in zip(missing, Ahead(self._shards(split, missing), None, depth=1), strict=True):
                write_bytes(paths[index], data)
                done += len(data)
                tell(done, total)
        tell(done, total)
        write_manifest(out, self.manifest | {"splits": counts})

    def _shards(self, split: str, indices: Iterable[int]) -> Iterator[bytes]:
        names = (shard_path(Path(), split, index).as_posix() for index in indices)
        return map(partial(download, self.address, self.revision), names)


def download(address: Address, revision: str, path: str) -> bytes:
    """Return a file of a data set."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    def question() -> bytes:
        url = hf_hub_url(address.name, path, repo_type="dataset", revision=revision)
        response = get_session().get(url, headers=build_hf_headers())
        hf_raise_for_status(response)
        return response.content

    return ask(f"{path} of the data set {address.name}", question, SHARD_PATIENCE_S)


def rows_of(data: bytes, n_mels: int) -> Iterator[Row]:
    """Yield the rows of a shard."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(pa.BufferReader(data)).iter_batches(batch_size=BATCH):
        for row in batch.to_pylist():
            coded = np.frombuffer(row["mel"], np.uint8).reshape(row["frames"], n_mels)
            yield Row(**{**row, "mel": coded, "extra": json.loads(row["extra"])})
