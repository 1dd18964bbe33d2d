"""train() end to end on a tiny model: losses, checkpoints, resumption, history, and curves for trackers."""

import sqlite3
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT, interrupting, tiny_training
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from lengua.models.checkpoints import load_tokenizer, read_note
from lengua.models.tokens import IGNORE_INDEX, decode_text
from lengua.options import TrainOptions
from lengua.runtime.errors import RequestError
from lengua.runtime.files import read_json, read_jsonl
from lengua.training import callbacks, hardware
from lengua.training.arguments import total_steps, training_arguments
from lengua.training.data import TrainingData
from lengua.training.train import train
from lengua.training.trainer import build_trainer, token_loss


@pytest.fixture
def options(tiny_store, tiny_model, tmp_path) -> TrainOptions:
    """Six steps of four clips, two evaluations."""
    return tiny_training(str(tiny_store.path), tiny_model, tmp_path / "run", evaluations=2, learning_rate=1e-3)


@pytest.fixture
def trainer(options, tiny_store, tiny_model):
    """The trainer of these options, as the stage builds it."""
    from lengua.models.whisper import load_model

    resolved = replace(options, language="es")
    return build_trainer(
        load_model(tiny_model, "es"),
        tiny_model,
        TrainingData(tiny_store, tiny_store.split("train")),
        resolved,
    )


def losses(run) -> dict[int, float]:
    """Return {step: loss} of a run's history."""
    return {record["step"]: record["loss"] for record in read_jsonl(run / "history.jsonl") if "loss" in record}


def test_a_run_leaves_a_plain_whisper_and_its_record(options):
    seen = []
    result = train(options, seen.append)
    assert result.steps == 6 and result.dev_wer > 0 and result.model == options.out / "model"
    assert sorted(path.name for path in options.out.iterdir()) == ["history.jsonl", "model", "run.json"]
    run = read_json(options.out / "run.json")
    assert run["finished"] and run["options"]["language"] == "es" and run["options"]["seed"] == 17
    assert {"versions", "commit", "hardware", "base_weights", "seconds"} <= set(run)
    history = read_jsonl(options.out / "history.jsonl")
    measured = [record for record in history if "dev_wer" in record]
    assert [record["step"] for record in measured] == [3, 6]
    for record in measured:
        errors = sum(record[f"dev_{kind}"] for kind in ("substitutions", "deletions", "insertions"))
        assert record["dev_wer_low"] <= record["dev_wer"] <= record["dev_wer_high"] and errors > 0
        assert len(record["worst"]) == 2 and set(record["worst"][0]) == {"reference", "hypothesis"}
    remarks = [progress.note for progress in seen if progress.stage == "dev"]
    assert len(remarks) == 2 and "S / D / I" in remarks[0] and remarks[0].count("hypothesis") == 2
    assert [progress.done for progress in seen if progress.stage == "training"][-1] == 6
    model = WhisperForConditionalGeneration.from_pretrained(result.model)
    assert model.config.use_cache and model.config.architectures == ["WhisperForConditionalGeneration"]
    assert model.generation_config.language == "es" and model.generation_config.forced_decoder_ids is None
    assert WhisperProcessor.from_pretrained(result.model).tokenizer.pad_token == "<|endoftext|>"
    note = read_note(result.model)
    assert (note.window, note.margin_s, note.language) == ("adaptive", (0.0, 0.1), "es")


def test_the_best_checkpoint_on_dev_is_kept_and_not_the_last(options, monkeypatch):
    from lengua.training.trainer import AdaptiveTrainer

    kept = {}
    rest = dict.fromkeys("wer_low wer_high substitutions deletions insertions looped".split(), 0.0)
    for name, measures in (("first", [0.4, 0.9]), ("last", [0.9, 0.4])):
        measured = iter(measures)
        monkeypatch.setattr(
            AdaptiveTrainer, "_measure", lambda self, prediction, measured=measured: rest | {"wer": next(measured)}
        )
        result = train(replace(options, out=options.out / name))
        assert result.dev_wer == 0.4
        kept[name] = WhisperForConditionalGeneration.from_pretrained(result.model).proj_out.weight
    assert not torch.equal(kept["first"], kept["last"])  # step 3 on the one side, step 6 on the other


def test_training_moves_the_loss(options, trainer):
    result = train(replace(options, steps=60, evaluations=1))
    history = list(losses(result.path).values())
    assert history[-1] < 0.8 * history[0]


