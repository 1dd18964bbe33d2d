"""What a page says, in lines for a terminal: verdicts, findings, and the groups worth a look."""

from collections.abc import Sequence

from lengua.pages.evaluation import by_sign, plain, untold
from lengua.pages.verdicts import headline, verdicts
from lengua.report import with_interval

WORST_GROUPS = 3
"""Groups of one kind that a terminal shows; the page has them all."""


def summary(
    results: dict, records: Sequence[dict], findings: Sequence | None = None, groups: Sequence | None = None
) -> list[str]:
    """Return lines of text: headline, a sentence a verdict, findings with cause and cure, leaks, the worst groups."""
    findings = results.get("findings") if findings is None else findings
    groups = results.get("groups") if groups is None else groups
    judged = verdicts(results["rows"], list(records), results.get("against"))
    lines = [headline(results["rows"], judged), *(f"  {verdict.sentence}" for verdict in judged)]
    for sign in by_sign(findings or []):
        lines.append(sign["what"])
        for place, one in enumerate(sign["causes"]):
            lines += [f"  {'or else' if place else 'cause'}: {one['cause']}", f"  cure: {one['cure']}"]
    return lines + list(results.get("notes") or []) + _group_lines([plain(group) for group in groups or []])


def _group_lines(groups: list[dict]) -> list[str]:
    lines, unknown = [], untold(groups)
    for kind in dict.fromkeys(group["key"] for group in groups if group["key"] not in unknown):
        told = [group for group in groups if group["key"] == kind]
        worst = sorted((group for group in told if not group.get("small")), key=lambda group: -group["wer"])
        small = len(told) - len(worst)
        shown = [f"{group['group']} {with_interval(group)}" for group in worst[:WORST_GROUPS]]
        shown += [f"{small} too small to tell"] if small else []
        lines.append(f"by {kind}: {', '.join(shown)}")
    return lines + ([f"not told of any clip: {', '.join(unknown)}"] if unknown else [])
