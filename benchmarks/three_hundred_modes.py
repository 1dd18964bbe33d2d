"""The modes of benchmarks/three_hundred.py: what each breaks, and how it is made to happen and measured."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from transformers import get_linear_schedule_with_warmup

from lengua.audio import log_mel
from lengua.audio.windows import bucket_by_length
from lengua.data.store import open_store
from lengua.models.checkpoints import find_model, load_tokenizer, read_window_frames
from lengua.models.tokens import (
    IGNORE_INDEX,
    decode_text,
    decoder_pair,
    end_token,
    prompt_tokens,
    text_tokens,
    word_tokens,
)
from lengua.models.whisper import AdaptiveWhisper, load_model
from lengua.options import TrainOptions
from lengua.scoring import bootstrap_interval, is_looped, score
from lengua.training.dataset import ClipDataset
from lengua.training.hardware import pick_device
from lengua.training.samplers import BatchPlan, LengthBucketSampler
from lengua.training.trainer import token_loss

DEFAULTS = TrainOptions("")
MARGIN_S = round(sum(DEFAULTS.margin_s) / 2, 2)
SILENCE, ZEROS = "silence", "zeros"
FORCED, DETECTED = "forced", "detected"

Pair = Callable[..., tuple[list[int], list[int]]]


def doubled_start(tokenizer, text: str, language: str) -> tuple[list[int], list[int]]:
    """Return (inputs, labels) as a collator makes them that looks for the wrong start token and so keeps it."""
    prompt, words = prompt_tokens(tokenizer, language), word_tokens(tokenizer, text)
    return [prompt[0], *prompt, *words], [*prompt, *words, end_token(tokenizer)]


def masked_end(tokenizer, text: str, language: str) -> tuple[list[int], list[int]]:
    """Return (inputs, labels) whose end token is masked together with the padding, which has the same number."""
    inputs, labels = decoder_pair(tokenizer, text, language)
    return inputs, [*labels[:-1], IGNORE_INDEX]


@dataclass(frozen=True)
class Mode:
    """One way to fail, or not to."""

    title: str
    learns: Pair | None = None
    """How labels are made; None: the model is left untouched."""
    rate: float = 1e-5
    margin_s: float | None = None
    """Silence behind each clip when it is heard; None: up to 30 s."""
    behind: str = SILENCE
    language: str = FORCED
    """forced, detected by the model, or another language's code."""


MODES = {
    "base": Mode("untouched, padded, Spanish forced"),
    "short_window": Mode("untouched, in a short window", margin_s=MARGIN_S),
    "zero_padding": Mode("untouched, zeros behind the log-mel", behind=ZEROS),
    "language": Mode("untouched, language left to the model", language=DETECTED),
    "wrong_language": Mode("untouched, English forced", language="en"),
    "double_start": Mode("trained with two start tokens", doubled_start, margin_s=MARGIN_S),
    "end_masked": Mode("trained with the end token masked", masked_end, margin_s=MARGIN_S),
    "rate": Mode("trained at a rate of 1e-3", decoder_pair, rate=1e-3, margin_s=MARGIN_S),
    "healthy": Mode("trained as lengua does", decoder_pair, margin_s=MARGIN_S),
}


class Bench:
    """The clips, and a model for every mode."""

    def __init__(self, options):
        self.options, (self.folder, _) = options, find_model(options.base)
        self.store, self.tokenizer = open_store(options.store), load_tokenizer(self.folder)
        self.train, test = self.store.split("train"), self.store.split("test")
        drawn = random.Random(options.seed).sample(range(len(test)), min(options.clips, len(test)))
        self.rows = [test[index] for index in sorted(drawn)]
        self.device, self.language = pick_device("auto"), self.store.language
        self.longest = read_window_frames(self.folder)

    def model(self) -> AdaptiveWhisper:
        """Return the base, its language forced."""
        return load_model(self.folder, self.language).to(self.device)

    def autocast(self):
        """Return bfloat16 where the steps are taken."""
        return torch.autocast(self.device, torch.bfloat16)

    def batch(self, features: list[np.ndarray], texts: list[str], pair: Pair) -> dict[str, torch.Tensor]:
        """Return features (batch, n_mels, window), decoder_input_ids and labels (batch, tokens)."""
        pairs = [pair(self.tokenizer, text, self.language) for text in texts]
        inputs, labels = (
            torch.nn.utils.rnn.pad_sequence([torch.tensor(one) for one in side], batch_first=True, padding_value=value)
            for side, value in zip(zip(*pairs, strict=True), (end_token(self.tokenizer), IGNORE_INDEX), strict=True)
        )
        stacked = torch.from_numpy(np.stack(features))
        made = {"input_features": stacked, "decoder_input_ids": inputs, "labels": labels}
        return {name: value.to(self.device) for name, value in made.items()}


