"""Word error rate and what stands behind it, as pure functions over references and hypotheses.

    score(["hola mundo"], ["ola mundo"]).wer == 0.5
    bootstrap_interval(counts["errors"], counts["words"], speakers)        how far 0.5 can be trusted
    paired_bootstrap(before["errors"], after["errors"], before["words"])   whether two models differ

The edge cases are defined, and none divides by zero:

    wer("", "") == 0.0              silence heard as silence is no error
    wer("", "dos palabras") == 2.0  over no words, errors are counted as over one, as jiwer does
    wer("hola", "") == 1.0
    wer([], []) == 0.0              no utterances: look at `Score.utterances` before believing it
"""

import math
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from statistics import NormalDist

import jiwer
import numpy as np

from lengua.errors import LenguaError
from lengua.text import normalise

COUNTED = "errors words substitutions deletions insertions hits character_errors characters"
COUNTS = np.dtype([(name, np.int64) for name in COUNTED.split()])
MIN_SPEAKERS = 10  # with fewer, speakers say too little about speakers, and utterances are resampled
CHUNK = 2**20  # indices drawn at once: bounds the memory of a bootstrap to some 20 MB

MAX_COMPRESSION = 2.4  # of openai/whisper; 154 Common Voice sentences reach 1.2, a menu of voice A (468 letters) 2.39
MIN_BYTES = 40  # shorter texts say nothing by compression: a laugh, "ja ja ja ja ja"
MAX_NGRAM, MIN_REPEATS, MIN_REPEATED_WORDS = 8, 4, 8
MAX_WORDS_PER_SECOND, MAX_TOKENS_PER_SECOND = 8, 30  # fast speech stays under 7 words; 30 leaves room for any script
ALLOWANCE = 4  # words or tokens free of charge, so that a very short clip may hold one

