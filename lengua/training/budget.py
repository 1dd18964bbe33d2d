"""`--minutes M`: measure this machine for some steps, then plan a run that ends in time, its evaluations included.

    plan = plan_run(seconds=360, cost=measure(trainer))
    plan.steps, plan.evaluations, plan.sentence()

A step costs what its frames cost, and batches differ: so a few of an epoch are timed, from the smallest to the largest,
and the mean over the epoch follows. What is measured leaves no trace: a copy of the model takes the steps.
A minute of measuring cannot know an evening: `lengua.training.pace` corrects the plan while it is carried out.
"""

import copy
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lengua.batches import ClipDataset, sampler_of
from lengua.errors import RequestError
from lengua.labels import IGNORED
from lengua.replay import clips_of
from lengua.training.blending import ALPHAS

TIMED_BATCHES = 5
"""Batches that are timed, from the one of the fewest frames to that of the most."""
EVALUATION_SHARE = 0.15
"""Most of the time that evaluations may take together, unless not even one would fit."""
MOST_EVALUATIONS = 8
RESERVE = 0.02
"""Share of the time kept back for what was not foreseen."""


@dataclass(frozen=True)
class Cost:
    """What this machine takes, in seconds."""

    step: float
    """An optimiser step, on average over an epoch."""
    evaluation: float
    """Writing down all of dev by generation, and a checkpoint."""
    ending: float
    """Blending, if that is asked for, and saving the model."""
    steps_an_epoch: int | None
    """None for a stream whose length nobody tells."""
    batches: tuple[tuple[int, float], ...] = ()
    """Those that were timed: (frames of all their rows, seconds)."""

    def of_batch(self, frames: int) -> float:
        """Return the seconds of a batch of so many frames, from those that were timed."""
        return float(np.interp(frames, *zip(*self.batches, strict=True))) if self.batches else self.step


@dataclass(frozen=True)
class Plan:
    """A run that fits."""

    steps: int
    evaluations: int
    seconds: float
    cost: Cost

    def sentence(self) -> str:
        """Say the plan."""
        epochs = f" ({self.steps / self.cost.steps_an_epoch:.1f} epochs)" if self.cost.steps_an_epoch else ""
        steps = f"{self.steps} steps of {self.cost.step:.2f} s{epochs}"
        evaluations = f"{self.evaluations} times {self.cost.evaluation:.0f} s for dev and a checkpoint"
        return f"{self.seconds / 60:.1f} min left: {steps}, {evaluations}, {self.cost.ending:.0f} s to save the model"


def kept_plan(told: dict) -> Plan:
    """Return a plan as run.json keeps it; of its cost, what this version knows."""
    names = {one.name for one in fields(Cost)}
    cost = {name: value for name, value in told["cost"].items() if name in names}
    cost["batches"] = tuple(map(tuple, cost.get("batches", ())))
    return Plan(**told | {"cost": Cost(**cost)})


def plan_run(seconds: float, cost: Cost) -> Plan:
    """Return how many steps and evaluations fit into so many seconds.

    Raises:
        RequestError: not even one evaluation and a few steps do.
    """
    left = seconds * (1 - RESERVE) - cost.ending
    evaluations = int(np.clip(EVALUATION_SHARE * left / cost.evaluation, 1, MOST_EVALUATIONS))
    steps = int((left - evaluations * cost.evaluation) / cost.step)
    if steps < 2 * evaluations:
        needed = (2 * cost.step + cost.evaluation + cost.ending) / (1 - RESERVE) / 60
        found = f"{seconds / 60:.1f} min, of which one evaluation takes {cost.evaluation / 60:.1f}"
        raise RequestError(f"--minutes {needed + 0.1:.1f} or more", found, "give it more time, or a smaller dev split")
    return Plan(steps, evaluations, seconds, cost)


