"""Whisper on torch: float32 on a processor, float16 on a GPU, through transformers' generate."""

from pathlib import Path

import numpy as np
import torch
from transformers import GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

from lengua.inference.engines.base import DECODER_POSITIONS, MIN_NO_SPEECH_FOR_LOGPROB, EngineOutput
from lengua.models.checkpoints import require_whole_safetensors
from lengua.models.whisper import load_model, window_frames
from lengua.runtime.errors import RequestError


class TorchEngine:
    """The second engine, and the one where CTranslate2 cannot use the GPU. It gives no word timestamps.

    Args:
        folder: a model folder with model.safetensors.
        threads: of the processor, for the whole program; 0 leaves them as they are.

    Raises:
        RequestError: the folder has no weights, or broken ones.
    """

    def __init__(self, folder: Path, threads: int = 0):
        if threads:
            torch.set_num_threads(threads)
        if not (weights := folder / "model.safetensors").is_file():
            do = "name a folder that has it, or decode with --engine ctranslate2"
            raise RequestError("model.safetensors for torch", f"none in {folder}", do)
        require_whole_safetensors(weights)
        self._model = load_model(folder).eval()
        if torch.cuda.is_available():
            self._model = self._model.to("cuda", torch.float16)
        self._config = _without_nothing(self._model.generation_config)
        self._stamps_off = getattr(self._config, "no_timestamps_token_id", None)
        self._languages = {token: code for code, token in (getattr(self._config, "lang_to_id", None) or {}).items()}
        self.name = f"torch {str(self._model.dtype).removeprefix('torch.')}"
        self.n_mels = self._model.config.num_mel_bins
        self.window_frames = window_frames(self._model)
        self.most_tokens = DECODER_POSITIONS
        self.multilingual = bool(self._languages)
        self.aligns = False

    @torch.inference_mode()
    def generate(self, features: np.ndarray, prompt: list[int], max_tokens: int, beam: int = 1) -> list[EngineOutput]:
        states = self._encoded(features)
        rows = self._model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),  # a wide search repeats it in place
            decoder_input_ids=torch.tensor([prompt] * len(features), device=states.device),
            max_new_tokens=min(max_tokens, DECODER_POSITIONS - len(prompt)),
            num_beams=beam,
            return_timestamps=self._stamps_off is not None and self._stamps_off not in prompt,
            language=next((self._languages[token] for token in prompt if token in self._languages), None),
            force_unique_generate_call=True,  # one window is one call, whatever timestamps say
        )
        chances = self._no_speech(states, prompt)
        return [self._written(row, states[i], prompt, chances[i]) for i, row in enumerate(rows)]

    @torch.inference_mode()
    def languages(self, features: np.ndarray) -> list[dict[str, float]]:
        logits = self._logits(self._encoded(features), [self._config.decoder_start_token_id])[:, 0]
        chances = logits[:, list(self._languages)].softmax(-1).tolist()
        codes = [name.strip("<|>") for name in self._languages.values()]
        return [dict(zip(codes, row, strict=True)) for row in chances]

    def align(
        self, features: np.ndarray, prompt: list[int], tokens: list[list[int]], frames: list[int]
    ) -> list[list[tuple[float, float, float]]]:
        raise RequestError("an engine that gives word timestamps", self.name, "use --engine ctranslate2")

    def _encoded(self, features: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(features).to(self._model.device, self._model.dtype)
        return self._model.model.encoder(tensor).last_hidden_state

    def _logits(self, states: torch.Tensor, tokens: list[int], first: int = 0) -> torch.Tensor:
        """Return the logits behind each token from the first on, for every window: (batch, tokens, vocabulary)."""
        rows = torch.tensor([tokens] * len(states), device=states.device)
        decoded = self._model.model.decoder(input_ids=rows, encoder_hidden_states=states).last_hidden_state
        return self._model.proj_out(decoded[:, first:]).float()

    def _no_speech(self, states: torch.Tensor, prompt: list[int]) -> list[float | None]:
        if self._stamps_off is None:
            return [None] * len(states)
        start = prompt.index(self._config.decoder_start_token_id)
        return self._logits(states, prompt[: start + 1], start)[:, 0].softmax(-1)[:, self._stamps_off - 1].tolist()

    def _written(
        self, row: torch.Tensor, states: torch.Tensor, prompt: list[int], chance: float | None
    ) -> EngineOutput:
        """Return the tokens behind the prompt up to the end.

        Args:
            row: prompt and what follows, padded with end tokens.
            states: of the encoder, shape (positions, d_model).
            chance: of no speech.
        """
        tokens = row[len(prompt) :].tolist()
        if (end := self._config.eos_token_id) in tokens:
            tokens = tokens[: tokens.index(end) + 1]
        if (chance or 0.0) <= MIN_NO_SPEECH_FOR_LOGPROB:
            return EngineOutput(tokens, None, chance)
        logprobs = self._logits(states[None], [*prompt, *tokens[:-1]], len(prompt) - 1)[0].log_softmax(-1)
        return EngineOutput(tokens, logprobs[range(len(tokens)), tokens].mean().item(), chance)


def _without_nothing(config: GenerationConfig) -> GenerationConfig:
    """Leave out languages and tasks that are null: transformers asks only whether they are there."""
    for name in ("lang_to_id", "task_to_id"):
        if getattr(config, name, ...) is None:
            delattr(config, name)
    return config
