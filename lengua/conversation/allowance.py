"""How much of a free page one visitor, and all of them together, may use in a day. In memory only; the clock is given.

    allowance = Allowance()
    visitor = allowance.visitor(address_of(request.client.host, request.headers.get("x-forwarded-for")))
    allowance.turn(visitor)                                           # a recording; False where none is left
    allowance.reply(visitor, responder.cost(turns, setting))          # False: see `left` for what there is none of

A visitor is a hash, salted anew each time the program starts: nobody can tell an address from it, or one day's visitors
from another's after a restart. Days end at midnight UTC. What was taken stays taken: a request that fails was one, too.
"""

import hashlib
import ipaddress
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

DAY_S = 86_400
What = Literal["turns", "replies", "tokens"]


@dataclass
class Taken:
    """What one visitor took today."""

    turns: int = 0
    replies: int = 0


class Allowance:
    """Counts what is taken. Safe to share between threads.

    Args:
        turns: recordings a visitor may have transcribed in a day.
        replies: a visitor may ask for in a day.
        tokens: of all replies to all visitors in a day, as `Responder.cost` tells them: the cap of what a day costs.
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
        self.limits: dict[What, int] = {"turns": turns, "replies": replies, "tokens": tokens}
        self.visitors = visitors
        self._now, self._salt, self._lock = now, secrets.token_bytes(16), threading.Lock()
        self._day, self._tokens = 0, 0
        self._taken: OrderedDict[str, Taken] = OrderedDict()

    def visitor(self, *marks: str | None) -> str:
        """Return who this is: the hash of an address, and of whatever else tells visitors apart."""
        told = "\0".join(mark or "" for mark in marks).encode(errors="replace")
        return hashlib.blake2b(told, key=self._salt, digest_size=12).hexdigest()

    def turn(self, visitor: str) -> bool:
        """Count a recording; False, and nothing is counted, where it would be one too many."""
        with self._lock:
            taken = self._of(visitor)
            if taken.turns >= self.limits["turns"]:
                return False
            taken.turns += 1
            return True

    def reply(self, visitor: str, tokens: int = 0) -> bool:
        """Count a reply and what it may cost; False, and nothing is counted, where it would be too much.

        What costs nothing, such as the tutor, goes on when the tokens of the day are used up.
        """
        with self._lock:
            taken = self._of(visitor)
            if taken.replies >= self.limits["replies"] or (tokens and self._tokens + tokens > self.limits["tokens"]):
                return False
            taken.replies += 1
            self._tokens += tokens
            return True

    def left(self, visitor: str) -> dict[What, int]:
        """Return what is left for today."""
        with self._lock:
            taken = self._of(visitor)
            used = {"turns": taken.turns, "replies": taken.replies, "tokens": self._tokens}
        return {what: max(0, limit - used[what]) for what, limit in self.limits.items()}

    def _of(self, visitor: str) -> Taken:
        """Return what a visitor took today; at most `visitors` are remembered."""
        day = int(self._now() // DAY_S)
        if day != self._day:
            self._day, self._tokens = day, 0
            self._taken.clear()
        taken = self._taken.setdefault(visitor, Taken())
        self._taken.move_to_end(visitor)
        while len(self._taken) > self.visitors:
            self._taken.popitem(last=False)
        return taken


def address_of(host: str | None, forwarded: str | None = None) -> str:
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
