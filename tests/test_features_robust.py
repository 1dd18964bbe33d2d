"""features on a machine that lets it down: a full disk, a folder nobody may write to, Ctrl-C, a kill at any write."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT, chirp, digests

from lengua.data.store import is_store, open_store, read_shard_summary

pytestmark = pytest.mark.slow

SHARDS, ITEMS = 5, 256
# Builds a store in shards of eight items and is killed before the first change to its folder, then a second before its
# second, and so on; each is taken up by one that is not killed. Forked, so that nothing has to be imported again.
# With --json there are no figures to draw.
KILLED_AT_EVERY_CHANGE = """
import json, os, signal, sys
import lengua.data.sources.folder, lengua.printing, lengua.runtime.progress, soundfile
from lengua import cli
from lengua.data import features
features.ITEMS_PER_SHARD = 8
source, folder = sys.argv[1:]
changes = 0

def exit_code(out, last):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def count(event, arguments):
        global changes
        writes = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in ("os.mkdir", "os.rename", "os.remove")) and str(arguments[0]).startswith(out):
            changes += 1
            if changes == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    os._exit(cli.main(["features", source, "--language", "es", "--workers", "1", "--json", "--out", out]))

runs = []
while not runs or runs[-1]["killed"] == -signal.SIGKILL:
    out = f"{folder}/{len(runs) + 1}"
    killed = exit_code(out, len(runs) + 1)
    left = sorted(os.path.join(place, name)[len(out) + 1 :] for place, _, names in os.walk(out) for name in names)
    runs.append({"out": out, "killed": killed, "left": left, "taken_up": exit_code(out, 0)})
print(json.dumps(runs))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
    """Five shards' worth of short clips, with noise in them so that a shard does not shrink."""
    folder, random = tmp_path_factory.mktemp("grabaciones"), np.random.default_rng(17)
    with open(folder / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "text", "split"])
        for number in range(SHARDS * ITEMS):
            samples = chirp(0.35, 150 + number % 400)
            soundfile.write(folder / f"{number:04}.wav", samples + random.normal(0, 0.01, len(samples)), 16_000)
            writer.writerow([f"{number:04}.wav", "sí, sí", "train"])
    return f"folder:{folder}"


@pytest.fixture(scope="module")
def elsewhere(source, tmp_path_factory) -> dict[str, str]:
    """The digests of a store that was built where nothing went wrong."""
    out = tmp_path_factory.mktemp("elsewhere") / "store"
    done = lengua(source, out)
    assert done.returncode == 0, done.stderr
    assert len(digests(out)) == SHARDS + 1
    return digests(out)


