"""When is a checkpoint whole? When `whole.json` in it, written last, agrees with every file that it names.

seal(folder, step=40, best=30)      # once everything else is on disk
read_seal(folder)                   # None where that never happened
damage(folder)                      # None where every file is as it was then
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
    """What `whole.json` says."""

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


def checksum_folder(folder: Path, step: int, best: int | None) -> ChecksumManifest:
    """Write `whole.json` of all files that are there."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != CHECKSUMS_FILE]
    files = {path.relative_to(folder).as_posix(): (path.stat().st_size, file_sha256(path)) for path in paths}
    return write_checksums(folder, ChecksumManifest(step, best, resumable=True, files=files))


def write_checksums(folder: Path, made: ChecksumManifest) -> ChecksumManifest:
    """Write a seal, whole or not at all."""
    write_json(folder / CHECKSUMS_FILE, asdict(made))
    return made


def read_checksums(folder: Path) -> ChecksumManifest | None:
    """Return the seal of a folder; None where there is none, or nothing that could be one."""
    try:
        return parse_checksums((folder / CHECKSUMS_FILE).read_bytes())
    except (OSError, ValueError):
        return None


def parse_checksums(data: bytes) -> ChecksumManifest:
    """Return what a `whole.json` from anywhere says.

    Raises:
        ValueError: it is none, or names a file outside its folder.
    """
    told = json.loads(data)
    try:
        files = {name: (int(size), str(digest)) for name, (size, digest) in told["files"].items()}
        made = ChecksumManifest(int(told["step"]), told["best"], bool(told["resumable"]), files)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"no seal of a checkpoint: {error!r}") from error
    for name, (size, digest) in files.items():
        if (
            not RELATIVE_FILE_NAME.fullmatch(name)
            or name == CHECKSUMS_FILE
            or size < 0
            or not SHA256_HEX.fullmatch(digest)
        ):
            raise ValueError(f"no file of a checkpoint: {name!r}")
    if not isinstance(made.best, int | None) or made.step < 0:
        raise ValueError(f"no step of a run: {made.step}, {made.best}")
    return made


def find_damage(folder: Path) -> str | None:
    """Return what is wrong with a folder, None where it is whole."""
    made = read_checksums(folder)
    if made is None:
        return "it was cut off"
    for name, (size, digest) in made.files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes instead of {size:,}"
        if file_sha256(path) != digest:
            return f"{name} holds something else than was written"
    return None
