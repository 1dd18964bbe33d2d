"""The pictures of images/ that no measurement draws: what the model hears, one clip in both windows, a report, badges.

    python benchmarks/pictures.py                # all, of a finished demo
    python benchmarks/pictures.py badges         # these alone, which need no run

The report is photographed by Chromium (Debian's package chromium); nothing else needs it.
"""

import html
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from harness import run

from lengua.audio.log_mel import FRAMES_PER_SECOND, WINDOW_FRAMES, band_centres_hz
from lengua.audio.windows import window_of
from lengua.data.store import Row, Split, Store, open_store
from lengua.evaluation.report.figures import (
    EDGE_IN,
    FAINT,
    FULL_IN,
    PAGE_HEAD_IN,
    WIDTH_IN,
    axes_at,
    new_page,
    text_width_in,
    truncate_to_width,
    write_png,
    write_text,
)
from lengua.evaluation.report.store_figures import log_mel_figure, read_clip_columns
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import read_json, write_bytes

TYPICAL_S = 4.8
"""Seconds of a clip of Common Voice, on average; the clip that is nearest to it is drawn in both windows."""
PANEL_IN, TITLE_IN, FOOT_IN = 1.5, 0.35, 0.4  # heights: a log-mel, its title, the seconds below it
LEFT_IN = 0.6
REPORT = (1160, 1345)
"""Pixels of the report that are shown, from its top."""
SECONDS = 60
BADGES = {
    "colab": ("Colab", "open train.ipynb"),
    "space": ("Space", "yours, in one command"),
    "checkpoint": ("checkpoint", "yours, after training"),
}
"""What stands on the left and on the right of each."""
BADGE_PX, LETTER_PX, PAD_PX, BASELINE_PX = 24, 12, 9, 16
DARK, WARM = "#292524", "#9a3412"
Picture = Literal["log_mel", "windows", "report", "badges"]


@dataclass(frozen=True)
class Options:
    """Draw pictures for the README and the docs."""

    pictures: tyro.conf.Positional[tuple[Picture, ...]] = ("log_mel", "windows", "report", "badges")
    """Which of them."""
    run: Path = Path("runs/demo")
    """A finished demo: its store and its evaluation."""
    out: Path = Path("images")
    """The folder to draw into."""
    chromium: str = "chromium"
    """The browser that photographs the report."""


def main(options: Options) -> list[Path]:
    """Draw, and tell what was drawn."""
    drawn = [path for name in options.pictures for path in MAKERS[name](options)]
    print("\n".join(map(str, drawn)))
    return drawn


def log_mels(options: Options) -> list[Path]:
    """Draw six clips as the model hears them."""
    store = open_store(options.run / "store")
    path = options.out / "log_mel.png"
    write_png(log_mel_figure(store, read_clip_columns(store)), path)
    return [path]


def windows(options: Options) -> list[Path]:
    """Draw one clip as Whisper is usually given it, and as a model that lengua trained is."""
    row = typical(open_store(options.run / "store"))
    note = read_json(options.run / "model/lengua.json")
    margin_s = sum(note["margin_s"]) / 2
    path = options.out / "windows.png"
    write_png(windows_figure(row, margin_s), path)
    return [path]


def typical(store: Store) -> Row:
    """Return the test clip whose length is nearest to the usual one."""
    split: Split = store.split("test")
    seconds = split.column("duration_s")
    return split[min(range(len(seconds)), key=lambda index: (abs(seconds[index] - TYPICAL_S), index))]


def windows_figure(row: Row, margin_s: float):
    """Return both windows of a clip, to one scale of seconds."""
    short = window_of(row.frames, margin_s)
    times = f"{WINDOW_FRAMES / short:.1f} times as much"
    notes = (
        f"{row.text} ({row.duration_s:.1f} s)",
        f"Hertz upwards, seconds to the right. Above, the encoder has {times} to look at.",
    )
    each = TITLE_IN + PANEL_IN + FOOT_IN
    figure = new_page("One clip, two windows", notes, 2 * each)
    titles = (
        f"padded: 30 s, as Whisper is usually given it; {30 - row.duration_s:.0f} of them are silence",
        f"adaptive: the speech and a margin of {margin_s:g} s, as lengua gives it",
    )
    for place, (title, frames) in enumerate(zip(titles, (WINDOW_FRAMES, short), strict=True)):
        top = PAGE_HEAD_IN + TITLE_IN + place * each
        write_text(figure, EDGE_IN, top - 0.12, truncate_to_width(title, FULL_IN, 12), size=12, weight="bold")
        wide = (WIDTH_IN - LEFT_IN - EDGE_IN) * frames / WINDOW_FRAMES
        draw_window(axes_at(figure, LEFT_IN, top, wide, PANEL_IN), row, frames)
    return figure


