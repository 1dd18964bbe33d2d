"""Draws -> clips in their windows -> tensors."""

from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer

from lengua.batches.drawing import Draw, Pack
from lengua.batches.masks import Masks, hide
from lengua.batches.packing import join, spans
from lengua.labels import IGNORED, decoder_pair, end_token, timestamped_pair
from lengua.mel import fill, floor_of
from lengua.replay import Mixture, label_language
from lengua.store import Row, Split
from lengua.streams import Block


@dataclass(frozen=True)
class Clip:
    """One row put into its window."""

    row: Row
    features: np.ndarray
    """float32, shape (n_mels, window): the speech, then the clip's own silence."""

    def pair(self, tokenizer: Tokenizer, language: str) -> tuple[list[int], list[int]]:
        """Return (decoder_input_ids, labels)."""
        return decoder_pair(tokenizer, self.row.text, label_language(self.row, language))


@dataclass(frozen=True)
class PackedClip:
    """Several rows of one language put into one window."""

    rows: tuple[Row, ...]
    features: np.ndarray
    """float32, shape (n_mels, window): all speech, then the silence of the loudest."""
    timestamps: bool

    def pair(self, tokenizer: Tokenizer, language: str) -> tuple[list[int], list[int]]:
        """Return (decoder_input_ids, labels): the texts joined with a space, or each between its times."""
        texts, language = [row.text for row in self.rows], label_language(self.rows[0], language)
        if not self.timestamps:
            return decoder_pair(tokenizer, " ".join(texts), language)
        times = spans([row.frames for row in self.rows], [row.duration_s for row in self.rows])
        said = [(*span, text) for span, text in zip(times, texts, strict=True)]
        return timestamped_pair(tokenizer, said, language)


class ClipDataset(torch.utils.data.Dataset):
    """Rows of a split, or of a block of a stream, taken by `Draw` or `Pack`."""

    def __init__(self, split: Split | Block | Mixture):
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, draw: Draw | Pack) -> Clip | PackedClip:
        if isinstance(draw, Pack):
            return self._joined(draw)
        row = self.split[draw.index]
        return Clip(row, fill(_shown(row, draw.masks), draw.window, row.peak))

    def _joined(self, pack: Pack) -> PackedClip:
        rows = tuple(self.split[draw.index] for draw in pack.draws)
        shown = [_shown(row, draw.masks) for row, draw in zip(rows, pack.draws, strict=True)]
        mel, peak = join(shown, [row.peak for row in rows])
        return PackedClip(rows, fill(mel, pack.window, peak), pack.timestamps)


def _shown(row: Row, masks: Masks | None) -> np.ndarray:
    """Return the log-mel of a row, less what is hidden."""
    mel = row.log_mel()
    return hide(mel, masks, floor_of(row.peak)) if masks else mel


class Collator:
    """Clips -> input_features (batch, n_mels, window), decoder_input_ids and labels (batch, tokens)."""

    def __init__(self, tokenizer: Tokenizer, language: str):
        self._tokenizer, self.language = tokenizer, language  # Trainer would save a `tokenizer`

    def __call__(self, clips: list[Clip | PackedClip]) -> dict[str, torch.Tensor]:
        features = torch.from_numpy(np.stack([clip.features for clip in clips]))
        pairs = [clip.pair(self._tokenizer, self.language) for clip in clips]
        inputs, labels = zip(*pairs, strict=True)
        end = end_token(self._tokenizer)
        return {
            "input_features": features,
            "decoder_input_ids": _padded(inputs, end),
            "labels": _padded(labels, IGNORED),
        }


def _padded(sequences, value: int) -> torch.Tensor:
    longest = max(map(len, sequences))
    return torch.tensor([[*sequence, *[value] * (longest - len(sequence))] for sequence in sequences])
