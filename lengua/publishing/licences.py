"""Whose the weights are and whose the speech was: what is known of it, and nothing else."""

import re

from lengua.checkpoints import ModelNote

OPENAI = "openai/whisper-"
FREE = ("CC0-1.0",)
"""Licences of speech that ask for nothing."""
NAMED = "mit-and-terms-of-the-speech"


def base_on_hub(base: str) -> str | None:
    """Return the id of the base model; None of one that is a folder of somebody's machine."""
    return base if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", base) else None


def base_name(base: str) -> str:
    """Return what to call the base model in public."""
    return base_on_hub(base) or "a model of this machine"


def licence_of(note: ModelNote, manifest: dict | None) -> tuple[str, str | None]:
    """Return (license, license_name) as the Hub has them.

    MIT where the base is OpenAI's and the speech asks for nothing, or there was none; else "other", and the card names
    the terms, for whether those of the speech bind the weights is not for a program to say.
    """
    speech = (manifest or {}).get("licence")
    if note.base.startswith(OPENAI):
        return ("mit", None) if speech in FREE or not note.language else ("other", NAMED)
    return "other", "see-the-base-model-and-the-speech"


def sentences(note: ModelNote, manifest: dict | None, results: dict | None) -> list[str]:
    """Say what is known of the terms of base, speech and test set."""
    told = [_of_base(note.base)]
    if note.language:
        told += _of_speech(note, manifest)
    if results and results.get("attribution") and results["attribution"] != note.attribution:
        told.append(f"Measured on {results['source']}: {results['attribution']}.")
    return told


def _of_base(base: str) -> str:
    if base.startswith(OPENAI):
        return f"The weights of {base}: copyright OpenAI, released under the MIT License."
    return f"The weights of {base_name(base)}: under the terms of whoever made them."


def _of_speech(note: ModelNote, manifest: dict | None) -> list[str]:
    if manifest:
        licence = manifest.get("licence") or "not told by the source"
        told = [f"The speech that it learned from, {manifest['source']}: licence {licence}."]
    else:
        told = ["The speech that it learned from: of unknown licence, for its store is not beside the run."]
    if note.attribution:
        told.append(f"Attribution: {note.attribution}.")
    return [*told, "Whether the terms of speech bind weights that were made from it is not for this card to say."]
