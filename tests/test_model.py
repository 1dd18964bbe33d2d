"""model: any window for the encoder, and a plain Whisper for everybody else."""

import shutil

import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lengua.models.checkpoints import load_tokenizer
from lengua.models.tokens import decoder_pair, prompt_tokens
from lengua.models.whisper import (
    MAX_MATMUL_ATTENTION_POSITIONS,
    AdaptiveWhisper,
    attention_by_length,
    force_language,
    load_model,
    window_frames,
)
from lengua.runtime.errors import RequestError
from lengua.runtime.files import read_json, write_json

WINDOWS = [2, 40, 64, 98]


@pytest.fixture(scope="module")
def plain(tiny_model):
    return WhisperForConditionalGeneration.from_pretrained(tiny_model).eval()


@pytest.fixture
def adaptive(tiny_model):
    return load_model(tiny_model, "es").eval()


@pytest.fixture
def copy(tiny_model, tmp_path):
    """A copy of the tiny model folder that a test may change."""
    return shutil.copytree(tiny_model, tmp_path / "copy")


def features(frames: int, clips: int = 2) -> torch.Tensor:
    return torch.randn(clips, 80, frames, generator=torch.Generator().manual_seed(frames))


def changed(path, **entries) -> None:
    """Set entries of a JSON file; None removes one."""
    value = {**read_json(path), **entries}
    write_json(path, {name: entry for name, entry in value.items() if entry is not None})


def watched(model) -> list[torch.Tensor]:
    """Return a list that will hold what the encoder is given."""
    seen = []

    def look(module, positional, named):
        seen.append(positional[0] if positional else named["input_features"])

    model.model.encoder.register_forward_pre_hook(look, with_kwargs=True)
    return seen


def first_prompt(model) -> list[list[int]]:
    """Return what the decoder is given first when a model generates."""
    seen = []
    model.model.decoder.register_forward_pre_hook(
        lambda module, positional, named: seen.append(named["input_ids"].tolist()), with_kwargs=True
    )
    model.generate(features(40, clips=1), max_new_tokens=1)
    return seen[0]


@torch.no_grad()
def test_at_the_full_window_the_encoder_is_whispers(adaptive, plain):
    mel = features(100)
    ours = adaptive.model.encoder(mel).last_hidden_state
    assert ours.shape == (2, 50, 16)
    assert torch.equal(ours, plain.model.encoder(mel).last_hidden_state)