def learned(bench: Bench, mode: Mode) -> AdaptiveWhisper:
    """Return the base after the steps of a mode."""
    options, model = bench.options, bench.model().train()
    model.config.use_cache = False
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=mode.rate, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, options.steps // 10, options.steps)
    for clips in batches(bench):
        batch = bench.batch([clip.features for clip in clips], [clip.row.text for clip in clips], mode.learns)
        labels = batch.pop("labels")
        with bench.autocast():
            loss = token_loss(model(**batch), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.config.use_cache = True
    return model.eval()


def batches(bench: Bench):
    """Yield the clips of each step, the same for every mode."""
    options, dataset = bench.options, ClipDataset(bench.train)
    how = (DEFAULTS.margin_s, DEFAULTS.padded_share, options.seed, bench.longest)
    sampler = LengthBucketSampler(bench.train, BatchPlan(options.batch_size, *how))
    taken = 0
    while True:
        for draws in sampler:
            if taken == options.steps:
                return
            yield [dataset[draw] for draw in draws]
            taken += 1
        sampler.set_epoch(sampler.epoch + 1)


def measured(bench: Bench, model: AdaptiveWhisper, mode: Mode) -> dict:
    """Return the row of a mode and its records: what was said to each clip, and the loss."""
    heard, losses, tokens = {}, 0.0, 0
    for indices, window in bucket_by_length([row.frames for row in bench.rows], 8, mode.margin_s, bench.longest):
        rows = [bench.rows[index] for index in indices]
        batch = bench.batch(
            [placed(row, window, mode.behind) for row in rows], [row.text for row in rows], mode.learns or decoder_pair
        )
        labels = batch.pop("labels")
        counted = int(labels.ne(IGNORE_INDEX).sum())
        with torch.no_grad(), bench.autocast():
            losses += float(token_loss(model(**batch), labels)) * counted
            said = model.generate(
                batch["input_features"],
                max_new_tokens=bench.options.max_tokens,
                num_beams=1,
                **language_of(mode, bench.language),
            )
        tokens += counted
        heard |= dict(zip(indices, said.tolist(), strict=True))
    return row_of(bench, mode, [heard[index] for index in range(len(bench.rows))]) | {"loss": losses / tokens}


def placed(row, window: int, behind: str) -> np.ndarray:
    """Return a clip's features in a window, with its own silence behind the speech or with zeros."""
    features = log_mel.pad_with_silence(row.log_mel(), window, row.peak)
    if behind == ZEROS:
        features[:, row.frames :] = 0.0
    return features


def language_of(mode: Mode, language: str) -> dict[str, str]:
    """Return what generate is told about language and task."""
    told = {FORCED: {"language": language}, DETECTED: {}}.get(mode.language, {"language": mode.language})
    return told | {"task": "transcribe"}


def row_of(bench: Bench, mode: Mode, said: list[list[int]]) -> dict:
    """Score the transcripts of a mode and look for loops and for those that were cut off."""
    texts = [decode_text(bench.tokenizer, tokens) for tokens in said]
    counts = [len(text_tokens(bench.tokenizer, tokens)) for tokens in said]
    references, speakers = [row.text for row in bench.rows], [row.speaker for row in bench.rows]
    scored = score(references, texts)
    low, high = bootstrap_interval(scored.counts["errors"], scored.counts["words"], speakers)
    limit = [count >= bench.options.max_tokens - 8 for count in counts]
    looped = [
        is_looped(text, count, row.duration_s) for text, count, row in zip(texts, counts, bench.rows, strict=True)
    ]
    flags = [
        [name for name, true in (("looped", loop), ("length_limit", cut)) if true]
        for loop, cut in zip(looped, limit, strict=True)
    ]
    names = scored.counts.dtype.names
    records = [
        {
            "model": mode.title,
            "window": "padded" if mode.margin_s is None else "adaptive",
            "set": "test",
            "id": row.id,
            "speaker": row.speaker,
            "duration_s": row.duration_s,
            "extra": row.extra,
            "reference": row.text,
            "hypothesis": text,
            "counts": dict(zip(names, one.tolist(), strict=True)),
            "flags": flag,
        }
        for row, text, one, flag in zip(bench.rows, texts, scored.counts, flags, strict=True)
    ]
    told = {key: getattr(scored, key) for key in ("wer", "words", "substitutions", "deletions", "insertions")}
    return told | {
        "wer_low": low,
        "wer_high": high,
        "looped": sum(looped),
        "length_limit": sum(limit),
        "records": records,
    }
