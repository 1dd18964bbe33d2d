"""Tables: one model, `Table`, rendered for a terminal, for Markdown and, by the macro `grid` of page.html, for a page.

    results_table(rows).to_markdown()
    results_table(rows).select(TERMINAL_COLUMNS).to_terminal()

Here, too, are the before/after table of an evaluation, one function a column (`RESULT_COLUMNS`), and the examples
beside it, read from rows of results.json and records of hypotheses.jsonl. Rates are fractions there, per cent here.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import NamedTuple

import numpy as np

from lengua.evaluation.report.figures import BASE, history_figure, order_rows, wer_figure
from lengua.evaluation.report.markdown import TrustedMarkdown, escape_markdown
from lengua.scoring import percent, score

__all__ = ["BeforeAfter", "Table", "examples", "history_figure", "markdown_table", "results_table", "wer_figure"]

DASH = "–"
MIN_TERMINAL_WIDTH_CHARS, MIN_FOLDED_WIDTH_CHARS = 100, 22


@dataclass(frozen=True)
class Table:
    """Rows of text under a header."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    alignment: str = "l"
    """A letter a column, l or r; what lacks one holds figures and stands to the right."""
    title: str = ""
    notes: Sequence[str] = ()
    """Sentences that stand before it."""

    @property
    def sides(self) -> str:
        """The alignment of every column."""
        return self.alignment.ljust(len(self.header), "r")

    def select(self, names: Collection[str]) -> "Table":
        """Return the table with these columns alone, in its own order."""
        places = [place for place, name in enumerate(self.header) if name in names]
        header, *rows = ([row[place] for place in places] for row in (self.header, *self.rows))
        return replace(self, header=header, rows=rows, alignment="".join(self.sides[place] for place in places))

    def to_markdown(self, left_rule: str = "---") -> TrustedMarkdown:
        """Return the table as Markdown.

        Args:
            left_rule: below the headers of words; ":---" where they would not stand to the left by themselves, as in a
                notebook.
        """
        rules = [left_rule if side == "l" else "---:" for side in self.sides]
        rows = [list(map(escape_markdown, self.header)), rules, *(map(escape_markdown, row) for row in self.rows)]
        grid = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        title = [f"**{escape_markdown(self.title)}**"] if self.title else []
        return TrustedMarkdown("\n\n".join([*title, *self.notes, grid]))

    def to_terminal(self, folded: str = "") -> None:
        """Print the table; one column may stand in several lines."""
        from rich import box
        from rich.console import Console
        from rich.table import Table as Grid

        grid = Grid(box=box.SIMPLE_HEAD, header_style="bold", title=self.title or None)
        for name, side in zip(self.header, self.sides, strict=True):
            look = {"min_width": MIN_FOLDED_WIDTH_CHARS} if name == folded else {"no_wrap": True}
            grid.add_column(name, justify="left" if side == "l" else "right", **look)
        for row in self.rows:
            grid.add_row(*map(str, row))
        for note in self.notes:
            print(note)
        Console(width=max(Console().width, MIN_TERMINAL_WIDTH_CHARS)).print(grid)


LEAKS_COLUMN = "without leaks"
RESULT_COLUMNS: dict[str, Callable[[dict, dict | None], str]] = {
    "set": lambda row, base: str(row["set"]),
    "model": lambda row, base: str(row["model"]),
    "window": lambda row, base: str(row["window"]),
    "WER (95 % interval)": lambda row, base: with_interval(row),
    "change": lambda row, base: _change(row, base),
    LEAKS_COLUMN: lambda row, base: _part(row, "wer_without_leaks"),
    "CER": lambda row, base: _part(row, "cer"),
    "S / D / I": lambda row, base: " / ".join(_whole(row, key) for key in ("substitutions", "deletions", "insertions")),
    "looped": lambda row, base: _looped(row),
    "ms a clip": lambda row, base: _whole(row, "ms_per_clip"),
    "words": lambda row, base: _whole(row, "words"),
}
"""Columns of the before/after table: what stands there of a row, given the row of the base that it is held against."""


def results_table(rows: list[dict]) -> Table:
    """Return the before/after table: sets as they come, the base model first in each.

    The WER without the clips that stand in training is there where there are any.
    """
    lines = [[cell(row, _base_of(row, rows)) for cell in RESULT_COLUMNS.values()] for row in order_rows(rows)]
    table, leaked = Table(list(RESULT_COLUMNS), lines, "lll"), any(row.get("wer_without_leaks") for row in rows)
    return table if leaked else table.select([name for name in RESULT_COLUMNS if name != LEAKS_COLUMN])


