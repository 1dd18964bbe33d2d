"""The export: a folder that transformers and faster-whisper open, and a card that says what was measured."""

from dataclasses import replace

import pytest
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from lengua.errors import RequestError
from lengua.evaluation import evaluate
from lengua.options import EvaluateOptions, PublishOptions, TrainOptions
from lengua.publishing import publish
from lengua.report import markdown_table
from lengua.training import train
from lengua.transcription import Transcriber


@pytest.fixture(scope="module")
def run(tiny_store, tiny_model, tmp_path_factory):
    """A run of two steps, evaluated against its base."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    options = TrainOptions(
        str(tiny_store.path), out, base=str(tiny_model), steps=2, margin_s=(0.0, 0.06), precision="fp32"
    )
    train(options)
    evaluate(EvaluateOptions(str(out), str(tiny_store.path), against=str(tiny_model), out=out / "evaluation"))
    return out


def test_the_export_opens_in_transformers_and_in_ctranslate2(run, tmp_path, tiny_store):
    result = publish(PublishOptions(str(run), tmp_path / "export"))
    assert result.formats == ("hf", "ct2") and result.bytes > 100_000
    WhisperForConditionalGeneration.from_pretrained(result.path)
    assert WhisperProcessor.from_pretrained(result.path).feature_extractor.feature_size == 80
    assert {"model.bin", "config.json", "tokenizer.json", "preprocessor_config.json"} <= {
        path.name for path in (result.path / "ctranslate2").iterdir()
    }
    mels = [row.log_mel() for row in tiny_store.split("test")]
    before = [one.text for one in Transcriber(str(run), "es").decode(mels)]
    assert [one.text for one in Transcriber(str(result.path), "es").decode(mels)] == before


def test_ctranslate2_alone_still_says_how_to_decode(run, tmp_path, tiny_store):
    result = publish(PublishOptions(str(run), tmp_path / "export", formats=("ct2",)))
    assert not (result.path / "model.safetensors").exists()
    transcriber = Transcriber(str(result.path / "ctranslate2"), "es")
    assert transcriber.engine.name == "ctranslate2 int8"


def test_the_card_holds_the_measured_table_and_nothing_typed(run, tmp_path):
    from lengua.files import read_json

    card = (publish(PublishOptions(str(run), tmp_path / "export")).path / "README.md").read_text(encoding="utf-8")
    results = read_json(run / "evaluation/results.json")
    assert markdown_table(results["rows"]) in card
    assert card.startswith("---\nlanguage: es\n") and results["hardware"] in card and results["date"] in card


def test_an_unmeasured_model_says_so(run, tmp_path):
    card = (
        publish(PublishOptions(str(run / "model"), tmp_path / "export", formats=("hf",))).path / "README.md"
    ).read_text()
    assert "Not measured yet" in card and "%" not in card


def test_a_folder_of_other_things_is_refused_and_left_alone(run, tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export/thesis.docx").write_text("mine")
    with pytest.raises(RequestError, match="other things"):
        publish(PublishOptions(str(run), tmp_path / "export"))
    assert (tmp_path / "export/thesis.docx").read_text() == "mine"
    options = PublishOptions(str(run), tmp_path / "fresh", formats=("hf",))
    assert publish(options).path == publish(replace(options)).path  # an earlier export is replaced
