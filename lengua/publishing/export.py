"""The forms of a checkpoint that programs open: each writes its files into a folder.

hf        OUT/                      transformers 4 and 5, and all that converts from there
ct2       OUT/ctranslate2/          float16: faster-whisper, lengua, the Space
ct2-int8  OUT/ctranslate2-int8/     a quarter of hf: the same programs, where disk or download is dear
ggml      OUT/ggml-model.bin        float16: whisper.cpp
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from lengua.models.checkpoints import (
    NOTE_FILE,
    PROCESSOR_FILES,
    convert_to_ctranslate2,
    copy_processor,
    require_consistent_token_ids,
    require_whole_safetensors,
)
from lengua.models.formats.ggml import write_ggml
from lengua.models.pretrained import SOURCE_DIGEST_FILE
from lengua.runtime.errors import RequestError
from lengua.runtime.files import file_sha256, write_bytes

CT2_FOLDER, CT2_INT8_FOLDER, GGML_FILE = "ctranslate2", "ctranslate2-int8", "ggml-model.bin"
WEIGHTS_FILE = "model.safetensors"
REQUIRED_FILES = ("config.json", "generation_config.json", WEIGHTS_FILE)
OPTIONAL_FILES = ("added_tokens.json", "normalizer.json", NOTE_FILE)


def export_hugging_face(folder: Path, out: Path) -> None:
    """Write the full model folder: transformers.

    Only what a model folder consists of is copied: what else lies there (an optimizer, a log, a key) stays at home.

    Raises:
        RequestError: a file is missing or was copied in half.
        LenguaError: files that give one token two numbers.
    """
    require_exportable(folder)
    for name in (*REQUIRED_FILES, *(name for name in OPTIONAL_FILES if (folder / name).is_file())):
        shutil.copyfile(folder / name, out / name)
    copy_processor(folder, out)


def export_ctranslate2(folder: Path, out: Path, inside: str = CT2_FOLDER, quantization: str = "float16") -> None:
    """Convert, with the digest of the weights it came from and the note that says how to decode."""
    require_exportable(folder)
    with suppress(ImportError):  # without torch, converting says what to install
        from lengua.models.whisper import silence_transformers

        silence_transformers()
    out = out / inside
    convert_to_ctranslate2(folder, out, quantization)
    write_bytes(out / SOURCE_DIGEST_FILE, (file_sha256(folder / WEIGHTS_FILE) + "\n").encode())
    if (folder / NOTE_FILE).is_file():
        shutil.copyfile(folder / NOTE_FILE, out / NOTE_FILE)


def export_ggml(folder: Path, out: Path) -> None:
    """Convert to whisper.cpp's own file, float16."""
    require_exportable(folder)
    write_ggml(folder, out / GGML_FILE)


EXPORTERS: dict[str, Callable[[Path, Path], None]] = {
    "hf": export_hugging_face,
    "ct2": export_ctranslate2,
    "ct2-int8": partial(export_ctranslate2, inside=CT2_INT8_FOLDER, quantization="int8"),
    "ggml": export_ggml,
}
"""(model folder, folder to write into)."""


def require_exportable(folder: Path) -> None:
    """Refuse a model folder that was copied in half, or whose files contradict each other.

    Raises:
        RequestError: a file is missing, or the weights end early.
        LenguaError: one token has two numbers.
    """
    lacking = [name for name in REQUIRED_FILES if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in PROCESSOR_FILES if name.endswith("processor_config.json")):
        lacking.append("preprocessor_config.json")
    if lacking:
        do = "copy the folder again, or name the run it came from"
        raise RequestError("a whole model folder", f"no {', no '.join(lacking)} in {folder}", do)
    require_whole_safetensors(folder / WEIGHTS_FILE)
    require_consistent_token_ids(folder)
