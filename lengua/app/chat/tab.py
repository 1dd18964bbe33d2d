"""Conversation mode: a turn by voice or in writing, and a reply word by word, spoken if wished.

recording -> transcript, in the box or sent at once -> turns -> reply, step by step -> shown, spoken, saved.

The endpoint `/reply` is for programs:

    client = Client("http://127.0.0.1:7860")
    job = client.submit("Hola, ¿qué tal?", [{"role": "user", "content": "Buenos días"}], api_name="/reply")
    for text in job:
        print(text)                          # the reply so far

Gradio keeps the last value of every input in its session, and /gradio_api/deep_link writes that to a file of the
server. The field for a visitor's own key hands its value to the functions, and gives Gradio an empty text to keep.
"""

import html
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio.data_classes import GradioRootModel
from pydantic import ConfigDict

from lengua.app.chat.handlers import NO_DRAFT, ChatHandlers, responder_html
from lengua.app.chat.history import LEVELS, SITUATIONS, Setting, language_varieties, opening_message
from lengua.app.context import AppContext
from lengua.app.i18n import Wording
from lengua.app.microphone import HIDDEN_EVENT, SAVE_SCRIPT, make_recorder
from lengua.app.record_tab import MAX_VISIT_S, VisitFolders
from lengua.app.transcribing import StopSignal
from lengua.runtime.files import ASSETS

UNQUEUED_EVENT = {**HIDDEN_EVENT, "queue": False}
"""Of an event that is over at once, and waits for nobody."""
MAX_TYPED_KEY_LETTERS = 500
"""More than any key has; what is cut off of a longer one does not matter."""
REPLY_LINE_TEMPLATE = """<p role="status" data-state="${value.state}"><span>${value.text || label}</span></p>"""
BROWSER_SENTENCES = """state.ready state.hearing state.understanding
talk.thinking talk.speaking talk.failed talk.microphone talk.no_microphone""".split()
"""What the browser knows before the server does, or when the server does not answer."""
SAVE_FORMATS = ("markdown", "json", "zip")
CLICK_DOWNLOAD_SCRIPT = (
    "(url) => { if (url) setTimeout(() => document.querySelector('#talk-download')?.click(), 100); }"
)
ENDPOINT_DESCRIPTION = """Reply to a message, word by word: each answer is the reply so far.
history: [{{"role": "user" or "assistant", "content": text}}, ...], the oldest first.
situation: {situations}. level: {levels}. variety: {varieties}. Others count as the first.
key: of OpenAI's API or the server that this page is connected to, used for this reply alone; none: as the page itself.
An error says in a sentence what went wrong, in the language of the request (Accept-Language), Spanish else."""


class SecretText(GradioRootModel):
    """What was typed. Printed, dumped or saved it is nothing."""

    model_config = ConfigDict(hide_input_in_errors=True)
    root: Any = None

    def model_dump(self, *_, **__) -> str:
        """Return what Gradio notes."""
        return ""

    def __repr__(self) -> str:
        return "SecretText()"

    __str__ = __repr__


def key_field(**arguments) -> gr.Textbox:
    """Return a password field; `arguments` are those of gr.Textbox that say how it looks."""
    off = gr.InputHTMLAttributes(autocomplete="off", autocapitalize="off", autocorrect="off", spellcheck=False)
    field = gr.Textbox(type="password", html_attributes=off, **arguments)
    # Set here and not in a class of its own: Gradio writes a .pyi file beside the source of every component class.
    field.data_model, field.preprocess = SecretText, _typed_key
    return field


def _typed_key(payload: SecretText | None) -> str | None:
    text = payload.root.strip() if payload is not None and isinstance(payload.root, str) else ""
    return text[:MAX_TYPED_KEY_LETTERS] or None


def build_chat_tab(parts: AppContext) -> SimpleNamespace:
    """Make the conversation mode in the present block, and return its components by name."""
    panel = SimpleNamespace()
    _components(panel, parts)
    visits = VisitFolders(Path(panel.download.GRADIO_CACHE))
    panel.turns, panel.draft, panel.stopping = gr.State(()), gr.State(NO_DRAFT), gr.State(StopSignal())
    panel.folder = gr.State(None, time_to_live=MAX_VISIT_S, delete_callback=visits.forget)
    panel.file = gr.JSON(visible=False)
    panel.turn = gr.Number(0, visible=False)  # what the browser calls the present turn: see `StopSignal`
    handlers = ChatHandlers(parts, panel, visits)
    _browser_events(panel)  # first: Gradio runs one after the other, each to its end
    _server_events(panel, handlers)
    _endpoint(parts, handlers)
    return panel


