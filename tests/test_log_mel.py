"""log-mel: what transformers' WhisperFeatureExtractor gives, without its padding, in a byte a value; windows."""

import numpy as np
import pytest
from conftest import chirp

from lengua import audio
from lengua.audio import log_mel
from lengua.audio.log_mel import WINDOW_FRAMES
from lengua.audio.windows import FRAME_MULTIPLE, bucket_by_length, decoding_batches, window_of

LENGTHS = [1, 50, 160, 161, 799, 48_000, 479_840, 479_999, 480_000]
STATED = 1e-4
"""Largest difference to WhisperFeatureExtractor in log-mel units; measured: 2.7e-5."""
STATED_CODED = 0.004
"""The same after the one-byte codec: half a step of 2 / 255."""


@pytest.fixture(scope="module")
def extractor():
    """Return a function: samples -> transformers' log-mel, shape (n_mels, 3000)."""
    from transformers import WhisperFeatureExtractor

    extractors = {n_mels: WhisperFeatureExtractor(feature_size=n_mels) for n_mels in (80, 128)}

    def extract(samples: np.ndarray, n_mels: int = 80) -> np.ndarray:
        return extractors[n_mels](samples, sampling_rate=16_000, return_tensors="np").input_features[0]

    return extract


def noise(samples: int) -> np.ndarray:
    return (np.random.default_rng(17).standard_normal(samples) * 0.1).astype(np.float32)


