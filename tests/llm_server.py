"""OpenAI's chat completions on loopback, for the real openai client to talk to; it streams, fails and stalls.

    from llm_server import serving, an_llm          # an_llm is the fixture `llm`; serving() the context manager of it

    def test_something(llm, monkeypatch):
        for name, value in llm.environment("slow-20ms").items():
            monkeypatch.setenv(name, value)         # OPENAI_API_KEY, OPENAI_BASE_URL, OPENAI_MODEL
        ...
        assert llm.asked[-1].messages[-1] == {"role": "user", "content": "Hola"}

What it does is said by the model's name, several joined by "+" ("slow-20ms+cut-after-3"); any other name just answers:

    stall              takes the request and says nothing         stall-after-3   three pieces, then nothing
    trickle            keep-alive comments for ten seconds       late-500ms      waits before the first piece
    slow-20ms          waits so long between pieces               long-2000       a reply of so many words
    status-429         that status, with an error as OpenAI words it (401 repeats the key that it got); retry-after-9
    no-quota           429 insufficient_quota                     missing         404 model_not_found
    cut-after-3        the connection breaks after three pieces   end-after-3     it ends well, but nothing says the end
    error-after-3      an error event among the pieces            filter-after-3  finish_reason content_filter
    empty              an end without a text                      refuse          a refusal instead of a text
    length             finish_reason length                       think           a <think> block before the text
    echo               says the last message back                 html            200 and a web page
    junk               pieces that are not JSON                   no-max-tokens   400 where max_tokens is in the request
    context-500        400 context_length_exceeded over so many letters

`llm.once("status-500")` is for the next request alone, whatever its model; `llm.behave("stall")` for all from now on,
`llm.behave("")` ends it. `llm.reply` is what it says: a text, or a function of the messages. `llm.keys`, where set, are
the keys that it takes. `llm.asked` are the requests that came: `.messages`, `.key`, `.body`, `.sent` (pieces),
`.hung_up` (the client went away before the end).
"""

import json
import re
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

