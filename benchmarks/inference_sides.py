"""Where the programs of benchmarks/inference.py run: each in a process of its own, for a crash of one is not the end.

    python benchmarks/inference_sides.py JOB        one program from a cold start; `cold_start` writes JOB and reads on

The second is what a user waits for who starts a program anew: interpreter, imports, weights, the first clip.
"""

import json
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from inference_peers import OURS, PEERS, Hearer, Weights

MARK = "inference_sides: "
"""Before what a cold process tells; programs print what they like."""
COLD_CLIPS = 5


class Side:
    """A program in its process, with all clips there; called with the number of a clip."""

    def __init__(self, name: str, weights: Weights, clips: Sequence[np.ndarray]):
        self.texts: dict[int, str] = {}
        self.pool = ProcessPoolExecutor(1, get_context("spawn"))
        try:
            self.pool.submit(open_here, name, weights, list(clips)).result()
            self(0)  # the first call of a program is not like the others
        except BaseException:
            self.close()
            raise

    def __call__(self, item: int) -> None:
        """Transcribe one clip."""
        self.texts[item] = self.pool.submit(hear, item).result()

    def long(self, samples: np.ndarray, how: dict) -> tuple[float, str]:
        """Transcribe a long recording; return the seconds that it took, and the words."""
        return self.pool.submit(hear_long, samples, how).result()

    def close(self) -> None:
        """End the process."""
        self.pool.shutdown(cancel_futures=True)


def open_sides(names: Sequence[str], weights: Weights, clips: Sequence[np.ndarray]) -> tuple[dict[str, Side], dict]:
    """Return the programs that open here and write the first clip, and of the others why they do not.

    Only ours must: whatever keeps another program from it is told in the result.
    """
    sides, left_out = {}, {}
    for name in names:
        reason = PEERS[name].missing(weights)
        if not reason:
            print(f"opening {name}", file=sys.stderr, flush=True)
            try:
                sides[name] = Side(name, weights, clips)
            except Exception as error:
                if name == OURS:
                    raise
                reason = told(error)
        if reason:
            left_out[name] = reason
    return sides, left_out


def told(error: Exception) -> str:
    """Return a failure in one line."""
    if isinstance(error, BrokenProcessPool):
        return "its process crashed"
    return f"{type(error).__name__}: {error}".partition("\n")[0][:200]


HERE: list = []


def open_here(name: str, weights: Weights, clips: list[np.ndarray]) -> None:
    """Make the program of this process."""
    HERE[:] = [PEERS[name].open(weights), clips]


def hear(item: int) -> str:
    """Return the words of a clip."""
    program, clips = HERE
    return program(clips[item])


def hear_long(samples: np.ndarray, how: dict) -> tuple[float, str]:
    """Return (seconds, words) of a long recording."""
    program: Hearer = HERE[0]
    start = time.perf_counter()
    text = program.long(samples, **how)
    return time.perf_counter() - start, text


@dataclass(frozen=True)
class Cold:
    """A program that nobody has started yet; its files are in the system's cache."""

    first_text_s: float
    """From the start of its process to the words of the first clip: the median of the starts."""
    peak_mb: float
    """The most memory that the process took for its weights and five clips: the most of the starts."""


def cold_start(name: str, weights: Weights, clips: Sequence[np.ndarray], starts: int) -> Cold:
    """Start a program so many times anew.

    Raises:
        RuntimeError: it failed; with its last words.
    """
    with tempfile.TemporaryDirectory() as scratch:
        job = Path(scratch) / "job"
        job.write_bytes(pickle.dumps((name, weights, list(clips[:COLD_CLIPS]))))
        taken = [_start(job) for _ in range(starts)]
    seconds, peaks = zip(*taken, strict=True)
    return Cold(statistics.median(seconds), max(peaks))


def _start(job: Path) -> tuple[float, float]:
    command = [sys.executable, __file__, str(job)]
    said, found = [], []
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            if line.startswith(MARK):
                found.append((time.perf_counter() - start, json.loads(line.removeprefix(MARK))))
            else:
                said.append(line)
    if process.returncode or len(found) != 2:
        raise RuntimeError(f"exit code {process.returncode}: {''.join(said[-3:]).strip()}")
    return found[0][0], found[1][1]["peak_mb"]


def run_cold(job: Path) -> None:
    """Open a program, tell when it has written its first clip, hear the others, tell the memory."""
    name, weights, clips = pickle.loads(job.read_bytes())
    program = PEERS[name].open(weights)
    tell(text=program(clips[0]))
    for clip in clips[1:]:
        program(clip)
    tell(peak_mb=peak_mb())


def tell(**what) -> None:
    """Write one line to the process that waits."""
    print(f"\n{MARK}{json.dumps(what)}", flush=True)


def peak_mb() -> float:
    """Return the most memory that this process ever took.

    Of the system's own account, where it has one: `ru_maxrss` begins with what the process that started this one took.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    kilobytes = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
    if kilobytes:
        return int(kilobytes) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    run_cold(Path(sys.argv[1]))
