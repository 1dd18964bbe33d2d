"""Work in parallel on Ray: the cluster at RAY_ADDRESS, or a local Ray for this work alone.

    for done in map_on_ray(write_task, partial(plan_shards, source, options)): ...

One process, on the caller's machine, enumerates the tasks; Ray Data distributes them and applies backpressure, so an
archive of any size streams through. Tasks carry audio that they hold as bytes; paths must be valid on every machine.
"""

import gc
import logging
import os
import pickle
import platform
import socket
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.pool import RemoteTraceback
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from lengua.runtime.errors import LenguaError, RequestError

RayTask = TypeVar("Task")
RayTaskResult = TypeVar("Done")

RAY_ADDRESS_VARIABLE = "RAY_ADDRESS"
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Settings of Ray, unless they are set already: nothing is sent anywhere, and no hints are given."""
RAY_CONNECT_TIMEOUT_S = 5.0
PREFETCH_BYTES_PER_CORE = 64 * 2**20
"""Bytes for each core that may lie ready: some six shards of Common Voice."""
NO_PROGRESS_TIMEOUT_S = 3600.0
"""Ray begins a shard anew as often as it kills a worker, without end; nothing done for so long is a failure."""


def map_on_ray(
    work: Callable[[RayTask], RayTaskResult],
    tasks: Callable[[], Iterable[RayTask]],
    workers: int | None = None,
    shared: Path | None = None,
) -> Iterator[RayTaskResult]:
    """Yield what `work` returns for each task, in the order in which they are done.

    Args:
        tasks: called in a process of Ray's, once; called again only when that process was lost.
        workers: cores to work on; None takes all that there are. The walk through the tasks is not counted.
        shared: a file that is there; that no other machine sees it is reported before any work is done.

    Raises:
        RequestError: no ray, or no cluster where RAY_ADDRESS says.
        LenguaError: Ray gave up, or a machine does not see the files.
        Exception: what `work` raised, as it was; or what `tasks` raised, after the work on those that came before.
    """
    failed = None
    with _ray_logs_silenced(_import_ray()) as ray, _ray_session(ray, workers), _explaining_ray_errors(ray):
        rows = _pipeline(ray, work, tasks, workers, shared).iter_rows()
        with closing(iter(rows)) as rows:
            for row in rows:
                done = pickle.loads(row["task"])
                if not isinstance(done, RemoteFailure):
                    yield done
                elif done.in_work:
                    raise done.error from RemoteTraceback(done.trace)
                else:
                    failed = done
    if failed:
        raise failed.error from RemoteTraceback(failed.trace)


def _pipeline(ray, work: Callable, tasks: Callable, workers: int | None, shared: Path | None):
    """Return the data set whose rows are tasks done. The walk needs no core of its own: mostly, it waits.

    The walk is a generator in `map_batches` because Ray Data streams what it yields; a `Datasource` of our own would do
    the same through an interface for Ray's developers, which changes from release to release.
    """
    from ray.data.context import DataContext

    cores = workers or ray.cluster_resources().get("CPU", 1)
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1  # so that each task is a block of its own, which one worker takes
    context.execution_no_progress_timeout_s = NO_PROGRESS_TIMEOUT_S
    limits = context.execution_options.resource_limits
    context.execution_options.resource_limits = limits.copy(
        cpu=cores, object_store_memory=cores * PREFETCH_BYTES_PER_CORE
    )
    walk = TaskProducer(ray.put(tasks), os.getcwd())
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    with DataContext.current(context):
        walked = ray.data.from_items([0]).map_batches(walk, num_cpus=0, label_selector=here)
        return walked.map(TaskRunner(work, os.getcwd(), shared), num_cpus=1)


@dataclass(frozen=True)
class RemoteFailure:
    """An exception on its way to the caller; Ray would wrap it, log it, and try again."""

    error: Exception
    trace: str
    in_work: bool


@dataclass(frozen=True)
class TaskProducer:
    """The first step: tasks, one by one, each as a table of one cell."""

    tasks: Any
    """Where Ray holds the callable that gives them: a source that has looked over an archive is large."""
    folder: str
    """Where relative paths begin."""

    def __call__(self, _: dict) -> Iterator[pa.Table]:
        import ray

        os.chdir(self.folder)
        try:
            for task in ray.get(self.tasks)():
                yield _cell(task)
        except Exception as error:
            yield _cell(_failure(error, in_work=False))


@dataclass(frozen=True)
class TaskRunner:
    """The second step: one task, done."""

    work: Callable
    folder: str
    shared: Path | None

    def __call__(self, row: dict) -> dict[str, bytes]:
        with suppress(OSError):  # then only absolute paths are understood
            os.chdir(self.folder)
        task = pickle.loads(row["task"])
        if not isinstance(task, RemoteFailure):
            task = self._done(task)
        return {"task": pickle.dumps(task)}

    def _done(self, task):
        try:
            require_visible(task, self.shared)
            return self.work(task)
        except Exception as error:
            return _failure(error, in_work=True)


def require_visible(task, shared: Path | None) -> None:
    """Raise LenguaError where this machine does not see `shared`, or the first clip that the task names by its path."""
    named = (item.audio for item in getattr(task, "items", ()) if isinstance(getattr(item, "audio", None), Path))
    for path in (shared, next(named, None)) if shared else ():
        if path and not path.exists():
            do = "put --out, and clips that are files, where all of them see it under one path"
            raise LenguaError("files that every machine of the cluster sees", f"no {path} on {platform.node()}", do)


def _cell(value) -> pa.Table:
    return pa.table({"task": pa.array([pickle.dumps(value)], pa.large_binary())})  # large: over 2 GB are possible


def _failure(error: Exception, in_work: bool) -> RemoteFailure:
    trace = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # some exceptions cannot travel
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return RemoteFailure(error, trace, in_work)


def _import_ray():
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        do = "install it: pip install 'lengua[ray]'"
        raise RequestError("the package ray, for --engine ray", str(error), do) from error
    return ray


@contextmanager
def _ray_logs_silenced(ray) -> Iterator:
    """Keep Ray Data's own lines out of ours; after an error for good, for its threads outlive the session."""
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield ray
    logger.setLevel(level)


