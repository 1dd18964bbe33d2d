"""windows: how much the encoder is given, and with whom."""

import numpy as np
import pytest

from lengua.audio.log_mel import WINDOW_FRAMES
from lengua.audio.windows import FRAME_MULTIPLE, bucket_by_length, decoding_batches, window_of


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
@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
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


def test_no_clips_are_no_batches():
    assert list(bucket_by_length([], 8, 0.5)) == []


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


def test_in_decoding_batches_of_eight_are_those_of_like_lengths():
    frames = np.random.default_rng(17).integers(3, 3000, 50).tolist()
    assert list(decoding_batches(frames, 8, 0.5)) == list(bucket_by_length(frames, 8, 0.5))
    assert list(decoding_batches(frames, 25, None)) == list(bucket_by_length(frames, 25, None)), (
        "equal windows may join"
    )
    assert list(decoding_batches([], 8, 0.5)) == []
