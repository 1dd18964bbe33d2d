"""Word and character error rates, their intervals, and loops."""

import pickle
import random
import subprocess
import sys
import time
from statistics import NormalDist

import jiwer
import numpy as np
import pytest

from lengua.runtime.errors import LenguaError
from lengua.scoring import (
    bootstrap_interval,
    bootstrap_unit,
    cer,
    compare_by_bootstrap,
    compression_ratio,
    error_rate,
    expanded_tail,
    is_looped,
    minimum_detectable_difference,
    paired_bootstrap,
    score,
    wer,
)
from lengua.scoring.normalizer import strip_accents

REFERENCES = ["¿Dónde está la estación?", "El niño come pan.", "Mañana será otro día, dijo ella.", "Flickan på ön."]
HYPOTHESES = ["Donde está la estación", "El niño no come pan.", "Mañana otro día dijo ella", "flickan på en ö"]


def corrupted(count: int = 300, seed: int = 17) -> tuple[list[str], list[str]]:
    """Sentences and what a poor recogniser makes of them: words changed, lost and invented."""
    draw = random.Random(seed)
    words = "el la niño año está señal número mensaje flickan på ö marque para".split()
    references = [" ".join(draw.choices(words, k=draw.randint(1, 12))) for _ in range(count)]
    change = lambda word: draw.choice([word, word, word, draw.choice(words), "", f"{word} {word}"])  # noqa: E731
    return references, [" ".join(map(change, reference.split())) for reference in references]


def simulated(speakers: int, seed: int, clips: int = 10, mean: float = 0.25):
    """Errors, words and speakers of a test set whose speakers differ; the true rate is `mean`."""
    rng = np.random.default_rng(seed)
    words = rng.poisson(9, (speakers, clips)) + 1
    errors = rng.binomial(words, rng.beta(8 * mean, 8 * (1 - mean), speakers)[:, None])
    return errors.ravel(), words.ravel(), np.repeat([f"speaker{k}" for k in range(speakers)], clips).tolist()


def test_known_values():
    """One substitution, one insertion ("dos dos"), one deletion ("seis"), counted by hand."""
    found = score("uno dos tres cuatro cinco seis siete", "una dos dos tres cuatro cinco siete")
    assert (found.substitutions, found.insertions, found.deletions, found.hits, found.words) == (1, 1, 1, 5, 7)
    assert found.wer == pytest.approx(3 / 7)
    assert cer("hola", "ola") == 0.25
    assert cer("Mañana", "¡manana!") == pytest.approx(1 / 6)
    assert cer("a b", "ab") == pytest.approx(1 / 3)  # the space is a character


def test_edge_cases_are_defined():
    assert wer("", "") == cer("", "") == 0.0
    assert wer("...", "¡!") == 0.0
    assert wer("", "dos palabras") == 2.0
    assert wer("hola", "") == 1.0
    assert wer([], []) == 0.0
    assert score([], []).utterances == score([], []).words == len(score([], []).counts) == 0
    found = score(["", "hola mundo"], ["gracias", "hola mundo"])
    assert (found.wer, found.insertions, found.words, found.utterances) == (0.5, 1, 2, 2)
    assert error_rate(np.array([0, 3, 1]), np.array([0, 0, 4])).tolist() == [0.0, 3.0, 0.25]


def test_accents_count_and_case_and_punctuation_do_not():
    assert wer("¿Él está?", "él está") == 0.0
    assert wer("Él está", "el esta") == 1.0
    assert wer("El año", "el ano") == 0.5
    assert wer("Flickan på ön älskar ärtor.", "flickan pa on alskar artor") == 0.8
    assert wer("Él está", "el esta", lambda text: strip_accents(text.lower())) == 0.0


def test_raw_scores_compare_texts_as_they_are():
    assert wer("¿Él está?", "él está", str) == 1.0
    assert wer("Hola  mundo", " Hola mundo\n", str) == 0.0


def test_wer_may_exceed_one():
    assert wer("hola", "gracias " * 30) == 30.0