@contextmanager
def _ray_session(ray, workers: int | None) -> Iterator[None]:
    """Join the cluster of RAY_ADDRESS or start a Ray, and leave it again; one that this process has joined is kept."""
    if ray.is_initialized():
        yield
        return
    address = os.environ.get(RAY_ADDRESS_VARIABLE) or "local"
    own = {"num_cpus": workers or os.cpu_count(), "include_dashboard": False} if address == "local" else {}
    try:
        _require_listening(address)
        ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise _connection_error(address, error) from error
    try:
        yield
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # they hold iterators of Ray, which would start it again to end
        gc.collect()
        raise
    finally:
        ray.shutdown()


def _require_listening(address: str) -> None:
    """Raise OSError where nobody listens: Ray itself would try for more than ten minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), RAY_CONNECT_TIMEOUT_S).close()


def _connection_error(address: str, error: Exception) -> LenguaError:
    message = str(error).partition("\n")[0]
    if address == "local":
        return LenguaError("a Ray of this machine's own", message, "run it with --engine local")
    do = f"start it with `ray start --head`, set RAY_AUTH_MODE and its token as there, or unset {RAY_ADDRESS_VARIABLE}"
    return RequestError(f"a Ray cluster at {address} ({RAY_ADDRESS_VARIABLE})", message, do)


@contextmanager
def _explaining_ray_errors(ray) -> Iterator[None]:
    """Turn Ray's own failures into one sentence."""
    from ray.data.exceptions import ExecutionTimeoutError, SystemException

    try:
        yield
    except (ray.exceptions.RayError, ExecutionTimeoutError, SystemException) as error:
        message = f"{type(error).__name__}, {str(error).strip().splitlines()[-1]}"  # where a traceback says what it is
        do = "install the same lengua on every machine, and run it again: shards that are done are kept"
        raise LenguaError("Ray to finish every shard", message, do) from error
