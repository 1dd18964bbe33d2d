"""Leakage: test utterances that are also in training, by id, by sentence, or nearly; and shared speakers.

    leaks = find_leaks(store.split("test"), store.split("train"))
    leaks.counts()      {"utterances": 120, "id": 0, "sentence": 3, "near": 1, "speaker": 120, "clean": 116}
    leaks.clean_mask    the utterances on which a WER without leaks is measured
    find_near_duplicates(["hola que tal estas"], ["adios", "hola qué tal estas"])       array([1])

Two sentences are near duplicates if at most a tenth of their letters differ (Levenshtein distance, without
punctuation and case). No such pair is missed: two such texts of n letters are within n / 9 edits. Cut into one piece
more than that, at least one piece occurs unchanged in the other text, shifted by at most that many letters. So
letters are compared only where a piece matches: 15,000 sentences against 500,000 in about half a minute. An empty
speaker or sentence is unknown, and equal to no other.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property

import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cpdist

from lengua.data.store import Split
from lengua.runtime.errors import RequestError
from lengua.scoring import percent
from lengua.scoring.normalizer import normalise

MIN_SIMILARITY = 0.9
MIN_LETTERS_PER_EDIT = 9  # the shorter of two texts within a tenth of the longer one has so many for each edit
SENTENCES_PER_CHUNK = 20_000  # sentences whose pieces are in memory at a time
MAX_PAIRS_AT_ONCE = 1_000_000  # pairs of sentences, too
HASH_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, with its ones well spread
HASH_FILTER_BITS = 20


@dataclass(frozen=True)
class TextLetters:
    """Texts as one array of code points, of shape (letters,), and where each text begins."""

    points: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray


@dataclass(frozen=True)
class HashedPieces:
    """Pieces of one length, by their hash: whose they are, and where in it."""

    hashes: np.ndarray
    owners: np.ndarray
    places: np.ndarray


def find_near_duplicates(wanted: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """Return for each wanted text the place of a known one that is near it, or -1; the same at every call.

    Texts of fewer than nine letters have no near ones but themselves.
    """
    twins = np.full(len(wanted), -1)
    lengths = np.array([len(text) for text in wanted], np.int64)
    pieces = _pieces(wanted, lengths)
    edits = lengths // MIN_LETTERS_PER_EDIT
    known_lengths = np.array([len(text) for text in known], np.int64)
    order = np.argsort(known_lengths, kind="stable")
    for at in range(0, len(order), SENTENCES_PER_CHUNK):
        chunk = order[at : at + SENTENCES_PER_CHUNK]
        of_like_length = (lengths + edits >= known_lengths[chunk[0]]) & (lengths - edits <= known_lengths[chunk[-1]])
        if not (chosen := (twins < 0) & of_like_length).any():
            continue
        letters = _letters([known[row] for row in chunk])
        for owners, places in _candidates(pieces, chosen, lengths, letters):
            open_ = twins[owners] < 0
            owners, rows = owners[open_], chunk[places[open_]]
            pair = [wanted[owner] for owner in owners], [known[row] for row in rows]
            scorer, least = Levenshtein.normalized_similarity, MIN_SIMILARITY
            near = cpdist(*pair, scorer=scorer, score_cutoff=least, dtype=np.float64) >= least
            twins[owners[near][::-1]] = rows[near][::-1]  # backwards, so that the first is written last
    return twins


def _candidates(
    pieces: dict[int, HashedPieces], chosen: np.ndarray, lengths: np.ndarray, letters: TextLetters
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (wanted, place among the letters' texts) of pairs that share a piece at nearly the same place."""
    edits = lengths // MIN_LETTERS_PER_EDIT
    row_of = np.repeat(np.arange(len(letters.lengths)), letters.lengths)
    place_of = np.arange(len(letters.points)) - letters.starts[row_of]
    for length, hashes in _rolling_hashes(letters.points, max(pieces, default=0)):
        if length not in pieces or not (asked := chosen[pieces[length].owners]).any():
            continue
        asked_hashes, owners, places = (values[asked] for values in astuple(pieces[length]))
        inside = place_of[: len(hashes)] + length <= letters.lengths[row_of[: len(hashes)]]
        for hit, piece in _agreeing(asked_hashes, hashes, inside):
            owner, row = owners[piece], row_of[hit]
            near = np.abs(place_of[hit] - places[piece]) <= edits[owner]
            near &= np.abs(letters.lengths[row] - lengths[owner]) <= edits[owner]
            pairs = np.unique(owner[near] * len(letters.lengths) + row[near])
            yield pairs // len(letters.lengths), pairs % len(letters.lengths)


