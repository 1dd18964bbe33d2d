"""What to record next, read from the errors: faults first, then texts, voices, words, and how many clips to test on.

    for advice in what_to_record(read_evaluation(folder)):
        print(advice.do, advice.because)

Each piece of advice carries the figure that it rests on. Sentences of the test set are never advised: whoever records
them for training measures a memory from then on.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lengua.evaluation.causes import BROKEN
from lengua.evaluation.changes import doubtful
from lengua.evaluation.groups import SMALL_SPEAKERS, UNKNOWN
from lengua.evaluation.hard_words import HardWord, hard_words
from lengua.evaluation.reading import Reading
from lengua.scoring import Difference, difference, percent, rate

NAMED = 12
"""Words and groups that are named of a kind."""
OFTEN = 2  # times a word must be wrong to be more than an accident
MOSTLY = 0.5
FEW = 3
"""Voices that are named because they are hard."""
VOICES = ("accent", "variant", "age", "gender")


@dataclass(frozen=True)
class Advice:
    """One thing to do, and the finding that it rests on."""

    do: str
    because: str


def what_to_record(reading: Reading) -> list[Advice]:
    """Return what would help most, the most urgent first; at least one thing."""
    return [advice for rule in RULES for advice in rule(reading)] or [
        Advice("Test on more clips, of other people", "nothing in these errors points to one thing more than another")
    ]


def resolution(reading: Reading) -> Difference | None:
    """Return the difference to the opponent, and the smallest one that this test set shows; None without opponent."""
    if not reading.pairs:
        return None
    old, new = ([pair[side]["counts"]["errors"] for pair in reading.pairs] for side in (0, 1))
    words = [after["counts"]["words"] for _, after in reading.pairs]
    return difference(old, new, words, [after.get("speaker") for _, after in reading.pairs])


def clips_needed(reading: Reading, points: float) -> int | None:
    """Return about how many clips like these it takes to show a difference of so many points of WER.

    The smallest difference that shows shrinks with the square root of the clips, if they come with as many new voices.
    """
    found = resolution(reading)
    if not found or not found.smallest:
        return None
    return math.ceil(len(reading.pairs) * (100 * found.smallest / points) ** 2)


def overall_wer(reading: Reading) -> float:
    """Return the WER of all clips together, as a fraction."""
    return float(rate(*(sum(record["counts"][key] for record in reading.after) for key in ("errors", "words"))))


def words_to_say(reading: Reading) -> list[HardWord]:
    """Return the words that are wrong more than once, and mostly."""
    return [word for word in hard_words(reading.after) if word.wrong >= OFTEN and word.share >= MOSTLY]


def _faults(reading: Reading) -> Iterator[Advice]:
    """A model that is broken is mended first: recordings are not what it lacks."""
    likeliest: dict[str, dict] = {}
    for one in reading.analysis.get("findings") or []:
        if one["severity"] == BROKEN:
            likeliest.setdefault(one["what"], one)
    for sign, one in likeliest.items():
        yield Advice(f"Before recording anything: {one['cure']}", f"{sign}: {one['cause']}")


def _texts(reading: Reading) -> Iterator[Advice]:
    if found := doubtful(reading.pairs):
        errors = sum(record["counts"]["errors"] for record in reading.after)
        theirs = sum(change.errors_after for change in found)
        them = "it" if len(found) == 1 else "them"
        do = f"Listen to {_counted(len(found), 'clip')} whose text may be wrong, and mend the text or leave {them} out"
        because = "both models write the same words there, and mostly not those of the text"
        yield Advice(do, f"{because}: {percent(theirs / max(1, errors))} of all errors")


def _voices(reading: Reading) -> Iterator[Advice]:
    known = set(filter(None, (record.get("speaker") for record in reading.after)))
    if not known:
        yield Advice(
            "Write down who speaks, in a column `speaker`", "without it no interval can tell people from clips"
        )
    elif len(known) < SMALL_SPEAKERS:
        do = "Ask more people: a few minutes each of ten new voices tell more than an hour of one"
        yield Advice(do, f"all {len(reading.after)} clips are by {_counted(len(known), 'speaker')}")


def _groups(reading: Reading) -> Iterator[Advice]:
    """Voices that are understood worse than the rest beyond chance, and those of whom too little is there to tell."""
    groups = reading.analysis.get("groups") or []
    told = [group for group in groups if group["key"] in VOICES and group["group"] != UNKNOWN]
    for group in told:
        if not group["small"] and (group["difference_low"] or 0) > 0:
            yield Advice(f"More speech of {group['key']} {group['group']}", _gap(group))
    small = [f"{group['group']} ({group['small']})" for group in told if group["small"]][:NAMED]
    if small:
        yield Advice(f"Test clips of {', '.join(small)}", "too small to tell how well they are understood")


def _one_voice(reading: Reading) -> Iterator[Advice]:
    """A voice whose whole interval lies above the WER of all."""
    overall = overall_wer(reading)
    told = [group for group in reading.analysis.get("groups") or [] if group["key"] == "speaker" and not group["small"]]
    hard = [group for group in told if group["group"] != UNKNOWN and (group["wer_low"] or 0) > overall]
    for group in sorted(hard, key=lambda group: -group["wer"])[:FEW]:
        because = f"WER {percent(group['wer'])}, all clips together {percent(overall)}"
        yield Advice(f"More of the voice {group['group']}, or of voices like it", because)


def _lengths(reading: Reading) -> Iterator[Advice]:
    for group in reading.analysis.get("groups") or []:
        if group["key"] == "duration" and (group["difference_low"] or 0) > 0:
            yield Advice(f"More clips of {group['group']}", _gap(group))


def _words(reading: Reading) -> Iterator[Advice]:
    found = words_to_say(reading)
    if found:
        named = ", ".join(word.word for word in found[:NAMED])
        wrong, said = sum(word.wrong for word in found), sum(word.said for word in found)
        do = f"Write new sentences with these words, and let several people say them: {named}"
        yield Advice(do, f"wrong {wrong} of {said} times")


def _size(reading: Reading) -> Iterator[Advice]:
    found = resolution(reading)
    if found and found.smallest and not found.shown:
        points = abs(100 * found.difference)
        more = clips_needed(reading, points) if points >= 0.1 else None
        many = f"about {more:,} test clips instead of {len(reading.pairs):,}" if more else "more test clips"
        because = f"the models differ by {points:.1f} points, and these clips show {100 * found.smallest:.1f} at least"
        yield Advice(f"Measure on {many}, of more people", because)


RULES: list[Callable[[Reading], Iterator[Advice]]] = [
    _faults, _texts, _voices, _groups, _one_voice, _lengths, _words, _size
]  # fmt: skip


def _gap(group: dict) -> str:
    return f"WER {percent(group['wer'])}, {100 * group['difference']:.1f} points above that of the others"


def _counted(count: int, name: str) -> str:
    return f"{count:,} {name}{'s' * (count != 1)}"
