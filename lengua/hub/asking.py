"""Questions to the Hugging Face Hub that come to an end: answered, asked again for seconds, or told in one sentence.

    info = look_up("owner/name")            # sha, siblings, card_data, private, ...
    ask("the model owner/name", lambda: HfApi().list_repo_commits("owner/name"))

By itself huggingface_hub waits for an answer for ever.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from lengua.errors import LenguaError, RequestError

PATIENCE_S = 10.0
"""How long one question may go unanswered."""
TRIES = 3
PASSING = (408, 429, 500, 502, 503, 504)
Answer = TypeVar("Answer")


def ask(what: str, question: Callable[[], Answer], patience_s: float | None = None) -> Answer:
    """Return what the Hub answers; ask again, a few times, where its trouble may pass.

    Args:
        what: whom the question is about, for messages: "the data set owner/name".

    Raises:
        RequestError: the Hub has no such thing, or not for this token.
        LenguaError: it is down, refuses, or does not answer.
    """
    from huggingface_hub.errors import HfHubHTTPError

    patience_s = patience_s or PATIENCE_S
    for pause in (*(2**attempt for attempt in range(TRIES - 1)), None):
        try:
            with patient(patience_s):
                return question()
        except (*HfHubHTTPError.__bases__, ValueError, RuntimeError) as error:  # OSError; HTTPError of httpx or httpx2
            if pause is None or not may_pass(error):
                raise explained(error, what, patience_s) from error
        time.sleep(pause)


@contextmanager
def patient(seconds: float) -> Iterator[None]:
    """Limit how long huggingface_hub waits for each answer."""
    from huggingface_hub import get_session

    session = get_session()
    before, session.timeout = session.timeout, seconds
    try:
        yield
    finally:
        session.timeout = before


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error is about, or None."""
    return getattr(getattr(error, "response", None), "status_code", None)


def may_pass(error: BaseException) -> bool:
    """Return whether asking again may help: the Hub was too busy, broke down, or the connection did."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    error = root_of(error)
    if status := status_of(error):
        return status in PASSING
    transport = HfHubHTTPError.__bases__[0]
    return isinstance(error, transport | ConnectionError | TimeoutError) and not isinstance(error, OfflineModeIsEnabled)


def root_of(error: BaseException) -> BaseException:
    """Return the trouble with the Hub that an error came from, else the error itself.

    Both huggingface_hub and datasets wrap such troubles. What was not found (404) on the way to an error did not
    cause it: they ask for files that may exist all the time.
    """
    from huggingface_hub.errors import HfHubHTTPError

    chain = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) and before not in chain:
        chain.append(before)
    troubles = [one for one in chain if isinstance(one, HfHubHTTPError.__bases__[0] | ConnectionError | TimeoutError)]
    return next((one for one in troubles if status_of(one) != 404), error)


def explained(error: BaseException, what: str, patience_s: float = PATIENCE_S) -> LenguaError:
    """Return an error of huggingface_hub as one sentence about `what`."""
    from huggingface_hub import constants, errors

    error = root_of(error)
    told = str(error).strip().partition("\n")[0]
    status = status_of(error)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return RequestError(f"the Hub, for {what}", "HF_HUB_OFFLINE is set", "unset it, or use what is on this machine")
    if isinstance(error, errors.GatedRepoError):
        do = f"accept its terms on its page at {constants.ENDPOINT}, log in with `hf auth login`, and try again"
        return RequestError(f"access to {what}", "it is gated", do)
    if isinstance(error, errors.RepositoryNotFoundError):
        do = "check the name, or log in with `hf auth login` where it is private"
        return RequestError(what, "the Hub has none for this token", do)
    if isinstance(error, errors.RevisionNotFoundError | errors.EntryNotFoundError):
        return RequestError(what, f"something missing in it ({told})", "check its files on the Hub")
    if status == 402:
        do = "subscribe to the plan that it names on its page, or name a repository of an account that has one"
        return RequestError(f"an account that may have {what}", f"one that would have to pay for it ({told})", do)
    if status in (401, 403):
        return RequestError(f"a token for {what}", f"one that is refused ({status})", "make another and log in again")
    if status == 429:
        return LenguaError(f"an answer about {what}", "too many requests (429)", "wait some minutes and run it again")
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return LenguaError(
            f"an answer about {what}", f"none within {patience_s:g} s", "check the network and try again"
        )
    if isinstance(error, ValueError):  # a name it cannot have, a card it does not take
        return RequestError(f"what the Hub accepts for {what}", told, "put that right")
    found = f"the Hub in trouble ({status})" if status else f"{type(error).__name__}: {told}"
    return LenguaError(f"an answer about {what}", found, "try again later; what is done is kept")


def look_up(repo_id: str, repo_type: str = "dataset", revision: str | None = None):
    """Return what the Hub knows about a repository: sha, siblings, card_data, private, ..."""
    from huggingface_hub import HfApi

    def question():
        return HfApi().repo_info(repo_id, repo_type=repo_type, revision=revision, timeout=PATIENCE_S)

    return ask(f"the {repo_type} {repo_id}", question)
