"""Putting right how the sample's texts are written: lost accents and plain slips, by a table of words and phrases.

    put_right("Su contrasena no es valida", "es")       "Su contraseña no es válida"

The table, `data/sample_es_accents.tsv`, holds what is unambiguous: a word that is right without its accent elsewhere
("esta", "se") stands in it with its neighbours. A word that nothing can put right becomes UNCERTAIN.
"""

import functools
import re
from importlib import resources

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
    lines = table_bytes(language).decode("utf-8").splitlines()[1:]
    corrections = dict(line.split("\t") for line in lines)
    longest_first = sorted(corrections, key=len, reverse=True)
    words = "|".join(map(re.escape, longest_first))
    return corrections, re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE) if words else None


def table_bytes(language: str) -> bytes:
    """Return the table as it is stored; nothing where a language has none."""
    path = resources.files("lengua") / "data" / f"sample_{language}_accents.tsv"
    return path.read_bytes() if path.is_file() else b""


def _cased(replacement: str, like: str) -> str:
    """Give the first letter of the replacement a capital if the first letter of `like` has one."""
    if not like[0].isupper():
        return replacement
    first = next((place for place, character in enumerate(replacement) if character.isalpha()), 0)
    return replacement[:first] + replacement[first].upper() + replacement[first + 1 :]
