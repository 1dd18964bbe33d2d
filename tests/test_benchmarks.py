"""The benchmarks: their harness, what they make of what they measure, and their course with a tiny Whisper."""

import importlib
import io
import os
import shutil
import time
import xml.etree.ElementTree as xml
from dataclasses import dataclass, replace
from pathlib import Path

import doc_pages  # noqa: F401 - puts them on the path
import numpy as np
import pytest
import soundfile
from conftest import ROOT, chirp
from PIL import Image

from lengua.app.i18n import Wording
from lengua.runtime.errors import RequestError
from lengua.runtime.files import write_json
from lengua.training.samplers import SampledClip

harness, inference, peers, pictures = map(
    importlib.import_module, ("harness", "inference", "inference_peers", "pictures")
)
OURS, USUAL = "Transcriber", "usual recipe"
SPOKEN = "uno dos tres cuatro cinco seis"


# The harness


@dataclass(frozen=True)
class SomeOptions(harness.BenchmarkOptions):
    names: tuple[str, ...] = ("a",)
    model: str = "runs/demo"
    share: float = 0.5
    clips: int | None = None
    test: bool = True
    packed: bool = False


@pytest.mark.parametrize(
    ("asked", "typed"),
    [
        ({}, " --model runs/demo"),
        ({"model": "runs/my demo", "clips": 3, "packed": True}, " --model 'runs/my demo' --clips 3 --packed"),
        ({"names": ("b", "c"), "share": 1.0, "test": False}, " b c --model runs/demo --share 1 --no-test"),
    ],
)
def test_what_is_recorded_is_the_command_that_was_asked_for(asked, typed):
    assert (
        harness.command_of(SomeOptions(**asked), ("model",), "names") == "python benchmarks/test_benchmarks.py" + typed
    )


def test_a_record_takes_the_place_of_the_one_before(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "RESULTS.md")
    for title, line in (("One", "old"), ("Two", "other"), ("One", "new")):
        assert harness.report(SomeOptions(record=True), title, [line], {"a": 1}) == {"a": 1}
    text = harness.RESULTS.read_text()
    assert "old" not in text and text.index("## One") < text.index("new") < text.index("## Two") < text.index("other")
    assert capsys.readouterr().out.splitlines()[-2:] == ["new", '{"a": 1}']
    with pytest.raises(SystemExit):
        harness.report(SomeOptions(record=True), "Three", ["bad"], {}, good=False)
    assert "Three" not in harness.RESULTS.read_text()


def test_sides_take_turns_and_the_median_counts(monkeypatch):
    calls, clock = [], iter(range(1000))
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    sides = {name: lambda item, name=name: calls.append((name, item)) for name in "ab"}
    assert harness.alternate(sides, items=2, rounds=3) == {"a": [1, 1], "b": [1, 1]}
    assert len(calls) == 12 and [name for name, _ in calls[:4]] == ["b", "a", "a", "b"]


def test_a_side_has_a_process_of_its_own():
    with harness.FreshProcess() as process:
        assert process.call(os.getpid) not in (os.getpid(), os.getppid())


# Inference


@pytest.fixture
def heard():
    """Four clips of two sets, 1 s each, and what three programs made of them: ours, a fast good one, a fast bad one."""
    clips = [
        inference.Clip(name, f"s{at}", SPOKEN, np.zeros(16_000)) for at, name in enumerate("one one two two".split())
    ]
    seconds = {"good": [0.4] * 4, "bad": [0.05] * 4, OURS: [0.1, 0.1, 0.1, 0.3]}
    good = [SPOKEN] * 3 + ["uno dos tres cuatro cinco"]
    return clips, seconds, {"good": good, "bad": ["nada"] * 4, OURS: [SPOKEN] * 4}


