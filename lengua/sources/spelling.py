"""The texts of the sample put right, by two tables that were made for it.

    put_right("Su contrasena no es valida", "es")       "Su contraseña no es válida"

`data/sample_es_accents.tsv` holds what is unambiguous: a word that is right without its accent elsewhere ("esta", "se")
stands in it with its neighbours, and a word that nothing can put right becomes UNCERTAIN.
`data/sample_es_misread.tsv` names the clips whose text is not what is said ("Una pesquería" over "una piscifactoría").
Untouched whisper-base heard other words there, most of them in three decodings; no person has listened to them all.
"""

import functools
import re

from lengua.files import ASSETS

UNCERTAIN = "???"
# What hints at a sentence before or after the prompt, and nobody says.
ELLIPSIS = re.compile(r"^[\s,.…]+|\s*(?:…|\.\.\.)$")


def put_right(text: str, language: str) -> str:
    """Return the text with the table's words and phrases replaced, single spaces, and no ellipsis at either end.

    A replacement starts with a capital where what it replaces does.
    """
    corrections, pattern = table(language)
    text = ELLIPSIS.sub("", " ".join(text.split()))
    if not pattern:
        return text
    return pattern.sub(lambda found: _cased(corrections[found[0].lower()], like=found[0]), text)


@functools.cache
def table(language: str) -> tuple[dict[str, str], re.Pattern | None]:
    """Return the corrections of a language, by what is written in lowercase, and a pattern that finds them."""
    corrections = dict(stored_pairs(language, "accents"))
    longest_first = sorted(corrections, key=len, reverse=True)
    words = "|".join(map(re.escape, longest_first))
    return corrections, re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE) if words else None


@functools.cache
def misread(language: str) -> frozenset[str]:
    """Return the ids of the clips that say other words than their text."""
    return frozenset(id_ for id_, _ in stored_pairs(language, "misread"))


def stored_pairs(language: str, name: str) -> list[tuple[str, str]]:
    """Return the rows of one table below its header; none where a language has no such table."""
    lines = stored(language, name).decode("utf-8").splitlines()[1:]
    return [tuple(line.split("\t")) for line in lines]


def stored(language: str, name: str) -> bytes:
    """Return one table, accents or misread, as its bytes."""
    path = ASSETS / f"sample_{language}_{name}.tsv"
    return path.read_bytes() if path.is_file() else b""


def _cased(replacement: str, like: str) -> str:
    """Give the first letter of the replacement a capital if the first letter of `like` has one."""
    if not like[0].isupper():
        return replacement
    first = next((place for place, character in enumerate(replacement) if character.isalpha()), 0)
    return replacement[:first] + replacement[first].upper() + replacement[first + 1 :]
