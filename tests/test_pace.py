"""The schedule whose end may move, and a run that ends in time whatever its plan believed."""

import pytest
import torch
from transformers import TrainerControl, TrainerState, get_linear_schedule_with_warmup
from transformers.trainer_callback import DefaultFlowCallback

from lengua.options import TrainOptions
from lengua.training.arguments import training_arguments
from lengua.training.time_budget import LinearSchedule, TimeBudgetCallback, TimeSpent, TrainingCost, plan_run


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
        self.now, self.step, self.evaluation, self.evaluated, self.told = 0.0, step, evaluation, [], []
        self.pace = TimeBudgetCallback(plan, self.schedule, lambda: self.now, self.told.append)

    def run(self) -> TrainerState:
        state, control = TrainerState(max_steps=self.args.max_steps), TrainerControl()
        flow = DefaultFlowCallback()
        self.pace.on_train_begin(self.args, state, control, model=torch.nn.Identity())
        while not control.should_training_stop:
            control._new_step()
            state.global_step += 1
            long = state.global_step % 10 == 3
            self.pace.frames.append(3000 if long else 300)
            self.now += self.step * (5.5 if long else 0.5)
            flow.on_step_end(self.args, state, control)
            self.pace.on_step_end(self.args, state, control)
            if control.should_evaluate:
                self.now += self.evaluation
                self.evaluated.append(state.global_step)
                self.pace.on_evaluate(self.args, state, control)
                self.pace.on_save(self.args, state, control)
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
    assert bool(run.told) == (step != 1.0 or evaluation != 20.0)


def test_a_plan_that_holds_is_not_told_again(tmp_path):
    plan = plan_run(600, cost())
    run = Clocked(plan, 1.0, 20.0, tmp_path)
    state = run.run()
    assert not run.told and state.global_step == pytest.approx(plan.steps, rel=0.03)


def test_long_windows_early_do_not_make_a_run_seem_slow():
    spent = TimeSpent(stepping=55.0, expected=55.0)  # ten long windows in a row
    assert spent.per_step(1.0) == 1.0
    assert TimeSpent(stepping=110.0, expected=55.0).per_step(1.0) == pytest.approx(122 / 67)
