"""A dev split for a store that has none: some clips of train, by speaker where there are enough of them.

    train, dev = set_aside(store.split("train"))

A function of speakers and texts alone, so that every process and every start of a run sets the same clips aside.
Without dev nothing would say which checkpoint is best, nor whether a run helps at all.
"""

from collections import defaultdict
from collections.abc import Sequence

from lengua.errors import RequestError
from lengua.scoring import bootstrap_unit
from lengua.sources.splitting import normalised, position
from lengua.store import Split

SHARE = 0.1
MOST_CLIPS = 500
"""More would make evaluations slow, and tell little more."""


def set_aside(train: Split) -> tuple[Split, Split]:
    """Return (train, dev), views of a split of which one has what the other has not.

    Raises:
        RequestError: too few clips, or one text or speaker for all.
    """
    chosen = choose(train.column("speaker"), train.column("text"))
    if not chosen:
        found = f"{len(train)} in train, none in dev, and no way to part them by text"
        raise RequestError("clips to learn from and others to measure on", found, "record more, of unlike texts")
    rest = sorted(set(range(len(train))) - set(chosen))
    return train.subset(rest), train.subset(chosen)


def choose(speakers: Sequence[str], texts: Sequence[str]) -> list[int]:
    """Return the clips to set aside: whole speakers, or all clips of a text where speakers are few or speak long."""
    most = min(MOST_CLIPS, max(1, round(SHARE * len(texts))))
    if bootstrap_unit(speakers) == "speaker":
        chosen = _fill(_by(speakers), most)
        if 2 * len(chosen) >= most:
            return chosen
    groups = _by([normalised(text) for text in texts])
    if len(groups) < 2:
        return []
    return _fill(groups, most) or min(groups.values(), key=len)


def _by(keys: Sequence[str]) -> dict[str, list[int]]:
    groups = defaultdict(list)
    for index, key in enumerate(keys):
        groups[key].append(index)
    return groups


def _fill(groups: dict[str, list[int]], most: int) -> list[int]:
    """Return the members of whole groups, drawn by their keys, as many as there is room for."""
    chosen: list[int] = []
    for key in sorted(groups, key=position):
        if len(chosen) + len(groups[key]) <= most:
            chosen += groups[key]
    return sorted(chosen)
