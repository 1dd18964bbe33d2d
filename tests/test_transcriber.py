"""Transcriber and its SegmentStream: nothing from silence; segments in order as they come; how it ends; real speech."""

import threading
import tracemalloc
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from conftest import chirp, joined

from lengua import audio
from lengua.inference import DecodingResult, Span, Transcriber, Word, speech_spans, transcriber
from lengua.inference.transcriber import build_segment
from lengua.runtime.errors import RequestError
from lengua.scoring import score

CLIP = "common_voice_es_20459583.mp3"


@pytest.fixture(scope="module")
def talk(spoken_es) -> np.ndarray:
    """Two minutes of real clips with pauses of 1.5 s."""
    return joined(spoken_es, 18, pause_s=1.5)


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return Transcriber(str(tiny_model), "es")


@pytest.fixture(autouse=True)
def anything_goes(request, monkeypatch):
    """Let pass what the tiny model says: untrained, it babbles, and nothing of it is known to be a ghost."""
    if "real" not in request.keywords:
        monkeypatch.setattr(transcriber.hallucinations, "suppression_reason", lambda decoded, samples: None)


def heard(stream) -> list[tuple[float, float, str]]:
    return [(segment.start_s, segment.end_s, segment.text) for segment in stream]


def test_a_long_recording_without_speech_tells_why_there_is_no_text(tiny):
    for samples in (np.zeros(31 * 16_000), np.random.default_rng(1).normal(0, 0.01, 31 * 16_000)):
        told = tiny.transcribe(samples.astype(np.float32))
        assert not told.segments and told.suppressed == {"no stretch of speech": 1}


def test_segments_come_in_order_with_the_times_of_their_stretches(tiny, talk):
    stream = tiny.segments(talk)
    assert stream.duration_s == pytest.approx(len(talk) / 16_000) and stream.position_s == 0
    found = list(stream)
    expected = [(span.start / 16_000, span.end / 16_000) for span in speech_spans([talk])]
    assert [(one.start_s, one.end_s) for one in found] == expected and len(found) > 10
    assert all(before.end_s <= after.start_s for before, after in pairwise(found))
    assert {one.language for one in found} == {"es"} and stream.language == "es"
    assert stream.position_s == stream.duration_s == pytest.approx(len(talk) / 16_000)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_size_of_a_batch_changes_nothing(batch_size, tiny_model, tiny, talk):
    other = Transcriber(str(tiny_model), "es", batch_size=batch_size)
    assert heard(other.segments(talk)) == heard(tiny.segments(talk))


def test_files_bytes_and_arrays_are_heard_alike(tiny, talk, tmp_path):
    soundfile.write(tmp_path / "talk.flac", talk, 16_000)
    samples = audio.load(tmp_path / "talk.flac")
    expected = heard(tiny.segments(samples))
    for source in (tmp_path / "talk.flac", str(tmp_path / "talk.flac"), (samples, 16_000)):
        assert heard(tiny.segments(source)) == expected
    assert heard(tiny.segments((tmp_path / "talk.flac").read_bytes())) == expected


def test_the_first_segment_is_there_before_the_rest_is_read(tiny, talk, monkeypatch):
    blocks = [talk] * 20
    read = []

    def counted(source, block_s=10.0, track=None):
        for block in blocks:
            for at in range(0, len(block), 160_000):
                read.append(at)
                yield block[at : at + 160_000]

    monkeypatch.setattr(transcriber.audio, "stream", counted)
    stream = tiny.segments(talk)
    next(stream)
    assert len(read) <= 4 and 0 < stream.position_s < 30


def test_progress_is_told_through_speech_and_through_silence(tiny, talk):
    silence = np.zeros(300 * 16_000, np.float32)
    told = []
    stream = tiny.segments(np.concatenate([talk, silence, talk]), watch=told.append)
    list(stream)
    done = [progress.done for progress in told]
    assert done == sorted(done) and done[-1] == pytest.approx(stream.duration_s, abs=0.1)
    assert max(after - before for before, after in pairwise(done)) < 100
    assert {progress.unit for progress in told} == {"s"} and told[0].total == pytest.approx(stream.duration_s, abs=0.1)


