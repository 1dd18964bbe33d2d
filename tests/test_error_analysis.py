"""Error analysis: confusions, groups, what stands beside the rows of results.json, and how a notebook shows it."""

import json
import re
import time

import numpy as np
import pytest
from conftest import ROOT
from report_data import record, row
from test_failure_modes import SAID, records

from lengua.data import features
from lengua.data.leakage import find_leaks
from lengua.data.store import open_store
from lengua.evaluation.confusions import Confusion, count_confusions, rank_hard_words
from lengua.evaluation.diagnosis import CAUSES, diagnose_failures
from lengua.evaluation.error_analysis import analyse
from lengua.evaluation.failure_modes import decode_unguarded, find_failure_modes
from lengua.evaluation.recommendations import (
    clip_changes,
    clips_needed,
    detectable_difference,
    doubtful_references,
    recommend,
    words_to_record,
)
from lengua.evaluation.report.html import differs_from_rest
from lengua.evaluation.report.tables import with_interval
from lengua.evaluation.results import find_evaluation_store, read_evaluation
from lengua.evaluation.subgroups import Group, group_values, measure_groups
from lengua.inference import Transcriber
from lengua.notebook import error_analysis
from lengua.notebook.error_analysis import read_failure_study
from lengua.options import FeatureOptions
from lengua.runtime.errors import RequestError
from lengua.runtime.files import read_json, write_json, write_jsonl
from lengua.scoring import score


def numbered(number: int, reference: str, hypothesis: str, **more) -> dict:
    return {
        "id": f"c{number}",
        "reference": reference,
        "hypothesis": hypothesis,
        "duration_s": 5.0,
        "flags": [],
        **more,
    }


def test_words_by_hand():
    found = count_confusions(
        [
            numbered(0, "¿Él vino ayer?", "el vino ayer"),
            numbered(1, "Él no vino.", "El no bino"),
            numbered(2, "La casa blanca.", "La casa"),
            numbered(3, "Hola", "hola hola amigo"),
        ]
    )
    assert found.substitutions == (Confusion("él", "el", 2, "c0"), Confusion("vino", "bino", 1, "c1"))
    assert found.deletions == (Confusion("blanca", "", 1, "c2"),)
    assert found.insertions == (Confusion("", "amigo", 1, "c3"), Confusion("", "hola", 1, "c3"))
    assert found.letters == (Confusion("é", "e", 2, "c0"), Confusion("v", "b", 1, "c1"))
    assert found.left_out == 0


def test_letters_of_spanish():
    pairs = [("zapato", "sapato"), ("cereza", "seresa"), ("vaca", "baca"), ("corazón", "corazon"), ("hacha", "acha")]
    found = count_confusions([numbered(k, reference, hypothesis) for k, (reference, hypothesis) in enumerate(pairs)])
    assert {(one.reference, one.hypothesis): one.count for one in found.letters} == {
        ("z", "s"): 2, ("c", "s"): 1, ("v", "b"): 1, ("ó", "o"): 1, ("h", ""): 1
    }  # fmt: skip
    assert found.letters[0] == Confusion("z", "s", 2, "c0")


def test_letters_of_unlike_words_say_nothing():
    assert count_confusions([numbered(0, "perro", "gato"), numbered(1, "sol", "luna")]).letters == ()


def test_loops_are_left_out_and_counted():
    looped = numbered(1, "uno dos", "uno dos " * 20)
    flagged = numbered(2, "uno dos", "uno tres", flags=["looped"])
    found = count_confusions([numbered(0, "uno dos", "una dos"), looped, flagged])
    assert (found.left_out, [one.reference for one in found.substitutions], found.insertions) == (2, ["uno"], ())


def test_edges_and_order():
    nothing = count_confusions([])
    assert nothing.substitutions == nothing.letters == () and nothing.left_out == 0
    assert count_confusions([numbered(0, "", "")]).insertions == ()
    assert count_confusions([numbered(0, "", "hola")]).insertions == (Confusion("", "hola", 1, "c0"),)
    assert count_confusions([numbered(0, "hola", "")]).deletions == (Confusion("hola", "", 1, "c0"),)
    found = count_confusions([numbered(k, f"b{k} a{k}", "") for k in range(9)], most=3)
    assert [one.reference for one in found.deletions] == ["a0", "a1", "a2"]


