"""The mirror: blind order, picks that count and those that do not, what a count means, and the files of it."""

import csv
import io
import json
import logging
from dataclasses import replace
from functools import partial
from math import comb
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import chirp
from standin_page import Visitor, build, parts_of, request_in, saying, that_hears

from lengua.app import compare_tab
from lengua.app.compare_tab import (
    MIN_PICKS,
    BlindPair,
    LatestRecording,
    MirrorHandlers,
    Pick,
    Tally,
    chance_bound,
    picks_as_csv,
    picks_as_json,
    picks_still_needed,
    tally_verdict,
)
from lengua.app.highlighting import highlight_differences
from lengua.app.i18n import Wording
from lengua.inference import Transcriber
from lengua.runtime.errors import LenguaError

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # event loops that gradio leaves to the collector

TUNED, BASE = "el camión rojo", "el camion rojo y"
SPANISH, ENGLISH = request_in("es-MX"), request_in("en")


@pytest.fixture(scope="module")
def tuned(tiny_model) -> Transcriber:
    return that_hears(tiny_model, TUNED)


@pytest.fixture(scope="module")
def base(tiny_model) -> Transcriber:
    return that_hears(tiny_model, BASE)


@pytest.fixture
def glass(tuned, base) -> MirrorHandlers:
    return MirrorHandlers(parts_of(tuned, lambda: base))


@pytest.fixture(scope="module")
def spoken(tmp_path_factory) -> Path:
    return wav(tmp_path_factory.mktemp("spoken") / "loud.wav", chirp(2, 200))


def wav(path: Path, samples: np.ndarray) -> Path:
    soundfile.write(path, samples, 16_000)
    return path


def tally_of(tuned: int = 0, base: int = 0, both: int = 0, none: int = 0, seen: int = 0, alike: int = 0) -> Tally:
    pair = BlindPair(TUNED, BASE, "left", seconds=2.0)
    counted = ["left"] * tuned + ["right"] * base + ["both"] * both + ["none"] * none
    made = [Pick(pair, choice) for choice in counted] + [Pick(replace(pair, seen=True), "left")] * seen
    return Tally(tuple(made), alike)


def message_in(language: str):
    return partial(Wording().message, request_in(language))


# What a count means


def ever_crossed(crosses, most: int = 200) -> float:
    """Return the exact chance that two equal models ever cross a line within so many picks, looking after each."""
    left, crossed = {0: 1.0}, 0.0
    for n in range(1, most + 1):
        reached = {k: (left.get(k, 0) + left.get(k - 1, 0)) / 2 for k in range(n + 1)}
        crossed += sum(share for k, share in reached.items() if crosses(k, n - k))
        left = {k: share for k, share in reached.items() if not crosses(k, n - k)}
    return crossed


def by_sign_test(tuned: int, base: int) -> float:
    n = tuned + base
    return min(1.0, 2 * sum(comb(n, k) for k in range(max(tuned, base), n + 1)) / 2**n)


def test_who_looks_after_every_pick_is_fooled_no_more_often_than_told_and_would_be_by_the_usual_test():
    def means(tuned: int, base: int) -> bool:
        return chance_bound(tuned, base) <= compare_tab.SIGNIFICANCE_LEVEL

    assert 0.005 < ever_crossed(means) < compare_tab.SIGNIFICANCE_LEVEL
    assert round(1 / ever_crossed(means, most=50)) == 43  # as docs/mirror-and-keeping.md tells
    assert round(1 / ever_crossed(lambda k, rest: by_sign_test(k, rest) <= 0.05, most=50)) == 6


def test_fewer_than_eight_picks_mean_nothing():
    assert chance_bound(9, 0) == chance_bound(0, 9) == 10 / 2**9 and chance_bound(6, 4) == chance_bound(0, 0) == 1.0
    assert MIN_PICKS == 8
    assert all(chance_bound(n, 0) > compare_tab.SIGNIFICANCE_LEVEL for n in range(MIN_PICKS))
    assert chance_bound(MIN_PICKS, 0) <= compare_tab.SIGNIFICANCE_LEVEL
    assert picks_still_needed(5, 0) == 3 and picks_still_needed(5, 5) > 8 and picks_still_needed(30, 2) == 0


