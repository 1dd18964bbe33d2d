"""What was forgotten: the language heard, timestamps, words put into silence and noise."""

import numpy as np
import pytest

from lengua.evaluation import failure_modes
from lengua.inference import Transcriber


@pytest.fixture(scope="module", params=["ctranslate2", "torch"])
def transcriber(request, tiny_model) -> Transcriber:
    return Transcriber(str(tiny_model), "es", request.param)


def test_every_ability_is_probed(transcriber, tiny_store):
    found = failure_modes.probe(transcriber, tiny_store.split("test"), "es")
    language = found["language"]
    if transcriber.engine.multilingual:
        assert language["clips"] == 5 == language["right"] + sum(language["others"].values())
    else:
        assert language is None, "so few tokens are an English-only model's to CTranslate2"
    assert found["timestamps"]["clips"] == 5 and 0 <= found["timestamps"]["right"] <= 5
    silence, noise = found["silence"], found["noise"]
    assert silence["windows"] == len(failure_modes.NOISE_LENGTHS_S)
    assert noise["windows"] == len(failure_modes.NOISE_LENGTHS_S) * len(failure_modes.NOISE_LEVELS_DBFS)
    for stretch in (silence, noise):
        assert stretch["spoken"] <= stretch["windows"] and stretch["words"] >= stretch["spoken"]
        assert bool(stretch["longest"]) == bool(stretch["spoken"])


def test_languages_are_codes(tiny_model, tiny_store):
    transcriber = Transcriber(str(tiny_model), "es", "torch")
    heard = failure_modes.detect_languages(transcriber, [row.log_mel() for row in tiny_store.split("test")])
    assert len(heard) == 5 and all(2 <= len(code) <= 3 and code.isalpha() for code in heard)


@pytest.mark.parametrize(
    ("times", "true"),
    [
        ([0.0, 1.9], True),
        ([0.0, 0.8, 0.8, 2.4], True),
        ([], False),
        ([0.0], False),
        ([0.0, 1.0, 1.0], False),
        ([1.0, 0.2], False),
        ([0.0, 2.6], False),
        ([0.0, 29.98], False),
    ],
)
def test_times_open_close_go_on_and_end_with_the_clip(times, true):
    assert failure_modes.is_plausible(times, 2.0) is true


def test_noise_has_the_levels_it_says_and_is_the_same_every_time():
    made = failure_modes.white_noises()
    levels = [20 * np.log10(np.sqrt(np.mean(one.astype(np.float64) ** 2))) for one in made]
    expected = np.repeat(failure_modes.NOISE_LEVELS_DBFS, len(failure_modes.NOISE_LENGTHS_S))
    assert np.allclose(levels, expected, atol=0.3) and np.abs(np.concatenate(made)).max() <= 1
    assert all(np.array_equal(a, b) for a, b in zip(made, failure_modes.white_noises(), strict=True))


def test_few_rows_are_all_taken_and_many_are_spread():
    assert failure_modes.evenly_spaced_rows("abc", 10) == list("abc") and failure_modes.evenly_spaced_rows(
        "abcdefghi", 3
    ) == list("aei")
    assert failure_modes.evenly_spaced_rows("a", 5) == ["a"]


@pytest.mark.slow
def test_the_untouched_base_hears_spanish_and_writes_true_times(base_model, common_voice_es):
    from test_hearers import spoken_rows

    found = failure_modes.probe(Transcriber(str(base_model), "es"), spoken_rows(common_voice_es, 6), "es")
    language = found["language"]
    assert language["right"] > max(language["others"].values(), default=0), "no language is heard more often"
    assert found["timestamps"]["right"] >= 3
