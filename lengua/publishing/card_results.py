"""The tables and sentences of a model card, from results.json, hypotheses.jsonl and the comparison of programs."""

from collections import defaultdict
from collections.abc import Sequence

from lengua.data.sources import is_source
from lengua.evaluation.report import tables
from lengua.evaluation.report.figures import order_rows
from lengua.evaluation.report.html import MAX_UNFOLDED_GROUPS
from lengua.evaluation.report.markdown import TrustedMarkdown, code_span
from lengua.evaluation.report.significance import choose_opponent, judge_rows
from lengua.evaluation.report.tables import DASH, Table
from lengua.evaluation.subgroups import UNKNOWN_GROUP, group_values
from lengua.publishing import joined, parity
from lengua.publishing.hub_metadata import published_label
from lengua.scoring import error_rate, percent

CARD_GROUP_KEYS = ("accent", "age", "gender", "variant", "sentence_domain", "duration")
"""Groups that are shown. Nobody who spoke is named."""
CARD_GROUP_TITLES = {"sentence_domain": "domain of the sentence", "duration": "length of the clip"}
MAX_CARD_CONFUSIONS = 5
FLAG_PHRASES = {
    "looped": "went in circles after every try",
    "empty": "got no text",
    "wrong_language": "came out in another language",
    "length_limit": "did not end by themselves",
}


def evaluation_facts(results: dict | None, records: Sequence[dict], probed: dict | None = None) -> dict:
    """Return what the template names; where nothing was measured, nothing.

    Args:
        probed: another results.json of the same model, which tells what it forgot, where the first does not.
    """
    results = results or {"rows": []}
    rows, ours, against = results["rows"], published_label(results), results.get("against")
    own = [row for row in rows if not is_source(row["set"])]
    foreign = [row for row in (probed or results)["rows"] if is_source(row["set"])]
    other = choose_opponent(rows, against)
    probes = (probed or results).get("probes") or {}
    mine = [record for record in records if not is_source(record["set"])]
    groups = _groups(results.get("groups") or [], mine, other)
    findings = results.get("findings") or []
    return {
        "worse": [
            *_worse([*own, *foreign], records, against),
            *_worse_groups(groups),
            *_lost_abilities(probes, other, ours),
            *(f"Broken: {one['what']}." for one in findings if one["severity"] == "broken"),
        ],
        "table": _table(own),
        "how": _how(results, own),
        "notes": [
            *(["The evaluation was interrupted: rows are missing."] if results.get("complete") is False else []),
            *(results.get("notes") or []),
        ],
        "groups": {
            CARD_GROUP_TITLES.get(key, key): _group_table(some, ours, results.get("about") or ours)
            for key, some in groups.items()
        },
        "unknown_kinds": [CARD_GROUP_TITLES.get(key, key) for key in CARD_GROUP_KEYS if key not in groups],
        "findings": [one for one in findings if one["severity"] != "good"],
        "counts": _counts(own, ours),
        "confusions": _confusions(results),
        "others": _table(foreign),
        "kept": _abilities_table(probes),
    }


def _table(rows: list[dict]) -> TrustedMarkdown | None:
    return tables.results_table(rows).to_markdown() if rows else None


def _how(results: dict, rows: list[dict]) -> str:
    """Say on what, how and where it was measured."""
    sets = {row["set"]: row for row in rows}.values()
    clips, hours = (sum(row.get(key) or 0 for row in sets) for key in ("utterances", "hours"))
    parts = [
        f"Set: {results.get('source')}, split {results.get('split')}, {clips:,} clips"
        + (f", {hours:.2f} h" if hours else ""),
        *dict.fromkeys(str(row[key]) for key in ("interval", "normaliser", "decoding") for row in rows if row.get(key)),
        *(f"{name} {results[name]}" for name in ("hardware", "date", "commit") if results.get(name)),
    ]
    return "; ".join(parts) + "."


def _worse(rows: list[dict], records: Sequence[dict], against: str | None) -> list[str]:
    """Return a sentence for every row that is worse than the base, chance or not."""
    judged = {(one.model, one.window, one.set): one for one in judge_rows(rows, list(records), against)}
    other, sentences = choose_opponent(rows, against), []
    for row in order_rows(rows):
        verdict = judged.get((row["model"], row["window"], row["set"]))
        if verdict and verdict.after > verdict.before:
            sentences.append(verdict.sentence)
        elif not verdict and row["model"] != other:
            sentences += tables.worsened([*(one for one in rows if one["model"] == other), row])
    return sentences


def _groups(groups: Sequence[dict], records: Sequence[dict], other: str | None) -> dict[str, list]:
    """Return the groups of every kind that somebody stated, each with the WER of all models and windows."""
    wers, found = _wers_of_groups(records), {}
    for key in CARD_GROUP_KEYS:
        some = [group for group in groups if group["key"] == key]
        if some and [group["group"] for group in some] != [UNKNOWN_GROUP]:
            found[key] = []
            for group in some:
                sides = wers.get((key, group["group"]), {})
                base = sides.get((other, "padded"), sides.get((other, "adaptive")))
                found[key].append(group | {"wers": sides, "base": base})
    return found


