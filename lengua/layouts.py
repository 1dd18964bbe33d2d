"""One Whisper, two layouts: a CTranslate2 model.bin read and spread over Hugging Face's tensors and files.

CTranslate2's binary (specification version 6): a header, then for each variable its name, shape, type and bytes, then
aliases. Query, key and value of self-attention are one matrix, and so are key and value of cross-attention; key
projections have no bias. Source of the format: CTranslate2, python/ctranslate2/specs/model_spec.py.
"""

import struct
from pathlib import Path

import numpy as np

from lengua.errors import LenguaError
from lengua.files import read_json, write_bytes, write_json
from lengua.languages import NAMES

DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
BINARY_VERSION = 6
END, START, TRANSLATE, TRANSCRIBE, START_OF_PREVIOUS, NO_TIMESTAMPS = 50257, 50258, 50358, 50359, 50361, 50363
TIMESTAMPS = tuple(f"<|{step * 0.02:.2f}|>" for step in range(1501))

LAYER_NORM = {"gamma": "weight", "beta": "bias"}
LINEAR = {"weight": "weight", "bias": "bias"}
PARTS = {  # CTranslate2 -> Hugging Face, within one layer
    "self_attention/layer_norm": "self_attn_layer_norm",
    "self_attention/linear_1": "self_attn.out_proj",
    "attention/layer_norm": "encoder_attn_layer_norm",
    "attention/linear_0": "encoder_attn.q_proj",
    "attention/linear_2": "encoder_attn.out_proj",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
}
FUSED = {
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
}
TOP = {
    "encoder/conv1": "encoder.conv1",
    "encoder/conv2": "encoder.conv2",
    "encoder/layer_norm": "encoder.layer_norm",
    "decoder/layer_norm": "decoder.layer_norm",
    "decoder/embeddings": "decoder.embed_tokens",
    "encoder/position_encodings": "encoder.embed_positions",
    "decoder/position_encodings": "decoder.embed_positions",
}


def write_model_folder(ct2_folder: Path, out: Path) -> None:
    """Write the full Hugging Face folder of the Whisper in `ct2_folder`: weights, configurations, tokenizer, processor.

    Needs neither torch nor transformers.
    """
    from safetensors.numpy import save_file

    variables = read_variables(ct2_folder / "model.bin")
    tensors = hugging_face_tensors(variables)
    save_file(
        {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()},
        out / "model.safetensors",
        metadata={"format": "pt"},
    )
    heads = int(variables["encoder/num_heads"])
    write_json(out / "config.json", model_config(tensors, heads))
    write_json(out / "generation_config.json", generation_config(read_json(ct2_folder / "config.json")))
    write_tokenizer(read_json(ct2_folder / "tokenizer.json"), out)
    write_feature_extractor(out, n_mels=tensors["model.encoder.conv1.weight"].shape[1])


def read_variables(path: Path) -> dict[str, np.ndarray]:
    """Return every variable of a CTranslate2 model.bin by name.

    Raises:
        LenguaError: another binary version, or a file that ends early.
    """
    data = memoryview(path.read_bytes())
    try:
        version, offset = struct.unpack_from("<I", data)[0], 4
        if version != BINARY_VERSION:
            raise LenguaError(f"binary version {BINARY_VERSION}", str(version), "convert the model again")
        _, offset = _string(data, offset)
        count, offset = struct.unpack_from("<II", data, offset)[1], offset + 8
        variables = {}
        for _ in range(count):
            name, variables[name], offset = _variable(data, offset)
        aliases, offset = struct.unpack_from("<I", data, offset)[0], offset + 4
        for _ in range(aliases):  # the output projection; in an untrained model also biases that are all zeros
            alias, offset = _string(data, offset)
            name, offset = _string(data, offset)
            variables[alias] = variables[name]
        return variables
    except (struct.error, ValueError, IndexError, KeyError) as error:
        raise LenguaError("a CTranslate2 model.bin", f"{path.name} broken off ({error})", "fetch it again") from error


def _string(data: memoryview, offset: int) -> tuple[str, int]:
    """Return a text and the offset behind its closing zero."""
    (length,) = struct.unpack_from("<H", data, offset)
    (text,) = struct.unpack_from(f"<{length}s", data, offset + 2)
    return text[:-1].decode(), offset + 2 + length


