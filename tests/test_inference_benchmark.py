"""benchmarks/inference.py: who is the fastest, the tables, the long recording; and the whole of it on a tiny model."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

SAID = "uno dos tres cuatro cinco seis"


@pytest.fixture
def bench(monkeypatch):
    """Return a loader of benchmarks/inference_NAME.py."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return lambda name: __import__(f"inference_{name}" if name else "inference")


@pytest.fixture
def heard(bench):
    """Four clips of two sets, 1 s each, and what three programs made of them: ours, a fast good one, a fast bad one."""
    clip, ours = bench("clips").Clip, bench("peers").OURS
    sets = ["one", "one", "two", "two"]
    clips = [clip(name, f"s{place}", SAID, np.zeros(16_000)) for place, name in enumerate(sets)]
    seconds = {"good": [0.4] * 4, "bad": [0.05] * 4, ours: [0.1, 0.1, 0.1, 0.3]}
    good = [SAID] * 3 + ["uno dos tres cuatro cinco"]
    texts = {"good": good, "bad": ["nada"] * 4, ours: [SAID] * 4}
    return clips, seconds, texts


def test_the_fastest_is_whoever_is_fastest_and_not_absurd(bench):
    fastest = bench("figures").fastest
    cost, wer = {"a": 3.0, "b": 2.0, "c": 1.0, "Transcriber": 0.5}, {"a": 0.2, "b": 0.29, "c": 0.31, "Transcriber": 0.2}
    assert fastest(cost, wer) == "b"
    assert fastest(cost, wer | {"c": 0.30}) == "c", "ten points above ours still count"
    assert fastest({"Transcriber": 1.0}, {"Transcriber": 0.2}) is None


def test_figures_of_each_program(bench, heard):
    found = bench("figures").figures(*heard)
    ours, good = found["Transcriber"], found["good"]
    assert (ours.ms, ours.ms_median, ours.rtf) == pytest.approx((150, 100, 0.15))
    assert (ours.wer, good.wer, found["bad"].wer) == (0.0, 1 / 24, 1.0)
    assert good.ours_minus == -1 / 24 and good.low <= -1 / 24 <= good.high <= 0
    assert (ours.ours_minus, ours.low, ours.high) == (0.0, 0.0, 0.0)


def test_the_verdict_names_peer_speedup_and_words(bench, heard):
    told = bench("figures").verdict(*heard)
    assert (told["fastest_peer"], told["speedup"]) == ("good", 2.67)
    assert (told["wer_peer"], told["wer_ours"], told["not_worse"]) == (0.0417, 0.0, True)
    assert told["difference"][0] == -0.0417 and told["speakers"] == told["clips"] == 4
    assert json.loads(json.dumps(told)) == told


def test_the_fastest_that_pads_is_told_beside_it(bench, heard):
    clips, seconds, texts = heard
    short, borrowed = bench("peers").SHORT, bench("peers").BORROWED
    more = {short: [0.3] * 4, borrowed: [0.2] * 4}
    told = bench("figures").verdict(clips, seconds | more, texts | dict.fromkeys(more, texts["good"]))
    assert (told["fastest_peer"], told["speedup"]) == (borrowed, 1.33)
    assert (told["fastest_as_its_users_run_it"], told["speedup_as_its_users_run_it"]) == (short, 2.0)
    assert (told["fastest_padding_peer"], told["speedup_padding"]) == ("good", 2.67)


def test_words_that_are_worse_are_told(bench, heard):
    clips, seconds, texts = heard
    swapped = texts | {"good": texts["Transcriber"], "Transcriber": texts["good"]}
    told = bench("figures").verdict(clips, seconds, swapped)
    assert told["difference"][0] == 0.0417 and told["not_worse"] is False


def test_alone_there_is_no_peer(bench, heard):
    clips, seconds, texts = heard
    told = bench("figures").verdict(clips, {"Transcriber": seconds["Transcriber"]}, texts)
    assert [told[key] for key in ("fastest_peer", "speedup", "wer_peer", "not_worse")] == [None] * 4


def test_each_set_has_its_own_verdict(bench, heard):
    told = bench("figures").by_set(*heard)
    assert {name: one["speedup"] for name, one in told.items()} == {"one": 4.0, "two": 2.0}
    assert [one["wer_peer"] for one in told.values()] == [0.0, 0.0833]
    lines = bench("figures").set_lines(told)
    assert lines[0] == "| by set | one: ms a clip | one: WER | two: ms a clip | two: WER |"
    assert lines[2] == "| good | 400 | 0.0% | 400 | 8.3% |"


def test_the_table_of_clips(bench, heard):
    figures, cold = bench("figures"), bench("sides").Cold(1.26, 512.4)
    lines = figures.clip_lines(figures.verdict(*heard), {"good": cold})
    assert "peak MB" in lines[0] and lines[2].endswith("| 512 | 1.3 |")
    assert lines[3].startswith("| bad (not counted) | 50 / 50 | 0.3 |")
    assert lines[4] == "| Transcriber | 150 / 100 | 1.0 | 0.150 | 0.0% |  |  |  |"
    assert "peak MB" not in figures.clip_lines(figures.verdict(*heard), {})[0]


