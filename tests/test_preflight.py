"""preflight: what is sound passes, and every trap, set for real, is named before anything is trained."""

import importlib
import math
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT, tiny_trainer, tiny_training

from lengua.data import features
from lengua.data.store import Store, open_store
from lengua.data.streaming import Stream
from lengua.models.checkpoints import load_tokenizer
from lengua.models.tokens import IGNORE_INDEX, token_id
from lengua.models.whisper import load_model
from lengua.options import FeatureOptions, TrainOptions
from lengua.runtime import system
from lengua.runtime.errors import LenguaError
from lengua.runtime.files import read_json, write_json
from lengua.training import hardware
from lengua.training.checks import (
    ModelInterface,
    TrainingExample,
    check_room,
    check_silence,
    check_spelling,
    check_times,
)
from lengua.training.parameters import with_lora
from lengua.training.preflight import (
    check_decoding,
    check_dev,
    check_loss,
    collate_clips,
    collate_packed_examples,
    compare_decodings,
    decode_as_measured,
    decode_with_transformers,
    preflight,
    require_passed,
    typical_rows,
)
from lengua.training.samplers import BatchPlan, Packing, SampledClip, SampledPack

sys.path.insert(0, str(ROOT / "benchmarks"))
traps = importlib.import_module("traps")

NAMES = """
    base model, language, forced ids, dev, start token, label order, prompt mask, prompt, end token, leading space,
    text, label length, spelling, mel size, finite features, silence, feature range, base loss, base decoding, disk,
    memory
"""
GIB = 2**30


@pytest.fixture
def options(tiny_store, tiny_model, tmp_path) -> TrainOptions:
    return tiny_training(str(tiny_store.path), tiny_model, tmp_path / "run", language="es")


@pytest.fixture
def trainer(options, tiny_store):
    return tiny_trainer(options, tiny_store)


# What is sound


def test_a_sound_run_passes_every_check(trainer, options, tiny_model):
    done = preflight(trainer, options, tiny_model)
    require_passed(done)
    assert [check.name for check in done] == " ".join(NAMES.split()).split(", ")
    assert {check.name for check in done if not check.passed} == {"spelling", "base loss", "base decoding"}
    loss = next(check for check in done if check.name == "base loss")
    assert loss.passed is None and "learnt nothing" in loss.found, "a random model is not judged, and not refused"
    assert all(check.expected and check.found and check.do for check in done)


def test_nothing_of_the_trainer_changes_and_no_random_number_is_drawn(trainer, options, tiny_model):
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.model.train()
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    preflight(trainer, options, tiny_model)
    assert trainer.model.training and not trainer.model.model.decoder._forward_pre_hooks
    assert torch.equal(torch.get_rng_state(), states[0]) and (np.random.get_state()[1] == states[1]).all()
    after = trainer.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(weight.grad is None for weight in trainer.model.parameters())


@pytest.mark.parametrize(
    "change",
    [{"learn": "lora", "lora_rank": 2}, {"learn": "decoder"}, {"window": "packed"}, {"window": "padded"}],
    ids=str,
)
def test_every_way_of_training_passes(change, options, tiny_store, tiny_model):
    options = replace(options, spec_augment=True, gradient_checkpointing=True, **change)
    trainer = tiny_trainer(options, tiny_store)
    require_passed(preflight(trainer, options, tiny_model))


def test_a_stream_is_judged_by_dev(options, tiny_store, tiny_folder, tiny_model):
    made = FeatureOptions(tiny_folder, language="es", base=str(tiny_model), workers=1)
    streamed = replace(options, stream=True)
    trainer = tiny_trainer(streamed, tiny_store, Stream(made))
    done = preflight(trainer, streamed, tiny_model)
    require_passed(done)
    assert {check.name for check in done if check.passed is None} == {"spelling", "base loss", "base decoding", "dev"}


@pytest.mark.parametrize(
    ("texts", "lacking"),
    [
        (["Hola, ¿qué tal?", "«Bien.»", "你好。"], []),
        (["hola.", "Bien.", "Y tú?"], ["33% begin with a small letter"]),
        (["hola qué tal", "¿bien", ""], ["100% begin with a small letter", "100% end without a mark"]),
        (["Kilo", "7"], ["100% end without a mark"]),
    ],
)
def test_what_texts_lack_of_the_spelling_of_the_base_is_told_before_training(texts, lacking):
    check = check_spelling((str(number), text) for number, text in enumerate(texts))
    assert check.passed is (None if lacking else True) and all(part in check.found for part in lacking)
    assert check.found.count("%") == len(lacking)


class Clips:
    """A split of texts."""

    def __init__(self, frames: list[int], texts: list[str]):
        self.frames, self.texts = np.array(frames), texts

    def column(self, name: str) -> list[str]:
        return self.texts


