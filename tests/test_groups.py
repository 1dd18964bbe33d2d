"""WER by groups: which clip is in which, what is small, how a group differs from the rest."""

import time

import numpy as np
import pytest

from lengua.evaluation.subgroups import GROUP_KEYS, Group, group_values, measure_groups

SUR = "España: Sur peninsular (Andalucia, Extremadura, Murcia)"


def record(errors: int, words: int = 10, speaker: str | None = "s0", seconds: float | None = 3.0, **extra) -> dict:
    counts = {"errors": errors, "words": words}
    return {"id": "x", "speaker": speaker, "duration_s": seconds, "extra": extra, "counts": counts}


def two_accents(speakers: int, apart: float, seed: int = 17) -> list[dict]:
    """So many speakers of each of two accents, ten clips each; the WER of b is higher by `apart`."""
    rng = np.random.default_rng(seed)
    rates = rng.beta(4, 16, 2 * speakers)
    return [
        record(int(rng.binomial(10, rates[k] + apart * (k % 2))), speaker=f"s{k}", accent="ab"[k % 2])
        for k in range(2 * speakers)
        for _ in range(10)
    ]


@pytest.mark.parametrize(
    ("cell", "values"),
    [
        ("andino|caribe", ["andino", "caribe"]),
        ("andino,caribe, andino", ["andino", "caribe"]),
        (SUR, [SUR]),
        (f"{SUR},caribe", [SUR, "caribe"]),
        (f"{SUR}|de aquí, de allá", [SUR, "de aquí, de allá"]),
        ("", ["unknown"]),
        (" | ", ["unknown"]),
    ],
)
def test_several_accents_in_one_cell(cell, values):
    assert group_values(record(0, accent=cell), "accent") == values
    assert group_values(record(0, accents=cell), "accent") == values


def test_values_by_every_key():
    one = record(0, age="forties", gender="male_masculine", speaker=None, seconds=None)
    assert [group_values(one, key) for key in ("age", "gender", "speaker", "duration", "variant")] == [
        ["fourties"], ["male"], ["unknown"], ["unknown"], ["unknown"]
    ]  # fmt: skip
    lengths = [group_values(record(0, seconds=seconds), "duration")[0] for seconds in (0.5, 2, 4.99, 5, 10, 29)]
    assert lengths == ["under 2 s", "2 to 5 s", "2 to 5 s", "5 to 10 s", "10 s and more", "10 s and more"]
    assert group_values({"counts": {}}, "accent") == ["unknown"]


def test_counts_by_hand_and_order():
    records = [
        record(1, speaker="a", age="sixties", accent="andino|caribe"),
        record(3, speaker="a", age="sixties", accent="caribe"),
        record(2, speaker="b", age="teens", accent="caribe"),
        record(10, speaker="c"),
    ]
    found = measure_groups(records, ("age", "accent"))
    assert [(g.key, g.group, g.clips, g.speakers, g.words, g.errors) for g in found] == [
        ("age", "teens", 1, 1, 10, 2),
        ("age", "sixties", 2, 1, 20, 4),
        ("age", "unknown", 1, 1, 10, 10),
        ("accent", "caribe", 3, 2, 30, 6),
        ("accent", "andino", 1, 1, 10, 1),
        ("accent", "unknown", 1, 1, 10, 10),
    ]
    sixties = found[1]
    assert sixties.wer == 0.2 and sixties.wer_low <= 0.2 <= sixties.wer_high and sixties.unit == "utterance"
    assert sixties.difference == pytest.approx(0.2 - 12 / 20)
    assert sixties.small == "1 speaker, 20 words"
    assert found[0].wer_low is None and found[0].difference_low is None and not found[0].differs


def test_what_is_large_enough_is_not_marked():
    found = measure_groups(two_accents(10, 0.1), ("accent", "speaker"))
    assert [(g.group, g.unit, g.small) for g in found if g.key == "accent"] == [
        ("a", "speaker", ""),
        ("b", "speaker", ""),
    ]
    of_speakers = [g for g in found if g.key == "speaker"]
    assert len(of_speakers) == 20 and {g.small for g in of_speakers} == {""} and of_speakers[0].difference is None
    assert measure_groups([record(0, 5)], ("speaker",))[0].small == "5 words"


def test_a_difference_shows_where_there_is_one_and_mirrors():
    a, b = measure_groups(two_accents(25, 0.25), ("accent",))
    assert b.differs and b.difference_low > 0 and a.difference_high < 0
    assert b.difference == pytest.approx(-a.difference)
    assert (b.difference_low, b.difference_high) == pytest.approx((-a.difference_high, -a.difference_low))
    assert abs(b.difference - 0.25) < 0.1


def test_no_difference_is_seldom_called_one():
    """Nominally one in twenty; 60 sets of 15 + 15 speakers leave room for chance."""
    wrong = sum(measure_groups(two_accents(15, 0.0, seed), ("accent",), resamples=400)[0].differs for seed in range(60))
    assert wrong <= 8


def test_speakers_on_both_sides_are_drawn_on_both_sides():
    """Long clips of every speaker are worse by 0.1, exactly; speakers differ much: paired, that shows at once."""
    rng = np.random.default_rng(17)
    rates = rng.integers(0, 60, 20)
    lengths = [(k, seconds) for k in range(20) for seconds in (3, 7)]
    records = [record(int(rates[k]) + 10 * (seconds > 5), 100, f"s{k}", seconds) for k, seconds in lengths]
    _, long = measure_groups(records, ("duration",))
    assert long.difference == pytest.approx(0.1) and long.differs
    assert long.difference_high - long.difference_low < 1e-9 < long.wer_high - long.wer_low


def test_edges():
    assert measure_groups([]) == []
    (one,) = measure_groups([record(1)], ("gender",))
    assert (one.group, one.clips, one.difference, one.wer_low) == ("unknown", 1, None, None)
    silent = measure_groups([record(2, 0, gender="male"), record(0, 0, gender="female")], ("gender",))
    assert [(g.group, g.wer, g.difference, g.difference_low) for g in silent] == [
        ("female", 0.0, -2.0, None), ("male", 2.0, 2.0, None)
    ]  # fmt: skip
    unknown = measure_groups(
        [record(1, speaker=None, gender="male"), record(1, speaker="", gender="female")], ("gender",)
    )
    assert [g.speakers for g in unknown] == [0, 0] and unknown[0].small == "0 speakers, 10 words"


def test_the_same_every_time_and_fields_are_plain():
    records = two_accents(5, 0.1)
    assert measure_groups(records) == measure_groups(records)
    assert {g.key for g in measure_groups(records)} == set(GROUP_KEYS)
    assert all(
        isinstance(value, str | int | float | None) for g in measure_groups(records) for value in vars(g).values()
    )
    assert isinstance(measure_groups(records)[0], Group)


def test_a_whole_test_set_takes_seconds():
    rng = np.random.default_rng(17)
    records = [
        record(int(rng.integers(4)), 9, f"s{k % 1500}", float(rng.uniform(1, 12)), accent=f"a{k % 23}", age="teens")
        for k in range(15_000)
    ]
    started = time.perf_counter()
    found = measure_groups(records)
    assert len(found) > 1500 and time.perf_counter() - started < 60
