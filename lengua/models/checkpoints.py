"""Model folders: finding, checking and saving one that every program can open, and CTranslate2's form beside it.

A model folder is a plain Hugging Face Whisper folder. Beside its weights stands `lengua.json`, which says how it was
trained (window, margin, language); programs that do not know it lose nothing.
"""

import hashlib
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from lengua.models import pretrained
from lengua.models.formats.ctranslate2 import ctranslate2_vocabulary
from lengua.models.formats.hugging_face import for_transformers_4, write_vocabulary
from lengua.models.languages import language_code
from lengua.options import BASE_MODEL
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import cache_dir, file_sha256, read_json, replacing, write_json

NOTE_FILE = "lengua.json"
PROCESSOR_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
)


@dataclass(frozen=True)
class ModelNote:
    """What `lengua.json` says of a checkpoint."""

    base: str = BASE_MODEL
    language: str | None = None
    window: str = "padded"
    """adaptive: trained on speech and a margin. padded: good only with 30 s, as every untouched Whisper is."""
    margin_s: tuple[float, float] = (0.0, 0.0)
    attribution: str = ""
    """Whom to name for the speech it learned from."""

    @property
    def decode_margin_s(self) -> float | None:
        """Margin to decode with: the middle of what training drew; None means pad to 30 s."""
        return round(sum(self.margin_s) / 2, 2) if self.window == "adaptive" else None


def read_note(folder: Path) -> ModelNote:
    """Return what a model folder says of its training; an untouched Whisper says nothing and is padded."""
    path = Path(folder) / NOTE_FILE
    if not path.is_file():
        return ModelNote()
    known = {field.name for field in fields(ModelNote)}
    note = ModelNote(**{name: value for name, value in read_json(path).items() if name in known})
    return replace(note, margin_s=tuple(note.margin_s))


def default_model(runs: Path = Path("runs")) -> str:
    """Return $LENGUA_MODEL, else the newest finished run, else the base model."""
    if os.environ.get("LENGUA_MODEL"):
        return os.environ["LENGUA_MODEL"]
    finished = list(runs.glob("*/model/config.json"))
    newest = max(finished, key=lambda path: path.stat().st_mtime, default=None)
    return str(newest.parent.parent) if newest else BASE_MODEL


def find_model(name: str) -> tuple[Path, str]:
    """Return (folder, where it came from) for a run, a model folder or a Hub id.

    Raises:
        RequestError: a folder without a model in it.
        LenguaError: a Hub id that neither the cache nor the Hub nor a data package has.
    """
    path = Path(name)
    for folder in (path / "model", path):
        if (folder / "config.json").is_file():
            return folder, f"folder {folder}"
    if path.exists() or name.startswith((".", "/", "~", "runs/")) or name.count("/") != 1:
        found = f"{path} without a config.json" if path.exists() else f"nothing at {name}"
        raise RequestError("a run, a model folder or a Hub id such as owner/name", found, "check the name")
    return pretrained.fetch_pretrained(name)


def read_window_frames(folder: Path) -> int:
    """Return the frames of the model's full window: 3000 for every released Whisper."""
    path = folder / "config.json"
    return 2 * read_json(path).get("max_source_positions", 1500) if path.is_file() else 3000


def load_tokenizer(folder: Path):
    """Return the tokenizer of a model folder as `tokenizers.Tokenizer`, which needs neither torch nor transformers."""
    from tokenizers import Tokenizer

    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise RequestError("a tokenizer.json in the model folder", f"none in {folder}", "copy it from the base model")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True  # that is, as letters: a text with "<|endoftext|>" in it has no second end
    return tokenizer


GENERATION_TOKEN_NAMES = {
    "decoder_start_token_id": "<|startoftranscript|>",
    "eos_token_id": "<|endoftext|>",
    "no_timestamps_token_id": "<|notimestamps|>",
    "prev_sot_token_id": "<|startofprev|>",
}