def _components(panel: SimpleNamespace, parts: AppContext) -> None:
    t, default = parts.wording.text, Setting(language=parts.spoken_language)

    def button(name: str, **arguments) -> gr.Button:
        return gr.Button(t(f"talk.{name}"), elem_id=f"talk-{name.replace('_', '-')}", **arguments)

    def choices(kind: str, codes) -> list[tuple]:
        return [(t(f"{kind}.{code}"), code) for code in codes if code]

    with gr.Column(elem_id="talk"):
        panel.who = gr.HTML(responder_html(parts.responder(None), t), elem_id="talk-who")
        panel.chat = gr.Chatbot(  # all text in it is plain: see lengua.app.chat.replies
            [],
            label=t("talk.chat"),
            show_label=False,
            placeholder=str(t("talk.placeholder")),
            examples=[{"text": opening_message(default)}],
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
        panel.line = _line(parts.wording)
        with gr.Group(elem_id="talk-composer"):
            panel.recorder = make_recorder(t("talk.recorder"), "talk-recorder")
            with gr.Row(elem_id="talk-writing"):
                panel.message = gr.Textbox(
                    label=t("talk.message"),
                    placeholder=t("talk.message_placeholder"),
                    show_label=False,
                    container=False,
                    lines=1,
                    max_lines=6,
                    scale=8,
                    html_attributes=gr.InputHTMLAttributes(enterkeyhint="send"),
                    elem_id="talk-message",
                )
                panel.send = button("send", variant="primary", scale=1, min_width=96)
                panel.stop = button("stop", variant="stop", scale=1, min_width=96)
        with gr.Row(elem_id="talk-ways"):
            panel.at_once = gr.Checkbox(True, label=t("talk.at_once"), elem_id="talk-at-once", container=False)
            panel.aloud = gr.Checkbox(True, label=t("talk.aloud"), elem_id="talk-aloud", container=False)
        with gr.Row(elem_id="talk-turns", elem_classes="talk-buttons"):
            for name in ("again", "edit", "undo", "clear"):
                setattr(panel, name, button(name, size="sm", min_width=80))
        with gr.Accordion(t("talk.settings"), open=False, elem_id="talk-settings"):
            situations, levels = choices("situation", SITUATIONS), choices("level", LEVELS)
            varieties = choices("variety", language_varieties(default.language))
            panel.situation = gr.Dropdown(
                situations, value=default.situation, label=t("talk.situation"), filterable=False
            )
            panel.level = gr.Radio(levels, value=default.level, label=t("talk.level"))
            panel.variety = gr.Dropdown(
                varieties,
                value=default.variety or None,
                label=t("talk.variety"),
                filterable=False,
                visible=len(varieties) > 1,
            )
        with gr.Accordion(t("talk.own_key"), open=False, elem_id="talk-own-key"):
            panel.key = key_field(label=t("talk.key"), info=t("talk.key_info"), elem_id="talk-key")
        with gr.Accordion(t("talk.save"), open=False, elem_id="talk-save"), gr.Row(elem_classes="talk-buttons"):
            panel.saves = {name: button(f"save_{name}", size="sm", min_width=96) for name in SAVE_FORMATS}
            panel.download = gr.DownloadButton(t("talk.download"), visible=False, elem_id="talk-download")


def _line(wording: Wording) -> gr.HTML:
    """Return the line that tells what goes on; its script is also the one that speaks."""
    sentences = {
        code: {key.partition(".")[2]: html.escape(texts[key]) for key in BROWSER_SENTENCES}
        for code, texts in wording.languages.items()
    }
    script = (ASSETS / "app.js").read_text(encoding="utf-8")  # in the head it could come too late
    return gr.HTML(
        {"state": "ready", "text": ""},
        label=wording.text("state.ready"),
        html_template=REPLY_LINE_TEMPLATE,
        js_on_load=f"{script}\nlengua.connect(element, props, watch, {json.dumps(sentences)});",
        elem_id="talk-line",
    )


def _browser_events(panel: SimpleNamespace) -> None:
    """Connect what the browser knows by itself."""
    begun = [panel.line, panel.turn]
    panel.recorder.start_recording(None, None, panel.line, js="() => window.lengua.hearing()")
    panel.recorder.stop_recording(None, None, begun, js="() => window.lengua.recorded()")
    sending = [panel.send.click, panel.message.submit]
    gr.on(sending, None, panel.message, begun, js="(text) => window.lengua.sending(text)")
    gr.on([panel.again.click, panel.chat.example_select], None, None, begun, js="() => window.lengua.asking()")
    panel.aloud.change(None, panel.aloud, None, js="(aloud) => { window.lengua.aloud(aloud); }")


def _server_events(panel: SimpleNamespace, handlers: ChatHandlers) -> None:
    setting = {panel.situation, panel.level, panel.variety, panel.key}
    given = {panel.turns, panel.message, panel.draft, panel.recorder, panel.at_once, panel.aloud, panel.stopping}
    given |= {panel.turn, *setting}
    shown = [panel.chat, panel.line, panel.turns, panel.message, panel.draft]
    replying = [
        ([panel.recorder.stop_recording], handlers.transcribe),
        ([panel.send.click, panel.message.submit], handlers.send),
        ([panel.chat.example_select], handlers.suggest),
        ([panel.again.click], handlers.again),
    ]
    # While a reply comes, assets/app.js lets none of these begin another; what is begun while the one before is being
    # stopped waits for the end of that.
    for triggers, handler in replying:
        event = gr.on(triggers, handler, given, [*shown, panel.recorder], trigger_mode="always_last", **HIDDEN_EVENT)
        event.failure(None, None, panel.line, js="() => window.lengua.failed()")
    panel.stop.click(handlers.stop, {panel.stopping, panel.turn}, [panel.line, panel.recorder], **UNQUEUED_EVENT)
    panel.edit.click(handlers.edit, {panel.turns, panel.message}, shown, **UNQUEUED_EVENT)
    panel.undo.click(handlers.undo, {panel.turns}, shown, **UNQUEUED_EVENT)
    gr.on([panel.clear.click, panel.chat.clear], handlers.clear, None, shown, **UNQUEUED_EVENT)
    gr.on([panel.key.blur, panel.key.submit], handlers.name_responder, panel.key, panel.who, **UNQUEUED_EVENT)
    saved = {panel.turns, panel.folder, *setting}
    for handler in (handlers.markdown, handlers.json):  # the browser makes these files, the server the zip
        button = panel.saves[handler.__name__]
        making = button.click(handler, saved, [panel.file, panel.line], **HIDDEN_EVENT)
        making.success(None, panel.file, None, js=f"(file) => {{ if (file) ({SAVE_SCRIPT})(file); }}")
    outputs = [panel.download, panel.folder, panel.line]
    zipping = panel.saves["zip"].click(handlers.zip, saved, outputs, **HIDDEN_EVENT)
    zipping.success(None, panel.download, None, js=CLICK_DOWNLOAD_SCRIPT)


def _endpoint(parts: AppContext, handlers: ChatHandlers) -> None:
    """Make the endpoint for programs, with inputs that the page does not show."""
    default = Setting(language=parts.spoken_language)
    codes = {"situations": SITUATIONS, "levels": LEVELS, "varieties": language_varieties(default.language)}
    with gr.Column(visible=False):
        given = [
            gr.Textbox(label="message"),
            gr.JSON([], label="history"),
            gr.Textbox(default.situation, label="situation"),
            gr.Textbox(default.level, label="level"),
            gr.Textbox(default.variety, label="variety"),
            key_field(value="", label="key"),
        ]
        gr.on(
            [],
            handlers.reply,
            given,
            gr.Textbox(label="reply"),
            api_name="reply",
            api_description=ENDPOINT_DESCRIPTION.format(**{name: ", ".join(some) for name, some in codes.items()}),
            concurrency_limit=None,
        )
