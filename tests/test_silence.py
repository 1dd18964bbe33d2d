"""silence: no word out of sounds without a voice, none of real speech lost; ghosts matched whole, never in parts."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import ROOT, chirp
from small_whisper import small_whisper

from lengua import audio
from lengua.inference.decoding import DecodingResult
from lengua.inference.hallucinations import (
    MIN_WORD_SAMPLES,
    NEVER_SPOKEN,
    SOMETIMES_SPOKEN,
    hallucinated_phrases,
    hallucination_kind,
    read_phrase_list,
    silence_reason,
    suppression_reason,
)
from lengua.inference.vad import VAD_FRAME_SAMPLES, speech_probabilities, voiced_s
from lengua.models.languages import LANGUAGE_NAMES
from lengua.runtime.errors import RequestError
from lengua.scoring.normalizer import normalise

SECOND = audio.SAMPLE_RATE


def noise(seconds: float, level: float) -> np.ndarray:
    return (level * np.random.default_rng(17).standard_normal(round(seconds * SECOND))).astype(np.float32)


def hum(seconds: float) -> np.ndarray:
    at = np.arange(round(seconds * SECOND)) / SECOND
    return sum(0.1 / harmonic * np.sin(2 * np.pi * 50 * harmonic * at) for harmonic in (1, 2, 3, 5)).astype(np.float32)


def clicks(seconds: float) -> np.ndarray:
    samples = np.zeros(round(seconds * SECOND), np.float32)
    for at in range(0, len(samples), SECOND // 2):
        samples[at : at + 64] = noise(64 / SECOND, 0.5)
    return samples


def breath(seconds: float) -> np.ndarray:
    """Noise between 600 and 1,800 Hz that swells every three seconds."""
    spectrum = np.fft.rfft(noise(seconds, 1))
    hertz = np.fft.rfftfreq(round(seconds * SECOND), 1 / SECOND)
    band = np.fft.irfft(np.where((hertz > 600) & (hertz < 1800), spectrum, 0))
    swell = np.maximum(0, np.sin(2 * np.pi * np.arange(len(band)) / (3 * SECOND)))
    return (0.05 * band / band.std() * swell).astype(np.float32)


def said(text: str, language: str = "es", **more) -> DecodingResult:
    return DecodingResult(text, len(text.split()), more.pop("looped", False), False, language=language, **more)


@pytest.fixture(scope="module")
def speech(spoken_es) -> np.ndarray:
    """Real speech, some 5 s of it."""
    return audio.load(max(list(spoken_es)[:20], key=lambda path: path.stat().st_size))


# Before the model


@pytest.mark.parametrize(
    "samples, reason",
    [
        (np.zeros(0, np.float32), "too short"),
        (noise(0.09, 0.3), "too short"),
        (np.zeros(5 * SECOND, np.float32), "no energy"),
        (noise(5, 0.001), "no energy"),
        (noise(5, 0.01), "no voice"),
        (noise(0.5, 0.1), "no voice"),
        (noise(30, 0.03), "no voice"),
        (hum(5), "no voice"),
        (clicks(10), "no voice"),
        (breath(9), "no voice"),
        (chirp(2, 1000), "no voice"),
    ],
    ids="nothing,instant,silence,faint noise,noise,loud noise,long noise,hum,clicks,breath,chirp".split(","),
)
def test_sounds_without_a_voice_never_reach_the_model(samples, reason):
    assert silence_reason(samples) == reason


@pytest.mark.real
def test_real_speech_reaches_the_model(spoken_es):
    refused = {path.name: silence_reason(audio.load(path)) for path in spoken_es}
    assert len(refused) > 40 and set(refused.values()) == {None}


@pytest.mark.real
@pytest.mark.parametrize("gain", [1.0, 0.1])
def test_speech_is_heard_when_quiet_and_wherever_it_starts(gain, speech):
    quiet = gain * speech / np.abs(speech).max()
    for pause in (0, 3.5, 20):
        assert silence_reason(np.concatenate([np.zeros(round(pause * SECOND), np.float32), quiet])) is None


@pytest.mark.real
def test_speech_in_noise_reaches_the_model(speech):
    louder = 10 ** (10 / 20)  # 10 dB above the noise
    background = noise(audio.duration_s(speech), float(np.sqrt(np.mean(speech**2))) / louder)
    assert silence_reason(speech + background) is None


def test_the_gate_leaves_what_it_is_given_alone():
    samples = noise(1, 0.1)
    before = samples.copy()
    samples.setflags(write=False)
    assert silence_reason(samples) == "no voice" and np.array_equal(samples, before)


def test_threads_share_the_detector():
    sounds = [noise(1, 0.1), hum(2), clicks(1), breath(3)] * 4
    expected = [speech_probabilities(samples).tolist() for samples in sounds]
    with ThreadPoolExecutor(4) as threads:
        assert [found.tolist() for found in threads.map(speech_probabilities, sounds)] == expected
    assert [len(found) for found in expected[:4]] == [len(samples) // VAD_FRAME_SAMPLES + 1 for samples in sounds[:4]]


@pytest.mark.real
def test_the_gate_costs_little(speech):
    silence_reason(speech)
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        silence_reason(speech)
        taken.append(time.perf_counter() - start)
    assert min(taken) < 0.1, "about 10 ms on a machine with nothing else to do"


# After the model


def test_what_was_said_is_kept(speech):
    assert suppression_reason(said("La montaña era alta."), noise(5, 0.1)) is None
    assert suppression_reason(said("Gracias."), speech) is None
    assert suppression_reason(said("¡Hasta la próxima!"), speech) is None
    assert suppression_reason(said("Sí.", no_speech=0.9, mean_logprob=-0.2), speech) is None
    assert suppression_reason(said("Sí.", no_speech=0.2, mean_logprob=-1.5), speech) is None


@pytest.mark.parametrize("text", ["", " ", "...", "♪♪", "[Música]", "(risas) [ruido]"])
def test_signs_and_remarks_are_no_words(text, speech):
    assert suppression_reason(said(text), speech) == "no words"


def test_a_model_that_doubts_twice_is_believed(speech):
    assert suppression_reason(said("La casa.", no_speech=0.7, mean_logprob=-1.2), speech) == "no speech"
    half = said("La casa.", no_speech=0.4, mean_logprob=-0.6)
    assert suppression_reason(half, noise(5, 0.1)) == "no speech" and suppression_reason(half, speech) is None


def test_what_nobody_says_is_never_kept(speech):
    for text in ("Subtítulos realizados por la comunidad de Amara.org", "Untertitel der Amara.org-Community"):
        assert suppression_reason(said(text), speech) == "ghost"


@pytest.mark.parametrize(
    "text", ["Gracias.", "¡Gracias! ¡Gracias!", "Thank you.", "¡Gracias por ver el video! ¡Suscríbete!"]
)
def test_what_people_do_say_needs_a_voice(text, speech):
    assert suppression_reason(said(text), speech) is None
    assert suppression_reason(said(text), noise(5, 0.1)) == "ghost"
    assert suppression_reason(said(text, no_speech=0.4, mean_logprob=-0.7), speech) == "ghost"
    assert suppression_reason(said(text, no_speech=0.2, mean_logprob=-0.7), speech) is None
    assert suppression_reason(said(text, no_speech=0.9, mean_logprob=-0.1), speech) is None, (
        "a lone word, surely written"
    )


def test_a_loop_without_a_voice_is_no_text(speech):
    loop = said("que no se que no se que no se que no se", looped=True)
    assert suppression_reason(loop, noise(5, 0.1)) == "loop"
    assert suppression_reason(loop, speech) is None, "somebody spoke: a bad text is still to be seen"
    assert suppression_reason(said("que no se que no se"), noise(5, 0.1)) is None


def test_seconds_of_voice(speech):
    assert voiced_s(noise(5, 0.1)) == 0
    assert 0.3 * audio.duration_s(speech) < voiced_s(speech) <= audio.duration_s(speech) + VAD_FRAME_SAMPLES / SECOND
    assert MIN_WORD_SAMPLES == 1600


# The list of ghosts


def test_ghosts_are_matched_whole_and_never_in_parts():
    assert hallucination_kind("Gracias.", "es") == hallucination_kind("GRACIAS", "es") == SOMETIMES_SPOKEN
    assert hallucination_kind("¡Subtítulos realizados por la comunidad de Amara.org!", "es") == NEVER_SPOKEN
    for text in (
        "Gracias, hasta mañana.",
        "Dale las gracias.",
        "Leí los subtítulos realizados por la comunidad de Amara.org.",
        "Subtítulos realizados por",
        "",
        "...",
    ):
        assert hallucination_kind(text, "es") is None, text


def test_ghosts_may_come_one_after_the_other():
    assert hallucination_kind("Thank you. " * 30, "en") == SOMETIMES_SPOKEN
    assert hallucination_kind("Thank you. Thanks for watching! Bye.", "en") == SOMETIMES_SPOKEN
    assert hallucination_kind("Subtítulos por la comunidad de Amara.org www.mooji.org", "es") == NEVER_SPOKEN
    assert hallucination_kind("Gracias. Subtítulos por la comunidad de Amara.org", "es") == SOMETIMES_SPOKEN
    assert hallucination_kind("Thank you. " * 30 + "Sir", "en") is None


def test_goodbyes_are_those_of_the_language_and_of_english():
    assert hallucination_kind("Thank you.", "es") == hallucination_kind("Tack.", "sv") == SOMETIMES_SPOKEN
    assert hallucination_kind("Tack.", "es") is None
    assert hallucination_kind("Субтитры сделал DimaTorzok", "es") == NEVER_SPOKEN
    assert hallucination_kind("Gracias.", "") is None and hallucination_kind("Thank you.", "") == SOMETIMES_SPOKEN


def test_a_long_text_is_compared_quickly():
    start = time.perf_counter()
    assert hallucination_kind("bye so the " * 300 + "oh", "en") == SOMETIMES_SPOKEN
    assert hallucination_kind("bye so the " * 300 + "sir", "en") is None
    assert time.perf_counter() - start < 1


def test_the_list_is_as_it_is_compared():
    rows = read_phrase_list()
    assert len(rows) > 200
    for language, kind, phrase in rows:
        assert language in LANGUAGE_NAMES and kind in (NEVER_SPOKEN, SOMETIMES_SPOKEN), (language, kind, phrase)
        assert phrase and phrase == normalise(phrase), phrase
    pairs = [(language, phrase) for language, _, phrase in rows]
    assert len(pairs) == len(set(pairs)), "the same phrase twice in a language"
    never = [phrase for _, kind, phrase in rows if kind == NEVER_SPOKEN]
    assert len(never) == len(set(never)), "what nobody says counts in every language: once is enough"
    assert not set(never) & {phrase for _, kind, phrase in rows if kind == SOMETIMES_SPOKEN}
    assert {"es", "en", "fr", "it", "de", "pt", "sv", "ru"} <= {language for language, *_ in rows}
    assert hallucinated_phrases(SOMETIMES_SPOKEN, "es") and hallucinated_phrases(
        SOMETIMES_SPOKEN, "es"
    ) < hallucinated_phrases(SOMETIMES_SPOKEN)


def test_words_of_every_day_are_no_ghosts():
    """Short answers are what a conversation is made of: none may hang on the ear of a detector."""
    for text in ("Sí.", "No.", "Vale.", "Hola.", "Bueno.", "Perdón.", "Buenos días.", "Claro que sí."):
        assert hallucination_kind(text, "es") is None, text


# The benchmark


@pytest.fixture
def sounds(monkeypatch):
    """The benchmark, which makes the recordings."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("silence")


