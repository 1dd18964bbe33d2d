"""The forms of a checkpoint: whole or refused, nothing that is not a model's, opened by the programs they are for."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from small_whisper import small_clips, small_whisper

from lengua.models.checkpoints import ModelNote, ctranslate2_folder, read_note
from lengua.publishing.export import CT2_FOLDER, CT2_INT8_FOLDER, EXPORTERS, GGML_FILE
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import read_json, replacing, write_json

FULL = """config.json generation_config.json lengua.json merges.txt model.safetensors preprocessor_config.json
    processor_config.json tokenizer.json tokenizer_config.json vocab.json""".split()
RACING = """
import sys
from pathlib import Path
from lengua.runtime.files import replacing
out, name = Path(sys.argv[1]), sys.argv[2]
for turn in range(60):
    with replacing(out) as fresh:
        (fresh / "inside").mkdir()
        for number in range(20):
            (fresh / "inside" / str(number)).write_text(name)
"""


@pytest.fixture(scope="module")
def small_model(tmp_path_factory) -> Path:
    return small_whisper(tmp_path_factory.mktemp("small") / "model")


@pytest.fixture
def copy(small_model, tmp_path) -> Path:
    return Path(shutil.copytree(small_model, tmp_path / "copy"))


@pytest.fixture
def out(tmp_path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_format_of_the_options_can_be_written():
    from typing import get_args, get_type_hints

    from lengua.options import PublishOptions

    choices = get_args(get_args(get_type_hints(PublishOptions)["formats"])[0])
    assert set(choices) == set(EXPORTERS) and len(EXPORTERS) == 4


def test_the_model_folder_goes_out_and_nothing_else(copy, out):
    for name in ("optimizer.pt", "trainer_state.json", "training_args.bin", ".env", "notas.txt", "rng_state.pth"):
        (copy / name).write_text("mine")
    for folder in ("checkpoint-100", "ctranslate2", ".git"):
        (copy / folder).mkdir()
    EXPORTERS["hf"](copy, out)
    assert names(out) == FULL
    assert (out / "model.safetensors").read_bytes() == (copy / "model.safetensors").read_bytes()


@pytest.mark.parametrize("kept", ["preprocessor_config.json", "processor_config.json"])
def test_the_processor_is_completed(kept, copy, out):
    """transformers 5 writes processor_config.json alone, and no vocab.json."""
    for name in {"preprocessor_config.json", "processor_config.json", "vocab.json", "merges.txt"} - {kept}:
        (copy / name).unlink()
    EXPORTERS["hf"](copy, out)
    EXPORTERS["ct2"](copy, out)
    assert names(out) == sorted([*FULL, CT2_FOLDER])
    assert read_json(out / "preprocessor_config.json")["feature_size"] == 80
    assert read_json(out / CT2_FOLDER / "preprocessor_config.json")["feature_size"] == 80


def test_special_tokens_are_named_as_transformers_4_reads_them(copy, out):
    told = read_json(copy / "tokenizer_config.json")
    tokens = told.pop("additional_special_tokens")
    write_json(copy / "tokenizer_config.json", told | {"extra_special_tokens": tokens})
    EXPORTERS["hf"](copy, out)
    told = read_json(out / "tokenizer_config.json")
    assert "extra_special_tokens" not in told and told["additional_special_tokens"] == tokens and len(tokens) > 100


@pytest.mark.parametrize("format", EXPORTERS)
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_without_a_file_is_refused(name, format, copy, out):
    (copy / name).unlink()
    with pytest.raises(RequestError, match=name.replace(".", r"\.")):
        EXPORTERS[format](copy, out)
    assert names(out) == []


@pytest.mark.parametrize("format", EXPORTERS)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_weights_that_were_copied_in_half_are_refused(share, format, copy, out):
    path = copy / "model.safetensors"
    os.truncate(path, int(share * path.stat().st_size))
    with pytest.raises(RequestError, match=r"expected whole weights; found .*model\.safetensors"):
        EXPORTERS[format](copy, out)
    assert names(out) == []


def test_json_that_was_copied_in_half_is_refused(copy, out):
    path = copy / "generation_config.json"
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(RequestError, match=r"expected JSON in .*generation_config\.json"):
        EXPORTERS["hf"](copy, out)


def test_a_token_with_two_numbers_is_refused(copy, out):
    told = read_json(copy / "generation_config.json")
    told["lang_to_id"]["<|es|>"] += 1
    write_json(copy / "generation_config.json", told)
    with pytest.raises(LenguaError, match=r"expected <\|es\|> to be 50263 in tokenizer.json.*; found 50262"):
        EXPORTERS["hf"](copy, out)


@pytest.mark.parametrize(("format", "inside"), [("ct2", CT2_FOLDER), ("ct2-int8", CT2_INT8_FOLDER)])
def test_faster_whisper_and_lengua_open_a_conversion_by_itself(format, inside, small_model, out):
    from faster_whisper import WhisperModel

    from lengua.audio import log_mel
    from lengua.inference import Transcriber

    EXPORTERS[format](small_model, out)
    samples = small_clips()[1]
    model = WhisperModel(str(out / inside), device="cpu", compute_type="int8")
    segments, _ = model.transcribe(samples, language="es", beam_size=1, temperature=0.0, without_timestamps=True)
    said = " ".join(segment.text.strip() for segment in segments)
    transcriber = Transcriber(str(out / inside), "es")
    assert transcriber.decode([log_mel.log_mel(samples)], None)[0].text == said != ""
    assert read_note(out / inside) == ModelNote(language="es")


def test_int8_takes_half_of_float16_and_both_say_what_they_came_from(small_model, out):
    for format in ("hf", "ct2", "ct2-int8"):
        EXPORTERS[format](small_model, out)
    sizes = [(out / inside / "model.bin").stat().st_size for inside in (CT2_FOLDER, CT2_INT8_FOLDER)]
    assert 0.5 < sizes[1] / sizes[0] < 0.7  # narrow as it is, its scales weigh
    made = (out / CT2_FOLDER / "model.bin").stat().st_mtime_ns
    assert ctranslate2_folder(out) == out / CT2_FOLDER and (out / CT2_FOLDER / "model.bin").stat().st_mtime_ns == made
    assert (out / CT2_INT8_FOLDER / "source.sha256").read_text() == (out / CT2_FOLDER / "source.sha256").read_text()


@pytest.mark.parametrize(("format", "inside"), [("ct2", CT2_FOLDER), ("ct2-int8", CT2_INT8_FOLDER)])
def test_a_folder_with_a_conversion_alone_is_a_model(format, inside, small_model, out):
    EXPORTERS[format](small_model, out)
    assert ctranslate2_folder(out) == out / inside


def test_ggml_is_one_file(small_model, out):
    EXPORTERS["ggml"](small_model, out)
    assert names(out) == [GGML_FILE]


# Two that write at once


def test_two_processes_may_write_one_folder(tmp_path):
    command = [sys.executable, "-c", RACING, tmp_path / "export"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    racers = [subprocess.Popen([*command, name], env=environment, stderr=subprocess.PIPE) for name in "ab"]
    told = [racer.communicate()[1].decode() for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0], told
    assert names(tmp_path) == ["export"]
    written = [path.read_text() for path in sorted((tmp_path / "export/inside").iterdir())]
    assert len(written) == 20 and len(set(written)) == 1


def test_who_cannot_move_in_leaves_what_was_there(tmp_path, monkeypatch):
    (tmp_path / "export").mkdir()
    (tmp_path / "export/old").touch()
    move = os.replace

    def refusing(source, target):
        if Path(target).name == "export" and not (Path(source) / "old").exists():
            raise PermissionError(13, "no", str(target))
        move(source, target)

    monkeypatch.setattr(os, "replace", refusing)
    with pytest.raises(PermissionError), replacing(tmp_path / "export") as fresh:
        (fresh / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["export", "old"]


def test_a_file_is_not_replaced_by_a_folder(tmp_path):
    (tmp_path / "export").write_text(json.dumps("mine"))
    with pytest.raises(NotADirectoryError), replacing(tmp_path / "export"):
        pass
    assert names(tmp_path) == ["export"] and (tmp_path / "export").read_text() == '"mine"'
