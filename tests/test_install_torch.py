"""Which torch goes where: run for real against a folder of tiny wheels, in environments made for it."""

import os
import subprocess
import venv
import zipfile
from pathlib import Path

import pip
import pytest

from lengua.runtime.install_torch import cuda_packages, nvidia_smi_lists_gpu

ROOT = Path(__file__).parent.parent
CUDA = ('nvidia-cublas==13.1; platform_system != ""', 'cuda-bindings<14; platform_system != ""', "filelock")
FAKE_UV = """
import pathlib, sys
pathlib.Path(sys.argv[0]).with_name("asked").write_text(" ".join(sys.argv[1:]))
torch = pathlib.Path(sys.argv[0]).parents[1] / "torch"
torch.mkdir()
(torch / "__init__.py").write_text("__version__ = '2.13.0+cpu'")
"""


def wheel(folder: Path, name: str, version: str, requires: tuple[str, ...] = (), **files: str) -> None:
    """Write a wheel with one package in it."""
    label = name.replace("-", "_")
    info = f"{label}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with zipfile.ZipFile(folder / f"{label}-{version}-py3-none-any.whl", "w") as archive:
        for file, text in {"__init__": f"__version__ = {version!r}", **files}.items():
            archive.writestr(f"{label}/{file}.py", text)
        archive.writestr(f"{info}/METADATA", metadata + "".join(f"Requires-Dist: {text}\n" for text in requires))
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def environment(tmp_path) -> Path:
    """A folder with an environment that has pip and nothing else, and wheels for it."""
    venv.create(tmp_path / "venv", symlinks=True)
    (site_packages(tmp_path) / "pip").symlink_to(Path(pip.__file__).parent)
    (tmp_path / "wheels").mkdir()
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n")
    wheel(tmp_path / "wheels", "torch", "2.14.0", CUDA)  # newer than the pin: nobody must get this one
    return tmp_path


def install(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run the installer in the environment, with the wheels of the test as pip's only index."""
    names = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder / "wheels"), "PYTHONPATH": str(ROOT)}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    command = [str(folder / "venv/bin/python"), "-m", "lengua.runtime.install_torch", *arguments]
    nowhere = {"PIP_CONFIG_FILE": os.devnull}
    return subprocess.run(command, cwd=folder, env={**kept, **names, **nowhere}, capture_output=True, text=True)


def site_packages(folder: Path) -> Path:
    return next((folder / "venv").glob("lib/python3*/site-packages"))


def fake_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_without_gpu_and_without_cuda_plain_pip_installs_the_pinned_torch(environment):
    wheel(environment / "wheels", "torch", "2.13.0+cpu")
    done = install(environment, "--constraint", "constraints.txt")
    assert (done.returncode, done.stdout) == (0, "torch: 2.13.0+cpu for the CPU\n"), done.stderr


def test_without_gpu_a_torch_with_cuda_comes_from_uv_as_the_cpu_build(environment):
    wheel(environment / "wheels", "torch", "2.13.0", CUDA)
    wheel(environment / "wheels", "uv", "1.0", __main__=FAKE_UV)
    done = install(environment, "--constraint", "constraints.txt")
    assert done.stdout == "torch: 2.13.0+cpu, the CPU build, without nvidia-cublas and 1 more\n", done.stderr
    asked = (site_packages(environment) / "uv" / "asked").read_text()
    assert asked.endswith("--torch-backend=cpu --constraint constraints.txt torch")
    assert not list(site_packages(environment).glob("nvidia*"))


def test_when_uv_fails_nothing_of_cuda_is_installed_and_the_message_says_what_to_do(environment):
    wheel(environment / "wheels", "torch", "2.13.0", CUDA)
    wheel(environment / "wheels", "uv", "1.0", __main__="raise SystemExit('error: no way there')")
    done = install(environment, "--constraint", "constraints.txt")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("expected the CPU build of torch by way of uv; found error: no way there; connect")
    assert not list(site_packages(environment).glob("torch*"))


def test_with_a_gpu_plain_pip_brings_cuda_along(environment, monkeypatch):
    fake_smi(environment, monkeypatch, "echo 'GPU 0: Tesla T4'")
    wheel(environment / "wheels", "torch", "2.13.0", CUDA)
    for name, version in (("nvidia-cublas", "13.1"), ("cuda-bindings", "13.3"), ("filelock", "4.0")):
        wheel(environment / "wheels", name, version)
    done = install(environment, "--constraint", "constraints.txt")
    assert (done.returncode, done.stdout) == (0, "torch: 2.13.0 for this machine's GPU\n"), done.stderr
    assert (site_packages(environment) / "nvidia_cublas").is_dir()


def test_a_torch_that_imports_is_never_replaced(environment, monkeypatch):
    fake_smi(environment, monkeypatch, "echo 'GPU 0: Tesla T4'")
    wheel(environment / "wheels", "torch", "2.13.0")
    own = site_packages(environment) / "torch"
    own.mkdir()
    (own / "__init__.py").write_text("__version__ = '2.11.0+mine'")
    done = install(environment, "--constraint", "constraints.txt")
    assert (done.returncode, done.stdout) == (0, "torch: 2.11.0+mine is here already and stays\n")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--constraint", "constraints.txt"), 1, "expected pip install torch to succeed; found ERROR"),
        (("--constraint", "missing.txt"), 2, "expected a constraints file; found nothing at missing.txt"),
    ],
)
def test_failures_are_one_message(environment, arguments, code, message):
    done = install(environment, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1


def test_only_cuda_that_this_machine_would_get_counts():
    elsewhere = ('nvidia-cublas; platform_system == "Plan9"', 'nvidia-nccl; extra == "distributed"')
    report = {"install": [{"metadata": {"requires_dist": [*elsewhere, "filelock", "nvidia-cudnn-cu13==9.20"]}}]}
    assert cuda_packages(report) == ["nvidia-cudnn-cu13"]
    assert cuda_packages({"install": [{"metadata": {}}]}) == []


@pytest.mark.parametrize(
    ("script", "expected"),
    [("echo 'GPU 0: Tesla T4'", True), ("echo 'No devices found'", False), ("echo GPU 0; exit 9", False)],
)
def test_a_gpu_counts_only_when_it_answers(tmp_path, monkeypatch, script, expected):
    fake_smi(tmp_path, monkeypatch, script)
    assert nvidia_smi_lists_gpu() is expected
