"""Words as HTML: how sure the model is of each, and where two texts differ. All text is escaped.

Colour is never the only sign: each kind is underlined in its own way (assets/app_words.css).
"""

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from lengua.evaluation.report.html import DELETED, EQUAL, AlignedWord, word_diff
from lengua.inference import Segment, Word

SURE_PROBABILITY, GUESSED_PROBABILITY = 0.8, 0.6
"""Probabilities: from the first on a word passes for sure, below the second for a guess, between them for doubtful.

In real Common Voice some 5, 70 and 40 in 100 of them are wrong, in this order: benchmarks/doubtful_words.py."""
MAX_HIGHLIGHTED_WORDS = 800
"""Words of a page; an hour has ten thousand."""
MAX_UNSURE_WORDS = 12
GAP_HTML = "<i class='gap'><span>—</span></i>"


def confidence_class(word: Word) -> str:
    """Return sure, doubtful or guessed."""
    if word.probability >= SURE_PROBABILITY:
        return "sure"
    return "doubtful" if word.probability >= GUESSED_PROBABILITY else "guessed"


def highlight_confidence(segments: Iterable[Segment], language: str) -> str:
    """Return the words of segments as a paragraph, marked by probability."""
    return _paragraph((piece for segment in segments for piece in _highlight_segment(segment)), language)


def _highlight_segment(segment: Segment) -> Iterator[str]:
    if not segment.words:
        yield from map(html.escape, segment.text.split())
    for word in segment.words:
        kind, text = confidence_class(word), html.escape(word.text)
        percent = f"{100 * word.probability:.0f} %"
        yield text if kind == "sure" else f"<mark class='{kind}' title='{percent}'>{text}</mark>"


def unsure_words(segments: Iterable[Segment]) -> list[str]:
    """Return the words that are not sure, each once, the least sure first; at most 12."""
    unsure = [word for segment in segments for word in segment.words if confidence_class(word) != "sure"]
    texts = (word.text for word in sorted(unsure, key=lambda word: word.probability))
    names = (re.sub(r"^[\W_]+|[\W_]+$", "", text) for text in texts)
    return list(dict.fromkeys(filter(None, names)))[:MAX_UNSURE_WORDS]


def highlight_differences(text: str, other: str, language: str) -> str:
    """Return a text as a paragraph, with the words marked that another text has otherwise, and a gap where it has more.

    Words are compared as lengua.scoring compares them: capitals and punctuation do not count.
    """
    return _paragraph(_mark_differences(text, other), language)


def _mark_differences(text: str, other: str) -> Iterator[str]:
    words = word_diff(other, text)
    if [word.text for word in words if word.kind != DELETED] != text.split():  # a bracket over several words
        words = [AlignedWord(token, EQUAL) for token in text.split()]
    for word in words:
        if word.kind == DELETED:
            yield GAP_HTML
        else:
            escaped = html.escape(word.text)
            yield escaped if word.kind == EQUAL else f"<mark class='differs'>{escaped}</mark>"


def highlight_legend(kinds: Sequence[tuple[str, str]]) -> str:
    """Return (class, what it means) as a list, each marked as it is in the text."""
    lines = (f"<li><mark class='{kind}'>{html.escape(meaning)}</mark></li>" for kind, meaning in kinds)
    return f"<ul class='legend'>{''.join(lines)}</ul>"


def live_note(sentence: str, more: str = "") -> str:
    """Return a sentence as a paragraph that a screen reader tells when it changes; more: classes of it."""
    return f"<p class='said-here {more}' role='status'>{html.escape(sentence)}</p>"


def _paragraph(pieces: Iterable[str], language: str) -> str:
    shown = list(islice(pieces, MAX_HIGHLIGHTED_WORDS + 1))
    words = " ".join(shown[:MAX_HIGHLIGHTED_WORDS]) + (" …" if len(shown) > MAX_HIGHLIGHTED_WORDS else "")
    return f"<p class='words' lang='{html.escape(language)}'>{words}</p>"
