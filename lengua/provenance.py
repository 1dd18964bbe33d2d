"""What a figure must carry with it to be believed: the commit it was measured at, and on what machine."""

import os
import platform
import subprocess
from pathlib import Path


def commit() -> str | None:
    """Return the commit of the tree that the package runs from, with + where it has changes; None outside of git."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def hardware() -> str:
    """Return cores and processor, and the GPU where nvidia-smi finds one."""
    processor = f"{os.cpu_count()} cores, {_cpu_name()}"
    return ", ".join([processor, *_gpus()])


def _gpus() -> list[str]:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()
    except (OSError, subprocess.CalledProcessError):
        return []


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