def test_interrupted_it_saves_and_goes_on_to_the_same_losses(options):
    options = replace(options, steps=15, evaluations=3)
    train(options)
    cut = replace(options, out=options.out.parent / "cut")

    with pytest.raises(KeyboardInterrupt, match=r"step [78] of 15"):
        train(cut, interrupting(7))
    assert not (cut.out / "model").exists() and list((cut.out / "checkpoints").glob("checkpoint-[78]"))
    train(cut)
    whole, resumed = losses(options.out), losses(cut.out)
    assert set(resumed) == set(whole) == {5, 10, 15}
    np.testing.assert_allclose([resumed[s] for s in (5, 15)], [whole[s] for s in (5, 15)], rtol=1e-4)


def test_a_torn_history_does_not_stop_a_resume_and_seconds_run_on(options):
    with pytest.raises(KeyboardInterrupt):
        train(options, interrupting(4))
    history = options.out / "history.jsonl"
    before = read_jsonl(history)
    with open(history, "a") as file:
        file.write('{"step": 4, "lo')
    train(options)
    seconds = [record["seconds"] for record in read_jsonl(history)]
    assert seconds == sorted(seconds) and read_jsonl(history)[: len(before)] == before


def test_a_finished_run_is_not_trained_again(options):
    first = train(options)
    before = (options.out / "model/model.safetensors").stat().st_mtime_ns
    assert train(options) == first
    assert (options.out / "model/model.safetensors").stat().st_mtime_ns == before


def test_other_options_in_the_same_folder_are_named(options):
    train(options)
    with pytest.raises(RequestError, match=r"learning_rate was 0\.001, is 0\.005"):
        train(replace(options, learning_rate=5e-3))
    assert train(replace(options, learning_rate=5e-4, resume=False)).steps == 6


def test_a_folder_of_other_things_is_refused_and_left_alone(options):
    options.out.mkdir()
    (options.out / "thesis.docx").write_text("mine")
    with pytest.raises(RequestError, match="other things"):
        train(options)
    assert [path.name for path in options.out.iterdir()] == ["thesis.docx"]


def test_a_source_is_built_into_the_run_first(options, tiny_folder):
    result = train(replace(options, source=tiny_folder, language="spanish", steps=2))
    assert (result.path / "store/manifest.json").is_file() and result.steps == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"margin_s": (1.5, 0.3)}, "LOW <= HIGH"),
        ({"language": "klingon"}, "languages"),
        ({"source": "nowhere"}, "feature store"),
        ({"base": "nobody"}, "Hub id"),
    ],
)
def test_wrong_requests_are_explained(options, change, message):
    with pytest.raises(RequestError, match=message):
        train(replace(options, **change))


def test_trap_3_dev_wer_comes_from_free_running_generation(trainer, tiny_model):
    tokenizer = load_tokenizer(tiny_model)
    metrics = trainer.evaluate()
    heard = []
    for batch in trainer.get_eval_dataloader():
        tokens = trainer.model.generate(batch["input_features"], max_new_tokens=24, num_beams=1)
        heard += [decode_text(tokenizer, ids) for ids in tokens.tolist()]
    from lengua.scoring import score

    references = [
        decode_text(tokenizer, ids) for batch in trainer.get_eval_dataloader() for ids in batch["labels"].tolist()
    ]
    assert sorted(references) == sorted(trainer.dev_split.column("text"))
    assert metrics["eval_wer"] == pytest.approx(score(references, heard).wer, abs=0.5)
    assert metrics["eval_wer"] > 0.5  # an untrained model cannot be good; teacher forcing would flatter it


def test_trap_7_the_loss_does_not_grow_with_accumulation(options):
    whole = replace(options, steps=1, evaluations=1, batch_size=8, window="padded", out=options.out / "whole")
    halves = replace(whole, batch_size=4, accumulation=2, out=options.out / "halves")
    runs = {}
    for name, run in (("whole", whole), ("halves", halves)):
        train(run)
        runs[name] = next(r for r in read_jsonl(run.out / "history.jsonl") if "train_loss" in r)["train_loss"]
    assert runs["halves"] == pytest.approx(runs["whole"], rel=0.25)  # other clips, the same size; twice would be 2.0


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
    from lengua.models.whisper import load_model
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
    options = TrainOptions(
        str(store.path), tmp_path / "run", window="padded", language="es", precision="fp32", batch_size=6, device="cpu"
    )
    trainer = build_trainer(
        load_model(base_model, "es"),
        base_model,
        TrainingData(store, store.split("train")),
        options,
    )
    in_training = trainer.evaluate()["eval_wer"]
    dev = store.split("dev")
    decoded = Transcriber(str(base_model), "es", engine="torch").decode([row.log_mel() for row in dev], None)
    from lengua.scoring import wer

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
    train(replace(options, steps=1, evaluations=1))
    assert (options.out / "trackio/old").is_file()
    train(replace(options, steps=1, evaluations=1, resume=False))
    assert not any((options.out / name).exists() for name in callbacks.TRACKER_FOLDERS)
