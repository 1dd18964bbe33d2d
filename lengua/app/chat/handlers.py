"""What happens on the server when something is done on the page. Each handler answers with what is to be shown.

Handlers get the values of components by component, and give those that change.
"""

import html
import logging
import secrets
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import gradio as gr

from lengua.app.chat.history import Setting, Turn
from lengua.app.chat.panel import MessageDraft, Panel, responder_html, spoken_language
from lengua.app.chat.replies import (
    ReplyStep,
    SpokenReply,
    chatbot_messages,
    reply_steps,
    split_sentences,
    strip_markdown,
    turn_problem,
    up_to_last_user_turn,
    voice_languages,
)
from lengua.app.context import AppContext
from lengua.app.highlighting import unsure_words
from lengua.app.limits import Refusal
from lengua.app.transcribing import progress_sentence, transcribe_recording

STATE_SENTENCES = {"thinking": "talk.thinking", "replying": "talk.replying", "ready": "state.ready"}

NOTHING_SPOKEN = SpokenReply()

log = logging.getLogger(__name__)


class ChatHandlers:
    """The handlers of a page."""

    def __init__(self, parts: AppContext, panel: Panel):
        self.parts, self.panel = parts, panel

    def heard(self, given: dict, request: gr.Request) -> Iterator[dict]:
        """Hear a recording; send what was heard, or leave it in the box. Where nothing was heard nothing is sent."""
        panel, typed = self.panel, (given[self.panel.message] or "").strip()
        if not given[panel.recorder]:
            yield gr.skip()
            return
        last = None
        try:
            for last in self._hearings(given, request):
                yield {
                    panel.message: _joined(typed, last.text),
                    panel.line: self._line("understanding", progress_sentence(self.parts, request, last)),
                }
        except Refusal as refusal:
            yield {panel.recorder: None} | self.refused(refusal, request)
            return
        except Exception:  # the log has the trace
            log.exception("transcribing failed")
            yield {panel.recorder: None} | self.refused(Refusal("refusal.failed"), request)
            return
        text = _joined(typed, last.text)
        draft = MessageDraft(last.text, given[panel.recorder], tuple(unsure_words(last.segments)))
        yield {panel.recorder: None, panel.message: text, panel.draft: draft}
        if given[panel.at_once] and last.step == "done" and not given[panel.stopping].is_asked_for(given[panel.turn]):
            yield from self._say(given, text, draft, request)
            return
        told = (
            self._said(request, "talk.read_it") if last.step == "done" else progress_sentence(self.parts, request, last)
        )
        yield {panel.line: self._line("ready", told)}

    def sent(self, given: dict, request: gr.Request) -> Iterator[dict]:
        """Send what stands in the box."""
        yield from self._say(given, (given[self.panel.message] or "").strip(), given[self.panel.draft], request)

    def suggested(self, given: dict, choice: gr.SelectData, request: gr.Request) -> Iterator[dict]:
        """Send what the empty talk suggests."""
        text = choice.value.get("text") if isinstance(choice.value, dict) else None
        yield from self._say(given, str(text or ""), MessageDraft(), request)

    def again(self, given: dict, request: gr.Request) -> Iterator[dict]:
        """Ask for another reply to the visitor's last turn."""
        turns = up_to_last_user_turn(given[self.panel.turns])
        if not turns:
            yield self.refused(Refusal("talk.nothing_yet"), request)
            return
        yield from self._answer(given, turns, request)

    def stopped(self, given: dict, request: gr.Request) -> dict:
        """Stop what goes on, and say so, which also ends the voice. What came of a reply stays."""
        given[self.panel.stopping].ask_for(given[self.panel.turn])
        return {self.panel.line: self._stopped(request), self.panel.recorder: None}

    def edited(self, given: dict, request: gr.Request) -> dict:
        """Take the visitor's last turn back into the box, to be corrected and sent again."""
        turns = up_to_last_user_turn(given[self.panel.turns])
        if not turns:
            return self.refused(Refusal("talk.nothing_yet"), request)
        last, typed = turns[-1], (given[self.panel.message] or "").strip()
        return self._kept(turns[:-1], request, "talk.correct_it") | {
            self.panel.message: _joined(last.text, typed),
            self.panel.draft: MessageDraft(last.text, last.audio, last.doubtful),
        }

    def undone(self, given: dict, request: gr.Request) -> dict:
        """Take the visitor's last turn away, and what was replied to it."""
        return self._kept(up_to_last_user_turn(given[self.panel.turns])[:-1], request)

    def cleared(self, request: gr.Request) -> dict:
        """Begin anew; what stands in the box stays."""
        return self._kept((), request) | {self.panel.draft: MessageDraft()}

    def named(self, key: str | None, request: gr.Request) -> str:
        """Return who replies with this key."""
        return responder_html(self.parts.responder(key), lambda name: html.escape(self._said(request, name)))

    def setting(self, given: dict) -> Setting:
        """Return the choices of the visitor."""
        panel = self.panel
        return Setting(
            given[panel.situation] or "",
            given[panel.level] or "",
            given[panel.variety] or "",
            spoken_language(self.parts),
        )

    def _hearings(self, given: dict, request: gr.Request) -> Iterator:
        """Hear with the times of words, which tell the doubtful ones, where the tutor asks for those."""
        words = self.parts.responder(given[self.panel.key]).is_tutor and self.parts.transcriber.engine.aligns
        return transcribe_recording(
            self.parts, given[self.panel.recorder], request, words=words, stop=given[self.panel.stopping]
        )

    def _say(self, given: dict, text: str, draft: MessageDraft, request: gr.Request) -> Iterator[dict]:
        turns = given[self.panel.turns]
        if refusal := turn_problem(turns, text):
            yield self.refused(refusal, request)
            return
        sent = {self.panel.message: "", self.panel.draft: MessageDraft()}
        yield from self._answer(given, (*turns, draft.turn(text)), request, sent)

    def _answer(
        self, given: dict, turns: tuple[Turn, ...], request: gr.Request, shown: dict | None = None
    ) -> Iterator[dict]:
        """Yield what shows a reply, step by step; with the first of them what else is to be shown."""
        setting, reply = self.setting(given), secrets.token_hex(4) if given[self.panel.aloud] else ""
        shown, stopping, turn = shown or {}, given[self.panel.stopping], given[self.panel.turn]
        with closing(reply_steps(self.parts, turns, setting, given[self.panel.key], request)) as steps:
            for step in steps:
                if not shown and stopping.is_asked_for(turn):
                    yield {self.panel.line: self._stopped(request)}
                    return
                if step.news:
                    yield shown | self._step(step, setting, reply, request)
                else:  # so that Gradio sees whether the visitor is still there
                    yield gr.skip()
                shown = {}

    def _step(self, step: ReplyStep, setting: Setting, reply: str, request: gr.Request) -> dict:
        turns, speech = step.turns, NOTHING_SPOKEN
        if step.text:
            text = strip_markdown(step.text)
            turns = (*turns[:-1], replace(turns[-1], text=text))
            said = split_sentences(text, step.state in ("ready", "failed")) if reply else ()
            speech = SpokenReply(reply, said, voice_languages(setting))
        told = self._said(request, step.problem or STATE_SENTENCES[step.state], **step.values)
        return {
            self.panel.chat: chatbot_messages(turns),
            self.panel.turns: turns,
            self.panel.line: self._line(step.state, told, speech),
        }

    def _stopped(self, request: gr.Request) -> dict:
        return self._line("ready", self._said(request, "talk.stopped"))

    def _kept(self, turns: tuple[Turn, ...], request: gr.Request, key: str = "state.ready") -> dict:
        """Return what shows so many turns and no more."""
        line = self._line("ready", self._said(request, key))
        return {self.panel.chat: chatbot_messages(turns), self.panel.turns: turns, self.panel.line: line}

    def refused(self, refusal: Refusal, request: gr.Request) -> dict:
        """Return what tells a refusal."""
        return {self.panel.line: self._line("failed", self._said(request, refusal.key, **refusal.values))}

    def _said(self, request: gr.Request, key: str, **values) -> str:
        return self.parts.wording.said(request, key, **values)

    def _line(self, state: str, text: str, speech: SpokenReply = NOTHING_SPOKEN) -> dict:
        """Return the value of the line: data/app.js reads it."""
        spoken = {"reply": speech.reply, "sentences": list(speech.sentences), "voices": list(speech.voices)}
        return {"state": state, "text": html.escape(text), **spoken}


def _joined(*texts: str) -> str:
    return "\n".join(filter(None, texts))
