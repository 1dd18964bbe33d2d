"""Forms of a checkpoint: whole or refused, nothing lost on the way, opened by the programs they are for."""

import json
import os
import shutil
import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
from conftest import ROOT
from small_whisper import small_clips, small_whisper

from lengua import audio
from lengua.audio import log_mel
from lengua.inference import Transcriber
from lengua.models.checkpoints import ModelNote, convert_to_ctranslate2, ctranslate2_folder, load_tokenizer, read_note
from lengua.models.formats import ctranslate2, hugging_face
from lengua.models.formats.ggml import released_token_ids, write_ggml
from lengua.models.formats.openai import openai_tensor_name
from lengua.models.languages import LANGUAGE_NAMES
from lengua.options import PublishOptions
from lengua.publishing import programs, runtimes
from lengua.publishing.export import CT2_FOLDER, CT2_INT8_FOLDER, EXPORTERS
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import read_json, replacing, write_json
from lengua.scoring import score

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
SPECIALS = {"<|endoftext|>": 50257, "<|startoftranscript|>": 50258, "<|es|>": 50262, "<|transcribe|>": 50359}
SPECIALS |= {"<|notimestamps|>": 50363, "<|0.00|>": 50364, "<|30.00|>": 51864}
needs_whisper_cpp = pytest.mark.skipif(find_spec("pywhispercpp") is None, reason="needs the package pywhispercpp")


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


# Exports


def test_every_format_of_the_options_can_be_written():
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


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_without_a_file_is_refused(name, copy, out):
    (copy / name).unlink()
    for export in EXPORTERS.values():
        with pytest.raises(RequestError, match=name.replace(".", r"\.")):
            export(copy, out)
    assert names(out) == []


def test_what_was_copied_in_half_is_refused(copy, out):
    path = copy / "generation_config.json"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RequestError, match=r"expected JSON in .*generation_config\.json"):
        EXPORTERS["hf"](copy, out)
    path.write_bytes(whole)
    path = copy / "model.safetensors"
    for share in (0.999, 0.5, 0.001, 0.0):
        os.truncate(path, int(share * path.stat().st_size))
        for export in EXPORTERS.values():
            with pytest.raises(RequestError, match=r"expected a whole model\.safetensors"):
                export(copy, out)
    assert names(out) == []


def test_a_token_with_two_numbers_is_refused(copy, out):
    told = read_json(copy / "generation_config.json")
    told["lang_to_id"]["<|es|>"] += 1
    write_json(copy / "generation_config.json", told)
    with pytest.raises(LenguaError, match=r"expected <\|es\|> to be 50263 in tokenizer.json.*; found 50262"):
        EXPORTERS["hf"](copy, out)


@pytest.mark.parametrize(("format", "inside"), [("ct2", CT2_FOLDER), ("ct2-int8", CT2_INT8_FOLDER)])
def test_faster_whisper_and_lengua_open_a_conversion_by_itself(format, inside, small_model, out):
    from faster_whisper import WhisperModel

    EXPORTERS[format](small_model, out)
    assert ctranslate2_folder(out) == out / inside
    samples = small_clips()[1]
    model = WhisperModel(str(out / inside), device="cpu", compute_type="int8")
    segments, _ = model.transcribe(samples, language="es", beam_size=1, temperature=0.0, without_timestamps=True)
    text = " ".join(segment.text.strip() for segment in segments)
    transcriber = Transcriber(str(out / inside), "es")
    assert transcriber.decode([log_mel.log_mel(samples)], None)[0].text == text != ""
    assert read_note(out / inside) == ModelNote(language="es")


def test_int8_takes_half_of_float16_and_both_say_what_they_came_from(small_model, out):
    for format in ("hf", "ct2", "ct2-int8"):
        EXPORTERS[format](small_model, out)
    sizes = [(out / inside / "model.bin").stat().st_size for inside in (CT2_FOLDER, CT2_INT8_FOLDER)]
    assert 0.5 < sizes[1] / sizes[0] < 0.7  # narrow as it is, its scales weigh
    made = (out / CT2_FOLDER / "model.bin").stat().st_mtime_ns
    assert ctranslate2_folder(out) == out / CT2_FOLDER and (out / CT2_FOLDER / "model.bin").stat().st_mtime_ns == made
    assert (out / CT2_INT8_FOLDER / "source.sha256").read_text() == (out / CT2_FOLDER / "source.sha256").read_text()


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


# CTranslate2's variables and Hugging Face's files


@pytest.fixture(scope="module")
def tiny_ct2(tiny_model, tmp_path_factory):
    """The tiny model in CTranslate2's layout, as CTranslate2's own converter writes it."""
    out = tmp_path_factory.mktemp("converted") / "ctranslate2"
    convert_to_ctranslate2(tiny_model, out)
    return out


