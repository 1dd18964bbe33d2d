"""How a WER of 300 % comes about: the classical failures of fine-tuning Whisper, made to happen on real speech.

    python benchmarks/three_hundred.py --store runs/demo/store

Each mode breaks one thing and leaves the rest as it should be: how the clips are decoded (a short window, zeros behind
the speech, no language or a wrong one), how labels are made (a second start token, no end token) or the learning rate.
All that learn take the same steps on the same clips, and all write down the same test clips, greedily and up to 225
tokens as the usual recipe does, without the loop guard that lengua has elsewhere. Beside the WER stands what a training
log would show: the loss a token with the mode's own labels. `lengua.evaluation` is then asked, from the transcripts
alone, what is wrong. The last line is one JSON object. With --record the figures go into benchmarks/RESULTS.md, into
an image, and into the file that notebooks read (`lengua.notebook.error_analysis`).
"""

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from harness import BenchmarkOptions, markdown, provenance, report, run, tell
from transformers import get_linear_schedule_with_warmup

from lengua.audio import log_mel
from lengua.audio.windows import bucket_by_length
from lengua.data.store import open_store
from lengua.evaluation.diagnosis import KnownFacts, diagnose_failures
from lengua.evaluation.failure_modes import FailureModes, find_failure_modes
from lengua.evaluation.report.figures import failures_figure
from lengua.evaluation.report.tables import with_interval
from lengua.models.checkpoints import find_model, load_tokenizer, read_window_frames
from lengua.models.tokens import (
    IGNORE_INDEX,
    decode_text,
    decoder_pair,
    end_token,
    prompt_tokens,
    text_tokens,
    token_id,
    word_tokens,
)
from lengua.models.whisper import AdaptiveWhisper, load_model
from lengua.notebook.error_analysis import FAILURE_STUDY_FILE
from lengua.options import BASE_MODEL, TrainOptions
from lengua.runtime.files import read_json, write_json
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
OUT = Path("runs/three_hundred")
"""Where the transcripts of every mode are kept, to be read; broken off, the same call goes on after the last one."""
HOW_IT_IS_SHOWN = ("record", "json", "figure", "kept")
FIGURES = "words wer wer_low wer_high substitutions deletions insertions looped length_limit loss".split()


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Make Whisper fail in each of the well-known ways, and measure how badly."""

    store: Path = Path("runs/demo/store")
    """The clips: train and test of a feature store."""
    base: str = BASE_MODEL
    """The checkpoint to start from."""
    steps: int = 100
    """Optimiser steps of each mode that learns."""
    batch_size: int = 8
    """Clips a step."""
    clips: int = 80
    """Test clips, drawn by the seed."""
    max_tokens: int = 225
    """Most tokens of a transcript, as in the usual recipe: what a loop can cost."""
    seed: int = 17
    """Draws clips and batches."""
    figure: Path = Path("images/three_hundred.png")
    """Where --record draws the figure."""
    kept: Path = FAILURE_STUDY_FILE
    """Where --record keeps what notebooks tell: figures, causes and cures, one clip of each mode."""


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
    """Silence behind each clip when it is decoded; None: up to 30 s."""
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
        return load_model(self.folder, self.language).to(self.device)

    def autocast(self):
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


def main(options: Options) -> dict:
    bench, (found, where) = Bench(options), kept(options)
    untouched = bench.model()
    for name, mode in MODES.items():
        if name in found:
            continue
        tell(f"{name}: {mode.title}")
        model = untouched if mode.learns is None else learned(bench, mode)
        model.generation_config.language = None if mode.language == DETECTED else bench.language
        found[name], where = (
            measured(bench, model, mode),
            provenance(),
        )
        write_json(OUT / "modes.json", {"options": asked(options), "where": where, "modes": found})
        tell(f"  WER {found[name]['wer']:.1%}, loss {found[name]['loss']:.2f}")
    return show(options, bench, found, where)


def asked(options: Options) -> dict[str, str]:
    return {name: str(value) for name, value in vars(options).items() if name not in HOW_IT_IS_SHOWN}


def kept(options: Options) -> tuple[dict[str, dict], str]:
    """Return the modes that an earlier call with these options measured, and when and where that was."""
    before = read_json(OUT / "modes.json") if (OUT / "modes.json").is_file() else {}
    return (before["modes"], before.get("where", "")) if before.get("options") == asked(options) else ({}, "")


def facts_of(bench: Bench, mode: Mode) -> KnownFacts:
    """Return what a batch and the settings of a mode tell, as somebody who looks at them would find it."""
    row = min(bench.rows, key=lambda row: row.frames)
    [(_, window)] = bucket_by_length([row.frames], 1, mode.margin_s, bench.longest)
    batch = bench.batch([placed(row, window, mode.behind)], [row.text], mode.learns or decoder_pair)
    start, end = token_id(bench.tokenizer, "<|startoftranscript|>"), end_token(bench.tokenizer)
    return KnownFacts(
        learning_rate=mode.rate if mode.learns else None,
        starts=int(batch["decoder_input_ids"].eq(start).sum()),
        ends=int(batch["labels"].eq(end).sum()),
        filler=float(batch["input_features"][0, :, -1].mean()),
        floor=log_mel.silence_floor(row.peak),
        forced=mode.language == FORCED,
    )


def explained(bench: Bench, found: dict[str, dict]) -> dict[str, FailureModes]:
    """Have every mode looked into as an evaluation does: by its texts alone, and with what a batch tells."""
    bodies = {name: find_failure_modes(row["records"], bench.language) for name, row in found.items()}
    for name, mode in MODES.items():
        note = {} if mode.learns is None else {"window": "adaptive", "margin_s": list(DEFAULTS.margin_s)}
        window = "padded" if mode.margin_s is None else "adaptive"
        same_padded = bodies["base"] if mode.learns is None and window == "adaptive" else None
        how = (bodies[name], bodies["base"] if name != "base" else None, note, window, same_padded)
        found[name]["by_text"] = [finding.name for finding in diagnose_failures(*how)]
        found[name]["findings"] = [asdict(finding) for finding in diagnose_failures(*how, facts_of(bench, mode))]
        found[name]["named"] = [finding["name"] for finding in found[name]["findings"]]
    return bodies


def table_of(options: Options, found: dict[str, dict]) -> list[str]:
    """Return the table and what one must know to read it."""
    head = ["one thing broken", "WER (95 % interval)", "S / D / I", "loops", "at the limit", "loss"]
    rows = []
    for name, row in found.items():
        operations = " / ".join(str(row[kind]) for kind in ("substitutions", "deletions", "insertions"))
        figures = [with_interval(row), operations, str(row["looped"]), str(row["length_limit"]), f"{row['loss']:.2f}"]
        rows.append([MODES[name].title, *figures, ", ".join(row["by_text"][:2]), row["named"][0]])
    looked_at = "With a batch: one row of inputs, labels and features is looked at, too."
    return [*markdown([*head, "named by the texts", "with a batch"], rows), "", f"{about(options, found)} {looked_at}"]


def about(options: Options, found: dict[str, dict]) -> str:
    base = found["base"]
    return (
        f"{Path(options.base).name}, {len(base['records'])} test clips of {base['words']} words, at most "
        f"{options.max_tokens} tokens each; those that learn take {options.steps} steps of {options.batch_size} clips. "
        "Loss: by teacher forcing, with the mode's own labels."
    )


def failure_summary(name: str, row: dict, body: FailureModes) -> dict:
    """Return what notebooks show of a mode: see `lengua.notebook.error_analysis.read_failure_study`."""
    [worst] = (body.inventors or body.worst)[:1] or [None]
    return {
        "name": name,
        "title": MODES[name].title,
        "clips": len(row["records"]),
        **{key: row[key] for key in FIGURES},
        "by_text": row["by_text"],
        "findings": row["findings"],
        "said": worst.reference if worst else "",
        "heard": worst.hypothesis if worst else "",
    }


def show(options: Options, bench: Bench, found: dict[str, dict], where: str) -> dict:
    bodies = explained(bench, found)
    command = f"python benchmarks/three_hundred.py --store {options.store}"
    drawn = {name: row | {"title": MODES[name].title} for name, row in found.items()}
    failures_figure(drawn, options.figure if options.record else OUT / "wer.png")
    story = {"command": command, "where": where, "about": about(options, found)}
    story["attribution"] = bench.store.manifest["attribution"]
    story["failures"] = [failure_summary(name, row, bodies[name]) for name, row in found.items()]
    write_json(options.kept if options.record else OUT / "failures.json", story)
    left = ("records", "findings")
    result = {
        "modes": {name: {key: row[key] for key in row if key not in left} for name, row in found.items()},
        "max_wer": max(row["wer"] for row in found.values()),
        "healthy_wer": found["healthy"]["wer"],
        "base_wer": found["base"]["wer"],
        "named": {name: row["named"][0] for name, row in found.items()},
    }
    return report(options, "How 300 % comes about", table_of(options, found), result, shown=("store",))


# How a mode is made to happen, and measured


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
    """Return the row of a mode and its records: the hypothesis of each clip, and the loss."""
    found, losses, tokens = {}, 0.0, 0
    language = bench.language if mode.language == FORCED else mode.language
    for indices, window in bucket_by_length([row.frames for row in bench.rows], 8, mode.margin_s, bench.longest):
        rows = [bench.rows[index] for index in indices]
        batch = bench.batch(
            [placed(row, window, mode.behind) for row in rows], [row.text for row in rows], mode.learns or decoder_pair
        )
        labels = batch.pop("labels")
        counted = int(labels.ne(IGNORE_INDEX).sum())
        with torch.no_grad(), bench.autocast():
            losses += float(token_loss(model(**batch), labels)) * counted
            generated = model.generate(
                batch["input_features"],
                max_new_tokens=bench.options.max_tokens,
                num_beams=1,
                task="transcribe",
                **({} if mode.language == DETECTED else {"language": language}),
            )
        tokens += counted
        found |= dict(zip(indices, generated.tolist(), strict=True))
    return row_of(bench, mode, [found[index] for index in range(len(bench.rows))]) | {"loss": losses / tokens}


def placed(row, window: int, behind: str) -> np.ndarray:
    """Return a clip's features in a window, with its own silence behind the speech or with zeros."""
    features = log_mel.pad_with_silence(row.log_mel(), window, row.peak)
    if behind == ZEROS:
        features[:, row.frames :] = 0.0
    return features


def row_of(bench: Bench, mode: Mode, generated: list[list[int]]) -> dict:
    """Score the transcripts of a mode and look for loops and for those that were cut off."""
    texts = [decode_text(bench.tokenizer, tokens) for tokens in generated]
    counts = [len(text_tokens(bench.tokenizer, tokens)) for tokens in generated]
    references, speakers = [row.text for row in bench.rows], [row.speaker for row in bench.rows]
    scored = score(references, texts)
    low, high = bootstrap_interval(scored.counts["errors"], scored.counts["words"], speakers)
    flags = []
    for text, count, row in zip(texts, counts, bench.rows, strict=True):
        found = {
            "looped": is_looped(text, count, row.duration_s),
            "length_limit": count >= bench.options.max_tokens - 8,
        }
        flags.append([name for name, true in found.items() if true])
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
    row = {key: getattr(scored, key) for key in ("wer", "words", "substitutions", "deletions", "insertions")}
    row |= {name: sum(name in flag for flag in flags) for name in ("looped", "length_limit")}
    return row | {"wer_low": low, "wer_high": high, "records": records}


if __name__ == "__main__":
    run(main, Options)