KEY = "sk-test-a1b2c3d4e5f6g7h8i9j0"
"""The key of `environment()`: what must appear nowhere but in a request."""
REPLY = "Hola. Te oigo muy bien. ¿De qué quieres hablar hoy?"
OPTIONS = """stall stall-after trickle late slow long status retry-after no-quota missing cut-after end-after
error-after filter-after empty refuse length think echo html junk no-max-tokens context""".split()
WORDED = {
    400: ("invalid_request_error", None, "Bad request."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided: {key}. You can find your API key."),
    402: ("insufficient_credits", None, "You have exceeded your monthly included credits."),
    403: ("permission_error", None, "You are not allowed to sample from this model."),
    404: ("invalid_request_error", "model_not_found", "The model `{model}` does not exist or you do not have access."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for {model} in organization org-1."),
    500: ("server_error", None, "The server had an error while processing your request."),
    503: ("server_error", None, "The engine is currently overloaded."),
}
QUOTA = ("insufficient_quota", "insufficient_quota", "You exceeded your current quota, please check your plan.")


@dataclass
class Asked:
    """A request, and what became of it."""

    path: str
    key: str
    body: dict = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    came_at: float = field(default_factory=time.perf_counter)
    first_at: float | None = None
    """When the first piece of text was written."""
    sent: int = 0
    """Pieces of text."""
    hung_up: bool = False
    """Whether the client went away before the end."""
    broken: bool = False
    """Whether the server did."""
    done: bool = False

    @property
    def messages(self) -> list[dict]:
        return self.body.get("messages", [])

    @property
    def model(self) -> str:
        return self.body.get("model", "")


class Llm:
    """The server's state, and what tests do with it."""

    def __init__(self):
        self.url = ""
        self.reply: str | Callable[[list[dict]], str] = REPLY
        self.keys: set[str] | None = None
        self.asked: list[Asked] = []
        self.errors: list[str] = []
        """What went wrong in the server itself; `serving` tells it."""
        self.closing = threading.Event()
        self._next: deque[str] = deque()
        self._always = ""

    def environment(self, model: str = "test", key: str = KEY) -> dict[str, str]:
        """Return the variables that make this the server of a program."""
        return {"OPENAI_API_KEY": key, "OPENAI_BASE_URL": self.url, "OPENAI_MODEL": model}

    def once(self, *names: str) -> None:
        """Do this to the next requests, one each."""
        self._next.extend(names)

    def behave(self, names: str) -> None:
        """Do this to all requests from now on; nothing: what their models say."""
        self._always = names

    def options(self, model: str) -> dict[str, float]:
        """Return what to do to a request: {"slow": 0.02, "cut-after": 3.0}."""
        said = self._next.popleft() if self._next else self._always or model
        return dict(filter(None, map(option_of, said.split("+"))))

    def text(self, messages: list[dict], options: dict[str, float]) -> str:
        """Return what to say."""
        if "echo" in options:
            return messages[-1]["content"]
        if "long" in options:
            return " ".join(["palabra"] * int(options["long"])) + "."
        said = self.reply(messages) if callable(self.reply) else self.reply
        return f"<think>\nLet me think: greet.\n</think>\n\n{said}" if "think" in options else said


def option_of(part: str) -> tuple[str, float] | None:
    """Return (name, number) of one option; times in seconds; None for what is none."""
    found = re.fullmatch(r"([a-z]+(?:-[a-z]+)*)(?:-(\d+)(ms|s)?)?", part)
    if not found or found[1] not in OPTIONS:
        return None
    return found[1], float(found[2] or 0) / (1000 if found[3] == "ms" else 1)


@contextmanager
def serving() -> Iterator[Llm]:
    """Serve; at the end no thread and no port is left, stalled requests included."""
    llm = Llm()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.llm, server.daemon_threads, server.block_on_close = llm, True, False
    llm.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield llm
    finally:
        llm.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
    assert not llm.errors, llm.errors[0]


@pytest.fixture(name="llm")
def an_llm(monkeypatch) -> Iterator[Llm]:
    """A server of this test alone. A module that wants it imports `an_llm`."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with serving() as served:
        yield served


class Refused(Exception):
    """A request that gets a status and an error instead of a reply."""

    def __init__(self, status: int, kind: str, code: str | None, message: str, param: str | None = None):
        super().__init__(message)
        self.status = status
        self.error = {"message": message, "type": kind, "param": param, "code": code}


class Broken(Exception):
    """The server ends the connection on purpose."""


class Handler(BaseHTTPRequestHandler):
    """/v1/chat/completions."""

    protocol_version = "HTTP/1.1"

    @property
    def llm(self) -> Llm:
        return self.server.llm

    def do_POST(self) -> None:
        self.close_connection = True
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        self.asked = Asked(self.path, key, body, {name.lower(): value for name, value in self.headers.items()})
        self.llm.asked.append(self.asked)
        self.options = self.llm.options(self.asked.model)
        try:
            self.refuse()
            self.answer()
            self.asked.done = True
        except Refused as refused:
            self.send_json({"error": refused.error}, refused.status)
            self.asked.done = True
        except Broken:
            self.asked.broken = True
        except ConnectionError:
            self.asked.hung_up = True
        except Exception as error:
            self.llm.errors.append(repr(error))
            raise

    def refuse(self) -> None:
        """Raise what the options or the request itself ask for."""
        options, asked = self.options, self.asked
        letters = sum(len(message["content"]) for message in asked.messages)
        if asked.path != "/v1/chat/completions":
            raise Refused(404, "invalid_request_error", "unknown_url", f"Unknown request URL: POST {asked.path}.")
        if "stall" in options:
            self.wait()
        if self.llm.keys is not None and asked.key not in self.llm.keys:
            raise self.worded(401)
        if "no-quota" in options:
            raise Refused(429, *QUOTA)
        if "missing" in options:
            raise self.worded(404)
        if "status" in options:
            raise self.worded(int(options["status"]))
        if "no-max-tokens" in options and "max_tokens" in asked.body:
            said = "Unsupported parameter: 'max_tokens' is not supported with this model."
            raise Refused(400, "invalid_request_error", "unsupported_parameter", said, "max_tokens")
        if letters > options.get("context", letters):
            said = f"This model's maximum context length is {options['context']:.0f} tokens."
            raise Refused(400, "invalid_request_error", "context_length_exceeded", said, "messages")

    def worded(self, status: int) -> Refused:
        kind, code, message = WORDED.get(status, ("error", None, "It failed."))
        return Refused(status, kind, code, message.format(key=self.asked.key, model=self.asked.model))

    def answer(self) -> None:
        """Send the reply, whole or in pieces."""
        if "html" in self.options:
            return self.send_body(b"<!doctype html><title>A page</title><p>data: none", "text/html", 200)
        text = "" if {"empty", "refuse"} & set(self.options) else self.llm.text(self.asked.messages, self.options)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wait(self.options.get("late", 0))
        for _ in range(500 if "trickle" in self.options else 0):  # ten seconds, should a client wait for ever
            self.write(b": keep-alive\n\n")
            self.wait(0.02)
        self.event(self.chunk(delta={"role": "assistant", "content": ""}, finish_reason=None))
        for piece in re.findall(r"\s*\S+\s*", text):
            self.maybe_fail()
            self.event(self.chunk(delta={"content": piece}, finish_reason=None))
            self.asked.first_at = self.asked.first_at or time.perf_counter()
            self.asked.sent += 1
            self.wait(self.options.get("slow", 0))
        self.maybe_fail()
        self.end()

    def maybe_fail(self) -> None:
        """Do what an option asks for after so many pieces."""
        here = {name for name in self.options if name.endswith("-after") and self.options[name] == self.asked.sent}
        if "stall-after" in here:
            self.wait()
        if "cut-after" in here:
            raise Broken
        if "end-after" in here:
            self.write(b"")
            raise Broken
        if "error-after" in here:
            self.event({"error": {"message": f"failed for {self.asked.key}", "type": "server_error", "code": None}})
            raise Broken
        if "filter-after" in here:
            self.options["filtered"] = 1
            self.end()
            raise Broken
        if "junk" in self.options:
            self.write(b"data: {not json\n\n")
            raise Broken

    def end(self) -> None:
        """Send the end of a stream."""
        if "refuse" in self.options:
            self.event(self.chunk(delta={"refusal": "I cannot help with that."}, finish_reason=None))
        reason = "length" if "length" in self.options else "content_filter" if "filtered" in self.options else "stop"
        self.event(self.chunk(delta={}, finish_reason=reason))
        self.write(b"data: [DONE]\n\n")
        self.write(b"")

    def chunk(self, **choice) -> dict:
        about = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": self.asked.model}
        return about | {"choices": [{"index": 0, **choice}]}

    def wait(self, seconds: float = 60) -> None:
        """Wait, unless the client goes away or the server ends."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            readable, _, _ = select.select([self.connection], [], [], min(left, 0.02))
            if self.llm.closing.is_set():
                raise Broken
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                raise ConnectionAbortedError

    # Bytes

    def event(self, value: dict) -> None:
        self.write(b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n")

    def write(self, data: bytes) -> None:
        """Send one chunk; an empty one ends the stream."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def send_json(self, value: dict, status: int) -> None:
        self.send_body(json.dumps(value).encode(), "application/json", status)

    def send_body(self, data: bytes, kind: str, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        if "retry-after" in getattr(self, "options", {}):
            self.send_header("Retry-After", f"{self.options['retry-after']:.0f}")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments) -> None:
        pass
