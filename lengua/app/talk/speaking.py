"""What the browser's voice says: a reply in sentences, as soon as each is whole, and which voices suit it.

data/app.js does the speaking.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from lengua.conversation import Setting

END = re.compile(r"[.!?…]+[\"'»”’)\]]*\s+|\n+")
SHORT = re.compile(r"(?:^|[\s(«“¿¡])(?:Sra?s?|Dra?s?|Ud?s?|Vds?|Mrs?|Ms|St|Avda?|Núm|núm|p|ej|EE|UU|[A-ZÑ])\.\s*$")
"""A full stop that ends no sentence."""
LONGEST = 200
"""Letters at a time: browsers fall silent in the middle of long ones."""
LATIN_AMERICA = ("es-419", "es-US", "es-MX")


@dataclass(frozen=True)
class Speech:
    """What is to be said of one reply so far."""

    reply: str = ""
    """Which one it is; another one silences it."""
    sentences: tuple[str, ...] = ()
    voices: tuple[str, ...] = ()
    """Languages of voices, best first: es-AR, es-419, ..."""


def sentences(text: str, ended: bool) -> tuple[str, ...]:
    """Return the sentences of a text that are whole; more text only ever adds to them.

    Args:
        ended: nothing comes after the text, so its last words are a sentence, too.
    """
    spoken = (_pronounced(piece) for part in _parts(text, ended) for piece in _short(part))
    return tuple(sentence for sentence in spoken if any(map(str.isalnum, sentence)))


def voices(setting: Setting) -> tuple[str, ...]:
    """Return the languages of voices that suit a variety, best first."""
    exact = f"{setting.language}-{setting.variety}" if setting.variety else setting.language
    near = LATIN_AMERICA if setting.language == "es" and setting.variety != "ES" else ()
    return tuple(dict.fromkeys((exact, *near, setting.language)))


def _parts(text: str, ended: bool) -> Iterator[str]:
    start = 0
    for found in END.finditer(text):
        part = text[start : found.end()]
        if not SHORT.search(part):
            yield part.strip()
            start = found.end()
    if ended and (rest := text[start:].strip()):
        yield rest


def _short(part: str) -> Iterator[str]:
    """Yield a sentence in pieces that are not too long, cut behind a comma or at a space where there is one."""
    while len(part) > LONGEST:
        cut = max((part.rfind(mark, LONGEST // 2, LONGEST) for mark in (", ", "; ", ": ")), default=-1)
        cut = cut if cut > 0 else part.rfind(" ", LONGEST // 2, LONGEST)
        cut = cut if cut > 0 else LONGEST - 1
        yield part[: cut + 1].strip()
        part = part[cut + 1 :].strip()
    yield part


def _pronounced(part: str) -> str:
    """Return a sentence without emoji and the like, which a voice would read out by name."""
    kept = (letter for letter in part if not _is_picture(letter))
    return " ".join("".join(kept).split())


def _is_picture(letter: str) -> bool:
    return letter in "\ufe0f\u200d•" or (ord(letter) > 0x2190 and unicodedata.category(letter) in ("So", "Sk", "Sm"))
