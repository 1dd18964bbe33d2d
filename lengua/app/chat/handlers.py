"""What happens on the server when something is done in conversation mode, or a program asks for a reply.

Handlers get the values of components by component, and give those that change. The turns are in the visit's own
gr.State; a visitor's key is in none (lengua.app.chat.tab).
"""

import html
import secrets
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import gradio as gr

from lengua.app.chat.export import conversation_as_json, conversation_as_markdown, write_conversation_zip
from lengua.app.chat.history import Responder, Setting, Turn, corrected_turn, parse_turns, up_to_last_user_turn
from lengua.app.chat.replies import (
    MAX_TURNS,
    ReplyStep,
    chatbot_messages,
    reply_steps,
    require_turn,
    split_sentences,
    strip_markdown,
    voice_languages,
)
from lengua.app.context import AppContext
from lengua.app.highlighting import unsure_words
from lengua.app.limits import Refusal
from lengua.app.record_tab import VisitFolders
from lengua.app.transcribing import progress_sentence, transcribe_recording

NO_DRAFT = Turn("user", "")
"""A draft is the transcript of a recording that is not sent yet, or a turn that is taken back."""
STATE_SENTENCES = {"thinking": "talk.thinking", "replying": "talk.replying", "ready": "state.ready"}


def responder_html(responder: Responder, t) -> str:
    """Return HTML that names who replies. t: gives the text of a key."""
    if responder.is_tutor:
        return f"<p>{t('tutor.notice')}</p>"
    return f"<p>{t('talk.answered_by')} <b>{html.escape(responder.name)}</b></p>"


def chat_line(state: str, text: str, reply: str = "", sentences: tuple = (), voices: tuple = ()) -> dict:
    """Return the value of the line that tells what goes on; assets/app.js reads it, and speaks the sentences."""
    spoken = {"reply": reply, "sentences": list(sentences), "voices": list(voices)}
    return {"state": state, "text": html.escape(text), **spoken}


