"""A conversation as files: Markdown and JSON are made up in the browser, a zip with the recordings on the server.

The zip lies in a folder of the visit (lengua.app.visits), which goes when the visit ends.
"""

import logging
from pathlib import Path

import gradio as gr

from lengua.app.admission import Refusal
from lengua.app.microphone import HIDDEN, SAVE
from lengua.app.talk.conversing import Conversing
from lengua.app.talk.panel import Panel
from lengua.app.visits import LONGEST_S, Visits
from lengua.conversation.exporting import as_json, as_markdown, write_zip

CLICK = "(url) => { if (url) setTimeout(() => document.querySelector('#talk-download')?.click(), 100); }"

log = logging.getLogger(__name__)


def save_buttons(panel: Panel, handlers: Conversing) -> None:
    """Connect the buttons that save."""
    visits = Visits(Path(panel.download.GRADIO_CACHE))
    made, folder = gr.JSON(visible=False), gr.State(None, time_to_live=LONGEST_S, delete_callback=visits.forget)
    saving = Saving(handlers, visits, folder, made)
    given = {panel.turns, panel.situation, panel.level, panel.variety, panel.key, folder}
    for kind, handler in {"markdown": saving.markdown, "json": saving.json}.items():
        making = panel.saves[kind].click(handler, given, [made, panel.line], **HIDDEN)
        making.success(None, made, None, js=f"(made) => {{ if (made) ({SAVE})(made); }}")
    zipping = panel.saves["zip"].click(saving.zip, given, [panel.download, folder, panel.line], **HIDDEN)
    zipping.success(None, panel.download, None, js=CLICK)


class Saving:
    """What happens on the server."""

    def __init__(self, handlers: Conversing, visits: Visits, folder: gr.State, made: gr.JSON):
        self.handlers, self.visits, self.folder, self.made = handlers, visits, folder, made

    def markdown(self, given: dict, request: gr.Request) -> dict:
        """Return the name, the kind and the content of a file."""
        return self._text(given, request, "lengua.md", "text/markdown")

    def json(self, given: dict, request: gr.Request) -> dict:
        """Return the name, the kind and the content of a file."""
        return self._text(given, request, "lengua.json", "application/json")

    def zip(self, given: dict, request: gr.Request) -> dict:
        """Write the zip, and show where it can be downloaded."""
        download, folder = self.handlers.panel.download, given[self.folder]
        try:
            about = self._about(given)
            folder = folder if folder is not None and folder.is_dir() else self.visits.open()
            file = write_zip(folder / "lengua.zip", *about, self._speakers(request))
        except Refusal as refusal:
            return {download: gr.update(value=None, visible=False)} | self.handlers.refused(refusal, request)
        except Exception:  # the log has the trace
            log.exception("saving a conversation failed")
            return {self.folder: folder} | self.handlers.refused(Refusal("talk.failed"), request)
        return {download: gr.update(value=str(file), visible=True), self.folder: folder}

    def _text(self, given: dict, request: gr.Request, name: str, kind: str) -> dict:
        try:
            about = self._about(given)
        except Refusal as refusal:
            return {self.made: None} | self.handlers.refused(refusal, request)
        text = as_markdown(*about, self._speakers(request)) if name.endswith(".md") else as_json(*about)
        return {self.made: {"name": name, "kind": kind, "text": text}}

    def _about(self, given: dict) -> tuple:
        """Return turns, setting, and who replies.

        Raises:
            Refusal: nothing was said yet.
        """
        panel, parts = self.handlers.panel, self.handlers.parts
        if not given[panel.turns]:
            raise Refusal("talk.nothing_yet")
        return given[panel.turns], self.handlers.setting(given), parts.responder(given[panel.key]).name

    def _speakers(self, request: gr.Request) -> dict[str, str]:
        return {"user": self.handlers.parts.wording.said(request, "talk.me"), "assistant": "lengua"}
