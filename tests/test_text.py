"""Labels, the normaliser of scoring (beside the one of Whisper), and accents."""

import random
import unicodedata
from collections.abc import Iterator

import pytest

from lengua.scoring.normalizer import NORMALISER_VERSION, clean_label, normalise, strip_accents, strip_marks

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


def test_normalise_ignores_case_spacing_and_composition():
    for text in SPANISH + SWEDISH:
        variants = [text.upper(), f"  {text}\n", text.replace(" ", "  "), unicodedata.normalize("NFD", text)]
        assert {normalise(variant) for variant in variants} == {normalise(text)}


def test_normalise_leaves_only_letters_digits_marks_and_single_spaces():
    for text in map(normalise, random_texts()):
        assert text == " ".join(text.split())
        assert {unicodedata.category(char)[0] for char in text} <= set("LMNZ")


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


def test_strip_accents_changes_nothing_but_marks():
    for text in SPANISH + SWEDISH:
        stripped = strip_accents(text)
        assert len(stripped) == len(text)
        assert {a for a, b in zip(text, stripped, strict=True) if a != b} <= set("áéíóúüäöÁÉÍÓÚÜÄÖ")


def test_the_examples_of_the_module_hold():
    assert clean_label("«Mañana,  señor.»") == "Mañana, señor."
    assert normalise("¿Mañana, señor? [ruido]") == "mañana señor"
    assert strip_accents("él y la cigüeña") == "el y la cigueña"
    assert strip_marks("él y la cigüeña") == "el y la ciguena"


def test_the_normaliser_has_a_name():
    assert NORMALISER_VERSION == "lengua-basic-1"
