"""report.html of one evaluation: what the figures say in words, the errors word by word, and the sound of the worst.

    write_page(Path("evaluation/report.html"), read_json(folder / RESULTS), read_jsonl(folder / HYPOTHESES), store)

A section whose data are not there is left out. Equal inputs give equal bytes.
"""

from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from lengua.errors import RequestError
from lengua.figures.wer import BASE, ordered
from lengua.pages import drawing
from lengua.pages.clips import shown_examples, worst_clips
from lengua.pages.players import NOT_KEPT, Player, players
from lengua.pages.rendering import render
from lengua.pages.verdicts import headline, opponent, verdicts
from lengua.report import table, with_interval
from lengua.scoring import percent
from lengua.store import Split, Store

UNKNOWN = "unknown"  # the group of those who told nothing, as evaluation.groups calls it
COLUMNS_OF_WORDS = 3
"""Columns of the table that hold words; the others hold figures."""
TITLES = {"substitutions": "Words", "deletions": "Left out", "insertions": "Made up", "letters": "Letters in words"}
OPEN = 12
"""Groups of one kind, sets and verdicts that are shown at once; more are folded, not left out."""


def write_page(
    path: Path,
    results: dict[str, Any],
    records: Sequence[dict],
    store: Store | None = None,
    *,
    groups: Sequence | None = None,
    findings: Sequence | None = None,
    confusions: Any = None,
    notes: Sequence[str] | None = None,
    about: str = "",
) -> Path:
    """Write the page of one evaluation and return its path.

    Args:
        results: what results.json holds; of its keys only "rows" must be there. Groups, findings, confusions and
            notes that are not given are looked for there, under these names.
        records: what hypotheses.jsonl holds.
        store: the store that was measured on, for its sound; without it there are no players.
        groups: dicts or dataclasses with key, group, clips, speakers, words, wer, wer_low, wer_high, small; and, where
            they are held against all other clips, difference_low and difference_high.
        findings: dicts or dataclasses with what, cause, cure; if there are, severity, check, and `about`: of what row.
        confusions: a dict or dataclass of sequences (substitutions, deletions, ...) of ones with said, heard, count.
        notes: sentences that one must know to read the figures, about leaks for instance.
        about: what groups and confusions are of: "fine-tuned, adaptive, on test".
    """
    given = {"groups": groups, "findings": findings, "confusions": confusions, "notes": notes}
    told = {name: results.get(name) if value is None else value for name, value in given.items()}
    rows, records = results["rows"], list(records)
    other = opponent(rows, results.get("against"))
    judged = verdicts(rows, records, results.get("against"))
    worst = worst_clips(rows, records, other)
    found = players(_split(store, results), [clip["id"] for clip in worst])
    facts = {
        "title": headline(rows, judged),
        "about": about,
        "verdicts": judged,
        "notes": list(told["notes"] or []),
        "table": table(rows),
        "words": COLUMNS_OF_WORDS,
        "sets": bars(rows, other),
        "findings": by_sign(told["findings"] or []),
        "groups": groups_of(told["groups"] or []),
        "untold": untold([plain(group) for group in told["groups"] or []]),
        "open": OPEN,
        "confusions": confused(told["confusions"] or {}),
        "worst": [{**clip, "player": found.get(clip["id"], Player(None, NOT_KEPT))} for clip in worst],
        "heard": store is not None,
        "examples": shown_examples(records, other),
        "facts": measured(results, rows),
        "language": results.get("language") or (store.language if store else ""),
    }
    return render(path, "report.html", facts)


def plain(thing: Any) -> dict:
    """Return a dataclass as a dict, and a dict as it is."""
    return asdict(thing) if is_dataclass(thing) and not isinstance(thing, type) else dict(thing)


def bars(rows: list[dict], other: str | None = BASE) -> dict[str, list[dict]]:
    """Return by set the bars of its rows: name, drawing and value, all sets to one scale."""
    most, sets = drawing.longest(rows), {}
    for row in ordered(rows):
        name = f"{row['model']}, {row['window']}"
        sets.setdefault(row["set"], []).append(_bar(row, name, most, drawing.look_of(row, other)))
    return sets


