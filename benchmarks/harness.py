"""What every benchmark is made with: options, sides that take turns in fresh processes, and a section of RESULTS.md.

@dataclass(frozen=True)
class Options(BenchmarkOptions):
    clips: int = 48

def main(options: Options) -> dict:
    seconds = alternate({"a": ..., "b": ...}, items=options.clips, rounds=3)
    return report(options, "Title", markdown(["", "ms"], rows), {"speedup": 2.0}, shown=("clips",))

if __name__ == "__main__":
    run(main, Options)
"""

import datetime
import inspect
import json
import re
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields
from multiprocessing import get_context
from pathlib import Path

from lengua.runtime.errors import LenguaError
from lengua.runtime.files import write_bytes
from lengua.runtime.system import describe_hardware, git_commit

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/RESULTS.md"
HEADER = "# Measured\n\nEach section is written by the command it names, with `--record`.\n"


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """What every benchmark takes."""

    record: bool = False
    """Write the result into benchmarks/RESULTS.md."""
    json: bool = True
    """Print one JSON object, last."""


def run(main: Callable, options: type) -> None:
    """Call a benchmark with its options from the command line; a wrong request is one message."""
    import tyro

    try:
        main(tyro.cli(options))
    except LenguaError as error:
        sys.exit(f"{error} (most benchmarks need a finished demo: make demo)")


def report(
    options: BenchmarkOptions,
    title: str,
    lines: list[str],
    result: dict,
    shown: tuple[str, ...] = (),
    positional: str = "",
    good: bool = True,
) -> dict:
    """Print the lines, record them where that is asked for, print the result as JSON, and return it.

    Args:
        shown: options that the recorded command names even where they are the default.
        positional: the option that the command names without a flag.
        good: whether the result holds; one that does not is not recorded, and the program exits with 1.
    """
    print("\n".join(lines))
    if options.record and good:
        record(title, command_of(options, shown, positional), lines)
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    if not good:
        sys.exit(1)
    return result


def command_of(options: BenchmarkOptions, shown: tuple[str, ...] = (), positional: str = "") -> str:
    """Return the command that measures with these options again."""
    words = ["python", f"benchmarks/{Path(inspect.getfile(type(options))).name}"]
    for field in fields(options):
        value, flag = getattr(options, field.name), f"--{field.name.replace('_', '-')}"
        if field.name in ("record", "json") or value is None or (value == field.default and field.name not in shown):
            continue
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
            continue
        values = value if isinstance(value, tuple) else (value,)
        named = [shlex.quote(f"{one:g}" if isinstance(one, float) else str(one)) for one in values]
        words += named if field.name == positional else [flag, *named]
    return " ".join(words)


def record(title: str, command: str, lines: list[str]) -> None:
    """Put a section into RESULTS.md in place of the one of the same title."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.is_file() else HEADER
    section = "\n".join([f"## {title}", "", f"`{command}` ({provenance()})", "", *lines, ""])
    pattern = re.compile(rf"## {re.escape(title)}\n.*?(?=\n## |\Z)", re.DOTALL)
    text = pattern.sub(lambda _: section, text) if pattern.search(text) else f"{text}\n{section}"
    write_bytes(RESULTS, text.encode())


def provenance() -> str:
    """Return date, commit and hardware of a measurement."""
    return f"{datetime.date.today()}, commit {git_commit()}, {describe_hardware()}"


def markdown(header: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a Markdown table, figures to the right."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return [f"| {' | '.join(cells)} |" for cells in [header, rule, *rows]]


def tell(text: str) -> None:
    """Say on standard error how far it is."""
    print(text, file=sys.stderr, flush=True)


def alternate(sides: dict[str, Callable[[int], object]], items: int, rounds: int) -> dict[str, list[float]]:
    """Time every side on every item in turn, so that a noisy moment hits all of them alike.

    Returns:
        For each side the seconds of each item: the median over the rounds.
    """
    taken = {name: [[] for _ in range(items)] for name in sides}
    for turn in range(rounds):
        for item in range(items):
            for name in sides if (turn + item) % 2 else reversed(sides):
                start = time.perf_counter()
                sides[name](item)
                taken[name][item].append(time.perf_counter() - start)
    return {name: [statistics.median(times) for times in per_item] for name, per_item in taken.items()}


class FreshProcess:
    """A side in a process of its own, which calls what it is given; a context manager."""

    def __init__(self):
        self.pool = ProcessPoolExecutor(1, get_context("spawn"))

    def __enter__(self) -> "FreshProcess":
        return self

    def __exit__(self, *error) -> None:
        self.pool.shutdown(cancel_futures=True)

    def submit(self, work: Callable, *arguments) -> Future:
        return self.pool.submit(work, *arguments)

    def call(self, work: Callable, *arguments):
        """Return what `work` returns there."""
        return self.submit(work, *arguments).result()


def own_memory_mb(name: str) -> float:
    """Return VmRSS, what this process holds, or VmHWM, the most it ever held; 0 where the system does not tell."""
    with suppress(OSError):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))
    return 0.0


def resident_mb(pid: int) -> float:
    """Return the resident megabytes of a process; 0 where it has just ended."""
    import psutil

    try:
        return psutil.Process(pid).memory_info().rss / 2**20
    except psutil.Error:
        return 0.0
