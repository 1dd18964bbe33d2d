"""What stands on the Hub of `hub_server`: repositories as commits of files, tags, and what goes wrong with requests."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from fnmatch import fnmatch

import yaml

LARGE = ("*.parquet", "*.safetensors", "*.bin", "*.flac", "*.mp3", "*.gz")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_large(path: str) -> bool:
    return any(fnmatch(path, pattern) for pattern in LARGE)


@dataclass
class Commit:
    oid: str
    message: str
    files: dict[str, bytes]


@dataclass
class Repo:
    """One repository; its last commit is its main branch."""

    kind: str
    name: str
    private: bool = False
    gated: bool = False
    commits: list[Commit] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    """Commits by the name that somebody gave them."""

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1].files

    def commit(self, files: dict[str, bytes], message: str) -> str:
        told = json.dumps([len(self.commits), message, sorted((name, git_oid(data)) for name, data in files.items())])
        self.commits.append(Commit(hashlib.sha1(told.encode()).hexdigest(), message, dict(files)))
        return self.commits[-1].oid

    def at(self, revision: str) -> Commit | None:
        wanted = self.tags.get(revision, revision)
        return next((one for one in reversed(self.commits) if wanted in ("main", one.oid)), None)


@dataclass
class Fault:
    """What goes wrong with requests whose path matches, so many times."""

    method: str
    path: str
    times: float
    status: int = 0
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    hang_s: float = 0
    keep: float | None = None
    """Share of the answer that is sent before the connection is dropped."""


class Refused(Exception):
    """An answer that is an error: status, and the Hub's code for it."""

    def __init__(self, status: int, code: str = "", message: str = ""):
        super().__init__(status, code, message)
        self.status, self.headers = status, {"X-Error-Code": code} if code else {}
        self.headers |= {"X-Error-Message": message} if message else {}


def entry(path: str, data: bytes) -> dict:
    """Describe a file as the Hub does in a tree."""
    told = {"type": "file", "path": path, "size": len(data), "oid": git_oid(data)}
    large = {"oid": sha256(data), "size": len(data), "pointerSize": 130}
    return told | ({"lfs": large} if is_large(path) else {})


def refs(repo: Repo) -> dict:
    """Describe branches and tags as the Hub does."""
    tags = [{"name": name, "ref": f"refs/tags/{name}", "targetCommit": oid} for name, oid in repo.tags.items()]
    main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.commits[-1].oid}
    return {"branches": [main], "converts": [], "tags": tags}


def front_matter(content: str) -> dict:
    """Return the YAML on top of a card."""
    found = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    return yaml.safe_load(found[1]) if found else {}
