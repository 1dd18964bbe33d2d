"""A run whose machine is taken away: its checkpoint on a Hub on loopback, gone on from elsewhere."""

import json

import numpy as np
import pytest
from conftest import ROOT
from hub_server import READER, WRITER, a_hub, sha256  # noqa: F401 - a fixture

from lengua.runtime.files import read_json, read_jsonl
from lengua.training.checksums import CHECKSUMS_FILE, read_checksums

IMPORTS = f"""
import os, shutil, signal, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {str(ROOT / "tests")!r})
from conftest import tiny_training
from lengua.training import hub_sync as hub_checkpoints
from lengua.training.checksums import read_checksums as read_seal
from lengua.training.train import train

class Watch:
    "Hears what is said of checkpoints, asks to stop at a step, waits for what is on its way at every step."
    def __init__(self, stop=-1, wait=True):
        self.stop, self.wait, self.heard = stop, wait, []
    def __call__(self, progress):
        if progress.stage == "checkpoint":
            self.heard.append(progress.note)
        if progress.stage != "training" or not progress.unit:
            return
        while self.wait and Path(OUT.out, "checkpoints/.sending").exists():
            time.sleep(0.01)
        if progress.done == self.stop:
            os.kill(os.getpid(), signal.SIGINT)

def run(options, **how):
    global OUT
    OUT, watch = options, Watch(**how)
    try:
        result = train(options, watch).dev_wer
    except KeyboardInterrupt as stopped:
        result = str(stopped)
    return [result, watch.heard]
"""
SENT = {"config.json", "generation_config.json", "model.safetensors", "optimizer.pt", "rng_state.pth", "scheduler.pt"}
SENT |= {"trainer_state.json", "training_args.bin", CHECKSUMS_FILE}


@pytest.fixture
def setting(tiny_store, tiny_model) -> str:
    """The options of a run of 15 steps, a checkpoint after each, as code."""
    told = (
        f"{str(tiny_store.path)!r}, Path({str(tiny_model)!r}), Path('run'), push_checkpoints='ana/run', language='es'"
    )
    more = "steps=15, evaluations=3, learning_rate=1e-3, checkpoint_minutes=0.0"
    return f"options = tiny_training({told}, {more})\n"


def losses(run) -> dict[int, float]:
    return {record["step"]: record["loss"] for record in read_jsonl(run / "history.jsonl") if "loss" in record}


def told(hub, code: str, **more) -> list[dict]:
    return hub.client(code, IMPORTS, timeout=240, OMP_NUM_THREADS="1", **more)


def test_on_another_machine_it_goes_on_to_the_same_losses(hub, setting):
    code = f"""{setting}
show(lambda: run(replace(options, out=Path("whole"), push_checkpoints=None)))
show(lambda: run(options, stop=8))
shutil.rmtree("run")
show(lambda: run(replace(options, out=Path("elsewhere")), stop=10))
shutil.move("elsewhere", "taken")
show(lambda: run(options))
"""
    whole, stopped, moved, again = (one["value"] for one in told(hub, code))
    assert stopped[0] == "stopped at step 8 of 15, checkpoint saved" and moved[0].startswith("stopped at step 10 of 15")
    assert moved[1][1] == "going on from step 8, as ana/run has it" and "fetching" in moved[1][0]
    assert again[1][1] == "going on from step 10, as ana/run has it"
    assert again[0] == whole[0]
    ours, theirs = losses(hub.home / "run"), losses(hub.home / "whole")
    np.testing.assert_allclose([ours[5], ours[15]], [theirs[5], theirs[15]], rtol=1e-4)
    assert read_json(hub.home / "run/run.json")["options"]["out"] == "run"
    assert sorted(path.name for path in (hub.home / "run").iterdir()) == ["history.jsonl", "model", "run.json"]
    repo = hub.repos["model", "ana/run"]
    assert repo.private and len(repo.commits) > 8
    assert not any(b"hf_writer" in data for data in repo.files.values())
    for commit in repo.commits[1:]:
        assert_whole(commit.files, int(commit.message.partition("-")[2]))


def assert_whole(files: dict[str, bytes], step: int) -> None:
    """A commit holds one whole checkpoint, the best model where that is another, the record, and nothing else."""
    parts = {name.rpartition("/")[0] for name in files}
    assert {name.partition("/")[2] for name in files if name.startswith("checkpoint/")} == SENT
    seal = json.loads(files[f"checkpoint/{CHECKSUMS_FILE}"])
    assert seal["step"] == step and ("best" in parts) == (seal["best"] not in (None, step))
    for part in parts - {""}:
        for name, (size, digest) in json.loads(files[f"{part}/{CHECKSUMS_FILE}"])["files"].items():
            data = files[f"{part}/{name}"]
            assert (len(data), sha256(data)) == (size, digest)
    history = [json.loads(line) for line in files["history.jsonl"].splitlines()]
    assert all(record["step"] <= step for record in history)
    assert {"run.json", "history.jsonl"} <= set(files)


