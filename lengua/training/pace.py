"""How the learning rate runs, and how a run with `--minutes` ends in time: its plan is corrected as it goes.

    schedule = Schedule(warmup=10, total=100)
    schedule(5), schedule(55), schedule(100)     # 0.5, 0.5, 0.0
    schedule.end_at(80, now=60)                  # from here on straight to zero at step 80

What was measured before the run is one guess; how long its own steps and evaluations take is another that gets better.
At every look the steps that still fit follow from both, and the rate falls to zero there.
"""

import math
from dataclasses import dataclass

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from lengua.progress import Progress, Watch
from lengua.training.budget import RESERVE, Plan

LOOKS = 20
"""How often, evenly over the run, the plan is looked at."""
TRUST = 12
"""So many mean steps of the run itself weigh as much as what was measured before it."""
NEVER = 10**12
"""Steps between evaluations that the Trainer would call for by itself."""
WORTH_TELLING = 0.1
"""Share by which a plan has to change before it is told again."""


class Schedule:
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


@dataclass
class Spent:
    """What steps and evaluations of the run have taken so far, in seconds."""

    stepping: float = 0.0
    expected: float = 0.0
    """What these very steps, with their frames, should have taken by what was measured before the run."""
    evaluations: int = 0
    evaluating: float = 0.0

    def per_step(self, guess: float) -> float:
        """Return the seconds of a step to come: the guess, corrected by how wrong it was for those that were taken."""
        trust = TRUST * guess
        return guess * (self.stepping + trust) / (self.expected + trust)

    def per_evaluation(self, guess: float) -> float:
        """Return the seconds of an evaluation: the last ones speak for those to come."""
        return self.evaluating / self.evaluations if self.evaluations else guess


def steps_that_fit(left: float, evaluations: int, per_step: float, per_evaluation: float) -> int:
    """Return how many more steps fit into the seconds left, beside so many evaluations."""
    return max(0, int((left - evaluations * per_evaluation) / per_step))


class Pace(TrainerCallback):
    """Keeps a run to its plan: says when to evaluate, and moves the end to where the time is up.

    The leading process decides for all, by its clock.
    """

    def __init__(self, trainer, plan: Plan, watch: Watch):
        self.trainer, self.plan, self.watch = trainer, plan, watch
        self.spent, self.told, self.done = Spent(), plan.steps, 0
        self.since, self.evaluated = 0.0, False

    def on_train_begin(self, args, state, control, **kwargs):
        """Take the end and the cadence from the schedule, which a checkpoint has kept."""
        state.max_steps = self.trainer.schedule.total
        state.eval_steps = state.save_steps = NEVER
        self.done = self.evaluations_before(state.global_step, state.max_steps)
        self.since = self.trainer.recorder.seconds()

    def evaluations_before(self, step: int, total: int) -> int:
        """Return how many evaluations are over at a step."""
        return min(self.plan.evaluations - 1, math.floor(step * self.plan.evaluations / total))

    def on_step_end(self, args, state, control, **kwargs):
        """Time the step; look at the plan now and then; say when dev is to be measured."""
        now = self.trainer.recorder.seconds()
        self.spent.stepping += now - self.since
        self.spent.expected += sum(map(self.plan.cost.of_batch, self.trainer.frames))
        self.trainer.frames.clear()
        self.since = now
        looks = self.evaluated or state.global_step % max(1, self.plan.steps // LOOKS) == 0
        self.evaluated = False
        if looks and state.global_step < state.max_steps:
            self.correct(state, now)
        if state.global_step >= state.max_steps:
            control.should_training_stop = control.should_evaluate = control.should_save = True
        elif state.global_step >= (self.done + 1) * state.max_steps / self.plan.evaluations:
            control.should_evaluate = control.should_save = True

    def on_evaluate(self, args, state, control, **kwargs):
        """Time an evaluation."""
        now = self.trainer.recorder.seconds()
        self.spent.evaluations += 1
        self.spent.evaluating += now - self.since
        self.since, self.evaluated, self.done = now, True, self.done + 1

    def on_save(self, args, state, control, **kwargs):
        """Count the checkpoint of an evaluation to it, and one between evaluations to the steps."""
        now = self.trainer.recorder.seconds()
        if self.evaluated:
            self.spent.evaluating += now - self.since
            self.since = now

    def correct(self, state, now: float) -> None:
        """Move the end of the run to where its time is up."""
        cost = self.plan.cost
        left = self.plan.seconds * (1 - RESERVE) - cost.ending - now
        to_come = max(1, self.plan.evaluations - self.done)
        per_step, per_evaluation = self.spent.per_step(cost.step), self.spent.per_evaluation(cost.evaluation)
        total = state.global_step + steps_that_fit(left, to_come, per_step, per_evaluation)
        [total] = broadcast_object_list([min(total, self.trainer.args.max_steps)])
        if total == state.max_steps:
            return
        self.trainer.schedule.end_at(total, state.global_step)
        state.max_steps = total
        if abs(total - self.told) > WORTH_TELLING * self.told:
            self.told = total
            note = f"{total} steps in all, for a step takes {per_step:.2f} s and dev {per_evaluation:.0f} s"
            self.watch(Progress("plan", state.global_step, None, "", note))
