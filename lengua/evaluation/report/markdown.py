"""Markdown from data: its text is escaped and shows as it is, without HTML or links."""

import re

MARKDOWN_ACTIVE = re.compile(r"([\\`*_\[\]|~$#!])")
"""Letters that mean something in Markdown anywhere in a line."""
HTML_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


class TrustedMarkdown(str):
    """Markdown that is meant as such."""


def escape_markdown(value: object) -> str:
    """Return text that Markdown shows letter by letter, on one line."""
    if isinstance(value, TrustedMarkdown):
        return value
    text = MARKDOWN_ACTIVE.sub(r"\\\1", as_one_line(value))
    return "".join(HTML_ENTITIES.get(letter, letter) for letter in text)


def code_span(value: object) -> TrustedMarkdown:
    """Return a code span for a line or the cell of a table, whatever backticks and bars are in it."""
    text = as_one_line(value).replace("|", "¦")  # a bar ends a cell, even in code
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return TrustedMarkdown(f"{fence}{space}{text}{space}{fence}")


def python_string(value: object) -> TrustedMarkdown:
    """Return a string as Python source writes it, for a code block: nothing in it ends the string or the block."""
    text = str(value).encode("unicode_escape").decode("ascii").replace('"', '\\"').replace("`", "\\x60")
    return TrustedMarkdown(f'"{text}"')


def as_one_line(value: object) -> str:
    """Return text without line breaks and other control letters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(value)).split())
