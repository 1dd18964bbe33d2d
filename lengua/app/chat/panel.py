"""The components of conversation mode: the talk, the state line, the recorder, the text box, the field for a key.

Gradio keeps the last value of every input in its session, and /gradio_api/deep_link writes that to a file of the
server. The field for a visitor's own key hands its value to the functions, and gives Gradio an empty text to keep.
"""

import html
import json
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.data_classes import GradioRootModel
from pydantic import ConfigDict

from lengua.app.chat.history import LEVELS, SITUATIONS, Responder, Setting, Turn, language_varieties, opening_message
from lengua.app.context import AppContext
from lengua.app.i18n import Wording
from lengua.app.microphone import make_recorder
from lengua.app.transcribing import StopSignal
from lengua.inference.decoding import AUTO_LANGUAGE
from lengua.runtime.files import ASSETS

MAX_TYPED_KEY_LETTERS = 500
"""More than any key has; what is cut off of a longer one does not matter."""


class SecretText(GradioRootModel):
    """What was typed. Printed, dumped or saved it is nothing."""

    model_config = ConfigDict(hide_input_in_errors=True)
    root: Any = None

    def model_dump(self, *_, **__) -> str:
        """Return what Gradio notes."""
        return ""

    def __repr__(self) -> str:
        return "Unsaid()"

    __str__ = __repr__


def key_field(**look) -> gr.Textbox:
    """Return a password field; `look` are the arguments of gr.Textbox that say how it looks."""
    off = gr.InputHTMLAttributes(autocomplete="off", autocapitalize="off", autocorrect="off", spellcheck=False)
    field = gr.Textbox(type="password", html_attributes=off, **look)
    # Set here and not in a class of its own: Gradio writes a .pyi file beside the source of every component class.
    field.data_model, field.preprocess = SecretText, _typed
    return field


def _typed(payload: SecretText | None) -> str | None:
    """Return the key that was typed, None for none."""
    text = payload.root.strip() if payload is not None and isinstance(payload.root, str) else ""
    return text[:MAX_TYPED_KEY_LETTERS] or None


REPLY_LINE_TEMPLATE = """<p role="status" data-state="${value.state}"><span>${value.text || label}</span></p>"""
BROWSER_SENTENCES = (
    *("state.ready", "state.hearing", "state.understanding", "talk.thinking", "talk.speaking", "talk.failed"),
    *("talk.microphone", "talk.no_microphone"),
)
"""What the browser knows before the server does, or when the server does not answer."""
SAVE_FORMATS = ("markdown", "json", "zip")
CHAT_SCRIPT_FILE = ASSETS / "app.js"


@dataclass(frozen=True)
class MessageDraft:
    """What was heard and is not sent yet."""

    text: str = ""
    audio: str | None = None
    doubtful: tuple[str, ...] = ()

    def turn(self, text: str) -> Turn:
        """Return the visitor's turn of a text, with the recording where the text is still what was heard, corrected."""
        heard, sent = (set(words.lower().split()) for words in (self.text, text))
        if not heard or 2 * len(heard & sent) < len(heard):
            return Turn("user", text)
        return Turn("user", text, self.audio, tuple(word for word in self.doubtful if word in text))


class ReplyStopSignal(StopSignal):
    """A wish to stop; the button and the work of a visit share it.

    The wish can come before the work has begun, and new work can begin before the old has seen it. So the browser
    numbers its turns, and those up to a number are to stop. Gradio's own `cancels` misses an event that it has not
    been told of yet.
    """

    def __init__(self):
        super().__init__()
        self.up_to = 0

    def ask_for(self, turn: float | None) -> None:
        """Stop this turn and those before it."""
        self.up_to = max(self.up_to, turn or 0)
        self.ask()

    def is_asked_for(self, turn: float | None) -> bool:
        """Whether a turn is to stop."""
        return bool(turn) and turn <= self.up_to


@dataclass(frozen=True)
class Panel:
    """The components, and what is kept of a visit in its own gr.State."""

    chat: gr.Chatbot
    line: gr.HTML
    recorder: gr.Audio
    message: gr.Textbox
    send: gr.Button
    stop: gr.Button
    again: gr.Button
    edit: gr.Button
    undo: gr.Button
    clear: gr.Button
    at_once: gr.Checkbox
    aloud: gr.Checkbox
    situation: gr.Dropdown
    level: gr.Radio
    variety: gr.Dropdown
    key: gr.Textbox
    who: gr.HTML
    saves: dict[str, gr.Button]
    download: gr.DownloadButton
    turns: gr.State
    draft: gr.State
    stopping: gr.State
    turn: gr.Number
    """What the browser calls the present turn: see `Stopping`."""


def spoken_language(parts: AppContext) -> str:
    """Return the code of the language that is spoken here."""
    return "es" if parts.transcriber.language == AUTO_LANGUAGE else parts.transcriber.language


