"""Reading ahead: a thread fetches the next items while the last are worked on, and waiting for one comes to an end."""

import atexit
import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
PARTING_S = 3.0
"""How long a thread that is not needed any more may take to let go before it is left to itself."""
LAST_WAIT_S = 60.0
"""How long Python waits for such a thread when it ends: a thread inside of Arrow would take it down with an abort."""


@contextmanager
def closing_if_it_can(items: Iterator[Item]) -> Iterator[Iterator[Item]]:
    """Close a generator in the thread that ran it; other iterators have nothing to close."""
    try:
        yield items
    finally:
        if close := getattr(items, "close", None):
            close()


class Ahead:
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
            self.thread.join(PARTING_S)
            if self.thread.is_alive():
                atexit.register(self.thread.join, LAST_WAIT_S)

    def _next(self) -> tuple[str, Item | BaseException | None]:
        try:
            return self.ready.get(timeout=self.patience_s)
        except queue.Empty:
            raise TimeoutError(f"nothing came for {self.patience_s:g} s") from None

    def _read(self) -> None:
        try:
            with closing_if_it_can(iter(self.items)) as items:
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


def within(patience_s: float, call) -> Item:
    """Return what `call` returns, or raise TimeoutError when it does not return in time."""
    return next(iter(Ahead((call() for call in [call]), patience_s)))