Counts = Sequence[int]  # one an utterance
Speakers = Sequence[str | None] | None  # one an utterance, None where unknown


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
        references: what was said; one string counts as one utterance.
        hypotheses: what was recognised, in the same order.
        normaliser: applied to both sides; `str` compares them as they are, but for white space.
    Raises:
        LenguaError: not as many hypotheses as references.
    """
    truth, heard = _texts(references, normaliser), _texts(hypotheses, normaliser)
    counts = _counts(truth, heard)
    totals = {name: int(counts[name].sum()) for name in COUNTS.names}
    return Score(
        wer=float(rate(totals.pop("errors"), totals["words"])),
        cer=float(rate(totals.pop("character_errors"), totals["characters"])),
        utterances=len(truth),
        counts=counts,
        **totals,
    )


def wer(references, hypotheses, normaliser: Callable[[str], str] = normalise) -> float:
    """Return the word error rate, (S + D + I) / words, as a fraction; above 1 when words were invented."""
    return score(references, hypotheses, normaliser).wer


def cer(references, hypotheses, normaliser: Callable[[str], str] = normalise) -> float:
    """Return the character error rate as a fraction; the space between words counts as a character, as in jiwer."""
    return score(references, hypotheses, normaliser).cer


def rate(errors, words):
    """Return errors / words, numbers or arrays; over no words the errors themselves, as over one word."""
    return errors / np.maximum(words, 1)


def bootstrap_unit(speakers: Speakers) -> str:
    """Return what an interval resamples: "speaker" if all are known and at least ten differ, else "utterance".

    Clips of one voice are right or wrong together; resampling them apart gives intervals that are too narrow
    (Peng & Liu, arXiv 1912.09508). With fewer than ten voices there is nothing better: say so beside the figure.
    """
    known = speakers is not None and all(speakers)
    return "speaker" if known and len(set(speakers)) >= MIN_SPEAKERS else "utterance"


def bootstrap_interval(
    errors: Counts, words: Counts, speakers: Speakers = None, resamples: int = 2000, seed: int = 17, level=0.95
) -> tuple[float, float]:
    """Return (low, high) of the word error rate, as fractions: the expanded percentile bootstrap.

    Whole units (see `bootstrap_unit`) are drawn with replacement (Bisani & Ney, ICASSP 2004). Errors and words are
    those of `Score.counts`. One unit has no spread, and no units at all give (0, 0): neither tells anything.

    Raises:
        LenguaError: lengths that differ.
    """
    units = _units([errors, words], speakers)
    errors, words = _resampled_sums(units, resamples, seed).T
    return _interval(rate(errors, words), len(units), level)


def paired_bootstrap(
    errors_a: Counts, errors_b: Counts, words: Counts, speakers: Speakers = None, resamples=2000, seed=17, level=0.95
) -> tuple[float, float, float]:
    """Return (difference, low, high) of WER b minus WER a on the same utterances: negative means b is better.

    Each resample holds the same units for both, so what is hard for both cancels out. An interval with 0 inside is
    a difference that this test set cannot show. Arguments and errors as in `bootstrap_interval`.
    """
    units = _units([errors_a, errors_b, words], speakers)
    differences = _difference(_resampled_sums(units, resamples, seed))
    return float(_difference(units.sum(axis=0))), *_interval(differences, len(units), level)


def expanded_tail(units: int, level: float = 0.95) -> float:
    """Return the tail to cut on each side of the resamples, a little under (1 - level) / 2 when units are few.

    A percentile interval is too narrow for a small sample by sqrt((n - 1) / n) and by normal instead of t quantiles;
    the tail Phi(-sqrt(n / (n - 1)) t) makes up for both (Hesterberg 2014, arXiv 1411.5279). The t quantile is the
    series of Abramowitz & Stegun 26.7.5.
    """
    if units < 2:
        return 0.0
    z, v = NormalDist().inv_cdf((1 + level) / 2), units - 1
    t = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    return NormalDist().cdf(-t * math.sqrt(units / v))


def compression_ratio(text: str) -> float:
    """Return how many times smaller zlib makes the text: about 1 for a sentence, over 2.4 for a loop."""
    data = text.encode(errors="replace")
    return len(data) / len(zlib.compress(data))


def is_looped(text: str, tokens: int | None = None, duration_s: float | None = None) -> bool:
    """Tell whether the transcript of one window (up to 30 s) went round in circles, or is more than one can say.

    True on any of these; the limits are the constants above:
    - the text compresses more than 2.4 times (as in openai/whisper; from 40 bytes on);
    - one to eight words come at least four times in a row and make up eight words or more;
    - more than 8 words, or 30 tokens, a second of speech (`duration_s`: of the clip, not of the window).
    """
    words, seconds = normalise(text).split(), math.inf if duration_s is None else duration_s
    compressible = len(text.encode(errors="replace")) >= MIN_BYTES and compression_ratio(text) > MAX_COMPRESSION
    too_many_words = len(words) > ALLOWANCE + MAX_WORDS_PER_SECOND * seconds
    too_many_tokens = (tokens or 0) > ALLOWANCE + MAX_TOKENS_PER_SECOND * seconds
    return compressible or too_many_words or too_many_tokens or _repeats(words)


def _repeats(words: list[str]) -> bool:
    """r words in a row, each equal to the one n places on: an n-gram said r / n + 1 times."""
    for n in range(1, MAX_NGRAM + 1):
        same = [a == b for a, b in zip(words, words[n:], strict=False)]
        run = max((len(list(group)) for equal, group in groupby(same) if equal), default=0)
        if run + n >= max(MIN_REPEATS * n, MIN_REPEATED_WORDS):
            return True
    return False


def _texts(texts: Sequence[str] | str, normaliser: Callable[[str], str]) -> list[str]:
    return [" ".join(normaliser(text).split()) for text in ([texts] if isinstance(texts, str) else texts)]


def _require_equal(what: str, expected: int, found: int) -> None:
    if expected != found:
        raise LenguaError(f"{expected} {what}, one for each utterance", str(found), "pair them by utterance id first")


def _counts(references: list[str], hypotheses: list[str]) -> np.ndarray:
    _require_equal("hypotheses", len(references), len(hypotheses))
    if not references:  # of which jiwer would make one empty utterance
        return np.zeros(0, COUNTS)
    by_words = map(_tally, jiwer.process_words(references, hypotheses).alignments)
    by_characters = map(_tally, jiwer.process_characters(references, hypotheses).alignments)
    return np.array(list(map(_row, by_words, by_characters)), COUNTS)


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


def _units(columns: list[Counts], speakers: Speakers) -> np.ndarray:
    """Sum columns of per-utterance counts over what is resampled: shape (units, columns)."""
    for column in [*columns, *([] if speakers is None else [speakers])]:
        _require_equal("counts", len(columns[-1]), len(column))
    counts = np.stack([np.asarray(column, np.int64) for column in columns], axis=1)
    if bootstrap_unit(speakers) == "utterance":
        return counts
    names, unit = np.unique(np.asarray(speakers), return_inverse=True)
    sums = np.zeros((len(names), len(columns)), np.int64)
    np.add.at(sums, unit, counts)
    return sums


def _resampled_sums(units: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Draw as many units as there are, with replacement, and sum them, for every resample: (resamples, columns)."""
    n, rng = len(units), np.random.default_rng(seed)
    sums, step = np.zeros((resamples, units.shape[1]), np.int64), max(1, CHUNK // max(n, 1))
    for start in range(0, resamples if n else 0, step):
        drawn = rng.integers(n, size=(min(step, resamples - start), n), dtype=np.int32)
        for k, column in enumerate(np.ascontiguousarray(units.T)):
            sums[start : start + len(drawn), k] = column.take(drawn).sum(axis=1)
    return sums


def _difference(sums: np.ndarray) -> np.ndarray:
    """WER b minus WER a from sums of (errors a, errors b, words) in the last axis."""
    return rate(sums[..., 1], sums[..., 2]) - rate(sums[..., 0], sums[..., 2])


def _interval(values: np.ndarray, units: int, level: float) -> tuple[float, float]:
    tail = expanded_tail(units, level)
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
