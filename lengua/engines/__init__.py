"""What runs a Whisper: ONNX Runtime (the default on a processor), CTranslate2 (on a GPU), torch. The same methods.

The first two need no torch.
"""

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from lengua.errors import RequestError

POSITIONS = 448
"""Of Whisper's decoder."""
DOUBT = 0.2
"""Where <|nospeech|> is less likely than this, nobody asks how sure the model is of its words."""
NVIDIA = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""One of these is there where a GPU is, on Linux and in WSL."""


@dataclass(frozen=True)
class Written:
    """What a model wrote for one window."""

    tokens: list[int]
    """After the prompt; the end token is there or not, as the engine has it."""
    mean_logprob: float | None = None
    """Of the natural logarithms of the probabilities of the tokens, the end among them; None where there is no doubt.

    It costs CTranslate2 a tenth of its time, so it is told only where `no_speech` is over `DOUBT`.
    """
    no_speech: float | None = None
    """Probability of <|nospeech|> behind <|startoftranscript|>; None where the engine cannot tell."""


class Engine(Protocol):
    """Decoding of one window a row. Not for two threads at once."""

    name: str
    n_mels: int
    window_frames: int
    most_tokens: int
    """That it can write after the prompt, whatever is asked for."""
    multilingual: bool
    """Whether it can tell languages apart."""
    aligns: bool
    """Whether it can tell when each token was said."""

    def generate(self, features: np.ndarray, prompt: list[int], max_tokens: int, beam: int = 1) -> list[Written]:
        """Return what follows the prompt, for features of shape (batch, n_mels, frames), frames <= 3000.

        Args:
            prompt: [<|startofprev|>, words before, ...] start, language, task, <|notimestamps|>. Without the last one
                it asks for timestamps.
            max_tokens: to write; fewer where prompt and text would not fit into `POSITIONS`.
            beam: width of the search; 1 is greedy.
        """

    def languages(self, features: np.ndarray) -> list[dict[str, float]]:
        """Return the probability of each language, by its code, for windows of 30 s: shape (batch, n_mels, 3000)."""

    def align(
        self, features: np.ndarray, prompt: list[int], tokens: list[list[int]], frames: list[int]
    ) -> list[list[tuple[float, float, float]]]:
        """Return (start in s, end in s, probability) of each token, by the cross-attention of the alignment heads.

        Args:
            features: as for `generate`.
            prompt: start, language, task, <|notimestamps|>.
            tokens: what was said in each window, text tokens alone.
            frames: of each window that are speech and not margin.
        """


def open_engine(name: str, folder: Path, threads: int = 0, compute_type: str = "") -> Engine:
    """Open a model folder on an engine.

    Args:
        name: onnxruntime, ctranslate2, torch, or auto: ctranslate2 on a GPU, or torch where that alone can use it;
            on a processor onnxruntime, but ctranslate2 where a compute type is asked for.
        threads: of the processor; 0 leaves it to the engine.
        compute_type: of CTranslate2, see `lengua.engines.on_ctranslate2`; the others have their own.

    Raises:
        RequestError: no such engine, or a model folder that is broken.
    """
    if name == "auto":
        return _best_engine(folder, threads, compute_type)
    if name == "ctranslate2":
        from lengua.engines.on_ctranslate2 import CTranslate2Engine

        return CTranslate2Engine(folder, threads, compute_type)
    if name == "onnxruntime":
        from lengua.engines.on_onnxruntime import OnnxEngine

        return OnnxEngine(folder, threads)
    if name == "torch":
        from lengua.engines.on_torch import TorchEngine

        return TorchEngine(folder, threads)
    raise RequestError("an engine of onnxruntime, ctranslate2, torch", repr(name), "name one of these, or auto")


def _best_engine(folder: Path, threads: int, compute_type: str) -> Engine:
    """Open CTranslate2 on a GPU that it can use, else torch on one, else what is fastest on the processor."""
    from lengua.engines.on_ctranslate2 import COMPUTE_TYPE, CTranslate2Engine, UnusableGPU, gpu_count

    if has_gpu():
        if gpu_count():
            with suppress(UnusableGPU):
                return CTranslate2Engine(folder, threads, compute_type, "cuda")
        if (folder / "model.safetensors").is_file() and _torch_sees_a_gpu():
            return open_engine("torch", folder, threads)
    if not (compute_type or os.environ.get(COMPUTE_TYPE)):
        from lengua.engines.on_onnxruntime import NotConvertible, OnnxEngine

        with suppress(NotConvertible):
            return OnnxEngine(folder, threads)
    return CTranslate2Engine(folder, threads, compute_type, "cpu")


def has_gpu() -> bool:
    """Return whether there is any sign of an NVIDIA GPU. It costs no import."""
    return any(path.exists() for path in NVIDIA) or shutil.which("nvidia-smi") is not None


def _torch_sees_a_gpu() -> bool:
    if find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()
