"""Labels and prompts, done right; each point here once cost somebody days.

One start token, 50258 and not the tokenizer's bos_token; the prompt that decoding will use; text with the leading space
that the tokenizer does not add; one end token, alive in the loss although it is also the padding token; the constant
prompt masked in the labels and not in the inputs.
"""

from collections.abc import Iterable

from tokenizers import Tokenizer

from lengua.errors import RequestError

IGNORED = -100
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
    return [*prompt, *words], [*[IGNORED] * (len(prompt) - 1), *words, end_token(tokenizer)]


def timestamped_pair(
    tokenizer: Tokenizer, utterances: Iterable[tuple[float, float, str]], language: str
) -> tuple[list[int], list[int]]:
    """Return (decoder_input_ids, labels) of utterances in one window: (begins at, ends at, text), in seconds.

    inputs:  <|startoftranscript|> <|es|> <|transcribe|> <|0.00|>  w1 ... wn <|4.80|> <|4.82|>  w1 ...
    labels:  -100                  -100   <|0.00|>        w1 ... wn <|4.80|> <|4.82|>  w1 ... <|endoftext|>
    """
    prompt = prompt_tokens(tokenizer, language)[:-1]
    said = [token for utterance in utterances for token in _timestamped(tokenizer, *utterance)]
    return [*prompt, *said], [*[IGNORED] * (len(prompt) - 1), *said, end_token(tokenizer)]


def _timestamped(tokenizer: Tokenizer, start: float, end: float, text: str) -> list[int]:
    return [timestamp(tokenizer, start), *word_tokens(tokenizer, text), timestamp(tokenizer, end)]


def timestamp(tokenizer: Tokenizer, seconds: float) -> int:
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


def words_of(tokenizer: Tokenizer, tokens: list[int]) -> str:
    """Return the text of generated tokens, no space around."""
    return tokenizer.decode(text_tokens(tokenizer, tokens)).strip()


def label_length(tokenizer: Tokenizer, text: str) -> int:
    """Return the decoder positions that a text takes, prompt and end included."""
    return len(decoder_pair(tokenizer, text, "en")[0]) + 1


def may_be_too_long(text: str) -> bool:
    """Return whether a text could exceed `MAX_LABEL_TOKENS`: a token of byte-level BPE is at least one byte."""
    return len(text.encode()) + 6 > MAX_LABEL_TOKENS


def most_tokens(seconds: float, positions: int = MAX_LABEL_TOKENS) -> int:
    """Return how many tokens decoding a window of so many seconds may take; the prompt needs a few positions, too."""
    return min(positions - 8, 10 + int(TOKENS_PER_SECOND * seconds))