def draw_window(axes, row: Row, frames: int) -> None:
    """Draw the stored bytes and the silence behind them, which is the byte 0."""
    import numpy as np

    bands = row.mel.shape[1]
    padded = np.zeros((frames, bands), np.uint8)
    padded[: row.frames] = row.mel[:frames]
    extent = (0, frames / FRAMES_PER_SECOND, -0.5, bands - 0.5)
    axes.imshow(padded.T, "magma", aspect="auto", origin="lower", vmin=0, vmax=255, extent=extent)
    hertz = np.array([250, 1000, 4000])
    axes.set_yticks(np.interp(hertz, band_centres_hz(bands), np.arange(bands)), [f"{value:,}" for value in hertz])
    axes.set_xticks(range(0, frames // FRAMES_PER_SECOND + 1, 5))
    axes.tick_params(colors=FAINT, labelsize=9)
    axes.spines[:].set_visible(False)


def report(options: Options) -> list[Path]:
    """Photograph the top of the demo's report.

    Raises:
        RequestError: no report, or no such browser.
        LenguaError: the browser took no picture.
    """
    source, browser = options.run / "evaluation/report.html", shutil.which(options.chromium)
    if not source.is_file():
        raise RequestError(f"a report at {source}", "none", "run lengua evaluate, or make demo")
    if browser is None:
        raise RequestError(f"the browser {options.chromium}", "none", "apt install chromium, or name it: --chromium")
    path = options.out / "report.png"
    write_bytes(path, photographed(browser, source))
    return [path]


def photographed(browser: str, source: Path) -> bytes:
    """Return a PNG of the top of a page, light, three pixels for two of the page."""
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder, "page.png")
        command = [
            *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
            *(f"--user-data-dir={folder}/profile", "--force-device-scale-factor=1.5", f"--screenshot={shot}"),
            *(f"--window-size={REPORT[0]},{REPORT[1]}", source.resolve().as_uri()),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        if not shot.is_file():
            raise LenguaError(f"a picture of {source}", (done.stderr or "none").strip()[-300:], "look at the browser")
        return shot.read_bytes()


def badges(options: Options) -> list[Path]:
    paths = [options.out / f"badge_{name}.svg" for name in BADGES]
    for path, words in zip(paths, BADGES.values(), strict=True):
        write_bytes(path, badge(*words).encode())
    return paths


def badge(left: str, right: str) -> str:
    """Return an SVG of two words side by side. Texts are as long as the fonts of this machine make them."""
    lengths = [round(72 * text_width_in(word, LETTER_PX)) for word in (left, right)]
    first, second = (length + 2 * PAD_PX for length in lengths)
    texts = "".join(
        f'<text x="{x}" y="{BASELINE_PX}" textLength="{length}">{html.escape(word)}</text>'
        for x, length, word in zip((PAD_PX, first + PAD_PX), lengths, (left, right), strict=True)
    )
    name = html.escape(f"{left}: {right}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{first + second}" height="{BADGE_PX}" role="img" '
        f'aria-label="{name}"><title>{name}</title>'
        f'<clipPath id="edge"><rect width="{first + second}" height="{BADGE_PX}" rx="4"/></clipPath>'
        f'<g clip-path="url(#edge)"><rect width="{first}" height="{BADGE_PX}" fill="{DARK}"/>'
        f'<rect x="{first}" width="{second}" height="{BADGE_PX}" fill="{WARM}"/></g>'
        f'<g fill="#fff" font-family="DejaVu Sans,Verdana,sans-serif" font-size="{LETTER_PX}">{texts}</g></svg>\n'
    )


MAKERS = {"log_mel": log_mels, "windows": windows, "report": report, "badges": badges}

if __name__ == "__main__":
    run(main, Options)
