"""Words side by side, and whether a model is better, worse, or undecided."""

from itertools import product

import pytest
from report_data import evaluation, record, row

from lengua.evaluation.report import headline, judge_rows
from lengua.evaluation.report.html import word_diff
from lengua.evaluation.report.significance import choose_opponent
from lengua.scoring import score


def shown_words(reference: str, hypothesis: str) -> str:
    """Write words with a sign before each that is wrong."""
    signs = {"equal": "", "substituted": "~", "deleted": "-", "inserted": "+"}
    return " ".join(signs[word.kind] + word.text for word in word_diff(reference, hypothesis))


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("Clave incorrecta.", "clave correcta y", "clave +correcta ~y"),
        ("uno dos tres", "uno tres", "uno -dos tres"),
        ("uno", "uno dos", "uno +dos"),
        ("¿Sí, señor?", "si señor", "~si señor"),
        ("uno — dos", "uno dos", "uno dos"),
        ("uno dos", "uno — dos —", "uno — dos —"),
        ("por qué", "por-qué", "por-qué"),
        ("porque", "por-que", "~por-que"),
        ("sí [risas y ruido] no", "sí no", "sí no"),
        ("", "", ""),
        ("", "hola tú", "+hola +tú"),
        ("hola tú", "", "-hola -tú"),
        ("por-qué no", "no", "-por-qué no"),
    ],
)
def test_a_hypothesis_is_shown_as_it_is_written_and_marked_as_it_is_counted(reference, hypothesis, expected):
    assert shown_words(reference, hypothesis) == expected


def test_a_substituted_word_tells_what_was_said():
    assert [word.said for word in word_diff("El perro.", "el gato.")] == ["", "perro."]


def test_marks_are_as_many_as_errors_are_counted():
    texts = ["", "uno", "uno dos", "dos uno dos", "¡Uno, dos, tres!", "cuatro tres dos uno"]
    for reference, hypothesis in product(texts, texts):
        wrong = sum(word.kind != "equal" for word in word_diff(reference, hypothesis))
        assert wrong == score(reference, hypothesis).counts["errors"][0], (reference, hypothesis)


def test_better_worse_and_undecided_are_told_apart_and_the_worse_comes_first():
    better, worse = evaluation("uno x", "uno dos", set="A"), evaluation("uno dos", "x y", set="B")
    mixed = [
        record(model, f"m{number}", "uno dos", "uno dos" if number % 2 == place else "uno x", set="C")
        for place, model in enumerate(("base", "fine-tuned"))
        for number in range(10)
    ]
    rows = [row(model, 0.25, name=name) for name in "ABC" for model in ("base", "fine-tuned")]
    found = judge_rows(rows, better[1] + worse[1] + mixed)
    assert [(verdict.set, verdict.kind) for verdict in found] == [("B", "worse"), ("C", "undecided"), ("A", "better")]
    assert headline(rows, found) == "Worse on B; undecided on C; better on A"
    assert found[0].sentence.startswith("Worse on B (fine-tuned, padded): 0.0 % → 100.0 %, 100.0 points more (95 %")
    assert found[1].sentence.startswith("Undecided on C (fine-tuned, padded): 25.0 % → 25.0 %. It may be chance")
    assert "50.0 points fewer" in found[2].sentence


def test_one_clip_decides_nothing():
    (verdict,) = judge_rows(*(evaluation("uno x", "uno dos", clips=1)[k] if k else ROWS for k in (0, 1)))
    assert (verdict.kind, verdict.difference) == ("undecided", -0.5)


ROWS = [row("base", 0.5), row("fine-tuned", 0.0)]


def test_a_set_is_called_what_its_worst_window_is():
    results, records = evaluation("uno x", "uno dos")
    records += [record("fine-tuned", f"clip {number}", "uno dos", "x y z", "adaptive") for number in range(10)]
    rows = [*results["rows"], row("fine-tuned", 1.5, "adaptive")]
    found = judge_rows(rows, records)
    assert [verdict.window for verdict in found] == ["adaptive", "padded"]
    assert headline(rows, found) == "Worse on test"


def test_the_opponent_is_the_base_or_the_one_that_was_named():
    assert choose_opponent(ROWS) == "base"
    assert choose_opponent([row("mine", 0.1), row("theirs", 0.2)], "theirs") == "theirs"
    assert choose_opponent([row("mine", 0.1)], "mine") is None
    assert choose_opponent([]) is None
    records = [record("mine", "1", "uno", "uno"), record("theirs", "1", "uno", "dos")]
    (verdict,) = judge_rows([row("mine", 0.1), row("theirs", 0.2)], records, "theirs")
    assert (verdict.model, verdict.before, verdict.after) == ("mine", 1.0, 0.0)


def test_without_an_opponent_or_rows_the_headline_is_still_one():
    assert headline([row("base", 0.5)], []) == "Word error rate 50.0 % (40.0 to 60.0) on test"
    assert headline([row("base", 0.5, name=str(number)) for number in range(9)], []) == "Word error rates of 9 sets"
    assert headline([], []) == "Nothing was measured"
