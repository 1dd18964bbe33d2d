"""Atomic file writes, digests, JSON and JSON Lines, and the folders of the package: assets and cache.

A file is written beside its place and moved there when it is complete, so a killed process leaves no partial file.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import wraps
from hashlib import file_digest
from pathlib import Path
from typing import Any

from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.system import is_main_process


class replacing:
    """Context manager: a fresh folder beside `out` that takes its place when the block ends without an error.

    Everybody may read what is in it: safetensors and temporary folders would keep it to their owner.
    """

    def __init__(self, out: Path):
        self.out = Path(out)

    def __enter__(self) -> Path:
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.fresh = Path(tempfile.mkdtemp(prefix=f".{self.out.name}-", dir=self.out.parent))
        return self.fresh

    def __exit__(self, kind, error, trace) -> None:
        try:
            if kind is None:
                for path in (self.fresh, *self.fresh.rglob("*")):
                    path.chmod(0o755 if path.is_dir() else 0o644)
                self._take_the_place()
        finally:
            shutil.rmtree(self.fresh, ignore_errors=True)

    def _take_the_place(self) -> None:
        """Put away what stands there, and move in; where another process was faster, put away its folder, too."""
        old = self.fresh.with_name(f"{self.fresh.name}-old")
        while True:
            with suppress(FileNotFoundError):
                if self.out.is_dir():
                    os.replace(self.out, old)
            try:
                os.replace(self.fresh, self.out)
                return
            except OSError as clash:
                if clash.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    with suppress(OSError):
                        os.replace(old, self.out)
                    raise
            finally:
                shutil.rmtree(old, ignore_errors=True)


ASSETS = Path(__file__).parent.parent / "assets"
"""Style, scripts, templates, texts and tables that the package reads."""


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(fresh, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError as error:  # a full disk does not say which one it is
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        fresh.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, whole or not at all; letters stay readable."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def write_jsonl(path: Path, records: list[dict]) -> None:
    """Write one JSON object a line, whole or not at all."""
    write_bytes(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode())


def read_json(path: Path) -> Any:
    """Return the value of a JSON file.

    Raises:
        RequestError: it is cut off, or no JSON at all.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise RequestError(f"JSON in {path}", str(error), "copy or make it again") from error


def read_jsonl(path: Path) -> list[dict]:
    """Return the records of a JSON Lines file; none where there is no file."""
    path = Path(path)
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    return [json.loads(line) for line in lines if line]


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file."""
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


def cache_dir() -> Path:
    """Return $LENGUA_CACHE, else $XDG_CACHE_HOME/lengua, else ~/.cache/lengua. The folder may not exist yet.

    Where the last two cannot be written, as in a container with a read-only home, it is a temporary folder.

    Raises:
        LenguaError: that folder belongs to somebody else.
    """
    if chosen := os.environ.get("LENGUA_CACHE"):
        return Path(chosen).expanduser().absolute()
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "lengua"
    except RuntimeError:  # a user whom nobody knows
        return _temporary_cache()
    return home if is_usable(home) else _temporary_cache()


def is_usable(folder: Path) -> bool:
    """Return whether a folder can be written, or made; one that holds something already can be read at least."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if there == folder and folder.is_dir() and next(folder.iterdir(), None) is not None:
        return True
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _temporary_cache() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"lengua-cache-{user}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid") and (folder.is_symlink() or folder.stat().st_uid != os.getuid()):
        raise LenguaError("a cache of one's own", f"{folder} of another user", "set LENGUA_CACHE to another folder")
    return folder


@contextmanager
def exclusive_folder(folder: Path) -> Iterator[None]:
    """Keep other processes from a folder that one writes to; the system lets go of it when the process ends, however.

    Raises:
        LenguaError: another process has it.
    """
    from filelock import FileLock, Timeout

    locks = cache_dir() / "locks"  # not beside the folder, where the file of the lock would be left behind
    locks.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(str(Path(folder).resolve()).encode()).hexdigest()[:16]
    try:
        lock = FileLock(locks / f"{name}.lock", timeout=0).acquire()
    except Timeout as error:
        do = "wait for it, or name another --out"
        raise LenguaError(f"{folder} for this process alone", "another one that writes to it", do) from error
    with lock:
        yield


def exclusive(stage: Callable) -> Callable:
    """Decorate a stage, a function of options with a folder `out`: one process at a time runs it there.

    Of several processes that train together, only the leading one writes.
    """

    @wraps(stage)
    def alone(options, *args, **more):
        with exclusive_folder(options.out) if is_main_process() else nullcontext():
            return stage(options, *args, **more)

    return alone
