"""Names for revisions: v1, v2, ..., or one that somebody chose. A name that stands is never moved.

tag = set_tag("owner/name", revision)           # the next that is free
set_tag("owner/name", revision, "first-try")
"""

import re

from lengua.errors import LenguaError, RequestError
from lengua.hub.asking import ask, look_up

NUMBERED = re.compile(r"v([1-9]\d*)")


def tags_of(repo_id: str, repo_type: str = "model") -> dict[str, str]:
    """Return the revisions of a repository that have a name, by name."""
    from huggingface_hub import HfApi

    refs = ask(f"the tags of {repo_id}", lambda: HfApi().list_repo_refs(repo_id, repo_type=repo_type))
    return {tag.name: tag.target_commit for tag in refs.tags}


def require_free(tags: dict[str, str], tag: str, repo_id: str) -> None:
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

    tags = tags_of(repo_id, repo_type)
    if tag is None:
        numbers = [int(found[1]) for name in tags if (found := NUMBERED.fullmatch(name))]
        if kept := [f"v{number}" for number in numbers if tags[f"v{number}"] == revision]:
            return kept[-1]
        tag = f"v{max(numbers, default=0) + 1}"
    require_free(tags, tag, repo_id)
    what = f"the tag {tag} of {repo_id}"
    options = {"tag": tag, "revision": revision, "repo_type": repo_type, "exist_ok": True}  # it is, if asked twice
    ask(what, lambda: HfApi().create_tag(repo_id, **options))
    named = look_up(repo_id, repo_type, revision=tag).sha
    if named != revision:
        found = f"{named[:12]}, as somebody else named it meanwhile"
        raise LenguaError(f"{what} to name revision {revision[:12]}", found, "run it again: the next number is taken")
    return tag
