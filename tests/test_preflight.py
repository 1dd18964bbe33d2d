"""preflight: what is sound passes, and every trap, set for real, is named before anything is trained."""

import importlib
import math
import re
import shutil
import sys
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import END, ROOT, tiny_training
from hub_server import READER, a_hub  # noqa: F401 - a fixture
from tokenizers import Tokenizer, models

from lengua.data import features
from lengua.data.store import Store, open_store, write_shard
from lengua.data.streaming import Stream
from lengua.models.tokens import IGNORE_INDEX, decoder_pair
from lengua.models.whisper import load_model
from lengua.options import FeatureOptions, TrainOptions
from lengua.runtime import system
from lengua.runtime.errors import LenguaError
from lengua.runtime.files import read_json, write_json
from lengua.training import hardware
from lengua.training.checks import TrainingExample, check_room, check_times
from lengua.training.data import TrainingData
from lengua.training.parameters import with_lora
from lengua.training.preflight import (
    check_decoding,
    check_dev,
    check_loss,
    collate_packed_examples,
    compare_decodings,
    decode_as_measured,
    decode_with_transformers,
    format_checks,
    preflight,
    require_passed,
    typical_rows,
)
from lengua.training.samplers import BatchPlan, Packing
from lengua.training.trainer import build_trainer

sys.path.insert(0, str(ROOT / "benchmarks"))
traps = importlib.import_module("traps")

NAMES = """
    base model, language, forced ids, dev, start token, label order, prompt mask, prompt, end token, leading space,
    text, label length, mel size, finite features, silence, feature range, base loss, base decoding, disk,
    memory
"""
GIB = 2**30


@pytest.fixture
def options(tiny_store, tiny_model, tmp_path) -> TrainOptions:
    return tiny_training(str(tiny_store.path), tiny_model, tmp_path / "run", language="es")


def trainer_of(options, speech: TrainingData, folder):
    return build_trainer(load_model(folder, options.language), folder, speech, options)


@pytest.fixture
def trainer(options, tiny_store, tiny_model):
    """The trainer of these options, as the stage builds it."""
    return trainer_of(options, TrainingData(tiny_store, tiny_store.split("train")), tiny_model)


@pytest.fixture
def failures(options, tiny_model):
    """Return a function that gives the failed checks by name, after `require` has refused the first of them."""

    def look(trainer, folder=tiny_model) -> dict:
        done = preflight(trainer, options, folder)
        failed = {check.name: check for check in done if check.passed is False}
        first = next(iter(failed))
        with pytest.raises(LenguaError, match=rf"^expected .+; found .+\(preflight: {first}.*\); \w+") as caught:
            require_passed(done)
        assert caught.value.exit_code == 1 and all(name in str(caught.value) for name in failed)
        assert f"wrong    {first}" in format_checks(done)
        return failed

    return look


def with_rows(store: Store, out, change) -> Store:
    """Return a copy of a store whose rows of train were changed: all by (index, row)."""
    shutil.copytree(store.path, out)
    rows = list(store.split("train"))
    write_shard(out / "train/shard-00000.parquet", [change(index, rows) for index in range(len(rows))])
    return open_store(out)


# What is sound


def test_a_sound_run_passes_every_check(trainer, options, tiny_model):
    done = preflight(trainer, options, tiny_model)
    require_passed(done)
    assert [check.name for check in done] == " ".join(NAMES.split()).split(", ")
    assert {check.name for check in done if not check.passed} == {"base loss", "base decoding"}
    loss = next(check for check in done if check.name == "base loss")
    assert loss.passed is None and "learnt nothing" in loss.found, "a random model is not judged, and not refused"
    assert all(check.expected and check.found and check.do for check in done)
    assert format_checks(done).count("\n") == len(done) - 1


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
    trainer = trainer_of(options, TrainingData(tiny_store, tiny_store.split("train")), tiny_model)
    require_passed(preflight(trainer, options, tiny_model))


