"""Progress in a log and on a terminal."""

import io

from lengua.runtime.progress import Console, Progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_log_gets_the_first_and_the_last_line_of_a_stage_and_few_between():
    log = io.StringIO()
    with Console(log) as watch:
        for done in range(0, 1001):
            watch(Progress("features", done, 1000))
    lines = log.getvalue().splitlines()
    assert lines[0].startswith("features: 0/1000 clips") and lines[-1].startswith("features: 1000/1000 clips")
    assert len(lines) <= 3


def test_a_line_tells_rate_and_what_is_left():
    log = io.StringIO()
    with Console(log) as watch:
        watch(Progress("training", 10, 100, "steps"))
        watch.started -= 20
        watch.spoken = -1000
        watch(Progress("training", 20, 100, "steps", "loss 0.50"))
    assert log.getvalue().splitlines()[-1] == "training: 20/100 steps, 0.5 steps/s, 2:40 left, loss 0.50"


def test_large_numbers_are_written_out():
    log = io.StringIO()
    with Console(log) as watch:
        watch(Progress("features", 0, 1_500_000))
        watch.started -= 3600
        watch(Progress("features", 1_500_000, 1_500_000))
    assert log.getvalue().splitlines()[-1] == "features: 1500000/1500000 clips, 417 clips/s"


def test_a_terminal_gets_a_bar():
    terminal = Terminal()
    with Console(terminal) as watch:
        watch(Progress("features", 5, 10, note="2 dropped"))
        watch(Progress("features", 10, 10))
    assert "features" in terminal.getvalue() and "10/10" in terminal.getvalue()
