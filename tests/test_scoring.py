"""Scores: the normaliser beside that of Whisper, error rates, spelling, intervals, and loops."""

import random
import re
import time
import unicodedata
from collections.abc import Iterator
from statistics import NormalDist

import jiwer
import numpy as np
import pytest

from lengua.runtime.errors import LenguaError
from lengua.scoring import (
    SCORE_VIEWS,
    bootstrap_interval,
    bootstrap_unit,
    cer,
    compare_by_bootstrap,
    compression_ratio,
    count_spelling_errors,
    error_rate,
    expanded_tail,
    is_looped,
    paired_bootstrap,
    score,
    score_views,
    wer,
)
from lengua.scoring.normalizer import clean_label, normalise, strip_accents, strip_marks
from lengua.scoring.number_words import NUMBER_LANGUAGES, canonical_number_words, is_number, number_readings

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
    assert wer("hola", "gracias " * 30) == 30.0
    assert score("hola mundo", "hola") == score(["hola mundo"], ["hola"])
    assert score([], []).utterances == score([], []).words == len(score([], []).counts) == 0
    found = score(["", "hola mundo"], ["gracias", "hola mundo"])
    assert (found.wer, found.insertions, found.words, found.utterances) == (0.5, 1, 2, 2)
    assert error_rate(np.array([0, 3, 1]), np.array([0, 0, 4])).tolist() == [0.0, 3.0, 0.25]


def test_accents_count_and_case_and_punctuation_do_not():
    assert wer("¿Él está?", "él está") == 0.0
    assert wer("Él está", "el esta") == 1.0
    assert wer("El año", "el ano") == 0.5
    assert wer("Flickan på ön älskar ärtor.", "flickan pa on alskar artor") == 0.8
    assert wer("¿Él está?", "él está", str) == 1.0 and wer("Hola  mundo", " Hola mundo\n", str) == 0.0
    assert wer("Él está", "el esta", lambda text: strip_accents(text.lower())) == 0.0


@pytest.mark.parametrize("seed", range(2))
def test_scores_equal_those_of_jiwer(seed):
    references, hypotheses = corrupted(seed=seed)
    words = jiwer.process_words(references, hypotheses)
    found = score(references, hypotheses)
    assert found.wer == words.wer == jiwer.wer(references, hypotheses)
    assert found.cer == jiwer.cer(references, [" ".join(text.split()) for text in hypotheses])
    for name in ("substitutions", "deletions", "insertions", "hits"):
        assert getattr(found, name) == getattr(words, name)
    assert wer(REFERENCES, HYPOTHESES, str) == jiwer.wer(REFERENCES, HYPOTHESES)
    assert cer(REFERENCES, HYPOTHESES, str) == jiwer.cer(REFERENCES, HYPOTHESES)
    assert wer(references, references) == cer(references, references) == 0.0


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


def test_lengths_that_differ_are_refused_with_both_counts():
    with pytest.raises(LenguaError, match="expected 2 hypotheses, one for each utterance; found 1; pair them by"):
        score(["uno", "dos"], ["uno"])
    with pytest.raises(LenguaError, match="expected 3 counts, one for each utterance; found 2"):
        bootstrap_interval([1, 0], [3, 4, 5])
    with pytest.raises(LenguaError, match="found 1"):
        paired_bootstrap([1, 0], [1, 0], [3, 4], speakers=["a"])


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
    usual = np.ptp(bootstrap_interval(errors, words))
    assert by_speaker > 1.5 * usual
    assert np.ptp(bootstrap_interval(np.tile(errors, 9), np.tile(words, 9))) == pytest.approx(usual / 3, rel=0.1)


def test_the_interval_of_equal_utterances_is_that_of_a_proportion():
    """400 utterances of one word, a quarter wrong: 0.25 -+ 1.966 sqrt(0.25 0.75 / 399)."""
    low, high = bootstrap_interval([1] * 100 + [0] * 300, [1] * 400, resamples=20_000)
    assert (low, high) == (pytest.approx(0.2074, abs=0.003), pytest.approx(0.2926, abs=0.003))


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
    assert (found.unit, found.units) == ("speaker", 60)
    assert (found.high - found.low) / 2 < found.smallest < found.high - found.low
    assert compare_by_bootstrap(b, a, words, speakers).smallest == pytest.approx(found.smallest)
    assert compare_by_bootstrap(*two_models(240, seed=1)).smallest == pytest.approx(found.smallest / 2, rel=0.25)


