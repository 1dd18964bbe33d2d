"""`--minutes M`: time this machine for some steps, plan a run that ends in time, and correct the plan as it goes.

    plan = plan_run(seconds=360, cost=measure_cost(trainer))
    plan.steps, plan.evaluations, plan.sentence()

    schedule = LinearSchedule(warmup=10, total=100)
    schedule(5), schedule(55), schedule(100)     # 0.5, 0.5, 0.0
    schedule.end_at(80, now=60)                  # from here on straight to zero at step 80

A step costs what its frames cost, and batches differ: a few of an epoch are timed, from the smallest to the largest,
and the mean over the epoch follows. The timed steps are taken by a copy of the model, with forked randomness, so that
nothing of the run depends on them. They are a first guess; the run's own steps and evaluations are a better one. At
every correction the steps that still fit follow from both, and the rate falls to zero there.
"""

import copy
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from lengua.data.replay import clips_per_epoch
from lengua.models.tokens import IGNORE_INDEX
from lengua.runtime.errors import RequestError
from lengua.runtime.progress import Progress, Watch
from lengua.training.blending import BLEND_ALPHAS
from lengua.training.dataset import ClipDataset
from lengua.training.samplers import dev_batches, make_sampler

TIMED_BATCHES = 5
"""Batches that are timed, from the one of the fewest frames to that of the most."""
EVALUATION_SHARE = 0.15
"""Most of the time that evaluations may take together, unless not even one would fit."""
MAX_EVALUATIONS = 8
RESERVE_SHARE = 0.02
"""Share of the time kept back for what was not foreseen."""


@dataclass(frozen=True)
class TrainingCost:
    """What this machine takes, in seconds."""

    step: float
    """An optimiser step, on average over an epoch."""
    evaluation: float
    """Transcribing all of dev by generation, and a checkpoint."""
    ending: float
    """Blending, if that is asked for, and saving the model."""
    steps_an_epoch: int | None
    """None for a stream of unknown length."""
    batches: tuple[tuple[int, float], ...] = ()
    """Those that were timed: (frames of all their rows, seconds)."""

    def of_batch(self, frames: int) -> float:
        """Return the seconds of a batch of so many frames, from those that were timed."""
        return float(np.interp(frames, *zip(*self.batches, strict=True))) if self.batches else self.step


@dataclass(frozen=True)
class TrainingPlan:
    """A run that fits into its time."""

    steps: int
    evaluations: int
    seconds: float
    cost: TrainingCost

    def sentence(self) -> str:
        """Describe the plan in a line."""
        epochs = f" ({self.steps / self.cost.steps_an_epoch:.1f} epochs)" if self.cost.steps_an_epoch else ""
        steps = f"{self.steps} steps of {self.cost.step:.2f} s{epochs}"
        evaluations = f"{self.evaluations} times {self.cost.evaluation:.0f} s for dev and a checkpoint"
        return f"{self.seconds / 60:.1f} min left: {steps}, {evaluations}, {self.cost.ending:.0f} s to save the model"


def parse_plan(record: dict) -> TrainingPlan:
    """Return a plan as run.json keeps it; of its cost, what this version knows."""
    cost = {one.name: record["cost"][one.name] for one in fields(TrainingCost) if one.name in record["cost"]}
    cost["batches"] = tuple(map(tuple, cost.get("batches", ())))
    return TrainingPlan(**record | {"cost": TrainingCost(**cost)})


def plan_run(seconds: float, cost: TrainingCost) -> TrainingPlan:
    """Return how many steps and evaluations fit into so many seconds.

    Raises:
        RequestError: not even one evaluation and a few steps do.
    """
    left = seconds * (1 - RESERVE_SHARE) - cost.ending
    evaluations = int(np.clip(EVALUATION_SHARE * left / cost.evaluation, 1, MAX_EVALUATIONS))
    steps = int((left - evaluations * cost.evaluation) / cost.step)
    if steps < 2 * evaluations:
        needed = (2 * cost.step + cost.evaluation + cost.ending) / (1 - RESERVE_SHARE) / 60
        found = f"{seconds / 60:.1f} min, of which one evaluation takes {cost.evaluation / 60:.1f}"
        raise RequestError(f"--minutes {needed + 0.1:.1f} or more", found, "give it more time, or a smaller dev split")
    return TrainingPlan(steps, evaluations, seconds, cost)


