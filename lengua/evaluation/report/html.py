"""HTML reports: report.html of one evaluation, the page of `lengua compare`, and the summary for a terminal.

    write_page(Path("evaluation/report.html"), results, records, store)
    word_diff("Clave incorrecta.", "clave correcta y")
        -> clave (equal), correcta (substituted, reference: incorrecta.), y (inserted)

What counts as an error is what `lengua.scoring` counts: words are aligned as `normalise` leaves them, and shown with
their capitals and punctuation. A section whose data are missing is left out. Equal inputs give equal bytes.
"""

from base64 import b64encode
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lengua.data.store import Split, Store
from lengua.evaluation.report import rendering
from lengua.evaluation.report.figures import BASE, order_rows
from lengua.evaluation.report.rendering import NOT_KEPT, Player, make_players, render
from lengua.evaluation.report.significance import choose_opponent, headline, judge_rows
from lengua.evaluation.report.tables import DASH, Table, by_clip, examples, results_table, with_interval
from lengua.evaluation.subgroups import UNKNOWN_GROUP
from lengua.runtime.errors import RequestError
from lengua.scoring import counted
from lengua.scoring.normalizer import normalise
from lengua.scoring.wer import aligned_words, word_pairs

EQUAL, SUBSTITUTED, DELETED, INSERTED = "equal", "substituted", "deleted", "inserted"
MAX_WORDS_SHOWN = 80
"""Words of one hypothesis that a page shows; a loop has hundreds."""


class AlignedWord(NamedTuple):
    """One word of a hypothesis, or one that it lacks; `reference` is the reference's word in its place."""

    text: str
    kind: str
    reference: str = ""


class TokenisedText(NamedTuple):
    """A text as it is written and as it is compared: `owners[i]` is the token that the i-th word comes from."""

    tokens: list[str]
    words: list[str]
    owners: list[int]


def word_diff(reference: str, hypothesis: str) -> list[AlignedWord]:
    """Return the words of the hypothesis in order, and among them, where they are missing, those of the reference."""
    ref, hyp = _tokenise(reference), _tokenise(hypothesis)
    shown, lacking, done = [], set(), -1
    [chunks] = aligned_words([" ".join(ref.words)], [" ".join(hyp.words)], str).alignments
    for _, ref_index, hyp_index in word_pairs(chunks):
        if hyp_index is None:
            token = ref.owners[ref_index]
            shown += [] if token in lacking else [AlignedWord(ref.tokens[token], DELETED)]
            lacking.add(token)
            continue
        token, word = hyp.owners[hyp_index], _aligned_word(ref, hyp, ref_index, hyp_index)
        # a dash, or other words without sound
        shown += [AlignedWord(text, EQUAL) for text in hyp.tokens[done + 1 : token]]
        if token > done:
            shown.append(word)
        elif word.kind != shown[-1].kind:
            shown[-1] = AlignedWord(word.text, SUBSTITUTED, shown[-1].reference or word.reference)
        done = token
    return shown + [AlignedWord(text, EQUAL) for text in hyp.tokens[done + 1 :]]


def _aligned_word(ref: TokenisedText, hyp: TokenisedText, ref_index: int | None, hyp_index: int) -> AlignedWord:
    text = hyp.tokens[hyp.owners[hyp_index]]
    if ref_index is None:
        return AlignedWord(text, INSERTED)
    if ref.words[ref_index] == hyp.words[hyp_index]:
        return AlignedWord(text, EQUAL)
    return AlignedWord(text, SUBSTITUTED, ref.tokens[ref.owners[ref_index]])


def _tokenise(text: str) -> TokenisedText:
    """Split a text into tokens and say which words each makes; words themselves where a bracket spans tokens."""
    tokens, words = text.split(), normalise(text).split()
    by_token = [normalise(token).split() for token in tokens]
    if [word for of_token in by_token for word in of_token] != words:
        return TokenisedText(words, words, list(range(len(words))))
    return TokenisedText(tokens, words, [place for place, of_token in enumerate(by_token) for _ in of_token])


MAX_WORST_CLIPS, MAX_EXAMPLES = 20, 10


def worst_clips(
    results: dict, records: list[dict], split: Split | None = None, count: int = MAX_WORST_CLIPS
) -> list[dict]:
    """Return the clips with most errors of the model measured, with the words of both; ties by rate, then by id.

    The model is the first that is not the opponent, in the adaptive window if it was measured in that; the opponent's
    words are those of the padded one, which is all that an untouched model knows.

    Args:
        split: the clips that were measured, for their players.
    """
    other = choose_opponent(results["rows"], results.get("against"))
    model = next((record["model"] for record in records if record["model"] != other), None)
    after = by_clip([record for record in records if record["model"] == model], "adaptive")
    before = by_clip([record for record in records if record["model"] == other], "padded")
    wrong = [clip for clip, record in after.items() if record["counts"]["errors"]]
    wrong.sort(key=lambda clip: (-after[clip]["counts"]["errors"], after[clip]["counts"]["words"], clip[1]))
    players = make_players(split, [id for _, id in wrong[:count]])
    return [
        _clip(after[clip], before.get(clip)) | {"player": players.get(clip[1], Player(None, NOT_KEPT))}
        for clip in wrong[:count]
    ]


