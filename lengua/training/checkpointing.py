"""Checkpoints of a run: saved by the clock, verified by checksums, rotated, uploaded, and found again to resume from.

    saver = CheckpointCallback(options, watch)
    checkpoint = saver.find(options)                        # here or on the Hub, damaged ones passed over
    with explaining_full_disk(options.out), saver: ...      # train

On disk are at any moment the two newest whole checkpoints, and of the best on dev, as each of the two knows it, at
least the model. A kill during a save leaves a folder without checksums, which the next start removes.
"""

import errno
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, broadcast_object_list
from safetensors import SafetensorError
from transformers import TrainerCallback

from lengua.options import TrainOptions
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import read_json, write_json
from lengua.runtime.progress import Progress, Watch
from lengua.training.checksums import (
    CHECKSUMS_FILE,
    ChecksumManifest,
    checksum_folder,
    find_damage,
    read_checksums,
    write_checksums,
)
from lengua.training.hub_sync import CheckpointUploader, find_on_hub
from lengua.training.runs import options_to_json

MAX_CHECKPOINTS_KEPT = 2
"""Whole checkpoints that stay, the newest."""
TRAINER_STATE_FILE = "trainer_state.json"
RESUME_ONLY_FILES = ("optimizer*", "scheduler*", "scaler*", "rng_state*", "stream-*.json", TRAINER_STATE_FILE)
"""What is not needed of a checkpoint that is kept for its model."""
PER_START_OPTIONS = ("resume", "recipe", "checkpoint_minutes", "push_checkpoints", "report_to", "blend")
"""Options that change nothing of what is learned; a run may go on with others."""
DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
PROBE_BYTES = 2**20


class CheckpointCallback(TrainerCallback):
    """Save checkpoints by the clock, write their checksums, rotate and upload them.

    A context manager: at its end the last one is uploaded.
    """

    def __init__(self, options: TrainOptions, watch: Watch):
        self.watch, self.every, self.step = watch, 60 * options.checkpoint_minutes, 0
        self.folder, self.saved = options.out / "checkpoints", time.monotonic()
        self.processes = PartialState()
        pushes = options.push_checkpoints and self.processes.is_main_process
        self.uploader = CheckpointUploader(options.push_checkpoints, options.out, self._report) if pushes else None

    def __enter__(self) -> "CheckpointCallback":
        return self

    def __exit__(self, *error) -> None:
        if self.uploader:
            self.uploader.close()

    def find(self, options: TrainOptions) -> Path | None:
        """Return the checkpoint to go on from, the same for all processes, and remove what is in its way.

        Raises:
            LenguaError: the one on the Hub is another run's, or the Hub does not answer.
        """
        [checkpoint] = broadcast_object_list([self._find(options) if self.processes.is_main_process else None])
        return checkpoint

    def _find(self, options: TrainOptions) -> Path | None:
        checkpoint, damage = newest_whole_checkpoint(self.folder)
        self.step = checkpoint_step(checkpoint) if checkpoint else 0
        if damage:
            then = f"going on from step {self.step}" if checkpoint else "nothing whole before it"
            self._report(f"{', '.join(damage)}: {then}")
        remove_stale_checkpoints(self.folder, checkpoint)
        if checkpoint is None and options.push_checkpoints and options.resume:
            checkpoint = self._from_hub(options)
        if checkpoint and (loss := check_best_checkpoint(self.folder, checkpoint)):
            self._report(loss)
        return checkpoint

    def _from_hub(self, options: TrainOptions) -> Path | None:
        remote = find_on_hub(options.push_checkpoints)
        if remote is None:
            return None
        expected = f"the options that the checkpoint of {options.push_checkpoints} on the Hub was made with"
        require_same_options(remote.run["options"], options, expected, "another --push-checkpoints", "out")
        self.step = remote.manifest.step
        self._report(f"fetching {remote.bytes / 1e6:,.0f} MB of {options.push_checkpoints}")
        checkpoint = remote.fetch(options.out, options_to_json(options))
        self._report(f"going on from step {self.step}, as {options.push_checkpoints} has it")
        return checkpoint

    def on_train_begin(self, args, state, control, **kwargs):
        """Find the best checkpoint where this machine has it; where it is lost, any other will be better."""
        self.saved, self.step = time.monotonic(), state.global_step
        best = self.folder / f"checkpoint-{state.best_global_step}"
        state.best_model_checkpoint = str(best) if best.is_dir() else None
        if not best.is_dir():
            state.best_metric = state.best_global_step = None

    def on_step_end(self, args, state, control, **kwargs):
        due = time.monotonic() - self.saved >= self.every
        if args.world_size > 1:  # by the clock of the first process
            due = bool(broadcast(torch.tensor([int(due)], device=args.device)).item())
        if due:
            control.should_save = True
        self.step = state.global_step
        if self.uploader:
            self.uploader.report()

    def on_save(self, args, state, control, **kwargs):
        """Write the checksums of what all processes have saved, rotate the checkpoints before it, and upload it."""
        self.processes.wait_for_everyone()
        if state.is_world_process_zero:
            checkpoint = self.folder / f"checkpoint-{state.global_step}"
            finish_checkpoint(checkpoint, state.global_step, state.best_global_step)
            rotate_checkpoints(self.folder)
            if self.uploader:
                self.uploader.offer(checkpoint, self._best_model(state))
        self.saved = time.monotonic()

    def _best_model(self, state) -> tuple[Path, ChecksumManifest] | None:
        if state.best_global_step in (None, state.global_step):
            return None
        best = self.folder / f"checkpoint-{state.best_global_step}"
        return best, model_only_manifest(read_checksums(best))

    def _report(self, note: str) -> None:
        self.watch(Progress("checkpoint", self.step, None, "", note))


