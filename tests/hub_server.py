"""A Hugging Face Hub on loopback, for the real huggingface_hub and datasets to talk to, and to be let down by.

    def test_something(hub):
        hub.repo("dataset", "ana/set", {"README.md": b"..."})
        hub.fail("GET", r"\\.parquet$", status=500, times=2)
        (told,) = hub.client("show(lambda: look_up('ana/set').sha)", "from lengua.runtime.hub import look_up")

It keeps repositories as commits of files in memory. Clients run in a process of their own, since huggingface_hub reads
where the Hub is when it is imported.
"""

import base64
import json
import os
import re
import subprocess
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml
from conftest import ROOT
from hub_repos import Commit, Fault, Refused, Repo, entry, front_matter, git_oid, is_large, refs, sha256

WRITER, READER, NOBODY = "hf_writer", "hf_reader", "hf_nobody"
ACCOUNTS = {
    WRITER: {"name": "ana", "orgs": [{"name": "escuela", "roleInOrg": "write"}], "role": "write"},
    READER: {"name": "ana", "orgs": [], "role": "read"},
}
PRELUDE = """
import dataclasses, hashlib, json, sys, time
from huggingface_hub import HfApi, errors, get_session, snapshot_download  # so that no call is timed with its import
from lengua.runtime.errors import LenguaError

def plain(value):
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)

def show(call):
    start = time.perf_counter()
    try:
        told = {"value": call()}
    except LenguaError as error:
        told = {"error": str(error), "exit_code": error.exit_code}
    told |= {"seconds": time.perf_counter() - start, "torch": "torch" in sys.modules}
    print(json.dumps(told, default=plain))
"""


