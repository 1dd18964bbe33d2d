"""Word timestamps: tokens aligned with the audio by the decoder's cross-attention, joined to words.

The attention of a few heads is followed through the clip by dynamic time warping (openai/whisper, timing.py). The
alignment knows no pauses: where one word ends, the next begins. A word that lasts far longer than usual has a pause in
it, which is cut off again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean, median

import numpy as np
from tokenizers import Tokenizer

from lengua.audio import log_mel
from lengua.inference.decoding import Decoder, DecodingResult
from lengua.inference.transcript import Word
from lengua.runtime.errors import RequestError

UNSPACED_LANGUAGES = {"zh", "ja", "th", "lo", "my", "yue"}
"""Languages whose words nobody parts: each character that tokens can spell is a word."""
OPENING_MARKS = set("¿¡([{«“‘\"'-–—")
"""Marks that belong to the next word if they stand alone."""
BREAK_MARKS = tuple(".,;:!?…。，、！？")
"""Marks behind which people pause."""
ALIGNMENT_MARGIN_S = 0.5
"""Behind a clip, for a model that was not trained with a margin: it is not asked to write, so it cannot loop."""
LONG_WORD_S, LONG_WORD_FACTOR = 1.0, 3
"""A word has a pause in it if it lasts longer than this, and this many times as long as the usual word of the clip."""
TAIL_FRAMES = 2
"""Of a log-mel that hear the end of the clip and lie behind it (lengua.audio.log_mel.log_mel)."""
REPLACEMENT_CHARACTER = "\ufffd"
"""What bytes that are no whole character are decoded to."""


def time_words(
    decoder: Decoder, mels: Sequence[np.ndarray], decoded: Sequence[DecodingResult]
) -> list[tuple[Word, ...]]:
    """Return the words of each clip, with times from its start.

    Args:
        mels: that were decoded.
        decoded: their hypotheses.

    Raises:
        RequestError: the engine gives no word timestamps.
    """
    require_word_timestamps(decoder)
    margin = decoder.note.decode_margin_s
    margin = ALIGNMENT_MARGIN_S if margin is None else margin
    return [tuple(_align_clip(decoder, *clip, margin)) for clip in zip(mels, decoded, strict=True)]


def require_word_timestamps(decoder: Decoder) -> None:
    """Refuse an engine that gives no word timestamps, or a model without alignment heads."""
    if not decoder.engine.aligns:
        found = f"{decoder.engine.name} with {decoder.folder}"
        do = "decode with --engine ctranslate2, and a model whose generation_config.json has alignment_heads"
        raise RequestError("an engine and a model that give word timestamps", found, do)


def _align_clip(decoder: Decoder, clip: np.ndarray, result: DecodingResult, margin_s: float) -> Iterator[Word]:
    if not result.token_ids:
        return
    times, at = decoder.align(clip, result, margin_s), 0
    found = []
    for text, count in split_into_words(decoder.tokenizer, result.token_ids, result.language not in UNSPACED_LANGUAGES):
        mine = times[at : at + count]
        found.append(Word(mine[0][0], mine[-1][1], text, fmean(chance for _, _, chance in mine)))
        at += count
    yield from clamp_times(trim_pauses(found), (len(clip) - TAIL_FRAMES) / log_mel.FRAMES_PER_SECOND)


def split_into_words(tokenizer: Tokenizer, tokens: Sequence[int], spaces: bool = True) -> list[tuple[str, int]]:
    """Return (word, how many tokens spell it), marks joined to the words that they belong to."""
    parted: list[tuple[str, int]] = []
    for piece in _character_pieces(tokenizer, tokens):
        _add(parted, piece, joined=spaces and not piece[0].startswith(" "))
    found: list[tuple[str, int]] = []
    for part in parted:
        closes = not part[0].strip() or (not _opens(part[0]) and not any(map(str.isalnum, part[0])))
        _add(found, part, joined=closes or (bool(found) and _opens(found[-1][0])))
    return [(text.strip(), count) for text, count in found if text.strip()]


def _add(parts: list[tuple[str, int]], part: tuple[str, int], joined: bool) -> None:
    """Put a part behind the others, or join it to the last of them."""
    text, count = parts.pop() if joined and parts else ("", 0)
    parts.append((text + part[0], count + part[1]))


def _opens(text: str) -> bool:
    """Return whether a text is nothing but marks that stand before a word, or nothing at all."""
    return set(text.strip()) <= OPENING_MARKS


def _character_pieces(tokenizer: Tokenizer, tokens: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Yield (text, tokens) of the fewest tokens that spell whole characters; of broken bytes, what there is."""
    whole, written, begun = tokenizer.decode(list(tokens)), 0, []
    for token in tokens:
        begun.append(token)
        text = tokenizer.decode(begun)
        if REPLACEMENT_CHARACTER not in text or whole[written : written + len(text)] == text:
            yield text, len(begun)
            written, begun = written + len(text), []
    if begun:
        yield tokenizer.decode(begun), len(begun)


def trim_pauses(found: Sequence[Word]) -> list[Word]:
    """Cut the pause out of words that last too long: before the first word and behind a mark, else after the word."""
    if not found:
        return []
    usual = median(word.end_s - word.start_s for word in found)
    longest = max(LONG_WORD_S, LONG_WORD_FACTOR * usual)
    before = ["."] + [word.text for word in found[:-1]]
    trimmed = []
    for word, text in zip(found, before, strict=True):
        if word.end_s - word.start_s > longest:
            is_late = text.endswith(BREAK_MARKS)
            change = {"start_s": word.end_s - longest} if is_late else {"end_s": word.start_s + longest}
            word = replace(word, **change)
        trimmed.append(word)
    return trimmed


def clamp_times(found: Sequence[Word], seconds: float) -> Iterator[Word]:
    """Yield words whose times never go back nor leave the clip, in hundredths of a second."""
    before = 0.0
    for word in found:
        start = min(max(before, word.start_s), seconds)
        before = min(max(start, word.end_s), seconds)
        yield replace(word, start_s=round(start, 2), end_s=round(before, 2), probability=round(word.probability, 4))
