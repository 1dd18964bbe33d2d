"""The famous failure, made to happen with any model and a handful of clips: 30 s, and then a short window.

    short, padded = heard_in(transcriber, rows, 0.9), heard_in(transcriber, rows, None)
    diagnose(autopsy(short, "sv"), window="adaptive", padded=autopsy(padded, "sv"))

Nothing of lengua's caution stands around the model here: no loop guard, no second try, and as many tokens as the usual
recipe allows.
"""

from collections.abc import Sequence

import numpy as np

from lengua import mel
from lengua.engines import POSITIONS
from lengua.labels import end_token, text_tokens, words_of
from lengua.store import Row
from lengua.transcription import Transcriber
from lengua.windows import decoding_batches

MOST_TOKENS = 225
"""Of one transcript: `generation_max_length` of the recipe that most people start from. One loop fills it."""


def heard_in(
    transcriber: Transcriber, rows: Sequence[Row], margin_s: float | None, most: int = MOST_TOKENS
) -> list[dict]:
    """Return a record for each clip, with what `lengua.evaluation.autopsy` looks at.

    Args:
        margin_s: seconds of silence behind the speech; None pads to 30 s.
        most: tokens of one transcript.
    """
    engine, lengths = transcriber.engine, [row.frames for row in rows]
    room = min(most, engine.most_tokens, POSITIONS - len(transcriber.prompt))
    records = {}
    for batch, window in decoding_batches(lengths, transcriber.batch_size, margin_s, engine.window_frames):
        features = np.stack([mel.fill(rows[index].log_mel(), window, rows[index].peak) for index in batch])
        written = engine.generate(features, transcriber.prompt, room)
        records |= {
            index: _record(transcriber, rows[index], one.tokens, room)
            for index, one in zip(batch, written, strict=True)
        }
    return [records[index] for index in range(len(rows))]


def _record(transcriber: Transcriber, row: Row, tokens: list[int], room: int) -> dict:
    cut = len(tokens) >= room and end_token(transcriber.tokenizer) not in tokens
    return {
        "id": row.id,
        "duration_s": row.duration_s,
        "reference": row.text,
        "hypothesis": words_of(transcriber.tokenizer, tokens),
        "tokens": len(text_tokens(transcriber.tokenizer, tokens)),
        "flags": ["length_limit"] if cut else [],
    }
