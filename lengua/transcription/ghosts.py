"""What Whisper says where nobody does: credits of subtitlers, goodbyes of videos. It learned to speak from subtitles.

`data/ghosts.tsv` holds such texts by language, as `lengua.text.normalise` leaves them, in two kinds:
- never: nobody says this aloud ("Subtítulos realizados por la comunidad de Amara.org");
- weak: people do say it ("Gracias."), so it is a ghost only where little else speaks for speech.

A text is compared as a whole, never in parts: in "Gracias, hasta mañana" every word was said. The list holds what users
of Whisper report again and again: the collection in openai/whisper's discussion 928, and what programs around Whisper
leave out in each language, where two of them or more agree or one quotes the recording; and what whisper-base wrote
into the noise of benchmarks/silence.py.
"""

import functools
from collections.abc import Set

from lengua.files import ASSETS
from lengua.text import normalise

NEVER, WEAK = "never", "weak"
Words = tuple[str, ...]


def ghost_kind(text: str, language: str) -> str | None:
    """Return "never" or "weak" if a text is made of ghosts from its first word to its last, else None.

    Once or several times the same, or one after the other: "Thank you. Thank you. Bye." What is never said is known in
    every language, for Whisper mixes them up; what may be said, in the text's own and in English.

    Args:
        text: what the model wrote.
        language: its code.
    """
    words = tuple(normalise(text).split())
    never = phrases(NEVER)
    if not words:
        return None
    if _made_of(words, never):
        return NEVER
    return WEAK if _made_of(words, never | phrases(WEAK, language) | phrases(WEAK, "en")) else None


@functools.cache
def phrases(kind: str, language: str | None = None) -> frozenset[Words]:
    """Return the words of the phrases of one kind, of one language or of all."""
    rows = (row for row in listed() if row[1] == kind and language in (None, row[0]))
    return frozenset(tuple(phrase.split()) for _, _, phrase in rows)


@functools.cache
def listed() -> tuple[tuple[str, str, str], ...]:
    """Return the list's rows: language, kind, phrase."""
    text = (ASSETS / "ghosts.tsv").read_text(encoding="utf-8")
    return tuple(tuple(line.split("\t")) for line in text.splitlines()[1:])


def _made_of(words: Words, known: Set[Words]) -> bool:
    """Whether known phrases, one behind the other, are all of the words."""
    lengths, reached = {len(phrase) for phrase in known}, {0}
    for end in range(1, len(words) + 1):
        if any(end - length in reached and words[end - length : end] in known for length in lengths):
            reached.add(end)
    return len(words) in reached