def test_what_gives_no_text_is_counted_by_its_reason(tiny, talk, monkeypatch):
    count = len(list(speech_spans([talk])))
    monkeypatch.setattr(
        transcriber.hallucinations, "silence_reason", lambda samples: "too short" if len(samples) < 50_000 else None
    )
    monkeypatch.setattr(
        transcriber.hallucinations, "suppression_reason", lambda said, _: "ghost" if "a" in said.text else None
    )
    stream = tiny.segments(talk)
    found = list(stream)
    assert stream.suppressed["too short"] > 0 and stream.suppressed["ghost"] > 0
    assert sum(stream.suppressed.values()) + len(found) == count and not any("a" in one.text for one in found)
    transcript = tiny.transcribe(talk)
    assert transcript.suppressed == dict(stream.suppressed) and transcript.segments == tuple(found)


def test_a_closed_stream_ends_and_lets_go_of_its_file(tiny, talk, tmp_path):
    soundfile.write(tmp_path / "talk.wav", talk, 16_000)
    with tiny.segments(tmp_path / "talk.wav") as stream:
        first = next(stream)
    assert first.text and list(stream) == []
    (tmp_path / "talk.wav").unlink()
    unread = tiny.segments(talk)
    unread.close()
    assert list(unread) == []


def test_closing_from_another_thread_ends_it_before_the_next_group(tiny, talk, monkeypatch):
    decoding, closed = threading.Event(), threading.Event()
    decode, calls = tiny.decode, []

    def slow(mels):
        calls.append(len(mels))
        decoding.set()
        assert closed.wait(30)
        return decode(mels)

    monkeypatch.setattr(tiny, "decode", slow)
    stream, found = tiny.segments(talk), []
    thread = threading.Thread(target=lambda: found.extend(stream))
    thread.start()
    assert decoding.wait(30)
    stream.close()
    closed.set()
    thread.join(30)
    assert not thread.is_alive() and calls == [1] and len(found) <= 1


def test_the_language_is_that_of_most_of_the_speech(tiny, talk, monkeypatch):
    decode = tiny.decode
    languages = iter(["fr", "fr", *["sv"] * 1000])

    def labelled(mels):
        return [DecodingResult("hej", 1, False, False, language=next(languages)) for _ in decode(mels)]

    monkeypatch.setattr(tiny, "decode", labelled)
    stream = tiny.segments(talk)
    assert stream.language == "es", "asked for"
    assert next(stream).language == stream.language == "fr"
    counts = Counter(segment.language for segment in stream)
    assert counts["sv"] > 5 and stream.language == "sv"


def test_a_missing_file_is_refused_at_once_and_no_audio_with_the_first_segment(tiny, tmp_path):
    with pytest.raises(RequestError, match="no file at"):
        tiny.segments(tmp_path / "missing.wav")
    (tmp_path / "text.wav").write_text("no audio " * 100)
    stream = tiny.segments(tmp_path / "text.wav")
    with pytest.raises(RequestError, match="neither libsndfile"):
        next(stream)


def test_a_short_recording_is_heard_whole_and_its_times_are_looked_for_if_asked(tiny, spoken_es):
    silence, clip = np.zeros(5 * 16_000, np.float32), audio.load(next(iter(spoken_es)))
    samples = np.concatenate([silence, clip, silence])
    (whole,) = tiny.segments(samples)
    (timed,) = tiny.segments(samples, timed=True)
    assert (whole.start_s, whole.end_s) == (0, len(samples) / 16_000) and timed.text == whole.text
    assert 4.5 < timed.start_s < timed.end_s < whole.end_s - 4.5