def test_a_stream_is_judged_by_dev(options, tiny_store, tiny_folder, tiny_model):
    made = FeatureOptions(tiny_folder, language="es", base=str(tiny_model), workers=1)
    streamed = replace(options, stream=True)
    trainer = trainer_of(streamed, TrainingData(tiny_store, Stream(made)), tiny_model)
    done = preflight(trainer, streamed, tiny_model)
    require_passed(done)
    assert {check.name for check in done if check.passed is None} == {"base loss", "base decoding", "dev"}


def test_clips_are_of_about_median_length_with_unlike_texts():
    frames, texts = np.array([90, 10, 50, 60, 51, 20, 300]), ["g", "a", "x", "y", "x", "b", "h"]
    assert typical_rows(frames, texts) == [4, 3, 5] and typical_rows(frames, ["x"] * 7) == [4]
    assert typical_rows(frames[:1], texts) == [0]


# Traps in labels: a collator that makes its pairs in another way


@pytest.mark.parametrize("pair", traps.LABEL_TRAPS)
def test_a_trap_in_the_labels_is_named(pair, trainer, failures, tiny_model):
    trainer.data_collator = traps.Pairing(trainer, tiny_model, pair)
    assert next(iter(failures(trainer))) == traps.LABEL_TRAPS[pair]


def test_sound_pairs_pass_the_collator_of_these_tests(trainer, options, tiny_model):
    trainer.data_collator = traps.Pairing(trainer, tiny_model, lambda folder, *told: decoder_pair(*told, "es"))
    require_passed(preflight(trainer, options, tiny_model))


def test_a_label_too_long_for_the_decoder_is_named(options, tiny_store, tiny_model, failures, tmp_path):
    def longer(index, rows):
        return replace(rows[index], text="palabra " * 120) if index == 3 else rows[index]

    store = with_rows(tiny_store, tmp_path / "store", longer)
    failed = failures(trainer_of(options, TrainingData(store, store.split("train")), tiny_model))
    assert set(failed) == {"label length"} and tiny_store.split("train")[3].id in failed["label length"].found


# Traps in the model and its configuration


@pytest.mark.parametrize(
    ("change", "name", "found"),
    [
        ({"language": "sv"}, "prompt", r"<\|sv\|><\|transcribe\|><\|notimestamps\|> from generate"),
        ({"language": None}, "prompt", "guesses the language"),
        ({"language": ("es",)}, "prompt", "generate: .*batch"),
        ({"task": "translate"}, "prompt", r"<\|translate\|>"),
        ({"return_timestamps": True}, "prompt", r"<\|transcribe\|> from generate"),
        ({"forced_decoder_ids": [[1, 300], [2, 301]]}, "forced ids", "in the generation config"),
    ],
)
def test_a_trap_in_the_generation_config_is_named(change, name, found, trainer, failures):
    for key, value in change.items():
        setattr(trainer.model.generation_config, key, value)
    failed = failures(trainer)
    assert next(iter(failed)) == name
    assert re.search(found, failed[name].found)


@pytest.mark.parametrize(
    ("change", "found"),
    [({"vocab_size": 51864}, "English-only Whisper (vocabulary 51864)"), ({"model_type": "wav2vec2"}, "wav2vec2")],
)
def test_a_base_that_cannot_learn_the_language_is_named(change, found, trainer, failures, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "base")
    write_json(folder / "config.json", read_json(folder / "config.json") | change)
    failed = failures(trainer, folder)
    assert set(failed) == {"base model"} and found in failed["base model"].found


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
    trainer = trainer_of(options, TrainingData(tiny_store, tiny_store.split("train")), folder)
    require_passed(preflight(trainer, options, folder))


def test_a_tokenizer_without_the_language_is_named(trainer, failures):
    trainer.vocabulary = Tokenizer(models.BPE())
    trainer.vocabulary.add_special_tokens([END, "<|startoftranscript|>", "<|transcribe|>", "<|notimestamps|>"])
    assert set(failures(trainer)) == {"language"}