def test_ctranslate2s_own_conversion_comes_back_tensor_by_tensor(tiny_model, tiny_ct2):
    from safetensors.numpy import load_file

    expected = load_file(tiny_model / "model.safetensors")
    tensors = ctranslate2.hugging_face_tensors(ctranslate2.read_variables(tiny_ct2 / "model.bin"))
    expected.pop("proj_out.weight", None)  # an alias of the embeddings
    assert set(tensors) == set(expected) and len(tensors) > 40
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor.astype(np.float32), expected[name].astype(np.float16), err_msg=name)


def test_the_sizes_of_the_config_are_those_of_the_model(tiny_model, tiny_ct2):
    variables = ctranslate2.read_variables(tiny_ct2 / "model.bin")
    config = hugging_face.model_config(ctranslate2.hugging_face_tensors(variables), int(variables["encoder/num_heads"]))
    expected = read_json(tiny_model / "config.json")
    sizes = [name for name in config if name in expected and "token_id" not in name and "dtype" not in name]
    assert len(sizes) > 12
    assert {name: config[name] for name in sizes} == {name: expected[name] for name in sizes}


def test_a_file_cut_anywhere_or_of_another_version_is_refused(tiny_ct2, tmp_path):
    whole = (tiny_ct2 / "model.bin").read_bytes()
    assert len(ctranslate2.read_variables(tiny_ct2 / "model.bin")) > 40
    (name,) = struct.unpack_from("<H", whole, 4)
    heads = [0, 2, 5, 8, 6 + name, 10 + name, *range(14 + name, 80)]
    places = [*heads, *np.linspace(100, len(whole) - 1, 20).astype(int)]
    for place in places:
        (tmp_path / "model.bin").write_bytes(whole[:place])
        with pytest.raises(LenguaError, match="broken off"):
            ctranslate2.read_variables(tmp_path / "model.bin")
    for version in (5, 7):
        (tmp_path / "model.bin").write_bytes(struct.pack("<I", version) + whole[4:])
        with pytest.raises(LenguaError, match=f"found {version}"):
            ctranslate2.read_variables(tmp_path / "model.bin")


def test_timestamps_are_registered_once(tmp_path):
    tokenizer = {"added_tokens": [], "model": {"vocab": {"a": 0}, "merges": [["a", "b"], "c d"]}}
    tokenizer["added_tokens"].append({"id": hugging_face.END_ID, "content": "<|endoftext|>", "special": True})
    hugging_face.write_tokenizer(json.loads(json.dumps(tokenizer)), tmp_path)
    written = read_json(tmp_path / "tokenizer.json")
    assert len(written["added_tokens"]) == 1502
    hugging_face.write_tokenizer(written, tmp_path)
    assert len(read_json(tmp_path / "tokenizer.json")["added_tokens"]) == 1502
    assert (tmp_path / "merges.txt").read_text("utf-8") == "#version: 0.2\na b\nc d\n"


def test_fewer_or_more_languages_keep_their_ids():
    ct2 = {"alignment_heads": [], "suppress_ids": [], "suppress_ids_begin": [], "lang_ids": [50259, 50260, 50261]}
    assert hugging_face.generation_config(ct2)["lang_to_id"] == {"<|en|>": 50259, "<|zh|>": 50260, "<|de|>": 50261}


