"""A training step, the same clips and precision: the usual recipe (padded to 30 s, shuffled) against adaptive context.

    python benchmarks/training.py --store runs/demo/store

Ours includes its share of batches padded to 30 s. Both read features that are ready: padded float32 on the one side,
one byte a value on the other. Steps alternate. The last line is one JSON object.
"""

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from recording import alternate, markdown, record, run
from transformers import WhisperForConditionalGeneration

from lengua.batches import ClipDataset, Collator, Draw, Drawing, LengthBuckets
from lengua.checkpoints import find_model, load_tokenizer
from lengua.labels import IGNORED
from lengua.mel import WINDOW_FRAMES
from lengua.model import load_model
from lengua.options import BASE_MODEL, TrainOptions
from lengua.store import open_store
from lengua.training.hardware import pick_device, pick_precision
from lengua.training.trainer import token_loss


@dataclass(frozen=True)
class Options:
    """Compare the cost of one training step."""

    store: Path = Path("runs/demo/store")
    """The clips: the train split of a feature store."""
    batch_size: int = 8
    """Clips a step."""
    steps: int = 25
    """Steps of each side."""
    precision: str = "auto"
    """auto, bf16 or fp32; the same on both sides."""
    record: bool = False
    """Write the result into benchmarks/RESULTS.md."""
    json: bool = True
    """Print one JSON object, last."""


def main(options: Options) -> dict:
    """Measure and print."""
    device = pick_device("auto")
    precision = pick_precision(options.precision, device)
    store, (folder, _) = open_store(options.store), find_model(BASE_MODEL)
    split, collate = store.split("train"), Collator(load_tokenizer(folder), store.language)
    usual = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    sides = {
        "usual recipe": Side(usual, padded_batches(split, collate, options), device, precision),
        "adaptive": Side(
            load_model(folder, store.language), adaptive_batches(split, collate, options), device, precision
        ),
    }
    for side in sides.values():
        side.step(0)
    seconds = alternate({name: side.step for name, side in sides.items()}, options.steps, rounds=1)
    return show(options, split, precision, seconds)


class Side:
    """A model, its optimiser and its batches."""

    def __init__(self, model, batches: list[dict], device: str, precision: str):
        self.model, self.batches, self.device = model.to(device).train(), batches, device
        self.model.config.use_cache = False
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-6)
        self.autocast = {"device_type": device, "enabled": precision != "fp32"}
        self.autocast["dtype"] = torch.float16 if precision == "fp16" else torch.bfloat16

    def step(self, index: int) -> None:
        """One step of training: forward, backward, clip, update."""
        batch = {name: value.to(self.device) for name, value in self.batches[index % len(self.batches)].items()}
        labels = batch.pop("labels")
        with torch.autocast(**self.autocast):
            loss = token_loss(self.model(**batch), labels, labels.ne(IGNORED).sum())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.device == "cuda":
            torch.cuda.synchronize()


def padded_batches(split, collate, options: Options) -> list[dict]:
    """Return the batches of the usual recipe: shuffled, every clip padded to 30 s."""
    order = random.Random(17).sample(range(len(split)), min(len(split), options.steps * options.batch_size))
    batches = [order[at : at + options.batch_size] for at in range(0, len(order), options.batch_size)]
    dataset = ClipDataset(split)
    return [collate([dataset[Draw(index, WINDOW_FRAMES)] for index in batch]) for batch in batches]


def adaptive_batches(split, collate, options: Options) -> list[dict]:
    """Return batches as training draws them, every so many of an epoch, so that all lengths and windows are there.

    The epoch's share of padded batches is kept in those that are drawn.
    """
    defaults = TrainOptions("")
    buckets = list(LengthBuckets(split, Drawing(options.batch_size, defaults.margin_s, 0.0, defaults.seed)))
    buckets.sort(key=lambda batch: batch[0].window)
    count = min(options.steps, len(buckets))
    chosen = [buckets[len(buckets) * index // count] for index in range(count)]
    padded = math.ceil(defaults.padded_share * count)
    for index in np.linspace(0, count - 1, padded + 2, dtype=int)[1:-1]:
        chosen[index] = [Draw(draw.index, WINDOW_FRAMES) for draw in chosen[index]]
    dataset = ClipDataset(split)
    return [collate([dataset[draw] for draw in batch]) for batch in chosen]


def show(options: Options, split, precision: str, seconds: dict[str, list[float]]) -> dict:
    """Print and return the figures."""
    per_clip = {name: 1000 * float(np.mean(times)) / options.batch_size for name, times in seconds.items()}
    mean = float(np.mean(split.column("duration_s")))
    result = {
        "precision": precision,
        "steps": options.steps,
        "batch_size": options.batch_size,
        "mean_seconds": round(mean, 2),
        "ms_per_clip": {name: round(value, 1) for name, value in per_clip.items()},
        "speedup": round(per_clip["usual recipe"] / per_clip["adaptive"], 2),
    }
    rows = [[name, f"{ms:.0f}", f"{per_clip['usual recipe'] / ms:.1f}"] for name, ms in per_clip.items()]
    lines = markdown(
        [f"one training step, {precision}, batches of {options.batch_size}", "ms a clip", "times usual"], rows
    )
    lines += [
        "",
        f"{options.steps} steps each, clips of mean {mean:.1f} s; 8 % of the adaptive batches are padded to 30 s.",
    ]
    print("\n".join(lines))
    if options.record:
        record(f"Training, {precision}", f"python benchmarks/training.py --precision {options.precision}", lines)
    if options.json:
        print(json.dumps(result))
    return result


if __name__ == "__main__":
    run(main, Options)
