"""A finished evaluation read again: what changed, which words are hard, what to record next, and how it is told."""

import re
from dataclasses import asdict

import pytest
from report_data import record, row

from lengua.evaluation.confusions import rank_hard_words
from lengua.evaluation.recommendations import (
    clip_changes,
    clips_needed,
    detectable_difference,
    doubtful_references,
    recommend,
    words_to_record,
)
from lengua.evaluation.report.figures import groups_figure
from lengua.evaluation.results import find_evaluation_store, read_evaluation
from lengua.notebook import error_analysis
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import write_json, write_jsonl
from lengua.scoring import score

SAID = [
    "el perro corre por la montaña", "la niña come pan en la montaña", "el mar está muy azul hoy",
    "hay un camión en la calle", "el corazón de la montaña", "mañana vamos al mar",
]  # fmt: skip
BASE = [text.replace("montaña", "montana").replace("está", "esta") for text in SAID]
AFTER = [text.replace("montaña", "montana") for text in SAID]


def written(folder, before, after, said=SAID, speakers="ab", extra=None, **results):
    """Write an evaluation of a base and a fine-tuned model, and return its folder."""
    rows, records = [], []
    for model, window, texts in (("base", "padded", before), ("fine-tuned", "adaptive", after)):
        if texts is None:
            continue
        found = score(said, texts)
        kinds = {key: getattr(found, key) for key in ("cer", "substitutions", "deletions", "insertions")}
        rows.append(row(model, found.wer, window, **kinds))
        records += [
            record(model, f"clip {k}", said[k], text, window, speaker=speakers[k % len(speakers)], extra=extra or {})
            for k, text in enumerate(texts)
        ]
    write_json(folder / "results.json", {"rows": rows, "split": "test", "language": "es", **results})
    write_jsonl(folder / "hypotheses.jsonl", records)
    return folder


@pytest.fixture
def reading(tmp_path):
    return read_evaluation(written(tmp_path / "run/evaluation", BASE, AFTER))


def told(reading) -> str:
    """Return everything that a notebook shows of an evaluation."""
    tables = "verdict_list resolution_list changes_table doubtful_table groups_table confusions_table words_table"
    return "\n".join(getattr(error_analysis, name)(reading) for name in [*tables.split(), "advice_list"])


def test_records_alone_are_laid_open(reading):
    assert reading.main == ("fine-tuned", "adaptive") and reading.other == "base"
    assert len(reading.pairs) == len(reading.after) == len(reading.before) == len(SAID)
    assert reading.analysis["confusions"]["substitutions"][0].items() >= {"said": "montaña", "count": 3}.items()
    assert reading.store is None and reading.headline == "Undecided on test"


def test_what_the_results_hold_is_not_made_again(tmp_path, reading):
    made = {"groups": [], "findings": [], "confusions": {}, "notes": ["Mind this."]}
    again = read_evaluation(written(tmp_path / "other", BASE, AFTER, **made))
    assert again.analysis["groups"] == [] and "Mind this." in error_analysis.verdict_list(again)
    assert reading.analysis["groups"]


def test_other_languages_are_not_mixed_in(tmp_path):
    folder = written(tmp_path, BASE, AFTER)
    results, records = read_evaluation(folder).results, list(read_evaluation(folder).records)
    probe = record("fine-tuned", "x", "bonjour", "hola", "adaptive", set="sample:fr")
    write_jsonl(folder / "hypotheses.jsonl", [*records, probe])
    write_json(folder / "results.json", {**results, "rows": [*results["rows"], row("base", 1.0, name="sample:fr")]})
    assert [one["id"] for one in read_evaluation(folder).after] == [f"clip {k}" for k in range(len(SAID))]
    assert {one["set"] for one in read_evaluation(folder).rows} == {"test"}


def test_the_store_is_found_beside_the_evaluation(tmp_path, tiny_store):
    folder = written(tmp_path / "run/evaluation", BASE, AFTER)
    assert find_evaluation_store(folder) is None
    write_json(tmp_path / "run/run.json", {"options": {"source": str(tiny_store.path)}})
    assert find_evaluation_store(folder) == tiny_store.path
    write_json(tmp_path / "run/run.json", {"options": {"source": "sample:es"}})
    assert find_evaluation_store(folder) is None
    (tmp_path / "run/store").symlink_to(tiny_store.path)
    assert read_evaluation(folder).store == tmp_path / "run/store"


def test_no_evaluation_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(RequestError, match="lengua evaluate"):
        read_evaluation(tmp_path)
    write_json(tmp_path / "results.json", {"rows": []})
    with pytest.raises(RequestError, match="one row at least"):
        read_evaluation(tmp_path)


def test_changes_come_worst_first(tmp_path):
    after = ["nada", *AFTER[1:]]
    found = clip_changes(read_evaluation(written(tmp_path, BASE, after)).pairs)
    assert [found[0].id, found[0].gained] == ["clip 0", -5]
    assert [found[-1].id, found[-1].gained] == ["clip 2", 1]


def test_texts_that_both_models_doubt_are_found(tmp_path):
    before, after = list(BASE), list(AFTER)
    before[3] = after[3] = "un gato duerme bajo la mesa"
    before[4], after[4] = "otra cosa muy distinta", "y otra cosa muy distinta"
    found = doubtful_references(read_evaluation(written(tmp_path, before, after)).pairs)
    assert [one.id for one in found] == ["clip 3"]