def test_the_fastest_is_whoever_is_fastest_and_not_absurd():
    cost, wer = {"a": 3.0, "b": 2.0, "c": 1.0, OURS: 0.5}, {"a": 0.2, "b": 0.29, "c": 0.31, OURS: 0.2}
    assert inference.fastest(cost, wer) == "b"
    assert inference.fastest(cost, wer | {"c": 0.30}) == "c", "ten points above ours still count"
    assert inference.fastest({OURS: 1.0}, {OURS: 0.2}) is None


def test_figures_of_each_program(heard):
    found = inference.figures(*heard)
    ours, good = found[OURS], found["good"]
    assert (ours.ms, ours.ms_median, ours.rtf) == pytest.approx((150, 100, 0.15))
    assert (ours.wer, good.wer, found["bad"].wer) == (0.0, 1 / 24, 1.0)
    assert good.ours_minus == -1 / 24 and good.low <= -1 / 24 <= good.high <= 0
    assert (ours.ours_minus, ours.low, ours.high) == (0.0, 0.0, 0.0)


def test_the_verdict_names_the_fastest_of_each_kind_and_the_words(heard):
    clips, seconds, texts = heard
    more = {peers.SHORT: [0.3] * 4, peers.BORROWED: [0.2] * 4}
    found = inference.verdict(clips, seconds | more, texts | dict.fromkeys(more, texts["good"]))
    assert (found["fastest_peer"], found["speedup"]) == (peers.BORROWED, 1.33)
    assert (found["fastest_as_its_users_run_it"], found["speedup_as_its_users_run_it"]) == (peers.SHORT, 2.0)
    assert (found["fastest_padding_peer"], found["speedup_padding"]) == ("good", 2.67)
    assert (found["wer_peer"], found["wer_ours"], found["not_worse"]) == (0.0417, 0.0, True)
    assert found["difference"][0] == -0.0417 and found["speakers"] == found["clips"] == 4
    worse = inference.verdict(clips, seconds, texts | {"good": texts[OURS], OURS: texts["good"]})
    assert worse["difference"][0] == 0.0417 and worse["not_worse"] is False
    alone = inference.verdict(clips, {OURS: seconds[OURS]}, texts)
    assert [alone[key] for key in ("fastest_peer", "speedup", "wer_peer", "not_worse")] == [None] * 4


def test_the_tables(heard):
    sets = inference.by_set(*heard)
    assert {name: one["speedup"] for name, one in sets.items()} == {"one": 4.0, "two": 2.0}
    assert inference.set_lines(sets)[2] == "| good | 400 | 0.0% | 400 | 8.3% |"
    lines = inference.clip_lines(inference.verdict(*heard), {"good": inference.Cold(1.26, 512.4)})
    assert "peak MB" in lines[0] and lines[2].endswith("| 512 | 1.3 |")
    assert lines[3].startswith("| bad (not counted) | 50 / 50 | 0.3 |")
    assert lines[4] == f"| {OURS} | 150 / 100 | 1.0 | 0.150 | 0.0% |  |  |  |"
    long = {"a": (20.0, "uno dos"), "b": (5.0, "tres"), OURS: (10.0, "uno dos")}
    found = inference.long_verdict(long, "uno dos", 120.0)
    assert (found["fastest_peer"], found["speedup"], found["minutes"]) == ("a", 2.0, 2.0)
    assert found["programs"]["b"] == {"seconds": 5.0, "times_real_time": 24.0, "wer": 1.0}
    assert inference.long_lines(found)[-1] == f"| {OURS} | 10.0 | 12.0 | 1.00 | 0.0% |"


def test_clips_are_joined_with_pauses_as_loud_as_the_quietest_moment_until_the_time_is_full():
    rng = np.random.default_rng(1)
    some = [inference.Clip("one", "s", text, rng.normal(0, 0.1, 8000).astype(np.float32)) for text in ("uno", "dos")]
    samples, text = inference.joined(some, 0.1)
    assert np.array_equal(samples, inference.joined(some, 0.1)[0]) and samples.dtype == np.float32
    assert 6 <= len(samples) / 16_000 < 6 + 0.5 + 1.2
    assert set(text.split()) == {"uno", "dos"} and abs(text.count("uno") - text.count("dos")) <= 1
    levels = np.concatenate([np.full(1600, 0.5), np.full(1600, 0.01), np.full(800, 0.001)]).astype(np.float32)
    tone = inference.room_tone(levels, 2.0, np.random.default_rng(17))
    assert len(tone) == 32_000 and float(tone.std()) == pytest.approx(0.01, rel=0.05)


