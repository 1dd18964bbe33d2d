"""The app in a process of its own, asked by programs over HTTP, and its page in Chromium as a visitor uses it.

    with serving(folder, "runs/demo") as app:
        answer = Visitor(app.url, "ana").transcribe(clip)
        with chromium(wav) as browser, visiting(browser, app.url, PHONE, "es-MX") as visit:
            Microphone(visit.page).record(seconds=3)

Nothing of this machine's keys and settings reaches the process; what it prints goes to a file. Nothing but loopback can
be reached from Debian's Chromium, which Playwright drives and whose microphone plays a file. axe-core, which tells what
is not accessible, comes with the package axe-playwright-python (MIT; axe-core itself: MPL-2.0).
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import numpy as np
import soundfile
from corpus import test_clips
from harness import ROOT

from lengua import audio
from lengua.models.checkpoints import find_model
from lengua.options import BASE_MODEL

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RUN, CLIP_S = "runs/demo", 5.0

# The program and those who ask it

READY_S = 120
"""Longest that a start may take."""
PRIVATE = ("OPENAI_", "HF_TOKEN", "GRADIO_", "LENGUA_MODEL", "PORT")


@dataclass(frozen=True)
class Server:
    """A running app."""

    url: str
    pid: int
    log: Path
    """What it has printed."""
    ready_s: float
    """From the start of the process to the first page that it gave."""

    def printed(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


@contextmanager
def serving(
    folder: Path,
    model: Path | str = "",
    program: Path = ROOT / "app.py",
    python: Path | str = sys.executable,
    environment: Mapping[str, str] | None = None,
    **more: str,
) -> Iterator[Server]:
    """Run the app until the block ends.

    Args:
        folder: for what it prints and keeps.
        model: a run, a folder or a Hub id; "" leaves the choice to the program.
        program: the `app.py` to run; the package beside it is the one that is used.
        environment: all that it has. Default: what this process has, without keys and settings of the app.
        more: of its environment.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port, log = free_port(), folder / "app.log"
    if environment is None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(PRIVATE)}
    ours = {"PORT": str(port), "GRADIO_TEMP_DIR": str(folder / "uploads"), "PYTHONDONTWRITEBYTECODE": "1"}
    ours |= {"HF_HUB_OFFLINE": "1"} | ({"LENGUA_MODEL": str(model)} if model else {}) | more
    start, url = time.perf_counter(), f"http://127.0.0.1:{port}"
    with open(log, "wb") as file:
        command = [str(python), str(program)]
        process = subprocess.Popen(command, cwd=folder, env={**environment, **ours}, stdout=file, stderr=file)
    try:
        wait_for(url, process, log)
        yield Server(url, process.pid, log, time.perf_counter() - start)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    """Return when the page is there.

    Raises:
        RuntimeError: the process ended, or gave no page; with what it printed.
    """
    end = time.monotonic() + READY_S
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(url, timeout=10).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    printed = log.read_text(encoding="utf-8", errors="replace")[-3000:]
    raise RuntimeError(f"expected the app at {url}; found none, and the process printed: {printed}")


@dataclass(frozen=True)
class Answer:
    """What came back for one request: of HTTP its status, and of the request its body, or all events of its stream."""

    status: int
    body: str
    events: tuple[tuple[str, object], ...] = ()

    @property
    def data(self) -> list | None:
        """What the endpoint gave, or None where it gave nothing."""
        return next((data for name, data in reversed(self.events) if name == "complete"), None)

    @property
    def full(self) -> bool:
        """Whether the queue was full."""
        return self.status == httpx.codes.SERVICE_UNAVAILABLE and "full" in self.body.lower()


