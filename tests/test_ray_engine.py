"""ray_engine: the same store by Ray, a little at a time; errors as they were; a Ray of our own ends with us."""

import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import uuid
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import soundfile
from conftest import ROOT, chirp

from lengua.data import features
from lengua.data.sources import Dropped, Utterance
from lengua.data.store import is_store
from lengua.options import FeatureOptions
from lengua.runtime import ray as ray_engine
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import file_sha256

CLIPS = 530
"""Two shards to train on, and ten clips each of dev and test."""
TOKEN = "f" * 64
"""Of the clusters that tests start; without one, Ray would write one into the home folder."""
CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
needs_ray = pytest.mark.skipif(not find_spec("ray"), reason="needs ray: pip install 'lengua[ray]'")


def by_ray(test):
    """Mark a test that starts Ray."""
    return needs_ray(pytest.mark.slow(test))


@dataclass(frozen=True)
class Job:
    number: int
    items: tuple[bytes, ...] = ()


def jobs(count: int, size: int = 0, log: Path | None = None, error: Exception | None = None):
    for number in range(count):
        if log:
            with open(log, "a") as file:
                file.write(f"{number}\n")
        yield Job(number, (os.urandom(size),))
    if error:
        raise error


def done(job: Job, seconds: float = 0.0) -> Job:
    time.sleep(seconds)
    return Job(job.number)


def refuse_three(job: Job) -> Job:
    if job.number == 3:
        raise RequestError("another number", "3", "take 4")
    return job


def timed(job: Job) -> tuple[float, float]:
    start = time.monotonic()
    time.sleep(0.3)
    return start, time.monotonic()


class Unpicklable(Exception):
    def __reduce__(self):
        raise TypeError("stays where it is")


def break_down(job: Job) -> Job:
    raise Unpicklable("no way out")


@pytest.fixture(scope="module")
def authority():
    """What every Ray of these tests is started and joined with; its workers find this file, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        yield


@pytest.fixture(scope="module")
def running_ray(authority):
    """A Ray with two cores that was there before lengua came."""
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    assert ray.is_initialized(), "lengua has shut down a Ray that it had not started"
    ray.shutdown()


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    """A release of Common Voice with `CLIPS` short clips and one that is missing, unpacked."""
    folder = tmp_path_factory.mktemp("release") / "cv-corpus-25.0-2026-03-09/es"
    (folder / "clips").mkdir(parents=True)
    tables = {name: ["client_id\tpath\tsentence\tlocale"] for name in ("train", "dev", "test")}
    for number in range(CLIPS + 1):
        split = "dev" if number % 53 == 1 else "test" if number % 53 == 2 else "train"
        tables[split].append(f"s{number % 7}\tclip_{number:04}.mp3\tNúmero {number}.\tes")
        if number < CLIPS:
            samples = chirp(0.6 + number / 2000, 150 + number)
            soundfile.write(folder / f"clips/clip_{number:04}.mp3", samples, 16_000)
    for name, lines in tables.items():
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def packed(release) -> Path:
    """The release as it is handed out."""
    path = release.parent.parent / "packed.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for file in sorted(path for path in release.rglob("*") if path.is_file()):
            archive.add(file, file.relative_to(release.parent.parent))
    return path


@pytest.fixture(scope="module")
def local_store(packed, tmp_path_factory) -> Path:
    """What the local engine makes of the packed release."""
    out = tmp_path_factory.mktemp("local") / "store"
    result = features.build(FeatureOptions(f"common_voice:{packed}", out, workers=1))
    assert {split: found["shards"] for split, found in result.splits.items()} == {"train": 2, "dev": 1, "test": 1}
    return out


def digests(store: Path) -> dict[str, str]:
    return {str(path.relative_to(store)): file_sha256(path) for path in store.rglob("*") if path.is_file()}


def lengua(*arguments: str, mark: str, cwd: Path, **environment: str) -> subprocess.Popen:
    """Start a command of lengua; all that it starts in turn carries the mark."""
    return subprocess.Popen(
        [sys.executable, "-m", "lengua", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "LENGUA_TEST": mark, **environment},
        cwd=cwd,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def marked(mark: str) -> list[str]:
    """Return the processes that carry a mark."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("LENGUA_TEST") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
    return found


