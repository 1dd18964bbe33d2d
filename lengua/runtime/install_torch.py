"""Install the torch that fits this machine into the environment that runs this: CUDA with a GPU, else the CPU build.

    python -m lengua.runtime.install_torch --constraint constraints.txt

A torch that imports is left alone. With a GPU, plain pip brings the CUDA build. Without one, pip is asked first what
its torch would bring along; if that is CUDA (gigabytes that nothing here could use), uv fetches the CPU build, because
uv knows where the CPU builds are kept. Runs before anything else is installed: the standard library only.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from lengua.runtime.errors import LenguaError, RequestError

CUDA_NAMES = ("nvidia-", "cuda-")


def main(arguments: list[str] | None = None) -> int:
    """Install torch, say in one line what was done, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--constraint", type=Path, help="a pip constraints file; it may pin torch")
    try:
        print(f"torch: {install(parser.parse_args(arguments).constraint)}", flush=True)
    except LenguaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def install(constraint: Path | None = None) -> str:
    """Install torch if there is none, and return what was done.

    Raises:
        LenguaError: pip or uv could not fetch it.
    """
    if version := importable_torch():
        return f"{version} is here already and stays"
    if constraint and not constraint.is_file():
        raise RequestError("a constraints file", f"nothing at {constraint}", "check the path")
    pins = ["--constraint", str(constraint)] if constraint else []
    if nvidia_smi_lists_gpu():
        _pip("install", *pins, "torch")
        return f"{importable_torch()} for this machine's GPU"
    if brought := cuda_packages(dry_run_report(pins)):
        _install_cpu_build(pins)
        return f"{importable_torch()}, the CPU build, without {brought[0]} and {len(brought) - 1} more"
    _pip("install", *pins, "torch")
    return f"{importable_torch()} for the CPU"


def importable_torch() -> str | None:
    """Return the version of the torch that imports here, asked in a process of its own."""
    command = [sys.executable, "-c", "import torch; print(torch.__version__)"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or None


def nvidia_smi_lists_gpu() -> bool:
    """Return whether an NVIDIA GPU answers: nvidia-smi is there and lists one."""
    if not shutil.which("nvidia-smi"):
        return False
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    return listed.returncode == 0 and "GPU" in listed.stdout


def dry_run_report(pins: list[str]) -> dict:
    """Return pip's report of a torch it has not installed. pip 25.3 and newer read metadata only, older ones fetch."""
    return json.loads(_pip("install", "--dry-run", "--no-deps", "--ignore-installed", "--report", "-", *pins, "torch"))


def cuda_packages(report: dict) -> list[str]:
    """Return the names of the CUDA packages that pip's report requires on this machine."""
    from pip._vendor.packaging.requirements import Requirement  # pip's own: nothing else is installed yet

    texts = [text for item in report["install"] for text in item["metadata"].get("requires_dist", [])]
    required = [Requirement(text) for text in texts]
    here = [item.name for item in required if item.marker is None or item.marker.evaluate({"extra": ""})]
    return [name for name in here if name.startswith(CUDA_NAMES)]


def _install_cpu_build(pins: list[str]) -> None:
    """Let uv fetch the CPU build; uv itself comes by pip."""
    _pip("install", "uv")
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
    done = subprocess.run([*command, "--torch-backend=cpu", *pins, "torch"], capture_output=True, text=True)
    if done.returncode:
        raise LenguaError(
            "the CPU build of torch by way of uv",
            _cause(done.stderr),
            "connect to where PyTorch keeps its builds, or install any torch into this environment, then run it again",
        )


def _pip(*arguments: str) -> str:
    """Run this environment's pip and return its standard output."""
    command = [sys.executable, "-m", "pip", "--quiet", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    if done.returncode:
        wish = f"pip {arguments[0]} {arguments[-1]} to succeed"
        raise LenguaError(wish, _cause(done.stderr), "check the connection and pip's settings, then run it again")
    return done.stdout


def _cause(errors: str, longest: int = 300) -> str:
    """Return on one line the end of a program's error output, which is where pip and uv put the cause."""
    return " ".join(errors.split())[-longest:] or "no message"


if __name__ == "__main__":
    sys.exit(main())
