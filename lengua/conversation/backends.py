"""Replies from a server that speaks OpenAI's chat completions: OpenAI, Ollama, vLLM, llama.cpp, Hugging Face's router.

    OPENAI_API_KEY     its key; a server of one's own may need none
    OPENAI_BASE_URL    such as http://127.0.0.1:11434/v1 (Ollama) or https://router.huggingface.co/v1; none: OpenAI
    OPENAI_MODEL       its name there; none: DEFAULT_MODEL, which OpenAI has

A request is made up of the fixed prompt of the setting and the turns; no tools. The key goes into its header and
nowhere else. What a server says about a failure stays here, too: some repeat the key in it.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import urlsplit

from lengua.conversation.errors import ReplyError
from lengua.conversation.failures import failure_of
from lengua.conversation.keys import Key
from lengua.conversation.prompts import opening, system_prompt
from lengua.conversation.settings import Setting
from lengua.conversation.streaming import ERRORS, Patience, pieces_of, prepare, stream, without_thoughts
from lengua.conversation.trimming import TURN_TOKENS, tokens_of, trimmed
from lengua.conversation.turns import Responder, Turn
from lengua.conversation.tutor import Tutor

OPENAI_HOST = "api.openai.com"
OPENAI = f"https://{OPENAI_HOST}/v1"
DEFAULT_MODEL = "gpt-5.4-mini"
"""Of those without an announced end (openai 3.54), a small one: a spoken reply is short, and wanted soon."""
REPLY_TOKENS = 500
"""The longest reply: the prompt asks for three sentences; the rest is for models that think before."""
CONTEXT_TOKENS = 16_000
OWN_CONTEXT_TOKENS = 4096
"""Where a server is one's own: what Ollama and llama.cpp hold unless they are told otherwise."""
TRIES = 2
PAUSE_S = 0.5
LONGEST_PAUSE_S = 5.0

log = logging.getLogger(__name__)


def responder_for(key: str | None = None, environ: Mapping[str, str] = os.environ) -> Responder:
    """Return who replies: with the key that a visitor typed, else as the environment says, else the tutor.

    A typed key serves what it is given to and is kept nowhere; it goes to the server of the environment, whose host the
    name of the responder tells.
    """
    own, url, model = (environ.get(f"OPENAI_{name}", "").strip() for name in ("API_KEY", "BASE_URL", "MODEL"))
    typed = Key(key)
    if not (typed or own or url):
        return Tutor()
    prepare()
    return Backend(typed or Key(own), url or OPENAI, model or DEFAULT_MODEL, of_visitor=bool(typed))


@dataclass(frozen=True)
class Backend:
    """A server and a model of it. Holds nothing of a conversation, so that many may be held at once."""

    is_tutor: ClassVar[bool] = False
    key: Key = field(repr=False, compare=False)
    url: str = field(default=OPENAI, repr=False)
    model: str = DEFAULT_MODEL
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
        sent = sum(tokens_of(message["content"]) + TURN_TOKENS for message in self.messages(turns, setting))
        return sent + REPLY_TOKENS

    def messages(self, turns: Sequence[Turn], setting: Setting, share: float = 1.0) -> list[dict[str, str]]:
        """Return what is sent: the system prompt, and the turns that fit into the model's context, or a share of it.

        Raises:
            ReplyError: too_long, the visitor's last turn.
        """
        system = system_prompt(setting)
        room = self.context_tokens - tokens_of(system) - TURN_TOKENS - REPLY_TOKENS
        kept = trimmed(turns, int(room * share)) or [Turn("user", opening(setting))]
        return [{"role": "system", "content": system}, *({"role": turn.role, "content": turn.text} for turn in kept)]

    @property
    def context_tokens(self) -> int:
        """What the model is believed to hold."""
        public = "." in self.host and not self.host.replace(".", "").isdigit()
        return CONTEXT_TOKENS if public else OWN_CONTEXT_TOKENS

    def _tries(self, turns: Sequence[Turn], setting: Setting) -> Iterator[str]:
        if not self.key.is_possible:
            raise ReplyError("wrong_key", "no header can hold the key")
        patience, limits, share = Patience(self.timeout_s, self.whole_s), self._limits(), 1.0
        for number in range(1, TRIES + 1):
            failure = yield from self._try(self.messages(turns, setting, share), limits, patience)
            if failure is None:
                return
            pause = failure.retry_after_s or PAUSE_S
            hopeful = failure.again and pause <= LONGEST_PAUSE_S and patience.left() > pause
            if number == TRIES or not hopeful:
                raise ReplyError(failure.kind, failure.message, failure.retry_after_s)
            if failure.mend == "limits":
                limits = {}
            elif failure.mend == "context":
                share = 0.25
            else:
                time.sleep(pause)

    def _try(self, messages: list[dict], limits: dict, patience: Patience) -> Iterator[str]:
        """Yield the pieces of one try; return its failure, or None.

        The library's error is left behind with its traceback, in which the request and its header are.
        """
        came = False
        try:
            with stream(self.url, self.key, patience, model=self.model, messages=messages, **limits) as chunks:
                for piece in without_thoughts(pieces_of(chunks, patience)):
                    came = True
                    yield piece
        except ERRORS as error:
            return failure_of(error, came, bool(self.key))
        return None

    def _limits(self) -> dict:
        """OpenAI's newer models know the second name only, most others the first."""
        return {"max_completion_tokens" if self.host == OPENAI_HOST else "max_tokens": REPLY_TOKENS}
