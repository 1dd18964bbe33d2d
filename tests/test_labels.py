"""labels: trap 1 of the design in all its parts, with the tiny tokenizer and with the real one."""

import numpy as np
import pytest
from conftest import END

from lengua.models import tokens
from lengua.models.checkpoints import load_tokenizer
from lengua.models.tokens import (
    IGNORE_INDEX,
    MAX_LABEL_TOKENS,
    decode_text,
    decoder_pair,
    label_length,
    may_be_too_long,
)
from lengua.runtime.errors import RequestError

PROMPT = ["<|startoftranscript|>", "<|es|>", "<|transcribe|>", "<|notimestamps|>"]
TEXTS = ["Mañana, ¿qué tal?", "sí", "El pingüino añoró la cigüeña: «¡corazón!»", "Él dijo 3,5 €.", "日本語 🎧"]


@pytest.fixture(scope="module", params=["tiny", pytest.param("base", marks=pytest.mark.real)])
def folder(request):
    """The model folder whose tokenizer is looked at."""
    return request.getfixturevalue(f"{request.param}_model")


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


def test_the_prompt_begins_with_one_start_token_that_is_not_bos(folder, tokenizer):
    from transformers import WhisperTokenizer

    prompt = tokens.prompt_tokens(tokenizer, "es")
    assert [tokenizer.id_to_token(token) for token in prompt] == PROMPT
    assert prompt[0] != WhisperTokenizer.from_pretrained(folder).bos_token_id == tokens.end_token(tokenizer)
    for text in TEXTS:
        inputs, targets = decoder_pair(tokenizer, text, "es")
        assert inputs[:4] == prompt and inputs.count(prompt[0]) == 1 and prompt[0] not in targets


@pytest.mark.real
def test_the_ids_of_the_real_prompt(base_model):
    tokenizer = load_tokenizer(base_model)
    assert tokens.prompt_tokens(tokenizer, "es") == [50258, 50262, 50359, 50363]
    assert tokens.end_token(tokenizer) == 50257


@pytest.mark.parametrize("language", ["es", "sv", "en", "su"])
def test_the_prompt_is_the_one_that_generate_builds(language, folder, tokenizer):
    """By transformers' generate, with the folder's own generation config on a model too small to matter."""
    import torch
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

    generation = GenerationConfig.from_pretrained(folder)
    start = generation.decoder_start_token_id
    sizes = {"d_model": 4, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 1}
    sizes |= {"decoder_attention_heads": 1, "encoder_ffn_dim": 4, "decoder_ffn_dim": 4, "max_source_positions": 50}
    vocabulary = tokenizer.get_vocab_size()
    model = WhisperForConditionalGeneration(
        WhisperConfig(vocab_size=vocabulary, decoder_start_token_id=start, pad_token_id=start - 1, **sizes)
    )
    model.generation_config = generation
    seen = []
    model.model.decoder.register_forward_pre_hook(
        lambda module, positional, named: seen.append(named["input_ids"].tolist()), with_kwargs=True
    )
    model.eval().generate(torch.zeros(1, 80, 100), language=language, task="transcribe", max_new_tokens=1)
    assert seen[0] == [tokens.prompt_tokens(tokenizer, language)]


@pytest.mark.parametrize("text", TEXTS)
def test_every_label_is_what_follows_its_input(text, tokenizer):
    inputs, targets = decoder_pair(tokenizer, text, "es")
    assert len(inputs) == len(targets)
    live = [place for place, target in enumerate(targets) if target != IGNORE_INDEX]
    assert live == list(range(3, len(inputs)))  # the constant prefix is masked, and nothing else
    assert [targets[place] for place in live[:-1]] == [inputs[place + 1] for place in live[:-1]]
    assert targets[-1] == tokens.end_token(tokenizer)
    assert IGNORE_INDEX not in inputs  # masked in the labels only


@pytest.mark.parametrize("text", [*TEXTS, f"truco {END} y <|es|> <|startoftranscript|> fin"])
def test_one_end_token_is_live_and_none_is_an_input(text, tokenizer):
    inputs, targets = decoder_pair(tokenizer, text, "es")
    assert targets.count(tokens.end_token(tokenizer)) == 1
    assert tokens.end_token(tokenizer) not in inputs
    assert max(inputs[4:]) < tokens.end_token(tokenizer), "words never become special tokens"


def test_transformers_own_shift_would_feed_end_tokens_for_the_prompt(tokenizer):
    """The trap, and why decoder_input_ids are built by hand: a masked prefix shifted right becomes padding."""
    import torch
    from transformers.models.whisper.modeling_whisper import shift_tokens_right

    inputs, targets = decoder_pair(tokenizer, "hola", "es")
    end = tokens.end_token(tokenizer)
    shifted = shift_tokens_right(torch.tensor([targets]), end, inputs[0])[0].tolist()
    assert shifted[:4] == [inputs[0], end, end, end] and shifted[4:] == inputs[4:]


@pytest.mark.parametrize("text", TEXTS)
def test_words_begin_with_the_space_that_whisper_writes(text, tokenizer):
    inputs, _ = decoder_pair(tokenizer, f"  {text}\n", "es")
    assert tokenizer.decode(inputs[4:], skip_special_tokens=False) == f" {text}"
    assert decode_text(tokenizer, inputs) == text
    assert tokenizer.id_to_token(inputs[4]).startswith("Ġ")


def test_generated_tokens_become_words_without_what_is_no_word(tokenizer):
    inputs, targets = decoder_pair(tokenizer, "la niña", "es")
    stamp, end = tokens.token_id(tokenizer, "<|1.00|>"), tokens.end_token(tokenizer)
    assert decode_text(tokenizer, [*inputs[:3], stamp, *inputs[4:], stamp, end, end]) == "la niña"
    assert decode_text(tokenizer, targets) == "la niña"  # with -100
    assert tokens.text_tokens(tokenizer, [end, stamp, IGNORE_INDEX]) == [] and decode_text(tokenizer, []) == ""


def test_a_tokenizer_without_the_language_is_refused():
    from tokenizers import Tokenizer, models

    english = Tokenizer(models.BPE())
    english.add_special_tokens([END, "<|startoftranscript|>", "<|transcribe|>", "<|notimestamps|>"])
    with pytest.raises(RequestError, match="multilingual"):
        tokens.prompt_tokens(english, "es")


def test_the_length_of_a_label_counts_all_that_the_decoder_holds(tokenizer):
    for text in TEXTS:
        inputs, targets = decoder_pair(tokenizer, text, "es")
        assert label_length(tokenizer, text) == len([*inputs, targets[-1]])


def test_no_text_that_is_too_long_is_taken_for_a_short_one(tokenizer):
    random = np.random.default_rng(17)
    letters = [*"aeiou ñáéü", "日", "🎧", "qu", " d"]
    seen = {True: 0, False: 0}
    for _ in range(200):
        text = "".join(random.choice(letters, random.integers(60, 1500)))
        too_long = label_length(tokenizer, text) > MAX_LABEL_TOKENS
        seen[too_long] += 1
        assert may_be_too_long(text) or not too_long
    assert min(seen.values()) > 20
    assert not may_be_too_long("a" * 442) and may_be_too_long("a" * 443)


def test_how_many_tokens_a_window_may_take():
    assert tokens.max_decode_tokens(0) == 10
    assert tokens.max_decode_tokens(5) == 80
    assert tokens.max_decode_tokens(30) == 430
    assert tokens.max_decode_tokens(60) == 440, "the prompt needs its positions"
    assert tokens.max_decode_tokens(30, positions=64) == 56
