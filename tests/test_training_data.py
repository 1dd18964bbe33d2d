"""What a run resolves from its data and base: the learning rate, and a dev split held out of train."""

import random
from dataclasses import replace

import pytest

from lengua.options import TrainOptions
from lengua.runtime.errors import RequestError
from lengua.training.data import MAX_HELD_OUT_CLIPS, choose_held_out, default_learning_rate, hold_out_dev

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


def parted(keys, chosen) -> bool:
    """Return whether no key is on both sides."""
    aside = {keys[index] for index in chosen}
    return not aside & {key for index, key in enumerate(keys) if index not in set(chosen)}


def test_whole_speakers_are_set_aside_where_there_are_ten():
    speakers = [f"s{number % 20}" for number in range(200)]
    chosen = choose_held_out(speakers, [f"text {number % 7}" for number in range(200)])
    assert len(chosen) == 20 and len({speakers[index] for index in chosen}) == 2 and parted(speakers, chosen)


@pytest.mark.parametrize("speakers", [["a", "b"], [f"s{number}" for number in range(9)] + [""]])
def test_whole_texts_where_speakers_are_few_or_unknown(speakers):
    texts = [f"¡Texto {number % 50}!" if number % 2 else f"texto {number % 50}" for number in range(100)]
    spoken = [speakers[number % len(speakers)] for number in range(100)]
    chosen = choose_held_out(spoken, texts)
    assert len(chosen) == 10 and parted([text.strip("¡!").lower() for text in texts], chosen)


def test_texts_where_speakers_speak_too_long_to_be_set_aside_whole():
    speakers = [f"s{number % 10}" for number in range(20_000)]
    texts = [f"text {number}" for number in range(20_000)]
    chosen = choose_held_out(speakers, texts)
    assert len(chosen) == MAX_HELD_OUT_CLIPS and len({speakers[index] for index in chosen}) == 10


def test_which_clips_does_not_depend_on_their_order():
    pairs = [(f"s{number % 30}", f"text {number}") for number in range(300)]
    shuffled = random.Random(17).sample(pairs, 300)
    first, second = ({rows[index] for index in choose_held_out(*zip(*rows, strict=True))} for rows in (pairs, shuffled))
    assert first == second and len(first) == 30


def test_a_few_clips_are_parted_and_one_is_not():
    assert len(choose_held_out(["a"] * 2, ["uno", "dos"])) == 1
    assert sorted(choose_held_out(["a"] * 5, ["uno", "uno", "uno", "dos", "dos"])) == [3, 4]
    assert (
        choose_held_out(["a"], ["uno"])
        == choose_held_out(["a"] * 3, ["uno", "Uno.", "¡uno!"])
        == choose_held_out([], [])
        == []
    )


def test_views_of_train_have_all_of_it_between_them(tiny_store):
    whole = tiny_store.split("train")
    train, dev = hold_out_dev(whole)
    assert (len(train), len(dev)) == (13, 2) and not set(train.column("id")) & set(dev.column("id"))
    assert sorted([*train.column("id"), *dev.column("id")]) == sorted(whole.column("id"))
    by_id = {row.id: row for row in whole}
    assert all((row.log_mel() == by_id[row.id].log_mel()).all() for split in (train, dev) for row in split)
    assert dev.frames.tolist() == [by_id[id].frames for id in dev.column("id")]
    with pytest.raises(RequestError, match=r"expected clips to learn from .+; found 1 in train"):
        hold_out_dev(whole.subset([3]))
