"""The learning rate of those who name none."""

from dataclasses import replace

import pytest

from lengua.options import TrainOptions
from lengua.runtime.errors import RequestError
from lengua.training.arguments import default_learning_rate

ASKED = TrainOptions("stores/es")


@pytest.mark.parametrize(
    ("d_model", "rate", "lora"),
    [
        (384, 3.75e-5, 1e-4),
        (512, 2.5e-5, 1e-4),
        (768, 1.25e-5, 1e-4),
        (1024, 6.25e-6, 6.25e-5),
        (1280, 5e-6, 5e-5),
        (16, 3.75e-5, 1e-4),
        (600, 2.5e-5, 1e-4),
        (5000, 5e-6, 5e-5),
    ],
)
def test_the_size_of_the_base_decides(d_model, rate, lora):
    assert (
        default_learning_rate(ASKED, d_model) == default_learning_rate(replace(ASKED, learn="decoder"), d_model) == rate
    )
    assert default_learning_rate(replace(ASKED, learn="lora"), d_model) == pytest.approx(lora)


@pytest.mark.parametrize("learn", ["all", "lora"])
def test_what_is_said_is_taken(learn):
    assert default_learning_rate(replace(ASKED, learn=learn, learning_rate=3e-4), 512) == 3e-4


@pytest.mark.parametrize("rate", [0.0, -1e-5, 0.02, 1e5, float("nan")])
def test_a_rate_at_which_nothing_is_learned_is_refused(rate):
    with pytest.raises(RequestError, match="--learning-rate above 0"):
        default_learning_rate(replace(ASKED, learning_rate=rate), 512)
