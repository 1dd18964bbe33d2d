"""Figures: drawn to scale, whole or not at all, and without a window system; those of a store show what is in it."""

import subprocess
import sys

import numpy as np
import pytest

from lengua.data.store import Row, open_store, shard_path, write_manifest, write_shard
from lengua.evaluation.report.figures import (
    BLUE,
    DPI,
    GREY,
    SKY,
    VERMILION,
    WIDTH_IN,
    CurvePoint,
    draw_curves,
    groups_figure,
    history_figure,
    loss_row,
    order_rows,
    smooth_curve,
    text_width_in,
    truncate_to_width,
    wer_figure,
    wer_row,
)
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
from lengua.runtime.errors import LenguaError

ROWS = [
    {"model": "base", "window": "padded", "set": "voice A", "wer": 0.24, "wer_low": 0.2, "wer_high": 0.3},
    {"model": "fine-tuned", "window": "padded", "set": "voice A", "wer": 0.16, "wer_low": 0.1, "wer_high": 0.2},
    {"model": "fine-tuned", "window": "adaptive", "set": "voice A", "wer": 0.12, "wer_low": 0.1, "wer_high": 0.14},
]
ROWS = [row | {"ms_per_clip": 262.4, "utterances": 98, "words": 900} for row in ROWS]
HISTORY = [{"step": 0, "dev_wer": 0.3}, *({"step": k, "loss": 2 / k} for k in range(1, 9)), {"step": 8, "dev_wer": 0.2}]


def pixels(path) -> np.ndarray:
    """The colours of a PNG, 0 to 255: height x width x 3."""
    from matplotlib.image import imread

    return np.rint(imread(path)[..., :3] * 255).astype(int)


def mask(path, colour: str) -> np.ndarray:
    """Where a PNG has a colour: height x width."""
    return (pixels(path) == [int(colour[k : k + 2], 16) for k in (1, 3, 5)]).all(axis=-1)


def bars(path, colour: str) -> list[int]:
    """The lengths of the bars of a colour from the top down, in pixels."""
    lengths = mask(path, colour).sum(axis=1)
    begins = np.flatnonzero((lengths[1:] > 100) & (lengths[:-1] <= 100)) + 1  # letters have fewer
    return [int(lengths[row + 5]) for row in begins]


# Bars


def test_bars_are_as_long_as_their_rates(tmp_path):
    wer_figure(ROWS, tmp_path / "wer.png")
    lengths = [mask(tmp_path / "wer.png", colour).sum(axis=1).max() for colour in (GREY, SKY, BLUE)]
    assert pixels(tmp_path / "wer.png").shape[1] == WIDTH_IN * DPI == 1800
    assert lengths[0] > 600 and np.array(lengths) / lengths[0] == pytest.approx([1, 16 / 24, 12 / 24], abs=0.01)


def test_every_set_gets_its_bars_and_odd_rates_are_drawn(tmp_path):
    long = {"model": "owner/" + "whisper" * 20, "window": "padded", "set": "x", "wer": 3.18}
    wer_figure(
        ROWS + [row | {"set": f"set {k}", "wer_low": None} for k in range(5) for row in ROWS], tmp_path / "6.png"
    )
    assert len(bars(tmp_path / "6.png", BLUE)) == 6
    for k, rows in enumerate(([long], [long | {"wer": 0.0}], [long, *ROWS])):
        wer_figure(rows, tmp_path / f"{k}.png")
        assert (pixels(tmp_path / f"{k}.png")[:, [0, 1, -2, -1]] == 255).all(), "over the edge"


