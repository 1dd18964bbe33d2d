"""The doctor tells what is there and what to do, asks no server, and never shows a secret."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lengua import doctor
from lengua.doctor import DoctorResult, MachineCheck, diagnose, format_doctor_report
from lengua.options import DoctorOptions
from lengua.runtime import system

ROOT = Path(__file__).parent.parent
NAMES = [
    *"Python cores memory torch ctranslate2 transformers datasets gradio soundfile PyAV OPENAI_API_KEY".split(),
    *("disk here", "disk, cache", "apt, for sample:es", "openai/whisper-base weights", "Hugging Face token"),
]
CPU_TORCH = """
from types import SimpleNamespace
__version__ = "2.13.0+cpu"
cuda, cpu = SimpleNamespace(is_available=lambda: False), SimpleNamespace()
"""
EXAMINE = """
from lengua.doctor import format_doctor_report, diagnose
from lengua.options import DoctorOptions
result = diagnose(DoctorOptions())
print(result)
print(format_doctor_report(result))
"""


def examine(tmp_path: Path, torch: str = CPU_TORCH, **environment: str) -> str:
    """Return everything the doctor says in a fresh process whose home and cache are empty, with this code as torch."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(torch)
    secrets = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY")
    clean = {name: value for name, value in os.environ.items() if name not in secrets}
    homes = {"HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "LENGUA_CACHE": str(tmp_path / "cache")}
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", EXAMINE],
        env={**clean, **homes, "PYTHONPATH": paths, **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def line(said: str, name: str) -> str:
    """Return the described line of one finding, without runs of blanks."""
    found = [" ".join(row.split()) for row in said.splitlines() if f"  {name}  " in row]
    assert len(found) == 1, said
    return found[0]


def fake_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program that answers as nvidia-smi does first on the PATH."""
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: Tesla T4 (UUID: GPU-0)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_every_finding_has_a_known_status_and_something_to_do():
    result = diagnose(DoctorOptions())
    assert sorted(finding.name for finding in result.findings) == sorted(NAMES)
    assert {finding.status for finding in result.findings} <= {"ok", "warning", "missing"}
    assert all(finding.found and finding.do for finding in result.findings)
    assert all((finding.do == doctor.NOTHING_TO_DO) == (finding.status == "ok") for finding in result.findings)


def test_secrets_are_never_shown(tmp_path):
    secrets = {"HF_TOKEN": "hf_thisMustNotBeSeen", "OPENAI_API_KEY": "sk-thisMustNotBeSeenEither"}
    said = examine(tmp_path, **secrets)
    assert line(said, "Hugging Face token") == "ok Hugging Face token set"
    assert line(said, "OPENAI_API_KEY") == "ok OPENAI_API_KEY set"
    assert "thisMustNotBeSeen" not in said


def test_a_token_file_counts_and_is_not_shown(tmp_path):
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text("hf_thisMustNotBeSeen")
    said = examine(tmp_path)
    assert line(said, "Hugging Face token") == "ok Hugging Face token set"
    assert "thisMustNotBeSeen" not in said


def test_an_empty_home_has_no_secret_and_no_weights(tmp_path):
    said = examine(tmp_path)
    assert line(said, "Hugging Face token") == "warning Hugging Face token not set"
    assert line(said, "OPENAI_API_KEY") == "warning OPENAI_API_KEY not set"
    assert line(said, "openai/whisper-base weights") == "warning openai/whisper-base weights not here yet"
    assert not (tmp_path / "cache").exists()


def test_no_server_is_asked(monkeypatch):
    def refuse(*arguments, **named):
        raise AssertionError(f"the doctor asked the network: {arguments}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert diagnose(DoctorOptions()).findings


def test_without_torch_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    finding = doctor._torch()
    assert finding.status == "missing"
    assert "python -m lengua.runtime.install_torch" in finding.do


def test_a_torch_that_does_not_import_is_missing(tmp_path):
    said = line(examine(tmp_path, "raise OSError('libcudart.so.13: cannot open shared object file')"), "torch")
    assert said.startswith("missing torch installed but does not import (libcudart")


@pytest.mark.parametrize(
    ("name", "major", "gib", "precision"),
    [("Tesla T4", 7, 15, "float16, no bfloat16"), ("NVIDIA L4", 8, 22, "bfloat16")],
)
def test_a_gpu_is_told_with_memory_and_precision(tmp_path, name, major, gib, precision):
    code = f"""
from types import SimpleNamespace
__version__ = "2.13.0"
gpu = SimpleNamespace(name={name!r}, total_memory={gib} * 2**30, major={major})
cuda = SimpleNamespace(is_available=lambda: True, get_device_properties=lambda index: gpu)
"""
    said = line(examine(tmp_path, code), "torch")
    assert said == f"ok torch 2.13.0, {name}, {gib} GiB, {precision}"


def test_a_cpu_build_beside_a_gpu_is_a_warning(tmp_path, monkeypatch):
    fake_gpu(tmp_path, monkeypatch)
    said = line(examine(tmp_path), "torch")
    assert said == "warning torch 2.13.0+cpu, CPU, float32, but nvidia-smi lists a GPU"


def test_without_apt_it_points_to_ones_own_recordings(monkeypatch):
    monkeypatch.setenv("PATH", "")
    finding = doctor._apt()
    assert finding.status == "warning"
    assert finding.found.startswith("no apt-get and no dpkg-deb")
    assert "folder:PATH" in finding.do


def test_a_package_that_is_not_installed_names_its_extra():
    finding = doctor._package("lengua-has-no-such-package", "training", "train")
    assert finding.status == "missing"
    assert "pip install --editable '.[train]'" in finding.do


def test_a_containers_memory_limit_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(system, "CGROUP", tmp_path)
    whole = system.total_memory_bytes()
    (tmp_path / "memory.max").write_text("max\n")
    assert system.total_memory_bytes() == whole
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    assert system.total_memory_bytes() == 2**30
    assert doctor._memory().status == "warning"


def test_disk_is_told_for_a_folder_that_is_still_to_be_made(tmp_path):
    folder = tmp_path / "not" / "yet"
    assert doctor._disk("disk", folder, 0, "free some").status == "ok"
    assert doctor._disk("disk", folder, 10**9, "free some") == MachineCheck(
        "disk", "warning", doctor._disk("disk", folder, 0, "").found, "free some"
    )
    assert not folder.exists()


def test_describe_shows_what_to_do_only_where_something_is():
    fine, poor = MachineCheck("torch", "ok", "2.13.0"), MachineCheck("gradio", "missing", "not installed", "install it")
    text = format_doctor_report(DoctorResult([fine, poor]))
    assert text == (
        "ok       torch   2.13.0\n"
        "missing  gradio  not installed\n"
        "                 -> install it\n"
        "\n"
        "1 ok, 0 warning, 1 missing"
    )
