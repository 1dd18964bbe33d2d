"""One token, one number: tokenizer.json, generation_config.json and config.json of a model folder say the same.

transformers takes the language's number from generation_config.json, faster-whisper from tokenizer.json, whisper.cpp
counts it up from the size of the vocabulary. Where they disagree, a checkpoint is good in one and babbles in another.
"""

from pathlib import Path

from lengua.checkpoints import load_tokenizer
from lengua.errors import LenguaError, RequestError
from lengua.files import read_json
from lengua.languages import NAMES, language_code

ENGLISH_ONLY, MULTILINGUAL, WITH_CANTONESE = 51864, 51865, 51866
"""Sizes of the vocabularies of the released Whispers."""
TASKS = ("translate", "transcribe", "startoflm", "startofprev", None, "notimestamps")
"""After the languages; the fifth has two names, <|nocaptions|> and <|nospeech|>."""
GENERATION = {
    "decoder_start_token_id": "<|startoftranscript|>",
    "eos_token_id": "<|endoftext|>",
    "no_timestamps_token_id": "<|notimestamps|>",
    "prev_sot_token_id": "<|startofprev|>",
}


def require_agreement(folder: Path, language: str | None = None) -> None:
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
    tokens = [(name, told.get(key)) for key, name in GENERATION.items()]
    tokens += list((told.get("lang_to_id") or {}).items())
    tokens += [(f"<|{task}|>", number) for task, number in (told.get("task_to_id") or {}).items()]
    return [("generation_config.json", name, number) for name, number in tokens]


def _start(folder: Path) -> tuple[str, int | None]:
    return "<|startoftranscript|>", read_json(folder / "config.json").get("decoder_start_token_id")


def released(vocab_size: int) -> dict[str, int]:
    """Return the numbers of the special tokens in a released Whisper with a vocabulary of this size."""
    end = 50256 if vocab_size == ENGLISH_ONLY else 50257
    languages = list(NAMES)[: 100 if vocab_size == WITH_CANTONESE else 99]
    names = ["endoftext", "startoftranscript", *languages, *TASKS, "0.00"]
    return {f"<|{name}|>": end + place for place, name in enumerate(names) if name}
