"""Keep the newest checkpoint of a run on the Hub, in a private model repository, for machines that may be taken away.

    uploader = CheckpointUploader("owner/name", out, print)
    uploader.offer(checkpoint, None)            # uploaded while training goes on
    remote = find_on_hub("owner/name")          # on the next machine
    remote.fetch(out, options)

The repository has `checkpoint/`, `best/` (the model that was best on dev, where that is another one), run.json and
history.jsonl, all of one commit. Each commit replaces the one before, whose large files stay in the history of the
repository and count as storage: delete the repository when the run is done.
"""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import write_bytes, write_json
from lengua.runtime.hub import call_hub, download_file, fetch_repo_info, require_private, upload_folder
from lengua.training.checksums import CHECKSUMS_FILE, ChecksumManifest, find_damage, parse_checksums, write_checksums

CHECKPOINT_FOLDER, BEST_FOLDER, RUN_FILE, HISTORY_FILE = "checkpoint", "best", "run.json", "history.jsonl"
MAX_HISTORY_BYTES = 2**28
FINAL_UPLOAD_TIMEOUT_S = 600.0
"""How long the end of a run waits for the last checkpoint to arrive."""


class CheckpointUploader:
    """Upload one checkpoint at a time, in a thread of its own; one that comes meanwhile is left for the end.

    Args:
        tell: called by `report` and `close` with what went wrong.
    """

    def __init__(self, repo_id: str, out: Path, tell: Callable[[str], None]):
        self.repo_id, self.out, self.tell = repo_id, out, tell
        self.thread: threading.Thread | None = None
        self.skipped: tuple | None = None
        self.last_error, self.unread = "", []

    def offer(self, checkpoint: Path, best: tuple[Path, ChecksumManifest] | None) -> None:
        """Send a whole checkpoint unless another one is on its way.

        `best` is the folder and the manifest of the model that was best on dev, where it is not this one's.
        """
        if self.thread and self.thread.is_alive():
            self.skipped = (checkpoint, best)
            return
        self.skipped = None
        staged = self.out / "checkpoints" / ".sending"
        try:  # links, for these files may be rotated away meanwhile
            stage_upload(staged, self.out, checkpoint, best)
        except OSError as error:
            self._note_failure(checkpoint.name, error)
            return
        self.thread = threading.Thread(target=self._send, args=(staged, checkpoint.name), daemon=True)
        self.thread.start()

    def report(self) -> None:
        """Tell what went wrong since the last time."""
        while self.unread:
            self.tell(self.unread.pop(0))

    def close(self) -> None:
        """Wait for what is on its way, then send the last one if it was left out; not for ever."""
        until = time.monotonic() + FINAL_UPLOAD_TIMEOUT_S
        while self.thread and (left := until - time.monotonic()) > 0:
            self.tell(f"sending the last checkpoint to {self.repo_id}, for {left / 60:.0f} min at most")
            self.thread.join(left)
            if self.thread.is_alive():
                break
            self.thread = None
            if self.skipped and self.skipped[0].is_dir():
                self.offer(*self.skipped)
        if self.thread:
            self.unread.append(f"the last checkpoint did not reach {self.repo_id} in time; the one before it stays")
        self.report()

    def _send(self, staged: Path, name: str) -> None:
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
        try:
            replaced = (f"{CHECKPOINT_FOLDER}/*", f"{BEST_FOLDER}/*")
            upload_folder(staged, self.repo_id, "model", True, name, replaces=replaced)
            self.last_error = ""
        except Exception as error:  # whatever it is, training goes on, and it is reported
            self._note_failure(name, error)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _note_failure(self, name: str, error: Exception) -> None:
        if str(error) != self.last_error:  # the same trouble every few minutes is reported once
            self.unread.append(f"{name} did not reach {self.repo_id}, training goes on: {error}")
        self.last_error = str(error)


def stage_upload(staged: Path, out: Path, checkpoint: Path, best: tuple[Path, ChecksumManifest] | None) -> None:
    """Lay out what is sent, in links to the files."""
    shutil.rmtree(staged, ignore_errors=True)
    for path in checkpoint.rglob("*"):
        if path.is_file():
            link_or_copy(path, staged / CHECKPOINT_FOLDER / path.relative_to(checkpoint))
    if best:
        folder, manifest = best
        for name in manifest.files:
            link_or_copy(folder / name, staged / BEST_FOLDER / name)
        write_checksums(staged / BEST_FOLDER, manifest)
    for name in (RUN_FILE, HISTORY_FILE):  # these change while they are sent
        if (out / name).is_file():
            write_bytes(staged / name, (out / name).read_bytes())


