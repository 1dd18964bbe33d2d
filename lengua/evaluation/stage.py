"""Model + utterances -> results.json and hypotheses.jsonl. WER from free-running generation, an interval on it.

    lengua evaluate runs/spanish stores/sample-es --against openai/whisper-base --out runs/spanish/evaluation

An untouched model is measured padded to 30 s, the only window it knows; a model trained with adaptive context is
measured in both, side by side. A row that was measured before, with the same weights on the same clips, is not
measured again.
"""

import datetime
import json
import time
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from lengua import features
from lengua.checkpoints import find_model, read_note
from lengua.errors import LenguaError
from lengua.files import digest_of, read_json, read_jsonl, write_json, write_jsonl
from lengua.options import EvaluateOptions, FeatureOptions
from lengua.progress import Progress, Watch, unwatched
from lengua.provenance import commit, hardware
from lengua.scoring import Score, bootstrap_interval, bootstrap_unit, score
from lengua.sources import is_source
from lengua.store import Split, Store, open_store
from lengua.text import NORMALISER
from lengua.transcription import Decoded, Transcriber

BASE, FINE_TUNED = "base", "fine-tuned"
RESULTS, HYPOTHESES = "results.json", "hypotheses.jsonl"
DECODING = "greedy, language forced, without timestamps, loop guard"


@dataclass(frozen=True)
class EvaluationResult:
    """The rows of results.json, and where it stands."""

    path: Path
    rows: list[dict]


@dataclass(frozen=True)
class Measurement:
    """One row to be: a model in a window on a set of clips."""

    model: str
    label: str
    window: str
    set: str
    indices: list[int]


def evaluate(options: EvaluateOptions, watch: Watch = unwatched) -> EvaluationResult:
    """Measure every model in every window it is due, on every set.

    Raises:
        RequestError: no such model, store or split.
    """
    store = _store(options, watch)
    split = store.split(options.split)
    kept = _kept(options.out)
    transcribers: dict[str, Transcriber] = {}
    for measurement in _measurements(options, split):
        key = _fingerprint(measurement, store, options)
        if key in kept:
            continue
        if measurement.model not in transcribers:
            transcribers = {measurement.model: _transcriber(measurement.model, store, options)}
        kept[key] = measure(transcribers[measurement.model], split, measurement, options, watch)
        _write(options, store, kept, _due(options, split, store))
    return EvaluationResult(options.out, _write(options, store, kept, _due(options, split, store)))


def measure(
    transcriber: Transcriber, split: Split, measurement: Measurement, options: EvaluateOptions, watch: Watch
) -> tuple[dict, list[dict]]:
    """Decode one set and return its row of results.json and its records of hypotheses.jsonl."""
    margin = transcriber.note.decode_margin_s if measurement.window == "adaptive" else None
    started, decoded = time.perf_counter(), {}
    by_length = sorted(measurement.indices, key=lambda index: -int(split.frames[index]))
    stage = f"evaluating {measurement.label}, {measurement.window}, on {measurement.set}"
    for at in range(0, len(by_length), options.batch_size):
        batch = by_length[at : at + options.batch_size]
        results = transcriber.decode([split[index].log_mel() for index in batch], margin)
        decoded.update(zip(batch, results, strict=True))
        watch(Progress(stage, len(decoded), len(by_length)))
    seconds = time.perf_counter() - started
    return _row(transcriber, split, measurement, decoded, seconds, options)


def _row(transcriber, split: Split, measurement: Measurement, decoded: dict[int, Decoded], seconds, options):
    rows = [split[index] for index in measurement.indices]
    results = [decoded[index] for index in measurement.indices]
    measured = score([row.text for row in rows], [result.text for result in results])
    speakers = [row.speaker for row in rows]
    errors, words = measured.counts["errors"], measured.counts["words"]
    low, high = bootstrap_interval(errors, words, speakers, options.resamples, options.seed)
    audio_seconds = sum(row.duration_s for row in rows)
    name = {"model": measurement.label, "window": measurement.window, "set": measurement.set}
    row = {
        **name,
        "utterances": len(rows),
        "hours": round(audio_seconds / 3600, 4),
        "words": measured.words,
        "wer": measured.wer,
        "wer_low": low,
        "wer_high": high,
        "interval": f"95 % bootstrap over {bootstrap_unit(speakers)}s",
        "cer": measured.cer,
        **{key: getattr(measured, key) for key in ("substitutions", "deletions", "insertions")},
        "looped": sum(result.looped for result in results),
        "second_tries": sum(result.second_try for result in results),
        "empty": sum(not result.text for result in results),
        "wrong_language": None,
        "seconds": round(seconds, 2),
        "rtf": round(seconds / audio_seconds, 4),
        "ms_per_clip": round(1000 * seconds / len(rows), 1),
        "normaliser": NORMALISER,
        "decoding": f"{DECODING}, {transcriber.engine.name}, batches of {options.batch_size}",
    }
    return row, [{**name, **record} for record in _records(rows, results, measured)]