def require_tokenizer(folder: Path, start: int) -> None:
    """Refuse a model folder with a tokenizer of another model: its tokens would mean something else.

    Args:
        start: the tokenizer's number of <|startoftranscript|>.

    Raises:
        RequestError: the model begins with another token.
    """
    path = folder / "config.json"
    expected = read_json(path).get("decoder_start_token_id", start) if path.is_file() else start
    if expected != start:
        wanted = f"a tokenizer whose <|startoftranscript|> is decoder_start_token_id, {expected}"
        raise RequestError(wanted, f"{start} in {folder}", "copy tokenizer.json from the base model")


def require_consistent_token_ids(folder: Path, language: str | None = None) -> None:
    """Refuse a model folder whose files give one token two numbers, or that forgot its language.

    transformers takes the language's id from generation_config.json, faster-whisper from tokenizer.json, and
    whisper.cpp counts it: where they disagree, a checkpoint works in one program and produces nonsense in another.

    Args:
        language: that generation_config.json has to force; None: it may leave it open.

    Raises:
        RequestError: a file is missing.
        LenguaError: two numbers, or another language; the message names the token.
    """
    tokenizer = load_tokenizer(folder)
    path = folder / "generation_config.json"
    if not path.is_file():
        raise RequestError(f"a {path.name} in the model folder", f"none in {folder}", "copy it from the base model")
    config, start = read_json(path), read_json(folder / "config.json").get("decoder_start_token_id")
    numbers = [(path.name, name, config.get(key)) for key, name in GENERATION_TOKEN_NAMES.items()]
    numbers += [(path.name, name, number) for name, number in (config.get("lang_to_id") or {}).items()]
    numbers += [(path.name, f"<|{task}|>", number) for task, number in (config.get("task_to_id") or {}).items()]
    for place, name, number in [*numbers, ("config.json", "<|startoftranscript|>", start)]:
        if number is not None and tokenizer.token_to_id(name) != number:
            expected = f"{name} to be {number} in tokenizer.json, as in {place}"
            raise LenguaError(expected, f"{tokenizer.token_to_id(name)}", "copy both files from the base model")
    if language and (forced := forced_language(config)) != language:
        do = f'write "language": "{language}", "task": "transcribe" into it'
        raise LenguaError(f"a generation_config.json that forces {language}", forced or "none", do)


def forced_language(generation_config: dict) -> str | None:
    """Return the code of the language that transformers will decode in, where nobody names another."""
    language = generation_config.get("language")
    return language_code(language.strip("<|>")) if language else None


