"""Do nominal 95 % intervals hold the truth 95 times in 100? Simulated test sets, whose true WER is known.

    python benchmarks/intervals.py --simulations 2000 [--speakers 10 20 40 100]

A test set is a few speakers with about a dozen clips each, as in Common Voice. Speakers differ in how well they are
understood, clips in length and difficulty; some hypotheses hold more errors than the clip has words. Resampling
speakers is measured beside resampling utterances, and the paired interval of two models under a true difference. The
last column is how often a difference is shown that is as large as the mean of the smallest that such a set is stated to
show; 80 is meant. The last line is one JSON object.
"""

from dataclasses import dataclass

import numpy as np
from harness import BenchmarkOptions, markdown, report, run

from lengua.scoring import WerDifference, bootstrap_interval, compare_by_bootstrap

WER = 0.15
"""True rate of the first model."""
SPREAD = 3.0
"""Shape of the gamma law of speakers' rates: their standard deviation is 58 % of the mean."""
DIFFICULTY = 1.5
"""Shape of the gamma law of clips' difficulty: errors come in heaps."""
OWN = 20.0
"""Shape of what a speaker is to one model only, which pairing does not take out."""
CLIPS, WORDS = 12, 9
"""Means of clips a speaker and of words a clip."""
BETTER = 0.9
"""The second model's true rate, as a share of the first one's."""


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Simulate test sets and count how often the intervals hold the truth."""

    speakers: tuple[int, ...] = (10, 20, 40, 100)
    """Speakers of a test set."""
    simulations: int = 2000
    """Test sets for each number of speakers."""
    resamples: int = 1000
    """Resamples of each bootstrap."""
    seed: int = 17
    """Seed of the simulation."""


@dataclass(frozen=True)
class TestSet:
    """Errors of two models on the same clips."""

    a: np.ndarray
    b: np.ndarray
    words: np.ndarray
    speakers: list[str]


def main(options: Options) -> dict:
    found = {count: coverage(count, options) for count in options.speakers}
    header = [
        "speakers",
        "by speaker, %",
        "by utterance, %",
        "paired, %",
        "width, points",
        "smallest difference, points",
        "of these shown, %",
    ]
    rows = [[str(count), *(f"{100 * share:.1f}" for share in shares.values())] for count, shares in found.items()]
    error = 100 * (0.95 * 0.05 / options.simulations) ** 0.5
    lines = markdown(header, rows)
    lines += ["", f"{options.simulations:,} test sets in each row, so a coverage of 95 is known to {error:.1f} points."]
    result = {"simulations": options.simulations, "nominal": 0.95, "coverage": found}
    return report(options, "Coverage of the intervals", lines, result, shown=("simulations", "speakers"))


def coverage(speakers: int, options: Options) -> dict[str, float]:
    """Return the shares of test sets whose intervals hold the truth, their mean width, and what they could show."""
    rng = np.random.default_rng([options.seed, speakers])
    looks = np.array([look(simulated(rng, speakers, BETTER), options) for _ in range(options.simulations)])
    by_speaker, by_utterance, paired, width, smallest = map(float, looks.mean(axis=0))
    better = max(0.0, 1 - smallest / WER)
    shown = [compared(simulated(rng, speakers, better), options).shown for _ in range(options.simulations)]
    return {
        "by_speaker": by_speaker,
        "by_utterance": by_utterance,
        "paired": paired,
        "width": width,
        "smallest": smallest,
        "shown": float(np.mean(shown)),
    }


def look(one: TestSet, options: Options) -> tuple[float, ...]:
    """Return of one test set: whether each of the three intervals holds the truth, a width, a smallest difference."""
    low, high = bootstrap_interval(one.a, one.words, one.speakers, options.resamples)
    narrow, wide = bootstrap_interval(one.a, one.words, None, options.resamples)
    pair = compared(one, options)
    truth = WER * (BETTER - 1)
    return low <= WER <= high, narrow <= WER <= wide, pair.low <= truth <= pair.high, high - low, pair.smallest


def compared(one: TestSet, options: Options) -> WerDifference:
    return compare_by_bootstrap(one.a, one.b, one.words, one.speakers, options.resamples)


def simulated(rng: np.random.Generator, speakers: int, better: float) -> TestSet:
    """Draw a test set. True rates are WER and better * WER, because all else has a mean of one and knows no length."""
    clips = 1 + rng.negative_binomial(4, 4 / (4 + CLIPS - 1), speakers)
    who = np.repeat(np.arange(speakers), clips)
    words = 1 + rng.negative_binomial(6, 6 / (6 + WORDS - 1), len(who))
    expected = WER * mean_one(rng, SPREAD, speakers)[who] * mean_one(rng, DIFFICULTY, len(who)) * words
    a, b = (rng.poisson(rate * expected * mean_one(rng, OWN, speakers)[who]) for rate in (1.0, better))
    return TestSet(a, b, words, [f"speaker{number}" for number in who])


def mean_one(rng: np.random.Generator, shape: float, size: int) -> np.ndarray:
    """Draw factors around one from the gamma law of a shape."""
    return rng.gamma(shape, 1 / shape, size)


if __name__ == "__main__":
    run(main, Options)
