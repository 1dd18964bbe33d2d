"""A CTranslate2 model.bin read, and spread over Hugging Face's tensors.

CTranslate2's binary (specification version 6): a header, then for each variable its name, shape, type and bytes, then
aliases. Query, key and value of self-attention are one matrix, and so are key and value of cross-attention; key
projections have no bias. Source of the format: CTranslate2, python/ctranslate2/specs/model_spec.py.
"""

import struct
from pathlib import Path

import numpy as np

from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import read_json

CT2_DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
CT2_BINARY_VERSION = 6

LEAF_NAMES = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias", "encodings": "weight"}
LAYER_TENSOR_NAMES = {  # CTranslate2 -> Hugging Face, within one layer
    "self_attention/layer_norm": "self_attn_layer_norm",
    "self_attention/linear_1": "self_attn.out_proj",
    "attention/layer_norm": "encoder_attn_layer_norm",
    "attention/linear_0": "encoder_attn.q_proj",
    "attention/linear_2": "encoder_attn.out_proj",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
}
FUSED_PROJECTIONS = {
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
}
TOP_TENSOR_NAMES = {
    "encoder/conv1": "encoder.conv1",
    "encoder/conv2": "encoder.conv2",
    "encoder/layer_norm": "encoder.layer_norm",
    "decoder/layer_norm": "decoder.layer_norm",
    "decoder/embeddings": "decoder.embed_tokens",
    "encoder/position_encodings": "encoder.embed_positions",
    "decoder/position_encodings": "decoder.embed_positions",
}


def ctranslate2_vocabulary(folder: Path) -> list[str]:
    """Return the tokens of a CTranslate2 folder by their numbers; older converters wrote a text.

    Raises:
        RequestError: there is none.
    """
    listed, written = folder / "vocabulary.json", folder / "vocabulary.txt"
    if not (listed.is_file() or written.is_file()):
        raise RequestError("a vocabulary.json beside model.bin", f"none in {folder}", "copy or convert it again")
    return read_json(listed) if listed.is_file() else written.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def read_variables(path: Path) -> dict[str, np.ndarray]:
    """Return every variable of a CTranslate2 model.bin by name.

    Raises:
        LenguaError: another binary version, or a file that ends early.
    """
    data = memoryview(path.read_bytes())
    try:
        version, offset = struct.unpack_from("<I", data)[0], 4
        if version != CT2_BINARY_VERSION:
            raise LenguaError(f"binary version {CT2_BINARY_VERSION}", str(version), "convert the model again")
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
    values = np.frombuffer(data, CT2_DTYPES[kind], count=size // np.dtype(CT2_DTYPES[kind]).itemsize, offset=offset)
    return name, values.reshape(shape), offset + size


def has_tied_head(variables: dict[str, np.ndarray]) -> bool:
    """Return whether the output head is the embeddings, as in every released Whisper; fine-tunes may have another."""
    return variables.get(HEAD) is None or variables[HEAD] is variables["decoder/embeddings/weight"]


HEAD = "decoder/projection/weight"


def hugging_face_tensors(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the tensors of a WhisperForConditionalGeneration by name, fused projections taken apart."""
    tensors = {f"model.{target}": part for name, value in variables.items() for target, part in _targets(name, value)}
    return tensors if has_tied_head(variables) else {**tensors, "proj_out.weight": variables[HEAD]}


def _targets(name: str, value: np.ndarray):
    """Yield (Hugging Face name, tensor) for one variable; scalars that only configure yield nothing."""
    owner, _, leaf = name.rpartition("/")
    if owner in TOP_TENSOR_NAMES:
        yield f"{TOP_TENSOR_NAMES[owner]}.{LEAF_NAMES[leaf]}", value
    elif "/layer_" in name:
        side, layer, part = owner.split("/", 2)
        prefix = f"{side}.layers.{layer.removeprefix('layer_')}"
        if part in LAYER_TENSOR_NAMES:
            yield f"{prefix}.{LAYER_TENSOR_NAMES[part]}.{LEAF_NAMES[leaf]}", value
        elif part in FUSED_PROJECTIONS:
            projections = FUSED_PROJECTIONS[part]
            for projection, piece in zip(projections, np.split(value, len(projections)), strict=True):
                if not (leaf == "bias" and projection.endswith("k_proj")):  # Whisper's keys have no bias
                    yield f"{prefix}.{projection}.{leaf}", piece