def test_a_difference_is_shown_when_zero_is_outside():
    many, few = (
        compare_by_bootstrap(*two_models(200, seed=2)),
        compare_by_bootstrap(*two_models(4, seed=2, better=0.95)),
    )
    assert many.shown and many.high < 0
    assert not few.shown and few.low <= 0 <= few.high and few.unit == "utterance"


def test_differences_of_nothing_of_one_and_of_none():
    assert bootstrap_interval([], []) == (0.0, 0.0) and paired_bootstrap([], [], []) == (0.0, 0.0, 0.0)
    assert bootstrap_interval([1], [4]) == (0.25, 0.25)
    assert bootstrap_interval([0, 2], [0, 0]) == (0.0, 4.0)  # over no words, as `error_rate` defines
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
    smallest = np.mean([compare_by_bootstrap(*one, resamples=400).smallest for one in sets])
    better = 1 - smallest / 0.15
    shown = [compare_by_bootstrap(*two_models(60, 1000 + seed, better), resamples=400).shown for seed in range(400)]
    assert 0.72 <= np.mean(shown) <= 0.88


@pytest.mark.parametrize("speakers", [None, 300])
def test_a_large_test_set_takes_seconds(speakers):
    rng = np.random.default_rng(17)
    words = rng.poisson(9, 15_000) + 1
    names = speakers and [f"speaker{k % speakers}" for k in range(15_000)]
    a, b = rng.binomial(words, 0.2), rng.binomial(words, 0.18)
    start = time.perf_counter()
    low, high = bootstrap_interval(a, words, names, resamples=10_000)
    assert time.perf_counter() - start < 10 and 0.19 < low < high < 0.21
    start = time.perf_counter()
    _, low, high = paired_bootstrap(a, b, words, names, resamples=10_000)
    assert time.perf_counter() - start < 10 and -0.03 < low < high < -0.01


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


# Texts

SPANISH = [
    "¿Dónde está la estación? —preguntó él.",
    "¡Qué vergüenza! El pingüino comió 3,5 kg de ñoquis...",
    "La 1.ª edición (agotada) costó 20 € en 1998; hoy, el doble.",
    "«Mañana», dijo, “será otro día”.",
]
SWEDISH = [
    "Flickan på ön älskar ärtor, men inte på fredagar!",
    "EU:s regler gäller från kl. 15.30 – även i Malmö.",
]
OTHERS = ["L'été, c'est l'heure d'été [rires] à Paris.", "Über 50 % der Straßen – na ja.", "Ёлка и ещё что-то."]


def random_texts(count: int = 3000, longest: int = 12) -> list[str]:
    """Texts of anything, thick with what the rules are about."""
    draw = random.Random(17)
    anything = [chr(draw.randrange(0x3100)) for _ in range(400)]
    pool = anything + list("\"'«»“”„‘’ \t\n()[]<>ñáüÁÑåäö¿¡.,-_´`^¨\u0301\u0303\u200b\u200d\u00ad\x00") * 8
    return ["".join(draw.choices(pool, k=draw.randint(0, longest))) for _ in range(count)]


def every_character(a_text: int = 256) -> Iterator[str]:
    """The first two planes of Unicode, each character once on a letter and once alone."""
    for start in range(0, 0x20000, a_text):
        yield " ".join(f"a{chr(point)}b {chr(point)}" for point in range(start, start + a_text))


@pytest.mark.parametrize(
    ("raw", "label"),
    [
        ("Hola, ¿qué tal?", "Hola, ¿qué tal?"),
        ("  Hola \t mundo\r\n", "Hola mundo"),
        ("Nu\u0301mero", "Número"),  # a decomposed accent
        ("\ufeffBuenos d\u00adías\u200b.", "Buenos días."),  # byte order mark, soft hyphen, zero-width space
        ("nada\x00 \x07 más", "nada más"),
        ("dos\xa0palabras", "dos palabras"),
        ('"Mañana, señor."', "Mañana, señor."),
        ("“Mañana.”", "Mañana."),
        ("« Mañana. »", "Mañana."),
        ("”Hon kom hem.”", "Hon kom hem."),  # Swedish opens and closes alike
        ("“«Mañana»”", "Mañana"),
        ('"Sí" y "no"', '"Sí" y "no"'),  # the outer quotes are no pair
        ('Dijo "sí".', 'Dijo "sí".'),
        ('"Sí".', '"Sí".'),
        ("'", "'"),
        ('""', ""),
        ("", ""),
        ("می\u200cروم", "می\u200cروم"),  # a joiner that Persian spells with
    ],
)
def test_clean_label(raw, label):
    assert clean_label(raw) == label


