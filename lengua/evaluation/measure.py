"""Measurement of one model on one set of clips: decoded, scored and counted, a row of results.json.

    open_asr_system("runs/spanish", "es")                       lengua, from stored features
    open_asr_system("openai/whisper-small", "es")               the same, any Hub id or folder
    open_asr_system("faster-whisper:openai/whisper-base", "es") faster-whisper, from stored audio
    open_asr_system("openai-whisper:runs/spanish", "es")        OpenAI's own program, from stored audio

The other programs run as their users run them, all defaults but the language, one clip after another, and are scored
alike.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np

from lengua import audio
from lengua.data.store import Row, Store
from lengua.evaluation.failure_modes import find_failure_modes
from lengua.inference import DecodingResult, Transcriber
from lengua.models.checkpoints import ctranslate2_folder, find_model, read_note
from lengua.models.languages import language_code
from lengua.options import EvaluateOptions
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.parallel import batched
from lengua.runtime.progress import Progress, Watch
from lengua.scoring import Score, bootstrap_interval, bootstrap_unit, error_rate, is_looped, score
from lengua.scoring.normalizer import NORMALISER_VERSION

PADDED, ADAPTIVE = "padded", "adaptive"
OWN_DECODING = "greedily, language forced, without timestamps, loop guard"


class ASRSystem(Protocol):
    """Writes down clips."""

    decoding: str
    """How, for the row of results.json."""

    def hear(self, rows: Sequence[Row], window: str) -> list[DecodingResult]:
        """Return what was understood of each row, in their order."""


class LenguaSystem:
    """Our transcriber, from the features of a store."""

    def __init__(self, folder: Path, language: str, engine: str = "auto", batch_size: int = 8):
        self.transcriber = Transcriber(str(folder), language, engine, batch_size)
        self.decoding = f"{OWN_DECODING}, {self.transcriber.engine.name}, batches of {batch_size}"

    def hear(self, rows: Sequence[Row], window: str) -> list[DecodingResult]:
        """Decode rows of a store, in the model's own margin or padded to 30 s."""
        margin = self.transcriber.note.decode_margin_s if window == ADAPTIVE else None
        return self.transcriber.decode([row.log_mel() for row in rows], margin)


class FasterWhisperSystem:
    """faster-whisper with its own defaults (beam of 5, fallback by temperature)."""

    def __init__(self, folder: Path, language: str):
        from faster_whisper import WhisperModel

        model = WhisperModel(str(ctranslate2_folder(folder)), compute_type="auto")
        self._hear = partial(model.transcribe, language=language)
        self.decoding = f"faster-whisper {version('faster-whisper')}, its defaults, language forced"

    def hear(self, rows: Sequence[Row], window: str) -> list[DecodingResult]:
        """Transcribe the sound of rows."""
        return [as_decoded("".join(part.text for part in self._hear(load_samples(row))[0]), row) for row in rows]


class OpenAIWhisperSystem:
    """OpenAI's program (openai-whisper) with its own defaults, its weights taken from a Hugging Face folder."""

    def __init__(self, folder: Path, language: str):
        try:
            import whisper  # noqa: F401
        except ImportError as error:
            found = "openai-whisper is not installed"
            raise RequestError("OpenAI's own program", found, "pip install openai-whisper") from error
        from lengua.models.formats.openai import load_openai_model

        self._hear = partial(load_openai_model(folder).transcribe, language=language)
        self.decoding = f"openai-whisper {version('openai-whisper')}, its defaults, language forced"

    def hear(self, rows: Sequence[Row], window: str) -> list[DecodingResult]:
        """Transcribe the sound of rows."""
        return [as_decoded(self._hear(load_samples(row))["text"], row) for row in rows]


OTHER_PROGRAMS = {"faster-whisper": FasterWhisperSystem, "openai-whisper": OpenAIWhisperSystem}


def program_and_model(name: str) -> tuple[str | None, str]:
    """Return ("faster-whisper", "owner/name") of faster-whisper:owner/name; (None, name) of any other."""
    program, colon, model = name.partition(":")
    return (program, model) if colon and program in OTHER_PROGRAMS else (None, name)


def open_asr_system(name: str, language: str, engine: str = "auto", batch_size: int = 8) -> ASRSystem:
    """Open a model, in our own program or in the one that stands before the colon.

    Raises:
        RequestError: no such model, or a program that is not installed.
    """
    program, model = program_and_model(name)
    if not program:
        return LenguaSystem(Path(model), language, engine, batch_size)
    return OTHER_PROGRAMS[program](find_model(model)[0], language_code(language))


def windows_to_measure(name: str) -> list[str]:
    """Return the windows that a model is due: an untouched one, and any in another program, knows 30 s only."""
    program, model = program_and_model(name)
    adaptive = not program and read_note(find_model(model)[0]).window == ADAPTIVE
    return [PADDED, ADAPTIVE] if adaptive else [PADDED]


