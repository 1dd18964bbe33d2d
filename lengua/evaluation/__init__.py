"""Evaluation by generation: WER with confidence intervals, error analysis, and reports (`evaluate`, `report`)."""

from lengua.evaluation.evaluate import HYPOTHESES_FILE, RESULTS_FILE, EvaluationResult, evaluate

__all__ = ["HYPOTHESES_FILE", "RESULTS_FILE", "EvaluationResult", "evaluate"]