@pytest.mark.parametrize("text", SPANISH + SWEDISH)
def test_a_clean_label_is_left_alone(text):
    assert clean_label(text) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("¿Dónde está la estación?", "dónde está la estación"),
        ("El Niño; el AÑO, la cigüeña.", "el niño el año la cigüeña"),
        ("n\u0303andu\u0301", "ñandú"),
        ("[música] Hola (risas) mundo <unk>", "hola mundo"),
        ("Cuesta 3,50 € (aprox.)", "cuesta 3 50"),
        ("veintidós-veintitrés", "veintidós veintitrés"),
        ("EU:s", "eu s"),
        ("1.º ½ №", "1 o 1 2 no"),  # NFKC spells them out
        ("...", ""),
        ("", ""),
        (" \t\n", ""),
        ("´ ` ^ ¨", ""),  # NFKC makes each a space with a mark: no word
        ("ho\u200bla", "hola"),
    ],
)
def test_normalise(text, words):
    assert normalise(text) == words


def whisper_normaliser():
    return pytest.importorskip("transformers.models.whisper.english_normalizer").BasicTextNormalizer()


@pytest.mark.parametrize("text", SPANISH + SWEDISH + OTHERS)
def test_normalise_agrees_with_the_normaliser_of_whisper(text):
    """The basic one, remove_diacritics=False: that of multilingual WERs; its outer spaces are no words."""
    assert normalise(text) == whisper_normaliser()(text).strip()


@pytest.mark.parametrize(
    ("text", "ours", "whispers"),
    [
        ("हिन्दी", "हिन्दी", "ह न द"),  # vowel signs and the virama are marks: without them half the word is gone
        ("ข้อมูล", "ข้อมูล", "ข อม ล"),
        ("İstanbul", "istanbul", "i stanbul"),
        ("ho\u200bla", "hola", "ho\u200bla"),
        ("si 5 < 6 [ruido]", "si 5 6", "si 5"),  # a bracket closed by another kind
        ("uno[ruido]dos", "uno dos", "unodos"),
        ("（笑）はい", "はい", "笑 はい"),  # full-width brackets are brackets
        ("यह ५ रुपये का है", "यह ५ रुपये का है", "यह ५ र पय क ह"),
    ],
)
def test_normalise_differs_from_the_normaliser_of_whisper(text, ours, whispers):
    composed = unicodedata.normalize("NFC", text)
    assert normalise(text) == unicodedata.normalize("NFC", ours)
    assert whisper_normaliser()(composed).strip() == unicodedata.normalize("NFC", whispers)


@pytest.mark.parametrize("rule", [clean_label, normalise, strip_accents, strip_marks])
def test_twice_is_once(rule):
    texts = random_texts() + list(every_character())
    assert len(texts) == 3000 + 512
    assert [text for text in texts if rule(rule(text)) != rule(text)] == []


def test_strip_accents_keeps_the_letters_of_the_language():
    assert strip_accents("él está, pingüino, año, Ñandú") == "el esta, pinguino, año, Ñandu"
    assert strip_accents("på ön älskar en kafé", "sv") == "på ön älskar en kafe"
    assert strip_accents("Über Äpfel à la carte", "de") == "Über Äpfel a la carte"
    assert strip_accents("façade à l'île, São", "fr") == "façade a l'ile, São"
    assert strip_accents("n\u0303u") == "ñu"


def test_strip_marks_leaves_bare_letters_and_other_scripts():
    assert strip_marks("Él comió ñoquis, pingüino") == "El comio noquis, pinguino"
    assert strip_marks("på ÖN, smørrebrød, Łódź, Straße") == "pa ON, smorrebrod, Lodz, Strasse"
    assert strip_marks("Мой ёж") == "Мои еж"
    assert strip_marks("हिन्दी ข้อมูล 한국어") == "हिन्दी ข้อมูล 한국어"


# Views, spelling and numbers

