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
from lengua.publishing import parity
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
HARMLESS_SEVERITIES = ("good",)
"""Severities of a finding that is no failure."""


def evaluation_facts(results: dict | None, records: Sequence[dict], probed: dict | None = None) -> dict:
    """Return what the template names; where nothing was measured, nothing.

    Args:
        probed: another results.json of the same model, which tells what it forgot, where the first does not.
    """
    results = results or {"rows": []}
    rows, ours = results["rows"], published_label(results)
    own = [row for row in rows if not is_source(row["set"])]
    foreign = [row for row in (probed or results)["rows"] if is_source(row["set"])]
    other = choose_opponent(rows, results.get("against"))
    probes = (probed or results).get("probes") or {}
    mine = [record for record in records if not is_source(record["set"])]
    groups = _groups(results.get("groups") or [], mine, other, ours)
    return {
        "worse": [
            *_worse([*own, *foreign], records, results.get("against")),
            *_worse_groups(groups),
            *_lost_abilities(probes, other, ours),
            *_failures(results),
        ],
        "table": _table(own),
        "how": _how(results, own),
        "notes": [*_interrupted(results), *(results.get("notes") or [])],
        "groups": {
            CARD_GROUP_TITLES.get(key, key): _group_table(found, ours, results.get("about") or ours)
            for key, found in groups.items()
        },
        "untold": [CARD_GROUP_TITLES.get(key, key) for key in CARD_GROUP_KEYS if key not in groups],
        "findings": [one for one in results.get("findings") or [] if one["severity"] not in HARMLESS_SEVERITIES],
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
    told = [
        f"Set: {results.get('source')}, split {results.get('split')}, {clips:,} clips"
        + (f", {hours:.2f} h" if hours else ""),
        *dict.fromkeys(str(row[key]) for key in ("interval", "normaliser", "decoding") for row in rows if row.get(key)),
        *(f"{name} {results[name]}" for name in ("hardware", "date", "commit") if results.get(name)),
    ]
    return "; ".join(told) + "."


def _interrupted(results: dict) -> list[str]:
    return ["The evaluation was interrupted: rows are missing."] if results.get("complete") is False else []


def _worse(rows: list[dict], records: Sequence[dict], against: str | None) -> list[str]:
    """Return a sentence for every row that is worse than the base, chance or not."""
    judged = {(one.model, one.window, one.set): one for one in judge_rows(rows, list(records), against)}
    other, told = choose_opponent(rows, against), []
    for row in order_rows(rows):
        found = judged.get((row["model"], row["window"], row["set"]))
        if found and found.after > found.before:
            told.append(found.sentence)
        elif not found and row["model"] != other:
            told += tables.worsened([*(one for one in rows if one["model"] == other), row])
    return told


def _failures(results: dict) -> list[str]:
    return [f"Broken: {one['what']}." for one in results.get("findings") or [] if one["severity"] == "broken"]


def _groups(groups: Sequence[dict], records: Sequence[dict], other: str | None, ours: str | None) -> dict[str, list]:
    """Return the groups of every kind that somebody told, each with the WER of all models and windows."""
    wers, found = _wers_of_groups(records), {}
    for key in CARD_GROUP_KEYS:
        some = [dict(group) for group in groups if group["key"] == key]
        if some and [group["group"] for group in some] != [UNKNOWN_GROUP]:
            for group in some:
                group["wers"] = wers.get((key, group["group"]), {})
                of_base = [group["wers"].get((other, window)) for window in ("padded", "adaptive")]
                group["base"] = next((wer for wer in of_base if wer is not None), None)
            found[key] = some
    return found


def _wers_of_groups(records: Sequence[dict]) -> dict[tuple[str, str], dict[tuple[str, str], float]]:
    """Return {(kind, group): {(model, window): WER}}."""
    sums: dict = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for record in records:
        for key in CARD_GROUP_KEYS:
            for group in group_values(record, key):
                of = sums[key, group][record["model"], record["window"]]
                of[0] += record["counts"]["errors"]
                of[1] += record["counts"]["words"]
    return {group: {side: float(error_rate(*of)) for side, of in sides.items()} for group, sides in sums.items()}


def _group_table(groups: list[dict], ours: str | None, about: str | None) -> TrustedMarkdown:
    lines = [
        [
            group["group"],
            *(group[name] for name in ("clips", "speakers", "words")),
            _percent(group["base"]),
            _percent(group["wers"].get((ours, "padded"))),
            tables.with_interval(group),
            group.get("small") or "",
        ]
        for group in groups
    ]
    header = ["group", "clips", "speakers", "words", "base", f"{ours}, padded", f"{about} (95 % interval)", "small"]
    found = Table(header, lines).to_markdown()
    if len(lines) <= MAX_UNFOLDED_GROUPS:
        return found
    return TrustedMarkdown(f"<details><summary>{len(lines)} groups</summary>\n\n{found}\n\n</details>")


def _worse_groups(groups: dict[str, list]) -> list[str]:
    """Return a sentence for every group that is worse off than with the base, if it is not small."""
    return [
        f"Worse for {CARD_GROUP_TITLES.get(key, key)} {group['group']}: "
        f"{percent(group['base'])} → {percent(group['wer'])}."
        for key, found in groups.items()
        for group in found
        if group["base"] is not None and group["wer"] > group["base"] and not group.get("small")
    ]


def _counts(rows: list[dict], ours: str | None) -> list[str]:
    """Say how many clips failed in which way, of the published model."""
    told = []
    for row in rows:
        some = [f"{row[key]} {words}" for key, words in FLAG_PHRASES.items() if row["model"] == ours and row.get(key)]
        if some:
            told.append(f"On {row['set']} ({row['window']}), of {row['utterances']} clips: {', '.join(some)}.")
    return told


def _confusions(results: dict) -> TrustedMarkdown | None:
    found = (results.get("confusions") or {}).get("substitutions") or []
    some = [
        f"{code_span(one['said'])} as {code_span(one['heard'])} ({one['count']})" for one in found[:MAX_CARD_CONFUSIONS]
    ]
    return TrustedMarkdown(", ".join(some)) if some else None


def _abilities(probe: dict) -> dict[str, tuple[float, str]]:
    """Return {ability: (how much of it is there, 0 to 1, in words)} of what a probe found."""
    told = {}
    if probe.get("language"):
        told["hears its language without being told"] = _share(probe["language"]["right"], probe["language"]["clips"])
    if probe.get("timestamps"):
        told["timestamps in order"] = _share(probe["timestamps"]["right"], probe["timestamps"]["clips"])
    for kind in ("silence", "noise"):
        if probe.get(kind):
            windows = probe[kind]["windows"]
            told[f"keeps silent in {kind}"] = _share(windows - probe[kind]["spoken"], windows)
    return told


def _share(some: int, all_: int) -> tuple[float, str]:
    return some / max(1, all_), f"{some} of {all_}"


def _abilities_table(probes: dict) -> TrustedMarkdown | None:
    """Return the table of what else Whisper can do, by model."""
    found = {label: _abilities(probe) for label, probe in probes.items()}
    names = dict.fromkeys(name for abilities in found.values() for name in abilities)
    lines = [[name, *(abilities.get(name, (0, DASH))[1] for abilities in found.values())] for name in names]
    return Table(["ability", *found], lines).to_markdown() if lines else None


def _lost_abilities(probes: dict, other: str | None, ours: str | None) -> list[str]:
    """Return a sentence for every ability that the published model has less of than the base."""
    before, after = (_abilities(probes.get(label) or {}) for label in (other, ours))
    return [
        f"Less than the base: {name}, {before[name][1]} → {after[name][1]}."
        for name in after
        if name in before and after[name][0] < before[name][0]
    ]


def parity_facts(found: dict | None) -> dict:
    """Return what every program made of the same clips, as parity.json has it."""
    if not found:
        return {"parity": None, "clips": 0, "left_out": []}
    table = parity.parity_table(found["rows"]).to_markdown()
    return {"parity": table, "clips": found["clips"], "left_out": found["left_out"]}


def _percent(fraction: float | None) -> str:
    return DASH if fraction is None else percent(fraction)
