"""The engine on ONNX Runtime: it writes what CTranslate2 writes, alone or in company; what it cannot it hands on."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import int8_is_close
from small_whisper import small_clips, small_whisper

from lengua import audio
from lengua.audio import log_mel
from lengua.inference.engines import onnxruntime, open_engine
from lengua.inference.engines.onnxruntime import NotConvertible, ensure_graphs
from lengua.models.checkpoints import convert_to_ctranslate2, ctranslate2_folder, load_tokenizer
from lengua.models.formats.onnx import quantize_blocks, quantize_columns
from lengua.models.tokens import decode_text, prompt_tokens
from lengua.scoring import cer
from lengua.scoring.normalizer import normalise


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """A model with 128 channels, the fewest that make a block."""
    return small_whisper(tmp_path_factory.mktemp("wide") / "model", seed=19, width=128)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LENGUA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    """Sounds of 6 s, no two alike."""
    return np.stack(
        [log_mel.pad_with_silence(log_mel.log_mel(clip[: 6 * audio.SAMPLE_RATE]), 600) for clip in small_clips(8)]
    )


@pytest.fixture(scope="module")
def both(wide):
    return open_engine("onnxruntime", wide), open_engine("ctranslate2", wide, compute_type="float32")


def tokens_of(written) -> list[list[int]]:
    return [one.tokens for one in written]


@int8_is_close
@pytest.mark.parametrize("before", [0, 1, 3], ids="no one three".split())
def test_it_writes_what_ctranslate2_writes(both, wide, windows, before):
    tokenizer = load_tokenizer(wide)
    words = [tokenizer.token_to_id("<|startofprev|>"), *[tokenizer.token_to_id("o")] * before] if before else []
    prompt = [*words, *prompt_tokens(tokenizer, "es")]
    ours, theirs = (engine.generate(windows, prompt, 12) for engine in both)
    same = [a == b for a, b in zip(tokens_of(ours), tokens_of(theirs), strict=True)]
    assert np.mean(same) > 0.7, "but for rounding to 8 bits"
    assert len({tuple(tokens) for tokens in tokens_of(ours)}) > 3, "not always the same"
    for one, other in zip(ours, theirs, strict=True):
        assert one.no_speech == pytest.approx(other.no_speech, rel=0.4, abs=0.01)


@int8_is_close
def test_it_is_as_sure_as_ctranslate2(both, wide, windows, monkeypatch):
    monkeypatch.setattr("lengua.inference.engines.ctranslate2.MIN_NO_SPEECH_FOR_LOGPROB", -1.0)
    prompt = prompt_tokens(load_tokenizer(wide), "es")
    ours, theirs = (engine.generate(windows, prompt, 12) for engine in both)
    pairs = [(a.mean_logprob, b.mean_logprob) for a, b in zip(ours, theirs, strict=True) if a.tokens == b.tokens]
    assert len(pairs) > 5
    for one, other in pairs:
        assert one == pytest.approx(other, abs=0.1) and one < 0


def test_a_row_does_not_depend_on_its_batch(both, wide, windows, monkeypatch):
    prompt = prompt_tokens(load_tokenizer(wide), "es")
    engine = both[0]
    midway = engine.generate(windows[:1], prompt, 20)[0].tokens[4]
    monkeypatch.setattr(engine, "_end", midway)  # a word that some say sooner than others
    together = engine.generate(windows, prompt, 20)
    alone = [engine.generate(windows[index : index + 1], prompt, 20)[0] for index in range(len(windows))]
    assert tokens_of(together) == tokens_of(alone)
    assert len({len(tokens) for tokens in tokens_of(alone)}) > 1, "some end before others"
    for one, other in zip(together, alone, strict=True):
        assert one.mean_logprob == pytest.approx(other.mean_logprob, abs=1e-3)


def test_no_more_tokens_than_asked_for(both, wide, windows):
    prompt = prompt_tokens(load_tokenizer(wide), "es")
    for most in (1, 5, 430):
        lengths = [len(one.tokens) for one in both[0].generate(windows[:6], prompt, most)]
        assert max(lengths) <= min(most, both[0].most_tokens)


def test_it_tells_languages_as_ctranslate2_does(both, windows):
    ours, theirs = (engine.languages(windows[:4]) for engine in both)
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys() and sum(one.values()) == pytest.approx(1)
        assert max(abs(one[code] - other[code]) for code in one) < 0.05


def test_a_wide_search_timestamps_and_times_are_ctranslate2s(wide, windows, monkeypatch):
    engine, asked = open_engine("onnxruntime", wide), []
    prompt = prompt_tokens(load_tokenizer(wide), "es")
    assert "_ctranslate2" not in vars(engine), "not opened before somebody asks"
    for given, beam in ((prompt, 3), (prompt[:-1], 1)):
        asked.append(engine.generate(windows[:2], given, 8, beam))
    assert "_ctranslate2" in vars(engine)
    other = open_engine("ctranslate2", wide)
    assert tokens_of(asked[0]) == tokens_of(other.generate(windows[:2], prompt, 8, 3))
    assert tokens_of(asked[1]) == tokens_of(other.generate(windows[:2], prompt[:-1], 8))
    said = [list(asked[0][0].tokens)]
    assert engine.align(windows[:1], prompt, said, [90]) == other.align(windows[:1], prompt, said, [90])


def test_graphs_are_made_once_and_anew_for_other_weights(wide, tmp_path):
    first = ensure_graphs(ctranslate2_folder(wide))
    made = (first / "decoder.onnx").stat().st_mtime_ns
    assert ensure_graphs(ctranslate2_folder(wide)) == first and (first / "decoder.onnx").stat().st_mtime_ns == made
    from safetensors.numpy import load_file, save_file

    other = Path(shutil.copytree(wide, tmp_path / "other"))
    tensors = load_file(other / "model.safetensors")
    tensors["model.decoder.layer_norm.bias"] = tensors["model.decoder.layer_norm.bias"] + 1
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    assert ensure_graphs(ctranslate2_folder(other)) != first


def test_only_the_last_models_stay_in_the_cache(wide, monkeypatch):
    kept = ensure_graphs(ctranslate2_folder(wide))
    for number in range(5):
        (kept.parent / f"old{number}").mkdir()
    shutil.rmtree(kept)
    monkeypatch.setattr(onnxruntime, "MAX_CACHED_GRAPHS", 2)
    assert ensure_graphs(ctranslate2_folder(wide)) == kept
    assert kept.is_dir() and len(list(kept.parent.iterdir())) == 2


def test_what_has_no_graph_goes_to_ctranslate2(tiny_model, wide, tmp_path, monkeypatch):
    monkeypatch.delenv("LENGUA_COMPUTE_TYPE", raising=False)
    with pytest.raises(NotConvertible, match="multiple of 128"):
        open_engine("onnxruntime", tiny_model)
    small = tmp_path / "int8"
    convert_to_ctranslate2(wide, small, "int8")
    with pytest.raises(NotConvertible):
        ensure_graphs(small)
    assert open_engine("auto", tiny_model).name == open_engine("auto", small).name == "ctranslate2 int8"
    assert open_engine("auto", wide).name == "onnxruntime int8"
    assert open_engine("auto", wide, compute_type="float32").name == "ctranslate2 float32"


def test_eight_bits_are_off_by_half_a_step_at_most():
    weights = np.random.default_rng(3).normal(size=(7, 256)).astype(np.float32)
    packed, scales = quantize_blocks(weights)
    back = (packed.astype(np.float32) - 128) * scales.reshape(7, 2, 1)
    assert np.abs(back.reshape(7, 256) - weights).max() <= 0.501 * scales.max()
    packed, scales = quantize_columns(weights)
    assert packed.shape == (256, 7) and np.abs(packed.T * scales[:, None] - weights).max() <= 0.501 * scales.max()
    assert quantize_blocks(np.zeros((2, 128)))[0].tolist() == [[[128] * 128]] * 2, "zeros stay zeros"


@pytest.mark.real
def test_real_weights_hear_no_worse_than_torch_in_float32(base_model, spoken_es):
    tokenizer, some = load_tokenizer(base_model), dict(list(spoken_es.items())[:12])
    features = np.stack([log_mel.pad_with_silence(log_mel.log_mel(audio.load(path)), 3000) for path in some])
    prompt, said = prompt_tokens(tokenizer, "es"), [normalise(text) for text in some.values()]
    sides = (open_engine(name, base_model).generate(features, prompt, 60) for name in ("onnxruntime", "torch"))
    ours, theirs = ([normalise(decode_text(tokenizer, one.tokens)) for one in side] for side in sides)
    assert cer(said, ours) < cer(said, theirs) + 0.05 < 0.4, (ours, theirs)
