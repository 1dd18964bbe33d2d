"""How long does a visitor wait? For a text, for a reply, for the page after a start; in Chromium.

    python benchmarks/app.py --model runs/demo

A clip of five seconds from the end of its upload to its text in the page; a turn from the click to the first words of
the reply in the page, without the time that the test server takes for them; the staged Space from its start in an empty
environment to its first page. All on loopback, and warm but for the start. The last line is one JSON object.
"""

import os
import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from app_page import (
    CLIP_S,
    Conversation,
    Microphone,
    chosen,
    chromium,
    five_seconds,
    require_chromium,
    serving,
    test_server,
    visiting,
)
from harness import BenchmarkOptions, markdown, report, run

from lengua.publishing.space import stage_space

WARM_UP = 2
"""Clips and turns before those that count."""
TURN = "Hola, me llamo Ana y quiero hablar de mi barrio."
ANSWER = "test"
"""Name of a model of the test server that only answers."""
EMPTY = ("HOME", "LENGUA_CACHE", "PATH", "LANG")
"""What is left of the environment where a Space starts; the caches under HOME stand for what the Hub preloads."""


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Measure what a visitor waits for."""

    model: str = ""
    """A run, a model folder or a Hub id; its own test clips are taken if it keeps their sound. Default: runs/demo if it
    is there, else the base model."""
    rounds: int = 20
    """Clips, and turns."""
    starts: int = 3
    """Of the staged Space."""


def main(options: Options) -> dict:
    require_chromium()
    name, model = chosen(options.model)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        clips = five_seconds(folder / "clips", name, options.rounds)
        with chromium() as browser:
            texts = waits_for_text(browser, folder / "microphone", model, clips)
            replies = waits_for_reply(browser, folder / "conversation", model, options.rounds)
        starts = [start(folder / f"start-{number}", model) for number in range(options.starts)]
    result, rows = {"model": name, "clips": len(clips), "turns": options.rounds, "starts": options.starts}, []
    for key, times, waits, what in (
        ("text_ms", "clips", texts, f"{CLIP_S:g} s clip, end of upload to text"),
        ("reply_ms", "turns", replies, "turn to first words of the reply, without the server's own time"),
        ("start_ms", "starts", starts, "staged Space, start to first page"),
    ):
        result |= {key: round(statistics.median(waits)), f"{key}_most": round(max(waits))}
        rows.append([what, *(str(result[name]) for name in (times, key, f"{key}_most"))])
    lines = markdown(["what a visitor waits for, ms", "times", "median", "most"], rows)
    title = f"What a visitor waits for: {name}"
    return report(replace(options, model=name), title, lines, result, shown=("model", "rounds"))


def waits_for_text(browser, folder: Path, model: str, clips: list[Path]) -> list[float]:
    """Return the milliseconds from the end of each clip's upload to its text."""
    with serving(folder, model) as app, visiting(browser, app.url) as visit:
        microphone, taken = Microphone(visit.page), []
        for clip in [*clips[:WARM_UP], *clips]:
            taken.append(microphone.milliseconds(clip))
            microphone.transcript()
            microphone.clear()
    return taken[min(WARM_UP, len(clips)) :]


def waits_for_reply(browser, folder: Path, model: str, rounds: int) -> list[float]:
    """Return the milliseconds from each turn to the first words of its reply, less what the server itself took."""
    with test_server() as llm, serving(folder, model, **llm.environment(ANSWER)) as app:
        taken = []
        for _ in range(WARM_UP + rounds):
            with visiting(browser, app.url) as visit:  # every turn is the first: none waits for the page to scroll
                whole, asked = Conversation(visit.page).open().milliseconds(TURN), llm.asked[-1]
            taken.append(whole - 1000 * (asked.first_at - asked.came_at))
    return taken[WARM_UP:]


def start(folder: Path, model: str) -> float:
    """Stage the Space and return the milliseconds from its start to its first page."""
    space = stage_space(folder / "space", model)
    left = {name: os.environ[name] for name in EMPTY if name in os.environ}
    with serving(folder / "run", program=space / "app.py", environment=left) as app:
        return 1000 * app.ready_s


if __name__ == "__main__":
    run(main, Options)
