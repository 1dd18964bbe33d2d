"""Labels and decoder prompts of Whisper.

A label has one start token (50258, which is not the tokenizer's bos_token), the prompt that decoding will use, text
with the leading space that the tokenizer does not add, and one end token, which stays in the loss although it is also
the padding token. The constant prompt is masked in the labels and not in the inputs.

A decoder prompt is: previous text, start, language, task, no timestamps.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer

from lengua.models.languages import LANGUAGE_NAMES
from lengua.runtime.errors import RequestError
from lengua.runtime.files import read_json

IGNORE_INDEX = -100
"""Label that the loss leaves out."""
MAX_LABEL_TOKENS = 448
"""Positions of Whisper's decoder."""
TOKENS_PER_SECOND = 14
"""More than anybody speaks. It bounds what one loop of the decoder can cost."""


def decoder_pair(tokenizer: Tokenizer, text: str, language: str) -> tuple[list[int], list[int]]:
    """Return (decoder_input_ids, labels) of one utterance, of equal length.

    inputs:  <|startoftranscript|> <|es|> <|transcribe|> <|notimestamps|>  w1 w2 ... wn
    labels:  -100                  -100   -100           w1                w2 ... wn <|endoftext|>
    """
    prompt = prompt_tokens(tokenizer, language)
    words = word_tokens(tokenizer, text)
    return [*prompt, *words], [*[IGNORE_INDEX] * (len(prompt) - 1), *words, end_token(tokenizer)]


def timestamped_pair(
    tokenizer: Tokenizer, utterances: Iterable[tuple[float, float, str]], language: str
) -> tuple[list[int], list[int]]:
    """Return (decoder_input_ids, labels) of utterances in one window: (begins at, ends at, text), in seconds.

    inputs:  <|startoftranscript|> <|es|> <|transcribe|> <|0.00|>  w1 ... wn <|4.80|> <|4.82|>  w1 ...
    labels:  -100                  -100   <|0.00|>        w1 ... wn <|4.80|> <|4.82|>  w1 ... <|endoftext|>
    """
    prompt, tokens = prompt_tokens(tokenizer, language)[:-1], []
    for start, end, text in utterances:
        tokens += [timestamp_token(tokenizer, start), *word_tokens(tokenizer, text), timestamp_token(tokenizer, end)]
    return [*prompt, *tokens], [*[IGNORE_INDEX] * (len(prompt) - 1), *tokens, end_token(tokenizer)]


def timestamp_token(tokenizer: Tokenizer, seconds: float) -> int:
    """Return the token of a time in the window, the nearest of <|0.00|>, <|0.02|>, ... <|30.00|>."""
    return token_id(tokenizer, f"<|{round(seconds * 50) / 50:.2f}|>")


def word_tokens(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the tokens of a text, with its leading space and without special ones."""
    return tokenizer.encode(" " + text.strip(), add_special_tokens=False).ids


def prompt_tokens(tokenizer: Tokenizer, language: str) -> list[int]:
    """Return the prompt that training and decoding share."""
    return [
        token_id(tokenizer, name)
        for name in ("<|startoftranscript|>", f"<|{language}|>", "<|transcribe|>", "<|notimestamps|>")
    ]


def end_token(tokenizer: Tokenizer) -> int:
    """Return the id of <|endoftext|>, which is also Whisper's padding."""
    return token_id(tokenizer, "<|endoftext|>")


def token_id(tokenizer: Tokenizer, name: str) -> int:
    """Return the id of a special token.

    Raises:
        RequestError: the tokenizer does not have it (an English-only model asked for Spanish, for example).
    """
    found = tokenizer.token_to_id(name)
    if found is None:
        raise RequestError(f"a tokenizer with {name}", "one without it", "use a multilingual Whisper")
    return found


def text_tokens(tokenizer: Tokenizer, tokens: list[int]) -> list[int]:
    """Return generated tokens without prompt, end, padding and timestamps."""
    first_special = end_token(tokenizer)
    return [token for token in tokens if 0 <= token < first_special]


def decode_text(tokenizer: Tokenizer, tokens: list[int]) -> str:
    """Return the text of generated tokens, no space around."""
    return tokenizer.decode(text_tokens(tokenizer, tokens)).strip()


def label_length(tokenizer: Tokenizer, text: str) -> int:
    """Return the decoder positions that a text takes, prompt and end included."""
    return len(decoder_pair(tokenizer, text, "en")[0]) + 1


def may_be_too_long(text: str) -> bool:
    """Return whether a text could exceed `MAX_LABEL_TOKENS`: a token of byte-level BPE is at least one byte."""
    return len(text.encode()) + 6 > MAX_LABEL_TOKENS


def max_decode_tokens(seconds: float, positions: int = MAX_LABEL_TOKENS) -> int:
    """Return how many tokens decoding a window of so many seconds may take; the prompt needs a few positions, too."""
    return min(positions - 8, 10 + int(TOKENS_PER_SECOND * seconds))


PROMPT_TASKS = ("transcribe", "translate")
MAX_PREVIOUS_TOKENS = 223
"""Tokens of words before: half of the decoder's positions, less the start token (openai/whisper, decoding.py)."""
ENGLISH_ONLY_START_ID = 50257
"""<|startoftranscript|> of the English-only Whispers; one more in all others."""


class DecoderPrompts:
    """Prompts of one model, by language.

    Args:
        task: transcribe, or translate into English.
        before: words that are likely to come; of many, the last ones count.

    Raises:
        RequestError: no such task, or one that an English-only model does not have.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer, task: str = PROMPT_TASKS[0], before: str = ""):
        self.start = token_id(tokenizer, "<|startoftranscript|>")
        path = folder / "generation_config.json"
        multilingual = not path.is_file() or read_json(path).get("is_multilingual", True) is not False
        self.english_only = self.start == ENGLISH_ONLY_START_ID or not multilingual
        self._tokenizer, self._task, self._english = tokenizer, task, f"an English-only model in {folder}"
        self._before = previous_text_tokens(tokenizer, before)
        self.of = cache(self._of)
        if task not in PROMPT_TASKS:
            raise RequestError(f"a task of {', '.join(PROMPT_TASKS)}", repr(task), "name one of these")
        if self.english_only and task != PROMPT_TASKS[0]:
            raise RequestError("a model that can translate", self._english, "choose a multilingual Whisper")

    def _of(self, language: str) -> list[int]:
        """Return the prompt for a language.

        Raises:
            RequestError: the model does not speak it.
        """
        if self.english_only and language != "en":
            wanted = f"a model that speaks {LANGUAGE_NAMES[language]}"
            raise RequestError(wanted, self._english, "choose a multilingual Whisper")
        task = [] if self.english_only else [f"<|{language}|>", f"<|{self._task}|>"]
        names = ["<|startoftranscript|>", *task, "<|notimestamps|>"]
        return [*self._before, *(token_id(self._tokenizer, name) for name in names)]

    def bare(self, language: str) -> list[int]:
        """Return the prompt for a language without words before."""
        return self.of(language)[len(self._before) :]


def previous_text_tokens(tokenizer: Tokenizer, words: str) -> list[int]:
    """Return <|startofprev|> and the tokens of some words, at most `MAX_PREVIOUS_TOKENS`; nothing for no words."""
    if not words.strip():
        return []
    return [token_id(tokenizer, "<|startofprev|>"), *word_tokens(tokenizer, words)[-MAX_PREVIOUS_TOKENS:]]
