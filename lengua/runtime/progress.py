"""Progress: stages emit `Progress` events, and `Console` renders them for the command line.

    with Console() as watch:
        features.build(options, watch)

A terminal gets a bar with rate and estimate, a log gets a line now and then. Everything goes to standard error,
because standard output is for results.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units of work in a named stage; `note` is a word on how it goes. Without a unit, a remark."""

    stage: str
    done: float
    total: float | None
    unit: str = "clips"
    note: str = ""


Watch = Callable[[Progress], None]


def unwatched(progress: Progress) -> None:
    """Watch nothing."""


CONSOLE_LINE_INTERVAL_S = 15.0
"""Seconds between lines in a log."""


class Console:
    """A `Watch` and a context manager."""

    def __init__(self, stream=None):
        self.stream = stream or sys.stderr
        self.stage, self.bar, self.task, self.spoken = "", None, None, 0.0

    def __enter__(self) -> "Console":
        if self.stream.isatty():
            self.bar = _bar(self.stream)
            self.bar.start()
        return self

    def __exit__(self, *error) -> None:
        if self.bar:
            self.bar.stop()

    def __call__(self, progress: Progress) -> None:
        """Show how far a stage is, or a remark."""
        if not progress.unit:
            self.say(f"{progress.stage}: {progress.note}")
            return
        if progress.stage != self.stage:
            self.stage, self.started, self.first, self.spoken = progress.stage, time.monotonic(), progress.done, 0.0
            self.task = self.bar.add_task(progress.stage, total=progress.total, note="") if self.bar else None
        if self.bar:
            note = f"{self._rate(progress)} {progress.note}".strip()
            self.bar.update(self.task, completed=progress.done, total=progress.total, note=note)
        elif self._due(progress):
            print(self._line(progress), file=self.stream, flush=True)

    def say(self, text: str) -> None:
        """Print a line above the bar, or into the log."""
        if self.bar:
            self.bar.console.print(text, highlight=False)
        else:
            print(text, file=self.stream, flush=True)

    def _due(self, progress: Progress) -> bool:
        now = time.monotonic()
        if now - self.spoken < CONSOLE_LINE_INTERVAL_S and progress.done != progress.total:
            return False
        self.spoken = now
        return True

    def _line(self, progress: Progress) -> str:
        of = f"/{progress.total:.10g}" if progress.total else ""
        parts = [f"{progress.stage}: {progress.done:.10g}{of} {progress.unit}", self._rate(progress)]
        return ", ".join(part for part in (*parts, self._left(progress), progress.note) if part)

    def _rate(self, progress: Progress) -> str:
        seconds, done = time.monotonic() - self.started, progress.done - self.first
        if done <= 0 or seconds <= 0.5:
            return ""
        rate = done / seconds
        return f"{rate:.0f} {progress.unit}/s" if rate > 10 else f"{rate:.2g} {progress.unit}/s"

    def _left(self, progress: Progress) -> str:
        done = progress.done - self.first
        if not progress.total or done <= 0 or progress.done >= progress.total:
            return ""
        seconds = (time.monotonic() - self.started) / done * (progress.total - progress.done)
        return f"{int(seconds // 60)}:{int(seconds % 60):02} left"


def _bar(stream):
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", style="dim"),
        console=RichConsole(file=stream),
        redirect_stdout=sys.stdout.isatty(),  # else text on its way into a file would go to the terminal
    )
