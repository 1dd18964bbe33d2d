"""whisper.cpp's model file, float16, from a Hugging Face Whisper folder.

Integers are int32 of little endian, in this order, and nothing is between them:

    magic, ten sizes, the type of the weights (1: float16)
    the mel filters: rows, columns, float32 values
    the vocabulary: how many tokens, then each one's length and bytes
    tensors, to the end of the file: dimensions, length of the name, type; the sizes, innermost first; name; values

Special tokens are not in the file: whisper.cpp counts them up from the size of the vocabulary, so a Whisper with other
tokens than the released ones would load and babble. Its feed-forward layers are four times as wide as the model, and
it hears 1500 positions. What it would get wrong is refused here. A file of float32 crashes it; none is written.

Source of the format: whisper.cpp, whisper_model_load in src/whisper.cpp. No package of the index converts (LOG.md).
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lengua.audio import SAMPLE_RATE, log_mel
from lengua.models.checkpoints import load_tokenizer
from lengua.models.formats.openai import openai_tensor_name
from lengua.models.languages import LANGUAGE_NAMES
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import read_json

GGML_MAGIC = 0x67676D6C  # "ggml"
GGML_FLOAT32, GGML_FLOAT16 = 0, 1
GGML_HEADER_KEYS = """
    vocab_size max_source_positions d_model encoder_attention_heads encoder_layers max_target_positions d_model
    decoder_attention_heads decoder_layers num_mel_bins""".split()
ENCODER_POSITIONS = log_mel.WINDOW_FRAMES // 2
TOP_TENSOR_COUNT, ENCODER_LAYER_TENSOR_COUNT, DECODER_LAYER_TENSOR_COUNT = 11, 15, 24
CONVOLUTION_BIASES = ("encoder.conv1.bias", "encoder.conv2.bias")
ENGLISH_ONLY_VOCAB_SIZE, MULTILINGUAL_VOCAB_SIZE, CANTONESE_VOCAB_SIZE = 51864, 51865, 51866
"""Sizes of the vocabularies of the released Whispers."""
TASK_TOKEN_NAMES = ("translate", "transcribe", "startoflm", "startofprev", None, "notimestamps")
"""After the languages; the fifth has two names, <|nocaptions|> and <|nospeech|>."""


def released_token_ids(vocab_size: int) -> dict[str, int]:
    """Return the numbers of the special tokens in a released Whisper with a vocabulary of this size."""
    end = 50256 if vocab_size == ENGLISH_ONLY_VOCAB_SIZE else 50257
    languages = list(LANGUAGE_NAMES)[: 100 if vocab_size == CANTONESE_VOCAB_SIZE else 99]
    names = ["endoftext", "startoftranscript", *languages, *TASK_TOKEN_NAMES, "0.00"]
    return {f"<|{name}|>": end + place for place, name in enumerate(names) if name}


def write_ggml(folder: Path, out: Path) -> None:
    """Write the file, whole or not at all, one tensor after another.

    Raises:
        RequestError: whisper.cpp cannot run such a model.
        LenguaError: weights beyond float16, or tensors that are not Whisper's.
    """
    config = read_json(folder / "config.json")
    vocabulary = read_json(folder / "tokenizer.json")["model"]["vocab"]
    _require_runnable(config, folder)
    fresh = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with open(fresh, "wb") as file:
            _write_numbers(file, GGML_MAGIC, *(config[name] for name in GGML_HEADER_KEYS), GGML_FLOAT16)
            _write_filters(file, config["num_mel_bins"])
            _write_vocabulary(file, vocabulary, released_token_ids(config["vocab_size"])["<|endoftext|>"])
            written = [_write_tensor(file, *tensor) for tensor in _tensors(folder / "model.safetensors")]
            layers = (config["encoder_layers"], config["decoder_layers"])
            expected = TOP_TENSOR_COUNT + np.dot(layers, (ENCODER_LAYER_TENSOR_COUNT, DECODER_LAYER_TENSOR_COUNT))
            if len(written) != expected:  # an adapter that was not merged
                do = "merge adapters first, and save the model with lengua or transformers"
                raise LenguaError(f"{expected} tensors of a Whisper", f"{len(written)} in its weights", do)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, out)
    finally:
        fresh.unlink(missing_ok=True)


def _require_runnable(config: dict, folder: Path) -> None:
    """Refuse what whisper.cpp would not load, or would load and get wrong."""
    sizes = (ENGLISH_ONLY_VOCAB_SIZE, MULTILINGUAL_VOCAB_SIZE, CANTONESE_VOCAB_SIZE)
    if config["vocab_size"] not in sizes:
        expected = f"a vocabulary that whisper.cpp counts by: one of {', '.join(map(str, sizes))} tokens"
        raise _refusal(expected, f"{config['vocab_size']} in {folder}")
    width = 4 * config["d_model"]
    for key, size in {
        "max_source_positions": ENCODER_POSITIONS,
        "encoder_ffn_dim": width,
        "decoder_ffn_dim": width,
    }.items():
        if config[key] != size:
            raise _refusal(f"{key} {size}, as in every released Whisper", f"{key} {config[key]} in {folder}")
    tokenizer = load_tokenizer(folder)
    for name, number in released_token_ids(config["vocab_size"]).items():
        if tokenizer.token_to_id(name) != number:
            raise _refusal(f"{name} to be token {number}, as whisper.cpp counts", f"{tokenizer.token_to_id(name)}")


def _refusal(expected: str, found: str) -> RequestError:
    do = "leave out ggml: whisper.cpp runs released Whispers and what was tuned from them"
    return RequestError(expected, found, do)


def _write_numbers(file: BinaryIO, *numbers: int) -> None:
    file.write(struct.pack(f"<{len(numbers)}i", *numbers))


def _write_filters(file: BinaryIO, n_mels: int) -> None:
    """Write Slaney's mel filters over the bins of a 25 ms window, as faster-whisper computes them."""
    from faster_whisper.feature_extractor import FeatureExtractor

    filters = FeatureExtractor.get_mel_filters(SAMPLE_RATE, log_mel.N_FFT, n_mels).astype("<f4")
    _write_numbers(file, *filters.shape)
    file.write(filters.tobytes())


