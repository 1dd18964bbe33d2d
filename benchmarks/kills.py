"""A build that is killed fifty times and taken up again must give the store of one that was left alone, byte for byte.

    python benchmarks/kills.py --kills 50 --clips 2000 [--packed]

Real processes of `lengua features`, killed by SIGKILL at moments that a seed draws: mostly at any time up to about two
shards after the work began, every fifth when the last shard is there, where the manifest is written. Half of the kills
hit the parent and its workers at once, half the parent alone: its workers then have to end by themselves. A build that
is finished before its next kill is compared and begun anew. Exit code 1 when a byte differs or a shard that was there
is written again. The last line is one JSON object.
"""

import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from corpus import corpus, material
from harness import BenchmarkOptions, markdown, report, run
from memory import check_done, features_command, started

from lengua.data.store import MANIFEST_FILE
from lengua.runtime.files import file_sha256

PLAN = "building.json"
POLL_S = 0.002
PATIENCE_S = 30.0
"""How long workers may outlive their parent before this counts as never."""
Due = Callable[[Path, float], bool]
"""Is it time to kill, by the folder and the seconds since the start?"""


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Kill a build again and again, and compare what comes out of it."""

    kills: int = 50
    """How many."""
    clips: int = 2000
    """Of the corpus that is built."""
    packed: bool = False
    """Build from a .tar.gz instead of a folder."""
    workers: int | None = None
    """Worker processes. Default: as many as `lengua features` takes."""
    seed: int = 17
    """Draws the moments."""


@dataclass(frozen=True)
class Whole:
    """The store of a build that was left alone, and when things happened in it, in seconds."""

    digests: dict[str, str]
    first_shard_s: float
    last_shard_s: float
    manifest_s: float

    @property
    def shards(self) -> int:
        return sum(name.endswith(".parquet") for name in self.digests)


@dataclass
class Tally:
    """What came of the kills."""

    kills: int = 0
    parent_alone: int = 0
    runs: int = 0
    finished: int = 0
    """Builds that came to their end, each compared with the one that was left alone."""
    kept: list[int] = field(default_factory=list)
    """Shards that were there after each kill."""
    hit: Counter = field(default_factory=Counter)
    """What a kill hit, by what there was of the store after it."""
    half_written: int = 0
    """Kills that left half a file behind."""
    longest_wait_s: float = 0.0
    """For workers to end after their parent alone was killed."""
    rewritten: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)


def main(options: Options) -> dict:
    with tempfile.TemporaryDirectory() as scratch:
        source = f"common_voice:{corpus(options.clips, Path(scratch), options.packed)}"
        command, out = features_command(source, options.workers), Path(scratch) / "killed"
        whole, tally, drawn = left_alone(command, Path(scratch) / "whole"), Tally(), random.Random(options.seed)
        while tally.kills < options.kills or out.exists():
            due = moment(tally, whole, drawn) if tally.kills < options.kills else None
            one_run(command, out, whole, tally, due)
            print(f"\r{tally.kills} kills", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return show(options, whole, tally)


def left_alone(command: list[str], out: Path) -> Whole:
    begun, times, process = time.monotonic(), [], started(command, out)
    while process.poll() is None and not (out / MANIFEST_FILE).is_file():
        times += [time.monotonic() - begun] * (len(shards_in(out)) - len(times))
        time.sleep(POLL_S)
    manifest_s = time.monotonic() - begun
    check_done(process, out)
    return Whole(digests(out), times[0], times[-1], manifest_s)


def moment(tally: Tally, whole: Whole, drawn: random.Random) -> Due:
    """Draw the moment of the next kill."""
    if tally.kills % 5 < 4:
        two_shards_s = 2 * (whole.last_shard_s - whole.first_shard_s) / max(1, whole.shards - 1)
        due_s = drawn.uniform(0.1, whole.first_shard_s + two_shards_s)
        return lambda out, elapsed: elapsed >= due_s
    wait_s = drawn.uniform(0, 1.2 * (whole.manifest_s - whole.last_shard_s))
    return After(lambda out: len(shards_in(out)) == whole.shards, wait_s)


class After:
    """Is it so many seconds since an event? Without one, the patience ends."""

    def __init__(self, event: Callable[[Path], bool], seconds: float, patience_s: float = float("inf")):
        self.event, self.seconds, self.patience_s, self.seen = event, seconds, patience_s, None

    def __call__(self, out: Path, elapsed: float) -> bool:
        if self.seen is None and self.event(out):
            self.seen = elapsed
        return elapsed >= (self.patience_s if self.seen is None else self.seen + self.seconds)


def run_until(command: list[str], out: Path, due: Due | None, poll_s: float) -> subprocess.Popen:
    """Start a command and return its process when it has ended or is due to be killed."""
    begun, process = time.monotonic(), started(command, out)
    while process.poll() is None and not (due and due(out, time.monotonic() - begun)):
        time.sleep(poll_s)
    return process


def one_run(command: list[str], out: Path, whole: Whole, tally: Tally, due: Due | None) -> None:
    """Start the build once more, and kill it when it is due, or let it end and compare."""
    before = stamps(out)
    process = run_until(command, out, due, POLL_S)
    tally.runs += 1
    if killed := process.poll() is None:
        kill(process, tally)
        tally.kept.append(len(shards_in(out)))
        tally.half_written += any(path.name.startswith(".") for path in out.rglob("*"))
        tally.hit[part_of_the_build(out, whole.shards)] += 1
    else:
        check_done(process, out)
    tally.rewritten += sorted(name for name, stamp in before.items() if stamps(out).get(name) != stamp)
    if not killed:
        found = digests(out)
        names = sorted(found.keys() | whole.digests.keys())
        tally.differing += [name for name in names if found.get(name) != whole.digests.get(name)]
        tally.finished += 1
        shutil.rmtree(out)


def kill(process: subprocess.Popen, tally: Tally) -> None:
    """Kill the parent and its workers, or every other time the parent alone, and wait until all are gone."""
    alone = tally.kills % 2 == 0
    os.kill(process.pid, signal.SIGKILL) if alone else os.killpg(process.pid, signal.SIGKILL)
    begun = time.monotonic()
    process.wait()
    while (left := members(process.pid)) and time.monotonic() - begun < PATIENCE_S:
        time.sleep(POLL_S)
    if left:
        os.killpg(process.pid, signal.SIGKILL)
        sys.exit(f"processes outlived the parent by {PATIENCE_S:g} s: {left}")
    tally.kills += 1
    tally.parent_alone += alone
    if alone:
        tally.longest_wait_s = max(tally.longest_wait_s, time.monotonic() - begun)


def members(session: int) -> list[int]:
    found = []
    for pid in psutil.pids():
        with suppress(OSError, psutil.Error):
            if os.getsid(pid) == session and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


def part_of_the_build(out: Path, shards: int) -> str:
    """Say what was going on when a build was killed."""
    if (out / MANIFEST_FILE).is_file():
        return "behind the manifest"
    if not (out / PLAN).is_file():
        return "before the plan"
    there = len(shards_in(out))
    return "before the manifest" if there == shards else "among the shards" if there else "before the first shard"


def shards_in(out: Path) -> list[Path]:
    return sorted(out.glob("*/shard-*.parquet"))


def stamps(out: Path) -> dict[str, tuple[int, int, int]]:
    """Return what changes when a shard is written again: file, time and size, by name."""
    found = {str(path.relative_to(out)): path.stat() for path in shards_in(out)}
    return {name: (stat.st_ino, stat.st_mtime_ns, stat.st_size) for name, stat in found.items()}


def digests(out: Path) -> dict[str, str]:
    """Return the sha256 of every file, hidden ones included, by its path in the store."""
    return {str(path.relative_to(out)): file_sha256(path) for path in sorted(out.rglob("*")) if path.is_file()}


def show(options: Options, whole: Whole, tally: Tally) -> dict:
    """Print and return the figures; exit with 1 where the stores are not the same."""
    median = statistics.median(tally.kept)
    rows = [
        ["kills by SIGKILL (the parent alone)", f"{tally.kills} ({tally.parent_alone})"],
        ["starts of the command, builds that were finished", f"{tally.runs}, {tally.finished}"],
        [f"shards there after a kill, of {whole.shards}", f"{min(tally.kept)} to {max(tally.kept)}, median {median:g}"],
        *([f"hit {part}", str(count)] for part, count in tally.hit.most_common()),
        ["kills that left half a file", str(tally.half_written)],
        ["longest that workers outlived their parent", f"{tally.longest_wait_s:.2f} s"],
        ["finished shards written again", str(len(tally.rewritten))],
        [f"identical to the build left alone ({len(whole.digests)} files)", "yes" if not tally.differing else "no"],
    ]
    form = "a .tar.gz" if options.packed else "a folder"
    lines = [*markdown(["killed builds", ""], rows), ""]
    lines.append(f"{options.clips} clips in {form}, repeated from {material()}.")
    for what, names in (("written again", tally.rewritten), ("differing", tally.differing)):
        print(f"{what}: {', '.join(names)}" if names else f"nothing {what}", file=sys.stderr)
    result = {**asdict(tally), "hit": dict(tally.hit), "shards": whole.shards, "identical": not tally.differing}
    good = bool(tally.finished) and not tally.rewritten and not tally.differing
    return report(options, f"Killed builds, {form}", lines, result, shown=("kills", "clips"), good=good)


if __name__ == "__main__":
    run(main, Options)
