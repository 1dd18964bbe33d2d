"""A Whisper of normal shape and little width: 30 s, 51,865 tokens, 32 channels. What pads to 30 s can run it, too.

Untrained, it says nonsense, but always the same nonsense to the same sound, a dozen words, and decidedly: float16 and
int8 say it as well.
"""

from pathlib import Path

import numpy as np
from conftest import END, MERGES, TASKS, chirp

WIDTH, ENDS_AFTER = 32, 14
SPECIALS = 50257
WORDS = "uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince veinte".split()
"""What it says."""


def small_whisper(out: Path, seed: int = 18, width: int = WIDTH) -> Path:
    """Write a full model folder, whose language is Spanish."""
    from transformers import WhisperFeatureExtractor, WhisperProcessor

    from lengua.models.checkpoints import ModelNote, save_model

    processor = out.parent / f"{out.name}-processor"
    tokenizer = small_tokenizer()
    WhisperProcessor(WhisperFeatureExtractor(feature_size=80), tokenizer).save_pretrained(processor)
    tokenizer.save_vocabulary(str(processor))
    save_model(_untrained(tokenizer, seed, width), processor, out, ModelNote(language="es"))
    return out


def small_clips(count: int = 4) -> list[np.ndarray]:
    """Return sounds of 30 s that are told apart: programs differ in how they pad, and noise in the padding counts here.

    faster-whisper pads with zeros of the log-mel, which is not silence; what has learned to hear does not mind.
    """
    return [np.tile(chirp(3, 150 + 170 * number), 10) for number in range(count)]


def small_tokenizer():
    """Return a tokenizer of the size of the released ones, with their special tokens in their places."""
    from transformers import AddedToken, WhisperTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    from lengua.models.formats.hugging_face import TIMESTAMP_TOKENS
    from lengua.models.languages import LANGUAGE_NAMES

    tokens = [*bytes_to_unicode().values(), *map("".join, MERGES)]
    tokens += [f"Ġ{word}" for word in WORDS]
    tokens += [f"Ġw{number}" for number in range(SPECIALS - 1 - len(tokens))]
    tokens.append("")  # as in the release, where CTranslate2 knows a multilingual model by it
    specials = ["<|startoftranscript|>", *(f"<|{name}|>" for name in [*list(LANGUAGE_NAMES)[:99], *TASKS])]
    tokenizer = WhisperTokenizer(
        vocab={token: number for number, token in enumerate([*tokens, END])},
        merges=MERGES,
        pad_token=END,
        extra_special_tokens=specials,
    )
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in TIMESTAMP_TOKENS])
    assert len(tokenizer) == 51_865
    return tokenizer


def _untrained(tokenizer, seed: int, width: int):
    import torch
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

    def token(name: str) -> int:
        return tokenizer.convert_tokens_to_ids(f"<|{name}|>")

    end = {f"{kind}_token_id": token("endoftext") for kind in ("bos", "eos", "pad")}
    sides = {"layers": 1, "attention_heads": 2, "ffn_dim": 4 * width}
    sizes = {f"{side}_{size}": value for side in ("encoder", "decoder") for size, value in sides.items()}
    start = {"decoder_start_token_id": token("startoftranscript")}
    torch.manual_seed(seed)
    config = WhisperConfig(
        vocab_size=len(tokenizer), d_model=width, init_std=0.4 * (WIDTH / width) ** 0.5, **sizes, **end, **start
    )
    model = WhisperForConditionalGeneration(config)
    loud = tokenizer.convert_tokens_to_ids([f"Ġ{word}" for word in WORDS])
    with torch.no_grad():
        tokens, positions = model.model.decoder.embed_tokens.weight, model.model.decoder.embed_positions.weight
        quiet = torch.ones(len(tokens), dtype=torch.bool)
        quiet[[*loud, *range(SPECIALS, len(tokens))]] = False
        tokens[quiet] *= 0.01
        tokens[loud] *= 4
        tokens[token("endoftext")] = 4 * config.init_std * torch.randn(width)  # as padding it was all zeros
        positions *= 8
        positions[ENDS_AFTER:] = 100 * tokens[token("endoftext")]
    model.generation_config = GenerationConfig(
        **end,
        **start,
        alignment_heads=[[0, 0]],
        begin_suppress_tokens=[tokenizer.convert_tokens_to_ids("Ġ"), token("endoftext")],
        suppress_tokens=[token(name) for name in ("startoftranscript", *TASKS[:-1])],
        prev_sot_token_id=token("startofprev"),
        no_timestamps_token_id=token("notimestamps"),
        is_multilingual=True,
        lang_to_id={name: tokenizer.convert_tokens_to_ids(name) for name in tokenizer.extra_special_tokens[1:100]},
        task_to_id={name: token(name) for name in ("transcribe", "translate")},
        max_initial_timestamp_index=50,
        max_length=448,
        return_timestamps=False,
    )
    return model.eval()
