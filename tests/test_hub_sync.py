"""A run whose machine is taken away: its checkpoint on a Hub on loopback, resumed from elsewhere."""

import json

import numpy as np
import pytest
from conftest import ROOT, losses
from hub_server import READER, a_hub, sha256  # noqa: F401 - a fixture

from lengua.runtime.files import read_json
from lengua.training.checksums import CHECKSUMS_FILE, read_checksums

TRAINING = f"""
import os, shutil, signal, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {str(ROOT / "tests")!r})
from conftest import tiny_training
from lengua.training.train import train

def run(options, stop=-1):
    "Train until a step; return the result and the notes on checkpoints. Uploads are waited for at every step."
    notes = []
    def watch(progress):
        if progress.stage == "checkpoint":
            notes.append(progress.note)
        if progress.stage == "training" and progress.unit:
            while (options.out / "checkpoints/.sending").exists():
                time.sleep(0.01)
            if progress.done == stop:
                os.kill(os.getpid(), signal.SIGINT)
    try:
        result = train(options, watch).dev_wer
    except KeyboardInterrupt as stopped:
        result = str(stopped)
    return [result, notes]
"""
FOLDERS = """
from pathlib import Path
from lengua.runtime.files import write_bytes, write_json
from lengua.training import hub_sync
from lengua.training.checksums import checksum_folder, read_checksums
from lengua.training.hub_sync import CheckpointUploader, find_on_hub

notes, out = [], Path("run")

def checkpoint(step):
    "Make the folder of a checkpoint."
    path = out / f"checkpoints/checkpoint-{step}"
    for name in ("model.safetensors", "optimizer.pt", "config.json"):
        write_bytes(path / name, f"{name} {step}".encode() * 1000)
    checksum_folder(path, step, None)
    write_json(out / "run.json", {"options": {"seed": 17}})
    write_bytes(out / "history.jsonl", b"")
    return path

def wait():
    while uploader.thread.is_alive():
        time.sleep(0.01)

uploader = CheckpointUploader("ana/run", out, notes.append)
fetched = lambda: find_on_hub("ana/run").fetch(Path("elsewhere"), {"seed": 18})
"""
SENT = {"config.json", "generation_config.json", "model.safetensors", "optimizer.pt", "rng_state.pth", "scheduler.pt"}
SENT |= {"trainer_state.json", "training_args.bin", CHECKSUMS_FILE}
MANIFEST = f"checkpoint/{CHECKSUMS_FILE}"


@pytest.fixture
def setting(tiny_store, tiny_model) -> str:
    """The options of a run of 15 steps, a checkpoint after each, as code."""
    given = f"{str(tiny_store.path)!r}, Path({str(tiny_model)!r}), Path('run'), push_checkpoints='ana/run'"
    more = "language='es', steps=15, evaluations=3, learning_rate=1e-3, checkpoint_minutes=0.0"
    return f"options = tiny_training({given}, {more})\n"


def trained(hub, code: str) -> list[dict]:
    return hub.client(code, TRAINING, timeout=240, OMP_NUM_THREADS="1")


def sent(hub, code: str, **more) -> list[dict]:
    """Run code over folders that look like checkpoints; nothing is trained."""
    return hub.client(f"{code}\nshow(lambda: notes)", FOLDERS, **more)


# Whole runs


def test_on_another_machine_it_resumes_to_the_same_losses_unless_options_differ(hub, setting):
    code = f"""{setting}
show(lambda: run(replace(options, out=Path("whole"), push_checkpoints=None)))
show(lambda: run(options, stop=8))
shutil.rmtree("run")
show(lambda: run(replace(options, batch_size=2)))
show(lambda: sorted(str(path) for path in Path("run").rglob("*")))
show(lambda: run(replace(options, out=Path("elsewhere")), stop=10))
show(lambda: run(options))
show(lambda: run(replace(options, out=Path("over"), resume=False, batch_size=2), stop=2))
"""
    whole, stopped, refused, left, moved, again, over = trained(hub, code)
    assert refused["error"].startswith("expected the options that the checkpoint of ana/run on the Hub was made with")
    assert "batch_size was 4, is 2; use --no-resume or another" in refused["error"]
    assert refused["exit_code"] == 2 and left["value"] == ["run/checkpoints"]
    assert stopped["value"][0] == "stopped at step 8 of 15, checkpoint saved"
    assert moved["value"][0].startswith("stopped at step 10 of 15") and "fetching" in moved["value"][1][0]
    assert moved["value"][1][1] == "going on from step 8, as ana/run has it"
    assert again["value"][1][1] == "going on from step 10, as ana/run has it"
    assert again["value"][0] == whole["value"][0] and over["value"][0].startswith("stopped at step 2 of 15")
    ours, theirs = losses(hub.home / "run"), losses(hub.home / "whole")
    np.testing.assert_allclose([ours[5], ours[15]], [theirs[5], theirs[15]], rtol=1e-4)
    assert read_json(hub.home / "run/run.json")["options"]["out"] == "run"
    assert sorted(path.name for path in (hub.home / "run").iterdir()) == ["history.jsonl", "model", "run.json"]
    repo = hub.repos["model", "ana/run"]
    assert repo.private and len(repo.commits) > 8
    assert not any(b"hf_writer" in data for data in repo.files.values())
    for commit in repo.commits[1:]:
        assert_whole(commit.files, int(commit.message.partition("-")[2]))
    assert json.loads(repo.files[MANIFEST])["step"] == 2


