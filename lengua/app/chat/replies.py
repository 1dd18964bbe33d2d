"""A reply as it comes: steps for the page and for programs, plain text, and sentences for the voice.

    for step in reply_steps(parts, turns, setting, key, request):
        print(step.state, step.text)

Whatever happens, the visitor's turn stays. A thread of its own reads the pieces of a reply: Gradio closes a generator
whose visitor left, and a generator that hangs in a silent server would hold a lock that every other visitor's reply
needs. This one returns within `REPLY_POLL_S`.

Text is shown and spoken without Markdown or markup, so a browser loads nothing from it. The browser's voice
(assets/app.js) speaks one sentence after another, as soon as each is complete.
"""

import html
import logging
import math
import re
import threading
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Literal

from lengua.app.chat.history import MAX_TURN_LETTERS, ReplyError, Setting, Turn
from lengua.app.context import AppContext
from lengua.app.limits import Refusal

if TYPE_CHECKING:
    import gradio as gr

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


def strip_markdown(text: str) -> str:
    """Return a text without the marks of Markdown; links and pictures become their words."""
    for pattern in (FENCE_PATTERN, HEADING_PATTERN):
        text = pattern.sub("", text)
    text = LIST_ITEM_PATTERN.sub(r"\1• ", LINK_PATTERN.sub(r"\1", text))
    for pattern in EMPHASIS_PATTERNS:
        text = pattern.sub(r"\1", text)
    return text


def chatbot_messages(turns: Sequence[Turn]) -> list[dict]:
    """Return turns as gr.Chatbot takes them.

    With render_markdown=False it still puts the text into the page as HTML, so whatever could begin a tag or an entity
    is escaped; all else stays as it is, for who copies it.
    """
    texts = [HTML_START.sub(lambda found: html.escape(found[0]), turn.text) for turn in turns]
    return [
        {"role": turn.role, "content": [{"type": "text", "text": text}]}
        for turn, text in zip(turns, texts, strict=True)
    ]


SPOKEN_SENTENCE_END = re.compile(r"[.!?…]+[\"'»”’)\]]*\s+|\n+")
ABBREVIATION = re.compile(
    r"(?:^|[\s(«“¿¡])(?:Sra?s?|Dra?s?|Ud?s?|Vds?|Mrs?|Ms|St|Avda?|Núm|núm|p|ej|EE|UU|[A-ZÑ])\.\s*$"
)
"""A full stop that ends no sentence."""
MAX_SPOKEN_LETTERS = 200
"""Letters at a time: browsers fall silent in the middle of long ones."""
LATIN_AMERICAN_VOICES = ("es-419", "es-US", "es-MX")


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
    return " ".join("".join(letter for letter in part if not _is_picture(letter)).split())


def _is_picture(letter: str) -> bool:
    return letter in "\ufe0f\u200d•" or (ord(letter) > 0x2190 and unicodedata.category(letter) in ("So", "Sk", "Sm"))


REPLY_POLL_S = 0.25
REDRAW_INTERVAL_S = 0.04
"""Pieces that come faster are shown together: a page has no use for more than 25 pictures a second."""


def read_in_thread(pieces: Iterator[str], ended: Callable[[], None]) -> Iterator[str]:
    """Yield what came since the last time: the first piece at once, an empty text where nothing came for a while.

    Args:
        ended: called when nothing reads the pieces any more, which can be later than who waits for them has left.

    Raises:
        Exception: what the pieces raised, after all that came before it.
    """
    queue, left = SimpleQueue(), threading.Event()

    def read() -> None:
        """Put the pieces into the queue, and at the end (error or None,)."""
        error = None
        try:
            with closing(pieces):
                for piece in pieces:
                    queue.put(piece)
                    if left.is_set():
                        break
        except Exception as raised:  # for who waits
            error = raised
        finally:
            ended()
            queue.put((error,))

    threading.Thread(target=read, name="reply", daemon=True).start()
    try:
        end = None
        while end is None:
            text, end = _drain(queue)
            yield text
            time.sleep(REDRAW_INTERVAL_S if text and end is None else 0)
    finally:
        left.set()
    if end[0] is not None:
        raise end[0]


