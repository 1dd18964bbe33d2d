"""What every benchmark shares: timing two sides in turn, and writing a section of RESULTS.md."""

import datetime
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import tyro

from lengua.runtime.errors import LenguaError
from lengua.runtime.files import write_bytes
from lengua.runtime.system import describe_hardware, git_commit

RESULTS = Path(__file__).parent / "RESULTS.md"
HEADER = "# Measured\n\nEach section is written by the command it names, with `--record`.\n"


def alternate(sides: dict[str, Callable[[int], object]], items: int, rounds: int) -> dict[str, list[float]]:
    """Time every side on every item in turn, so that a noisy moment hits all of them alike.

    Returns:
        For each side the seconds of each item: the median over the rounds.
    """
    taken = {name: [[] for _ in range(items)] for name in sides}
    for turn in range(rounds):
        for item in range(items):
            order = list(sides) if (turn + item) % 2 else list(reversed(sides))
            for name in order:
                start = time.perf_counter()
                sides[name](item)
                taken[name][item].append(time.perf_counter() - start)
    return {name: [statistics.median(times) for times in per_item] for name, per_item in taken.items()}


def record(title: str, command: str, lines: list[str]) -> None:
    """Put a section into RESULTS.md in place of the one of the same title."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.is_file() else HEADER
    where = f"{datetime.date.today()}, commit {git_commit()}, {describe_hardware()}"
    section = "\n".join([f"## {title}", "", f"`{command}` ({where})", "", *lines, ""])
    pattern = re.compile(rf"## {re.escape(title)}\n.*?(?=\n## |\Z)", re.DOTALL)
    text = pattern.sub(lambda _: section, text) if pattern.search(text) else f"{text}\n{section}"
    write_bytes(RESULTS, text.encode())


def markdown(header: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a Markdown table, figures to the right."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return [f"| {' | '.join(cells)} |" for cells in [header, rule, *rows]]


def run(main: Callable, options: type) -> None:
    """Call a benchmark with its options from the command line; a wrong request is one message."""
    try:
        main(tyro.cli(options))
    except LenguaError as error:
        sys.exit(f"{error} (most benchmarks need a finished demo: make demo)")
