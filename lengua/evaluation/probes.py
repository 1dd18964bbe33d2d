"""What a model may have forgotten while it learned: which language it hears, timestamps, and to keep silent.

    probe(transcriber, rows)     # {"language": {...}, "timestamps": {...}, "silence": {...}, "noise": {...}}

Other languages are probed as test sets of their own (`lengua evaluate --probes sample:fr`). Nothing of lengua's own
caution stands around the model here, neither energy gate nor loop guard: this is what other programs would hear.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from lengua import mel
from lengua.audio import SAMPLE_RATE
from lengua.labels import most_tokens, token_id, words_of
from lengua.store import Row
from lengua.transcription import Transcriber
from lengua.workers import batched

CLIPS = 100
"""That are probed at most, spread over the set."""
LEVELS_DBFS = (-60, -40, -20)
"""Of white noise: a quiet room, a fan, a street."""
WINDOWS_S = (2, 5, 10, 30)
"""Lengths of stretches without speech."""
LATE_S = 0.5
"""A timestamp may lie this far behind the end of the clip."""


def probe(transcriber: Transcriber, rows: Sequence[Row], language: str) -> dict[str, dict]:
    """Return what is left of what every untouched Whisper can do; no language of one that speaks English only.

    Args:
        rows: clips whose language is known.
        language: theirs.
    """
    chosen = spread(rows, CLIPS)
    return {
        "language": heard_language(transcriber, chosen, language) if transcriber.engine.multilingual else None,
        "timestamps": timestamps(transcriber, chosen),
        "silence": spoken_into(transcriber, [np.zeros(seconds * SAMPLE_RATE, np.float32) for seconds in WINDOWS_S]),
        "noise": spoken_into(transcriber, noises()),
    }


def spread(rows: Sequence[Row], count: int) -> list[Row]:
    """Return at most so many rows, evenly over all."""
    places = sorted({round(at) for at in np.linspace(0, len(rows) - 1, min(count, len(rows)))})
    return [rows[place] for place in places]


def heard_language(transcriber: Transcriber, rows: Sequence[Row], language: str) -> dict:
    """Return in how many clips the model hears their language if nobody tells it."""
    heard = [
        name
        for batch in batched(rows, transcriber.batch_size)
        for name in likeliest(transcriber, [row.log_mel() for row in batch])
    ]
    others = sorted(set(heard) - {language}, key=lambda name: (-heard.count(name), name))
    return {"clips": len(rows), "right": heard.count(language), "others": {name: heard.count(name) for name in others}}


def likeliest(transcriber: Transcriber, mels: Sequence[np.ndarray]) -> list[str]:
    """Return the language that the model hears in each clip."""
    heard = transcriber.engine.languages(windows(transcriber, mels))
    return [max(found, key=found.get) for found in heard]


def timestamps(transcriber: Transcriber, rows: Sequence[Row]) -> dict:
    """Return in how many clips the model writes times that can be true, if it is asked for them."""
    first = token_id(transcriber.tokenizer, "<|0.00|>")
    said = generated(transcriber, [row.log_mel() for row in rows], transcriber.prompt[:-1])
    times = [[(token - first) * 0.02 for token in tokens if token >= first] for tokens in said]
    right = [may_be_true(found, row.duration_s) for found, row in zip(times, rows, strict=True)]
    return {"clips": len(rows), "right": sum(right)}


def may_be_true(times: Sequence[float], duration_s: float) -> bool:
    """Return whether times open and close, never go back, and end with the clip."""
    paired = len(times) >= 2 and len(times) % 2 == 0
    ordered = all(early <= late for early, late in pairwise(times))
    return paired and ordered and times[-1] <= duration_s + LATE_S


def spoken_into(transcriber: Transcriber, sounds: Sequence[np.ndarray]) -> dict:
    """Return into how many stretches without speech the model puts words, and the longest that it wrote."""
    mels = [mel.log_mel(sound, transcriber.n_mels) for sound in sounds]
    texts = [words_of(transcriber.tokenizer, ids) for ids in generated(transcriber, mels, transcriber.prompt)]
    words = [len(text.split()) for text in texts]
    return {
        "windows": len(sounds),
        "spoken": sum(map(bool, words)),
        "words": sum(words),
        "longest": max(texts, key=len),
    }


def noises(seed: int = 17) -> list[np.ndarray]:
    """Return white noise of every length and level: float32 in -1..1."""
    draw = np.random.default_rng(seed)
    return [
        (10 ** (level / 20) * draw.standard_normal(seconds * SAMPLE_RATE)).clip(-1, 1).astype(np.float32)
        for level in LEVELS_DBFS
        for seconds in WINDOWS_S
    ]


def generated(transcriber: Transcriber, mels: Sequence[np.ndarray], prompt: list[int]) -> Iterator[list[int]]:
    """Yield the tokens that follow the prompt, each clip padded to 30 s."""
    most = most_tokens(mel.WINDOW_SECONDS)
    for batch in batched(mels, transcriber.batch_size):
        for written in transcriber.engine.generate(windows(transcriber, batch), prompt, most):
            yield written.tokens


def windows(transcriber: Transcriber, mels: Sequence[np.ndarray]) -> np.ndarray:
    """Return clips padded with their own silence: float32, shape (clips, n_mels, frames of the full window)."""
    return np.stack([mel.fill(one, transcriber.engine.window_frames) for one in mels])
