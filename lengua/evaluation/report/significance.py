"""Better, worse or undecided, in words: a model against its opponent on the same clips, and the noise of that."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from lengua.evaluation.report.figures import BASE, order_rows
from lengua.evaluation.report.tables import with_interval
from lengua.scoring import WerDifference, compare_by_bootstrap, error_rate, percent

WORSE, UNDECIDED, BETTER = "worse", "undecided", "better"
MAX_NAMED_SETS = 4
"""Sets that a headline names; of more it tells the number."""
Pair = tuple[dict, dict]
"""Records of one clip: the opponent's and the model's."""


class Verdict(NamedTuple):
    """A model in one window on one set, held against its opponent; rates are fractions, below 0 is better."""

    model: str
    window: str
    set: str
    before: float
    after: float
    difference: float
    low: float
    high: float
    kind: str
    clips_needed: int | None = None
    """About how many clips of this kind would show a difference of this size; None where nothing tells."""
    without_loops: str = ""
    """The same without the clips whose transcript loops, for one of them can outweigh all others; empty without any."""

    @property
    def sentence(self) -> str:
        """Return the verdict for people, in points of per cent."""
        change = f"{percent(self.before)} → {percent(self.after)}"
        where = f"on {self.set} ({self.model}, {self.window})"
        if self.kind == UNDECIDED:
            span = f"{_points(self.low)} to {_points(self.high)}"
            decide = f"; about {self.clips_needed:,} clips would decide" if self.clips_needed else ""
            text = f"Undecided {where}: {change}. It may be chance: the 95 % interval goes from {span}{decide}."
            return text + self.without_loops
        ends = sorted((abs(100 * self.low), abs(100 * self.high)))
        span = f"95 % interval {ends[0]:.1f} to {ends[1]:.1f}"
        return f"{self.kind.title()} {where}: {change}, {_points(self.difference)} ({span}).{self.without_loops}"


def choose_opponent(rows: list[dict], against: str | None = None) -> str | None:
    """Return the model that others are held against: the base, else the one named by --against, else nobody."""
    models = {row["model"] for row in rows}
    known = [name for name in (BASE, against) if name in models and len(models) > 1]
    return known[0] if known else None


def judge_rows(
    rows: list[dict], records: list[dict], against: str | None = None, resamples: int = 2000, seed: int = 17
) -> list[Verdict]:
    """Hold every row against its opponent on the clips that both transcribed; the worse first, the undecided next."""
    other, by_row = choose_opponent(rows, against), defaultdict(dict)
    for record in records:
        by_row[record["model"], record["window"], record["set"]][record["id"]] = record
    verdicts = []
    for row in order_rows(rows) if other else []:
        if row["model"] != other:
            before = by_row[other, "padded", row["set"]] or by_row[other, "adaptive", row["set"]]
            after = by_row[row["model"], row["window"], row["set"]]
            common = [(before[id], after[id]) for id in before if id in after]
            verdicts += [_verdict(row, common, resamples, seed)] if common else []
    return sorted(verdicts, key=lambda verdict: (WORSE, UNDECIDED, BETTER).index(verdict.kind))


def headline(rows: list[dict], judged: Sequence[Verdict]) -> str:
    """Return one sentence: where the model is worse, undecided and better. A set is what its worst window is.

    Without an opponent it tells the word error rate alone.
    """
    if not judged:
        return _alone(rows)
    kinds = {verdict.set: verdict.kind for verdict in reversed(judged)}  # the worst of a set comes first, so it stays
    of_kind = {kind: [name for name in kinds if kinds[name] == kind] for kind in (WORSE, UNDECIDED, BETTER)}
    parts = [f"{kind} on {_named(sorted(names))}" for kind, names in of_kind.items() if names]
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}"


def _alone(rows: list[dict]) -> str:
    if not rows:
        return "Nothing was measured"
    last = {row["set"]: row for row in order_rows(rows)}  # adaptive, where there are both
    if len(last) > MAX_NAMED_SETS:
        return f"Word error rates of {len(last)} sets"
    return "Word error rate " + ", ".join(f"{with_interval(row)} on {name}" for name, row in last.items())


def _named(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= MAX_NAMED_SETS else f"{len(names)} sets"


def _points(difference: float) -> str:
    """Write a difference of rates as points of per cent: "4.0 points more"."""
    points = round(100 * difference, 1)
    return "no difference" if not points else f"{abs(points):.1f} points {'more' if points > 0 else 'fewer'}"


def _verdict(row: dict, common: list[Pair], resamples: int, seed: int) -> Verdict:
    found, before, after = _compare(common, resamples, seed)
    straight = [pair for pair in common if not any("looped" in (one.get("flags") or ()) for one in pair)]
    remark = ""
    if straight and (loops := len(common) - len(straight)):
        apart, old, new = _compare(straight, resamples, seed)
        span = f"95 % from {_points(apart.low)} to {_points(apart.high)}"
        clips = f"the {loops} clips that loop" if loops > 1 else "the clip that loops"
        remark = f" Without {clips}: {percent(old)} → {percent(new)}, {_kind(apart)} ({span})."
    kind = _kind(found)
    needed = found.clips_needed(len(common)) if kind == UNDECIDED else None
    interval = (found.difference, found.low, found.high)
    return Verdict(row["model"], row["window"], row["set"], before, after, *interval, kind, needed, remark)


def _compare(pairs: list[Pair], resamples: int, seed: int) -> tuple[WerDifference, float, float]:
    """Return how two models differ on the same clips, and the WER of each."""
    old, new = ([pair[k]["counts"]["errors"] for pair in pairs] for k in (0, 1))
    words, speakers = [one["counts"]["words"] for one, _ in pairs], [one.get("speaker") for one, _ in pairs]
    found = compare_by_bootstrap(old, new, words, speakers, resamples, seed)
    return found, *(float(error_rate(sum(errors), sum(words))) for errors in (old, new))


def _kind(found: WerDifference) -> str:
    return UNDECIDED if not found.shown else WORSE if found.difference > 0 else BETTER
