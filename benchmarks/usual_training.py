"""The training stage as the well-known notebook for fine-tuning Whisper has it, on a CPU or a GPU.

WhisperForConditionalGeneration with its own loss, every clip 30 s long, shuffled, DataCollatorSpeechSeq2SeqWithPadding:
labels with the whole prompt, whose first token the collator takes off again and the model puts back. What the notebook
does to save memory on a small GPU, computing activations twice, is left out: it would make this side slower.

The features are those of a store, padded with their own silence: what WhisperFeatureExtractor gives, to within the
rounding of one byte a value (`benchmarks/store_quality.py` finds the same words in both).
"""

import random

import numpy as np
import torch
from transformers import WhisperForConditionalGeneration

from lengua.models.tokens import IGNORE_INDEX, end_token, prompt_tokens
from lengua.training.dataset import WindowedClip
from lengua.training.samplers import SampledClip


def shuffled(clips: int, batch_size: int, window: int, seed: int) -> list[list[SampledClip]]:
    """Return the batches of an epoch: any clips together, every one in the full window."""
    order = random.Random(seed).sample(range(clips), clips)
    return [[SampledClip(index, window) for index in order[at : at + batch_size]] for at in range(0, clips, batch_size)]


class UsualCollator:
    """Clips -> input_features (batch, n_mels, window) and labels (batch, tokens), as the notebook's collator."""

    def __init__(self, tokenizer, language: str):
        self.tokenizer, self.language = tokenizer, language

    def __call__(self, clips: list[WindowedClip]) -> dict[str, torch.Tensor]:
        features = torch.from_numpy(np.stack([clip.features for clip in clips]))
        labels = [self._label(clip.row.text) for clip in clips]
        longest = max(map(len, labels))
        return {
            "input_features": features,
            "labels": torch.tensor([[*label, *[IGNORE_INDEX] * (longest - len(label))] for label in labels]),
        }

    def _label(self, text: str) -> list[int]:
        prompt = prompt_tokens(self.tokenizer, self.language)[1:]
        words = self.tokenizer.encode(text, add_special_tokens=False).ids  # without the space before it, as there
        return [*prompt, *words, end_token(self.tokenizer)]


def usual_loss(model: WhisperForConditionalGeneration, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the model's own loss: the mean over the tokens of the batch, the prompt's among them."""
    return model(**batch).loss
