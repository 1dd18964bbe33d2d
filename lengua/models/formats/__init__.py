"""File formats of one Whisper: Hugging Face's folder, CTranslate2's model.bin, ONNX, ggml, OpenAI's names."""

from lengua.models.formats.ctranslate2 import ctranslate2_vocabulary, hugging_face_tensors, read_variables
from lengua.models.formats.hugging_face import (
    END_ID,
    TIMESTAMP_TOKENS,
    for_transformers_4,
    generation_config,
    model_config,
    write_model_folder,
    write_tokenizer,
    write_vocabulary,
)
from lengua.models.formats.openai import openai_tensor_name

__all__ = [
    "END_ID",
    "TIMESTAMP_TOKENS",
    "ctranslate2_vocabulary",
    "for_transformers_4",
    "generation_config",
    "hugging_face_tensors",
    "model_config",
    "openai_tensor_name",
    "read_variables",
    "write_model_folder",
    "write_tokenizer",
    "write_vocabulary",
]
