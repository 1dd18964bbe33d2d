"""Which of how many processes of one run this is, as torchrun and accelerate tell it."""

import os


def rank_and_ranks() -> tuple[int, int]:
    """Return (rank, ranks); a process alone is (0, 1)."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def leads() -> bool:
    """Return whether this process is the one that writes and speaks for all."""
    return rank_and_ranks()[0] == 0
