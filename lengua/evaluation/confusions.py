"""Confusion counts: words and letters that a model writes for others, and the words that it gets wrong most often.

    found = count_confusions(records)
    found.substitutions[0]     Confusion("el", "él", 12, "common_voice_es_18951460")
    found.letters[0]           Confusion("b", "v", 7, ...)        of "bino" for "vino"
    rank_hard_words(records)   HardWord("vino", occurrences=9, wrong=7, hypothesis="bino", ...), ...

Words are compared as scoring compares them: lower case, no punctuation. A loop is one fault and not a hundred, so clips
that loop are left out; `Confusions.left_out` counts them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jiwer

from lengua.scoring import is_looped
from lengua.scoring.normalizer import strip_marks
from lengua.scoring.wer import aligned_words, word_pairs

MAX_CONFUSIONS = 20
MIN_LETTERS_ALIKE_SHARE = 0.6
"""Share of the letters that agree, accents aside, in one word misrecognised; those of unlike words say nothing."""


@dataclass(frozen=True)
class Confusion:
    """One thing that was written for another."""

    reference: str
    """Empty where something was added."""
    hypothesis: str
    """Empty where something was left out."""
    count: int
    example: str
    """The id of the first utterance that has it."""

    def as_json(self) -> dict:
        """Return it as results.json has it."""
        return {"said": self.reference, "heard": self.hypothesis, "count": self.count, "example": self.example}


@dataclass(frozen=True)
class Confusions:
    """The most frequent ones of each kind, most frequent first, equal ones by the alphabet."""

    substitutions: tuple[Confusion, ...]
    deletions: tuple[Confusion, ...]
    insertions: tuple[Confusion, ...]
    letters: tuple[Confusion, ...]
    """Within words that are alike: one or more letters in a row for others, added (reference is empty) or left out."""
    left_out: int
    """Clips that loop."""


@dataclass(frozen=True)
class HardWord:
    """One word of the references, as scoring compares it."""

    word: str
    occurrences: int
    wrong: int
    hypothesis: str
    """What was written for it most often; empty where it was left out."""
    example: str
    """The id of the first clip that has it wrong."""

    @property
    def share(self) -> float:
        """How many of its occurrences are wrong: a fraction."""
        return self.wrong / self.occurrences


def count_confusions(records: Sequence[dict], most: int = MAX_CONFUSIONS) -> Confusions:
    """Count what was taken for what, over records of one model, window and set."""
    kept, counters, first = _without_loops(records), defaultdict(Counter), {}
    for kind, reference, hypothesis, id in _word_pairs(kept):
        if kind == "equal":
            continue
        pairs = [(kind, reference, hypothesis)]
        if kind == "substitute":
            pairs += [("letters", *letters) for letters in _letter_errors(reference, hypothesis)]
        for name, *pair in pairs:
            counters[name][tuple(pair)] += 1
            first.setdefault((name, *pair), id)
    ranked = {
        name: tuple(
            Confusion(*pair, counter[pair], first[name, *pair])
            for pair in sorted(counter, key=lambda pair: (-counter[pair], pair))[:most]
        )
        for name, counter in counters.items()
    }
    kinds = (ranked.get(name, ()) for name in ("substitute", "delete", "insert", "letters"))
    return Confusions(*kinds, left_out=len(records) - len(kept))


def rank_hard_words(records: Sequence[dict]) -> list[HardWord]:
    """Return every word that is wrong at least once: by how often, then by share, then by the alphabet.

    Args:
        records: of hypotheses.jsonl, of one model and window.
    """
    occurrences, wrong, example = Counter(), defaultdict(Counter), {}
    for kind, reference, hypothesis, id in _word_pairs(_without_loops(records)):
        occurrences[reference] += kind != "insert"
        if kind in ("substitute", "delete"):
            wrong[reference][hypothesis] += 1
            example.setdefault(reference, id)
    words = [
        HardWord(word, occurrences[word], taken.total(), min(taken, key=lambda one: (-taken[one], one)), example[word])
        for word, taken in wrong.items()
    ]
    return sorted(words, key=lambda word: (-word.wrong, -word.share, word.word))


def _without_loops(records: Sequence[dict]) -> list[dict]:
    return [
        record
        for record in records
        if "looped" not in (record.get("flags") or ())
        and not is_looped(record["hypothesis"], record.get("tokens"), record.get("duration_s"))
    ]


def _word_pairs(records: Sequence[dict]) -> Iterator[tuple[str, str, str, str]]:
    """Yield (jiwer's kind, word of the reference, word of the hypothesis, id); "" where one side has no word."""
    aligned = aligned_words([record["reference"] for record in records], [record["hypothesis"] for record in records])
    for record, reference, hypothesis, chunks in zip(
        records, aligned.references, aligned.hypotheses, aligned.alignments, strict=False
    ):
        for kind, i, j in word_pairs(chunks):
            yield kind, "" if i is None else reference[i], "" if j is None else hypothesis[j], record["id"]


def _letter_errors(reference: str, hypothesis: str) -> Iterator[tuple[str, str]]:
    """Yield (letters of the reference, letters of the hypothesis) of two words that are alike."""
    alike = jiwer.process_characters(strip_marks(reference), strip_marks(hypothesis)).hits
    if alike < MIN_LETTERS_ALIKE_SHARE * max(len(reference), len(hypothesis)):
        return
    for chunk in jiwer.process_characters(reference, hypothesis).alignments[0]:
        if chunk.type != "equal":
            letters = slice(chunk.ref_start_idx, chunk.ref_end_idx), slice(chunk.hyp_start_idx, chunk.hyp_end_idx)
            yield reference[letters[0]], hypothesis[letters[1]]
