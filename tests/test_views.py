"""Views of the same errors, what is spelling only, numbers as digits and words; beside the Open ASR Leaderboard."""

import re

import pytest

from lengua.runtime.errors import LenguaError
from lengua.scoring import SCORE_VIEWS, count_spelling_errors, score, score_views
from lengua.scoring.normalizer import normalise, strip_marks
from lengua.scoring.number_words import NUMBER_LANGUAGES, canonical_number_words, is_number, number_readings

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
# Where we differ on purpose: the text, our words, theirs with marks, theirs without.
OTHERWISE = [
    # The vowel signs of Hindi are marks; without them one word is several, and other ones.
    ("हिन्दी में लिखो।", "हिन्दी में लिखो", "ह न द म ल ख", "ह नद म ल ख"),
    ("यह ५ रुपये का है", "यह ५ रुपये का है", "यह ५ र पय क ह", "यह ५ रपय क ह"),
    ("ठीक है?", "ठीक है", "ठ क ह", "ठ क ह"),
    # A bracket is closed by its own kind, and words beside one stay two.
    ("si 5 < 6 [ruido] fin", "si 5 6 fin", "si 5 fin", "si 5 fin"),
    ("uno[ruido]dos", "uno dos", "unodos", "unodos"),
]


def leaderboard(text: str, remove_diacritics: bool) -> str:
    """Normalise as the multilingual part of the Open ASR Leaderboard: Whisper's basic rules, then no sign is left."""
    whisper = pytest.importorskip("transformers.models.whisper.english_normalizer")
    words = whisper.BasicTextNormalizer(remove_diacritics=remove_diacritics)(text)
    return " ".join(re.sub(r"[^\w\s]", "", words).split())


@pytest.mark.parametrize("language", ALIKE)
def test_our_words_are_those_of_the_leaderboard(language):
    assert sum(map(len, ALIKE.values())) + len(OTHERWISE) == 40
    for text in ALIKE[language]:
        assert normalise(text) == leaderboard(text, remove_diacritics=False)
        assert strip_marks(normalise(text)) == leaderboard(text, remove_diacritics=True)


@pytest.mark.parametrize(("text", "ours", "with_marks", "without"), OTHERWISE)
def test_where_our_words_are_not_those_of_the_leaderboard(text, ours, with_marks, without):
    assert normalise(text) == strip_marks(normalise(text)) == normalise(ours)
    assert leaderboard(text, remove_diacritics=False) == leaderboard(with_marks, remove_diacritics=False) == with_marks
    assert leaderboard(text, remove_diacritics=True) == without


@pytest.mark.parametrize("language", ALIKE)
def test_the_rates_of_two_views_are_those_of_the_leaderboard(language):
    """Each text beside the next: plenty of errors, some of them marks only."""
    jiwer = pytest.importorskip("jiwer")
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


def test_no_utterances_have_no_classes():
    found = count_spelling_errors([], [])
    assert (set(found.counts.values()), found.words) == ({0}, 0)
    assert score_views([], [])["basic"].utterances == 0


def test_lengths_that_differ_are_refused():
    with pytest.raises(LenguaError, match="expected 2 hypotheses, one for each utterance; found 1"):
        count_spelling_errors(["uno", "dos"], ["uno"])
    with pytest.raises(LenguaError, match="found 1"):
        score_views(["uno", "dos"], ["uno"])


@pytest.mark.parametrize(
    ("language", "digits", "words"),
    [
        ("es", "0", "cero"),
        ("es", "16", "dieciséis"),
        ("es", "21", "veintiún"),
        ("es", "42", "cuarenta y dos"),
        ("es", "100", "cien"),
        ("es", "101", "ciento uno"),
        ("es", "500", "quinientas"),
        ("es", "723", "setecientos veintitrés"),
        ("es", "1000", "mil"),
        ("es", "2024", "dos mil veinticuatro"),
        ("es", "100000", "cien mil"),
        ("es", "999999", "novecientos noventa y nueve mil novecientos noventa y nueve"),
        ("es", "46 08 12", "cuarenta y seis cero ocho doce"),
        ("sv", "1", "en"),
        ("sv", "28", "tjugoåtta"),
        ("sv", "100", "hundra"),
        ("sv", "172", "etthundrasjuttiotvå"),
        ("sv", "1000", "ettusen"),
        ("sv", "1523", "femtonhundratjugotre"),
        ("sv", "1523", "ett tusen fem hundra tjugo tre"),
        ("sv", "12000", "tolvtusen"),
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
