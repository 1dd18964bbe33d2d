"""The failures that notebooks tell of: their figures are those that were recorded, and one of them can be provoked."""

import re
from dataclasses import replace

import pytest
from conftest import ROOT
from test_autopsy import SAID, records

from lengua.data import features
from lengua.data.store import open_store
from lengua.evaluation.diagnosis import CAUSES, diagnose_failures
from lengua.evaluation.failure_modes import decode_unguarded, find_failure_modes
from lengua.evaluation.report.tables import with_interval
from lengua.inference import Transcriber
from lengua.notebook import error_analysis as told
from lengua.notebook.error_analysis import BASE_RUN, FAILURE_STUDY_FILE, HEALTHY_RUN, read_failure_study, read_failures
from lengua.options import FeatureOptions
from lengua.runtime.errors import RequestError
from lengua.runtime.files import read_json, write_json


def test_every_failure_has_its_figure_cause_and_cure():
    found = read_failures()
    assert len(found) == 9
    assert (found[0].name, found[-1].name) == (BASE_RUN, HEALTHY_RUN)
    for failure in found:
        errors = failure.substitutions + failure.deletions + failure.insertions
        assert failure.wer == pytest.approx(errors / failure.words) and failure.wer_low <= failure.wer
        assert failure.findings[0].name in CAUSES and failure.findings[0].cure
        assert failure.said and failure.heard
    assert max(failure.wer for failure in found) > 3, "this is the story of the 300 %"
    assert read_failure_study().failures[HEALTHY_RUN].wer < read_failure_study().failures[BASE_RUN].wer


def test_the_figures_are_those_of_the_results():
    text = (ROOT / "benchmarks/RESULTS.md").read_text(encoding="utf-8")
    section = re.search(r"## How 300 % comes about\n(.*?)(?=\n## |\Z)", text, re.DOTALL)[1]
    rows = {row.split(" | ")[0].strip("| "): row for row in section.splitlines() if row.startswith("| ")}
    for failure in read_failures():
        row = rows[failure.title]
        assert f"| {with_interval(vars(failure))} |" in row and f"| {failure.loss:.2f} |" in row
        assert row.endswith(f"| {failure.findings[0].name} |")
    assert read_failure_study().command in section


def test_a_story_tells_what_was_measured_and_what_to_do():
    failure = read_failure_study().failures["end_masked"]
    story = told.format_failure(failure)
    for part in (failure.title, with_interval(vars(failure)), "cause", CAUSES["end_masked"].cure, "letters more"):
        assert part in story
    assert len(story) < 1500
    assert "- cause" not in told.format_failure(read_failure_study().failures[HEALTHY_RUN])
    assert all(failure.title in told.format_failures() for failure in read_failures())
    assert told.format_failures("rate") == told.format_failure(read_failure_study().failures["rate"])
    assert read_failure_study().where in told.study_method() and "Allison" in told.study_method()


def test_what_is_only_in_a_batch_is_said_to_be():
    silent = read_failure_study().failures["double_start"]
    assert not silent.shows_in_text and "shows in a batch" in told.format_failure(silent)
    loud = replace(silent, by_text=("double_start",))
    assert loud.shows_in_text and "shows in the transcripts" in told.format_failure(loud)


def test_markup_in_a_transcript_stays_text():
    story = told.format_failure(replace(read_failure_study().failures[BASE_RUN], heard="*a* <b>[c](d)</b>\n# e"))
    assert "\\*a\\* &lt;b&gt;\\[c\\](d)&lt;/b&gt; \\# e" in story


def test_a_file_that_is_missing_or_of_another_version_is_an_error(tmp_path):
    with pytest.raises(RequestError, match=r"three_hundred\.py --record"):
        read_failure_study(tmp_path / "none.json")
    kept = read_json(FAILURE_STUDY_FILE)
    del kept["failures"][0]["loss"]
    write_json(tmp_path / "old.json", kept)
    with pytest.raises(RequestError, match="record them again"):
        read_failure_study(tmp_path / "old.json")


def test_all_are_drawn(tmp_path):
    from matplotlib.image import imread

    assert imread(told.failures_picture(tmp_path / "failures.png")).shape[1] == 1800


def test_findings_come_with_cause_and_cure():
    found = diagnose_failures(
        find_failure_modes(records(["" for _ in SAID]), "es"),
        find_failure_modes(records(SAID), "es"),
        {"window": "adaptive"},
    )
    text = told.findings_list(found)
    assert text.count("- cause") == len(found) and found[0].cure in text
    assert told.findings_list([vars(one) for one in found]) == text
    healthy = told.findings_list(read_failure_study().failures[HEALTHY_RUN].findings)
    assert healthy.endswith("(healthy): no known failure shows, nothing needs mending.")


def test_clips_are_heard_in_a_window_without_a_guard(tiny_store, tiny_model):
    transcriber, split = Transcriber(str(tiny_model), "es"), tiny_store.split("test")
    rows = [split[index] for index in range(len(split))]
    for margin in (None, 0.05):
        found = decode_unguarded(transcriber, rows, margin, most=5)
        assert [one["id"] for one in found] == split.column("id")
        assert [one["reference"] for one in found] == split.column("text")
        assert all(one["tokens"] <= 5 for one in found) and {"length_limit"} in [set(one["flags"]) for one in found]
    assert find_failure_modes(found, "es").utterances == len(rows)


def test_what_was_provoked_is_shown_and_explained(tiny_store, tiny_model):
    split = tiny_store.split("test")
    text = told.reproduce_failure(str(tiny_model), "es", split, 3)
    assert "| padded to 30 s |" in text and "| speech and 0.3 s |" in text
    assert any(words in text for words in ("- cause", "got away"))


@pytest.mark.slow
@pytest.mark.real
def test_an_untouched_whisper_does_not_stop_in_a_short_window(common_voice_es, base_model, tmp_path):
    built = features.build(FeatureOptions(f"common_voice:{common_voice_es}", tmp_path / "store", splits=("train",)))
    text = told.reproduce_failure(str(base_model), "es", open_store(built.path).split("train"))
    padded, short = (float(rate) for rate in re.findall(r"\| ([\d.]+) % \|", text))
    assert short > 100 > padded and "(short_window)" in text