def markdown_table(rows: list[dict], verdicts: Sequence[dict] | None = None) -> str:
    """Return the table as Markdown; where a model is worse than the base, a sentence before it says so.

    Args:
        verdicts: those of results.json, whose sentences know whether it may be chance.
    """
    table = results_table(rows)
    worse = worsened(rows) if verdicts is None else [one["sentence"] for one in verdicts if one["difference"] > 0]
    trusted = [
        [TrustedMarkdown(cell.replace("|", "\\|")) for cell in row] for row in table.rows
    ]  # labels stay readable
    return replace(table, rows=trusted, notes=worse).to_markdown() + "\n"


def worsened(rows: list[dict]) -> list[str]:
    """Return a sentence for every row that is worse than the base on the same set, in the table's order."""
    pairs = [(row, _base_of(row, rows)) for row in order_rows(rows)]
    return [
        f"{row['model']} ({row['window']}) is worse on {row['set']}: {percent(base['wer'])} → {percent(row['wer'])}."
        for row, base in pairs
        if base and row["wer"] > base["wer"]
    ]


class BeforeAfter(NamedTuple):
    """One utterance before and after fine-tuning."""

    id: str
    reference: str
    before: str
    after: str


def examples(hypotheses: list[dict], count: int = 10) -> list[BeforeAfter]:
    """Pick utterances to show before and after: fair, and the same ones every time.

    Before is the base model (padded, if it was measured in both windows), after the other model (adaptive, if in
    both), joined by id. Improved, unchanged and worsened utterances come in the proportion in which they occur, at
    least one of each kind there is as long as `count` allows; speakers take turns; among one speaker's, a digest of
    the id decides, so that nobody chose.
    """
    before = by_clip([record for record in hypotheses if record["model"] == BASE], "padded")
    after = by_clip([record for record in hypotheses if record["model"] != BASE], "adaptive")
    kinds = _by_kind([(before[key], after[key]) for key in before if key in after])
    return [
        BeforeAfter(old["id"], old["reference"], old["hypothesis"], new["hypothesis"])
        for old, new in _draw(kinds, count)
    ]


def with_interval(row: dict) -> str:
    """Write a row's WER with its interval: "13.0 % (10.1 to 16.2)"; without one, the WER alone."""
    if row.get("wer_low") is None or row.get("wer_high") is None:
        return percent(row["wer"])
    return f"{percent(row['wer'])} ({100 * row['wer_low']:.1f} to {100 * row['wer_high']:.1f})"


def relative_change(wer: float, base_wer: float) -> str:
    """Write the share of the base's errors that went or came: 0.13 after 0.228 is "−43 %"; after 0, unknown."""
    return f"{100 * (wer / base_wer - 1):+.0f} %".replace("-", "−") if base_wer else DASH


def _change(row: dict, base: dict | None) -> str:
    if base:
        return relative_change(row["wer"], base["wer"])
    return "" if row["model"] == BASE else DASH


def _part(row: dict, key: str) -> str:
    return DASH if row.get(key) is None else percent(row[key])


def _looped(row: dict) -> str:
    """Write how many clips loop, and the WER of all others: "1 (13.0 % without)"."""
    without = row.get("wer_without_loops")
    return _whole(row, "looped") + (f" ({percent(without)} without)" if without is not None else "")


def _whole(row: dict, key: str) -> str:
    return DASH if row.get(key) is None else f"{row[key]:.0f}"


def _base_of(row: dict, rows: list[dict]) -> dict | None:
    """Return the base row that a row is held against: of the same set, padded if there is a choice."""
    if row["model"] == BASE:
        return None
    candidates = [other for other in rows if other["model"] == BASE and other["set"] == row["set"]]
    return min(candidates, key=lambda other: other["window"] != "padded", default=None)


def by_clip(records: Sequence[dict], window: str) -> dict[tuple[str, str], dict]:
    """Return the records of one model by (set, id): those of the window named where a clip was measured in two."""
    ordered = sorted(records, key=lambda record: record["window"] == window)
    return {(record["set"], record["id"]): record for record in ordered}


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