def _records(rows, results: list[Decoded], measured: Score) -> list[dict]:
    names = measured.counts.dtype.names
    return [
        {
            "id": row.id,
            "speaker": row.speaker,
            "duration_s": row.duration_s,
            "extra": row.extra,
            "reference": row.text,
            "hypothesis": result.text,
            "counts": dict(zip(names, counts.tolist(), strict=True)),
            "flags": [flag for flag in ("looped", "second_try") if getattr(result, flag)]
            + ([] if result.text else ["empty"]),
        }
        for row, result, counts in zip(rows, results, measured.counts, strict=True)
    ]


def _store(options: EvaluateOptions, watch: Watch) -> Store:
    if not is_source(options.source):
        return open_store(Path(options.source))
    built = features.build(
        FeatureOptions(options.source, options.out / "store", splits=(options.split,), language=options.language), watch
    )
    return open_store(built.path)


def _transcriber(model: str, store: Store, options: EvaluateOptions) -> Transcriber:
    transcriber = Transcriber(model, options.language or store.language, options.engine, options.batch_size)
    if transcriber.n_mels != store.n_mels:
        found = f"{store.n_mels} in {store.path}"
        raise LenguaError(f"features of {transcriber.n_mels} mel bins", found, "build a store for this model")
    return transcriber


def _measurements(options: EvaluateOptions, split: Split) -> list[Measurement]:
    sets = _sets(split, options)
    models = [model for model in (options.against, options.model) if model is not None]
    return [
        Measurement(model, _label(model, models), window, name, indices)
        for model in models
        for window in _windows(model)
        for name, indices in sets.items()
    ]


def _sets(split: Split, options: EvaluateOptions) -> dict[str, list[int]]:
    if options.by == "all":
        return {options.split: list(range(len(split)))}
    speakers = split.column("speaker")
    return {name: [i for i, speaker in enumerate(speakers) if speaker == name] for name in sorted(set(speakers))}


def _windows(model: str) -> list[str]:
    """Return the windows that a model is due: an untouched one knows 30 s only."""
    note = read_note(find_model(model)[0])
    return ["padded", "adaptive"] if note.window == "adaptive" else ["padded"]


def _label(model: str, models: list[str]) -> str:
    """Return base or fine-tuned; the model's own name where two would be called the same."""
    kinds = {name: FINE_TUNED if (find_model(name)[0] / "lengua.json").is_file() else BASE for name in models}
    return model if len(set(kinds.values())) < len(kinds) else kinds[model]


def _fingerprint(measurement: Measurement, store: Store, options: EvaluateOptions) -> str:
    """Return what must be the same for a row to be taken over: weights, clips, decoding, scoring."""
    folder = find_model(measurement.model)[0]
    weights = next(folder / name for name in ("model.safetensors", "model.bin") if (folder / name).is_file())
    what = [
        _digest(weights, weights.stat().st_mtime_ns),
        digest_of(store.path / "manifest.json"),
        read_note(folder).decode_margin_s,
        [measurement.label, measurement.window, measurement.set, options.split],
        [options.language, options.engine, options.batch_size, options.resamples, options.seed, NORMALISER],
    ]
    return sha256(json.dumps(what).encode()).hexdigest()[:16]


@lru_cache(maxsize=8)
def _digest(weights: Path, changed: int) -> str:
    """Return the digest of a file; it is asked for once a row, and weights are large."""
    return digest_of(weights)


def _due(options: EvaluateOptions, split: Split, store: Store) -> list[str]:
    return [_fingerprint(measurement, store, options) for measurement in _measurements(options, split)]


def _kept(out: Path) -> dict[str, tuple[dict, list[dict]]]:
    """Return what an earlier call measured, by fingerprint."""
    if not (out / RESULTS).is_file():
        return {}
    before = read_json(out / RESULTS)
    records = read_jsonl(out / HYPOTHESES)
    names = ("model", "window", "set")
    return {
        key: (row, [record for record in records if all(record[name] == row[name] for name in names)])
        for key, row in zip(before["fingerprints"], before["rows"], strict=True)
    }


def _write(options: EvaluateOptions, store: Store, kept: dict, due: list[str]) -> list[dict]:
    """Write both files from the rows that are due and measured; hypotheses first, so that results never lack them."""
    measured = [key for key in due if key in kept]
    rows = [kept[key][0] for key in measured]
    write_jsonl(options.out / HYPOTHESES, [record for key in measured for record in kept[key][1]])
    write_json(
        options.out / RESULTS,
        {
            "rows": rows,
            "fingerprints": measured,
            "complete": len(measured) == len(due),
            "model": options.model,
            "against": options.against,
            "source": store.manifest["source"],
            "source_revision": store.manifest["revision"],
            "attribution": store.manifest["attribution"],
            "split": options.split,
            "date": datetime.date.today().isoformat(),
            "commit": commit(),
            "hardware": hardware(),
        },
    )
    return rows