class Visitor:
    """Who asks the API: a connection and a name of one's own."""

    def __init__(self, url: str, name: str, language: str = "es", timeout_s: float = 120):
        headers = {"User-Agent": name, "Accept-Language": language}
        # Reading the certificates of the world takes a tenth of a second, and loopback shows none.
        self.http = httpx.Client(base_url=f"{url}/gradio_api", headers=headers, timeout=timeout_s, verify=False)

    def __enter__(self) -> "Visitor":
        return self

    def __exit__(self, *_) -> None:
        self.http.close()

    def upload(self, path: Path, name: str | None = None) -> dict:
        """Send a file and return what names it to an endpoint."""
        with open(path, "rb") as file:
            answer = self.http.post("/upload", files={"files": (name or path.name, file)})
        answer.raise_for_status()
        return {"path": answer.json()[0], "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}

    def transcribe(self, recording: Path | dict, language: str = "es", task: str = "transcribe") -> Answer:
        """Return (text, state) as the data of an answer."""
        sent = self.upload(recording) if isinstance(recording, Path) else recording
        return self.call("transcribe", [sent, language, task])

    def call(self, endpoint: str, data: Sequence) -> Answer:
        """Ask a named endpoint and wait for the last event."""
        return self.post(f"/call/{endpoint}", json.dumps({"data": list(data)}))

    def post(self, path: str, body: str) -> Answer:
        """Send a request whose body may be anything; where it is taken, read all of its events."""
        kind = {"Content-Type": "application/json"}
        asked = self.http.post(path, content=body.encode("utf-8", "replace"), headers=kind)
        taken = asked.json() if asked.is_success else None
        event = taken.get("event_id") if isinstance(taken, dict) else None
        if event is None:
            return Answer(asked.status_code, asked.text)
        stream = self.http.get(f"{path}/{event}")
        return Answer(stream.status_code, stream.text, tuple(_events(stream.text)))


def _events(text: str) -> Iterator[tuple[str, object]]:
    """Yield (name, data) of a stream of events."""
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in fields:
            yield fields["event"], json.loads(fields.get("data", "null"))


# What they say to it


def chosen(model: str) -> tuple[str, str]:
    """Return (name, what names it in any folder) of a model; without a name that of runs/demo, else the base model.

    Raises:
        RequestError: no such model.
    """
    name = model or (RUN if Path(RUN).exists() else BASE_MODEL)
    find_model(name)
    return name, str(Path(name).resolve()) if Path(name).exists() else name


def five_seconds(folder: Path, model: str, count: int) -> list[Path]:
    """Write the clips of a model's test split whose length is next to five seconds."""
    sounds = [audio.load(sound) for _, sound in test_clips(model)]
    sounds.sort(key=lambda samples: abs(audio.duration_s(samples) - CLIP_S))
    return write_clips(folder, sounds[:count])


def write_clips(folder: Path, sounds: Iterable[np.ndarray]) -> list[Path]:
    """Write clips as the page records them: 16 kHz, 16 bits, one channel."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, samples in enumerate(sounds):
        paths.append(folder / f"{number:02}.wav")
        soundfile.write(paths[-1], samples, audio.SAMPLE_RATE, subtype="PCM_16")
    return paths


def write_microphone(path: Path, samples: np.ndarray) -> Path:
    """Write what the microphone plays: samples at 16 kHz between moments of silence, for recording starts late."""
    silence = np.zeros(int(0.6 * audio.SAMPLE_RATE), np.float32)
    soundfile.write(path, np.concatenate([silence, samples, silence]), audio.SAMPLE_RATE, subtype="PCM_16")
    return path


def test_server():
    """Return the context manager of the server of replies, which stands among the tests."""
    sys.path.insert(0, str(ROOT / "tests"))
    try:
        import llm_server
    finally:
        sys.path.remove(str(ROOT / "tests"))
    return llm_server.serving()


# The browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--disable-quic",
    "--disable-gpu",
]
SETTLED = """() => Promise.race([
    Promise.all(document.getAnimations().map((one) => one.finished.catch(() => {}))),
    new Promise((done) => setTimeout(done, 1000)),
])"""
"""A colour in the middle of its change is nobody's to judge."""


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


def require_chromium() -> None:
    if program() is None:
        sys.exit("skipped: no Chromium here; on Debian: apt-get install chromium")


@contextmanager
def chromium(microphone: Path | None = None) -> Iterator["Browser"]:
    """Run Chromium without a window until the block ends.

    Args:
        microphone: a WAV file that every recording hears once, from its start. Without one it hears beeps.
    """
    from playwright.sync_api import sync_playwright

    played = [] if microphone is None else [f"--use-file-for-fake-audio-capture={microphone}%noloop"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(), args=[*FLAGS, *played])
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
    """Open the page as a visitor of his own, with nothing kept from others, and wait until it can be used.

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
        visit = Visit(page := context.new_page())
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: visit.errors.append(str(error)))
        page.on("console", lambda message: visit.errors.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: visit.outside.append(request.url) if _is_outside(request.url) else None)
        page.goto(url, wait_until="load")
        wait_until_usable(page)
        yield visit
    finally:
        context.close()


def wait_until_usable(page: "Page") -> None:
    """Wait until all parts of the first mode are there: Gradio fetches the code of each kind by itself."""
    for selector in ("[role=tablist]", "#recorder .record-button", "input[type=file]", "#text textarea"):
        page.locator(selector).first.wait_for(state="attached")


def _is_outside(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("http", "https", "ws", "wss") and parts.hostname not in ("127.0.0.1", "localhost", "")


def violations(page: "Page", severe: tuple[str, ...] = ("serious", "critical")) -> list[str]:
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


# What a visitor does in the page, and where it stands: the one place that knows its selectors

LONGEST_MS = 60_000
"""That a text or a reply may take where others use the machine, too."""
STILL = "() => document.querySelector('#state .still') && document.querySelector('#text textarea')?.value"
WATCH = """([selector, before]) => { window.seen = new Promise((done) => {
    const words = (one) => (one.value ?? one.innerText).trim();
    const look = () => {
        const all = [...document.querySelectorAll(selector)];
        const now = all.slice(before).map(words).find((text) => text);
        if (now) done(performance.now()); else requestAnimationFrame(look);
    };
    look();
}); }"""
"""Keeps a promise of the moment when an element behind the first `before` ones of a selector has words."""
GONE = """() => {
    window.gone = false;
    const empty = () => document.querySelector("#text textarea")?.value === "";
    const look = () => (window.gone ||= empty()) || requestAnimationFrame(look);
    look();
}"""
"""Notes that there was no text in some frame."""
UPLOADED = """() => Math.max(...performance.getEntriesByType('resource')
    .filter((one) => /\\/upload(\\?|$)/.test(one.name)).map((one) => one.responseEnd))"""


def record_in(page: "Page", recorder: str, seconds: float) -> None:
    page.locator(f"{recorder} .record-button").click()
    page.locator(f"{recorder} .stop-button").wait_for()
    page.wait_for_timeout(1000 * seconds)
    page.locator(f"{recorder} .stop-button").click()


class Microphone:
    """The first mode."""

    def __init__(self, page: "Page"):
        self.page = page
        self.text, self.state = page.locator("#text textarea"), page.locator("#state [role=status]")

    def record(self, seconds: float) -> None:
        record_in(self.page, "#recorder", seconds)

    def upload(self, path: Path) -> None:
        """Choose a file, the way a visitor does, who can choose the same one twice."""
        with self.page.expect_file_chooser() as chooser:
            self.page.locator("#upload").click()
        chooser.value.set_files(path)

    def clear(self) -> None:
        """Throw the recording away."""
        self.page.locator("#recorder .top-panel button").last.click()
        self.page.wait_for_function("() => document.querySelector('#text textarea')?.value === ''")

    def transcript(self) -> str:
        """Wait for the whole text and return it."""
        self.page.wait_for_function(STILL, timeout=LONGEST_MS)
        return self.text.input_value()

    def transcript_after(self, do: Callable[[], None]) -> str:
        """Do what replaces the text by another transcript; wait until the old one is gone; return the whole new one."""
        self.page.evaluate(GONE)
        do()
        self.page.wait_for_function("() => window.gone", timeout=LONGEST_MS)
        return self.transcript()

    def wait_for_state(self, sentence: str) -> None:
        """Wait until the state line says a sentence."""
        self.state.filter(has_text=sentence).wait_for(timeout=LONGEST_MS)

    def milliseconds(self, path: Path) -> float:
        """Choose a file; return the time from the end of its upload to the first of its text in the page."""
        self.page.evaluate("() => performance.clearResourceTimings()")
        self.page.evaluate(WATCH, ["#text textarea", 0])
        self.upload(path)
        shown = self.page.evaluate("() => window.seen")
        return shown - self.page.evaluate(UPLOADED)


class Conversation:
    """The second mode."""

    def __init__(self, page: "Page"):
        self.page = page
        self.message, self.line = page.locator("#talk-message textarea"), page.locator("#talk-line [role=status]")
        self.replies = page.locator("#talk-chat [data-testid=bot]")
        self.turns = page.locator("#talk-chat [data-testid=user]")

    def open(self) -> "Conversation":
        self.page.locator("#modes [role=tab]").nth(1).click()
        self.message.wait_for()
        return self

    def record(self, seconds: float) -> None:
        record_in(self.page, "#talk-recorder", seconds)

    def say(self, text: str) -> None:
        self.message.fill(text)
        self.page.locator("#talk-send").click()

    def state(self, *names: str) -> str:
        """Wait until the line is in one of these states, and return what it says."""
        wanted = ", ".join(f"#talk-line [data-state={name}]" for name in names)
        self.page.locator(wanted).wait_for(timeout=LONGEST_MS)
        return self.line.inner_text()

    def answered(self, count: int = 1) -> list[str]:
        """Wait until so many replies are whole, and return all of them."""
        self.replies.nth(count - 1).wait_for(timeout=LONGEST_MS)
        self.state("ready", "speaking")
        return self.replies.all_inner_texts()

    def milliseconds(self, text: str) -> float:
        """Send a turn; return the time from the click to the first words of the reply in the page."""
        before = self.replies.count()
        self.message.fill(text)
        self.page.evaluate(WATCH, ["#talk-chat [data-testid=bot]", before])
        start = self.page.evaluate("() => { document.querySelector('#talk-send').click(); return performance.now(); }")
        shown = self.page.evaluate("() => window.seen")
        self.answered(before + 1)
        return shown - start