# Groups

SUR = "España: Sur peninsular (Andalucia, Extremadura, Murcia)"


def differs(group: Group) -> bool:
    return bool(differs_from_rest(vars(group)))


def counted(errors: int, words: int = 10, speaker: str | None = "s0", seconds: float | None = 3.0, **extra) -> dict:
    counts = {"errors": errors, "words": words}
    return {"id": "x", "speaker": speaker, "duration_s": seconds, "extra": extra, "counts": counts}


def two_accents(speakers: int, apart: float, seed: int = 17) -> list[dict]:
    """So many speakers of each of two accents, ten clips each; the WER of b is higher by `apart`."""
    rng = np.random.default_rng(seed)
    rates = rng.beta(4, 16, 2 * speakers)
    return [
        counted(int(rng.binomial(10, rates[k] + apart * (k % 2))), speaker=f"s{k}", accent="ab"[k % 2])
        for k in range(2 * speakers)
        for _ in range(10)
    ]


@pytest.mark.parametrize(
    ("cell", "values"),
    [
        ("andino|caribe", ["andino", "caribe"]),
        ("andino,caribe, andino", ["andino", "caribe"]),
        (SUR, [SUR]),
        (f"{SUR},caribe", [SUR, "caribe"]),
        (f"{SUR}|de aquí, de allá", [SUR, "de aquí, de allá"]),
        ("", ["unknown"]),
        (" | ", ["unknown"]),
    ],
)
def test_several_accents_in_one_cell(cell, values):
    assert group_values(counted(0, accent=cell), "accent") == values
    assert group_values(counted(0, accents=cell), "accent") == values


def test_values_by_every_key():
    one = counted(0, age="forties", gender="male_masculine", speaker=None, seconds=None)
    assert [group_values(one, key) for key in ("age", "gender", "speaker", "duration", "variant")] == [
        ["fourties"], ["male"], ["unknown"], ["unknown"], ["unknown"]
    ]  # fmt: skip
    lengths = [group_values(counted(0, seconds=seconds), "duration")[0] for seconds in (0.5, 2, 4.99, 5, 10, 29)]
    assert lengths == ["under 2 s", "2 to 5 s", "2 to 5 s", "5 to 10 s", "10 s and more", "10 s and more"]
    assert group_values({"counts": {}}, "accent") == ["unknown"]


def test_counts_by_hand_and_order():
    records = [
        counted(1, speaker="a", age="sixties", accent="andino|caribe"),
        counted(3, speaker="a", age="sixties", accent="caribe"),
        counted(2, speaker="b", age="teens", accent="caribe"),
        counted(10, speaker="c"),
    ]
    found = measure_groups(records, ("age", "accent"))
    assert [(g.key, g.group, g.clips, g.speakers, g.words, g.errors) for g in found] == [
        ("age", "teens", 1, 1, 10, 2),
        ("age", "sixties", 2, 1, 20, 4),
        ("age", "unknown", 1, 1, 10, 10),
        ("accent", "caribe", 3, 2, 30, 6),
        ("accent", "andino", 1, 1, 10, 1),
        ("accent", "unknown", 1, 1, 10, 10),
    ]
    sixties = found[1]
    assert sixties.wer == 0.2 and sixties.wer_low <= 0.2 <= sixties.wer_high and sixties.unit == "utterance"
    assert sixties.difference == pytest.approx(0.2 - 12 / 20)
    assert sixties.small == "1 speaker, 20 words"
    assert found[0].wer_low is None and found[0].difference_low is None and not differs(found[0])