def build_panel(parts: AppContext) -> Panel:
    """Make the components in the present block."""
    said, language = parts.wording.text, spoken_language(parts)
    with gr.Column(elem_id="talk"):
        shown = {"who": gr.HTML(responder_html(parts.responder(None), said), elem_id="talk-who")}
        shown |= {"chat": _chat(said, language), "line": _line(parts.wording)}
        shown |= _composer(said)
        with gr.Row(elem_id="talk-turns", elem_classes="talk-buttons"):
            for name in ("again", "edit", "undo", "clear"):
                shown[name] = gr.Button(said(f"talk.{name}"), elem_id=f"talk-{name}", size="sm", min_width=80)
        with gr.Accordion(said("talk.settings"), open=False, elem_id="talk-settings"):
            shown |= _settings(said, language)
        with gr.Accordion(said("talk.own_key"), open=False, elem_id="talk-own-key"):
            shown["key"] = key_field(label=said("talk.key"), info=said("talk.key_info"), elem_id="talk-key")
        with gr.Accordion(said("talk.save"), open=False, elem_id="talk-save"), gr.Row(elem_classes="talk-buttons"):
            shown["saves"] = {name: _save_button(said, name) for name in SAVE_FORMATS}
            shown["download"] = gr.DownloadButton(said("talk.download"), visible=False, elem_id="talk-download")
    states = {"turns": gr.State(()), "draft": gr.State(MessageDraft()), "stopping": gr.State(ReplyStopSignal())}
    return Panel(**shown, **states, turn=gr.Number(0, visible=False))


def responder_html(responder: Responder, said) -> str:
    """Return HTML that names who replies.

    Args:
        said: gives the text of a key.
    """
    if responder.is_tutor:
        return f"<p>{said('tutor.notice')}</p>"
    return f"<p>{said('talk.answered_by')} <b>{html.escape(responder.name)}</b></p>"


def _chat(said, language: str) -> gr.Chatbot:
    """Return the talk. All text in it is plain: see lengua.app.chat.replies."""
    return gr.Chatbot(
        [],
        label=said("talk.chat"),
        show_label=False,
        placeholder=str(said("talk.placeholder")),
        examples=[{"text": opening_message(Setting(language=language))}],
        render_markdown=False,
        latex_delimiters=[],
        sanitize_html=True,
        allow_tags=False,
        allow_file_downloads=False,
        buttons=[],
        layout="bubble",
        height="min(60vh, 34rem)",
        min_height="14rem",
        elem_id="talk-chat",
    )


def _line(wording: Wording) -> gr.HTML:
    """Return the line that tells what goes on; its script is also the one that speaks."""
    told = {
        code: {key.partition(".")[2]: html.escape(texts[key]) for key in BROWSER_SENTENCES}
        for code, texts in wording.languages.items()
    }
    script = CHAT_SCRIPT_FILE.read_text(encoding="utf-8")  # in the head it could come too late
    return gr.HTML(
        {"state": "ready", "text": ""},
        label=wording.text("state.ready"),
        html_template=REPLY_LINE_TEMPLATE,
        js_on_load=f"{script}\nlengua.connect(element, props, watch, {json.dumps(told)});",
        elem_id="talk-line",
    )


def _composer(said) -> dict:
    """Return the recorder and the box, and what sends them."""
    with gr.Group(elem_id="talk-composer"):
        made = {"recorder": make_recorder(said("talk.recorder"), "talk-recorder")}
        with gr.Row(elem_id="talk-writing"):
            made["message"] = gr.Textbox(
                label=said("talk.message"),
                placeholder=said("talk.message_placeholder"),
                show_label=False,
                container=False,
                lines=1,
                max_lines=6,
                scale=8,
                html_attributes=gr.InputHTMLAttributes(enterkeyhint="send"),
                elem_id="talk-message",
            )
            made["send"] = gr.Button(said("talk.send"), variant="primary", scale=1, min_width=96, elem_id="talk-send")
            made["stop"] = gr.Button(said("talk.stop"), variant="stop", scale=1, min_width=96, elem_id="talk-stop")
    with gr.Row(elem_id="talk-ways"):
        made["at_once"] = gr.Checkbox(True, label=said("talk.at_once"), elem_id="talk-at-once", container=False)
        made["aloud"] = gr.Checkbox(True, label=said("talk.aloud"), elem_id="talk-aloud", container=False)
    return made


def _settings(said, language: str) -> dict:
    situations = [(said(f"situation.{code}"), code) for code in SITUATIONS]
    levels = [(said(f"level.{code}"), code) for code in LEVELS]
    known, default = [code for code in language_varieties(language) if code], Setting(language=language)
    return {
        "situation": gr.Dropdown(situations, value=default.situation, label=said("talk.situation"), filterable=False),
        "level": gr.Radio(levels, value=default.level, label=said("talk.level")),
        "variety": gr.Dropdown(
            [(said(f"variety.{code}"), code) for code in known],
            value=default.variety or None,
            label=said("talk.variety"),
            filterable=False,
            visible=len(known) > 1,
        ),
    }


def _save_button(said, name: str) -> gr.Button:
    return gr.Button(said(f"talk.save_{name}"), elem_id=f"talk-save-{name}", size="sm", min_width=96)
