"""One row of results.json: a model in a window on a set of clips, decoded, scored and counted."""

import time
from dataclasses import dataclass

from lengua.evaluation.autopsy import autopsy
from lengua.evaluation.hearers import Hearer
from lengua.options import EvaluateOptions
from lengua.progress import Progress, Watch
from lengua.scoring import Score, bootstrap_interval, bootstrap_unit, score
from lengua.store import Row, Store
from lengua.text import NORMALISER
from lengua.transcription import Decoded


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


def measure(hearer: Hearer, asked: Measurement, options: EvaluateOptions, watch: Watch) -> tuple[dict, list[dict]]:
    """Decode one set, longest clips first; return its row and its records of hypotheses.jsonl."""
    started, heard = time.perf_counter(), {}
    split = asked.store.split(asked.split)
    by_length = sorted(asked.indices, key=lambda index: -int(split.frames[index]))
    stage = f"evaluating {asked.label}, {asked.window}, on {asked.set}"
    for at in range(0, len(by_length), options.batch_size):
        batch = by_length[at : at + options.batch_size]
        results = hearer.hear([split[index] for index in batch], asked.window)
        heard.update(zip(batch, results, strict=True))
        watch(Progress(stage, len(heard), len(by_length)))
    seconds = time.perf_counter() - started
    rows, results = asked.rows(), [heard[index] for index in asked.indices]
    scored = score([row.text for row in rows], [result.text for result in results])
    records = [{**asked.name, **record} for record in _records(rows, results, scored)]
    told = _scores(rows, scored, options) | _counts(records, asked.language) | _speed(rows, seconds)
    return {**asked.name, **told, "normaliser": NORMALISER, "decoding": hearer.decoding}, records


def _scores(rows: list[Row], scored: Score, options: EvaluateOptions) -> dict:
    speakers, counts = [row.speaker for row in rows], scored.counts
    how = (options.resamples, options.seed)
    low, high = bootstrap_interval(counts["errors"], counts["words"], speakers, *how) if rows else (0.0, 0.0)
    return {
        "utterances": len(rows),
        "hours": round(sum(row.duration_s for row in rows) / 3600, 4),
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
    flagged = {name: sum(name in record["flags"] for record in records) for name in FLAGS}
    return flagged | {"wrong_language": len(autopsy(records, language).marks["wrong_language"])}


def _speed(rows: list[Row], seconds: float) -> dict:
    audio_seconds = sum(row.duration_s for row in rows)
    return {
        "seconds": round(seconds, 2),
        "rtf": round(seconds / max(audio_seconds, 1e-9), 4),
        "ms_per_clip": round(1000 * seconds / max(1, len(rows)), 1),
    }


FLAGS = {
    "looped": lambda result: result.looped,
    "second_tries": lambda result: result.second_try,
    "length_limit": lambda result: result.at_limit,
    "empty": lambda result: not result.text,
}
"""What decoding knows of a transcript."""


def _records(rows: list[Row], results: list[Decoded], scored: Score) -> list[dict]:
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
            "flags": [flag for flag, holds in FLAGS.items() if holds(result)],
        }
        for row, result, counts in zip(rows, results, scored.counts, strict=True)
    ]
