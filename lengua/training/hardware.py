"""Device, precision and deterministic sums; and estimates of the disk and memory that a run needs.

The estimates are lower bounds: what they refuse would fail for certain, and later; what they let through may be tight.
"""

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.utils.deterministic

from lengua.audio.log_mel import FRAMES_PER_SECOND
from lengua.audio.windows import window_of
from lengua.options import TrainOptions
from lengua.runtime import system
from lengua.runtime.errors import RequestError
from lengua.training.checks import Check
from lengua.training.parameters import LORA_TARGET_MODULES
from lengua.training.samplers import BatchPlan


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
def deterministic_sums(device: str) -> Iterator[None]:
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


MAX_CHECKPOINTS_ON_DISK = 3
"""That are on disk at most, optimiser and all: the two newest, and the one being written."""
DISK_MARGIN_BYTES = 2**28
"""Of disk: tokenizer, history, and what others write meanwhile."""
ADAM_VALUES_PER_WEIGHT = 3
"""A gradient and two moments for every weight that learns."""
LAYER_VALUES_PER_POSITION_AND_CHANNEL = 24
"""Values for each position and channel that an encoder layer keeps for its gradient, a little less than whisper-base
does in torch 2.13."""
VALUE_BYTES, HALF_VALUE_BYTES = 4, 2.5
"""Of such a value; with autocast some stay in 32 bits."""
GIB = 2**30


def check_disk(needed: int, out: Path) -> Check:
    """There is room for the checkpoints and the model where the run's folder is, or will be."""
    free = shutil.disk_usage(next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())).free
    expected = f"{needed / GIB:.1f} GiB free for checkpoints and model"
    do = "free some space, or write elsewhere with --out"
    return Check("disk", free >= needed, expected, f"{free / GIB:.1f} GiB for {out}", do)


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes of memory that training takes on top of the weights."""

    fixed: int
    """Whatever the batch: gradients and moments."""
    per_clip: int

    def clips(self, free: int) -> int:
        """Return the largest batch for which there is room."""
        return max(0, free - self.fixed) // self.per_clip


def check_memory(need: MemoryNeed, batch_size: int, free: int | None, others: Mapping[str, MemoryNeed]) -> Check:
    """There is room for gradients, optimiser and a batch in its longest window.

    `free` is None where the system does not tell; `others` is what other options would take, by the least change.
    """
    total = need.fixed + batch_size * need.per_clip
    expected = f"about {total / GIB:.1f} GiB of memory free for batches of {batch_size}"
    if free is None:
        return Check("memory", None, expected, "this system does not tell", "watch it in the first steps")
    fits = need.clips(free)
    ways = [f"--batch-size {fits} and more --accumulation"] if fits else []
    ways += [way for way, other in others.items() if other.clips(free) >= batch_size][:1]
    if not ways:
        ways = [f"{way} and --batch-size {clips}" for way, other in others.items() if (clips := other.clips(free))][:1]
    do = f"train with {', or with '.join(ways)}" if ways else "choose a smaller --base"
    return Check("memory", fits >= batch_size, expected, f"{free / GIB:.1f} GiB", f"{do}, or close other programs")


def memory_need(model: torch.nn.Module, positions: int, half: bool) -> MemoryNeed:
    """Return what training takes of a model as it is; see `memory_per_clip`."""
    return MemoryNeed(ADAM_VALUES_PER_WEIGHT * weight_bytes(model)[1], memory_per_clip(model, positions, half))


def alternative_needs(
    model: torch.nn.Module, options: TrainOptions, positions: int, half: bool
) -> dict[str, MemoryNeed]:
    """Return what it would take with options that were not chosen and save memory."""
    need = memory_need(model, positions, half)
    less = replace(need, per_clip=memory_per_clip(model, positions, half, checkpointed=True))
    more = [] if options.gradient_checkpointing else ["--gradient-checkpointing"]
    needs = {more[0]: less} if more and less.per_clip < need.per_clip else {}
    if options.learn == "all":
        lora = replace(less, fixed=ADAM_VALUES_PER_WEIGHT * lora_bytes(model, options.lora_rank))
        needs[" ".join(["--learn lora", *more])] = lora
    return needs


def lora_bytes(model: torch.nn.Module, rank: int) -> int:
    """Return the bytes of the thin matrices that LoRA would put beside the others."""
    named = (part for name, part in model.named_modules() if name.rpartition(".")[2] in LORA_TARGET_MODULES)
    return sum(4 * rank * sum(matrix.weight.shape) for matrix in named)


def disk_needed(model: torch.nn.Module) -> int:
    """Return the bytes of the checkpoints that stand side by side, each with two moments, and of the final model."""
    weights, learning = weight_bytes(model)
    return MAX_CHECKPOINTS_ON_DISK * (weights + 2 * learning) + weights + DISK_MARGIN_BYTES


def weight_bytes(model: torch.nn.Module) -> tuple[int, int]:
    """Return the bytes of all weights, and of those that learn."""
    sizes = [(weight.numel() * weight.element_size(), weight.requires_grad) for weight in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns)


def memory_per_clip(model: torch.nn.Module, positions: int, half: bool, checkpointed: bool = False) -> int:
    """Return the bytes that one clip of a batch keeps for its gradients, in a window of so many encoder positions.

    `half`: products are kept in 16 bits. `checkpointed`: activations are computed again, whatever the model is set to.
    """
    config, encoder = model.config, model.model.encoder
    learns = any(weight.requires_grad for weight in encoder.layers.parameters())
    layers = config.encoder_layers * LAYER_VALUES_PER_POSITION_AND_CHANNEL if learns else 0
    if layers and (checkpointed or any(layer.gradient_checkpointing for layer in encoder.layers)):
        layers = (
            config.encoder_layers + LAYER_VALUES_PER_POSITION_AND_CHANNEL
        )  # the input of each, and one computed again
    cross_attention = 2 * config.decoder_layers
    return int(positions * config.d_model * (layers + cross_attention) * (HALF_VALUE_BYTES if half else VALUE_BYTES))


def max_frames_per_clip(drawing: BatchPlan, frames: Sequence[int] | None) -> int:
    """Return the frames of the largest batch, for each clip that it may have; `frames` is None where nobody knows."""
    if frames is None:
        return drawing.longest
    packed = 0
    if drawing.packing:
        mean = sum(map(int, frames)) / len(frames) + drawing.packing.max_pause_s * FRAMES_PER_SECOND
        packed = drawing.longest * math.ceil(mean * drawing.batch_size / drawing.longest) // drawing.batch_size
    if drawing.all_packed:
        return packed
    padded = drawing.longest * drawing.padded_size // drawing.batch_size if drawing.padded_share else 0
    return max(padded, packed, window_of(int(max(frames)), drawing.margin_s[1], drawing.longest))


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that may still be taken, a container's limit included; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return system.available_memory_bytes()
