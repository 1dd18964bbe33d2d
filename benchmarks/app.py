"""How long does a visitor wait? For a text, for a reply, for the page after a start; in Chromium.

    python benchmarks/app.py --model runs/demo

A clip of five seconds from the end of its upload to its text in the page; a turn from the click to the first words of
the reply in the page, without the time that the test server takes for them; the staged Space from its start in an empty
environment to its first page. All on loopback, and warm but for the start. The last line is one JSON object.
"""

import json
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app_browser import chromium, program, visiting
from app_clips import CLIP_S, chosen, five_seconds, test_server
from app_page import Conversation, Microphone
from app_server import serving
from recording import markdown, record, run

from lengua.publishing.space import stage_space

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WARM_UP = 2
"""Clips and turns before those that count."""
TURN = "Hola, me llamo Ana y quiero hablar de mi barrio."
ANSWER = "test"
"""Name of a model of the test server that only answers."""
EMPTY = ("HOME", "LENGUA_CACHE", "PATH", "LANG")
"""What is left of the environment where a Space starts; the caches under HOME stand for what the Hub preloads."""


@dataclass(frozen=True)
class Options:
    """Measure what a visitor waits for."""

    model: str = ""
    """A run, a model folder or a Hub id; its own test clips are taken if it keeps their sound. Default: runs/demo if it
    is there, else the base model."""
    rounds: int = 20
    """Clips, and turns."""
    starts: int = 3
    """Of the staged Space."""
    record: bool = False
    """Write the result into benchmarks/RESULTS.md."""
    json: bool = True
    """Print one JSON object, last."""


def main(options: Options) -> dict:
    """Measure and print."""
    if program() is None:
        sys.exit("skipped: no Chromium here; on Debian: apt-get install chromium")
    name, model = chosen(options.model)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        clips = five_seconds(folder / "clips", name, options.rounds)
        with chromium() as browser:
            texts = waits_for_text(browser, folder / "microphone", model, clips)
            replies = waits_for_reply(browser, folder / "conversation", model, options.rounds)
        starts = [start(folder / f"start-{number}", model) for number in range(options.starts)]
    result = {"model": name, "clips": len(clips), "turns": options.rounds, "starts": options.starts}
    for key, waits in (("text_ms", texts), ("reply_ms", replies), ("start_ms", starts)):
        result |= {key: round(statistics.median(waits)), f"{key}_most": round(max(waits))}
    return show(options, result)


def waits_for_text(browser: "Browser", folder: Path, model: str, clips: list[Path]) -> list[float]:
    """Return the milliseconds from the end of each clip's upload to its text."""
    with serving(folder, model) as app, visiting(browser, app.url) as visit:
        microphone, taken = Microphone(visit.page), []
        for clip in [*clips[:WARM_UP], *clips]:
            taken.append(microphone.milliseconds(clip))
            microphone.heard()
            microphone.clear()
    return taken[min(WARM_UP, len(clips)) :]


def waits_for_reply(browser: "Browser", folder: Path, model: str, rounds: int) -> list[float]:
    """Return the milliseconds from each turn to the first words of its reply, less what the server itself took."""
    with test_server() as llm, serving(folder, model, **llm.environment(ANSWER)) as app:
        taken = []
        for _ in range(WARM_UP + rounds):
            with visiting(browser, app.url) as visit:  # every turn is the first: none waits for the page to scroll
                conversation = Conversation(visit.page)
                conversation.open()
                whole, asked = conversation.milliseconds(TURN), llm.asked[-1]
            taken.append(whole - 1000 * (asked.first_at - asked.came_at))
    return taken[WARM_UP:]


def start(folder: Path, model: str) -> float:
    """Stage the Space and return the milliseconds from its start to its first page."""
    space = stage_space(folder / "space", model)
    left = {name: os.environ[name] for name in EMPTY if name in os.environ}
    with serving(folder / "run", program=space / "app.py", environment=left) as app:
        return 1000 * app.ready_s


def show(options: Options, result: dict) -> dict:
    """Print and return the figures."""
    lines = table(result)
    print("\n".join(lines))
    if options.record:
        command = f"python benchmarks/app.py --model {result['model']} --rounds {options.rounds}"
        record(f"What a visitor waits for: {result['model']}", command, lines)
    if options.json:
        print(json.dumps(result))
    return result


def table(result: dict) -> list[str]:
    """Return what is recorded."""
    named = [
        (f"{CLIP_S:g} s clip, end of upload to text", "clips", "text_ms"),
        ("turn to first words of the reply, without the server's own time", "turns", "reply_ms"),
        ("staged Space, start to first page", "starts", "start_ms"),
    ]
    rows = [[name, str(result[many]), str(result[key]), str(result[f"{key}_most"])] for name, many, key in named]
    return markdown(["what a visitor waits for, ms", "times", "median", "most"], rows)


if __name__ == "__main__":
    run(main, Options)
