"""How a stage tells what it is doing. Stages send; the rim draws."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units of work in a named stage; `note` is a word on how it goes. Without a unit, a remark."""

    stage: str
    done: float
    total: float | None
    unit: str = "clips"
    note: str = ""


Watch = Callable[[Progress], None]


def unwatched(progress: Progress) -> None:
    """Watch nothing."""
