"""Replies from a server with OpenAI's chat completions API: OpenAI, Ollama, vLLM, llama.cpp, Hugging Face's router.

    OPENAI_API_KEY     its key; a server of one's own may need none
    OPENAI_BASE_URL    such as http://127.0.0.1:11434/v1 (Ollama) or https://router.huggingface.co/v1; none: OpenAI
    OPENAI_MODEL       the model's name there; none: DEFAULT_CHAT_MODEL, which OpenAI has

A request holds the fixed prompt of the setting and the turns; no tools. It is made with httpx: a time-out applies to
each read, so a server that sends a comment now and then could hold a visitor for ever, and some ask to wait minutes
before another try. So deadline and tries are bounded here.

The key goes into the header and nowhere else: `APIKey` hides it from repr, logs, tracebacks, pickle and JSON. A
failure becomes a kind of ReplyError; the log gets the status and the server's code, never its text, which may repeat
the key.
"""

import json
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

import httpx

from lengua.app.chat.history import (
    TOKENS_PER_TURN,
    ReplyError,
    ReplyErrorKind,
    Responder,
    Setting,
    Turn,
    estimate_tokens,
    opening_message,
    system_prompt,
    trim_turns,
)
from lengua.app.chat.tutor import Tutor

OPENAI_HOST = "api.openai.com"
OPENAI_URL = f"https://{OPENAI_HOST}/v1"
DEFAULT_CHAT_MODEL = "gpt-5.4-mini"
"""Of those without an announced end (openai 3.54), a small one: a spoken reply is short, and wanted soon."""
PLACEHOLDER_KEY = "none"
"""For a server that needs no key: some insist on a header."""
MAX_KEY_LETTERS = 400
REPLY_TOKENS = 500
"""The longest reply: the prompt asks for three sentences; the rest is for models that think before."""
MAX_REPLY_LETTERS = 6000
"""Of a reply, from a server that does not keep to the tokens it was asked for."""
CONTEXT_TOKENS = 16_000
OWN_CONTEXT_TOKENS = 4096
"""Where a server is one's own: what Ollama and llama.cpp hold unless they are told otherwise."""
CONNECT_TIMEOUT_S = 10.0
MAX_REQUEST_TRIES = 2
RETRY_PAUSE_S = 0.5
MAX_RETRY_PAUSE_S = 5.0
MAX_RETRY_AFTER_S = 3600.0
MAX_ERROR_BYTES = 100_000
THINK_START, THINK_END = "<think>", "</think>"

log = logging.getLogger(__name__)


class APIKey:
    """A secret. `reveal()` is called where the request is made, and nowhere else."""

    __slots__ = ("_value",)

    def __init__(self, value: str | None):
        self._value = (value or "").strip()

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "Key(…)" if self else "Key()"

    def __reduce__(self):
        raise TypeError("a key is not pickled")

    @property
    def is_possible(self) -> bool:
        """Whether a header can hold it; the error of a library that tries would hold the key."""
        return len(self._value) <= MAX_KEY_LETTERS and self._value.isascii() and self._value.isprintable()

    def reveal(self) -> str:
        """Return the secret itself."""
        return self._value


def responder_for(key: str | None = None, environ: Mapping[str, str] = os.environ) -> Responder:
    """Return who replies: with the key that a visitor typed, else as the environment says, else the tutor.

    A typed key serves what it is given to and is kept nowhere; it goes to the server of the environment, whose host the
    name of the responder tells.
    """
    own, url, model = (environ.get(f"OPENAI_{name}", "").strip() for name in ("API_KEY", "BASE_URL", "MODEL"))
    typed = APIKey(key)
    if not (typed or own or url):
        return Tutor()
    return Backend(typed or APIKey(own), url or OPENAI_URL, model or DEFAULT_CHAT_MODEL, of_visitor=bool(typed))


