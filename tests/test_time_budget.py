"""--minutes: what is measured, the plan that follows, the schedule whose end moves, and a run that ends in time."""

# ruff: noqa: F811 - fixtures of another file

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import interrupting, losses
from test_training import options, trainer  # noqa: F401 - fixtures
from transformers import TrainerControl, TrainerState, get_linear_schedule_with_warmup
from transformers.trainer_callback import DefaultFlowCallback

from lengua.options import TrainOptions
from lengua.runtime.errors import RequestError
from lengua.runtime.files import read_json
from lengua.training.time_budget import (
    MAX_EVALUATIONS,
    LinearSchedule,
    TimeBudgetCallback,
    TrainingCost,
    evenly_spaced,
    interpolated_mean,
    measure_cost,
    plan_run,
)
from lengua.training.train import train
from lengua.training.trainer import training_arguments


def optimizer() -> torch.optim.Optimizer:
    """Return one whose peak rate is 1, with two groups as the Trainer makes."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(2)]
    return torch.optim.AdamW(groups, lr=1.0)


@pytest.mark.parametrize(("warmup", "total"), [(1, 1), (3, 40), (10, 10)])
def test_left_alone_it_is_the_usual_linear_schedule(warmup, total):
    usual = get_linear_schedule_with_warmup(optimizer(), warmup, total).lr_lambdas[0]
    ours = LinearSchedule(warmup, total)
    assert [ours(step) for step in range(total)] == pytest.approx([usual(step) for step in range(total)])


@pytest.mark.parametrize("end", [61, 80, 200])
def test_a_moved_end_is_reached_at_zero_without_a_jump(end):
    schedule = LinearSchedule(10, 100)
    before = schedule(60)
    schedule.end_at(end, 60)
    assert schedule(60) == before and schedule(end) == 0 == schedule(end + 5)
    falling = [schedule(step) for step in range(60, end + 1)]
    assert falling == sorted(falling, reverse=True)
    assert schedule(60 + (end - 60) // 2) == pytest.approx(before / 2, abs=0.25)


def test_an_end_moved_in_the_warm_up_keeps_the_warm_up():
    schedule = LinearSchedule(10, 100)
    schedule.end_at(50, 4)
    assert [schedule(step) for step in (5, 10, 30, 50)] == [0.5, 1.0, 0.5, 0.0]


def test_a_checkpoint_keeps_the_moved_end():
    first, second = LinearSchedule(10, 100), LinearSchedule(10, 100)
    kept = torch.optim.lr_scheduler.LambdaLR(optimizer(), first)
    first.end_at(70, 40)
    torch.optim.lr_scheduler.LambdaLR(optimizer(), second).load_state_dict(kept.state_dict())
    assert [second(step) for step in range(80)] == [first(step) for step in range(80)] and second.total == 70


class Clocked:
    """A run whose steps and evaluations take what they are told to, on a clock of its own."""

    def __init__(self, plan, step: float, evaluation: float, out):
        options = TrainOptions("store", out, minutes=1.0, steps=plan.steps, evaluations=plan.evaluations, batch_size=1)
        self.args = training_arguments(options, clips=None)
        self.schedule = LinearSchedule(5, plan.steps)
        self.now, self.step, self.evaluation, self.evaluated, self.notes = 0.0, step, evaluation, [], []
        self.budget = TimeBudgetCallback(plan, self.schedule, lambda: self.now, self.notes.append)

    def run(self) -> TrainerState:
        state, control = TrainerState(max_steps=self.args.max_steps), TrainerControl()
        flow = DefaultFlowCallback()
        self.budget.on_train_begin(self.args, state, control, model=torch.nn.Identity())
        while not control.should_training_stop:
            control._new_step()
            state.global_step += 1
            long = state.global_step % 10 == 3
            self.budget.frames.append(3000 if long else 300)
            self.now += self.step * (5.5 if long else 0.5)
            flow.on_step_end(self.args, state, control)
            self.budget.on_step_end(self.args, state, control)
            if control.should_evaluate:
                self.now += self.evaluation
                self.evaluated.append(state.global_step)
                self.budget.on_evaluate(self.args, state, control)
                self.budget.on_save(self.args, state, control)
        return state


def cost() -> TrainingCost:
    """Return a machine on which one batch in ten is long, and a step takes a second on average."""
    return TrainingCost(1.0, 20.0, 10.0, 100, batches=((300, 0.5), (3000, 5.5)))


@pytest.mark.parametrize("evaluation", [5.0, 40.0])
@pytest.mark.parametrize("step", [0.5, 1.0, 1.3, 1.9])
def test_it_ends_in_time_when_steps_and_evaluations_cost_otherwise_than_planned(step, evaluation, tmp_path):
    plan = plan_run(600, cost())
    run = Clocked(plan, step, evaluation, tmp_path)
    state = run.run()
    assert 0.95 * 600 < run.now + 10 <= 1.02 * 600
    assert run.schedule(state.global_step) == 0 and run.evaluated[-1] == state.global_step
    assert len(run.evaluated) == plan.evaluations
    gaps = [late - early for early, late in zip([0, *run.evaluated], run.evaluated, strict=False)]
    assert min(gaps) > 0.3 * state.global_step / plan.evaluations
    assert bool(run.notes) == (step != 1.0 or evaluation != 20.0)


def test_a_plan_that_holds_is_not_told_again(tmp_path):
    plan = plan_run(600, cost())
    run = Clocked(plan, 1.0, 20.0, tmp_path)
    state = run.run()
    assert not run.notes and state.global_step == pytest.approx(plan.steps, rel=0.03)


def test_long_windows_early_do_not_make_a_run_seem_slow(tmp_path):
    budget = Clocked(plan_run(600, cost()), 1.0, 20.0, tmp_path).budget
    budget.stepping = budget.expected = 55.0  # ten long windows in a row
    assert budget.seconds_per_step() == 1.0
    budget.stepping = 110.0
    assert budget.seconds_per_step() == pytest.approx(122 / 67)


@pytest.mark.parametrize("minutes", [6, 60, 600])
@pytest.mark.parametrize("evaluation", [5.0, 30.0, 100.0])
@pytest.mark.parametrize("step", [0.05, 1.7])
def test_a_plan_fills_its_time_and_no_more(minutes, evaluation, step):
    plan = plan_run(60 * minutes, TrainingCost(step, evaluation, 4.0, 100))
    taken = plan.steps * step + plan.evaluations * evaluation + 4.0
    assert 0.95 * 60 * minutes < taken <= 60 * minutes
    assert 1 <= plan.evaluations <= MAX_EVALUATIONS
    assert plan.evaluations == 1 or plan.evaluations * evaluation <= 0.15 * 60 * minutes
    assert f"{plan.steps} steps of {step:.2f} s" in plan.sentence()


def test_too_little_time_is_told_with_what_would_do():
    with pytest.raises(RequestError, match=r"expected --minutes 2\.2 or more; found 1\.0 min, of which one evaluation"):
        plan_run(60, TrainingCost(2.0, 120.0, 0.0, 10))


def test_the_mean_over_windows_is_not_that_of_the_windows_that_were_timed():
    windows = [100] * 90 + [3000] * 10
    assert interpolated_mean(windows, {100: 1.0, 3000: 11.0}) == pytest.approx(2.0)
    assert interpolated_mean([150], {100: 1.0, 200: 2.0}) == pytest.approx(1.5)
    assert evenly_spaced(list("abcdefghi"), 5) == list("acegi") and evenly_spaced(["a"], 5) == ["a"]


def test_measuring_leaves_no_trace(trainer):
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    state = torch.get_rng_state()
    cost = measure_cost(trainer)
    assert min(cost.step, cost.evaluation, cost.ending) > 0 and cost.steps_an_epoch == 4
    assert torch.equal(torch.get_rng_state(), state) and trainer.state.global_step == 0
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(weight, before[name]), name
    assert not list(trainer.options.out.glob(".timed-*"))


@pytest.mark.parametrize("stream", [False, True])
def test_a_plan_is_reported_and_kept_when_the_run_is_resumed(options, tiny_folder, stream):
    seen, resumed = [], []
    asked = replace(options, steps=None, minutes=0.1)
    if stream:
        asked = replace(asked, source=tiny_folder, language="es", stream=True, shuffle_window=16, workers=1)
    with pytest.raises(KeyboardInterrupt):
        train(asked, interrupting(5, seen))
    plan = read_json(asked.out / "run.json")["plan"]
    [remark] = [progress for progress in seen if "min left" in progress.note]
    assert f"{plan['steps']} steps" in remark.note and not remark.unit
    assert seen.index(remark) < next(at for at, one in enumerate(seen) if one.stage == "training")
    result = train(asked, resumed.append)
    assert result.steps > 5 and read_json(asked.out / "run.json")["plan"] == plan
    assert not [progress for progress in resumed if "min left" in progress.note]  # it is not made anew
    assert np.isfinite(list(losses(asked.out).values())).all()