def wait_for(condition, seconds: float) -> bool:
    """Return whether a condition comes true in time."""
    end = time.monotonic() + seconds
    while not (true := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return bool(true)


# What needs no Ray


def test_a_missing_ray_is_explained(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RequestError, match=r"the package ray.*pip install 'lengua\[ray\]'"):
        features.build(FeatureOptions(tiny_folder, tmp_path / "store", language="es", engine="ray"))


def test_files_that_a_machine_does_not_see_are_told(tmp_path):
    (tmp_path / "plan").touch()
    (tmp_path / "a.wav").touch()
    clips = [Dropped("x", "no text"), Utterance("a", tmp_path / "a.wav", "hola", "es", "x")]
    task = features.ShardTask("train", tmp_path / "shard", 2, clips)
    ray_engine.require_visible(task, tmp_path / "plan")
    with pytest.raises(LenguaError, match=r"every machine of the cluster sees; found no .*other"):
        ray_engine.require_visible(task, tmp_path / "other")
    (tmp_path / "a.wav").unlink()
    with pytest.raises(LenguaError, match=r"found no .*a\.wav on "):
        ray_engine.require_visible(task, tmp_path / "plan")
    ray_engine.require_visible(
        features.ShardTask("train", tmp_path, 1, [Utterance("a", b"", "", "", "")]), tmp_path / "plan"
    )


def test_a_cluster_that_does_not_answer_is_told_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    for form in (address, f"ray://{address}"):
        with pytest.raises(OSError, match="refused"):
            ray_engine._require_listening(form)
    ray_engine._require_listening("local")
    ray_engine._require_listening("auto")
    error = ray_engine._connection_error(address, ConnectionRefusedError("refused"))
    assert isinstance(error, RequestError) and f"at {address} (RAY_ADDRESS)" in str(error)


def test_a_failure_travels_with_what_it_was():
    failure = ray_engine._failure(RequestError("a", "b", "c"), in_work=True)
    assert str(pickle.loads(pickle.dumps(failure)).error) == "expected a; found b; c"


# The same by Ray


@by_ray
@pytest.mark.parametrize("form", ["packed", "release"])
def test_a_store_has_the_same_bytes_as_by_the_local_engine(form, packed, release, local_store, running_ray, tmp_path):
    source = f"common_voice:{packed if form == 'packed' else release}"
    told = []
    result = features.build(FeatureOptions(source, tmp_path / "store", engine="ray"), told.append)
    assert result.built and sum(split["utterances"] for split in result.splits.values()) == CLIPS
    assert result.dropped["missing clip"]["count"] == 1
    assert told[0].done == 0 and told[-1].done == told[-1].total == CLIPS + 1
    assert digests(tmp_path / "store") == digests(local_store)


@by_ray
def test_a_folder_of_recordings_has_the_same_bytes(tiny_folder, tiny_store, tiny_model, running_ray, tmp_path):
    options = FeatureOptions(tiny_folder, tmp_path / "store", language="es", base=str(tiny_model), engine="ray")
    features.build(options)
    assert digests(tmp_path / "store") == digests(tiny_store.path)


@by_ray
def test_ray_goes_on_with_what_the_local_engine_began(packed, local_store, running_ray, tmp_path):
    class Stop(Exception):
        pass

    def stop(progress):
        if progress.done:
            raise Stop

    options = FeatureOptions(f"common_voice:{packed}", tmp_path / "store", workers=1)
    with pytest.raises(Stop):
        features.build(options, stop)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("*/shard-*.parquet")}
    (tmp_path / "store/train/.shard-00001.parquet.4711").write_bytes(b"half")
    features.build(FeatureOptions(options.source, options.out, engine="ray"))
    assert len(made) == 1 and all(path.stat().st_mtime_ns == before for path, before in made.items())
    assert digests(tmp_path / "store") == digests(local_store)


# Work of any kind


@by_ray
def test_reading_does_not_run_far_ahead_of_the_work(running_ray, tmp_path):
    """So that an archive of any size streams through: 640 MB here, of which the two cores are allowed 128."""
    count, size = 40, 16 * 2**20
    allowed = 2 * ray_engine.PREFETCH_BYTES_PER_CORE // size
    tasks = partial(jobs, count, size, tmp_path / "read")
    finished, ahead = set(), []
    for job in ray_engine.map_on_ray(partial(done, seconds=0.15), tasks):
        finished.add(job.number)
        ahead.append(len((tmp_path / "read").read_text().split()) - len(finished))
    assert finished == set(range(count))
    assert 1 <= max(ahead) <= allowed + 6, f"read {max(ahead)} ahead where {allowed} should lie ready"


