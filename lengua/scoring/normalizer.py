"""Views of a sentence: the label a model learns to write, and the plain words that scoring compares.

    clean_label("«Mañana,  señor.»") == "Mañana, señor."
    normalise("¿Mañana, señor? [ruido]") == "mañana señor"
    strip_accents("él y la cigüeña") == "el y la cigueña"
    strip_marks("él y la cigüeña") == "el y la ciguena"

The first two keep accents and ñ, for they are what a learner of Spanish writes or gets wrong; the others are for scores
that are blind to them, beside the one that counts.
"""

import re
import unicodedata

NORMALISER_VERSION = "lengua-basic-1"
"""Name of `normalise`, recorded in results: figures under another name are not comparable."""

# An opening and a closing quote that may wrap a sentence, in the styles of Common Voice's languages.
QUOTE_PAIRS = {'""', "''", "“”", "””", "„“", "„”", "‘’", "’’", "‚‘", "«»", "»«", "»»", "‹›", "「」", "『』"}
JOINERS = "\u200c\u200d"  # invisible, but part of the spelling of Persian and of Indic scripts
INVISIBLE_CATEGORIES = {
    "Cc",
    "Cf",
    "Cs",
}  # control, format (byte order mark, soft hyphen, text direction), lone surrogate
BRACKETED = re.compile(r"<[^>]*>|\[[^\]]*\]|\([^)]*\)")

ACCENT_MARKS = "\u0300\u0301\u0302\u0308"  # grave, acute, circumflex, diaeresis; never a tilde, cedilla or ring
# Letters that carry one of these marks and are letters of their own, not accented ones.
OWN_LETTERS = {"sv": "äö", "fi": "äö", "de": "äöü", "et": "äöü", "hu": "öü", "tr": "öü", "is": "ö", "uk": "ї"}
# Letters that Unicode does not take apart, as the Open ASR Leaderboard writes them without their marks.
UNDECOMPOSED_LETTERS = {"œ": "oe", "ø": "o", "æ": "ae", "ß": "ss", "đ": "d", "ð": "d", "þ": "th", "ł": "l"}
UNDECOMPOSED_LETTERS |= {
    letter.upper(): plain.upper() for letter, plain in UNDECOMPOSED_LETTERS.items() if letter != "ß"
} | {"ẞ": "SS"}
COMBINING_MARKS = re.compile("[\u0300-\u036f]")  # those of Latin, Greek and Cyrillic; never a vowel sign of Hindi


def clean_label(text: str) -> str:
    """Return what a label should be: NFC, single spaces, nothing invisible, no quotes around the whole sentence.

    Case, punctuation, accents and quotes inside the sentence stay as they are. Applied twice it changes nothing more.
    """
    visible = unicodedata.normalize("NFC", "".join(filter(_is_visible, text)))
    return _unquote(" ".join(visible.split()))


def normalise(text: str) -> str:
    """Return the words of a text as scoring compares them: lower case, no punctuation, accents and ñ kept.

    NFKC, lower case, bracketed text out ("[risas]", "(ruido)", "<unk>"), punctuation and symbols to spaces, one space
    between words. These are the steps of Whisper's basic normaliser (Radford et al. 2022, appendix C), except that
    combining marks on a letter stay (Hindi and Thai need them), invisible characters go, and brackets close by their
    own kind only. Spanish and Swedish text comes out equal. Applied twice it changes nothing more.
    """
    lowered = unicodedata.normalize("NFKC", text).lower()
    dotless = lowered.replace("i\u0307", "i")  # what lower() leaves of the Turkish capital
    spoken = _spoken(BRACKETED.sub(" ", unicodedata.normalize("NFKC", dotless)))
    return unicodedata.normalize("NFC", " ".join(spoken.split()))


def strip_accents(text: str, language: str | None = "es") -> str:
    """Return the text without accents, keeping what the language counts as a letter of its own.

    Acute, grave and circumflex accents and the diaeresis go ("él" -> "el", "pingüino" -> "pinguino"); ñ, ç, å and ã
    stay in every language, ä and ö where they are letters (Swedish, Finnish, German, ...).

    Args:
        text: normalised or not; the result is in NFC.
        language: Whisper's code; one without letters of its own here loses all four marks.
    """
    own = OWN_LETTERS.get(language, "")
    own = own + own.upper()
    composed = unicodedata.normalize("NFC", text)
    return unicodedata.normalize("NFC", "".join(char if char in own else _bare(char) for char in composed))


def strip_marks(text: str) -> str:
    """Return the text without any mark on a letter: ñ -> n, å -> a, й -> и, ø -> o, ß -> ss.

    This is how the Open ASR Leaderboard compares Latin, Greek and Cyrillic script (`remove_diacritics=True` of
    Whisper's basic normaliser). The vowel signs of Hindi, Thai and Arabic stay: without them words are other words.
    """
    bare = "".join(
        UNDECOMPOSED_LETTERS.get(char, char) for char in COMBINING_MARKS.sub("", unicodedata.normalize("NFD", text))
    )
    return unicodedata.normalize("NFC", bare)


def _is_visible(char: str) -> bool:
    return char.isspace() or char in JOINERS or unicodedata.category(char) not in INVISIBLE_CATEGORIES


def _unquote(text: str) -> str:
    """Strip quotes that wrap the whole text: not "Sí" y "no", whose outer quotes are no pair."""
    if len(text) < 2 or text[0] + text[-1] not in QUOTE_PAIRS:
        return text
    inside = text[1:-1]
    return text if text[0] in inside or text[-1] in inside else _unquote(inside.strip())


def _spoken(text: str) -> str:
    """Keep letters, digits and the marks on them; turn all else into spaces; drop format characters."""
    kept = [" "]
    for char in text:
        category = unicodedata.category(char)
        if category == "Cf":
            continue
        on_a_letter = category[0] == "M" and kept[-1] != " "
        kept.append(char if category[0] in "LN" or on_a_letter else " ")
    return "".join(kept)


def _bare(char: str) -> str:
    return "".join(part for part in unicodedata.normalize("NFD", char) if part not in ACCENT_MARKS)
