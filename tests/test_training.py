"""train() end to end on a tiny model: losses, resumption, history, and curves for trackers."""

import sqlite3
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT, interrupting, losses, tiny_trainer, tiny_training
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from lengua.models.checkpoints import load_tokenizer, read_note
from lengua.models.tokens import IGNORE_INDEX, decode_text
from lengua.options import TrainOptions
from lengua.runtime.errors import RequestError
from lengua.runtime.files import read_json, read_jsonl
from lengua.scoring import score, wer
from lengua.training import callbacks, hardware
from lengua.training.train import train
from lengua.training.trainer import token_loss, total_steps, training_arguments


@pytest.fixture
def options(tiny_store, tiny_model, tmp_path) -> TrainOptions:
    """Six steps of four clips, two evaluations."""
    return tiny_training(str(tiny_store.path), tiny_model, tmp_path / "run", evaluations=2, learning_rate=1e-3)


@pytest.fixture(scope="module")
def finished(tiny_store, tiny_model, tmp_path_factory) -> tuple:
    """Options, result and progress of such a run that went through; nobody changes it."""
    out, seen = tmp_path_factory.mktemp("finished") / "run", []
    options = tiny_training(str(tiny_store.path), tiny_model, out, evaluations=2, learning_rate=1e-3)
    return options, train(options, seen.append), seen


@pytest.fixture
def trainer(options, tiny_store):
    return tiny_trainer(replace(options, language="es"), tiny_store)


def test_a_run_leaves_a_plain_whisper_and_its_record(finished):
    options, result, seen = finished
    assert result.steps == 6 and result.dev_wer > 0 and result.model == options.out / "model"
    assert sorted(path.name for path in options.out.iterdir()) == ["history.jsonl", "model", "run.json"]
    run = read_json(options.out / "run.json")
    assert run["finished"] and run["stopped"] is None
    assert run["options"]["language"] == "es" and run["options"]["seed"] == 17
    assert {"versions", "commit", "hardware", "base_weights", "seconds"} <= set(run)
    measured = [record for record in read_jsonl(options.out / "history.jsonl") if "dev_wer" in record]
    assert [record["step"] for record in measured] == [3, 6]
    for record in measured:
        errors = sum(record[f"dev_{kind}"] for kind in ("substitutions", "deletions", "insertions"))
        assert record["dev_wer_low"] <= record["dev_wer"] <= record["dev_wer_high"] and errors > 0
        assert len(record["worst"]) == 2 and set(record["worst"][0]) == {"reference", "hypothesis"}
    remarks = [progress.note for progress in seen if progress.stage == "dev"]
    assert len(remarks) == 3 and "base" in remarks[0] and "S / D / I" in remarks[1]
    assert remarks[1].count("hypothesis") == 2 and run["base_dev_wer"] > 0 and result.verdict == run["verdict"]
    assert [progress.done for progress in seen if progress.stage == "training"][-1] == 6
    model = WhisperForConditionalGeneration.from_pretrained(result.model)
    assert model.config.use_cache and model.config.architectures == ["WhisperForConditionalGeneration"]
    assert model.generation_config.language == "es" and model.generation_config.forced_decoder_ids is None
    assert WhisperProcessor.from_pretrained(result.model).tokenizer.pad_token == "<|endoftext|>"
    note = read_note(result.model)
    assert (note.window, note.margin_s, note.language) == ("adaptive", (0.0, 0.1), "es")


def test_training_moves_the_loss(options):
    result = train(replace(options, steps=60, evaluations=1))
    history = list(losses(result.path).values())
    assert history[-1] < 0.8 * history[0]