def test_a_single_text_is_one_utterance():
    assert score("hola mundo", "hola").utterances == 1
    assert score("hola mundo", "hola") == score(["hola mundo"], ["hola"])


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_those_of_jiwer(seed):
    references, hypotheses = corrupted(seed=seed)
    words = jiwer.process_words(references, hypotheses)
    found = score(references, hypotheses)
    assert found.wer == words.wer == jiwer.wer(references, hypotheses)
    assert found.cer == jiwer.cer(references, [" ".join(text.split()) for text in hypotheses])
    for name in ("substitutions", "deletions", "insertions", "hits"):
        assert getattr(found, name) == getattr(words, name)


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_the_usual_metric(seed):
    """`evaluate`'s wer, which the Hub serves as a script: it adds up what jiwer finds, utterance by utterance."""
    references, hypotheses = corrupted(seed=seed)
    each = [jiwer.process_words(*pair) for pair in zip(references, hypotheses, strict=True)]
    incorrect = sum(one.substitutions + one.deletions + one.insertions for one in each)
    assert wer(references, hypotheses, str) == incorrect / sum(
        one.substitutions + one.deletions + one.hits for one in each
    )


def test_raw_scores_equal_those_of_jiwer_on_texts_with_punctuation():
    assert wer(REFERENCES, HYPOTHESES, str) == jiwer.wer(REFERENCES, HYPOTHESES)
    assert cer(REFERENCES, HYPOTHESES, str) == jiwer.cer(REFERENCES, HYPOTHESES)


def test_counts_hold_every_utterance_and_add_up():
    references, hypotheses = corrupted()
    found = score(references, hypotheses)
    assert len(found.counts) == found.utterances == 300
    for k in (0, 7, 299):
        alone = score(references[k], hypotheses[k])
        assert alone.counts[0] == found.counts[k]
    assert found.counts["words"].sum() == found.words
    assert found.counts["errors"].sum() == found.substitutions + found.deletions + found.insertions
    assert (found.counts["words"] == [len(text.split()) for text in references]).all()


def test_right_is_zero_and_errors_are_bounded():
    references, hypotheses = corrupted()
    assert wer(references, references) == cer(references, references) == 0.0
    longest = [max(len(a.split()), len(b.split())) for a, b in zip(references, hypotheses, strict=True)]
    assert (score(references, hypotheses).counts["errors"] <= longest).all()
    swapped = score(hypotheses, references)
    assert swapped.counts["errors"].tolist() == score(references, hypotheses).counts["errors"].tolist()


def test_lengths_that_differ_are_refused_with_both_counts():
    with pytest.raises(LenguaError, match="expected 2 hypotheses, one for each utterance; found 1; pair them by"):
        score(["uno", "dos"], ["uno"])
    with pytest.raises(LenguaError, match="expected 3 counts, one for each utterance; found 2"):
        bootstrap_interval([1, 0], [3, 4, 5])
    with pytest.raises(LenguaError, match="found 1"):
        paired_bootstrap([1, 0], [1, 0], [3, 4], speakers=["a"])


def test_a_score_travels_between_processes():
    found = score(REFERENCES, HYPOTHESES)
    again = pickle.loads(pickle.dumps(found))
    assert again == found
    assert (again.counts == found.counts).all()


def test_the_unit_is_the_speaker_from_ten_known_speakers_on():
    ten = [f"speaker{k}" for k in range(10)]
    assert bootstrap_unit(ten * 3) == "speaker"
    assert bootstrap_unit(ten[:9] * 3) == "utterance"
    assert bootstrap_unit([*ten, None]) == bootstrap_unit([*ten, ""]) == "utterance"
    assert bootstrap_unit(None) == bootstrap_unit([]) == "utterance"


def test_intervals_are_repeatable_and_hold_the_rate():
    errors, words, speakers = simulated(20, seed=1)
    low, high = bootstrap_interval(errors, words, speakers)
    assert (low, high) == bootstrap_interval(errors.tolist(), words.tolist(), speakers)
    assert 0 < low < errors.sum() / words.sum() < high < 1
    assert (low, high) != bootstrap_interval(errors, words, speakers, seed=18)


def test_speakers_who_differ_widen_the_interval():
    errors, words, speakers = simulated(30, seed=2, clips=30)
    by_speaker = np.ptp(bootstrap_interval(errors, words, speakers))
    assert by_speaker > 1.5 * np.ptp(bootstrap_interval(errors, words))


def test_a_higher_level_is_wider_and_more_data_is_narrower():
    errors, words, _ = simulated(20, seed=3)
    narrow, usual, wide = (np.ptp(bootstrap_interval(errors, words, level=level)) for level in (0.8, 0.95, 0.99))
    assert narrow < usual < wide
    assert np.ptp(bootstrap_interval(np.tile(errors, 9), np.tile(words, 9))) == pytest.approx(usual / 3, rel=0.1)


def test_the_interval_of_equal_utterances_is_that_of_a_proportion():
    """400 utterances of one word, a quarter wrong: 0.25 -+ 1.966 sqrt(0.25 0.75 / 399)."""
    low, high = bootstrap_interval([1] * 100 + [0] * 300, [1] * 400, resamples=20_000)
    assert (low, high) == (pytest.approx(0.2074, abs=0.003), pytest.approx(0.2926, abs=0.003))


