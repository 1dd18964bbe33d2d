"""What a transcript holds that nobody said, and what becomes of it before it is a label.

    text, rules = clean_transcript("&quot;HOLA A TODOS&quot; [risas]")     # "Hola a todos", ("entities", ...)

A rule that changed a text is named in its row (`CLEANED_KEY` of its extra) and counted in the manifest; a text that
cannot be put right is dropped and counted. Nothing of it is learned silently.
"""

import html
import re

from lengua.scoring.normalizer import clean_label

ENTITY = re.compile(r"&(#\d+|#x[0-9a-f]+|[a-z]+\d*);", re.IGNORECASE)
BRACKETED_REMARK = re.compile(r"\[[^\]]*\]|<[^<>]*>")
"""Of transcribers, on noises and speakers: [risas], <noise>. What stands in round brackets may have been read."""
UNKNOWN_WORD = re.compile(r"<unk>|\[unk\]|<unintelligible>|\[inaudible\]", re.IGNORECASE)
EMPTY_CELLS = {"nan", "null", "n/a", "#n/a", "<na>"}
"""What tables hold instead of nothing."""
MIN_CAPITAL_WORDS = 3
"""Fewer words in capitals may be a name or an abbreviation."""


def clean_transcript(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the label of a transcript, "" if there is none, and the names of the rules that changed it."""
    rules = []
    if text.strip().lower() in EMPTY_CELLS:
        return "", ()
    if ENTITY.search(text):
        text = html.unescape(text)
        rules.append("entities of HTML")
    if BRACKETED_REMARK.search(text):
        text = BRACKETED_REMARK.sub(" ", text)
        rules.append("remarks in brackets")
    text = clean_label(text)
    if len(text.split()) >= MIN_CAPITAL_WORDS and text.isupper() and text.lower() != text:
        text = text[:1] + text[1:].lower()
        rules.append("all capitals")
    return text, tuple(rules)


def has_unknown_word(text: str) -> bool:
    """Return whether a transcript marks a word that its transcriber did not understand."""
    return bool(UNKNOWN_WORD.search(text))
