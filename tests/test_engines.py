"""engines: CTranslate2 and torch say the same to the same prompt, and a broken model folder is told."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import has_int8_instructions, leave

from lengua import audio
from lengua.audio import log_mel
from lengua.inference import engines
from lengua.inference.engines import DECODER_POSITIONS, ctranslate2, has_gpu, open_engine, torch
from lengua.inference.engines.ctranslate2 import CTranslate2Engine, UnusableGPU
from lengua.models.checkpoints import (
    convert_to_ctranslate2,
    ctranslate2_folder,
    load_tokenizer,
    require_whole_safetensors,
)
from lengua.models.tokens import decode_text, previous_text_tokens, prompt_tokens, text_tokens, token_id, word_tokens
from lengua.runtime.errors import RequestError
from lengua.runtime.files import read_json, write_json

SHORT_CLIP = "common_voice_es_20459583.mp3"


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return load_tokenizer(tiny_model)


@pytest.fixture(scope="module")
def both(tiny_model):
    """CTranslate2 and torch in float32, with the tiny model."""
    return open_engine("ctranslate2", tiny_model, compute_type="float32"), open_engine("torch", tiny_model)


@pytest.fixture(scope="module")
def windows(tiny_store) -> np.ndarray:
    """Clips padded to the tiny model's second."""
    rows = [row for split in ("train", "dev") for row in tiny_store.split(split)]
    return np.stack([log_mel.pad_with_silence(row.log_mel(), 100) for row in rows])


@pytest.fixture
def doubting(monkeypatch):
    """Engines that tell how sure they are of any text."""
    for module in (ctranslate2, torch):
        monkeypatch.setattr(module, "MIN_NO_SPEECH_FOR_LOGPROB", -1.0)


def prompt_of(tokenizer, language="es", task="transcribe", stamps=False, before="") -> list[int]:
    start, spoken, _, plain = prompt_tokens(tokenizer, language)
    bare = [start, spoken, token_id(tokenizer, f"<|{task}|>")]
    return [*previous_text_tokens(tokenizer, before), *bare, *([] if stamps else [plain])]


def texts(tokenizer, written) -> list[str]:
    return [decode_text(tokenizer, one.tokens) for one in written]


PROMPTS = {
    "es": {},
    "another language": {"language": "de"},
    "translate": {"task": "translate"},
    "words before": {"before": "una niña y el mar"},
    "too many words before": {"before": "una niña y el mar " * 40},
}


@pytest.mark.parametrize("how", PROMPTS.values(), ids=PROMPTS.keys())
def test_both_engines_write_the_same_to_the_same_prompt(how, both, doubting, tokenizer, windows):
    prompt = prompt_of(tokenizer, **how)
    ours, theirs = (engine.generate(windows, prompt, 12) for engine in both)
    assert len(ours) == len(theirs) == len(windows)
    same = [a == b for a, b in zip(texts(tokenizer, ours), texts(tokenizer, theirs), strict=True)]
    assert np.mean(same) > 0.8, "the same arithmetic, but for rounding"
    for one, other, equal in zip(ours, theirs, same, strict=True):
        assert 0 < one.no_speech < 1 and one.no_speech == pytest.approx(other.no_speech, rel=0.05)
        assert one.mean_logprob < 0
        assert not equal or one.mean_logprob == pytest.approx(other.mean_logprob, abs=0.05)


def test_the_prompt_is_heeded(both, doubting, tokenizer, windows):
    """If not by the letters of so small a model, then by how sure it is of them."""
    for engine in both:
        said = set()
        for how in PROMPTS.values():
            written = engine.generate(windows, prompt_of(tokenizer, **how), 12)
            said.add((*texts(tokenizer, written), round(sum(one.mean_logprob for one in written), 3)))
        assert len(said) == len(PROMPTS), engine.name


def test_without_the_last_token_both_write_times(both, tokenizer, windows):
    first = token_id(tokenizer, "<|0.00|>")
    for engine in both:
        for one in engine.generate(windows, prompt_of(tokenizer, stamps=True), 30):
            assert one.tokens[0] >= first, engine.name
        for one in engine.generate(windows, prompt_of(tokenizer), 30):
            assert max(text_tokens(tokenizer, one.tokens), default=0) < first


