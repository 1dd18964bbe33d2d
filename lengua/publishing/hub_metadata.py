"""The YAML front matter of a model card: licences, attribution, datasets, and the WER of every set (`model-index`).

Licences of weights and speech are stated where they are known, and called unknown otherwise.
"""

import re

from lengua.data.sources import is_source
from lengua.models.checkpoints import ModelNote

OPENAI_PREFIX = "openai/whisper-"
FREE_LICENCES = ("CC0-1.0",)
"""Licences of speech that ask for nothing."""
COMBINED_LICENCE = "mit-and-terms-of-the-speech"
HUB_TASK = "automatic-speech-recognition"
HUB_LANGUAGE_CODES = {"jw": "jv"}
"""Whisper's codes that ISO 639 does not have."""


def base_on_hub(base: str) -> str | None:
    """Return the id of the base model; None of one that is a folder of somebody's machine."""
    return base if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", base) else None


def base_name(base: str) -> str:
    """Return what to call the base model in public."""
    return base_on_hub(base) or "a model of this machine"


def choose_licence(note: ModelNote, manifest: dict | None) -> tuple[str, str | None]:
    """Return (license, license_name) as the Hub has them.

    MIT where the base is OpenAI's and the speech asks for nothing, or there was none; else "other", and the card names
    the terms, for whether those of the speech bind the weights is not for a program to say.
    """
    if not note.base.startswith(OPENAI_PREFIX):
        return "other", "see-the-base-model-and-the-speech"
    free = not note.language or (manifest or {}).get("licence") in FREE_LICENCES
    return ("mit", None) if free else ("other", COMBINED_LICENCE)


def licence_sentences(note: ModelNote, manifest: dict | None, results: dict | None) -> list[str]:
    """Say what is known of the terms of base, speech and test set."""
    if note.base.startswith(OPENAI_PREFIX):
        sentences = [f"The weights of {note.base}: copyright OpenAI, released under the MIT License."]
    else:
        sentences = [f"The weights of {base_name(note.base)}: under the terms of whoever made them."]
    if note.language and manifest:
        licence = manifest.get("licence") or "not stated by the source"
        sentences.append(f"The speech that it learned from, {manifest['source']}: licence {licence}.")
    elif note.language:
        sentences.append("The speech that it learned from: of unknown licence, for its store is not beside the run.")
    if note.language and note.attribution:
        sentences.append(f"Attribution: {note.attribution}.")
    if note.language:
        sentences.append("Whether the terms of speech bind weights that were made from it is not for this card to say.")
    if results and results.get("attribution") and results["attribution"] != note.attribution:
        sentences.append(f"Measured on {results['source']}: {results['attribution']}.")
    return sentences


def front_matter(note: ModelNote, name: str, formats: tuple[str, ...], results: dict | None, manifest: dict | None):
    """Return the front matter of a card, as a ModelCardData of huggingface_hub.

    Args:
        name: of the model, as `model-index` has it.
        results: results.json; None where nothing was measured.
        manifest: of the store that the model learned from, if it is still there.
    """
    from huggingface_hub import ModelCardData

    measured = hub_eval_results(results) if results else []
    licence, licence_name = choose_licence(note, manifest)
    scheme, _, source = str((manifest or {}).get("source", "")).partition(":")
    programs = {"ct2": ["ctranslate2", "faster-whisper"], "ggml": ["whisper.cpp"]}
    return ModelCardData(
        language=HUB_LANGUAGE_CODES.get(note.language, note.language) or "multilingual",
        license=licence,
        license_name=licence_name,
        base_model=base_on_hub(note.base),
        library_name="transformers" if "hf" in formats else "ctranslate2",
        pipeline_tag=HUB_TASK,
        tags=["whisper", "lengua", *(tag for format, tags in programs.items() if format in formats for tag in tags)],
        datasets=[source.partition(":")[0]] if scheme == "hub" else None,  # one of anywhere else has no name there
        metrics=["wer"] if measured else None,
        model_name=name if measured else None,
        eval_results=measured or None,
    )


def hub_eval_results(results: dict) -> list:
    """Return the rows of the published model as the Hub wants them: one result a set, one metric a window."""
    from huggingface_hub import EvalResult

    ours = published_label(results)
    return [
        EvalResult(
            task_type=HUB_TASK,
            task_name="Speech Recognition",
            **_data_set(row["set"], results),
            metric_type="wer",
            metric_name=f"WER (%), {row['window']}",
            metric_value=round(100 * row["wer"], 2),
            metric_args=_metric_args(row),
        )
        for row in results["rows"]
        if row["model"] == ours
    ]


def published_label(results: dict) -> str | None:
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


def _metric_args(row: dict) -> dict:
    args = {"window": row["window"], "normaliser": row.get("normaliser"), "utterances": row.get("utterances")}
    interval = [row.get("wer_low"), row.get("wer_high")]
    args["interval_95"] = None if None in interval else [round(100 * end, 2) for end in interval]
    return {name: value for name, value in args.items() if value is not None}