def test_two_hundred_recordings_are_made(sounds):
    made = sounds.sounds()
    assert len(made) == sounds.COUNT == len({sound.name for sound in made}) == len({sound.effects for sound in made})
    assert len({sound.kind for sound in made}) == 9


def test_without_sox_the_benchmark_says_what_to_install(sounds, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RequestError, match="apt install sox"):
        sounds.make(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("sox"), reason="no sox on this machine")
def test_recordings_are_as_long_and_as_loud_as_they_say_and_always_the_same(sounds, monkeypatch, tmp_path):
    chosen = sounds.sounds()[::7]
    monkeypatch.setattr(sounds, "sounds", lambda: chosen)
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
    first, second = (sounds.make(tmp_path / folder) for folder in ("first", "second"))
    assert [path.read_bytes() for _, path in first] == [path.read_bytes() for _, path in second]
    for sound, path in first:
        samples = audio.load(path)
        assert audio.duration_s(samples) == pytest.approx(float(sound.name.rsplit("-", 1)[1]), abs=0.3), sound.name
        assert (np.abs(samples).max() > 0) == (sound.kind != "digital silence"), sound.name


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("sox"), reason="no sox on this machine")
def test_the_benchmark_counts_words_on_every_side(tiny_folder, tmp_path):
    """With a model that says something to everything."""
    model = small_whisper(tmp_path / "small")
    what = ("--model", model, "--sample", tiny_folder, "--common-voice", tmp_path, "--every", 40, "--others-every", 1)
    command = [sys.executable, str(ROOT / "benchmarks/silence.py"), *map(str, what)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["recordings"] == 5 and told["spoken_ungated"] == 5 and told["words_ungated"] > 20
    assert told["words_ours"] == told["spoken_ours"] == 0 and sum(told["suppressed"].values()) == 5
    assert {"spoken_faster_whisper", "words_faster_whisper_vad"} <= told.keys()
    (kept,) = told["kept"].values()
    assert kept["clips"] == 1 and kept["with_text"] + sum(kept["refused"].values()) == 1
    assert "| pink noise | 0 in 0 of 1 |" in done.stdout and told["recordings_others"] == 5
