"""Putting a folder on the Hub: whether the token may, and then everything in one commit.

check_token("owner/name")     # before anything is built that could not be uploaded
revision = upload_folder(Path("export"), "owner/name", "model", private=True, message="First model")
"""

from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

from lengua.errors import RequestError
from lengua.hub.asking import ask, look_up
from lengua.progress import Progress, Watch, unwatched

UPLOAD_PATIENCE_S = 60.0
"""How long an upload may stand still, and a commit take."""
LARGE_BYTES = 2**22
"""Files from this size on are sent one by one, before the commit, and each is told of."""
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
    account = ask(f"the account behind the token for {repo_id}", whoami)
    if write and (reason := why_not_write(account, repo_id)):
        do = "make a token with write access in the settings of the Hub, and log in with `hf auth login`"
        raise RequestError(f"a token that may write to {repo_id}", reason, do)
    return account["name"]


def why_not_write(account: dict, repo_id: str) -> str | None:
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
    return (
        None if any("repo.write" in permissions for permissions in granted) else f"one without repo.write for {owner}"
    )


def require_private(repo_id: str, repo_type: str) -> None:
    """Refuse a repository that everybody can read."""
    if look_up(repo_id, repo_type).private is False:
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
    ask(what, lambda: api.create_repo(repo_id, private=private, exist_ok=True, **kind))
    if private:
        require_private(repo_id, repo_type)
    files = plain_files(folder) | dict(extra or {})

    def commit() -> str:
        there = files_in(repo_id, repo_type)
        gone = [name for name in there if name not in files and matches(name, replaces)]
        additions = [CommitOperationAdd(name, source) for name, source in sorted(files.items())]
        _send_large(api, repo_id, repo_type, additions, watch)
        operations = [*additions, *map(CommitOperationDelete, gone)]
        return api.create_commit(repo_id, operations, commit_message=message, repo_type=repo_type).oid

    return ask(what, commit, UPLOAD_PATIENCE_S)


def _send_large(api, repo_id: str, repo_type: str, additions: list, watch: Watch) -> None:
    """Send large files, which are to be seen only when the commit names them, and tell how far that is."""
    large = [one for one in additions if one.upload_info.size >= LARGE_BYTES]
    total, sent = sum(one.upload_info.size for one in large) / 1e6, 0.0
    for one in large:
        watch(Progress("uploading", round(sent), round(total), "MB", one.path_in_repo))
        api.preupload_lfs_files(repo_id, [one], repo_type=repo_type, free_memory=False)
        sent += one.upload_info.size / 1e6
    if large:
        watch(Progress("uploading", round(total), round(total), "MB"))


def files_in(repo_id: str, repo_type: str = "model") -> list[str]:
    """Return the paths of all files in a repository."""
    return [file.rfilename for file in look_up(repo_id, repo_type).siblings or []]


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Return whether a path is of one of the patterns; * stands for folders, too."""
    return any(fnmatch(name, pattern) for pattern in patterns)


def plain_files(folder: Path) -> dict[str, Path | bytes]:
    """Return all files of a folder by their path in it, but for hidden ones."""
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {name.as_posix(): path for name, path in found.items() if not any(part[0] == "." for part in name.parts)}