def _clip(record: dict, before: dict | None) -> dict:
    hypotheses = {f"{one['model']}, {one['window']}": one["hypothesis"] for one in (before, record) if one}
    return {
        "id": record["id"],
        "speaker": record.get("speaker"),
        "seconds": record.get("duration_s"),
        "flags": [flag.replace("_", " ") for flag in record.get("flags", [])],
        "errors": record["counts"]["errors"],
        "of": record["counts"]["words"],
        **marked_clip(record["reference"], hypotheses),
    }


def shown_examples(records: list[dict], other: str | None, count: int = MAX_EXAMPLES) -> list[dict]:
    """Return clips before and after, fairly drawn (see `tables.examples`), for the template."""
    renamed = [{**one, "model": BASE} if one["model"] == other else one for one in records]
    return [
        {"id": one.id, **marked_clip(one.reference, {"before": one.before, "after": one.after})}
        for one in examples(renamed, count)
    ]


def marked_clip(reference: str, hypotheses: dict[str, str]) -> dict:
    """Return a reference and the marked words of hypotheses by name, and how many more there are than a page shows."""
    marked = []
    for name, text in hypotheses.items():
        words = word_diff(reference, text)
        wrong, more = sum(word.kind != EQUAL for word in words), max(0, len(words) - MAX_WORDS_SHOWN)
        marked.append({"name": name, "words": words[:MAX_WORDS_SHOWN], "more": more, "wrong": wrong})
    return {"reference": reference, "hypotheses": marked}


CONFUSION_TITLES = {
    "substitutions": "Words",
    "deletions": "Left out",
    "insertions": "Made up",
    "letters": "Letters in words",
}
MAX_UNFOLDED_GROUPS = 12
"""Groups of one kind, sets and verdicts that are shown at once; more are folded, not left out."""


def write_page(path: Path, results: dict[str, Any], records: Sequence[dict], store: Store | None = None) -> Path:
    """Write the page of one evaluation and return its path.

    Args:
        results: what results.json holds; of its keys only "rows" must be there.
        records: what hypotheses.jsonl holds.
        store: the store that was measured on, for its sound; without it there are no players.
    """
    rows, records = results["rows"], list(records)
    other = choose_opponent(rows, results.get("against"))
    judged = judge_rows(rows, records, results.get("against"))
    groups = results.get("groups") or []
    facts = {
        "title": headline(rows, judged),
        "about": results.get("about") or "",
        "verdicts": judged,
        "notes": results.get("notes") or [],
        "table": results_table(rows),
        "sets": wer_bars(rows, other),
        "findings": findings_by_sign(results.get("findings") or []),
        "groups": group_bars(groups),
        "unknown_kinds": unknown_keys(groups),
        "open": MAX_UNFOLDED_GROUPS,
        "confusions": confusion_tables(results.get("confusions") or {}),
        "worst": worst_clips(results, records, _split(store, results)),
        "has_store": store is not None,
        "examples": shown_examples(records, other),
        "facts": measurement_facts(results, rows),
        "language": results.get("language") or (store.language if store else ""),
    }
    return render(path, "report.html", facts)


def wer_bars(rows: list[dict], other: str | None = BASE) -> dict[str, list[dict]]:
    """Return by set the bars of its rows: name, drawing and value, all sets to one scale."""
    most, sets = rendering.bar_scale(rows), defaultdict(list)
    for row in order_rows(rows):
        name = f"{row['model']}, {row['window']}"
        sets[row["set"]].append(_bar(row, name, most, rendering.bar_look(row, other)))
    return dict(sets)


def group_bars(groups: Sequence[dict]) -> dict[str, list[dict]]:
    """Return by kind (accent, age, ...) the bars of its groups, each with its size; all kinds to one scale.

    Kinds that are known of nobody are not among them; see `unknown_keys`.
    """
    most, kinds, unknown = rendering.bar_scale(groups), defaultdict(list), unknown_keys(groups)
    for group in groups:
        if group["key"] not in unknown:
            sizes = [counted(group[f"{noun}s"], noun) for noun in ("clip", "speaker", "word") if f"{noun}s" in group]
            drawn = _bar(group, str(group["group"]), most, "small" if group.get("small") else "adaptive")
            more = {"size": ", ".join(sizes), "small": bool(group.get("small")), "differs": differs_from_rest(group)}
            kinds[str(group["key"])].append(drawn | more)
    return dict(kinds)