def test_what_is_large_enough_is_not_marked():
    found = measure_groups(two_accents(10, 0.1), ("accent", "speaker"))
    assert [(g.group, g.unit, g.small) for g in found if g.key == "accent"] == [
        ("a", "speaker", ""),
        ("b", "speaker", ""),
    ]
    of_speakers = [g for g in found if g.key == "speaker"]
    assert len(of_speakers) == 20 and {g.small for g in of_speakers} == {""} and of_speakers[0].difference is None
    assert measure_groups([counted(0, 5)], ("speaker",))[0].small == "5 words"


def test_a_difference_shows_where_there_is_one_and_mirrors():
    a, b = measure_groups(two_accents(25, 0.25), ("accent",))
    assert differs(b) and b.difference_low > 0 and a.difference_high < 0
    assert b.difference == pytest.approx(-a.difference)
    assert (b.difference_low, b.difference_high) == pytest.approx((-a.difference_high, -a.difference_low))
    assert abs(b.difference - 0.25) < 0.1


def test_no_difference_is_seldom_called_one():
    """Nominally one in twenty; 60 sets of 15 + 15 speakers leave room for chance."""
    found = [measure_groups(two_accents(15, 0.0, seed), ("accent",), resamples=400)[0] for seed in range(60)]
    assert sum(map(differs, found)) <= 8


def test_speakers_on_both_sides_are_drawn_on_both_sides():
    """Long clips of every speaker are worse by 0.1, exactly; speakers differ much: paired, that shows at once."""
    rng = np.random.default_rng(17)
    rates = rng.integers(0, 60, 20)
    lengths = [(k, seconds) for k in range(20) for seconds in (3, 7)]
    records = [counted(int(rates[k]) + 10 * (seconds > 5), 100, f"s{k}", seconds) for k, seconds in lengths]
    _, long = measure_groups(records, ("duration",))
    assert long.difference == pytest.approx(0.1) and differs(long)
    assert long.difference_high - long.difference_low < 1e-9 < long.wer_high - long.wer_low


def test_edges():
    assert measure_groups([]) == []
    (one,) = measure_groups([counted(1)], ("gender",))
    assert (one.group, one.clips, one.difference, one.wer_low) == ("unknown", 1, None, None)
    silent = measure_groups([counted(2, 0, gender="male"), counted(0, 0, gender="female")], ("gender",))
    assert [(g.group, g.wer, g.difference, g.difference_low) for g in silent] == [
        ("female", 0.0, -2.0, None), ("male", 2.0, 2.0, None)
    ]  # fmt: skip
    unknown = measure_groups(
        [counted(1, speaker=None, gender="male"), counted(1, speaker="", gender="female")], ("gender",)
    )
    assert [g.speakers for g in unknown] == [0, 0] and unknown[0].small == "0 speakers, 10 words"


def test_a_whole_test_set_takes_seconds():
    rng = np.random.default_rng(17)
    records = [
        counted(int(rng.integers(4)), 9, f"s{k % 1500}", float(rng.uniform(1, 12)), accent=f"a{k % 23}", age="teens")
        for k in range(15_000)
    ]
    started = time.perf_counter()
    found = measure_groups(records)
    assert len(found) > 1500 and time.perf_counter() - started < 60


# What stands beside the rows

A_TEXTS = ["uno dos tres", "el perro duerme", "la niña canta", "qué tal estás", "buenos días a todos"]


def analysed(model: str, window: str, hypotheses: list[str]) -> list[dict]:
    """Return what an evaluation would have written."""
    counts = score(A_TEXTS, hypotheses).counts
    return [
        {
            "model": model,
            "window": window,
            "set": "test",
            "id": f"clip-{at}",
            "speaker": "ab"[at % 2],
            "duration_s": 2.0,
            "extra": {"gender": ["female", "male"][at % 2]},
            "reference": reference,
            "hypothesis": hypothesis,
            "counts": dict(zip(counts.dtype.names, counts[at].tolist(), strict=True)),
            "flags": [],
        }
        for at, (reference, hypothesis) in enumerate(zip(A_TEXTS, hypotheses, strict=True))
    ]