@pytest.mark.parametrize("before", ["", "una niña y el mar " * 40], ids=["no words before", "223 words before"])
@pytest.mark.parametrize("most", [1, 5, 430])
def test_no_more_tokens_are_written_than_asked_for_or_than_there_is_room_for(most, before, both, tokenizer, windows):
    prompt = prompt_of(tokenizer, before=before)
    for engine in both:
        room = min(engine.most_tokens, DECODER_POSITIONS - len(prompt))
        lengths = [len(text_tokens(tokenizer, one.tokens)) for one in engine.generate(windows[:6], prompt, most)]
        assert max(lengths) <= min(most, room), engine.name
        if most < 430:
            assert max(lengths) == most, "somebody had more to say"


def test_a_wider_search_finds_texts_that_are_no_less_likely(both, doubting, tokenizer, windows):
    for engine in both:
        greedy, wide = (engine.generate(windows, prompt_of(tokenizer), 12, beam) for beam in (1, 5))
        assert texts(tokenizer, greedy) != texts(tokenizer, wide)
        gain = [b.mean_logprob - a.mean_logprob for a, b in zip(greedy, wide, strict=True)]
        assert np.mean(gain) > 0 and np.mean(np.array(gain) > -0.05) > 0.8, engine.name


def test_a_row_does_not_depend_on_its_batch(both, doubting, tokenizer, windows):
    prompt = prompt_of(tokenizer)
    for engine in both:
        together = engine.generate(windows[:6], prompt, 12)
        alone = [engine.generate(windows[index : index + 1], prompt, 12)[0] for index in range(6)]
        assert texts(tokenizer, together) == texts(tokenizer, alone)
        for one, other in zip(together, alone, strict=True):
            assert one.mean_logprob == pytest.approx(other.mean_logprob, abs=1e-3)
            assert one.no_speech == pytest.approx(other.no_speech, rel=1e-3)


def test_how_sure_an_engine_is_it_tells_only_in_doubt(both, tokenizer, windows, monkeypatch):
    for engine, module in zip(both, (ctranslate2, torch), strict=True):
        plain = engine.generate(windows, prompt_of(tokenizer), 12)
        between = float(np.median([one.no_speech for one in plain]))
        monkeypatch.setattr(module, "MIN_NO_SPEECH_FOR_LOGPROB", between)
        found = engine.generate(windows, prompt_of(tokenizer), 12)
        assert [one.mean_logprob is not None for one in found] == [one.no_speech > between for one in plain]
        assert all(one.mean_logprob is None for one in plain) and any(one.mean_logprob for one in found)
        assert texts(tokenizer, found) == texts(tokenizer, plain)


def test_torch_tells_how_likely_each_language_is(both, windows):
    found = both[1].languages(windows[:3])
    for chances in found:
        assert len(chances) == 99 and {"es", "sv", "haw"} <= set(chances)
        assert sum(chances.values()) == pytest.approx(1, abs=1e-3) and min(chances.values()) >= 0
    assert not both[0].multilingual, "so few tokens are an English-only model's to CTranslate2"


# Alignment


def test_each_token_has_its_time(both, tokenizer, windows, tiny_store):
    engine, _ = both
    frames = [len(row.log_mel()) for split in ("train", "dev") for row in tiny_store.split(split)]
    said = [word_tokens(tokenizer, "una niña"), [], word_tokens(tokenizer, "el mar y el corazón")]
    found = engine.align(windows[:3], prompt_of(tokenizer), said, frames[:3])
    assert [len(times) for times in found] == [len(tokens) for tokens in said]
    for times, length in zip(found, frames, strict=False):
        flat = [time for start, end, _ in times for time in (start, end)]
        assert flat == sorted(flat) and all(0 <= time <= length / 100 for time in flat)
        assert all(0 <= chance <= 1 for _, _, chance in times)


@pytest.mark.parametrize("frames", [1, 3, 12, 30])
def test_the_shortest_window_is_aligned_too(frames, both, tokenizer):
    window = np.random.default_rng(17).normal(size=(1, 80, 32)).astype(np.float32)
    [times] = both[0].align(window, prompt_of(tokenizer), [word_tokens(tokenizer, "el corazón de la niña")], [frames])
    assert len(times) == len(word_tokens(tokenizer, "el corazón de la niña"))
    assert all(start <= end <= 0.32 for start, end, _ in times)


