"""Replies from a server with OpenAI's chat completions API: OpenAI, Ollama, vLLM, llama.cpp, Hugging Face's router.

    OPENAI_API_KEY     its key; a server of one's own may need none
    OPENAI_BASE_URL    such as http://127.0.0.1:11434/v1 (Ollama) or https://router.huggingface.co/v1; none: OpenAI
    OPENAI_MODEL       the model's name there; none: DEFAULT_CHAT_MODEL, which OpenAI has

A request holds the fixed prompt of the setting and the turns; no tools. openai's own time-out applies to each read,
so a server that sends a comment now and then could hold a visitor for ever, and its retries wait as long as the
server says, up to two minutes. So deadline and retries are ours.

The key goes into the header and nowhere else: `APIKey` hides it from repr, logs, tracebacks, pickle and JSON. A
failure becomes a kind of ReplyError; the log gets the status and the server's code, never its text, which may repeat
the key.
"""

import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

import openai

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
"""For a server that needs no key: the client insists on one."""
MAX_KEY_LETTERS = 400
REPLY_TOKENS = 500
"""The longest reply: the prompt asks for three sentences; the rest is for models that think before."""
MAX_REPLY_LETTERS = 6000
"""Of a reply, from a server that does not keep to the tokens it was asked for."""
CONTEXT_TOKENS = 16_000
OWN_CONTEXT_TOKENS = 4096
"""Where a server is one's own: what Ollama and llama.cpp hold unless configured otherwise."""
CONNECT_TIMEOUT_S = 10.0
MAX_REQUEST_TRIES = 2
RETRY_PAUSE_S = 0.5
MAX_RETRY_PAUSE_S = 5.0
MAX_RETRY_AFTER_S = 3600.0
THINK_START, THINK_END = "<think>", "</think>"

http = import_module(openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])
"""The library under the client: httpx2 of openai 3, httpx of openai 2."""
REQUEST_ERRORS = (openai.OpenAIError, http.HTTPError, http.InvalidURL, ReplyError, ValueError, OSError)
"""What a request may end in; a ValueError is of a piece that is no JSON or no UTF-8, or of an impossible URL."""

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
    warm_up_client()
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
            failure = yield from self._try(self.messages(turns, setting, share), limits, deadline)
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

    def _try(self, messages: list[dict], limits: dict, deadline: "ReplyDeadline") -> Iterator[str]:
        """Yield the pieces of one try; return its failure, or None.

        The library's error is left behind with its traceback, in which the request and its header are.
        """
        came, request = False, {"model": self.model, "messages": messages, **limits}
        try:
            with open_chunk_stream(self.url, self.key, deadline, **request) as chunks:
                for piece in strip_thinking(text_deltas(chunks, deadline)):
                    came = True
                    yield piece
        except REQUEST_ERRORS as error:
            return classify_failure(error, came, bool(self.key))
        return None


@dataclass(frozen=True)
class FailedRequest:
    """A try that failed."""

    kind: ReplyErrorKind
    message: str
    again: bool = False
    """Whether another try may do better."""
    retry_after_s: float | None = None
    mend: Literal["", "limits", "context"] = ""
    """What to leave out of the next try: the limits of the reply, which not all servers know; half of the turns."""


def classify_failure(error: Exception, came: bool, has_key: bool) -> FailedRequest:
    """Return what an error means.

    Args:
        came: whether a piece of the reply came before it.
        has_key: whether a key was sent.
    """
    name = type(error).__name__
    if came:
        refused = isinstance(error, ReplyError) and error.kind == "refused"
        return FailedRequest("refused" if refused else "cut", f"{name} amid the reply")
    if isinstance(error, ReplyError):  # a stream that ended without an end and without a beginning is no answer at all
        down = error.kind == "cut"
        return FailedRequest("server_down" if down else error.kind, str(error), again=down)
    if isinstance(error, openai.APITimeoutError | http.TimeoutException):
        unanswered = isinstance(error.__cause__ or error, http.ConnectTimeout)  # what is slow will be slow again
        return FailedRequest("timeout", name, again=unanswered)
    status = error.status_code if isinstance(error, openai.APIStatusError) else 0
    code = str(getattr(error, "code", None) or getattr(error, "type", None) or "")
    message = name
    if status:
        message = f"status {status} {code}" if re.fullmatch(r"[a-z_]{1,40}", code) else f"status {status}"
    about = f"{getattr(error, 'code', '')} {getattr(error, 'type', '')}"
    if status == 402 or any(word in about for word in ("quota", "billing", "credits")):
        return FailedRequest("no_quota", message)
    if not status:
        return FailedRequest("server_down", message, again=True)
    if status == 404 or "model_not" in code:  # some say it with 400
        return FailedRequest("no_model", message)
    if status in (401, 403):
        return FailedRequest("wrong_key" if has_key else "no_key", message)
    if status == 429:
        return FailedRequest("rate_limited", message, again=True, retry_after_s=_retry_after(error))
    if status in (408, 504):
        return FailedRequest("timeout", message, again=True)
    if status not in (400, 413, 422):
        return FailedRequest("server_down", message, again=status >= 500 or status == 409)
    if "content_filter" in code or "content_policy" in code:
        return FailedRequest("refused", message)
    # The server does not like the request, which can be made smaller or plainer.
    long = re.search(r"context (length|size|window)|too long", str(error).lower())
    if status == 413 or "context" in code or long:
        return FailedRequest("too_long", message, again=True, mend="context")
    return FailedRequest("server_down", message, again=True, mend="limits")