def test_clips_are_of_about_median_length_with_unlike_texts():
    frames, texts = [90, 10, 50, 60, 51, 20, 300], ["g", "a", "x", "y", "x", "b", "h"]
    assert typical_rows(Clips(frames, texts)) == [4, 3, 5] and typical_rows(Clips(frames, ["x"] * 7)) == [4]
    assert typical_rows(Clips(frames[:1], texts)) == [0]


# Traps: those of benchmarks/traps.py, each set for real


@pytest.fixture
def ground(options, tiny_store, tiny_model, tmp_path):
    (tmp_path / "room").mkdir()
    return traps.Ground(options, tiny_store, tiny_model, tmp_path / "room")


@pytest.mark.parametrize("trap", [trap for trap in traps.TRAPS if not trap.trained], ids=lambda trap: trap.name)
def test_every_trap_is_stopped_by_the_check_that_it_is_for(trap, ground):
    failed = traps.spring(trap, ground)
    assert failed[0].name == trap.check
    with pytest.raises(LenguaError, match=rf"^expected .+; found .+\(preflight: {trap.check}.*\); \w+") as caught:
        require_passed(failed)
    assert caught.value.exit_code == 1 and all(check.name in str(caught.value) for check in failed)


def test_sound_pairs_pass_the_collator_of_these_tests(trainer, options, tiny_model):
    trainer.data_collator = traps.pairing(trainer, tiny_model, lambda made: made.pair("es"))
    require_passed(preflight(trainer, options, tiny_model))


def test_a_base_as_it_was_released_passes(options, tiny_store, tiny_model, tmp_path):
    """Whose config.json forces ids in the old way, English ones at that."""
    folder = shutil.copytree(tiny_model, tmp_path / "base")
    forced = {
        "forced_decoder_ids": [[1, 266], [2, 366], [3, 370]],
        "suppress_tokens": [],
        "begin_suppress_tokens": [32],
    }
    for name, told in (
        ("config.json", forced),
        ("generation_config.json", {"forced_decoder_ids": [[1, None], [2, 366]]}),
    ):
        write_json(folder / name, read_json(folder / name) | told)
    trainer = tiny_trainer(options, tiny_store)
    require_passed(preflight(trainer, options, folder))


# The machine


def test_dev_is_needed_and_apart():
    assert check_dev(["a"], ["b"]).passed and check_dev(["a"], None).passed is None
    assert check_dev([], ["b"]).passed is False and check_dev([], None).passed is False
    assert check_dev(["a", "b"], ["b", "c"]).found == "1 in both, b for one"


def test_disk_holds_three_checkpoints_with_their_moments_and_the_model(trainer):
    weights = sum(weight.numel() for weight in trainer.model.parameters()) * 4
    fixed = trainer.model.model.encoder.embed_positions.weight.numel() * 4
    needed = hardware.disk_needed(trainer.model) - hardware.DISK_MARGIN_BYTES
    assert needed == 3 * (3 * weights - 2 * fixed) + weights


