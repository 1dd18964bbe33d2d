"""What is left of a run that was cut off anywhere: damaged checkpoints, kills during a save, a full disk."""

import gc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, interrupting, losses, tiny_training
from safetensors.numpy import load_file
from test_features_robust import disk  # noqa: F401 - a fixture
from transformers import TrainerControl

from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import read_json, read_jsonl, write_bytes, write_json
from lengua.training import checkpointing
from lengua.training.checkpointing import (
    CheckpointCallback,
    list_checkpoints,
    model_only_manifest,
    newest_whole_checkpoint,
    remove_stale_checkpoints,
    rotate_checkpoints,
    strip_optimizer,
)
from lengua.training.checksums import (
    CHECKSUMS_FILE,
    ChecksumManifest,
    checksum_folder,
    find_damage,
    parse_checksums,
    read_checksums,
)
from lengua.training.train import train

CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import tiny_training
from lengua.training.train import train
train(tiny_training({store!r}, Path({model!r}), Path({out!r}), **{more!r}))
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
LONG = {"steps": 15, "evaluations": 3, "learning_rate": 1e-3, "checkpoint_minutes": 0.0}


@pytest.fixture(scope="module")
def inventories() -> list[dict[Path, ChecksumManifest]]:
    """The checkpoints of `long` and their manifests, as they were on disk after each step."""
    return []


@pytest.fixture(scope="module")
def long(tiny_store, tiny_model, tmp_path_factory, inventories):
    """The options of a run that went through: fifteen steps, a checkpoint after each."""
    options = tiny_training(str(tiny_store.path), tiny_model, tmp_path_factory.mktemp("long") / "whole", **LONG)

    def watch(progress):
        if progress.stage == "training" and progress.done >= 3 and progress.unit:
            found = {path: read_checksums(path) for path in list_checkpoints(options.out / "checkpoints")}
            assert all(find_damage(path) is None for path in found)
            assert all(one.resumable or not list(path.glob("optimizer*")) for path, one in found.items())
            inventories.append(found)

    train(options, watch)
    return options


@pytest.fixture(scope="module")
def broken_off(long):
    """The folder of such a run that was stopped at step 6."""
    cut = replace(long, out=long.out.parent / "cut")
    with pytest.raises(KeyboardInterrupt, match="step 6 of 15"):
        train(cut, interrupting(6))
    assert [path.name for path in list_checkpoints(cut.out / "checkpoints")][:2] == ["checkpoint-6", "checkpoint-5"]
    return cut.out


@pytest.fixture
def cut(long, broken_off, tmp_path):
    """The options of that run, its folder moved to another place."""
    options = replace(long, out=tmp_path / "cut")
    shutil.copytree(broken_off, options.out)
    run = read_json(options.out / "run.json")
    write_json(options.out / "run.json", run | {"options": run["options"] | {"out": str(options.out)}})
    return options


def notes_of(options) -> list[str]:
    """Train to the end; return what was said of checkpoints."""
    seen = []
    train(options, seen.append)
    return [progress.note for progress in seen if progress.stage == "checkpoint"]


def assert_same_end(run: Path, whole: Path, steps=(10, 15)) -> None:
    """Two runs came to the same losses and the same model."""
    ours, theirs = losses(run), losses(whole)
    np.testing.assert_allclose([ours[step] for step in steps], [theirs[step] for step in steps], rtol=1e-4)
    assert read_json(run / "run.json")["dev_wer"] == read_json(whole / "run.json")["dev_wer"]
    ours, theirs = (load_file(folder / "model/model.safetensors") for folder in (run, whole))
    for name, weight in theirs.items():
        np.testing.assert_allclose(ours[name], weight, rtol=1e-3, atol=1e-5)


# Saving


def test_a_checkpoint_is_due_when_its_time_has_come(tiny_model, tmp_path, monkeypatch):
    clock, saved = [0.0], []
    monkeypatch.setattr(checkpointing.time, "monotonic", lambda: clock[0])
    saver = CheckpointCallback(tiny_training("", tiny_model, tmp_path, checkpoint_minutes=1.0), lambda progress: None)
    args = SimpleNamespace(world_size=1)
    state = SimpleNamespace(global_step=0, best_global_step=None, is_world_process_zero=False)
    saver.on_train_begin(args, state, TrainerControl())
    for step in range(1, 13):
        control, state.global_step, clock[0] = TrainerControl(), step, 25.0 * step
        saver.on_step_end(args, state, control)
        if control.should_save:
            saver.on_save(args, state, control)
            saved.append(step)
    assert saved == [3, 6, 9, 12]