def test_real_clips_are_spread_over_the_speakers(common_voice_es):
    clips = inference.common_voice_clips(common_voice_es, 6)
    assert len(clips) == 6 and len({clip.speaker for clip in clips}) >= 4
    assert all(clip.text and 0.5 < clip.seconds < 15 for clip in clips)


def test_audio_context_of_whisper_cpp():
    assert [peers.audio_context(*one) for one in ((4.0, 1.0), (0.5, 0.9), (29.5, 0.9))] == [250, 70, 1500]


def test_a_program_that_is_not_there_is_named():
    nothing = peers.Weights("none", ROOT, None, None, None, "es", None, refused={"ctranslate2": "no torch"})
    absent = peers.Peer(peers.Lengua, "a_module_that_nobody_has", "some-package", "folder")
    assert "pip install some-package" in absent.missing(nothing) and peers.PEERS[OURS].missing(nothing) is None
    _, left_out = inference.open_sides(["faster-whisper int8"], nothing, [])
    assert left_out == {"faster-whisper int8": "no weights for it: no torch"}
    with pytest.raises(RequestError, match="siri"):
        inference.Options(peers=("siri",))
    assert inference.quick(inference.Options(clips=9)).clips == 3


@pytest.mark.slow
def test_all_of_inference_on_a_tiny_model(tiny_model, tiny_store, tmp_path, monkeypatch, capsys):
    """Of the other programs transformers alone opens a model whose window is one second."""
    shutil.copytree(tiny_model, tmp_path / "run/model")
    monkeypatch.setattr(inference, "on_cores", lambda count: None)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    few = {"clips": 3, "untouched_clips": 2, "starts": 1, "long_minutes": 0.0, "threads": 1}
    where = {"store": tiny_store.path, "common_voice": tmp_path, "untouched": str(tiny_model)}
    programs = ("transformers float32", "faster-whisper int8")
    found = inference.main(inference.Options(str(tmp_path / "run"), peers=programs, **few, **where))
    assert {"fastest_peer", "speedup", "speedup_untouched", "speedup_long", "not_worse"} <= found.keys()
    assert set(found["programs"]) == set(found["cold"]) == {programs[0], OURS}
    assert list(found["left_out"]) == [programs[1]] and found["speedup_long"] is None
    assert found["clips"] == 3 and found["untouched"]["clips"] == 2 and len(found["sets"]) == 1
    theirs, ours = (found["programs"][name] for name in (programs[0], OURS))
    counted = theirs["wer"] <= ours["wer"] + 0.10  # an untrained model seldom ends by itself, and ours ends it sooner
    assert theirs["ms"] > 0 < ours["ms"] and found["fastest_peer"] == (programs[0] if counted else None)
    assert all(one["peak_mb"] > 50 and one["first_text_s"] > 0.1 for one in found["cold"].values())
    assert found["cold"][OURS]["peak_mb"] < found["cold"][programs[0]]["peak_mb"], "ours has no torch"
    assert f"Left out: {programs[1]}" in capsys.readouterr().out


# Training


@pytest.fixture
def training(monkeypatch):
    """The benchmark of training, whose sides stay in this process."""
    module = importlib.import_module("training")

    class Here:
        side: tuple = ()

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def call(self, work, *arguments):
            module.SIDE[:] = self.side
            result = work(*arguments)
            self.side = tuple(module.SIDE)
            return result

    monkeypatch.setattr(module, "FreshProcess", Here)
    yield module
    module.SIDE.clear()


