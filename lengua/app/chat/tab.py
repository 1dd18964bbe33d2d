"""Conversation mode: a turn by voice or in writing, and a reply word by word, spoken if wished.

recording -> transcript, in the box or sent at once -> turns -> reply, step by step -> shown, spoken, saved.
The turns are in the visit's own gr.State; a visitor's key is in none (lengua.app.chat.panel).
"""

import gradio as gr

from lengua.app.chat.export import save_buttons
from lengua.app.chat.handlers import ChatHandlers
from lengua.app.chat.panel import Panel, build_panel
from lengua.app.chat.replies import reply_endpoint
from lengua.app.context import AppContext
from lengua.app.microphone import HIDDEN_EVENT

__all__ = ["build_chat_tab"]

UNQUEUED_EVENT = {**HIDDEN_EVENT, "queue": False}
"""Of an event that is over at once, and waits for nobody."""


def build_chat_tab(parts: AppContext) -> Panel:
    """Make the conversation mode in the present block, and return what it is made of."""
    made = build_panel(parts)
    handlers = ChatHandlers(parts, made)
    _in_the_browser(made)
    _replying(made, handlers)
    _turning(made, handlers)
    save_buttons(made, handlers)
    reply_endpoint(parts)
    return made


def _in_the_browser(made: Panel) -> None:
    """Connect what the browser knows by itself. It comes first: Gradio runs one after the other, each to its end."""
    begun = [made.line, made.turn]
    made.recorder.start_recording(None, None, made.line, js="() => window.lengua.hearing()")
    made.recorder.stop_recording(None, None, begun, js="() => window.lengua.heard()")
    sending = [made.send.click, made.message.submit]
    gr.on(sending, None, made.message, begun, js="(text) => window.lengua.sending(text)")
    gr.on([made.again.click, made.chat.example_select], None, None, begun, js="() => window.lengua.asking()")
    made.aloud.change(None, made.aloud, None, js="(aloud) => { window.lengua.aloud(aloud); }")


def _replying(made: Panel, handlers: ChatHandlers) -> None:
    """Connect what ends in a reply. While one comes, data/app.js lets none of these begin another."""
    given = {made.turns, made.message, made.draft, made.recorder, made.at_once, made.aloud, made.stopping, made.turn}
    given |= {made.situation, made.level, made.variety, made.key}
    shown = [made.chat, made.line, made.turns, made.message, made.draft, made.recorder]
    ways = [
        ([made.recorder.stop_recording], handlers.heard),
        ([made.send.click, made.message.submit], handlers.sent),
        ([made.chat.example_select], handlers.suggested),
        ([made.again.click], handlers.again),
    ]
    for triggers, handler in ways:  # what is begun while the one before is being stopped waits for the end of that
        event = gr.on(triggers, handler, given, shown, trigger_mode="always_last", **HIDDEN_EVENT)
        event.failure(None, None, made.line, js="() => window.lengua.failed()")


def _turning(made: Panel, handlers: ChatHandlers) -> None:
    """Connect what stops a reply, or changes the talk."""
    made.stop.click(handlers.stopped, {made.stopping, made.turn}, [made.line, made.recorder], **UNQUEUED_EVENT)
    shown = [made.chat, made.line, made.turns, made.message, made.draft]
    made.edit.click(handlers.edited, {made.turns, made.message}, shown, **UNQUEUED_EVENT)
    made.undo.click(handlers.undone, {made.turns}, shown, **UNQUEUED_EVENT)
    gr.on([made.clear.click, made.chat.clear], handlers.cleared, None, shown, **UNQUEUED_EVENT)
    gr.on([made.key.blur, made.key.submit], handlers.named, made.key, made.who, **UNQUEUED_EVENT)
