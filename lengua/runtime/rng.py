"""The source of all randomness in training: a draw for a clip depends on (seed, epoch, id) and on nothing else.

So every process draws the same, and a resumed run draws what it would have drawn without the interruption.
"""

from hashlib import blake2b


def keyed_uniform(seed: int, epoch: int, id: str, what: str) -> float:
    """Return a number in [0, 1) that depends on its arguments alone."""
    digest = blake2b(f"{seed}\0{epoch}\0{id}\0{what}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
