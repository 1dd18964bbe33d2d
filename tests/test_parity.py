"""The gate: a healthy export passes in every program; one with other weights or other token numbers does not."""

import os
import re
import shutil
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from conftest import int8_is_close
from small_whisper import small_clips, small_whisper

from lengua.models.checkpoints import read_note
from lengua.options import PublishOptions
from lengua.publishing import parity, runtimes
from lengua.publishing.export import CT2_FOLDER, CT2_INT8_FOLDER, EXPORTERS, GGML_FILE
from lengua.publishing.joined import join, measure_joined
from lengua.publishing.parity import ParityClip, clips_for, evenly_spaced_places
from lengua.publishing.runtimes import FLOAT_BOUND, ParityBound, ProgramOutput
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import read_json, write_json

needs_whisper_cpp = pytest.mark.skipif(find_spec("pywhispercpp") is None, reason="needs the package pywhispercpp")
ALL = tuple(name for name in EXPORTERS if name != "ggml" or find_spec("pywhispercpp"))


@pytest.fixture(scope="module")
def small_model(tmp_path_factory) -> Path:
    return small_whisper(tmp_path_factory.mktemp("small") / "model")


@pytest.fixture(scope="module")
def exported(small_model, tmp_path_factory) -> Path:
    """All formats of the small model."""
    return export(small_model, tmp_path_factory.mktemp("exports") / "all")


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> Path:
    """All formats of other weights."""
    folder = tmp_path_factory.mktemp("others")
    return export(small_whisper(folder / "model", seed=19), folder / "all")


def export(model: Path, out: Path) -> Path:
    out.mkdir()
    for write in EXPORTERS.values():
        write(model, out)
    return out


@pytest.fixture(scope="module")
def clips(exported) -> list[ParityClip]:
    """Clips whose reference is what transformers says."""
    samples = small_clips()
    texts = runtimes.REFERENCE_RUNTIME.hear(exported, samples, "es").texts
    assert len(set(texts)) > 1
    return [ParityClip(f"clip-{number}", *pair) for number, pair in enumerate(zip(texts, samples, strict=True))]


