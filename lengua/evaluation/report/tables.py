"""The before/after table of an evaluation and its examples, as rows of text.

Everything is read from rows of results.json and records of hypotheses.jsonl. Rates are fractions there, per cent here.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

import numpy as np

from lengua.evaluation.report.figures import BASE, history_figure, order_rows, wer_figure
from lengua.evaluation.report.markdown import TrustedMarkdown, format_markdown_table
from lengua.scoring import percent, score

__all__ = ["BeforeAfter", "examples", "history_figure", "markdown_table", "results_table", "wer_figure", "worsened"]

RESULTS_HEADER = [
    "set",
    "model",
    "window",
    "WER (95 % interval)",
    "change",
    "CER",
    "S / D / I",
    "looped",
    "ms a clip",
    "words",
]
ROW_NAME_KEYS = ("set", "model", "window")
DASH = "–"


class BeforeAfter(NamedTuple):
    """One utterance before and after fine-tuning."""

    id: str
    reference: str
    before: str
    after: str


def results_table(rows: list[dict]) -> list[list[str]]:
    """Return header and lines of the before/after table: sets as they come, the base model first in each."""
    return [RESULTS_HEADER, *(_line(row, _base_of(row, rows)) for row in order_rows(rows))]


def markdown_table(rows: list[dict], verdicts: Sequence[dict] | None = None) -> str:
    """Return the table as Markdown; where a model is worse than the base, a sentence before it says so.

    Args:
        verdicts: those of results.json, whose sentences know whether it may be chance.
    """
    header, *lines = results_table(rows)
    cells = [[TrustedMarkdown(cell.replace("|", "\\|")) for cell in line] for line in lines]  # labels stay readable
    grid = format_markdown_table(header, cells, len(ROW_NAME_KEYS))
    worse = [one["sentence"] for one in verdicts or [] if one["difference"] > 0]
    return "\n\n".join([*(worsened(rows) if verdicts is None else worse), grid]) + "\n"


def worsened(rows: list[dict]) -> list[str]:
    """Return a sentence for every row that is worse than the base on the same set, in the table's order."""
    pairs = [(row, _base_of(row, rows)) for row in order_rows(rows)]
    return [
        f"{row['model']} ({row['window']}) is worse on {row['set']}: {percent(base['wer'])} → {percent(row['wer'])}."
        for row, base in pairs
        if base and row["wer"] > base["wer"]
    ]


def examples(hypotheses: list[dict], count: int = 10) -> list[BeforeAfter]:
    """Pick utterances to show before and after: fair, and the same ones every time.

    Before is the base model (padded, if it was measured in both windows), after the other model (adaptive, if in
    both), joined by id. Improved, unchanged and worsened utterances come in the proportion in which they occur, at
    least one of each kind there is as long as `count` allows; speakers take turns; among one speaker's, a digest of
    the id decides, so that nobody chose.
    """
    before = _by_id([record for record in hypotheses if record["model"] == BASE], "padded")
    after = _by_id([record for record in hypotheses if record["model"] != BASE], "adaptive")
    kinds = _by_kind([(before[key], after[key]) for key in before if key in after])
    drawn = _draw(kinds, count)
    return [BeforeAfter(old["id"], old["reference"], old["hypothesis"], new["hypothesis"]) for old, new in drawn]


def with_interval(row: dict) -> str:
    """Write a row's WER with its interval: "13.0 % (10.1 to 16.2)"; without one, the WER alone."""
    if row.get("wer_low") is None or row.get("wer_high") is None:
        return percent(row["wer"])
    return f"{percent(row['wer'])} ({100 * row['wer_low']:.1f} to {100 * row['wer_high']:.1f})"


def relative_change(wer: float, base_wer: float) -> str:
    """Write the share of the base's errors that went or came: 0.13 after 0.228 is "−43 %"; after 0, unknown."""
    return f"{100 * (wer / base_wer - 1):+.0f} %".replace("-", "−") if base_wer else DASH


def _line(row: dict, base: dict | None) -> list[str]:
    change = relative_change(row["wer"], base["wer"]) if base else "" if row["model"] == BASE else DASH
    cer = DASH if row.get("cer") is None else percent(row["cer"])
    operations = " / ".join(_whole(row.get(key)) for key in ("substitutions", "deletions", "insertions"))
    figures = [_whole(row.get(key)) for key in ("looped", "ms_per_clip", "words")]
    return [*(str(row[key]) for key in ROW_NAME_KEYS), with_interval(row), change, cer, operations, *figures]


def _whole(value: float | None) -> str:
    return DASH if value is None else f"{value:.0f}"


def _base_of(row: dict, rows: list[dict]) -> dict | None:
    """Return the base row that a row is held against: of the same set, padded if there is a choice."""
    if row["model"] == BASE:
        return None
    candidates = [other for other in rows if other["model"] == BASE and other["set"] == row["set"]]
    return min(candidates, key=lambda other: other["window"] != "padded", default=None)


def _by_id(records: list[dict], window: str) -> dict[str, dict]:
    """Index records by id; where an id comes twice, the one of the given window stays."""
    return {record["id"]: record for record in sorted(records, key=lambda record: record["window"] == window)}


def _by_kind(pairs: list[tuple[dict, dict]]) -> dict[int, list]:
    """Group pairs (before, after): -1 fewer errors than before, 0 as many, 1 more."""
    references = [old["reference"] for old, _ in pairs]
    before, after = (score(references, [pair[k]["hypothesis"] for pair in pairs]).counts["errors"] for k in (0, 1))
    kinds = defaultdict(list)
    for pair, kind in zip(pairs, np.sign(after - before).tolist(), strict=True):
        kinds[kind].append(pair)
    return kinds


def _draw(kinds: dict[int, list], count: int) -> list[tuple[dict, dict]]:
    """Draw pairs: each from the kind furthest behind its share, of the speaker seen least, by digest of the id."""
    total = sum(map(len, kinds.values()))
    share = {kind: len(pairs) / total for kind, pairs in kinds.items()}
    left = {kind: sorted(pairs, key=lambda pair: _digest(pair[0]["id"])) for kind, pairs in kinds.items()}
    drawn, of_kind, of_speaker = [], Counter(), Counter()
    while len(drawn) < min(count, total):
        behind = {kind: share[kind] * (len(drawn) + 1) - of_kind[kind] for kind in sorted(left) if left[kind]}
        kind = max(behind, key=lambda kind: (of_kind[kind] == 0, behind[kind]))
        pair = min(left[kind], key=lambda pair: of_speaker[pair[0].get("speaker")])
        left[kind].remove(pair)
        drawn.append(pair)
        of_kind[kind] += 1
        of_speaker[pair[0].get("speaker")] += 1
    return drawn


def _digest(name: str) -> str:
    return sha256(name.encode()).hexdigest()