@torch.no_grad()
@pytest.mark.parametrize("frames", WINDOWS)
def test_a_shorter_window_is_a_whisper_with_fewer_positions(frames, adaptive, plain, tiny_model):
    """Against transformers' own encoder, built for that many positions, with the first of ours."""
    config = WhisperConfig.from_pretrained(tiny_model, max_source_positions=frames // 2)
    short = WhisperForConditionalGeneration(config).eval()
    weights = plain.state_dict()
    name = "model.encoder.embed_positions.weight"
    weights[name] = weights[name][: frames // 2]
    short.load_state_dict(weights)
    expected = short.model.encoder(features(frames)).last_hidden_state
    torch.testing.assert_close(adaptive.model.encoder(features(frames)).last_hidden_state, expected)
    with pytest.raises(ValueError, match="expects the mel input features to be of length 100"):
        plain.model.encoder(features(frames))


@pytest.mark.parametrize("frames", WINDOWS)
def test_generate_gives_the_encoder_the_window_as_it_is(frames, adaptive):
    seen = watched(adaptive)
    adaptive.generate(features(frames), max_new_tokens=2)
    assert len(seen) == 1 and torch.equal(seen[0], features(frames))


@torch.no_grad()
@pytest.mark.parametrize("frames", [64, 100])
def test_generate_writes_what_the_loudest_logits_say(frames, adaptive, tiny_model):
    """Against a loop by hand: prompt, then the best token that is not suppressed, then that one, ..."""
    mel, config = features(frames, clips=1), adaptive.generation_config
    tokens = prompt_tokens(load_tokenizer(tiny_model), "es")
    for step in range(12):
        logits = adaptive(input_features=mel, decoder_input_ids=torch.tensor([tokens])).logits[0, -1]
        logits[config.suppress_tokens] = -torch.inf
        if step == 0:
            logits[config.begin_suppress_tokens] = -torch.inf
        tokens.append(int(logits.argmax()))
    generated = adaptive.generate(mel, max_new_tokens=12)[0].tolist()
    assert generated[-12:] == tokens[-12:] and len(set(generated)) > 3


@torch.no_grad()
def test_a_saved_checkpoint_is_plain_and_gives_the_same_padded_output(adaptive, tmp_path):
    adaptive(input_features=features(40), decoder_input_ids=torch.tensor([[265, 269]] * 2))
    adaptive.model.encoder.layers[0].fc1.weight.data += 0.1  # as training would
    adaptive.save_pretrained(tmp_path / "model")
    config = read_json(tmp_path / "model/config.json")
    assert config["architectures"] == ["WhisperForConditionalGeneration"] and config["model_type"] == "whisper"
    assert config["max_source_positions"] == adaptive.config.max_source_positions == 50
    saved, info = WhisperForConditionalGeneration.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    saved.eval()
    mel, inputs = features(100), torch.tensor([[265, 269, 365, 370, 65]] * 2)
    ours = adaptive(input_features=mel, decoder_input_ids=inputs).logits
    assert torch.equal(saved(input_features=mel, decoder_input_ids=inputs).logits, ours)
    assert torch.equal(saved.generate(mel, max_new_tokens=8), adaptive.generate(mel, max_new_tokens=8))


@pytest.mark.parametrize("positions", [1, 50, MAX_MATMUL_ATTENTION_POSITIONS, MAX_MATMUL_ATTENTION_POSITIONS + 1])
def test_attention_is_torchs_own_whatever_computes_it(positions, adaptive):
    module = adaptive.train().model.encoder.layers[0].self_attn
    query, key, value = (torch.randn(2, 2, positions, 8, requires_grad=True) for _ in range(3))
    given = [], []
    for attend, gradients in zip((attention_by_length, sdpa_attention_forward), given, strict=True):
        out, weights = attend(module, query, key, value, None, scaling=0.3)
        assert out.shape == (2, positions, 2, 8) and weights is None
        gradients += [out, *torch.autograd.grad(out.square().sum(), (query, key, value))]
    for ours, torchs in zip(*given, strict=True):
        torch.testing.assert_close(ours, torchs, atol=1e-4, rtol=1e-4)


def test_what_looks_back_alone_or_behind_a_mask_is_left_to_torch(adaptive):
    query = torch.randn(1, 2, 5, 8)
    causal = adaptive.train().model.decoder.layers[0].self_attn
    assert causal.is_causal
    looked, _ = attention_by_length(causal, query, query, query, None)
    torch.testing.assert_close(looked[:, 0], query[:, :, 0])  # the first sees itself alone
    hidden = torch.zeros(1, 1, 5, 5).index_fill(3, torch.arange(1, 5), -torch.inf)
    masked, _ = attention_by_length(adaptive.model.encoder.layers[0].self_attn, query, query, query, hidden)
    torch.testing.assert_close(masked[0], query[0, :, 0].expand(5, 2, 8))


def test_it_has_the_tensors_of_whisper_and_only_its_sinusoids_are_fixed(adaptive, plain):
    ours = {name: parameter.requires_grad for name, parameter in adaptive.named_parameters()}
    assert list(ours) == [name for name, _ in plain.named_parameters()] and len(ours) > 40
    assert [name for name, learns in ours.items() if not learns] == ["model.encoder.embed_positions.weight"]
    assert adaptive.proj_out.weight is adaptive.model.decoder.embed_tokens.weight
    assert adaptive.dtype == torch.float32 and window_frames(adaptive) == 100


def test_it_learns_through_a_short_window(adaptive, tiny_model):
    inputs, labels = decoder_pair(load_tokenizer(tiny_model), "hola", "es")
    mel = features(40, clips=1)
    optimiser = torch.optim.AdamW([parameter for parameter in adaptive.parameters() if parameter.requires_grad], 1e-2)
    losses = []
    for _ in range(15):
        loss = adaptive(mel, decoder_input_ids=torch.tensor([inputs]), labels=torch.tensor([labels])).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


# Language and task (trap 2)


def test_language_and_task_are_forced_by_the_generation_config(adaptive, tiny_model):
    assert (adaptive.generation_config.language, adaptive.generation_config.task) == ("es", "transcribe")
    assert adaptive.generation_config.forced_decoder_ids is None
    assert first_prompt(adaptive) == [prompt_tokens(load_tokenizer(tiny_model), "es")]


def test_forced_decoder_ids_of_an_older_checkpoint_are_taken_out(copy, tmp_path):
    for name in ("generation_config.json", "config.json"):
        changed(copy / name, forced_decoder_ids=[[1, 266], [2, 365], [3, 370]])  # English
    model = load_model(copy, "es")
    assert first_prompt(model) == [prompt_tokens(load_tokenizer(copy), "es")]
    model.save_pretrained(tmp_path / "saved")
    assert not read_json(tmp_path / "saved/generation_config.json").get("forced_decoder_ids")


def test_without_a_language_the_model_stays_as_it_is(tiny_model):
    config = load_model(tiny_model).generation_config
    assert getattr(config, "language", None) is None and getattr(config, "task", None) is None


def test_an_english_only_model_is_refused_for_spanish(copy):
    changed(copy / "generation_config.json", lang_to_id=None, task_to_id=None, is_multilingual=False)
    with pytest.raises(RequestError, match=r"speaks spanish; found an English-only model") as caught:
        load_model(copy, "es")
    assert caught.value.exit_code == 2
    assert isinstance(load_model(copy), AdaptiveWhisper)


def test_a_language_that_the_model_does_not_know_is_refused(adaptive):
    with pytest.raises(RequestError, match=r"speaks cantonese; found a model without <\|yue\|>"):
        force_language(adaptive, "yue")
    assert adaptive.generation_config.language == "es"


@pytest.mark.parametrize("kind", ["bert", "wav2vec2", None])
def test_what_is_no_whisper_is_refused(kind, copy):
    changed(copy / "config.json", model_type=kind)
    with pytest.raises(RequestError, match=f"a Whisper model; found model_type {kind!r}"):
        load_model(copy, "es")