# Traps in the features


@pytest.mark.parametrize(
    ("dataset", "name"), [(traps.Zeros, "silence"), (traps.Louder, "feature range"), (traps.Broken, "finite features")]
)
def test_a_trap_in_the_features_is_named(dataset, name, trainer, failures):
    trainer.train_dataset = dataset(trainer.train_split)
    assert next(iter(failures(trainer))) == name


@pytest.mark.parametrize("peak", [math.nan, math.inf])
def test_a_clip_stored_with_nan_is_named_wherever_it_stands(peak, options, tiny_store, tiny_model, failures, tmp_path):
    def ruined(index, rows):
        return replace(rows[index], peak=peak) if index == 14 else rows[index]

    store = with_rows(tiny_store, tmp_path / "store", ruined)
    failed = failures(trainer_of(options, TrainingData(store, store.split("train")), tiny_model))
    assert tiny_store.split("train")[14].id in failed["finite features"].found


def test_a_store_of_another_mel_size_is_named(options, tiny_folder, tiny_model, failures, tmp_path):
    made = FeatureOptions(tiny_folder, tmp_path / "wide", language="es", n_mels=128, workers=1, base=str(tiny_model))
    store = open_store(features.build(made).path)
    failed = failures(trainer_of(options, TrainingData(store, store.split("train")), tiny_model))
    assert set(failed) == {"mel size"} and failed["mel size"].found.startswith("128")


# Traps in the data and the machine


def test_training_on_dev_is_named(options, tiny_store, tiny_model, failures):
    failed = failures(trainer_of(options, TrainingData(tiny_store, tiny_store.split("dev")), tiny_model))
    assert set(failed) == {"dev"} and failed["dev"].found.startswith("4 in both")


def test_dev_is_needed_and_apart():
    assert check_dev(["a"], ["b"]).passed and check_dev(["a"], None).passed is None
    assert check_dev([], ["b"]).passed is False and check_dev([], None).passed is False
    assert check_dev(["a", "b"], ["b", "c"]).found == "1 in both, b for one"


