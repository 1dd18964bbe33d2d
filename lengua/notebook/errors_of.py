"""The errors of one evaluation for a notebook, as Markdown: how sure the figures are, who, which words, what next.

    reading = read_evaluation(out / "evaluation")
    Markdown(sureness(reading)), Markdown(groups_table(reading)), Markdown(advice_list(reading))

What is computed is computed in `lengua.evaluation`; here it is laid out.
"""

from collections.abc import Sequence
from pathlib import Path

from lengua.evaluation.advice import clips_needed, overall_wer, resolution, what_to_record
from lengua.evaluation.changes import Change, changes, doubtful
from lengua.evaluation.groups import UNKNOWN
from lengua.evaluation.hard_words import hard_words
from lengua.evaluation.reading import Reading
from lengua.figures.groups import groups_figure
from lengua.pages.evaluation import confused, untold
from lengua.publishing.markdown import escaped, grid
from lengua.report import with_interval

POINTS = (5.0, 2.0, 1.0)
"""Differences of WER, in points, that one may want to show."""
NAMED = 12
"""Groups that are named in a sentence."""
NOTHING = "–"
ALONE = "Only one model was measured, so there is nothing to hold it against."


def verdict_list(reading: Reading) -> str:
    """Return the headline, a sentence for each model, window and set, and what one must know to read the figures."""
    sentences = [verdict.sentence for verdict in reading.verdicts]
    whose = reading.results.get("attribution")
    remarks = [*(reading.analysis.get("notes") or []), *([f"Speech and texts: {whose}."] if whose else [])]
    lines = [f"- {escaped(one)}" for one in [*sentences, *remarks]]
    return "\n".join([f"**{escaped(reading.headline)}**", "", *lines])


def sureness(reading: Reading) -> str:
    """Return how small a difference this test set can show, and how many clips smaller ones would take."""
    found = resolution(reading)
    if found is None:
        return ALONE
    told, low, high = (signed(one) for one in (found.difference, found.low, found.high))
    chance = "beyond chance" if found.shown else "may be chance"
    lines = [f"**{told} points** ({low} to {high}), over {found.units:,} {found.unit}s: {chance}."]
    if found.smallest:
        smallest = f"{100 * found.smallest:.1f} points"
        lines.append(f"The smallest difference that these {len(reading.pairs):,} clips would show: **{smallest}**.")
        needed = [[f"{one:g} point{'s' * (one != 1)}", f"{clips_needed(reading, one):,}"] for one in POINTS]
        lines.append(grid(["to show a difference of", "clips like these, about"], needed))
    return "\n\n".join(lines)


def changes_table(reading: Reading, count: int = 8) -> str:
    """Return how many clips became better and worse, and the ones that became worst."""
    found = changes(reading.pairs)
    if not found:
        return ALONE
    kinds = {
        "better": [one for one in found if one.gained > 0],
        "as before": [one for one in found if one.gained == 0],
        "worse": [one for one in found if one.gained < 0],
    }
    sizes = grid(["", "clips", "errors before", "after"], [[name, *_sums(some)] for name, some in kinds.items()])
    return "\n\n".join([sizes, *([_beside(kinds["worse"][:count])] if kinds["worse"] else [])])


def doubtful_table(reading: Reading, count: int = 8) -> str:
    """Return clips whose text may be wrong: both models hear the same, and mostly something else."""
    found = doubtful(reading.pairs)
    if not found:
        return "No clip of which both models hear the same and mostly something else than its text."
    lines = [[one.id, one.reference, one.after] for one in found[:count]]
    return grid(["clip", "its text", "what both models hear"], lines, words=3)


def groups_picture(reading: Reading, path: Path) -> str:
    """Draw the groups that are told of anybody, and return the path, as `IPython.display.Image` wants it."""
    groups_figure(_told(reading), overall_wer(reading), path)
    return str(path)


def groups_table(reading: Reading) -> str:
    """Return the groups that differ from all other clips beyond chance; name those too small to tell."""
    groups = [group for group in _told(reading) if group["group"] != UNKNOWN]
    differing = [
        [_name(group), with_interval(group), f"{signed(group['difference'])} points"]
        for group in groups
        if not group["small"] and _differs(group)
    ]
    small = [f"{_name(group)}: {group['small']}" for group in groups if group["small"]]
    unknown = untold(reading.analysis.get("groups") or [])
    return "\n\n".join(
        [
            grid(["group", "WER (95 % interval)", "beside the others"], differing)
            if differing
            else "No group differs from the others beyond chance.",
            *([f"Too small to tell: {_named(small)}."] if small else []),
            *([f"Not told of any clip: {_named(unknown)}."] if unknown else []),
        ]
    )


def confusions_table(reading: Reading, count: int = 8) -> str:
    """Return what is taken for what: words, words left out and made up, letters within words."""
    found = confused(reading.analysis.get("confusions") or {})
    if not found:
        return "Nothing was taken for anything else."
    columns = [[_pair(one) for one in some[:count]] for some in found.values()]
    longest = max(map(len, columns))
    lines = [[column[place] if place < len(column) else "" for column in columns] for place in range(longest)]
    return grid(list(found), lines, words=len(columns))


def words_table(reading: Reading, count: int = 12) -> str:
    """Return the words that are wrong most often."""
    found = hard_words(reading.after)[:count]
    lines = [[one.word, one.heard or NOTHING, one.example, f"{one.wrong} of {one.said}"] for one in found]
    return grid(["word", "heard as", "first in clip", "wrong"], lines, words=3) if lines else "Not one word is wrong."


def advice_list(reading: Reading) -> str:
    """Return what to record next, the most urgent first, each with what it rests on."""
    told = [(one.do, f"{one.because[0].upper()}{one.because[1:]}") for one in what_to_record(reading)]
    return "\n".join(f"1. **{escaped(do)}.** {escaped(because)}." for do, because in told)


def signed(fraction: float) -> str:
    """Write a difference of rates in points of per cent: -0.04 is "−4.0"."""
    return f"{100 * fraction:+.1f}".replace("-", "−")


def _told(reading: Reading) -> list[dict]:
    groups = reading.analysis.get("groups") or []
    return [group for group in groups if group["key"] not in untold(groups)]


def _name(group: dict) -> str:
    return f"{group['key'].replace('_', ' ')} {group['group']}"


def _named(some: Sequence[str]) -> str:
    more = f", and {len(some) - NAMED:,} more" if len(some) > NAMED else ""
    return escaped("; ".join(some[:NAMED])) + more


def _differs(group: dict) -> bool:
    return group["difference_low"] is not None and (group["difference_low"] > 0 or group["difference_high"] < 0)


def _pair(one: dict) -> str:
    return f"{one['said'] or NOTHING} → {one['heard'] or NOTHING} ({one['count']})"


def _sums(some: Sequence[Change]) -> list[int]:
    return [len(some), sum(one.errors_before for one in some), sum(one.errors_after for one in some)]


def _beside(some: Sequence[Change]) -> str:
    lines = [[one.reference, one.before or NOTHING, one.after or NOTHING, -one.gained] for one in some]
    return grid(["said", "before", "after", "more errors"], lines, words=3)
