"""The evaluation stage: rows and records by contract, measured once, joined by id."""

import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from lengua.data.store import Row, open_store, write_shard
from lengua.evaluation import evaluate
from lengua.evaluation.results import read_evaluation
from lengua.inference import Transcriber
from lengua.options import EvaluateOptions, TrainOptions
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import read_json, read_jsonl, write_json
from lengua.scoring import score

ROW_KEYS = """model window set utterances hours words wer wer_low wer_high cer substitutions deletions insertions looped
wrong_language empty seconds rtf ms_per_clip normaliser decoding""".split()
RECORD_KEYS = "model window set id speaker duration_s extra reference hypothesis counts flags".split()


@pytest.fixture(scope="module")
def run(tiny_store, tiny_model, tmp_path_factory):
    """A run of two steps with adaptive context."""
    from lengua.training.train import train

    out = tmp_path_factory.mktemp("runs") / "tiny"
    options = TrainOptions(
        str(tiny_store.path), out, base=str(tiny_model), steps=2, margin_s=(0.0, 0.06), precision="fp32"
    )
    return train(options).path


@pytest.fixture
def options(run, tiny_store, tiny_model, tmp_path) -> EvaluateOptions:
    """The run against the untouched model, by speaker."""
    return EvaluateOptions(
        str(run),
        str(tiny_store.path),
        against=str(tiny_model),
        out=tmp_path / "evaluation",
        by="speaker",
        resamples=200,
    )


def test_rows_and_records_are_what_the_contract_says(options, tiny_store):
    rows = evaluate(options).rows
    results = read_json(options.out / "results.json")
    assert results["rows"] == rows and results["complete"]
    assert {"date", "commit", "hardware", "source", "attribution"} <= set(results)
    names = [(row["model"], row["window"], row["set"]) for row in rows]
    models = [("base", "padded"), ("fine-tuned", "padded"), ("fine-tuned", "adaptive")]
    assert names == [(*model, speaker) for model in models for speaker in ("a", "b")]
    for row in rows:
        assert set(ROW_KEYS) <= set(row)
        assert 0 <= row["wer_low"] <= row["wer"] <= row["wer_high"]
        errors = row["substitutions"] + row["deletions"] + row["insertions"]
        assert row["wer"] == pytest.approx(errors / row["words"])
    records = read_jsonl(options.out / "hypotheses.jsonl")
    assert len(records) == 3 * len(tiny_store.split("test"))
    assert all(set(RECORD_KEYS) <= set(record) for record in records)


def test_other_people_stand_beside_the_test_set_or_it_says_that_nobody_knows(options, tiny_store):
    alone = replace(options, by="all")
    evaluate(alone)
    assert any("--general" in note for note in read_json(alone.out / "results.json")["notes"])
    both = replace(alone, general=str(tiny_store.path), out=options.out.parent / "both")
    rows = evaluate(both).rows
    assert [row["set"] for row in rows] == ["test", "general:tiny"] * 3
    for test, general in zip(rows[::2], rows[1::2], strict=True):
        assert test["wer"] == general["wer"]  # the same clips
    results = read_json(both.out / "results.json")
    assert {one["set"] for one in results["verdicts"]} == {"test", "general:tiny"}
    assert not any("--general" in note for note in results["notes"])
    assert {row["set"] for row in read_evaluation(both.out).rows} == {"test"}


def test_records_are_joined_by_id_and_add_up_to_the_rows(options, tiny_store):
    rows = evaluate(options).rows
    truth = {row.id: row.text for row in tiny_store.split("test")}
    records = read_jsonl(options.out / "hypotheses.jsonl")
    assert all(record["reference"] == truth[record["id"]] for record in records)
    for row in rows:
        mine = [r for r in records if all(r[name] == row[name] for name in ("model", "window", "set"))]
        again = score([r["reference"] for r in mine], [r["hypothesis"] for r in mine])
        assert (again.wer, again.cer, len(mine)) == (row["wer"], row["cer"], row["utterances"])


def test_what_was_measured_is_not_measured_again(options, monkeypatch):
    decoded = []
    original = Transcriber.decode
    monkeypatch.setattr(
        Transcriber, "decode", lambda self, mels, margin: decoded.append(1) or original(self, mels, margin)
    )
    first = evaluate(replace(options, model=options.against, against=None)).rows
    count = len(decoded)
    rows = evaluate(options).rows
    assert [row for row in rows if row["model"] == "base"] == first
    after = len(decoded)
    assert after > count and evaluate(options).rows == rows and len(decoded) == after


def test_other_clips_or_options_are_measured_anew(options):
    rows = evaluate(options).rows
    dev = evaluate(replace(options, split="dev")).rows
    assert {row["utterances"] for row in dev} != {row["utterances"] for row in rows}
    whole = evaluate(replace(options, by="all")).rows
    assert [row["set"] for row in whole] == ["test"] * 3


def test_interrupted_it_keeps_the_rows_it_has(options):
    def stop(progress):
        if "fine-tuned" in progress.stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(options, stop)
    results = read_json(options.out / "results.json")
    assert not results["complete"] and {row["model"] for row in results["rows"]} == {"base"}
    assert len(evaluate(options).rows) == 6


def test_both_engines_say_the_same(run, tiny_store):
    mels = [row.log_mel() for row in tiny_store.split("test")]
    texts = [
        [one.text for one in Transcriber(str(run), "es", engine).decode(mels)] for engine in ("torch", "ctranslate2")
    ]
    assert len(texts[0]) == len(mels) and any(texts[0])
    assert score(*texts).cer < 0.35  # int8 against float32 on random weights: close, not equal


