"""Is a model folder consistent and complete? Checked before it is converted, loaded or published.

Token ids: tokenizer.json, generation_config.json and config.json must agree. transformers takes the language's id
from generation_config.json, faster-whisper from tokenizer.json, and whisper.cpp counts it from the size of the
vocabulary. Where they disagree, a checkpoint works in one program and produces nonsense in another.

Weights: a folder that was copied in part is recognised by the length that its safetensors header states.
"""

import json
import struct
from pathlib import Path

from lengua.models.checkpoints import load_tokenizer
from lengua.models.languages import LANGUAGE_NAMES, language_code
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import read_json

ENGLISH_ONLY_VOCAB_SIZE, MULTILINGUAL_VOCAB_SIZE, CANTONESE_VOCAB_SIZE = 51864, 51865, 51866
"""Sizes of the vocabularies of the released Whispers."""
TASK_TOKEN_NAMES = ("translate", "transcribe", "startoflm", "startofprev", None, "notimestamps")
"""After the languages; the fifth has two names, <|nocaptions|> and <|nospeech|>."""
GENERATION_TOKEN_NAMES = {
    "decoder_start_token_id": "<|startoftranscript|>",
    "eos_token_id": "<|endoftext|>",
    "no_timestamps_token_id": "<|notimestamps|>",
    "prev_sot_token_id": "<|startofprev|>",
}


def require_consistent_token_ids(folder: Path, language: str | None = None) -> None:
    """Refuse a model folder whose files give one token two numbers, or that forgot its language.

    Args:
        language: that generation_config.json has to force; None: it may leave it open.

    Raises:
        RequestError: a file is missing.
        LenguaError: two numbers, or another language; the message names the token.
    """
    tokenizer = load_tokenizer(folder)
    path = folder / "generation_config.json"
    if not path.is_file():
        raise RequestError(f"a {path.name} in the model folder", f"none in {folder}", "copy it from the base model")
    told = read_json(path)
    for place, name, number in [*_numbers(told), ("config.json", *_start(folder))]:
        if number is not None and tokenizer.token_to_id(name) != number:
            expected = f"{name} to be {number} in tokenizer.json, as in {place}"
            raise LenguaError(expected, f"{tokenizer.token_to_id(name)}", "copy both files from the base model")
    if language and forced_language(told) != language:
        found = forced_language(told) or "none"
        do = f'write "language": "{language}", "task": "transcribe" into it'
        raise LenguaError(f"a generation_config.json that forces {language}", found, do)


def forced_language(generation_config: dict) -> str | None:
    """Return the code of the language that transformers will decode in, where nobody names another."""
    told = generation_config.get("language")
    return language_code(told.strip("<|>")) if told else None


def _numbers(told: dict) -> list[tuple[str, str, int | None]]:
    """Return (file, token, number) of what a generation config says."""
    tokens = [(name, told.get(key)) for key, name in GENERATION_TOKEN_NAMES.items()]
    tokens += list((told.get("lang_to_id") or {}).items())
    tokens += [(f"<|{task}|>", number) for task, number in (told.get("task_to_id") or {}).items()]
    return [("generation_config.json", name, number) for name, number in tokens]


def _start(folder: Path) -> tuple[str, int | None]:
    return "<|startoftranscript|>", read_json(folder / "config.json").get("decoder_start_token_id")


def released_token_ids(vocab_size: int) -> dict[str, int]:
    """Return the numbers of the special tokens in a released Whisper with a vocabulary of this size."""
    end = 50256 if vocab_size == ENGLISH_ONLY_VOCAB_SIZE else 50257
    languages = list(LANGUAGE_NAMES)[: 100 if vocab_size == CANTONESE_VOCAB_SIZE else 99]
    names = ["endoftext", "startoftranscript", *languages, *TASK_TOKEN_NAMES, "0.00"]
    return {f"<|{name}|>": end + place for place, name in enumerate(names) if name}


MAX_SAFETENSORS_HEADER_BYTES = 100_000_000
"""Of a safetensors file, by its format."""


def require_whole_safetensors(weights: Path) -> None:
    """Refuse a safetensors file that is shorter, or longer, than its own header says.

    Eight bytes tell how long the header is; it tells where each tensor lies behind it (the format of safetensors).

    Raises:
        RequestError: it is cut off, or is no such file.
    """
    size = weights.stat().st_size
    try:
        with open(weights, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            tensors = json.loads(file.read(min(length, MAX_SAFETENSORS_HEADER_BYTES)))
        ends = [told["data_offsets"][1] for name, told in tensors.items() if name != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError("a whole model.safetensors", f"no readable header in {weights}", "copy it again") from error
    if size != expected:
        wanted = f"a model.safetensors of {expected} bytes"
        raise RequestError(wanted, f"{size} in {weights.parent}", "copy it again")
