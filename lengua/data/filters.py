"""Which utterances of a source to use: by votes, length and speaker, and under a cap that is sampled with a seed.

    filters = Filters(min_up_votes=2, max_down_votes=0, max_hours=10, balance_speakers=True)
    chosen = sample_under_cap(source.survey("train"), filters)             # from the metadata, without the audio
    for item in filter_items(source.read("train"), filters, chosen): ...   # the rest becomes Dropped, with a reason

A sample depends on the seed and on the set of utterances, not on their order or the machine. From a stream that
cannot be surveyed before it is read, `take_until_cap` takes the first ones.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lengua.data.sources import Dropped, Source, Utterance
from lengua.data.sources.clip_table import name_hash
from lengua.data.splits import hash_position
from lengua.options import Filters

CHARS_PER_SECOND = 12
"""The pace of Common Voice, for clips whose length a source does not tell."""
AGE_ALIASES = {"forties": "fourties"}  # as Common Voice has it


@dataclass(frozen=True)
class SampledIds:
    """The ids that a draw let in, 8 bytes each."""

    numbers: np.ndarray

    def __contains__(self, id_: str) -> bool:
        number = np.uint64(name_hash(id_))
        place = int(np.searchsorted(self.numbers, number))
        return place < len(self.numbers) and bool(self.numbers[place] == number)

    def __len__(self) -> int:
        return len(self.numbers)


def filter_source(source: Source, splits: Sequence[str], filters: Filters) -> Iterator[tuple[str, Utterance | Dropped]]:
    """Yield (split, item) of a source, what is not wanted as Dropped; in one pass over the source where it can.

    A cap is drawn from a look at everything but the audio; from a source that cannot be looked over, it takes what
    comes first.
    """
    if not hasattr(source, "survey"):
        yield from ((split, item) for split in splits for item in take_until_cap(source.read(split), filters))
        return
    drawn = {split: sample_under_cap(source.survey(split), filters) for split in splits if filters.has_cap}
    for split, item in _in_one_pass(source, splits):
        yield split, next(filter_items((item,), filters, drawn.get(split)))


def _in_one_pass(source: Source, splits: Sequence[str]) -> Iterator[tuple[str, Utterance | Dropped]]:
    if hasattr(source, "read_many"):
        return source.read_many(splits)
    return ((split, item) for split in splits for item in source.read(split))


def filter_items(
    items: Iterable[Utterance | Dropped], filters: Filters, drawn: SampledIds | None = None
) -> Iterator[Utterance | Dropped]:
    """Yield all items in their order, those that are not wanted as Dropped; `drawn` is what `draw` returned."""
    for item in items:
        reason = rejection_reason(item, filters) if isinstance(item, Utterance) else None
        if reason is None and drawn is not None and isinstance(item, Utterance) and item.id not in drawn:
            reason = "over the cap"
        yield Dropped(item.id, reason) if reason else item


def sample_under_cap(items: Iterable[Utterance | Dropped], filters: Filters) -> SampledIds | None:
    """Return which of the wanted utterances the cap lets in; None where there is no cap. No audio is looked at."""
    if not filters.has_cap:
        return None
    numbers, speakers, places, seconds = array("Q"), array("Q"), array("d"), array("d")
    for item in filter_items(items, filters):
        if isinstance(item, Utterance):
            numbers.append(name_hash(item.id))
            speakers.append(name_hash(item.speaker) if item.speaker else numbers[-1])
            places.append(hash_position(f"{filters.seed} {item.id}"))
            seconds.append(estimated_duration_s(item))
    turns = (
        speaker_rounds(np.asarray(speakers), np.asarray(places)) if filters.balance_speakers else np.zeros(len(places))
    )
    order = np.lexsort((numbers, places, turns))
    return SampledIds(np.sort(np.asarray(numbers)[order[: _count_under_cap(np.asarray(seconds)[order], filters)]]))


def take_until_cap(items: Iterable[Utterance | Dropped], filters: Filters) -> Iterator[Utterance | Dropped]:
    """Yield items as `sift` does until the cap is full, then stop: for streams, which cannot be looked over first.

    What comes is what the source has first; nothing behind it is read.
    """
    count, seconds = 0, 0.0
    for item in filter_items(items, filters):
        if isinstance(item, Utterance):
            count, seconds = count + 1, seconds + estimated_duration_s(item)
            if _is_over(count, seconds, filters):
                return
        yield item
        if count == filters.max_utterances:
            return


def _is_over(count: int, seconds: float, filters: Filters) -> bool:
    too_long = filters.max_hours is not None and seconds > filters.max_hours * 3600 + 1e-6
    return too_long or (filters.max_utterances is not None and count > filters.max_utterances)


def speaker_rounds(speakers: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return in which round each clip is drawn: 0 for the first of each speaker, 1 for the second, ..."""
    order = np.lexsort((places, speakers))
    _, starts, counts = np.unique(speakers[order], return_index=True, return_counts=True)
    found = np.empty(len(speakers), np.int64)
    found[order] = np.arange(len(speakers)) - np.repeat(starts, counts)
    return found


def _count_under_cap(seconds: np.ndarray, filters: Filters) -> int:
    """Return how many clips, from the first, the cap has room for."""
    count = len(seconds) if filters.max_utterances is None else min(filters.max_utterances, len(seconds))
    if filters.max_hours is None:
        return count
    return min(count, int(np.searchsorted(np.cumsum(seconds), filters.max_hours * 3600 + 1e-6, side="right")))


def estimated_duration_s(item: Utterance) -> float:
    """Return the seconds of an utterance, or what its text would take."""
    return len(item.text) / CHARS_PER_SECOND if item.duration_s is None else item.duration_s


def rejection_reason(item: Utterance, filters: Filters) -> str | None:
    """Return why an utterance is not wanted, or None."""
    return _votes_rejection(item, filters) or _speaker_rejection(item, filters)


def _votes_rejection(item: Utterance, filters: Filters) -> str | None:
    if filters.min_up_votes is None and filters.max_down_votes is None:
        return None
    up, down = (_votes(item.extra.get(name, "")) for name in ("up_votes", "down_votes"))
    if (filters.min_up_votes is not None and up is None) or (filters.max_down_votes is not None and down is None):
        return "unknown votes"
    if filters.min_up_votes is not None and up < filters.min_up_votes:
        return f"fewer than {filters.min_up_votes} up-votes"
    too_many = filters.max_down_votes is not None and down > filters.max_down_votes
    return f"more than {filters.max_down_votes} down-votes" if too_many else None


def _votes(cell: str) -> int | None:
    return int(cell) if cell.isdecimal() else None


def _speaker_rejection(item: Utterance, filters: Filters) -> str | None:
    for name, wishes in (("gender", filters.gender), ("age", filters.age), ("accent", filters.accent)):
        told = item.extra.get(name, "").strip().casefold()
        if wishes and not told:
            return f"unknown {name}"
        if wishes and not any(SPEAKER_MATCHERS[name](told, wish.strip().casefold()) for wish in wishes):
            return f"another {name}"
    return None


def _is_gender(told: str, wish: str) -> bool:
    return told == wish or told.startswith(f"{wish}_")


def _is_age(told: str, wish: str) -> bool:
    return AGE_ALIASES.get(told, told) == AGE_ALIASES.get(wish, wish)


def _is_accent(told: str, wish: str) -> bool:
    return wish in told


SPEAKER_MATCHERS = {"gender": _is_gender, "age": _is_age, "accent": _is_accent}
