"""checkpoints: folders that every program opens, notes that stay, conversions that are never stale."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import BASE, ROOT

from lengua.models import checkpoints
from lengua.models.checkpoints import ModelNote, ctranslate2_folder, default_model, find_model, read_note, save_model
from lengua.models.formats.hugging_face import TIMESTAMP_TOKENS
from lengua.runtime.errors import RequestError
from lengua.runtime.files import file_sha256, read_json, write_json

FULL = {
    "model.safetensors", "config.json", "generation_config.json", "lengua.json",
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt",
    "preprocessor_config.json", "processor_config.json",
}  # fmt: skip
ADAPTIVE = ModelNote("openai/whisper-base", "es", "adaptive", (0.3, 1.5))
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from pathlib import Path
from lengua.models.checkpoints import ctranslate2_folder
from lengua.runtime.errors import LenguaError
for folder in sys.argv[1:]:
    try:
        print(ctranslate2_folder(Path(folder)))
    except LenguaError as error:
        print(error)
"""


@pytest.fixture
def adaptive(tiny_model):
    """The tiny model as training holds it."""
    from lengua.models.whisper import load_model

    return load_model(tiny_model, "es")


@pytest.fixture
def copy(tiny_model, tmp_path):
    """A copy of the tiny model folder that a test may change."""
    return shutil.copytree(tiny_model, tmp_path / "copy", ignore=shutil.ignore_patterns("ctranslate2"))


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_everything_a_program_may_look_for_is_written(adaptive, tiny_model, tmp_path):
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    (tmp_path / "model/ctranslate2").mkdir(parents=True)  # of an older model
    save_model(adaptive, tiny_model, tmp_path / "model", ADAPTIVE)
    assert names(tmp_path / "model") == FULL
    assert read_json(tmp_path / "model/config.json")["architectures"] == ["WhisperForConditionalGeneration"]
    assert read_json(tmp_path / "model/config.json")["max_source_positions"] == 50
    generation = read_json(tmp_path / "model/generation_config.json")
    assert generation["language"] == "es" and generation["task"] == "transcribe"
    assert not generation.get("forced_decoder_ids") and generation["alignment_heads"] == [[0, 0], [0, 1]]
    model, info = WhisperForConditionalGeneration.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    for name, tensor in adaptive.state_dict().items():
        assert tensor.equal(model.state_dict()[name]), name
    processor = WhisperProcessor.from_pretrained(tmp_path / "model")
    assert processor.tokenizer.pad_token == "<|endoftext|>" and processor.feature_extractor.nb_max_frames == 100
    tokenizer = checkpoints.load_tokenizer(tmp_path / "model")
    assert None not in map(tokenizer.token_to_id, TIMESTAMP_TOKENS) and len(TIMESTAMP_TOKENS) == 1501


def test_tokenizer_files_go_along_byte_for_byte(adaptive, tiny_model, tmp_path):
    """Saved anew by transformers 5, tokenizer_config.json could not be read by transformers 4."""
    save_model(adaptive, tiny_model, tmp_path / "model", ADAPTIVE)
    kept = [name for name in FULL if "token" in name or "processor" in name or name in ("vocab.json", "merges.txt")]
    assert len(kept) == 6
    assert all(file_sha256(tmp_path / "model" / name) == file_sha256(tiny_model / name) for name in kept)


@pytest.mark.parametrize("missing", ["preprocessor_config.json vocab.json merges.txt", "processor_config.json"])
def test_files_that_one_version_of_transformers_does_not_write_are_added(missing, adaptive, copy, tiny_model, tmp_path):
    for name in missing.split():
        (copy / name).unlink()
    save_model(adaptive, copy, tmp_path / "model", ADAPTIVE)
    assert names(tmp_path / "model") == FULL
    for name in ("vocab.json", "merges.txt"):
        assert read(tmp_path / "model" / name) == read(tiny_model / name)
    older = read_json(tmp_path / "model/preprocessor_config.json")
    newer = read_json(tmp_path / "model/processor_config.json")
    assert older.items() >= newer["feature_extractor"].items() and older["nb_max_frames"] == 100


def read(path):
    return read_json(path) if path.suffix == ".json" else path.read_text("utf-8")


def test_a_source_without_any_processor_file_is_refused_and_the_old_model_stays(adaptive, copy, tmp_path):
    (copy / "processor_config.json").unlink()
    (copy / "preprocessor_config.json").unlink()
    (tmp_path / "model").mkdir()
    (tmp_path / "model/old").touch()
    with pytest.raises(RequestError, match=r"preprocessor_config\.json"):
        save_model(adaptive, copy, tmp_path / "model", ADAPTIVE)
    assert names(tmp_path / "model") == {"old"} and names(tmp_path) == {"copy", "model"}


def test_a_note_comes_back(adaptive, tiny_model, tmp_path):
    save_model(adaptive, tiny_model, tmp_path / "model", ADAPTIVE)
    assert read_note(tmp_path / "model") == ADAPTIVE
    assert read_note(tmp_path / "model").decode_margin_s == 0.9
    assert read_note(tiny_model) == ModelNote() and ModelNote().decode_margin_s is None
    assert ModelNote(window="padded", margin_s=(0.3, 1.5)).decode_margin_s is None
    write_json(tmp_path / "model/lengua.json", {"window": "adaptive", "margin_s": [0.2, 0.2], "of_a_later_version": 1})
    assert read_note(tmp_path / "model") == ModelNote(window="adaptive", margin_s=(0.2, 0.2))
    assert read_note(tmp_path / "model").decode_margin_s == 0.2


