"""Clips to listen to: one to begin with, and the worst of an evaluation with what was heard, word by word."""

from itertools import islice
from pathlib import Path

from lengua.errors import RequestError
from lengua.files import read_json, read_jsonl
from lengua.pages import clips
from lengua.pages.players import NOT_KEPT, Player, players
from lengua.pages.rendering import template_engine
from lengua.pages.verdicts import opponent
from lengua.sources import Utterance, open_source
from lengua.store import open_store

LOOKED_AT, LETTERS = 40, 40
"""Of so many clips one is taken, whose text has about so many letters: some words, in some seconds."""


def example_clip(source: str, language: str | None = None, split: str = "test") -> Utterance:
    """Return a recording of a source with its text; of the first ones, one that says some words.

    Raises:
        RequestError: no such source, or none in this split.
    """
    items = (item for item in open_source(source, language).read(split) if isinstance(item, Utterance))
    found = list(islice(items, LOOKED_AT))
    if not found:
        raise RequestError(f"recordings in {split} of {source}", "none", "name another split")
    return min(found, key=lambda item: abs(len(item.text) - LETTERS))


def worst_clips(evaluation: Path, store: Path | None = None, count: int = 5):
    """Return the clips with most errors as HTML to display: what was said, what was heard, and a player.

    Args:
        evaluation: a folder with results.json and hypotheses.jsonl.
        store: the store that was measured on, for the sound; without it, or what it kept, there are no players.
    """
    from IPython.display import HTML

    results, records = read_json(evaluation / "results.json"), read_jsonl(evaluation / "hypotheses.jsonl")
    rows = results["rows"]
    worst = clips.worst_clips(rows, records, opponent(rows, results.get("against")), count)
    split = open_store(store).split(results["split"]) if store else None
    found = players(split, [clip["id"] for clip in worst])
    shown = [{**clip, "player": found.get(clip["id"], Player(None, NOT_KEPT))} for clip in worst]
    page = template_engine(autoescape=True).get_template("worst.html")
    return HTML(page.render(worst=shown, language=results.get("language") or ""))