@pytest.fixture
def side_of(training, tiny_store, tiny_model):
    """Make a side of so many clips."""
    return lambda name, clips: training.Side(
        training.Setup(name, "fp32", "cpu", tiny_store.path, str(tiny_model), None, 4, clips=clips)
    )


@pytest.mark.slow
def test_training_measures_speed_memory_and_quality(training, tiny_store, tiny_model):
    how = {"steps": 3, "rounds": 1, "batch_size": 4, "clips": 12, "evaluations": 3, "device": "cpu"}
    found = training.main(training.Options(tiny_store.path, str(tiny_model), **how))
    assert {"speedup_usual", "speedup_same", "speedup_float32"} <= found.keys() and found["clips"] == 12
    assert all(rate > 0 for rates in found["clips_per_second"].values() for rate in rates.values())
    assert found["clips_per_second"].keys() == found["peak_mb"].keys() == {"fp32", "bf16"}
    course = found["course"]
    assert [set(look) - {"seconds", "loss"} for look in course["lengua"]] == [{"adaptive", "padded"}] * 3
    assert all(looks[0]["seconds"] <= looks[-1]["seconds"] for looks in course.values())
    assert course[USUAL][-1]["padded"]["wer"] == found["wer_usual"] and course[USUAL][0]["padded"]["clips"] == 4
    assert course["lengua"][-1]["padded"]["wer"] == found["wer_ours_padded"]


@pytest.mark.slow
def test_both_sides_see_the_same_clips_once(side_of):
    seen = {}
    for name in (USUAL, "lengua"):
        side = side_of(name, 10)
        assert sorted(draw.index for draws in side.batches for draw in draws) == list(range(10))
        seen[name] = side.speech.split.column("id")
        if name == USUAL:
            assert {draw.window for draws in side.batches for draw in draws} == {100}
            batch = side.speech.batch(side.batches[0])
            start = side.model.config.decoder_start_token_id
            assert batch["input_features"].shape[-1] == 100 and start not in batch["labels"][:, 0]
    assert seen[USUAL] == seen["lengua"]


@pytest.mark.slow
def test_the_usual_labels_hold_the_prompt_that_ours_mask(side_of):
    labels = {}
    for name in (USUAL, "lengua"):
        side = side_of(name, 4)
        batch = side.speech.batch([SampledClip(index, side.longest) for index in range(4)])
        labels[name] = [[token for token in label if token >= 0] for label in batch["labels"].tolist()]
        assert 0 < side.take(side.batches[0]) < 100
        decode = side.speech.tokenizer.decode
    usual, ours = labels[USUAL], labels["lengua"]
    assert [decode(label[3:]).strip() for label in usual] == [decode(label).strip() for label in ours]
    assert {decode(label[:3], skip_special_tokens=False) for label in usual} == {"<|es|><|transcribe|><|notimestamps|>"}


@pytest.mark.slow
def test_random_weights_need_no_files(training, tmp_path):
    side = training.Side(training.Setup("lengua", "fp32", "cpu", tmp_path, "nobody/nothing", "tiny", 2))
    shortest = min(side.batches, key=lambda draws: draws[0].window)
    assert len(shortest) <= 2 and 0 < side.take(shortest) < 100
    clips, shares = zip(*side.choose(25), strict=True)
    assert clips == (1, *[2] * 24) and shares[0] == 0.1 and sum(shares) == pytest.approx(1)
    windows = [draws[0].window for draws in side.batches]
    assert windows[0] == 3000 and windows.count(3000) == 1 and len(set(windows)) > 10


@pytest.mark.slow
def test_a_killed_run_learns_the_same(tiny_store, tiny_model):
    resumes = importlib.import_module("resumes")
    how = {"kills": 1, "steps": 60, "checkpoint_minutes": 0.01, "base": str(tiny_model)}
    found = resumes.main(resumes.Options(store=tiny_store.path, **how))
    assert found["good"] and found["losses"] + found["losses_cut_short"] == 12 and found["losses"] > 7
    assert found["starts"] == found["kills"] + 1 == 2