def test_wrong_requests_are_explained(options):
    with pytest.raises(RequestError, match="Hub id"):
        evaluate(replace(options, model="nobody"))
    with pytest.raises(RequestError, match="feature store"):
        evaluate(replace(options, source="nowhere"))
    with pytest.raises(RequestError, match="'validation'"):
        evaluate(replace(options, split="validation"))
    with pytest.raises(LenguaError, match="languages"):
        evaluate(replace(options, language="klingon"))


def test_the_base_that_a_model_was_made_from_is_its_opponent(options, tiny_model):
    results = told(replace(options, against=None, by="all"))
    assert results["against"] == str(tiny_model) and {row["model"] for row in results["rows"]} == {"base", "fine-tuned"}
    alone = told(replace(options, against="none", by="all"))
    assert alone["against"] is None and {row["model"] for row in alone["rows"]} == {"fine-tuned"}
    assert {row["model"] for row in told(replace(options, model=str(tiny_model), against=None))["rows"]} == {"base"}


def test_what_is_wrong_and_whether_it_was_learned_stands_beside_the_rows(options, tiny_store):
    results = told(replace(options, by="all"))
    assert results["about"] == "fine-tuned, adaptive" and results["findings"][0]["cause"]
    assert results["leaks"]["utterances"] == 5 == results["leaks"]["clean"] + results["leaks"]["near"]
    assert len(results["models"]) == 3 and {group["key"] for group in results["groups"]} >= {"speaker", "duration"}
    page = (options.out / "report.html").read_text(encoding="utf-8")
    assert results["findings"][0]["cause"] in page and tiny_store.split("test")[0].text in page
    assert page.count("<audio") == len({one["id"] for one in read_jsonl(options.out / "hypotheses.jsonl")})


def test_a_leaked_clip_is_counted_and_left_out_beside(options, tiny_store, tmp_path):
    """The same split, measured by a model whose run learned from it."""
    leaky = copy_with_test_in_train(tiny_store.path, tmp_path / "leaky")
    results = told(replace(options, model=options.against, against=None, source=str(leaky), by="all"))
    assert results["leaks"]["id"] == 2 and "2 as they are" in results["notes"][0]
    [part] = results["models"]
    assert part["without_leaks"]["clips"] == 3
    [row] = results["rows"]
    assert row["wer_without_leaks"] == part["without_leaks"]["wer_without"]
    assert "2 as they are" in (options.out / "report.html").read_text(encoding="utf-8")


def test_other_languages_are_sets_of_their_own(options, tiny_store):
    results = told(replace(options, by="all", probes=(str(tiny_store.path),)))
    assert [row["set"] for row in results["rows"]] == ["test", str(tiny_store.path)] * 3
    assert set(results["probes"]) == {"base", "fine-tuned"}
    assert set(results["probes"]["base"]) == {"language", "timestamps", "silence", "noise"}
    assert results["models"][0]["autopsy"]["utterances"] == 5, "what is laid open is the test set alone"


def told(options: EvaluateOptions) -> dict:
    """Return results.json of an evaluation."""
    evaluate(options)
    return read_json(options.out / "results.json")


def copy_with_test_in_train(store, out):
    """Return a copy of a store whose train split has two clips of test as well."""
    shutil.copytree(store, out)
    manifest = read_json(out / "manifest.json")
    opened = open_store(store)
    rows = [*opened.split("train"), *islice(opened.split("test"), 2)]
    write_shard(out / "train/shard-00000.parquet", rows)
    manifest["splits"]["train"]["utterances"] = len(rows)
    write_json(out / "manifest.json", manifest)
    return out


# What is not as it should be


@pytest.fixture
def model(tiny_model, tmp_path) -> Path:
    """A copy of the tiny model, to be spoiled."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model", ignore=shutil.ignore_patterns("ctranslate2")))


def options_of(model: Path, store, tmp_path: Path, **more) -> EvaluateOptions:
    return EvaluateOptions(str(model), str(store.path), out=tmp_path / "evaluation", resamples=100, **more)


@pytest.mark.parametrize("engine", ["ctranslate2", "torch"])
def test_a_model_without_a_generation_config_is_measured_or_refused_plainly(engine, model, tiny_store, tmp_path):
    (model / "generation_config.json").unlink()
    try:
        rows = evaluate(options_of(model, tiny_store, tmp_path, engine=engine)).rows
    except LenguaError as error:
        assert "generation_config.json" in str(error)
    else:
        assert rows[0]["utterances"] == 5


def test_a_tokenizer_of_another_model_is_refused(model, tiny_store, tmp_path):
    config = read_json(model / "config.json")
    write_json(model / "config.json", config | {"decoder_start_token_id": 50258})
    with pytest.raises(RequestError, match=r"tokenizer.*decoder_start_token_id"):
        evaluate(options_of(model, tiny_store, tmp_path))


def test_an_empty_split_is_refused(model, tiny_store, tmp_path):
    store = Path(shutil.copytree(tiny_store.path, tmp_path / "store"))
    manifest = read_json(store / "manifest.json")
    manifest["splits"]["test"] |= {"utterances": 0, "shards": 0}
    write_json(store / "manifest.json", manifest)
    shutil.rmtree(store / "test")
    with pytest.raises(RequestError, match="test"):
        evaluate(EvaluateOptions(str(model), str(store), out=tmp_path / "evaluation"))


def test_another_language_than_that_of_the_references_is_told(model, tiny_store, tmp_path):
    options = options_of(model, tiny_store, tmp_path, language="sv")
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
