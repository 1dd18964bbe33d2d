"""transformers 4, where most users are: an export opens there, by the files that it reads, and says the same words."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from doc_pages import module
from small_whisper import small_clips, small_whisper

from lengua.models.checkpoints import load_tokenizer
from lengua.publishing import programs, runtimes
from lengua.publishing.export import EXPORTERS
from lengua.runtime.errors import LenguaError

pytestmark = [pytest.mark.slow, pytest.mark.real]
LOADED = """
import json, sys
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor, __version__
model, told = AutoModelForSpeechSeq2Seq.from_pretrained(sys.argv[1], output_loading_info=True)
processor = AutoProcessor.from_pretrained(sys.argv[1])
tokens = processor.tokenizer(" Mañana, ¿qué tal?").input_ids
print(json.dumps({
    "version": __version__, "lost": [*told["missing_keys"], *told["unexpected_keys"]], "tokens": tokens,
    "language": model.generation_config.language, "forced": model.generation_config.forced_decoder_ids,
    "mels": processor.feature_extractor.feature_size, "pad": processor.tokenizer.pad_token_id,
}))
"""


@pytest.fixture(scope="module")
def older() -> Path:
    """The folder of transformers 4."""
    try:
        return module("parity").transformers_4()
    except LenguaError as error:
        pytest.skip(f"needs transformers 4 from a package mirror: {error}")


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    small_whisper(folder / "model")
    (folder / "out").mkdir()
    EXPORTERS["hf"](folder / "model", folder / "out")
    return folder / "out"


def test_an_export_loads_whole(older, exported):
    assert "torch" not in {path.name for path in older.iterdir()}, "torch is not fetched again"
    command = [sys.executable, "-P", "-c", LOADED, exported]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(older)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["version"].startswith("4.") and told["lost"] == [] and told["forced"] is None
    assert (told["language"], told["mels"], told["pad"]) == ("es", 80, 50257)
    words = load_tokenizer(exported).encode(" Mañana, ¿qué tal?", add_special_tokens=False).ids
    assert told["tokens"][-len(words) - 1 :] == [*words, 50257] and told["tokens"][0] == 50258


def test_an_export_says_what_it_says_in_transformers_5(older, exported):
    clips = small_clips()
    newer = runtimes.REFERENCE_RUNTIME.hear(exported, clips, "es")
    output = module("parity").transcribe_by_transformers_4(exported, clips)
    assert output.texts == newer.texts and len(set(output.texts)) > 1
    assert output.program.startswith("transformers 4.") and newer.program.startswith("transformers 5.")


def test_the_real_base_says_the_same_in_both(older, base_model, spoken_es, tmp_path):
    from lengua import audio

    EXPORTERS["hf"](base_model, tmp_path)
    clips = [audio.load(path) for path in list(spoken_es)[:5]]
    found = runtimes.run_in_subprocess("transformers", tmp_path, clips, "es", older)
    assert found["texts"] == programs.transcribe_clips(programs.open_transformers(str(tmp_path), "es"), clips)["texts"]
    assert all(found["texts"])
