"""A recording becomes segments in the page: as they come, in turn, with an honest state; and it stops when asked to."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from conftest import chirp, joined

from lengua import audio
from lengua.app import make_app_context
from lengua.app.context import AppContext
from lengua.app.limits import Admission, Limits, Refusal
from lengua.app.transcribing import (
    StopSignal,
    TranscriptionProgress,
    progress_sentence,
    transcribe_recording,
    transcriber_for,
)
from lengua.inference import Segment, Transcriber, transcriber
from lengua.inference.engines import EngineOutput


@pytest.fixture(scope="module")
def tiny(tiny_model) -> Transcriber:
    return Transcriber(str(tiny_model), "es")


@pytest.fixture
def parts(tiny, monkeypatch) -> AppContext:
    """The parts around a tiny model that says "a" to everything."""
    word = tiny.tokenizer.token_to_id("a")
    monkeypatch.setattr(tiny.engine, "generate", lambda features, *_: [EngineOutput([word])] * len(features))
    return replace(make_app_context(tiny), admission=Admission(Limits(line=4)))


@pytest.fixture
def clip(tmp_path) -> str:
    """Two seconds so like a voice that they reach the model."""
    soundfile.write(tmp_path / "clip.wav", chirp(2, 200), 16_000)
    return str(tmp_path / "clip.wav")


@pytest.fixture(scope="module")
def talk(spoken_es, tmp_path_factory) -> str:
    """Two minutes of real clips with pauses of 1.5 s."""
    path = tmp_path_factory.mktemp("talk") / "talk.flac"
    soundfile.write(path, joined(spoken_es, 18, pause_s=1.5), 16_000)
    return str(path)


def test_a_short_clip_is_told_once_and_whole(parts, clip):
    (only,) = transcribe_recording(parts, clip, None)
    assert (only.step, only.text, only.position_s, only.duration_s) == ("done", "a", 2.0, 2.0)
    assert only.language == "es" and 0 < only.seconds < 10
    assert progress_sentence(parts, None, only).startswith("Listo. 2,0 s de audio en ")


def test_a_long_recording_is_told_segment_by_segment(parts, talk):
    told = list(transcribe_recording(parts, talk, None))
    assert {one.step for one in told[:-1]} == {"understanding"} and told[-1].step == "done"
    assert [len(one.segments) for one in told] == sorted(len(one.segments) for one in told) and len(told) > 10
    positions = [one.position_s for one in told]
    assert positions == sorted(positions) and positions[0] < 30 < positions[-1] == pytest.approx(told[-1].duration_s)
    assert progress_sentence(parts, None, told[0]).startswith("Entendiendo, 0:")
    assert told[-1].text == " ".join("a" for _ in told[-1].segments)


def test_silence_never_waits_nor_runs_the_model(parts, tmp_path, monkeypatch):
    soundfile.write(tmp_path / "silence.wav", np.zeros(32_000), 16_000)
    monkeypatch.setattr(parts.transcriber.engine, "generate", None)
    with parts.admission.line.enter(), pytest.raises(Refusal, match=r"refusal\.silent"):
        next(transcribe_recording(parts, str(tmp_path / "silence.wav"), None))
    soundfile.write(tmp_path / "silence.wav", np.zeros(40 * 8000), 8000)  # too long to be looked through before
    with pytest.raises(Refusal, match=r"refusal\.silent"):
        list(transcribe_recording(parts, str(tmp_path / "silence.wav"), None))
    assert len(parts.admission.line) == 0


def test_who_waits_is_told_how_many_are_ahead(parts, clip):
    with parts.admission.line.enter():
        hearing = transcribe_recording(parts, clip, None)
        waiting = next(hearing)
        assert (waiting.step, waiting.ahead) == ("waiting", 1)
        assert progress_sentence(parts, None, waiting) == "En cola, 1 delante de ti…"
    assert [one.step for one in hearing] == ["done"]
    with parts.admission.line.enter():
        leaving = transcribe_recording(parts, clip, None)
        next(leaving)
        assert len(parts.admission.line) == 2
        leaving.close()
        assert len(parts.admission.line) == 1


def test_a_short_clip_passes_a_long_recording(parts, clip, talk):
    long = transcribe_recording(parts, talk, None)
    next(long)
    order = []
    short = threading.Thread(
        target=lambda: order.extend(("short", one.text) for one in transcribe_recording(parts, clip, None) if one.text)
    )
    short.start()
    while len(parts.admission.line) < 2:
        time.sleep(0.001)
    order.append(("long", next(long).step))
    assert order[0] == ("short", "a") or order == [("long", "waiting")]
    short.join(5)
    assert list(long)[-1].step == "done" and ("short", "a") in order


def test_stop_ends_the_work_and_keeps_what_was_heard(parts, talk, monkeypatch):
    runs = counted(parts, monkeypatch)
    stop = StopSignal()
    hearing = transcribe_recording(parts, talk, None, stop=stop)
    first = next(hearing)
    stop.ask()
    rest = list(hearing)
    assert rest[-1].step == "stopped" and rest[-1].segments[: len(first.segments)] == first.segments
    assert len(rest) == 1 and runs == [1] and len(parts.admission.line) == 0
    assert progress_sentence(parts, None, rest[-1]).startswith("Parado. Queda lo que oí hasta 0:")


def test_stop_ends_a_long_silence_too(parts, tmp_path, monkeypatch):
    soundfile.write(tmp_path / "quiet.flac", np.zeros(600 * 8000), 8000)
    stop, read = StopSignal(), []
    blocks = transcriber.audio.stream

    def stopping(source, block_s=10.0, track=None):
        for block in blocks(source, block_s):
            read.append(len(block))
            if len(read) == 12:
                stop.ask()
            yield block

    monkeypatch.setattr(transcriber.audio, "stream", stopping)
    (only,) = transcribe_recording(parts, str(tmp_path / "quiet.flac"), None, stop=stop)
    assert (only.step, only.segments) == ("stopped", ()) and len(read) < 20
    assert progress_sentence(parts, None, only) == "Parado."


def test_stop_is_heard_while_waiting_and_is_forgotten_by_the_next(parts, clip):
    stop = StopSignal()
    with parts.admission.line.enter():
        hearing = transcribe_recording(parts, clip, None, stop=stop)
        next(hearing)
        stop.ask()
        assert [one.step for one in hearing] == ["stopped"]
    assert [one.step for one in transcribe_recording(parts, clip, None, stop=stop)] == ["done"]


def test_what_goes_on_beyond_the_limit_is_heard_up_to_it(parts, talk, monkeypatch):
    monkeypatch.setattr("lengua.app.limits.audio.recording_info", lambda *_: audio.RecordingInfo())
    limited = replace(parts, admission=Admission(Limits(seconds=40)))
    monkeypatch.setattr("lengua.inference.transcriber.audio.recording_info", lambda *_: audio.RecordingInfo())
    *_, last = transcribe_recording(limited, talk, None)
    assert last.step == "limited" and 35 < last.position_s < 75 and last.segments
    assert "minutos de una vez" in progress_sentence(limited, None, last)


def test_a_file_that_breaks_off_gives_what_was_heard(parts, talk, tmp_path):
    samples = audio.load(talk)
    samples[len(samples) // 2 :] = np.nan
    path = tmp_path / "broken.wav"
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    *_, last = transcribe_recording(parts, str(path), None)
    assert last.step == "cut" and last.segments
    assert progress_sentence(parts, None, last).startswith("El archivo se interrumpe en ")


def test_words_come_with_their_probabilities_where_asked_for(tiny_model, spoken_es, monkeypatch):
    monkeypatch.setattr(transcriber.hallucinations, "suppression_reason", lambda decoded, samples: None)
    parts = make_app_context(Transcriber(str(tiny_model), "es"))
    path = str(next(iter(spoken_es)))
    plain, worded = (list(transcribe_recording(parts, path, None, words=words))[-1] for words in (False, True))
    assert not plain.segments[0].words and worded.segments[0].words
    assert all(0 <= word.probability <= 1 for word in worded.segments[0].words)


def test_another_language_or_task_shares_the_engine_and_is_heard_at_30_s(tiny, monkeypatch):
    assert transcriber_for(tiny) is transcriber_for(tiny, "es") is tiny
    with pytest.raises(Refusal, match=r"refusal\.language"):
        transcriber_for(tiny, "auto")  # the tiny model cannot tell languages apart
    monkeypatch.setattr(tiny.engine, "multilingual", True)
    english, heard = transcriber_for(tiny, task="translate"), transcriber_for(tiny, "auto")
    assert english.engine is heard.engine is tiny.engine and english._lock is tiny._lock
    assert (english.task, english.language, heard.language) == ("translate", "es", "auto")
    assert english.note.decode_margin_s is heard.note.decode_margin_s is None
    assert english.prompts.of("es") != tiny.prompts.of("es") == heard.prompts.of("es")
    assert (tiny.task, tiny.language) == ("transcribe", "es")
    with pytest.raises(Refusal, match=r"refusal\.language"):
        transcriber_for(tiny, "klingon")


def test_every_step_has_its_sentence(parts):
    for step in ("waiting", "understanding", "done", "stopped", "limited", "cut"):
        for duration in (None, 300.0):
            hearing = TranscriptionProgress(step, (Segment(0, 1, "a"),), 3, 61.5, duration, 2.5)
            said = progress_sentence(parts, None, hearing)
            assert said and "{" not in said and (step in ("waiting", "understanding")) == said.endswith("…")


def counted(parts: AppContext, monkeypatch) -> list[int]:
    """Return a list that grows by the number of windows of each run of the model."""
    runs, generate = [], parts.transcriber.engine.generate

    def counting(features, *more):
        runs.append(len(features))
        return generate(features, *more)

    monkeypatch.setattr(parts.transcriber.engine, "generate", counting)
    return runs
