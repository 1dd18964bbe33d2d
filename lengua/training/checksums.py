"""Checksums of a checkpoint: `whole.json` in it, written last, has the size and sha256 of every file.

checksum_folder(folder, step=40, best=30)   # once everything else is on disk
read_checksums(folder)                      # None where the save was cut off
find_damage(folder)                         # None where every file is as it was written
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from lengua.runtime.files import file_sha256, write_json

CHECKSUMS_FILE = "whole.json"
RELATIVE_FILE_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
SHA256_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ChecksumManifest:
    """The content of `whole.json`."""

    step: int
    best: int | None
    """The step that was best on dev so far."""
    resumable: bool
    """False where only the model was kept."""
    files: dict[str, tuple[int, str]]
    """Bytes and sha256 of each, by its path in the folder."""

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(size for size, _ in self.files.values())


def checksum_folder(folder: Path, step: int, best: int | None) -> None:
    """Write `whole.json` of all files that are there."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != CHECKSUMS_FILE]
    files = {path.relative_to(folder).as_posix(): (path.stat().st_size, file_sha256(path)) for path in paths}
    write_checksums(folder, ChecksumManifest(step, best, resumable=True, files=files))


def write_checksums(folder: Path, manifest: ChecksumManifest) -> None:
    """Write `whole.json`, atomically."""
    write_json(folder / CHECKSUMS_FILE, asdict(manifest))


def read_checksums(folder: Path) -> ChecksumManifest | None:
    """Return the manifest of a folder; None where there is none, or nothing that could be one."""
    try:
        return parse_checksums((folder / CHECKSUMS_FILE).read_bytes())
    except (OSError, ValueError):
        return None


def parse_checksums(data: bytes) -> ChecksumManifest:
    """Return what a `whole.json` from anywhere says.

    Raises:
        ValueError: it is not a manifest, or names a file outside its folder.
    """
    record = json.loads(data)
    try:
        files = {name: (int(size), str(digest)) for name, (size, digest) in record["files"].items()}
        manifest = ChecksumManifest(int(record["step"]), record["best"], bool(record["resumable"]), files)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a checksum manifest: {error!r}") from error
    for name, (size, digest) in files.items():
        well_formed = RELATIVE_FILE_NAME.fullmatch(name) and SHA256_HEX.fullmatch(digest)
        if not well_formed or name == CHECKSUMS_FILE or size < 0:
            raise ValueError(f"not a file name of a checkpoint: {name!r}")
    if not isinstance(manifest.best, int | None) or manifest.step < 0:
        raise ValueError(f"not a step: {manifest.step}, {manifest.best}")
    return manifest


def find_damage(folder: Path) -> str | None:
    """Return what is wrong with a folder, None where it is whole."""
    manifest = read_checksums(folder)
    if manifest is None:
        return "it was cut off"
    for name, (size, digest) in manifest.files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes instead of {size:,}"
        if file_sha256(path) != digest:
            return f"{name} holds something else than was written"
    return None
