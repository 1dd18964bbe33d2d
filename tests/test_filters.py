"""Filters: every rule with a reason, and draws that depend on seed and ids alone."""

import random
from collections import Counter

import pytest

from lengua.data.filters import (
    Filters,
    estimated_duration_s,
    filter_items,
    sample_under_cap,
    take_until_cap,
)
from lengua.data.sources import Dropped, Utterance
from lengua.data.sources.clip_table import name_hash
from lengua.runtime.errors import RequestError


def clip(number: int, speaker: str = "s", seconds: float | None = 5.0, **extra: str) -> Utterance:
    return Utterance(f"clip_{number}", b"audio", "Mening nummer tolv.", "sv", speaker, seconds, extra=extra)


def reason(item: Utterance, **wishes) -> str | None:
    """Return why the filters leave an utterance out."""
    (found,) = filter_items([item], Filters(**wishes))
    return found.reason if isinstance(found, Dropped) else None


CLIPS = [clip(number, speaker=f"s{min(number // 10, 5)}", seconds=2 + number % 5) for number in range(100)]
"""Five speakers with ten clips each, one with fifty; 4 s in the mean."""


@pytest.mark.parametrize(
    ("extra", "wishes", "expected"),
    [
        ({}, {}, None),
        ({"up_votes": "2"}, {"min_up_votes": 2}, None),
        ({"up_votes": "1"}, {"min_up_votes": 2}, "fewer than 2 up-votes"),
        ({"up_votes": "0"}, {"min_up_votes": 0}, None),
        ({}, {"min_up_votes": 2}, "unknown votes"),
        ({"up_votes": "?"}, {"min_up_votes": 2}, "unknown votes"),
        ({"down_votes": "0"}, {"max_down_votes": 0}, None),
        ({"down_votes": "1"}, {"max_down_votes": 0}, "more than 0 down-votes"),
        ({"up_votes": "2"}, {"max_down_votes": 0}, "unknown votes"),
        ({"gender": "female"}, {"gender": ("female",)}, None),
        ({"gender": "female_feminine"}, {"gender": ("Female",)}, None),
        ({"gender": "female"}, {"gender": ("male",)}, "another gender"),
        ({"gender": "male_masculine"}, {"gender": ("other", "male")}, None),
        ({}, {"gender": ("male",)}, "unknown gender"),
        ({"age": "fourties"}, {"age": ("forties",)}, None),
        ({"age": "twenties"}, {"age": ("teens", "thirties")}, "another age"),
        ({"accent": "Caribe: Cuba, Venezuela, Puerto Rico"}, {"accent": ("caribe",)}, None),
        ({"accent": "nortepeninsular"}, {"accent": ("caribe", "andino")}, "another accent"),
        ({"accent": " "}, {"accent": ("caribe",)}, "unknown accent"),
    ],
)
def test_rules_on_what_is_told(extra, wishes, expected):
    assert reason(clip(1, **extra), **wishes) == expected


def test_without_a_cap_nothing_is_drawn_and_nothing_is_read():
    def unreadable():
        raise AssertionError("read")
        yield

    assert sample_under_cap(unreadable(), Filters(min_up_votes=2)) is None
    assert list(filter_items(CLIPS, Filters())) == CLIPS


def test_a_draw_depends_on_seed_and_ids_not_on_order():
    filters = Filters(max_utterances=20)
    first = sample_under_cap(CLIPS, filters)
    mixed = random.Random(1).sample(CLIPS, len(CLIPS))
    assert len(first) == 20 and sample_under_cap(mixed, filters) == first
    kept = [item for item in filter_items(CLIPS, filters, first) if isinstance(item, Utterance)]
    assert len(kept) == 20 and kept == [item for item in CLIPS if name_hash(item.id) in first]
    other = sample_under_cap(CLIPS, Filters(max_utterances=20, seed=18))
    assert len(other) == 20 and other != first
    # A larger cap adds to a smaller one, so that runs at 20 and at 50 clips share data.
    assert first < sample_under_cap(CLIPS, Filters(max_utterances=50))