@pytest.mark.slow
def test_the_study_trains_compares_and_reads_test(tiny_store, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipes = importlib.import_module("recipes")
    more = "--steps 2 --batch-size 4 --margin-s 0 0.1 --device cpu --precision fp32 --evaluations 1"
    options = recipes.Options(("baseline", "packed"), tiny_store.path, base=str(tiny_model), train=more, resamples=100)
    found = recipes.main(options)
    assert [(one["run"], one["finished"]) for one in found["runs"]] == [("baseline", True), ("packed", True)]
    windows = [(row["model"], row["window"]) for row in found["test"]]
    assert windows == [("base", "padded"), ("baseline", "padded"), ("baseline", "adaptive"), ("packed", "padded")]
    assert (tmp_path / "runs/study/wer.png").is_file()


@pytest.mark.slow
def test_every_failure_happens_and_is_named(tiny_store, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = importlib.import_module("three_hundred")
    how = {"steps": 2, "clips": 4, "batch_size": 4, "max_tokens": 12}
    found = study.main(study.Options(tiny_store.path, str(tiny_model), **how))
    modes = found["modes"]
    assert set(found["named"]) == set(modes) and len(modes) == 9
    for row in modes.values():
        errors = row["substitutions"] + row["deletions"] + row["insertions"]
        assert row["wer"] == pytest.approx(errors / row["words"]) and 0 < row["loss"] < 100
    for name in ("double_start", "end_masked", "zero_padding"):
        assert found["named"][name] == name, "a batch shows it, whatever the texts are"
    assert found["max_wer"] == max(row["wer"] for row in modes.values())
    assert (tmp_path / "runs/three_hundred/wer.png").stat().st_size > 10_000


# The intervals' coverage


@pytest.fixture
def intervals():
    return importlib.import_module("intervals")


def test_simulated_rates_are_the_true_ones(intervals):
    one = intervals.simulated(np.random.default_rng(1), 20_000, intervals.BETTER)
    assert one.a.sum() / one.words.sum() == pytest.approx(intervals.WER, rel=0.02)
    assert one.b.sum() / one.words.sum() == pytest.approx(intervals.WER * intervals.BETTER, rel=0.02)
    assert len(one.words) / 20_000 == pytest.approx(intervals.CLIPS, rel=0.02)
    assert one.words.mean() == pytest.approx(intervals.WORDS, rel=0.02)
    assert one.a.var() > 2 * one.a.mean() and (one.a > one.words).any()  # in heaps, and more than there are words


def test_speakers_cover_and_utterances_do_not(intervals):
    """Of 300 test sets of 40 speakers; standard error 1.3 points."""
    options = intervals.Options(speakers=(40,), simulations=300, resamples=300)
    found = intervals.main(options)["coverage"][40]
    assert 0.90 <= found["by_speaker"] <= 0.99 and 0.90 <= found["paired"] <= 0.99
    assert found["by_utterance"] < found["by_speaker"] - 0.05 and 0.7 <= found["shown"] <= 0.9
    few = replace(options, simulations=5, resamples=50)
    assert intervals.coverage(10, few) == intervals.coverage(10, few) != intervals.coverage(11, few)


# Fifty visitors at once


@pytest.fixture
def load():
    return importlib.import_module("app_load")


@pytest.mark.slow
def test_fifty_visitors_at_once(load, tiny_model, tmp_path):
    (tmp_path / "clips").mkdir()
    for number in range(6):
        soundfile.write(tmp_path / f"clips/{number}.wav", chirp(1 + number / 10, 180 + 10 * number), 16_000)
    found = load.main(load.Options(str(tiny_model), tmp_path / "clips", seconds=10))
    assert found["outcomes"]["error"] == found["traces"] == 0
    assert found["outcomes"]["text"] >= 50 and sum(found["outcomes"].values()) == found["asked"]
    assert found["fewest_answers"] >= 1, "everybody had a turn"
    assert found["overtaken"] <= 0.02 * found["outcomes"]["text"], "the first to ask is the first to be answered"
    assert found["memory_peak_mb"] < 1.5 * found["memory_second_quarter_mb"]


def test_overtaking_is_counted(load):
    fair = [load.Asked(0, *times, load.TEXT) for times in ((0, 2), (1, 3), (1.05, 2.4))]
    assert load.overtaken(fair) == load.overtaken([]) == 0
    assert load.overtaken([*fair, load.Asked(0, 1.6, 1.8, load.TEXT)]) == 2


def test_only_a_full_queue_is_a_polite_refusal(load):
    spanish = Wording().languages["es"]

    def outcome(status: int, body: str = "", *data: str) -> str:
        return load.outcome_of(load.Answer(status, body, (("complete", list(data) or None),)))

    assert outcome(200, "", "hola", "Listo.") == load.TEXT
    assert outcome(200, "", "", spanish["refusal.silent"]) == load.SILENT
    assert outcome(200, "", "", spanish["refusal.busy"]) == outcome(503, "Queue is full. Max size is 32") == load.FULL
    assert outcome(200, "", "", spanish["refusal.failed"]) == outcome(200) == load.ERROR
    assert outcome(503, "gone") == outcome(500, "full of errors") == load.ERROR


# Pictures


@pytest.fixture
def drawing(tiny_store, tmp_path):
    """Options for a run that holds a store and a note of its margin."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/store").symlink_to(tiny_store.path)
    write_json(tmp_path / "run/model/lengua.json", {"margin_s": [0.3, 1.5]})
    return pictures.Options(run=tmp_path / "run", out=tmp_path / "images")


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"), np.int64)


def test_a_clip_is_drawn_in_both_windows_and_log_mels_are_those_of_the_store(drawing, tiny_store):
    path, log_mels = pictures.main(replace(drawing, pictures=("windows", "log_mel")))
    row = pictures.typical(tiny_store)
    assert row.duration_s == max(tiny_store.split("test").column("duration_s")), "all are shorter than the usual one"
    silent = (pixels(path).sum(axis=-1) < 12).sum(axis=1)  # darker than any ink: the silence of magma
    above, *_, below = silent[silent > 30]
    assert above > 10 * below, "30 s of silence are wider than the margin"
    assert log_mels.name == "log_mel.png" and pixels(log_mels).shape[1] == 1800


def test_badges_are_those_of_the_tree(tmp_path):
    drawn = pictures.main(pictures.Options(("badges",), out=tmp_path))
    assert sorted(path.name for path in drawn) == [f"badge_{name}.svg" for name in ("checkpoint", "colab", "space")]
    for path in drawn:
        assert path.read_text() == (ROOT / "images" / path.name).read_text(), "run benchmarks/pictures.py badges"
        root = xml.fromstring(path.read_text())
        assert root.get("aria-label") and float(root.get("width")) > 100 and "http:" not in "".join(root.itertext())


def test_what_a_picture_lacks_is_told(drawing):
    drawing = replace(drawing, pictures=("report",), chromium="no-such-browser")
    with pytest.raises(RequestError, match="run lengua evaluate"):
        pictures.main(drawing)
    (drawing.run / "evaluation").mkdir()
    (drawing.run / "evaluation/report.html").write_text("<p>")
    with pytest.raises(RequestError, match="no-such-browser"):
        pictures.main(drawing)


@pytest.mark.slow
def test_the_report_is_photographed(drawing):
    if not shutil.which("chromium"):
        pytest.skip("needs Debian's package chromium")
    (drawing.run / "evaluation").mkdir()
    (drawing.run / "evaluation/report.html").write_text("<body style='margin:0;background:rgb(1,2,3)'>")
    [path] = pictures.main(replace(drawing, pictures=("report",)))
    width, height = pictures.REPORT
    assert pixels(path).shape[1] / pixels(path).shape[0] == pytest.approx(width / height, rel=0.01)
    assert (pixels(path)[100, 100] == (1, 2, 3)).all()
