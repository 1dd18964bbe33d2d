"""Which utterances of a source to use: by votes, length and speaker, and under a cap that is sampled with a seed.

    filters = Filters(min_up_votes=2, max_down_votes=0, max_hours=10, balance_speakers=True)
    chosen = sample_under_cap(source.survey("train"), filters)             # from the metadata, without the audio
    for item in filter_items(source.read("train"), filters, chosen): ...   # the rest becomes Dropped, with a reason

A sample depends on the seed and on the set of utterances, not on their order or the machine. From a stream that
cannot be surveyed before it is read, `take_until_cap` takes the first ones.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from lengua.data.sources import Dropped, Source, Utterance
from lengua.data.sources.clip_table import name_hash
from lengua.data.splits import hash_position
from lengua.options import Filters

CHARS_PER_SECOND = 12
"""The pace of Common Voice, for clips whose length a source does not tell."""
AGE_ALIASES = {"forties": "fourties"}  # as Common Voice has it


def filter_source(source: Source, splits: Sequence[str], filters: Filters) -> Iterator[tuple[str, Utterance | Dropped]]:
    """Yield (split, item) of a source, what is not wanted as Dropped; in one pass over the source where it can.

    A cap is drawn from a look at everything but the audio; from a source that cannot be looked over, it takes what
    comes first.
    """
    if not hasattr(source, "survey"):
        yield from ((split, item) for split in splits for item in take_until_cap(source.read(split), filters))
        return
    drawn = {split: sample_under_cap(source.survey(split), filters) for split in splits if filters.has_cap}
    one_by_one = ((split, item) for split in splits for item in source.read(split))
    for split, item in source.read_many(splits) if hasattr(source, "read_many") else one_by_one:
        yield split, next(filter_items((item,), filters, drawn.get(split)))


def filter_items(
    items: Iterable[Utterance | Dropped], filters: Filters, drawn: frozenset[int] | None = None
) -> Iterator[Utterance | Dropped]:
    """Yield all items in their order, unwanted ones as Dropped; `drawn` is what `sample_under_cap` returned."""
    for item in items:
        reason = None
        if isinstance(item, Utterance):
            reason = _votes_rejection(item, filters) or _speaker_rejection(item, filters)
        if reason is None and drawn is not None and isinstance(item, Utterance) and name_hash(item.id) not in drawn:
            reason = "over the cap"
        yield Dropped(item.id, reason) if reason else item


def sample_under_cap(items: Iterable[Utterance | Dropped], filters: Filters) -> frozenset[int] | None:
    """Return the wanted utterances under the cap, by `name_hash` of their ids; None without a cap. Reads no audio."""
    if not filters.has_cap:
        return None
    numbers, speakers, places, seconds = array("Q"), array("Q"), array("d"), array("d")
    for item in filter_items(items, filters):
        if isinstance(item, Utterance):
            numbers.append(name_hash(item.id))
            speakers.append(name_hash(item.speaker) if item.speaker else numbers[-1])
            places.append(hash_position(f"{filters.seed} {item.id}"))
            seconds.append(estimated_duration_s(item))
    rounds = [speaker_rounds(np.asarray(speakers), np.asarray(places))] if filters.balance_speakers else []
    order = np.lexsort((numbers, places, *rounds))[: filters.max_utterances]
    if filters.max_hours is not None:
        order = order[np.cumsum(np.asarray(seconds)[order]) <= filters.max_hours * 3600 + 1e-6]
    return frozenset(np.asarray(numbers)[order].tolist())


def take_until_cap(items: Iterable[Utterance | Dropped], filters: Filters) -> Iterator[Utterance | Dropped]:
    """Yield items as `filter_items` does until the cap is full; nothing behind is read. For streams."""
    count, seconds = 0, 0.0
    for item in filter_items(items, filters):
        if isinstance(item, Utterance):
            count, seconds = count + 1, seconds + estimated_duration_s(item)
            if filters.max_hours is not None and seconds > filters.max_hours * 3600 + 1e-6:
                return
        yield item
        if count == filters.max_utterances:
            return


def speaker_rounds(speakers: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the round in which each clip is drawn: 0 for the first of each speaker, 1 for the second, ..."""
    order = np.lexsort((places, speakers))
    _, starts, counts = np.unique(speakers[order], return_index=True, return_counts=True)
    found = np.empty(len(speakers), np.int64)
    found[order] = np.arange(len(speakers)) - np.repeat(starts, counts)
    return found


def estimated_duration_s(item: Utterance) -> float:
    """Return the seconds of an utterance, or what its text would take."""
    return len(item.text) / CHARS_PER_SECOND if item.duration_s is None else item.duration_s


def _votes_rejection(item: Utterance, filters: Filters) -> str | None:
    if filters.min_up_votes is None and filters.max_down_votes is None:
        return None
    cells = (item.extra.get(name, "") for name in ("up_votes", "down_votes"))
    up, down = (int(cell) if cell.isdecimal() else None for cell in cells)
    if (filters.min_up_votes is not None and up is None) or (filters.max_down_votes is not None and down is None):
        return "unknown votes"
    if filters.min_up_votes is not None and up < filters.min_up_votes:
        return f"fewer than {filters.min_up_votes} up-votes"
    too_many = filters.max_down_votes is not None and down > filters.max_down_votes
    return f"more than {filters.max_down_votes} down-votes" if too_many else None


def _speaker_rejection(item: Utterance, filters: Filters) -> str | None:
    for name, wishes in (("gender", filters.gender), ("age", filters.age), ("accent", filters.accent)):
        stated = item.extra.get(name, "").strip().casefold()
        if wishes and not stated:
            return f"unknown {name}"
        if wishes and not any(_matches(name, stated, wish.strip().casefold()) for wish in wishes):
            return f"another {name}"
    return None


def _matches(name: str, stated: str, wish: str) -> bool:
    if name == "gender":
        return stated == wish or stated.startswith(f"{wish}_")
    if name == "age":
        return AGE_ALIASES.get(stated, stated) == AGE_ALIASES.get(wish, wish)
    return wish in stated
