"""What people really bring: checkpoints that differ from the released Whisper."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_whisper import small_clips, small_whisper

from lengua.audio import log_mel
from lengua.inference import Transcriber
from lengua.models.checkpoints import ctranslate2_folder
from lengua.models.formats.ctranslate2 import has_tied_head, read_variables
from lengua.models.formats.openai import load_openai_model
from lengua.runtime.errors import LenguaError
from lengua.runtime.files import read_json, write_json
from lengua.scoring import score


@pytest.fixture(scope="module")
def tied(tmp_path_factory) -> Path:
    return small_whisper(tmp_path_factory.mktemp("tied") / "model", width=128)  # onnxruntime wants a multiple


@pytest.fixture(scope="module")
def untied(tied, tmp_path_factory) -> Path:
    """The same model with an output head of its own: what the embeddings call one word it calls another."""
    folder = Path(
        shutil.copytree(tied, tmp_path_factory.mktemp("untied") / "model", ignore=shutil.ignore_patterns("ct*"))
    )
    weights = load_file(folder / "model.safetensors")
    head = weights["model.decoder.embed_tokens.weight"].clone()
    words = torch.arange(256, 1000)  # those that it says among them
    head[words] = head[words.roll(1)]
    save_file(weights | {"proj_out.weight": head.contiguous()}, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", read_json(folder / "config.json") | {"tie_word_embeddings": False})
    return folder


def texts(folder: Path, engine: str, **more) -> list[str]:
    mels = [log_mel.log_mel(samples, 80) for samples in small_clips(3)]
    return [one.text for one in Transcriber(str(folder), "es", engine, **more).decode(mels, None)]


def test_every_engine_takes_the_output_head_that_is_there(tied, untied):
    found, of_embeddings = texts(untied, "torch"), texts(tied, "torch")
    assert score(of_embeddings, found).wer > 0.8, "or the head makes no difference"
    assert texts(untied, "ctranslate2", compute_type="float32") == found
    for engine in ("ctranslate2", "onnxruntime"):  # in 8 bits
        assert score(found, texts(untied, engine)).wer < 0.3
    for folder, is_tied in ((tied, True), (untied, False)):
        assert has_tied_head(read_variables(ctranslate2_folder(folder) / "model.bin")) is is_tied


def test_openai_whisper_has_no_head_of_its_own(untied):
    pytest.importorskip("whisper")
    with pytest.raises(LenguaError, match="output head"):
        load_openai_model(untied)
