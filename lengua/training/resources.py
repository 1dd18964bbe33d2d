"""What a run will need of disk and memory, roughly, and what there is.

Bounds from below: what is refused here would fail for certain, and later; what is let through may still be tight.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from lengua.batches import Drawing
from lengua.training.checks import Check
from lengua.windows import window_of

CHECKPOINTS = 3
"""That are on disk at most: the newest, the best, and the one being written."""
MARGIN_BYTES = 2**28
"""Of disk: tokenizer, history, and what others write meanwhile."""
KEPT_BY_ADAM = 3
"""A gradient and two moments for every weight that learns."""
KEPT_BY_A_LAYER = 24
"""Values for each position and channel that an encoder layer keeps for its gradient, a little less than whisper-base
does in torch 2.13."""
BYTES, BYTES_OF_HALF = 4, 2.5
"""Of such a value; with autocast some stay in 32 bits."""
GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def check_disk(needed: int, out: Path) -> Check:
    """There is room for the checkpoints and the model where the run's folder is, or will be."""
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    expected = f"{needed / GIB:.1f} GiB free for checkpoints and model"
    do = "free some space, or write elsewhere with --out"
    return Check("disk", free >= needed, expected, f"{free / GIB:.1f} GiB for {out}", do)


def check_memory(fixed: int, per_clip: int, batch_size: int, free: int | None) -> Check:
    """There is room for gradients, optimiser and a batch in its longest window.

    Args:
        fixed: bytes whatever the batch.
        free: None where the system does not tell.
    """
    expected = f"about {(fixed + batch_size * per_clip) / GIB:.1f} GiB of memory free for batches of {batch_size}"
    if free is None:
        return Check("memory", None, expected, "this system does not tell", "watch it in the first steps")
    fits = max(0, free - fixed) // per_clip
    do = f"train with --batch-size {fits} and more --accumulation" if fits else "choose a smaller --base"
    return Check("memory", fits >= batch_size, expected, f"{free / GIB:.1f} GiB", f"{do}, or close other programs")


def disk_needed(model: torch.nn.Module) -> int:
    """Return the bytes of the checkpoints that stand side by side, each with two moments, and of the final model."""
    weights, learning = bytes_of(model)
    return CHECKPOINTS * (weights + 2 * learning) + weights + MARGIN_BYTES


def bytes_of(model: torch.nn.Module) -> tuple[int, int]:
    """Return the bytes of all weights, and of those that learn."""
    sizes = [(weight.numel() * weight.element_size(), weight.requires_grad) for weight in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns)


def memory_per_clip(model: torch.nn.Module, positions: int, half: bool) -> int:
    """Return the bytes that one clip of a batch keeps for its gradients.

    Args:
        positions: of the encoder.
        half: whether products are kept in 16 bits.
    """
    config = model.config
    encoder = any(weight.requires_grad for weight in model.model.encoder.layers.parameters())
    layers = config.encoder_layers * KEPT_BY_A_LAYER if encoder else 0
    if layers and any(layer.gradient_checkpointing for layer in model.model.encoder.layers):
        layers = config.encoder_layers + KEPT_BY_A_LAYER  # the input of each, and one that is computed again
    cross_attention = 2 * config.decoder_layers
    return int(positions * config.d_model * (layers + cross_attention) * (BYTES_OF_HALF if half else BYTES))


def frames_of_a_clip(drawing: Drawing, frames: Sequence[int] | None) -> int:
    """Return the frames that each clip takes of the largest batch of a run.

    Args:
        frames: of its clips; None where nobody knows.
    """
    if drawing.packing and frames is not None:
        return sum(map(int, frames)) // len(frames)
    if drawing.padded_share or frames is None:
        return drawing.longest
    return window_of(int(max(frames)), drawing.margin_s[1], drawing.longest)


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that may still be taken, a container's limit included; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if not MEMINFO.is_file():
        return None
    available = _sizes(MEMINFO).get("MemAvailable:", 0) * 1024
    limit, stat = CGROUP / "memory.max", CGROUP / "memory.stat"
    if not (limit.is_file() and stat.is_file() and limit.read_text().strip().isdigit()):
        return available or None
    told = _sizes(stat)
    return min(available, int(limit.read_text()) - told.get("anon", 0) - told.get("shmem", 0))


def _sizes(path: Path) -> dict[str, int]:
    """Return {name: number} of a file of the kernel with a name and a number in each line."""
    fields = (line.split() for line in path.read_text().splitlines())
    return {line[0]: int(line[1]) for line in fields if len(line) > 1 and line[1].isdigit()}