def measure_cost(trainer) -> TrainingCost:
    """Time steps, dev and saving on this machine."""
    split = next(iter(trainer.train_split.blocks())) if trainer.streamed else trainer.train_split
    batches = [(draws[0].window * len(draws), draws) for draws in make_sampler(split, trainer.drawing)]
    replica, args = copy.deepcopy(trainer.model), trainer.args
    with torch.random.fork_rng():
        timed = _step_seconds(trainer, replica, ClipDataset(split), batches)
        evaluation = _evaluation_seconds(trainer, replica, trainer.dev_margin_s)
        of_base = _evaluation_seconds(trainer, replica, None)
    saving = _saving_seconds(replica, trainer.options.out)
    clips = trainer.train_split.items if trainer.streamed else clips_per_epoch(trainer.train_split)
    mixes = len(BLEND_ALPHAS) - 1 if trainer.options.blend else 0  # all but the best checkpoint, which is measured
    step = interpolated_mean([frames for frames, _ in batches], timed) * args.gradient_accumulation_steps
    epoch = clips and -(-trainer.drawing.batches(clips) // (args.gradient_accumulation_steps * args.world_size))
    # A checkpoint is the model and two moments of the optimiser; at the end the best one is read and written again.
    return TrainingCost(
        step, evaluation + 3 * saving, 3 * saving + mixes * evaluation + of_base, epoch, tuple(sorted(timed.items()))
    )


def _step_seconds(trainer, replica, clips: ClipDataset, batches: list) -> dict[int, float]:
    """Return the seconds of a step by frames, of a few batches; the first is taken twice, to warm up."""
    optimizer = torch.optim.AdamW([one for one in replica.parameters() if one.requires_grad], lr=0.0, fused=True)
    replica.train()

    def step() -> None:
        with _autocast(trainer):
            loss = trainer.compute_loss_func(replica(**inputs), inputs["labels"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(replica.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    timed = {}
    chosen = evenly_spaced(sorted(batches, key=lambda batch: batch[0]), TIMED_BATCHES)
    for frames, draws in chosen[:1] + chosen:
        inputs = trainer._prepare_inputs(trainer.data_collator([clips[draw] for draw in draws]))
        timed[frames] = _seconds_of(step)
    return timed


def _evaluation_seconds(trainer, replica, margin_s: float | None) -> float:
    """Return the seconds of transcribing dev, with hypotheses as long as the references.

    The untouched base may loop in a short window; soon after the first steps it does not any more.
    """
    batches = dev_batches(trainer.dev_split, trainer.options.batch_size, margin_s, trainer.drawing.longest)
    replica.eval()

    @torch.no_grad()
    def decode() -> None:
        tokens = int(inputs["labels"].ne(IGNORE_INDEX).sum(1).max())
        with _autocast(trainer):
            replica.generate(inputs["input_features"], max_new_tokens=tokens, min_new_tokens=tokens, num_beams=1)
            replica(**inputs)

    timed = {}
    for number, draws in evenly_spaced(list(enumerate(batches)), TIMED_BATCHES):
        inputs = trainer._prepare_inputs(trainer.data_collator([trainer.eval_dataset[draw] for draw in draws]))
        timed[number] = _seconds_of(decode)
    return interpolated_mean(range(len(batches)), timed) * len(batches)


def _saving_seconds(replica, out: Path) -> float:
    """Return the seconds of writing the weights to the disk of the run."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".timed-", dir=out) as folder:
        return _seconds_of(lambda: torch.save(replica.state_dict(), Path(folder) / "weights"))


def _autocast(trainer):
    """Return the precision of the run as a context; accelerate gives it to the model only when training begins."""
    kind = torch.float16 if trainer.args.fp16 else torch.bfloat16
    return torch.autocast(trainer.args.device.type, kind, enabled=trainer.args.fp16 or trainer.args.bf16)


def _seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def evenly_spaced(items: list, count: int) -> list:
    """Return some of them: the first, the last, and others evenly between."""
    return [items[at] for at in sorted({round(at) for at in np.linspace(0, len(items) - 1, count)})]


def interpolated_mean(places, timed: dict[int, float]) -> float:
    """Return the mean over all places of what was timed at some of them."""
    known = sorted(timed)
    return float(np.interp(places, known, [timed[place] for place in known]).mean())


PLAN_CORRECTIONS = 20
"""How often, evenly over the run, the plan is corrected."""
PRIOR_WEIGHT_STEPS = 12
"""So many mean steps of the run itself weigh as much as what was measured before it."""
NO_EVALUATION_STEPS = 10**12
"""Steps between evaluations that the Trainer would call for by itself."""
MIN_REPORTED_CHANGE_SHARE = 0.1
"""Share by which a plan has to change before it is reported again."""


class LinearSchedule:
    """Share of the peak rate at each step: linear warm-up, then linear decay to zero at an end that may move.

    Its attributes are numbers alone: LambdaLR keeps them in every checkpoint.
    """

    def __init__(self, warmup: int, total: int):
        self.warmup, self.total = warmup, total
        self.from_step, self.from_share = warmup, 1.0

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return step / max(1, self.warmup)
        left = max(0, self.total - step) / max(1, self.total - self.from_step)
        return self.from_share * min(1.0, left)

    def end_at(self, total: int, now: int) -> None:
        """Let the rate fall from where it stands `now`, or from the peak that is still to come, to zero at `total`."""
        if now > self.warmup:
            self.from_share, self.from_step = self(now), now
        self.total = total


class TimeBudgetCallback(TrainerCallback):
    """Keep a run to its plan: call for evaluations, and move the end to where the time is up.

    The first process decides for all, by its clock.

    Args:
        schedule: of the learning rate, whose end moves with that of the run.
        seconds: the time of training so far, that before an interruption included.
    """

    def __init__(self, plan: TrainingPlan, schedule: LinearSchedule, seconds: Callable[[], float], watch: Watch):
        self.plan, self.schedule, self.seconds, self.watch = plan, schedule, seconds, watch
        self.reported, self.evaluations_done = plan.steps, 0
        self.since, self.just_evaluated = 0.0, False
        self.stepping = self.expected = 0.0
        """Seconds of the steps so far; and what these very steps, with their frames, should have taken by the plan."""
        self.evaluation_seconds: list[float] = []
        self.frames: list[int] = []
        """Of the batches of a step, all rows of each together."""

    def on_train_begin(self, args, state, control, model, **kwargs):
        """Take the end and the cadence from the schedule, which a checkpoint has kept."""
        self.hook = model.register_forward_pre_hook(self._count_frames, with_kwargs=True)
        state.max_steps = self.schedule.total
        state.eval_steps = state.save_steps = NO_EVALUATION_STEPS
        done = math.floor(state.global_step * self.plan.evaluations / state.max_steps)
        self.evaluations_done = min(self.plan.evaluations - 1, done)
        self.since = self.seconds()

    def on_train_end(self, args, state, control, **kwargs):
        self.hook.remove()

    def _count_frames(self, model, args, inputs: dict) -> None:
        if model.training:
            rows, _, window = inputs["input_features"].shape
            self.frames.append(rows * window)

    def _lap(self) -> float:
        """Return the seconds since it was asked last."""
        before, self.since = self.since, self.seconds()
        return self.since - before

    def on_step_end(self, args, state, control, **kwargs):
        """Time the step; correct the plan now and then; call for evaluations."""
        self.stepping += self._lap()
        self.expected += sum(map(self.plan.cost.of_batch, self.frames))
        self.frames.clear()
        due = self.just_evaluated or state.global_step % max(1, self.plan.steps // PLAN_CORRECTIONS) == 0
        self.just_evaluated = False
        if due and state.global_step < state.max_steps:
            self._correct(state, args.max_steps)
        if state.global_step >= state.max_steps:
            control.should_training_stop = control.should_evaluate = control.should_save = True
        elif state.global_step >= (self.evaluations_done + 1) * state.max_steps / self.plan.evaluations:
            control.should_evaluate = control.should_save = True

    def on_evaluate(self, args, state, control, **kwargs):
        self.evaluation_seconds.append(self._lap())
        self.just_evaluated = True
        self.evaluations_done += 1

    def on_save(self, args, state, control, **kwargs):
        """Count the checkpoint of an evaluation to it, and one between evaluations to the steps."""
        if self.just_evaluated:
            self.evaluation_seconds[-1] += self._lap()

    def seconds_per_step(self) -> float:
        """Return the seconds of a step to come: those of the plan, corrected by how wrong they were up to now."""
        trust = PRIOR_WEIGHT_STEPS * self.plan.cost.step
        return self.plan.cost.step * (self.stepping + trust) / (self.expected + trust)

    def _correct(self, state, most: int) -> None:
        """Move the end of the run to where its time is up, to step `most` at the latest."""
        cost, timed = self.plan.cost, self.evaluation_seconds
        per_step, per_evaluation = self.seconds_per_step(), sum(timed) / len(timed) if timed else cost.evaluation
        left = self.plan.seconds * (1 - RESERVE_SHARE) - cost.ending - self.since
        left -= max(1, self.plan.evaluations - self.evaluations_done) * per_evaluation
        total = state.global_step + max(0, int(left / per_step))
        [total] = broadcast_object_list([min(total, most)])
        if total == state.max_steps:
            return
        self.schedule.end_at(total, state.global_step)
        state.max_steps = total
        if abs(total - self.reported) > MIN_REPORTED_CHANGE_SHARE * self.reported:
            self.reported = total
            note = f"{total} steps in all, for a step takes {per_step:.2f} s and dev {per_evaluation:.0f} s"
            self.watch(Progress("plan", state.global_step, None, "", note))
