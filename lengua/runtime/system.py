"""This machine and this process: memory (with a container's limit), commit and hardware, rank of a distributed run.

Commit and hardware are recorded beside every measured figure. The rank is that of torchrun or accelerate.
"""

import ctypes
import os
import platform
import subprocess
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""
MMAP_THRESHOLD_BYTES = 1 << 20
"""Bytes from which a block is a mapping of its own, and from which free memory at the heap's end is given back."""


def total_memory_bytes() -> int | None:
    """Return the memory this process may use; None where the system does not tell."""
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    return min(size, _cgroup_limit() or size)


def available_memory_bytes() -> int | None:
    """Return the memory that may still be taken; None where the system does not tell."""
    if not MEMINFO.is_file():
        return None
    available = _read_kernel_sizes(MEMINFO).get("MemAvailable:", 0) * 1024
    limit, stat = _cgroup_limit(), CGROUP / "memory.stat"
    if limit is None or not stat.is_file():
        return available or None
    used = _read_kernel_sizes(stat)
    return min(available, limit - used.get("anon", 0) - used.get("shmem", 0))


def map_large_blocks() -> None:
    """Have large blocks of memory go back to the system when they are freed; where the C library is not glibc, nothing.

    Else what batches of changing shapes leave behind stays resident, and grows (benchmarks/hour.py).
    """
    if hasattr(library := _glibc(), "mallopt"):
        library.mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        library.mallopt(M_TRIM_THRESHOLD, MMAP_THRESHOLD_BYTES)


def trim_heap() -> None:
    """Give freed memory back to the system; where the C library is not glibc, nothing."""
    if hasattr(library := _glibc(), "malloc_trim"):
        library.malloc_trim(0)


def _glibc():
    return ctypes.CDLL(None) if os.name == "posix" else None


def _cgroup_limit() -> int | None:
    path = CGROUP / "memory.max"
    limit = path.read_text().strip() if path.is_file() else "max"
    return int(limit) if limit.isdigit() else None


def _read_kernel_sizes(path: Path) -> dict[str, int]:
    """Return {name: number} of a file of the kernel with a name and a number in each line."""
    fields = (line.split() for line in path.read_text().splitlines())
    return {line[0]: int(line[1]) for line in fields if len(line) > 1 and line[1].isdigit()}


def git_commit() -> str | None:
    """Return the commit of the tree that the package runs from, with + where it has changes; None outside of git."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def describe_hardware() -> str:
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


def rank_and_world_size() -> tuple[int, int]:
    """Return (rank, ranks); a process alone is (0, 1)."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Return whether this process is the one that writes and speaks for all."""
    return rank_and_world_size()[0] == 0
