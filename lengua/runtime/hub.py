"""The client of the Hugging Face Hub: requests with a time limit, bounded downloads, uploads in one commit, tags.

    info = fetch_repo_info("owner/name")            # sha, siblings, card_data, private, ...
    call_hub("the model owner/name", lambda: HfApi().list_repo_commits("owner/name"))
    check_token("owner/name")                       # before anything is built that could not be uploaded
    revision = upload_folder(Path("export"), "owner/name", "model", private=True, message="First model")
    tag = set_tag("owner/name", revision)           # the next free one of v1, v2, ...; an existing tag is never moved

huggingface_hub waits for an answer without a limit. Here a request is retried for seconds, then reported as an error.
"""

import io
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import BinaryIO, TypeVar

from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.progress import Progress, Watch, unwatched

HUB_TIMEOUT_S = 10.0
"""How long one question may go unanswered."""
MAX_HUB_TRIES = 3
RETRYABLE_STATUSES = (408, 429, 500, 502, 503, 504)
Answer = TypeVar("Answer")


def call_hub(what: str, question: Callable[[], Answer], patience_s: float | None = None) -> Answer:
    """Return what the Hub answers; ask again, a few times, where its trouble may pass.

    Args:
        what: whom the question is about, for messages: "the data set owner/name".

    Raises:
        RequestError: the Hub has no such thing, or not for this token.
        LenguaError: it is down, refuses, or does not answer.
    """
    from huggingface_hub.errors import HfHubHTTPError

    patience_s = patience_s or HUB_TIMEOUT_S
    for pause in (*(2**attempt for attempt in range(MAX_HUB_TRIES - 1)), None):
        try:
            with hub_timeout(patience_s):
                return question()
        except (*HfHubHTTPError.__bases__, ValueError, RuntimeError) as error:  # OSError; HTTPError of httpx or httpx2
            if pause is None or not is_retryable(error):
                raise explain_hub_error(error, what, patience_s) from error
        time.sleep(pause)


@contextmanager
def hub_timeout(seconds: float) -> Iterator[None]:
    """Limit how long huggingface_hub waits for each answer."""
    from huggingface_hub import get_session

    session = get_session()
    before, session.timeout = session.timeout, seconds
    try:
        yield
    finally:
        session.timeout = before


