"""Leaks: test utterances that also stand in training, as they are, by their sentence, or nearly so; and shared voices.

    leaks = find_leaks(store.split("test"), store.split("train"))
    leaks.counts()      {"utterances": 120, "id": 0, "sentence": 3, "near": 1, "speaker": 120, "clean": 116}
    leaks.clean_mask    which utterances a WER without leaks is measured on

A sentence is near another when at most a tenth of its letters differ (Levenshtein; punctuation and case aside). No
such pair is missed: `neighbours` says why. A speaker or sentence that is empty is unknown, and equal to no other.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lengua.errors import RequestError
from lengua.evaluation.neighbours import twins_of
from lengua.scoring import percent
from lengua.store import Split
from lengua.text import normalise

KINDS = ("id", "sentence", "near")
"""How an utterance can leak, the plainest first; one that leaks in two ways is counted as the first."""
SHOWN = 3
PLAIN = re.compile(r"[ !-',-;=?-Z\\^-~¡¿«»‘’“”–—…À-įıĴ-ľŁ-ňŊ-žА-яЁё]*")
"""Composed letters and marks of which none is a bracket, is written otherwise in NFKC, or goes with a neighbour."""
UNSPOKEN = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Leaks:
    """What of a test set stands in training, utterance by utterance, in the order of the test set."""

    kinds: tuple[str, ...]
    """One of KINDS for each utterance, or an empty string."""
    twins: tuple[int, ...]
    """The row of training that an utterance leaks from; -1 for a clean one."""
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

    @cached_property
    def new_speaker_mask(self) -> np.ndarray:
        """True for utterances of speakers that training is not known to have; of shape (utterances,)."""
        return ~np.array(self.seen_speaker, bool)

    @property
    def is_clean(self) -> bool:
        """Whether every sentence is new; speakers may be shared."""
        return not any(self.kinds)

    def counts(self) -> dict[str, int]:
        """Return how many utterances there are, how many leak in each way, by a shared speaker, and not at all."""
        counted = {kind: self.kinds.count(kind) for kind in KINDS}
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
        told = [f"{counts[kind]} {WORDS[kind]}" for kind in KINDS if counts[kind]]
        share = percent(1 - counts["clean"] / len(self.kinds))
        advice = MEANING_OF_IDS if counts["id"] else MEANING_OF_SENTENCES
        return f"Of {len(self.kinds)} test utterances, found in training: {', '.join(told)} ({share} in all). {advice}"

    def _of_speakers(self) -> str:
        if not self.kinds:
            return ""
        if not self.speakers:
            return "Who speaks is not known, so shared voices cannot be told."
        if not self.seen_speakers:
            return "No speaker of the test set is known to be in training."
        clips = sum(self.seen_speaker)
        told = f"Speakers found in training: {self.seen_speakers} of {self.speakers}, with {clips} of the utterances"
        return f"{told}; the WER of those says little about new voices."


WORDS = {
    "id": "as they are",
    "sentence": "by their sentence",
    "near": "by nearly the same sentence",
}
MEANING_OF_IDS = "A model recites what it has learned: believe only the WER without these."
MEANING_OF_SENTENCES = (
    "Common Voice has many people read one sentence, and every release is split anew, so this may be lawful; it still "
    "flatters the model: compare the WER with and without these."
)


def find_leaks(test: Split | Mapping, train: Split | Mapping) -> Leaks:
    """Look for the utterances of a test set in training.

    Args:
        test: a split of a store, or lists by the names id, text and speaker.
        train: the same. For several sources, `joined` makes one of them.
    """
    known_ids = _rows_by(column(train, "id"))
    known = _rows_by(map(words_of, column(train, "text")))
    sentences = [words_of(text) for text in column(test, "text")]
    twins: list[tuple[str, int]] = []
    for id_, text in zip(column(test, "id"), sentences, strict=True):
        row = known_ids.get(id_, -1)
        twins.append(("id", row) if row >= 0 else ("sentence", known[text]) if text in known else ("", -1))
    near = _near({text for text, (kind, _) in zip(sentences, twins, strict=True) if text and not kind}, known)
    twins = [twin if twin[0] else near.get(text, twin) for text, twin in zip(sentences, twins, strict=True)]
    voices, seen = column(test, "speaker"), set(filter(None, column(train, "speaker")))
    return Leaks(
        kinds=tuple(kind for kind, _ in twins),
        twins=tuple(row for _, row in twins),
        seen_speaker=tuple(voice in seen for voice in voices),
        speakers=len(set(filter(None, voices))),
        seen_speakers=len(set(voices) & seen),
    )


def column(rows: Split | Mapping, name: str) -> Sequence:
    """Return one column of a split or of a mapping of lists."""
    return rows.column(name) if isinstance(rows, Split) else rows[name]


def words_of(text: str) -> str:
    """Return what `lengua.text.normalise` does; for plain text many times faster, for training may hold a million."""
    return UNSPOKEN.sub(" ", text.lower()).strip() if PLAIN.fullmatch(text) else normalise(text)


def joined(sets: Iterable[Split | Mapping]) -> dict[str, list]:
    """Return the utterances of several sources as one, in their order."""
    sets = list(sets)
    return {name: [value for one in sets for value in column(one, name)] for name in ("id", "text", "speaker")}


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
            more = ", ..." if len(shared) > SHOWN else ""
            found = f"{len(shared)} of its {len(ids)} in train, too ({', '.join(shared[:SHOWN])}{more})"
            do = "build the store again from splits that share no clip; or add --allow-leaks, and believe no WER on it"
            raise RequestError(f"utterances of {name} that are not learned from", found, do)


def _rows_by(keys: Iterable[str]) -> dict[str, int]:
    """Return the first row of each key; an empty one has none."""
    rows: dict[str, int] = {}
    for row, key in enumerate(keys):
        if key:
            rows.setdefault(key, row)
    return rows


def _near(wanted: set[str], known: Mapping[str, int]) -> dict[str, tuple[str, int]]:
    """Return the near twins among known sentences, as (kind, row), by the sentence that has one."""
    asked, texts = sorted(wanted), list(known)
    twins = twins_of(asked, texts)
    return {text: ("near", known[texts[twin]]) for text, twin in zip(asked, twins, strict=True) if twin >= 0}
