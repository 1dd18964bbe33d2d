"""Telling that a text is in another language, as far as the text alone tells it: another script, or English.

No library guesses a language here: a few misheard words are too little to accuse a model by. What decoding itself knows
of the language comes as a flag of the record.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from lengua.text import normalise

# Whisper translates into English only, so this one language can be told by its commonest words, two different ones of
# them, less those that the references use themselves: "is" is Dutch, too, "an" German.
ENGLISH = frozenset(
    """about an all and are at be because been but can could don for from going have her here his how i if into
    is it its just m my not now of or our out she should so than thank that the their then there these they this
    those to very was we were what when where which who will with would you your""".split()
)
ENGLISH_SHARE = 0.25
# Scripts that are written together count as one.
TOGETHER = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "KATAKANA-HIRAGANA": "CJK", "FULLWIDTH": "LATIN"}
EXPECTED_SHARE = 0.02  # of the letters of all references: a script that is rarer is that of a foreign name
MOSTLY = 0.5


def english_words(references: Iterable[str], language: str) -> frozenset[str]:
    """Return the words that tell English from the language of some references; none where that is English."""
    spoken = {word for reference in references for word in normalise(reference).split()}
    return frozenset() if language == "en" else ENGLISH - spoken


def is_english(words: Sequence[str], english: frozenset[str]) -> bool:
    """Tell whether a text, in normalised words, has enough of the words that tell English."""
    found = [word for word in words if word in english]
    return len(set(found)) >= 2 and len(found) >= ENGLISH_SHARE * len(words)


def scripts_of(texts: Iterable[str]) -> set[str]:
    """Return the scripts that texts are written in: {"LATIN"}, {"CJK", "LATIN"}, ..."""
    letters = sum(map(_letters, texts), Counter())
    return {script for script, count in letters.items() if count >= EXPECTED_SHARE * letters.total()}


def is_in_other_script(text: str, expected: set[str]) -> bool:
    """Tell whether most letters of a text are of scripts that are not expected; never where nothing is expected."""
    letters = _letters(text)
    foreign = sum(count for script, count in letters.items() if script not in expected)
    return bool(expected) and foreign > MOSTLY * letters.total()


def _letters(text: str) -> Counter:
    """Count the letters of a text by script."""
    names = (unicodedata.name(char, "UNKNOWN").split()[0] for char in text if char.isalpha())
    return Counter(TOGETHER.get(name, name) for name in names)
