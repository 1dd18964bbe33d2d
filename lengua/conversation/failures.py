"""What went wrong with a request -> the kind of ReplyError, whether another try may help, and how to mend it.

The messages are for the log: a status and the server's code, never its words, which may hold the key or the turn.
"""

import re
from dataclasses import dataclass
from typing import Literal

import openai

from lengua.conversation.errors import Kind, ReplyError
from lengua.conversation.streaming import http

LONGEST_WAIT_S = 3600.0


@dataclass(frozen=True)
class Failure:
    """A try that failed."""

    kind: Kind
    message: str
    again: bool = False
    """Whether another try may do better."""
    retry_after_s: float | None = None
    mend: Literal["", "limits", "context"] = ""
    """What to leave out of the next try: the limits of the reply, which not all servers know; half of the turns."""


def failure_of(error: Exception, came: bool, has_key: bool) -> Failure:
    """Return what an error means.

    Args:
        came: whether a piece of the reply came before it.
        has_key: whether a key was sent.
    """
    if came:
        refused = isinstance(error, ReplyError) and error.kind == "refused"
        return Failure("refused" if refused else "cut", f"{_name(error)} amid the reply")
    if isinstance(error, ReplyError):  # a stream that ended without an end and without a beginning is no answer at all
        down = error.kind == "cut"
        return Failure("server_down" if down else error.kind, str(error), again=down)
    if isinstance(error, openai.APIStatusError):
        return _of_status(error, has_key)
    if isinstance(error, openai.APITimeoutError | http.TimeoutException):
        unanswered = isinstance(error.__cause__ or error, http.ConnectTimeout)  # what is slow will be slow again
        return Failure("timeout", _name(error), again=unanswered)
    if isinstance(error, openai.APIError) and _is_about_quota(error):
        return Failure("no_quota", _name(error))
    return Failure("server_down", _name(error), again=True)


def _of_status(error: openai.APIStatusError, has_key: bool) -> Failure:
    status, code = error.status_code, str(error.code or error.type or "")
    told = f"status {status} {code}" if re.fullmatch(r"[a-z_]{1,40}", code) else f"status {status}"
    if _is_about_quota(error):
        return Failure("no_quota", told)
    if "model_not" in code:  # some say it with 400
        return Failure("no_model", told)
    if status in (401, 403):
        return Failure("wrong_key" if has_key else "no_key", told)
    if status == 404:
        return Failure("no_model", told)
    if status == 429:
        return Failure("rate_limited", told, again=True, retry_after_s=_retry_after(error))
    if status in (400, 413, 422):
        return _of_request(error, told, code)
    if status in (408, 504):
        return Failure("timeout", told, again=True)
    return Failure("server_down", told, again=status >= 500 or status == 409)


def _of_request(error: openai.APIStatusError, told: str, code: str) -> Failure:
    """Return what it means that a server does not like the request: the request can be made smaller or plainer."""
    said = str(error).lower()
    if "content_filter" in code or "content_policy" in code:
        return Failure("refused", told)
    if error.status_code == 413 or "context" in code or re.search(r"context (length|size|window)|too long", said):
        return Failure("too_long", told, again=True, mend="context")
    return Failure("server_down", told, again=True, mend="limits")


def _is_about_quota(error: openai.APIError) -> bool:
    told = f"{error.code} {error.type}"
    return "quota" in told or "billing" in told or "credits" in told or getattr(error, "status_code", 0) == 402


def _retry_after(error: openai.APIStatusError) -> float | None:
    """Return the seconds to wait, where the server told them as a number."""
    try:
        seconds = float(error.response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return min(seconds, LONGEST_WAIT_S) if seconds > 0 else None


def _name(error: Exception) -> str:
    return type(error).__name__
