"""Fifty visitors at once, for two minutes: is everybody answered, in turn, and does the memory stay where it is?

    python benchmarks/app_load.py --model runs/demo

Every visitor sends one of the model's own test clips, reads the answer, waits a moment as people do, and sends the
next. The only refusal that may come is the one of a full queue. The last line is one JSON object.
"""

import random
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import httpx
from app_page import Answer, Server, Visitor, chosen, serving, write_clips
from corpus import test_clips
from harness import BenchmarkOptions, markdown, report, resident_mb, run, tell

from lengua import audio
from lengua.app.i18n import Wording

CLIPS = 20
TEXT, SILENT, FULL, ERROR = "text", "no text", "queue full", "error"
AT_ONCE_S = 0.5
"""Who asks within this of another may be answered before or after."""


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Let many visitors ask at once and watch the server."""

    model: str = ""
    """A run, a model folder or a Hub id; its own test clips are taken if it keeps their sound. Default: runs/demo if it
    is there, else the base model."""
    clips: Path | None = None
    """A folder of recordings to send instead."""
    visitors: int = 50
    """At the same time."""
    seconds: float = 120
    """How long they go on asking."""
    pause_s: tuple[float, float] = (0.5, 3.0)
    """Between an answer and the next question, drawn evenly."""
    every_s: float = 0.25
    """Seconds between two looks at the memory."""
    seed: int = 17
    """Draws clips and pauses."""


@dataclass(frozen=True)
class Asked:
    """One question."""

    visitor: int
    asked_s: float
    """When it was sent, since the start."""
    answered_s: float
    outcome: str
    detail: str = ""
    """Of an error."""


@dataclass
class Crowd:
    """All visitors, and what they met."""

    url: str
    clips: Sequence[Path]
    options: Options
    start: float = field(default_factory=time.perf_counter)
    asked: list[Asked] = field(default_factory=list)
    """Appending to a list is safe in threads."""

    def visit(self, number: int) -> None:
        """Be one visitor until the time is over."""
        drawn = random.Random(f"{self.options.seed} {number}")
        with Visitor(self.url, f"visitor {number}") as visitor:
            while self.now() < self.options.seconds:
                self.asked.append(self.ask(visitor, number, drawn.choice(self.clips)))
                time.sleep(drawn.uniform(*self.options.pause_s))

    def ask(self, visitor: Visitor, number: int, clip: Path) -> Asked:
        """Send a clip and tell how it went."""
        try:
            sent = visitor.upload(clip)
            start = self.now()
            answer = visitor.transcribe(sent)
        except httpx.HTTPError as error:
            return Asked(number, self.now(), self.now(), ERROR, f"{type(error).__name__}: {error}")
        outcome = outcome_of(answer)
        return Asked(number, start, self.now(), outcome, answer.body[-300:] if outcome == ERROR else "")

    def now(self) -> float:
        return time.perf_counter() - self.start


def main(options: Options) -> dict:
    with tempfile.TemporaryDirectory() as scratch:
        name, model = chosen(options.model)
        clips = sorted(options.clips.iterdir()) if options.clips else some(Path(scratch) / "clips", name)
        with serving(Path(scratch) / "app", model) as app:
            crowd, looks = visited(app, clips, options)
            traces = app.printed().count("Traceback")
    result = {"model": name} | figures(options, crowd.asked, looks) | {"traces": traces}
    for one in [one for one in crowd.asked if one.outcome == ERROR][:5]:
        tell(f"visitor {one.visitor} after {one.asked_s:.1f} s: {one.detail}")
    title, shown = f"{options.visitors} visitors at once", ("model", "visitors", "seconds")
    return report(replace(options, model=name), title, table(options, result), result, shown)


def some(folder: Path, model: str) -> list[Path]:
    return write_clips(folder, [audio.load(sound) for _, sound in test_clips(model)[:CLIPS]])


def visited(app: Server, clips: Sequence[Path], options: Options) -> tuple[Crowd, list[tuple[float, float]]]:
    """Let all visitors in; return them, and (seconds, megabytes) of the server all the while."""
    with Visitor(app.url, "first") as first:
        assert outcome_of(first.transcribe(clips[0])) in (TEXT, SILENT), "the app does not answer a single visitor"
    crowd, looks, over = Crowd(app.url, clips, options), [], threading.Event()

    def watch() -> None:
        while not over.wait(options.every_s):
            looks.append((crowd.now(), resident_mb(app.pid)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(options.visitors) as pool:
            list(pool.map(crowd.visit, range(options.visitors)))
    finally:
        over.set()
        watcher.join()
    return crowd, looks


def outcome_of(answer: Answer) -> str:
    if answer.full:
        return FULL
    if not answer.data:
        return ERROR
    text, state = answer.data[:2]
    return TEXT if text else meanings().get(state, ERROR)


@cache
def meanings() -> dict[str, str]:
    """Return what it means where a sentence of the page, in any of its languages, stands without a text."""
    keys = {"refusal.silent": SILENT, "refusal.busy": FULL}
    return {words[key]: meaning for words in Wording().languages.values() for key, meaning in keys.items()}


def figures(options: Options, asked: list[Asked], looks: list[tuple[float, float]]) -> dict:
    outcomes = Counter(one.outcome for one in asked)
    answered = [one for one in asked if one.outcome in (TEXT, SILENT)]
    waits = sorted(one.answered_s - one.asked_s for one in answered)
    each = Counter(dict.fromkeys(range(options.visitors), 0))
    each.update(one.visitor for one in answered)
    parts = [[mb for at, mb in looks if low <= at / options.seconds < high] for low, high in ((0.25, 0.5), (0.75, 1))]
    early, late = (statistics.median(part) if part else 0.0 for part in parts)
    return {
        "visitors": options.visitors,
        "seconds": options.seconds,
        "asked": len(asked),
        "outcomes": {name: outcomes[name] for name in (TEXT, SILENT, FULL, ERROR)},
        "wait_median_s": round(statistics.median(waits), 2) if waits else None,
        "wait_p95_s": round(waits[int(0.95 * (len(waits) - 1))], 2) if waits else None,
        "wait_most_s": round(waits[-1], 2) if waits else None,
        "fewest_answers": min(each.values()),
        "most_answers": max(each.values()),
        "overtaken": overtaken(answered),
        "memory_peak_mb": round(max(mb for _, mb in looks)),
        "memory_second_quarter_mb": round(early),
        "memory_last_quarter_mb": round(late),
        "growth": round(late / early - 1, 4) if early else None,
    }


def overtaken(answered: list[Asked]) -> int:
    """Return how many were answered after somebody who had asked later."""
    return sum(
        any(
            other.asked_s > one.asked_s + AT_ONCE_S and other.answered_s < one.answered_s - AT_ONCE_S
            for other in answered
        )
        for one in answered
    )


def table(options: Options, result: dict) -> list[str]:
    rows = [[name, str(count)] for name, count in result["outcomes"].items()]
    median, slow, most = (result[f"wait_{name}_s"] for name in ("median", "p95", "most"))
    return [
        *markdown([f"{options.visitors} visitors, {options.seconds:g} s", "questions"], rows),
        "",
        f"From the question to the whole answer: {median} s in the median, {slow} s or more for one in twenty, "
        f"{most} s at most. Each visitor got {result['fewest_answers']} to "
        f"{result['most_answers']} answers; {result['overtaken']} were answered after somebody who had asked later.",
        "",
        f"Memory of the server: {result['memory_second_quarter_mb']} MB in the second quarter of the time, "
        f"{result['memory_last_quarter_mb']} MB in the last, {result['memory_peak_mb']} MB at most.",
    ]


if __name__ == "__main__":
    run(main, Options)