@dataclass(frozen=True)
class Backend:
    """A server and a model of it. Holds nothing of a conversation, so that many may be held at once."""

    is_tutor: ClassVar[bool] = False
    key: APIKey = field(repr=False, compare=False)
    url: str = field(default=OPENAI_URL, repr=False)
    model: str = DEFAULT_CHAT_MODEL
    timeout_s: float = 30
    """Until the first sign of a reply, all tries together, and between two signs of it."""
    whole_s: float = 120
    """Until the end of a reply that has begun."""
    of_visitor: bool = False
    """Whether the key is a visitor's, who pays."""

    @property
    def host(self) -> str:
        """Where it is, without what else a URL may hold."""
        try:
            return urlsplit(self.url).hostname or "?"
        except ValueError:  # "http://[1"
            return "?"

    @property
    def name(self) -> str:
        """The model, and at which host."""
        return f"{self.model} ({self.host})"

    def reply(self, turns: Sequence[Turn], setting: Setting) -> Iterator[str]:
        """Yield the reply to the last turn in pieces, as they come. Closing the iterator ends the request.

        A try that fails before its first piece is made again, once, if there is hope and time.

        Raises:
            ReplyError: with its kind; pieces that came before it count.
        """
        came = False
        try:
            for piece in self._tries(turns, setting):
                came = True
                yield piece
        except ReplyError as error:
            log.warning("no whole reply from %s: %s, %s", self.name, error.kind, error)
            raise
        if not came:
            raise ReplyError("empty", "no text in the reply")

    def cost(self, turns: Sequence[Turn], setting: Setting) -> int:
        """Return the tokens of a request and its longest reply, estimated; 0 where a visitor pays."""
        if self.of_visitor:
            return 0
        sent = sum(estimate_tokens(message["content"]) + TOKENS_PER_TURN for message in self.messages(turns, setting))
        return sent + REPLY_TOKENS

    def messages(self, turns: Sequence[Turn], setting: Setting, share: float = 1.0) -> list[dict[str, str]]:
        """Return what is sent: the system prompt, and the turns that fit into the model's context, or a share of it.

        Raises:
            ReplyError: too_long, the visitor's last turn.
        """
        system = system_prompt(setting)
        room = self.context_tokens - estimate_tokens(system) - TOKENS_PER_TURN - REPLY_TOKENS
        kept = trim_turns(turns, int(room * share)) or [Turn("user", opening_message(setting))]
        return [{"role": "system", "content": system}, *({"role": turn.role, "content": turn.text} for turn in kept)]

    @property
    def context_tokens(self) -> int:
        """What the model is believed to hold."""
        public = "." in self.host and not self.host.replace(".", "").isdigit()
        return CONTEXT_TOKENS if public else OWN_CONTEXT_TOKENS

    def _tries(self, turns: Sequence[Turn], setting: Setting) -> Iterator[str]:
        if not self.key.is_possible:
            raise ReplyError("wrong_key", "no header can hold the key")
        # OpenAI's newer models know the second name only, most others the first.
        limits = {"max_completion_tokens" if self.host == OPENAI_HOST else "max_tokens": REPLY_TOKENS}
        deadline, share = ReplyDeadline(self.timeout_s, self.whole_s), 1.0
        for number in range(1, MAX_REQUEST_TRIES + 1):
            request = {"model": self.model, "messages": self.messages(turns, setting, share), **limits}
            failure = yield from self._try(request, deadline)
            if failure is None:
                return
            pause = failure.retry_after_s or RETRY_PAUSE_S
            hopeful = failure.again and pause <= MAX_RETRY_PAUSE_S and deadline.left() > pause
            if number == MAX_REQUEST_TRIES or not hopeful:
                raise ReplyError(failure.kind, failure.message, failure.retry_after_s)
            if failure.mend == "limits":
                limits = {}
            elif failure.mend == "context":
                share = 0.25
            else:
                time.sleep(pause)

    def _try(self, request: dict, deadline: "ReplyDeadline") -> Iterator[str]:
        """Yield the pieces of one try; return its failure, or None.

        The library's error is left behind with its traceback, in which the request and its header are.
        """
        came = False
        try:
            with closing(self._events(request, deadline)) as events:
                for piece in strip_thinking(text_deltas(events, deadline)):
                    came = True
                    yield piece
        except FailedRequest as failure:
            if came and failure.kind != "refused":
                return FailedRequest("cut", f"{failure.message} amid the reply")
            return failure.with_traceback(None)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:  # no JSON, no UTF-8, no URL, nobody
            name = type(error).__name__
            if came:
                return FailedRequest("cut", f"{name} amid the reply")
            slow = isinstance(error, httpx.TimeoutException)  # what is slow will be slow again
            again = not slow or isinstance(error, httpx.ConnectTimeout)
            return FailedRequest("timeout" if slow else "server_down", name, again)
        return None

    def _events(self, request: dict, deadline: "ReplyDeadline") -> Iterator[Any]:
        """Ask, and yield the events of the answer as they come, None where the server says that it is whole.

        Raises:
            FailedRequest: the server answered with an error.
            httpx.HTTPError: it did not answer in time, or not at all.
        """
        limit_s, url = deadline.read_s(), f"{self.url.rstrip('/')}/chat/completions"
        timeout = httpx.Timeout(limit_s, connect=min(CONNECT_TIMEOUT_S, limit_s))
        headers = {"Authorization": f"Bearer {self.key.reveal() or PLACEHOLDER_KEY}"}
        with (
            httpx.Client(timeout=timeout, verify=certificates(), follow_redirects=True) as client,
            client.stream("POST", url, headers=headers, json={"stream": True, **request}) as response,
        ):
            if response.status_code >= 300:
                raise _failure_of(_error_of(response, deadline), response, bool(self.key))
            for line in response.iter_lines():
                deadline.check()
                data = line.removeprefix("data:").strip()
                if data == line.strip():  # a comment, or the name of an event
                    continue
                event = None if data == "[DONE]" else json.loads(data)
                if error := _dict(event).get("error"):
                    raise _failure_of(error, None, bool(self.key))
                yield event


