"""Clips for a page: the worst ones and fairly drawn ones, with what models heard in them marked word by word."""

from lengua.figures.wer import BASE
from lengua.pages.words import EQUAL, SHOWN, compared
from lengua.report import Example, examples

WORST, EXAMPLES = 20, 10


def worst_clips(rows: list[dict], records: list[dict], other: str | None, count: int = WORST) -> list[dict]:
    """Return the clips with most errors of the model measured, with the words of both; ties by rate, then by id.

    The model is the first that is not the opponent, in the adaptive window if it was measured in that; the opponent's
    words are those of the padded one, which is all that an untouched model knows.
    """
    mine = [record for record in records if record["model"] != other]
    if not mine:
        return []
    mine = [record for record in mine if record["model"] == mine[0]["model"]]
    by_clip = {(record["set"], record["id"]): record for record in _last("adaptive", mine)}
    others = [record for record in records if record["model"] == other]
    theirs = {(record["set"], record["id"]): record for record in _last("padded", others)}
    wrong = [record for record in by_clip.values() if record["counts"]["errors"]]
    wrong.sort(key=lambda record: (-record["counts"]["errors"], record["counts"]["words"], record["id"]))
    return [_clip(record, theirs.get((record["set"], record["id"]))) for record in wrong[:count]]


def shown_examples(records: list[dict], other: str | None, count: int = EXAMPLES) -> list[dict]:
    """Return clips before and after, fairly drawn (see `lengua.report.examples`), for the template."""
    return [_example(one) for one in examples(_with_base(records, other), count)]


def marked(reference: str, hypothesis: str) -> dict:
    """Return the words of a hypothesis for the template, and how many more there are than a page shows."""
    words = compared(reference, hypothesis)
    wrong = sum(word.kind != EQUAL for word in words)
    return {"words": words[:SHOWN], "more": max(0, len(words) - SHOWN), "wrong": wrong}


def _last(window: str, records: list[dict]) -> list[dict]:
    """Return the records with those of one window last, so that they stay where a clip has two."""
    return sorted(records, key=lambda record: record["window"] == window)


def _clip(record: dict, before: dict | None) -> dict:
    heard = [(f"{one['model']}, {one['window']}", one) for one in (before, record) if one]
    return {
        "id": record["id"],
        "set": record["set"],
        "speaker": record.get("speaker"),
        "seconds": record.get("duration_s"),
        "flags": [flag.replace("_", " ") for flag in record.get("flags", [])],
        "reference": record["reference"],
        "errors": record["counts"]["errors"],
        "of": record["counts"]["words"],
        "heard": [{"name": name, **marked(one["reference"], one["hypothesis"])} for name, one in heard],
    }


def _example(one: Example) -> dict:
    heard = [("before", one.before), ("after", one.after)]
    lines = [{"name": name, **marked(one.reference, text)} for name, text in heard]
    return {"id": one.id, "reference": one.reference, "heard": lines}


def _with_base(records: list[dict], other: str | None) -> list[dict]:
    """Return the records with the opponent called the base, which is what examples are picked against."""
    if other in (BASE, None):
        return records
    return [{**record, "model": BASE} if record["model"] == other else record for record in records]
