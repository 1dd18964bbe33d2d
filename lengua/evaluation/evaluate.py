"""Model + utterances -> results.json, hypotheses.jsonl, report.html: WER by generation, an interval on it, and why.

    lengua evaluate runs/spanish stores/sample-es --against openai/whisper-base --out runs/spanish/evaluation

An untouched model is measured padded to 30 s, the only window it knows; a model trained with adaptive context is
measured in both, side by side. A row that was measured before, with the same weights on the same clips, is not
measured again. `error_analysis` then says which errors the rows are made of, and `report.html` shows it.
"""

import datetime
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from lengua.data import features
from lengua.data.leakage import Leaks, concatenate_sets, find_leaks
from lengua.data.sources import is_source
from lengua.data.store import Split, Store, open_store
from lengua.evaluation import report
from lengua.evaluation.error_analysis import analyse
from lengua.evaluation.failure_modes import probe
from lengua.evaluation.measure import (
    ASRSystem,
    LenguaSystem,
    Measurement,
    measure_model,
    open_asr_system,
    partial_wers,
    program_and_model,
    windows_to_measure,
)
from lengua.evaluation.report.figures import BASE
from lengua.models.checkpoints import find_model, read_note
from lengua.options import EvaluateOptions, FeatureOptions
from lengua.runtime.errors import LenguaError
from lengua.runtime.files import exclusive, file_sha256, read_json, read_jsonl, write_json, write_jsonl
from lengua.runtime.progress import Progress, Watch, unwatched
from lengua.runtime.system import describe_hardware, git_commit
from lengua.scoring.normalizer import NORMALISER_VERSION

FINE_TUNED_LABEL = "fine-tuned"
RESULTS_FILE, HYPOTHESES_FILE, REPORT_FILE = "results.json", "hypotheses.jsonl", "report.html"
NO_OPPONENT = "none"
GENERAL_PREFIX = "general:"
"""Of the name of a set of other people's speech."""
NO_GENERAL_SPEECH = "Whether other people are heard worse than by the base was not measured (`--general SOURCE`)."
MeasuredRows = dict[str, tuple[dict, list[dict]]]
"""Row and records by fingerprint."""


@dataclass(frozen=True)
class EvaluationResult:
    """The rows of results.json, where it stands, and its lines for a terminal."""

    path: Path
    rows: list[dict]
    summary: list[str]


@exclusive
def evaluate(options: EvaluateOptions, watch: Watch = unwatched) -> EvaluationResult:
    """Measure every model in every window it is due, on every set; say what is wrong; write the report.

    Raises:
        RequestError: no such model, store or split.
    """
    store = open_or_build(options.source, options.out / "store", options.split, watch, options.language)
    due = {_fingerprint(one, options): one for one in measurements(options, store, watch)}
    kept, systems = _read_measured(options.out), ASRSystemCache(options)
    for key, asked in due.items():
        if key not in kept:
            kept[key] = measure_model(systems.open(asked.model, asked.store, asked.language), asked, options, watch)
            _write(options, store, kept, due)
    leaks, leaked_ids = _leaks(options, store)
    more = _analyse_results(options, store, {key: kept[key] for key in due}, leaks, leaked_ids, systems, watch)
    results, records = _write(options, store, kept, due, more, leaked_ids)
    report.write_page(options.out / REPORT_FILE, results, records, store)
    return EvaluationResult(options.out, results["rows"], report.summary_lines(results, records))


def open_or_build(source: str, folder: Path, split: str, watch: Watch, language: str | None = None) -> Store:
    """Open a feature store, or build one of the split to be measured from a source, its sound kept for the report."""
    if not is_source(source):
        return open_store(Path(source))
    asked = FeatureOptions(source, folder, splits=(split,), language=language, keep_audio=(split,))
    return open_store(features.build(asked, watch).path)


class ASRSystemCache:
    """The system that was opened last; another language or model is opened in its place, for memory is small."""

    def __init__(self, options: EvaluateOptions):
        self.how, self.opened = (options.engine, options.batch_size), {}

    def open(self, model: str, store: Store, language: str) -> ASRSystem:
        """Return a model for a language.

        Raises:
            LenguaError: the features of the store are of another size than the model reads.
        """
        if (model, language) not in self.opened:
            self.opened = {(model, language): open_asr_system(model, language, *self.how)}
        system = self.opened[model, language]
        mels = system.transcriber.n_mels if isinstance(system, LenguaSystem) else store.n_mels
        if mels != store.n_mels:
            found = f"{store.n_mels} in {store.path}"
            raise LenguaError(f"features of {mels} mel bins", found, "build a store for this model")
        return system


