"""Datasets and the collator: sampled clips are put into their windows and collated to tensors.

`StreamedBatches` does the same for a stream, and resumes from the position that a checkpoint keeps.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from lengua.audio.augmentation import SpecAugmentMasks, apply_masks
from lengua.audio.log_mel import pad_with_silence, silence_floor
from lengua.data.replay import Mixture, label_language
from lengua.data.store import Row, Split
from lengua.data.streaming import Stream, StreamBlock
from lengua.models.tokens import IGNORE_INDEX, decoder_pair, end_token, timestamped_pair
from lengua.runtime.errors import RequestError
from lengua.runtime.files import read_json, write_json
from lengua.runtime.parallel import Prefetcher
from lengua.training.samplers import BatchPlan, SampledClip, SampledPack, join_mels, make_sampler, utterance_times


@dataclass(frozen=True)
class WindowedClip:
    """One row put into its window."""

    row: Row
    features: np.ndarray
    """float32, shape (n_mels, window): the speech, then the clip's own silence."""

    def pair(self, tokenizer: Tokenizer, language: str) -> tuple[list[int], list[int]]:
        """Return (decoder_input_ids, labels)."""
        return decoder_pair(tokenizer, self.row.text, label_language(self.row, language))


@dataclass(frozen=True)
class PackedWindow:
    """Several rows of one language put into one window."""

    rows: tuple[Row, ...]
    features: np.ndarray
    """float32, shape (n_mels, window): all speech, then the silence of the loudest."""
    timestamps: bool
    pauses: tuple[int, ...]
    """Frames of silence behind each row."""

    def pair(self, tokenizer: Tokenizer, language: str) -> tuple[list[int], list[int]]:
        """Return (decoder_input_ids, labels): the texts joined with a space, or each between its times."""
        texts, language = [row.text for row in self.rows], label_language(self.rows[0], language)
        if not self.timestamps:
            return decoder_pair(tokenizer, " ".join(texts), language)
        times = utterance_times([row.frames for row in self.rows], [row.duration_s for row in self.rows], self.pauses)
        utterances = [(*span, text) for span, text in zip(times, texts, strict=True)]
        return timestamped_pair(tokenizer, utterances, language)


class ClipDataset(torch.utils.data.Dataset):
    """Rows of a split, or of a block of a stream, taken by `SampledClip` or `SampledPack`."""

    def __init__(self, split: Split | StreamBlock | Mixture):
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, draw: SampledClip | SampledPack) -> WindowedClip | PackedWindow:
        if isinstance(draw, SampledClip):
            row = self.split[draw.index]
            return WindowedClip(row, pad_with_silence(_masked_mel(row, draw.masks), draw.window, row.peak))
        rows = tuple(self.split[one.index] for one in draw.draws)
        mels = [_masked_mel(row, one.masks) for row, one in zip(rows, draw.draws, strict=True)]
        mel, peak = join_mels(mels, [row.peak for row in rows], draw.pauses)
        return PackedWindow(rows, pad_with_silence(mel, draw.window, peak), draw.timestamps, draw.pauses)


def _masked_mel(row: Row, masks: SpecAugmentMasks | None) -> np.ndarray:
    """Return the log-mel of a row, less what is hidden."""
    mel = row.log_mel()
    return apply_masks(mel, masks, silence_floor(row.peak)) if masks else mel


class Collator:
    """Clips -> input_features (batch, n_mels, window), decoder_input_ids and labels (batch, tokens)."""

    def __init__(self, tokenizer: Tokenizer, language: str):
        self._tokenizer, self.language = tokenizer, language  # Trainer would save a `tokenizer`

    def __call__(self, clips: list[WindowedClip | PackedWindow]) -> dict[str, torch.Tensor]:
        features = torch.from_numpy(np.stack([clip.features for clip in clips]))
        pairs = [clip.pair(self._tokenizer, self.language) for clip in clips]
        inputs, labels = zip(*pairs, strict=True)
        end = end_token(self._tokenizer)
        return {
            "input_features": features,
            "decoder_input_ids": _padded(inputs, end),
            "labels": _padded(labels, IGNORE_INDEX),
        }


def _padded(sequences, value: int) -> torch.Tensor:
    longest = max(map(len, sequences))
    return torch.tensor([[*sequence, *[value] * (longest - len(sequence))] for sequence in sequences])


@dataclass(frozen=True)
class StreamPosition:
    """Where a stream stands: the batches of a block of an epoch that have been taken."""

    epoch: int = 0
    block: int = 0
    batches: int = 0


class StreamedBatches(torch.utils.data.IterableDataset):
    """So many batches of a stream, from `place` on, which follows every batch that is taken.

    The next block is made in the background while the last is trained on.
    """

    def __init__(self, stream: Stream, drawing: BatchPlan, batches: int, place: StreamPosition = StreamPosition()):
        self.stream, self.drawing, self.batches, self.place = stream, drawing, batches, place
        self.dropped: Counter = Counter()
        """How many items were left out, by reason, in the blocks that were begun."""

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[WindowedClip | PackedWindow]]:
        return islice(self._from(self.place), self.batches)

    def _from(self, start: StreamPosition) -> Iterator[list[WindowedClip | PackedWindow]]:
        for block in Prefetcher(self.stream.blocks(start.epoch, start.block), None, depth=1):
            here = (block.epoch, block.number)
            taken = start.batches if here == (start.epoch, start.block) else 0
            clips = ClipDataset(block)
            self.dropped.update(item.reason for item in block.dropped)
            for draws in islice(make_sampler(block, self.drawing, block.epoch), taken, None):
                taken += 1
                self.place = StreamPosition(*here, taken)
                yield [clips[draw] for draw in draws]

    def save_position(self, checkpoint: Path) -> None:
        """Write down where the stream of this process stands."""
        write_json(checkpoint / f"stream-{self.stream.rank}.json", self._identity() | {"place": asdict(self.place)})

    def load_position(self, checkpoint: Path) -> None:
        """Go to where the stream of this process stood at a checkpoint.

        Raises:
            RequestError: the source has changed since, or other processes took part.
        """
        path = checkpoint / f"stream-{self.stream.rank}.json"
        record = read_json(path) if path.is_file() else {}
        for name, value in self._identity().items():
            if record.get(name) != value:
                expected = f"the stream of {checkpoint}, {name} {record.get(name)}"
                do = "train with as before, or start over with --no-resume"
                raise RequestError(expected, f"{name} {value}", do)
        self.place = StreamPosition(**record["place"])

    def _identity(self) -> dict:
        return {"revision": self.stream.revision, "ranks": self.stream.ranks, "window": self.stream.window}
