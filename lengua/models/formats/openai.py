"""OpenAI's tensor names for the weights of a Hugging Face Whisper; openai-whisper and whisper.cpp use them."""

import re
from pathlib import Path

from lengua.runtime.errors import LenguaError
from lengua.runtime.files import read_json

OPENAI_NAME_RULES = (
    (r"^model\.", ""),
    (r"\.layers\.", ".blocks."),
    (r"encoder_attn_layer_norm", "cross_attn_ln"),
    (r"encoder_attn\.", "cross_attn."),
    (r"self_attn_layer_norm", "attn_ln"),
    (r"self_attn\.", "attn."),
    (r"q_proj", "query"),
    (r"k_proj", "key"),
    (r"v_proj", "value"),
    (r"out_proj", "out"),
    (r"fc1", "mlp.0"),
    (r"fc2", "mlp.2"),
    (r"final_layer_norm", "mlp_ln"),
    (r"encoder\.layer_norm", "encoder.ln_post"),
    (r"decoder\.layer_norm", "decoder.ln"),
    (r"embed_positions\.weight", "positional_embedding"),
    (r"decoder\.embed_tokens", "decoder.token_embedding"),
)
"""Each in turn, as in the conversion script of transformers, the other way round."""


def openai_tensor_name(name: str) -> str:
    """Return OpenAI's name of a tensor."""
    for pattern, its_own in OPENAI_NAME_RULES:
        name = re.sub(pattern, its_own, name)
    return name


def load_openai_model(folder: Path):
    """Return a whisper.model.Whisper with the weights of a model folder."""
    from safetensors.torch import load_file
    from whisper.model import ModelDimensions, Whisper

    config = read_json(folder / "config.json")
    keys = """num_mel_bins max_source_positions d_model encoder_attention_heads encoder_layers
        vocab_size max_target_positions d_model decoder_attention_heads decoder_layers"""
    model = Whisper(ModelDimensions(*(config[key] for key in keys.split())))
    weights = load_file(folder / "model.safetensors")
    head = weights.pop("proj_out.weight", None)
    if head is not None and not head.equal(weights["model.decoder.embed_tokens.weight"]):
        expected = "an output head that is the embeddings, as openai-whisper has it"
        raise LenguaError(expected, f"another proj_out.weight in {folder}", "use transformers or faster-whisper")
    model.load_state_dict({openai_tensor_name(name): tensor.float() for name, tensor in weights.items()}, strict=True)
    return model.eval()
