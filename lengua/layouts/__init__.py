"""One Whisper, several layouts: Hugging Face's folder, CTranslate2's model.bin, the names of OpenAI's own program."""

from lengua.layouts.ctranslate2 import ctranslate2_vocabulary, hugging_face_tensors, read_variables
from lengua.layouts.hugging_face import (
    END,
    TIMESTAMPS,
    for_transformers_4,
    generation_config,
    model_config,
    write_model_folder,
    write_tokenizer,
    write_vocabulary,
)
from lengua.layouts.openai import renamed

__all__ = [
    "END",
    "TIMESTAMPS",
    "ctranslate2_vocabulary",
    "for_transformers_4",
    "generation_config",
    "hugging_face_tensors",
    "model_config",
    "read_variables",
    "renamed",
    "write_model_folder",
    "write_tokenizer",
    "write_vocabulary",
]