A_BASE = analysed("base", "padded", ["uno dos", "el perro", "la nina canta", "que tal estas", "buenas días"])
PADDED = analysed("fine-tuned", "padded", A_TEXTS)
ADAPTIVE = analysed("fine-tuned", "adaptive", ["uno dos tres", "el gato duerme", *A_TEXTS[2:]])
A_NOTES = {"base": {}, "fine-tuned": {"window": "adaptive"}}


def test_the_model_that_was_asked_for_comes_first_in_its_own_window():
    analysis = analyse([*A_BASE, *PADDED, *ADAPTIVE], "es", A_NOTES, "base", resamples=100)
    assert analysis["about"] == "fine-tuned, adaptive"
    assert [(part["model"], part["window"]) for part in analysis["models"]] == [
        ("base", "padded"),
        ("fine-tuned", "padded"),
        ("fine-tuned", "adaptive"),
    ]
    [confusion] = analysis["confusions"]["substitutions"]
    assert (confusion["said"], confusion["heard"], confusion["count"]) == ("perro", "gato", 1)
    groups = {(group["key"], group["group"]) for group in analysis["groups"]}
    assert groups >= {("gender", "female"), ("gender", "male")}
    assert analysis["findings"] and analysis["leaks"] is None and "accents aside" in " ".join(analysis["notes"])
    json.dumps(analysis)  # results.json can hold it


def test_spelling_is_distinguished_from_wrong_words():
    base, *_ = analyse([*A_BASE, *ADAPTIVE], "es", A_NOTES, "base", resamples=100)["models"]
    assert base["views"]["accent_blind"]["wer"] < base["views"]["basic"]["wer"] <= base["views"]["raw"]["wer"]
    assert base["orthography"]["accents"] == 2 and base["orthography"]["letters"] == 1
    assert base["orthography"]["words"] == base["autopsy"]["deletions"] + 1


def test_the_wer_is_given_with_and_without_what_leaked():
    test = {"id": [f"clip-{at}" for at in range(5)], "text": A_TEXTS, "speaker": list("ababa")}
    train = {"id": ["other"], "text": ["El perro duerme."], "speaker": ["z"]}
    leaks = find_leaks(test, train)
    analysis = analyse(ADAPTIVE, "es", A_NOTES, None, leaks, {"clip-1"}, resamples=100)
    [part] = analysis["models"]
    assert part["without_leaks"] == {"clips": 4, "wer_with": 1 / 16, "wer_without": 0.0}
    assert "without what was found in training: fine-tuned (adaptive) 0.0 % instead of 6.2 %" in analysis["notes"][1]
    assert analysis["leaks"]["sentence"] == 1 and "1 by their sentence" in analysis["notes"][0]


# A finished evaluation read again

SENTENCES = [
    "el perro corre por la montaña", "la niña come pan en la montaña", "el mar está muy azul hoy",
    "hay un camión en la calle", "el corazón de la montaña", "mañana vamos al mar",
]  # fmt: skip
BEFORE = [text.replace("montaña", "montana").replace("está", "esta") for text in SENTENCES]
AFTER = [text.replace("montaña", "montana") for text in SENTENCES]


def written(folder, before, after, references=SENTENCES, speakers="ab", extra=None, **results):
    """Write an evaluation of a base and a fine-tuned model, and return its folder."""
    rows, records = [], []
    for model, window, texts in (("base", "padded", before), ("fine-tuned", "adaptive", after)):
        if texts is None:
            continue
        found = score(references, texts)
        kinds = {key: getattr(found, key) for key in ("cer", "substitutions", "deletions", "insertions")}
        rows.append(row(model, found.wer, window, **kinds))
        records += [
            record(model, f"clip {k}", reference, text, window, speaker=speakers[k % len(speakers)], extra=extra or {})
            for k, (reference, text) in enumerate(zip(references, texts, strict=False))
        ]
    write_json(folder / "results.json", {"rows": rows, "split": "test", "language": "es", **results})
    write_jsonl(folder / "hypotheses.jsonl", records)
    return folder


@pytest.fixture
def reading(tmp_path):
    return read_evaluation(written(tmp_path / "run/evaluation", BEFORE, AFTER))


