"""How far a rate can be trusted: the bootstrap over speakers, of one model and of two on the same utterances."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from lengua.scoring.wer import error_rate, require_equal

MIN_SPEAKERS = 10  # with fewer, speakers say too little about speakers, and utterances are resampled
MAX_INDICES_AT_ONCE = 2**20  # indices drawn at once: bounds the memory of a bootstrap to some 20 MB
LEVEL = 0.95  # of all intervals
TARGET_POWER = 0.8  # a difference is called showable if four test sets in five like this one would show it

UtteranceCounts = Sequence[int]  # one an utterance
UtteranceSpeakers = Sequence[str | None] | None  # one an utterance, None where unknown


def bootstrap_unit(speakers: UtteranceSpeakers) -> str:
    """Return what an interval resamples: "speaker" if all are known and at least ten differ, else "utterance".

    Clips of one voice are right or wrong together; resampling them apart gives intervals that are too narrow
    (Peng & Liu, arXiv 1912.09508). With fewer than ten voices there is nothing better: say so beside the figure.
    """
    known = speakers is not None and all(speakers)
    return "speaker" if known and len(set(speakers)) >= MIN_SPEAKERS else "utterance"


def bootstrap_interval(
    errors: UtteranceCounts,
    words: UtteranceCounts,
    speakers: UtteranceSpeakers = None,
    resamples: int = 2000,
    seed: int = 17,
) -> tuple[float, float]:
    """Return (low, high) of the word error rate, as fractions: the expanded percentile bootstrap, at 95 %.

    Whole units (see `bootstrap_unit`) are drawn with replacement (Bisani & Ney, ICASSP 2004). Errors and words are
    those of `Score.counts`. One unit has no spread, and no units at all give (0, 0): neither tells anything.

    Raises:
        LenguaError: lengths that differ.
    """
    units = _units([errors, words], speakers)
    errors, words = _resampled_sums(units, resamples, seed).T
    return _interval(error_rate(errors, words), len(units))


@dataclass(frozen=True)
class WerDifference:
    """Model b beside model a on the same utterances; WER as fractions, b minus a: negative means b is better."""

    difference: float
    low: float
    high: float
    smallest: float | None
    """The smallest true difference that this test set would show four times in five; None below two units."""
    unit: str
    """What was resampled: speaker or utterance."""
    units: int

    @property
    def shown(self) -> bool:
        """Tell whether the interval leaves out zero; if not, or if there is one unit only, it is inside the noise."""
        return self.units > 1 and (self.low > 0 or self.high < 0)

    def clips_needed(self, clips: int, difference: float | None = None) -> int | None:
        """Return about how many clips like these `clips` it takes to show a difference; None where nothing tells.

        The smallest difference that shows shrinks with the square root of the clips, if they come with as many new
        voices.

        Args:
            difference: as a fraction; default: the one that was found.
        """
        wanted = abs(self.difference if difference is None else difference)
        return math.ceil(clips * (self.smallest / wanted) ** 2) if self.smallest and wanted else None


def compare_by_bootstrap(
    errors_a: UtteranceCounts,
    errors_b: UtteranceCounts,
    words: UtteranceCounts,
    speakers: UtteranceSpeakers = None,
    resamples: int = 2000,
    seed: int = 17,
) -> WerDifference:
    """Compare two models on the same utterances by the paired bootstrap.

    Each resample holds the same units for both, so what is hard for both cancels out. An interval with 0 inside is
    a difference that this test set cannot show. Arguments and errors as in `bootstrap_interval`.

    `smallest` is the minimum detectable difference, (t + z) standard errors: t leaves 2.5 % on each side, as the
    interval does, and z = 0.84 asks for a power of 80 % (Bloom 1995, Evaluation Review 19(5); the power of a WER test
    is the concern of Bisani & Ney 2004, too). The standard error is that of the resampled differences. It is 0 where
    both models are wrong alike on every unit, for then nothing tells how far they would differ on others.
    """
    units = _units([errors_a, errors_b, words], speakers)
    resampled, n = _difference(_resampled_sums(units, resamples, seed)), len(units)
    low, high = _interval(resampled, n)
    found = float(_difference(units.sum(axis=0)))
    return WerDifference(found, low, high, _detectable(resampled, n), bootstrap_unit(speakers), n)


def paired_bootstrap(
    errors_a: UtteranceCounts,
    errors_b: UtteranceCounts,
    words: UtteranceCounts,
    speakers: UtteranceSpeakers = None,
    resamples: int = 2000,
    seed: int = 17,
) -> tuple[float, float, float]:
    """Return (difference, low, high) of WER b minus WER a; see `compare_by_bootstrap`."""
    found = compare_by_bootstrap(errors_a, errors_b, words, speakers, resamples, seed)
    return found.difference, found.low, found.high


def expanded_tail(units: int) -> float:
    """Return the tail to cut on each side of the resamples, a little under 2.5 % when units are few.

    A percentile interval is too narrow for a small sample by sqrt((n - 1) / n) and by normal instead of t quantiles;
    the tail Phi(-sqrt(n / (n - 1)) t) makes up for both (Hesterberg 2014, arXiv 1411.5279). The t quantile is the
    series of Abramowitz & Stegun 26.7.5.
    """
    if units < 2:
        return 0.0
    z, v = NormalDist().inv_cdf((1 + LEVEL) / 2), units - 1
    t = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    return NormalDist().cdf(-t * math.sqrt(units / v))


def _units(columns: list[UtteranceCounts], speakers: UtteranceSpeakers) -> np.ndarray:
    """Sum columns of per-utterance counts over what is resampled: shape (units, columns)."""
    for column in [*columns, *([] if speakers is None else [speakers])]:
        require_equal("counts", len(columns[-1]), len(column))
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
    sums, step = np.zeros((resamples, units.shape[1]), np.int64), max(1, MAX_INDICES_AT_ONCE // max(n, 1))
    for start in range(0, resamples if n else 0, step):
        drawn = rng.integers(n, size=(min(step, resamples - start), n), dtype=np.int32).astype(np.intp)
        for k, column in enumerate(np.ascontiguousarray(units.T)):
            taken = column.take(drawn, mode="clip")  # "raise" would check each index anew
            sums[start : start + len(drawn), k] = taken.sum(axis=1)
    return sums


def _difference(sums: np.ndarray) -> np.ndarray:
    """WER b minus WER a from sums of (errors a, errors b, words) in the last axis."""
    return error_rate(sums[..., 1], sums[..., 2]) - error_rate(sums[..., 0], sums[..., 2])


def _interval(values: np.ndarray, units: int) -> tuple[float, float]:
    tail = expanded_tail(units)
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _detectable(differences: np.ndarray, units: int) -> float | None:
    """Return (t + z) standard errors; sqrt(n / (n - 1)) makes up for the bootstrap's too narrow spread in both."""
    tail = expanded_tail(units)
    if tail <= 0:  # one unit has no spread; the tail of two is smaller than a float can tell
        return None
    quantiles = -NormalDist().inv_cdf(tail)
    quantiles += NormalDist().inv_cdf(TARGET_POWER) * math.sqrt(units / (units - 1))
    return float(quantiles * differences.std())
