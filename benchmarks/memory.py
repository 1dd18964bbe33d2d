"""Does the memory of a build grow with the speech it reads? The same build over few and over many clips.

    python benchmarks/memory.py --small 1000 --large 20000 [--forms folder packed]

Real processes of `lengua features`, looked at twenty times a second: the parent and its workers, each page once (the
proportional set size; where the system does not tell it, the resident one, which counts shared pages for each).
The last line is one JSON object.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from corpus import corpus, material
from recording import markdown, record, run

EVERY_S = 0.05
COURSE = 10
"""Parts into which the course of a build is cut."""


@dataclass(frozen=True)
class Options:
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
    record: bool = False
    """Write the result into benchmarks/RESULTS.md."""
    json: bool = True
    """Print one JSON object, last."""


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
    """Build, look, print."""
    measured = [peak_of(form, clips, options) for form in options.forms for clips in (options.small, options.large)]
    ratios = {small.form: large.total / small.total for small, large in list(pairwise(measured))[::2]}
    rows = [
        [f"{peak.clips:,} clips, {peak.form}", *(f"{value:.0f}" for value in (peak.total, peak.parent, peak.workers))]
        for peak in measured
    ]
    lines = markdown(["peak memory of a build, MB", "all processes", "the parent", "its workers"], rows)
    told = ", ".join(f"{form} {ratio:.2f}" for form, ratio in ratios.items())
    lines += ["", f"{measure()}. {options.large:,} clips to {options.small:,}: {told}. Repeated from {material()}."]
    print("\n".join(lines))
    if options.record:
        chosen = f"--small {options.small} --large {options.large} --forms {' '.join(options.forms)}"
        chosen += " --figures" if options.figures else ""
        record("Memory of a build", f"python benchmarks/memory.py {chosen}", lines)
    result = {"peaks": [asdict(peak) for peak in measured], "ratios": ratios, "measure": measure()}
    if options.json:
        print(json.dumps(result))
    return result


def peak_of(form: str, clips: int, options: Options) -> Peak:
    """Build a store of a corpus and look at its memory all the while."""
    with tempfile.TemporaryDirectory() as scratch:
        source = f"common_voice:{corpus(clips, Path(scratch), packed=form == 'packed')}"
        out, begun = Path(scratch) / "store", time.monotonic()
        process, taken = started(features_command(source, options.workers, options.figures), out), []
        while process.poll() is None:
            taken.append(look(process.pid))
            time.sleep(EVERY_S)
        check_done(process, out)
    seconds = time.monotonic() - begun
    parent, workers = (max(column) for column in zip(*taken, strict=True))
    return Peak(form, clips, max(map(sum, taken)), parent, workers, round(seconds, 1), course(taken))


def look(session: int) -> tuple[float, float]:
    """Return the megabytes of the parent and those of all its workers."""
    megabytes = {pid: memory_of(pid) / 2**20 for pid in members(session)}
    parent = megabytes.pop(session, 0.0)
    return parent, sum(megabytes.values())


def memory_of(pid: int) -> int:
    """Return the bytes of memory that a process takes; 0 when it has just ended."""
    try:
        if measure().startswith("PSS"):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
            return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def measure() -> str:
    """Say which size the system tells."""
    return "PSS" if Path("/proc/self/smaps_rollup").exists() else "RSS: shared pages count for each process"


def course(taken: list[tuple[float, float]]) -> list[list[float]]:
    """Return the highest [parent, workers] of each tenth of the looks."""
    bounds = [len(taken) * part // COURSE for part in range(COURSE + 1)]
    parts = [taken[start:end] for start, end in pairwise(bounds) if end > start]
    return [[round(max(column), 1) for column in zip(*part, strict=True)] for part in parts]


def features_command(source: str, workers: int | None = None, figures: bool = False) -> list[str]:
    """Return the command that builds a store, but for the folder, which comes last; --json draws no figures."""
    chosen = [*([] if workers is None else ["--workers", str(workers)]), *([] if figures else ["--json"])]
    return [sys.executable, "-m", "lengua", "features", source, "--splits", "train", "dev", "test", *chosen, "--out"]


def started(command: list[str], out: Path) -> subprocess.Popen:
    """Start a build in a session of its own, by which all of its processes can be found; its words go to a log."""
    with open(out.with_name(f"{out.name}.log"), "wb") as log:
        return subprocess.Popen([*command, str(out)], stdout=log, stderr=log, start_new_session=True)


def members(session: int) -> list[int]:
    """Return the living processes of a session, orphans too, by their ids."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            stat = Path(f"/proc/{name}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has just ended
            continue
        state, _, _, its_session = stat.rpartition(")")[2].split()[:4]
        if int(its_session) == session and state not in "ZX":
            found.append(int(name))
    return sorted(found)


def check_done(process: subprocess.Popen, out: Path) -> None:
    """Exit with the words of a build that failed."""
    if process.wait():
        words = out.with_name(f"{out.name}.log").read_text(encoding="utf-8", errors="replace")
        names = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
        held = ", ".join(names) or "no files"
        sys.exit(f"the build ended with exit code {process.returncode}, in a folder with {held}:\n{words}")


if __name__ == "__main__":
    run(main, Options)
