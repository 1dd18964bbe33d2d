"""A run that is killed ten times and started again must learn what one that was left alone learns.

    python benchmarks/resumes.py --store runs/demo/store --kills 10
    python benchmarks/resumes.py --streamed --source sample:es

Real processes of `lengua train` in float32, killed by SIGKILL at moments that a seed draws: most of them at any time
from the start of the command to a while after its first step, every third while a checkpoint is being written. The same
command then goes on. Compared are the losses that both runs logged, the final weights, and the loss of both final
models on one batch. Exit code 1 beyond the tolerance. The last line is one JSON object.
"""

import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from harness import BenchmarkOptions, markdown, report, run, tell
from kills import After, Due, run_until
from memory import check_done, started
from safetensors.torch import load_file

from lengua.data.store import open_store
from lengua.models.checkpoints import load_tokenizer
from lengua.models.whisper import load_model, window_frames
from lengua.options import BASE_MODEL
from lengua.runtime.files import file_sha256
from lengua.training.checksums import CHECKSUMS_FILE, read_checksums
from lengua.training.dataset import ClipDataset, Collator
from lengua.training.runs import read_history
from lengua.training.samplers import dev_batches
from lengua.training.trainer import token_loss

POLL_S = 0.02
TOLERANCE = 1e-4
"""Of losses, relative, and of weights, absolute. On a CPU with the same threads both have come out equal to the bit."""
LOGGED_EVERY = 5
WEIGHTS = "model/model.safetensors"


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Kill a run again and again, and compare what it has learned in the end."""

    store: Path = Path("runs/demo/store")
    """The clips: a feature store."""
    streamed: bool = False
    """Learn from --source with --stream instead."""
    source: str = "sample:es"
    """The source of --streamed: sample:es, folder:PATH, ..."""
    language: str | None = None
    """Its language, where it carries none."""
    base: str = BASE_MODEL
    """The checkpoint to start from."""
    kills: int = 10
    """How many, if the run does not end before."""
    steps: int = 60
    """Optimiser steps of the run."""
    batch_size: int = 4
    """Clips a step."""
    checkpoint_minutes: float = 0.2
    """How often a checkpoint is saved."""
    seed: int = 17
    """Draws the moments."""


@dataclass
class Tally:
    """What came of the kills."""

    kills: int = 0
    starts: int = 0
    from_steps: list[int] = field(default_factory=list)
    """The step that each start went on from."""
    lost: list[int] = field(default_factory=list)
    """Steps that each kill cost, as far as they were logged: every fifth is, so up to four more."""
    hit: Counter = field(default_factory=Counter)


def main(options: Options) -> dict:
    with tempfile.TemporaryDirectory() as scratch:
        command, whole, cut = command_of(options), Path(scratch) / "whole", Path(scratch) / "cut"
        first_step_s = left_alone(command, whole)
        tally, drawn = Tally(), random.Random(options.seed)
        ended = False
        while not ended:
            left = tally.kills < options.kills
            ended = one_start(command, cut, tally, moment(cut, tally, first_step_s, drawn, options) if left else None)
            tell(f"{tally.kills} kills, steps lost {tally.lost}, went on from {tally.from_steps}")
        compared = compare(whole, cut, tally.from_steps)
        compared |= batch_losses(whole, cut, whole / "store" if options.streamed else options.store)
    return show(options, tally, compared)


def command_of(options: Options) -> list[str]:
    """Return the command of the run; its folder comes last."""
    how = ["--steps", options.steps, "--batch-size", options.batch_size, "--base", options.base]
    how += ["--evaluations", 1, "--checkpoint-minutes", options.checkpoint_minutes, "--learning-rate", 1e-5]
    how += ["--precision", "fp32", "--device", "cpu", *(["--language", options.language] if options.language else [])]
    source = [options.source, "--stream", "--shuffle-window", 64] if options.streamed else [options.store]
    return [sys.executable, "-m", "lengua", "train", *map(str, [*source, *how]), "--out"]


def left_alone(command: list[str], out: Path) -> float:
    """Train without any kill; return the seconds until its history was begun."""
    tell("the run that is left alone")
    begun, process, first = time.monotonic(), started(command, out), 0.0
    while process.poll() is None:
        if not first and (out / "history.jsonl").is_file():
            first = time.monotonic() - begun
        time.sleep(POLL_S)
    check_done(process, out)
    return first


def moment(out: Path, tally: Tally, first_step_s: float, drawn: random.Random, options: Options) -> Due:
    """Draw the moment of the next kill: any, or a moment after the second checkpoint of this start was begun."""
    between_s = 60 * options.checkpoint_minutes
    if tally.kills % 3 < 2:
        due_s = drawn.uniform(0.1, first_step_s + 4 * between_s)
        return lambda out, elapsed: elapsed >= due_s
    before = begun_checkpoints(out)  # left there by an earlier start
    return After(
        lambda out: len(begun_checkpoints(out) - before) >= 2, drawn.uniform(0, 0.5), 3 * first_step_s + 8 * between_s
    )


def one_start(command: list[str], out: Path, tally: Tally, due: Due | None) -> bool:
    """Start the run once more, and kill it when it is due, or let it end; return whether it came to its end."""
    tally.from_steps.append(newest(out))
    tally.starts += 1
    before, now = unsealed(out), time.time()
    process = run_until(command, out, due, POLL_S)
    if process.poll() is not None:
        check_done(process, out)
        return True
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    tally.kills += 1
    history = out / "history.jsonl"
    stepped = history.is_file() and history.stat().st_mtime > now
    saving = unsealed(out) - before
    tally.hit["a checkpoint being written" if saving else "the steps" if stepped else "the start"] += 1
    reached = max([newest(out), *saving, *(record["step"] for record in read_history(history)[0] if stepped)])
    tally.lost.append(reached - newest(out) if not (out / WEIGHTS).is_file() else 0)
    return False


def newest(out: Path) -> int:
    """Return the step of the newest whole checkpoint; 0 without one."""
    seals = [read_checksums(folder) for folder in (out / "checkpoints").glob("checkpoint-*")]
    return max((made.step for made in seals if made and made.resumable), default=0)


def begun_checkpoints(out: Path) -> set[int]:
    names = [path.name[11:] for path in (out / "checkpoints").glob("checkpoint-*")]
    return {int(name) for name in names if name.isdecimal()}


def unsealed(out: Path) -> set[int]:
    return {
        at for at in begun_checkpoints(out) if not (out / f"checkpoints/checkpoint-{at}" / CHECKSUMS_FILE).is_file()
    }


def compare(whole: Path, cut: Path, starts: list[int]) -> dict:
    """Return how far losses and weights of two finished runs are apart.

    A logged loss is the mean since the last one, or since the start. Those that a start cut short are of fewer steps
    than in the other run, and are only counted: the weights hold what those steps have taught.
    """
    losses = [
        {r["step"]: r["loss"] for r in read_history(folder / "history.jsonl")[0] if "loss" in r}
        for folder in (whole, cut)
    ]
    shared = sorted(losses[0].keys() & losses[1].keys())
    short = [step for step in shared if max((at for at in starts if at < step), default=0) > step - LOGGED_EVERY]
    apart = [abs(losses[1][step] / losses[0][step] - 1) for step in shared if step not in short]
    one, other = (load_file(folder / WEIGHTS) for folder in (whole, cut))
    return {
        "losses": len(apart),
        "losses_cut_short": len(short),
        "losses_missing": len(losses[0].keys() ^ losses[1].keys()),
        "loss_difference": max(apart, default=0.0),
        "weight_difference": max(float((one[name] - other[name]).abs().max()) for name in one),
        "identical": file_sha256(whole / WEIGHTS) == file_sha256(cut / WEIGHTS),
    }


def batch_losses(whole: Path, cut: Path, store: Path) -> dict[str, float]:
    """Return the loss of both final models on the longest clips of dev, padded."""
    opened = open_store(store)
    split, found = opened.split("dev"), []
    for folder in (whole, cut):
        model = load_model(folder / "model", opened.language).eval()
        [draws, *_] = dev_batches(split, 8, None, window_frames(model))
        clips = [ClipDataset(split)[draw] for draw in draws]
        batch = Collator(load_tokenizer(folder / "model"), opened.language)(clips)
        labels = batch.pop("labels")
        with torch.no_grad():
            found.append(float(token_loss(model(**batch), labels)))
    return {"batch_loss_whole": found[0], "batch_loss_cut": found[1], "batch_difference": abs(found[1] / found[0] - 1)}


def show(options: Options, tally: Tally, compared: dict) -> dict:
    """Print and return the figures; exit with 1 where they are too far apart."""
    differences = [compared[name] for name in ("loss_difference", "weight_difference", "batch_difference")]
    good = max(differences) <= TOLERANCE and not compared["losses_missing"]
    rows = [
        ["kills by SIGKILL, starts of the command", f"{tally.kills}, {tally.starts}"],
        *([f"hit {part}", str(count)] for part, count in tally.hit.most_common()),
        ["of these, starts that went on from a checkpoint", str(sum(step > 0 for step in tally.from_steps))],
        ["logged steps lost by a kill: most, together", f"{max(tally.lost, default=0)}, {sum(tally.lost)}"],
        [f"largest difference of {compared['losses']} logged losses", f"{compared['loss_difference']:.1e}"],
        ["logged losses that a start cut short, not compared", str(compared["losses_cut_short"])],
        ["largest difference of a final weight", f"{compared['weight_difference']:.1e}"],
        ["difference of the final loss on one batch", f"{compared['batch_difference']:.1e}"],
        ["final weights identical to the bit", "yes" if compared["identical"] else "no"],
    ]
    how = f"streamed from {options.source}" if options.streamed else f"from {options.store}"
    what = f"{options.steps} steps of {options.batch_size} clips {how}, {Path(options.base).name} in float32"
    every = f"a checkpoint every {60 * options.checkpoint_minutes:.0f} s"
    lines = [*markdown(["killed runs", ""], rows), ""]
    lines.append(f"{what}, {every}; losses relative; tolerance {TOLERANCE:g}.")
    result = {**asdict(tally), "hit": dict(tally.hit), **compared, "tolerance": TOLERANCE, "good": good}
    shown = ("streamed", "source", "kills", "steps") if options.streamed else ("store", "kills", "steps")
    title = f"Killed runs, {'a stream' if options.streamed else 'a store'}"
    return report(options, title, lines, result, shown, good=good)


if __name__ == "__main__":
    run(main, Options)
