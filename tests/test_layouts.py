"""layouts: a CTranslate2 model.bin spread over Hugging Face's tensors and files, with nothing lost on the way."""

import json
import shutil
import struct

import numpy as np
import pytest

from lengua.models import formats
from lengua.models.checkpoints import convert_to_ctranslate2, load_tokenizer
from lengua.models.languages import LANGUAGE_NAMES
from lengua.runtime.errors import LenguaError
from lengua.runtime.files import read_json

TENSORS = 245
SPECIALS = {"<|endoftext|>": 50257, "<|startoftranscript|>": 50258, "<|es|>": 50262, "<|transcribe|>": 50359}
SPECIALS |= {"<|notimestamps|>": 50363, "<|0.00|>": 50364, "<|30.00|>": 51864}


@pytest.fixture(scope="module")
def tiny_ct2(tiny_model, tmp_path_factory):
    """The tiny model in CTranslate2's layout, as CTranslate2's own converter writes it."""
    out = tmp_path_factory.mktemp("converted") / "ctranslate2"
    convert_to_ctranslate2(tiny_model, out)
    return out


def test_ctranslate2s_own_conversion_comes_back_tensor_by_tensor(tiny_model, tiny_ct2):
    from safetensors.numpy import load_file

    expected = load_file(tiny_model / "model.safetensors")
    tensors = formats.hugging_face_tensors(formats.read_variables(tiny_ct2 / "model.bin"))
    expected.pop("proj_out.weight", None)  # an alias of the embeddings
    assert set(tensors) == set(expected) and len(tensors) > 40
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor.astype(np.float32), expected[name].astype(np.float16), err_msg=name)


def test_the_sizes_of_the_config_are_those_of_the_model(tiny_model, tiny_ct2):
    variables = formats.read_variables(tiny_ct2 / "model.bin")
    config = formats.model_config(formats.hugging_face_tensors(variables), int(variables["encoder/num_heads"]))
    expected = read_json(tiny_model / "config.json")
    sizes = [name for name in config if name in expected and "token_id" not in name and "dtype" not in name]
    assert len(sizes) > 12
    assert {name: config[name] for name in sizes} == {name: expected[name] for name in sizes}


def test_a_file_cut_anywhere_is_refused(tiny_ct2, tmp_path):
    whole = (tiny_ct2 / "model.bin").read_bytes()
    assert len(formats.read_variables(tiny_ct2 / "model.bin")) > 40
    (name,) = struct.unpack_from("<H", whole, 4)
    heads = [0, 2, 5, 8, 6 + name, 10 + name, *range(14 + name, 80)]
    places = [*heads, *np.linspace(100, len(whole) - 1, 60).astype(int)]
    for place in places:
        (tmp_path / "model.bin").write_bytes(whole[:place])
        with pytest.raises(LenguaError, match="broken off"):
            formats.read_variables(tmp_path / "model.bin")


@pytest.mark.parametrize("version", [5, 7])
def test_another_binary_version_is_refused(version, tiny_ct2, tmp_path):
    data = (tiny_ct2 / "model.bin").read_bytes()
    (tmp_path / "model.bin").write_bytes(struct.pack("<I", version) + data[4:])
    with pytest.raises(LenguaError, match=f"found {version}"):
        formats.read_variables(tmp_path / "model.bin")


def test_timestamps_are_registered_once(tmp_path):
    tokenizer = {"added_tokens": [], "model": {"vocab": {"a": 0}, "merges": [["a", "b"], "c d"]}}
    tokenizer["added_tokens"].append({"id": formats.END_ID, "content": "<|endoftext|>", "special": True})
    formats.write_tokenizer(json.loads(json.dumps(tokenizer)), tmp_path)
    written = read_json(tmp_path / "tokenizer.json")
    assert len(written["added_tokens"]) == 1502
    formats.write_tokenizer(written, tmp_path)
    assert len(read_json(tmp_path / "tokenizer.json")["added_tokens"]) == 1502
    assert (tmp_path / "merges.txt").read_text("utf-8") == "#version: 0.2\na b\nc d\n"


def test_fewer_or_more_languages_keep_their_ids():
    ct2 = {"alignment_heads": [], "suppress_ids": [], "suppress_ids_begin": [], "lang_ids": [50259, 50260, 50261]}
    assert formats.generation_config(ct2)["lang_to_id"] == {"<|en|>": 50259, "<|zh|>": 50260, "<|de|>": 50261}


@pytest.mark.real
def test_the_real_base_loads_in_transformers_with_no_key_missing(base_model):
    from transformers import WhisperForConditionalGeneration

    model, info = WhisperForConditionalGeneration.from_pretrained(base_model, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    assert sum(parameter.numel() for parameter in model.parameters()) == 72_593_920
    assert model.config.architectures == ["WhisperForConditionalGeneration"]
    assert (model.config.encoder_layers, model.config.d_model, model.config.encoder_attention_heads) == (6, 512, 8)
    tied = model.proj_out.weight.data_ptr() == model.model.decoder.embed_tokens.weight.data_ptr()
    assert tied and not any(model.model.encoder.embed_positions.weight.isnan().flatten())


@pytest.mark.real
def test_the_real_base_has_every_tensor(base_model):
    from safetensors import safe_open

    with safe_open(base_model / "model.safetensors", "np") as file:
        names = set(file.keys()) - {"proj_out.weight"}
    assert len(names) == TENSORS
    assert not any("k_proj.bias" in name for name in names)


@pytest.mark.real
def test_the_real_base_has_its_generation_config(base_model):
    from transformers import GenerationConfig

    config = GenerationConfig.from_pretrained(base_model)
    assert len(config.suppress_tokens) > 80 and config.begin_suppress_tokens == [220, 50257]
    assert config.decoder_start_token_id == 50258 and config.no_timestamps_token_id == 50363
    assert (
        len(config.lang_to_id) == 99 and config.lang_to_id["<|es|>"] == 50262 and config.lang_to_id["<|su|>"] == 50357
    )
    assert config.task_to_id == {"transcribe": 50359, "translate": 50358}
    assert len(config.alignment_heads) == 8 and all(len(pair) == 2 for pair in config.alignment_heads)
    assert getattr(config, "forced_decoder_ids", None) is None and config.max_length == 448


@pytest.mark.real
def test_the_real_base_has_its_tokenizer(base_model):
    from transformers import WhisperTokenizer

    plain, slow = load_tokenizer(base_model), WhisperTokenizer.from_pretrained(base_model)
    vocabulary = plain.get_vocab(with_added_tokens=True)
    assert sum(name in vocabulary for name in formats.TIMESTAMP_TOKENS) == 1501
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


@pytest.mark.real
@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_either_processor_file_of_the_real_base_is_enough(name, base_model, tmp_path):
    from transformers import WhisperFeatureExtractor

    shutil.copyfile(base_model / name, tmp_path / name)
    extractor = WhisperFeatureExtractor.from_pretrained(tmp_path)
    assert (extractor.feature_size, extractor.nb_max_frames, extractor.n_samples) == (80, 3000, 480_000)
