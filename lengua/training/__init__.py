"""Fine-tuning: `lengua.training.train(TrainOptions(...))`."""

from lengua.training.trainer import TrainResult, train

__all__ = ["TrainResult", "train"]
