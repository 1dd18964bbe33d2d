"""A hypothesis held against its reference, word by word, as both were written.

    compared("Clave incorrecta.", "clave correcta y")
        -> clave (equal), correcta (substituted, said: incorrecta.), y (inserted)

What counts as an error is what `lengua.scoring` counts: words are aligned as `normalise` leaves them, and shown with
the capitals and the punctuation that they had.
"""

from typing import NamedTuple

import jiwer

from lengua.text import normalise

EQUAL, SUBSTITUTED, DELETED, INSERTED = "equal", "substituted", "deleted", "inserted"
SHOWN = 80
"""Words of one hypothesis that a page shows; a loop has hundreds."""


class Word(NamedTuple):
    """One word of a hypothesis, or one that it lacks; `said` is what stands in its place in the reference."""

    text: str
    kind: str
    said: str = ""


class Spelled(NamedTuple):
    """A text as it is written and as it is compared: `owners[i]` is the token that the i-th word comes from."""

    tokens: list[str]
    words: list[str]
    owners: list[int]


def compared(reference: str, hypothesis: str) -> list[Word]:
    """Return the words of the hypothesis in order, and among them, where they are missing, those of the reference."""
    truth, heard = _spelled(reference), _spelled(hypothesis)
    shown, lacking, done = [], set(), -1
    for said, written in _pairs(truth.words, heard.words):
        if written is None:
            token = truth.owners[said]
            shown += [] if token in lacking else [Word(truth.tokens[token], DELETED)]
            lacking.add(token)
            continue
        token, word = heard.owners[written], _judged(truth, heard, said, written)
        shown += [Word(text, EQUAL) for text in heard.tokens[done + 1 : token]]  # a dash, or other words without sound
        if token > done:
            shown.append(word)
        elif word.kind != shown[-1].kind:
            shown[-1] = Word(word.text, SUBSTITUTED, shown[-1].said or word.said)
        done = token
    return shown + [Word(text, EQUAL) for text in heard.tokens[done + 1 :]]


def _judged(truth: Spelled, heard: Spelled, said: int | None, written: int) -> Word:
    text = heard.tokens[heard.owners[written]]
    if said is None:
        return Word(text, INSERTED)
    if truth.words[said] == heard.words[written]:
        return Word(text, EQUAL)
    return Word(text, SUBSTITUTED, truth.tokens[truth.owners[said]])


def _pairs(truth: list[str], heard: list[str]) -> list[tuple[int | None, int | None]]:
    """Return pairs of places in both lists; None where one has nothing for the other's word."""
    if not truth or not heard:
        return [(place, None) for place in range(len(truth))] + [(None, place) for place in range(len(heard))]
    pairs = []
    for chunk in jiwer.process_words(" ".join(truth), " ".join(heard)).alignments[0]:
        said = range(chunk.ref_start_idx, chunk.ref_end_idx)
        written = range(chunk.hyp_start_idx, chunk.hyp_end_idx)
        pairs += zip(said or [None] * len(written), written or [None] * len(said), strict=True)
    return pairs


def _spelled(text: str) -> Spelled:
    """Split a text into tokens and say which words each makes; words themselves where a bracket spans tokens."""
    tokens, words = text.split(), normalise(text).split()
    by_token = [normalise(token).split() for token in tokens]
    if [word for of_token in by_token for word in of_token] != words:
        return Spelled(words, words, list(range(len(words))))
    return Spelled(tokens, words, [place for place, of_token in enumerate(by_token) for _ in of_token])