def _agreeing(asked: np.ndarray, hashes: np.ndarray, inside: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (place in hashes, place in asked) of all that are equal; `asked` is sorted. Bounded by PAIRS at a time."""
    may = np.zeros(1 << HASH_FILTER_BITS, bool)
    may[asked >> np.uint64(64 - HASH_FILTER_BITS)] = True
    hits = np.flatnonzero(inside & may[hashes >> np.uint64(64 - HASH_FILTER_BITS)])
    first = np.searchsorted(asked, hashes[hits], "left")
    counts = np.searchsorted(asked, hashes[hits], "right") - first
    hits, first, counts = hits[counts > 0], first[counts > 0], counts[counts > 0]
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(hits):
        done = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + MAX_PAIRS_AT_ONCE, "right")))
        some = counts[begin:end]
        offsets = np.arange(some.sum()) - np.repeat(np.cumsum(some) - some, some)
        yield np.repeat(hits[begin:end], some), np.repeat(first[begin:end], some) + offsets
        begin = end


def _pieces(texts: Sequence[str], lengths: np.ndarray) -> dict[int, HashedPieces]:
    """Cut each text of nine letters or more into one piece more than it may have edits; return them by length."""
    counts = lengths // MIN_LETTERS_PER_EDIT + 1
    found: dict[int, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    letters = _letters(texts)
    sizes = np.where(lengths >= MIN_LETTERS_PER_EDIT, lengths // counts, 0)
    for size, hashes in _rolling_hashes(letters.points, int(sizes.max(initial=0))):
        owners = np.flatnonzero(sizes == size)
        owner = np.repeat(owners, counts[owners])
        index = np.arange(len(owner)) - np.repeat(np.cumsum(counts[owners]) - counts[owners], counts[owners])
        place = index * lengths[owner] // counts[owner]
        if len(owner):
            found[size] = (hashes[letters.starts[owner] + place], owner, place)
    return {
        size: HashedPieces(*(array[np.argsort(parts[0], kind="stable")] for array in parts))
        for size, parts in found.items()
    }


def _letters(texts: Sequence[str]) -> TextLetters:
    lengths = np.array([len(text) for text in texts], np.int64)
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    return TextLetters(points, np.cumsum(lengths) - lengths, lengths)


def _rolling_hashes(points: np.ndarray, longest: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (length, the hash of that many letters from each place on) for lengths from 1 to the longest."""
    letters = points.astype(np.uint64) + np.uint64(1)
    hashes = np.zeros(len(letters) + 1, np.uint64)
    for length in range(1, min(longest, len(letters)) + 1):
        hashes = hashes[:-1] * HASH_MULTIPLIER + letters[length - 1 :]
        yield length, hashes


LEAK_KINDS = ("id", "sentence", "near")
"""How an utterance can leak, the plainest first; one that leaks in two ways is counted as the first."""
MAX_LEAKS_NAMED = 3
PLAIN_TEXT = re.compile(r"[ !-',-;=?-Z\\^-~¡¿«»‘’“”–—…À-įıĴ-ľŁ-ňŊ-žА-яЁё]*")
"""Composed letters and marks of which none is a bracket, is written otherwise in NFKC, or goes with a neighbour."""
NON_WORD_CHARACTERS = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Leaks:
    """What of a test set stands in training, utterance by utterance, in the order of the test set."""

    kinds: tuple[str, ...]
    """One of KINDS for each utterance, or an empty string."""
    seen_speaker: tuple[bool, ...]
    """Whether training has the speaker."""
    speakers: int
    """Known speakers of the test set."""
    seen_speakers: int
    """How many of them training has."""

    @cached_property
    def clean_mask(self) -> np.ndarray:
        """True for utterances whose sentence and recording are new; of shape (utterances,)."""
        return np.array([not kind for kind in self.kinds], bool)

    @property
    def is_clean(self) -> bool:
        """Whether every sentence is new; speakers may be shared."""
        return not any(self.kinds)

    def counts(self) -> dict[str, int]:
        """Return how many utterances there are, how many leak in each way, by a shared speaker, and not at all."""
        counted = {kind: self.kinds.count(kind) for kind in LEAK_KINDS}
        shared = {"speaker": sum(self.seen_speaker), "clean": self.kinds.count("")}
        return {"utterances": len(self.kinds)} | counted | shared

    def sentence(self) -> str:
        """Say to people what was found, and what to think of it."""
        return " ".join(filter(None, (self._of_sentences(), self._of_speakers())))

    def _of_sentences(self) -> str:
        if not self.kinds:
            return "There are no utterances to look for in training."
        if self.is_clean:
            return "No recording and no sentence of the test set stands in training."
        counts = self.counts()
        shared = [f"{counts[kind]} {LEAK_PHRASES[kind]}" for kind in LEAK_KINDS if counts[kind]]
        share = percent(1 - counts["clean"] / len(self.kinds))
        advice = ID_LEAK_ADVICE if counts["id"] else SENTENCE_LEAK_ADVICE
        found = f"Of {len(self.kinds)} test utterances, found in training: {', '.join(shared)}"
        return f"{found} ({share} in all). {advice}"

    def _of_speakers(self) -> str:
        if not self.kinds:
            return ""
        if not self.speakers:
            return "Who speaks is not known, so shared voices cannot be detected."
        if not self.seen_speakers:
            return "No speaker of the test set is known to be in training."
        clips = sum(self.seen_speaker)
        found = f"Speakers found in training: {self.seen_speakers} of {self.speakers}, with {clips} of the utterances"
        return f"{found}; the WER of those says little about new voices."


LEAK_PHRASES = {
    "id": "as they are",
    "sentence": "by their sentence",
    "near": "by nearly the same sentence",
}
ID_LEAK_ADVICE = "A model recites what it has learned: believe only the WER without these."
SENTENCE_LEAK_ADVICE = (
    "Common Voice has many people read one sentence, and every release is split anew, so this may be lawful; it still "
    "flatters the model: compare the WER with and without these."
)


def find_leaks(test: Split | Mapping, train: Split | Mapping) -> Leaks:
    """Look for the utterances of a test set in training.

    Args:
        test: a split of a store, or lists by the names id, text and speaker.
        train: the same. For several sources, `joined` makes one of them.
    """
    known_ids = set(filter(None, read_column(train, "id")))
    known = dict.fromkeys(filter(None, map(fast_normalise, read_column(train, "text"))))
    ids, sentences = read_column(test, "id"), [fast_normalise(text) for text in read_column(test, "text")]
    of_new_ids = {text for id_, text in zip(ids, sentences, strict=True) if id_ not in known_ids}
    fresh = sorted(of_new_ids - known.keys() - {""})
    twins = zip(fresh, find_near_duplicates(fresh, list(known)), strict=True)
    kind_of = dict.fromkeys(known, "sentence") | {text: "near" for text, twin in twins if twin >= 0}
    kinds = ("id" if id_ in known_ids else kind_of.get(text, "") for id_, text in zip(ids, sentences, strict=True))
    voices, seen = read_column(test, "speaker"), set(filter(None, read_column(train, "speaker")))
    return Leaks(
        kinds=tuple(kinds),
        seen_speaker=tuple(voice in seen for voice in voices),
        speakers=len(set(filter(None, voices))),
        seen_speakers=len(set(voices) & seen),
    )


def read_column(rows: Split | Mapping, name: str) -> Sequence:
    """Return one column of a split or of a mapping of lists."""
    return rows.column(name) if isinstance(rows, Split) else rows[name]


def fast_normalise(text: str) -> str:
    """Return what `normalise` does; for plain text many times faster, for training may hold a million."""
    return NON_WORD_CHARACTERS.sub(" ", text.lower()).strip() if PLAIN_TEXT.fullmatch(text) else normalise(text)


def concatenate_sets(sets: Iterable[Split | Mapping]) -> dict[str, list]:
    """Return the utterances of several sources as one, in their order."""
    sets = list(sets)
    return {name: [value for one in sets for value in read_column(one, name)] for name in ("id", "text", "speaker")}


def refuse_leaks(train: Sequence[str], held_out: Mapping[str, Sequence[str]]) -> None:
    """Refuse to train on utterances that a model is to be measured on.

    Args:
        train: the ids of training.
        held_out: ids by the name of their split, {"dev": [...], "test": [...]}.

    Raises:
        RequestError: some stand in both; it names how many, and the first.
    """
    known = set(train)
    for name, ids in held_out.items():
        if shared := [id_ for id_ in ids if id_ in known]:
            more = ", ..." if len(shared) > MAX_LEAKS_NAMED else ""
            found = f"{len(shared)} of its {len(ids)} in train, too ({', '.join(shared[:MAX_LEAKS_NAMED])}{more})"
            do = "build the store again from splits that share no clip; or add --allow-leaks, and believe no WER on it"
            raise RequestError(f"utterances of {name} that are not learned from", found, do)