def _variable(data: memoryview, offset: int) -> tuple[str, np.ndarray, int]:
    name, offset = _string(data, offset)
    rank = data[offset]
    shape = struct.unpack_from(f"<{rank}I", data, offset + 1)
    kind, size = struct.unpack_from("<BI", data, offset + 1 + 4 * rank)
    offset += 6 + 4 * rank
    values = np.frombuffer(data, DTYPES[kind], count=size // np.dtype(DTYPES[kind]).itemsize, offset=offset)
    return name, values.reshape(shape), offset + size


def hugging_face_tensors(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the tensors of a WhisperForConditionalGeneration by name, fused projections taken apart."""
    tensors = {}
    for name, value in variables.items():
        for target, part in _targets(name, value):
            tensors[f"model.{target}"] = part
    return tensors


def _targets(name: str, value: np.ndarray):
    """Yield (Hugging Face name, tensor) for one variable; scalars that only configure yield nothing."""
    owner, _, leaf = name.rpartition("/")
    if owner in TOP:
        yield f"{TOP[owner]}.{({**LINEAR, **LAYER_NORM, 'encodings': 'weight'})[leaf]}", value
    elif "/layer_" in name:
        side, layer, part = owner.split("/", 2)
        prefix = f"{side}.layers.{layer.removeprefix('layer_')}"
        if part in PARTS:
            yield f"{prefix}.{PARTS[part]}.{({**LINEAR, **LAYER_NORM})[leaf]}", value
        elif part in FUSED:
            projections = FUSED[part]
            for projection, piece in zip(projections, np.split(value, len(projections)), strict=True):
                if not (leaf == "bias" and projection.endswith("k_proj")):  # Whisper's keys have no bias
                    yield f"{prefix}.{projection}.{leaf}", piece


def model_config(tensors: dict[str, np.ndarray], heads: int) -> dict:
    """Return config.json, its sizes read off the tensors."""
    embeddings = tensors["model.decoder.embed_tokens.weight"]
    feed_forward = tensors["model.encoder.layers.0.fc1.weight"].shape[0]
    sides = ("encoder", "decoder")
    layers = {s: sum(name.startswith(f"model.{s}.") and name.endswith(".fc1.bias") for name in tensors) for s in sides}
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "activation_function": "gelu",
        "d_model": embeddings.shape[1],
        "vocab_size": embeddings.shape[0],
        "num_mel_bins": tensors["model.encoder.conv1.weight"].shape[1],
        "num_hidden_layers": layers["encoder"],
        **{f"{side}_layers": layers[side] for side in sides},
        **{f"{side}_attention_heads": heads for side in sides},
        **{f"{side}_ffn_dim": feed_forward for side in sides},
        "max_source_positions": tensors["model.encoder.embed_positions.weight"].shape[0],
        "max_target_positions": tensors["model.decoder.embed_positions.weight"].shape[0],
        "is_encoder_decoder": True,
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "bos_token_id": END,
        "eos_token_id": END,
        "pad_token_id": END,
        "decoder_start_token_id": START,
        "dtype": "float32",
        "torch_dtype": "float32",
    }


def generation_config(ct2: dict) -> dict:
    """Return generation_config.json from CTranslate2's: suppressed tokens, languages, alignment heads."""
    codes = list(NAMES)[: len(ct2["lang_ids"])]
    return {
        "alignment_heads": ct2["alignment_heads"],
        "begin_suppress_tokens": ct2["suppress_ids_begin"],
        "suppress_tokens": ct2["suppress_ids"],
        "bos_token_id": END,
        "eos_token_id": END,
        "pad_token_id": END,
        "decoder_start_token_id": START,
        "prev_sot_token_id": START_OF_PREVIOUS,
        "no_timestamps_token_id": NO_TIMESTAMPS,
        "is_multilingual": True,
        "lang_to_id": {f"<|{code}|>": token for code, token in zip(codes, ct2["lang_ids"], strict=True)},
        "task_to_id": {"transcribe": TRANSCRIBE, "translate": TRANSLATE},
        "max_initial_timestamp_index": 50,
        "max_length": 448,
        "return_timestamps": False,
    }


def write_tokenizer(tokenizer: dict, out: Path) -> None:
    """Write tokenizer.json with the 1,501 timestamp tokens, vocab.json, merges.txt and tokenizer_config.json."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    known = {token["content"] for token in tokenizer["added_tokens"]}
    tokenizer["added_tokens"] += [
        {"id": NO_TIMESTAMPS + 1 + step, "content": content, **plain}
        for step, content in enumerate(TIMESTAMPS)
        if content not in known
    ]
    write_json(out / "tokenizer.json", tokenizer)
    write_vocabulary(tokenizer, out)
    write_json(out / "tokenizer_config.json", _tokenizer_config(tokenizer["added_tokens"]))


def write_vocabulary(tokenizer: dict, out: Path) -> None:
    """Write vocab.json and merges.txt, the older form of a tokenizer.json."""
    write_json(out / "vocab.json", tokenizer["model"]["vocab"])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    write_bytes(out / "merges.txt", ("#version: 0.2\n" + "\n".join(merges) + "\n").encode())


def _tokenizer_config(added: list[dict]) -> dict:
    end = "<|endoftext|>"
    decoder = {str(token["id"]): {key: token[key] for key in token if key != "id"} for token in added}
    return {
        "tokenizer_class": "WhisperTokenizer",
        "processor_class": "WhisperProcessor",
        "added_tokens_decoder": decoder,
        "additional_special_tokens": [t["content"] for t in added if t["special"] and t["content"] != end],
        **dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), end),
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "model_max_length": 1024,
        "return_attention_mask": False,
    }


def write_feature_extractor(out: Path, n_mels: int) -> None:
    """Write both processor files: transformers 5 reads the second, transformers 4 and faster-whisper the first."""
    extractor = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": n_mels,
        "sampling_rate": 16000,
        "hop_length": 160,
        "chunk_length": 30,
        "n_fft": 400,
        "n_samples": 480000,
        "nb_max_frames": 3000,
        "dither": 0.0,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }
    write_json(out / "preprocessor_config.json", {**extractor, "processor_class": "WhisperProcessor"})
    write_json(out / "processor_config.json", {"feature_extractor": extractor, "processor_class": "WhisperProcessor"})
