"""A conversation as a file: Markdown, JSON, or a zip of both with the recordings. Its text stays text.

    conversation_as_markdown(turns, setting, responder.name)
    write_conversation_zip(Path("conversation.zip"), turns, setting, responder.name)

The browser makes Markdown and JSON; the server makes the zip, in a folder of the visit (lengua.app.record_tab), which
is deleted when the visit ends.
"""

import json
import logging
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from lengua.app.chat.handlers import ChatHandlers
from lengua.app.chat.history import Setting, Turn
from lengua.app.chat.panel import Panel
from lengua.app.limits import Refusal
from lengua.app.microphone import HIDDEN_EVENT, SAVE_SCRIPT
from lengua.app.record_tab import MAX_VISIT_S, VisitFolders

MAX_ZIP_AUDIO_BYTES = 256 * 2**20
"""Of all recordings in a zip: what is over it is left out, the last first, and told."""
MARKDOWN_SPECIALS = re.compile(r"[\\`*_\[\]<>|~&$]|(?<=:)(?=//)|(?<=\bwww)(?=[.])")
LINE_START = re.compile(r"^(\d*)([#+=.)-])")
SPEAKER_NAMES = {"user": "Yo", "assistant": "lengua"}
LEFT_OUT_FILE = "left_out.txt"
ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip can tell: equal conversations give equal files


def conversation_as_markdown(
    turns: Sequence[Turn],
    setting: Setting,
    responder: str = "",
    speakers: dict[str, str] | None = None,
    audio: Sequence[str | None] = (),
) -> str:
    """Return a conversation as Markdown; whatever looks like markup in it is shown, not obeyed.

    Args:
        responder: who replied: `Responder.name`.
        speakers: how each role is called, in the language of the page.
        audio: for each turn the file of its recording, beside this one, or None.
    """
    names = SPEAKER_NAMES | (speakers or {})
    facts = [setting.situation, setting.level, *filter(None, [setting.variety]), setting.language, responder]
    parts = ["# lengua", " · ".join(_escaped(fact) for fact in facts if fact)]
    for number, turn in enumerate(turns):
        heading = f"**{_escaped(names[turn.role])}**"
        if number < len(audio) and audio[number]:
            heading += f" ([audio]({audio[number]}))"
        parts += [heading, _quoted(turn.text)]
    return "\n\n".join(parts) + "\n"


def conversation_as_json(
    turns: Sequence[Turn], setting: Setting, responder: str = "", audio: Sequence[str | None] = ()
) -> str:
    """Return a conversation as JSON: {"setting", "responder", "turns": [{"role", "text", "doubtful"?, "audio"?}]}."""
    told = []
    for number, turn in enumerate(turns):
        one = {"role": turn.role, "text": turn.text}
        if turn.doubtful:
            one["doubtful"] = list(turn.doubtful)
        if number < len(audio) and audio[number]:
            one["audio"] = audio[number]
        told.append(one)
    about = {name: getattr(setting, name) for name in ("situation", "level", "variety", "language")}
    value = {"setting": about, "responder": responder, "turns": told}
    return json.dumps(value, ensure_ascii=False, indent=2).encode(errors="replace").decode() + "\n"


def write_conversation_zip(
    out: Path,
    turns: Sequence[Turn],
    setting: Setting,
    responder: str = "",
    speakers: dict[str, str] | None = None,
    max_audio_bytes: int = MAX_ZIP_AUDIO_BYTES,
) -> Path:
    """Write conversation.md, conversation.json and audio/01.wav, ...; recordings that are gone or too many are told of.

    Names in the zip are numbers of turns and known suffixes, never a name that a visitor gave to a file.
    """
    audio, left_out = _recordings(turns, max_audio_bytes)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        texts = {
            "conversation.md": conversation_as_markdown(turns, setting, responder, speakers, audio),
            "conversation.json": conversation_as_json(turns, setting, responder, audio),
        }
        if left_out:
            texts[LEFT_OUT_FILE] = "".join(f"{line}\n" for line in left_out)
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), text.encode(errors="replace"), zipfile.ZIP_DEFLATED)
        for turn, name in zip(turns, audio, strict=True):
            if name:
                archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), Path(turn.audio).read_bytes())
    return out


def _recordings(turns: Sequence[Turn], most: int) -> tuple[list[str | None], list[str]]:
    """Return for each turn the name of its recording in a zip, or None; and lines on those that are left out."""
    names, left_out, total = [], [], 0
    for number, turn in enumerate(turns, 1):
        names.append(None)
        if turn.audio is None:
            continue
        path = Path(turn.audio)
        if not path.is_file():
            left_out.append(f"{number}: no recording any more")
        elif total + path.stat().st_size > most:
            left_out.append(f"{number}: over {most >> 20} MB of recordings")
        else:
            total += path.stat().st_size
            suffix = path.suffix.lower()
            names[-1] = f"audio/{number:02}{suffix if re.fullmatch(r'[.][a-z0-9]{1,5}', suffix) else ''}"
    return names, left_out


def _escaped(text: str) -> str:
    """Return text that Markdown shows as it is, in one line: no emphasis, link, tag, entity, heading or list."""
    line = MARKDOWN_SPECIALS.sub(r"\\\g<0>", " ".join(text.encode(errors="replace").decode().split()))
    return LINE_START.sub(r"\1\\\2", line)


def _quoted(text: str) -> str:
    return "\n".join(f"> {_escaped(line)}".rstrip() for line in text.strip().splitlines()) or ">"


CLICK_DOWNLOAD_SCRIPT = (
    "(url) => { if (url) setTimeout(() => document.querySelector('#talk-download')?.click(), 100); }"
)

log = logging.getLogger(__name__)


def save_buttons(panel: Panel, handlers: ChatHandlers) -> None:
    """Connect the buttons that save."""
    visits = VisitFolders(Path(panel.download.GRADIO_CACHE))
    made, folder = gr.JSON(visible=False), gr.State(None, time_to_live=MAX_VISIT_S, delete_callback=visits.forget)
    saving = SaveHandlers(handlers, visits, folder, made)
    given = {panel.turns, panel.situation, panel.level, panel.variety, panel.key, folder}
    for kind, handler in {"markdown": saving.markdown, "json": saving.json}.items():
        making = panel.saves[kind].click(handler, given, [made, panel.line], **HIDDEN_EVENT)
        making.success(None, made, None, js=f"(made) => {{ if (made) ({SAVE_SCRIPT})(made); }}")
    zipping = panel.saves["zip"].click(saving.zip, given, [panel.download, folder, panel.line], **HIDDEN_EVENT)
    zipping.success(None, panel.download, None, js=CLICK_DOWNLOAD_SCRIPT)


class SaveHandlers:
    """What happens on the server."""

    def __init__(self, handlers: ChatHandlers, visits: VisitFolders, folder: gr.State, made: gr.JSON):
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
            file = write_conversation_zip(folder / "lengua.zip", *about, self._speakers(request))
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
        text = (
            conversation_as_markdown(*about, self._speakers(request))
            if name.endswith(".md")
            else conversation_as_json(*about)
        )
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
