"""What stops a run before its end: a loss that is no number, loops that take over, patience."""

import importlib
import os
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT, interrupting, tiny_training
from transformers import WhisperForConditionalGeneration

from lengua import printing
from lengua.runtime.errors import LenguaError
from lengua.runtime.files import read_json, read_jsonl
from lengua.training import data, trainer
from lengua.training.callbacks import DevEvaluation
from lengua.training.divergence import EarlyStopping, divergence_reason
from lengua.training.train import train

stage = importlib.import_module("lengua.training.train")  # the package has the function of this name


@pytest.fixture
def options(tiny_store, tiny_model, tmp_path):
    """Twelve steps of four clips, six evaluations."""
    return tiny_training(
        str(tiny_store.path), tiny_model, tmp_path / "run", steps=12, evaluations=6, learning_rate=1e-3
    )


@pytest.fixture
def any_rate(monkeypatch):
    """Let a run have a rate that is refused otherwise."""
    monkeypatch.setattr(data, "MAX_LEARNING_RATE", 1e30)


def look(step: int, wer: float, looped: float, inserted: float, width: float = 0.03) -> dict:
    """Return a record of a dev evaluation over 1,000 words, so much of whose errors is insertions."""
    errors = round(1000 * wer)
    counts = {"dev_insertions": round(inserted * errors), "dev_substitutions": errors - round(inserted * errors)}
    interval = {"dev_wer_low": wer - width, "dev_wer_high": wer + width}
    return {"step": step, "dev_wer": wer, "dev_looped": looped, "dev_deletions": 0, **counts, **interval}


HEALTHY = {
    "loops at first, then better": [look(10, 2.4, 0.4, 0.9), look(20, 0.9, 0.2, 0.6), look(30, 0.4, 0.02, 0.2)],
    "slowly out of loops": [look(step, 3 - step / 20, 0.9, 0.9) for step in (10, 20, 30, 40)],
    "loops fewer, WER within noise": [look(step, 2.0, 0.9 - step / 100, 0.9) for step in (10, 20, 30)],
    "silent, then too much, then better": [
        look(10, 1.0, 0.0, 0.0, 0.0),
        look(20, 2.6, 0.4, 0.8),
        look(30, 0.8, 0.0, 0.3),
    ],
    "over-fitted, without loops": [look(10, 0.3, 0.0, 0.1), look(20, 0.4, 0.0, 0.1), look(30, 0.5, 0.0, 0.2)],
    "a few clips loop, and cost much": [look(10, 0.3, 0.0, 0.1), look(20, 0.6, 0.05, 0.7)],
    "loops, but within the interval of the best": [look(10, 0.3, 0.0, 0.1, width=0.5), look(20, 0.6, 0.3, 0.7)],
    "a first look, however bad": [look(10, 9.9, 1.0, 1.0)],
    "losses alone": [{"step": 5, "loss": 3.1, "grad_norm": float("nan")}],
    "nothing yet": [],
}
RUNAWAY = {
    "the loss is nan at step 5": [look(4, 0.3, 0.0, 0.1), {"step": 5, "loss": float("nan")}],
    "the loss is inf at step 5": [{"step": 5, "loss": float("inf")}],
    "62% of the dev clips are in loops at step 30, 1% before": [
        look(10, 0.4, 0.05, 0.2), look(20, 0.3, 0.01, 0.1), look(30, 2.5, 0.62, 0.9)
    ],
    "dev WER is 140% at step 20, by insertions, 35% before": [look(10, 0.35, 0.0, 0.1), look(20, 1.4, 0.1, 0.8)],
    "95% of the dev clips are in loops at step 40, no fewer than before": [
        look(10, 2.4, 0.4, 0.8), look(20, 3.5, 0.7, 0.9), look(30, 4.0, 0.9, 0.9), look(40, 4.1, 0.95, 0.9)
    ],
    "90% of the dev clips are in loops at step 30, no fewer than before": [
        look(step, 3.0, 0.9, 0.95) for step in (10, 20, 30)
    ],
}  # fmt: skip


@pytest.mark.parametrize("history", HEALTHY.values(), ids=HEALTHY)
def test_a_healthy_history_goes_on_at_every_look(history):
    assert [divergence_reason(history[: end + 1]) for end in range(len(history))] == [None] * len(history)


