"""One request to a server that speaks OpenAI's chat completions, and its text as it comes, within bounds of time.

The client's own time-out is for each read, so that a server which sends a comment now and then could keep a visitor
waiting for ever; and its own retries wait as long as a server says, up to two minutes. Both are taken over here.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from importlib import import_module
from typing import Any

import openai

from lengua.conversation.errors import ReplyError
from lengua.conversation.keys import Key

http = import_module(openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])
"""The library under the client: httpx2 of openai 3, httpx of openai 2."""
ERRORS = (openai.OpenAIError, http.HTTPError, http.InvalidURL, ReplyError, ValueError, OSError)
"""What a request may end in; a ValueError is of a piece that is no JSON or no UTF-8, or of an impossible URL."""
CONNECT_S = 10.0
NO_KEY = "none"
"""For a server that needs no key: the client insists on one."""
MAX_LETTERS = 6000
"""Of a reply, from a server that does not keep to the tokens it was asked for."""
THINKING, THOUGHT = "<think>", "</think>"


class Patience:
    """How long to wait: so many seconds for the first sign of a reply, so many for the whole of it."""

    def __init__(self, first_s: float, whole_s: float):
        self._start = time.monotonic()
        self._first, self._whole = first_s, whole_s
        self._until = self._start + first_s
        self.ended = False
        """Whether the server has said that a reply is whole: [DONE]."""

    def left(self) -> float:
        """Return the seconds that are left."""
        return self._until - time.monotonic()

    def read_s(self) -> float:
        """Return how long one read may take."""
        return max(0.01, min(self._first, self.left()))

    def began(self) -> None:
        """Note that a reply has begun."""
        self._until = self._start + self._whole


class Timed(http.SyncByteStream):
    """A body whose pieces must come in time, however many of them come."""

    def __init__(self, body: http.SyncByteStream, patience: Patience):
        self._body, self._patience, self._tail = body, patience, b""

    def __iter__(self) -> Iterator[bytes]:
        for data in self._body:
            if self._patience.left() < 0:
                raise http.ReadTimeout("the reply takes too long")
            self._tail = self._tail[-16:] + data
            self._patience.ended |= b"data: [DONE]" in self._tail
            yield data

    def close(self) -> None:
        self._body.close()


@contextmanager
def stream(url: str, key: Key, patience: Patience, **request: Any) -> Iterator[Iterable[Any]]:
    """Ask, and give the chunks of the answer. The connection is closed at the end, whatever the end is."""

    timeout = openai.Timeout(patience.read_s(), connect=min(CONNECT_S, patience.read_s()))
    wires = openai.DefaultHttpxClient(
        timeout=timeout, verify=_certificates(), event_hooks={"response": [partial(_watch, patience)]}
    )
    with (
        wires,
        _client(url, key, wires, timeout) as client,
        client.chat.completions.create(stream=True, **request) as chunks,
    ):
        yield chunks


def _watch(patience: Patience, response: Any) -> None:
    """Put the bounds of time around the body of a response, before it is read."""
    response.stream = Timed(response.stream, patience)


def _client(url: str, key: Key, wires, timeout) -> openai.OpenAI:
    """Return a client that takes nothing from the environment: neither an organisation nor headers of another key."""
    secret = key.reveal() or NO_KEY
    headers = {"Authorization": f"Bearer {secret}"}
    client = openai.OpenAI(
        api_key=secret, base_url=url, timeout=timeout, max_retries=0, http_client=wires, default_headers=headers
    )
    client.organization = client.project = None
    return client


@cache
def prepare() -> None:
    """Do once what the first request would have to wait for: half a second of imports and certificates."""
    with openai.DefaultHttpxClient(verify=_certificates()) as wires:
        _ = _client("http://127.0.0.1", Key(None), wires, None).chat.completions


@cache
def _certificates():
    """Return the certificates that servers are checked by; reading them takes longer than a request on loopback."""
    return http.create_ssl_context()


def pieces_of(chunks: Iterable[Any], patience: Patience) -> Iterator[str]:
    """Yield the text of chunks, read with care: they are whatever a server sent.

    Raises:
        ReplyError: refused; or cut, where nothing said that the reply is whole.
    """
    reason, refused, letters = None, False, 0
    for chunk in chunks:
        patience.began()
        choice = next(iter(getattr(chunk, "choices", None) or ()), None)
        delta = getattr(choice, "delta", None)
        reason = getattr(choice, "finish_reason", None) or reason
        refused |= bool(getattr(delta, "refusal", None))
        text = getattr(delta, "content", None)
        if isinstance(text, str) and text:
            letters += len(text)
            yield text
        if letters > MAX_LETTERS:
            reason = "length"
            break
    if refused or reason == "content_filter":
        raise ReplyError("refused", f"finish_reason {reason}")
    if reason is None and not patience.ended:
        raise ReplyError("cut", "the stream ended without an end")
    if reason == "length" and letters:
        yield "…"


def without_thoughts(pieces: Iterable[str]) -> Iterator[str]:
    """Yield the text without a <think> block before it, and without the white space at its start."""
    held, thinking, begun = "", False, False
    for piece in pieces:
        if begun:
            yield piece
            continue
        held += piece
        if not thinking:
            held = held.lstrip()
            if not held or THINKING.startswith(held):
                continue
            thinking = held.startswith(THINKING)
        if thinking:
            _, end, rest = held.partition(THOUGHT)
            if not end:
                held = THINKING + held[-len(THOUGHT) :] if len(held) > 1000 else held
                continue
            held, thinking = rest.lstrip(), False
        if held:
            begun = True
            yield held
    if not begun and held and not thinking:
        yield held
