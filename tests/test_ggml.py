"""whisper.cpp's file: read back byte by byte by a reader of its own, refused where it would be wrong, run by itself."""

import shutil
import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from small_whisper import small_clips, small_whisper

from lengua import audio
from lengua.models.checkpoints import load_tokenizer
from lengua.models.formats.ggml import bytes_by_letter, write_ggml
from lengua.models.integrity import released_token_ids
from lengua.publishing import programs, runtimes
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import read_json, write_json

needs_whisper_cpp = pytest.mark.skipif(find_spec("pywhispercpp") is None, reason="needs the package pywhispercpp")


@pytest.fixture(scope="module")
def small_model(tmp_path_factory) -> Path:
    return small_whisper(tmp_path_factory.mktemp("small") / "model")


@pytest.fixture(scope="module")
def written(small_model, tmp_path_factory) -> dict:
    """What stands in the file of the small model."""
    path = tmp_path_factory.mktemp("ggml") / "ggml-model.bin"
    write_ggml(small_model, path)
    return read_back(path)


@pytest.fixture
def copy(small_model, tmp_path) -> Path:
    return Path(shutil.copytree(small_model, tmp_path / "copy"))


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


def test_each_byte_has_one_letter():
    table = bytes_by_letter()
    assert sorted(table.values()) == list(range(256)) and table["Ġ"] == 32 and table["a"] == 97 and table["Ċ"] == 10


def test_every_tensor_comes_back(written, small_model):
    from safetensors.numpy import load_file

    from lengua.models.formats import openai_tensor_name

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
        ({"vocab_size": 51867}, r"51864, 51865 or 51866 tokens; found 51867"),
        ({"max_source_positions": 50}, r"1500 positions; found max_source_positions 50"),
        ({"decoder_ffn_dim": 64}, r"four times d_model, 128; found decoder_ffn_dim 64"),
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


def test_the_tiny_model_with_its_window_of_a_second_is_refused(tiny_model, tmp_path):
    with pytest.raises(RequestError, match=r"leave out ggml"):
        write_ggml(tiny_model, tmp_path / "ggml-model.bin")


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
    heard = runtimes.run_in_subprocess("whisper.cpp", tmp_path / "ggml-model.bin", clips, "es")
    assert (
        heard["texts"] == programs.transcribe_clips(programs.open_transformers(str(small_model), None), clips)["texts"]
    )
    assert len(set(heard["texts"])) > 1 and all(heard["texts"])


@needs_whisper_cpp
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
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
    from lengua.scoring import score

    write_ggml(base_model, tmp_path / "ggml-model.bin")
    assert 140e6 < (tmp_path / "ggml-model.bin").stat().st_size < 150e6
    chosen = dict(list(spoken_es.items())[:4])
    heard = runtimes.run_in_subprocess(
        "whisper.cpp", tmp_path / "ggml-model.bin", [audio.load(path) for path in chosen], "es"
    )
    assert score(list(chosen.values()), heard["texts"]).cer < 0.5