# Texts whose words the Open ASR Leaderboard and we find alike, with marks on letters and without.
ALIKE = {
    "es": [
        "¿Dónde está la estación? —preguntó él.",
        "¡Qué vergüenza! El pingüino comió 3,5 kg de ñoquis...",
        "La 1.ª edición (agotada) costó 20 € en 1998; hoy, el doble.",
        "«Mañana», dijo, “será otro día”.",
        "[música] El año pasado llovió (risas) mucho.",
        "El EE. UU. de hoy: ¡100 % distinto!",
        "veintidós-veintitrés y/o cuarenta",
        "Pidió 1.500 pesetas & 2 cafés @ casa",
        "O'Higgins nació en Chillán.",
        "ho\u200bla, coöperación",
        "ñandú y n\u0303andu\u0301",
        "x² y ½",
    ],
    "sv": [
        "Flickan på ön älskar ärtor, men inte på fredagar!",
        "EU:s regler gäller från kl. 15.30 – även i Malmö.",
        "Å, så skönt! Räkor & öl…",
        "”Hej”, sa Åsa – ”är du här?”",
        "Idé, à la carte och café.",
        "25 % av 1 000 kr.",
        "Han/hon, t.ex. i S:t Eriks-området",
    ],
    "fr": [
        "L'été, c'est l'heure d'été [rires] à Paris.",
        "Où est le cœur de l’œuvre ?",
        "Ça va ? — Très bien, merci !",
        "N° 5 : 12,50 €",
        "aujourd'hui, peut-être qu'à Noël",
        "Les naïfs ægipans, vis-à-vis.",
    ],
    "de": [
        "Über 50 % der Straßen – na ja.",
        "„Schöne Grüße“, sagte er.",
        "Weiß er's? Äußerst größer!",
        "Der 3. Oktober ’89",
        "STRASSE, ẞ und Öl",
    ],
    "ru": [
        "Ёлка и ещё что-то.",
        "Мой чай — «горячий»!",
        "Подъезд № 5, этаж 2-й.",
        "Йод, ёж и объём.",
        "Что?! Да… нет.",
    ],
}


def leaderboard(text: str, remove_diacritics: bool) -> str:
    """Normalise as the multilingual part of the Open ASR Leaderboard: Whisper's basic rules, then no sign is left."""
    whisper = pytest.importorskip("transformers.models.whisper.english_normalizer")
    words = whisper.BasicTextNormalizer(remove_diacritics=remove_diacritics)(text)
    return " ".join(re.sub(r"[^\w\s]", "", words).split())


@pytest.mark.parametrize("language", ALIKE)
def test_our_words_are_those_of_the_leaderboard(language):
    for text in ALIKE[language]:
        assert normalise(text) == leaderboard(text, remove_diacritics=False)
        assert strip_marks(normalise(text)) == leaderboard(text, remove_diacritics=True)


@pytest.mark.parametrize("language", ALIKE)
def test_the_rates_of_two_views_are_those_of_the_leaderboard(language):
    """Each text beside the next: plenty of errors, some of them marks only."""
    heard = [text.replace("é", "e").replace("ö", "o").replace("й", "и") for text in ALIKE[language]]
    heard[0] = heard[-1]
    found = score_views(ALIKE[language], heard, language)
    for name, blind in (("basic", False), ("mark_blind", True)):
        said, written = ([leaderboard(text, blind) for text in texts] for texts in (ALIKE[language], heard))
        assert found[name].wer == jiwer.wer(said, written) > 0


def test_each_view_forgives_more():
    found = score_views(["¿Él come PIÑAS?", "El pingüino."], ["el come pinas", "el pingüino"])
    assert tuple(found) == SCORE_VIEWS
    assert [round(found[view].wer * 5) for view in SCORE_VIEWS] == [4, 2, 1, 0]
    assert found["basic"] == score(["¿Él come PIÑAS?", "El pingüino."], ["el come pinas", "el pingüino"])
    assert score_views("på ön", "pa on", "sv")["accent_blind"].wer == 1.0
    assert score_views("på ön", "pa on", None)["accent_blind"].wer == 0.5  # no language: ö is an o with an accent