@cache
def certificates():
    """Return the certificates that servers are checked by; reading them takes longer than a request on loopback."""
    return httpx.create_ssl_context()


class FailedRequest(Exception):
    """A try that failed; the message is for the log, as that of a `ReplyError`.

    Args:
        again: whether another try may do better.
        mend: what to leave out of it: the limits of the reply, which not all servers know; most of the turns.
    """

    def __init__(
        self,
        kind: ReplyErrorKind,
        message: str,
        again: bool = False,
        retry_after_s: float | None = None,
        mend: Literal["", "limits", "context"] = "",
    ):
        super().__init__(message)
        self.kind, self.message, self.again, self.retry_after_s, self.mend = kind, message, again, retry_after_s, mend


def _error_of(response: httpx.Response, deadline: "ReplyDeadline") -> Any:
    """Return the error in the body of a response, or None where there is none that can be read."""
    data = b""
    for block in response.iter_bytes():
        deadline.check()
        data += block
        if len(data) > MAX_ERROR_BYTES:
            return None
    try:
        return json.loads(data).get("error")
    except (ValueError, AttributeError):
        return None


def _failure_of(error: Any, response: httpx.Response | None, has_key: bool) -> FailedRequest:
    """Return what the error of a server means; response: the one whose body it is, None where it came in a stream."""
    error = error if isinstance(error, dict) else {"message": error}
    code, about = str(error.get("code") or error.get("type") or ""), f"{error.get('code')} {error.get('type')}"
    status = 0 if response is None else response.status_code
    message = f"status {status} {code}" if re.fullmatch(r"[a-z_]{1,40}", code) else f"status {status}"
    if status == 402 or any(word in about for word in ("quota", "billing", "credits")):
        return FailedRequest("no_quota", message)
    if response is None:
        return FailedRequest("server_down", message, again=True)
    if status == 404 or "model_not" in code:  # some say it with 400
        return FailedRequest("no_model", message)
    if status in (401, 403):
        return FailedRequest("wrong_key" if has_key else "no_key", message)
    if status == 429:
        told = re.fullmatch(r"\d{1,9}([.]\d+)?", response.headers.get("retry-after", ""))
        seconds = min(float(told[0]), MAX_RETRY_AFTER_S) if told else 0.0
        return FailedRequest("rate_limited", message, again=True, retry_after_s=seconds or None)
    if status in (408, 504):
        return FailedRequest("timeout", message, again=True)
    if status not in (400, 413, 422):
        return FailedRequest("server_down", message, again=status >= 500 or status == 409)
    if "content_filter" in code or "content_policy" in code:
        return FailedRequest("refused", message)
    # The server does not like the request, which can be made smaller or plainer.
    long = re.search(r"context (length|size|window)|too long", str(error.get("message")).lower())
    if status == 413 or "context" in code or long:
        return FailedRequest("too_long", message, again=True, mend="context")
    return FailedRequest("server_down", message, again=True, mend="limits")