@pytest.fixture
def copy(exported, tmp_path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copy"))


@int8_is_close
def test_a_healthy_export_says_the_same_everywhere(exported, clips, tmp_path):
    found = parity.check_parity(exported, ALL, clips, "es")
    programs = [side.program.split()[0].strip(",") for side in found.sides]
    whisper_cpp = ["whisper.cpp"] * ("ggml" in ALL)
    assert programs == ["transformers", "faster-whisper", "lengua", "faster-whisper", *whisper_cpp]
    assert found.agreed and found.left_out == () and found.sides[0].wer == 0
    assert {side.clips_that_differ for side in found.sides[:2]} == {0}
    found.write(tmp_path)
    written = read_json(tmp_path / "parity.json")
    assert written["rows"] == found.rows and written["agreed"] and written["ids"] == [clip.id for clip in clips]
    assert all(clip.reference not in (tmp_path / "parity.json").read_text() for clip in clips)
    table = parity.parity_table(written["rows"])
    assert len(table.rows) == len(found.sides) and {len(line) for line in table.rows} == {len(table.header)}


@pytest.mark.slow
def test_one_long_recording_is_measured_beside_the_base_in_every_program(small_model, clips, tmp_path):
    other = small_whisper(tmp_path / "base", seed=19)
    model = Path(shutil.copytree(small_model, tmp_path / "model"))
    write_json(model / "lengua.json", asdict(replace(read_note(small_model), base=str(other))))
    short = [clip._replace(samples=clip.samples[:320_000]) for clip in clips[:2]]
    found = measure_joined(compared(short), export(model, tmp_path / "export"), ALL).joined["joined"]
    names = [one["program"].split()[0].strip(",") for one in found]
    assert names == ["transformers", "faster-whisper", "lengua", "faster-whisper", *["whisper.cpp"] * ("ggml" in ALL)]
    assert all(one["wer"] >= 0 and one["base_wer"] is not None for one in found)
    assert any(one["wer"] != one["base_wer"] for one in found), "other weights, other words"
    assert len(join(short).samples) == 640_000 + 12_800


def test_an_untouched_whisper_has_no_base_to_lose_words_against(small_model, clips, tmp_path):
    model = Path(shutil.copytree(small_model, tmp_path / "model", ignore=shutil.ignore_patterns("lengua.json")))
    short = [clips[0]._replace(samples=clips[0].samples[:160_000])]
    [one] = measure_joined(compared(short), model, ("hf",)).joined["joined"]
    assert one["base_wer"] is None and not one["loses_words"]


def compared(clips: list[ParityClip]) -> parity.Parity:
    return parity.Parity("es", tuple(clips), 1, ())


@int8_is_close
@pytest.mark.parametrize(
    ("file", "program"),
    [
        (f"{CT2_FOLDER}/model.bin", "faster-whisper"),
        (f"{CT2_INT8_FOLDER}/model.bin", "faster-whisper"),
        pytest.param(GGML_FILE, "whisper.cpp", marks=needs_whisper_cpp),
    ],
)
def test_other_weights_are_stopped_and_their_clips_are_shown(file, program, copy, others, clips):
    shutil.copyfile(others / file, copy / file)
    with pytest.raises(LenguaError) as caught:
        parity.check_parity(copy, ALL, clips, "es")
    assert re.fullmatch(
        r"the same words in every program, within [\d.]+ points of WER and \d+% of the words", caught.value.expected
    )
    told = caught.value.found
    assert told.startswith(program) and "other words in " in told
    shown = [clip for clip in clips if f"clip {clip.id}\n" in told]
    assert shown and all(told.count(clip.reference) >= 2 for clip in shown)
    assert "make the export again" in caught.value.do


def change(path: Path, **values) -> None:
    write_json(path, read_json(path) | values)


def test_an_export_that_forgot_its_language_is_stopped(copy, clips):
    change(copy / "generation_config.json", language=None)
    with pytest.raises(LenguaError, match=r"a generation_config.json that forces es; found none; write"):
        parity.check_parity(copy, ("hf",), clips, "es")
    change(copy / "generation_config.json", language="<|fr|>")
    with pytest.raises(LenguaError, match=r"forces es; found fr"):
        parity.check_parity(copy, ("hf",), clips, "es")


@pytest.mark.parametrize("shifted", ["specials", "lang_to_id", "decoder_start_token_id"])
def test_wrong_token_numbers_are_stopped(shifted, copy, clips):
    if shifted == "specials":
        tokenizer = read_json(copy / "tokenizer.json")
        for token in tokenizer["added_tokens"]:
            token["id"] += token["content"] != "<|endoftext|>"
        tokenizer["added_tokens"].insert(1, tokenizer["added_tokens"][0] | {"id": 50258, "content": "<|new|>"})
        write_json(copy / "tokenizer.json", tokenizer)
    else:
        numbers = read_json(copy / "generation_config.json")[shifted]
        moved = {name: token + 1 for name, token in numbers.items()} if isinstance(numbers, dict) else numbers + 1
        change(copy / "generation_config.json", **{shifted: moved})
    with pytest.raises(LenguaError, match=r"expected <\|\w+\|> to be \d+ in tokenizer.json"):
        parity.check_parity(copy, ("hf", "ct2"), clips, "es")


def test_wrong_tokens_to_suppress_are_stopped_by_their_words(copy, clips):
    """No file contradicts another: only who listens can tell."""
    tokenizer = read_json(copy / "tokenizer.json")["model"]["vocab"]
    told = read_json(copy / "generation_config.json")
    wrong = [tokenizer[f"Ġ{word}"] for word in ("cinco", "nueve", "uno")]
    change(copy / "generation_config.json", suppress_tokens=[*told["suppress_tokens"], *wrong])
    with pytest.raises(LenguaError, match=r"faster-whisper .* on ct2: WER"):
        parity.check_parity(copy, ("hf", "ct2"), clips, "es")


@pytest.mark.parametrize("file", ["model.safetensors", f"{CT2_FOLDER}/model.bin"])
def test_a_file_that_cannot_be_opened_stops_publishing(file, copy, clips):
    os.truncate(copy / file, (copy / file).stat().st_size // 2)
    with pytest.raises(LenguaError):
        parity.check_parity(copy, ("hf", "ct2"), clips, "es")


@needs_whisper_cpp
def test_a_program_that_dies_stops_publishing(copy, clips):
    (copy / GGML_FILE).write_bytes((copy / GGML_FILE).read_bytes()[:-1000])
    with pytest.raises(LenguaError, match=r"expected whisper.cpp to open ggml-model.bin; found that it"):
        parity.check_parity(copy, ("hf", "ggml"), clips, "es")


@int8_is_close
def test_without_hf_the_model_folder_is_what_counts(small_model, exported, clips, tmp_path):
    alone = tmp_path / "alone"
    shutil.copytree(exported / CT2_FOLDER, alone / CT2_FOLDER)
    found = parity.check_parity(alone, ("ct2",), clips, "es", source=small_model)
    assert [side.format for side in found.sides] == ["hf", "ct2", "ct2"]


def test_what_pads_to_30_s_is_left_out_where_the_window_is_another(tiny_model, tmp_path):
    EXPORTERS["hf"](tiny_model, tmp_path)
    EXPORTERS["ct2"](tiny_model, tmp_path)
    clips = [ParityClip("a", "hola", small_clips()[0][:8000])]
    found = parity.measure_parity(tmp_path, ("hf", "ct2"), clips, "es")
    assert found.left_out == ("faster-whisper",) and found.as_json()["left_out"] == ["faster-whisper"]
    assert [side.program.split()[0] for side in found.sides] == ["transformers", "lengua,"]


def test_without_the_program_or_clips_nothing_is_compared(exported, clips, monkeypatch):
    with pytest.raises(RequestError, match="--parity-clips 0"):
        parity.check_parity(exported, ("hf",), [], "es")
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"lengua\[publish\]"):
        parity.check_parity(exported, ("hf", "ggml"), clips, "es")


# Counting


def side(
    said: list[str], heard: list[str], references: list[str] | None = None, bound: ParityBound | None = FLOAT_BOUND
):
    return parity.compare_outputs(
        ProgramOutput(said, 1.0, "one"), ProgramOutput(heard, 2.0, "other"), "ct2", bound, references or said
    )


def test_the_same_words_in_another_dress_agree():
    found = side(["Hola, ¿qué tal?", "uno dos"], ["hola qué tal", "Uno. Dos."])
    assert (found.wer_difference, found.clips_that_differ, found.words_that_differ) == (0, 0, 0) and found.agrees


def test_as_many_errors_in_other_words_do_not_agree():
    said, heard = ["a b c d e f"] * 10, ["a b c d e x"] * 10
    found = side(said, heard, references=["a b c d e g"] * 10)
    assert found.wer_difference == 0 and not found.agrees and found.clips_that_differ == 10
    assert side(said, heard, ["a b c d e g"] * 10, bound=None).agrees


def test_better_is_different_too_and_an_invented_text_counts_against_silence():
    said, heard = ["a b c d e x"] * 20, ["a b c d e f"] * 20
    found = side(said, heard, references=heard)
    assert found.wer_difference == pytest.approx(-1 / 6) and not found.agrees
    found = side(["", "uno"], ["gracias por ver el vídeo", "uno"], references=["", "uno"])
    assert found.clips_that_differ == 1 and not found.agrees


def with_wrong(said: list[str], count: int) -> list[str]:
    """Return texts with so many words replaced, from the first on."""
    words = " | ".join(said).split()
    places = [place for place, word in enumerate(words) if word != "|"][:count]
    return " ".join("siete" if place in places else word for place, word in enumerate(words)).split(" | ")


@pytest.mark.parametrize(("clips", "words"), [(20, 5), (40, 10), (80, 15), (1, 4)])
def test_some_words_may_be_worse_of_many_fewer_and_of_few_words_four(clips, words):
    said = ["uno dos tres cuatro cinco"] * clips
    assert side(said, with_wrong(said, words)).agrees
    assert not side(said, with_wrong(said, words + (2 if clips > 1 else 1))).agrees


def test_in_doubt_words_differ_and_wer_does_not():
    """As measured: faster-whisper pads otherwise, and of what is half wrong it gets other words wrong."""
    references = ["uno dos tres cuatro cinco"] * 20
    said = [text.replace("uno", "ocho").replace("dos", "doce") for text in references]
    heard = [*(text.replace("ocho", "once") for text in said[:14]), *said[14:]]
    found = side(said, heard, references)
    assert found.wer_difference == 0 and found.words_that_differ == 0.14 and found.agrees
    assert not side(references, [text.replace("uno", "once") for text in references[:14]] + references[14:]).agrees


# Clips


@pytest.mark.parametrize(("items", "count"), [(20, 5), (5, 20), (1, 1), (0, 3), (7, 3)])
def test_places_are_spread_over_all(items, count):
    places = evenly_spaced_places(items, count)
    assert len(places) == len(set(places)) == min(items, count) and all(0 <= place < items for place in places)
    if items == 20:
        assert places == [2, 6, 10, 14, 18]


def options(**more) -> PublishOptions:
    return replace(PublishOptions("runs/mine"), **more)


def test_a_run_brings_clips_of_its_own_test_split(tiny_store, tiny_model, tmp_path):
    write_json(tmp_path / "run.json", {"options": {"source": str(tiny_store.path)}})
    found, test = clips_for(tmp_path, options()), tiny_store.split("test")
    assert [clip.id for clip in found] == test.column("id") and len(found) == 5
    assert [clip.reference for clip in found] == test.column("text")
    assert all(clip.samples.dtype == np.float32 and len(clip.samples) > 4000 for clip in found)
    assert len(clips_for(tmp_path, options(parity_clips=2))) == 2
    assert clips_for(tmp_path, options(parity_clips=0)) == []
    with pytest.raises(RequestError, match="--clips, or leave the comparison out with --parity-clips 0"):
        clips_for(tiny_model, options())


def test_clips_may_be_named_as_a_store_or_a_source(tiny_store, tiny_folder, tmp_path):
    named = clips_for(tmp_path, options(clips=str(tiny_store.path)))
    spoken = clips_for(tmp_path, options(clips=tiny_folder), "es")
    assert [clip.id for clip in spoken] == [clip.id for clip in named] and len(named) == 5
    for one, other in zip(named, spoken, strict=True):
        np.testing.assert_array_equal(one.samples, other.samples)


def test_a_store_without_sound_is_refused(tiny_folder, tiny_model, tmp_path):
    from lengua.data import features
    from lengua.options import FeatureOptions

    settings = {"language": "es", "workers": 1, "base": str(tiny_model)}
    features.build(FeatureOptions(tiny_folder, tmp_path / "mute", keep_audio=(), **settings))
    with pytest.raises(RequestError, match="clips with their sound in test or dev; found none"):
        clips_for(tmp_path, options(clips=str(tmp_path / "mute")))
    features.build(FeatureOptions(tiny_folder, tmp_path / "dev", keep_audio=("dev",), **settings))
    assert len(clips_for(tmp_path, options(clips=str(tmp_path / "dev")))) == 4


# The real base


@pytest.mark.slow
@pytest.mark.real
def test_the_real_base_agrees_and_other_weights_do_not(base_model, spoken_es, tmp_path):
    """Clips that are hard for it, so that whatever is in doubt shows; then Chinese where Spanish was asked for."""
    from lengua import audio

    for format in ("hf", "ct2"):
        EXPORTERS[format](base_model, tmp_path)
    chosen = list(spoken_es.items())[:3]
    clips = [ParityClip(path.name, text, audio.load(path)) for path, text in chosen]
    found = parity.check_parity(tmp_path, ("hf", "ct2"), clips, "es")
    assert 0 < found.sides[0].wer < 0.9 and len(found.sides) == 3
    assert found.sides[1].clips_that_differ <= 1  # faster-whisper, float32
    change(tmp_path / CT2_FOLDER / "tokenizer.json", added_tokens=_swapped(tmp_path / CT2_FOLDER / "tokenizer.json"))
    with pytest.raises(LenguaError, match="faster-whisper"):
        parity.check_parity(tmp_path, ("hf", "ct2"), clips, "es")


def _swapped(path: Path) -> list[dict]:
    """Return the added tokens with Spanish and Chinese in each other's places."""
    tokens = read_json(path)["added_tokens"]
    names = {token["content"]: token for token in tokens}
    names["<|es|>"]["id"], names["<|zh|>"]["id"] = names["<|zh|>"]["id"], names["<|es|>"]["id"]
    return sorted(tokens, key=lambda token: token["id"])
