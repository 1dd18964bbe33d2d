"""HTML reports: report.html of one evaluation, the page of `lengua compare`, and the summary for a terminal.

    write_page(Path("evaluation/report.html"), results, records, store)
    word_diff("Clave incorrecta.", "clave correcta y")
        -> clave (equal), correcta (substituted, said: incorrecta.), y (inserted)

What counts as an error is what `lengua.scoring` counts: words are aligned as `normalise` leaves them, and shown with
their capitals and punctuation. A section whose data are missing is left out. Equal inputs give equal bytes.
"""

from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jiwer

from lengua.data.store import Split, Store
from lengua.evaluation.report import rendering
from lengua.evaluation.report.curves import CurveRow, loss_row, wer_row
from lengua.evaluation.report.figures import BASE, order_rows
from lengua.evaluation.report.rendering import NOT_KEPT, Player, make_players, render
from lengua.evaluation.report.significance import choose_opponent, headline, judge_rows
from lengua.evaluation.report.tables import BeforeAfter, examples, results_table, with_interval
from lengua.evaluation.subgroups import UNKNOWN_GROUP
from lengua.runtime.errors import RequestError
from lengua.scoring import percent
from lengua.scoring.normalizer import normalise

EQUAL, SUBSTITUTED, DELETED, INSERTED = "equal", "substituted", "deleted", "inserted"
MAX_WORDS_SHOWN = 80
"""Words of one hypothesis that a page shows; a loop has hundreds."""


class AlignedWord(NamedTuple):
    """One word of a hypothesis, or one that it lacks; `said` is what stands in its place in the reference."""

    text: str
    kind: str
    said: str = ""


class TokenisedText(NamedTuple):
    """A text as it is written and as it is compared: `owners[i]` is the token that the i-th word comes from."""

    tokens: list[str]
    words: list[str]
    owners: list[int]


def word_diff(reference: str, hypothesis: str) -> list[AlignedWord]:
    """Return the words of the hypothesis in order, and among them, where they are missing, those of the reference."""
    truth, heard = _tokenise(reference), _tokenise(hypothesis)
    shown, lacking, done = [], set(), -1
    for said, written in _pairs(truth.words, heard.words):
        if written is None:
            token = truth.owners[said]
            shown += [] if token in lacking else [AlignedWord(truth.tokens[token], DELETED)]
            lacking.add(token)
            continue
        token, word = heard.owners[written], _aligned_word(truth, heard, said, written)
        shown += [
            AlignedWord(text, EQUAL) for text in heard.tokens[done + 1 : token]
        ]  # a dash, or other words without sound
        if token > done:
            shown.append(word)
        elif word.kind != shown[-1].kind:
            shown[-1] = AlignedWord(word.text, SUBSTITUTED, shown[-1].said or word.said)
        done = token
    return shown + [AlignedWord(text, EQUAL) for text in heard.tokens[done + 1 :]]


def _aligned_word(truth: TokenisedText, heard: TokenisedText, said: int | None, written: int) -> AlignedWord:
    text = heard.tokens[heard.owners[written]]
    if said is None:
        return AlignedWord(text, INSERTED)
    if truth.words[said] == heard.words[written]:
        return AlignedWord(text, EQUAL)
    return AlignedWord(text, SUBSTITUTED, truth.tokens[truth.owners[said]])


def _pairs(truth: list[str], heard: list[str]) -> list[tuple[int | None, int | None]]:
    """Return pairs of places in both lists; None where one has nothing for the other's word."""
    if not truth or not heard:
        return [(place, None) for place in range(len(truth))] + [(None, place) for place in range(len(heard))]
    pairs = []
    for chunk in jiwer.process_words(" ".join(truth), " ".join(heard)).alignments[0]:
        said = range(chunk.ref_start_idx, chunk.ref_end_idx)
        written = range(chunk.hyp_start_idx, chunk.hyp_end_idx)
        pairs += zip(said or [None] * len(written), written or [None] * len(said), strict=True)
    return pairs


