"""Limits: which recordings are admitted, one at a time over all tabs, and how much a visitor may use in a day.

    allowance = Allowance()
    visitor = allowance.visitor(visitor_address(request.client.host, request.headers.get("x-forwarded-for")))
    allowance.turn(visitor)                                           # a recording; False if none is left
    allowance.reply(visitor, responder.cost(turns, setting))          # False: `left` says what is used up

They are checked inside the functions, because a program that calls the endpoints gets around the limits of the
browser and of Gradio's queue. A visitor is a hash with a salt of this start of the program, so no address can be
recovered, and visitors of one day are unknown after a restart. Days end at midnight UTC. What was taken stays taken,
also by a request that fails. Everything is in memory.
"""

import hashlib
import ipaddress
import secrets
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from lengua import audio
from lengua.audio import log_mel
from lengua.inference import hallucinations
from lengua.runtime.errors import RequestError

if TYPE_CHECKING:
    import gradio as gr

SECONDS_PER_DAY = 86_400
FULL_WINDOW_S = log_mel.WINDOW_SAMPLES / audio.SAMPLE_RATE
"""The model decodes so much at once; training drops what is longer."""
AllowanceKind = Literal["turns", "replies", "tokens"]


class Allowance:
    """Counts what is taken. Safe to share between threads.

    Args:
        turns: recordings a visitor may have transcribed in a day.
        replies: a visitor may ask for in a day.
        tokens: of all replies to all visitors in a day, as `Responder.cost` tells them: the cap of its costs.
        visitors: who are remembered; of more, those who were not seen for longest are forgotten.
        now: seconds since 1970.
    """

    def __init__(
        self,
        turns: int = 300,
        replies: int = 150,
        tokens: int = 2_000_000,
        visitors: int = 10_000,
        now: Callable[[], float] = time.time,
    ):
        self.limits: dict[AllowanceKind, int] = {"turns": turns, "replies": replies, "tokens": tokens}
        self.visitors = visitors
        self._now, self._salt, self._lock = now, secrets.token_bytes(16), threading.Lock()
        self._day, self._tokens = 0, 0
        self._taken: OrderedDict[str, Counter] = OrderedDict()

    def visitor(self, *marks: str | None) -> str:
        """Return the hash of an address, and of whatever else tells visitors apart."""
        joined = "\0".join(mark or "" for mark in marks).encode(errors="replace")
        return hashlib.blake2b(joined, key=self._salt, digest_size=12).hexdigest()

    def turn(self, visitor: str) -> bool:
        """Count a recording; False, and nothing is counted, where it would be one too many."""
        return self._take(visitor, "turns")

    def reply(self, visitor: str, tokens: int = 0) -> bool:
        """Count a reply and what it may cost; False, and nothing is counted, where it would be too much.

        What costs nothing, such as the tutor, goes on when the tokens of the day are used up.
        """
        return self._take(visitor, "replies", tokens)

    def left(self, visitor: str) -> dict[AllowanceKind, int]:
        """Return what is left for today."""
        with self._lock:
            used = {**self._today(visitor), "tokens": self._tokens}
        return {kind: max(0, limit - used.get(kind, 0)) for kind, limit in self.limits.items()}

    def _take(self, visitor: str, kind: AllowanceKind, tokens: int = 0) -> bool:
        with self._lock:
            taken = self._today(visitor)
            if taken[kind] >= self.limits[kind] or (tokens and self._tokens + tokens > self.limits["tokens"]):
                return False
            taken[kind] += 1
            self._tokens += tokens
            return True

    def _today(self, visitor: str) -> Counter:
        day = int(self._now() // SECONDS_PER_DAY)
        if day != self._day:
            self._day, self._tokens = day, 0
            self._taken.clear()
        taken = self._taken.setdefault(visitor, Counter())
        self._taken.move_to_end(visitor)
        while len(self._taken) > self.visitors:
            self._taken.popitem(last=False)
        return taken


def visitor_address(host: str | None, forwarded: str | None = None) -> str:
    """Return the address that a request came from, an IPv6 one as its /64, which is what one household has.

    Args:
        host: who is connected. A proxy, as before a Space, has an address of its own network.
        forwarded: the X-Forwarded-For header. It counts only behind a proxy, and of it only the last entry, which the
            proxy wrote; the ones before it are whatever the visitor sent.
    """
    address = _parsed(host)
    last = (forwarded or "").rpartition(",")[2].strip()
    if last and (address is None or address.is_private or address.is_loopback):
        address = _parsed(last) or address
    if address is None:
        return ""
    return str(address if address.version == 4 else ipaddress.ip_network((address, 64), strict=False))


def _parsed(text: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    bare = (text or "").strip()
    if bare.startswith("["):  # [2001:db8::1]:443
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:  # 203.0.113.7:443
        bare = bare.partition(":")[0]
    try:
        address = ipaddress.ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@dataclass(frozen=True)
class Limits:
    """Bounds of the app, the same for every visitor."""

    seconds: float = 15 * 60
    """Of the longest recording."""
    shortest_s: float = 0.2
    bytes: int = 64 * 2**20
    """Of the biggest file; 15 minutes of the page's own recording are 29 MB."""
    line: int = 24
    """Recordings that are decoded or wait for it, at once."""


class Refusal(Exception):
    """Something that is not admitted: the key of the sentence that a visitor reads, and its values."""

    def __init__(self, key: str, **values):
        super().__init__(key)
        self.key, self.values = key, values


class Admission:
    """The limits, the queue before the transcriber, and who had how much today. Thread-safe."""

    def __init__(self, limits: Limits = Limits(), allowance: Allowance | None = None):
        self.limits, self.allowance = limits, allowance or Allowance()
        self.line = TranscriberQueue(limits.line)

    def visitor(self, request: "gr.Request | None") -> str:
        """Return the hash that stands for whoever asks."""
        if request is None:
            return self.allowance.visitor()
        host = request.client.host if request.client else None
        address = visitor_address(host, request.headers.get("x-forwarded-for"))
        return self.allowance.visitor(address, request.headers.get("user-agent"))

    def admit(self, recording: str | None, request: "gr.Request | None") -> np.ndarray | None:
        """Return the samples of a short recording, None for a long one, which is to be read while it is decoded.

        Raises:
            Refusal: as `load`; or it is silent; the queue is full; or today was enough.
        """
        samples = self.load(recording)
        if samples is not None and hallucinations.silence_reason(samples):
            raise Refusal("refusal.silent")
        if len(self.line) >= self.line.places:  # before it counts as a turn of today
            raise Refusal("refusal.busy")
        if not self.allowance.turn(self.visitor(request)):
            raise Refusal("refusal.enough_today")
        return samples

    def load(self, recording: str | None) -> np.ndarray | None:
        """Return the samples of a recording of at most 30 s, None for a longer one; both within the limits.

        Raises:
            Refusal: it is missing, empty, too big, too long, too short, or not audio.
        """
        if not recording:
            raise Refusal("refusal.missing")
        size = Path(recording).stat().st_size
        if not size:
            raise Refusal("refusal.empty")
        if size > self.limits.bytes:
            raise Refusal("refusal.too_big", megabytes=self.limits.bytes >> 20)
        try:
            declared_s = audio.recording_info(recording).duration_s or 0.0
            samples = audio.load(recording, max_seconds=FULL_WINDOW_S + 1)
        except RequestError as error:
            raise as_refusal(error) from error
        seconds = audio.duration_s(samples)
        if seconds < self.limits.shortest_s:
            raise Refusal("refusal.too_short")
        if max(declared_s, seconds) > self.limits.seconds:
            raise Refusal("refusal.too_long", minutes=round(self.limits.seconds / 60))
        return samples if seconds <= FULL_WINDOW_S else None


AUDIO_ERROR_PREFIXES = {
    "pictures": "no_sound",
    "no sound": "no_sound",
    "an empty": "empty",
    "no samples": "empty",
    "NaN": "broken",
}
"""How lengua.audio begins to say what it found."""


def as_refusal(error: RequestError) -> Refusal:
    """Return what to say of a recording that lengua.audio could not read."""
    key = next((key for sign, key in AUDIO_ERROR_PREFIXES.items() if error.found.startswith(sign)), "unreadable")
    return Refusal(f"refusal.{key}")


class TranscriberQueue:
    """Who waits for the one transcriber: first come, first served. Thread-safe.

    Gradio's queue has no sentence for who has to wait, or for whom there is no place; and it holds up everybody behind
    a long recording. This one does not: see `QueueTicket.let_others`.
    """

    def __init__(self, places: int):
        self.places = places
        self.tickets: list[QueueTicket] = []
        self.moved = threading.Condition()

    def __len__(self) -> int:
        return len(self.tickets)

    def enter(self) -> "QueueTicket":
        """Return a place at the end; leave it by its `with`.

        Raises:
            Refusal: there is none left.
        """
        with self.moved:
            if len(self.tickets) >= self.places:
                raise Refusal("refusal.busy")
            self.tickets.append(ticket := QueueTicket(self))
        return ticket


class QueueTicket:
    """A place in the queue."""

    def __init__(self, line: TranscriberQueue):
        self.line = line

    def __enter__(self) -> "QueueTicket":
        return self

    def __exit__(self, *error) -> None:
        with self.line.moved:
            self.line.tickets.remove(self)
            self.line.moved.notify_all()

    def wait(self, seconds: float) -> int:
        """Return how many are ahead: 0 as soon as nobody is, else after so many seconds."""
        with self.line.moved:
            self.line.moved.wait_for(lambda: self.line.tickets[0] is self, seconds)
            return self.line.tickets.index(self)

    def let_others(self) -> None:
        """Go to the end of the queue; wait for the turn again."""
        with self.line.moved:
            self.line.tickets.remove(self)
            self.line.tickets.append(self)
            self.line.moved.notify_all()