@pytest.mark.real
def test_the_real_base_loads_in_transformers_with_no_key_missing(base_model):
    from transformers import WhisperForConditionalGeneration

    model, info = WhisperForConditionalGeneration.from_pretrained(base_model, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    assert sum(parameter.numel() for parameter in model.parameters()) == 72_593_920
    assert not any("k_proj.bias" in name for name, _ in model.named_parameters())
    assert model.config.architectures == ["WhisperForConditionalGeneration"]
    assert (model.config.encoder_layers, model.config.d_model, model.config.encoder_attention_heads) == (6, 512, 8)
    tied = model.proj_out.weight.data_ptr() == model.model.decoder.embed_tokens.weight.data_ptr()
    assert tied and not any(model.model.encoder.embed_positions.weight.isnan().flatten())


@pytest.mark.real
def test_the_real_base_has_its_generation_config(base_model):
    from transformers import GenerationConfig

    config = GenerationConfig.from_pretrained(base_model)
    assert len(config.suppress_tokens) > 80 and config.begin_suppress_tokens == [220, 50257]
    assert (config.decoder_start_token_id, config.no_timestamps_token_id, config.max_length) == (50258, 50363, 448)
    assert (len(config.lang_to_id), config.lang_to_id["<|es|>"], config.lang_to_id["<|su|>"]) == (99, 50262, 50357)
    assert config.task_to_id == {"transcribe": 50359, "translate": 50358}
    assert len(config.alignment_heads) == 8 and getattr(config, "forced_decoder_ids", None) is None


@pytest.mark.real
@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_either_processor_file_of_the_real_base_is_enough(name, base_model, tmp_path):
    from transformers import WhisperFeatureExtractor

    shutil.copyfile(base_model / name, tmp_path / name)
    extractor = WhisperFeatureExtractor.from_pretrained(tmp_path)
    assert (extractor.feature_size, extractor.nb_max_frames, extractor.n_samples) == (80, 3000, 480_000)


@pytest.mark.real
def test_the_real_base_has_its_tokenizer(base_model):
    from transformers import WhisperTokenizer

    plain, slow = load_tokenizer(base_model), WhisperTokenizer.from_pretrained(base_model)
    vocabulary = plain.get_vocab(with_added_tokens=True)
    assert sum(name in vocabulary for name in hugging_face.TIMESTAMP_TOKENS) == 1501
    assert {name: plain.token_to_id(name) for name in SPECIALS} == SPECIALS
    assert {name: slow.convert_tokens_to_ids(name) for name in SPECIALS} == SPECIALS
    assert slow.pad_token == slow.eos_token == "<|endoftext|>" and slow.pad_token_id == 50257
    assert all(plain.token_to_id(f"<|{code}|>") == 50259 + at for at, code in enumerate(list(LANGUAGE_NAMES)[:99]))
    text = " Mañana, ¿qué tal?"
    assert slow(text, add_special_tokens=False).input_ids == plain.encode(text, add_special_tokens=False).ids
    assert (
        slow.decode([50258, *plain.encode(text, add_special_tokens=False).ids, 50257], skip_special_tokens=True) == text
    )


@pytest.mark.real
def test_the_older_form_of_the_real_tokenizer_is_the_same(base_model, tmp_path):
    """vocab.json and merges.txt alone, as whisper.cpp's converter and older programs read them."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    old = Tokenizer(models.BPE.from_file(str(base_model / "vocab.json"), str(base_model / "merges.txt")))
    old.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text = " El pingüino añoró la cigüeña; ¡qué corazón!"
    assert old.encode(text).ids == load_tokenizer(base_model).encode(text, add_special_tokens=False).ids


# whisper.cpp's file: read back byte by byte by a reader of its own, refused where it would be wrong


@pytest.fixture(scope="module")
def written(small_model, tmp_path_factory) -> dict:
    """What stands in the file of the small model."""
    path = tmp_path_factory.mktemp("ggml") / "ggml-model.bin"
    write_ggml(small_model, path)
    return read_back(path)


def read_back(path: Path) -> dict:
    """Read a file as whisper.cpp does."""
    with open(path, "rb") as file:

        def numbers(count: int) -> tuple[int, ...]:
            return struct.unpack(f"<{count}i", file.read(4 * count))

        head = numbers(12)
        shape = numbers(2)
        filters = np.frombuffer(file.read(4 * shape[0] * shape[1]), "<f4").reshape(shape)
        words = [file.read(numbers(1)[0]) for _ in range(numbers(1)[0])]
        tensors = {}
        while header := file.read(12):
            rank, length, kind = struct.unpack("<3i", header)
            sizes = numbers(rank)
            name = file.read(length).decode()
            dtype = np.dtype("<f2" if kind else "<f4")
            data = file.read(dtype.itemsize * int(np.prod(sizes)))
            tensors[name] = np.frombuffer(data, dtype).reshape(sizes[::-1])
    return {"head": head, "filters": filters, "words": words, "tensors": tensors}


def test_the_head_says_what_the_config_says(written, small_model):
    config = read_json(small_model / "config.json")
    layers = [config[f"{side}_layers"] for side in ("encoder", "decoder")]
    assert written["head"] == (0x67676D6C, 51865, 1500, 32, 2, layers[0], 448, 32, 2, layers[1], 80, 1)


def test_the_filters_are_slaneys(written):
    librosa = pytest.importorskip("librosa")
    np.testing.assert_allclose(written["filters"], librosa.filters.mel(sr=16_000, n_fft=400, n_mels=80), atol=1e-7)


def test_the_words_are_the_bytes_of_the_text_tokens(written, small_model):
    tokenizer = load_tokenizer(small_model)
    assert len(written["words"]) == tokenizer.token_to_id("<|endoftext|>") == 50257
    text = " Mañana, ¿qué tal? 大"
    assert (
        b"".join(written["words"][number] for number in tokenizer.encode(text, add_special_tokens=False).ids)
        == text.encode()
    )


def test_every_tensor_comes_back(written, small_model):
    from safetensors.numpy import load_file

    expected = load_file(small_model / "model.safetensors")
    expected.pop("proj_out.weight", None)
    assert set(written["tensors"]) == set(map(openai_tensor_name, expected)) and len(expected) == 11 + 15 + 24
    for name, values in expected.items():
        found = written["tensors"][openai_tensor_name(name)]
        precise = values.ndim == 1 or "embed_positions" in name
        assert found.dtype == (np.float32 if precise else np.float16), name
        if "conv" in name and name.endswith("bias"):
            assert found.shape == (32, 1)
        np.testing.assert_array_equal(found.reshape(values.shape), values.astype(found.dtype), err_msg=name)


def test_weights_of_half_precision_are_written_as_well(copy, written, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    save_file({name: one.to(torch.bfloat16) for name, one in weights.items()}, copy / "model.safetensors")
    write_ggml(copy, tmp_path / "ggml-model.bin")
    found = read_back(tmp_path / "ggml-model.bin")["tensors"]
    assert found.keys() == written["tensors"].keys()
    for name, values in found.items():
        assert values.dtype == written["tensors"][name].dtype
        np.testing.assert_allclose(values.astype(float), written["tensors"][name].astype(float), rtol=0.01, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"vocab_size": 51867}, r"one of 51864, 51865, 51866 tokens; found 51867"),
        ({"max_source_positions": 50}, r"max_source_positions 1500, .*; found max_source_positions 50"),
        ({"decoder_ffn_dim": 64}, r"decoder_ffn_dim 128, .*; found decoder_ffn_dim 64"),
        ({"vocab_size": 51866}, r"<\|yue\|> to be token 50358, as whisper.cpp counts; found None"),
        ({"vocab_size": 51864}, r"<\|endoftext\|> to be token 50256, as whisper.cpp counts; found 50257"),
    ],
)
def test_what_whisper_cpp_gets_wrong_is_refused(change, told, copy, tmp_path):
    config = read_json(copy / "config.json")
    write_json(copy / "config.json", config | change)
    with pytest.raises(RequestError, match=told):
        write_ggml(copy, tmp_path / "ggml-model.bin")
    assert not list(tmp_path.glob("*ggml*"))


@pytest.mark.parametrize("fault", ["beyond float16", "not a number", "one too few", "one too many", "untied"])
def test_weights_that_are_not_right_leave_no_file(fault, copy, tmp_path):
    from safetensors.numpy import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    name = "model.decoder.layers.0.fc1.weight"
    if fault == "one too few":
        weights.pop(name)
    elif fault == "one too many":
        weights["model.decoder.layers.0.fc1.lora_A.weight"] = weights[name]
    elif fault == "untied":
        weights["proj_out.weight"] = weights["model.decoder.embed_tokens.weight"] + 1
    else:
        weights[name][0, 0] = 1e5 if fault == "beyond float16" else np.nan
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(LenguaError):
        write_ggml(copy, tmp_path / "ggml-model.bin")
    assert not list(tmp_path.glob("*ggml*"))


def test_the_numbers_of_the_released_whispers():
    assert released_token_ids(51865)["<|es|>"] == 50262 and released_token_ids(51865)["<|0.00|>"] == 50364
    assert released_token_ids(51866)["<|notimestamps|>"] == 50364 and released_token_ids(51866)["<|yue|>"] == 50358
    assert (
        released_token_ids(51864)["<|endoftext|>"] == 50256 and released_token_ids(51864)["<|notimestamps|>"] == 50362
    )


@needs_whisper_cpp
def test_whisper_cpp_says_what_transformers_says(small_model, tmp_path):
    write_ggml(small_model, tmp_path / "ggml-model.bin")
    clips = small_clips()
    texts = runtimes.run_in_subprocess("whisper.cpp", tmp_path / "ggml-model.bin", clips, "es")["texts"]
    assert texts == programs.transcribe_clips(programs.open_transformers(str(small_model), None), clips)["texts"]
    assert len(set(texts)) > 1 and all(texts)


@needs_whisper_cpp
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_broken_file_is_an_error_and_not_a_crash_of_ours(share, small_model, tmp_path):
    path = tmp_path / "ggml-model.bin"
    write_ggml(small_model, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(LenguaError, match=r"whisper.cpp to open ggml-model.bin; found that it (crashed|failed)"):
        runtimes.run_in_subprocess("whisper.cpp", path, small_clips()[:1], "es")


@pytest.mark.slow
@pytest.mark.real
@needs_whisper_cpp
def test_the_real_base_says_what_was_said(base_model, spoken_es, tmp_path):
    write_ggml(base_model, tmp_path / "ggml-model.bin")
    assert 140e6 < (tmp_path / "ggml-model.bin").stat().st_size < 150e6
    chosen = dict(list(spoken_es.items())[:4])
    heard = runtimes.run_in_subprocess(
        "whisper.cpp", tmp_path / "ggml-model.bin", [audio.load(path) for path in chosen], "es"
    )
    assert score(list(chosen.values()), heard["texts"]).cer < 0.5