@pytest.mark.parametrize(
    ("free", "do"),
    [
        (3.0, "train with --batch-size 2 and more --accumulation, or with --less, or close other programs"),
        (1.5, "train with --least, or close other programs"),
        (0.3, "train with --least and --batch-size 2, or close other programs"),
        (0.1, "choose a smaller --base, or close other programs"),
    ],
)
def test_the_cure_for_too_little_memory_is_what_fits(free, do):
    need = hardware.MemoryNeed(GIB, GIB)
    others = {"--less": hardware.MemoryNeed(GIB, GIB // 4), "--least": hardware.MemoryNeed(GIB // 8, GIB // 16)}
    check = hardware.check_memory(need, 4, int(free * GIB), others)
    assert check.passed is False and check.do == do


def test_enough_memory_is_no_failure_and_unknown_is_none():
    assert hardware.check_memory(hardware.MemoryNeed(GIB, GIB), 4, 5 * GIB, {}).passed
    assert hardware.check_memory(hardware.MemoryNeed(GIB, GIB), 4, None, {}).passed is None


def test_what_saves_memory_is_offered_where_it_is_not_chosen(tiny_model):
    model, whole = load_model(tiny_model, "es"), load_model(tiny_model, "es")
    model.config.encoder_layers = 12  # of one, there is nothing to save
    asked = tiny_training("", tiny_model, tiny_model, lora_rank=2)
    assert list(hardware.alternative_needs(whole, asked, 50, half=True)) == ["--learn lora --gradient-checkpointing"]
    needs = hardware.alternative_needs(model, asked, 50, half=False)
    assert list(needs) == ["--gradient-checkpointing", "--learn lora --gradient-checkpointing"]
    assert needs["--learn lora --gradient-checkpointing"].fixed < needs["--gradient-checkpointing"].fixed
    lora = with_lora(load_model(tiny_model, "es"), 2).get_base_model()
    assert hardware.lora_bytes(model, 2) == hardware.weight_bytes(lora)[1]
    assert needs["--gradient-checkpointing"].per_clip < hardware.memory_need(model, 50, half=False).per_clip / 4
    assert (
        hardware.alternative_needs(lora, replace(asked, learn="lora", gradient_checkpointing=True), 50, half=True) == {}
    )


def test_memory_grows_with_what_learns(tiny_model):
    model = load_model(tiny_model, "es")
    whole = hardware.memory_per_clip(model, 50, half=False)
    assert whole == 50 * 16 * (hardware.LAYER_VALUES_PER_POSITION_AND_CHANNEL + 2) * 4
    assert hardware.memory_per_clip(model, 50, half=True) < whole
    model.model.encoder.requires_grad_(False)
    assert hardware.memory_per_clip(model, 50, half=False) == 50 * 16 * 2 * 4


def test_frames_of_a_clip_are_those_of_the_largest_batch():
    drawing = BatchPlan(batch_size=4, margin_s=(0.3, 1.5), padded_share=0.08, seed=17)
    frames = np.array([100, 480], np.int32)
    assert hardware.max_frames_per_clip(drawing, frames) == 750, "one clip in a padded batch, not four"
    assert hardware.max_frames_per_clip(replace(drawing, padded_share=1.0), frames) == 3000
    assert hardware.max_frames_per_clip(drawing, None) == 3000
    assert hardware.max_frames_per_clip(replace(drawing, padded_share=0.0), frames) == 632
    assert hardware.max_frames_per_clip(replace(drawing, packing=Packing(None, 0.2)), frames) == 750


def test_free_memory_heeds_the_limit_of_a_container(tmp_path, monkeypatch):
    monkeypatch.setattr(system, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(system, "CGROUP", tmp_path)
    cpu = torch.device("cpu")
    assert hardware.free_memory(cpu) is None
    (tmp_path / "meminfo").write_text("MemTotal: 16000 kB\nMemAvailable:   8000 kB\nHugePages_Total: 0\n")
    assert hardware.free_memory(cpu) == 8000 * 1024
    (tmp_path / "memory.stat").write_text("anon 1000000\nfile 5000000\nshmem 500000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert hardware.free_memory(cpu) == 8000 * 1024
    (tmp_path / "memory.max").write_text("3000000\n")
    assert hardware.free_memory(cpu) == 1_500_000


def test_rights_are_looked_at_when_something_is_pushed(trainer, options, tiny_model, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    last = preflight(trainer, options, tiny_model, push="ana/x")[-1]
    assert last.name == "token" and last.passed is False and "log in" in last.do


# The loss of the base


@pytest.mark.parametrize(
    ("right", "wrong", "taught", "passed"),
    [
        (1.1, 6.0, 1.0, True),  # whisper-base on Spanish
        (4.5, 7.5, 1.0, True),  # a language that the base hardly knows: hard, but it hears which text it is
        (8.3, 8.1, 1.0, False),
        (4.5, 4.6, 1.0, False),
        (7.0, 10.0, 1.0, False),
        (2.0, None, 1.0, True),
        (8.0, None, 1.0, False),
        (10.8, 10.8, 0.0, None),
        (math.nan, math.nan, math.nan, False),
    ],
)
def test_the_loss_of_a_trained_base_tells(right, wrong, taught, passed):
    assert check_loss(right, wrong, taught, 51865).passed is passed


@pytest.fixture(scope="module")
def spoken_store(spoken_es, tmp_path_factory) -> Store:
    """Nine real clips, six of them to train on."""
    folder = tmp_path_factory.mktemp("spoken")
    lines = ["file_name,text,split"]
    for number, (path, text) in enumerate(list(spoken_es.items())[:9]):
        lines.append(f'{path.name},"{text}",{"train" if number < 6 else "dev"}')
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    made = FeatureOptions(f"folder:{folder}", folder / "store", language="es", splits=("train", "dev"))
    return open_store(features.build(made).path)


@pytest.mark.real
@pytest.mark.slow
def test_on_whisper_base_speech_passes_and_what_was_not_said_does_not(base_model, spoken_store, tmp_path, options):
    options = replace(options, base=str(base_model), precision="auto", batch_size=8)
    trainer = tiny_trainer(options, spoken_store)
    sound = trainer.data_collator
    done = {check.name: check for check in preflight(trainer, options, base_model)}
    assert [name for name, check in done.items() if not check.passed] == []
    assert 0.2 < float(done["base loss"].found.partition(",")[0]) < 2.5
    for name in ("not shifted", "shifted twice", "no leading space"):
        trainer.data_collator = traps.pairing(trainer, base_model, traps.LABEL_TRAPS[name][1])
        failed = [check for check in preflight(trainer, options, base_model) if check.passed is False]
        assert ("base loss" in [check.name for check in failed]) == (name != "no leading space")
        trainer.data_collator = sound


@pytest.mark.real
@pytest.mark.slow
def test_traps_that_only_a_trained_base_can_tell_are_stopped(base_model, spoken_store, tmp_path, options):
    trained = [trap for trap in traps.TRAPS if trap.trained]
    assert len(trained) >= 2
    for number, trap in enumerate(trained):
        room = tmp_path / str(number)
        room.mkdir()
        ground = traps.Ground(replace(options, base=str(base_model)), spoken_store, base_model, room)
        assert [check.name for check in traps.spring(trap, ground)] == [trap.check]


# The decoding of the base


def test_a_base_is_heard_alike_in_both_ways(trainer, tiny_model):
    clips = [0, 2, 3]
    heard = decode_as_measured(trainer, clips)
    assert heard == decode_with_transformers(trainer, tiny_model, clips) and len(set(heard)) > 1
    trainer.eval_dataset = traps.Neighbours(trainer.dev_split)
    assert decode_as_measured(trainer, clips) != heard
    trainer.model.generation_config.language = ("es",)
    check = compare_decodings(trainer, tiny_model, clips)
    assert check.passed is False and check.found.startswith("none: ")


@pytest.mark.parametrize(
    ("heard", "published", "passed"),
    [
        ("la casa es muy grande", "la casa es muy grande", True),
        ("la caza es muy grande", "la casa es muy grande", True),
        ("the house is very big", "la casa es muy grande", False),
        ("", "la casa es muy grande", False),
        ("ja ja ja ja ja", "ja ja ja ja ja", None),
    ],
)
def test_decodings_that_differ_stop_a_run(heard, published, passed):
    check = check_decoding(["la casa es muy grande"], [heard], [published])
    assert check.passed is passed and "WER" in check.found


def test_packed_windows_are_looked_at_with_and_without_times(tiny_store, tiny_model, options):
    for share, kinds in ((0.2, [False, True]), (0.0, [False]), (1.0, [True])):
        asked = replace(options, window="packed", timestamps_share=share, margin_s=(0.0, 0.0))
        trainer = tiny_trainer(asked, tiny_store)
        looked = collate_packed_examples(trainer)
        assert list(looked) == kinds and all(" " in one.text for (one,) in looked.values())
        checked = next(check for check in preflight(trainer, asked, tiny_model) if check.name == "packed windows")
        assert checked.passed and checked.do


def test_the_pauses_of_a_packed_window_are_no_filling(tiny_store, options):
    trainer = tiny_trainer(options, tiny_store)
    split = trainer.train_split
    first, second = np.argsort(split.frames)[:2].tolist()
    draws = tuple(SampledClip(index, 100) for index in (first, second))
    window = int(split.frames[[first, second]].sum()) + 40
    [one], _ = collate_clips(trainer, [trainer.train_dataset[SampledPack(draws, window, False, (30, 0))]])
    assert one.frames == window - 10 and check_silence([one], ModelInterface(None, [], 80, 448)).passed
    assert not check_silence([replace(one, frames=window - 40)], ModelInterface(None, [], 80, 448)).passed, (
        "or it cannot fail"
    )


def test_times_begin_ascend_and_come_in_pairs(tiny_model):
    tokenizer = load_tokenizer(tiny_model)
    model, zero = ModelInterface(tokenizer, [1, 2, 3, 4], 80, 448), token_id(tokenizer, "<|0.00|>")

    def passes(times, inputs=(1, 2, 3, zero)) -> bool:
        labels = [IGNORE_INDEX, IGNORE_INDEX, zero, *(zero + time for time in times), 9]
        return check_times([TrainingExample("a", "", [*inputs], labels, np.zeros((1, 1)), 1, 1.0)], model).passed

    assert passes([50, 51, 90]) and not passes([50, 51, 90], (1, 7, 3, zero))
    assert not any(map(passes, ([50, 90], [90, 50, 91], [50, 51, 1501])))


def test_joined_labels_fit_the_decoder(tiny_model):
    one = TrainingExample("a", "", [1] * 451, [IGNORE_INDEX, *[5] * 448], np.zeros((1, 1)), 1, 1.0)
    fits = [check_room([one], ModelInterface(None, [], 80, positions)).passed for positions in (448, 449)]
    assert fits == [False, True]
