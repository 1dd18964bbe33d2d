"""figures of a store: they show what is in it, and say what is not told."""

import subprocess
import sys

import numpy as np
import pytest

from lengua.data.store import Row, open_store, shard_path, write_manifest, write_shard
from lengua.evaluation.report.figures import BLUE, DPI, GREY, VERMILION, WIDTH_IN, text_width_in, truncate_to_width
from lengua.evaluation.report.store_figures import (
    UNSTATED_NAME,
    SpeakerGroup,
    draw_store_figures,
    duration_histogram,
    hours_by,
    pace_figure,
    pace_outliers,
    read_clip_columns,
    robust_z,
    sample_rows,
)
from lengua.runtime.files import file_sha256

ALWAYS = ["durations.png", "pace.png", "speakers.png", "log_mel.png"]
DROPPED = {"no text": {"count": 6, "examples": ["a/ñ.wav"]}, "unreadable audio": {"count": 3, "examples": ["b"]}}


def clip(
    id_: str, seconds: float = 2.0, characters: int = 20, frames: int = 40, text: str | None = None, **extra
) -> Row:
    mel = np.zeros((frames, 80), np.uint8)
    mel[:, :40] = 255  # the lower bands are loud, the upper ones silent
    return Row(id_, text or "ñ" * characters, "es", "a", seconds, frames, 1.0, mel, extra=extra)


