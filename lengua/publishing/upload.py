"""An export -> the Hub: one commit, a tag, private unless asked otherwise.

    require_may_push("owner/name", MODEL, private=True, tag=None)     # before anything is built
    pushed = push(Path("export"), "owner/name", MODEL, private=True, tag=None, message="...")

Whatever breaks off, there is never half a revision: large files that have arrived are to be seen only when the commit
names them, and are not sent again by the same command. Files of an earlier push that the new one has not go with the
same commit; files that lengua never writes stay.
"""

from dataclasses import dataclass
from pathlib import Path

from lengua.models.checkpoints import NOTE_FILE, PROCESSOR_FILES
from lengua.runtime.errors import RequestError
from lengua.runtime.hub import (
    call_hub,
    check_token,
    fetch_repo_info,
    list_repo_files,
    list_tags,
    list_visible_files,
    matches_any,
    require_private,
    require_unused_tag,
    set_tag,
    upload_folder,
)
from lengua.runtime.progress import Watch, unwatched


@dataclass(frozen=True)
class RepoKind:
    """What lengua pushes: which files are its own, and by which it knows its own repository again."""

    repo_type: str
    ours: tuple[str, ...]
    """Patterns of files that the next push may replace or remove."""
    known_by: str
    of_the_hub: tuple[str, ...] = (".gitattributes", "README.md", "LICENSE")
    """What a repository may hold that was made by hand and never used."""


MODEL = RepoKind(
    "model",
    (
        "README.md",
        NOTE_FILE,
        "parity.json",
        "config.json",
        "generation_config.json",
        "model*.safetensors",
        "model.safetensors.index.json",
        "added_tokens.json",
        "normalizer.json",
        *PROCESSOR_FILES,
        "ctranslate2*/*",
        "ggml*",
    ),
    NOTE_FILE,
)
SPACE = RepoKind(
    "space",
    ("README.md", "requirements.txt", "packages.txt", "app.py", "LICENSE", "NOTICE", "lengua/*"),
    "lengua/__init__.py",
)


@dataclass(frozen=True)
class PushedFolder:
    """Where a folder went."""

    repo: str
    revision: str
    tag: str | None
    url: str
    private: bool
    """As it is: a repository that was there keeps what it was."""


def require_may_push(repo_id: str, kind: RepoKind, private: bool, tag: str | None = None) -> None:
    """Ask the Hub all that could stop a push, before anything is built for it.

    Raises:
        RequestError: no token that may write, a public repository where a private one is meant, one that holds other
            things, or a tag that stands.
    """
    from huggingface_hub import HfApi

    check_token(repo_id)
    what = f"the {kind.repo_type} {repo_id}"
    there = call_hub(what, lambda: HfApi().repo_exists(repo_id, repo_type=kind.repo_type))
    if tag is not None:
        require_unused_tag(list_tags(repo_id, kind.repo_type) if there else {}, tag, repo_id)
    if not there:
        return
    if private:
        require_private(repo_id, kind.repo_type)
    names = list_repo_files(repo_id, kind.repo_type)
    others = [name for name in names if name not in kind.of_the_hub]
    if others and kind.known_by not in names:
        found = f"{repo_id} with other things ({', '.join(others[:3])}{', ...' if others[3:] else ''})"
        raise RequestError(f"a new {kind.repo_type}, or one that lengua published", found, "name another")


def push(
    folder: Path,
    repo_id: str,
    kind: RepoKind,
    private: bool = True,
    tag: str | None = None,
    message: str = "Published by lengua",
    watch: Watch = unwatched,
) -> PushedFolder:
    """Upload a folder as one commit; a model's revision gets a tag as well.

    Raises:
        RequestError: see `require_may_push`.
        LenguaError: the Hub broke off; run again, it sends what is missing.
    """
    from huggingface_hub import constants

    require_may_push(repo_id, kind, private, tag)
    revision = upload_folder(folder, repo_id, kind.repo_type, private, message, replaces=kind.ours, watch=watch)
    named = set_tag(repo_id, revision, tag) if kind is MODEL else None
    hidden = bool(fetch_repo_info(repo_id, kind.repo_type).private)
    url = f"{constants.ENDPOINT}/{'spaces/' if kind is SPACE else ''}{repo_id}"
    return PushedFolder(repo_id, revision, named, url, hidden)


def foreign_files(folder: Path, kind: RepoKind) -> list[str]:
    """Return what stands in a folder of this machine that no export of lengua has, but for hidden files."""
    return [name for name in sorted(list_visible_files(folder)) if not matches_any(name, kind.ours)]
