"""What the app is measured with: a model, clips of its own test split as the page records them, a server of replies."""

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile
from app_server import ROOT
from hour import material

from lengua import audio
from lengua.models.checkpoints import find_model
from lengua.options import BASE_MODEL

RUN = "runs/demo"
CLIP_S = 5.0


def chosen(model: str) -> tuple[str, str]:
    """Return (name, what names it in any folder) of a model; without a name that of runs/demo, else the base model.

    Raises:
        RequestError: no such model.
    """
    name = model or (RUN if Path(RUN).exists() else BASE_MODEL)
    find_model(name)
    return name, str(Path(name).resolve()) if Path(name).exists() else name


def five_seconds(folder: Path, model: str, count: int) -> list[Path]:
    """Write the clips of a model's test split whose length is next to five seconds."""
    sounds = [audio.load(sound) for _, sound in material(model)]
    sounds.sort(key=lambda samples: abs(audio.duration_s(samples) - CLIP_S))
    return write(folder, sounds[:count])


def write(folder: Path, sounds: Iterable[np.ndarray]) -> list[Path]:
    """Write clips as the page records them: 16 kHz, 16 bits, one channel."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, samples in enumerate(sounds):
        paths.append(folder / f"{number:02}.wav")
        soundfile.write(paths[-1], samples, audio.SAMPLE_RATE, subtype="PCM_16")
    return paths


def test_server():
    """Return the context manager of the server of replies, which stands among the tests."""
    sys.path.insert(0, str(ROOT / "tests"))
    try:
        import llm_server
    finally:
        sys.path.remove(str(ROOT / "tests"))
    return llm_server.serving()
