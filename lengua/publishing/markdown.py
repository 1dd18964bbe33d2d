"""Templates of `lengua/data` -> Markdown. What comes from data is shown as it is, and does nothing: no HTML, no links.

rendered("card.md", {"name": "a|b"})      # {{ name }} gives a\\|b, {{ name | code }} gives `a|b`
"""

import re

from lengua.pages.rendering import template_engine

ACTIVE = re.compile(r"([\\`*_\[\]|~$#!])")
"""Letters that mean something in Markdown anywhere in a line."""
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


class Ready(str):
    """Markdown that is meant as such."""


def rendered(template: str, facts: dict) -> str:
    """Fill a template; a fact that it names and that is missing is an error."""
    engine = template_engine(finalize=escaped)
    engine.filters |= {"code": code, "quoted": quoted}
    return engine.get_template(template).render(**facts)


def escaped(value: object) -> str:
    """Return text that Markdown shows letter by letter, on one line."""
    if isinstance(value, Ready):
        return value
    text = ACTIVE.sub(r"\\\1", one_line(value))
    return "".join(ENTITIES.get(letter, letter) for letter in text)


def code(value: object) -> Ready:
    """Return a code span for a line or the cell of a table, whatever backticks and bars are in it."""
    text = one_line(value).replace("|", "¦")  # a bar ends a cell, even in code
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return Ready(f"{fence}{space}{text}{space}{fence}")


def quoted(value: object) -> Ready:
    """Return a string as Python source writes it, for a code block: nothing in it ends the string or the block."""
    text = str(value).encode("unicode_escape").decode("ascii").replace('"', '\\"').replace("`", "\\x60")
    return Ready(f'"{text}"')


def one_line(value: object) -> str:
    """Return text without line breaks and other control letters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(value)).split())


def grid(header: list[str], lines: list[list[object]], words: int = 1) -> Ready:
    """Return a table; the first columns hold words, the others figures, which stand to the right."""
    rule = ["---"] * words + ["---:"] * (len(header) - words)
    rows = [list(map(escaped, header)), rule, *(list(map(escaped, line)) for line in lines)]
    return Ready("\n".join(f"| {' | '.join(row)} |" for row in rows))