def _tokenise(text: str) -> TokenisedText:
    """Split a text into tokens and say which words each makes; words themselves where a bracket spans tokens."""
    tokens, words = text.split(), normalise(text).split()
    by_token = [normalise(token).split() for token in tokens]
    if [word for of_token in by_token for word in of_token] != words:
        return TokenisedText(words, words, list(range(len(words))))
    return TokenisedText(tokens, words, [place for place, of_token in enumerate(by_token) for _ in of_token])


MAX_WORST_CLIPS, MAX_EXAMPLES = 20, 10


def worst_clips(rows: list[dict], records: list[dict], other: str | None, count: int = MAX_WORST_CLIPS) -> list[dict]:
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


def shown_examples(records: list[dict], other: str | None, count: int = MAX_EXAMPLES) -> list[dict]:
    """Return clips before and after, fairly drawn (see `tables.examples`), for the template."""
    return [_example(one) for one in examples(_with_base(records, other), count)]


def marked_words(reference: str, hypothesis: str) -> dict:
    """Return the words of a hypothesis for the template, and how many more there are than a page shows."""
    words = word_diff(reference, hypothesis)
    wrong = sum(word.kind != EQUAL for word in words)
    return {"words": words[:MAX_WORDS_SHOWN], "more": max(0, len(words) - MAX_WORDS_SHOWN), "wrong": wrong}


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
        "heard": [{"name": name, **marked_words(one["reference"], one["hypothesis"])} for name, one in heard],
    }


def _example(one: BeforeAfter) -> dict:
    heard = [("before", one.before), ("after", one.after)]
    lines = [{"name": name, **marked_words(one.reference, text)} for name, text in heard]
    return {"id": one.id, "reference": one.reference, "heard": lines}


def _with_base(records: list[dict], other: str | None) -> list[dict]:
    """Return the records with the opponent called the base, which is what examples are picked against."""
    if other in (BASE, None):
        return records
    return [{**record, "model": BASE} if record["model"] == other else record for record in records]


TEXT_COLUMNS_OF_RESULTS = 3
"""Columns of the table that hold words; the others hold figures."""
CONFUSION_TITLES = {
    "substitutions": "Words",
    "deletions": "Left out",
    "insertions": "Made up",
    "letters": "Letters in words",
}
MAX_UNFOLDED_GROUPS = 12
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
    other = choose_opponent(rows, results.get("against"))
    judged = judge_rows(rows, records, results.get("against"))
    worst = worst_clips(rows, records, other)
    found = make_players(_split(store, results), [clip["id"] for clip in worst])
    facts = {
        "title": headline(rows, judged),
        "about": about,
        "verdicts": judged,
        "notes": list(told["notes"] or []),
        "table": results_table(rows),
        "words": TEXT_COLUMNS_OF_RESULTS,
        "sets": wer_bars(rows, other),
        "findings": findings_by_sign(told["findings"] or []),
        "groups": group_bars(told["groups"] or []),
        "untold": unknown_keys([as_plain_dict(group) for group in told["groups"] or []]),
        "open": MAX_UNFOLDED_GROUPS,
        "confusions": confusions_by_title(told["confusions"] or {}),
        "worst": [{**clip, "player": found.get(clip["id"], Player(None, NOT_KEPT))} for clip in worst],
        "heard": store is not None,
        "examples": shown_examples(records, other),
        "facts": measurement_facts(results, rows),
        "language": results.get("language") or (store.language if store else ""),
    }
    return render(path, "report.html", facts)


def as_plain_dict(thing: Any) -> dict:
    """Return a dataclass as a dict, and a dict as it is."""
    return asdict(thing) if is_dataclass(thing) and not isinstance(thing, type) else dict(thing)


