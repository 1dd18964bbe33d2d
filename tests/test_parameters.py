"""Trainable parameters: frozen ones stay, LoRA leaves a plain Whisper, every way resumes exactly, weights are mixed."""

from dataclasses import replace

import pytest
import torch
from conftest import assert_it_resumes_exactly, tiny_trainer, tiny_training
from transformers import WhisperForConditionalGeneration

from lengua.models.checkpoints import load_tokenizer
from lengua.models.whisper import AdaptiveWhisper, load_model
from lengua.options import TrainOptions
from lengua.runtime.files import read_json, read_jsonl
from lengua.training import parameters
from lengua.training.dataset import ClipDataset, Collator
from lengua.training.samplers import SampledClip
from lengua.training.train import train
from lengua.training.trainer import token_loss

EVERY_WAY = ("all", "decoder", "lora")
PER_LAYER = {"encoder": 6, "decoder": 10}


@pytest.fixture
def options(tiny_store, tiny_model, tmp_path) -> TrainOptions:
    """Six steps of four clips, two evaluations."""
    return tiny_training(
        str(tiny_store.path),
        tiny_model,
        tmp_path / "run",
        language="es",
        evaluations=2,
        learning_rate=1e-3,
        lora_rank=4,
    )


@pytest.fixture
def batch(tiny_store, tiny_model) -> dict[str, torch.Tensor]:
    """Four clips as the model reads them."""
    clips = ClipDataset(tiny_store.split("train"))
    return Collator(load_tokenizer(tiny_model), "es")([clips[SampledClip(index, 96)] for index in range(4)])


def weights(folder) -> dict[str, torch.Tensor]:
    """Return the weights of a model folder as plain transformers loads them, none missing and none left over."""
    model, info = WhisperForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    return model.state_dict()


def moved(before: dict, after: dict) -> set[str]:
    """Return the names of the weights that are not what they were."""
    assert set(before) == set(after)
    return {name for name in before if not torch.equal(before[name], after[name])}


def gradients(options, tiny_model, batch) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """Return the gradients of one batch, and how often the last norm of the layers of each side was computed."""
    torch.manual_seed(17)
    model = load_model(tiny_model, "es")
    model.config.use_cache = False
    learner = parameters.prepare_model(model, options).train()
    count = dict.fromkeys(PER_LAYER, 0)
    for side in count:
        layer = model.model.get_submodule(side).layers[0]
        layer.final_layer_norm.register_forward_hook(lambda *_, side=side: count.update({side: count[side] + 1}))
    if options.learn == "lora":  # whose second factor begins as zero, and so do the first one's gradients
        for name, parameter in learner.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    token_loss(learner(**inputs), batch["labels"]).backward()
    return {name: one.grad for name, one in learner.named_parameters() if one.grad is not None}, count


# What learns


@pytest.mark.parametrize("learn", EVERY_WAY)
def test_what_learns_moves_and_the_rest_does_not_in_a_plain_whisper(learn, options, tiny_model):
    run = train(replace(options, learn=learn))
    before, after = weights(tiny_model), weights(run.model)
    matrices = tuple(f"{name}.weight" for name in parameters.LORA_TARGET_MODULES)
    expected = {
        "all": set(before) - {"model.encoder.embed_positions.weight"},
        "decoder": {name for name in before if name.startswith(("model.decoder", "proj_out"))},
        "lora": {name for name in before if ".layers." in name and name.endswith(matrices)},
    }
    assert moved(before, after) == expected[learn] and len(expected["lora"]) == sum(PER_LAYER.values())
    assert not any("adapter" in path.name for path in run.model.iterdir())
    assert read_json(run.model / "config.json") == read_json(tiny_model / "config.json")
    assert not (options.out / "checkpoints").exists()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_nothing_of_a_frozen_encoder_is_kept_for_the_backward_pass(checkpointing, options, tiny_model, batch):
    """What makes it cheaper: no graph, no activations in memory, no backward pass through it."""
    kept = {}
    for learn in ("all", "decoder"):
        model = load_model(tiny_model, "es")
        learner = parameters.prepare_model(
            model, replace(options, learn=learn, gradient_checkpointing=checkpointing)
        ).train()
        kept[learn] = []
        with torch.autograd.graph.saved_tensors_hooks(kept[learn].append, lambda nothing: None):
            heard = learner.model.encoder(batch["input_features"]).last_hidden_state
        assert heard.requires_grad == (learn == "all")
    assert len(kept["decoder"]) == 0 and len(kept["all"]) > 2


# LoRA


