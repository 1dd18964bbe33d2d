"""A reply as it comes: steps for the page, the endpoint `/reply`, plain text and sentences for the voice.

    for step in reply_steps(parts, turns, setting, key, request):
        print(step.state, step.turns[-1].text)

Whatever happens, the visitor's turn stays. A thread of its own reads the pieces of a reply: Gradio closes a generator
whose visitor left, and a generator that hangs in a silent server would hold a lock that every other visitor's reply
needs. This one returns within `REPLY_POLL_S`.

The endpoint is for programs:

    client = Client("http://127.0.0.1:7860")
    job = client.submit("Hola, ¿qué tal?", [{"role": "user", "content": "Buenos días"}], api_name="/reply")
    for text in job:
        print(text)                          # the reply so far

Text is shown and spoken without Markdown or markup, so a browser loads nothing from it. The browser's voice
(assets/app.js) speaks one sentence after another, as soon as each is complete.
"""

import logging
import math
import re
import threading
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import Literal

import gradio as gr

from lengua.app.chat.history import (
    LEVELS,
    MAX_TURN_LETTERS,
    SITUATIONS,
    ReplyError,
    Responder,
    Setting,
    Turn,
    language_varieties,
    parse_turns,
)
from lengua.app.chat.panel import key_field, spoken_language
from lengua.app.context import AppContext
from lengua.app.limits import Refusal

LINK_PATTERN = re.compile(r"!?\[([^\[\]\n]*)\]\((?:[^()\n]|\([^()\n]*\))*\)")
FENCE_PATTERN = re.compile(r"^```.*\n?", re.MULTILINE)
HEADING_PATTERN = re.compile(r"^[ \t]*#{1,6}[ \t]+", re.MULTILINE)
LIST_ITEM_PATTERN = re.compile(r"^([ \t]*)[*+-][ \t]+", re.MULTILINE)
EMPHASIS_PATTERNS = (
    re.compile(r"\*\*([^\s*](?:[^*\n]*[^\s*])?)\*\*"),
    re.compile(r"(?<!\w)__([^\s_](?:[^\n_]*[^\s_])?)__(?!\w)"),  # but not ____, a gap to fill in
    re.compile(r"(?<![\w*])\*([^\s*](?:[^*\n]*[^\s*])?)\*(?![\w*])"),
    re.compile(r"`([^`\n]+)`"),
)
HTML_START = re.compile(r"<(?=[A-Za-z/!?])|&(?=[#A-Za-z])")
HTML_ESCAPES = {"<": "&lt;", "&": "&amp;"}


def strip_markdown(text: str) -> str:
    """Return a text without the marks of Markdown; links and pictures become their words."""
    for pattern in (FENCE_PATTERN, HEADING_PATTERN):
        text = pattern.sub("", text)
    text = LIST_ITEM_PATTERN.sub(r"\1• ", LINK_PATTERN.sub(r"\1", text))
    for pattern in EMPHASIS_PATTERNS:
        text = pattern.sub(r"\1", text)
    return text


def chatbot_messages(turns: Iterable[Turn]) -> list[dict]:
    """Return turns as gr.Chatbot takes them.

    With render_markdown=False it still puts the text into the page as HTML, so whatever could begin a tag or an entity
    is escaped; all else stays as it is, for who copies it.
    """
    return [{"role": turn.role, "content": [{"type": "text", "text": _shown(turn.text)}]} for turn in turns]


def _shown(text: str) -> str:
    return HTML_START.sub(lambda found: HTML_ESCAPES[found[0]], text)


SPOKEN_SENTENCE_END = re.compile(r"[.!?…]+[\"'»”’)\]]*\s+|\n+")
ABBREVIATION = re.compile(
    r"(?:^|[\s(«“¿¡])(?:Sra?s?|Dra?s?|Ud?s?|Vds?|Mrs?|Ms|St|Avda?|Núm|núm|p|ej|EE|UU|[A-ZÑ])\.\s*$"
)
"""A full stop that ends no sentence."""
MAX_SPOKEN_LETTERS = 200
"""Letters at a time: browsers fall silent in the middle of long ones."""
LATIN_AMERICAN_VOICES = ("es-419", "es-US", "es-MX")


@dataclass(frozen=True)
class SpokenReply:
    """What is to be said of one reply so far."""

    reply: str = ""
    """Which one it is; another one silences it."""
    sentences: tuple[str, ...] = ()
    voices: tuple[str, ...] = ()
    """Languages of voices, best first: es-AR, es-419, ..."""


def split_sentences(text: str, ended: bool) -> tuple[str, ...]:
    """Return the sentences of a text that are whole; more text only ever adds to them.

    Args:
        ended: nothing comes after the text, so its last words are a sentence, too.
    """
    spoken = (_pronounced(piece) for part in _whole_sentences(text, ended) for piece in _short_pieces(part))
    return tuple(sentence for sentence in spoken if any(map(str.isalnum, sentence)))


