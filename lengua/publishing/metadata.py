"""What the Hub reads of a model card: the YAML on top of it, with the WER of every set (`model-index`)."""

from lengua.checkpoints import ModelNote
from lengua.publishing.licences import base_on_hub, licence_of
from lengua.sources import is_source

TASK = "automatic-speech-recognition"
LOCALES = {"jw": "jv"}
"""Whisper's codes that ISO 639 does not have."""


def front_matter(note: ModelNote, name: str, formats: tuple[str, ...], results: dict | None, manifest: dict | None):
    """Return the front matter of a card, as a ModelCardData of huggingface_hub.

    Args:
        name: of the model, as `model-index` has it.
        results: results.json; None where nothing was measured.
        manifest: of the store that the model learned from, if it is still there.
    """
    from huggingface_hub import ModelCardData

    code = note.language and LOCALES.get(note.language, note.language)
    measured = evaluated(results) if results else []
    licence, licence_name = licence_of(note, manifest)
    return ModelCardData(
        language=code or "multilingual",
        license=licence,
        license_name=licence_name,
        base_model=base_on_hub(note.base),
        library_name="transformers" if "hf" in formats else "ctranslate2",
        pipeline_tag=TASK,
        tags=["whisper", "lengua", *(["ctranslate2", "faster-whisper"] if "ct2" in formats else []), *_extra(formats)],
        datasets=_data_sets(manifest),
        metrics=["wer"] if measured else None,
        model_name=name if measured else None,
        eval_results=measured or None,
    )


def _extra(formats: tuple[str, ...]) -> list[str]:
    return ["whisper.cpp"] if "ggml" in formats else []


def _data_sets(manifest: dict | None) -> list[str] | None:
    """Return the data set of the Hub that was learned from; one of anywhere else has no name there."""
    scheme, _, rest = str((manifest or {}).get("source", "")).partition(":")
    return [rest.partition(":")[0]] if scheme == "hub" else None


def evaluated(results: dict) -> list:
    """Return the rows of the published model as the Hub wants them: one result a set, one metric a window."""
    from huggingface_hub import EvalResult

    ours = label_of(results)
    return [
        EvalResult(
            task_type=TASK,
            task_name="Speech Recognition",
            **_data_set(row["set"], results),
            metric_type="wer",
            metric_name=f"WER (%), {row['window']}",
            metric_value=round(100 * row["wer"], 2),
            metric_args=_how(row),
        )
        for row in results["rows"]
        if row["model"] == ours
    ]


def label_of(results: dict) -> str | None:
    """Return what rows call the model that was asked for, which is measured last."""
    rows = [row["model"] for row in results["rows"]]
    return next((name for name in reversed(rows) if name != "base"), rows[-1] if rows else None)


def _data_set(name: str, results: dict) -> dict:
    """Describe a set. The Hub takes sets of equal type, configuration and split for one."""
    source = name if is_source(name) else str(results.get("source") or "unknown")
    scheme, _, rest = source.partition(":")
    own, _, part = rest.partition(":") if scheme == "hub" else (source.replace(":", "-"), "", "")
    whole = name in (results.get("split"), source)
    return {
        "dataset_type": own,
        "dataset_name": source if whole else f"{source}, {name}",
        "dataset_config": part or (None if whole else name),
        "dataset_split": results.get("split"),
        "dataset_revision": None if is_source(name) else results.get("source_revision"),
    }


def _how(row: dict) -> dict:
    interval = [row.get("wer_low"), row.get("wer_high")]
    told = {"window": row["window"], "normaliser": row.get("normaliser"), "utterances": row.get("utterances")}
    if None not in interval:
        told["interval_95"] = [round(100 * end, 2) for end in interval]
    return {name: value for name, value in told.items() if value is not None}
