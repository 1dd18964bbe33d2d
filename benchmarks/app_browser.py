"""Debian's Chromium, driven by Playwright: the app as a visitor sees it, with a microphone that plays a file.

    with chromium(wav) as browser, visiting(browser, app.url, PHONE, "es-MX") as visit:
        visit.page.get_by_role("tab", name="Conversación").click()

Nothing but loopback can be reached from it. axe-core, which tells what is not accessible, comes with the package
axe-playwright-python (MIT; axe-core itself: MPL-2.0).
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
import soundfile

from lengua import audio

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--disable-quic",
    "--disable-gpu",
]
BEFORE_S, AFTER_S = 0.6, 0.6
"""Silence around what the microphone plays: recording starts a moment after the click."""
SEVERE = ("serious", "critical")
SETTLED = """() => Promise.race([
    Promise.all(document.getAnimations().map((one) => one.finished.catch(() => {}))),
    new Promise((done) => setTimeout(done, 1000)),
])"""
"""A colour in the middle of its change is nobody's to judge."""
LOCAL = {"127.0.0.1", "localhost", ""}


@dataclass(frozen=True)
class Screen:
    """What a visitor looks at."""

    name: str
    width: int
    height: int
    touch: bool


PHONE, DESK = Screen("phone", 390, 844, True), Screen("desktop", 1280, 800, False)


@dataclass
class Visit:
    """A page, and what went wrong in it."""

    page: "Page"
    errors: list[str] = field(default_factory=list)
    """Of scripts, and what they wrote to the console as errors."""
    outside: list[str] = field(default_factory=list)
    """Addresses beyond this machine that the page asked for."""


def program() -> str | None:
    """Return the path of Chromium, or None where there is none."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


@contextmanager
def chromium(microphone: Path | None = None) -> Iterator["Browser"]:
    """Run Chromium without a window until the block ends.

    Args:
        microphone: a WAV file that every recording hears once, from its start. Without one it hears beeps.
    """
    from playwright.sync_api import sync_playwright

    heard = [] if microphone is None else [f"--use-file-for-fake-audio-capture={microphone}%noloop"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(), args=[*FLAGS, *heard])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visiting(
    browser: "Browser",
    url: str,
    screen: Screen = DESK,
    locale: str = "es-MX",
    dark: bool = False,
    script: str = "",
    **more,
) -> Iterator[Visit]:
    """Open the page as a visitor of his own, with nothing kept from others.

    Args:
        locale: of the browser: the page's language.
        script: runs before those of the page.
        more: of the browser's context, as Playwright takes it.
    """
    usual = {"permissions": ["microphone", "clipboard-read", "clipboard-write"], "reduced_motion": "reduce"}
    context = browser.new_context(
        viewport={"width": screen.width, "height": screen.height},
        has_touch=screen.touch,
        is_mobile=screen.touch,
        locale=locale,
        color_scheme="dark" if dark else "light",
        **(usual | more),
    )
    if script:
        context.add_init_script(script)
    try:
        yield opened(context.new_page(), url)
    finally:
        context.close()


def opened(page: "Page", url: str) -> Visit:
    """Load the app in a page and wait until it can be used."""
    visit = Visit(page)
    page.set_default_timeout(15_000)
    page.on("pageerror", lambda error: visit.errors.append(str(error)))
    page.on("console", lambda message: visit.errors.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: visit.outside.append(request.url) if _is_outside(request.url) else None)
    page.goto(url, wait_until="load")
    wait_until_usable(page)
    return visit


def wait_until_usable(page: "Page") -> None:
    """Wait until all parts of the first mode are there: Gradio fetches the code of each kind by itself."""
    for selector in ("[role=tablist]", "#recorder .record-button", "input[type=file]", "#text textarea"):
        page.locator(selector).first.wait_for(state="attached")


def _is_outside(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("http", "https", "ws", "wss") and parts.hostname not in LOCAL


def write_microphone(path: Path, samples: np.ndarray) -> Path:
    """Write what the microphone plays: samples at 16 kHz between two moments of silence."""
    before, after = (np.zeros(int(seconds * audio.SAMPLE_RATE), np.float32) for seconds in (BEFORE_S, AFTER_S))
    soundfile.write(path, np.concatenate([before, samples, after]), audio.SAMPLE_RATE, subtype="PCM_16")
    return path


def violations(page: "Page", severe: tuple[str, ...] = SEVERE) -> list[str]:
    """Return what axe-core finds in a page as it is, one line for each element: severity, rule, where."""
    page.evaluate(SETTLED)
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("() => axe.run({resultTypes: ['violations']})")["violations"]
    return [
        f"{one['impact']} {one['id']}: {' '.join(map(str, node['target']))} {node['html'][:160]}"
        for one in found
        for node in one["nodes"]
        if one["impact"] in severe
    ]