def link_or_copy(path: Path, to: Path) -> None:
    """Link a file, or copy it where the disk knows no links."""
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, to)
    except OSError:
        shutil.copyfile(path, to)


@dataclass(frozen=True)
class HubCheckpoint:
    """A whole checkpoint on the Hub."""

    repo_id: str
    revision: str
    manifest: ChecksumManifest
    best: ChecksumManifest | None
    run: dict
    """run.json, as it was when the checkpoint was sent."""

    @property
    def bytes(self) -> int:
        """Size of what `fetch` copies."""
        return self.manifest.bytes + (self.best.bytes if self.best else 0)

    def fetch(self, out: Path, options: dict) -> Path:
        """Copy it into a run's folder, the checkpoint itself last; return that. run.json has the options given here.

        Broken off and run again, files that had arrived are not fetched again.

        Raises:
            LenguaError: no room, or other bytes than the manifest states.
        """
        folder = out / "checkpoints"
        arriving = folder / ".arriving" / self.revision
        arriving.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(arriving).free) < self.bytes:
            expected = f"{self.bytes / 2**30:.1f} GiB free for the checkpoint of {self.repo_id}"
            raise LenguaError(expected, f"{free / 2**30:.1f} GiB for {out}", "free some space, or use another --out")
        parts = {BEST_FOLDER: self.best, CHECKPOINT_FOLDER: self.manifest}
        parts = {name: manifest for name, manifest in parts.items() if manifest}
        for name, manifest in parts.items():
            self._fetch_folder(name, manifest, arriving)
        write_bytes(out / HISTORY_FILE, download_file(self.repo_id, self.revision, HISTORY_FILE, MAX_HISTORY_BYTES))
        write_json(out / RUN_FILE, self.run | {"options": options})
        for name, manifest in parts.items():
            os.replace(arriving / name, folder / f"checkpoint-{manifest.step}")
        shutil.rmtree(arriving.parent)
        return folder / f"checkpoint-{self.manifest.step}"

    def _fetch_folder(self, name: str, manifest: ChecksumManifest, arriving: Path) -> None:
        for file, (size, _) in manifest.files.items():
            path = arriving / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file():
                fresh = path.with_name(f".{path.name}.part")
                with open(fresh, "wb") as held:
                    download_file(self.repo_id, self.revision, f"{name}/{file}", size, held)
                os.replace(fresh, path)
        write_checksums(arriving / name, manifest)
        if reason := find_damage(arriving / name):
            shutil.rmtree(arriving)
            raise LenguaError(f"{name}/ of {self.repo_id} as it was sent", reason, "run it again, or use --no-resume")


def find_on_hub(repo_id: str) -> HubCheckpoint | None:
    """Return the checkpoint that a repository has now; None where there is no repository or nothing whole in it.

    Raises:
        RequestError: it is public, or has something that is no checkpoint of lengua.
        LenguaError: the Hub is down, refuses, or does not answer.
    """
    from huggingface_hub import HfApi

    if not call_hub(f"the model {repo_id}", partial(HfApi().repo_exists, repo_id, repo_type="model")):
        return None
    require_private(repo_id, "model")
    info = fetch_repo_info(repo_id, "model")
    names = {file.rfilename for file in info.siblings or []}
    newest, best = (f"{folder}/{CHECKSUMS_FILE}" for folder in (CHECKPOINT_FOLDER, BEST_FOLDER))
    if not {newest, RUN_FILE, HISTORY_FILE} <= names:
        return None
    get = partial(download_file, repo_id, info.sha)
    try:
        manifest, run = parse_checksums(get(newest)), json.loads(get(RUN_FILE))
        if not manifest.resumable or not isinstance(run, dict) or not isinstance(run.get("options"), dict):
            raise ValueError("nothing to go on from")
        return HubCheckpoint(repo_id, info.sha, manifest, parse_checksums(get(best)) if best in names else None, run)
    except ValueError as error:
        do = "name another repository, or start over with --no-resume"
        raise RequestError(f"a checkpoint of lengua in {repo_id}", str(error), do) from error
