"""Markdown from templates and tables. Text from data is escaped: it shows as it is, without HTML or links.

render_markdown("card.md", {"name": "a|b"})      # {{ name }} gives a\\|b, {{ name | code }} gives `a¦b`
format_markdown_table(["set", "WER"], [["test", "13.0 %"]])
"""

import re

from lengua.evaluation.report.rendering import template_engine

MARKDOWN_ACTIVE = re.compile(r"([\\`*_\[\]|~$#!])")
"""Letters that mean something in Markdown anywhere in a line."""
HTML_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


class TrustedMarkdown(str):
    """Markdown that is meant as such."""


def render_markdown(template: str, facts: dict) -> str:
    """Fill a template; a fact that it names and that is missing is an error."""
    engine = template_engine(finalize=escape_markdown)
    engine.filters |= {"code": code_span, "quoted": python_string}
    return engine.get_template(template).render(**facts)


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


def format_markdown_table(
    header: list[str], lines: list[list[object]], words: int = 1, text_rule: str = "---"
) -> TrustedMarkdown:
    """Return a table; the first columns hold words, the others figures, which stand to the right.

    Args:
        words: columns of words.
        text_rule: the rule below their headers; ":---" where Markdown would not put them to the left by itself.
    """
    rule = [text_rule] * words + ["---:"] * (len(header) - words)
    rows = [list(map(escape_markdown, header)), rule, *(list(map(escape_markdown, line)) for line in lines)]
    return TrustedMarkdown("\n".join(f"| {' | '.join(row)} |" for row in rows))
