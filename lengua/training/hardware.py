"""What the machine can do: device, precision, and the same sums every time."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.utils.deterministic

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


@contextmanager
def summed_in_order(device: str) -> Iterator[None]:
    """Add up gradients in one order on a CPU, so that the same run learns the same weights to the bit.

    By default torch's threads race to add those of the decoder's positions, which every clip of a batch shares
    (index_put_ with accumulate). On a GPU nothing is changed: there it would cost more than it is worth.
    """
    settings, was_on = torch.utils.deterministic, torch.are_deterministic_algorithms_enabled()
    only_warned, filled = torch.is_deterministic_algorithms_warn_only_enabled(), settings.fill_uninitialized_memory
    if device == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
        settings.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was_on, warn_only=only_warned)
        settings.fill_uninitialized_memory = filled


def cpu_has_bfloat16() -> bool:
    """Return whether matrix products in bfloat16 run natively on this CPU."""
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check() for check in checks if check is not None)
