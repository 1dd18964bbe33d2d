"""Tables, the before/after table, verdicts, and examples: what a report says of rows and records."""

from collections import Counter

import pytest
from report_data import evaluation, record
from report_data import row as short_row

from lengua.evaluation.report import headline, judge_rows
from lengua.evaluation.report.significance import choose_opponent
from lengua.evaluation.report.tables import (
    Table,
    examples,
    markdown_table,
    relative_change,
    results_table,
    with_interval,
    worsened,
)


def row(model: str, window: str, wer: float, name: str = "voice A", **more) -> dict:
    """A row as results.json holds it."""
    counts = {"substitutions": 70, "deletions": 20, "insertions": 10, "looped": 1, "words": 900, "utterances": 98}
    interval = {"wer_low": wer * 0.8, "wer_high": wer * 1.2, "cer": wer / 2, "ms_per_clip": 262.4}
    return {"model": model, "window": window, "set": name, "wer": wer} | counts | interval | more


ROWS = [
    row("fine-tuned", "adaptive", 0.13, wer_low=0.101, wer_high=0.162),
    row("fine-tuned", "padded", 0.132),
    row("base", "padded", 0.228),
    row("base", "padded", 0.2, "X"),
    row("fine-tuned", "adaptive", 0.24, "X"),
]


def test_one_table_is_rendered_for_markdown_and_for_a_terminal(capsys):
    table = Table(["name", "where", "count"], [["a|b", "<b>", 1], ["c", "d", 22]], "ll", "Some", ["A note."])
    assert table.to_markdown().splitlines() == [
        *("**Some**", "", "A note.", "", "| name | where | count |", "| --- | --- | ---: |"),
        *("| a\\|b | &lt;b&gt; | 1 |", "| c | d | 22 |"),
    ]
    assert "| :--- | :--- | ---: |" in table.to_markdown(":---")
    few = table.select({"count", "name"})
    assert (few.header, few.rows, few.sides) == (["name", "count"], [["a|b", 1], ["c", 22]], "lr")
    few.to_terminal()
    printed = capsys.readouterr().out
    assert printed.startswith("A note.") and "a|b" in printed and "where" not in printed


def test_the_table_has_the_base_first_and_every_figure():
    table = results_table(ROWS)
    header, lines = table.header, table.rows
    assert [line[:3] for line in lines] == [
        ["voice A", "base", "padded"],
        ["voice A", "fine-tuned", "padded"],
        ["voice A", "fine-tuned", "adaptive"],
        ["X", "base", "padded"],
        ["X", "fine-tuned", "adaptive"],
    ]
    assert dict(zip(header, lines[2], strict=True)) == {
        "set": "voice A",
        "model": "fine-tuned",
        "window": "adaptive",
        "WER (95 % interval)": "13.0 % (10.1 to 16.2)",
        "change": "−43 %",
        "CER": "6.5 %",
        "S / D / I": "70 / 20 / 10",
        "looped": "1",
        "ms a clip": "262",
        "words": "900",
    }
    assert [line[4] for line in lines] == ["", "−42 %", "−43 %", "", "+20 %"]


def test_the_wer_without_leaks_and_without_loops_stands_beside_where_there_are_any():
    lines = results_table([row("base", "padded", 0.5, wer_without_leaks=0.4, wer_without_loops=0.25), ROWS[1]])
    cells = [dict(zip(lines.header, line, strict=True)) for line in lines.rows]
    assert [(one["without leaks"], one["looped"]) for one in cells] == [("40.0 %", "1 (25.0 % without)"), ("–", "1")]


def test_a_set_made_worse_is_told_first():
    assert worsened(ROWS) == ["fine-tuned (adaptive) is worse on X: 20.0 % → 24.0 %."]
    first, empty, header, rule, *lines = markdown_table(ROWS).splitlines()
    assert (first, empty) == (worsened(ROWS)[0], "")
    assert header.startswith("| set | model | window | WER (95 % interval) |")
    assert set(rule) == set("| -:")
    assert len(lines) == len(ROWS)
    assert {line.count("|") for line in [header, rule, *lines]} == {11}


def test_without_a_worse_set_the_table_stands_alone():
    assert markdown_table(ROWS[:3]).startswith("| set |")
    assert worsened([row("base", "padded", 0.2), row("fine-tuned", "padded", 0.2)]) == []