@pytest.mark.parametrize(
    "side, choice, winner",
    [("left", "left", "tuned"), ("right", "left", "base"), ("right", "right", "tuned"), ("right", "none", "none")],
)
def test_a_pick_counts_for_the_model_that_stood_there(side, choice, winner):
    assert Pick(BlindPair("a", "b", side), choice).winner == winner


def test_the_sentence_says_when_it_may_be_chance_and_what_is_missing():
    told = tally_verdict(tally_of(tuned=3, base=1, seen=2, alike=5), message_in("es"))
    assert "afinado 3, base 1, los dos 0, ninguno 0" in told and "puede ser azar" in told
    assert f"al menos {picks_still_needed(3, 1)} elecciones más" in told and "nunca menos de 8" in told
    assert told.endswith("Sin contar, por no ser a ciegas: 2. Oídas igual por los dos: 5.")


@pytest.mark.parametrize("tuned, base, leader", [(10, 0, "fine-tuned model"), (0, 10, "base model")])
def test_the_sentence_says_what_a_clear_count_means_and_what_not(tuned, base, leader):
    told = tally_verdict(tally_of(tuned, base), message_in("en"))
    assert f"at most 1 visit of {2**10 // 11}" in told and f"the {leader} hears better" in told
    assert "of other voices it says nothing" in told


def test_picks_as_json_hold_all_that_was_picked():
    told = json.loads(picks_as_json(tally_of(tuned=1, seen=1, alike=2), "mío", "openai/whisper-base", "quién sabe"))
    assert told["models"] == {"tuned": "mío", "base": "openai/whisper-base"}
    assert told["counts"] == {"tuned": 1, "base": 0, "both": 0, "none": 0, "alike": 2, "not_blind": 1}
    assert tally_of(tuned=2, base=1, both=1, none=1, seen=4).counts == {"tuned": 2, "base": 1, "both": 1, "none": 1}
    assert [pick["blind"] for pick in told["picks"]] == [True, False]
    assert told["picks"][0] | {"blind": None} == {
        "picked": "tuned", "side": "left", "blind": None, "seconds": 2.0, "tuned": TUNED, "base": BASE,
    }  # fmt: skip


@pytest.mark.parametrize("text", ["=1+1", " +34", "-2", "@sum(a1)", "\tx", "\rx"])
def test_a_spreadsheet_takes_no_text_for_a_formula(text):
    (row,) = csv.DictReader(
        io.StringIO(picks_as_csv(Tally((Pick(BlindPair(text, 'a, "b"\nc', "left"), "both"),))), newline="")
    )
    assert row["tuned"] == f"'{text}" and row["base"] == 'a, "b"\nc'


# Words that differ


def test_words_that_differ_are_marked_on_both_sides_and_a_missing_one_leaves_a_gap():
    tuned, base = highlight_differences(TUNED, BASE, "es"), highlight_differences(BASE, TUNED, "es")
    assert tuned.count("<mark") == 1 and "<mark class='differs'>camión</mark>" in tuned and "class='gap'" in tuned
    assert "<mark class='differs'>y</mark>" in base and "class='gap'" not in base
    assert "<mark" not in highlight_differences("¿Qué tal, Niña?", "qué tal niña", "es")
    loop = highlight_differences("no " * 900, "sí", "es")
    assert loop.count("no") == 800 and loop.endswith(" …</p>"), "cut where a page ends"


def test_what_was_said_is_never_markup():
    shown = highlight_differences("<img src=x onerror=alert(1)> & ${alert(1)} {{this}}", "<b>otra</b>", "es'><script>")
    assert "<img" not in shown and "<b>" not in shown and "<script" not in shown
    assert "&lt;img" in shown and "es&#x27;&gt;" in shown


# Comparing