def _http_status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def is_retryable(error: BaseException) -> bool:
    """Return whether asking again may help: the Hub was too busy, broke down, or the connection did."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    error = root_cause_of(error)
    if status := _http_status(error):
        return status in RETRYABLE_STATUSES
    transport = HfHubHTTPError.__bases__[0]
    return isinstance(error, transport | ConnectionError | TimeoutError) and not isinstance(error, OfflineModeIsEnabled)


def root_cause_of(error: BaseException) -> BaseException:
    """Return the trouble with the Hub that an error came from, else the error itself.

    Both huggingface_hub and datasets wrap such troubles. What was not found (404) on the way to an error did not
    cause it: they ask for files that may exist all the time.
    """
    from huggingface_hub.errors import HfHubHTTPError

    chain = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) and before not in chain:
        chain.append(before)
    troubles = [one for one in chain if isinstance(one, HfHubHTTPError.__bases__[0] | ConnectionError | TimeoutError)]
    return next((one for one in troubles if _http_status(one) != 404), error)


def explain_hub_error(error: BaseException, what: str, patience_s: float = HUB_TIMEOUT_S) -> LenguaError:
    """Return an error of huggingface_hub as one sentence about `what`."""
    from huggingface_hub import constants, errors

    error = root_cause_of(error)
    message, status = str(error).strip().partition("\n")[0], _http_status(error)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return RequestError(f"the Hub, for {what}", "HF_HUB_OFFLINE is set", "unset it, or use what is on this machine")
    if isinstance(error, errors.GatedRepoError):
        do = f"accept its terms on its page at {constants.ENDPOINT}, log in with `hf auth login`, and try again"
        return RequestError(f"access to {what}", "it is gated", do)
    if isinstance(error, errors.RepositoryNotFoundError):
        do = "check the name, or log in with `hf auth login` where it is private"
        return RequestError(what, "the Hub has none for this token", do)
    if isinstance(error, errors.RevisionNotFoundError | errors.EntryNotFoundError):
        return RequestError(what, f"something missing in it ({message})", "check its files on the Hub")
    if status == 402:
        do = "subscribe to the plan that it names on its page, or name a repository of an account that has one"
        return RequestError(f"an account that may have {what}", f"one that would have to pay for it ({message})", do)
    if status in (401, 403):
        return RequestError(f"a token for {what}", f"one that is refused ({status})", "make another and log in again")
    if isinstance(error, ValueError):  # a name it cannot have, a card it does not take
        return RequestError(f"what the Hub accepts for {what}", message, "put that right")
    found, do = f"{type(error).__name__}: {message}", "try again later; what is done is kept"
    if status == 429:
        found, do = "too many requests (429)", "wait some minutes and run it again"
    elif isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        found, do = f"none within {patience_s:g} s", "check the network and try again"
    elif status:
        found = f"the Hub in trouble ({status})"
    return LenguaError(f"an answer about {what}", found, do)


def fetch_repo_info(repo_id: str, repo_type: str = "dataset", revision: str | None = None):
    """Return what the Hub knows about a repository: sha, siblings, card_data, private, ..."""
    from huggingface_hub import HfApi

    def question():
        return HfApi().repo_info(repo_id, repo_type=repo_type, revision=revision, timeout=HUB_TIMEOUT_S)

    return call_hub(f"the {repo_type} {repo_id}", question)


DOWNLOAD_STALL_TIMEOUT_S = 20.0
"""How long a download may stand still before it is begun anew; there are three tries."""
DOWNLOAD_CHUNK_BYTES, MAX_SMALL_FILE_BYTES = 2**20, 2**22


def download_file(
    repo_id: str,
    revision: str,
    path: str,
    max_bytes: int = MAX_SMALL_FILE_BYTES,
    out: BinaryIO | None = None,
    repo_type: str = "model",
) -> bytes:
    """Return a file of a repository, or write it into `out` and return nothing of it.

    Raises:
        LenguaError: it has more than `max_bytes`, or the Hub does not send it.
    """
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    file = out or io.BytesIO()

    def receive() -> None:
        file.seek(0)
        file.truncate()
        url = hf_hub_url(repo_id, path, revision=revision, repo_type=repo_type)
        with get_session().stream("GET", url, headers=build_hf_headers()) as response:
            if response.is_error:
                response.read()  # what the Hub says of it
            hf_raise_for_status(response)
            for chunk in response.iter_bytes(DOWNLOAD_CHUNK_BYTES):
                if file.tell() + len(chunk) > max_bytes:
                    expected = f"{max_bytes:,} bytes at most of {repo_id}"
                    raise LenguaError(expected, f"more, in {path}", "name another repository")
                file.write(chunk)

    call_hub(f"{path} of the {repo_type} {repo_id}", receive, DOWNLOAD_STALL_TIMEOUT_S)
    return b"" if out else file.getvalue()


UPLOAD_TIMEOUT_S = 60.0
"""How long an upload may stand still, and a commit take."""
LARGE_FILE_BYTES = 2**22
"""Files from this size on are sent one by one, before the commit, and each is reported."""
SPACE_SDK = "gradio"


def check_token(repo_id: str, write: bool = True) -> str:
    """Return whose token this machine has, if it may read, or write to, a repository.

    Raises:
        RequestError: there is no token, it is refused, or it may not.
    """
    from huggingface_hub import get_token, whoami

    if repo_id.count("/") != 1 or not all(repo_id.split("/")):
        raise RequestError("a repository as owner/name", repr(repo_id), "put the account's name before it")
    if not get_token():
        do = "log in with `hf auth login`, or set HF_TOKEN"
        raise RequestError(f"a token for {repo_id}", "none on this machine", do)
    account = call_hub(f"the account behind the token for {repo_id}", whoami)
    if write and (reason := write_refusal(account, repo_id)):
        do = "make a token with write access in the settings of the Hub, and log in with `hf auth login`"
        raise RequestError(f"a token that may write to {repo_id}", reason, do)
    return account["name"]


def write_refusal(account: dict, repo_id: str) -> str | None:
    """Return why an account, as the Hub describes it, may not write to a repository, or None."""
    owner = repo_id.partition("/")[0]
    token = account.get("auth", {}).get("accessToken", {})
    roles = {name["name"]: name.get("roleInOrg") for name in account.get("orgs", [])}
    if owner != account["name"] and owner not in roles:
        return f"one of {account['name']}, who is not in {owner}"
    if token.get("role") == "read" or roles.get(owner) == "read":
        return "one that may only read"
    scopes = token.get("fineGrained", {}).get("scoped")
    if token.get("role") != "fineGrained" or scopes is None:
        return None
    granted = [scope["permissions"] for scope in scopes if scope.get("entity", {}).get("name") in (owner, repo_id)]
    writes = any("repo.write" in permissions for permissions in granted)
    return None if writes else f"one without repo.write for {owner}"


def require_private(repo_id: str, repo_type: str) -> None:
    """Refuse a repository that everybody can read."""
    if fetch_repo_info(repo_id, repo_type).private is False:
        do = "make it private in its settings, or name another"
        raise RequestError(f"a private {repo_type} {repo_id}", "a public one of that name", do)


def upload_folder(
    folder: Path,
    repo_id: str,
    repo_type: str = "model",
    private: bool | None = None,
    message: str = "Upload by lengua",
    extra: Mapping[str, bytes] | None = None,
    replaces: tuple[str, ...] = (),
    watch: Watch = unwatched,
) -> str:
    """Put a folder into a repository, which is made where there is none, as one commit; return its revision.

    Broken off and run again, files that had arrived are not sent again; nothing is to be seen before the commit.

    Args:
        private: None leaves it to the Hub. True refuses a repository that is public already.
        extra: files that are not in the folder, by path.
        replaces: patterns of files in the repository that go, unless the folder has them.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    check_token(repo_id)
    what, api = f"the {repo_type} {repo_id}", HfApi()
    kind = {"repo_type": repo_type} | ({"space_sdk": SPACE_SDK} if repo_type == "space" else {})
    call_hub(what, lambda: api.create_repo(repo_id, private=private, exist_ok=True, **kind))
    if private:
        require_private(repo_id, repo_type)
    files = list_visible_files(folder) | dict(extra or {})

    def commit() -> str:
        there = list_repo_files(repo_id, repo_type)
        gone = [name for name in there if name not in files and matches_any(name, replaces)]
        additions = [CommitOperationAdd(name, source) for name, source in sorted(files.items())]
        _send_large(api, repo_id, repo_type, additions, watch)
        operations = [*additions, *map(CommitOperationDelete, gone)]
        return api.create_commit(repo_id, operations, commit_message=message, repo_type=repo_type).oid

    return call_hub(what, commit, UPLOAD_TIMEOUT_S)