@torch.no_grad()
def test_the_saved_model_says_what_the_trained_one_said(options, tiny_store, tiny_model, batch, tmp_path):
    from lengua.models.checkpoints import save_model

    trainer = tiny_trainer(replace(options, learn="lora"), tiny_store)
    with torch.enable_grad():
        trainer.train()
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    learner = trainer.model.eval()
    said, written = learner(**inputs).logits, learner.generate(batch["input_features"], max_new_tokens=8)
    plain = load_model(tiny_model, "es").eval()
    assert not torch.allclose(plain(**inputs).logits, said, atol=1e-3), "it did learn"
    model = parameters.merge_lora(learner)
    assert type(model) is AdaptiveWhisper and parameters.merge_lora(model) is model
    torch.testing.assert_close(model(**inputs).logits, said, atol=1e-4, rtol=1e-4)
    save_model(model, tiny_model, tmp_path / "saved", trainer.note)
    saved = load_model(tmp_path / "saved", "es").eval()
    assert torch.equal(saved(**inputs).logits, model(**inputs).logits)
    assert torch.equal(saved.generate(batch["input_features"], max_new_tokens=8), written)


def test_dev_is_measured_by_generation_of_the_adapted_model(options, tiny_store):
    """LoRA begins as nothing: the same WER as the base; then it is not nothing."""
    base = tiny_trainer(options, tiny_store).evaluate()
    trainer = tiny_trainer(replace(options, learn="lora"), tiny_store)
    fresh = trainer.evaluate()
    for measure in ("eval_wer", "eval_insertions", "eval_loss"):
        assert fresh[measure] == pytest.approx(base[measure], rel=1e-5)
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:
                parameter += 0.5
    assert trainer.evaluate()["eval_loss"] != pytest.approx(base["eval_loss"], rel=1e-2)


# Memory, and the loss


@pytest.mark.parametrize("learn", EVERY_WAY)
def test_checkpointing_computes_twice_and_comes_to_the_same_gradients(learn, options, tiny_model, batch):
    plain, once = gradients(replace(options, learn=learn), tiny_model, batch)
    same, twice = gradients(replace(options, learn=learn, gradient_checkpointing=True), tiny_model, batch)
    assert once == {"encoder": 1, "decoder": 1}
    assert twice == {"encoder": 1 if learn == "decoder" else 2, "decoder": 2}
    assert set(plain) == set(same) and len(plain) > 20
    assert any(".encoder." in name for name in plain) == (learn != "decoder")
    for name, gradient in plain.items():
        torch.testing.assert_close(same[name], gradient)
        assert gradient.abs().max() > 0 or ".k_proj.bias" in name, f"{name} learns nothing"


@pytest.mark.parametrize("learn", ["all", "lora"])
def test_the_loss_is_that_of_the_whole_batch_however_it_is_gathered(learn, options):
    """All 15 clips of an epoch at once, and in three parts."""
    whole = replace(options, learn=learn, steps=1, evaluations=1, window="padded", batch_size=15)
    thirds = replace(whole, batch_size=5, accumulation=3, gradient_checkpointing=True)
    seen = []
    for name, run in (("whole", whole), ("thirds", thirds)):
        history = read_jsonl(train(replace(run, out=options.out / name)).path / "history.jsonl")
        seen += [record["train_loss"] for record in history if "train_loss" in record]
    assert len(seen) == 2 and seen[0] == pytest.approx(seen[1], rel=1e-4)


# Resuming


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"learn": "decoder", "spec_augment": True},
        {"window": "packed", "spec_augment": True, "timestamps_share": 0.5},
        {"learn": "lora", "window": "packed", "gradient_checkpointing": True, "accumulation": 2},
    ],
    ids=lambda change: " ".join(map(str, change.values())),
)
def test_interrupted_it_goes_on_to_the_same_losses_and_weights(change, options):
    assert_it_resumes_exactly(replace(options, steps=15, evaluations=3, **change))
    whole, resumed = (weights(out / "model") for out in (options.out, options.out.parent / "cut"))
    for name, weight in whole.items():
        torch.testing.assert_close(resumed[name], weight, atol=1e-5, rtol=1e-4)


# Windows and masks in training


def test_a_packed_run_sees_every_clip_once_an_epoch_and_is_measured_padded(options, tiny_store):
    trainer = tiny_trainer(replace(options, window="packed", batch_size=6), tiny_store)
    tokenizer, texts = trainer.vocabulary, []
    loader = trainer.get_train_dataloader()
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert len(batches) == len(loader) == 3 and max(one["input_features"].shape[2] for one in batches) <= 100
        written = [tokenizer.decode([i for i in ids if 0 <= i < 264]) for b in batches for ids in b["labels"].tolist()]
        texts.append(sorted(" ".join(written).split()))
    assert texts[0] == texts[1] == sorted(" ".join(trainer.train_split.column("text")).split())
    assert {one["input_features"].shape[2] for one in trainer.get_eval_dataloader()} == {100}
    assert (trainer.note.window, trainer.note.margin_s, trainer.note.decode_margin_s) == ("padded", (0.0, 0.0), None)