def wer_bars(rows: list[dict], other: str | None = BASE) -> dict[str, list[dict]]:
    """Return by set the bars of its rows: name, drawing and value, all sets to one scale."""
    most, sets = rendering.bar_scale(rows), {}
    for row in order_rows(rows):
        name = f"{row['model']}, {row['window']}"
        sets.setdefault(row["set"], []).append(_bar(row, name, most, rendering.bar_look(row, other)))
    return sets


def group_bars(groups: Sequence) -> dict[str, list[dict]]:
    """Return by kind (accent, age, ...) the bars of its groups, each with its size; all kinds to one scale.

    Kinds that are not told of anybody are not among them; see `untold`.
    """
    groups = [as_plain_dict(group) for group in groups]
    most, kinds, unknown = rendering.bar_scale(groups), {}, unknown_keys(groups)
    for group in groups:
        if group["key"] in unknown:
            continue
        name = str(group["group"])
        sizes = [_counted(group[key], key) for key in ("clips", "speakers", "words") if group.get(key) is not None]
        drawn = _bar(group, name, most, "small" if group.get("small") else "adaptive")
        told = {"size": ", ".join(sizes), "small": bool(group.get("small")), "differs": _differs(group)}
        kinds.setdefault(str(group["key"]), []).append({**drawn, **told})
    return kinds


def findings_by_sign(findings: Sequence) -> list[dict]:
    """Gather findings of one sign, as there are when it may have several causes; their order is kept."""
    signs: dict[tuple, list[dict]] = {}
    for finding in map(as_plain_dict, findings):
        sign = (finding["what"], finding.get("severity") or "", finding.get("about") or "")
        signs.setdefault(sign, []).append(finding)
    return [
        {"what": what, "severity": severity, "about": about, "causes": causes}
        for (what, severity, about), causes in signs.items()
    ]


def unknown_keys(groups: list[dict]) -> list[str]:
    """Return the kinds of groups of which nothing is known: their one group is everybody."""
    names: dict[str, list[str]] = {}
    for group in groups:
        names.setdefault(str(group["key"]), []).append(group["group"])
    return [key for key, told in names.items() if told == [UNKNOWN_GROUP]]


def confusions_by_title(confusions: Any) -> dict[str, list[dict]]:
    """Return confusions by the title of their table, without the tables that are empty."""
    kinds = as_plain_dict(confusions)
    titles = {
        name: CONFUSION_TITLES.get(name, name)
        for name, some in kinds.items()
        if isinstance(some, list | tuple) and some
    }
    return {title: [as_plain_dict(one) for one in kinds[name]] for name, title in titles.items()}


def measurement_facts(results: dict, rows: list[dict]) -> dict[str, str]:
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
    drawn = rendering.bar_svg(row["wer"], row.get("wer_low"), row.get("wer_high"), most, look, f"{name}: {value}")
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


def write_comparison(
    path: Path,
    table: list[list[str]],
    runs: Sequence[Any],
    histories: dict[str, list[dict]],
    notes: Sequence[str] = (),
) -> Path:
    """Write the page of several runs and return its path.

    Args:
        table: header and lines, as `lengua.training.compare.runs_table` returns them.
        runs: a `lengua.training.compare.RunSummary` for each.
        histories: records of history.jsonl by the name of the run.
        notes: what one must know to read the table.
    """
    panels = [panel for panel in (wer_row(histories), loss_row(histories)) if panel]
    facts = {
        "title": best_run_sentence(runs),
        "table": table,
        "bars_of_runs": run_bars(runs),
        "curves": [_panel(panel, list(histories)) for panel in panels],
        "notes": [*near_best_sentence(runs), *notes],
        "language": "",
    }
    return render(path, "compare.html", facts)


def best_run_sentence(runs: Sequence[Any]) -> str:
    """Return one sentence: which run has the lowest WER on dev."""
    known = _by_wer(runs)
    return f"Lowest on dev: {known[0].run}, {with_interval(vars(known[0]))}" if known else "No run was evaluated on dev"


