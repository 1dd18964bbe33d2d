"""The text of turns as it is shown and spoken: no Markdown, no markup, nothing that a browser would load.

Replies are meant to be heard; models are told to write no Markdown, and some do. What stands between its marks stays.
"""

import re
from collections.abc import Iterable

from lengua.conversation import Turn

LINK = re.compile(r"!?\[([^\[\]\n]*)\]\((?:[^()\n]|\([^()\n]*\))*\)")
FENCE = re.compile(r"^```.*\n?", re.MULTILINE)
HEADING = re.compile(r"^[ \t]*#{1,6}[ \t]+", re.MULTILINE)
ITEM = re.compile(r"^([ \t]*)[*+-][ \t]+", re.MULTILINE)
PAIRS = (
    re.compile(r"\*\*([^\s*](?:[^*\n]*[^\s*])?)\*\*"),
    re.compile(r"(?<!\w)__([^\s_](?:[^\n_]*[^\s_])?)__(?!\w)"),  # but not ____, a gap to fill in
    re.compile(r"(?<![\w*])\*([^\s*](?:[^*\n]*[^\s*])?)\*(?![\w*])"),
    re.compile(r"`([^`\n]+)`"),
)
MARKUP = re.compile(r"<(?=[A-Za-z/!?])|&(?=[#A-Za-z])")
ESCAPED = {"<": "&lt;", "&": "&amp;"}


def plain(text: str) -> str:
    """Return a text without the marks of Markdown; links and pictures become their words."""
    for pattern in (FENCE, HEADING):
        text = pattern.sub("", text)
    text = ITEM.sub(r"\1• ", LINK.sub(r"\1", text))
    for pattern in PAIRS:
        text = pattern.sub(r"\1", text)
    return text


def messages(turns: Iterable[Turn]) -> list[dict]:
    """Return turns as gr.Chatbot takes them.

    With render_markdown=False it still puts the text into the page as HTML, so whatever could begin a tag or an entity
    is escaped; all else stays as it is, for who copies it.
    """
    return [{"role": turn.role, "content": [{"type": "text", "text": _shown(turn.text)}]} for turn in turns]


def _shown(text: str) -> str:
    return MARKUP.sub(lambda found: ESCAPED[found[0]], text)
