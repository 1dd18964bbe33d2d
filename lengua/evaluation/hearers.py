"""Whoever can be measured: our own transcriber, or another program on the same clips, through the same scoring.

    open_hearer("runs/spanish", "es")                       lengua, from stored features
    open_hearer("openai/whisper-small", "es")               the same, any Hub id or folder
    open_hearer("faster-whisper:openai/whisper-base", "es") faster-whisper, from stored sound
    open_hearer("openai-whisper:runs/spanish", "es")        OpenAI's own program with these weights, from stored sound

The other programs run as their users run them, all defaults but the language, on one clip after another.
"""

from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np

from lengua import audio
from lengua.checkpoints import ctranslate2_folder, find_model, read_note
from lengua.errors import LenguaError, RequestError
from lengua.languages import language_code
from lengua.scoring import is_looped
from lengua.store import Row
from lengua.transcription import Decoded, Transcriber

PADDED, ADAPTIVE = "padded", "adaptive"
OURS = "greedily, language forced, without timestamps, loop guard"


class Hearer(Protocol):
    """Writes down clips."""

    decoding: str
    """How, for the row of results.json."""

    def hear(self, rows: Sequence[Row], window: str) -> list[Decoded]:
        """Return what was understood of each row, in their order."""


class Lengua:
    """Our transcriber, from the features of a store."""

    def __init__(self, folder: Path, language: str, engine: str = "auto", batch_size: int = 8):
        self.transcriber = Transcriber(str(folder), language, engine, batch_size)
        self.decoding = f"{OURS}, {self.transcriber.engine.name}, batches of {batch_size}"

    def hear(self, rows: Sequence[Row], window: str) -> list[Decoded]:
        """Decode rows of a store, in the model's own margin or padded to 30 s."""
        margin = self.transcriber.note.decode_margin_s if window == ADAPTIVE else None
        return self.transcriber.decode([row.log_mel() for row in rows], margin)


class FasterWhisper:
    """faster-whisper with its own defaults (beam of 5, fallback by temperature)."""

    def __init__(self, folder: Path, language: str):
        from faster_whisper import WhisperModel

        model = WhisperModel(str(ctranslate2_folder(folder)), compute_type="auto")
        self._hear = partial(model.transcribe, language=language)
        self.decoding = f"faster-whisper {version('faster-whisper')}, its defaults, language forced"

    def hear(self, rows: Sequence[Row], window: str) -> list[Decoded]:
        """Transcribe the sound of rows."""
        return [decoded("".join(part.text for part in self._hear(sound_of(row))[0]), row) for row in rows]


class OpenAIWhisper:
    """OpenAI's program (openai-whisper) with its own defaults, its weights taken from a Hugging Face folder."""

    def __init__(self, folder: Path, language: str):
        try:
            import whisper  # noqa: F401
        except ImportError as error:
            found = "openai-whisper is not installed"
            raise RequestError("OpenAI's own program", found, "pip install openai-whisper") from error
        from lengua.evaluation.openai_weights import openai_model

        self._hear = partial(openai_model(folder).transcribe, language=language)
        self.decoding = f"openai-whisper {version('openai-whisper')}, its defaults, language forced"

    def hear(self, rows: Sequence[Row], window: str) -> list[Decoded]:
        """Transcribe the sound of rows."""
        return [decoded(self._hear(sound_of(row))["text"], row) for row in rows]


PROGRAMS = {"faster-whisper": FasterWhisper, "openai-whisper": OpenAIWhisper}


def program_and_model(name: str) -> tuple[str | None, str]:
    """Return ("faster-whisper", "owner/name") of faster-whisper:owner/name; (None, name) of any other."""
    program, colon, model = name.partition(":")
    return (program, model) if colon and program in PROGRAMS else (None, name)


def open_hearer(name: str, language: str, engine: str = "auto", batch_size: int = 8) -> Hearer:
    """Open a model, in our own program or in the one that stands before the colon.

    Raises:
        RequestError: no such model, or a program that is not installed.
    """
    program, model = program_and_model(name)
    if not program:
        return Lengua(Path(model), language, engine, batch_size)
    return PROGRAMS[program](find_model(model)[0], language_code(language))


def windows_of(name: str) -> list[str]:
    """Return the windows that a model is due: an untouched one, and any in another program, knows 30 s only."""
    program, model = program_and_model(name)
    adaptive = not program and read_note(find_model(model)[0]).window == ADAPTIVE
    return [PADDED, ADAPTIVE] if adaptive else [PADDED]


def sound_of(row: Row) -> np.ndarray:
    """Return the samples of a clip.

    Raises:
        LenguaError: the store kept none.
    """
    if not row.audio:
        do = "build the store with --keep-audio test"
        raise LenguaError("a store that kept the sound of its clips", f"none of {row.id}", do)
    return audio.load(row.audio)


def decoded(text: str, row: Row) -> Decoded:
    """Return what another program said; how many tokens that took it does not tell."""
    return Decoded(text.strip(), 0, is_looped(text, None, row.duration_s), second_try=False)