def test_a_finished_run_is_not_trained_again_and_other_options_are_refused(finished):
    options, result, _ = finished
    before = (options.out / "model/model.safetensors").stat().st_mtime_ns
    assert train(options) == result
    with pytest.raises(RequestError, match=r"learning_rate was 0\.001, is 0\.005"):
        train(replace(options, learning_rate=5e-3))
    assert (options.out / "model/model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("learn", ["all", "lora"])
def test_the_best_checkpoint_on_dev_is_kept_and_not_the_last(options, monkeypatch, learn):
    kept, rest = {}, dict.fromkeys("wer_low wer_high substitutions deletions insertions looped".split(), 0.0)
    for name, wers in (("first", [0.8, 0.4, 0.9]), ("last", [0.8, 0.9, 0.4])):
        measures = iter([rest | {"wer": rate} for rate in wers])
        monkeypatch.setattr(callbacks.DevEvaluation, "measure", lambda *given, measures=measures: next(measures))
        result = train(replace(options, learn=learn, out=options.out / name))
        assert result.dev_wer == 0.4
        layers = WhisperForConditionalGeneration.from_pretrained(result.model).model.decoder.layers
        kept[name] = layers[0].fc1.weight
    assert not torch.equal(kept["first"], kept["last"])  # step 3 on the one side, step 6 on the other


def test_interrupted_it_saves_and_resumes_to_the_same_losses_in_spite_of_a_torn_history(options):
    options = replace(options, steps=15, evaluations=3)
    train(options)
    cut = replace(options, out=options.out.parent / "cut")
    with pytest.raises(KeyboardInterrupt, match=r"step [78] of 15"):
        train(cut, interrupting(7))
    assert not (cut.out / "model").exists() and list((cut.out / "checkpoints").glob("checkpoint-[78]"))
    history = cut.out / "history.jsonl"
    before = read_jsonl(history)
    with open(history, "a") as file:
        file.write('{"step": 8, "lo')
    train(cut)
    whole, resumed = losses(options.out), losses(cut.out)
    assert set(resumed) == set(whole) == {5, 10, 15}
    np.testing.assert_allclose([resumed[s] for s in (5, 15)], [whole[s] for s in (5, 15)], rtol=1e-4)
    seconds = [record["seconds"] for record in read_jsonl(history)]
    assert seconds == sorted(seconds) and read_jsonl(history)[: len(before)] == before


def test_a_folder_of_other_things_is_refused_and_left_alone(options):
    options.out.mkdir()
    (options.out / "thesis.docx").write_text("mine")
    with pytest.raises(RequestError, match="other things"):
        train(options)
    assert [path.name for path in options.out.iterdir()] == ["thesis.docx"]


def test_a_source_is_built_into_the_run_first(options, tiny_folder):
    result = train(replace(options, source=tiny_folder, language="spanish", steps=2))
    assert (result.path / "store/manifest.json").is_file() and result.steps == 2


def test_trap_3_dev_wer_comes_from_free_running_generation(trainer, tiny_model):
    tokenizer = load_tokenizer(tiny_model)
    metrics = trainer.evaluate()
    heard = []
    for batch in trainer.get_eval_dataloader():
        tokens = trainer.model.generate(batch["input_features"], max_new_tokens=24, num_beams=1)
        heard += [decode_text(tokenizer, ids) for ids in tokens.tolist()]
    references = [
        decode_text(tokenizer, ids) for batch in trainer.get_eval_dataloader() for ids in batch["labels"].tolist()
    ]
    assert sorted(references) == sorted(trainer.dev_split.column("text"))
    assert metrics["eval_wer"] == pytest.approx(score(references, heard).wer, abs=0.5)
    assert metrics["eval_wer"] > 0.5  # an untrained model cannot be good; teacher forcing would flatter it


def test_trap_7_token_loss_is_the_mean_over_all_tokens_of_the_accumulated_batch():
    logits, labels = torch.randn(4, 6, 11), torch.randint(0, 11, (4, 6))
    labels[0, :5] = IGNORE_INDEX  # batches with unlike numbers of tokens, where a mean of means goes wrong
    alone = token_loss({"logits": logits}, labels)
    count = labels.ne(IGNORE_INDEX).sum()
    parts = [token_loss({"logits": logits[part]}, labels[part], count) for part in (slice(0, 1), slice(1, 4))]
    assert sum(parts) == pytest.approx(float(alone), rel=1e-5)
    expected = torch.nn.functional.cross_entropy(logits.view(-1, 11), labels.view(-1), ignore_index=IGNORE_INDEX)
    assert float(alone) == pytest.approx(float(expected), rel=1e-5)


def test_trap_8_every_clip_is_seen_once_an_epoch_in_buckets_of_like_length(trainer):
    loader = trainer.get_train_dataloader()
    loader.set_epoch(0)
    first = [tuple(batch["input_features"].shape) for batch in loader]
    loader.set_epoch(1)
    second = [tuple(batch["input_features"].shape) for batch in loader]
    assert sum(shape[0] for shape in first) == sum(shape[0] for shape in second) == len(trainer.train_split)
    assert first != second and max(shape[2] for shape in first) <= 100


def test_trap_12_precision_by_hardware(options):
    assert hardware.pick_precision("fp32", "cpu") == "fp32"
    assert hardware.pick_precision("auto", "cpu") == ("bf16" if hardware.cpu_has_bfloat16() else "fp32")
    arguments = training_arguments(replace(options, precision="bf16"), clips=10)
    assert arguments.bf16 and not arguments.fp16
    if not torch.cuda.is_available():
        with pytest.raises(RequestError, match="GPU"):
            hardware.pick_device("cuda")


def test_gradients_of_shared_positions_are_the_same_bits_every_time():
    positions, places = torch.zeros(40, 512, requires_grad=True), torch.arange(40).repeat(16, 1)
    noise, threads = torch.randn(16, 40, 512, generator=torch.Generator().manual_seed(3)), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with hardware.deterministic_sums("cpu"):
            sums = [torch.autograd.grad((positions[places] * noise).sum(), positions)[0] for _ in range(30)]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, sums[0]) for one in sums)
    assert torch.allclose(sums[0], noise.sum(0), atol=1e-4)
    assert not torch.are_deterministic_algorithms_enabled(), "what others compute is left alone"