@pytest.fixture
def disk(tmp_path):
    """Return a function that mounts a small disk, or gives a mounted one another size or makes it read-only."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        kind = f"remount,{options}" if place.is_mount() else options
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", kind, "tmpfs", place], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"needs the right to mount a disk of its own: {done.stderr.strip()}")
        return place

    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("needs root, to mount a disk of its own")
    yield mount
    if place.is_mount():
        subprocess.run(["umount", place], check=True)


def command(source: str, out: Path) -> list[str]:
    told = ["--language", "es", "--splits", "train", "--workers", "2", "--out", str(out)]
    return [sys.executable, "-m", "lengua", "features", source, *told]


def lengua(source: str, out: Path) -> subprocess.CompletedProcess:
    return subprocess.run(command(source, out), cwd=ROOT, capture_output=True, text=True, timeout=120)


def stamps(store: Path) -> dict[Path, int]:
    """Return when each finished shard was written."""
    return {shard: shard.stat().st_mtime_ns for shard in store.glob("*/shard-*.parquet")}


def half_written(store: Path) -> list[Path]:
    return [path for path in store.rglob(".*") if path.is_file()]


def the_message(done: subprocess.CompletedProcess) -> str:
    """Return the one message on standard error; there is nothing else there but how far it came."""
    assert "Traceback" not in done.stderr and "Error" not in done.stderr.replace("[Errno", ""), done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("features: ")]
    assert len(lines) == 1 and lines[0].startswith("lengua: "), done.stderr
    return lines[0]


# A full disk


@pytest.mark.parametrize("room", ["for a shard", "for nothing"])
def test_a_full_disk_is_told_and_the_build_goes_on_when_there_is_room(room, disk, source, elsewhere):
    store = disk("size=1m") / "store"
    if room == "for nothing":
        with suppress(OSError), open(store.with_name("other"), "wb", buffering=0) as other:
            while other.write(bytes(4096)):
                pass
    done = lengua(source, store)
    assert done.returncode == 1
    message = the_message(done)
    assert "No space left on device" in message and str(store) in message and "make room" in message
    assert not is_store(store) and not half_written(store)
    kept = stamps(store)
    assert 1 <= len(kept) < SHARDS if room == "for a shard" else not kept
    assert all(read_shard_summary(shard).rows == ITEMS for shard in kept)
    disk("size=64m")
    done = lengua(source, store)
    assert done.returncode == 0, done.stderr
    assert {shard: stamp for shard, stamp in stamps(store).items() if shard in kept} == kept
    assert digests(store) == elsewhere and len(open_store(store).split("train")) == SHARDS * ITEMS


# A folder that nobody may write to


# Ctrl-C


def test_a_read_only_disk_is_told_with_its_path(disk, source):
    place = disk("size=1m,ro")
    done = lengua(source, place / "store")
    assert done.returncode == 1
    message = the_message(done)
    assert "Read-only file system" in message and str(place / "store") in message
    assert not list(place.iterdir())


def test_a_folder_that_nobody_may_write_to_is_told_with_its_path(source, tmp_path):
    (tmp_path / "theirs").mkdir(mode=0o555)
    if os.access(tmp_path / "theirs", os.W_OK):
        pytest.skip("needs a user who may not write everywhere, as root may")
    done = lengua(source, tmp_path / "theirs/store")
    assert done.returncode == 1
    message = the_message(done)
    assert "Permission denied" in message and str(tmp_path / "theirs/store") in message


@pytest.mark.parametrize("when", ["workers start", "a shard is there"])
@pytest.mark.parametrize("whom", ["all", "the parent"])
def test_ctrl_c_exits_with_130_and_the_same_command_goes_on(when, whom, source, elsewhere, tmp_path):
    """A terminal interrupts all of its processes; `kill -INT` the parent alone."""
    store = tmp_path / "store"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command(source, store), cwd=ROOT, start_new_session=True, **pipes)
    try:
        wait_for(lambda: stamps(store) if when == "a shard is there" else has_workers(process.pid))
        (os.killpg if whom == "all" else os.kill)(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    done = subprocess.CompletedProcess(process.args, process.returncode, output, errors)
    assert done.returncode == 130, errors
    assert the_message(done).startswith("lengua: interrupted;") and not output
    assert not is_store(store) and not half_written(store)
    kept = stamps(store)
    assert bool(kept) or when == "workers start"
    assert lengua(source, store).returncode == 0
    assert {shard: stamp for shard, stamp in stamps(store).items() if shard in kept} == kept
    assert digests(store) == elsewhere


def wait_for(something) -> None:
    deadline = time.monotonic() + 60
    while not something():
        assert time.monotonic() < deadline, "nothing happened for a minute"
        time.sleep(0.005)


def has_workers(pid: int) -> bool:
    """Return whether a process has children, besides the one that Python keeps to clean up."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    if not children.exists():
        pytest.skip("needs /proc, to see that workers have started")
    return len(children.read_text().split()) > 1


# A kill


def test_a_build_killed_before_any_change_to_its_folder_goes_on_to_the_same_bytes(tiny_folder, tmp_path):
    """Every mkdir, open, rename and remove in turn; what a kill leaves is taken up, or swept away."""
    (tmp_path / "killed.py").write_text(KILLED_AT_EVERY_CHANGE, encoding="utf-8")
    told = [sys.executable, tmp_path / "killed.py", tiny_folder, tmp_path]
    done = subprocess.run(told, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *killed, last = json.loads(done.stdout.splitlines()[-1])
    whole = digests(Path(last["out"]))
    assert last["killed"] == 0 and len(killed) > 20 and len(whole) == 2 + 1 + 1 + 1
    differing = [run for run in killed if run["taken_up"] or digests(Path(run["out"])) != whole]
    stated = [f"left {run['left']}: exit code {run['taken_up']}" for run in differing]
    assert not stated, f"of {len(killed)} kills, {len(stated)} were not made good:\n" + "\n".join(stated)
