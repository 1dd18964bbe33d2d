"""WER under several normalisations, and the errors that are differences of spelling alone.

score_views(["¿Él vino?"], ["el vino"])                   {"raw": Score, "basic": Score, "accent_blind": Score, ...}
count_spelling_errors(["año dos mil"], ["ano 2000"])      SpellingErrors(counts={"letters": 1, "numbers": 2, ...})
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, pairwise

import jiwer
import numpy as np

from lengua.scoring.normalizer import normalise, strip_accents, strip_marks
from lengua.scoring.number_words import canonical_number_words, is_number, number_readings
from lengua.scoring.wer import Score, aligned_words, require_equal, score, word_errors, word_pairs

SCORE_VIEWS = ("raw", "basic", "accent_blind", "mark_blind")
MULTI_WORD_CLASSES = ("numbers", "spacing")  # what is no matter of single words
SPELLING_CLASSES = ("case", "punctuation", "accents", "letters", *MULTI_WORD_CLASSES)
MAX_NUMBER_WORDS = 9  # words of one number: "mil novecientos noventa y ocho", or a telephone number digit by digit
MAX_COMPOUND_WORDS = 4
NUMBER_KEY_PREFIXES = "#=~"  # what begins the key of a number; no word begins so

WordPair = tuple[str, str]  # words of the reference, words of the hypothesis
WordSpans = tuple[slice, slice]  # the same as places


@dataclass(frozen=True)
class SpellingErrors:
    """How many word errors are a matter of spelling, by class.

    raw errors = case + punctuation + basic errors, but for utterances in which dropping punctuation makes more words
    and so more errors ("EU:s" is two words). basic errors = accents + letters + numbers + spacing + words, always.
    """

    counts: dict[str, int]
    """Errors that go when the class is forgiven: those before it forgiven, too, in the order of the keys."""
    words: int
    """What is left: words really wrong, missing or too many."""
    pairs: dict[str, Counter[WordPair]]
    """By class, how often the first was written as the second, in lower case from accents on."""


def score_views(
    references: Sequence[str] | str, hypotheses: Sequence[str] | str, language: str | None = "es"
) -> dict[str, Score]:
    """Return the scores of the same texts under every view, strictest first.

    raw: as written, but for white space. basic: `normalise`, the one that counts. accent_blind: the language's accents
    aside ("él", "el"; ñ stays). mark_blind: all marks on letters aside ("año", "ano"), as the Open ASR Leaderboard.

    Args:
        language: Whisper's code, for the letters that are no accented ones; None knows of none.
    """
    plain = _plain(references), _plain(hypotheses)
    return {
        "raw": score(references, hypotheses, str),
        "basic": score(*plain, str),
        "accent_blind": score(*plain, partial(strip_accents, language=language)),
        "mark_blind": score(*plain, strip_marks),
    }


def count_spelling_errors(
    references: Sequence[str] | str, hypotheses: Sequence[str] | str, language: str | None = "es"
) -> SpellingErrors:
    """Sort out the word errors that are spelling only: case, punctuation, accents, letters, numbers, spacing.

    letters: ñ for n, å for a, and whatever else differs by a mark only. numbers: digits for words ("25" and
    "veinticinco"), known in the languages of `numbers.LANGUAGES`; in others only digits grouped otherwise. spacing:
    one word for several ("porque", "por que"). What differs in two ways at once, "por qué" and "porque", counts as the
    last of them. A number that is another number is a wrong word.

    Raises:
        LenguaError: not as many hypotheses as references.
    """
    references, hypotheses = _as_list(references), _as_list(hypotheses)
    plain = _plain(references), _plain(hypotheses)
    require_equal("hypotheses", len(references), len(hypotheses))
    without_accents = partial(strip_accents, language=language)
    aligned = [aligned_words(references, hypotheses, rule) for rule in (str, str.lower)]
    aligned += [aligned_words(*plain, rule) for rule in (str, without_accents, strip_marks)]
    left = list(map(word_errors, aligned))
    forgiven = (str.lower, normalise, without_accents, strip_marks)
    pairs = {name: _count_respelled(*one) for name, *one in zip(SPELLING_CLASSES, aligned, forgiven, strict=False)}
    found = _adopt_reference_spelling(aligned[-1], aligned[2], language)
    for name in MULTI_WORD_CLASSES:
        errors, pairs[name] = found[name]
        left.append(np.minimum(left[-1], errors))
    gone = [int(np.maximum(before - after, 0).sum()) for before, after in pairwise(left)]
    return SpellingErrors(dict(zip(SPELLING_CLASSES, gone, strict=True)), int(left[-1].sum()), pairs)


def _as_list(texts: Sequence[str] | str) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)


def _plain(texts: Sequence[str] | str) -> list[str]:
    return list(map(normalise, _as_list(texts)))


def _count_respelled(aligned: jiwer.WordOutput, rule: Callable[[str], str]) -> Counter[WordPair]:
    """Count the substitutions that are none under a rule that forgives more."""
    rows = zip(aligned.references, aligned.hypotheses, aligned.alignments, strict=True)
    swapped = (
        (reference[i], hypothesis[j])
        for reference, hypothesis, chunks in rows
        for kind, i, j in word_pairs(chunks)
        if kind == "substitute"
    )
    return Counter(pair for pair in swapped if rule(pair[0]) == rule(pair[1]))


def _adopt_reference_spelling(
    blind: jiwer.WordOutput, basic: jiwer.WordOutput, language: str | None
) -> dict[str, tuple]:
    """Give numbers, then words in one or several, the spelling of the reference, and count the errors left.

    Returns:
        For each class the errors left of every utterance, and the pairs: only where fewer errors are left than before.
    """
    left = {name: word_errors(blind) for name in MULTI_WORD_CLASSES}
    pairs = {name: Counter() for name in MULTI_WORD_CLASSES}
    for k in np.flatnonzero(left["numbers"]):
        reference, hypothesis = blind.references[k], blind.hypotheses[k]
        blocks = list(_blocks(reference, hypothesis, _regions(blind.alignments[k]), language))
        kept, fewest = [], left["numbers"][k]
        for name in MULTI_WORD_CLASSES:
            of_class = [block for block in blocks if _class_of(reference[block[0]], hypothesis[block[1]]) == name]
            errors = _errors_with(reference, hypothesis, kept + of_class) if of_class else fewest
            if errors < fewest:
                kept, fewest = kept + of_class, errors
                shown = basic.references[k], basic.hypotheses[k]
                pairs[name].update(tuple(" ".join(s[at]) for s, at in zip(shown, b, strict=True)) for b in of_class)
            left[name][k] = fewest
    return {name: (left[name], pairs[name]) for name in MULTI_WORD_CLASSES}


def _class_of(reference: list[str], hypothesis: list[str]) -> str:
    return "numbers" if any(map(is_number, reference + hypothesis)) else "spacing"


def _errors_with(reference: list[str], hypothesis: list[str], blocks: list[WordSpans]) -> int:
    """Count the errors that are left when blocks of the hypothesis read as the reference has them."""
    respelt = list(hypothesis)
    for there, here in sorted(blocks, key=lambda block: -block[1].start):
        respelt[here] = reference[there]
    return int(word_errors(jiwer.process_words(" ".join(reference), " ".join(respelt)))[0])


def _regions(chunks: list[jiwer.AlignmentChunk]) -> Iterator[WordSpans]:
    """Give the places between words that agree, where both sides have words."""
    for equal, group in groupby(chunks, key=lambda chunk: chunk.type == "equal"):
        run = list(group)
        ref_span = slice(run[0].ref_start_idx, run[-1].ref_end_idx)
        hyp_span = slice(run[0].hyp_start_idx, run[-1].hyp_end_idx)
        if not equal and ref_span.start < ref_span.stop and hyp_span.start < hyp_span.stop:
            yield ref_span, hyp_span


def _blocks(
    reference: list[str], hypothesis: list[str], regions: Iterable[WordSpans], language: str | None
) -> Iterator[WordSpans]:
    """Give what reads alike but is written otherwise, from left to right, the longest first, none over another."""
    for there, here in regions:
        numeric = any(map(is_number, reference[there] + hypothesis[here]))
        if not numeric and there.stop - there.start == here.stop - here.start == 1:
            continue  # the usual case: one word for another
        longest = MAX_NUMBER_WORDS if numeric else MAX_COMPOUND_WORDS
        index, at, cursor = _index(hypothesis, here, longest, language), there.start, here.start
        while at < there.stop:
            places = (slice(at, last) for last in range(min(there.stop, at + longest), at, -1))
            found = ((place, _match(reference[place], index, cursor, language)) for place in places)
            block = next((block for block in found if block[1]), None)
            if block:
                yield block
                cursor = block[1].stop
            at = block[0].stop if block else at + 1


def _index(words: list[str], region: slice, longest: int, language: str | None) -> dict[str, list[slice]]:
    """Return where each way to read some words in a row stands."""
    index = defaultdict(list)
    for first in range(region.start, region.stop):
        for last in range(min(region.stop, first + longest), first, -1):
            for key in _keys(words[first:last], language, own=True):
                index[key].append(slice(first, last))
    return index


def _match(words: list[str], index: dict[str, list[slice]], cursor: int, language: str | None) -> slice | None:
    """Return the first place from the cursor on that reads like these words: digits for words, or one for several."""
    for key in _keys(words, language, own=False):
        for place in index.get(key, ()):
            size = place.stop - place.start
            joined = size != len(words) and min(size, len(words)) == 1
            if place.start >= cursor and (joined or key[0] in NUMBER_KEY_PREFIXES):
                return place
    return None


def _keys(words: list[str], language: str | None, own: bool) -> list[str]:
    """Return the ways to read words; digits meet words, and words digits, by keys that the other side calls its own."""
    joined = "".join(words)
    if all(map(is_number, words)):
        ways = sorted(number_readings(words, language))
        return [f"#{joined}", *(f"{'=' if own else '~'}{reading}" for reading in ways)]
    mark = "~" if own else "="
    return [joined, f"{mark}{canonical_number_words(words, language)}"]
