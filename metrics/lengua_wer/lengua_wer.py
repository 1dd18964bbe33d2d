"""Word and character error rate with an interval, for `evaluate`; it runs without the network.

    import evaluate
    metric = evaluate.load("metrics/lengua_wer")
    metric.compute(predictions=["ola mundo"], references=["hola mundo"])     {"wer": 0.5, "wer_low": ..., ...}

`evaluate.load("wer")` fetches a script from the Hub. This one is local, and its figures are those of `lengua evaluate`.
"""

import datasets
import evaluate

from lengua.scoring import bootstrap_interval, bootstrap_unit, score_views

DESCRIPTION = "WER and CER as fractions, and the 95 % bootstrap interval of the WER."
INPUTS = """
Args:
    predictions (list of str): what was recognised.
    references (list of str): what was said, in the same order.
    view (str): basic (default: case and punctuation aside), raw (as `evaluate`'s own wer), accent_blind, mark_blind.
    language (str): Whisper's code, for accent_blind.
    speakers (list of str): one an utterance; from ten on, speakers are resampled.
    resamples (int), seed (int): of the bootstrap.
Returns:
    wer, cer, wer_low, wer_high, substitutions, deletions, insertions, utterances, and the unit that was resampled.
"""
CITATION = (
    "Morris, Maier & Green 2004, From WER and RIL to MER and WIL. Bisani & Ney 2004, Bootstrap estimates for ASR."
)


class LenguaWer(evaluate.Metric):
    """The metric that `evaluate.load` finds in this file."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(
        self, predictions, references, view="basic", language="es", speakers=None, resamples=2000, seed=17
    ) -> dict:
        score = score_views(references, predictions, language)[view]
        counts = score.counts
        low, high = bootstrap_interval(counts["errors"], counts["words"], speakers, resamples, seed)
        told = ("wer", "cer", "substitutions", "deletions", "insertions", "utterances")
        return {name: getattr(score, name) for name in told} | {
            "wer_low": low,
            "wer_high": high,
            "unit": bootstrap_unit(speakers),
        }
