"""A page of the conversation mode alone, and a tab of it, driven over HTTP as a browser drives it."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
from gradio_client.utils import apply_diff
from standin_page import Visitor

from lengua.app import server
from lengua.app.chat import tab as talk
from lengua.app.context import AppContext
from lengua.options import AppOptions


@contextmanager
def talking(parts: AppContext) -> Iterator["Page"]:
    """Serve a page that has nothing but the conversation mode."""
    with gr.Blocks(analytics_enabled=False) as demo:
        panel = talk.build_chat_tab(parts)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server.serve(demo, AppOptions(port=port), wait=False)
    try:
        yield Page(demo, panel)
    finally:
        demo.close(verbose=False)


class Page:
    """The server's side."""

    def __init__(self, demo: gr.Blocks, panel: SimpleNamespace):
        self.demo, self.panel, self.url = demo, panel, demo.local_url

    def tab(self, language: str = "es", agent: str = "tests") -> "Tab":
        """Open a tab; each agent is another visitor."""
        return Tab(self, language, agent)


class Tab(Visitor):
    """What one tab shows: values of components by component, and what is done in it."""

    def __init__(self, page: Page, language: str, agent: str):
        super().__init__(page.demo, language, agent)
        self.page, self.panel = page, page.panel
        self.values = {one["id"]: one["props"].get("value") for one in page.demo.config["components"]}
        self.lines: list[dict] = []
        """All that the line told."""
        self.came: dict[str, float] = {}
        """When each state came first."""
        self.seen: list[str] = []
        """Every message as it came, for who looks for what must not be in one."""

    def put(self, component: gr.components.Component, value) -> None:
        """Type, choose, record."""
        self.values[component._id] = value

    def shown(self, component: gr.components.Component):
        return self.values[component._id]

    @property
    def line(self) -> dict:
        return self.shown(self.panel.line)

    @property
    def talk(self) -> list[tuple[str, str]]:
        """What the talk shows: (role, text), the text as the page gets it."""
        return [(one["role"], one["content"][0]["text"]) for one in self.shown(self.panel.chat) or []]

    def say(self, text: str, leave: Callable[["Tab"], bool] | None = None) -> None:
        """Type a message and send it."""
        self.put(self.panel.message, text)
        self.do("send", leave)

    def record(self, path: Path) -> None:
        """Record what is in a file."""
        self.put(self.panel.recorder, self.upload(path))
        self.do("transcribe")

    def do(self, name: str, leave: Callable[["Tab"], bool] | None = None, event=None) -> None:
        """Run the event of this handler to its end, or until the tab is to be left: then the connection breaks off."""
        number, one = self.event(name)
        values = None
        with closing(self.messages(number, self._data(one), event)) as messages:
            for message in messages:
                self.seen.append(json.dumps(message, ensure_ascii=False))
                output, kind = (message.get("output") or {}).get("data"), message.get("msg")
                if kind == "process_generating" and message["success"] and output is not None:
                    values = output if values is None else list(map(apply_diff, values, output))
                    self._apply(one.outputs, values)
                    if leave is not None and leave(self):
                        return
                if kind == "process_completed":
                    self._apply(one.outputs, output or [])

    def at_once(self, name: str) -> None:
        """Run an event that does not queue, even while another one runs."""
        number, one = self.event(name)
        body = {"fn_index": number, "session_hash": self.session, "data": self._data(one)}
        done = self.web.post("run/predict", json=body)
        assert done.status_code == 200, done.text
        self._apply(one.outputs, done.json()["data"])

    def _data(self, one) -> list:
        return [None if block.stateful else self.values.get(block._id) for block in one.inputs]

    def _apply(self, outputs, values: list) -> None:
        for block, value in zip(outputs, values, strict=False):
            if isinstance(value, dict) and value.get("__type__") == "update":
                if "value" not in value:
                    continue
                value = value["value"]
            if not block.stateful:
                self.values[block._id] = value
                if block is self.panel.line and (not self.lines or self.lines[-1] != value):
                    self.lines.append(value)
                    self.came.setdefault(value["state"], time.perf_counter())