# CTranslate2


def variable(folder, name="decoder/layer_0/ffn/linear_0/weight") -> np.ndarray:
    from lengua.models.formats.ctranslate2 import read_variables

    return read_variables(folder / "model.bin")[name]


def test_a_conversion_is_kept_until_the_weights_change(copy):
    from safetensors.numpy import load_file, save_file

    converted = ctranslate2_folder(copy)
    assert converted == copy / "ctranslate2"
    assert {"model.bin", "config.json", "tokenizer.json", "preprocessor_config.json"} <= names(converted)
    made = (converted / "model.bin").stat().st_mtime_ns
    assert ctranslate2_folder(copy) == converted and (converted / "model.bin").stat().st_mtime_ns == made

    weights = load_file(copy / "model.safetensors")
    name = "model.decoder.layers.0.fc1.weight"
    weights[name] = weights[name] + 1
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    before = variable(converted)
    np.testing.assert_allclose(variable(ctranslate2_folder(copy)), before + 1, atol=2e-3)


def test_a_folder_that_cannot_be_written_is_converted_in_the_cache(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("LENGUA_CACHE", str(tmp_path / "cache"))
    copy.chmod(0o555)
    if os.access(copy, os.W_OK):  # root may write everywhere; here it is told that it may not
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    converted = ctranslate2_folder(copy)
    assert converted.parent == tmp_path / "cache/ctranslate2" and (converted / "model.bin").is_file()
    assert "ctranslate2" not in names(copy)
    assert ctranslate2_folder(copy) == converted


def test_what_stands_converted_is_taken_as_it_is(copy, tmp_path):
    converted = ctranslate2_folder(copy)
    assert ctranslate2_folder(converted) == converted
    (copy / "model.safetensors").unlink()
    assert ctranslate2_folder(copy) == converted
    shutil.rmtree(converted)
    with pytest.raises(RequestError, match=r"model\.safetensors"):
        ctranslate2_folder(copy)


def test_without_torch_a_conversion_is_used_and_the_lack_of_one_is_told(copy, tiny_model, tmp_path):
    """The Space has no torch."""
    bare = shutil.copytree(tiny_model, tmp_path / "bare", ignore=shutil.ignore_patterns("ctranslate2"))
    ctranslate2_folder(copy)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, copy, bare],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    used, told = done.stdout.splitlines()
    assert used == str(copy / "ctranslate2")
    assert told.startswith("expected a model in CTranslate2 form, or torch and transformers to make one")


# Naming a model


@pytest.fixture
def runs(tmp_path, tiny_model):
    """Two finished runs and one under way."""
    for age, run in enumerate(("old", "new")):
        shutil.copytree(tiny_model, tmp_path / "runs" / run / "model")
        os.utime(tmp_path / "runs" / run / "model/config.json", (1000 + age, 1000 + age))
    (tmp_path / "runs/under-way/checkpoints").mkdir(parents=True)
    return tmp_path / "runs"


def test_the_default_is_the_environment_then_the_newest_run_then_the_base(runs, tmp_path, monkeypatch):
    monkeypatch.delenv("LENGUA_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    assert default_model() == "runs/new"
    os.utime(runs / "old/model/config.json", (2000, 2000))
    assert default_model() == "runs/old"
    assert default_model(tmp_path / "none") == BASE
    monkeypatch.setenv("LENGUA_MODEL", "somebody/whisper-other")
    assert default_model() == "somebody/whisper-other"
    monkeypatch.setenv("LENGUA_MODEL", "")
    assert default_model() == "runs/old"


def test_a_run_and_a_model_folder_name_the_same_model(runs):
    folder = runs / "new/model"
    assert find_model(str(runs / "new")) == (folder, f"folder {folder}") == find_model(str(folder))


def test_names_that_are_no_model_are_refused(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner/name").mkdir(parents=True)
    without_config = ["runs/under-way", str(tmp_path), "owner/name", "."]
    nothing = ["runs/missing", "./missing", "/missing/model", "~/missing", "whisper-base", "a/b/c", "missing"]
    for name in without_config + nothing:
        with pytest.raises(RequestError) as caught:
            find_model(name)
        assert caught.value.exit_code == 2
        assert ("without a config.json" if name in without_config else f"nothing at {name}") in caught.value.found


def test_the_window_is_read_off_the_config(tiny_model, tmp_path):
    assert checkpoints.read_window_frames(tiny_model) == 100
    assert checkpoints.read_window_frames(tmp_path) == 3000
    (tmp_path / "config.json").write_text(json.dumps({"lang_ids": []}), encoding="utf-8")  # CTranslate2's own
    assert checkpoints.read_window_frames(tmp_path) == 3000


def test_a_model_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(RequestError, match=r"tokenizer\.json"):
        checkpoints.load_tokenizer(tmp_path)
