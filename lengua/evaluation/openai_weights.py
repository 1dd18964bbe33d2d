"""Weights of a Hugging Face Whisper in OpenAI's own program (package openai-whisper): the same tensors, other names."""

from pathlib import Path

from lengua.files import read_json
from lengua.layouts import renamed


def openai_model(folder: Path):
    """Return a whisper.model.Whisper with the weights of a model folder."""
    from safetensors.torch import load_file
    from whisper.model import ModelDimensions, Whisper

    config = read_json(folder / "config.json")
    sizes = "d_model {}_attention_heads {}_layers"
    sides = [[config[key] for key in sizes.replace("{}", side).split()] for side in ("encoder", "decoder")]
    model = Whisper(
        ModelDimensions(
            config["num_mel_bins"],
            config["max_source_positions"],
            *sides[0],
            config["vocab_size"],
            config["max_target_positions"],
            *sides[1],
        )
    )
    weights = load_file(folder / "model.safetensors")
    tensors = {renamed(name): tensor.float() for name, tensor in weights.items() if name != "proj_out.weight"}
    model.load_state_dict(tensors, strict=True)
    return model.eval()