def _write_vocabulary(file: BinaryIO, vocabulary: dict[str, int], end: int) -> None:
    """Write the bytes of every token of text: all below <|endoftext|>; one of them is empty in the release, too."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
    by_number = {number: token for token, number in vocabulary.items() if number < end}
    _write_numbers(file, end)
    for number in range(end):
        data = bytes(byte_of[letter] for letter in by_number.get(number, ""))
        _write_numbers(file, len(data))
        file.write(data)


def _tensors(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (OpenAI's name, float32 values), whatever type they are kept in.

    Raises:
        LenguaError: the output is not tied to the embeddings: whisper.cpp has one matrix for both.
    """
    import torch
    from safetensors import safe_open

    with safe_open(path, "pt") as weights:
        if "proj_out.weight" in weights.keys():  # noqa: SIM118, not a dict
            tied = weights.get_tensor("proj_out.weight"), weights.get_tensor("model.decoder.embed_tokens.weight")
            if not torch.equal(*tied):
                raise _refusal("an output tied to the embeddings", f"another proj_out.weight in {path}")
        for name in weights.keys():  # noqa: SIM118
            if name != "proj_out.weight":
                yield openai_tensor_name(name), weights.get_tensor(name).float().numpy()


def _write_tensor(file: BinaryIO, name: str, values: np.ndarray) -> str:
    """Write matrices and kernels as float16; what is small, and the positions, as float32.

    Raises:
        LenguaError: a weight that float16 does not have.
    """
    if name in CONVOLUTION_BIASES:
        values = values.reshape(-1, 1)
    small = values.ndim == 1 or name in CONVOLUTION_BIASES or name.endswith("positional_embedding")
    with np.errstate(over="ignore"):
        data = np.ascontiguousarray(values, "<f4" if small else "<f2")
    if not np.isfinite(data).all():
        found = f"up to {np.abs(values).max():.3g} in {name}"
        raise LenguaError("finite weights within float16, up to 65504", found, "the training went astray; train again")
    encoded = name.encode()
    _write_numbers(file, data.ndim, len(encoded), GGML_FLOAT32 if small else GGML_FLOAT16, *reversed(data.shape))
    file.write(encoded)
    file.write(data.tobytes())
    return name
