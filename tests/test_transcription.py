"""transcription: from sound to text: nothing from silence, long audio cut at pauses. Decoding has its own tests."""

import numpy as np
import pytest
from conftest import chirp

from lengua import audio
from lengua.inference import Transcriber
from lengua.runtime.errors import RequestError
from lengua.scoring import score

CLIP = "common_voice_es_20459583.mp3"


class Counting:
    """An engine that counts what it is asked: the shape of every batch."""

    def __init__(self, engine):
        self.engine, self.shapes = engine, []

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def generate(self, features, *args, **kwargs):
        self.shapes.append(features.shape)
        return self.engine.generate(features, *args, **kwargs)


@pytest.fixture(scope="module", params=["ctranslate2", "torch"])
def tiny(request, tiny_model):
    """The untouched tiny model on either engine."""
    return Transcriber(str(tiny_model), "es", request.param)


@pytest.fixture(scope="module")
def base(base_model):
    return Transcriber(str(base_model), "es")


@pytest.fixture
def counted(monkeypatch):
    """Return a function that wraps a transcriber's engine for the time of a test, and gives the shapes it is asked."""

    def counted(transcriber) -> list[tuple]:
        counting = Counting(transcriber.engine)
        monkeypatch.setattr(transcriber, "engine", counting)
        return counting.shapes

    return counted


def word_error(text: str, other: str) -> int:
    return int(score(other, text).counts["errors"].sum())


# Silence


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(16_000, np.float32),
        np.zeros(40 * 16_000, np.float32),
        np.zeros(1, np.float32),
        np.random.default_rng(17).uniform(-0.002, 0.002, 48_000).astype(np.float32),
        chirp(0.05, 300),
        np.zeros(800, np.float32),
    ],
    ids=["silence", "40 s of silence", "one sample", "faint noise", "0.05 s of sound", "0.05 s of silence"],
)
def test_no_energy_no_model(samples, tiny, counted):
    shapes = counted(tiny)
    transcript = tiny.transcribe((samples, 16_000))
    assert transcript.text == "" and transcript.segments == () and shapes == []
    assert transcript.duration_s == pytest.approx(len(samples) / 16_000)


def test_a_clip_in_much_silence_reaches_the_model(tiny, counted, spoken_es):
    shapes, silence = counted(tiny), np.zeros(32_000, np.float32)
    clip = audio.load(next(path for path in spoken_es if path.name == CLIP))
    samples = np.concatenate([silence, clip, silence])
    transcript = tiny.transcribe((samples, 16_000))
    assert len(shapes) == 1 and len(transcript.segments) + sum(transcript.suppressed.values()) == 1


def test_bad_audio_is_refused_before_the_model_is_asked(tiny, counted, tmp_path):
    shapes = counted(tiny)
    for bad in (tmp_path / "missing.wav", tmp_path, b"no sound"):
        with pytest.raises(RequestError):
            tiny.transcribe(bad)
    assert shapes == []


# Real speech


@pytest.fixture(scope="module")
def joined(spoken_es):
    """Five of the longest real clips with pauses of 5 s: (samples, [(first, last, text)] in seconds)."""
    clips = sorted(spoken_es, key=lambda path: -path.stat().st_size)[:5]
    pause, pieces, spans, at = np.zeros(5 * 16_000, np.float32), [], [], 0
    for path in clips:
        samples = audio.load(path)
        pieces += [pause, samples]
        spans.append(((at + len(pause)) / 16_000, (at + len(pause) + len(samples)) / 16_000, spoken_es[path]))
        at += len(pause) + len(samples)
    return np.concatenate([*pieces, pause]), spans


@pytest.mark.real
def test_a_real_clip_gives_sensible_text_alike_on_both_engines(base, base_model, spoken_es):
    path = next(path for path in spoken_es if path.name == CLIP)
    said = spoken_es[path]
    first = base.transcribe(path)
    second = Transcriber(str(base_model), "spanish", "torch").transcribe(path.read_bytes())
    assert word_error(first.text, said) <= 2, first.text
    assert word_error(second.text, first.text) <= 1, (first.text, second.text)
    assert first.duration_s == pytest.approx(3.816) and 0 < first.seconds < 60


@pytest.mark.real
def test_long_audio_is_cut_at_pauses_and_told_in_order(base, joined):
    samples, spans = joined
    assert audio.duration_s(samples) > 60
    segments = base.transcribe((samples, 16_000)).segments
    assert len(segments) >= len(spans)
    times = [time for segment in segments for time in (segment.start_s, segment.end_s)]
    assert times == sorted(times) and times[0] > 3
    for first, last, said in spans:
        within = [segment for segment in segments if segment.start_s > first - 1 and segment.end_s < last + 1]
        text = " ".join(segment.text for segment in within)
        assert within and word_error(text, said) <= 0.5 * len(said.split()), (text, said)


@pytest.mark.real
def test_a_transcript_tells_language_length_and_what_was_left_out(base, joined):
    samples, spans = joined
    transcript = base.transcribe(samples, words=base.engine.aligns)
    assert transcript.language == "es" and transcript.duration_s == pytest.approx(len(samples) / 16_000)
    assert transcript.text == " ".join(segment.text for segment in transcript.segments)
    for segment in transcript.segments if base.engine.aligns else ():
        assert [word.text for word in segment.words] == segment.text.split()
        assert segment.start_s == segment.words[0].start_s and segment.end_s == segment.words[-1].end_s
        assert any(first - 0.3 < segment.start_s and segment.end_s < last + 0.3 for first, last, _ in spans)
