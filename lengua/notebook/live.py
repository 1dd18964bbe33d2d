"""LiveChart: loss and dev WER of a running training, redrawn in place in the notebook.

with LiveChart(out) as watch:
    run = train(options, watch)
"""

import sys
import tempfile
import time
from pathlib import Path

from lengua.evaluation.report.tables import history_figure
from lengua.runtime.progress import Console, Progress
from lengua.training.runs import read_history

DRAWN_STAGE, CHART_WIDTH_PX = "training", 900
WAITING_TEXT = "The chart comes with the first loss."
REDRAW_EVERY_S = 10.0
"""Seconds between two drawings, each of which takes some tenths of one; an evaluation is drawn at once."""
LINE_EVERY_S = 1.0
"""Seconds between two lines on how far it is."""


class LiveChart(Console):
    """A `Watch` and a context manager. Other stages, and remarks, are printed as `Console` does.

    Args:
        out: the run's folder, whose history.jsonl is drawn.
    """

    def __init__(self, out: Path, every_s: float = REDRAW_EVERY_S):
        super().__init__(sys.stdout)
        self.history, self.every_s = Path(out) / "history.jsonl", every_s
        self.line, self.chart, self.shown, self.drawn = OutputSlot(), OutputSlot(), 0.0, 0.0

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        self._draw()

    def __call__(self, progress: Progress) -> None:
        """Show how far a stage is: training by a chart and a line, all else by lines."""
        if progress.stage != DRAWN_STAGE or not progress.unit:
            super().__call__(progress)
            return
        now = time.monotonic()
        if self.stage != DRAWN_STAGE:
            self.stage, self.started, self.first = DRAWN_STAGE, now, progress.done
            self.chart.show(displayable_text(WAITING_TEXT))  # it stands above all remarks
        measured = progress.note.startswith("dev")
        if measured or progress.done == progress.total or now - self.shown >= LINE_EVERY_S:
            self.shown = now
            self.line.show(displayable_text(self._line(progress)))
        if measured or now - self.drawn >= self.every_s:
            self._draw()

    def _draw(self) -> None:
        """Draw what the history holds by now, if anything."""
        self.drawn = time.monotonic()
        if png := history_image(self.history):
            self.chart.show(png)


class OutputSlot:
    """A place in a cell's output where one thing stands, until another takes it."""

    def __init__(self):
        self.handle = None

    def show(self, thing) -> None:
        """Show something there."""
        from IPython.display import display

        if self.handle is None:
            self.handle = display(thing, display_id=True)
        else:
            self.handle.update(thing)


def displayable_text(line: str):
    """Return a line as something to display."""
    from IPython.display import Pretty

    return Pretty(line)


def history_image(history: Path):
    """Return the chart of a history.jsonl as something to display; None where nothing is in it yet."""
    from IPython.display import Image

    records, _ = read_history(history)
    if not any(record.get(name) is not None for record in records for name in ("loss", "dev_wer")):
        return None
    with tempfile.TemporaryDirectory() as folder:
        history_figure(records, Path(folder) / "history.png")
        return Image(data=(Path(folder) / "history.png").read_bytes(), format="png", width=CHART_WIDTH_PX)
