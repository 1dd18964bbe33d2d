"""Fine-tuning: `lengua.training.train(TrainOptions(...))`."""

from lengua.training.stage import TrainResult, train

__all__ = ["TrainResult", "train"]
