"""benchmarks/app_load.py: fifty visitors at once for a few seconds, with a tiny model; and how it counts."""

import json
import subprocess
import sys

import pytest
import soundfile
from conftest import ROOT, chirp

from lengua.app.i18n import Wording


@pytest.fixture
def load(monkeypatch):
    """The module."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import app_load

    return app_load


@pytest.mark.slow
def test_fifty_visitors_at_once(tiny_model, tmp_path):
    (tmp_path / "clips").mkdir()
    for number in range(6):
        soundfile.write(tmp_path / f"clips/{number}.wav", chirp(1 + number / 10, 180 + 10 * number), 16_000)
    how = ["--model", tiny_model, "--clips", tmp_path / "clips", "--seconds", 10, "--visitors", 50]
    command = [sys.executable, ROOT / "benchmarks/app_load.py", *how]
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["outcomes"]["error"] == told["traces"] == 0, done.stderr[-3000:]
    assert told["outcomes"]["text"] >= 50 and sum(told["outcomes"].values()) == told["asked"]
    assert told["fewest_answers"] >= 1, "everybody had a turn"
    assert told["overtaken"] <= 0.02 * told["outcomes"]["text"], "the first to ask is the first to be answered"
    assert told["memory_peak_mb"] < 1.5 * told["memory_second_quarter_mb"]


def test_overtaking_is_counted(load):
    def asked(start: float, end: float):
        return load.Asked(0, start, end, load.TEXT)

    fair = [asked(0, 2), asked(1, 3), asked(1.05, 2.4)]
    assert load.overtaken(fair) == 0
    assert load.overtaken([*fair, asked(1.6, 1.8)]) == 2
    assert load.overtaken([]) == 0


def test_only_a_full_queue_is_a_polite_refusal(load):
    spanish = Wording().languages["es"]

    def told(status: int, body: str = "", *data: str) -> str:
        return load.outcome_of(load.Answer(status, body, (("complete", list(data) or None),)))

    assert told(200, "", "hola", "Listo.") == load.TEXT
    assert told(200, "", "", spanish["refusal.silent"]) == load.SILENT
    assert told(200, "", "", spanish["refusal.busy"]) == told(503, "Queue is full. Max size is 32") == load.FULL
    assert told(200, "", "", spanish["refusal.failed"]) == told(200) == load.ERROR
    assert told(503, "gone") == told(500, "full of errors") == load.ERROR