def test_a_model_without_alignment_heads_does_not_align(tiny_model, tmp_path):
    folder = shutil.copytree(ctranslate2_folder(tiny_model), tmp_path / "heads")
    config = read_json(folder / "config.json")
    assert config.pop("alignment_heads")
    write_json(folder / "config.json", config)
    assert not CTranslate2Engine(folder).aligns


# Which engine, which compute type


def test_without_a_gpu_auto_is_ctranslate2_and_never_imports_torch(tiny_model, monkeypatch):
    ctranslate2_folder(tiny_model)  # that is what needs torch, once
    script = (
        "import sys; from pathlib import Path; from lengua.inference import engines; engines.has_gpu = lambda: False\n"
        "print(engines.open_engine('auto', Path(sys.argv[1])).name, 'torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", script, str(tiny_model)], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["ctranslate2", "int8", "False"]


def test_auto_is_torch_where_that_alone_sees_the_gpu(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "has_gpu", lambda: True)
    monkeypatch.setattr(ctranslate2, "gpu_count", lambda: 0)
    monkeypatch.setattr(engines, "_torch_sees_a_gpu", lambda: True)
    assert open_engine("auto", tiny_model).name.startswith("torch")
    light = shutil.copytree(ctranslate2_folder(tiny_model), tmp_path / "light")
    assert open_engine("auto", light).name.startswith("ctranslate2"), "torch has nothing to read there"
    monkeypatch.setattr(engines, "_torch_sees_a_gpu", lambda: False)
    assert open_engine("auto", tiny_model).name.startswith("ctranslate2")


@pytest.mark.parametrize(("torch_too", "expected"), [(True, "torch"), (False, "ctranslate2 int8")])
def test_auto_goes_on_where_cuda_libraries_are_missing(torch_too, expected, tiny_model, monkeypatch):
    def lacking(engine):
        if engine._device == "cuda":
            raise UnusableGPU("CUDA libraries", "no libcublas", "install it")

    opened = CTranslate2Engine._opened
    monkeypatch.setattr(engines, "has_gpu", lambda: True)
    monkeypatch.setattr(ctranslate2, "gpu_count", lambda: 1)
    monkeypatch.setattr(engines, "_torch_sees_a_gpu", lambda: torch_too)
    monkeypatch.setattr(CTranslate2Engine, "_opened", lambda engine, kind: lacking(engine) or opened(engine, kind))
    monkeypatch.setattr(CTranslate2Engine, "_usual", lambda engine, asked: "int8")
    assert open_engine("auto", tiny_model).name.startswith(expected)
    with pytest.raises(UnusableGPU):
        open_engine("ctranslate2", tiny_model)


def test_a_sign_of_a_gpu_is_looked_for_without_any_import(monkeypatch, tmp_path):
    monkeypatch.setattr(engines, "NVIDIA_DEVICES", (tmp_path / "nvidiactl",))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not has_gpu()
    (tmp_path / "nvidiactl").touch()
    assert has_gpu()


def test_the_compute_type_is_int8_unless_another_is_asked_for(tiny_model, monkeypatch):
    if ctranslate2.gpu_count():
        pytest.skip("on a GPU it is float16")
    names = [open_engine("ctranslate2", tiny_model, compute_type=kind).name for kind in ("", "int8", "float32")]
    assert names == ["ctranslate2 int8", "ctranslate2 int8", "ctranslate2 float32"]
    monkeypatch.setenv("LENGUA_COMPUTE_TYPE", "float32")
    assert open_engine("ctranslate2", tiny_model).name == "ctranslate2 float32"
    assert open_engine("ctranslate2", tiny_model, compute_type="int8").name == "ctranslate2 int8"
    with pytest.raises(RequestError, match="int7"):
        open_engine("ctranslate2", tiny_model, compute_type="int7")