def shown(reading) -> str:
    """Return everything that a notebook shows of an evaluation."""
    tables = "verdict_list resolution_list changes_table doubtful_table groups_table confusions_table words_table"
    return "\n".join(getattr(error_analysis, name)(reading) for name in [*tables.split(), "advice_list"])


def test_records_alone_are_laid_open(reading):
    assert reading.main == ("fine-tuned", "adaptive") and reading.other == "base"
    assert len(reading.pairs) == len(reading.after) == len(reading.before) == len(SENTENCES)
    assert reading.analysis["confusions"]["substitutions"][0].items() >= {"said": "montaña", "count": 3}.items()
    assert reading.store is None and reading.headline == "Undecided on test"


def test_what_the_results_hold_is_not_made_again(tmp_path, reading):
    made = {"groups": [], "findings": [], "confusions": {}, "notes": ["Mind this."]}
    again = read_evaluation(written(tmp_path / "other", BEFORE, AFTER, **made))
    assert again.analysis["groups"] == [] and "Mind this." in error_analysis.verdict_list(again)
    assert reading.analysis["groups"]


def test_other_languages_are_not_mixed_in(tmp_path):
    folder = written(tmp_path, BEFORE, AFTER)
    results, records = read_evaluation(folder).results, list(read_evaluation(folder).records)
    probe = record("fine-tuned", "x", "bonjour", "hola", "adaptive", set="sample:fr")
    write_jsonl(folder / "hypotheses.jsonl", [*records, probe])
    write_json(folder / "results.json", {**results, "rows": [*results["rows"], row("base", 1.0, name="sample:fr")]})
    assert [one["id"] for one in read_evaluation(folder).after] == [f"clip {k}" for k in range(len(SENTENCES))]
    assert {one["set"] for one in read_evaluation(folder).rows} == {"test"}


def test_the_store_is_found_beside_the_evaluation(tmp_path, tiny_store):
    folder = written(tmp_path / "run/evaluation", BEFORE, AFTER)
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
    found = clip_changes(read_evaluation(written(tmp_path, BEFORE, after)).pairs)
    assert [found[0].id, found[0].gained] == ["clip 0", -5]
    assert [found[-1].id, found[-1].gained] == ["clip 2", 1]


def test_texts_that_both_models_doubt_are_found(tmp_path):
    before, after = list(BEFORE), list(AFTER)
    before[3] = after[3] = "un gato duerme bajo la mesa"
    before[4], after[4] = "otra cosa muy distinta", "y otra cosa muy distinta"
    found = doubtful_references(read_evaluation(written(tmp_path, before, after)).pairs)
    assert [one.id for one in found] == ["clip 3"]


def test_silence_and_short_answers_are_no_doubt(tmp_path):
    references, hypotheses = ["uno dos tres", "sí"], ["", "no"]
    assert doubtful_references(read_evaluation(written(tmp_path, hypotheses, hypotheses, references)).pairs) == []


def test_hard_words_are_counted_with_what_was_written_for_them(reading):
    [word] = rank_hard_words(reading.after)
    assert (word.word, word.hypothesis, word.example) == ("montaña", "montana", "clip 0")
    assert (word.occurrences, word.wrong) == (3, 3)
    assert word.share == 1


def test_a_word_left_out_is_wrong_and_a_loop_says_nothing():
    found = rank_hard_words([record("m", "a", "el mar azul", "el azul"), record("m", "b", "hola", "hola " * 60)])
    assert [(one.word, one.hypothesis, one.wrong) for one in found] == [("mar", "", 1)]
    assert rank_hard_words([]) == []


def test_the_resolution_is_that_of_the_pairs(reading):
    found = detectable_difference(reading)
    assert found.difference == pytest.approx(-1 / sum(one["counts"]["words"] for one in reading.after))
    few, many = clips_needed(reading, 10.0), clips_needed(reading, 5.0)
    assert many == pytest.approx(4 * few, abs=4) and few >= 1