def test_the_untouched_model_is_held_against_padded():
    """Its short window is the famous failure: nothing is compared with that if there is a choice."""
    rows = [row("base", "adaptive", 2.12), row("base", "padded", 0.2), row("fine-tuned", "adaptive", 0.1)]
    assert [line[2:5:2] for line in results_table(rows).rows] == [
        ["padded", ""],
        ["adaptive", ""],
        ["adaptive", "−50 %"],
    ]


def test_what_is_not_known_is_a_dash():
    bare = {"model": "fine-tuned", "window": "padded", "set": "a|b", "wer": 0.5}
    [cells] = results_table([bare]).rows
    assert cells == [
        "a|b",
        "fine-tuned",
        "padded",
        "50.0 %",
        "–",
        "–",
        "– / – / –",
        "–",
        "–",
        "–",
    ]
    assert "a\\|b" in markdown_table([bare])
    assert with_interval({"wer": 0.5, "wer_low": None, "wer_high": None}) == "50.0 %"
    assert results_table([]).rows == []


@pytest.mark.parametrize(
    ("wer", "base", "change"), [(0.13, 0.228, "−43 %"), (0.24, 0.2, "+20 %"), (0.2, 0.2, "+0 %"), (0.1, 0.0, "–")]
)
def test_relative_change(wer, base, change):
    assert relative_change(wer, base) == change


TRUTH = "la casa está en el norte"
BETTER, SAME, WORSE = (("la cosa", TRUTH), ("la cosa", "la cosa"), (TRUTH, "la cosa"))


def records(improved: int, unchanged: int, worse: int, speakers: int = 3) -> list[dict]:
    """Records of hypotheses.jsonl: base padded, and fine-tuned in both windows, in another order."""
    kinds = [BETTER] * improved + [SAME] * unchanged + [WORSE] * worse
    before, padded, adaptive = [], [], []
    for k, (old, new) in enumerate(kinds):
        same = {"id": f"clip{k}", "set": "es", "speaker": f"voice{k % speakers}", "reference": TRUTH}
        before.append(same | {"model": "base", "window": "padded", "hypothesis": old})
        padded.append(same | {"model": "fine-tuned", "window": "padded", "hypothesis": "not this one"})
        adaptive.append(same | {"model": "fine-tuned", "window": "adaptive", "hypothesis": new})
    return before + adaptive[::-1] + padded


def kinds_of(picked) -> Counter:
    return Counter((example.before, example.after) for example in picked)


def test_examples_are_joined_by_id():
    original = {r["id"]: r for r in records(8, 8, 8) if r["model"] == "base"}
    picked = examples(records(8, 8, 8))
    assert len(picked) == len({example.id for example in picked}) == 10
    for example in picked:
        assert (example.reference, example.before) == (TRUTH, original[example.id]["hypothesis"])
        assert example.after in {TRUTH, "la cosa"}


def test_examples_come_in_the_proportion_in_which_they_occur():
    assert kinds_of(examples(records(40, 50, 10))) == {BETTER: 4, SAME: 5, WORSE: 1}
    assert kinds_of(examples(records(10, 30, 60), count=20)) == {BETTER: 2, SAME: 6, WORSE: 12}


def test_examples_never_hide_the_worsened():
    assert kinds_of(examples(records(200, 100, 1)))[WORSE] == 1
    assert kinds_of(examples(records(200, 1, 1), count=3)) == {BETTER: 1, SAME: 1, WORSE: 1}


def test_examples_alternate_over_speakers():
    hypotheses = records(30, 30, 30, speakers=5)
    assert examples(hypotheses) == examples(hypotheses[::-1])
    speaker = {record["id"]: record["speaker"] for record in hypotheses}
    drawn = [speaker[example.id] for example in examples(hypotheses)]
    assert Counter(drawn) == {f"voice{k}": 2 for k in range(5)}
    assert len(set(drawn[:5])) == 5


def test_few_or_no_hypotheses_give_few_or_no_examples():
    assert len(examples(records(1, 1, 0))) == 2
    assert len(examples([{k: v for k, v in one.items() if k != "speaker"} for one in records(5, 5, 5)])) == 10
    assert examples([]) == []
    assert examples(records(3, 0, 0), count=0) == []
    assert examples([record for record in records(3, 3, 3) if record["model"] == "base"]) == []


# Verdicts


