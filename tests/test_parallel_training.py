"""Two processes learn what one learns from the same clips, and a stream teaches what a store does, step by step.

Batches are drawn first and shared afterwards: of two processes the first takes batches 0, 2, 4, ... and the second
1, 3, 5, ..., so a step of theirs is one of a single process with --accumulation 2. Twice the batch is another draw,
because a batch is cut out of clips of like length; it is the same where a batch holds the whole epoch.
"""

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, tiny_training
from safetensors.torch import load_file

from lengua.options import TrainOptions
from lengua.runtime.files import read_jsonl
from lengua.training import trainer
from lengua.training.dataset import Collator
from lengua.training.train import train
from lengua.training.trainer import training_arguments

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
TRAINED = """
import pickle, sys
from pathlib import Path
from test_parallel_training import learn_and_tell

if __name__ == "__main__":
    learn_and_tell(pickle.loads(Path(sys.argv[1]).read_bytes()))
"""


class Told(Collator):
    """Writes the ids of each batch of training, and its window, into the file of its process."""

    def __call__(self, clips):
        """Collate; dev has ids of its own, which nobody asks for."""
        batch = super().__call__(clips)
        with open(self.path, "a", encoding="utf-8") as file:
            print(*(clip.row.id for clip in clips), batch["input_features"].shape[-1], file=file)
        return batch


def every_step(options: TrainOptions, clips: int | None):
    """Return the arguments of a run that logs each step."""
    arguments = training_arguments(options, clips)
    arguments.logging_steps = 1
    return arguments


def learn_and_tell(options: TrainOptions) -> None:
    """Train, log each step, and write down what was seen."""
    trainer.training_arguments, trainer.Collator = every_step, Told
    Told.path = options.out.with_name(f"{options.out.name}.{os.environ.get('RANK', '0')}")
    train(options)


def learned(options: TrainOptions, processes: int = 1) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Train in processes of their own; return the loss of each step and the weights after the last."""
    asked = options.out.with_name(f"{options.out.name}.options")
    asked.write_bytes(pickle.dumps(options))
    script = asked.with_suffix(".py")
    script.write_text(TRAINED, encoding="utf-8")
    start = TORCHRUN if processes > 1 else [sys.executable]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    with open(asked.with_suffix(".log"), "w+b") as log:
        process = subprocess.Popen([*start, str(script), str(asked)], env=environment, stdout=log, stderr=log)
        try:
            code = process.wait(timeout=180)
        finally:
            process.terminate()  # torchrun ends its processes, too
        log.seek(0)
        assert code == 0, log.read().decode(errors="replace")[-3000:]
    losses = [record["loss"] for record in read_jsonl(options.out / "history.jsonl") if "loss" in record]
    return losses, load_file(options.out / "model/model.safetensors")


def seen(out: Path, dev: set[str], steps: int, rank: int = 0) -> list[list[str]]:
    """Return the last batches that a process drew, each as its ids and its window; the preflight drew before."""
    batches = [line.split() for line in out.with_name(f"{out.name}.{rank}").read_text("utf-8").splitlines()]
    trained = [batch for batch in batches if not dev & set(batch)]
    assert len(trained) >= steps
    return trained[-steps:]


def assert_same(one, other, tolerance: float = 1e-4) -> None:
    """Hold losses and weights of two runs against each other."""
    assert len(one[0]) == len(other[0])
    np.testing.assert_allclose(one[0], other[0], rtol=tolerance)
    assert one[1].keys() == other[1].keys()
    assert max(float((one[1][name] - other[1][name]).abs().max()) for name in one[1]) < tolerance


@pytest.fixture
def options(tiny_store, tiny_model, tmp_path) -> TrainOptions:
    """Nine steps of four clips and process: three epochs of six batches, which two processes can share."""
    more = {"steps": 9, "evaluations": 1, "learning_rate": 1e-3, "padded_share": 0.5, "language": "es"}
    return tiny_training(str(tiny_store.path), tiny_model, tmp_path / "run", **more)


@pytest.fixture
def dev(tiny_store) -> set[str]:
    """The ids of dev."""
    return set(tiny_store.split("dev").column("id"))


# Two processes


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_the_same_batches(options, dev, tmp_path):
    alone = replace(options, out=tmp_path / "alone", accumulation=2)
    together = replace(options, out=tmp_path / "together")
    assert_same(learned(alone), learned(together, 2))
    batches, shares = seen(alone.out, dev, 18), [seen(together.out, dev, 9, rank) for rank in range(2)]
    assert batches == [batch for pair in zip(*shares, strict=True) for batch in pair]


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_twice_the_batch(options, dev, tmp_path):
    """All 15 clips in a step: 8 and 7 in batches of 8, or at once in one of 16; padded, so that all share a window."""
    once = replace(options, out=tmp_path / "once", batch_size=16, window="padded", steps=4)
    shared = replace(once, out=tmp_path / "shared", batch_size=8)
    assert_same(learned(once), learned(shared, 2))
    whole, shares = seen(once.out, dev, 4), [seen(shared.out, dev, 4, rank) for rank in range(2)]
    assert [len(batch) - 1 for batch in whole] == [15] * 4
    for step, batch in enumerate(whole):
        assert sorted(batch[:-1]) == sorted(name for share in shares for name in share[step][:-1])
        assert {share[step][-1] for share in shares} == {batch[-1]}


# A stream


@pytest.mark.parametrize("window", ["adaptive", "packed"])
def test_a_stream_in_one_window_teaches_what_the_store_does(
    options, dev, tiny_folder, tiny_store, tmp_path, monkeypatch, window
):
    monkeypatch.setattr(trainer, "training_arguments", every_step)
    monkeypatch.setattr(trainer, "Collator", PackedTold if window == "packed" else Told)
    losses = {}
    for name, more in {"stored": {}, "streamed": {"source": tiny_folder, "stream": True, "workers": 1}}.items():
        run = replace(options, out=tmp_path / name, window=window, steps=12, spec_augment=True, **more)
        monkeypatch.setattr(Told, "path", run.out.with_name(f"{name}.0"), raising=False)
        train(run)
        losses[name] = [record["loss"] for record in read_jsonl(run.out / "history.jsonl") if "loss" in record]
    stored, streamed = (seen(tmp_path / name, dev, 12) for name in losses)
    assert stored == streamed and len({tuple(batch) for batch in stored}) == 12  # three epochs, each another
    assert len(losses["stored"]) == 12 and losses["stored"] == losses["streamed"]


class PackedTold(Told):
    """The same, of packed windows."""

    def __call__(self, clips):
        """Collate; a clip of dev is alone in its window."""
        batch = Collator.__call__(self, clips)
        rows = [row for clip in clips for row in getattr(clip, "rows", [clip]) for row in [getattr(row, "row", row)]]
        with open(self.path, "a", encoding="utf-8") as file:
            print(*(row.id for row in rows), batch["input_features"].shape[-1], file=file)
        return batch