def store_of(path, dropped: dict | None = None, **splits: list[Row]):
    """Write a store of two shards a split, and open it."""
    counts = {}
    for name, rows in splits.items():
        for index, part in enumerate((rows[: len(rows) // 3], rows[len(rows) // 3 :])):
            write_shard(shard_path(path, name, index), part)
        counts[name] = {"utterances": len(rows), "shards": 2}
    write_manifest(path, {"n_mels": 80, "splits": counts, "dropped": dropped or {}})
    return open_store(path)


def clips_in(path, rows: list[Row], **others: list[Row]):
    return read_clip_columns(store_of(path, train=rows, **others))


def pixels(path) -> np.ndarray:
    """The colours of a PNG, 0 to 255: height x width x 3."""
    from matplotlib.image import imread

    return np.rint(imread(path)[..., :3] * 255).astype(int)


def bars(path, colour: str) -> list[int]:
    """The lengths of the bars of a colour from the top down, in pixels."""
    rgb = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    lengths = (pixels(path) == rgb).all(axis=-1).sum(axis=1)
    begins = np.flatnonzero((lengths[1:] > 0) & (lengths[:-1] == 0)) + 1
    return [int(lengths[row + 5]) for row in begins]


# Statistics


def test_hours_are_those_of_the_clips_and_who_tells_nothing_comes_last(tmp_path):
    rows = [
        clip("a", 1800, accent="México"),
        clip("b", 7200),
        clip("c", 900, accent="Canarias", age="teens"),
        clip("d", 900, accent=" "),
        clip("e", 3600, accent="México "),
    ]
    clips = clips_in(tmp_path / "store", rows, test=[clip("f", 450, accent="Canarias")])
    assert hours_by(clips, "accent") == [
        SpeakerGroup("México", 1.5, 2),
        SpeakerGroup("Canarias", 0.375, 2),
        SpeakerGroup(UNSTATED_NAME, 2.25, 2),
    ]
    assert hours_by(clips, "age") == [SpeakerGroup("teens", 0.25, 1), SpeakerGroup(UNSTATED_NAME, 3.875, 5)]
    assert hours_by(clips, "gender") == [SpeakerGroup(UNSTATED_NAME, 4.125, 6)]


@pytest.mark.parametrize(("accents", "last"), [(10, "accent 9"), (11, "accent 10"), (13, "others (3)")])
def test_a_long_tail_is_counted_as_others(accents, last, tmp_path):
    rows = [clip(f"{k}", 3600 * (accents - k), accent=f"accent {k}") for k in range(accents)]
    groups = hours_by(clips_in(tmp_path / "store", rows), "accent")
    assert [group.name for group in groups[:10]] == [f"accent {k}" for k in range(10)]
    assert groups[-1].name == last and len(groups) == min(accents, 11)
    assert sum(group.hours for group in groups) == pytest.approx(accents * (accents + 1) / 2)
    assert sum(group.clips for group in groups) == accents


def test_robust_z_by_hand():
    assert robust_z(np.array([1, 2, 3, 4, 100.0])) == pytest.approx(np.array([-2, -1, 0, 1, 97]) / 1.4826)
    assert robust_z(np.array([5, 5, 5, 9.0])) == pytest.approx(np.array([0, 0, 0, 4]) / 1.2533), "more than half equal"
    assert robust_z(np.array([5, 5.0])).tolist() == [0, 0]


def test_the_farthest_are_named_across_shards_and_splits(tmp_path):
    rows = [clip(f"{k}", 2.0, 20 + k % 3) for k in range(12)]
    rows[5] = clip("slow", 4.0, 4)
    clips = clips_in(tmp_path / "store", rows, dev=[clip("x", 2, 21), clip("fast", 1.0, 90, text="¡olé! " * 15)])
    far = pace_outliers(clips, most=2)
    assert [(one.id, one.seconds, one.pace) for one in far] == [("fast", 1.0, 90.0), ("slow", 4.0, 1.0)]
    assert far[0].text == "¡olé! " * 15 and far[0].z > 3.5 and far[1].z < -3.5
    assert len(pace_outliers(clips)) == 9, "the other five are the median"


def test_clips_of_one_pace_have_no_farthest(tmp_path):
    assert pace_outliers(clips_in(tmp_path / "store", [clip(f"{k}") for k in range(5)])) == []


def test_every_clip_is_in_the_histogram_of_its_split(tmp_path):
    train = [clip(f"{k}", seconds) for k, seconds in enumerate([0.5, 1.0, 1.0, 2.5, 3.9, 4.0])]
    edges, counts = duration_histogram(clips_in(tmp_path / "store", train, test=[clip("x", 1.5)]))
    assert edges.tolist() == [0, 2, 4, 6]  # Freedman and Diaconis: 2 x 2.2 s / 7^(1/3) = 2.3 s
    assert {name: count.tolist() for name, count in counts.items()} == {"train": [3, 2, 1], "test": [1, 0, 0]}


def test_bars_of_durations_stay_few(tmp_path):
    rows = [clip(f"{k}", 2 + k / 1e4) for k in range(500)]
    edges, counts = duration_histogram(clips_in(tmp_path / "store", [*rows, clip("long", 30.0)]))
    assert edges[1] == 0.5 and len(edges) == 62 and counts["train"].sum() == 501


def test_two_short_two_median_and_two_long_clips_are_shown(tmp_path):
    random = np.random.default_rng(17).permutation(101)
    store = store_of(tmp_path / "store", train=[clip(f"{k}", frames=int(k) + 1) for k in random], test=[clip("one")])
    split = store.split("train")
    assert [split[index].frames - 1 for index in sample_rows(split)] == [2, 6, 48, 52, 94, 98]
    assert sample_rows(store.split("test")) == [0]


# Figures


def test_the_figures_of_a_store_are_drawn_and_of_one_width(tiny_store, tmp_path):
    paths = draw_store_figures(tiny_store, tmp_path / "figures")
    assert paths == [tmp_path / "figures" / name for name in ALWAYS]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(ALWAYS)
    heights = [pixels(path).shape[0] for path in paths]
    assert all(pixels(path).shape[1] == WIDTH_IN * DPI == 1800 for path in paths)
    assert heights[2] < 300 < min(heights[0], heights[1], heights[3]), "speakers.png is but a note"


def test_equal_stores_give_equal_bytes(tmp_path):
    rows = [clip(f"{k}", 1 + k % 7, 10 + k % 5, accent="México", text="el niño " * (k + 1)) for k in range(20)]
    drawn = [
        draw_store_figures(store_of(tmp_path / name, DROPPED, train=rows), tmp_path / name / "figures") for name in "ab"
    ]
    assert len(drawn[0]) == 5
    assert [file_sha256(path) for path in drawn[0]] == [file_sha256(path) for path in drawn[1]]
    assert b"tEXt" not in drawn[0][0].read_bytes()[:200], "no version and no date"


def test_bars_are_as_long_as_what_they_count(tmp_path):
    rows = [clip("a", 3600, accent="México"), clip("b", 1800, accent="Chile"), clip("c", 900)]
    draw_store_figures(store_of(tmp_path / "store", DROPPED, train=rows), tmp_path)
    told, longest = bars(tmp_path / "speakers.png", BLUE), 1.75 * 3600
    unknown = bars(tmp_path / "speakers.png", GREY)
    whole = (WIDTH_IN - 0.36 - 0.5) / 2 * DPI
    # in one row of pixels there may be a bar of each column: ages and genders are told by none
    assert np.array(told) / whole == pytest.approx([3600 / longest, 1800 / longest], abs=0.01)
    assert max(unknown) / whole == pytest.approx(1, abs=0.01)
    left_out = bars(tmp_path / "dropped.png", VERMILION)
    assert left_out[0] > 1600 and left_out[1] / left_out[0] == pytest.approx(0.5, abs=0.01)


def test_a_figure_that_no_longer_holds_is_removed(tmp_path):
    rows = [clip("a"), clip("b", 3)]
    assert tmp_path / "dropped.png" in draw_store_figures(store_of(tmp_path / "with", DROPPED, train=rows), tmp_path)
    (tmp_path / "mine.png").write_bytes(b"")
    assert [path.name for path in draw_store_figures(store_of(tmp_path / "without", train=rows), tmp_path)] == ALWAYS
    assert not (tmp_path / "dropped.png").exists() and (tmp_path / "mine.png").exists()


def test_a_store_of_nothing_shows_why(tmp_path):
    store = store_of(tmp_path / "store", DROPPED, train=[])
    assert [path.name for path in draw_store_figures(store, tmp_path)] == ["dropped.png"]


def test_low_bands_are_below_high_ones(tmp_path):
    draw_store_figures(store_of(tmp_path / "store", train=[clip("a", frames=500)]), tmp_path)
    column = pixels(tmp_path / "log_mel.png")[:, 500].sum(axis=1)
    black = np.flatnonzero(column == 3)  # magma begins with (0, 0, 3)
    light = np.flatnonzero((column > 550) & (column < 700))  # and ends with (252, 253, 191): 696
    assert len(black) > 100 and len(light) > 100
    assert black.max() < np.median(light)


def test_what_people_write_is_no_formula_and_stays_on_the_page(tmp_path):
    odd = ["$\\frac{$", "cuesta $5 y $6", "a\nb\tc", "x" * 500, "", "{x} % _"]
    rows = [clip(f"{k}/{name or 'none'}", 2 + k, text=name or "sí", accent=name) for k, name in enumerate(odd)]
    dropped = {name or "none": {"count": 1, "examples": [name]} for name in odd}
    for path in draw_store_figures(store_of(tmp_path / "store", dropped, **{"train": rows, "$x_": rows[:1]}), tmp_path):
        assert (pixels(path)[:, [0, 1, -2, -1]] == 255).all(), f"{path.name} is written over its edge"


def test_numbers_of_far_clips_stand_apart_and_inside(tmp_path):
    rows = [clip(f"{k}", 5, 60 + k % 5) for k in range(40)] + [clip(f"far {k}", 1.5, 1 + k % 2) for k in range(10)]
    store = store_of(tmp_path / "store", train=rows)
    figure = pace_figure(store, read_clip_columns(store))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == [f"{k}" for k in range(1, 11)]
    centres = np.array([text.xyann for text in axes.texts]) + [
        axes.transData.transform(text.xy) * 72 / DPI for text in axes.texts
    ]
    for k, centre in enumerate(centres):
        assert all((np.abs(centre - other) > (10, 9)).any() for other in centres[:k])
        assert axes.get_window_extent().contains(*(centre * DPI / 72))


def test_a_text_is_cut_to_the_room_it_has():
    text = "¿Dónde está la niña que cantó ayer?"
    assert truncate_to_width(text, 9, 11) == text and truncate_to_width(" a \n b ", 9, 11) == "a b"
    short = truncate_to_width(text, 1.5, 11)
    assert short.endswith("…") and text.startswith(short[:-1])
    assert 1.3 < text_width_in(short, 11) <= 1.5
    assert text_width_in(text, 22) == pytest.approx(2 * text_width_in(text, 11), rel=0.05)


def test_matplotlib_waits_until_something_is_drawn():
    code = (
        "import sys, lengua.evaluation.report.store_figures; sys.exit(bool({'matplotlib', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
