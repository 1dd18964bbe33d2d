"""WER by accent, age, gender, domain, speaker and length: who is served well, who is not, and how sure that is.

    for group in measure_groups(records):
        print(group.key, group.group, group.clips, group.wer, group.small)

No group is hidden, however small; small ones are marked. What is not known is a group of its own, for those who did not
tell differ from those who did.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from lengua.scoring import bootstrap_interval, bootstrap_unit, counted, error_rate, expanded_tail

GROUP_KEYS = ("accent", "age", "gender", "variant", "sentence_domain", "speaker", "duration")
UNKNOWN_GROUP = "unknown"
MIN_GROUP_SPEAKERS = 10  # with fewer, a WER is about these people and not about their accent (as in bootstrap_unit)
MIN_GROUP_WORDS = 100  # with fewer, one error more or less moves the WER by over a point
DURATION_BORDERS_S = (2.0, 5.0, 10.0)  # borders between the groups by length: short answers, sentences, long ones
AGES = "teens twenties thirties fourties fifties sixties seventies eighties nineties".split()
# Common Voice has renamed some of its values; a group is one group under both names.
CANONICAL_VALUES = {"forties": "fourties", "female_feminine": "female", "male_masculine": "male"}
# Several values in one cell: since 2025 between bars, before between commas (common-voice/common-voice#4844). The
# names themselves hold commas, but only in brackets: "España: Sur peninsular (Andalucia, Extremadura, Murcia)".
COMMA_OUTSIDE_BRACKETS = re.compile(r",(?![^()]*\))")
MAX_WEIGHTS_AT_ONCE = 2**22  # weights drawn at once: bounds the memory of the bootstrap to some 60 MB


@dataclass(frozen=True)
class Group:
    """The clips that have one value of one column. Rates are fractions."""

    key: str
    """accent, age, gender, ..., duration."""
    group: str
    """The value, "unknown" where there is none."""
    clips: int
    speakers: int
    """Known ones."""
    words: int
    errors: int
    wer: float
    wer_low: float | None
    """The interval of the WER; None of a single clip, which tells no spread."""
    wer_high: float | None
    unit: str
    """What the intervals resample: speaker or utterance."""
    small: str
    """Why the figure says little ("4 speakers", "60 words"); empty where it is not small."""
    difference: float | None = None
    """WER of this group minus that of all other clips; None where there are none, and of single speakers."""
    difference_low: float | None = None
    difference_high: float | None = None


def measure_groups(
    records: Sequence[dict], keys: Sequence[str] = GROUP_KEYS, resamples: int = 2000, seed: int = 17
) -> list[Group]:
    """Return the groups of every key, in the order of the keys.

    Ages and lengths come in their own order, all else by clips, most first, then by name; unknown last. A clip with two
    accents is in both groups. The difference to the rest resamples the whole set, so that a speaker with clips on both
    sides is on both sides in every resample.

    Args:
        records: of hypotheses.jsonl, of one model, window and set.
        keys: speaker, duration, or columns of `extra`.
    """
    return [group for key in keys for group in _groups_of(key, records, resamples, seed)]


def group_values(record: dict, key: str) -> list[str]:
    """Return the groups that a record belongs to by a key; at least one, if only the unknown."""
    if key == "duration":
        return [_length(record.get("duration_s"))]
    if key == "speaker":
        return [record.get("speaker") or UNKNOWN_GROUP]
    extra = record.get("extra") or {}
    cell = str(extra.get(key) or extra.get(f"{key}s") or "")
    parts = cell.split("|") if "|" in cell else COMMA_OUTSIDE_BRACKETS.split(cell)
    values = dict.fromkeys(CANONICAL_VALUES.get(part.strip(), part.strip()) for part in parts)
    return [value for value in values if value] or [UNKNOWN_GROUP]


def duration_names() -> list[str]:
    """Return the groups by length, shortest first: "under 2 s", "2 to 5 s", ..."""
    between = [f"{low:g} to {high:g} s" for low, high in pairwise(DURATION_BORDERS_S)]
    return [f"under {DURATION_BORDERS_S[0]:g} s", *between, f"{DURATION_BORDERS_S[-1]:g} s and more"]


def _length(seconds: float | None) -> str:
    return (
        UNKNOWN_GROUP if seconds is None else duration_names()[sum(seconds >= border for border in DURATION_BORDERS_S)]
    )


def _groups_of(key: str, records: Sequence[dict], resamples: int, seed: int) -> list[Group]:
    members = defaultdict(list)
    for at, record in enumerate(records):
        for value in group_values(record, key):
            members[value].append(at)
    names = sorted(members, key=lambda value: _place(key, value, len(members[value])))
    found = [_group(key, name, [records[at] for at in members[name]], resamples, seed) for name in names]
    if key == "speaker":  # one voice on a side: nothing can be resampled that would stand for other voices
        return found
    return _against_the_rest(found, [members[name] for name in names], records, resamples, seed)


def _place(key: str, value: str, clips: int) -> tuple:
    """Return what groups are sorted by: unknown last, an order of the key's own, then clips and name."""
    own = {"duration": duration_names(), "age": AGES}.get(key, [])
    return value == UNKNOWN_GROUP, own.index(value) if value in own else len(own), -clips, value


