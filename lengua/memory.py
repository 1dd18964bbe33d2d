"""Memory of this machine: how much there is and how much is free, a container's limit included."""

import ctypes
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""
LARGE = 1 << 20
"""Bytes from which a block is a mapping of its own, and from which free memory at the heap's end is given back."""


def all_bytes() -> int | None:
    """Return the memory this process may use; None where the system does not tell."""
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    return min(size, _limit() or size)


def free_bytes() -> int | None:
    """Return the memory that may still be taken; None where the system does not tell."""
    if not MEMINFO.is_file():
        return None
    available = _sizes(MEMINFO).get("MemAvailable:", 0) * 1024
    limit, stat = _limit(), CGROUP / "memory.stat"
    if limit is None or not stat.is_file():
        return available or None
    told = _sizes(stat)
    return min(available, limit - told.get("anon", 0) - told.get("shmem", 0))


def map_large_blocks() -> None:
    """Have large blocks of memory go back to the system when they are freed; where the C library is not glibc, nothing.

    Else what batches of changing shapes leave behind stays resident, and grows (benchmarks/hour.py).
    """
    if hasattr(library := _library(), "mallopt"):
        library.mallopt(M_MMAP_THRESHOLD, LARGE)
        library.mallopt(M_TRIM_THRESHOLD, LARGE)


def give_back() -> None:
    """Give freed memory back to the system; where the C library is not glibc, nothing."""
    if hasattr(library := _library(), "malloc_trim"):
        library.malloc_trim(0)


def _library():
    return ctypes.CDLL(None) if os.name == "posix" else None


def _limit() -> int | None:
    path = CGROUP / "memory.max"
    told = path.read_text().strip() if path.is_file() else "max"
    return int(told) if told.isdigit() else None


def _sizes(path: Path) -> dict[str, int]:
    """Return {name: number} of a file of the kernel with a name and a number in each line."""
    fields = (line.split() for line in path.read_text().splitlines())
    return {line[0]: int(line[1]) for line in fields if len(line) > 1 and line[1].isdigit()}
