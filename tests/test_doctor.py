"""The doctor tells what is there and what to do, asks no server, and never shows a secret."""

import importlib
import os
import socket
from types import SimpleNamespace

import huggingface_hub.constants
import pytest

from lengua import doctor
from lengua.doctor import DoctorResult, MachineCheck, diagnose, format_doctor_report
from lengua.options import DoctorOptions
from lengua.runtime import system

NAMES = [
    *"Python cores memory torch ctranslate2 transformers datasets gradio soundfile PyAV OPENAI_API_KEY".split(),
    *("disk here", "disk, cache", "apt, for sample:es", "openai/whisper-base weights", "Hugging Face token"),
]
SECRET = "thisMustNotBeSeen"


@pytest.fixture
def empty_home(tmp_path, monkeypatch):
    """A machine without secrets and weights, that reaches no server."""

    def refuse(*arguments, **named):
        raise AssertionError(f"the doctor asked the network: {arguments}")

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("LENGUA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tmp_path


@pytest.fixture
def torch_is(monkeypatch):
    """Put another torch in the place of the one that is here."""

    def put(**parts):
        torch = SimpleNamespace(**({"__version__": "2.13.0+cpu", "cpu": SimpleNamespace()} | parts))
        monkeypatch.setattr(doctor, "find_spec", lambda name: True)
        monkeypatch.setattr(importlib, "import_module", lambda name: torch)

    return put


def findings() -> dict[str, MachineCheck]:
    return {finding.name: finding for finding in diagnose(DoctorOptions()).findings}


def test_an_empty_home_has_no_secret_and_no_weights_and_every_finding_says_what_to_do(empty_home):
    found = findings()
    assert sorted(found) == sorted(NAMES)
    assert {finding.status for finding in found.values()} <= {"ok", "warning", "missing"}
    assert all(finding.found and finding.do for finding in found.values())
    assert all((finding.do == doctor.NOTHING_TO_DO) == (finding.status == "ok") for finding in found.values())
    for name in ("Hugging Face token", "OPENAI_API_KEY"):
        assert (found[name].status, found[name].found) == ("warning", "not set")
    assert found["openai/whisper-base weights"].status == "warning" and not (empty_home / "cache").exists()


@pytest.mark.parametrize("place", ["variables", "file"])
def test_secrets_count_and_are_never_shown(place, empty_home, monkeypatch):
    if place == "file":
        (empty_home / "token").write_text(f"hf_{SECRET}")
    else:
        monkeypatch.setenv("HF_TOKEN", f"hf_{SECRET}")
    monkeypatch.setenv("OPENAI_API_KEY", f"sk-{SECRET}")
    result = diagnose(DoctorOptions())
    secrets = [finding for finding in result.findings if finding.name in ("Hugging Face token", "OPENAI_API_KEY")]
    assert [(one.status, one.found) for one in secrets] == [("ok", "set")] * 2
    assert SECRET not in f"{result}{format_doctor_report(result)}"


def test_without_torch_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    finding = doctor._torch()
    assert finding.status == "missing" and "python -m lengua.runtime.install_torch" in finding.do


def test_a_torch_that_does_not_import_is_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_torch.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    finding = doctor._imported("broken_torch", "uninstall it")
    assert finding.status == "missing" and "(libcudart" in finding.found


@pytest.mark.parametrize(
    ("name", "major", "gib", "precision"),
    [("Tesla T4", 7, 15, "float16, no bfloat16"), ("NVIDIA L4", 8, 22, "bfloat16")],
)
def test_a_gpu_is_told_with_memory_and_precision(torch_is, name, major, gib, precision):
    gpu = SimpleNamespace(name=name, total_memory=gib * 2**30, major=major)
    torch_is(cuda=SimpleNamespace(is_available=lambda: True, get_device_properties=lambda index: gpu))
    assert doctor._torch() == MachineCheck("torch", "ok", f"2.13.0+cpu, {name}, {gib} GiB, {precision}")


def test_a_cpu_build_beside_a_gpu_is_a_warning(torch_is, tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: Tesla T4 (UUID: GPU-0)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    torch_is(cuda=SimpleNamespace(is_available=lambda: False))
    finding = doctor._torch()
    assert finding.status == "warning" and finding.found.startswith("2.13.0+cpu, CPU, float32, but nvidia-smi")


def test_without_apt_it_points_to_ones_own_recordings(monkeypatch):
    monkeypatch.setenv("PATH", "")
    finding = doctor._apt()
    assert finding.status == "warning" and "folder:PATH" in finding.do
    assert finding.found.startswith("no apt-get and no dpkg-deb")


def test_a_package_that_is_not_installed_names_its_extra():
    finding = doctor._package("lengua-has-no-such-package", "training", "train")
    assert finding.status == "missing" and "pip install --editable '.[train]'" in finding.do


def test_a_containers_memory_limit_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(system, "CGROUP", tmp_path)
    whole = system.total_memory_bytes()
    (tmp_path / "memory.max").write_text("max\n")
    assert system.total_memory_bytes() == whole
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    assert system.total_memory_bytes() == 2**30 and doctor._memory().status == "warning"


def test_disk_is_told_for_a_folder_that_is_still_to_be_made(tmp_path):
    folder = tmp_path / "not" / "yet"
    much, little = (doctor._disk("disk", folder, needed_gib, "free some") for needed_gib in (0, 10**9))
    assert much.status == "ok" and little.status == "warning" and little.do == "free some" and not folder.exists()


def test_describe_shows_what_to_do_only_where_something_is():
    fine, poor = MachineCheck("torch", "ok", "2.13.0"), MachineCheck("gradio", "missing", "not installed", "install it")
    assert format_doctor_report(DoctorResult([fine, poor])).splitlines() == [
        "ok       torch   2.13.0",
        "missing  gradio  not installed",
        "                 -> install it",
        "",
        "1 ok, 0 warning, 1 missing",
    ]