def _group(key: str, name: str, records: list[dict], resamples: int, seed: int) -> Group:
    errors, words = _counts(records)
    speakers = [record.get("speaker") for record in records]
    low, high = bootstrap_interval(errors, words, speakers, resamples, seed)
    known = len(set(filter(None, speakers)))
    return Group(
        key=key,
        group=name,
        clips=len(records),
        speakers=known,
        words=int(words.sum()),
        errors=int(errors.sum()),
        wer=float(error_rate(errors.sum(), words.sum())),
        wer_low=low if len(records) > 1 else None,
        wer_high=high if len(records) > 1 else None,
        unit=bootstrap_unit(speakers),
        small=_small(key, known, int(words.sum())),
    )


def _small(key: str, speakers: int, words: int) -> str:
    """Return why a group is small; that a speaker is one speaker is no reason."""
    few = [counted(speakers, "speaker")] if speakers < MIN_GROUP_SPEAKERS and key != "speaker" else []
    return ", ".join([*few, *([counted(words, "word")] if words < MIN_GROUP_WORDS else [])])


def _against_the_rest(
    found: list[Group], members: list[list[int]], records: Sequence[dict], resamples: int, seed: int
) -> list[Group]:
    """Add the difference to all other clips; by speakers where both sides have enough of them, else by utterances."""
    speakers, (errors, words) = [record.get("speaker") or "" for record in records], _counts(records)
    for unit in ("speaker", "utterance"):
        columns = [at for at, one in enumerate(members) if len(one) < len(records) and _unit(one, speakers) == unit]
        if not columns:
            continue
        units = np.unique(speakers, return_inverse=True)[1] if unit == "speaker" else np.arange(len(records))
        inside = np.zeros((len(records), len(columns)), np.int64)
        for column, at in enumerate(columns):
            inside[members[at], column] = 1
        sums = _sums(inside, errors, words, units)
        total, resampled = sums.sum(axis=0), _differences(_resampled(sums, resamples, seed))
        observed = error_rate(total[:, 0], total[:, 1]) - error_rate(total[:, 2], total[:, 3])
        for column, at in enumerate(columns):
            sides = (len(np.unique(units[inside[:, column] == side])) for side in (0, 1))
            low, high = _interval(resampled[:, column], min(sides))
            found[at] = replace(found[at], difference=float(observed[column]), difference_low=low, difference_high=high)
    return found


def _counts(records: Sequence[dict]) -> tuple[np.ndarray, np.ndarray]:
    counts = [(record["counts"]["errors"], record["counts"]["words"]) for record in records]
    return tuple(np.array(counts, np.int64).reshape(-1, 2).T)


def _unit(members: list[int], speakers: list[str]) -> str:
    """Return what can be resampled: speakers, if the group and the rest both have enough of them."""
    inside = set(members)
    rest = [speaker for at, speaker in enumerate(speakers) if at not in inside]
    both = {bootstrap_unit([speakers[at] for at in members]), bootstrap_unit(rest)}
    return "speaker" if both == {"speaker"} else "utterance"


def _sums(inside: np.ndarray, errors: np.ndarray, words: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Sum by unit: shape (units, groups, 4), of errors and words in the group, errors and words outside."""
    counts = np.stack([errors, words], axis=1)[:, None, :]
    here = inside[:, :, None]
    by_clip = np.concatenate([here * counts, (1 - here) * counts], axis=2)
    sums = np.zeros((units.max() + 1, *by_clip.shape[1:]), np.int64)
    np.add.at(sums, units, by_clip)
    return sums


def _resampled(sums: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Draw as many units as there are, with replacement, and sum: shape (resamples, groups, 4)."""
    n, rng, drawn = len(sums), np.random.default_rng(seed), []
    flat, step = sums.reshape(n, -1).astype(np.float64), max(1, MAX_WEIGHTS_AT_ONCE // n)
    for start in range(0, resamples, step):
        weights = rng.multinomial(n, np.full(n, 1 / n), size=min(step, resamples - start))
        drawn.append(weights.astype(np.float64) @ flat)
    return np.concatenate(drawn).reshape(resamples, *sums.shape[1:])


def _differences(sums: np.ndarray) -> np.ndarray:
    """Return WER in the group minus WER outside; no number where one side has no words."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = sums[..., 0] / sums[..., 1] - sums[..., 2] / sums[..., 3]
    return np.where(np.isfinite(found), found, np.nan)


def _interval(differences: np.ndarray, units: int) -> tuple[float | None, float | None]:
    """Return the interval over the resamples that have both sides; None below two units on a side."""
    kept = differences[np.isfinite(differences)]
    if units < 2 or not len(kept):
        return None, None
    tail = expanded_tail(units)
    low, high = np.quantile(kept, [tail, 1 - tail])
    return float(low), float(high)
