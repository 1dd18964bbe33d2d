"""The turns of a conversation, its setting, the system prompt, and what of it is sent.

A setting (situation, level, variety) is codes; the page has words for them. The system prompt is fixed text of
assets/prompts.toml and never contains what a visitor says: for Spanish it is in Spanish and knows each country's
variety, for any other language it is in English.

All turns that fit are sent; the oldest are dropped first, the visitor's last one never. Tokens are estimated, because
each server has its own tokenizer: `estimate_tokens` counts three ASCII letters a token, and at least one token for
any other sign, which is a third above GPT-2's vocabulary for Spanish; vocabularies of today need fewer.

Why a reply failed is a code (`ReplyErrorKind`), for which the page has a sentence in each language: `reply.<kind>`.
"""

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any, Literal, Protocol, get_args

from lengua.models.languages import LANGUAGE_NAMES
from lengua.runtime.files import ASSETS
from lengua.scoring.normalizer import strip_marks

ReplyErrorKind = Literal[
    "no_key",  # the server wants a key, and none was given
    "wrong_key",
    "no_quota",  # the account of the key is used up
    "rate_limited",  # too many requests at once: `retry_after_s`, where the server sent it
    "timeout",
    "server_down",  # nobody there, or no answer that can be read
    "cut",  # it broke off; the pieces that came before count
    "refused",
    "empty",
    "no_model",  # the server does not know the model
    "too_long",  # the visitor's turn; nothing was sent
]
REPLY_ERROR_KINDS: tuple[ReplyErrorKind, ...] = get_args(ReplyErrorKind)


class ReplyError(Exception):
    """A reply that failed. The message is for the log: no key, no text of a visitor, nothing that a server sent."""

    def __init__(self, kind: ReplyErrorKind, message: str = "", retry_after_s: float | None = None):
        super().__init__(message or kind)
        self.kind = kind
        self.retry_after_s = retry_after_s


SITUATIONS = ("free", "interview", "cafe", "doctor", "rent", "airport", "market", "street", "phone")
LEVELS = ("beginner", "intermediate", "advanced")
VARIETIES = {"es": ("MX", "AR", "ES", "CO", "CL", "PE"), "en": ("US", "GB"), "pt": ("BR", "PT"), "fr": ("FR", "CA")}
"""By language, as codes of countries; a language that is not here has one variety, without a code."""


@dataclass(frozen=True)
class Setting:
    """The choices of a visitor. They come from a page or a program: what is unknown becomes the default of its kind."""

    situation: str = "free"
    """One of SITUATIONS; marks and case do not count: "café" is "cafe"."""
    level: str = "intermediate"
    """One of LEVELS."""
    variety: str = ""
    """One of VARIETIES of the language; none: its first."""
    language: str = "es"
    """Whisper's code of the language that is spoken."""

    def __post_init__(self):
        situation, level = (strip_marks(str(code)).strip().lower() for code in (self.situation, self.level))
        variety, known = str(self.variety).strip().upper(), language_varieties(self.language)
        object.__setattr__(self, "situation", situation if situation in SITUATIONS else SITUATIONS[0])
        object.__setattr__(self, "level", level if level in LEVELS else "intermediate")
        object.__setattr__(self, "variety", variety if variety in known else known[0])


def language_varieties(language: str) -> tuple[str, ...]:
    """Return the codes of a language's varieties, the first of which is the default; ("",) where none are known."""
    return VARIETIES.get(language, ("",))


