"""The pieces of a reply, read by a thread of their own, so that who waits for them can leave at any moment.

Gradio closes a generator that is stopped or whose visitor left, and while the generator hangs in a server that says
nothing it holds a lock that every other visitor's reply needs. This one is never longer than `PATIENCE_S` away.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from queue import Empty, SimpleQueue

PATIENCE_S = 0.25
TOGETHER_S = 0.04
"""Pieces that come faster are shown together: a page has no use for more than 25 pictures a second."""


class _End:
    """The last thing in the queue: why it ended."""

    def __init__(self, error: BaseException | None = None):
        self.error = error


def flowing(pieces: Iterator[str], ended: Callable[[], None]) -> Iterator[str]:
    """Yield what came since the last time: the first piece at once, an empty text where nothing came for a while.

    Args:
        ended: called when nothing reads the pieces any more, which can be later than who waits for them has left.

    Raises:
        Exception: what the pieces raised, after all that came before it.
    """
    queue, left = SimpleQueue(), threading.Event()
    threading.Thread(target=_read, args=(pieces, queue, left, ended), name="reply", daemon=True).start()
    try:
        end = None
        while end is None:
            text, end = _taken(queue)
            yield text
            time.sleep(TOGETHER_S if text and end is None else 0)
    finally:
        left.set()
    if end.error is not None:
        raise end.error


def _read(pieces: Iterator[str], queue: SimpleQueue, left: threading.Event, ended: Callable[[], None]) -> None:
    end = _End()
    try:
        with closing(pieces):
            for piece in pieces:
                queue.put(piece)
                if left.is_set():
                    break
    except Exception as error:  # for who waits
        end = _End(error)
    finally:
        ended()
        queue.put(end)


def _taken(queue: SimpleQueue) -> tuple[str, _End | None]:
    """Return all that is in the queue, after a wait where it is empty, and the end where that is in it."""
    texts, wait_s = [], PATIENCE_S
    while True:
        try:
            item = queue.get(timeout=wait_s)
        except Empty:
            return "".join(texts), None
        if isinstance(item, _End):
            return "".join(texts), item
        texts.append(item)
        wait_s = 0.0
