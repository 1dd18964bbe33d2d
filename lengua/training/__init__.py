"""Fine-tuning: `lengua.training.train(TrainOptions(...))`."""

from lengua.training.train import TrainResult, train

__all__ = ["TrainResult", "train"]
