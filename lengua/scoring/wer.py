"""Word and character errors of hypotheses against references, one row of counts an utterance; jiwer aligns."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import jiwer
import numpy as np

from lengua.runtime.errors import LenguaError
from lengua.scoring.normalizer import normalise

COUNT_FIELDS = "errors words substitutions deletions insertions hits character_errors characters"
COUNTS_DTYPE = np.dtype([(name, np.int64) for name in COUNT_FIELDS.split()])


@dataclass(frozen=True)
class Score:
    """Everything there is to know about hypotheses against references; rates are fractions (0.09, not 9)."""

    wer: float
    cer: float
    substitutions: int
    deletions: int
    insertions: int
    hits: int
    words: int
    characters: int
    utterances: int
    counts: np.ndarray = field(compare=False, repr=False)
    """Structured, one row an utterance, in the order given; fields as in COUNTS: counts["errors"], counts["words"]."""


def score(
    references: Sequence[str] | str, hypotheses: Sequence[str] | str, normaliser: Callable[[str], str] = normalise
) -> Score:
    """Align hypotheses with references by words and by characters, and count.

    Args:
        references: the true texts; one string counts as one utterance.
        hypotheses: what was recognised, in the same order.
        normaliser: applied to both sides; `str` compares them as they are, but for white space.
    Raises:
        LenguaError: not as many hypotheses as references.
    """
    references, hypotheses = _texts(references, normaliser), _texts(hypotheses, normaliser)
    counts = _counts(references, hypotheses)
    totals = {name: int(counts[name].sum()) for name in COUNTS_DTYPE.names}
    return Score(
        wer=float(error_rate(totals.pop("errors"), totals["words"])),
        cer=float(error_rate(totals.pop("character_errors"), totals["characters"])),
        utterances=len(references),
        counts=counts,
        **totals,
    )


def wer(references, hypotheses, normaliser: Callable[[str], str] = normalise) -> float:
    """Return the word error rate, (S + D + I) / words, as a fraction; above 1 when words were invented."""
    return score(references, hypotheses, normaliser).wer


def cer(references, hypotheses, normaliser: Callable[[str], str] = normalise) -> float:
    """Return the character error rate as a fraction; the space between words counts as a character, as in jiwer."""
    return score(references, hypotheses, normaliser).cer


def error_rate(errors, words):
    """Return errors / words, numbers or arrays; over no words the errors themselves, as over one word."""
    return errors / np.maximum(words, 1)


def aligned_words(
    references: Sequence[str], hypotheses: Sequence[str], normaliser: Callable[[str], str] = normalise
) -> jiwer.WordOutput:
    """Return jiwer's alignment of every utterance, with its words on both sides; no utterances are one empty one."""
    return jiwer.process_words(_texts(references, normaliser), _texts(hypotheses, normaliser))


def word_pairs(chunks: Sequence[jiwer.AlignmentChunk]) -> Iterator[tuple[str, int | None, int | None]]:
    """Yield (jiwer's kind, place in the reference, place in the hypothesis) of each pair of one alignment.

    A place is None where that side has nothing for the other's word.
    """
    for chunk in chunks:
        reference = range(chunk.ref_start_idx, chunk.ref_end_idx)
        hypothesis = range(chunk.hyp_start_idx, chunk.hyp_end_idx)
        nothing = [None] * max(len(reference), len(hypothesis))
        yield from ((chunk.type, *pair) for pair in zip(reference or nothing, hypothesis or nothing, strict=True))


def word_errors(aligned: jiwer.WordOutput) -> np.ndarray:
    """Return the word errors of every utterance of an alignment."""
    tallies = map(_tally, aligned.alignments)
    return np.array([tally.total() - tally["equal"] for tally in tallies], np.int64)


def _texts(texts: Sequence[str] | str, normaliser: Callable[[str], str]) -> list[str]:
    return [" ".join(normaliser(text).split()) for text in ([texts] if isinstance(texts, str) else texts)]


def require_equal(what: str, expected: int, found: int) -> None:
    if expected != found:
        raise LenguaError(f"{expected} {what}, one for each utterance", str(found), "pair them by utterance id first")


def _counts(references: list[str], hypotheses: list[str]) -> np.ndarray:
    require_equal("hypotheses", len(references), len(hypotheses))
    if not references:  # of which jiwer would make one empty utterance
        return np.zeros(0, COUNTS_DTYPE)
    by_words = map(_tally, jiwer.process_words(references, hypotheses).alignments)
    by_characters = map(_tally, jiwer.process_characters(references, hypotheses).alignments)
    return np.array(list(map(_row, by_words, by_characters)), COUNTS_DTYPE)


def _tally(chunks: list[jiwer.AlignmentChunk]) -> Counter:
    tally = Counter()
    for chunk in chunks:
        tally[chunk.type] += max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
    return tally


def _row(words: Counter, characters: Counter) -> tuple[int, ...]:
    """One row of COUNTS from the operations on words and on characters."""
    s, d, i, hits = words["substitute"], words["delete"], words["insert"], words["equal"]
    wrong = characters["substitute"] + characters["delete"]
    return (s + d + i, s + d + hits, s, d, i, hits, wrong + characters["insert"], wrong + characters["equal"])


def percent(fraction: float) -> str:
    """Write a fraction as per cent: 0.13 -> "13.0 %"."""
    return f"{100 * fraction:.1f} %"


def counted(count: int, noun: str) -> str:
    """Write a count with its noun: "1 clip", "1,200 clips"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
