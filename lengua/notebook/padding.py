"""What padding to 30 s costs, measured on this machine: the encoder on a clip alone, and on the clip and silence."""

import statistics
import time
from pathlib import Path

from lengua.checkpoints import find_model, window_frames
from lengua.mel import FRAMES_PER_SECOND, LOWEST
from lengua.notebook.tables import grid
from lengua.windows import window_of

ROUNDS = 5
"""Measurements of each window, in turn; the median counts."""


def padding_table(base: str, seconds: float) -> str:
    """Return Markdown: milliseconds of the encoder for a clip of so many seconds, alone and in the full window."""
    folder, _ = find_model(base)
    full = window_frames(folder)
    windows = {"the clip alone": window_of(round(seconds * FRAMES_PER_SECOND), 0.0, full), "padded": full}
    taken = encoder_seconds(folder, list(windows.values()))
    rows = [
        [name, f"{frames / FRAMES_PER_SECOND:.1f}", f"{1000 * cost:,.1f}", f"{cost / taken[0]:.1f}"]
        for (name, frames), cost in zip(windows.items(), taken, strict=True)
    ]
    return grid(["the encoder is given", "seconds", "milliseconds", "times"], rows)


def encoder_seconds(folder: Path, windows: list[int]) -> list[float]:
    """Return how long the encoder of a model folder takes on windows of so many frames, one clip each."""
    import torch

    from lengua.model import load_model
    from lengua.training.hardware import pick_device

    model = load_model(folder).eval().to(pick_device("auto"))
    taken: list[list[float]] = [[] for _ in windows]
    with torch.no_grad():
        for _ in range(ROUNDS + 1):
            for place, frames in enumerate(windows):
                mel = torch.full((1, model.config.num_mel_bins, frames), LOWEST, device=model.device)
                start = time.perf_counter()
                model.model.encoder(mel).last_hidden_state.sum().item()  # a GPU is done when the sum is here
                taken[place].append(time.perf_counter() - start)
    return [statistics.median(times[1:]) for times in taken]  # the first round warms up