@pytest.mark.slow
def test_ten_hours_in_constant_memory(tiny, spoken_es, tmp_path):
    """A real clip an hour, and faint noise between them."""
    clip, random = audio.load(next(iter(spoken_es))), np.random.default_rng(17)
    minute = random.uniform(-1e-3, 1e-3, 60 * 16_000).astype(np.float32)
    with soundfile.SoundFile(tmp_path / "long.flac", "w", 16_000, 1, format="FLAC", subtype="PCM_16") as file:
        for _ in range(10):
            file.write(clip)
            for _ in range(60):
                file.write(minute)
    tracemalloc.start()
    stream = tiny.segments(tmp_path / "long.flac")
    starts = [segment.start_s for segment in stream]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    hour = 3600 + len(clip) / 16_000
    assert stream.duration_s == pytest.approx(10 * hour) and len(starts) >= 10
    assert {round(start // hour) for start in starts} == set(range(10))
    assert peak < 100 * 2**20, "as float32, ten hours are 2.3 GB"


# Words


def word(start: float, end: float, text: str = "a") -> Word:
    return Word(start, end, text, 0.5)


def test_a_segment_lasts_from_its_first_word_to_its_last():
    span, said = Span(160_000, np.zeros(64_000, np.float32)), DecodingResult("uno dos", 2, False, False, language="es")
    segment = build_segment(span, said, (word(0.25, 0.5, "uno"), word(0.5, 1.5, "dos")))
    assert (segment.start_s, segment.end_s) == (10.25, 11.5)
    assert [(one.start_s, one.end_s, one.text) for one in segment.words] == [(10.25, 10.5, "uno"), (10.5, 11.5, "dos")]
    plain = build_segment(span, said)
    assert (plain.start_s, plain.end_s, plain.words) == (10, 14, ())


def test_words_are_drawn_into_their_stretch_and_into_order():
    span, said = Span(160_000, np.zeros(64_000, np.float32)), DecodingResult("a b c d", 4, False, False)
    segment = build_segment(span, said, (word(-1, 0.5), word(0.25, 0.3), word(3, 9), word(9, 10)))
    times = [time for one in segment.words for time in (one.start_s, one.end_s)]
    assert times == [10, 10.5, 10.5, 10.5, 13, 14, 14, 14] and segment.end_s == 14


def test_words_of_real_calls_stay_within_their_segments(tiny, talk):
    if not tiny.engine.aligns:
        pytest.skip("this engine cannot tell when words were said")
    with tiny.segments(talk, words=True) as stream:
        found = list(stream)
    plain = list(tiny.segments(talk))
    assert [one.text for one in found] == [one.text for one in plain]
    assert sum(len(one.words) for one in found) > 10
    times = [time for one in found for said in one.words for time in (said.start_s, said.end_s)]
    assert times == sorted(times)
    for timed, whole in zip(found, plain, strict=True):
        assert whole.start_s <= timed.start_s <= timed.end_s <= whole.end_s


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
def test_no_energy_no_model(samples, tiny, monkeypatch):
    monkeypatch.setattr(tiny.engine, "generate", None)
    transcript = tiny.transcribe((samples, 16_000))
    assert transcript.text == "" and transcript.segments == () and transcript.language == "es"
    assert transcript.duration_s == pytest.approx(len(samples) / 16_000)


# Real speech


@pytest.fixture(scope="module")
def base(base_model):
    return Transcriber(str(base_model), "es")


def word_error(text: str, other: str) -> int:
    return int(score(other, text).counts["errors"].sum())


@pytest.fixture(scope="module")
def five_clips(spoken_es):
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
def test_long_audio_is_cut_at_pauses_and_told_in_order(base, five_clips):
    samples, spans = five_clips
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
def test_a_transcript_tells_language_length_and_what_was_left_out(base, five_clips):
    samples, spans = five_clips
    transcript = base.transcribe(samples, words=base.engine.aligns)
    assert transcript.language == "es" and transcript.duration_s == pytest.approx(len(samples) / 16_000)
    assert transcript.text == " ".join(segment.text for segment in transcript.segments)
    for segment in transcript.segments if base.engine.aligns else ():
        assert [word.text for word in segment.words] == segment.text.split()
        assert segment.start_s == segment.words[0].start_s and segment.end_s == segment.words[-1].end_s
        assert any(first - 0.3 < segment.start_s and segment.end_s < last + 0.3 for first, last, _ in spans)