def test_equal_rows_give_equal_bytes_without_pyplot(tmp_path):
    loaded = "matplotlib.pyplot" in sys.modules
    wer_figure(ROWS, tmp_path / "new/a.png")
    wer_figure(ROWS[::-1], tmp_path / "b.png")
    assert (tmp_path / "new/a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert ("matplotlib.pyplot" in sys.modules) == loaded


def test_rows_are_ordered_base_first_and_padded_first():
    rows = order_rows([*ROWS[::-1], ROWS[0] | {"set": "voice B"}, ROWS[0] | {"window": "adaptive"}])
    assert [(row["set"][-1], row["model"], row["window"]) for row in rows] == [
        ("A", "base", "padded"),
        ("A", "base", "adaptive"),
        ("A", "fine-tuned", "padded"),
        ("A", "fine-tuned", "adaptive"),
        ("B", "base", "padded"),
    ]


def test_of_many_groups_the_first_are_drawn(tmp_path):
    group = {"key": "speaker", "wer": 0.2, "wer_low": None, "wer_high": None, "clips": 1, "small": ""}
    groups_figure([group | {"group": str(k)} for k in range(40)], 0.2, tmp_path / "groups.png", shown=5)
    assert len(bars(tmp_path / "groups.png", BLUE)) == 5


def test_what_cannot_be_drawn_or_written_leaves_nothing_behind(tmp_path):
    for draw in (lambda path: wer_figure([], path), lambda path: groups_figure([], 0.1, path)):
        with pytest.raises(LenguaError, match="lengua evaluate"):
            draw(tmp_path / "wer.png")
    with pytest.raises(LenguaError, match="1 records"):
        history_figure([{"step": 3}], tmp_path / "history.png")
    (tmp_path / "wer.png").mkdir()
    with pytest.raises(OSError):
        wer_figure(ROWS, tmp_path / "wer.png")
    assert [path.name for path in tmp_path.iterdir()] == ["wer.png"]


# Curves


def records(steps: int, wer: float, step_s: float = 1.0) -> list[dict]:
    made = [{"step": step, "seconds": step * step_s, "loss": 2 - step / steps} for step in range(1, steps + 1)]
    evaluated = [{"step": k * steps // 2, "seconds": k * steps * step_s / 2, "dev_wer": wer / k} for k in (1, 2)]
    return made + evaluated


def test_history_draws_what_there_is(tmp_path):
    histories = {"both": HISTORY, "loss": HISTORY[1:-1], "wer": HISTORY[:1]}
    for name, history in histories.items():
        history_figure(history, tmp_path / f"{name}.png")
    drawn = {name: [mask(tmp_path / f"{name}.png", c).any() for c in (BLUE, VERMILION)] for name in histories}
    assert drawn == {"both": [True, True], "loss": [True, False], "wer": [False, True]}


def test_every_run_has_its_colour_in_both_panels_of_both_rows(tmp_path):
    assert draw_curves({"a": records(40, 0.3), "b": records(20, 0.4, 3.0)}, tmp_path / "a.png")
    for name in (BLUE, VERMILION):
        rows, columns = np.nonzero(mask(tmp_path / "a.png", name))
        top, left = rows < 1520 / 2, columns < 700
        assert min((one & other).sum() for one in (top, ~top) for other in (left, ~left)) > 100


def test_equal_histories_give_equal_bytes_and_nothing_is_written_over_the_edge(tmp_path):
    runs = {f"$run_{k} " + "x" * 30 * k: records(10 + k, 0.1 + k / 5, 900.0) for k in range(15)}
    for name in "ab":
        assert draw_curves(runs, tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (pixels(tmp_path / "a.png")[:, [0, 1, -2, -1]] == 255).all()
    assert (pixels(tmp_path / "a.png")[[0, 1, -2, -1]] == 255).all()


def test_only_curves_that_there_are_are_drawn(tmp_path):
    assert draw_curves({"a": records(10, 0.3)}, tmp_path / "both.png")
    assert draw_curves({"a": [one for one in records(10, 0.3) if "dev_wer" in one], "b": []}, tmp_path / "wer.png")
    assert pixels(tmp_path / "wer.png").shape[0] < 0.7 * pixels(tmp_path / "both.png").shape[0]
    nothing = {"a": [], "b": [{"step": 1, "seconds": 1.0, "dev_wer": None, "loss": float("nan")}]}
    assert not draw_curves(nothing, tmp_path / "none.png") and not (tmp_path / "none.png").exists()


def test_an_early_evaluation_that_loops_does_not_flatten_the_others():
    looping = [{"step": k, "seconds": k, "dev_wer": wer} for k, wer in ((1, 3.18), (2, 0.2))]
    row = wer_row({"a": looping, "b": [{"step": 1, "seconds": 1, "dev_wer": 0.15}]})
    assert row.top == pytest.approx(60) and "above 60" in row.title
    assert row.labels == {"a": "20.0 % a", "b": "15.0 % b"}
    assert wer_row({"a": looping[1:]}).title == "Word error rate on dev, %"
    assert wer_row({"a": [{"step": 1, "seconds": 1, "dev_wer": 0.0}]}).top == 1


def test_intervals_come_along():
    one = {"step": 1, "seconds": 2.0, "dev_wer": 0.13, "dev_wer_low": 0.1, "dev_wer_high": 0.16}
    assert wer_row({"a": [one]}).curves["a"][0] == pytest.approx(CurvePoint(1, 2.0, 13.0, 10.0, 16.0))
    assert loss_row({"a": [one]}) is None


def test_loss_is_a_running_mean_and_a_short_one_is_itself():
    points = [CurvePoint(k, k, float(k % 2)) for k in range(40)]
    assert [point.value for point in smooth_curve(points)[10:14]] == pytest.approx([0.4, 0.6, 0.4, 0.6])
    assert smooth_curve(points)[0].value == pytest.approx(1 / 3) and smooth_curve(points[:7]) == points[:7]


@pytest.mark.parametrize("module", ["lengua.training.compare", "lengua.evaluation.report.store_figures"])
def test_nothing_heavy_is_loaded_until_something_is_drawn(module):
    code = f"import sys, {module}; sys.exit(bool({{'matplotlib', 'torch', 'jinja2'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_text_is_cut_to_the_room_it_has():
    text = "¿Dónde está la niña que cantó ayer?"
    assert truncate_to_width(text, 9, 11) == text and truncate_to_width(" a \n b ", 9, 11) == "a b"
    short = truncate_to_width(text, 1.5, 11)
    assert short.endswith("…") and text.startswith(short[:-1]) and 1.3 < text_width_in(short, 11) <= 1.5


# Stores

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
    assert hours_by(clips, "gender") == [SpeakerGroup(UNSTATED_NAME, 4.125, 6)]


@pytest.mark.parametrize(("accents", "last"), [(11, "accent 10"), (13, "others (3)")])
def test_a_long_tail_is_counted_as_others(accents, last, tmp_path):
    rows = [clip(f"{k}", 3600 * (accents - k), accent=f"accent {k}") for k in range(accents)]
    groups = hours_by(clips_in(tmp_path / "store", rows), "accent")
    assert groups[-1].name == last and len(groups) == 11
    assert sum(group.hours for group in groups) == pytest.approx(accents * (accents + 1) / 2)


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


def test_every_clip_is_in_the_histogram_of_its_split_and_bars_stay_few(tmp_path):
    train = [clip(f"{k}", seconds) for k, seconds in enumerate([0.5, 1.0, 1.0, 2.5, 3.9, 4.0])]
    edges, counts = duration_histogram(clips_in(tmp_path / "store", train, test=[clip("x", 1.5)]))
    assert edges.tolist() == [0, 2, 4, 6]  # Freedman and Diaconis: 2 x 2.2 s / 7^(1/3) = 2.3 s
    assert {name: count.tolist() for name, count in counts.items()} == {"train": [3, 2, 1], "test": [1, 0, 0]}
    many = [*(clip(f"{k}", 2 + k / 1e4) for k in range(500)), clip("long", 30.0)]
    edges, counts = duration_histogram(clips_in(tmp_path / "many", many))
    assert edges[1] == 0.5 and len(edges) == 62 and counts["train"].sum() == 501


def test_two_short_two_median_and_two_long_clips_are_shown(tmp_path):
    random = np.random.default_rng(17).permutation(101)
    store = store_of(tmp_path / "store", train=[clip(f"{k}", frames=int(k) + 1) for k in random], test=[clip("one")])
    split = store.split("train")
    assert [split[index].frames - 1 for index in sample_rows(split)] == [2, 6, 48, 52, 94, 98]
    assert sample_rows(store.split("test")) == [0]


def test_equal_stores_give_equal_bytes(tmp_path):
    rows = [clip(f"{k}", 1 + k % 7, 10 + k % 5, accent="México", text="el niño " * (k + 1)) for k in range(20)]
    one, other = (
        draw_store_figures(store_of(tmp_path / name, DROPPED, train=rows), tmp_path / name / "figures") for name in "ab"
    )
    assert [path.name for path in one] == [*ALWAYS, "dropped.png"]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
    assert b"tEXt" not in one[0].read_bytes()[:200], "no version and no date"


def test_bars_are_as_long_as_what_they_count(tmp_path):
    rows = [clip("a", 3600, accent="México"), clip("b", 1800, accent="Chile"), clip("c", 900)]
    draw_store_figures(store_of(tmp_path / "store", DROPPED, train=rows), tmp_path)
    known, unknown = bars(tmp_path / "speakers.png", BLUE), bars(tmp_path / "speakers.png", GREY)
    assert len(unknown) == 3 and unknown[1] > 800  # nobody tells an age or a gender: all of the 6,300 s
    assert np.array([*known, unknown[0]]) / unknown[1] == pytest.approx(
        [3600 / 6300, 1800 / 6300, 900 / 6300], abs=0.01
    )
    left_out = bars(tmp_path / "dropped.png", VERMILION)
    assert left_out[0] > 800 and left_out[1] / left_out[0] == pytest.approx(0.5, abs=0.01)


def test_figures_are_of_one_width_and_one_that_no_longer_holds_is_removed(tiny_store, tmp_path):
    rows = [clip("a"), clip("b", 3)]
    assert tmp_path / "dropped.png" in draw_store_figures(store_of(tmp_path / "with", DROPPED, train=rows), tmp_path)
    (tmp_path / "mine.png").write_bytes(b"")
    paths = draw_store_figures(tiny_store, tmp_path)
    assert [path.name for path in paths] == ALWAYS
    assert not (tmp_path / "dropped.png").exists() and (tmp_path / "mine.png").exists()
    heights = [pixels(path).shape[0] for path in paths]
    assert {pixels(path).shape[1] for path in paths} == {1800}
    assert heights[2] < 300 < min(heights[0], heights[1], heights[3]), "speakers.png is but a note"


def test_a_store_of_nothing_shows_why(tmp_path):
    store = store_of(tmp_path / "store", DROPPED, train=[])
    assert [path.name for path in draw_store_figures(store, tmp_path)] == ["dropped.png"]


def test_low_bands_are_below_high_ones(tmp_path):
    draw_store_figures(store_of(tmp_path / "store", train=[clip("a", frames=500)]), tmp_path)
    column = pixels(tmp_path / "log_mel.png")[:, 500].sum(axis=1)
    black = np.flatnonzero(column == 3)  # magma begins with (0, 0, 3)
    light = np.flatnonzero((column > 550) & (column < 700))  # and ends with (252, 253, 191): 696
    assert len(black) > 100 and len(light) > 100 and black.max() < np.median(light)


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
    centres = [text.xyann + axes.transData.transform(text.xy) * 72 / DPI for text in axes.texts]
    for k, centre in enumerate(centres):
        assert all((np.abs(centre - other) > (10, 9)).any() for other in centres[:k])
        assert axes.get_window_extent().contains(*(centre * DPI / 72))