def test_everything_is_shown(reading, tmp_path):
    text = shown(reading)
    for part in (
        "Undecided on test",
        "montaña → montana (3)",
        "| as before | 5 |",
        "to show a difference of",
        "3 of 3",
    ):
        assert part in text
    assert error_analysis.signed_points(-0.04) == "−4.0"
    error_analysis.groups_picture(reading, tmp_path / "all.png")
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")


def test_advice_names_voices_words_and_size_with_their_figures(reading):
    text = error_analysis.advice_list(reading)
    assert "All 6 clips are by 2 speakers" in text
    assert "montaña" in text and "Wrong 3 of 3 times" in text
    assert "Measure on" in text
    assert [word.word for word in words_to_record(reading)] == ["montaña"]
    assert not any(sentence in text for sentence in SENTENCES), "a sentence of the test set is never advised"


def test_what_is_broken_comes_before_recording(tmp_path):
    loops = [" ".join([text] * 12) for text in SENTENCES]
    [first, *_] = recommend(read_evaluation(written(tmp_path, BEFORE, loops)))
    assert first.do.startswith("Before recording anything") and "do not stop" in first.because


def test_groups_that_are_worse_are_asked_for(tmp_path):
    sizes = {"clips": 90, "speakers": 20, "words": 900, "small": ""}
    group = {"key": "accent", "group": "Caribe", "wer": 0.4, "wer_low": 0.3, "wer_high": 0.5} | sizes
    group |= {"difference": 0.2, "difference_low": 0.1, "difference_high": 0.3}
    few = group | {"group": "Andino", "small": "2 speakers", "speakers": 2}
    folder = written(tmp_path, BEFORE, AFTER, groups=[group, few], findings=[], confusions={}, notes=[])
    text = error_analysis.advice_list(read_evaluation(folder))
    assert "More speech of accent Caribe" in text and "20.0 points above" in text
    assert "Test clips of Andino (2 speakers)" in text
    table = error_analysis.groups_table(read_evaluation(folder))
    assert (
        "| accent Caribe | 40.0 % (30.0 to 50.0) | +20.0 points |" in table
        and "Too small to tell: accent Andino" in table
    )


def test_nothing_to_report_is_reported(tmp_path):
    voices = [f"v{k}" for k in range(12)]
    reading = read_evaluation(written(tmp_path, SENTENCES * 4, SENTENCES * 4, SENTENCES * 4, voices))
    assert [one.do for one in recommend(reading)] == ["Test on more clips, of other people"]
    text = shown(reading)
    assert "Not one word is wrong." in text and "Nothing was taken for anything else." in text


def test_one_model_alone_is_read_too(tmp_path):
    reading = read_evaluation(written(tmp_path, BEFORE, None))
    assert reading.before == reading.pairs == [] and reading.main == ("base", "padded")
    assert shown(reading).count(error_analysis.ONLY_ONE_MODEL) == 2
    assert detectable_difference(reading) is None and clips_needed(reading, 1.0) is None


def test_markup_in_texts_stays_text(tmp_path):
    references = ["<b>uno</b> dos tres | *cuatro*", *SENTENCES[1:]]
    hypotheses = ["[x](http://evil.example) <script> dos | tres", *AFTER[1:]]
    text = shown(read_evaluation(written(tmp_path, hypotheses, hypotheses, references)))
    assert "<script" not in text and "<b>" not in text and not re.search(r"(?<!\\)\]\(", text)


# The failures that were measured


FAILURES = read_failure_study()["failures"]


def test_every_failure_has_its_figure_cause_and_cure():
    first, *broken, last = FAILURES
    assert (first, len(broken), last) == ("base", 7, "healthy")
    for failure in FAILURES.values():
        errors = failure["substitutions"] + failure["deletions"] + failure["insertions"]
        assert failure["wer"] == pytest.approx(errors / failure["words"]) and failure["wer_low"] <= failure["wer"]
        assert failure["findings"][0]["name"] in CAUSES and failure["findings"][0]["cure"]
        assert failure["said"] and failure["heard"]
    assert max(failure["wer"] for failure in FAILURES.values()) > 3, "this is the story of the 300 %"
    assert FAILURES["healthy"]["wer"] < FAILURES["base"]["wer"]