def test_better_worse_and_undecided_are_told_apart_and_the_worse_comes_first():
    better, worse = evaluation("uno x", "uno dos", set="A"), evaluation("uno dos", "x y", set="B")
    mixed = [
        record(model, f"m{number}", "uno dos", "uno dos" if number % 2 == place else "uno x", set="C")
        for place, model in enumerate(("base", "fine-tuned"))
        for number in range(10)
    ]
    rows = [short_row(model, 0.25, name=name) for name in "ABC" for model in ("base", "fine-tuned")]
    found = judge_rows(rows, better[1] + worse[1] + mixed)
    assert [(verdict.set, verdict.kind) for verdict in found] == [("B", "worse"), ("C", "undecided"), ("A", "better")]
    assert headline(rows, found) == "Worse on B; undecided on C; better on A"
    assert found[0].sentence.startswith("Worse on B (fine-tuned, padded): 0.0 % → 100.0 %, 100.0 points more (95 %")
    assert found[1].sentence.startswith("Undecided on C (fine-tuned, padded): 25.0 % → 25.0 %. It may be chance")
    assert "50.0 points fewer" in found[2].sentence


def test_an_undecided_verdict_says_how_many_clips_would_decide():
    """Four clips in 40 better, two worse; four times as many clips of the same kind need no more in all."""
    kinds = ["uno dos x", "uno dos"], ["uno dos", "uno dos x"]

    def judged(times: int):
        texts = [kinds[0]] * 4 * times + [kinds[1]] * 2 * times + [["uno dos"] * 2] * 34 * times
        found = [
            record(m, str(k), "uno dos", t[at])
            for at, m in enumerate(("base", "fine-tuned"))
            for k, t in enumerate(texts)
        ]
        return judge_rows(PAIR, found)[0]

    few, more = judged(1), judged(3)
    assert few.kind == more.kind == "undecided" and 120 < few.clips_needed < 1000
    assert more.clips_needed == pytest.approx(few.clips_needed, rel=0.2)
    assert f"about {few.clips_needed:,} clips would decide" in few.sentence


def test_one_looped_clip_does_not_hide_what_all_others_show():
    better = evaluation("uno x", "uno dos", clips=30)[1]
    loop = record("fine-tuned", "loop", "uno dos", "x " * 200, flags=["looped"])
    [verdict] = judge_rows(PAIR, [*better, record("base", "loop", "uno dos", "uno dos"), loop])
    assert verdict.kind == "undecided" and "Without the clip that loops: 50.0 % → 0.0 %, better" in verdict.sentence


def test_one_clip_decides_nothing():
    (verdict,) = judge_rows(*(evaluation("uno x", "uno dos", clips=1)[k] if k else PAIR for k in (0, 1)))
    assert (verdict.kind, verdict.difference) == ("undecided", -0.5)


PAIR = [short_row("base", 0.5), short_row("fine-tuned", 0.0)]


def test_a_set_is_called_what_its_worst_window_is():
    results, records = evaluation("uno x", "uno dos")
    records += [record("fine-tuned", f"clip {number}", "uno dos", "x y z", "adaptive") for number in range(10)]
    rows = [*results["rows"], short_row("fine-tuned", 1.5, "adaptive")]
    found = judge_rows(rows, records)
    assert [verdict.window for verdict in found] == ["adaptive", "padded"]
    assert headline(rows, found) == "Worse on test"


def test_the_opponent_is_the_base_or_the_one_that_was_named():
    assert choose_opponent(PAIR) == "base"
    assert choose_opponent([short_row("mine", 0.1), short_row("theirs", 0.2)], "theirs") == "theirs"
    assert choose_opponent([short_row("mine", 0.1)], "mine") is None
    assert choose_opponent([]) is None
    records = [record("mine", "1", "uno", "uno"), record("theirs", "1", "uno", "dos")]
    (verdict,) = judge_rows([short_row("mine", 0.1), short_row("theirs", 0.2)], records, "theirs")
    assert (verdict.model, verdict.before, verdict.after) == ("mine", 1.0, 0.0)


def test_without_an_opponent_or_rows_the_headline_is_still_one():
    assert headline([short_row("base", 0.5)], []) == "Word error rate 50.0 % (40.0 to 60.0) on test"
    assert (
        headline([short_row("base", 0.5, name=str(number)) for number in range(9)], []) == "Word error rates of 9 sets"
    )
    assert headline([], []) == "Nothing was measured"