def findings_by_sign(findings: Sequence[dict]) -> list[dict]:
    """Gather findings of one sign, as there are when it may have several causes; their order is kept."""
    signs = defaultdict(list)
    for finding in findings:
        signs[finding["what"], finding.get("severity") or ""].append(finding)
    return [{"what": what, "severity": severity, "causes": causes} for (what, severity), causes in signs.items()]


def unknown_keys(groups: Sequence[dict]) -> list[str]:
    """Return the kinds of groups of which nothing is known: their one group is everybody."""
    names = defaultdict(list)
    for group in groups:
        names[str(group["key"])].append(group["group"])
    return [key for key, some in names.items() if some == [UNKNOWN_GROUP]]


def confusion_tables(confusions: dict[str, list[dict]]) -> list[Table]:
    """Return a table for each kind of confusion that occurs."""
    return [
        Table(
            ("said", "heard", "times"),
            [(one["said"] or DASH, one["heard"] or DASH, one["count"]) for one in some],
            "ll",
            CONFUSION_TITLES.get(kind, kind),
        )
        for kind, some in confusions.items()
        if some
    ]


def measurement_facts(results: dict, rows: list[dict]) -> dict[str, str]:
    """Return how it was measured: names and what to say of each; what is not known is left out."""
    sets = {row["set"]: row for row in rows}.values()
    sizes = [f"{row['set']}: {row.get('utterances', 0):,} clips, {row.get('words', 0):,} words" for row in sets]
    revision = f" at {results['source_revision']}" if results.get("source_revision") else ""
    facts = {
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
    return {name: str(value) for name, value in facts.items() if value}


def _bar(row: dict, name: str, most: float, look: str) -> dict:
    value = with_interval(row)
    drawn = rendering.bar_svg(row["wer"], row.get("wer_low"), row.get("wer_high"), most, look, f"{name}: {value}")
    return {"name": name, "drawing": drawn, "value": value}


def differs_from_rest(group: dict) -> str:
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
    path: Path, table: Table, runs: Sequence[Any], figure: Path | None, notes: Sequence[str] = ()
) -> Path:
    """Write the page of several runs and return its path.

    Args:
        table: of `lengua.training.compare.runs_table`.
        runs: a `lengua.training.compare.RunSummary` for each.
        figure: the PNG of their curves, which the page embeds.
        notes: what one must know to read the table.
    """
    rows = [vars(run) for run in runs if run.wer is not None]
    most = rendering.bar_scale(rows)
    curves = f"data:image/png;base64,{b64encode(figure.read_bytes()).decode('ascii')}" if figure else ""
    title, close = best_run(runs)
    facts = {
        "title": title,
        "table": table,
        "bars_of_runs": [_bar(row, row["run"], most, "adaptive") for row in rows],
        "curves": curves,
        "notes": [*close, *notes],
        "language": "",
    }
    return render(path, "compare.html", facts)


def best_run(runs: Sequence[Any]) -> tuple[str, list[str]]:
    """Return which run has the lowest WER on dev, and a sentence if others lie within its interval."""
    best, *others = sorted((run for run in runs if run.wer is not None), key=lambda run: run.wer) or [None]
    if best is None:
        return "No run was evaluated on dev", []
    close = [run.run for run in others if best.wer_high is not None and run.wer <= best.wer_high]
    lie = f"{', '.join(close)} {'lies' if len(close) == 1 else 'lie'} within the interval of {best.run}"
    return f"Lowest on dev: {best.run}, {with_interval(vars(best))}", [f"{lie}: the order may be chance"] * bool(close)


MAX_WORST_GROUPS = 3
"""Groups of one kind that a terminal shows; the page has them all."""


def summary_lines(results: dict, records: Sequence[dict]) -> list[str]:
    """Return lines of text: headline, a sentence a verdict, findings with cause and cure, leaks, the worst groups."""
    judged = judge_rows(results["rows"], list(records), results.get("against"))
    lines = [headline(results["rows"], judged), *(f"  {verdict.sentence}" for verdict in judged)]
    for sign in findings_by_sign(results.get("findings") or []):
        lines.append(sign["what"])
        for place, one in enumerate(sign["causes"]):
            lines += [f"  {'or else' if place else 'cause'}: {one['cause']}", f"  cure: {one['cure']}"]
    return [*lines, *(results.get("notes") or []), *_group_lines(results.get("groups") or [])]


def _group_lines(groups: list[dict]) -> list[str]:
    lines, unknown = [], unknown_keys(groups)
    for kind in dict.fromkeys(group["key"] for group in groups if group["key"] not in unknown):
        some = [group for group in groups if group["key"] == kind]
        worst = sorted((group for group in some if not group.get("small")), key=lambda group: -group["wer"])
        small = len(some) - len(worst)
        shown = [f"{group['group']} {with_interval(group)}" for group in worst[:MAX_WORST_GROUPS]]
        shown += [f"{small} too small to tell"] if small else []
        lines.append(f"by {kind}: {', '.join(shown)}")
    return lines + ([f"not told of any clip: {', '.join(unknown)}"] if unknown else [])
