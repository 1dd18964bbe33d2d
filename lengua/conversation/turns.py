"""Turns of a conversation, and who answers them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from lengua.conversation.settings import Setting

Role = Literal["user", "assistant"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Turn:
    """What one side said."""

    role: Role
    text: str
    audio: str | None = None
    """The recording of a spoken turn, a file of this visit; None where it was typed, or a reply."""
    doubtful: tuple[str, ...] = ()
    """Words that the model was not sure of, as they stand in the text."""


class Responder(Protocol):
    """Who replies: a server behind OpenAI's API, or the tutor that needs none."""

    name: str
    """For the page: which model, at which host; never a key."""
    is_tutor: bool
    """Whether it is the tutor: no language model, and the page says so."""

    def reply(self, turns: Sequence[Turn], setting: Setting) -> Iterator[str]:
        """Yield the reply to the last turn in pieces, as they come. Closing the iterator ends the request.

        Raises:
            ReplyError: with its kind; pieces that came before it count.
        """
        ...

    def cost(self, turns: Sequence[Turn], setting: Setting) -> int:
        """Return the tokens that such a reply may cost whoever runs the page, estimated; 0 where it costs nothing."""
        ...


def turns_of(messages: Any) -> list[Turn]:
    """Return the turns of what a page or a program sends: [{"role": "user", "content": "Hola"}, ...].

    Content is a text, or parts of which those with a text count. What is none of this is left out, and so are roles
    other than user and assistant: nobody brings a system prompt of their own.
    """
    items = messages if isinstance(messages, list | tuple) else []
    spoken = [item for item in items if isinstance(item, dict) and item.get("role") in ROLES]
    return [Turn(item["role"], text) for item in spoken if (text := _text(item.get("content")))]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content.strip()
    parts = content if isinstance(content, list | tuple) else [content]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    return " ".join(text.strip() for text in texts if isinstance(text, str)).strip()