def test_the_long_recording(bench):
    figures = bench("figures")
    heard = {"a": (20.0, "uno dos"), "b": (5.0, "tres"), "Transcriber": (10.0, "uno dos")}
    told = figures.long_verdict(heard, "uno dos", 120.0)
    assert (told["fastest_peer"], told["speedup"], told["minutes"]) == ("a", 2.0, 2.0)
    assert told["programs"]["b"] == {"seconds": 5.0, "times_real_time": 24.0, "wer": 1.0}
    assert figures.long_lines(told)[-1] == "| Transcriber | 10.0 | 12.0 | 1.00 | 0.0% |"
    assert "b (not counted)" in "\n".join(figures.long_lines(told))


def test_clips_are_joined_with_pauses_until_the_time_is_full(bench):
    clips = bench("clips")
    rng = np.random.default_rng(1)
    some = [clips.Clip("one", "s", text, rng.normal(0, 0.1, 8000).astype(np.float32)) for text in ("uno", "dos")]
    samples, text = clips.joined(some, 0.1)
    again, _ = clips.joined(some, 0.1)
    said = text.split()
    assert np.array_equal(samples, again) and samples.dtype == np.float32
    assert 6 <= len(samples) / 16_000 < 6 + 0.5 + 1.2
    assert set(said) == {"uno", "dos"} and abs(said.count("uno") - said.count("dos")) <= 1
    assert 3 <= len(said) <= 8


def test_a_pause_is_as_loud_as_the_quietest_moment(bench):
    samples = np.concatenate([np.full(1600, 0.5), np.full(1600, 0.01), np.full(800, 0.001)]).astype(np.float32)
    tone = bench("clips").room_tone(samples, 2.0, np.random.default_rng(17))
    assert len(tone) == 32_000 and float(tone.std()) == pytest.approx(0.01, rel=0.05)


def test_clips_are_spread(bench):
    assert bench("clips").spread(list("abcdefgh"), 4) == list("aceg")
    assert bench("clips").spread(list("ab"), 4) == list("ab")


def test_real_clips_of_common_voice(bench, common_voice_es):
    clips = bench("clips").common_voice_clips(common_voice_es, 6)
    assert len(clips) == 6 and len({clip.speaker for clip in clips}) >= 4
    assert all(clip.text and 0.5 < clip.seconds < 15 for clip in clips)


def test_audio_context_of_whisper_cpp(bench):
    context = bench("peers").audio_context
    assert context(4.0, 1.0) == 250 and context(0.5, 0.9) == 70 and context(29.5, 0.9) == 1500


def test_a_program_that_is_not_there_is_named(bench):
    peers = bench("peers")
    nothing = peers.Weights("none", ROOT, None, None, None, "es", None, refused={"ctranslate2": "no torch"})
    absent = peers.Peer(peers.Lengua, "a_module_that_nobody_has", "some-package", "folder")
    assert absent.missing(nothing) == "not installed: pip install some-package"
    assert peers.PEERS["faster-whisper int8"].missing(nothing) == "no weights for it: no torch"
    assert peers.PEERS[peers.OURS].missing(nothing) is None
    _, left_out = bench("sides").open_sides(["faster-whisper int8"], nothing, [])
    assert left_out == {"faster-whisper int8": "no weights for it: no torch"}


def test_what_is_typed_again_is_what_was_asked(bench):
    inference = bench("")
    assert inference.given(inference.Options()) == " --model runs/demo"
    options = inference.Options(model="runs/my demo", clips=3, all_long=True)
    assert inference.given(options) == " --model 'runs/my demo' --clips 3 --all-long"
    assert inference.quick(options).clips == 3 and inference.quick(inference.Options()).long_minutes == 1.0
    assert inference.Options(peers=("faster-whisper int8",)).programs == ["faster-whisper int8", "Transcriber"]


def test_an_unknown_peer_is_refused(bench):
    from lengua.runtime.errors import RequestError

    with pytest.raises(RequestError, match="siri"):
        bench("").Options(peers=("siri",))


@pytest.mark.slow
def test_all_of_it_on_a_tiny_model(tiny_model, tiny_store, tmp_path):
    """Of the other programs transformers alone opens a model whose window is one second."""
    shutil.copytree(tiny_model, tmp_path / "run/model")
    command = [sys.executable, str(ROOT / "benchmarks/inference.py"), "--model", str(tmp_path / "run")]
    command += ["--store", str(tiny_store.path), "--common-voice", str(tmp_path), "--untouched", str(tiny_model)]
    command += ["--clips", "3", "--untouched-clips", "2", "--starts", "1", "--long-minutes", "0", "--threads", "1"]
    command += ["--peers", "transformers float32", "faster-whisper int8"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert {"fastest_peer", "speedup", "speedup_untouched", "speedup_long", "not_worse"} <= told.keys()
    assert set(told["programs"]) == set(told["cold"]) == {"transformers float32", "Transcriber"}
    assert list(told["left_out"]) == ["faster-whisper int8"] and told["speedup_long"] is None
    assert told["clips"] == 3 and told["untouched"]["clips"] == 2 and len(told["sets"]) == 1
    theirs, ours = (told["programs"][name] for name in ("transformers float32", "Transcriber"))
    assert theirs["ms"] > 0 < ours["ms"]
    counted = theirs["wer"] <= ours["wer"] + 0.10  # an untrained model seldom ends by itself, and ours ends it sooner
    assert told["fastest_peer"] == ("transformers float32" if counted else None)
    for one in told["cold"].values():
        assert one["peak_mb"] > 50 and 0.1 < one["first_text_s"] < 120
    assert told["cold"]["Transcriber"]["peak_mb"] < told["cold"]["transformers float32"]["peak_mb"], "ours has no torch"
    assert "Left out: faster-whisper int8" in done.stdout