def compared(glass: MirrorHandlers, recording: Path | None, seen: bool = False, request=SPANISH):
    """Return (Shown, tally) of each thing that is shown while two models hear a clip."""
    page = recording and str(recording), Tally(), LatestRecording()
    steps = glass.compare(*page, request) if seen else glass.after_transcribing(*page, True, (1,), request)
    return [(compare_tab.MirrorOutputs(*step[:-1]), step[-1]) for step in steps]


def test_both_hear_the_same_clip_and_nothing_tells_which_is_which(glass, spoken):
    (first, _), (shown, tally) = compared(glass, spoken)
    assert "Oyendo con los dos modelos…" in first.note
    assert {shown.pair.left, shown.pair.right} == {TUNED, BASE} and not shown.pair.seen
    assert shown.pair.seconds == 2.0 and tally == Tally()
    assert (
        shown.choices["visible"] is True
        and compare_tab.WAITING_CLASS in first.note
        and compare_tab.WAITING_CLASS in shown.note
    )
    everything = f"{shown.left}{shown.right}{shown.note}"
    assert "modelo afinado" not in everything and "modelo base" not in everything
    assert "aria-label='A'" in shown.left and "aria-label='B'" in shown.right


def test_the_order_is_drawn_anew_each_time(glass, spoken):
    sides = [compared(glass, spoken)[-1][0].pair for _ in range(30)]
    assert {pair.tuned for pair in sides} == {"left", "right"}  # by chance not so once in 500 million
    assert all((pair.left if pair.tuned == "left" else pair.right) == TUNED for pair in sides)


@pytest.mark.parametrize("opened, segments, seen", [(False, (1,), True), (True, (1,), True), (True, (), False)])
def test_what_is_heard_once_more_is_blind_only_where_there_was_no_text(glass, spoken, opened, segments, seen):
    latest = LatestRecording()
    list(glass.after_transcribing(str(spoken), Tally(), latest, opened, segments, SPANISH))
    *_, last = glass.after_transcribing(str(spoken), Tally(), latest, True, (1,), SPANISH)
    assert compare_tab.MirrorOutputs(*last[:-1]).pair.seen == seen


@pytest.mark.parametrize("opened, segments", [(False, (1,)), (True, ())], ids=["closed", "nothing heard"])
def test_a_closed_mirror_does_no_work(glass, spoken, opened, segments):
    (step,) = glass.after_transcribing(str(spoken), Tally(), LatestRecording(), opened, segments, SPANISH)
    assert (compare_tab.MirrorOutputs(*step[:-1]), step[-1]) == (compare_tab.MirrorOutputs(), Tally())


def test_a_pick_tells_which_was_which_and_counts_once(glass, spoken):
    pair = compared(glass, spoken)[-1][0].pair
    *shown, tally, files = glass.pick(pair.tuned, pair, Tally(), SPANISH)
    shown = compare_tab.MirrorOutputs(*shown)
    winner, other = (shown.left, shown.right) if pair.tuned == "left" else (shown.right, shown.left)
    assert "· modelo afinado" in winner and "· modelo base" in other
    assert tally.counts["tuned"] == 1 and "afinado 1, base 0" in shown.note
    assert shown.pair is None and shown.choices["visible"] is False and compare_tab.WAITING_CLASS not in shown.note
    assert files["visible"] is True
    *_, again, _ = glass.pick("left", shown.pair, tally, SPANISH)
    assert again == tally
    full = tally_of(tuned=compare_tab.MAX_PICKS)
    assert glass.pick("left", pair, full, SPANISH)[-2] is full, "picks are bounded"


def test_where_both_heard_the_same_words_there_is_nothing_to_pick(glass, base, spoken, monkeypatch):
    monkeypatch.setattr(base.engine, "generate", saying(base, "El camión, rojo."))
    shown, tally = compared(glass, spoken, request=ENGLISH)[-1]
    assert "there is nothing to pick" in shown.note and shown.choices["visible"] is False
    assert tally.alike == 1 and shown.pair is None and compare_tab.WAITING_CLASS not in shown.note
    assert "fine-tuned model" in shown.left + shown.right