Role = Literal["user", "assistant"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Turn:
    """One message of the conversation, by the visitor or the assistant."""

    role: Role
    text: str
    audio: str | None = None
    """The recording of a spoken turn, a file of this visit; None where it was typed, or a reply."""
    doubtful: tuple[str, ...] = ()
    """Words that the model was not sure of, as they stand in the text."""


def corrected_turn(draft: Turn, text: str) -> Turn:
    """Return the visitor's turn of a text, with the recording of a draft where it is that draft's text, corrected."""
    before, after = (set(words.lower().split()) for words in (draft.text, text))
    if not before or 2 * len(before & after) < len(before):
        return Turn("user", text)
    return Turn("user", text, draft.audio, tuple(word for word in draft.doubtful if word in text))


class Responder(Protocol):
    """Who replies: a server behind OpenAI's API, or the tutor that needs none."""

    name: str
    """For the page: which model, at which host; never a key."""
    is_tutor: bool
    """Whether it is the tutor: no language model, and the page says so."""

    def reply(self, turns: Sequence[Turn], setting: Setting) -> Iterator[str]:
        """Yield the reply to the last turn in pieces, as they come. Closing the iterator ends the request.

        Raises:
            ReplyError: with its kind; pieces that came before it count.
        """
        ...

    def cost(self, turns: Sequence[Turn], setting: Setting) -> int:
        """Return the tokens that such a reply may cost whoever runs the page, estimated; 0 where it costs nothing."""
        ...


def parse_turns(messages: Any) -> list[Turn]:
    """Return the turns of what a page or a program sends: [{"role": "user", "content": "Hola"}, ...].

    Content is a text, or parts of which those with a text count. What is none of this is left out, and so are roles
    other than user and assistant: nobody brings a system prompt of their own.
    """
    items = messages if isinstance(messages, list | tuple) else []
    spoken = [item for item in items if isinstance(item, dict) and item.get("role") in ROLES]
    return [Turn(item["role"], text) for item in spoken if (text := _text(item.get("content")))]


def _text(content: Any) -> str:
    parts = content if isinstance(content, list | tuple) else [content]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    return " ".join(text.strip() for text in texts if isinstance(text, str)).strip()


def up_to_last_user_turn(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Return the turns up to the visitor's last one; what was replied to it is not among them."""
    last = max((place for place, turn in enumerate(turns) if turn.role == "user"), default=-1)
    return tuple(turns[: last + 1])


def system_prompt(setting: Setting) -> str:
    """Return the instructions before the first turn; each paragraph is one line."""
    texts = _texts(setting.language)
    whole = texts["prompt"].format(
        language=LANGUAGE_NAMES.get(setting.language, setting.language).title(),
        situation=texts["situation"][setting.situation].strip(),
        level=texts["level"][setting.level].strip(),
        variety=texts["variety"].get(setting.variety, "").rstrip(),
    )
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in whole.split("\n\n"))


def opening_message(setting: Setting) -> str:
    """Return what stands for the visitor's turn where they want the other side to begin."""
    return _texts(setting.language)["opening"]


@cache
def _texts(language: str) -> dict:
    texts = tomllib.loads((ASSETS / "prompts.toml").read_text(encoding="utf-8"))
    return texts.get(language, texts["any"])


MAX_TURN_LETTERS = 4000
"""Of the visitor's turn: some five minutes of speech."""
TOKENS_PER_TURN = 8
"""What a turn costs beside its text: role, separators."""


def estimate_tokens(text: str) -> int:
    """Return an estimate of a text's tokens, on the high side."""
    plain = sum(char.isascii() and (char.isalpha() or char.isspace()) for char in text)
    rare = sum(ord(char) > 0x2FFF for char in text)  # Han, kana, emoji: three or four bytes, each a token at worst
    return -(-plain // 3) + (len(text) - plain) + 2 * rare


def trim_turns(turns: Sequence[Turn], room: int) -> list[Turn]:
    """Return the last turns that fit into so many tokens, as templates of models want them.

    They begin with the visitor and take turns: turns of one side in a row become one (a try that failed before), empty
    ones go. The visitor's last turn stays whatever it costs; the other side's text after it is another try at the
    same reply, and goes.

    Raises:
        ReplyError: too_long, the visitor's last turn is over MAX_TURN_LETTERS.
    """
    spoken = up_to_last_user_turn([turn for turn in turns if turn.text.strip()])
    if not spoken:
        return []
    require_bounded(spoken[-1])
    kept, left = [], room
    for turn in reversed(spoken):
        if kept and len(turn.text) > 3 * left:  # whatever letters these are; a program may send millions
            break
        left -= estimate_tokens(turn.text) + TOKENS_PER_TURN
        if kept and left < 0:
            break
        kept.append(turn)
    while kept[-1].role == "assistant":
        kept.pop()
    runs = ((role, list(run)) for role, run in groupby(reversed(kept), key=lambda turn: turn.role))
    return [Turn(role, "\n".join(turn.text.strip() for turn in run)) for role, run in runs]


def require_bounded(turn: Turn) -> None:
    """Refuse a turn that is no turn of a conversation.

    Raises:
        ReplyError: too_long.
    """
    if len(turn.text) > MAX_TURN_LETTERS:
        raise ReplyError("too_long", f"{len(turn.text)} letters in a turn, over {MAX_TURN_LETTERS}")