class Hub:
    """The server's state, and what tests do with it."""

    def __init__(self, home: Path):
        self.home = home
        self.repos: dict[tuple[str, str], Repo] = {}
        self.large: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.asked: Counter[str] = Counter()
        self.accounts = dict(ACCOUNTS)
        self.endpoint = ""
        self.closing = threading.Event()
        self.errors: list[str] = []
        """What went wrong in the server itself; `serving` tells it."""

    def repo(self, kind: str, name: str, files: dict[str, bytes] | None = None, **rights: bool) -> Repo:
        """Make a repository with one commit."""
        repo = self.repos[kind, name] = Repo(kind, name, **rights)
        repo.commit(files or {}, "initial commit")
        return repo

    def fail(self, method: str, path: str, times: float = float("inf"), **what) -> Fault:
        """Let requests go wrong whose path, with its query, matches."""
        self.faults.append(Fault(method, path, times, **what))
        return self.faults[-1]

    def times(self, method: str, path: str) -> int:
        """Return how often such requests have come."""
        return sum(count for asked, count in self.asked.items() if re.match(rf"{method} .*{path}", asked))

    def client(
        self, code: str, imports: str = "", token: str | None = WRITER, timeout: int = 60, **environment
    ) -> list[dict]:
        """Run Python in a process whose Hub this is, and return what each `show` in it told."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "LENGUA_", "MDC_"))}
        kept |= {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(self.home / "hf"), "HF_HUB_DISABLE_XET": "1"}
        kept |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1"}
        kept |= {"LENGUA_CACHE": str(self.home / "lengua"), "PYTHONPATH": str(ROOT), **environment}
        kept |= {"HF_TOKEN": token} if token else {}
        program = "\n".join([PRELUDE, imports, code])
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=kept, cwd=self.home, capture_output=True, text=True, timeout=timeout)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@contextmanager
def serving(home: Path) -> Iterator[Hub]:
    """Serve a fresh Hub."""
    hub = Hub(home)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub, server.block_on_close = hub, False
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
    assert not hub.errors, hub.errors[0]


@pytest.fixture(name="hub")
def a_hub(tmp_path) -> Iterator[Hub]:
    """A Hub with nothing in it. A module that wants it imports `a_hub`."""
    with serving(tmp_path) as served:
        yield served


class Handler(BaseHTTPRequestHandler):
    """The endpoints, each a method named in ROUTES."""

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def answer(self) -> None:
        body = self.body()
        self.hub.asked[f"{self.command} {unquote(self.path)}"] += 1
        self.fault = self.next_fault()
        if self.fault and self.fault.hang_s:
            self.hub.closing.wait(self.fault.hang_s)
            self.close_connection = True
            return
        try:
            if self.fault and self.fault.status:
                raise Refused(self.fault.status, self.fault.code)
            self.route(unquote(urlsplit(self.path).path), body)
        except Refused as refused:
            extra = self.fault.headers if self.fault else {}
            self.reply(json.dumps({"error": "refused"}).encode(), refused.status, {**refused.headers, **extra})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except Exception:
            self.hub.errors.append(traceback.format_exc())
            self.reply(b"", 501)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def next_fault(self) -> Fault | None:
        for fault in self.hub.faults:
            if fault.times > 0 and fault.method == self.command and re.search(fault.path, unquote(self.path)):
                fault.times -= 1
                return fault
        return None

    def route(self, path: str, body: bytes) -> None:
        for method, pattern, name in ROUTES:
            if self.command in method and (found := re.fullmatch(pattern, path)):
                return getattr(self, name)(body, **found.groupdict())
        raise Refused(404)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    # Who asks, and for what

    def account(self) -> dict | None:
        return self.hub.accounts.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def writer(self, name: str) -> dict:
        account = self.account()
        if not account:
            raise Refused(401, "", "Invalid username or password.")
        owners = [account["name"], *(org["name"] for org in account["orgs"])]
        if account["role"] == "read" or name.partition("/")[0] not in owners:
            raise Refused(403, "", "You don't have the rights to create this")
        return account

    def found(self, kind: str | None, name: str) -> Repo:
        repo = self.hub.repos.get(((kind or "models")[:-1], name))
        account = self.account()
        if not repo or (repo.private and not account):
            raise Refused(404 if account else 401, "RepoNotFound")
        if repo.gated and not (account and name.partition("/")[0] == account["name"]):
            raise Refused(403 if account else 401, "GatedRepo")
        return repo

    def commit_of(self, repo: Repo, revision: str) -> Commit:
        if commit := repo.at(revision):
            return commit
        raise Refused(404, "RevisionNotFound")

    # Endpoints

    def whoami(self, body: bytes) -> None:
        account = self.account()
        if not account:
            raise Refused(401, "", "Invalid credentials in Authorization header")
        token = {"displayName": "test", "role": account["role"], **account.get("token", {})}
        auth = {"type": "access_token", "accessToken": token}
        self.reply_json({"type": "user", "name": account["name"], "orgs": account["orgs"], "auth": auth})

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        kind, name = asked.get("type", "model"), f"{asked['organization'] or self.account()['name']}/{asked['name']}"
        self.writer(name)
        if kind == "space" and asked.get("sdk") not in ("gradio", "docker", "static"):
            raise Refused(400, "", "a Space needs an sdk")
        url = f"{self.hub.endpoint}/{'' if kind == 'model' else kind + 's/'}{name}"
        if (kind, name) in self.hub.repos:
            self.reply_json({"error": "You already created this", "url": url}, 409)
        else:
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.hub.repo(kind, name, {".gitattributes": b""}, private=private)
            self.reply_json({"url": url, "name": name})

    def validate_yaml(self, body: bytes) -> None:
        content = json.loads(body)["content"]
        try:
            front_matter(content)
        except yaml.YAMLError as error:
            self.reply_json({"errors": [{"message": str(error)}], "warnings": []}, 400)
        else:
            self.reply_json({"errors": [], "warnings": []})

    def info(self, body: bytes, kind: str, name: str, revision: str | None = None) -> None:
        repo = self.found(kind, name)
        commit = self.commit_of(repo, revision or "main")
        told = {"_id": "1", "id": name, "author": name.partition("/")[0], "sha": commit.oid, "private": repo.private}
        told |= {"gated": "manual" if repo.gated else False, "disabled": False, "downloads": 0, "likes": 0, "tags": []}
        told |= {"siblings": [{"rfilename": path} for path in sorted(commit.files)]}
        card = front_matter(commit.files.get("README.md", b"").decode())
        self.reply_json(told | ({"cardData": card} if card else {}))

    def tree(self, body: bytes, kind: str, name: str, revision: str, folder: str | None = None) -> None:
        files = self.commit_of(self.found(kind, name), revision).files
        start = f"{folder}/" if folder else ""
        inside = [path for path in sorted(files) if path.startswith(start)]
        if folder and not inside:
            raise Refused(404, "EntryNotFound")
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() == "true"
        direct = [path for path in inside if recursive or "/" not in path.removeprefix(start)]
        parents = {start + path.removeprefix(start).partition("/")[0] for path in inside if path not in direct}
        folders = [
            {"type": "directory", "path": path, "oid": git_oid(path.encode()), "size": 0} for path in sorted(parents)
        ]
        self.reply_json([*folders, *(entry(path, files[path]) for path in direct)])

    def refs(self, body: bytes, kind: str, name: str) -> None:
        self.reply_json(refs(self.found(kind, name)))

    def tag(self, body: bytes, kind: str, name: str, revision: str) -> None:
        self.writer(name)
        repo, tag = self.found(kind, name), json.loads(body)["tag"]
        if tag in repo.tags:
            raise Refused(409, "", "Tag reference exists already")
        repo.tags[tag] = self.commit_of(repo, revision).oid
        self.reply_json({"success": True})

    def paths_info(self, body: bytes, kind: str, name: str, revision: str) -> None:
        files = self.commit_of(self.found(kind, name), revision).files
        paths = parse_qs(body.decode()).get("paths", [])
        self.reply_json([entry(path, files[path]) for path in paths if path in files])

    def preupload(self, body: bytes, kind: str, name: str, revision: str) -> None:
        self.writer(name)
        files = self.found(kind, name).files
        told = []
        for file in json.loads(body)["files"]:
            path, large = file["path"], is_large(file["path"])
            there = files.get(path)
            oid = None if there is None else sha256(there) if large else git_oid(there)
            told.append({"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid})
        self.reply_json({"files": told})

    def batch(self, body: bytes, kind: str | None, name: str) -> None:
        self.writer(name)
        objects = []
        for asked in json.loads(body)["objects"]:
            upload = {"href": f"{self.hub.endpoint}/lfs/{asked['oid']}", "header": {}}
            missing = asked["oid"] not in self.hub.large
            objects.append({**asked, **({"actions": {"upload": upload}} if missing else {})})
        self.reply_json({"transfer": "basic", "objects": objects})

    def put_large(self, body: bytes, oid: str) -> None:
        if sha256(body) != oid:
            raise Refused(400)
        self.hub.large[oid] = body
        self.reply(b"")

    def commit(self, body: bytes, kind: str, name: str, revision: str) -> None:
        self.writer(name)
        repo = self.found(kind, name)
        files, message = dict(repo.files), ""
        for line in body.splitlines():
            key, value = (item := json.loads(line))["key"], item["value"]
            if key == "header":
                message = value["summary"]
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif files.pop(value["path"], None) is None:
                raise Refused(404, "EntryNotFound", "A file with this name doesn't exist")
        oid = repo.commit(files, message)
        self.reply_json({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.endpoint}/{name}/commit/{oid}"})

    def resolve(self, body: bytes, kind: str | None, name: str, revision: str, path: str) -> None:
        commit = self.commit_of(self.found(kind, name), revision)
        headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        if path not in commit.files:
            self.fault = Fault("", "", 0, headers=headers)
            raise Refused(404, "EntryNotFound")
        data = commit.files[path]
        oid = sha256(data) if is_large(path) else git_oid(data)
        headers |= {"ETag": f'"{oid}"'} | (
            {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{oid}"'} if is_large(path) else {}
        )
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
            if start >= len(data):
                raise Refused(416)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            return self.reply(data[start : end + 1], 206, headers)
        return self.reply(data, 200, headers)

    # Replies

    def reply_json(self, value, status: int = 200) -> None:
        self.reply(json.dumps(value).encode(), status, {"Content-Type": "application/json"})

    def reply(self, data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            whole = self.fault is None or self.fault.keep is None
            self.wfile.write(data if whole else data[: int(len(data) * self.fault.keep)])
        self.close_connection = True

    def log_message(self, *arguments) -> None:
        pass


API = r"/api/(?P<kind>models|datasets|spaces)/(?P<name>[^/]+/[^/]+)"
FILE = r"/(?:(?P<kind>datasets|spaces)/)?(?P<name>[^/]+/[^/]+)"
ROUTES = [
    ("GET", "/api/whoami-v2", "whoami"),
    ("POST", "/api/repos/create", "create"),
    ("POST", "/api/validate-yaml", "validate_yaml"),
    ("GET", API, "info"),
    ("GET", API + r"/revision/(?P<revision>.+)", "info"),
    ("GET", API + r"/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", "tree"),
    ("GET", API + r"/refs", "refs"),
    ("POST", API + r"/tag/(?P<revision>[^/]+)", "tag"),
    ("POST", API + r"/paths-info/(?P<revision>[^/]+)", "paths_info"),
    ("POST", API + r"/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", API + r"/commit/(?P<revision>[^/]+)", "commit"),
    ("POST", FILE + r"\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "put_large"),
    ("GET HEAD", FILE + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
]