def test_the_figures_are_those_of_the_results():
    text = (ROOT / "benchmarks/RESULTS.md").read_text(encoding="utf-8")
    section = re.search(r"## How 300 % comes about\n(.*?)(?=\n## |\Z)", text, re.DOTALL)[1]
    rows = {row.split(" | ")[0].strip("| "): row for row in section.splitlines() if row.startswith("| ")}
    for failure in FAILURES.values():
        row = rows[failure["title"]]
        assert f"| {with_interval(failure)} |" in row and f"| {failure['loss']:.2f} |" in row
        assert row.endswith(f"| {failure['findings'][0]['name']} |")
    assert read_failure_study()["command"] in section


def test_a_story_tells_what_was_measured_and_what_to_do(tmp_path):
    story = error_analysis.format_failures("end_masked")
    failure, method = FAILURES["end_masked"], error_analysis.study_method()
    for part in (failure["title"], with_interval(failure), "cause", CAUSES["end_masked"]["cure"], "letters more"):
        assert part in story
    assert len(story) < 1500 and "- cause" not in error_analysis.format_failures("healthy")
    assert all(failure["title"] in error_analysis.format_failures() for failure in FAILURES.values())
    assert read_failure_study()["where"] in method and "Allison" in method
    error_analysis.failures_picture(tmp_path / "failures.png")
    assert (tmp_path / "failures.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_only_in_a_batch_is_named_as_such():
    silent = FAILURES["double_start"]
    assert "shows in a batch" in error_analysis.format_failure(silent)
    assert "shows in the transcripts" in error_analysis.format_failure(silent | {"by_text": ["double_start"]})


def test_markup_in_a_transcript_stays_text():
    story = error_analysis.format_failure(FAILURES["base"] | {"heard": "*a* <b>[c](d)</b>\n# e"})
    assert "\\*a\\* &lt;b&gt;\\[c\\](d)&lt;/b&gt; \\# e" in story


def test_a_file_that_is_missing_or_of_another_version_is_an_error(tmp_path):
    with pytest.raises(RequestError, match=r"three_hundred\.py --record"):
        read_failure_study(tmp_path / "none.json")
    kept = read_json(error_analysis.FAILURE_STUDY_FILE)
    del kept["failures"][0]["loss"]
    write_json(tmp_path / "old.json", kept)
    with pytest.raises(RequestError, match="record them again"):
        read_failure_study(tmp_path / "old.json")


def test_findings_come_with_cause_and_cure():
    found = diagnose_failures(
        find_failure_modes(records(["" for _ in SAID]), "es"),
        find_failure_modes(records(SAID), "es"),
        {"window": "adaptive"},
    )
    text = error_analysis.findings_list(found)
    assert text.count("- cause") == len(found) and found[0].cure in text
    assert error_analysis.findings_list([vars(one) for one in found]) == text
    healthy = error_analysis.findings_list(FAILURES["healthy"]["findings"])
    assert healthy.endswith("(healthy): no known failure shows, nothing needs mending.")


def test_clips_are_decoded_in_a_window_without_a_guard(tiny_store, tiny_model):
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
    text = error_analysis.reproduce_failure(str(tiny_model), "es", split, 3)
    assert "| padded to 30 s |" in text and "| speech and 0.3 s |" in text
    assert any(words in text for words in ("- cause", "got away"))


@pytest.mark.slow
@pytest.mark.real
def test_an_untouched_whisper_does_not_stop_in_a_short_window(common_voice_es, base_model, tmp_path):
    built = features.build(FeatureOptions(f"common_voice:{common_voice_es}", tmp_path / "store", splits=("train",)))
    text = error_analysis.reproduce_failure(str(base_model), "es", open_store(built.path).split("train"))
    padded, short = (float(rate) for rate in re.findall(r"\| ([\d.]+) % \|", text))
    assert short > 100 > padded and "(short_window)" in text
