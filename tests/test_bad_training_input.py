"""What people get wrong, through `train` itself: each is refused in one sentence, before anything is trained."""

import csv
import re
import shutil
from collections import namedtuple
from dataclasses import replace

import pytest
from conftest import tiny_training

from lengua.data import features
from lengua.data.store import open_store
from lengua.options import FeatureOptions
from lengua.runtime.errors import LenguaError
from lengua.runtime.files import read_json, write_json
from lengua.training import hardware
from lengua.training.train import train

SENTENCE = re.compile(r"expected .+; found .+; \w.+", re.DOTALL)


@pytest.fixture
def options(tiny_store, tiny_model, tmp_path):
    return tiny_training(str(tiny_store.path), tiny_model, tmp_path / "run", steps=2, evaluations=1)


@pytest.fixture
def build(tiny_folder, tiny_model, tmp_path):
    """Return a function that builds a store of the tiny folder; its path."""

    def build(**more) -> str:
        made = FeatureOptions(tiny_folder, tmp_path / "made", language="es", workers=1, base=str(tiny_model))
        return str(features.build(replace(made, **more)).path)

    return build


@pytest.fixture
def base(tiny_model, tmp_path):
    """Return a function that gives a copy of the tiny model with other words in its files."""

    def change(**files) -> str:
        folder = shutil.copytree(tiny_model, tmp_path / "base")
        for name, change in files.items():
            write_json(folder / f"{name}.json", read_json(folder / f"{name}.json") | change)
        return str(folder)

    return change


def refused(options, match: str, exit_code: int = 2) -> LenguaError:
    """Check that a run is refused in three clauses and leaves neither history nor model."""
    with pytest.raises(LenguaError, match=match) as caught:
        train(options)
    assert SENTENCE.fullmatch(str(caught.value)) and caught.value.exit_code == exit_code
    assert not (options.out / "model").exists() and not (options.out / "history.jsonl").exists()
    return caught.value


# Stores


def test_a_store_without_rows(options, tiny_store, tmp_path):
    manifest = read_json(tiny_store.path / "manifest.json")
    (tmp_path / "empty").mkdir()
    write_json(tmp_path / "empty/manifest.json", manifest | {"splits": {}, "languages": {}})
    for language in (None, "es"):
        asked = replace(options, source=str(tmp_path / "empty"), language=language)
        refused(asked, r"utterances of the split 'train'; found nothing in")


def test_a_store_without_train(options, build):
    refused(replace(options, source=build(splits=("dev",))), r"the split 'train'; found dev \(4\) in")


def test_a_store_of_one_utterance(options, build):
    one = build(splits=("train",), limit=1)
    refused(replace(options, source=one), r"others to measure on; found 1 in train, none in dev")


def test_no_dev_split_is_made_good_and_told(options, build):
    store, told = build(splits=("train",)), []
    before = sorted((path, path.read_bytes()) for path in open_store(store).path.rglob("*.parquet"))
    result = train(replace(options, source=store), told.append)
    assert "no dev split: 2 clips of 1 speaker set aside from train" in [one.note for one in told]
    run = read_json(result.path / "run.json")
    assert result.dev_wer > 0 and run["set_aside_from_train"] == 2
    assert run["options"]["learning_rate"] == 3.75e-5, "the rate that follows from the base is recorded"
    assert sorted((path, path.read_bytes()) for path in open_store(store).path.rglob("*.parquet")) == before


def test_a_stream_without_dev(options, tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder.removeprefix("folder:"), tmp_path / "only-train")
    with open(folder / "metadata.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    with open(folder / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    asked = replace(options, source=f"folder:{folder}", language="es", stream=True, workers=1)
    refused(asked, r"expected a dev split .+; found none .+; leave out --stream")


def test_features_of_another_mel_size(options, build):
    refused(replace(options, source=build(n_mels=128)), r"80 mel bins; found 128 in .+ --n-mels 80")


def test_speech_of_another_language(options):
    error = refused(replace(options, language="swedish"), r"speech in swedish \(sv\); found spanish \(es\) in")
    assert "--language" in error.do


def test_rows_without_a_language_may_be_of_any(options, tiny_store, tmp_path):
    folder = shutil.copytree(tiny_store.path, tmp_path / "untold")
    write_json(folder / "manifest.json", read_json(folder / "manifest.json") | {"languages": {"": 24}})
    refused(replace(options, source=str(folder)), r"the language of the speech; .+ --language")
    assert train(replace(options, source=str(folder), language="sv")).steps == 2


# Bases


def test_a_base_that_is_no_whisper(options, base):
    refused(replace(options, base=base(config={"model_type": "wav2vec2"})), r"a Whisper model; found .+wav2vec2")


def test_an_english_only_base_for_spanish(options, base):
    one = base(config={"vocab_size": 51864}, generation_config={"lang_to_id": None, "is_multilingual": False})
    with pytest.MonkeyPatch.context() as patch:  # the tiny weights fit the tiny vocabulary alone
        patch.setattr("lengua.models.whisper.AdaptiveWhisper.from_pretrained", loaded_with(options.base, one))
        refused(replace(options, base=one), r"a model that speaks spanish; found an English-only model")


def loaded_with(weights: str, told: str):
    """Return a from_pretrained that takes the weights of one folder and the generation config of another."""
    from transformers import GenerationConfig

    from lengua.models.whisper import AdaptiveWhisper

    def load(folder, **how):
        model = super(AdaptiveWhisper, AdaptiveWhisper).from_pretrained.__func__(AdaptiveWhisper, weights, **how)
        model.generation_config = GenerationConfig.from_pretrained(told)
        return model

    return load


# Options


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"minutes": 1.0}, r"--minutes or --steps; found both"),
        ({"learning_rate": 0.0}, r"--learning-rate above 0.+; found 0"),
        ({"learning_rate": 1e5}, r"--learning-rate above 0.+; found 100000"),
        ({"stream": True}, r"a source to stream"),
        ({"margin_s": (1.5, 0.3)}, r"LOW <= HIGH"),
        ({"language": "klingon"}, r"languages"),
        ({"base": "nobody"}, r"Hub id"),
        ({"patience": 0}, r"--patience of 1 or more"),
        ({"source": "nowhere"}, r"a feature store; found no folder"),
        ({"window": "packed", "timestamps_share": 2.0}, r"--timestamps-share of 0 to 1"),
        ({"learn": "lora", "lora_rank": 0}, r"--lora-rank of 1 or more"),
    ],
    ids=str,
)
def test_options_that_cannot_be(options, change, match):
    refused(replace(options, **change), match)


# The machine


def test_too_little_memory_or_disk(options, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(hardware, "free_memory", lambda device: 700_000)
        refused(options, r"GiB of memory free for batches of 4; .+ train with --batch-size \d", exit_code=1)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(hardware.shutil, "disk_usage", lambda path: usage(2**30, 2**30 - 1000, 1000))
    refused(options, r"GiB free for checkpoints and model; .+; free some space, or write elsewhere", exit_code=1)