@by_ray
@pytest.mark.parametrize("workers", [1, None])
def test_no_more_cores_work_than_were_asked_for(workers, running_ray):
    spans = sorted(ray_engine.map_on_ray(timed, partial(jobs, 8), workers))
    together = [first[1] > second[0] for first, second in pairwise(spans)]
    assert any(together) is (workers is None), "two cores overlap, one cannot"


@by_ray
def test_a_task_larger_than_all_that_may_lie_ready_is_done(running_ray):
    tasks = partial(jobs, 3, 2 * 2 * ray_engine.PREFETCH_BYTES_PER_CORE)
    assert sorted(job.number for job in ray_engine.map_on_ray(done, tasks)) == [0, 1, 2]


@by_ray
def test_what_the_work_raises_comes_out_as_it_was(running_ray):
    with pytest.raises(RequestError, match="expected another number; found 3; take 4") as caught:
        list(ray_engine.map_on_ray(refuse_three, partial(jobs, 8)))
    assert "refuse_three" in str(caught.value.__cause__), "where it happened, for --debug"
    with pytest.raises(RuntimeError, match="Unpicklable: no way out"):
        list(ray_engine.map_on_ray(break_down, partial(jobs, 1)))


@by_ray
@pytest.mark.parametrize("error", [LenguaError("a whole archive", "half", "again"), OSError(28, "No space left")])
def test_what_the_source_raises_comes_after_the_work_on_all_that_it_gave(error, running_ray):
    finished = []
    with pytest.raises(type(error)) as caught:
        for job in ray_engine.map_on_ray(done, partial(jobs, 8, error=error)):
            finished.append(job.number)
    assert str(caught.value) == str(error)
    assert sorted(finished) == list(range(8))


@by_ray
def test_nothing_is_read_any_more_once_the_caller_has_enough(running_ray, tmp_path):
    with closing(ray_engine.map_on_ray(done, partial(jobs, 10_000, 2**20, tmp_path / "read"))) as each:
        next(each)
    assert wait_for(lambda: stands_still(tmp_path / "read"), 20)
    assert len((tmp_path / "read").read_text().split()) < 10_000


def stands_still(log: Path) -> bool:
    before = log.read_text()
    time.sleep(1)
    return log.read_text() == before


# The command


@by_ray
def test_ctrl_c_ends_the_command_and_its_ray_and_the_next_one_goes_on(packed, local_store, authority, tmp_path):
    mark = uuid.uuid4().hex
    command = ["features", f"common_voice:{packed}", "--out", "store", "--engine", "ray", "--workers", "1"]
    process = lengua(*command, mark=mark, cwd=tmp_path)
    try:
        assert wait_for(lambda: list(tmp_path.glob("store/train/shard-*")) or process.poll() is not None, 120)
        os.killpg(process.pid, signal.SIGINT)
        errors = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors and "ray" not in errors.lower(), errors
    assert wait_for(lambda: not marked(mark), 20), marked(mark)
    assert not is_store(tmp_path / "store") and (tmp_path / "store/building.json").is_file()
    process = lengua(*command, mark=mark, cwd=tmp_path)
    assert wait_for(lambda: len(marked(mark)) > 1, 60), "a mark that nothing carries would prove nothing"
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors
    assert all(line.startswith("features: ") for line in errors.splitlines()), errors
    assert digests(tmp_path / "store") == digests(local_store)
    assert wait_for(lambda: not marked(mark), 20), marked(mark)


@by_ray
def test_a_cluster_of_two_machines_is_joined_and_left(packed, release, local_store, authority, tmp_path):
    """Two nodes of one core each, both on this machine; paths are relative to a folder that they do not know."""
    shutil.copy(packed, tmp_path / "es.tar.gz")
    shutil.copytree(release.parent, tmp_path / "cv-corpus-25.0-2026-03-09")
    (tmp_path / "elsewhere").mkdir()
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        cwd=tmp_path / "elsewhere",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        host, _, port = (address := cluster.stdout.readline().strip()).rpartition(":")
        for name in ("es.tar.gz", "cv-corpus-25.0-2026-03-09/es"):
            command = ["features", f"common_voice:{name}", "--out", f"stores/{len(name)}", "--engine", "ray"]
            process = lengua(*command, mark="cluster", cwd=tmp_path, RAY_ADDRESS=address)
            errors = process.communicate(timeout=120)[1]
            assert process.returncode == 0, errors
            assert digests(tmp_path / f"stores/{len(name)}") == digests(local_store)
            socket.create_connection((host, int(port)), 5).close()
    finally:
        cluster.communicate("", timeout=60)
    assert cluster.returncode == 0
