"""Does the memory of a build grow with the speech it reads? The same build over few and over many clips.

    python benchmarks/memory.py --small 1000 --large 20000 [--forms folder packed]

Real processes of `lengua features`, looked at twenty times a second: the parent and its workers, each page once (the
proportional set size; where the system does not tell it, the resident one, which counts shared pages for each).
The last line is one JSON object.
"""

import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import psutil
from corpus import corpus, material
from harness import BenchmarkOptions, markdown, report, run

EVERY_S = 0.05
COURSE = 10
"""Parts into which the course of a build is cut."""
MEASURE = "PSS" if psutil.LINUX else "RSS: shared pages count for each process"


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Compare the peak memory of a small build and a large one."""

    small: int = 1000
    """Clips of the small corpus."""
    large: int = 20_000
    """Clips of the large corpus."""
    forms: tuple[Literal["folder", "packed"], ...] = ("folder", "packed")
    """As what the corpus is read: a folder, a .tar.gz."""
    workers: int | None = None
    """Worker processes. Default: as many as `lengua features` takes."""
    figures: bool = False
    """Let the command draw the figures of the finished store, too, as it does on a terminal."""


@dataclass(frozen=True)
class Peak:
    """The most that one build took, in MB: all of it, its parent, its workers; not all at the same moment."""

    form: str
    clips: int
    total: float
    parent: float
    workers: float
    seconds: float
    course: list[list[float]]
    """Of each tenth of the build the highest [parent, workers]."""


def main(options: Options) -> dict:
    measured = [peak_of(form, clips, options) for form in options.forms for clips in (options.small, options.large)]
    ratios = {small.form: large.total / small.total for small, large in list(pairwise(measured))[::2]}
    rows = [
        [f"{peak.clips:,} clips, {peak.form}", *(f"{value:.0f}" for value in (peak.total, peak.parent, peak.workers))]
        for peak in measured
    ]
    lines = markdown(["peak memory of a build, MB", "all processes", "the parent", "its workers"], rows)
    grown = ", ".join(f"{form} {ratio:.2f}" for form, ratio in ratios.items())
    lines += ["", f"{MEASURE}. {options.large:,} clips to {options.small:,}: {grown}. Repeated from {material()}."]
    result = {"peaks": [asdict(peak) for peak in measured], "ratios": ratios, "measure": MEASURE}
    return report(options, "Memory of a build", lines, result, shown=("small", "large", "forms"))


def peak_of(form: str, clips: int, options: Options) -> Peak:
    """Build a corpus of so many clips and look at its processes."""
    with tempfile.TemporaryDirectory() as scratch:
        source = f"common_voice:{corpus(clips, Path(scratch), packed=form == 'packed')}"
        out, begun = Path(scratch) / "store", time.monotonic()
        process, taken = started(features_command(source, options.workers, options.figures), out), []
        while process.poll() is None:
            taken.append(memory_of_tree(process.pid))
            time.sleep(EVERY_S)
        check_done(process, out)
    seconds = time.monotonic() - begun
    parent, workers = (max(column) for column in zip(*taken, strict=True))
    bounds = [len(taken) * part // COURSE for part in range(COURSE + 1)]
    parts = [taken[start:end] for start, end in pairwise(bounds) if end > start]
    course = [[round(max(column), 1) for column in zip(*part, strict=True)] for part in parts]
    return Peak(form, clips, max(map(sum, taken)), parent, workers, round(seconds, 1), course)


def memory_of_tree(pid: int) -> tuple[float, float]:
    """Return the megabytes of a process and those of all its descendants; 0 for those that have just ended."""
    try:
        parent = psutil.Process(pid)
        workers = parent.children(recursive=True)
    except psutil.Error:
        return 0.0, 0.0
    return _memory_mb(parent), sum(map(_memory_mb, workers))


def _memory_mb(process: psutil.Process) -> float:
    try:
        return (process.memory_full_info().pss if psutil.LINUX else process.memory_info().rss) / 2**20
    except psutil.Error:
        return 0.0


def features_command(source: str, workers: int | None = None, figures: bool = False) -> list[str]:
    """Return the command that builds a store, but for the folder, which comes last; --json draws no figures."""
    chosen = [*([] if workers is None else ["--workers", str(workers)]), *([] if figures else ["--json"])]
    return [sys.executable, "-m", "lengua", "features", source, "--splits", "train", "dev", "test", *chosen, "--out"]


def started(command: list[str], out: Path) -> subprocess.Popen:
    """Start a command in a session of its own, by which all of its processes can be found; its words go to a log."""
    with open(out.with_name(f"{out.name}.log"), "wb") as log:
        return subprocess.Popen([*command, str(out)], stdout=log, stderr=log, start_new_session=True)


def check_done(process: subprocess.Popen, out: Path) -> None:
    """Exit with the words of a command that failed."""
    if process.wait():
        words = out.with_name(f"{out.name}.log").read_text(encoding="utf-8", errors="replace")
        names = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
        held = ", ".join(names) or "no files"
        sys.exit(f"the command ended with exit code {process.returncode}, in a folder with {held}:\n{words}")


if __name__ == "__main__":
    run(main, Options)
