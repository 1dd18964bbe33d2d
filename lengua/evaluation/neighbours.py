"""Which of many sentences is nearly another's: at least nine letters in ten are the same, by Levenshtein's distance.

    twins_of(["hola que tal estas"], ["adios", "hola qué tal estas"])       array([1])

A text that is n letters long is within n / 9 edits of any that is as near as that. Cut it into one piece more than
that many, and one piece must come back unchanged, at most as many letters from its place. So nothing near is missed,
while letters are compared only where a piece agrees: 15,000 sentences against 500,000 in about half a minute.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cpdist

SIMILARITY = 0.9
EDITS = 9  # of two texts within a tenth of the longer one, the shorter has at least nine letters to an edit
CHUNK = 20_000  # sentences whose pieces are in memory at a time
PAIRS = 1_000_000  # pairs of sentences, too
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, with its ones well spread
BITS = 20


@dataclass(frozen=True)
class Letters:
    """Texts as one array of code points, of shape (letters,), and where each text begins."""

    points: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray


@dataclass(frozen=True)
class Pieces:
    """Pieces of one length, by their hash: whose they are, and where in it."""

    hashes: np.ndarray
    owners: np.ndarray
    places: np.ndarray

    def of(self, chosen: np.ndarray) -> "Pieces":
        """Return those whose owners are chosen by a mask."""
        kept = chosen[self.owners]
        return Pieces(self.hashes[kept], self.owners[kept], self.places[kept])


def twins_of(wanted: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """Return for each wanted text the place of a known one that is near it, or -1; the same at every call.

    Texts of fewer than nine letters have no near ones but themselves.
    """
    twins = np.full(len(wanted), -1)
    lengths = np.array([len(text) for text in wanted], np.int64)
    pieces = _pieces(wanted, lengths)
    known_lengths = np.array([len(text) for text in known], np.int64)
    order = np.argsort(known_lengths, kind="stable")
    for at in range(0, len(order), CHUNK):
        rows = order[at : at + CHUNK]
        low, high = known_lengths[rows[0]], known_lengths[rows[-1]]
        chosen = (twins < 0) & (lengths + lengths // EDITS >= low) & (lengths - lengths // EDITS <= high)
        if not chosen.any():
            continue
        letters = _letters([known[row] for row in rows])
        for owners, places in _candidates(pieces, chosen, lengths, letters):
            still = twins[owners] < 0
            _compare(wanted, known, owners[still], rows[places[still]], twins)
    return twins


def _compare(wanted, known, owners: np.ndarray, rows: np.ndarray, twins: np.ndarray) -> None:
    """Write into `twins` the first row of each owner that is near it."""
    pair = [wanted[owner] for owner in owners], [known[row] for row in rows]
    alike = cpdist(*pair, scorer=Levenshtein.normalized_similarity, score_cutoff=SIMILARITY, dtype=np.float64)
    near = np.flatnonzero(alike >= SIMILARITY)
    twins[owners[near][::-1]] = rows[near][::-1]  # backwards, so that the first is written last


def _candidates(
    pieces: dict[int, Pieces], chosen: np.ndarray, lengths: np.ndarray, letters: Letters
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (wanted, place among the letters' texts) of pairs that share a piece at nearly the same place."""
    edits = lengths // EDITS
    row_of = np.repeat(np.arange(len(letters.lengths)), letters.lengths)
    place_of = np.arange(len(letters.points)) - letters.starts[row_of]
    for length, hashes in _rolling(letters.points, max(pieces, default=0)):
        asked = pieces[length].of(chosen) if length in pieces else None
        if asked is None or not len(asked.hashes):
            continue
        inside = place_of[: len(hashes)] + length <= letters.lengths[row_of[: len(hashes)]]
        for hit, piece in _agreeing(asked.hashes, hashes, inside):
            owner, row = asked.owners[piece], row_of[hit]
            near = np.abs(place_of[hit] - asked.places[piece]) <= edits[owner]
            near &= np.abs(letters.lengths[row] - lengths[owner]) <= edits[owner]
            pairs = np.unique(owner[near] * len(letters.lengths) + row[near])
            yield pairs // len(letters.lengths), pairs % len(letters.lengths)


def _agreeing(asked: np.ndarray, hashes: np.ndarray, inside: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (place in hashes, place in asked) of all that are equal; `asked` is sorted. Bounded by PAIRS at a time."""
    may = np.zeros(1 << BITS, bool)
    may[asked >> np.uint64(64 - BITS)] = True
    hits = np.flatnonzero(inside & may[hashes >> np.uint64(64 - BITS)])
    first = np.searchsorted(asked, hashes[hits], "left")
    counts = np.searchsorted(asked, hashes[hits], "right") - first
    hits, first, counts = hits[counts > 0], first[counts > 0], counts[counts > 0]
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(hits):
        done = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + PAIRS, "right")))
        some = counts[begin:end]
        offsets = np.arange(some.sum()) - np.repeat(np.cumsum(some) - some, some)
        yield np.repeat(hits[begin:end], some), np.repeat(first[begin:end], some) + offsets
        begin = end


def _pieces(texts: Sequence[str], lengths: np.ndarray) -> dict[int, Pieces]:
    """Cut each text of nine letters or more into one piece more than it may have edits; return them by length."""
    counts = lengths // EDITS + 1
    found: dict[int, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    letters = _letters(texts)
    sizes = np.where(lengths >= EDITS, lengths // counts, 0)
    for size, hashes in _rolling(letters.points, int(sizes.max(initial=0))):
        owners = np.flatnonzero(sizes == size)
        owner = np.repeat(owners, counts[owners])
        index = np.arange(len(owner)) - np.repeat(np.cumsum(counts[owners]) - counts[owners], counts[owners])
        place = index * lengths[owner] // counts[owner]
        if len(owner):
            found[size] = (hashes[letters.starts[owner] + place], owner, place)
    return {
        size: Pieces(*(array[np.argsort(parts[0], kind="stable")] for array in parts)) for size, parts in found.items()
    }


def _letters(texts: Sequence[str]) -> Letters:
    lengths = np.array([len(text) for text in texts], np.int64)
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    return Letters(points, np.cumsum(lengths) - lengths, lengths)


def _rolling(points: np.ndarray, longest: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (length, the hash of that many letters from each place on) for lengths from 1 to the longest."""
    letters = points.astype(np.uint64) + np.uint64(1)
    hashes = np.zeros(len(letters) + 1, np.uint64)
    for length in range(1, min(longest, len(letters)) + 1):
        hashes = hashes[:-1] * FACTOR + letters[length - 1 :]
        yield length, hashes