def measure(trainer) -> Cost:
    """Time steps, dev and saving on this machine."""
    batches = epoch_batches(trainer)
    twin = copy.deepcopy(trainer.model)
    with torch.random.fork_rng():
        timed = step_seconds(trainer, twin, batches)
        evaluation = evaluation_seconds(trainer, twin)
    saving = saving_seconds(twin, trainer.options.out)
    clips = trainer.train_split.items if trainer.streamed else clips_of(trainer.train_split)
    in_a_step = trainer.args.gradient_accumulation_steps * trainer.args.world_size
    blending = len(ALPHAS) * evaluation if trainer.options.blend else 0.0
    # A checkpoint is the model and two moments of the optimiser; at the end the best one is read and written again.
    step = interpolated_mean([frames for frames, *_ in batches], timed) * trainer.args.gradient_accumulation_steps
    epoch = clips and -(-trainer.drawing.batches(clips) // in_a_step)
    return Cost(step, evaluation + 3 * saving, 3 * saving + blending, epoch, tuple(sorted(timed.items())))


def epoch_batches(trainer) -> list:
    """Return the batches of the first epoch as they are drawn; of a stream, those of its first block."""
    split = next(iter(trainer.train_split.blocks())) if trainer.streamed else trainer.train_split
    clips = ClipDataset(split)
    return [(draws[0].window * len(draws), clips, draws) for draws in sampler_of(split, trainer.drawing)]


def step_seconds(trainer, twin, batches: list) -> dict[int, float]:
    """Return the seconds of a step by frames, of a few batches of an epoch; the first is taken twice, to warm up."""
    optimizer = torch.optim.AdamW([one for one in twin.parameters() if one.requires_grad], lr=0.0, fused=True)
    twin.train()
    timed = {}
    chosen = spread(sorted(batches, key=lambda batch: batch[0]), TIMED_BATCHES)
    for frames, clips, draws in chosen[:1] + chosen:
        inputs = trainer._prepare_inputs(trainer.data_collator([clips[draw] for draw in draws]))
        timed[frames] = seconds_of(partial(take_step, trainer, twin, optimizer, inputs))
    return timed


def take_step(trainer, twin, optimizer, inputs: dict) -> None:
    """Take a step of training whose rate is zero."""
    with autocast(trainer):
        loss = trainer.compute_loss_func(twin(**inputs), inputs["labels"])
    loss.backward()
    torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def evaluation_seconds(trainer, twin) -> float:
    """Return the seconds of writing down dev, by a model that says as much as the references do.

    The untouched base may loop in a short window; soon after the first steps it does not any more.
    """
    batches = list(trainer.get_eval_dataloader().batch_sampler)
    twin.eval()
    timed = {}
    for number, draws in spread(list(enumerate(batches)), TIMED_BATCHES):
        inputs = trainer._prepare_inputs(trainer.data_collator([trainer.eval_dataset[draw] for draw in draws]))
        timed[number] = seconds_of(partial(write_down, trainer, twin, inputs))
    return interpolated_mean(range(len(batches)), timed) * len(batches)


def write_down(trainer, twin, inputs: dict) -> None:
    """Measure a batch of dev as the Trainer does: generate, and take the loss."""
    tokens = int(inputs["labels"].ne(IGNORED).sum(1).max())
    with torch.no_grad(), autocast(trainer):
        twin.generate(inputs["input_features"], max_new_tokens=tokens, min_new_tokens=tokens, num_beams=1)
        twin(**inputs)


def autocast(trainer):
    """Return the precision of the run as a context; accelerate gives it to the model only when training begins."""
    kind = torch.float16 if trainer.args.fp16 else torch.bfloat16
    return torch.autocast(trainer.args.device.type, kind, enabled=trainer.args.fp16 or trainer.args.bf16)


def saving_seconds(twin, out: Path) -> float:
    """Return the seconds of writing the weights to the disk of the run."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".timed-", dir=out) as folder:
        return seconds_of(partial(torch.save, twin.state_dict(), Path(folder) / "weights"))


def spread(batches: list, count: int) -> list:
    """Return some of them: the first, the last, and others evenly between."""
    return [batches[at] for at in sorted({round(at) for at in np.linspace(0, len(batches) - 1, count)})]


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long a piece of work takes, on whatever device it runs."""
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def interpolated_mean(places: Sequence[int], timed: dict[int, float]) -> float:
    """Return the mean over all places of what was timed at some of them."""
    known = sorted(timed)
    return float(np.interp(places, known, [timed[place] for place in known]).mean())