def test_a_side_without_words_and_a_text_that_was_in_sight_are_told(glass, base, spoken, monkeypatch):
    monkeypatch.setattr(base.engine, "generate", saying(base, ""))
    shown, _ = compared(glass, spoken, seen=True)[-1]
    assert f"{shown.left}{shown.right}".count("(no oyó palabras)") == 1
    assert shown.pair.seen and compare_tab.WAITING_CLASS not in shown.note and "no contará" in shown.note


def test_a_recording_that_is_not_let_in_gives_one_plain_sentence(glass, tmp_path):
    long = wav(tmp_path / "long.wav", np.tile(chirp(2, 200), 16))
    silent = wav(tmp_path / "silent.wav", np.zeros(32_000))
    message = partial(Wording().message, SPANISH)
    for recording, key in ((long, "mirror.too_long"), (silent, "refusal.silent"), (None, "refusal.missing")):
        shown, _ = compared(glass, recording)[-1]
        assert message(key) in shown.note and compare_tab.WAITING_CLASS not in shown.note and shown.pair is None


def no_base() -> Transcriber:
    raise LenguaError("weights", "none at /secret/place", "bring some")


def test_without_base_weights_the_reader_is_told_and_the_log_knows_why(tuned, spoken, caplog):
    shown, _ = compared(MirrorHandlers(parts_of(tuned, no_base)), spoken)[-1]
    assert "modelo base" in shown.note and "secret" not in shown.note
    assert "/secret/place" in caplog.text


def test_a_failure_is_logged_and_not_shown_and_leaves_the_line(glass, base, spoken, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(base.engine, "generate", fail)
    with caplog.at_level(logging.ERROR, "lengua.app.compare_tab"):
        shown, _ = compared(glass, spoken)[-1]
    assert "Algo falló aquí" in shown.note and "secret" not in shown.note and "secret detail" in caplog.text
    assert len(glass.parts.admission.line) == 0


def test_who_waits_is_told_how_many_are_ahead(glass, spoken):
    line = glass.parts.admission.line
    steps = glass.compare(str(spoken), Tally(), LatestRecording(), SPANISH)
    with line.enter():
        next(steps)
        assert "En cola, 1 delante de ti" in next(steps)[3]
    shown = compare_tab.MirrorOutputs(*list(steps)[-1][:-1])
    assert shown.pair is not None and len(line) == 0


def test_what_comes_too_late_is_dropped_for_it_would_unveil_a_newer_text(glass, spoken):
    latest = LatestRecording()
    steps = glass.after_transcribing(str(spoken), Tally(), latest, True, (1,), SPANISH)
    next(steps)
    glass.recorded("a newer one", latest)
    assert list(steps) == [] and len(glass.parts.admission.line) == 0


def test_the_files_name_models_and_no_place_of_this_machine(glass, tuned):
    file = glass.json(tally_of(tuned=1), ENGLISH)
    assert json.loads(file["text"])["models"]["tuned"] == "model"
    assert str(Path(tuned.model).parent) not in file["text"]
    assert glass.csv(tally_of(base=1))["text"].count("\r\n") == 2


# The page


@pytest.fixture
def page(tuned, base):
    demo = build(compare_tab.build_compare_tab, parts_of(tuned, lambda: base))
    demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, ssr_mode=False)
    yield demo
    demo.close(verbose=False)


def test_the_page_hides_the_text_until_the_pick_and_two_visitors_share_nothing(page, spoken):
    one, other = Visitor(page), Visitor(page, "en")
    file, theirs = one.upload(spoken), other.upload(spoken)
    one.does("<lambda>")
    one.does("heard_in", file)
    assert compare_tab.WAITING_CLASS in one.does("after_transcribing", file, None, None, None, None)[3]
    told = one.does("pick", None, None, None)[3]
    assert "A ciegas" in told and "puede ser azar" in told
    other.does("compare", theirs, None, None)
    told = other.does("pick", None, None, None, which=2)[3]
    assert "both 0" in told and "Not counted, because not blind: 1." in told
    assert "espejo.csv" in str(one.does("csv", None)) and TUNED in str(one.does("csv", None))
