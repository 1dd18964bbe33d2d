"""--minutes: what is measured, what follows, and that a run keeps its plan."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_training import losses, options, trainer  # noqa: F401 - fixtures

from lengua.runtime.errors import RequestError
from lengua.runtime.files import read_json
from lengua.training import train
from lengua.training.time_budget import (
    MAX_EVALUATIONS,
    TrainingCost,
    evenly_spaced_batches,
    interpolated_mean,
    measure_cost,
    plan_run,
)


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
    assert evenly_spaced_batches(list("abcdefghi"), 5) == list("acegi") and evenly_spaced_batches(["a"], 5) == ["a"]


def test_measuring_leaves_no_trace(trainer):  # noqa: F811
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    state = torch.get_rng_state()
    cost = measure_cost(trainer)
    assert cost.step > 0 and cost.evaluation > cost.ending > 0 and cost.steps_an_epoch == 4
    assert torch.equal(torch.get_rng_state(), state) and trainer.state.global_step == 0
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(weight, before[name]), name
    assert not list(trainer.options.out.glob(".timed-*"))


@pytest.mark.parametrize("stream", [False, True])
def test_a_run_is_planned_told_and_kept_when_it_is_resumed(options, tiny_folder, stream):  # noqa: F811
    told = []
    asked = replace(options, steps=None, minutes=0.1)
    if stream:
        asked = replace(asked, source=tiny_folder, language="es", stream=True, shuffle_window=16, workers=1)

    def interrupt(progress):
        told.append(progress)
        if progress.stage == "training" and progress.done == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(asked, interrupt)
    plan = read_json(asked.out / "run.json")["plan"]
    [remark] = [progress for progress in told if progress.stage == "plan"]
    assert f"{plan['steps']} steps" in remark.note and not remark.unit
    assert told.index(remark) < next(at for at, one in enumerate(told) if one.stage == "training")
    at = len(told)
    result = train(asked, told.append)
    assert result.steps > 5 and read_json(asked.out / "run.json")["plan"] == plan
    assert not [progress for progress in told[at:] if "min left" in progress.note]  # it is not made anew
    assert np.isfinite(list(losses(asked.out).values())).all()


def test_minutes_and_steps_are_one_too_many(options):  # noqa: F811
    with pytest.raises(RequestError, match="expected --minutes or --steps; found both"):
        train(replace(options, minutes=3.0))