@pytest.mark.parametrize(
    ("epochs", "batch", "accumulation", "steps"), [(1, 8, 1, 2), (2.0, 8, 1, 4), (1, 4, 2, 2), (0.1, 8, 1, 1)]
)
def test_steps_follow_from_epochs(options, epochs, batch, accumulation, steps):
    asked = replace(options, steps=None, epochs=epochs, batch_size=batch, accumulation=accumulation)
    assert total_steps(asked, clips=15) == steps


@pytest.mark.real
def test_dev_wer_in_training_agrees_with_the_transcriber(base_model, spoken_es, tmp_path):
    """The one other decode path that is allowed, held against Transcriber on real speech."""
    from lengua.data import features
    from lengua.data.store import open_store
    from lengua.inference import Transcriber
    from lengua.options import FeatureOptions

    lines = ["file_name,text,split"]
    for number, (path, text) in enumerate(list(spoken_es.items())[:8]):
        lines.append(f'{path.name},"{text}",{"dev" if number < 6 else "train"}')
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    built = features.build(
        FeatureOptions(f"folder:{tmp_path}", tmp_path / "store", language="es", splits=("train", "dev"))
    )
    store = open_store(built.path)
    more = {"window": "padded", "language": "es", "batch_size": 6}
    options = tiny_training(str(store.path), base_model, tmp_path / "run", **more)
    trainer = tiny_trainer(options, store)
    in_training = trainer.evaluate()["eval_wer"]
    dev = store.split("dev")
    decoded = Transcriber(str(base_model), "es", engine="torch").decode([row.log_mel() for row in dev], None)
    assert in_training == pytest.approx(wer([row.text for row in dev], [one.text for one in decoded]), abs=0.02)
    assert in_training < 0.8


def test_tensorboard_has_loss_and_wer_by_step_in_the_folder_of_the_run(options):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(replace(options, report_to=("tensorboard",), blend=True))
    assert sorted(path.name for path in options.out.iterdir()) == ["history.jsonl", "model", "run.json", "tensorboard"]
    events = accumulator.EventAccumulator(str(options.out / "tensorboard")).Reload()
    history = read_jsonl(options.out / "history.jsonl")
    for tag, key in (("eval/wer", "dev_wer"), ("train/loss", "loss")):
        drawn = {event.step: event.value for event in events.Scalars(tag)}
        assert drawn == pytest.approx({record["step"]: record[key] for record in history if key in record})
    assert len(events.Scalars("eval/wer")) == 2  # blending measures dev, too, but is no step


TRACKED = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from conftest import tiny_training
from lengua.training.train import train
store, model, out = sys.argv[1:]
train(tiny_training(store, Path(model), Path(out), evaluations=2, report_to=("trackio",)))
"""


@pytest.mark.slow
def test_trackio_writes_into_the_folder_of_the_run_and_nothing_to_standard_output(options, tmp_path, monkeypatch):
    """In a process of its own, for trackio reads its folder when it is imported."""
    pytest.importorskip("trackio")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("TRACKIO_DIR", raising=False)
    command = [sys.executable, "-c", TRACKED, options.source, options.base, str(options.out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and not (tmp_path / "home/trackio").exists()
    with sqlite3.connect(options.out / "trackio/run.db") as database:
        rows = [str(row) for row in database.execute("select * from metrics")]
    assert sum("eval/wer" in row for row in rows) == 2 and any("train/loss" in row for row in rows)


def test_what_is_not_installed_is_named_before_anything_is_built(options, monkeypatch):
    monkeypatch.setattr(callbacks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match="it is not installed; pip install tensorboard"):
        train(replace(options, report_to=("tensorboard",)))
    assert not options.out.exists()


def test_starting_over_draws_no_old_curves(options):
    for name in callbacks.TRACKER_FOLDERS:
        (options.out / name).mkdir(parents=True)
        (options.out / name / "old").write_text("")
    train(replace(options, steps=1, evaluations=1, resume=False))
    assert not any((options.out / name).exists() for name in callbacks.TRACKER_FOLDERS)