@pytest.mark.parametrize(
    ("language", "reference", "hypothesis", "counts", "words", "pair"),
    [
        ("es", "el Niño", "el niño", {"case": 1}, 0, ("Niño", "niño")),
        ("es", "sí, hoy", "sí hoy", {"punctuation": 1}, 0, ("sí,", "sí")),
        ("es", "él vino", "el vino", {"accents": 1}, 0, ("él", "el")),
        ("es", "un año más", "un ano más", {"letters": 1}, 0, ("año", "ano")),
        ("sv", "på ön", "pa on", {"letters": 2}, 0, ("på", "pa")),
        ("de", "die straße", "die strasse", {"letters": 1}, 0, ("straße", "strasse")),
        ("ru", "ещё чай", "еще чай", {"accents": 1}, 0, ("ещё", "еще")),
        ("es", "tengo 25 euros", "tengo veinticinco euros", {"numbers": 1}, 0, ("25", "veinticinco")),
        ("es", "treinta y una casas", "31 casas", {"numbers": 3}, 0, ("treinta y una", "31")),
        ("es", "en 1998", "en mil novecientos noventa y ocho", {"numbers": 5}, 0, None),
        ("es", "el 3.500", "el tres mil quinientos", {"numbers": 3}, 0, ("3 500", "tres mil quinientos")),
        ("es", "marque 046", "marque cero cuatro seis", {"numbers": 3}, 0, ("046", "cero cuatro seis")),
        ("sv", "år 1998", "år nittonhundra nittioåtta", {"numbers": 2}, 0, None),
        ("fr", "3 500 francs", "3500 francs", {"numbers": 2}, 0, ("3 500", "3500")),
        ("fr", "25 francs", "vingt cinq francs", {}, 2, None),  # a language whose numbers are not known
        ("es", "porque sí", "por que sí", {"spacing": 2}, 0, ("porque", "por que")),
        ("es", "no sé por qué", "no sé porque", {"spacing": 2}, 0, ("por qué", "porque")),
        ("sv", "en tjugofem år", "en tjugo fem år", {"spacing": 2}, 0, ("tjugofem", "tjugo fem")),
        ("es", "tengo 25 euros", "tengo veintiséis euros", {}, 1, None),  # another number is a wrong word
        ("es", "un día", "una día", {}, 1, None),  # one number, but no digits: a wrong word
        ("es", "la casa", "la cosa", {}, 1, None),
        ("es", "", "gracias por ver", {}, 3, None),
        ("es", "hola", "", {}, 1, None),
        ("es", "", "", {}, 0, None),
    ],
)
def test_spelling_and_hearing_are_told_apart(language, reference, hypothesis, counts, words, pair):
    found = count_spelling_errors(reference, hypothesis, language)
    assert {name: count for name, count in found.counts.items() if count} == counts
    assert found.words == words
    if pair:
        (name,) = counts
        assert found.pairs[name][pair] == 1
    assert sum(map(len, found.pairs.values())) == 0 or counts


def test_classes_and_words_add_up_to_the_errors():
    references = ["¿Él vino en el año dos mil?", "Porque tengo 25 euros.", "", "La casa", "El Niño.", "por qué no"]
    hypotheses = ["el vino en el ano 2000", "por que tengo veinticinco euro", "sí", "", "el niño", "porque no no " * 60]
    found, scores = count_spelling_errors(references, hypotheses), score_views(references, hypotheses)
    errors = {name: int(one.counts["errors"].sum()) for name, one in scores.items()}
    spelling = dict(found.counts)
    assert errors["raw"] == errors["basic"] + spelling["case"] + spelling["punctuation"]
    assert errors["basic"] == found.words + sum(spelling[name] for name in "accents letters numbers spacing".split())
    assert errors["basic"] - spelling["accents"] == errors["accent_blind"]
    assert errors["accent_blind"] - spelling["letters"] == errors["mark_blind"]
    assert min(spelling.values()) > 0


@pytest.mark.parametrize(
    ("language", "digits", "words"),
    [
        ("es", "16", "dieciséis"),
        ("es", "21", "veintiún"),
        ("es", "42", "cuarenta y dos"),
        ("es", "101", "ciento uno"),
        ("es", "500", "quinientas"),
        ("es", "100000", "cien mil"),
        ("es", "999999", "novecientos noventa y nueve mil novecientos noventa y nueve"),
        ("es", "46 08 12", "cuarenta y seis cero ocho doce"),
        ("sv", "100", "hundra"),
        ("sv", "172", "etthundrasjuttiotvå"),
        ("sv", "1000", "ettusen"),
        ("sv", "1523", "femtonhundratjugotre"),
        ("sv", "1523", "ett tusen fem hundra tjugo tre"),
    ],
)
def test_numbers_are_read_aloud(language, digits, words):
    said = canonical_number_words(strip_marks(normalise(words)).split(), language)
    assert said in number_readings(digits.split(), language)


@pytest.mark.parametrize("language", NUMBER_LANGUAGES)
def test_no_two_numbers_are_read_alike(language):
    """But for lists of digits, which this leaves out: "dos mil" is one number only."""
    whole, form = NUMBER_LANGUAGES[language]
    spoken = [{form(way) for way in whole(number)} for number in range(10_000)]
    assert len(set().union(*spoken)) == sum(map(len, spoken))


def test_no_reading_where_there_is_none():
    assert number_readings(["25"], "fr") == number_readings(["25"], None) == number_readings(["1"] * 7, "es") == set()
    assert canonical_number_words(["vingt"], "fr") == ""
    assert number_readings(["1000000"], "es") == {"uno" + "cero" * 6}  # above the limit: digit by digit
    assert is_number("25") and not any(map(is_number, ["", "२५", "x2", "2º"]))
