"""Recommendations of what to record next, and the clips that fine-tuning made better or worse.

    for advice in recommend(read_evaluation(folder)):
        print(advice.do, advice.because)
    for change in clip_changes(reading.pairs):
        print(change.gained, change.before, change.after)

Faults come first, then texts, voices, words, and how many clips to test on; each with the figure that it rests on.
Sentences of the test set are never recommended: whoever records them for training measures memory from then on.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lengua.evaluation.confusions import HardWord, rank_hard_words
from lengua.evaluation.diagnosis import BROKEN
from lengua.evaluation.measure import pooled_wer
from lengua.evaluation.results import LoadedEvaluation
from lengua.evaluation.subgroups import MIN_GROUP_SPEAKERS, UNKNOWN_GROUP
from lengua.scoring import WerDifference, compare_by_bootstrap, counted, percent
from lengua.scoring.normalizer import normalise

RecordPair = tuple[dict, dict]
"""Records of one clip, before and after."""
DIFFERING_WORDS_SHARE = 0.5  # one word wrong in both is a word both find hard, half a sentence is another sentence
MIN_AGREEING_WORDS = 3  # below, two models easily agree on one wrong word


@dataclass(frozen=True)
class ClipChange:
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


def clip_changes(pairs: Sequence[RecordPair]) -> list[ClipChange]:
    """Return a change for each clip, what got worse first; of equal ones, by id."""
    found = [
        ClipChange(
            *(after["id"], after["reference"], before["hypothesis"], after["hypothesis"]),
            *(record["counts"]["errors"] for record in (before, after)),
        )
        for before, after in pairs
    ]
    return sorted(found, key=lambda change: (change.gained, change.id))


def doubtful_references(pairs: Sequence[RecordPair]) -> list[ClipChange]:
    """Return clips whose text may be wrong: both models write the same words, and mostly not those of the text.

    Most errors first. Both may be wrong alike; the ear decides.
    """
    changes = clip_changes([pair for pair in pairs if _is_doubtful(*pair)])
    return sorted(changes, key=lambda change: (-change.errors_after, change.id))


def _is_doubtful(before: dict, after: dict) -> bool:
    hypothesis, errors, words = normalise(after["hypothesis"]), after["counts"]["errors"], after["counts"]["words"]
    alike = bool(hypothesis) and hypothesis == normalise(before["hypothesis"])
    return alike and words >= MIN_AGREEING_WORDS and errors >= DIFFERING_WORDS_SHARE * words


MAX_NAMED_ITEMS = 12
"""Words and groups that are named of a kind."""
MIN_TIMES_WRONG = 2  # times a word must be wrong to be more than an accident
WRONG_SHARE = 0.5
MAX_HARD_VOICES = 3
"""Voices that are named because they are hard."""
VOICE_KEYS = ("accent", "variant", "age", "gender")


@dataclass(frozen=True)
class Recommendation:
    """One thing to do, and the finding that it rests on."""

    do: str
    because: str


def recommend(reading: LoadedEvaluation) -> list[Recommendation]:
    """Return what would help most, the most urgent first; at least one thing."""
    nothing = "nothing in these errors points to one thing more than another"
    found = [advice for rule in RECOMMENDATION_RULES for advice in rule(reading)]
    return found or [Recommendation("Test on more clips, of other people", nothing)]


def detectable_difference(reading: LoadedEvaluation) -> WerDifference | None:
    """Return the difference to the opponent, and the smallest one that this test set shows; None without opponent."""
    if not reading.pairs:
        return None
    old, new = ([pair[side]["counts"]["errors"] for pair in reading.pairs] for side in (0, 1))
    words = [after["counts"]["words"] for _, after in reading.pairs]
    return compare_by_bootstrap(old, new, words, [after.get("speaker") for _, after in reading.pairs])


def clips_needed(reading: LoadedEvaluation, points: float) -> int | None:
    """Return about how many clips like these it takes to show a difference of so many points of WER."""
    found = detectable_difference(reading)
    return found.clips_needed(len(reading.pairs), points / 100) if found else None


def overall_wer(reading: LoadedEvaluation) -> float:
    """Return the WER of all clips together, as a fraction."""
    return pooled_wer(reading.after)


def words_to_record(reading: LoadedEvaluation) -> list[HardWord]:
    """Return the words that are wrong more than once, and mostly."""
    words = rank_hard_words(reading.after)
    return [word for word in words if word.wrong >= MIN_TIMES_WRONG and word.share >= WRONG_SHARE]


def _faults(reading: LoadedEvaluation) -> Iterator[Recommendation]:
    """A model that is broken is mended first: recordings are not what it lacks."""
    likeliest: dict[str, dict] = {}
    for one in reading.analysis.get("findings") or []:
        if one["severity"] == BROKEN:
            likeliest.setdefault(one["what"], one)
    for sign, one in likeliest.items():
        yield Recommendation(f"Before recording anything: {one['cure']}", f"{sign}: {one['cause']}")


def _texts(reading: LoadedEvaluation) -> Iterator[Recommendation]:
    if found := doubtful_references(reading.pairs):
        errors = sum(record["counts"]["errors"] for record in reading.after)
        theirs = sum(change.errors_after for change in found)
        them = "it" if len(found) == 1 else "them"
        do = f"Listen to {counted(len(found), 'clip')} whose text may be wrong, and mend the text or leave {them} out"
        because = "both models write the same words there, and mostly not those of the text"
        yield Recommendation(do, f"{because}: {percent(theirs / max(1, errors))} of all errors")


def _voices(reading: LoadedEvaluation) -> Iterator[Recommendation]:
    known = set(filter(None, (record.get("speaker") for record in reading.after)))
    if not known:
        yield Recommendation(
            "Write down who speaks, in a column `speaker`", "without it no interval can tell people from clips"
        )
    elif len(known) < MIN_GROUP_SPEAKERS:
        do = "Ask more people: a few minutes each of ten new voices tell more than an hour of one"
        yield Recommendation(do, f"all {len(reading.after)} clips are by {counted(len(known), 'speaker')}")


def _groups(reading: LoadedEvaluation) -> Iterator[Recommendation]:
    """Voices that are understood worse than the rest beyond chance, and those of whom too little is there to tell."""
    groups = reading.analysis.get("groups") or []
    voices = [group for group in groups if group["key"] in VOICE_KEYS and group["group"] != UNKNOWN_GROUP]
    for group in voices:
        if not group["small"] and (group["difference_low"] or 0) > 0:
            yield Recommendation(f"More speech of {group['key']} {group['group']}", _gap(group))
    small = [f"{group['group']} ({group['small']})" for group in voices if group["small"]][:MAX_NAMED_ITEMS]
    if small:
        yield Recommendation(f"Test clips of {', '.join(small)}", "too small to tell how well they are understood")


def _one_voice(reading: LoadedEvaluation) -> Iterator[Recommendation]:
    """A voice whose whole interval lies above the WER of all."""
    overall = overall_wer(reading)
    groups = reading.analysis.get("groups") or []
    voices = [group for group in groups if group["key"] == "speaker" and not group["small"]]
    hard = [group for group in voices if group["group"] != UNKNOWN_GROUP and (group["wer_low"] or 0) > overall]
    for group in sorted(hard, key=lambda group: -group["wer"])[:MAX_HARD_VOICES]:
        because = f"WER {percent(group['wer'])}, all clips together {percent(overall)}"
        yield Recommendation(f"More of the voice {group['group']}, or of voices like it", because)


def _lengths(reading: LoadedEvaluation) -> Iterator[Recommendation]:
    for group in reading.analysis.get("groups") or []:
        if group["key"] == "duration" and (group["difference_low"] or 0) > 0:
            yield Recommendation(f"More clips of {group['group']}", _gap(group))


def _words(reading: LoadedEvaluation) -> Iterator[Recommendation]:
    found = words_to_record(reading)
    if found:
        named = ", ".join(word.word for word in found[:MAX_NAMED_ITEMS])
        wrong, times = sum(word.wrong for word in found), sum(word.occurrences for word in found)
        do = f"Write new sentences with these words, and let several people say them: {named}"
        yield Recommendation(do, f"wrong {wrong} of {times} times")


def _size(reading: LoadedEvaluation) -> Iterator[Recommendation]:
    found = detectable_difference(reading)
    if found and found.smallest and not found.shown:
        points = abs(100 * found.difference)
        more = clips_needed(reading, points) if points >= 0.1 else None
        many = f"about {more:,} test clips instead of {len(reading.pairs):,}" if more else "more test clips"
        because = f"the models differ by {points:.1f} points, and these clips show {100 * found.smallest:.1f} at least"
        yield Recommendation(f"Measure on {many}, of more people", because)


RECOMMENDATION_RULES: list[Callable[[LoadedEvaluation], Iterator[Recommendation]]] = [
    _faults, _texts, _voices, _groups, _one_voice, _lengths, _words, _size
]  # fmt: skip


def _gap(group: dict) -> str:
    return f"WER {percent(group['wer'])}, {100 * group['difference']:.1f} points above that of the others"
