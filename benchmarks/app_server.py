"""The app in a process of its own on a free port of loopback, and a visitor who asks it as programs do.

    with serving(Path(scratch), "runs/demo") as app:
        answer = Visitor(app.url, "ana").transcribe(clip)

Nothing of this machine's keys and settings reaches the process; what it prints goes to a file.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent
READY_S = 120
"""Longest that a start may take."""
PRIVATE = ("OPENAI_", "HF_TOKEN", "GRADIO_", "LENGUA_MODEL", "PORT")
FILE = {"_type": "gradio.FileData"}


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
        """Return what it has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")


@dataclass(frozen=True)
class Answer:
    """What came back for one request."""

    status: int
    """Of HTTP."""
    body: str
    """Of the request, or all events of its stream."""
    events: tuple[tuple[str, object], ...] = ()

    @property
    def data(self) -> list | None:
        """What the endpoint gave, or None where it gave nothing."""
        return next((data for name, data in reversed(self.events) if name == "complete"), None)

    @property
    def full(self) -> bool:
        """Whether the queue was full."""
        return self.status == httpx.codes.SERVICE_UNAVAILABLE and "full" in self.body.lower()


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
    ours = {"PORT": str(port), "GRADIO_TEMP_DIR": str(folder / "uploads"), "PYTHONDONTWRITEBYTECODE": "1"}
    ours |= {"HF_HUB_OFFLINE": "1"} | ({"LENGUA_MODEL": str(model)} if model else {}) | more
    environment = (without_keys() if environment is None else dict(environment)) | ours
    start = time.perf_counter()
    with open(log, "wb") as file:
        process = subprocess.Popen([str(python), str(program)], cwd=folder, env=environment, stdout=file, stderr=file)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(url, process, log)
        yield Server(url, process.pid, log, time.perf_counter() - start)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def without_keys() -> dict[str, str]:
    """Return the environment of this process without what is for the app or for another server."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PRIVATE)}


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
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
        return {"path": answer.json()[0], "orig_name": path.name, "meta": FILE}

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
        event = _event_of(asked)
        if event is None:
            return Answer(asked.status_code, asked.text)
        told = self.http.get(f"{path}/{event}")
        return Answer(told.status_code, told.text, tuple(_events(told.text)))


def _event_of(asked: httpx.Response) -> str | None:
    """Return the id under which a request waits; None where it was refused."""
    if not asked.is_success:
        return None
    told = asked.json()
    return told.get("event_id") if isinstance(told, dict) else None


def _events(text: str) -> Iterator[tuple[str, object]]:
    """Yield (name, data) of a stream of events."""
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in fields:
            yield fields["event"], json.loads(fields.get("data", "null"))