def near_best_sentence(runs: Sequence[Any]) -> list[str]:
    """Return a sentence if other runs lie within the interval of the best: then their order may be chance."""
    known = _by_wer(runs)
    if not known or known[0].wer_high is None:
        return []
    close = [run.run for run in known[1:] if run.wer <= known[0].wer_high]
    lie = "lies" if len(close) == 1 else "lie"
    return [f"{', '.join(close)} {lie} within the interval of {known[0].run}: the order may be chance"] if close else []


def _by_wer(runs: Sequence[Any]) -> list:
    return sorted((run for run in runs if run.wer is not None), key=lambda run: run.wer)


def run_bars(runs: Sequence[Any]) -> list[dict]:
    """Return a bar for each run that has a WER: name, drawing and value."""
    rows = [vars(run) for run in runs if run.wer is not None]
    most = rendering.bar_scale(rows)
    return [
        {
            "name": row["run"],
            "value": (value := with_interval(row)),
            "drawing": rendering.bar_svg(
                row["wer"], row["wer_low"], row["wer_high"], most, "adaptive", f"{row['run']}: {value}"
            ),
        }
        for row in rows
    ]


def _panel(panel: CurveRow, names: list[str]) -> dict:
    """Return a chart and the labels around it; a run has one colour in all panels."""
    looks = dict(zip(names, rendering.line_styles(len(names)), strict=True))
    lines = [panel.curves.get(name, []) for name in names]
    last = max((point.step for line in lines for point in line), default=0)
    return {
        "title": panel.title,
        "drawing": rendering.curves_svg(
            lines, panel.top, panel.marked, f"{panel.title} over optimiser steps, to {last:,}"
        ),
        "cut": any(point.value > panel.top for line in lines for point in line),
        "ticks": [f"{panel.top * part:.3g}" for part in (1, 0.75, 0.5, 0.25, 0)],
        "last": last,
        "legend": [
            {"name": panel.labels.get(name, name), "key": rendering.legend_line_svg(*looks[name])}
            for name, line in zip(names, lines, strict=True)
            if line
        ],
    }


MAX_WORST_GROUPS = 3
"""Groups of one kind that a terminal shows; the page has them all."""


def summary_lines(
    results: dict, records: Sequence[dict], findings: Sequence | None = None, groups: Sequence | None = None
) -> list[str]:
    """Return lines of text: headline, a sentence a verdict, findings with cause and cure, leaks, the worst groups."""
    findings = results.get("findings") if findings is None else findings
    groups = results.get("groups") if groups is None else groups
    judged = judge_rows(results["rows"], list(records), results.get("against"))
    lines = [headline(results["rows"], judged), *(f"  {verdict.sentence}" for verdict in judged)]
    for sign in findings_by_sign(findings or []):
        lines.append(sign["what"])
        for place, one in enumerate(sign["causes"]):
            lines += [f"  {'or else' if place else 'cause'}: {one['cause']}", f"  cure: {one['cure']}"]
    return lines + list(results.get("notes") or []) + _group_lines([as_plain_dict(group) for group in groups or []])


def _group_lines(groups: list[dict]) -> list[str]:
    lines, unknown = [], unknown_keys(groups)
    for kind in dict.fromkeys(group["key"] for group in groups if group["key"] not in unknown):
        told = [group for group in groups if group["key"] == kind]
        worst = sorted((group for group in told if not group.get("small")), key=lambda group: -group["wer"])
        small = len(told) - len(worst)
        shown = [f"{group['group']} {with_interval(group)}" for group in worst[:MAX_WORST_GROUPS]]
        shown += [f"{small} too small to tell"] if small else []
        lines.append(f"by {kind}: {', '.join(shown)}")
    return lines + ([f"not told of any clip: {', '.join(unknown)}"] if unknown else [])
