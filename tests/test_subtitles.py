"""subtitles: what programs read and people can follow: cues of readable length, in order, whatever was heard."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest

from lengua.inference import TRANSCRIPT_FORMATS, Segment, Word
from lengua.inference.subtitles import MAX_CUE_S, MAX_LINE_CHARS, MIN_CUE_S, as_json, as_srt, as_text, as_vtt, make_cues

LONG = (
    "En un lugar de la Mancha, de cuyo nombre no quiero acordarme, no ha mucho tiempo que vivía un hidalgo de los de "
    "lanza en astillero, adarga antigua, rocín flaco y galgo corredor. Una olla de algo más vaca que carnero, "
    "salpicón las más noches, duelos y quebrantos los sábados."
)
NASTY = ["", "   ", "a --> b", "<i>no & sí</i>", "dos\n\nlíneas", "1942", "00:00:01,000 --> 00:00:02,000", "«¿Qué?»"]


def spoken(text: str, start: float, end: float, pause_after: int | None = None) -> Segment:
    """Return a segment whose words follow each other evenly, but for a pause of a second after one of them."""
    texts = text.split()
    each = (end - start - (pause_after is not None)) / len(texts)
    words = []
    for number, word in enumerate(texts):
        at = start + each * number + (pause_after is not None and number > pause_after)
        words.append(Word(at, at + each, word, 0.9))
    return Segment(start, end, text, "es", tuple(words))


def anything(seed: int) -> list[Segment]:
    """Return segments of random length and speed, some with words, some empty, some of no length."""
    random, at, made = np.random.default_rng(seed), 0.0, []
    for _ in range(40):
        text = " ".join(random.choice(LONG.split(), random.integers(0, 60)))
        at += random.choice([0.0, random.uniform(0, 5)])
        end = at + random.choice([0.0, random.uniform(0, 28)])
        timed = text and random.random() < 0.5
        made.append(spoken(text, at, end) if timed else Segment(at, end, text, "es"))
        at = end
    return made


def words_of(text: str) -> list[str]:
    return re.sub(r"<[^>]*>", "", text).split()


@pytest.mark.parametrize("seed", range(5))
def test_cues_hold_every_word_in_order_and_can_be_read(seed):
    segments = anything(seed)
    found = list(make_cues(segments))
    assert [word for cue in found for word in cue.text.split()] == [w for one in segments for w in one.text.split()]
    assert all(before.end_s <= after.start_s for before, after in pairwise(found))
    for cue in found:
        rows = cue.text.split("\n")
        assert 1 <= len(rows) <= 2 and all(0 < len(row) <= MAX_LINE_CHARS for row in rows)
        assert cue.end_s - cue.start_s >= MIN_CUE_S - 1e-9
        assert cue.end_s - cue.start_s <= MAX_CUE_S + 1e-9 or len(cue.text.split()) == 1
    assert len(found) > 40


def test_a_long_text_is_cut_evenly_and_where_clauses_end():
    found = [cue.text.replace("\n", " ") for cue in make_cues([Segment(10, 32, LONG)])]
    assert len(found) == 4
    assert sum(text.endswith((",", ".")) for text in found) >= 3, found
    assert min(map(len, found)) > 30


def test_two_lines_are_of_like_length():
    (cue,) = make_cues([Segment(0, 5, "El río pasa por la ciudad y nadie lo mira ya al caer la tarde")])
    first, second = cue.text.split("\n")
    assert abs(len(first) - len(second)) < 8


def test_cues_of_timed_words_begin_with_their_words():
    segment = spoken(re.sub("[.,]", "", LONG), 100, 121, pause_after=20)
    found = list(make_cues([segment]))
    starts = {word.start_s for word in segment.words}
    assert all(cue.timed and min(abs(cue.start_s - start) for start in starts) < 1e-6 for cue in found)
    behind = segment.words[21].start_s
    starts = [pytest.approx(cue.start_s) for cue in found]
    assert len(found) > 3 and behind in starts, "a pause of a second is where a cue ends"


def test_times_without_words_are_in_proportion_to_letters():
    first, *_, last = make_cues([Segment(0, 28, LONG)])
    assert not first.timed and first.start_s == 0 and last.end_s == pytest.approx(28)
    assert first.end_s == pytest.approx(28 * len(first.text) / len(LONG), abs=0.5)


def test_text_without_spaces_and_words_longer_than_a_line():
    japanese = "これはとても長い文章です" * 12
    found = list(make_cues([Segment(0, 20, japanese)]))
    assert "".join(cue.text.replace("\n", "") for cue in found).replace(" ", "") == japanese
    assert all(len(row) <= MAX_LINE_CHARS for cue in found for row in cue.text.split("\n"))
    timed = Segment(0, 4, "これは犬です", "ja", (Word(0, 1, "これは", 1), Word(1, 2, "犬", 1), Word(2, 4, "です", 1)))
    assert next(make_cues([timed])).text == "これは犬です"


def test_words_that_are_not_in_the_text_are_still_shown():
    odd = Segment(0, 4, "uno dos", "es", (Word(0, 1, " uno", 1), Word(1, 2, "DOS", 1), Word(2, 3, " ", 1)))
    assert "".join(piece.text for line in next(make_cues([odd])).lines for piece in line).startswith("uno DOS")


def test_srt_as_players_know_it():
    segments = [Segment(0.5, 2.25, "Hola."), Segment(3, 3, ""), Segment(3723.0004, 3724.9996, "Adiós, niña.")]
    assert "".join(as_srt(segments)) == (
        "1\n00:00:00,500 --> 00:00:02,250\nHola.\n\n2\n01:02:03,000 --> 01:02:05,000\nAdiós, niña.\n\n"
    )


def test_vtt_as_players_know_it():
    segments = [Segment(0.5, 2.25, "Tú & yo"), Segment(360_000, 360_001, "<b> --> </b>")]
    assert "".join(as_vtt(segments)) == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:02.250\nTú &amp; yo\n\n"
        "100:00:00.000 --> 100:00:01.000\n&lt;b&gt; --&gt; &lt;/b&gt;\n\n"
    )


def test_vtt_tells_the_times_of_words_within_their_cue():
    written = "".join(as_vtt([spoken("uno dos tres", 1, 4)]))
    assert "uno <00:00:02.000>dos <00:00:03.000>tres" in written
    for seed in range(5):
        for block in "".join(as_vtt(anything(seed))).split("\n\n")[1:-1]:
            first, last = block.split("\n")[0].split(" --> ")
            times = [first, *re.findall(r"<([\d:.]+)>", block), last]
            assert times == sorted(set(times)), block


@pytest.mark.parametrize("write", [as_srt, as_vtt])
def test_independent_parsers_accept_anything_that_was_heard(write, tmp_path):
    segments = anything(7)
    segments += [Segment(3000 + number, 3000.5 + number, text) for number, text in enumerate(NASTY)]
    segments += [Segment(500_000, 500_010, LONG)]
    text = "".join(write(segments))
    parsed = parsed_by_others(write, text)
    expected = list(make_cues(segments))
    assert len(parsed) == len(expected) > 100
    for (start, end, shown), cue in zip(parsed, expected, strict=True):
        assert start == pytest.approx(cue.start_s, abs=0.0006) and end == pytest.approx(cue.end_s, abs=0.0006)
        assert shown.split() == cue.text.split()


def parsed_by_others(write, text: str) -> list[tuple[float, float, str]]:
    """Return (start, end, text) of each cue, by the package srt or webvtt-py."""
    if write is as_srt:
        srt = pytest.importorskip("srt")
        subtitles = list(srt.parse(text))
        assert [one.index for one in subtitles] == list(range(1, len(subtitles) + 1))
        return [(one.start.total_seconds(), one.end.total_seconds(), one.content) for one in subtitles]
    import html

    webvtt = pytest.importorskip("webvtt")
    captions = webvtt.from_string(text).captions
    return [(_seconds(one.start), _seconds(one.end), html.unescape(one.text)) for one in captions]


def _seconds(clock: str) -> float:
    hours, minutes, seconds = clock.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def test_text_is_a_line_a_segment():
    assert "".join(as_text([Segment(0, 1, "uno\ndos"), Segment(1, 2, " "), Segment(2, 3, "tres")])) == "uno dos\ntres\n"


def test_json_keeps_the_segments_whole_and_ends_with_the_summary():
    segments = [spoken(LONG, 0.00049, 21), Segment(30, 31, 'dijo "no" < & ñ')]
    told = json.loads("".join(as_json(segments, lambda: {"language": "es", "suppressed": {"no voice": 2}})))
    assert [one["text"] for one in told["segments"]] == [one.text for one in segments]
    assert told["language"] == "es" and told["suppressed"] == {"no voice": 2}
    first, second = told["segments"]
    assert first["start_s"] == 0 and len(first["words"]) == len(LONG.split()) and first["language"] == "es"
    assert "words" not in second and first["words"][0].keys() == {"start_s", "end_s", "text", "probability"}
    assert json.loads("".join(as_json([], dict))) == {"segments": []}
    assert json.loads("".join(as_json([], lambda: {"a": 1}))) == {"segments": [], "a": 1}
    assert "ñ" in "".join(as_json(segments))


@pytest.mark.parametrize("name", TRANSCRIPT_FORMATS)
def test_a_piece_is_written_before_the_next_segment_is_asked_for(name):
    asked = []

    def segments():
        for number in range(5):
            asked.append(number)
            yield Segment(number, number + 1, f"frase {number}")

    pieces = TRANSCRIPT_FORMATS[name].write(segments(), dict)
    seen = ""
    while "frase 1" not in seen:
        seen += next(pieces)
    assert asked == [0, 1]


@pytest.mark.parametrize("name", TRANSCRIPT_FORMATS)
def test_nothing_heard_is_an_empty_file_of_its_format(name):
    expected = {"text": "", "srt": "", "vtt": "WEBVTT\n\n", "json": '{"segments": [\n]}\n'}
    assert "".join(TRANSCRIPT_FORMATS[name].write([], dict)) == expected[name]
    assert TRANSCRIPT_FORMATS[name].suffix == {"text": ".txt"}.get(name, f".{name}")