def test_intervals_of_nothing_and_of_one_utterance():
    assert bootstrap_interval([], []) == (0.0, 0.0)
    assert bootstrap_interval([1], [4]) == (0.25, 0.25)
    assert bootstrap_interval([0, 2], [0, 0]) == (0.0, 4.0)  # over no words, as `rate` defines
    assert paired_bootstrap([], [], []) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("units", "t"), [(10, 2.2622), (20, 2.0930), (100, 1.9842)])
def test_the_tail_is_that_of_the_t_quantile(units, t):
    """t(0.975) of n - 1 degrees of freedom, from a printed table."""
    assert -NormalDist().inv_cdf(expanded_tail(units)) * np.sqrt((units - 1) / units) == pytest.approx(t, abs=1e-3)
    assert expanded_tail(10**6) == pytest.approx(0.025, abs=1e-5)
    assert expanded_tail(1) == 0.0


@pytest.mark.parametrize(("speakers", "least"), [(10, 0.915), (100, 0.93)])
def test_coverage(speakers, least):
    """Of 600 simulated test sets, about 95 in 100 intervals hold the true rate (standard error 0.9 points)."""
    intervals = [bootstrap_interval(*simulated(speakers, seed), resamples=600) for seed in range(600)]
    assert least <= np.mean([low <= 0.25 <= high for low, high in intervals]) <= 0.975


def test_paired_differences_are_b_minus_a():
    errors, words, speakers = simulated(20, seed=4)
    better = np.maximum(errors - 1, 0)
    difference, low, high = paired_bootstrap(errors, better, words, speakers)
    assert difference == pytest.approx((better.sum() - errors.sum()) / words.sum())
    assert low < difference < high < 0
    assert paired_bootstrap(better, errors, words, speakers) == pytest.approx((-difference, -high, -low), abs=5e-3)


def test_a_model_does_not_differ_from_itself():
    errors, words, speakers = simulated(20, seed=5)
    assert paired_bootstrap(errors, errors, words, speakers) == (0.0, 0.0, 0.0)


def test_pairing_takes_out_what_is_hard_for_both():
    errors, words, speakers = simulated(40, seed=6)
    slightly_better = errors - np.random.default_rng(0).binomial(errors, 0.1)
    _, low, high = paired_bootstrap(errors, slightly_better, words, speakers)
    assert high < 0
    assert high - low < 0.25 * np.ptp(bootstrap_interval(errors, words, speakers))


def test_paired_coverage_of_no_difference():
    """Two models equally good on 40 speakers: zero is inside about 95 times in 100."""
    inside = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        rates, words = np.repeat(rng.beta(2, 6, 40), 10), rng.poisson(9, 400) + 1
        speakers = np.repeat(np.arange(1, 41).astype(str), 10).tolist()
        _, low, high = paired_bootstrap(*rng.binomial(words, rates, (2, 400)), words, speakers, resamples=600)
        inside.append(low <= 0 <= high)
    assert 0.91 <= np.mean(inside) <= 0.98


def two_models(speakers: int, seed: int, better: float = 0.8, clips: int = 12):
    """Errors of two models on the same clips, words and speakers; the true difference is -0.15 (1 - better)."""
    rng = np.random.default_rng(seed)
    words, hard = rng.poisson(9, (speakers, clips)) + 1, rng.gamma(1, 1, (speakers, clips))
    rates = 0.15 * rng.gamma(5, 1 / 5, (speakers, 1)) * hard * words
    names = np.repeat([f"speaker{k}" for k in range(speakers)], clips).tolist()
    return rng.poisson(rates).ravel(), rng.poisson(rates * better).ravel(), words.ravel(), names


def test_a_difference_says_what_the_test_set_could_show():
    a, b, words, speakers = two_models(60, seed=1)
    found = compare_by_bootstrap(a, b, words, speakers)
    assert (found.difference, found.low, found.high) == paired_bootstrap(a, b, words, speakers)
    assert found.smallest == minimum_detectable_difference(a, b, words, speakers)
    assert (found.unit, found.units) == ("speaker", 60)
    assert (found.high - found.low) / 2 < found.smallest < found.high - found.low
    assert compare_by_bootstrap(b, a, words, speakers).smallest == pytest.approx(found.smallest)
    assert minimum_detectable_difference(*two_models(240, seed=1)) == pytest.approx(found.smallest / 2, rel=0.25)