def test_what_is_over_the_cap_is_dropped_with_a_reason():
    filters = Filters(max_utterances=20, min_up_votes=2)
    clips = [clip(number, up_votes=str(number % 4)) for number in range(100)]
    found = list(filter_items(clips, filters, sample_under_cap(clips, filters)))
    assert [item.id for item in found] == [item.id for item in clips]
    reasons = Counter(item.reason for item in found if isinstance(item, Dropped))
    assert reasons == {"fewer than 2 up-votes": 50, "over the cap": 30}


def test_a_cap_in_hours():
    filters = Filters(max_hours=100 / 3600)
    drawn = sample_under_cap(CLIPS, filters)
    seconds = sum(item.duration_s for item in CLIPS if name_hash(item.id) in drawn)
    assert 100 - 6 < seconds <= 100
    assert len(sample_under_cap(CLIPS, Filters(max_hours=1))) == 100
    assert len(sample_under_cap(CLIPS, Filters(max_hours=1, max_utterances=7))) == 7
    assert len(sample_under_cap([], Filters(max_hours=1))) == 0


def test_an_unknown_length_is_taken_from_the_text():
    silent = [clip(number, seconds=None) for number in range(50)]
    assert estimated_duration_s(silent[0]) == pytest.approx(19 / 12)
    assert len(sample_under_cap(silent, Filters(max_hours=19 / 12 * 10 / 3600))) == 10


def test_speakers_take_turns_when_balanced():
    def voices(**wishes) -> Counter:
        drawn = sample_under_cap(CLIPS, Filters(**wishes))
        return Counter(item.speaker for item in CLIPS if name_hash(item.id) in drawn)

    assert voices(max_utterances=30)["s5"] > 10
    assert set(voices(max_utterances=30, balance_speakers=True).values()) == {5}
    assert sorted(voices(max_utterances=32, balance_speakers=True).values()) == [5, 5, 5, 5, 6, 6]
    assert voices(max_utterances=80, balance_speakers=True) == {"s5": 30} | {f"s{n}": 10 for n in range(5)}
    mixed = random.Random(2).sample(CLIPS, len(CLIPS))
    filters = Filters(max_hours=0.03, balance_speakers=True)
    assert sample_under_cap(mixed, filters) == sample_under_cap(CLIPS, filters)


def test_a_stream_is_read_no_further_than_its_cap():
    read = []
    stream = (read.append(item.id) or item for item in CLIPS)
    assert list(take_until_cap(stream, Filters(max_utterances=7))) == CLIPS[:7] == CLIPS[: len(read)]
    hours = list(take_until_cap(CLIPS, Filters(max_hours=20 / 3600)))
    assert hours == CLIPS[:5] and sum(item.duration_s for item in hours) == 20
    assert list(take_until_cap(CLIPS, Filters())) == CLIPS
    votes = [clip(number, up_votes=str(number % 2)) for number in range(10)]
    kept = list(take_until_cap(votes, Filters(max_utterances=2, min_up_votes=1)))
    assert [item.id for item in kept] == [f"clip_{number}" for number in range(4)]
    assert [isinstance(item, Dropped) for item in kept] == [True, False, True, False]


def test_clips_without_a_speaker_count_as_one_each():
    clips = [clip(number, speaker="" if number % 2 else "s") for number in range(20)]
    drawn = sample_under_cap(clips, Filters(max_utterances=11, balance_speakers=True))
    assert sum(name_hash(item.id) in drawn for item in clips if item.speaker) == 1


@pytest.mark.parametrize("wishes", [{"max_hours": 0}, {"max_utterances": -1}])
def test_wishes_that_nothing_can_fulfil_are_refused(wishes):
    with pytest.raises(RequestError):
        Filters(**wishes)