def load_samples(row: Row) -> np.ndarray:
    """Return the samples of a clip.

    Raises:
        LenguaError: the store kept none.
    """
    if not row.audio:
        do = "build the store with --keep-audio test"
        raise LenguaError("a store that kept the sound of its clips", f"none of {row.id}", do)
    return audio.load(row.audio)


def as_decoded(text: str, row: Row) -> DecodingResult:
    """Return what another program transcribed; how many tokens that took it does not tell."""
    return DecodingResult(text.strip(), 0, is_looped(text, None, row.duration_s), second_try=False)


@dataclass(frozen=True)
class Measurement:
    """One row to be: a model in a window on a set of clips."""

    model: str
    label: str
    window: str
    set: str
    store: Store
    split: str
    language: str
    """That is asked for in decoding."""
    indices: tuple[int, ...]

    @property
    def name(self) -> dict[str, str]:
        """What a row and its records are called."""
        return {"model": self.label, "window": self.window, "set": self.set}

    def rows(self) -> list[Row]:
        """Read the clips."""
        split = self.store.split(self.split)
        return [split[index] for index in self.indices]


def measure_model(
    system: ASRSystem, asked: Measurement, options: EvaluateOptions, watch: Watch
) -> tuple[dict, list[dict]]:
    """Decode one set, longest clips first; return its row and its records of hypotheses.jsonl."""
    started, decoded = time.perf_counter(), {}
    split = asked.store.split(asked.split)
    by_length = sorted(asked.indices, key=lambda index: -int(split.frames[index]))
    stage = f"evaluating {asked.label}, {asked.window}, on {asked.set}"
    for batch in batched(by_length, options.batch_size):
        results = system.hear([split[index] for index in batch], asked.window)
        decoded.update(zip(batch, results, strict=True))
        watch(Progress(stage, len(decoded), len(by_length)))
    seconds = time.perf_counter() - started
    rows, results = asked.rows(), [decoded[index] for index in asked.indices]
    scored = score([row.text for row in rows], [result.text for result in results])
    records = [{**asked.name, **record} for record in _records(rows, results, scored)]
    speech = sum(row.duration_s for row in rows)
    row = {
        **asked.name,
        "utterances": len(rows),
        "hours": round(speech / 3600, 4),
        **_scores(rows, scored, options),
        **_counts(records, asked.language),
        "seconds": round(seconds, 2),
        "rtf": round(seconds / max(speech, 1e-9), 4),
        "ms_per_clip": round(1000 * seconds / max(1, len(rows)), 1),
        "normaliser": NORMALISER_VERSION,
        "decoding": system.decoding,
    }
    return row, records


def _scores(rows: list[Row], scored: Score, options: EvaluateOptions) -> dict:
    speakers, counts = [row.speaker for row in rows], scored.counts
    how = (options.resamples, options.seed)
    low, high = bootstrap_interval(counts["errors"], counts["words"], speakers, *how) if rows else (0.0, 0.0)
    return {
        "words": scored.words,
        "wer": scored.wer,
        "wer_low": low,
        "wer_high": high,
        "interval": f"95 % bootstrap over {bootstrap_unit(speakers)}s",
        "cer": scored.cer,
        **{key: getattr(scored, key) for key in ("substitutions", "deletions", "insertions")},
    }


def _counts(records: list[dict], language: str) -> dict:
    """Return how many clips have each flag, and how many are in another language by their text."""
    flagged = {name: sum(name in record["flags"] for record in records) for name in CLIP_FLAGS}
    return flagged | {"wrong_language": len(find_failure_modes(records, language).marks["wrong_language"])}


def partial_wers(records: list[dict], leaked_ids: Collection[str]) -> dict[str, float | None]:
    """Return the WER of a row without the clips that stand in training, and without those whose transcript loops.

    Where there are none, or nothing else, it is None.
    """
    parts = {
        "wer_without_leaks": [record for record in records if record["id"] not in leaked_ids],
        "wer_without_loops": [record for record in records if "looped" not in record["flags"]],
    }
    return {name: pooled_wer(part) if part and len(part) < len(records) else None for name, part in parts.items()}


def pooled_wer(records: list[dict]) -> float:
    """Return the WER of all records together."""
    return float(error_rate(*(sum(record["counts"][key] for record in records) for key in ("errors", "words"))))


CLIP_FLAGS = {
    "looped": lambda result: result.looped,
    "second_tries": lambda result: result.second_try,
    "length_limit": lambda result: result.at_limit,
    "empty": lambda result: not result.text,
}
"""What decoding knows of a transcript."""


def _records(rows: list[Row], results: list[DecodingResult], scored: Score) -> list[dict]:
    names = scored.counts.dtype.names
    return [
        {
            "id": row.id,
            "speaker": row.speaker,
            "duration_s": row.duration_s,
            "extra": row.extra,
            "reference": row.text,
            "hypothesis": result.text,
            "tokens": result.tokens,
            "counts": dict(zip(names, counts.tolist(), strict=True)),
            "flags": [flag for flag, holds in CLIP_FLAGS.items() if holds(result)],
        }
        for row, result, counts in zip(rows, results, scored.counts, strict=True)
    ]
