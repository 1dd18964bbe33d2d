"""What `lengua evaluate` does with models and sets that are not what they should be."""

import shutil
from pathlib import Path

import pytest

from lengua.data.store import Row, write_shard
from lengua.evaluation import evaluate
from lengua.options import EvaluateOptions
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import read_json, write_json


@pytest.fixture
def model(tiny_model, tmp_path) -> Path:
    """A copy of the tiny model, to be spoiled."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model", ignore=shutil.ignore_patterns("ctranslate2")))


def asked(model: Path, store, tmp_path: Path, **more) -> EvaluateOptions:
    return EvaluateOptions(str(model), str(store.path), out=tmp_path / "evaluation", resamples=100, **more)


@pytest.mark.parametrize("engine", ["ctranslate2", "torch"])
def test_a_model_without_a_generation_config_is_measured_or_refused_plainly(engine, model, tiny_store, tmp_path):
    (model / "generation_config.json").unlink()
    try:
        rows = evaluate(asked(model, tiny_store, tmp_path, engine=engine)).rows
    except LenguaError as error:
        assert "generation_config.json" in str(error)
    else:
        assert rows[0]["utterances"] == 5


def test_a_tokenizer_of_another_model_is_refused(model, tiny_store, tmp_path):
    config = read_json(model / "config.json")
    write_json(model / "config.json", config | {"decoder_start_token_id": 50258})
    with pytest.raises(RequestError, match=r"tokenizer.*decoder_start_token_id"):
        evaluate(asked(model, tiny_store, tmp_path))


def test_an_empty_split_is_refused(model, tiny_store, tmp_path):
    store = Path(shutil.copytree(tiny_store.path, tmp_path / "store"))
    manifest = read_json(store / "manifest.json")
    manifest["splits"]["test"] |= {"utterances": 0, "shards": 0}
    write_json(store / "manifest.json", manifest)
    shutil.rmtree(store / "test")
    with pytest.raises(RequestError, match="test"):
        evaluate(EvaluateOptions(str(model), str(store), out=tmp_path / "evaluation"))


def test_another_language_than_that_of_the_references_is_told(model, tiny_store, tmp_path):
    options = asked(model, tiny_store, tmp_path, language="sv")
    evaluate(options)
    notes = read_json(options.out / "results.json")["notes"]
    assert "The references are in es, and the models were asked for sv." in notes


def test_one_clip_of_one_speaker_has_a_row_and_a_page(model, tiny_store, tmp_path):
    store = Path(shutil.copytree(tiny_store.path, tmp_path / "store"))
    row: Row = tiny_store.split("test")[0]
    write_shard(store / "test/shard-00000.parquet", [row])
    manifest = read_json(store / "manifest.json")
    manifest["splits"]["test"]["utterances"] = 1
    write_json(store / "manifest.json", manifest)
    options = EvaluateOptions(str(model), str(store), out=tmp_path / "evaluation")
    [measured] = evaluate(options).rows
    assert measured["utterances"] == 1 and measured["interval"] == "95 % bootstrap over utterances"
    assert (options.out / "report.html").stat().st_size > 1000
