"""What fine-tuning changed, clip by clip: which got better, which worse, and texts that both models doubt.

for change in changes(reading.pairs):
    print(change.gained, change.before, change.after)
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lengua.text import normalise

Pair = tuple[dict, dict]
"""Records of one clip, before and after."""
MOSTLY = 0.5  # of the words: one word misheard alike is a word both find hard, half a sentence is another sentence
FEW_WORDS = 3  # below, two models easily agree on one wrong word


@dataclass(frozen=True)
class Change:
    """One clip before and after."""

    id: str
    reference: str
    before: str
    after: str
    errors_before: int
    errors_after: int

    @property
    def gained(self) -> int:
        """Errors that went; below 0, that came."""
        return self.errors_before - self.errors_after


def changes(pairs: Sequence[Pair]) -> list[Change]:
    """Return a change for each clip, what got worse first; of equal ones, by id."""
    found = [
        Change(
            after["id"],
            after["reference"],
            before["hypothesis"],
            after["hypothesis"],
            before["counts"]["errors"],
            after["counts"]["errors"],
        )
        for before, after in pairs
    ]
    return sorted(found, key=lambda change: (change.gained, change.id))


def doubtful(pairs: Sequence[Pair]) -> list[Change]:
    """Return clips whose text may be wrong: both models write the same words, and mostly not those of the text.

    Most errors first. Both may be wrong alike; the ear decides.
    """
    return sorted(
        (change for change in changes([pair for pair in pairs if _is_doubtful(*pair)])),
        key=lambda change: (-change.errors_after, change.id),
    )


def _is_doubtful(before: dict, after: dict) -> bool:
    heard, counts = normalise(after["hypothesis"]), after["counts"]
    alike = bool(heard) and heard == normalise(before["hypothesis"])
    return alike and counts["words"] >= FEW_WORDS and counts["errors"] >= MOSTLY * counts["words"]
