"""Why a reply did not come, as a code that the page has a sentence for in each of its languages: `reply.<kind>`."""

from typing import Literal, get_args

Kind = Literal[
    "no_key",  # the server wants a key, and none was given
    "wrong_key",
    "no_quota",  # the account of the key is used up
    "rate_limited",  # too many requests at once: `retry_after_s`, where the server told it
    "timeout",
    "server_down",  # nobody there, or no answer that can be read
    "cut",  # it broke off; the pieces that came before count
    "refused",
    "empty",
    "no_model",  # the server does not know the model
    "too_long",  # the visitor's turn; nothing was sent
]
KINDS: tuple[Kind, ...] = get_args(Kind)


class ReplyError(Exception):
    """A reply that failed. The message is for the log: no key, no text of a visitor, nothing that a server said."""

    def __init__(self, kind: Kind, message: str = "", retry_after_s: float | None = None):
        super().__init__(message or kind)
        self.kind = kind
        self.retry_after_s = retry_after_s
