"""One checkpoint in the forms that the programs of benchmarks/inference.py open."""

from pathlib import Path

from inference_peers import Weights

from lengua.models.checkpoints import ctranslate2_folder, find_model, read_note
from lengua.runtime.errors import LenguaError


def weights_of(name: str, language: str, threads: int, scratch: Path) -> Weights:
    """Find a model and write its other forms into a folder; what keeps one of them from being made is told."""
    folder, _ = find_model(name)
    made, refused = {}, {}
    for form, make in {"ctranslate2": as_ctranslate2, "openai": as_openai, "ggml": as_ggml}.items():
        try:
            made[form] = make(folder, scratch)
        except (ImportError, LenguaError, ValueError, RuntimeError) as error:
            made[form], refused[form] = None, str(error).partition("\n")[0]
    margin_s = read_note(folder).decode_margin_s
    return Weights(name, folder, **made, language=language, margin_s=margin_s, threads=threads, refused=refused)


def as_ctranslate2(folder: Path, scratch: Path) -> Path:
    """Return the folder for faster-whisper."""
    return ctranslate2_folder(folder)


def as_openai(folder: Path, scratch: Path) -> Path:
    """Write a checkpoint file as openai-whisper's `load_model` reads it."""
    import torch

    from lengua.models.formats.openai import load_openai_model

    model, path = load_openai_model(folder), scratch / "openai.pt"
    torch.save({"dims": vars(model.dims), "model_state_dict": model.state_dict()}, path)
    return path


def as_ggml(folder: Path, scratch: Path) -> Path:
    """Write a float16 file for whisper.cpp."""
    from lengua.models.formats.ggml import write_ggml

    write_ggml(folder, path := scratch / "ggml-model.bin")
    return path
