"""A sentence and what was said or written of it -> what was right, with accents and letters told apart from words.

marks_of("El café está frío.", "el cafe esta frío").accents == (("café", "cafe"), ("está", "esta"))
"""

from dataclasses import dataclass

from lengua.scoring import orthography, score
from lengua.text import normalise, strip_accents, strip_marks

Pair = tuple[str, str]
"""A word of the sentence, and what stands in its place."""


@dataclass(frozen=True)
class Marks:
    """How an answer fares against its sentence. Case and punctuation count only in `signs`."""

    words: int
    """Of the sentence."""
    right: int
    """Of them, those that are there, accents and all."""
    accents: tuple[Pair, ...] = ()
    """Right but for accents: "esta" for "está"."""
    letters: tuple[Pair, ...] = ()
    """Right but for marks that make another letter: "ano" for "año"."""
    missed: tuple[str, ...] = ()
    """Words of the sentence that are missing, or stand as others."""
    added: tuple[str, ...] = ()
    """Words of the answer that are not the sentence's."""
    signs: bool = False
    """Whether capitals or punctuation differ, where all words are there."""

    @property
    def is_perfect(self) -> bool:
        """Whether every word is right, however it is punctuated."""
        return self.right == self.words and not self.added


def marks_of(sentence: str, answer: str, language: str = "es") -> Marks:
    """Mark an answer, spoken or typed."""
    spelling = orthography([sentence], [answer], language)
    accents, letters = (tuple(spelling.pairs[name].elements()) for name in ("accents", "letters"))
    missed, added = _rest(sentence, answer, {word for pair in accents + letters for word in pair})
    plain = score([sentence], [answer])
    return Marks(
        words=plain.words,
        right=plain.hits,
        accents=accents,
        letters=letters,
        missed=missed,
        added=added,
        signs=not (missed or added) and _bare(sentence) != _bare(answer),
    )


def unmarked(sentence: str, language: str = "es") -> str:
    """Return the sentence as it is dictated: without accents, capitals and punctuation; ñ stays a letter."""
    return strip_accents(normalise(sentence), language)


def _bare(text: str) -> str:
    """Return a text as it is written, but for marks on letters."""
    return strip_marks(" ".join(text.split()))


def _rest(sentence: str, answer: str, told: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the words on one side only, in their order, but for those that were told of as spelled otherwise."""
    said, heard = normalise(sentence).split(), normalise(answer).split()
    return tuple(_without(said, heard, told)), tuple(_without(heard, said, told))


def _without(words: list[str], others: list[str], told: set[str]) -> list[str]:
    left, rest = list(others), []
    for word in words:
        if word in left:
            left.remove(word)
        elif word not in told:
            rest.append(word)
    return rest