def groups_of(groups: Sequence) -> dict[str, list[dict]]:
    """Return by kind (accent, age, ...) the bars of its groups, each with its size; all kinds to one scale.

    Kinds that are not told of anybody are not among them; see `untold`.
    """
    groups = [plain(group) for group in groups]
    most, kinds, unknown = drawing.longest(groups), {}, untold(groups)
    for group in groups:
        if group["key"] in unknown:
            continue
        name = str(group["group"])
        sizes = [_counted(group[key], key) for key in ("clips", "speakers", "words") if group.get(key) is not None]
        drawn = _bar(group, name, most, "small" if group.get("small") else "adaptive")
        told = {"size": ", ".join(sizes), "small": bool(group.get("small")), "differs": _differs(group)}
        kinds.setdefault(str(group["key"]), []).append({**drawn, **told})
    return kinds


def by_sign(findings: Sequence) -> list[dict]:
    """Gather findings of one sign, as there are when it may have several causes; their order is kept."""
    signs: dict[tuple, list[dict]] = {}
    for finding in map(plain, findings):
        sign = (finding["what"], finding.get("severity") or "", finding.get("about") or "")
        signs.setdefault(sign, []).append(finding)
    return [
        {"what": what, "severity": severity, "about": about, "causes": causes}
        for (what, severity, about), causes in signs.items()
    ]


def untold(groups: list[dict]) -> list[str]:
    """Return the kinds of groups of which nothing is known: their one group is everybody."""
    names: dict[str, list[str]] = {}
    for group in groups:
        names.setdefault(str(group["key"]), []).append(group["group"])
    return [key for key, told in names.items() if told == [UNKNOWN]]


def confused(confusions: Any) -> dict[str, list[dict]]:
    """Return confusions by the title of their table, without the tables that are empty."""
    kinds = plain(confusions)
    titles = {name: TITLES.get(name, name) for name, some in kinds.items() if isinstance(some, list | tuple) and some}
    return {title: [plain(one) for one in kinds[name]] for name, title in titles.items()}


def measured(results: dict, rows: list[dict]) -> dict[str, str]:
    """Return how it was measured: names and what to say of each; what is not known is left out."""
    sets = {row["set"]: row for row in rows}.values()
    sizes = [f"{row['set']}: {row.get('utterances', 0):,} clips, {row.get('words', 0):,} words" for row in sets]
    revision = f" at {results['source_revision']}" if results.get("source_revision") else ""
    told = {
        "model": results.get("model"),
        "against": results.get("against"),
        "data": f"{results['source']}{revision}" if results.get("source") else None,
        "split": results.get("split"),
        "size": "; ".join(sizes),
        "decoding": _distinct(rows, "decoding"),
        "normaliser": _distinct(rows, "normaliser"),
        "intervals": _distinct(rows, "interval"),
        "hardware": results.get("hardware"),
        "date": results.get("date"),
        "commit": results.get("commit"),
        "whose the recordings are": results.get("attribution"),
        "complete": "no: it was interrupted, and rows are missing" if results.get("complete") is False else None,
    }
    return {name: str(value) for name, value in told.items() if value}


def _bar(row: dict, name: str, most: float, look: str) -> dict:
    value = with_interval(row)
    drawn = drawing.bar(row["wer"], row.get("wer_low"), row.get("wer_high"), most, look, f"{name}: {value}")
    return {"name": name, "drawing": drawn, "value": value, "rate": percent(row["wer"])}


def _counted(count: int, names: str) -> str:
    return f"{count:,} {names if count != 1 else names[:-1]}"


def _differs(group: dict) -> str:
    """Say whether a group is better or worse than all other clips by more than noise."""
    low, high = group.get("difference_low"), group.get("difference_high")
    if low is None or high is None or low <= 0 <= high:
        return ""
    return "worse than the rest" if low > 0 else "better than the rest"


def _split(store: Store | None, results: dict) -> Split | None:
    """Return the split that was measured on; None without a store, or where it has no such split any more."""
    try:
        return store.split(results.get("split", "test")) if store else None
    except RequestError:
        return None


def _distinct(rows: list[dict], key: str) -> str:
    return "; ".join(dict.fromkeys(str(row[key]) for row in rows if row.get(key)))
