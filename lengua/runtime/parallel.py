"""Work in parallel: processes that keep the order of the tasks, and a thread that prefetches.

    for done in map_in_processes(write_task, tasks, workers=2): ...

Tasks are taken as workers become free, so memory does not grow with their number. `Prefetcher` fetches the next items
while the last ones are processed; waiting for an item has a time limit.
"""

import atexit
import multiprocessing
import os
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

Task = TypeVar("Task")
TaskResult = TypeVar("Done")


def map_in_processes(
    work: Callable[[Task], TaskResult], tasks: Iterable[Task], workers: int | None = None
) -> Iterator[TaskResult]:
    """Yield what `work` returns for each task, in their order.

    Args:
        workers: processes; None takes one for each core. One works here: a process would only cost its start.
    """
    workers = workers or os.cpu_count() or 1
    if workers == 1:
        yield from map(work, tasks)
        return
    running: deque = deque()
    with _pool(workers) as pool:
        for task in tasks:
            with _sigint_blocked():
                running.append(pool.submit(work, task))
            while len(running) >= 2 * workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def batched(items: Iterable[Task], size: int) -> Iterator[tuple[Task, ...]]:
    """Yield items in batches of one size, the last of which may be smaller."""
    items = iter(items)
    while batch := tuple(islice(items, size)):
        yield batch


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Give worker processes; when something fails, tasks under way are finished and the others not begun."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_init_worker) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Hold Ctrl-C back for a moment: a process is then started whole, and deaf to it until it chooses to be."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    pending, alone = [], threading.current_thread() is threading.main_thread()  # no other may set a handler, or is hit
    handler = signal.signal(signal.SIGINT, lambda *_: pending.append(True)) if alone else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # this is what a new process inherits
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if alone:
            signal.signal(signal.SIGINT, handler)
    if pending:
        signal.raise_signal(signal.SIGINT)


def _init_worker() -> None:
    """Leave Ctrl-C to the parent, so that a task under way is finished and kept; end when the parent was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


Item = TypeVar("Item")
THREAD_JOIN_TIMEOUT_S = 3.0
"""How long a thread that is not needed any more may take to let go before it is left to itself."""
EXIT_JOIN_TIMEOUT_S = 60.0
"""How long Python waits for such a thread when it ends: a thread inside of Arrow would take it down with an abort."""


@contextmanager
def closing_if_closable(items: Iterator[Item]) -> Iterator[Iterator[Item]]:
    """Close a generator in the thread that ran it; other iterators have nothing to close."""
    try:
        yield items
    finally:
        if close := getattr(items, "close", None):
            close()


class Prefetcher:
    """An iterator over `items`, which a thread of its own reads, at most `depth` ahead.

    What the items raise is raised where the item is missed. TimeoutError is raised when none comes for `patience_s`:
    whatever keeps the thread is then left behind. None waits as long as it takes.
    """

    def __init__(self, items: Iterable[Item], patience_s: float | None, depth: int = 16):
        self.items, self.patience_s = items, patience_s
        self.ready: queue.Queue = queue.Queue(depth)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._read, daemon=True)

    def __iter__(self) -> Iterator[Item]:
        self.thread.start()
        try:
            while True:
                kind, value = self._next()
                if kind == "error":
                    raise value
                if kind == "end":
                    return
                yield value
        finally:
            self.stopped.set()
            self.thread.join(THREAD_JOIN_TIMEOUT_S)
            if self.thread.is_alive():
                atexit.register(self.thread.join, EXIT_JOIN_TIMEOUT_S)

    def _next(self) -> tuple[str, Item | BaseException | None]:
        try:
            return self.ready.get(timeout=self.patience_s)
        except queue.Empty:
            raise TimeoutError(f"nothing came for {self.patience_s:g} s") from None

    def _read(self) -> None:
        try:
            with closing_if_closable(iter(self.items)) as items:
                for item in items:
                    if not self._put("item", item):
                        return
            self._put("end", None)
        except BaseException as error:  # to be raised again, by whoever waits for the item
            self._put("error", error)

    def _put(self, kind: str, value) -> bool:
        """Hand over, as soon as there is room; return whether anyone still wants it."""
        while not self.stopped.is_set():
            try:
                self.ready.put((kind, value), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False


def call_with_timeout(patience_s: float, call) -> Item:
    """Return what `call` returns, or raise TimeoutError when it does not return in time."""
    return next(iter(Prefetcher((call() for call in [call]), patience_s)))
