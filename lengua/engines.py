"""What runs a Whisper: CTranslate2 (the default; no torch needed) or torch. One method, the same meaning."""

from pathlib import Path
from typing import Protocol

import numpy as np

from lengua import checkpoints
from lengua.errors import RequestError

POSITIONS = 448
"""Of Whisper's decoder."""
PROMPT = 4
"""Tokens of a prompt without timestamps: start, language, task, <|notimestamps|>."""


class Engine(Protocol):
    """Greedy decoding of one window a row."""

    name: str
    n_mels: int
    window_frames: int
    most_tokens: int
    """That it can write after the prompt, whatever is asked for."""
    multilingual: bool
    """Whether it can tell languages apart."""

    def generate(self, features: np.ndarray, prompt: list[int], max_tokens: int) -> list[list[int]]:
        """Return the tokens after the prompt for features of shape (batch, n_mels, frames), frames <= 3000.

        A prompt without its last token, <|notimestamps|>, asks for timestamps.
        """

    def languages(self, features: np.ndarray) -> list[str]:
        """Return the code of the language heard in each window of 30 s: shape (batch, n_mels, 3000)."""


class CTranslate2Engine:
    """int8 on a CPU, float16 on a GPU. Short windows go in as they are.

    Features are handed to `generate` and never to `encode` first: `generate` tells features from encoder states by
    shape[1] == n_mels, so the 80 states of a 1.6 s window would be taken for a mel of 80 bins and encoded again.
    """

    def __init__(self, folder: Path, threads: int = 0):
        import ctranslate2

        device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
        compute_type = "float16" if device == "cuda" else "int8"
        converted = checkpoints.ctranslate2_folder(folder)
        self._model = ctranslate2.models.Whisper(
            str(converted), device=device, compute_type=compute_type, intra_threads=threads
        )
        self._storage = ctranslate2.StorageView
        self.name = f"ctranslate2 {compute_type}"
        self.n_mels = self._model.n_mels
        self.window_frames = checkpoints.window_frames(folder)
        self.most_tokens, self.multilingual = POSITIONS // 2, self._model.is_multilingual

    def generate(self, features: np.ndarray, prompt: list[int], max_tokens: int) -> list[list[int]]:
        """Return the tokens after the prompt, greedily."""
        storage = self._storage.from_array(np.ascontiguousarray(features))
        # CTranslate2 spends half of max_length on the prompt's side and half on what is generated.
        results = self._model.generate(
            storage, [prompt] * len(features), beam_size=1, max_length=min(POSITIONS, 2 * max_tokens)
        )
        return [result.sequences_ids[0] for result in results]

    def languages(self, features: np.ndarray) -> list[str]:
        """Return the likeliest language of each window."""
        heard = self._model.detect_language(self._storage.from_array(np.ascontiguousarray(features)))
        return [found[0][0].strip("<|>") for found in heard]


class TorchEngine:
    """float32 on a CPU, float16 on a GPU, through transformers' generate."""

    def __init__(self, folder: Path, threads: int = 0):
        import torch

        from lengua.model import load_model, window_frames

        if threads:
            torch.set_num_threads(threads)
        self._torch = torch
        self._model = load_model(folder).eval()
        if torch.cuda.is_available():
            self._model = self._model.to("cuda", torch.float16)
        self.name = f"torch {str(self._model.dtype).removeprefix('torch.')}"
        self.n_mels = self._model.config.num_mel_bins
        self.window_frames = window_frames(self._model)
        self.most_tokens = POSITIONS
        self.multilingual = bool(getattr(self._model.generation_config, "lang_to_id", None))
        if not self.multilingual:
            found = f"none in {folder}"
            raise RequestError("a generation_config.json with languages", found, "copy it from the base model")

    def generate(self, features: np.ndarray, prompt: list[int], max_tokens: int) -> list[list[int]]:
        """Return the tokens after the prompt, greedily."""
        tensor = self._torch.from_numpy(features).to(self._model.device, self._model.dtype)
        config = self._model.generation_config
        language = next(name for name, token in config.lang_to_id.items() if token == prompt[1])
        plain = {"max_new_tokens": max_tokens, "num_beams": 1, "return_timestamps": len(prompt) == PROMPT - 1}
        with self._torch.inference_mode():
            tokens = self._model.generate(tensor, language=language, task="transcribe", **plain)
        return tokens.tolist()

    def languages(self, features: np.ndarray) -> list[str]:
        """Return the likeliest language of each window."""
        tensor = self._torch.from_numpy(features).to(self._model.device, self._model.dtype)
        with self._torch.inference_mode():
            heard = self._model.detect_language(tensor).tolist()
        names = {token: name.strip("<|>") for name, token in self._model.generation_config.lang_to_id.items()}
        return [names[token] for token in heard]


ENGINES = {"ctranslate2": CTranslate2Engine, "torch": TorchEngine}


def open_engine(name: str, folder: Path, threads: int = 0) -> Engine:
    """Open a model folder on an engine: ctranslate2, torch, or auto (ctranslate2)."""
    name = "ctranslate2" if name == "auto" else name
    if name not in ENGINES:
        raise RequestError(f"an engine of {', '.join(ENGINES)}", repr(name), "name one of these, or auto")
    return ENGINES[name](folder, threads)