class ReplyDeadline:
    """How long to wait: so many seconds for the first sign of a reply, so many for the whole of it."""

    def __init__(self, first_s: float, whole_s: float):
        self._start = time.monotonic()
        self._first, self._whole = first_s, whole_s
        self._until = self._start + first_s

    def left(self) -> float:
        """Return the seconds that are left."""
        return self._until - time.monotonic()

    def read_s(self) -> float:
        """Return how long one read may take."""
        return max(0.01, min(self._first, self.left()))

    def began(self) -> None:
        """Note that a reply has begun."""
        self._until = self._start + self._whole

    def check(self) -> None:
        """Raise httpx.ReadTimeout when the time is over, however many pieces come."""
        if self.left() < 0:
            raise httpx.ReadTimeout("the reply takes too long")


def text_deltas(events: Iterable[Any], deadline: ReplyDeadline) -> Iterator[str]:
    """Yield the text of events, read with care: they are whatever a server sent.

    Raises:
        FailedRequest: refused; or nothing said that the reply is whole.
    """
    reason, refused, letters = None, False, 0
    for event in events:
        if event is None:
            reason = reason or "stop"
            continue
        deadline.began()
        choices = _dict(event).get("choices")
        choice = _dict(choices[0]) if isinstance(choices, list) and choices else {}
        delta, reason = _dict(choice.get("delta")), choice.get("finish_reason") or reason
        refused |= bool(delta.get("refusal"))
        text = delta.get("content")
        if isinstance(text, str) and text:
            letters += len(text)
            yield text
        if letters > MAX_REPLY_LETTERS:
            reason = "length"
            break
    if refused or reason == "content_filter":
        raise FailedRequest("refused", "the server refused")
    if reason is None:
        raise FailedRequest("server_down", "the stream ended without an end", again=True)
    if reason == "length" and letters:
        yield "…"


def _dict(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


def strip_thinking(pieces: Iterable[str]) -> Iterator[str]:
    """Yield the text without a <think> block before it, and without the white space at its start."""
    pieces, held, thinking = iter(pieces), "", False
    for piece in pieces:
        held += piece
        if not thinking:
            held = held.lstrip()
            if THINK_START.startswith(held):  # not yet, or perhaps
                continue
            thinking = held.startswith(THINK_START)
        if thinking:
            _, end, rest = held.partition(THINK_END)
            held = rest.lstrip() if end else THINK_START + held[len(THINK_START) :][-len(THINK_END) :]
            thinking = not end
        if held and not thinking:
            yield held
            yield from pieces
            return
    if held and not thinking:
        yield held