def _send_large(api, repo_id: str, repo_type: str, additions: list, watch: Watch) -> None:
    """Send large files, which are to be seen only when the commit names them, and tell how far that is."""
    large = [one for one in additions if one.upload_info.size >= LARGE_FILE_BYTES]
    total, sent = sum(one.upload_info.size for one in large) / 1e6, 0.0
    for one in large:
        watch(Progress("uploading", round(sent), round(total), "MB", one.path_in_repo))
        api.preupload_lfs_files(repo_id, [one], repo_type=repo_type, free_memory=False)
        sent += one.upload_info.size / 1e6
    if large:
        watch(Progress("uploading", round(total), round(total), "MB"))


def list_repo_files(repo_id: str, repo_type: str = "model") -> list[str]:
    """Return the paths of all files in a repository."""
    return [file.rfilename for file in fetch_repo_info(repo_id, repo_type).siblings or []]


def matches_any(name: str, patterns: tuple[str, ...]) -> bool:
    """Return whether a path is of one of the patterns; * stands for folders, too."""
    return any(fnmatch(name, pattern) for pattern in patterns)


def list_visible_files(folder: Path) -> dict[str, Path | bytes]:
    """Return all files of a folder by their path in it, but for hidden ones."""
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {name.as_posix(): path for name, path in files.items() if not any(part[0] == "." for part in name.parts)}


VERSION_TAG = re.compile(r"v([1-9]\d*)")


def list_tags(repo_id: str, repo_type: str = "model") -> dict[str, str]:
    """Return the revisions of a repository that have a name, by name."""
    from huggingface_hub import HfApi

    refs = call_hub(f"the tags of {repo_id}", lambda: HfApi().list_repo_refs(repo_id, repo_type=repo_type))
    return {tag.name: tag.target_commit for tag in refs.tags}


def require_unused_tag(tags: dict[str, str], tag: str, repo_id: str) -> None:
    """Refuse a name that stands, for whoever relies on it would get something else.

    Raises:
        RequestError: it stands, or git would not take it.
    """
    if tag in tags:
        do = "name another, or leave --tag out: the next free number is taken"
        raise RequestError(f"a new tag for {repo_id}", f"{tag}, which names revision {tags[tag][:12]}", do)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", tag) or ".." in tag or tag.endswith((".", ".lock")):
        raise RequestError("a tag of letters, digits, points and dashes", repr(tag), "write it otherwise: v1, 2026-11")


def set_tag(repo_id: str, revision: str, tag: str | None = None, repo_type: str = "model") -> str:
    """Name a revision and return its name; one that has a number keeps it where no name is asked for.

    Raises:
        RequestError: the name stands.
        LenguaError: somebody else took it meanwhile.
    """
    from huggingface_hub import HfApi

    tags = list_tags(repo_id, repo_type)
    if tag is None:
        numbers = [int(found[1]) for name in tags if (found := VERSION_TAG.fullmatch(name))]
        if kept := [f"v{number}" for number in numbers if tags[f"v{number}"] == revision]:
            return kept[-1]
        tag = f"v{max(numbers, default=0) + 1}"
    require_unused_tag(tags, tag, repo_id)
    what = f"the tag {tag} of {repo_id}"
    options = {"tag": tag, "revision": revision, "repo_type": repo_type, "exist_ok": True}  # it is, if asked twice
    call_hub(what, lambda: HfApi().create_tag(repo_id, **options))
    named = fetch_repo_info(repo_id, repo_type, revision=tag).sha
    if named != revision:
        found = f"{named[:12]}, as somebody else named it meanwhile"
        raise LenguaError(f"{what} to name revision {revision[:12]}", found, "run it again: the next number is taken")
    return tag
