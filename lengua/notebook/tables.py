"""Tables for a notebook, which would put words to the right where Markdown does not say otherwise."""

import re

from lengua.publishing import markdown

RULE = re.compile(r"(?<=\| )---(?= \|)")


def grid(header: list[str], lines: list[list[object]], words: int = 1) -> markdown.Ready:
    """Return a table as `lengua.publishing.markdown.grid` does, the columns of words to the left."""
    first, rule, *others = markdown.grid(header, lines, words).splitlines()
    return markdown.Ready("\n".join([first, RULE.sub(":---", rule), *others]))
