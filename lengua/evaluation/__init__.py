"""What a model gets right and wrong: measured by generation (`stage`), with an interval, on clips it never learned."""

from lengua.evaluation.evaluate import HYPOTHESES_FILE, RESULTS_FILE, EvaluationResult, evaluate

__all__ = ["HYPOTHESES_FILE", "RESULTS_FILE", "EvaluationResult", "evaluate"]
