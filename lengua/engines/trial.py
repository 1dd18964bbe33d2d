"""Which compute type is fastest on this processor: timed once, and remembered for it.

CTranslate2 computes int8 by Intel's MKL where it may use it, and there int8 is the faster by far. Elsewhere (AMD, ARM)
another library does, and users have seen int8 lose to float32. Which library it is CTranslate2 does not say; but int16
exists in MKL alone, so a processor that is offered int16 has it, and needs no trial.

A trial is noise, and figures must not hang on it: it is made only where `auto` was asked for, never for an evaluation.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import ctranslate2
import numpy as np

from lengua.cache import cache_dir
from lengua.files import read_json, write_json
from lengua.layouts import ctranslate2_vocabulary
from lengua.provenance import hardware

INT8, FLOAT32 = "int8", "float32"
FRAMES, TOKENS = 400, 12
"""Of the window and the text: a short utterance."""
ROUNDS = 3
"""The best of these counts; what disturbs a machine makes it slower only."""
CLEARLY = 0.9
"""float32 needs four times the memory; it must take less than this part of the time."""


def int8_is_best() -> bool:
    """Return whether there is nothing to try."""
    return "int16" in ctranslate2.get_supported_compute_types("cpu")


def best_compute_type(opened: Callable[[str], ctranslate2.models.Whisper], folder: Path, longest: int) -> str:
    """Return int8 or float32, as remembered for this processor or as timed now.

    Args:
        opened: returns a model on the processor in a compute type.
        folder: of the model in CTranslate2 form, for its vocabulary.
        longest: window of the model, in frames.
    """
    kept, key = kept_answers(), f"{hardware()}, ctranslate2 {ctranslate2.__version__}"
    answers = read_json(kept) if kept.is_file() else {}
    if key not in answers:
        frames = min(FRAMES, longest)
        seconds = {kind: seconds_of(opened(kind), end_token(folder), frames) for kind in (INT8, FLOAT32)}
        answers[key] = {"best": fastest(seconds), "seconds": seconds}
        with suppress(OSError):  # a cache that cannot be written: timed again next time
            write_json(kept, answers)
    return answers[key]["best"]


def fastest(seconds: dict[str, float]) -> str:
    """Return float32 only where it is clearly faster."""
    return FLOAT32 if seconds[FLOAT32] < CLEARLY * seconds[INT8] else INT8


def kept_answers() -> Path:
    """Return the file that remembers trials."""
    return cache_dir() / "compute_types.json"


def seconds_of(model: ctranslate2.models.Whisper, end: int, frames: int) -> float:
    """Return how long a model takes for a window and `TOKENS` tokens, the best of a few rounds after a first one."""
    window = ctranslate2.StorageView.from_array(np.zeros((1, model.n_mels, frames), np.float32))
    taken = []
    for _ in range(1 + ROUNDS):
        start = time.perf_counter()
        model.generate(window, [["<|startoftranscript|>"]], beam_size=1, max_length=2 * TOKENS, suppress_tokens=[end])
        taken.append(time.perf_counter() - start)
    return round(min(taken[1:]), 4)


def end_token(folder: Path) -> int:
    """Return the number of <|endoftext|>: a text without it is as long as it may be."""
    return ctranslate2_vocabulary(folder).index("<|endoftext|>")
