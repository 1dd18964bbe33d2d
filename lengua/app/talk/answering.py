"""A reply as it comes, step by step, within the allowance of a visitor. Whatever happens, the visitor's turn stays.

    for step in answering(parts, turns, setting, key, request):
        print(step.state, step.turns[-1].text)

No component of the page is in here: the page, the endpoint and the tests read the same steps.
"""

import logging
import math
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Literal

import gradio as gr

from lengua.app.admission import Refusal
from lengua.app.parts import Parts
from lengua.app.talk.flowing import flowing
from lengua.conversation import ReplyError, Responder, Setting, Turn
from lengua.conversation.trimming import MAX_TURN_LETTERS

State = Literal["thinking", "replying", "ready", "failed"]
MOST_TURNS = 200
"""Of a conversation: an hour and more of talk."""
PLACES = threading.BoundedSemaphore(32)
"""Replies at once, over all visitors: each is a thread and a connection."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """How far a reply is."""

    state: State
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

    def failed(self, problem: str, values: Mapping[str, object]) -> "Step":
        """Return the step after this one where it broke off."""
        turns = (*self.turns[:-1], replace(self.turns[-1], text=self.text.rstrip())) if self.text else self.turns
        return Step("failed", turns, True, problem, values)


def unfit(turns: tuple[Turn, ...], text: str) -> Refusal | None:
    """Return why a text cannot be the next turn; None where it can."""
    if not text.strip():
        return Refusal("talk.nothing_said")
    if len(text) > MAX_TURN_LETTERS:
        return Refusal("talk.too_long", letters=len(text), most=MAX_TURN_LETTERS)
    if len(turns) >= MOST_TURNS:
        return Refusal("talk.too_many")
    return None


def unanswered(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """Return the turns up to the visitor's last one."""
    last = max((place for place, turn in enumerate(turns) if turn.role == "user"), default=-1)
    return turns[: last + 1]


def answering(
    parts: Parts, turns: tuple[Turn, ...], setting: Setting, key: str | None, request: gr.Request | None
) -> Iterator[Step]:
    """Yield steps from thinking to ready or failed; what came before a failure stays in the turns.

    Args:
        turns: the last is the visitor's.
        key: that the visitor typed.
    """
    last = Step("thinking", turns)
    yield last
    try:
        with closing(_steps(parts, turns, setting, key, request)) as steps:
            for last in steps:
                yield last
    except ReplyError as error:
        yield last.failed(*_told(error))
    except Refusal as refusal:
        yield last.failed(refusal.key, refusal.values)
    except Exception as error:  # without its message, which could hold what was sent
        trace = "".join(traceback.format_tb(error.__traceback__))
        log.error("replying failed: %s\n%s", type(error).__name__, trace)
        yield last.failed("talk.failed", {})


def _steps(
    parts: Parts, turns: tuple[Turn, ...], setting: Setting, key: str | None, request: gr.Request | None
) -> Iterator[Step]:
    responder, text = parts.responder(key), ""
    _admit(parts, responder, turns, setting, request)
    with closing(flowing(responder.reply(turns, setting), PLACES.release)) as pieces:
        for piece in pieces:
            text += piece
            said = (*turns, Turn("assistant", text)) if text.strip() else turns
            yield Step("replying" if text.strip() else "thinking", said, bool(piece))
    if not text.strip():
        raise ReplyError("empty", "no text in the reply")
    yield Step("ready", (*turns, Turn("assistant", text.strip())))


def _admit(
    parts: Parts, responder: Responder, turns: tuple[Turn, ...], setting: Setting, request: gr.Request | None
) -> None:
    """Take a place, and the reply from the visitor's allowance.

    Raises:
        Refusal: there is none.
    """
    allowance, visitor = parts.admission.allowance, parts.admission.visitor(request)
    cost = responder.cost(turns, setting)
    if not PLACES.acquire(blocking=False):
        raise Refusal("refusal.busy")
    if not allowance.reply(visitor, cost):
        PLACES.release()
        raise Refusal("talk.used_up" if allowance.left(visitor)["replies"] else "talk.enough_today")


def _told(error: ReplyError) -> tuple[str, dict]:
    """Return the key of the sentence for a reply that failed, and its values."""
    if error.kind == "rate_limited" and error.retry_after_s:
        return "talk.rate_limited_for", {"seconds": math.ceil(error.retry_after_s)}
    return f"reply.{error.kind}", {}
