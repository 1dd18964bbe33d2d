"""Curves for tensorboard and trackio, read back from the files that a run leaves."""

import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest
from conftest import ROOT, tiny_training

from lengua.runtime.errors import RequestError
from lengua.runtime.files import read_jsonl
from lengua.training import callbacks, train


@pytest.fixture
def options(tiny_store, tiny_model, tmp_path):
    """Six steps of four clips, two evaluations."""
    return tiny_training(str(tiny_store.path), tiny_model, tmp_path / "run", evaluations=2, learning_rate=1e-3)


def test_tensorboard_has_loss_and_wer_by_step_in_the_folder_of_the_run(options):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(replace(options, report_to=("tensorboard",), blend=True))
    assert sorted(path.name for path in options.out.iterdir()) == ["history.jsonl", "model", "run.json", "tensorboard"]
    events = accumulator.EventAccumulator(str(options.out / "tensorboard")).Reload()
    history = read_jsonl(options.out / "history.jsonl")
    for tag, key in (("eval/wer", "dev_wer"), ("train/loss", "loss")):
        drawn = {event.step: event.value for event in events.Scalars(tag)}
        assert drawn == pytest.approx({record["step"]: record[key] for record in history if key in record})
    assert len(events.Scalars("eval/wer")) == 2  # blending measures dev, too, but is no step


TRACKED = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from conftest import tiny_training
from lengua.training import train
store, model, out = sys.argv[1:]
train(tiny_training(store, Path(model), Path(out), evaluations=2, report_to=("trackio",)))
"""


@pytest.mark.slow
def test_trackio_writes_into_the_folder_of_the_run_and_nothing_to_standard_output(options, tmp_path, monkeypatch):
    """In a process of its own, for trackio reads its folder when it is imported."""
    pytest.importorskip("trackio")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("TRACKIO_DIR", raising=False)
    command = [sys.executable, "-c", TRACKED, options.source, options.base, str(options.out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and not (tmp_path / "home/trackio").exists()
    with sqlite3.connect(options.out / "trackio/run.db") as database:
        rows = [str(row) for row in database.execute("select * from metrics")]
    assert sum("eval/wer" in row for row in rows) == 2 and any("train/loss" in row for row in rows)


def test_what_is_not_installed_is_named_before_anything_is_built(options, monkeypatch):
    monkeypatch.setattr(callbacks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match="it is not installed; pip install tensorboard"):
        train(replace(options, report_to=("tensorboard",)))
    assert not options.out.exists()


def test_starting_over_draws_no_old_curves(options):
    for name in callbacks.TRACKER_FOLDERS:
        (options.out / name).mkdir(parents=True)
        (options.out / name / "old").write_text("")
    train(replace(options, steps=1, evaluations=1))
    assert (options.out / "trackio/old").is_file()
    train(replace(options, steps=1, evaluations=1, resume=False))
    assert not any((options.out / name).exists() for name in callbacks.TRACKER_FOLDERS)
