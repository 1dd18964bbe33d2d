"""Numbers as digits and as words: the readings of "25", so that "veinticinco" counts as the same number.

    number_readings(["25"], "es") == {"veinticinco", "doscinco"}             without spaces, so their place is ignored
    canonical_number_words(["treinta", "y", "una"], "es") == "treintayuno"   in the form of the readings

A rule of our own for whole numbers below a million, in Spanish and Swedish. Libraries do not fit: num2words is LGPL,
text2num has no Swedish. In other languages digits match only digits. Words are those of `strip_marks`: without
accents, ñ and å.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from itertools import product

MAX_NUMBER = 10**6
MAX_DIGIT_GROUPS = 6  # groups of digits in a row that are read together

ES_SMALL = """cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciseis
diecisiete dieciocho diecinueve veinte veintiuno veintidos veintitres veinticuatro veinticinco veintiseis veintisiete
veintiocho veintinueve""".split()
ES_TENS = "treinta cuarenta cincuenta sesenta setenta ochenta noventa".split()
ES_HUNDREDS = """ciento doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos
novecientos""".split()
SV_SMALL = """noll ett tva tre fyra fem sex sju atta nio tio elva tolv tretton fjorton femton sexton sjutton arton
nitton""".split()
SV_TENS = "tjugo trettio fyrtio femtio sextio sjuttio attio nittio".split()


def is_number(word: str) -> bool:
    """Tell whether a word is written in the digits 0 to 9."""
    return word.isascii() and word.isdigit()


def number_readings(words: list[str], language: str | None) -> set[str]:
    """Return the ways to read groups of digits, without spaces: one after the other, or as thousands ("3 500")."""
    if language not in NUMBER_LANGUAGES or len(words) > MAX_DIGIT_GROUPS:
        return set()
    ways = {"".join(parts) for parts in product(*(_readings(word, language) for word in words))}
    if len(words) > 1 and re.fullmatch(r"[1-9]\d{0,2}( \d{3})+", " ".join(words)):
        ways |= _readings("".join(words), language)
    return ways


def canonical_number_words(words: list[str], language: str | None) -> str:
    """Return words without spaces, with the forms of a number that mean the same made one: una, un -> uno."""
    return "".join(NUMBER_LANGUAGES[language][1](word) for word in words) if language in NUMBER_LANGUAGES else ""


def _readings(digits: str, language: str) -> set[str]:
    whole, _ = NUMBER_LANGUAGES[language]
    one_by_one = "".join("".join(whole(int(digit))[:1]) for digit in digits)
    led_by_zero = len(digits) > 1 and digits[0] == "0"
    return {one_by_one} | (set() if led_by_zero or int(digits) >= MAX_NUMBER else set(whole(int(digits))))


def _spanish(number: int) -> list[str]:
    if number < 30:
        return [ES_SMALL[number]]
    if number < 100:
        tens, ones = ES_TENS[number // 10 - 3], number % 10
        return [tens + (f"y{ES_SMALL[ones]}" if ones else "")]
    if number == 100:
        return ["cien"]
    if number < 1000:
        return [ES_HUNDREDS[number // 100 - 1] + _rest(_spanish, number % 100)]
    thousands = "" if number < 2000 else _spanish(number // 1000)[0]
    return [f"{thousands}mil{_rest(_spanish, number % 1000)}"]


@lru_cache(maxsize=2**14)
def _spanish_form(word: str) -> str:
    one = re.sub(r"(^|veinti|y)una?$", r"\1uno", word)
    return re.sub(r"^(.*c|quin)ientas$", r"\1ientos", one)


def _swedish(number: int) -> list[str]:
    """The ways to say it: the hundred with and without its "ett", and the hundreds of years."""
    if number < 100:
        tens, ones = divmod(number, 10)
        return [SV_SMALL[number] if number < 20 else SV_TENS[tens - 2] + (SV_SMALL[ones] if ones else "")]
    if number < 1000:
        return _spoken_unit(number, 100, "hundra")
    years = _spoken_unit(number, 100, "hundra") if 1100 <= number < 2000 else []
    return _spoken_unit(number, 1000, "tusen") + years


def _spoken_unit(number: int, unit: int, name: str) -> list[str]:
    count, rest = divmod(number, unit)
    counts = _swedish(count) + ([""] if count == 1 else [])
    rests = _swedish(rest) if rest else [""]
    return [f"{many}{name}{few}" for many, few in product(counts, rests)]


@lru_cache(maxsize=2**14)
def _swedish_form(word: str) -> str:
    return re.sub(r"^(en|et|ett)(?=$|hundra|tusen)", "ett", re.sub(r"(?<=o)en$", "ett", word))


def _rest(spoken: Callable[[int], list[str]], number: int) -> str:
    return spoken(number)[0] if number else ""


NUMBER_LANGUAGES = {"es": (_spanish, _spanish_form), "sv": (_swedish, _swedish_form)}
"""Of each language how a number is spoken, and the form of a word in which forms that mean the same are one."""
