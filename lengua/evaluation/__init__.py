"""What a model gets right and wrong: measured by generation (`stage`), with an interval, on clips it never learned."""

from lengua.evaluation.stage import HYPOTHESES, RESULTS, EvaluationResult, evaluate

__all__ = ["HYPOTHESES", "RESULTS", "EvaluationResult", "evaluate"]
