"""Whisper with adaptive context: the encoder takes any window up to 30 s. A saved checkpoint is a plain Whisper.

Whisper's forward refuses anything but 30 s, and its generate pads short input with zeros of the log-mel, which are
noise and not silence. Both are lifted here. `config.max_source_positions` stays 1500, or a checkpoint would save it.
"""

from pathlib import Path

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, WhisperForConditionalGeneration
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.whisper.modeling_whisper import WhisperEncoder, WhisperModel
from transformers.utils import logging

from lengua.models.languages import LANGUAGE_NAMES, language_code
from lengua.runtime.errors import RequestError
from lengua.runtime.files import read_json, write_json

MAX_MATMUL_ATTENTION_POSITIONS = 700
"""Encoder positions up to which attention is learned by plain products of matrices on a CPU: the backward pass of
torch's fused attention is made for longer windows."""


def attention_by_length(module, query, key, value, attention_mask, dropout=0.0, scaling=1.0, **kwargs):
    """Learn from short windows on a CPU by plain matrix products; attend by torch's own attention else.

    Args:
        query: shape (batch, heads, queries, channels); key and value likewise, over positions.

    Returns:
        shape (batch, queries, heads, channels), and no weights.
    """
    plain = module.training and key.device.type == "cpu" and key.shape[2] <= MAX_MATMUL_ATTENTION_POSITIONS
    if not plain or attention_mask is not None or module.is_causal or dropout:
        kwargs |= {"dropout": dropout, "scaling": scaling}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    weights = nn.functional.softmax(torch.matmul(scaling * query, key.transpose(2, 3)), -1)
    return torch.matmul(weights.to(value.dtype), value).transpose(1, 2).contiguous(), None


AttentionInterface.register("by_length", attention_by_length)
AttentionMaskInterface.register("by_length", sdpa_mask)


class AdaptiveEncoder(WhisperEncoder):
    """Whisper's encoder over windows of any even number of frames: the position embeddings are sliced to fit."""

    def forward(self, input_features: torch.Tensor, attention_mask=None, **kwargs) -> BaseModelOutput:
        """Encode (batch, n_mels, frames) to (batch, frames / 2, d_model)."""
        hidden = nn.functional.gelu(self.conv1(input_features))
        hidden = nn.functional.gelu(self.conv2(hidden)).permute(0, 2, 1)
        hidden = hidden + self.embed_positions.weight[: hidden.shape[1]]
        hidden = nn.functional.dropout(hidden, p=self.dropout, training=self.training)
        for layer in self.layers:
            hidden = layer(hidden, None, **kwargs)
        return BaseModelOutput(last_hidden_state=self.layer_norm(hidden))


class AdaptiveModel(WhisperModel):
    """WhisperModel over an AdaptiveEncoder."""

    def __init__(self, config):
        super().__init__(config)
        self.encoder = AdaptiveEncoder(config)
        self.post_init()


class AdaptiveWhisper(WhisperForConditionalGeneration):
    """WhisperForConditionalGeneration whose window is as long as its input. Same tensors, same files."""

    def __init__(self, config):
        super().__init__(config)
        self.model = AdaptiveModel(config)
        self.post_init()

    @staticmethod
    def _get_input_segment(input_features, seek, seek_num_frames, num_segment_frames, cur_bsz, batch_idx_map):
        """Cut the next window out of the input without padding it to 30 s."""
        if input_features is None:
            return None
        longest = int(max(seek_num_frames[batch_idx_map[i]] for i in range(cur_bsz)))
        starts = [int(seek[batch_idx_map[i]]) for i in range(cur_bsz)]
        return torch.cat([input_features[i : i + 1, :, start : start + longest] for i, start in enumerate(starts)])

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Save a plain Whisper checkpoint: nothing of the adaptive context is needed to load it."""
        super().save_pretrained(save_directory, *args, **kwargs)
        path = Path(save_directory) / "config.json"
        write_json(path, {**read_json(path), "architectures": ["WhisperForConditionalGeneration"]})


def whisper_config(folder: Path) -> dict:
    """Return config.json of a model folder.

    Raises:
        RequestError: not a Whisper.
    """
    config = read_json(Path(folder) / "config.json")
    if config.get("model_type") != "whisper":
        raise RequestError("a Whisper model", f"model_type {config.get('model_type')!r} in {folder}", "name a Whisper")
    return config


def require_supported_language(folder: Path, language: str | None) -> None:
    """Refuse, before anything is built, a language that a model folder's generation config does not have.

    Raises:
        RequestError: not a Whisper, an English-only one, or one without the language.
    """
    path = Path(folder) / "generation_config.json"
    if whisper_config(folder) and language and path.is_file():
        _require_language(read_json(path).get("lang_to_id"), language_code(language))


def load_model(folder: Path, language: str | None = None) -> AdaptiveWhisper:
    """Load a model folder in float32, with language and task forced in every generate.

    Raises:
        RequestError: not a Whisper, or an English-only one for another language.
    """
    whisper_config(folder)
    silence_transformers()
    model = AdaptiveWhisper.from_pretrained(folder, dtype=torch.float32, attn_implementation="by_length")
    model.model.encoder.embed_positions.requires_grad_(False)  # sinusoids; from_pretrained forgets that they are fixed
    force_language(model, language)
    return model


def silence_transformers() -> None:
    """Keep transformers' advice and progress bars off the terminal: ours tell what matters."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def force_language(model: WhisperForConditionalGeneration, language: str | None) -> None:
    """Set language and task on the generation config; a model without languages stays as it is."""
    known = getattr(model.generation_config, "lang_to_id", None)
    model.generation_config.forced_decoder_ids = None
    if language is None:
        return
    _require_language(known, language)
    model.generation_config.language = language
    model.generation_config.task = "transcribe"


def _require_language(known: dict | None, language: str) -> None:
    if not known or f"<|{language}|>" not in known:
        found = "an English-only model" if not known else f"a model without <|{language}|>"
        wanted = f"a model that speaks {LANGUAGE_NAMES.get(language, language)}"
        raise RequestError(wanted, found, "choose another Whisper")


def window_frames(model: WhisperForConditionalGeneration) -> int:
    """Return the frames of the model's full window: 3000 for every released Whisper."""
    return 2 * model.config.max_source_positions
