"""What the machine can do: device and precision."""

import torch

from lengua.errors import RequestError


def pick_device(asked: str) -> str:
    """Return "cuda" or "cpu"."""
    if asked == "cuda" and not torch.cuda.is_available():
        raise RequestError("a CUDA GPU", "none that torch can use", "leave out --device, or install torch for CUDA")
    return "cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu"


def pick_precision(asked: str, device: str) -> str:
    """Return bf16, fp16 or fp32. A T4 has no bfloat16; a CPU without its instructions would emulate it, slowly."""
    if asked != "auto":
        return asked
    if device == "cuda":
        return "bf16" if torch.cuda.get_device_capability()[0] >= 8 else "fp16"
    return "bf16" if cpu_has_bfloat16() else "fp32"


def cpu_has_bfloat16() -> bool:
    """Return whether matrix products in bfloat16 run natively on this CPU."""
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check() for check in checks if check is not None)