def agrees(samples: np.ndarray, extract, n_mels: int = 80) -> np.ndarray:
    """Assert that a clip refilled to 30 s is what transformers gives, directly and through the codec."""
    expected = extract(samples, n_mels)
    log = log_mel.log_mel(samples, n_mels)
    assert log.dtype == np.float32 and log.shape[1] == n_mels
    np.testing.assert_allclose(log_mel.pad_with_silence(log, 3000), expected, atol=STATED, rtol=0)
    peak, coded = log_mel.encode(log)
    np.testing.assert_allclose(
        log_mel.pad_with_silence(log_mel.decode(peak, coded), 3000, peak), expected, atol=STATED_CODED, rtol=0
    )
    return log


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("level", [1.0, 1e-3])
def test_every_length_agrees_with_transformers(length, level, extractor):
    log = agrees(noise(length) * np.float32(level), extractor)
    assert len(log) == min(-(-length // 160) + 2, 3000)


@pytest.mark.parametrize("level", [1.0, 1e-3, 8.0], ids=["as it is", "quiet", "loud"])
def test_real_speech_agrees_with_transformers(level, spoken_es, extractor):
    for path in list(spoken_es)[:4]:
        samples = audio.load(path)
        agrees(np.clip(samples * np.float32(level), -1, 1), extractor)


def test_zeros_of_the_log_mel_are_noise_and_not_silence(extractor):
    """The trap: what padding the features with zeros would give is far from what the model was trained on."""
    samples = chirp(0.5, 200)
    log, expected = log_mel.log_mel(samples), extractor(samples)
    wrong = np.zeros_like(expected)
    wrong[:, : len(log)] = log.T
    assert np.abs(wrong - expected).mean() > 0.3
    assert np.abs(log_mel.pad_with_silence(log, 3000) - expected).max() <= STATED


def test_large_v3_has_128_bins(extractor):
    agrees(chirp(1.5, 200), extractor, n_mels=128)


def test_audio_over_30_seconds_is_cut_as_transformers_cuts_it(extractor):
    samples = noise(500_000)
    np.testing.assert_array_equal(log_mel.log_mel(samples), log_mel.log_mel(samples[:480_000]))
    agrees(samples[:480_000], extractor)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_a_tone_at_the_centre_of_a_band_is_loudest_there(n_mels):
    centres = log_mel.band_centres_hz(n_mels)
    assert centres.shape == (n_mels,) and (np.diff(centres) > 0).all()
    for band in (n_mels // 2, n_mels - 10):  # low bands are narrower than the 40 Hz between two bins
        tone = 0.5 * np.sin(2 * np.pi * centres[band] * np.arange(8000) / 16_000)
        assert log_mel.log_mel(tone.astype(np.float32), n_mels)[20].argmax() == band


def test_no_frame_that_hears_the_clip_is_left_out(extractor):
    """Behind the frames that are kept, transformers has the floor and nothing else; and not one frame more is kept."""
    for length in (1, 160, 200, 201, 48_000, 48_100):
        samples = np.full(length, 0.5, np.float32)
        samples[-1] = -0.9  # something to hear at the very end
        expected, log = extractor(samples), log_mel.log_mel(samples)
        floor = log_mel.silence_floor(log.max())
        np.testing.assert_allclose(expected[:, len(log) :], floor, atol=STATED)
        assert expected[:, : len(log) - 2].max(axis=0).min() > floor


def test_silence_behind_a_clip_is_its_own_floor_exactly():
    log = log_mel.log_mel(chirp(0.5, 200))
    peak, _ = log_mel.encode(log)
    floor = np.float32(log_mel.silence_floor(peak))
    assert peak == log.max() and floor == np.float32(peak - 2)
    assert (log_mel.pad_with_silence(log, 400)[:, len(log) :] == floor).all()
    assert (log_mel.decode(peak, np.zeros((3, 80), np.uint8)) == floor).all()
    assert log_mel.decode(peak, np.full((1, 80), 255, np.uint8)).max() == pytest.approx(peak, abs=1e-6)


def test_digital_silence_is_the_lowest_value_and_survives_the_codec(extractor):
    log = agrees(np.zeros(16_000, np.float32), extractor)
    assert (log == log_mel.LOG_MEL_MIN).all()
    peak, coded = log_mel.encode(log)
    assert peak == log_mel.LOG_MEL_MIN == log_mel.silence_floor(peak)
    assert (log_mel.decode(peak, coded) == log_mel.LOG_MEL_MIN).all()


def test_a_quiet_clip_has_its_floor_at_minus_one_and_a_half():
    """A peak under 0.5 would put the floor under digital zero, which no audio reaches."""
    log = log_mel.log_mel(chirp(0.5, 200) * np.float32(3e-5))
    assert log.max() < 0.5 and log_mel.silence_floor(log.max()) == -1.5 and log.min() >= -1.5


def test_filling_cuts_what_is_too_long_and_keeps_the_floor_of_the_whole_clip():
    log = log_mel.log_mel(np.concatenate([np.zeros(8000, np.float32), chirp(0.5, 200)]))
    np.testing.assert_array_equal(log_mel.pad_with_silence(log, 20), log[:20].T)
    window = log_mel.pad_with_silence(log[:20], 60, peak=float(log.max()))
    assert (window[:, 20:] == np.float32(log_mel.silence_floor(log.max()))).all()


@pytest.mark.parametrize("level", [1.0, 1e-2, 1e-4])
def test_the_codec_is_wrong_by_half_a_step_at_most(level):
    log = log_mel.log_mel(noise(16_000) * np.float32(level))
    peak, coded = log_mel.encode(log)
    assert coded.dtype == np.uint8 and coded.shape == log.shape
    half_a_step = (peak - log_mel.silence_floor(peak)) / 510
    assert 0 < half_a_step < STATED_CODED
    assert np.abs(log_mel.decode(peak, coded) - log).max() <= half_a_step + 1e-6
    again = log_mel.encode(log_mel.decode(peak, coded))[1]
    np.testing.assert_array_equal(again, coded)


# Windows


@pytest.mark.parametrize("margin_s", [0.0, 0.3, 0.5, 1.5, 40.0])
def test_a_window_holds_the_clip_and_its_margin_and_little_more(margin_s):
    for frames in (3, 4, 8, 99, 100, 1234, 2999, 3000):
        window, needed = window_of(frames, margin_s), frames + round(100 * margin_s)
        assert window % 2 == 0 and window <= WINDOW_FRAMES
        if needed <= WINDOW_FRAMES:
            assert needed <= window < needed + FRAME_MULTIPLE
        else:
            assert window == WINDOW_FRAMES


def test_without_a_margin_the_window_is_the_models_own():
    assert window_of(50, None) == 3000 and window_of(50, None, longest=100) == 100
    assert window_of(99, 0.5, longest=100) == 100 and window_of(500, 0.5, longest=100) == 100


@pytest.mark.parametrize("margin_s", [None, 0.5])
@pytest.mark.parametrize("batch_size", [1, 8, 100])
def test_clips_of_like_length_are_decoded_together_each_once(margin_s, batch_size):
    frames = np.random.default_rng(17).integers(3, 3000, 50).tolist()
    batches = list(bucket_by_length(frames, batch_size, margin_s))
    order = [index for batch, _ in batches for index in batch]
    assert sorted(order) == list(range(50))
    assert [frames[index] for index in order] == sorted(frames, reverse=True)  # the longest first: memory fails early
    assert [len(batch) for batch, _ in batches] == [batch_size] * (50 // batch_size) + [50 % batch_size] * (
        50 % batch_size > 0
    )
    for batch, window in batches:
        assert window == window_of(max(frames[index] for index in batch), margin_s)


def test_clips_of_equal_length_keep_their_order():
    assert list(bucket_by_length([7, 9, 7, 9], 3, 0.0)) == [([1, 3, 0], 16), ([2], 8)]


@pytest.mark.parametrize("margin_s", [None, 0.0, 0.5])
def test_in_decoding_the_batch_size_changes_no_window(margin_s):
    frames = np.random.default_rng(17).integers(3, 3000, 50).tolist()
    windows = []
    for batch_size in (1, 3, 8, 64):
        batches = list(decoding_batches(frames, batch_size, margin_s))
        assert sorted(index for batch, _ in batches for index in batch) == list(range(50))
        assert max(len(batch) for batch, _ in batches) <= batch_size
        assert all(window >= min(frames[index] + 100 * (margin_s or 0), 2993) for b, window in batches for index in b)
        windows.append({index: window for batch, window in batches for index in batch})
    assert windows == [windows[0]] * 4
