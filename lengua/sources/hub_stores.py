"""A feature store on the Hub, read shard by shard without keeping any of it on disk.

    if is_feature_store("hub:ana/es-features"):
        store = open_hub_store("hub:ana/es-features")
        for row in store.rows("train"): Row(**row)     # lengua.store.Row

A shard is one request of about 10 MB, the next of which is under way while the last is read.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from lengua.errors import RequestError
from lengua.hub import ask, look_up
from lengua.hub.stores import FORMAT, MANIFEST
from lengua.sources.ahead import Ahead
from lengua.sources.hub import Address, parse

SHARD_PATIENCE_S = 20.0
"""How long a download may stand still before it is begun anew; there are three tries."""
BATCH = 32


def is_feature_store(uri: str) -> bool:
    """Return whether a hub: source is a feature store rather than a data set of recordings; the Hub is asked."""
    scheme, _, rest = uri.partition(":")
    if scheme != "hub":
        return False
    address = parse(rest)
    return MANIFEST in files_of(look_up(address.name, "dataset", address.revision))


def files_of(info) -> set[str]:
    """Return the files of a repository as the Hub describes it."""
    return {file.rfilename for file in info.siblings or []}


def open_hub_store(uri: str) -> "HubStore":
    """Open a feature store of the Hub, at the revision that it has now.

    Raises:
        RequestError: no such data set, or no feature store.
        LenguaError: the Hub is down, refuses, or does not answer.
    """
    address = parse(uri.removeprefix("hub:"))
    info = look_up(address.name, "dataset", address.revision)
    if MANIFEST not in files_of(info):
        raise RequestError(
            f"a feature store at {uri}", f"a data set without {MANIFEST}", "build one with lengua features"
        )
    manifest = json.loads(download(address, info.sha, MANIFEST))
    if manifest.get("format") != FORMAT:
        raise RequestError(f"a {FORMAT} at {uri}", f"{manifest.get('format')!r} in its {MANIFEST}", "choose another")
    return HubStore(address, info.sha, manifest)


@dataclass(frozen=True)
class HubStore:
    """A complete feature store of the Hub."""

    address: Address
    revision: str
    manifest: dict

    @property
    def n_mels(self) -> int:
        return self.manifest["n_mels"]

    @property
    def language(self) -> str:
        """The one language of the store, or the most frequent one."""
        return max(self.manifest["languages"], key=self.manifest["languages"].get)

    def shards(self, split: str) -> int:
        """Return how many shards a split has.

        Raises:
            RequestError: the store has no rows of that name.
        """
        counts = self.manifest["splits"]
        if not counts.get(split, {}).get("utterances"):
            have = ", ".join(f"{name} ({count['utterances']})" for name, count in counts.items())
            found = f"{have or 'nothing'} in hub:{self.address}"
            raise RequestError(f"utterances of the split {split!r}", found, "name another split")
        return counts[split]["shards"]

    def rows(self, split: str) -> Iterator[dict]:
        """Yield the rows of a split as the fields of `lengua.store.Row`, in the order of the store."""
        return self._rows(split, range(self.shards(split)))

    def read_shard(self, split: str, index: int) -> Iterator[dict]:
        """Yield the rows of one shard."""
        return self._rows(split, range(index, index + 1))

    def _rows(self, split: str, indices: Iterable[int]) -> Iterator[dict]:
        names = (f"{split}/shard-{index:05}.parquet" for index in indices)
        for data in Ahead(map(partial(download, self.address, self.revision), names), None, depth=1):
            yield from rows_of(data, self.n_mels)


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


def rows_of(data: bytes, n_mels: int) -> Iterator[dict]:
    """Yield the rows of a shard; `mel` is uint8 of shape (frames, n_mels)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(pa.BufferReader(data)).iter_batches(batch_size=BATCH):
        for row in batch.to_pylist():
            coded = np.frombuffer(row["mel"], np.uint8).reshape(row["frames"], n_mels)
            yield {**row, "mel": coded, "extra": json.loads(row["extra"])}
