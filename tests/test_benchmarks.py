"""The benchmarks of training, run with a Whisper of 45,000 parameters: not for their figures, but for their course."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from lengua.training.samplers import SampledClip

pytestmark = pytest.mark.slow
LENGUA, USUAL = "lengua", "usual recipe"


def ran(name: str, folder, *arguments) -> dict:
    """Run a benchmark and return its JSON object."""
    command = [sys.executable, str(ROOT / f"benchmarks/{name}.py"), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def tiny(tiny_store, tiny_model) -> tuple:
    """Store and base as options."""
    return "--store", tiny_store.path, "--base", tiny_model


@pytest.fixture
def sides(monkeypatch):
    """The module of the two sides."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import training_sides

    return training_sides


def test_training_measures_speed_memory_and_quality(tiny, tmp_path):
    how = ("--steps", 3, "--rounds", 1, "--batch-size", 4, "--clips", 12, "--evaluations", 3, "--device", "cpu")
    told = ran("training", tmp_path, *tiny, *how)
    assert {"speedup_usual", "speedup_same", "speedup_float32"} <= told.keys() and told["clips"] == 12
    assert all(rate > 0 for rates in told["clips_per_second"].values() for rate in rates.values())
    assert told["clips_per_second"].keys() == told["peak_mb"].keys() == {"fp32", "bf16"}
    course = told["course"]
    assert [set(look) - {"seconds", "loss"} for look in course[LENGUA]] == [{"adaptive", "padded"}] * 3
    assert all(looks[0]["seconds"] <= looks[-1]["seconds"] for looks in course.values())
    assert course[USUAL][-1]["padded"]["wer"] == told["wer_usual"] and course[USUAL][0]["padded"]["clips"] == 4
    assert course[LENGUA][-1]["padded"]["wer"] == told["wer_ours_padded"]


def test_both_sides_see_the_same_clips_once(tiny_store, tiny_model, sides):
    seen = {}
    for name in (USUAL, LENGUA):
        side = sides.Side(sides.Setup(name, "fp32", "cpu", tiny_store.path, str(tiny_model), None, 4, clips=10))
        drawn = [draw.index for draws in side.batches for draw in draws]
        assert sorted(drawn) == list(range(10))
        seen[name] = side.speech.split.column("id")
        if name == USUAL:
            assert {draw.window for draws in side.batches for draw in draws} == {100}
            batch = side.speech.batch(side.batches[0])
            start = side.model.config.decoder_start_token_id
            assert batch["input_features"].shape[-1] == 100 and start not in batch["labels"][:, 0]
    assert seen[USUAL] == seen[LENGUA]


def test_the_usual_labels_hold_the_prompt_that_ours_mask(tiny_store, tiny_model, sides):
    labels = {}
    for name in (USUAL, LENGUA):
        side = sides.Side(sides.Setup(name, "fp32", "cpu", tiny_store.path, str(tiny_model), None, 4, clips=4))
        batch = side.speech.batch([SampledClip(index, side.longest) for index in range(4)])
        labels[name] = [[token for token in label if token >= 0] for label in batch["labels"].tolist()]
        assert 0 < side.take(side.batches[0]) < 100
        decode = side.speech.tokenizer.decode
    usual, ours = labels[USUAL], labels[LENGUA]
    assert [decode(label[3:]).strip() for label in usual] == [decode(label).strip() for label in ours]
    assert {decode(label[:3], skip_special_tokens=False) for label in usual} == {"<|es|><|transcribe|><|notimestamps|>"}


def test_random_weights_need_no_files(sides, tmp_path):
    side = sides.Side(sides.Setup(LENGUA, "fp32", "cpu", tmp_path, "nobody/nothing", "tiny", 2))
    shortest = min(side.batches, key=lambda draws: draws[0].window)
    assert len(shortest) <= 2 and 0 < side.take(shortest) < 100
    sides.SIDE.append(side)
    try:
        clips, shares = zip(*sides.choose(25), strict=True)
        assert clips == (1, *[2] * 24) and shares[0] == 0.1 and sum(shares) == pytest.approx(1)
        windows = [draws[0].window for draws in side.batches]
    finally:
        sides.SIDE.clear()
    assert windows[0] == 3000 and windows.count(3000) == 1 and len(set(windows)) > 10


def test_a_killed_run_learns_the_same(tiny, tmp_path):
    how = ("--kills", 3, "--steps", 400, "--checkpoint-minutes", 0.01)
    told = ran("resumes", tmp_path, *tiny, *how)
    assert told["good"] and told["losses"] + told["losses_cut_short"] == 80 and told["losses"] > 70
    assert told["starts"] == told["kills"] + 1 > 1


def test_a_killed_stream_learns_the_same(tiny_folder, tiny_model, tmp_path):
    source = ("--streamed", "--source", tiny_folder, "--language", "es", "--base", tiny_model)
    told = ran("resumes", tmp_path, *source, "--kills", 1, "--steps", 10, "--checkpoint-minutes", 0.005)
    assert told["good"] and told["losses"] + told["losses_cut_short"] == 2


def test_the_study_trains_compares_and_reads_test(tiny, tmp_path):
    more = "--steps 2 --batch-size 4 --margin-s 0 0.1 --device cpu --precision fp32 --evaluations 1"
    told = ran("recipes", tmp_path, "baseline", "packed", *tiny, f"--train={more}", "--resamples", 100)
    assert [one["run"] for one in told["runs"]] == ["baseline", "packed"] and all(
        one["finished"] for one in told["runs"]
    )
    windows = [(row["model"], row["window"]) for row in told["test"]]
    assert windows == [("base", "padded"), ("baseline", "padded"), ("baseline", "adaptive"), ("packed", "padded")]
    assert (tmp_path / "runs/study/wer.png").is_file()
    model = tmp_path / "runs/study/baseline/model/model.safetensors"
    before = model.stat().st_mtime_ns
    again = ran("recipes", tmp_path, "baseline", "packed", *tiny, f"--train={more}", "--resamples", 100)
    assert again == told and model.stat().st_mtime_ns == before


def test_every_failure_happens_and_is_named(tiny, tmp_path):
    told = ran("three_hundred", tmp_path, *tiny, "--steps", 2, "--clips", 4, "--batch-size", 4, "--max-tokens", 12)
    modes = told["modes"]
    assert set(told["named"]) == set(modes) and len(modes) == 9
    for row in modes.values():
        errors = row["substitutions"] + row["deletions"] + row["insertions"]
        assert row["wer"] == pytest.approx(errors / row["words"]) and 0 < row["loss"] < 100
    for name in ("double_start", "end_masked", "zero_padding"):
        assert told["named"][name] == name, "a batch shows it, whatever the texts are"
    assert told["max_wer"] == max(row["wer"] for row in modes.values())
    assert (tmp_path / "runs/three_hundred/wer.png").stat().st_size > 10_000