@pytest.mark.slow
def test_changed_options_are_refused_before_anything_is_fetched_and_no_resume_starts_over(hub, setting):
    code = f"""{setting}
show(lambda: run(options, stop=3))
shutil.rmtree("run")
show(lambda: run(replace(options, batch_size=2)))
show(lambda: sorted(str(path) for path in Path("run").rglob("*")))
show(lambda: run(replace(options, resume=False, batch_size=2), stop=2))
"""
    _, refused, left, over = told(hub, code)
    assert refused["error"] == (
        "expected the options that the checkpoint of ana/run on the Hub was made with; found batch_size was 4, is 2; "
        "use --no-resume or another --push-checkpoints"
    )
    assert refused["exit_code"] == 2 and left["value"] == ["run/checkpoints"]
    assert over["value"][0].startswith("stopped at step 2 of 15")
    assert json.loads(hub.repos["model", "ana/run"].files[f"checkpoint/{CHECKSUMS_FILE}"])["step"] == 2


@pytest.mark.slow
def test_an_upload_that_fails_is_told_once_and_training_goes_on(hub, setting):
    hub.fail("POST", "/commit/", status=403)
    code = f"""{setting}
show(lambda: run(options))
show(lambda: sorted(str(path) for path in Path("run").iterdir()))
"""
    done, left = told(hub, code)
    failures = [note for note in done["value"][1] if "did not reach" in note]
    assert failures == [
        "checkpoint-1 did not reach ana/run, training goes on: expected a token for the model ana/run; found "
        "one that is refused (403); make another and log in again"
    ]
    assert isinstance(done["value"][0], float) and left["value"] == ["run/history.jsonl", "run/model", "run/run.json"]
    assert "hf_" not in json.dumps(done)


@pytest.mark.slow
def test_while_one_is_on_its_way_others_are_skipped_and_the_last_is_sent_in_the_end(hub, setting):
    hub.fail("POST", "/preupload/", times=1, hang_s=3)
    code = f"""{setting}
show(lambda: run(options, stop=6, wait=False))
"""
    (stopped,) = told(hub, code)
    assert stopped["value"][0].startswith("stopped at step 6 of 15")
    steps = [commit.message for commit in hub.repos["model", "ana/run"].commits[1:]]
    assert steps == ["checkpoint-1", "checkpoint-6"] or steps == ["checkpoint-6"]
    assert "sending the last checkpoint to ana/run, for 10 min at most" in stopped["value"][1]


@pytest.mark.slow
def test_the_end_does_not_wait_for_ever(hub, setting):
    hub.fail("POST", "/preupload/", hang_s=30)
    code = f"""{setting}
hub_checkpoints.FINAL_UPLOAD_TIMEOUT_S = 1.5
show(lambda: run(options, stop=3, wait=False))
"""
    (stopped,) = told(hub, code)
    assert stopped["value"][0].startswith("stopped at step 3 of 15") and stopped["seconds"] < 25
    assert stopped["value"][1][-1] == "the last checkpoint did not reach ana/run in time; the one before it stays"


@pytest.mark.slow
def test_a_public_repository_and_a_token_that_may_not_are_refused(hub, setting):
    hub.repo("model", "ana/run", {})
    public, read_only = (
        told(hub, f"{setting}\nshow(lambda: run(options))", token=token)[0] for token in (WRITER, READER)
    )
    assert "expected a private model ana/run; found a public one of that name" in public["error"]
    assert list(hub.repos["model", "ana/run"].files) == []
    assert "expected a token that may write to ana/run; found one that may only read" in read_only["error"]


@pytest.mark.slow
def test_nothing_outside_is_written_and_other_bytes_are_refused(hub, setting):
    told(hub, f"{setting}\nrun(options, stop=3)\nshutil.rmtree('run')")
    repo, code = hub.repos["model", "ana/run"], f"{setting}\nshow(lambda: run(options, stop=5))"
    good, seal = repo.files, f"checkpoint/{CHECKSUMS_FILE}"
    made = json.loads(good[seal])
    outside = made | {"files": made["files"] | {"../../../evil": made["files"]["config.json"]}}
    repo.commit(good | {seal: json.dumps(outside).encode()}, "evil")
    (refused,) = told(hub, code)
    assert "ana/run" in refused["error"] and "'../../../evil'" in refused["error"]
    repo.commit(good | {"checkpoint/optimizer.pt": good["checkpoint/optimizer.pt"] + b"more"}, "longer")
    (refused,) = told(hub, code)
    assert "found more, in checkpoint/optimizer.pt" in refused["error"]
    flipped = bytearray(good["checkpoint/model.safetensors"])
    flipped[-1] ^= 1
    repo.commit(good | {"checkpoint/model.safetensors": bytes(flipped)}, "flipped")
    (refused,) = told(hub, code)
    assert "found model.safetensors holds something else than was written" in refused["error"]
    assert not list((hub.home / "run").rglob("checkpoint-*")) and not (hub.home / "evil").exists()
    repo.commit(good, "good")
    hub.fail("GET", r"/resolve/.*checkpoint/model", times=1, keep=0.5)
    (gone_on,) = told(hub, code)
    assert gone_on["value"][0].startswith("stopped at step 5 of 15")
    assert read_checksums(hub.home / "run/checkpoints/checkpoint-5").step == 5


@pytest.mark.slow
def test_the_plan_of_minutes_is_kept_on_another_machine(hub, setting):
    code = f"""{setting}
options = replace(options, steps=None, minutes=0.5)
show(lambda: run(options, stop=3))
show(lambda: json.loads(Path("run/run.json").read_text())["plan"])
shutil.rmtree("run")
show(lambda: run(options, stop=6))
show(lambda: json.loads(Path("run/run.json").read_text())["plan"])
"""
    _, before, again, after = told(hub, code)
    assert again["value"][1][1] == "going on from step 3, as ana/run has it"
    assert before["value"] == after["value"]
