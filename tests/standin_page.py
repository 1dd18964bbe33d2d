"""A page with a stand-in for the microphone mode, and a visitor who presses its buttons over HTTP as a browser does."""

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
import httpx
from starlette.requests import Request

from lengua.app.context import AppContext
from lengua.app.i18n import Wording
from lengua.app.limits import Admission
from lengua.app.microphone import MicrophoneOutput
from lengua.inference import Segment, Transcriber
from lengua.inference.engines import EngineOutput
from lengua.models.tokens import word_tokens


def parts_of(transcriber: Transcriber, base: Callable[[], Transcriber] | None = None) -> AppContext:
    """Return what the modes share, around a transcriber."""
    return AppContext(transcriber, Wording(), Admission(), lambda key: None, base)


def request_in(language: str) -> gr.Request:
    """Return a request of a browser with this language, from loopback."""
    scope = {"type": "http", "headers": [(b"accept-language", language.encode())], "client": ("127.0.0.1", 1)}
    return gr.Request(Request(scope))


def saying(transcriber: Transcriber, text: str) -> Callable:
    """Return an `engine.generate` that hears this text in every clip."""
    tokens = word_tokens(transcriber.tokenizer, text)
    return lambda features, *_: [EngineOutput(list(tokens))] * len(features)


def that_hears(model: Path, text: str) -> Transcriber:
    """Return a transcriber that hears this text in every clip."""
    one = Transcriber(str(model), "es")
    one.engine.generate = saying(one, text)
    return one


def build(mode: Callable, parts: AppContext, *more) -> gr.Blocks:
    """Return a page of one mode below a recorder in which one segment is heard, whatever is recorded."""
    with gr.Blocks(analytics_enabled=False) as demo:
        recording, text = gr.Audio(type="filepath"), gr.Textbox()
        segments = gr.State(())
        ready = recording.change(heard_in, recording, [text, segments])
        mode(parts, MicrophoneOutput(recording, segments, ready), *more)
    return demo


def heard_in(recording: str | None) -> tuple[str, tuple[Segment, ...]]:
    """Stand in for the microphone mode."""
    return ("hola", (Segment(0.0, 2.0, "hola", "es"),)) if recording else ("", ())


class Visitor:
    """Somebody with a browser tab open on the page."""

    def __init__(self, demo: gr.Blocks, language: str = "es", agent: str = "tests"):
        self.demo, self.session = demo, secrets.token_hex(6)
        headers = {"accept-language": language, "user-agent": agent}
        self.web = httpx.Client(base_url=f"{demo.local_url}gradio_api/", headers=headers, timeout=30)

    def upload(self, path: Path) -> dict:
        """Return an uploaded file as components take it."""
        with open(path, "rb") as file:
            (place,) = self.web.post("upload", files={"files": file}).json()
        return {"path": place, "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}

    def event(self, function: str, which: int = 0) -> tuple:
        """Return (number, event) of the event that runs a function."""
        return [pair for pair in self.demo.fns.items() if getattr(pair[1].fn, "__name__", "") == function][which]

    def messages(self, number: int, data: list, event_data=None) -> Iterator[dict]:
        """Run an event; yield the messages of Gradio's queue until it has ended well."""
        body = {"fn_index": number, "session_hash": self.session, "data": data, "event_data": event_data}
        joined = self.web.post("queue/join", json=body)
        assert joined.status_code == 200, joined.text
        with self.web.stream("GET", "queue/data", params={"session_hash": self.session}) as stream:
            for line in stream.iter_lines():
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                yield message
                if message.get("msg") == "process_completed":
                    assert message["success"], message
                    return
        raise AssertionError("the stream ended before the event did")

    def does(self, function: str, *data, which: int = 0) -> list:
        """Run the event of this function and return what it gives to its outputs in the end."""
        number, _ = self.event(function, which)
        *_, last = self.messages(number, list(data))
        return last["output"]["data"]

    @contextmanager
    def staying(self) -> Iterator[None]:
        """Keep the tab open; at the end it is closed, and with it the visit."""
        with self.web.stream("GET", f"heartbeat/{self.session}", timeout=30) as beat:
            lines = beat.iter_lines()
            next(lines)
            yield
            lines.close()