@pytest.mark.parametrize(("found", "history"), RUNAWAY.items())
def test_a_runaway_is_told_at_its_last_look_and_not_before(found, history):
    told = divergence_reason(history)
    assert told.startswith(f"{found}; ") and "--learning-rate" in told and "\n" not in told
    assert [divergence_reason(history[:end]) for end in range(1, len(history))] == [None] * (len(history) - 1)


def of_clips(errors: list[int]) -> DevEvaluation:
    """Return clips of ten words by as many speakers as there are clips."""
    return DevEvaluation([], errors, [10] * len(errors), [f"s{number}" for number in range(len(errors))])


def test_patience_counts_looks_within_the_noise_and_begins_anew_with_a_real_gain():
    before = [5, 4, 6, 5, 3, 5, 6, 4, 5, 5] * 4
    shuffled = [*before[1:], before[0]]  # other clips, as many errors
    fewer = [errors - 3 for errors in before]
    patience = EarlyStopping()
    fruitless = [patience.add(of_clips(one), step) for step, one in enumerate((before, shuffled, before, fewer), 1)]
    assert fruitless == [0, 1, 2, 0] and patience.step == 4
    assert patience.add(of_clips(before), 5) == 1 and patience.errors == fewer


def test_small_gains_add_up_to_one_beyond_noise():
    errors = np.full(40, 5)
    rng = np.random.default_rng(17)
    patience, fruitless = EarlyStopping(), []
    for step in range(1, 9):
        fruitless.append(patience.add(of_clips(errors.tolist()), step))
        errors = errors + rng.choice([-1, 1], size=40, p=[0.56, 0.44])
    assert 1 in fruitless and fruitless.count(0) >= 2  # no single step shows, some of them together do


@pytest.mark.parametrize(
    ("looks", "found"), [(3, "the weights are no numbers any more at step 4"), (1, "the loss is nan")]
)
def test_an_absurd_rate_ends_a_run_and_makes_no_model(options, any_rate, looks, found):
    with pytest.raises(LenguaError, match=f"{found}.*; lower the --learning-rate .*--no-resume"):
        train(replace(options, learning_rate=1e25, warmup=0.0, evaluations=looks))
    assert not (options.out / "model").exists() and not read_json(options.out / "run.json")["finished"]


def test_weights_that_are_lost_later_leave_the_best_before(options, monkeypatch):
    def step(self, model, inputs, *more, before=trainer.AdaptiveTrainer.training_step):
        if self.state.global_step == 6:
            model.proj_out.weight.data.fill_(float("nan"))
        return before(self, model, inputs, *more)

    monkeypatch.setattr(trainer.AdaptiveTrainer, "training_step", step)
    seen = []
    result = train(options, seen.append)
    assert "no numbers any more at step 8" in result.stopped and result.steps == 8
    assert read_json(options.out / "run.json")["stopped"] == result.stopped
    assert [f"stopped: {result.stopped}"] == [progress.note for progress in seen if progress.stage == "guard"]
    looks = [record["step"] for record in read_jsonl(options.out / "history.jsonl") if "dev_wer" in record]
    assert looks == [2, 4, 6]
    model = WhisperForConditionalGeneration.from_pretrained(result.model)
    assert all(torch.isfinite(weight).all() for weight in model.parameters())


@pytest.fixture
def looping_model(tiny_model, tmp_path):
    """A Whisper that says one word again and again, whatever it hears."""
    from lengua.models.checkpoints import ModelNote, load_tokenizer, save_model
    from lengua.models.whisper import load_model

    model, folder = load_model(tiny_model), tmp_path / "looping"
    token = load_tokenizer(tiny_model).token_to_id("Ġa")
    norm = model.model.decoder.layer_norm
    with torch.no_grad():
        norm.weight.zero_()
        norm.bias.copy_(100 * model.proj_out.weight[token])
    save_model(model, tiny_model, folder, ModelNote())
    (folder / "lengua.json").unlink()
    return folder


def test_a_run_that_stays_in_loops_is_stopped_with_a_reason(options, looping_model):
    result = train(replace(options, base=str(looping_model), learning_rate=1e-9))
    assert result.stopped.startswith("100% of the dev clips are in loops at step 6, no fewer") and result.steps == 6
    assert (result.model / "config.json").is_file() and not (options.out / "checkpoints").exists()


