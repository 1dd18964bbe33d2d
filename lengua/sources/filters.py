"""Which utterances of a source are wanted: by votes, length and speaker, and no more than a cap, drawn by a seed.

    filters = Filters(min_up_votes=2, max_down_votes=0, max_hours=10, balance_speakers=True)
    drawn = draw(source.survey("train"), filters)            # who is in, from a look at everything but the audio
    for item in sift(source.read("train"), filters, drawn): ...  # what is left out comes as Dropped, with a reason

A draw depends on the seed, and on what there is to draw from: not on its order, nor on the machine. From a stream that
cannot be looked over before it is read, `take` takes what comes first.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lengua.options import Filters
from lengua.sources import Dropped, Source, Utterance
from lengua.sources.clip_table import number_of
from lengua.sources.splitting import position

CHARS_PER_SECOND = 12
"""The pace of Common Voice, for clips whose length a source does not tell."""
SPELLINGS = {"forties": "fourties"}  # as Common Voice has it


@dataclass(frozen=True)
class Drawn:
    """The ids that a draw let in, 8 bytes each."""

    numbers: np.ndarray

    def __contains__(self, id_: str) -> bool:
        number = np.uint64(number_of(id_))
        place = int(np.searchsorted(self.numbers, number))
        return place < len(self.numbers) and bool(self.numbers[place] == number)

    def __len__(self) -> int:
        return len(self.numbers)


def wanted(source: Source, splits: Sequence[str], filters: Filters) -> Iterator[tuple[str, Utterance | Dropped]]:
    """Yield (split, item) of a source, what is not wanted as Dropped; in one pass over the source where it can.

    A cap is drawn from a look at everything but the audio; from a source that cannot be looked over, it takes what
    comes first.
    """
    if not hasattr(source, "survey"):
        yield from ((split, item) for split in splits for item in take(source.read(split), filters))
        return
    drawn = {split: draw(source.survey(split), filters) for split in splits if filters.has_cap}
    for split, item in _in_one_pass(source, splits):
        yield split, next(sift((item,), filters, drawn.get(split)))


def _in_one_pass(source: Source, splits: Sequence[str]) -> Iterator[tuple[str, Utterance | Dropped]]:
    if hasattr(source, "read_many"):
        return source.read_many(splits)
    return ((split, item) for split in splits for item in source.read(split))


def sift(
    items: Iterable[Utterance | Dropped], filters: Filters, drawn: Drawn | None = None
) -> Iterator[Utterance | Dropped]:
    """Yield all items in their order, those that are not wanted as Dropped; `drawn` is what `draw` returned."""
    for item in items:
        reason = fault(item, filters) if isinstance(item, Utterance) else None
        if reason is None and drawn is not None and isinstance(item, Utterance) and item.id not in drawn:
            reason = "over the cap"
        yield Dropped(item.id, reason) if reason else item


def draw(items: Iterable[Utterance | Dropped], filters: Filters) -> Drawn | None:
    """Return which of the wanted utterances the cap lets in; None where there is no cap. No audio is looked at."""
    if not filters.has_cap:
        return None
    numbers, speakers, places, seconds = array("Q"), array("Q"), array("d"), array("d")
    for item in sift(items, filters):
        if isinstance(item, Utterance):
            numbers.append(number_of(item.id))
            speakers.append(number_of(item.speaker) if item.speaker else numbers[-1])
            places.append(position(f"{filters.seed} {item.id}"))
            seconds.append(length_s(item))
    turns = rounds(np.asarray(speakers), np.asarray(places)) if filters.balance_speakers else np.zeros(len(places))
    order = np.lexsort((numbers, places, turns))
    return Drawn(np.sort(np.asarray(numbers)[order[: _fitting(np.asarray(seconds)[order], filters)]]))


def take(items: Iterable[Utterance | Dropped], filters: Filters) -> Iterator[Utterance | Dropped]:
    """Yield items as `sift` does until the cap is full, then stop: for streams, which cannot be looked over first.

    What comes is what the source has first; nothing behind it is read.
    """
    count, seconds = 0, 0.0
    for item in sift(items, filters):
        if isinstance(item, Utterance):
            count, seconds = count + 1, seconds + length_s(item)
            if _is_over(count, seconds, filters):
                return
        yield item
        if count == filters.max_utterances:
            return


def _is_over(count: int, seconds: float, filters: Filters) -> bool:
    too_long = filters.max_hours is not None and seconds > filters.max_hours * 3600 + 1e-6
    return too_long or (filters.max_utterances is not None and count > filters.max_utterances)


def rounds(speakers: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return in which round each clip is drawn: 0 for the first of each speaker, 1 for the second, ..."""
    order = np.lexsort((places, speakers))
    _, starts, counts = np.unique(speakers[order], return_index=True, return_counts=True)
    found = np.empty(len(speakers), np.int64)
    found[order] = np.arange(len(speakers)) - np.repeat(starts, counts)
    return found


def _fitting(seconds: np.ndarray, filters: Filters) -> int:
    """Return how many clips, from the first, the cap has room for."""
    count = len(seconds) if filters.max_utterances is None else min(filters.max_utterances, len(seconds))
    if filters.max_hours is None:
        return count
    return min(count, int(np.searchsorted(np.cumsum(seconds), filters.max_hours * 3600 + 1e-6, side="right")))


def length_s(item: Utterance) -> float:
    """Return the seconds of an utterance, or what its text would take."""
    return len(item.text) / CHARS_PER_SECOND if item.duration_s is None else item.duration_s


def fault(item: Utterance, filters: Filters) -> str | None:
    """Return why an utterance is not wanted, or None."""
    return _votes_fault(item, filters) or _speaker_fault(item, filters)


def _votes_fault(item: Utterance, filters: Filters) -> str | None:
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


def _speaker_fault(item: Utterance, filters: Filters) -> str | None:
    for name, wishes in (("gender", filters.gender), ("age", filters.age), ("accent", filters.accent)):
        told = item.extra.get(name, "").strip().casefold()
        if wishes and not told:
            return f"unknown {name}"
        if wishes and not any(MATCHES[name](told, wish.strip().casefold()) for wish in wishes):
            return f"another {name}"
    return None


def _is_gender(told: str, wish: str) -> bool:
    return told == wish or told.startswith(f"{wish}_")


def _is_age(told: str, wish: str) -> bool:
    return SPELLINGS.get(told, told) == SPELLINGS.get(wish, wish)


def _is_accent(told: str, wish: str) -> bool:
    return wish in told


MATCHES = {"gender": _is_gender, "age": _is_age, "accent": _is_accent}