def assert_whole(files: dict[str, bytes], step: int) -> None:
    """A commit holds one whole checkpoint, the best model where that is another, the record, and nothing else."""
    parts = {name.rpartition("/")[0] for name in files}
    assert {name.partition("/")[2] for name in files if name.startswith("checkpoint/")} == SENT
    manifest = json.loads(files[MANIFEST])
    assert manifest["step"] == step and ("best" in parts) == (manifest["best"] not in (None, step))
    for part in parts - {""}:
        for name, (size, digest) in json.loads(files[f"{part}/{CHECKSUMS_FILE}"])["files"].items():
            data = files[f"{part}/{name}"]
            assert (len(data), sha256(data)) == (size, digest)
    history = [json.loads(line) for line in files["history.jsonl"].splitlines()]
    assert all(record["step"] <= step for record in history)
    assert {"run.json", "history.jsonl"} <= set(files)


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
    _, before, again, after = trained(hub, code)
    assert again["value"][1][1] == "going on from step 3, as ana/run has it"
    assert before["value"] == after["value"]


# Uploads


def test_an_upload_that_fails_is_reported_once(hub):
    hub.fail("POST", "/commit/", status=403)
    code = "for step in (1, 2, 3):\n    uploader.offer(checkpoint(step), None)\n    wait()\nuploader.close()"
    [notes] = sent(hub, code)
    failures = [note for note in notes["value"] if "did not reach" in note]
    assert len(failures) == 1 and failures[0].startswith("checkpoint-1 did not reach ana/run, training goes on: ")
    assert "403" in failures[0] and "hf_" not in failures[0]


def test_while_one_is_on_its_way_others_are_skipped_and_the_last_is_sent_in_the_end(hub):
    hub.fail("POST", "/preupload/", times=1, hang_s=1)
    [notes] = sent(hub, "for step in range(1, 7):\n    uploader.offer(checkpoint(step), None)\nuploader.close()")
    assert [commit.message for commit in hub.repos["model", "ana/run"].commits[1:]] == ["checkpoint-1", "checkpoint-6"]
    assert "sending the last checkpoint to ana/run, for 10 min at most" in notes["value"]


def test_the_end_does_not_wait_for_ever(hub):
    hub.fail("POST", "/preupload/", hang_s=30)
    code = "hub_sync.FINAL_UPLOAD_TIMEOUT_S = 1.0\nuploader.offer(checkpoint(1), None)\nshow(uploader.close)"
    closed, notes = sent(hub, code)
    assert closed["seconds"] < 5
    assert notes["value"][-1] == "the last checkpoint did not reach ana/run in time; the one before it stays"


def test_a_public_repository_and_a_token_that_may_not_are_refused(hub):
    repo, code = hub.repo("model", "ana/run", {}), "uploader.offer(checkpoint(1), None)\nuploader.close()"
    found, public = sent(hub, f"{code}\nshow(lambda: find_on_hub('ana/run'))")
    [read_only] = sent(hub, code, token=READER)
    for error in (found["error"], public["value"][-1]):
        assert "expected a private model ana/run; found a public one of that name" in error
    assert "expected a token that may write to ana/run; found one that may only read" in read_only["value"][-1]
    assert list(repo.files) == []


# Downloads


def test_nothing_outside_is_written_and_other_bytes_are_refused(hub):
    sent(hub, "uploader.offer(checkpoint(3), None)\nuploader.close()")
    repo = hub.repos["model", "ana/run"]
    good, made = repo.files, json.loads(repo.files[MANIFEST])
    outside = made | {"files": made["files"] | {"../../../evil": made["files"]["config.json"]}}
    flipped = bytearray(good["checkpoint/model.safetensors"])
    flipped[-1] ^= 1
    for change, found in (
        ({MANIFEST: json.dumps(outside).encode()}, "'../../../evil'"),
        ({"checkpoint/optimizer.pt": good["checkpoint/optimizer.pt"] + b"more"}, "more, in checkpoint/optimizer.pt"),
        ({"checkpoint/model.safetensors": bytes(flipped)}, "model.safetensors holds something else than was written"),
    ):
        repo.commit(good | change, "spoiled")
        refused, _ = sent(hub, "show(fetched)")
        assert "ana/run" in refused["error"] and found in refused["error"]
    assert not list((hub.home / "elsewhere").rglob("checkpoint-*")) and not (hub.home / "evil").exists()
    repo.commit(good, "good")
    hub.fail("GET", r"/resolve/.*checkpoint/model", times=1, keep=0.5)
    fetched, _ = sent(hub, "show(fetched)")
    assert fetched["value"] == "elsewhere/checkpoints/checkpoint-3"
    assert read_checksums(hub.home / fetched["value"]).step == 3
    assert read_json(hub.home / "elsewhere/run.json") == {"options": {"seed": 18}}