def test_patience_ends_a_run_that_learns_nothing_also_after_an_interruption(options, capsys):
    idle = replace(options, learning_rate=1e-9, patience=2)
    with pytest.raises(KeyboardInterrupt):
        train(idle, interrupting(5))
    result = train(idle)
    assert result.steps == 6 and "the last 2 evaluations brought nothing beyond the noise of dev" in result.stopped
    printing.train(result)
    assert "stopped early: the last 2 evaluations brought nothing" in capsys.readouterr().out


def cut_off_before_its_model(options) -> None:
    """Train until the model would be written."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stage, "_finish", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(options)


@pytest.mark.parametrize("more", [{}, {"learn": "lora", "blend": True}], ids=["all", "lora"])
def test_cut_off_after_the_guard_stopped_it_a_run_is_finished_and_not_trained_on(options, more):
    idle = replace(options, learning_rate=1e-9, patience=1, **more)
    cut_off_before_its_model(idle)
    history = read_jsonl(options.out / "history.jsonl")
    result = train(idle)
    assert result.steps == 4 and "since step 2" in result.stopped and (result.model / "config.json").is_file()
    assert read_jsonl(options.out / "history.jsonl") == history


def test_cut_off_after_its_last_step_a_healthy_run_takes_its_best_and_no_step_more(options):
    seen = []
    whole = train(options, seen.append)
    assert (whole.stopped, whole.steps) == (None, 12) and not [one for one in seen if one.stage == "guard"]
    cut = replace(options, out=options.out.with_name("cut"))
    cut_off_before_its_model(cut)
    result = train(cut)
    assert (result.steps, result.dev_wer) == (12, whole.dev_wer)
    models = [WhisperForConditionalGeneration.from_pretrained(one.model) for one in (whole, result)]
    assert torch.equal(*(model.proj_out.weight for model in models))


ALONE = """
import pickle, sys
from lengua.training.train import train

if __name__ == "__main__":
    train(pickle.loads(bytes.fromhex(sys.argv[1])))
"""


@pytest.mark.slow
def test_two_processes_stop_together_and_count_each_clip_of_dev_once(options, tmp_path):
    alone = replace(options, learning_rate=1e-9, patience=1, blend=True, steps=6, evaluations=3, batch_size=2)
    together = replace(alone, out=options.out.with_name("together"))
    train(alone)
    (tmp_path / "alone.py").write_text(ALONE)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*torchrun, str(tmp_path / "alone.py"), pickle.dumps(together).hex()]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, two = (
        [look for look in read_jsonl(run.out / "history.jsonl") if "dev_wer" in look] for run in (alone, together)
    )
    assert [look["step"] for look in two] == [look["step"] for look in one] == [2, 4]
    assert {key: two[0][key] for key in KINDS} == {key: one[0][key] for key in KINDS}
    runs = [read_json(run.out / "run.json") for run in (alone, together)]
    assert runs[0]["stopped"] == runs[1]["stopped"] and runs[0]["blend"] == runs[1]["blend"]


KINDS = ("dev_wer_low", "dev_wer", "dev_wer_high", "dev_substitutions", "dev_deletions", "dev_insertions")


def test_a_run_that_goes_worse_keeps_what_was_best(options, monkeypatch):
    told = iter([look(0, 0.8, 0.0, 0.1), look(0, 0.4, 0.0, 0.1), look(0, 0.3, 0.0, 0.1), look(0, 3.0, 0.9, 0.95)])
    kept = {}

    def measured(self, prediction):
        kept[self.state.global_step] = self.model.proj_out.weight.detach().clone()
        return {name.removeprefix("dev_"): value for name, value in next(told).items() if name.startswith("dev_")}

    monkeypatch.setattr(trainer.AdaptiveTrainer, "_measure", measured)
    result = train(options)
    assert (result.steps, result.dev_wer) == (6, 0.3) and "90% of the dev clips" in result.stopped
    model = WhisperForConditionalGeneration.from_pretrained(result.model)
    assert torch.equal(model.proj_out.weight, kept[4]) and not torch.equal(kept[6], kept[4])
