"""Figures: drawn to scale, whole or not at all, and without a window system."""

import sys

import numpy as np
import pytest

from lengua.evaluation.report.figures import (
    BLUE,
    DPI,
    GREY,
    SKY,
    VERMILION,
    WIDTH_IN,
    history_figure,
    order_rows,
    wer_figure,
)
from lengua.runtime.errors import LenguaError

ROWS = [
    {"model": "base", "window": "padded", "set": "voice A", "wer": 0.24, "wer_low": 0.2, "wer_high": 0.3},
    {"model": "fine-tuned", "window": "padded", "set": "voice A", "wer": 0.16, "wer_low": 0.1, "wer_high": 0.2},
    {"model": "fine-tuned", "window": "adaptive", "set": "voice A", "wer": 0.12, "wer_low": 0.1, "wer_high": 0.14},
]
ROWS = [row | {"ms_per_clip": 262.4, "utterances": 98, "words": 900} for row in ROWS]
HISTORY = [{"step": 0, "dev_wer": 0.3}, *({"step": k, "loss": 2 / k} for k in range(1, 9)), {"step": 8, "dev_wer": 0.2}]


def pixels(path, colour: str) -> np.ndarray:
    """Where a PNG has a colour, as a mask of height x width."""
    from matplotlib.image import imread

    rgb = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return (np.rint(imread(path)[..., :3] * 255) == rgb).all(axis=-1)


def test_bars_are_as_long_as_their_rates(tmp_path):
    wer_figure(ROWS, tmp_path / "wer.png")
    lengths = [pixels(tmp_path / "wer.png", colour).sum(axis=1).max() for colour in (GREY, SKY, BLUE)]
    assert pixels(tmp_path / "wer.png", GREY).shape[1] == WIDTH_IN * DPI == 1800
    assert lengths[0] > 600
    assert np.array(lengths) / lengths[0] == pytest.approx([1, 16 / 24, 12 / 24], abs=0.01)


def test_every_set_gets_its_bars_and_the_figure_grows(tmp_path):
    rows = ROWS + [row | {"set": f"set {k}", "wer_low": None} for k in range(5) for row in ROWS]
    wer_figure(ROWS, tmp_path / "one.png")
    wer_figure(rows, tmp_path / "six.png")
    one, six = (pixels(tmp_path / name, BLUE) for name in ("one.png", "six.png"))
    bars = np.diff((six.sum(axis=1) > 300).astype(int)) == 1
    assert bars.sum() == 6
    assert six.shape[0] > 3 * one.shape[0]


def test_rates_of_zero_of_several_hundred_per_cent_and_alone_are_drawn(tmp_path):
    long = {"model": "owner/" + "whisper" * 20, "window": "padded", "set": "x", "wer": 3.18}
    for k, rows in enumerate(([long], [long | {"wer": 0.0}], [long, *ROWS])):
        wer_figure(rows, tmp_path / f"{k}.png")
        assert (tmp_path / f"{k}.png").read_bytes().startswith(b"\x89PNG")


def test_equal_rows_give_equal_bytes(tmp_path):
    wer_figure(ROWS, tmp_path / "a.png")
    wer_figure(ROWS[::-1], tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_rows_are_ordered_base_first_and_padded_first():
    rows = order_rows([*ROWS[::-1], ROWS[0] | {"set": "voice B"}, ROWS[0] | {"window": "adaptive"}])
    assert [(row["set"][-1], row["model"], row["window"]) for row in rows] == [
        ("A", "base", "padded"),
        ("A", "base", "adaptive"),
        ("A", "fine-tuned", "padded"),
        ("A", "fine-tuned", "adaptive"),
        ("B", "base", "padded"),
    ]


def test_history_draws_what_there_is(tmp_path):
    history_figure(HISTORY, tmp_path / "both.png")
    history_figure(HISTORY[1:-1], tmp_path / "loss.png")
    history_figure(HISTORY[:1], tmp_path / "wer.png")
    drawn = {name: [pixels(tmp_path / name, c).any() for c in (BLUE, VERMILION)] for name in ("both.png", "loss.png")}
    assert drawn == {"both.png": [True, True], "loss.png": [True, False]}
    assert pixels(tmp_path / "wer.png", VERMILION).any()


def test_nothing_to_draw_is_an_error_that_says_so(tmp_path):
    with pytest.raises(LenguaError, match=r"expected rows of results.json; found none; evaluate a model first"):
        wer_figure([], tmp_path / "wer.png")
    with pytest.raises(LenguaError, match="found 1 records without"):
        history_figure([{"step": 3}], tmp_path / "history.png")
    assert list(tmp_path.iterdir()) == []


def test_a_figure_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "wer.png").mkdir()
    with pytest.raises(OSError):
        wer_figure(ROWS, tmp_path / "wer.png")
    assert [path.name for path in tmp_path.iterdir()] == ["wer.png"]


def test_drawing_leaves_pyplot_alone(tmp_path):
    loaded = "matplotlib.pyplot" in sys.modules
    wer_figure(ROWS, tmp_path / "new" / "folder" / "wer.png")
    assert ("matplotlib.pyplot" in sys.modules) == loaded
