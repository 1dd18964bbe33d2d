"""The benchmark of the intervals' coverage, small: it runs, and its truth is the truth."""

import numpy as np
import pytest
from conftest import ROOT


@pytest.fixture
def benchmark(monkeypatch):
    """The benchmark's module."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import intervals

    return intervals


def test_simulated_rates_are_the_true_ones(benchmark):
    one = benchmark.simulated(np.random.default_rng(1), 20_000, benchmark.BETTER)
    assert one.a.sum() / one.words.sum() == pytest.approx(benchmark.WER, rel=0.02)
    assert one.b.sum() / one.words.sum() == pytest.approx(benchmark.WER * benchmark.BETTER, rel=0.02)
    assert len(one.words) / 20_000 == pytest.approx(benchmark.CLIPS, rel=0.02)
    assert one.words.mean() == pytest.approx(benchmark.WORDS, rel=0.02)
    assert one.a.var() > 2 * one.a.mean() and (one.a > one.words).any()  # in heaps, and more than there are words


def test_speakers_cover_and_utterances_do_not(benchmark, capsys):
    """Of 300 test sets of 40 speakers; standard error 1.3 points."""
    result = benchmark.main(benchmark.Options(speakers=(40,), simulations=300, resamples=300))
    found = result["coverage"][40]
    assert 0.90 <= found["by_speaker"] <= 0.99 and 0.90 <= found["paired"] <= 0.99
    assert found["by_utterance"] < found["by_speaker"] - 0.05
    assert 0.7 <= found["shown"] <= 0.9
    table, _, last = capsys.readouterr().out.rstrip().rpartition("\n")
    assert last.startswith('{"simulations": 300') and "| 40 |" in table


def test_the_same_seed_gives_the_same_figures(benchmark):
    options = benchmark.Options(simulations=5, resamples=50)
    assert benchmark.coverage(10, options) == benchmark.coverage(10, options)
    assert benchmark.coverage(10, options) != benchmark.coverage(11, options)