def checkpoint_step(checkpoint: Path) -> int:
    return int(checkpoint.name.partition("-")[2])


def list_checkpoints(folder: Path) -> list[Path]:
    """Return all checkpoints, whole or not, the newest first."""
    named = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(named, key=checkpoint_step, reverse=True)


def newest_whole_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """Return the newest checkpoint that is whole, and what is wrong with the newer ones."""
    damage = []
    for path in list_checkpoints(folder):
        manifest = read_checksums(path)
        if manifest and not manifest.resumable:
            continue
        if (reason := find_damage(path)) is None:
            return path, damage
        damage.append(f"{path.name} is not whole ({reason})")
    return None, damage


def remove_stale_checkpoints(folder: Path, checkpoint: Path | None) -> None:
    """Remove what a start from `checkpoint` must not find: what was cut off, and all that is newer."""
    for path in list_checkpoints(folder):
        if checkpoint is None or read_checksums(path) is None or checkpoint_step(path) > checkpoint_step(checkpoint):
            remove_checkpoint(path)
    shutil.rmtree(folder / ".sending", ignore_errors=True)
    if checkpoint:
        shutil.rmtree(folder / ".arriving", ignore_errors=True)


def check_best_checkpoint(folder: Path, checkpoint: Path) -> str | None:
    """Verify the model that was best when a checkpoint was saved; remove it where it is damaged, and say so."""
    best = read_checksums(checkpoint).best
    path = folder / f"checkpoint-{best}"
    if best is None or (reason := find_damage(path)) is None:
        return None
    remove_checkpoint(path)
    return f"the model of step {best}, the best on dev so far, is lost ({reason}): the best from here on is taken"


def finish_checkpoint(checkpoint: Path, step: int, best: int | None) -> None:
    """Write the checksums of a checkpoint. Where the best one is on this machine is of no use to the next."""
    state = read_json(checkpoint / TRAINER_STATE_FILE)
    write_json(checkpoint / TRAINER_STATE_FILE, state | {"best_model_checkpoint": None})
    checksum_folder(checkpoint, step, best)


def rotate_checkpoints(folder: Path) -> None:
    """Keep the newest whole checkpoints, and the models of the best that they know of."""
    manifests = {path: manifest for path in list_checkpoints(folder) if (manifest := read_checksums(path))}
    newest = [path for path, manifest in manifests.items() if manifest.resumable][:MAX_CHECKPOINTS_KEPT]
    best = {manifests[path].best for path in newest}
    for path, manifest in manifests.items():
        if path not in newest and manifest.step in best:
            strip_optimizer(path, manifest)
        elif path not in newest:
            remove_checkpoint(path)


def strip_optimizer(checkpoint: Path, manifest: ChecksumManifest) -> None:
    """Keep only the model of a checkpoint."""
    kept = model_only_manifest(manifest)
    if manifest.resumable:
        write_checksums(checkpoint, kept)
    for path in checkpoint.rglob("*"):
        if path.is_file() and path.relative_to(checkpoint).as_posix() not in {*kept.files, CHECKSUMS_FILE}:
            path.unlink()


def model_only_manifest(manifest: ChecksumManifest) -> ChecksumManifest:
    """Return the manifest of the model alone."""
    resume_only = {name for name in manifest.files if any(fnmatch(name, pattern) for pattern in RESUME_ONLY_FILES)}
    files = {name: entry for name, entry in manifest.files.items() if name not in resume_only}
    return replace(manifest, resumable=False, files=files)


def remove_checkpoint(checkpoint: Path) -> None:
    """Remove a checkpoint."""
    (checkpoint / CHECKSUMS_FILE).unlink(missing_ok=True)  # first: whatever stops this, the rest is not taken for whole
    shutil.rmtree(checkpoint, ignore_errors=True)


def require_same_options(before: dict, options: TrainOptions, expected: str, do: str, *others: str) -> None:
    """Let a run go on only with the options that it was started with, as run.json has them, but for `others`.

    Raises:
        RequestError: some are others now. Each is named.
    """
    now, free = options_to_json(options), {*PER_START_OPTIONS, *others}
    changed = [key for key in before if key not in free and before[key] != now.get(key)]
    if changed:
        what = ", ".join(f"{key} was {before[key]!r}, is {now.get(key)!r}" for key in changed)
        raise RequestError(expected, what, f"use --no-resume or {do}")


@contextmanager
def explaining_full_disk(out: Path) -> Iterator[None]:
    """Explain a disk that fills up while a run writes, and leave no half checkpoint on it.

    Raises:
        LenguaError: it is full. What was whole before is so still.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have words of their own for it
        if not (getattr(error, "errno", None) in DISK_FULL_ERRNOS or is_disk_full(out)):
            raise
        manifests = {path: read_checksums(path) for path in list_checkpoints(out / "checkpoints")}
        for path in [path for path, manifest in manifests.items() if manifest is None]:
            remove_checkpoint(path)
        last = next((manifest.step for manifest in manifests.values() if manifest and manifest.resumable), None)
        then = "it starts over" if last is None else f"it goes on from step {last}"
        do = f"free some space and run the same command again: {then}"
        raise LenguaError(f"room for checkpoints and model in {out}", "a full disk", do) from error


def is_disk_full(folder: Path) -> bool:
    """Ask the disk itself whether it takes anything more."""
    probe = folder / f".probe.{os.getpid()}"
    try:
        probe.write_bytes(bytes(PROBE_BYTES))
        return False
    except OSError as error:
        return error.errno in DISK_FULL_ERRNOS
    finally:
        probe.unlink(missing_ok=True)
