"""Mixing base and fine-tuned weights in the end."""

from dataclasses import replace

import pytest
import torch
from conftest import tiny_training
from transformers import WhisperForConditionalGeneration

from lengua.runtime.files import read_json, read_jsonl
from lengua.training import parameters, train, trainer
from lengua.training.parameters import BLEND_ALPHAS, choose_alpha, describe_blend, interpolate_weights, weights_by_name


@pytest.fixture
def options(tiny_store, tiny_model, tmp_path):
    """Four steps of four clips, two evaluations, then the mixes."""
    more = {"steps": 4, "evaluations": 2, "learning_rate": 1e-3, "blend": True}
    return tiny_training(str(tiny_store.path), tiny_model, tmp_path / "run", **more)


def whisper(folder) -> WhisperForConditionalGeneration:
    return WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)


def test_a_mix_lies_on_the_way_and_its_ends_are_exact(tiny_model):
    model, base = whisper(tiny_model), weights_by_name(whisper(tiny_model))
    tuned = {name: weight + torch.randn_like(weight) for name, weight in base.items()}
    for alpha in BLEND_ALPHAS:
        interpolate_weights(model, base, tuned, alpha)
        for name, weight in weights_by_name(model).items():
            torch.testing.assert_close(weight, (1 - alpha) * base[name] + alpha * tuned[name], rtol=1e-5, atol=1e-6)
        for end, exact in ((0.0, base), (1.0, tuned)):
            if alpha == end:
                assert all(torch.equal(weight, exact[name]) for name, weight in weights_by_name(model).items())
    assert model.proj_out.weight.data_ptr() == model.model.decoder.embed_tokens.weight.data_ptr()  # still tied


@pytest.mark.parametrize(
    ("measured", "chosen"),
    [([0.9, 0.5, 0.4, 0.3, 0.31, 0.32], 0.6), ([0.3, 0.3, 0.3, 0.3, 0.3, 0.31], 0.8), ([0.5] * 6, 1.0)],
)
def test_the_lowest_wer_wins_and_of_equal_ones_the_nearest_to_the_fine_tuned(measured, chosen):
    assert choose_alpha(measured) == chosen


def test_the_table_is_told_in_a_line():
    told = describe_blend([0.5, 0.4, 0.3, 0.2, 0.1, 0.2], 0.8)
    assert "50.0% at 0, 40.0% at 0.2" in told and told.endswith("kept: 0.8")
    assert "training brought nothing" in describe_blend([0.1] * 6, 0.0)


def test_a_run_keeps_the_best_mix_and_tells_the_table(options, tiny_model, monkeypatch):
    """The lowest of what dev measures is made to be at 0.4, so that the mix differs from both ends."""
    looks = iter([0.9, 0.5, 0.9, 0.5, 0.8, 0.6, 0.2, 0.4, 0.5, 0.5])
    rest = dict.fromkeys("wer_low wer_high substitutions deletions insertions looped".split(), 0.0)
    monkeypatch.setattr(trainer.AdaptiveTrainer, "_measure", lambda self, prediction: rest | {"wer": next(looks)})
    plain = whisper(train(replace(options, blend=False, out=options.out.parent / "plain")).model)
    seen = []
    result = train(options, seen.append)
    run = read_json(options.out / "run.json")
    assert run["blend"] == {"alphas": list(BLEND_ALPHAS), "dev_wer": [0.8, 0.6, 0.2, 0.4, 0.5, 0.5], "chosen": 0.4}
    assert result.dev_wer == 0.2
    base, mixed = whisper(tiny_model), whisper(result.model)
    for name, weight in weights_by_name(mixed).items():
        expected = torch.lerp(weights_by_name(base)[name], weights_by_name(plain)[name], 0.4)
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-6)
    assert not torch.equal(mixed.proj_out.weight, plain.proj_out.weight)
    looks = [record["step"] for record in read_jsonl(options.out / "history.jsonl") if "dev_wer" in record]
    assert looks == [2, 4]  # those of blending are no steps
    assert [progress.note for progress in seen if progress.stage == "blend"][-1].endswith("kept: 0.4")
    assert mixed.config.use_cache


@pytest.mark.parametrize("learn", ["lora", "decoder"])
def test_it_mixes_what_lora_learned_and_leaves_a_frozen_encoder(options, tiny_model, learn, monkeypatch):
    chosen = {}
    monkeypatch.setattr(parameters, "choose_alpha", lambda measured: chosen.setdefault("alpha", 0.2))
    rate = 1e-2 if learn == "lora" else 1e-3
    result = train(replace(options, learn=learn, learning_rate=rate))
    base, mixed = weights_by_name(whisper(tiny_model)), weights_by_name(whisper(result.model))
    assert base.keys() == mixed.keys()
    moved = {name for name in base if not torch.equal(base[name], mixed[name])}
    assert moved and all(("decoder" in name) for name in moved) == (learn == "decoder")
    assert read_json(options.out / "run.json")["blend"]["chosen"] == 0.2


def test_the_fine_tuned_end_measures_what_the_best_checkpoint_did(options):
    """And the base's end what the base does: through the same generation as in training."""
    train(options)
    run = read_json(options.out / "run.json")
    best = min(record["dev_wer"] for record in read_jsonl(options.out / "history.jsonl") if "dev_wer" in record)
    assert run["blend"]["dev_wer"][-1] == pytest.approx(best)
    untouched = train(replace(options, learning_rate=1e-12, blend=False, out=options.out.parent / "untouched"))
    assert run["blend"]["dev_wer"][0] == pytest.approx(untouched.dev_wer)