def _wers_of_groups(records: Sequence[dict]) -> dict[tuple[str, str], dict[tuple[str, str], float]]:
    """Return {(kind, group): {(model, window): WER}}."""
    sums: dict = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for record in records:
        for key in CARD_GROUP_KEYS:
            for group in group_values(record, key):
                errors_words = sums[key, group][record["model"], record["window"]]
                errors_words[0] += record["counts"]["errors"]
                errors_words[1] += record["counts"]["words"]
    return {group: {side: float(error_rate(*of)) for side, of in sides.items()} for group, sides in sums.items()}


def _group_table(groups: list[dict], ours: str | None, about: str | None) -> TrustedMarkdown:
    lines = [
        [
            *(group[name] for name in ("group", "clips", "speakers", "words")),
            _percent(group["base"]),
            _percent(group["wers"].get((ours, "padded"))),
            tables.with_interval(group),
            group.get("small") or "",
        ]
        for group in groups
    ]
    header = ["group", "clips", "speakers", "words", "base", f"{ours}, padded", f"{about} (95 % interval)", "small"]
    table = Table(header, lines).to_markdown()
    if len(lines) <= MAX_UNFOLDED_GROUPS:
        return table
    return TrustedMarkdown(f"<details><summary>{len(lines)} groups</summary>\n\n{table}\n\n</details>")


def _worse_groups(groups: dict[str, list]) -> list[str]:
    """Return a sentence for every group that is worse off than with the base, if it is not small."""
    return [
        f"Worse for {CARD_GROUP_TITLES.get(key, key)} {group['group']}: "
        f"{percent(group['base'])} → {percent(group['wer'])}."
        for key, some in groups.items()
        for group in some
        if group["base"] is not None and group["wer"] > group["base"] and not group.get("small")
    ]


def _counts(rows: list[dict], ours: str | None) -> list[str]:
    """Say how many clips failed in which way, of the published model."""
    sentences = []
    for row in (row for row in rows if row["model"] == ours):
        if some := [f"{row[key]} {words}" for key, words in FLAG_PHRASES.items() if row.get(key)]:
            sentences.append(f"On {row['set']} ({row['window']}), of {row['utterances']} clips: {', '.join(some)}.")
    return sentences


def _confusions(results: dict) -> TrustedMarkdown | None:
    pairs = ((results.get("confusions") or {}).get("substitutions") or [])[:MAX_CARD_CONFUSIONS]
    some = [f"{code_span(one['said'])} as {code_span(one['heard'])} ({one['count']})" for one in pairs]
    return TrustedMarkdown(", ".join(some)) if some else None


def _abilities(probe: dict) -> dict[str, tuple[int, int]]:
    """Return {ability: (how often it is there, of how many times)} of what a probe found."""
    abilities = {}
    for kind, name in (("language", "hears its language without being told"), ("timestamps", "timestamps in order")):
        if probe.get(kind):
            abilities[name] = probe[kind]["right"], probe[kind]["clips"]
    for kind in ("silence", "noise"):
        if probe.get(kind):
            windows = probe[kind]["windows"]
            abilities[f"keeps silent in {kind}"] = windows - probe[kind]["spoken"], windows
    return abilities


def _of(ability: tuple[int, int]) -> str:
    return "{} of {}".format(*ability)


def _abilities_table(probes: dict) -> TrustedMarkdown | None:
    """Return the table of what else Whisper can do, by model."""
    models = {label: _abilities(probe) for label, probe in probes.items()}
    names = dict.fromkeys(name for abilities in models.values() for name in abilities)
    lines = [[name, *(_of(one[name]) if name in one else DASH for one in models.values())] for name in names]
    return Table(["ability", *models], lines).to_markdown() if lines else None


def _lost_abilities(probes: dict, other: str | None, ours: str | None) -> list[str]:
    """Return a sentence for every ability that the published model has less of than the base."""
    before, after = (_abilities(probes.get(label) or {}) for label in (other, ours))
    return [
        f"Less than the base: {name}, {_of(before[name])} → {_of(after[name])}."
        for name in after
        if name in before and after[name][0] * before[name][1] < before[name][0] * after[name][1]
    ]


def parity_facts(found: dict | None) -> dict:
    """Return what every program made of the same clips, as parity.json has it."""
    if not found:
        return {"parity": None, "clips": 0, "left_out": [], "joined": None, "joined_losses": []}
    table, rows = parity.parity_table(found["rows"]).to_markdown(), found.get("joined")
    return {
        "parity": table,
        "clips": found["clips"],
        "left_out": found["left_out"],
        "joined": rows and joined.joined_table(rows).to_markdown(),
        "joined_seconds": found.get("joined_seconds"),
        "joined_losses": joined.joined_losses(rows or []),
    }


def _percent(fraction: float | None) -> str:
    return DASH if fraction is None else percent(fraction)