def test_silence_and_short_answers_are_no_doubt(tmp_path):
    said, heard = ["uno dos tres", "sí"], ["", "no"]
    assert doubtful_references(read_evaluation(written(tmp_path, heard, heard, said)).pairs) == []


def test_hard_words_are_counted_with_what_was_heard(reading):
    [word] = rank_hard_words(reading.after)
    assert (word.word, word.said, word.wrong, word.heard, word.example) == ("montaña", 3, 3, "montana", "clip 0")
    assert word.share == 1


def test_a_word_left_out_is_wrong_and_a_loop_says_nothing():
    found = rank_hard_words([record("m", "a", "el mar azul", "el azul"), record("m", "b", "hola", "hola " * 60)])
    assert [(one.word, one.heard, one.wrong) for one in found] == [("mar", "", 1)]
    assert rank_hard_words([]) == []


def test_the_resolution_is_that_of_the_pairs(reading):
    found = detectable_difference(reading)
    assert found.difference == pytest.approx(-1 / sum(one["counts"]["words"] for one in reading.after))
    few, many = clips_needed(reading, 10.0), clips_needed(reading, 5.0)
    assert many == pytest.approx(4 * few, abs=4) and few >= 1


def test_advice_names_voices_words_and_size_with_their_figures(reading):
    text = error_analysis.advice_list(reading)
    assert "All 6 clips are by 2 speakers" in text
    assert "montaña" in text and "Wrong 3 of 3 times" in text
    assert "Measure on" in text
    assert [word.word for word in words_to_record(reading)] == ["montaña"]
    assert not any(sentence in text for sentence in SAID), "a sentence of the test set is never advised"


def test_what_is_broken_comes_before_recording(tmp_path):
    loops = [" ".join([text] * 12) for text in SAID]
    [first, *_] = recommend(read_evaluation(written(tmp_path, BASE, loops)))
    assert first.do.startswith("Before recording anything") and "do not stop" in first.because


def test_groups_that_are_worse_are_asked_for(tmp_path):
    sizes = {"clips": 90, "speakers": 20, "words": 900, "small": ""}
    group = {"key": "accent", "group": "Caribe", "wer": 0.4, "wer_low": 0.3, "wer_high": 0.5} | sizes
    group |= {"difference": 0.2, "difference_low": 0.1, "difference_high": 0.3}
    few = group | {"group": "Andino", "small": "2 speakers", "speakers": 2}
    folder = written(tmp_path, BASE, AFTER, groups=[group, few], findings=[], confusions={}, notes=[])
    text = error_analysis.advice_list(read_evaluation(folder))
    assert "More speech of accent Caribe" in text and "20.0 points above" in text
    assert "Test clips of Andino (2 speakers)" in text
    table = error_analysis.groups_table(read_evaluation(folder))
    assert (
        "| accent Caribe | 40.0 % (30.0 to 50.0) | +20.0 points |" in table
        and "Too small to tell: accent Andino" in table
    )


def test_nothing_to_say_is_said(tmp_path):
    voices = [f"v{k}" for k in range(12)]
    reading = read_evaluation(written(tmp_path, SAID * 4, SAID * 4, SAID * 4, voices))
    assert [one.do for one in recommend(reading)] == ["Test on more clips, of other people"]
    text = told(reading)
    assert "Not one word is wrong." in text and "Nothing was taken for anything else." in text


def test_one_model_alone_is_read_too(tmp_path):
    reading = read_evaluation(written(tmp_path, BASE, None))
    assert reading.before == reading.pairs == [] and reading.main == ("base", "padded")
    assert told(reading).count(error_analysis.ONLY_ONE_MODEL) == 2
    assert detectable_difference(reading) is None and clips_needed(reading, 1.0) is None


def test_markup_in_texts_stays_text(tmp_path):
    said = ["<b>uno</b> dos tres | *cuatro*", *SAID[1:]]
    heard = ["[x](http://evil.example) <script> dos | tres", *AFTER[1:]]
    text = told(read_evaluation(written(tmp_path, heard, heard, said)))
    assert "<script" not in text and "<b>" not in text and not re.search(r"(?<!\\)\]\(", text)


def test_everything_is_laid_out(reading):
    text = told(reading)
    for part in (
        "Undecided on test",
        "montaña → montana (3)",
        "| as before | 5 |",
        "to show a difference of",
        "3 of 3",
    ):
        assert part in text
    assert "-" not in error_analysis.signed_points(-0.04) and error_analysis.signed_points(-0.04) == "−4.0"


def test_groups_are_drawn_and_many_are_cut(reading, tmp_path):
    from matplotlib.image import imread

    heights = []
    for count in (2, 12, 40):
        group = reading.analysis["groups"][0]
        groups_figure([{**group, "group": f"g{k}"} for k in range(count)], 0.1, tmp_path / "groups.png")
        heights.append(imread(tmp_path / "groups.png").shape[0])
    assert heights[0] < heights[1] == heights[2]
    assert imread(error_analysis.groups_picture(reading, tmp_path / "all.png")).shape[1] == 1800
    with pytest.raises(LenguaError):
        groups_figure([], 0.1, tmp_path / "none.png")


def test_changes_are_plain_data(reading):
    assert set(asdict(clip_changes(reading.pairs)[0])) == set(
        "id reference before after errors_before errors_after".split()
    )
