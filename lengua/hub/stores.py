"""A feature store on the Hub: an ordinary data set, with a card that says where it is from and how to read it.

    push_store(Path("stores/es"), "owner/es-features").url

What was made from Mozilla Data Collective stays private by default, for its terms forbid to hand it on; so do one's own
recordings, which are for those who speak in them to publish.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from lengua.errors import RequestError
from lengua.files import read_json
from lengua.hub.uploading import upload_folder
from lengua.store import MANIFEST

REHOSTING = "the terms of Mozilla Data Collective forbid to hand on a data set that was downloaded there"
PEOPLE = "whoever speaks in these recordings should be asked before everyone can listen"
PRIVATE = {"collective": REHOSTING, "common_voice": REHOSTING, "folder": PEOPLE}
LICENCES = {"CC0-1.0": "cc0-1.0", "CC-BY-4.0": "cc-by-4.0", "CC-BY-SA-4.0": "cc-by-sa-4.0", "Apache-2.0": "apache-2.0"}
"""Licences by the name that the Hub has for them."""


@dataclass(frozen=True)
class PushResult:
    """Where a store went."""

    repo_id: str
    revision: str
    private: bool
    because: str | None
    """Why it is private, where that was not asked for."""
    url: str


def private_because(source: str) -> str | None:
    """Return why a store made from this source is private unless it is said otherwise, or None."""
    return PRIVATE.get(source.partition(":")[0])


def push_store(store: Path, repo_id: str, private: bool | None = None) -> PushResult:
    """Upload a complete store as one commit; shards of an earlier push that it no longer has go with the same commit.

    Args:
        private: None makes it private where `private_because` gives a reason, and public else.

    Raises:
        RequestError: no complete store, no token that may write, or a public data set where a private one is meant.
        LenguaError: the upload broke off; run again, it sends what is missing.
    """
    from huggingface_hub import constants

    if not (store / MANIFEST).is_file():
        raise RequestError("a complete feature store", f"no {MANIFEST} in {store}", "build it with lengua features")
    manifest = read_json(store / MANIFEST)
    because = private_because(manifest["source"]) if private is None else None
    hidden = bool(because) if private is None else private
    card = store_card(manifest, repo_id, because).encode()
    message = f"Feature store of {manifest['source']}"
    replaces = ("*/shard-*.parquet", MANIFEST)
    revision = upload_folder(store, repo_id, "dataset", hidden, message, {"README.md": card}, replaces)
    return PushResult(repo_id, revision, hidden, because, f"{constants.ENDPOINT}/datasets/{repo_id}")


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
        "license": LICENCES.get(licence, "other"),
        **({} if licence in LICENCES else {"license_name": licence or "see the source"}),
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
        f"`{manifest['revision']}`. Licence of the speech: {manifest['licence'] or 'not told by the source'}.{thanks}",
    ]
    return [*lines, "", f"This data set is private: {because}."] if because else lines


def _counts(manifest: dict) -> list[str]:
    kept = ["| split | utterances | hours | speakers |", "|---|---|---|---|"]
    for split, count in manifest["splits"].items():
        kept.append(f"| {split} | {count['utterances']} | {count['hours']:.2f} | {count['speakers']} |")
    left = [f"| {reason} | {told['count']} |" for reason, told in manifest["dropped"].items()]
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
