"""Loops: transcripts that go round in circles, and those that hold more than one can say in the time."""

import math
import zlib
from itertools import groupby

from lengua.scoring.normalizer import normalise

MAX_COMPRESSION_RATIO = (
    2.4  # of openai/whisper; 154 Common Voice sentences reach 1.2, a menu of voice A (468 letters) 2.39
)
MIN_COMPRESSIBLE_BYTES = 40  # shorter texts say nothing by compression: a laugh, "ja ja ja ja ja"
MAX_NGRAM, MIN_REPEATS, MIN_REPEATED_WORDS = 8, 4, 8
MAX_WORDS_PER_SECOND, MAX_TOKENS_PER_SECOND = 8, 30  # fast speech stays under 7 words; 30 leaves room for any script
RATE_ALLOWANCE_UNITS = 4  # words or tokens free of charge, so that a very short clip may hold one


def compression_ratio(text: str) -> float:
    """Return how many times smaller zlib makes the text: about 1 for a sentence, over 2.4 for a loop."""
    data = text.encode(errors="replace")
    return len(data) / len(zlib.compress(data))


def is_looped(text: str, tokens: int | None = None, duration_s: float | None = None) -> bool:
    """Tell whether the transcript of one window (up to 30 s) went round in circles, or is more than one can say.

    True on any of these; the limits are the constants above:
    - the text compresses more than 2.4 times (as in openai/whisper; from 40 bytes on);
    - one to eight words come at least four times in a row and make up eight words or more;
    - more than 8 words, or 30 tokens, a second of speech (`duration_s`: of the clip, not of the window).
    """
    words, seconds = normalise(text).split(), math.inf if duration_s is None else duration_s
    compressible = (
        len(text.encode(errors="replace")) >= MIN_COMPRESSIBLE_BYTES and compression_ratio(text) > MAX_COMPRESSION_RATIO
    )
    too_many_words = len(words) > RATE_ALLOWANCE_UNITS + MAX_WORDS_PER_SECOND * seconds
    too_many_tokens = (tokens or 0) > RATE_ALLOWANCE_UNITS + MAX_TOKENS_PER_SECOND * seconds
    return compressible or too_many_words or too_many_tokens or _has_repeated_ngram(words)


def _has_repeated_ngram(words: list[str]) -> bool:
    """r words in a row, each equal to the one n places on: an n-gram that occurs r / n + 1 times."""
    for n in range(1, MAX_NGRAM + 1):
        same = [a == b for a, b in zip(words, words[n:], strict=False)]
        run = max((len(list(group)) for equal, group in groupby(same) if equal), default=0)
        if run + n >= max(MIN_REPEATS * n, MIN_REPEATED_WORDS):
            return True
    return False