def voice_languages(setting: Setting) -> tuple[str, ...]:
    """Return the languages of voices that suit a variety, best first."""
    exact = f"{setting.language}-{setting.variety}" if setting.variety else setting.language
    near = LATIN_AMERICAN_VOICES if setting.language == "es" and setting.variety != "ES" else ()
    return tuple(dict.fromkeys((exact, *near, setting.language)))


def _whole_sentences(text: str, ended: bool) -> Iterator[str]:
    start = 0
    for found in SPOKEN_SENTENCE_END.finditer(text):
        part = text[start : found.end()]
        if not ABBREVIATION.search(part):
            yield part.strip()
            start = found.end()
    if ended and (rest := text[start:].strip()):
        yield rest


def _short_pieces(part: str) -> Iterator[str]:
    """Yield a sentence in pieces that are not too long, cut behind a comma or at a space where there is one."""
    while len(part) > MAX_SPOKEN_LETTERS:
        cut = max(
            (part.rfind(mark, MAX_SPOKEN_LETTERS // 2, MAX_SPOKEN_LETTERS) for mark in (", ", "; ", ": ")), default=-1
        )
        cut = cut if cut > 0 else part.rfind(" ", MAX_SPOKEN_LETTERS // 2, MAX_SPOKEN_LETTERS)
        cut = cut if cut > 0 else MAX_SPOKEN_LETTERS - 1
        yield part[: cut + 1].strip()
        part = part[cut + 1 :].strip()
    yield part


def _pronounced(part: str) -> str:
    """Return a sentence without emoji and the like, which a voice would read out by name."""
    kept = (letter for letter in part if not _is_picture(letter))
    return " ".join("".join(kept).split())


def _is_picture(letter: str) -> bool:
    return letter in "\ufe0f\u200d•" or (ord(letter) > 0x2190 and unicodedata.category(letter) in ("So", "Sk", "Sm"))


ENDPOINT_DESCRIPTION = """Reply to a message, word by word: each answer is the reply so far.
history: [{{"role": "user" or "assistant", "content": text}}, ...], the oldest first.
situation: {situations}. level: {levels}. variety: {varieties}. Others count as the first.
key: of OpenAI's API or the server that this page is connected to, used for this reply alone; none: as the page itself.
An error says in a sentence what went wrong, in the language of the request (Accept-Language), Spanish else."""


def reply_endpoint(parts: AppContext) -> None:
    """Make the endpoint, with inputs that the page does not show."""
    default = Setting(language=spoken_language(parts))
    about = ENDPOINT_DESCRIPTION.format(
        situations=", ".join(SITUATIONS),
        levels=", ".join(LEVELS),
        varieties=", ".join(language_varieties(default.language)),
    )
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
            ReplyEndpoint(parts).reply,
            given,
            gr.Textbox(label="reply"),
            api_name="reply",
            api_description=about,
            concurrency_limit=None,
        )


class ReplyEndpoint:
    """What happens on the server."""

    def __init__(self, parts: AppContext):
        self.parts = parts

    def reply(
        self,
        message: str,
        history: list,
        situation: str,
        level: str,
        variety: str,
        key: str,
        request: gr.Request,
    ) -> Iterator[str]:
        """Yield the reply so far.

        Raises:
            gr.Error: with a sentence; what was yielded before it counts.
        """
        text = (message or "").strip()
        before = tuple(parse_turns(history[-MAX_TURNS + 1 :] if isinstance(history, list) else []))
        if refusal := turn_problem(before, text):
            raise self._error(refusal, request)
        setting = Setting(situation or "", level or "", variety or "", spoken_language(self.parts))
        for step in reply_steps(self.parts, (*before, Turn("user", text)), setting, key, request):
            if step.problem:
                raise self._error(Refusal(step.problem, **step.values), request)
            yield step.text

    def _error(self, refusal: Refusal, request: gr.Request) -> gr.Error:
        sentence = self.parts.wording.said(request, refusal.key, **refusal.values)
        return gr.Error(sentence, duration=None, print_exception=False)


REPLY_POLL_S = 0.25
REDRAW_INTERVAL_S = 0.04
"""Pieces that come faster are shown together: a page has no use for more than 25 pictures a second."""


class _End:
    """The last thing in the queue: why it ended."""

    def __init__(self, error: BaseException | None = None):
        self.error = error


def read_in_thread(pieces: Iterator[str], ended: Callable[[], None]) -> Iterator[str]:
    """Yield what came since the last time: the first piece at once, an empty text where nothing came for a while.

    Args:
        ended: called when nothing reads the pieces any more, which can be later than who waits for them has left.

    Raises:
        Exception: what the pieces raised, after all that came before it.
    """
    queue, left = SimpleQueue(), threading.Event()
    threading.Thread(target=_read, args=(pieces, queue, left, ended), name="reply", daemon=True).start()
    try:
        end = None
        while end is None:
            text, end = _drain(queue)
            yield text
            time.sleep(REDRAW_INTERVAL_S if text and end is None else 0)
    finally:
        left.set()
    if end.error is not None:
        raise end.error


def _read(pieces: Iterator[str], queue: SimpleQueue, left: threading.Event, ended: Callable[[], None]) -> None:
    end = _End()
    try:
        with closing(pieces):
            for piece in pieces:
                queue.put(piece)
                if left.is_set():
                    break
    except Exception as error:  # for who waits
        end = _End(error)
    finally:
        ended()
        queue.put(end)


def _drain(queue: SimpleQueue) -> tuple[str, _End | None]:
    """Return all that is in the queue, after a wait where it is empty, and the end where that is in it."""
    texts, wait_s = [], REPLY_POLL_S
    while True:
        try:
            item = queue.get(timeout=wait_s)
        except Empty:
            return "".join(texts), None
        if isinstance(item, _End):
            return "".join(texts), item
        texts.append(item)
        wait_s = 0.0


ReplyState = Literal["thinking", "replying", "ready", "failed"]
MAX_TURNS = 200
"""Of a conversation: an hour and more of talk."""
REPLY_SLOTS = threading.BoundedSemaphore(32)
"""Replies at once, over all visitors: each is a thread and a connection."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReplyStep:
    """How far a reply is."""

    state: ReplyState
    turns: tuple[Turn, ...]
    """The conversation with what came of the reply so far."""
    news: bool = True
    """Whether anything came since the last step."""
    problem: str = ""
    """Key of the sentence that says what went wrong, where something did."""
    values: Mapping[str, object] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The reply so far."""
        return self.turns[-1].text if self.turns and self.turns[-1].role == "assistant" else ""

    def failed(self, problem: str, values: Mapping[str, object]) -> "ReplyStep":
        """Return the step after this one where it broke off."""
        turns = (*self.turns[:-1], replace(self.turns[-1], text=self.text.rstrip())) if self.text else self.turns
        return ReplyStep("failed", turns, True, problem, values)


def turn_problem(turns: tuple[Turn, ...], text: str) -> Refusal | None:
    """Return why a text cannot be the next turn; None where it can."""
    if not text.strip():
        return Refusal("talk.nothing_said")
    if len(text) > MAX_TURN_LETTERS:
        return Refusal("talk.too_long", letters=len(text), most=MAX_TURN_LETTERS)
    if len(turns) >= MAX_TURNS:
        return Refusal("talk.too_many")
    return None


def up_to_last_user_turn(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """Return the turns up to the visitor's last one."""
    last = max((place for place, turn in enumerate(turns) if turn.role == "user"), default=-1)
    return turns[: last + 1]


def reply_steps(
    parts: AppContext, turns: tuple[Turn, ...], setting: Setting, key: str | None, request: gr.Request | None
) -> Iterator[ReplyStep]:
    """Yield steps from thinking to ready or failed; what came before a failure stays in the turns.

    Args:
        turns: the last is the visitor's.
        key: that the visitor typed.
    """
    last = ReplyStep("thinking", turns)
    yield last
    try:
        with closing(_replying_steps(parts, turns, setting, key, request)) as steps:
            for last in steps:
                yield last
    except ReplyError as error:
        yield last.failed(*_failure_message(error))
    except Refusal as refusal:
        yield last.failed(refusal.key, refusal.values)
    except Exception as error:  # without its message, which could hold what was sent
        trace = "".join(traceback.format_tb(error.__traceback__))
        log.error("replying failed: %s\n%s", type(error).__name__, trace)
        yield last.failed("talk.failed", {})


def _replying_steps(
    parts: AppContext, turns: tuple[Turn, ...], setting: Setting, key: str | None, request: gr.Request | None
) -> Iterator[ReplyStep]:
    responder, text = parts.responder(key), ""
    _admit(parts, responder, turns, setting, request)
    with closing(read_in_thread(responder.reply(turns, setting), REPLY_SLOTS.release)) as pieces:
        for piece in pieces:
            text += piece
            said = (*turns, Turn("assistant", text)) if text.strip() else turns
            yield ReplyStep("replying" if text.strip() else "thinking", said, bool(piece))
    if not text.strip():
        raise ReplyError("empty", "no text in the reply")
    yield ReplyStep("ready", (*turns, Turn("assistant", text.strip())))


def _admit(
    parts: AppContext, responder: Responder, turns: tuple[Turn, ...], setting: Setting, request: gr.Request | None
) -> None:
    """Take a place, and the reply from the visitor's allowance.

    Raises:
        Refusal: there is none.
    """
    allowance, visitor = parts.admission.allowance, parts.admission.visitor(request)
    cost = responder.cost(turns, setting)
    if not REPLY_SLOTS.acquire(blocking=False):
        raise Refusal("refusal.busy")
    if not allowance.reply(visitor, cost):
        REPLY_SLOTS.release()
        raise Refusal("talk.used_up" if allowance.left(visitor)["replies"] else "talk.enough_today")


def _failure_message(error: ReplyError) -> tuple[str, dict]:
    """Return the key of the sentence for a reply that failed, and its values."""
    if error.kind == "rate_limited" and error.retry_after_s:
        return "talk.rate_limited_for", {"seconds": math.ceil(error.retry_after_s)}
    return f"reply.{error.kind}", {}
