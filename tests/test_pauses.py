"""pauses: stretches that fit the model, in order, with all the speech in them, however the blocks come."""

from itertools import pairwise

import numpy as np
import pytest

from lengua import audio
from lengua.audio import log_mel
from lengua.inference import MAX_SEGMENT_SECONDS, speech_spans
from lengua.inference.vad import (
    MAX_STRETCH_FRAMES,
    PAD_SAMPLES,
    VAD_FRAME_SAMPLES,
    speech_probabilities,
    speech_stretches,
)

SECOND = audio.SAMPLE_RATE / VAD_FRAME_SAMPLES
"""Frames."""


def probabilities(*parts: tuple[float, float]) -> list[float]:
    """Return what the detector would say: (seconds, probability) one after the other."""
    return [value for seconds, value in parts for _ in range(round(seconds * SECOND))]


def in_seconds(found) -> list[tuple[float, float]]:
    return [(first / audio.SAMPLE_RATE, last / audio.SAMPLE_RATE) for first, last in found]


def heard(*parts: tuple[float, float]) -> list[tuple[float, float]]:
    return in_seconds(speech_stretches(probabilities(*parts)))


@pytest.fixture(scope="module")
def talk(spoken_es) -> np.ndarray:
    """Three minutes of real clips with pauses of 0.1 to 4 s, and one of 35 s."""
    random, pieces = np.random.default_rng(17), []
    for number, path in enumerate(list(spoken_es)[:25]):
        pause = 35 if number == 12 else random.uniform(0.1, 4)
        pieces += [audio.load(path), np.zeros(int(pause * audio.SAMPLE_RATE), np.float32)]
    return np.concatenate(pieces)


def blocks_of(samples: np.ndarray, size: int) -> list[np.ndarray]:
    return [samples[at : at + size] for at in range(0, len(samples), size)]


def bounds(blocks) -> list[tuple[int, int]]:
    return [(span.start, span.end) for span in speech_spans(blocks)]


# What the detector says -> stretches


def test_a_long_pause_ends_a_stretch_and_leaves_a_pad_on_both_sides():
    (first,) = heard((2, 0.0), (5, 0.9), (3, 0.0))
    assert first == pytest.approx((1.8, 7.2), abs=0.05)
    two = heard((5, 0.9), (1.1, 0.0), (5, 0.9))
    assert two == [pytest.approx((0, 5.2), abs=0.05), pytest.approx((5.9, 11.1), abs=0.05)]


def test_a_short_pause_ends_only_what_is_long_enough():
    assert len(heard((1, 0.9), (0.7, 0.0), (1, 0.9))) == 1
    assert len(heard((5, 0.9), (0.7, 0.0), (1, 0.9))) == 2
    assert len(heard((5, 0.9), (0.3, 0.0), (1, 0.9))) == 1


def test_doubt_neither_begins_speech_nor_ends_it():
    assert heard((9, 0.45)) == []
    assert len(heard((5, 0.9), (3, 0.4), (2, 0.9))) == 1


def test_what_is_too_long_is_cut_where_speech_is_least_sure():
    cut = 20
    found = heard((cut, 0.9), (0.3, 0.1), (30, 0.9), (2, 0.0))
    assert found[0] == pytest.approx((0, cut + 0.15), abs=0.1) and found[1][0] == pytest.approx(found[0][1])
    assert all(last - first <= MAX_SEGMENT_SECONDS for first, last in found)
    assert sum(last - first for first, last in found) == pytest.approx(50.5, abs=0.1)


@pytest.mark.parametrize("sure", [1.0, 0.8])
def test_speech_without_end_is_cut_all_the_same_and_loses_nothing(sure):
    found = heard((600, sure))
    assert found[0][0] == 0 and found[-1][1] >= 600
    assert all(before[1] == after[0] for before, after in pairwise(found))
    assert all(13 < last - first <= MAX_SEGMENT_SECONDS for first, last in found[:-1])
    assert len(found) < 600 / 20


def test_a_cut_in_a_pause_leaves_no_stretch_of_silence():
    frames = MAX_STRETCH_FRAMES / SECOND
    found = heard((frames - 0.3, 0.9), (8.3, 0.0), (4, 0.9), (2, 0.0))
    assert len(found) == 2 and found[1] == pytest.approx((frames + 7.8, frames + 12.2), abs=0.1)


def test_any_course_of_sureness_gives_stretches_in_order_that_hold_all_speech():
    random = np.random.default_rng(17)
    for _ in range(200):
        parts = [(random.uniform(0.05, 12), random.choice([0.0, 0.2, 0.4, 0.7, 1.0])) for _ in range(30)]
        course = probabilities(*parts)
        found = list(speech_stretches(course))
        assert all(first < last for first, last in found)
        assert all(last - first <= MAX_SEGMENT_SECONDS * audio.SAMPLE_RATE for first, last in found)
        assert all(before <= after for (_, before), (after, _) in pairwise(found))
        covered = np.zeros(len(course) * VAD_FRAME_SAMPLES + PAD_SAMPLES, int)
        for first, last in found:
            covered[first:last] += 1
        speech = np.repeat(np.array(course) >= 0.5, VAD_FRAME_SAMPLES)
        assert covered.max(initial=0) <= 1 and covered[: len(speech)][speech].all()


def test_a_stretch_is_told_as_soon_as_its_end_is_sure():
    course = probabilities((5, 0.9), (2, 0.0), (500, 0.9))
    asked = iter(course)
    next(speech_stretches(asked))
    assert len(course) - len(list(asked)) < 7 * SECOND


# Sound -> spans


def test_short_audio_is_one_span():
    whole = np.ones(log_mel.WINDOW_SAMPLES, np.float32)
    assert bounds([whole]) == bounds(blocks_of(whole, 7777)) == [(0, log_mel.WINDOW_SAMPLES)]
    assert bounds([np.zeros(log_mel.WINDOW_SAMPLES + 1, np.float32)]) == []
    assert bounds([]) == [] and bounds([np.ones(1, np.float32)]) == [(0, 1)]


@pytest.mark.parametrize("size", [1_600, 16_000, 99_999, 10**9])
def test_the_size_of_blocks_changes_nothing(size, talk):
    expected = list(speech_spans(blocks_of(talk, 160_000)))
    found = list(speech_spans(blocks_of(talk, size)))
    assert len(found) == len(expected) > 10
    for one, other in zip(found, expected, strict=True):
        assert one.start == other.start
        np.testing.assert_array_equal(one.samples, other.samples)
        np.testing.assert_array_equal(one.samples, talk[one.start : one.end])


def test_the_borders_of_what_the_detector_hears_lose_nothing(talk):
    """The detector hears 31 s at a time; here the same recording at once, as no long one could be heard."""
    whole = [(first, min(last, len(talk))) for first, last in speech_stretches(speech_probabilities(talk).tolist())]
    found = bounds([talk])
    assert len(found) == len(whole)
    assert all(
        abs(np.subtract(one, other)).max() <= 8 * VAD_FRAME_SAMPLES for one, other in zip(found, whole, strict=True)
    )


def test_half_an_hour_of_silence_between_two_words_are_not_kept(spoken_es):
    clip = audio.load(next(iter(spoken_es)))
    silence = np.zeros(60 * audio.SAMPLE_RATE, np.float32)
    blocks = [clip, *[silence] * 30, clip]
    found = list(speech_spans(blocks))
    assert found[0].start < audio.SAMPLE_RATE and found[-1].start > 1800 * audio.SAMPLE_RATE
    assert sum(len(span.samples) for span in found) < 3 * len(clip)