def test_auto_times_both_types_once_and_remembers(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("LENGUA_CACHE", str(tmp_path))
    monkeypatch.setattr(ctranslate2, "int8_is_best", lambda: False)
    timed, real = [], ctranslate2.time_window_s
    monkeypatch.setattr(
        ctranslate2, "time_window_s", lambda model, *how: timed.append(model.compute_type) or real(model, *how)
    )
    first = CTranslate2Engine(tiny_model, compute_type="auto", device="cpu")
    assert [kind.split("_")[0] for kind in timed] == ["int8", "float32"]
    second = CTranslate2Engine(tiny_model, compute_type="auto", device="cpu")
    assert len(timed) == 2 and first.name == second.name
    [answer] = json.loads((tmp_path / "compute_types.json").read_text()).values()
    assert set(answer["seconds"]) == {"int8", "float32"} and first.name == f"ctranslate2 {answer['best']}"
    CTranslate2Engine(tiny_model, device="cpu")
    assert len(timed) == 2, "nothing is timed where nobody asks for it"


def test_auto_times_nothing_where_int8_is_known_to_be_best(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("LENGUA_CACHE", str(tmp_path))
    monkeypatch.setattr(ctranslate2, "int8_is_best", lambda: True)
    assert CTranslate2Engine(tiny_model, compute_type="auto", device="cpu").name == "ctranslate2 int8"
    assert not (tmp_path / "compute_types.json").exists()


def test_float32_must_be_clearly_faster():
    assert ctranslate2.choose_compute_type({"int8": 1.0, "float32": 0.95}) == "int8"
    assert ctranslate2.choose_compute_type({"int8": 1.0, "float32": 0.8}) == "float32"


def test_a_cache_that_cannot_be_written_is_no_trouble(tiny_model, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LENGUA_CACHE", str(tmp_path / "file/below"))
    monkeypatch.setattr(ctranslate2, "int8_is_best", lambda: False)
    assert CTranslate2Engine(tiny_model, compute_type="auto", device="cpu").name.split()[1] in ("int8", "float32")


# Broken folders


@pytest.mark.parametrize("share", [0.0, 0.001, 0.999])
def test_half_a_model_bin_is_refused(share, tiny_model, tmp_path):
    folder = shutil.copytree(ctranslate2_folder(tiny_model), tmp_path / "half")
    leave(folder / "model.bin", share)
    with pytest.raises(RequestError, match=r"expected .*; found .*; copy or convert it again"):
        open_engine("ctranslate2", folder)


@pytest.mark.parametrize("share", [None, 0.0, 0.5], ids=["missing", "empty", "half"])
@pytest.mark.parametrize("name", ["config.json", "vocabulary.json"])
def test_a_ctranslate2_folder_without_its_lists_is_refused(name, share, tiny_model, tmp_path):
    folder = shutil.copytree(ctranslate2_folder(tiny_model), tmp_path / "half")
    leave(folder / name, share)
    for compute_type in ("", "auto"):
        with pytest.raises(RequestError):
            open_engine("ctranslate2", folder, compute_type=compute_type)


@pytest.mark.parametrize("engine", ["ctranslate2", "torch", "onnxruntime"])
@pytest.mark.parametrize("share", [0.0, 0.999])
def test_half_a_safetensors_is_refused(share, engine, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "half", ignore=shutil.ignore_patterns("ctranslate2"))
    leave(folder / "model.safetensors", share)
    with pytest.raises(RequestError, match=r"expected a .*model.safetensors.*; found .*; copy it again"):
        open_engine(engine, folder)


def test_a_whole_safetensors_passes_and_a_longer_one_does_not(tiny_model, tmp_path):
    require_whole_safetensors(tiny_model / "model.safetensors")
    longer = tmp_path / "model.safetensors"
    longer.write_bytes((tiny_model / "model.safetensors").read_bytes() + b"\0")
    with pytest.raises(RequestError):
        require_whole_safetensors(longer)
    longer.write_bytes((5).to_bytes(8, "little") + b"[1,2]")
    with pytest.raises(RequestError):
        require_whole_safetensors(longer)


def test_torch_needs_safetensors(tiny_model, tmp_path):
    folder = shutil.copytree(ctranslate2_folder(tiny_model), tmp_path / "light")
    with pytest.raises(RequestError, match="--engine ctranslate2"):
        open_engine("torch", folder)


# Real weights


@pytest.fixture(scope="module")
def real(base_model):
    """CTranslate2, in int8 where that is close, and torch with whisper-base, and its tokenizer."""
    ours = open_engine("ctranslate2", base_model, compute_type="int8" if has_int8_instructions() else "float32")
    return ours, open_engine("torch", base_model), load_tokenizer(base_model)


@pytest.mark.real
def test_no_window_is_mistaken_for_encoder_states(real, spoken_es):
    """CTranslate2 takes what has 80 rows for a mel: the 80 encoder states of 160 frames were encoded once more."""
    *engines_, tokenizer = real
    clip = next(path for path in spoken_es if path.name == SHORT_CLIP)
    first = log_mel.log_mel(audio.load(clip)[: int(1.4 * audio.SAMPLE_RATE)])
    prompt = prompt_tokens(tokenizer, "es")
    for window in (152, 160, 168):
        features = log_mel.pad_with_silence(first, window)[None]
        heard = [decode_text(tokenizer, engine.generate(features, prompt, 12)[0].tokens) for engine in engines_]
        letters = [set(text.lower()) for text in heard]
        assert len(heard[0]) > 3 and len(letters[0] ^ letters[1]) <= 3, (window, heard)


@pytest.mark.real
def test_both_engines_hear_spanish_and_are_as_sure_of_what_they_write(real, doubting, spoken_es):
    *engines_, tokenizer = real
    paths = [path for path in spoken_es if path.name == SHORT_CLIP] + list(spoken_es)[:2]
    clips = [log_mel.log_mel(audio.load(path)) for path in paths]
    features = np.stack([log_mel.pad_with_silence(clip, 3000) for clip in clips])
    ours, theirs = (engine.languages(features) for engine in engines_)
    assert max(ours[0], key=ours[0].get) == "es"
    for one, other in zip(ours, theirs, strict=True):
        assert max(one, key=one.get) == max(other, key=other.get)
        assert one["es"] == pytest.approx(other["es"], abs=0.1) and sum(one.values()) == pytest.approx(1, abs=1e-2)
    prompt = prompt_tokens(tokenizer, "es")
    written = [engine.generate(features, prompt, 60) for engine in engines_]
    same = 0
    for one, other in zip(*written, strict=True):
        if decode_text(tokenizer, one.tokens) == decode_text(tokenizer, other.tokens):  # int8 may choose another word
            same += 1
            assert one.mean_logprob == pytest.approx(other.mean_logprob, abs=0.15)
        assert one.no_speech == pytest.approx(other.no_speech, abs=0.1) and one.no_speech < 0.5
    assert same


@pytest.mark.real
def test_times_of_tokens_are_the_same_in_a_short_window(real, spoken_es):
    engine, _, tokenizer = real
    prompt, off = prompt_tokens(tokenizer, "es"), []
    for path, text in list(spoken_es.items())[:4]:
        clip = log_mel.log_mel(audio.load(path))
        tokens, frames = word_tokens(tokenizer, text), [len(clip)]
        full, short = (
            engine.align(log_mel.pad_with_silence(clip, window)[None], prompt, [tokens], frames)[0]
            for window in (3000, -(-(len(clip) + 50) // 8) * 8)
        )
        off += [abs(a[0] - b[0]) for a, b in zip(full, short, strict=True)]
    assert len(off) > 40 and np.quantile(off, 0.9) <= 0.2 and np.mean(off) < 0.1


def test_suppressed_tokens_that_the_vocabulary_lacks_are_refused_and_never_converted(tiny_model, tmp_path):
    """CTranslate2 would write beside its memory: without a generation_config.json the converter names token 50256."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model", ignore=shutil.ignore_patterns("ctranslate2")))
    (folder / "generation_config.json").unlink()
    convert_to_ctranslate2(folder, folder / "ctranslate2")
    told = read_json(folder / "ctranslate2/config.json")
    assert told["suppress_ids"] == [] and all(token < 2000 for token in told["suppress_ids_begin"])
    write_json(folder / "ctranslate2/config.json", told | {"suppress_ids_begin": [220, 50256]})
    with pytest.raises(RequestError, match="50256"):
        CTranslate2Engine(folder / "ctranslate2")