def measurements(options: EvaluateOptions, store: Store, watch: Watch) -> list[Measurement]:
    """Return the rows that are due: every model, window and set, other languages last."""
    models = models_to_measure(options)
    labels = {model: _label(model, models) for model in models}
    language = options.language or store.language
    sets = [(name, store, language, found) for name, found in _sets(store.split(options.split), options).items()]
    for source in options.probes:
        probed = open_or_build(source, options.out / "probes" / source.replace(":", "-"), options.split, watch)
        sets.append((source, probed, probed.language, range(len(probed.split(options.split)))))
    if general := general_source(options):
        others = open_or_build(general, options.out / "general", options.split, watch, options.language)
        name = GENERAL_PREFIX + (general if is_source(general) else Path(general).name)
        sets.append((name, others, language, range(len(others.split(options.split)))))
    return [
        Measurement(model, labels[model], window, name, where, options.split, spoken, tuple(indices))
        for model in models
        for window in windows_to_measure(model)
        for name, where, spoken, indices in sets
    ]


def general_source(options: EvaluateOptions) -> str | None:
    """Return the speech of other people that is measured, too: what was asked for, else what the run was bounded by."""
    run = Path(options.model) / "run.json"
    return options.general or (read_json(run)["options"].get("general") if run.is_file() else None)


def models_to_measure(options: EvaluateOptions) -> list[str]:
    """Return who is measured: the opponent first, if there is one."""
    opponent = options.against or _base_of(options.model)
    return [options.model] if opponent in (None, NO_OPPONENT, options.model) else [opponent, options.model]


def _model_note(model: str) -> dict:
    """Return lengua.json of a model; nothing of an untouched one, or in another program."""
    program, name = program_and_model(model)
    folder = find_model(name)[0]
    return asdict(read_note(folder)) if not program and (folder / "lengua.json").is_file() else {}


def _base_of(model: str) -> str | None:
    """Return what a model was made from; None of an untouched one."""
    return _model_note(model).get("base")


def _sets(split: Split, options: EvaluateOptions) -> dict[str, list[int]]:
    if options.by == "all":
        return {options.split: list(range(len(split)))}
    speakers = split.column("speaker")
    return {name: [i for i, speaker in enumerate(speakers) if speaker == name] for name in sorted(set(speakers))}


def _label(model: str, models: list[str]) -> str:
    """Return base or fine-tuned; the model's own name where two would be called the same, or of another program."""
    kinds = {name: FINE_TUNED_LABEL if _base_of(name) else BASE for name in models}
    return model if program_and_model(model)[0] or len(set(kinds.values())) < len(kinds) else kinds[model]


def _analyse_results(
    options: EvaluateOptions,
    store: Store,
    done: MeasuredRows,
    leaks: Leaks | None,
    leaked_ids: frozenset[str],
    systems: ASRSystemCache,
    watch: Watch,
) -> dict:
    """Return what results.json says beside its rows."""
    sets = set(_sets(store.split(options.split), options))
    records = [record for _, mine in done.values() for record in mine if record["set"] in sets]
    models = models_to_measure(options)
    notes = {_label(model, models): _model_note(model) for model in models}
    language = options.language or store.language
    base = _label(models[0], models) if len(models) > 1 else None
    more = analyse(records, language, notes, base, leaks, leaked_ids, options.resamples)
    if language != store.language:
        more["notes"].append(f"The references are in {store.language}, and the models were asked for {language}.")
    if base and not general_source(options):
        more["notes"].append(NO_GENERAL_SPEECH)
    return more | ({"probes": dict(_probed(options, store, systems, watch))} if options.probes else {})


def _leaks(options: EvaluateOptions, store: Store) -> tuple[Leaks | None, frozenset[str]]:
    """Look for the clips in what the model learned from, its run's or the train split beside them; return their ids."""
    learned = [one for one in _learned_from(options, store) if "train" in one.manifest["splits"]]
    if not learned or options.split == "train":
        return None, frozenset()
    split = store.split(options.split)
    leaks = find_leaks(split, concatenate_sets(one.split("train") for one in learned))
    return leaks, frozenset(id for id, kind in zip(split.column("id"), leaks.kinds, strict=True) if kind)