def test_a_difference_is_shown_when_zero_is_outside():
    many, few = (
        compare_by_bootstrap(*two_models(200, seed=2)),
        compare_by_bootstrap(*two_models(4, seed=2, better=0.95)),
    )
    assert many.shown and many.high < 0
    assert not few.shown and few.low <= 0 <= few.high and few.unit == "utterance"


def test_differences_of_nothing_of_one_and_of_none():
    nothing, one = compare_by_bootstrap([], [], []), compare_by_bootstrap([1], [0], [4])
    assert (nothing.difference, nothing.smallest, nothing.units, nothing.shown) == (0.0, None, 0, False)
    assert (one.difference, one.low, one.high, one.smallest) == (-0.25, -0.25, -0.25, None)
    assert not one.shown
    assert compare_by_bootstrap([1, 0, 2], [1, 0, 2], [4, 4, 4]).smallest == 0.0
    assert not compare_by_bootstrap([1, 0, 2], [1, 0, 2], [4, 4, 4]).shown


def test_the_smallest_difference_is_shown_four_times_in_five():
    """Where the true difference is the smallest one, the interval leaves out zero in about 80 of 100 test sets."""
    better = 0.8
    sets = [two_models(60, seed, better) for seed in range(400)]
    smallest = np.mean([minimum_detectable_difference(*one, resamples=400) for one in sets])
    better = 1 - smallest / 0.15
    shown = [compare_by_bootstrap(*two_models(60, 1000 + seed, better), resamples=400).shown for seed in range(400)]
    assert 0.72 <= np.mean(shown) <= 0.88


@pytest.mark.parametrize("speakers", [None, 300])
def test_ten_thousand_resamples_of_fifteen_thousand_utterances_take_under_ten_seconds(speakers):
    rng = np.random.default_rng(17)
    words = rng.poisson(9, 15_000) + 1
    names = speakers and [f"speaker{k % speakers}" for k in range(15_000)]
    a, b = rng.binomial(words, 0.2), rng.binomial(words, 0.18)
    start = time.perf_counter()
    low, high = bootstrap_interval(a, words, names, resamples=10_000)
    assert time.perf_counter() - start < 10
    assert 0.19 < low < high < 0.21
    start = time.perf_counter()
    _, low, high = paired_bootstrap(a, b, words, names, resamples=10_000)
    assert time.perf_counter() - start < 10
    assert -0.03 < low < high < -0.01


@pytest.mark.parametrize(
    "text",
    [
        "Gracias. " * 10,
        "y luego " * 6,
        "el número de la casa es " * 5,
        "Hola, el número " + "que usted " * 30,
        "å" * 40,
        "." * 60,
        "谢谢观看" * 12,
    ],
)
def test_loops_are_seen(text):
    assert is_looped(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sí.",
        "No, no, no, no, no.",
        "ja ja ja ja ja ja",
        "A ver, a ver, a ver.",
        "Nej, nej, nej, det går inte.",
        "Marque uno para español, marque dos para inglés, marque tres para francés, marque cuatro para italiano.",
        "Tres tristes tigres tragaban trigo en un trigal, en tres tristes trastos tragaban trigo tres tristes tigres.",
        "cero cero cuatro seis cero cero cero uno uno dos cero cero",
        *REFERENCES,
    ],
)
def test_speech_is_not_a_loop(text):
    assert not is_looped(text)


def test_nobody_says_so_much_so_fast():
    sentence = "mañana será otro día dijo ella y cerró la puerta de la casa sin mirar atrás"  # 16 words
    assert not is_looped(sentence, tokens=25, duration_s=4.0)
    assert is_looped(sentence, duration_s=1.0)
    assert is_looped("", tokens=200, duration_s=5.0)
    assert not is_looped("", tokens=200)  # without the duration it means nothing
    assert not is_looped("sí", tokens=3, duration_s=0.0)


def test_compression_ratio():
    assert compression_ratio("Mañana será otro día, dijo ella.") < 1.2
    assert compression_ratio("Gracias. " * 40) > 10
    assert compression_ratio("\ud800" * 3) > 0  # a lone surrogate is no reason to fall over


@pytest.mark.parametrize(
    "module",
    [
        "lengua.scoring.normalizer",
        "lengua.scoring",
        "lengua.evaluation.report.figures",
        "lengua.evaluation.report.tables",
    ],
)
def test_imports_stay_light(module):
    heavy = {"torch", "transformers", "datasets", "evaluate", "matplotlib", "pandas", "scipy"}
    show = f"import sys, {module}; print(*sorted({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True).stdout == "\n"
