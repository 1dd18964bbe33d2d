"""Confusion counts: words and letters that a model writes for others, and the words that it gets wrong most often.

    found = count_confusions(records)
    found.substitutions[0]     Confusion("el", "él", 12, "common_voice_es_18951460")
    found.letters[0]           Confusion("b", "v", 7, ...)        of "bino" for "vino"

    for word in rank_hard_words(records):
        print(word.word, word.wrong, word.said, word.heard)

Words are compared as scoring compares them: lower case, no punctuation. A loop is one fault and not a hundred, so clips
that loop are left out; `Confusions.left_out` counts them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jiwer

from lengua.scoring import is_looped
from lengua.scoring.normalizer import strip_marks
from lengua.scoring.wer import aligned_words

MAX_CONFUSIONS = 20
MIN_LETTERS_ALIKE_SHARE = 0.6
"""Share of the letters that agree, accents aside, in one word misheard; those of unlike words say nothing."""


@dataclass(frozen=True)
class Confusion:
    """One thing that was written for another."""

    said: str
    """Empty where something was added."""
    heard: str
    """Empty where something was left out."""
    count: int
    example: str
    """The id of the first utterance that has it."""


@dataclass(frozen=True)
class Confusions:
    """The most frequent ones of each kind, most frequent first, equal ones by the alphabet."""

    substitutions: tuple[Confusion, ...]
    deletions: tuple[Confusion, ...]
    insertions: tuple[Confusion, ...]
    letters: tuple[Confusion, ...]
    """Within words that are alike: one or more letters in a row for others, added (said is empty) or left out."""
    left_out: int
    """Clips that loop."""


def count_confusions(records: Sequence[dict], most: int = MAX_CONFUSIONS) -> Confusions:
    """Count what was taken for what, over records of one model, window and set."""
    kept = [record for record in records if not _is_looped_record(record)]
    kinds: dict[str, tuple[Counter, dict]] = {}
    for kind, said, heard, where in _word_errors(kept):
        _count(kinds, kind, (said, heard), where)
        for pair in _letter_errors(said, heard) if kind == "substitute" else ():
            _count(kinds, "letters", pair, where)
    substitutions, deletions, insertions, letters = (
        _most(*kinds.get(kind, (Counter(), {})), most) for kind in ("substitute", "delete", "insert", "letters")
    )
    return Confusions(substitutions, deletions, insertions, letters, len(records) - len(kept))


def _is_looped_record(record: dict) -> bool:
    looped = is_looped(record["hypothesis"], record.get("tokens"), record.get("duration_s"))
    return looped or "looped" in (record.get("flags") or ())


def _aligned_chunks(records: Sequence[dict]) -> Iterator[tuple[str, list[str], list[str], str]]:
    """Yield (jiwer's kind, words of the reference, words of the hypothesis, id) of every chunk of the alignments."""
    if not records:
        return
    aligned = aligned_words([record["reference"] for record in records], [record["hypothesis"] for record in records])
    rows = zip(records, aligned.references, aligned.hypotheses, aligned.alignments, strict=True)
    for record, reference, hypothesis, chunks in rows:
        for chunk in chunks:
            words = reference[chunk.ref_start_idx : chunk.ref_end_idx]
            yield chunk.type, words, hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx], record["id"]


def _word_errors(records: Sequence[dict]) -> Iterator[tuple[str, str, str, str]]:
    """Yield (kind, word of the reference, word of the hypothesis, id) of every error."""
    for kind, reference, hypothesis, where in _aligned_chunks(records):
        if kind != "equal":
            yield from ((kind, *pair, where) for pair in _side_by_side(reference, hypothesis))


def _side_by_side(said: list[str], heard: list[str]) -> list[tuple[str, str]]:
    if said and heard:
        return list(zip(said, heard, strict=True))
    return [(word, "") for word in said] + [("", word) for word in heard]


def _letter_errors(said: str, heard: str) -> Iterator[tuple[str, str]]:
    """Yield (letters said, letters heard) of two words that are alike."""
    alike = jiwer.process_characters(strip_marks(said), strip_marks(heard)).hits
    if alike < MIN_LETTERS_ALIKE_SHARE * max(len(said), len(heard)):
        return
    for chunk in jiwer.process_characters(said, heard).alignments[0]:
        if chunk.type != "equal":
            yield said[chunk.ref_start_idx : chunk.ref_end_idx], heard[chunk.hyp_start_idx : chunk.hyp_end_idx]


def _count(kinds: dict, kind: str, pair: tuple[str, str], where: str) -> None:
    counter, first = kinds.setdefault(kind, (Counter(), {}))
    counter[pair] += 1
    first.setdefault(pair, where)


def _most(counter: Counter, first: dict, most: int) -> tuple[Confusion, ...]:
    ranked = sorted(counter, key=lambda pair: (-counter[pair], pair))[:most]
    return tuple(Confusion(*pair, counter[pair], first[pair]) for pair in ranked)


OMITTED_WORD = ""
"""What is heard of a word that is missing."""


@dataclass(frozen=True)
class HardWord:
    """One word of the references, as scoring compares it."""

    word: str
    said: int
    wrong: int
    heard: str
    """What was written for it most often; empty where it was left out."""
    example: str
    """The id of the first clip that has it wrong."""

    @property
    def share(self) -> float:
        """How much of the times it was said it is wrong: a fraction."""
        return self.wrong / self.said


def rank_hard_words(records: Sequence[dict]) -> list[HardWord]:
    """Return every word that is wrong at least once: by how often, then by share, then by the alphabet.

    Clips that loop are left out: their words say nothing of the words said.

    Args:
        records: of hypotheses.jsonl, of one model and window.
    """
    said, heard, example = Counter(), defaultdict(Counter), {}
    for word, written, where in _words(records):
        said[word] += 1
        if written != word:
            heard[word][written] += 1
            example.setdefault(word, where)
    found = [
        HardWord(word, said[word], sum(wrong.values()), min(wrong, key=lambda one: (-wrong[one], one)), example[word])
        for word, wrong in heard.items()
    ]
    return sorted(found, key=lambda word: (-word.wrong, -word.share, word.word))


def _words(records: Sequence[dict]) -> Iterator[tuple[str, str, str]]:
    """Yield (word, what was written for it, id) of every word of the references."""
    kept = [record for record in records if not _is_looped_record(record)]
    for _, reference, hypothesis, where in _aligned_chunks(kept):
        written = hypothesis or [OMITTED_WORD] * len(reference)
        yield from ((word, one, where) for word, one in zip(reference, written, strict=False))