class ChatHandlers:
    """The handlers of a page; `panel` holds its components by name."""

    def __init__(self, parts: AppContext, panel: SimpleNamespace, visits: VisitFolders):
        self.parts, self.panel, self.visits = parts, panel, visits

    # A turn and its reply

    def transcribe(self, given: dict, request: gr.Request) -> Iterator[dict]:
        """Transcribe a recording; send the text, or leave it in the box. Where nobody speaks nothing is sent."""
        panel, recording, typed = self.panel, given[self.panel.recorder], (given[self.panel.message] or "").strip()
        if not recording:
            yield gr.skip()
            return
        stopping = given[panel.stopping]
        # The tutor asks about doubtful words, which come with the times of words.
        words = self.parts.responder(given[panel.key]).is_tutor and self.parts.transcriber.engine.aligns
        try:
            for last in transcribe_recording(self.parts, recording, request, words=words, stop=stopping):
                text, sentence = _joined(typed, last.text), progress_sentence(self.parts, request, last)
                yield {panel.message: text, panel.line: chat_line("understanding", sentence)}
        except Exception as error:
            yield {panel.recorder: None} | self._failed(error, request)
            return
        draft = Turn("user", last.text, recording, tuple(unsure_words(last.segments)))
        yield {panel.recorder: None, panel.message: text, panel.draft: draft}
        if last.step == "done" and given[panel.at_once] and not stopping.is_asked_for(given[panel.turn]):
            yield from self._say(given, text, draft, request)
        else:
            sentence = self._message(request, "talk.read_it") if last.step == "done" else sentence
            yield {panel.line: chat_line("ready", sentence)}

    def send(self, given: dict, request: gr.Request) -> Iterator[dict]:
        """Send what stands in the box."""
        yield from self._say(given, (given[self.panel.message] or "").strip(), given[self.panel.draft], request)

    def suggest(self, given: dict, choice: gr.SelectData, request: gr.Request) -> Iterator[dict]:
        """Send what the empty conversation suggests."""
        text = choice.value.get("text") if isinstance(choice.value, dict) else None
        yield from self._say(given, str(text or ""), NO_DRAFT, request)

    def again(self, given: dict, request: gr.Request) -> Iterator[dict]:
        """Ask for another reply to the visitor's last turn."""
        turns = up_to_last_user_turn(given[self.panel.turns])
        if turns:
            yield from self._answer(given, turns, request)
        else:
            yield self._failed(Refusal("talk.nothing_yet"), request)

    def reply(
        self, message: str, history: list, situation: str, level: str, variety: str, key: str, request: gr.Request
    ) -> Iterator[str]:
        """Yield the reply so far, for programs.

        Raises:
            gr.Error: with a sentence; what was yielded before it counts.
        """
        text = (message or "").strip()
        before = tuple(parse_turns(history[-MAX_TURNS + 1 :] if isinstance(history, list) else []))
        setting = Setting(situation or "", level or "", variety or "", self.parts.spoken_language)
        try:
            require_turn(before, text)
            for step in reply_steps(self.parts, (*before, Turn("user", text)), setting, key, request):
                if step.problem:
                    raise Refusal(step.problem, **step.values)
                yield step.text
        except Refusal as refusal:
            sentence = self.parts.failure_sentence(refusal, request)
            raise gr.Error(sentence, duration=None, print_exception=False) from None

    def _say(self, given: dict, text: str, draft: Turn, request: gr.Request) -> Iterator[dict]:
        turns, sent = given[self.panel.turns], {self.panel.message: "", self.panel.draft: NO_DRAFT}
        try:
            require_turn(turns, text)
        except Refusal as refusal:
            yield self._failed(refusal, request)
        else:
            yield from self._answer(given, (*turns, corrected_turn(draft, text)), request, sent)

    def _answer(
        self, given: dict, turns: tuple[Turn, ...], request: gr.Request, first: dict | None = None
    ) -> Iterator[dict]:
        """Yield what shows a reply, step by step; with the first of them what else is to be shown."""
        setting, reply = self._setting(given), secrets.token_hex(4) if given[self.panel.aloud] else ""
        more, stopping, turn = first or {}, given[self.panel.stopping], given[self.panel.turn]
        with closing(reply_steps(self.parts, turns, setting, given[self.panel.key], request)) as steps:
            for step in steps:
                if not more and stopping.is_asked_for(turn):
                    yield {self.panel.line: self._ready(request, "talk.stopped")}
                    return
                # A step without news is so that Gradio sees whether the visitor is still there.
                yield more | self._shown(step, setting, reply, request) if step.news else gr.skip()
                more = {}

    def _shown(self, step: ReplyStep, setting: Setting, reply: str, request: gr.Request) -> dict:
        turns, speech = step.turns, ()
        if step.text:
            text = strip_markdown(step.text)
            turns = (*turns[:-1], replace(turns[-1], text=text))
            sentences = split_sentences(text, step.state in ("ready", "failed")) if reply else ()
            speech = (reply, sentences, voice_languages(setting))
        sentence = self._message(request, step.problem or STATE_SENTENCES[step.state], **step.values)
        return self._turns(turns) | {self.panel.line: chat_line(step.state, sentence, *speech)}

    # What stops a reply, or changes the conversation

    def stop(self, given: dict, request: gr.Request) -> dict:
        """Stop what goes on, and say so, which also ends the voice. What came of a reply stays."""
        given[self.panel.stopping].ask(turn=given[self.panel.turn])
        return {self.panel.line: self._ready(request, "talk.stopped"), self.panel.recorder: None}

    def edit(self, given: dict, request: gr.Request) -> dict:
        """Take the visitor's last turn back into the box, to be corrected and sent again."""
        turns = up_to_last_user_turn(given[self.panel.turns])
        if not turns:
            return self._failed(Refusal("talk.nothing_yet"), request)
        text = _joined(turns[-1].text, (given[self.panel.message] or "").strip())
        line = {self.panel.line: self._ready(request, "talk.correct_it")}
        return self._turns(turns[:-1]) | line | {self.panel.message: text, self.panel.draft: turns[-1]}

    def undo(self, given: dict, request: gr.Request) -> dict:
        """Take the visitor's last turn away, and what was replied to it."""
        return self._turns(up_to_last_user_turn(given[self.panel.turns])[:-1]) | {self.panel.line: self._ready(request)}

    def clear(self, request: gr.Request) -> dict:
        """Begin anew; what stands in the box stays."""
        return self._turns(()) | {self.panel.line: self._ready(request), self.panel.draft: NO_DRAFT}

    def name_responder(self, key: str | None, request: gr.Request) -> str:
        """Return who replies with this key."""
        return responder_html(self.parts.responder(key), lambda name: html.escape(self._message(request, name)))

    # Files

    def markdown(self, given: dict, request: gr.Request) -> dict:
        """Return the name, the kind and the content of a file that the browser saves."""
        return self._text(given, request, "lengua.md", "text/markdown")

    def json(self, given: dict, request: gr.Request) -> dict:
        """Return the name, the kind and the content of a file that the browser saves."""
        return self._text(given, request, "lengua.json", "application/json")

    def zip(self, given: dict, request: gr.Request) -> dict:
        """Write a zip into a folder of the visit, which ends with it, and show where it can be downloaded."""
        download, folder = self.panel.download, given[self.panel.folder]
        try:
            conversation = self._conversation(given)
            folder = folder if folder is not None and folder.is_dir() else self.visits.open()
            file = write_conversation_zip(folder / "lengua.zip", *conversation, self._speakers(request))
        except Exception as error:
            hidden = {download: gr.update(value=None, visible=False)} if isinstance(error, Refusal) else {}
            return hidden | {self.panel.folder: folder} | self._failed(error, request, "talk.failed")
        return {download: gr.update(value=str(file), visible=True), self.panel.folder: folder}

    def _text(self, given: dict, request: gr.Request, name: str, kind: str) -> dict:
        try:
            conversation = self._conversation(given)
        except Refusal as refusal:
            return {self.panel.file: None} | self._failed(refusal, request)
        markdown = partial(conversation_as_markdown, speakers=self._speakers(request))
        text = (markdown if name.endswith(".md") else conversation_as_json)(*conversation)
        return {self.panel.file: {"name": name, "kind": kind, "text": text}}

    def _conversation(self, given: dict) -> tuple[tuple[Turn, ...], Setting, str]:
        """Return turns, setting, and who replies.

        Raises:
            Refusal: there are no turns yet.
        """
        if not given[self.panel.turns]:
            raise Refusal("talk.nothing_yet")
        return given[self.panel.turns], self._setting(given), self.parts.responder(given[self.panel.key]).name

    def _speakers(self, request: gr.Request) -> dict[str, str]:
        return {"user": self._message(request, "talk.me"), "assistant": "lengua"}

    # What they share

    def _setting(self, given: dict) -> Setting:
        codes = (given[component] or "" for component in (self.panel.situation, self.panel.level, self.panel.variety))
        return Setting(*codes, self.parts.spoken_language)

    def _turns(self, turns: tuple[Turn, ...]) -> dict:
        return {self.panel.chat: chatbot_messages(turns), self.panel.turns: turns}

    def _failed(self, error: Exception, request: gr.Request, other: str = "refusal.failed") -> dict:
        return {self.panel.line: chat_line("failed", self.parts.failure_sentence(error, request, other))}

    def _ready(self, request: gr.Request, key: str = "state.ready") -> dict:
        return chat_line("ready", self._message(request, key))

    def _message(self, request: gr.Request, key: str, **values) -> str:
        return self.parts.wording.message(request, key, **values)


def _joined(*texts: str) -> str:
    return "\n".join(filter(None, texts))