def _learned_from(options: EvaluateOptions, store: Store) -> list[Store]:
    """Return the stores of a run that are at hand, replay among them; of any other model the one measured on."""
    run = Path(options.model) / "run.json"
    if not run.is_file():
        return [store]
    run_options = read_json(run)["options"]
    source = options.model + "/store" if is_source(run_options["source"]) else run_options["source"]
    folders = [Path(folder) for folder in (source, run_options.get("replay")) if folder]
    return [open_store(folder) for folder in folders if (folder / "manifest.json").is_file()]


def _probed(
    options: EvaluateOptions, store: Store, systems: ASRSystemCache, watch: Watch
) -> Iterator[tuple[str, dict]]:
    """Yield what every model of ours has kept of Whisper's other abilities, by label."""
    models, language = models_to_measure(options), options.language or store.language
    for number, model in enumerate(models):
        if not program_and_model(model)[0]:
            watch(Progress("probing language, timestamps, silence and noise", number, len(models)))
            transcriber = systems.open(model, store, language).transcriber
            yield _label(model, models), probe(transcriber, store.split(options.split), language)


def _fingerprint(asked: Measurement, options: EvaluateOptions) -> str:
    """Return what must be the same for a row to be taken over: weights, clips, decoding, scoring."""
    program, name = program_and_model(asked.model)
    folder = find_model(name)[0]
    weights = next(folder / name for name in ("model.safetensors", "model.bin") if (folder / name).is_file())
    what = [
        program,
        _digest(weights, weights.stat().st_mtime_ns),
        file_sha256(asked.store.path / "manifest.json"),
        read_note(folder).decode_margin_s,
        [asked.label, asked.window, asked.set, asked.split],
        [asked.language, options.engine, options.batch_size, options.resamples, options.seed, NORMALISER_VERSION],
    ]
    return sha256(json.dumps(what).encode()).hexdigest()[:16]


@lru_cache(maxsize=8)
def _digest(weights: Path, changed: int) -> str:
    """Return the digest of a file; it is asked for once a row, and weights are large."""
    return file_sha256(weights)


def _read_measured(out: Path) -> MeasuredRows:
    """Return what an earlier call measured, by fingerprint."""
    if not (out / RESULTS_FILE).is_file():
        return {}
    before = read_json(out / RESULTS_FILE)
    records = read_jsonl(out / HYPOTHESES_FILE)
    names = ("model", "window", "set")
    return {
        key: (row, [record for record in records if all(record[name] == row[name] for name in names)])
        for key, row in zip(before["fingerprints"], before["rows"], strict=True)
    }


def _write(
    options: EvaluateOptions,
    store: Store,
    kept: MeasuredRows,
    due: dict,
    more: dict | None = None,
    leaked_ids: frozenset[str] = frozenset(),
) -> tuple[dict, list[dict]]:
    """Write both files from the rows that are due and measured; hypotheses first, so that results never lack them."""
    measured = [key for key in due if key in kept]
    records = [record for key in measured for record in kept[key][1]]
    write_jsonl(options.out / HYPOTHESES_FILE, records)
    rows = [{**kept[key][0], **partial_wers(kept[key][1], leaked_ids)} for key in measured]
    against = next((model for model in models_to_measure(options) if model != options.model), None)
    judged = report.judge_rows(rows, records, against, options.resamples, options.seed)
    results = {
        "rows": rows,
        "verdicts": [{**verdict._asdict(), "sentence": verdict.sentence} for verdict in judged],
        "fingerprints": measured,
        "complete": len(measured) == len(due),
        "model": options.model,
        "against": against,
        "language": options.language or store.language,
        "source": store.manifest["source"],
        "source_revision": store.manifest["revision"],
        "attribution": store.manifest["attribution"],
        "split": options.split,
        "date": datetime.date.today().isoformat(),
        "commit": git_commit(),
        "hardware": describe_hardware(),
        **(more or {}),
    }
    write_json(options.out / RESULTS_FILE, results)
    return results, records
