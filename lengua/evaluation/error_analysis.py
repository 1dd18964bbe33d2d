"""What a table of WERs does not say: which errors, of whom, for which reason, and how far the figures can be believed.

    analysis = analyse(records, "es", notes={"fine-tuned": {"window": "adaptive", ...}}, leaks=leaks)
    analysis["findings"], analysis["groups"], analysis["confusions"], analysis["notes"]

Every model in every window is looked at over all its sets together; what a reader sees first is of the model that was
asked for, in the window that it was trained for.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict

from lengua.data.leakage import Leaks
from lengua.evaluation.confusions import count_confusions
from lengua.evaluation.diagnosis import diagnose_failures
from lengua.evaluation.failure_modes import SPELLING_KINDS, FailureModes, find_failure_modes
from lengua.evaluation.measure import pooled_wer
from lengua.evaluation.subgroups import measure_groups
from lengua.scoring import count_spelling_errors, percent, score_views

ModelAndWindow = tuple[str, str]


def analyse(
    records: Sequence[dict],
    language: str,
    notes: Mapping[str, dict],
    base: str | None = None,
    leaks: Leaks | None = None,
    leaked: Collection[str] = (),
    resamples: int = 2000,
) -> dict:
    """Return what results.json says beside its rows.

    Args:
        records: of hypotheses.jsonl; models in the order in which they were measured, the one that was asked for last.
        language: of the references.
        notes: lengua.json of each model, by its label; {} of an untouched one.
        base: the label of the model that the others are held against.
        leaks: of the test set; None where it is not known what the model learned from.
        leaked: ids of the clips that are not clean.
    """
    by_key = _by_key(records)
    if not by_key:
        return {}
    bodies = {key: find_failure_modes(mine, language) for key, mine in by_key.items()}
    parts = {key: _analyse_model(key, mine, bodies, language, notes, base, leaked) for key, mine in by_key.items()}
    main = list(by_key)[-1]
    return {
        "about": f"{main[0]}, {main[1]}",
        "findings": parts[main]["findings"],
        "groups": [asdict(group) for group in measure_groups(by_key[main], resamples=resamples)],
        "confusions": parts[main]["confusions"],
        "leaks": leaks and leaks.counts(),
        "notes": [*([leaks.sentence()] if leaks else []), *_leak_remarks(parts), *_remarks(parts[main])],
        "models": list(parts.values()),
    }


def _by_key(records: Sequence[dict]) -> dict[ModelAndWindow, list[dict]]:
    by_key: dict[ModelAndWindow, list[dict]] = {}
    for record in records:
        by_key.setdefault((record["model"], record["window"]), []).append(record)
    return by_key


def _analyse_model(
    key: ModelAndWindow, mine: list[dict], bodies: dict[ModelAndWindow, FailureModes], language, notes, base, leaked
) -> dict:
    """Return all about one model in one window."""
    model, window = key
    texts = [record["reference"] for record in mine], [record["hypothesis"] for record in mine]
    against = bodies.get((base, "padded")) if base not in (None, model) else None
    padded = bodies.get((model, "padded")) if window != "padded" else None
    found = diagnose_failures(bodies[key], against, notes.get(model, {}), window, padded)
    spelled = count_spelling_errors(*texts, language)
    return {
        "model": model,
        "window": window,
        "autopsy": asdict(bodies[key]),
        "findings": [asdict(finding) for finding in found],
        "confusions": {
            title: [one.as_json() for one in some]
            for title, some in vars(count_confusions(mine)).items()
            if _listed(some)
        },
        "views": {name: {"wer": one.wer, "cer": one.cer} for name, one in score_views(*texts, language).items()},
        "orthography": spelled.counts | {"words": spelled.words},
        "without_leaks": _without(mine, leaked) if leaked else None,
    }


def _leak_remarks(parts: Mapping[ModelAndWindow, dict]) -> list[str]:
    """Say what the WER of every model is without the clips that stand in training."""
    clean = {key: part["without_leaks"] for key, part in parts.items() if part["without_leaks"]}
    rates = [
        f"{model} ({window}) {percent(one['wer_without'])} instead of {percent(one['wer_with'])}"
        for (model, window), one in clean.items()
        if one["wer_without"] is not None
    ]
    return [f"WER without what was found in training: {', '.join(rates)}."] if rates else []


def _remarks(part: dict) -> list[str]:
    """Say what stands beside the WER of the model that was asked for: by other views, of spelling."""
    remarks, seen = [], part["views"]
    raw, blind = percent(seen["raw"]["wer"]), percent(seen["accent_blind"]["wer"])
    remarks.append(
        f"The WER counts words and their accents; with every letter and mark it is {raw}, accents aside {blind}."
    )
    spelled = {name: count for name, count in part["orthography"].items() if count and name in SPELLING_KINDS}
    if spelled:
        kinds = ", ".join(f"{name} {count}" for name, count in spelled.items())
        remarks.append(f"Errors of spelling alone: {kinds}; words really wrong: {part['orthography']['words']}.")
    return remarks


def _listed(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value)


def _without(mine: list[dict], leaked: Collection[str]) -> dict:
    """Return the WER with and without the utterances that leaked."""
    clean = [record for record in mine if record["id"] not in leaked]
    wers = {"wer_with": pooled_wer(mine), "wer_without": pooled_wer(clean) if clean else None}
    return {"clips": len(clean), **wers}
