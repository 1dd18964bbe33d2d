"""The forms of a checkpoint that programs open: each writes its files into a folder.

hf        OUT/                      transformers 4 and 5, and all that converts from there
ct2       OUT/ctranslate2/          float16: faster-whisper, lengua, the Space
ct2-int8  OUT/ctranslate2-int8/     a quarter of hf: the same programs, where disk or download is dear
ggml      OUT/ggml-model.bin        float16: whisper.cpp
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lengua.base_weights import STAMP
from lengua.checkpoints import NOTE, PROCESSOR_FILES, convert_to_ctranslate2, copy_processor
from lengua.errors import RequestError
from lengua.files import digest_of, write_bytes
from lengua.publishing.ggml import write_ggml
from lengua.publishing.token_ids import require_agreement

CT2, CT2_INT8, GGML = "ctranslate2", "ctranslate2-int8", "ggml-model.bin"
WEIGHTS = "model.safetensors"
REQUIRED = ("config.json", "generation_config.json", WEIGHTS)
OPTIONAL = ("added_tokens.json", "normalizer.json", NOTE)


def plain(folder: Path, out: Path) -> None:
    """Write the full model folder: transformers.

    Only what a model folder consists of is copied: what else lies there (an optimizer, a log, a key) stays at home.

    Raises:
        RequestError: a file is missing or was copied in half.
        LenguaError: files that give one token two numbers.
    """
    require_whole(folder)
    for name in (*REQUIRED, *(name for name in OPTIONAL if (folder / name).is_file())):
        shutil.copyfile(folder / name, out / name)
    copy_processor(folder, out)


def ctranslate2(folder: Path, out: Path) -> None:
    """Convert to float16: faster-whisper, the Space."""
    _convert(folder, out / CT2, "float16")


def ctranslate2_int8(folder: Path, out: Path) -> None:
    """Convert to int8: the same programs, half the size."""
    _convert(folder, out / CT2_INT8, "int8")


def ggml(folder: Path, out: Path) -> None:
    """Convert to whisper.cpp's own file, float16."""
    require_whole(folder)
    write_ggml(folder, out / GGML)


FORMATS: dict[str, Callable[[Path, Path], None]] = {
    "hf": plain,
    "ct2": ctranslate2,
    "ct2-int8": ctranslate2_int8,
    "ggml": ggml,
}
"""(model folder, folder to write into)."""


def _convert(folder: Path, out: Path, quantization: str) -> None:
    """Convert, with the digest of the weights it came from and the note that says how to decode."""
    require_whole(folder)
    with suppress(ImportError):  # without torch, converting says what to install
        from lengua.model import quieten

        quieten()
    convert_to_ctranslate2(folder, out, quantization)
    write_bytes(out / STAMP, (digest_of(folder / WEIGHTS) + "\n").encode())
    if (folder / NOTE).is_file():
        shutil.copyfile(folder / NOTE, out / NOTE)


def require_whole(folder: Path) -> None:
    """Refuse a model folder that was copied in half, or whose files contradict each other.

    Raises:
        RequestError: a file is missing, or the weights end early.
        LenguaError: one token has two numbers.
    """
    from safetensors import SafetensorError, safe_open

    lacking = [name for name in REQUIRED if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in PROCESSOR_FILES if name.endswith("processor_config.json")):
        lacking.append("preprocessor_config.json")
    if lacking:
        do = "copy the folder again, or name the run it came from"
        raise RequestError("a whole model folder", f"no {', no '.join(lacking)} in {folder}", do)
    try:
        with safe_open(folder / WEIGHTS, "np"):  # reads the header, and holds the length of the file against it
            pass
    except SafetensorError as error:
        found = f"{folder / WEIGHTS} cut off or no such file ({error})"
        raise RequestError("whole weights", found, "copy the folder again") from error
    require_agreement(folder)
