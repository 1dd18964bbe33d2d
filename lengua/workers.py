"""Work spread over processes: results in the order of the tasks, a few under way at a time.

    for done in each(write_task, tasks, workers=2): ...

Tasks are taken as workers become free, so that memory does not grow with their number.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

Task = TypeVar("Task")
Done = TypeVar("Done")


def each(work: Callable[[Task], Done], tasks: Iterable[Task], workers: int | None = None) -> Iterator[Done]:
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
            with _held_back():
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
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_follow_the_parent) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


@contextmanager
def _held_back() -> Iterator[None]:
    """Hold Ctrl-C back for a moment: a process is then started whole, and deaf to it until it chooses to be."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    heard, alone = [], threading.current_thread() is threading.main_thread()  # no other may set a handler, or is hit
    handler = signal.signal(signal.SIGINT, lambda *_: heard.append(True)) if alone else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # this is what a new process inherits
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if alone:
            signal.signal(signal.SIGINT, handler)
    if heard:
        signal.raise_signal(signal.SIGINT)


def _follow_the_parent() -> None:
    """Leave Ctrl-C to the parent, so that a task under way is finished and kept; end when the parent was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
