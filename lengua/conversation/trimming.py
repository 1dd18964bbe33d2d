"""The turns that are sent: all that fit, the oldest left out first, never the visitor's last one.

Tokens are estimated, not counted: each server has a tokenizer of its own. `tokens_of` is a third above what GPT-2's
vocabulary needs for Spanish, and those of today need less: three ASCII letters a token, one token or more for any other
sign. Only letters that make no words can be more. What a model cannot hold it would cut by itself, and most begin with
the system prompt.
"""

from collections.abc import Sequence
from itertools import groupby

from lengua.conversation.errors import ReplyError
from lengua.conversation.turns import Turn

MAX_TURN_LETTERS = 4000
"""Of the visitor's turn: some five minutes of speech."""
TURN_TOKENS = 8
"""What a turn costs beside its text: role, separators."""


def tokens_of(text: str) -> int:
    """Return an estimate of a text's tokens, on the high side."""
    plain = sum(char.isascii() and (char.isalpha() or char.isspace()) for char in text)
    rare = sum(ord(char) > 0x2FFF for char in text)  # Han, kana, emoji: three or four bytes, each a token at worst
    return -(-plain // 3) + (len(text) - plain) + 2 * rare


def trimmed(turns: Sequence[Turn], room: int) -> list[Turn]:
    """Return the last turns that fit into so many tokens, as templates of models want them.

    They begin with the visitor and take turns: turns of one side in a row become one (a try that failed before), empty
    ones go. The visitor's last turn stays whatever it costs; what the other side said after it is another try at the
    same reply, and goes.

    Raises:
        ReplyError: too_long, the visitor's last turn is over MAX_TURN_LETTERS.
    """
    spoken = [turn for turn in turns if turn.text.strip()]
    while spoken and spoken[-1].role == "assistant":
        spoken.pop()
    if not spoken:
        return []
    require_bounded(spoken[-1])
    kept = _fitting(spoken, room)
    while kept[0].role == "assistant":
        kept.pop(0)
    runs = ((role, list(run)) for role, run in groupby(kept, key=lambda turn: turn.role))
    return [Turn(role, "\n".join(turn.text.strip() for turn in run)) for role, run in runs]


def require_bounded(turn: Turn) -> None:
    """Refuse a turn that is no turn of a conversation.

    Raises:
        ReplyError: too_long.
    """
    if len(turn.text) > MAX_TURN_LETTERS:
        raise ReplyError("too_long", f"{len(turn.text)} letters in a turn, over {MAX_TURN_LETTERS}")


def _fitting(turns: Sequence[Turn], room: int) -> list[Turn]:
    """Return the last turns, newest first chosen: the last one always, others while there is room."""
    kept = [turns[-1]]
    left = room - tokens_of(turns[-1].text) - TURN_TOKENS
    for turn in reversed(turns[:-1]):
        if len(turn.text) > 3 * left:  # whatever letters these are; a program may send millions
            break
        left -= tokens_of(turn.text) + TURN_TOKENS
        if left < 0:
            break
        kept.append(turn)
    return kept[::-1]