def require_whole_safetensors(weights: Path) -> None:
    """Refuse a safetensors file that is shorter, or longer, than its own header says.

    Raises:
        RequestError: it is cut off, or is no such file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, "np"):  # reads the header, and holds the length of the file against it
            pass
    except SafetensorError as error:
        found = f"{weights} cut off or no such file ({error})"
        raise RequestError(f"a whole {weights.name}", found, "copy it again") from error


def save_model(model, processor_folder: Path, out: Path, note: ModelNote) -> None:
    """Write the full model folder at once: weights, configurations, tokenizer, both processor files, the note.

    Args:
        model: a WhisperForConditionalGeneration; its generation_config is completed with language and task.
        processor_folder: the model folder whose tokenizer and feature extractor go along.
        out: replaced as a whole, so that it is never half new.
    """
    if note.language:
        model.generation_config.language = note.language
        model.generation_config.task = "transcribe"
    model.generation_config.forced_decoder_ids = None
    with replacing(out) as fresh:
        model.save_pretrained(fresh)
        copy_processor(processor_folder, fresh)
        write_json(fresh / NOTE_FILE, asdict(note))


def copy_processor(source: Path, out: Path) -> None:
    """Copy the tokenizer and feature extractor; write whatever of their files is missing, from the others.

    transformers 5 writes neither preprocessor_config.json nor vocab.json, and a tokenizer_config.json that
    transformers 4 cannot read; so what is there is copied and never saved anew, and that one file is put right.
    """
    for name in PROCESSOR_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    if not (out / "tokenizer.json").is_file():
        from transformers import WhisperProcessor

        WhisperProcessor.from_pretrained(source).tokenizer.save_pretrained(out)
    if (settings := out / "tokenizer_config.json").is_file():
        write_json(settings, for_transformers_4(read_json(settings)))
    tokenizer = read_json(out / "tokenizer.json")
    if not all((out / name).is_file() for name in ("vocab.json", "merges.txt")):
        write_vocabulary(tokenizer, out)
    older, newer = out / "preprocessor_config.json", out / "processor_config.json"
    if older.is_file() and not newer.is_file():
        write_json(newer, {"feature_extractor": read_json(older), "processor_class": "WhisperProcessor"})
    elif newer.is_file() and not older.is_file():
        write_json(older, {**read_json(newer)["feature_extractor"], "processor_class": "WhisperProcessor"})
    elif not older.is_file():
        found = f"neither in {source}"
        raise RequestError(f"{older.name} or {newer.name}", found, "copy one from the base model")


def ctranslate2_folder(folder: Path) -> Path:
    """Return the CTranslate2 form of a model folder, converting it once (needs torch for that).

    It is kept in `ctranslate2/` inside the folder, or in the cache where that cannot be written, with the digest of
    the weights it came from, so that new weights are never answered by an old conversion.
    """
    if (folder / "model.bin").is_file():
        return folder
    inside = folder / "ctranslate2"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        for converted in (inside, folder / "ctranslate2-int8"):
            if (converted / "model.bin").is_file():
                return converted
        raise RequestError("model.safetensors or ctranslate2/model.bin", f"neither in {folder}", "name a model folder")
    digest = _cached_sha256(weights)
    kept = inside if os.access(folder, os.W_OK) else cache_dir() / "ctranslate2" / digest[:16]
    stamp = kept / pretrained.SOURCE_DIGEST_FILE
    if not (stamp.is_file() and stamp.read_text().strip() == digest):
        convert_to_ctranslate2(folder, kept)
        stamp.write_text(digest + "\n")
    return kept


def _cached_sha256(weights: Path) -> str:
    """Return the digest of weights, remembered in the cache for as long as size, time and place on the disk are equal.

    It is how git knows without reading that a file is the same; half a second for each opening of a model.
    """
    stat = weights.stat()
    looks = [str(weights.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino]
    kept = cache_dir() / "digests" / f"{hashlib.sha256(looks[0].encode()).hexdigest()[:16]}.json"
    with suppress(OSError, LenguaError):
        if (known := read_json(kept))["looks"] == looks:
            return known["digest"]
    digest = file_sha256(weights)
    with suppress(OSError):  # a cache that cannot be written: digested again next time
        write_json(kept, {"looks": looks, "digest": digest})
    return digest


def convert_to_ctranslate2(folder: Path, out: Path, quantization: str = "float16") -> None:
    """Convert by CTranslate2's own converter into a folder that faster-whisper opens too.

    float16 is what the original release was kept in; int8 is made from it when the model is loaded. Only suppressed
    tokens that the vocabulary has are kept: for others CTranslate2 writes beside its memory. Without a
    generation_config.json transformers names those of a vocabulary of 51,865, whatever the model's is.
    """
    try:
        from ctranslate2.converters import TransformersConverter

        with replacing(out) as fresh, tempfile.TemporaryDirectory() as scratch:
            TransformersConverter(str(folder)).convert(str(fresh), quantization=quantization, force=True)
            config, size = read_json(fresh / "config.json"), len(ctranslate2_vocabulary(fresh))
            for name in ("suppress_ids", "suppress_ids_begin"):
                config[name] = [token for token in config.get(name) or [] if 0 <= token < size]
            write_json(fresh / "config.json", config)
            copy_processor(folder, Path(scratch))
            for name in ("tokenizer.json", "preprocessor_config.json"):
                shutil.copyfile(Path(scratch) / name, fresh / name)
    except (ImportError, NameError) as error:  # the converter imports torch where it can and goes on where it cannot
        raise LenguaError(
            "a model in CTranslate2 form, or torch and transformers to make one",
            f"only safetensors in {folder}, and {error}",
            "install lengua[train], or publish the model with --formats hf ct2",
        ) from error