def test_at_any_step_the_two_newest_and_the_best_model_are_there(long, inventories):
    for manifests in map(dict.values, inventories):
        newest, before = [one for one in manifests if one.resumable]
        assert newest.step - before.step == 1
        assert {one.best for one in (newest, before)} - {None} <= {one.step for one in manifests}
        assert all("model.safetensors" in one.files for one in manifests)
    sizes = {len(one) for one in inventories}
    assert len(inventories) >= 12 and 3 in sizes and max(sizes) <= 4
    assert not (long.out / "checkpoints").exists()


def test_the_model_of_a_checkpoint_is_what_does_not_only_serve_to_resume(broken_off):
    manifest = read_checksums(broken_off / "checkpoints/checkpoint-6")
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= set(manifest.files)
    kept = set(model_only_manifest(manifest).files)
    assert kept == {"model.safetensors", "config.json", "generation_config.json", "training_args.bin"}
    assert str(broken_off) not in (broken_off / "checkpoints/checkpoint-6/trainer_state.json").read_text()


# Damaged ones


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "harm", "found"),
    [
        ("optimizer.pt", halve, "optimizer.pt has "),
        ("model.safetensors", flip, "model.safetensors holds something else than was written"),
        ("rng_state.pth", Path.unlink, "rng_state.pth is missing"),
        (CHECKSUMS_FILE, halve, "it was cut off"),
        (CHECKSUMS_FILE, Path.unlink, "it was cut off"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(broken_off, tmp_path, name, harm, found):
    folder = shutil.copytree(broken_off / "checkpoints", tmp_path / "checkpoints")
    harm(folder / "checkpoint-6" / name)
    checkpoint, [damage] = newest_whole_checkpoint(folder)
    assert checkpoint.name == "checkpoint-5" and damage.startswith(f"checkpoint-6 is not whole ({found}")


def test_in_another_place_a_run_resumes_from_what_is_whole_to_the_same_end(cut, long):
    flip(cut.out / "checkpoints/checkpoint-6/model.safetensors")
    [note] = notes_of(cut)
    assert note.startswith("checkpoint-6 is not whole") and note.endswith(": going on from step 5")
    assert_same_end(cut.out, long.out)


def test_when_none_is_whole_it_starts_over(cut, long):
    for path in (cut.out / "checkpoints").glob("checkpoint-*/optimizer.pt"):
        flip(path)
    [note] = notes_of(cut)
    assert "checkpoint-6" in note and "checkpoint-5" in note and note.endswith(": nothing whole before it")
    assert_same_end(cut.out, long.out, steps=(5, 10, 15))


def test_a_best_model_that_is_lost_is_reported_and_another_found(cut):
    folder = cut.out / "checkpoints"
    best = read_checksums(folder / "checkpoint-6").best
    if best == 5:  # then it is a whole checkpoint, too
        strip_optimizer(folder / "checkpoint-5", read_checksums(folder / "checkpoint-5"))
    flip(folder / f"checkpoint-{best}/model.safetensors")
    [note] = notes_of(replace(cut, checkpoint_minutes=7.0))  # an option that may be another at every start
    assert note.startswith(f"the model of step {best}, the best on dev so far, is lost (model.safetensors holds")
    later = [r["dev_wer"] for r in read_jsonl(cut.out / "history.jsonl") if "dev_wer" in r and r["step"] > 6]
    assert read_json(cut.out / "run.json")["dev_wer"] == min(later)
    assert 6 not in losses(cut.out)


def test_other_options_are_refused(cut):
    with pytest.raises(RequestError, match=r"batch_size was 4, is 2; use --no-resume or another --out"):
        train(replace(cut, batch_size=2))


# Manifests and rotation, on folders that hold what a checkpoint holds


def make_checkpoint(folder: Path, step: int, best: int | None) -> Path:
    """Make a whole checkpoint."""
    path = folder / f"checkpoint-{step}"
    for name in ("model.safetensors", "config.json", "optimizer.pt", "rng_state.pth", "trainer_state.json"):
        write_bytes(path / name, f"{name} {step}".encode())
    checksum_folder(path, step, best)
    return path


def state_of(folder: Path) -> dict[int, bool]:
    """Return {step: whether one can resume from it}; everything there is whole."""
    assert all(find_damage(path) is None for path in list_checkpoints(folder))
    return {read_checksums(path).step: read_checksums(path).resumable for path in list_checkpoints(folder)}


def test_rotation_keeps_the_best_that_each_of_the_two_newest_knows(tmp_path):
    kept = {}
    for step, best in ((10, None), (20, 20), (100, 20), (120, 20), (130, 130), (140, 130)):
        make_checkpoint(tmp_path, step, best)
        rotate_checkpoints(tmp_path)
        kept[step] = state_of(tmp_path)
        if step == 120:
            names = sorted(path.name for path in (tmp_path / "checkpoint-20").iterdir())
            assert names == ["config.json", "model.safetensors", CHECKSUMS_FILE]
    assert kept[100] == {20: True, 100: True}
    assert kept[120] == {20: False, 100: True, 120: True}
    assert kept[130] == {20: False, 120: True, 130: True}  # 130 may turn out damaged: 120 knows 20
    assert kept[140] == {130: True, 140: True}


def test_a_kill_while_rotating_leaves_something_to_resume_from(tmp_path, monkeypatch):
    """Rotation stopped before each of its writes and removals in turn."""

    class Killed(BaseException):
        pass

    def counted(call, left):
        def count(*positional, **named):
            if next(left, None) is None:
                raise Killed
            return call(*positional, **named)

        return count

    for allowed in range(12):
        folder = tmp_path / str(allowed)
        for step, best in ((10, 10), (20, 10), (30, 10), (40, 10), (50, 50)):
            make_checkpoint(folder, step, best)
        left = iter(range(allowed))
        with monkeypatch.context() as patched:
            for owner, name in ((Path, "unlink"), (os, "replace"), (shutil, "rmtree")):
                patched.setattr(owner, name, counted(getattr(owner, name), left))
            try:
                rotate_checkpoints(folder)
                done = True
            except Killed:
                done = False
        newest, _ = newest_whole_checkpoint(folder)
        remove_stale_checkpoints(folder, newest)
        assert newest.name == "checkpoint-50"
        rotate_checkpoints(folder)
        assert state_of(folder) == {10: False, 40: True, 50: True}
        assert not list((folder / "checkpoint-10").glob("optimizer*"))
        if done:
            break
    assert done and allowed > 5


def test_a_start_removes_what_is_newer_or_torn_and_leaves_the_rest(tmp_path):
    for step in (5, 10, 20, 30):
        make_checkpoint(tmp_path, step, None)
    strip_optimizer(tmp_path / "checkpoint-5", read_checksums(tmp_path / "checkpoint-5"))
    assert newest_whole_checkpoint(tmp_path / "nowhere") == (None, [])
    (tmp_path / "checkpoint-30/optimizer.pt").unlink()
    (tmp_path / "checkpoint-10" / CHECKSUMS_FILE).unlink()
    (tmp_path / ".sending").mkdir()
    (tmp_path / "checkpoint-of-mine").mkdir()
    remove_stale_checkpoints(tmp_path, newest_whole_checkpoint(tmp_path)[0])
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["checkpoint-20", "checkpoint-5", "checkpoint-of-mine"]
    shutil.rmtree(tmp_path / "checkpoint-20")
    assert newest_whole_checkpoint(tmp_path) == (None, []), "a model alone is nothing to resume from"


@pytest.mark.parametrize(
    "change",
    [
        *({"files": {name: [1, "0" * 64]}} for name in ("../../.ssh/id", "/etc/passwd", "a/../b", ".hidden", "a\\b")),
        {"files": {"a": [-1, "0" * 64]}},
        {"files": {"a": [1, "nothing"]}},
        {"files": ["a"]},
        {"step": -1},
        {"step": None},
        {"best": "../1"},
    ],
)
def test_a_manifest_names_only_files_of_its_folder(change):
    good = asdict(ChecksumManifest(3, 2, True, {"model.safetensors": (5, "0" * 64), "a/b.json": (0, "1" * 64)}))
    assert parse_checksums(json.dumps(good).encode()).files["a/b.json"] == (0, "1" * 64)
    with pytest.raises(ValueError):
        parse_checksums(json.dumps(good | change).encode())


# Killed


def kill_during_a_save(child: subprocess.Popen, folder: Path, saves: int, wait_s: float) -> bool:
    """Kill a process some moments after it began so many new checkpoints; return whether it came to that."""
    seen = set(list_checkpoints(folder))
    while child.poll() is None:
        begun = [path for path in list_checkpoints(folder) if path not in seen and not (path / CHECKSUMS_FILE).exists()]
        seen |= set(begun)
        saves -= len(begun)
        if saves <= 0:
            time.sleep(wait_s)
            child.kill()
            return child.wait() == -signal.SIGKILL
    return False


@pytest.mark.slow
def test_killed_during_saves_it_resumes_and_ends_the_same(long, tmp_path):
    options = replace(long, out=tmp_path / "run")
    places = {"store": options.source, "model": options.base, "out": str(options.out)}
    code = CHILD.format(tests=str(ROOT / "tests"), more=LONG, **places)
    folder, kills, drawn = options.out / "checkpoints", 0, random.Random(17)
    while kills < 5:
        with open(tmp_path / "stderr", "w+b") as errors:
            child = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=errors)
            kills += kill_during_a_save(child, folder, drawn.randint(1, 3), drawn.uniform(0, 0.02))
        if child.returncode != -signal.SIGKILL:
            assert child.returncode == 0, (tmp_path / "stderr").read_text()
            break
        assert newest_whole_checkpoint(folder)[0] or kills == 1
    assert kills >= 3
    train(options)
    assert_same_end(options.out, long.out, steps=())
    assert read_json(options.out / "run.json")["finished"]


@pytest.mark.slow
def test_two_processes_agree_when_to_save_are_killed_and_resume(tiny_store, tiny_model, tmp_path):
    """Were their clocks their own, one would wait for the other at a save until the test runs out of time.

    An epoch has two steps here; it goes on from an odd one, in the middle of an epoch that is not the first.
    """
    script, log = tmp_path / "child.py", tmp_path / "log"
    places = {"store": str(tiny_store.path), "model": str(tiny_model)}
    more = LONG | {"checkpoint_minutes": 0.1 / 60, "steps": 60, "evaluations": 2}

    def start(out: Path) -> subprocess.Popen:
        script.write_text(CHILD.format(tests=str(ROOT / "tests"), more=more, out=str(out), **places))
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with open(log, "w+b") as output:
            return subprocess.Popen([*TORCHRUN, script], env=environment, stdout=output, stderr=output)

    assert start(tmp_path / "whole").wait(timeout=120) == 0, log.read_text()
    child, folder = start(tmp_path / "cut"), tmp_path / "cut/checkpoints"
    sealed = []
    while len(sealed) < 2 or sealed[0] % 2 == 0:
        assert child.poll() is None, log.read_text()
        sealed = [made.step for path in list_checkpoints(folder) if (made := read_checksums(path))]
        time.sleep(0.01)
    workers = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    assert len(workers) == 2
    for process in (child.pid, *map(int, workers)):  # torchrun gives each a session of its own
        os.kill(process, signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "cut/model").exists()
    for path in list_checkpoints(folder):
        if int(path.name.partition("-")[2]) > sealed[0]:  # begun in the last moment
            shutil.rmtree(path)
    newest = read_checksums(newest_whole_checkpoint(folder)[0])
    assert 2 < newest.step == sealed[0] < 55
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= set(newest.files) and "rng_state.pth" not in newest.files
    assert start(tmp_path / "cut").wait(timeout=120) == 0, log.read_text()
    assert_same_end(tmp_path / "cut", tmp_path / "whole", steps=(60,))


# A full disk


@pytest.mark.parametrize("room", [0, 300_000])
def test_a_full_disk_is_explained_and_the_checkpoint_before_stays(long, disk, room):  # noqa: F811
    place = disk("size=400m")
    options = replace(long, out=place / "run")

    def fill(progress):
        if progress.stage == "training" and progress.unit and progress.done == 6:
            (place / "others").write_bytes(bytes(shutil.disk_usage(place).free - room))

    with pytest.raises(LenguaError, match=r"found a full disk; free some space .*: it goes on from step ") as caught:
        train(options, fill)
    assert caught.value.exit_code == 1
    del caught
    gc.collect()  # torch keeps what it could not write open
    assert max(state_of(options.out / "checkpoints")) in (5, 6)
    if room:  # once is enough
        (place / "others").unlink()
        train(options)
        assert_same_end(options.out, long.out, steps=(15,))


def test_other_errors_stay_what_they_are(long, tmp_path):
    def break_down(progress):
        if progress.stage == "training" and progress.done == 3:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        train(replace(long, out=tmp_path / "run"), break_down)
    assert newest_whole_checkpoint(tmp_path / "run/checkpoints")[0].name == "checkpoint-2"
