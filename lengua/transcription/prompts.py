"""What stands before a text in Whisper's decoder: words before, start, language, task, no timestamps."""

from functools import cache
from pathlib import Path

from tokenizers import Tokenizer

from lengua.errors import RequestError
from lengua.files import read_json
from lengua.labels import token_id, word_tokens
from lengua.languages import NAMES

TASKS = ("transcribe", "translate")
MOST_BEFORE = 223
"""Tokens of words before: half of the decoder's positions, less the start token (openai/whisper, decoding.py)."""
ENGLISH_START = 50257
"""<|startoftranscript|> of the English-only Whispers; one more in all others."""


class Prompts:
    """Prompts of one model, by language.

    Args:
        task: transcribe, or translate into English.
        before: words that are likely to come; of many, the last ones count.

    Raises:
        RequestError: no such task, or one that an English-only model does not have.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer, task: str = TASKS[0], before: str = ""):
        self.start = token_id(tokenizer, "<|startoftranscript|>")
        self.english_only = self.start == ENGLISH_START or not _multilingual(folder)
        self._tokenizer, self._folder, self._task = tokenizer, folder, task
        self._before = words_before(tokenizer, before)
        self.of = cache(self._of)
        if task not in TASKS:
            raise RequestError(f"a task of {', '.join(TASKS)}", repr(task), "name one of these")
        if self.english_only and task != TASKS[0]:
            raise RequestError("a model that can translate", self._english(), "choose a multilingual Whisper")

    def _of(self, language: str) -> list[int]:
        """Return the prompt for a language.

        Raises:
            RequestError: the model does not speak it.
        """
        if self.english_only and language != "en":
            wanted = f"a model that speaks {NAMES[language]}"
            raise RequestError(wanted, self._english(), "choose a multilingual Whisper")
        task = [] if self.english_only else [f"<|{language}|>", f"<|{self._task}|>"]
        names = ["<|startoftranscript|>", *task, "<|notimestamps|>"]
        return [*self._before, *(token_id(self._tokenizer, name) for name in names)]

    def bare(self, language: str) -> list[int]:
        """Return the prompt for a language without words before."""
        return self.of(language)[len(self._before) :]

    def _english(self) -> str:
        return f"an English-only model in {self._folder}"


def words_before(tokenizer: Tokenizer, words: str) -> list[int]:
    """Return <|startofprev|> and the tokens of some words, the last `MOST_BEFORE` of them; nothing for no words."""
    if not words.strip():
        return []
    return [token_id(tokenizer, "<|startofprev|>"), *word_tokens(tokenizer, words)[-MOST_BEFORE:]]


def _multilingual(folder: Path) -> bool:
    path = folder / "generation_config.json"
    return read_json(path).get("is_multilingual", True) is not False if path.is_file() else True
