"""The source of all randomness in training: what is drawn for a clip depends on (seed, epoch, id) and on nothing else.

So it is the same in any process, and a run that was killed goes on with what it would have drawn.
"""

from hashlib import blake2b


def keyed_uniform(seed: int, epoch: int, id: str, what: str) -> float:
    """Return a number in [0, 1) that depends on its arguments alone."""
    digest = blake2b(f"{seed}\0{epoch}\0{id}\0{what}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
