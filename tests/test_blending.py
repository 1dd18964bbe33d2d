"""What a run keeps of its weights and of the base's, and what it says of itself."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_trainer, tiny_training
from transformers import WhisperForConditionalGeneration

from lengua.data.streaming import Stream
from lengua.runtime.errors import RequestError
from lengua.runtime.files import read_json, read_jsonl
from lengua.training import blending
from lengua.training.blending import (
    BLEND_ALPHAS,
    choose_alpha,
    dev_has_strangers,
    interpolate_weights,
    judge,
    weights_by_name,
)
from lengua.training.callbacks import DevEvaluation
from lengua.training.train import train
from lengua.training.trainer import evenly_drawn

CLIPS, WORDS = 40, 5
STREAM = object.__new__(Stream)


def evaluation(wer: float, spread: int = 0) -> DevEvaluation:
    """Dev of 40 clips of five words; with a spread, errors come in lumps that no other evaluation shares."""
    errors = [round(wer * WORDS)] * CLIPS
    for clip in range(0, CLIPS, 4):
        lump = (clip * 7 + spread) % 3
        errors[clip] += spread * (lump == 0)
        errors[clip + 1] -= min(errors[clip + 1], spread * (lump == 0))
    return DevEvaluation(errors=errors, words=[WORDS] * CLIPS)


def whisper(folder) -> WhisperForConditionalGeneration:
    return WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)


@pytest.fixture
def options(tiny_store, tiny_model, tmp_path):
    """Four steps of four clips, two evaluations, then the mixes."""
    more = {"steps": 4, "evaluations": 2, "learning_rate": 1e-3, "blend": True}
    return tiny_training(str(tiny_store.path), tiny_model, tmp_path / "run", **more)


def test_a_mix_lies_on_the_way_and_its_ends_are_exact(tiny_model):
    model, base = whisper(tiny_model), weights_by_name(whisper(tiny_model))
    base = {name: weight.clone() for name, weight in base.items()}
    tuned = {name: weight + torch.randn_like(weight) for name, weight in base.items()}
    for alpha in (0.0, *BLEND_ALPHAS):
        interpolate_weights(model, base, tuned, alpha)
        for name, weight in weights_by_name(model).items():
            torch.testing.assert_close(weight, (1 - alpha) * base[name] + alpha * tuned[name], rtol=1e-5, atol=1e-6)
        for end, exact in ((0.0, base), (1.0, tuned)):
            if alpha == end:
                assert all(torch.equal(weight, exact[name]) for name, weight in weights_by_name(model).items())
    assert model.proj_out.weight.data_ptr() == model.model.decoder.embed_tokens.weight.data_ptr()  # still tied


def test_the_smallest_share_that_dev_cannot_tell_from_the_best_is_kept():
    clear = dict(zip(BLEND_ALPHAS, map(evaluation, (1.0, 0.8, 0.6, 0.4, 0.4, 0.6)), strict=True))
    assert choose_alpha(clear, {}) == 0.6
    noisy = clear | {0.4: evaluation(0.4, spread=2), 0.5: evaluation(0.4, spread=1)}
    assert noisy[0.4].wer >= noisy[0.6].wer and choose_alpha(noisy, {}) == 0.4
    assert choose_alpha({alpha: evaluation(0.4) for alpha in BLEND_ALPHAS}, {}) == BLEND_ALPHAS[0]


def test_at_most_half_is_kept_where_dev_has_no_strangers():
    shares = {alpha: evaluation(1.0 - alpha) for alpha in BLEND_ALPHAS}
    assert choose_alpha(shares, {}) == 1.0 and choose_alpha(shares, {}, most=0.5) == 0.5

    def strangers(dev: list, train: list | Stream) -> bool:
        split, other = SimpleNamespace(column=lambda name: dev), SimpleNamespace(column=lambda name: train)
        return dev_has_strangers(SimpleNamespace(dev_split=split, train_split=other if train != STREAM else STREAM))

    assert strangers(["c", "d"], ["a", "b"])
    assert not strangers(["a", "c"], ["a", "b"]) and not strangers([None, "c"], ["a"])
    assert strangers(list("abcdefghij"), STREAM) and not strangers(["a", "b"], STREAM)


@pytest.mark.parametrize(("worse_from", "kept"), [(1.0, 0.6), (0.6, 0.5), (0.5, 0.4), (0.3, 0.3)])
def test_no_share_is_kept_at_which_other_people_are_heard_worse(worse_from, kept):
    dev = dict(zip(BLEND_ALPHAS, map(evaluation, (1.0, 0.8, 0.6, 0.4, 0.4, 0.6)), strict=True))
    general = {alpha: evaluation(0.4 if alpha < worse_from else 0.6) for alpha in (0.0, *BLEND_ALPHAS)}
    assert choose_alpha(dev, general) == kept


def test_other_people_are_measured_and_told(options, tiny_store):
    train(replace(options, general=str(tiny_store.path)))
    run = read_json(options.out / "run.json")
    assert run["general_wer"].keys() == {"0", *(f"{alpha:g}" for alpha in BLEND_ALPHAS)}
    assert run["general_wer"]["0"] == pytest.approx(run["base_dev_wer"]) and "other people" in run["verdict"]
    assert list(run["general_wer"].values())[1:] == run["blend"]["dev_wer"]  # the same clips
    with pytest.raises(RequestError, match="feature store of other people"):
        train(replace(options, general="sample:es", out=options.out.parent / "other"))


@pytest.mark.parametrize(
    ("base", "tuned", "verdict"), [(0.8, 0.4, "better than"), (0.4, 0.4, "not shown"), (0.4, 0.8, "worse than")]
)
def test_the_verdict_begins_with_its_conclusion(base, tuned, verdict):
    one, other = evaluation(base), evaluation(tuned)
    sentence = judge(one, other, list(range(len(one.errors))))
    assert sentence.startswith(verdict) and ("rather use" in sentence) == (base <= tuned)


def test_a_verdict_on_some_clips_says_on_how_many():
    one, other = evaluation(0.8), evaluation(0.4)
    some = list(range(0, len(one.errors), 2))
    sentence = judge(one.of(some), other, some)
    assert f"on {len(some)} of {len(one.errors)} clips" in sentence and sentence.startswith("better than")
    assert "clips" not in judge(one, other, list(range(len(one.errors))))


def test_of_a_large_dev_the_base_is_measured_on_some_clips(options, tiny_store, monkeypatch):
    monkeypatch.setattr("lengua.training.trainer.MAX_BASE_CLIPS", 3)
    trainer = tiny_trainer(options, tiny_store)
    ids = trainer.dev_split.column("id")
    assert len(ids) > len(trainer.base_places) == 3 and trainer.base_places == sorted(trainer.base_places)
    assert {ids[::-1][place] for place in evenly_drawn(ids[::-1], 3)} == {ids[place] for place in trainer.base_places}
    seen = []
    train(options, seen.append)
    verdict = read_json(options.out / "run.json")["verdict"]
    assert f"on 3 of {len(ids)} clips" in verdict


def test_a_run_is_a_mix_of_what_it_learned_and_the_base(options, tiny_model, monkeypatch):
    monkeypatch.setattr(
        blending, "choose_alpha", lambda measured, general, most: min(measured, key=lambda alpha: abs(alpha - 0.4))
    )
    plain = train(replace(options, blend=False, out=options.out.parent / "plain"))
    seen = []
    result = train(options, seen.append)
    run = read_json(options.out / "run.json")
    assert run["blend"]["alphas"] == list(BLEND_ALPHAS) and run["blend"]["chosen"] == 0.4
    assert result.dev_wer == run["blend"]["dev_wer"][1] and result.verdict == run["verdict"]
    base, tuned, mixed = (weights_by_name(whisper(folder)) for folder in (tiny_model, plain.model, result.model))
    for name, weight in mixed.items():
        torch.testing.assert_close(weight, torch.lerp(base[name], tuned[name], 0.4), rtol=1e-5, atol=1e-6)
    history = read_jsonl(options.out / "history.jsonl")
    assert [record["step"] for record in history if "dev_wer" in record] == [2, 4]  # those of blending are no steps
    best = min(record["dev_wer"] for record in history if "dev_wer" in record)
    assert run["blend"]["dev_wer"][-1] == pytest.approx(best) == read_json(plain.path / "run.json")["dev_wer"]
    assert history[0]["step"] == 0 and history[0]["base_wer"] == pytest.approx(run["base_dev_wer"])
    assert [one.note for one in seen if one.stage == "blend"][-1].endswith("kept: 0.4")


@pytest.mark.parametrize("learn", ["lora", "decoder"])
def test_it_mixes_what_lora_learned_and_leaves_a_frozen_encoder(options, tiny_model, learn, monkeypatch):
    monkeypatch.setattr(blending, "choose_alpha", lambda measured, general, most: 0.3)
    result = train(replace(options, learn=learn, learning_rate=1e-2 if learn == "lora" else 1e-3))
    base, mixed = weights_by_name(whisper(tiny_model)), weights_by_name(whisper(result.model))
    assert base.keys() == mixed.keys()
    moved = {name for name in base if not torch.equal(base[name], mixed[name])}
    assert moved and all(("decoder" in name) for name in moved) == (learn == "decoder")
