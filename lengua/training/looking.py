"""What training will really use, brought out of the trainer for preflight to look at."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from transformers.models.whisper.modeling_whisper import WhisperDecoder

from lengua.batches import Draw, sampler_of
from lengua.model import AdaptiveWhisper
from lengua.replay import main_of
from lengua.training.checks import Example
from lengua.windows import FRAME_MULTIPLE

ROWS = 3
"""Clips that are looked at; the base hears them in its full window, the only one that an untouched Whisper knows."""


def whisper_of(trainer) -> AdaptiveWhisper:
    """Return the Whisper inside whatever the trainer wraps around it."""
    return next(module for module in trainer.model.modules() if isinstance(module, AdaptiveWhisper))


def look_at(trainer) -> tuple[list[Example], dict[str, torch.Tensor]]:
    """Return a few rows as the trainer's own data set and collator make them; those of dev where train is a stream."""
    dataset, split = _rows(trainer)
    clips = [dataset[Draw(index, trainer.drawing.longest)] for index in typical(split.frames, split.column("text"))]
    return _collated(trainer, clips)


def look_at_packs(trainer) -> dict[bool, list[Example]]:
    """Return a packed window of several clips, as training makes it, by whether its labels have timestamps."""
    dataset, split = _rows(trainer)
    fullest = max(next(iter(sampler_of(split, trainer.drawing))), key=lambda pack: len(pack.draws))
    share = trainer.drawing.packing.timestamps_share
    kinds = [kind for kind, part in ((False, 1 - share), (True, share)) if part]
    return {kind: _collated(trainer, [dataset[replace(fullest, timestamps=kind)]])[0] for kind in kinds}


def _rows(trainer) -> tuple:
    """Return a data set and the split behind it, of the run's own language where another is replayed."""
    if trainer.streamed is not None:
        return trainer.eval_dataset, trainer.dev_split
    return trainer.train_dataset, main_of(trainer.train_split)


def _collated(trainer, clips: list) -> tuple[list[Example], dict[str, torch.Tensor]]:
    batch = trainer.data_collator(clips)
    columns = batch["decoder_input_ids"].tolist(), batch["labels"].tolist(), batch["input_features"].numpy()
    return [_example(clip, *told) for clip, *told in zip(clips, *columns, strict=True)], batch


def _example(clip, inputs: list[int], labels: list[int], features: np.ndarray) -> Example:
    rows = getattr(clip, "rows", None) or (clip.row,)
    text, frames = " ".join(row.text for row in rows), sum(row.frames for row in rows)
    return Example(rows[0].id, text, inputs, labels, features, frames, max(row.peak for row in rows))


def typical(frames: np.ndarray, texts: Sequence[str], count: int = ROWS) -> list[int]:
    """Return clips of about median length, each with a text of its own: neither stray words nor orations."""
    distance = abs(np.arange(len(frames)) - len(frames) // 2)
    from_the_middle = np.argsort(frames, kind="stable")[np.argsort(distance, kind="stable")]
    chosen: dict[str, int] = {}
    for index in from_the_middle.tolist():
        chosen.setdefault(texts[index], index)
        if len(chosen) == count:
            break
    return list(chosen.values())


def prompt_of_generate(model: AdaptiveWhisper) -> list[int] | str:
    """Return what generate gives the decoder to begin with, or why it gives nothing."""
    if getattr(model.generation_config, "language", None) is None:
        return "it guesses the language of every clip"
    seen: list[torch.Tensor] = []
    decoder = next(module for module in model.modules() if isinstance(module, WhisperDecoder))
    handle = decoder.register_forward_pre_hook(partial(_note, seen), with_kwargs=True)
    window = torch.zeros(2, model.config.num_mel_bins, FRAME_MULTIPLE, device=model.device, dtype=model.dtype)
    try:
        model.generate(window, max_new_tokens=1, num_beams=1)
    except (ValueError, TypeError, KeyError) as error:
        return str(error).partition("\n")[0]
    finally:
        handle.remove()
    return seen[-1][0].tolist()


def _note(seen: list[torch.Tensor], module, positional, named) -> None:
    seen.append(named["input_ids"])
