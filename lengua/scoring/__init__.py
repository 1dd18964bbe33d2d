"""Word error rate and related measures, as pure functions over references and hypotheses.

    score(["hola mundo"], ["ola mundo"]).wer == 0.5
    score_views(["¿Él vino?"], ["el vino"])["basic"].wer == 0.5                     raw 1.0, basic 0.5, accent_blind 0.0
    count_spelling_errors(["año dos mil"], ["año 2000"]).counts["numbers"] == 2     differs in spelling alone
    bootstrap_interval(counts["errors"], counts["words"], speakers)                 the interval of a WER
    compare_by_bootstrap(before["errors"], after["errors"], before["words"])        whether two models differ
    is_looped("gracias gracias gracias ...")                                        whether a hypothesis is repetitive

The edge cases are defined, and none divides by zero:

    wer("", "") == 0.0              an empty hypothesis for silence is no error
    wer("", "dos palabras") == 2.0  without reference words, errors are divided by one, as in jiwer
    wer("hola", "") == 1.0
    wer([], []) == 0.0              no utterances: check `Score.utterances` before using it
"""

from lengua.scoring.bootstrap import (
    WerDifference,
    bootstrap_interval,
    bootstrap_unit,
    compare_by_bootstrap,
    expanded_tail,
    paired_bootstrap,
)
from lengua.scoring.orthography import SCORE_VIEWS, SpellingErrors, count_spelling_errors, score_views
from lengua.scoring.repetition import compression_ratio, is_looped
from lengua.scoring.wer import COUNTS_DTYPE, Score, cer, counted, error_rate, percent, score, wer

__all__ = [
    "COUNTS_DTYPE",
    "SCORE_VIEWS",
    "Score",
    "SpellingErrors",
    "WerDifference",
    "bootstrap_interval",
    "bootstrap_unit",
    "cer",
    "compare_by_bootstrap",
    "compression_ratio",
    "count_spelling_errors",
    "counted",
    "error_rate",
    "expanded_tail",
    "is_looped",
    "paired_bootstrap",
    "percent",
    "score",
    "score_views",
    "wer",
]
