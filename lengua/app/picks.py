"""Which of two transcripts a reader found right, and whether so many picks mean anything. Pure: no page in here.

pair = Pair(left="hola", right="ola", tuned="left")
tally = Tally((Pick(pair, "left"),))
tally.counts["tuned"] == 1
by_chance(9, 0) == 10 / 512        if both models were alike, 9 to 0 comes in one visit of 51
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import comb
from typing import Literal

from lengua.text import normalise

Side = Literal["left", "right"]
Choice = Literal["left", "right", "both", "none"]
WINNERS = ("tuned", "base", "both", "none")
MEANS_SOMETHING = 0.05
"""A count that chance gives to at most one visit in twenty is called one that means something."""
MOST_PICKS = 500
"""In one visit."""


@dataclass(frozen=True)
class Pair:
    """What two models heard in one clip, in the order in which it was shown."""

    left: str
    right: str
    tuned: Side
    """Where the fine-tuned model stood."""
    seen: bool = False
    """The reader could have read the fine-tuned model's text before, so the pick is not blind."""
    seconds: float = 0.0
    """Of the clip."""

    @property
    def alike(self) -> bool:
        """Whether both heard the same words: there is nothing to pick."""
        return normalise(self.left) == normalise(self.right)


@dataclass(frozen=True)
class Pick:
    """What a reader picked."""

    pair: Pair
    choice: Choice

    @property
    def winner(self) -> str:
        """One of WINNERS."""
        if self.choice in ("both", "none"):
            return self.choice
        return "tuned" if self.choice == self.pair.tuned else "base"


@dataclass(frozen=True)
class Tally:
    """All picks of a visit."""

    picks: tuple[Pick, ...] = ()
    alike: int = 0
    """Clips in which both models heard the same words."""

    @property
    def counts(self) -> dict[str, int]:
        """How often each won, over the picks that were blind."""
        found = Counter(pick.winner for pick in self.picks if not pick.pair.seen)
        return {winner: found[winner] for winner in WINNERS}

    @property
    def seen(self) -> int:
        """Picks that do not count, because the text had been in sight."""
        return sum(pick.pair.seen for pick in self.picks)


def by_chance(tuned: int, base: int) -> float:
    """Return a bound on how many visits would ever show such a count if both models were alike; at most 1.

    The reader sees the count after every pick and stops when it pleases, so a usual test would promise too much. This
    is one over the martingale of the uniform mixture, 2^n / ((n + 1) C(n, k)): Ville's inequality holds however often
    one looks (Robbins 1970, Annals of Mathematical Statistics 41(5)). Picks of both and none say nothing here.
    """
    n = tuned + base
    return min(1.0, (n + 1) * comb(n, tuned) / 2**n)


def still_needed(tuned: int, base: int) -> int:
    """Return how many picks more, all for the one that leads, it takes until the count means something."""
    more, leads, trails = 0, max(tuned, base), min(tuned, base)
    while by_chance(leads + more, trails) > MEANS_SOMETHING:
        more += 1
    return more


FEWEST = still_needed(0, 0)
"""Picks below which no count means anything, not even all for one."""


def as_json(tally: Tally, tuned: str, base: str, verdict: str) -> str:
    """Return all picks as JSON; tuned and base are the names of the models, verdict the sentence of the page."""
    told = {
        "models": {"tuned": tuned, "base": base},
        "counts": tally.counts | {"alike": tally.alike, "not_blind": tally.seen},
        "by_chance": by_chance(tally.counts["tuned"], tally.counts["base"]),
        "verdict": verdict,
        "picks": [_row(pick) for pick in tally.picks],
    }
    return json.dumps(told, indent=2, ensure_ascii=False) + "\n"


def as_csv(tally: Tally) -> str:
    """Return all picks as CSV. A text that a spreadsheet would take for a formula gets an apostrophe in front."""
    rows = [{name: _harmless(cell) for name, cell in _row(pick).items()} for pick in tally.picks]
    written = io.StringIO(newline="")
    writer = csv.DictWriter(written, list(_row(Pick(Pair("", "", "left"), "none"))))
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue()


def _row(pick: Pick) -> dict:
    pair = pick.pair
    tuned, base = (pair.left, pair.right) if pair.tuned == "left" else (pair.right, pair.left)
    row = {"picked": pick.winner, "side": pick.choice, "blind": not pair.seen, "seconds": round(pair.seconds, 2)}
    return row | {"tuned": tuned, "base": base}


def _harmless(cell):
    formula = isinstance(cell, str) and cell.lstrip().startswith(("=", "+", "-", "@"))
    return f"'{cell}" if formula or (isinstance(cell, str) and cell[:1] in "\t\r" and cell) else cell


def verdict(tally: Tally, said: Callable[..., str]) -> str:
    """Return the counts in words, and how much they mean.

    Args:
        said: gives the sentence of a key, its values filled in: `functools.partial(wording.said, request)`.
    """
    counts = tally.counts
    tuned, base = counts["tuned"], counts["base"]
    chance = by_chance(tuned, base)
    sentences = [said("mirror.count", **counts)]
    if chance <= MEANS_SOMETHING:
        leader = said("mirror.tuned" if tuned > base else "mirror.base")
        sentences.append(said("mirror.means", odds=int(1 / chance), leader=leader))
    else:
        sentences.append(said("mirror.chance", more=still_needed(tuned, base), fewest=FEWEST))
    for key, count in (("mirror.seen", tally.seen), ("mirror.also_alike", tally.alike)):
        if count:
            sentences.append(said(key, count=count))
    return " ".join(sentences)
