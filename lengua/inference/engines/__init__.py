"""Engines that run a Whisper, with one interface: ONNX Runtime (default on a processor), CTranslate2 (GPU), torch.

    engine = open_engine("auto", folder)

The first two need no torch.
"""

import os
import shutil
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from lengua.inference.engines.base import DECODER_POSITIONS, MIN_NO_SPEECH_FOR_LOGPROB, Engine, EngineOutput
from lengua.runtime.errors import RequestError

__all__ = ["DECODER_POSITIONS", "MIN_NO_SPEECH_FOR_LOGPROB", "Engine", "EngineOutput", "has_gpu", "open_engine"]

NVIDIA_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""One of these is there where a GPU is, on Linux and in WSL."""


def open_engine(name: str, folder: Path, threads: int = 0, compute_type: str = "") -> Engine:
    """Open a model folder on an engine.

    Args:
        name: onnxruntime, ctranslate2, torch, or auto: ctranslate2 on a GPU, or torch where that alone can use it;
            on a processor onnxruntime, but ctranslate2 where a compute type is asked for.
        threads: of the processor; 0 leaves it to the engine.
        compute_type: of CTranslate2, see `lengua.inference.engines.ctranslate2`; the others have their own.

    Raises:
        RequestError: no such engine, or a model folder that is broken.
    """
    if name == "auto":
        return _best_engine(folder, threads, compute_type)
    if name == "ctranslate2":
        from lengua.inference.engines.ctranslate2 import CTranslate2Engine

        return CTranslate2Engine(folder, threads, compute_type)
    if name == "onnxruntime":
        from lengua.inference.engines.onnxruntime import OnnxEngine

        return OnnxEngine(folder, threads)
    if name == "torch":
        from lengua.inference.engines.torch import TorchEngine

        return TorchEngine(folder, threads)
    raise RequestError("an engine of onnxruntime, ctranslate2, torch", repr(name), "name one of these, or auto")


def _best_engine(folder: Path, threads: int, compute_type: str) -> Engine:
    """Open CTranslate2 on a GPU that it can use, else torch on one, else what is fastest on the processor."""
    from lengua.inference.engines.ctranslate2 import COMPUTE_TYPE_VARIABLE, CTranslate2Engine, UnusableGPU, gpu_count

    if has_gpu():
        if gpu_count():
            with suppress(UnusableGPU):
                return CTranslate2Engine(folder, threads, compute_type, "cuda")
        if (folder / "model.safetensors").is_file() and _torch_sees_a_gpu():
            return open_engine("torch", folder, threads)
    if not (compute_type or os.environ.get(COMPUTE_TYPE_VARIABLE)):
        from lengua.inference.engines.onnxruntime import NotConvertible, OnnxEngine

        with suppress(NotConvertible):
            return OnnxEngine(folder, threads)
    return CTranslate2Engine(folder, threads, compute_type, "cpu")


def has_gpu() -> bool:
    """Return whether there is any sign of an NVIDIA GPU. It costs no import."""
    return any(path.exists() for path in NVIDIA_DEVICES) or shutil.which("nvidia-smi") is not None


def _torch_sees_a_gpu() -> bool:
    if find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()