def _retry_after(error: openai.APIStatusError) -> float | None:
    """Return the seconds to wait, where the server sent them as a number."""
    try:
        seconds = float(error.response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return min(seconds, MAX_RETRY_AFTER_S) if seconds > 0 else None


class ReplyDeadline:
    """How long to wait: so many seconds for the first sign of a reply, so many for the whole of it."""

    def __init__(self, first_s: float, whole_s: float):
        self._start = time.monotonic()
        self._first, self._whole = first_s, whole_s
        self._until = self._start + first_s
        self.ended = False
        """Whether the server has marked the reply as whole: [DONE]."""

    def left(self) -> float:
        """Return the seconds that are left."""
        return self._until - time.monotonic()

    def read_s(self) -> float:
        """Return how long one read may take."""
        return max(0.01, min(self._first, self.left()))

    def began(self) -> None:
        """Note that a reply has begun."""
        self._until = self._start + self._whole


class DeadlineStream(http.SyncByteStream):
    """A body whose pieces must come in time, however many of them come."""

    def __init__(self, body: http.SyncByteStream, deadline: ReplyDeadline):
        self._body, self._deadline, self._tail = body, deadline, b""

    def __iter__(self) -> Iterator[bytes]:
        for data in self._body:
            if self._deadline.left() < 0:
                raise http.ReadTimeout("the reply takes too long")
            self._tail = self._tail[-16:] + data
            self._deadline.ended |= b"data: [DONE]" in self._tail
            yield data

    def close(self) -> None:
        self._body.close()


@contextmanager
def open_chunk_stream(url: str, key: APIKey, deadline: ReplyDeadline, **request: Any) -> Iterator[Iterable[Any]]:
    """Ask, and give the chunks of the answer. The connection is closed at the end, whatever the end is."""

    def bound(response: Any) -> None:
        response.stream = DeadlineStream(response.stream, deadline)

    timeout = openai.Timeout(deadline.read_s(), connect=min(CONNECT_TIMEOUT_S, deadline.read_s()))
    transport = openai.DefaultHttpxClient(timeout=timeout, verify=_certificates(), event_hooks={"response": [bound]})
    with (
        transport,
        _client(url, key, transport, timeout) as client,
        client.chat.completions.create(stream=True, **request) as chunks,
    ):
        yield chunks


def _client(url: str, key: APIKey, transport, timeout=None) -> openai.OpenAI:
    """Return a client that takes nothing from the environment: neither an organisation nor headers of another key."""
    secret = key.reveal() or PLACEHOLDER_KEY
    headers = {"Authorization": f"Bearer {secret}"}
    client = openai.OpenAI(
        api_key=secret, base_url=url, timeout=timeout, max_retries=0, http_client=transport, default_headers=headers
    )
    client.organization = client.project = None
    return client


@cache
def warm_up_client() -> None:
    """Do once what the first request would have to wait for: half a second of imports and certificates."""
    with openai.DefaultHttpxClient(verify=_certificates()) as transport:
        _ = _client("http://127.0.0.1", APIKey(None), transport).chat.completions


@cache
def _certificates():
    """Return the certificates that servers are checked by; reading them takes longer than a request on loopback."""
    return http.create_ssl_context()


def text_deltas(chunks: Iterable[Any], deadline: ReplyDeadline) -> Iterator[str]:
    """Yield the text of chunks, read with care: they are whatever a server sent.

    Raises:
        ReplyError: refused; or cut, where nothing marked the reply as whole.
    """
    reason, refused, letters = None, False, 0
    for chunk in chunks:
        deadline.began()
        choice = next(iter(getattr(chunk, "choices", None) or ()), None)
        delta = getattr(choice, "delta", None)
        reason = getattr(choice, "finish_reason", None) or reason
        refused |= bool(getattr(delta, "refusal", None))
        text = getattr(delta, "content", None)
        if isinstance(text, str) and text:
            letters += len(text)
            yield text
        if letters > MAX_REPLY_LETTERS:
            reason = "length"
            break
    if refused or reason == "content_filter":
        raise ReplyError("refused", f"finish_reason {reason}")
    if reason is None and not deadline.ended:
        raise ReplyError("cut", "the stream ended without an end")
    if reason == "length" and letters:
        yield "…"


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