def test_a_full_disk_is_named(trainer, failures, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(hardware.shutil, "disk_usage", lambda path: usage(GIB, GIB - 1000, 1000))
    failed = failures(trainer)
    assert set(failed) == {"disk"} and failed["disk"].found.startswith("0.0 GiB for")


def test_disk_holds_three_checkpoints_with_their_moments_and_the_model(trainer):
    weights = sum(weight.numel() for weight in trainer.model.parameters()) * 4
    fixed = trainer.model.model.encoder.embed_positions.weight.numel() * 4
    needed = hardware.disk_needed(trainer.model) - hardware.DISK_MARGIN_BYTES
    assert needed == 3 * (3 * weights - 2 * fixed) + weights


def test_too_little_memory_is_named_with_the_batch_that_fits(trainer, failures, monkeypatch):
    monkeypatch.setattr(hardware, "free_memory", lambda device: 700_000)
    failed = failures(trainer)
    assert set(failed) == {"memory"} and "--batch-size" in failed["memory"].do


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
    assert hardware.check_memory(hardware.MemoryNeed(GIB, GIB), 4, 5 * GIB).passed
    assert hardware.check_memory(hardware.MemoryNeed(GIB, GIB), 4, None).passed is None


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
    assert hardware.max_frames_per_clip(replace(drawing, packing=Packing(None, 0.2)), frames) == 290


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


@pytest.mark.slow
def test_a_token_that_may_only_read_is_named(hub):
    code = "show(lambda: check_rights('ana/x'))\nshow(lambda: check_rights('eva/x'))"
    imports = "from lengua.training.preflight import check_rights"
    written, elsewhere = (one["value"] for one in hub.client(code, imports))
    assert written["passed"] and not elsewhere["passed"] and "not in eva" in elsewhere["found"]
    assert "may only read" in hub.client(code, imports, token=READER)[0]["value"]["found"]


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
    options = replace(options, precision="auto", batch_size=8)
    trainer = trainer_of(options, TrainingData(spoken_store, spoken_store.split("train")), base_model)
    sound = trainer.data_collator
    done = {check.name: check for check in preflight(trainer, options, base_model)}
    assert [name for name, check in done.items() if not check.passed] == []
    assert 0.2 < float(done["base loss"].found.partition(",")[0]) < 2.5
    for pair in (traps.not_shifted, traps.shifted_twice, traps.no_leading_space):
        trainer.data_collator = traps.Pairing(trainer, base_model, pair)
        failed = [check for check in preflight(trainer, options, base_model) if check.passed is False]
        assert ("base loss" in [check.name for check in failed]) == (pair is not traps.no_leading_space)
        trainer.data_collator = sound


@pytest.mark.real
@pytest.mark.slow
def test_texts_of_other_clips_are_told_by_the_loss_alone(base_model, spoken_store, tmp_path, options):
    store = with_rows(
        spoken_store, tmp_path / "mixed", lambda index, rows: replace(rows[index], text=rows[index - 1].text)
    )
    trainer = trainer_of(options, TrainingData(store, store.split("train")), base_model)
    failed = [check.name for check in preflight(trainer, options, base_model) if check.passed is False]
    assert failed == ["base loss"]


# Every trap of benchmarks/traps.py, and how the base is heard twice


@pytest.fixture
def ground(options, tiny_store, tiny_model, tmp_path):
    (tmp_path / "room").mkdir()
    return traps.Ground(options, tiny_store, tiny_model, tmp_path / "room")


@pytest.mark.parametrize("trap", [trap for trap in traps.TRAPS if not trap.trained], ids=lambda trap: trap.name)
def test_every_trap_is_stopped_by_the_check_that_it_is_for(trap, ground):
    assert traps.spring(trap, ground)[0].name == trap.check


def test_the_benchmark_says_what_stops_a_trap(ground, capsys):
    missed = traps.Trap("none at all", "dev", lambda ground: traps.Scene(ground.trainer(), ground.folder))
    stopped = next(trap for trap in traps.TRAPS if trap.check == "dev")
    assert [check and check.name for _, check in traps.spring_all(ground, (stopped, missed))] == ["dev", None]
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "dev inside train | dev | 4 in both, " + said[0].rpartition("in both, ")[2],
        "none at all | none | nothing",
    ]


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
        trainer = trainer_of(asked, TrainingData(tiny_store, tiny_store.split("train")), tiny_model)
        looked = collate_packed_examples(trainer)
        assert list(looked) == kinds and all(" " in one.text for (one,) in looked.values())
        checked = next(check for check in preflight(trainer, asked, tiny_model) if check.name == "packed windows")
        assert checked.passed and checked.do


def test_times_begin_ascend_and_come_in_pairs():
    def example(times, inputs=(1, 2, 3, 100)):
        labels = [IGNORE_INDEX, IGNORE_INDEX, 100, *(100 + time for time in times), 9]
        return TrainingExample("a", "", list(inputs), labels, np.zeros((1, 1)), 1, 1.0)

    assert check_times([example([50, 51, 90])], [1, 2, 3, 4], 100).passed
    assert not check_times([example([50, 90])], [1, 2, 3, 4], 100).passed
    assert not check_times([example([90, 50, 91])], [1, 2, 3, 4], 100).passed
    assert not check_times([example([50, 51, 1501])], [1, 2, 3, 4], 100).passed
    assert not check_times([example([50, 51, 90])], [1, 7, 3, 4], 100).passed


def test_joined_labels_fit_the_decoder():
    one = TrainingExample("a", "", [1] * 451, [IGNORE_INDEX, *[5] * 448], np.zeros((1, 1)), 1, 1.0)
    assert not check_room([one], 448).passed and check_room([one], 449).passed