def _drain(queue: SimpleQueue) -> tuple[str, tuple | None]:
    """Return all text that is in the queue, after a wait where it is empty, and the end where that is in it."""
    texts, wait_s = [], REPLY_POLL_S
    while True:
        try:
            item = queue.get(timeout=wait_s)
        except Empty:
            return "".join(texts), None
        if isinstance(item, tuple):
            return "".join(texts), item
        texts.append(item)
        wait_s = 0.0


MAX_TURNS = 200
"""Of a conversation: an hour and more of talk."""
REPLY_SLOTS = threading.BoundedSemaphore(32)
"""Replies at once, over all visitors: each is a thread and a connection."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReplyStep:
    """How far a reply is."""

    state: Literal["thinking", "replying", "ready", "failed"]
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

    def failed(self, problem: str, **values) -> "ReplyStep":
        """Return the step after this one where it broke off."""
        turns = (*self.turns[:-1], replace(self.turns[-1], text=self.text.rstrip())) if self.text else self.turns
        return ReplyStep("failed", turns, True, problem, values)


def require_turn(turns: Sequence[Turn], text: str) -> None:
    """Refuse a text that cannot be the next turn.

    Raises:
        Refusal: it is empty or too long, or the conversation is.
    """
    if not text.strip():
        raise Refusal("talk.nothing_said")
    if len(text) > MAX_TURN_LETTERS:
        raise Refusal("talk.too_long", letters=len(text), most=MAX_TURN_LETTERS)
    if len(turns) >= MAX_TURNS:
        raise Refusal("talk.too_many")


def reply_steps(
    parts: AppContext, turns: tuple[Turn, ...], setting: Setting, key: str | None, request: "gr.Request | None"
) -> Iterator[ReplyStep]:
    """Yield steps from thinking to ready or failed; what came before a failure stays in the turns.

    Args:
        turns: the last is the visitor's.
        key: that the visitor typed.
    """
    last = ReplyStep("thinking", turns)
    yield last
    try:
        with closing(_steps(parts, turns, setting, key, request)) as steps:
            for last in steps:
                yield last
    except ReplyError as error:
        if error.kind == "rate_limited" and error.retry_after_s:
            yield last.failed("talk.rate_limited_for", seconds=math.ceil(error.retry_after_s))
        else:
            yield last.failed(f"reply.{error.kind}")
    except Refusal as refusal:
        yield last.failed(refusal.key, **refusal.values)
    except Exception as error:  # without its message, which could hold what was sent
        trace = "".join(traceback.format_tb(error.__traceback__))
        log.error("replying failed: %s\n%s", type(error).__name__, trace)
        yield last.failed("talk.failed")


def _steps(
    parts: AppContext, turns: tuple[Turn, ...], setting: Setting, key: str | None, request: "gr.Request | None"
) -> Iterator[ReplyStep]:
    """Take a place, and the reply from the visitor's allowance; yield the steps of the reply.

    Raises:
        Refusal: there is no place, or today was enough.
        ReplyError: the reply failed.
    """
    responder, text = parts.responder(key), ""
    allowance, visitor = parts.admission.allowance, parts.admission.visitor(request)
    cost = responder.cost(turns, setting)
    if not REPLY_SLOTS.acquire(blocking=False):
        raise Refusal("refusal.busy")
    if not allowance.reply(visitor, cost):
        REPLY_SLOTS.release()
        raise Refusal("talk.used_up" if allowance.left(visitor)["replies"] else "talk.enough_today")
    with closing(read_in_thread(responder.reply(turns, setting), REPLY_SLOTS.release)) as pieces:
        for piece in pieces:
            text += piece
            if text.strip():
                yield ReplyStep("replying", (*turns, Turn("assistant", text)), bool(piece))
            else:
                yield ReplyStep("thinking", turns, bool(piece))
    if not text.strip():
        raise ReplyError("empty", "no text in the reply")
    yield ReplyStep("ready", (*turns, Turn("assistant", text.strip())))
