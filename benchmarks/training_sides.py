"""One side of benchmarks/training.py, in a process of its own, so that its peak of memory is its own.

    side = Process(Setup(USUAL, "bf16", ...))
    side.call(step, 3)

A side is a model, its batches and its optimiser; it takes steps, learns, and writes down dev.
"""

import random
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration, get_linear_schedule_with_warmup
from usual_training import UsualCollator, shuffled, usual_loss

from lengua.audio.log_mel import FRAMES_PER_SECOND
from lengua.data.store import open_store
from lengua.data.streaming import StreamBlock
from lengua.models.checkpoints import find_model, load_tokenizer
from lengua.models.tokens import IGNORE_INDEX, decode_text, max_decode_tokens
from lengua.models.whisper import AdaptiveWhisper, force_language, load_model, silence_transformers, window_frames
from lengua.options import TrainOptions
from lengua.scoring import bootstrap_interval, score
from lengua.training.dataset import ClipDataset, Collator
from lengua.training.hardware import deterministic_sums
from lengua.training.samplers import BatchPlan, LengthBucketSampler, SampledClip, dev_batches
from lengua.training.trainer import token_loss

USUAL, OURS = "usual recipe", "lengua"
DEFAULTS = TrainOptions("")
SIZES = {"tiny": (384, 4, 6), "base": (512, 6, 8), "small": (768, 12, 12)}
"""(d_model, layers, heads) of a released Whisper."""
RANDOM_CLIPS, RANDOM_MEAN_S, TOKENS_PER_SECOND = 512, 5.0, 4


@dataclass(frozen=True)
class Setup:
    """What a side is."""

    name: str
    precision: str
    device: str
    store: Path
    base: str
    random_weights: str | None
    batch_size: int
    clips: int | None = None
    """Training clips, drawn by the seed. None: all."""
    learning_rate: float = 1e-6
    warmup: float = 0.1
    seed: int = 17


class Speech:
    """The clips of a store and a model with its weights."""

    def __init__(self, setup: Setup):
        silence_transformers()
        store, (folder, _) = open_store(setup.store), find_model(setup.base)
        self.split, self.dev = chosen(store.split("train"), setup), store.split("dev")
        self.tokenizer = load_tokenizer(folder)
        collator = UsualCollator if setup.name == USUAL else Collator
        self.collate, self.dataset = collator(self.tokenizer, store.language), ClipDataset(self.split)
        if setup.name == USUAL:
            self.model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
            force_language(self.model, store.language)
        else:
            self.model = load_model(folder, store.language)

    def batch(self, draws: list[SampledClip]) -> dict[str, torch.Tensor]:
        return self.collate([self.dataset[draw] for draw in draws])


def chosen(split, setup: Setup):
    """Return the training clips that the seed draws, in memory; without a number all, where they are."""
    if setup.clips is None:
        return split
    drawn = random.Random(setup.seed).sample(range(len(split)), min(setup.clips, len(split)))
    return StreamBlock(0, 0, [split[index] for index in sorted(drawn)], [])


class RandomSpeech:
    """Random features and a model of random weights: the same work, and nothing to download."""

    def __init__(self, setup: Setup):
        d_model, layers, heads = SIZES[setup.random_weights]
        sides = {f"{side}_layers": layers for side in ("encoder", "decoder")}
        sides |= {f"{side}_attention_heads": heads for side in ("encoder", "decoder")}
        sides |= {f"{side}_ffn_dim": 4 * d_model for side in ("encoder", "decoder")}
        torch.manual_seed(setup.seed)
        kind = WhisperForConditionalGeneration if setup.name == USUAL else AdaptiveWhisper
        self.model, self.dev = kind(WhisperConfig(d_model=d_model, **sides)), None
        self.model.model.encoder.embed_positions.requires_grad_(False)
        seconds = np.random.default_rng(setup.seed).gamma(4, RANDOM_MEAN_S / 4, RANDOM_CLIPS).clip(1, 28)
        self.split, self.usual = RandomSplit(seconds), setup.name == USUAL

    def batch(self, draws: list[SampledClip]) -> dict[str, torch.Tensor]:
        tokens = max(2, int(TOKENS_PER_SECOND * max(self.split.frames[draw.index] for draw in draws) / 100))
        labels = torch.randint(50_000, (len(draws), tokens))
        batch = {"input_features": torch.randn(len(draws), 80, draws[0].window), "labels": labels}
        return batch if self.usual else batch | {"decoder_input_ids": labels.roll(1, 1)}


class RandomSplit:
    """Lengths without clips."""

    def __init__(self, seconds: np.ndarray):
        self.frames = (seconds * FRAMES_PER_SECOND).astype(np.int32)

    def __len__(self) -> int:
        return len(self.frames)

    def column(self, name: str) -> list:
        return {"id": list(map(str, range(len(self)))), "duration_s": (self.frames / FRAMES_PER_SECOND).tolist()}[name]


class Side:
    """A model, its batches, its optimiser and the memory that they take."""

    def __init__(self, setup: Setup):
        self.setup, before = setup, memory_mb("VmRSS")
        self.speech = RandomSpeech(setup) if setup.random_weights else Speech(setup)
        self.model = self.speech.model.to(setup.device).train()
        self.model.config.use_cache = False
        trained = [one for one in self.model.parameters() if one.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=setup.learning_rate, fused=True)
        self.autocast = {"device_type": setup.device, "dtype": torch.bfloat16, "enabled": setup.precision == "bf16"}
        self.longest, self.before_mb = window_frames(self.model), before
        self.batches = self.draw_epoch()
        total = len(self.batches)
        self.schedule = get_linear_schedule_with_warmup(self.optimizer, round(setup.warmup * total), total)
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading

    @property
    def drawing(self) -> BatchPlan:
        """How lengua draws batches when nobody says anything."""
        return BatchPlan(self.setup.batch_size, DEFAULTS.margin_s, DEFAULTS.padded_share, self.setup.seed, self.longest)

    def draw_epoch(self) -> list[list[SampledClip]]:
        """Return the batches of an epoch as this side draws them."""
        split, setup = self.speech.split, self.setup
        if setup.name == USUAL:
            return shuffled(len(split), setup.batch_size, self.longest, setup.seed)
        return list(LengthBucketSampler(split, self.drawing))

    def take(self, draws: list[SampledClip]) -> float:
        """Make a batch and take a step: forward, backward, clip, update. Returns the loss."""
        batch = {name: value.to(self.setup.device) for name, value in self.speech.batch(draws).items()}
        ours = self.setup.name == OURS
        with torch.autocast(**self.autocast):
            if ours:
                labels = batch.pop("labels")
                loss = token_loss(self.model(**batch), labels, labels.ne(IGNORE_INDEX).sum())
            else:
                loss = usual_loss(self.model, batch)
        with deterministic_sums(self.setup.device) if ours else nullcontext():
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()  # on a GPU this waits for the step

    def write_down(self, margin_s: float | None) -> dict[str, float]:
        """Return WER on dev, by generation, and its interval; None: every clip in the full window."""
        self.model.eval()
        rows, said = [], []
        dataset = ClipDataset(self.speech.dev)
        for draws in dev_batches(self.speech.dev, self.setup.batch_size, margin_s, self.longest):
            clips = [dataset[draw] for draw in draws]
            features = torch.from_numpy(np.stack([clip.features for clip in clips])).to(self.setup.device)
            most = max_decode_tokens(features.shape[-1] / FRAMES_PER_SECOND, self.model.config.max_target_positions)
            with torch.autocast(**self.autocast), torch.no_grad():
                tokens = self.model.generate(features, max_new_tokens=most, num_beams=1, use_cache=True)
            rows += [clip.row for clip in clips]
            said += [decode_text(self.speech.tokenizer, ids) for ids in tokens.tolist()]
        self.model.train()
        measured = score([row.text for row in rows], said)
        counts, speakers = measured.counts, [row.speaker for row in rows]
        low, high = bootstrap_interval(counts["errors"], counts["words"], speakers)
        return {"wer": measured.wer, "wer_low": low, "wer_high": high, "clips": len(rows), "words": measured.words}


class Process:
    """A side in its process; a context manager."""

    def __init__(self, setup: Setup):
        self.pool = ProcessPoolExecutor(1, get_context("spawn"))
        self.call(open_side, setup)

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *error) -> None:
        self.pool.shutdown()

    def call(self, function: Callable, *arguments):
        """Return what one of the functions below returns there."""
        return self.pool.submit(function, *arguments).result()


SIDE: list[Side] = []


def open_side(setup: Setup) -> None:
    """Make the side of this process."""
    SIDE.append(Side(setup))


def choose(steps: int) -> list[tuple[int, float]]:
    """Keep so many batches that stand for an epoch; return the clips of each, and for which share of its batches."""
    side = SIDE[0]
    if side.setup.name == USUAL:
        side.batches = side.batches[:steps]
        shares = [1 / len(side.batches)] * len(side.batches)
    else:
        side.batches, shares = proportional(side, steps)
    return [(len(draws), share) for draws, share in zip(side.batches, shares, strict=True)]


def proportional(side: Side, steps: int) -> tuple[list[list[SampledClip]], list[float]]:
    """Return a padded batch and every so manieth of the others by window, and the share for which each stands."""
    padded = side.drawing.padded_share
    adaptive = LengthBucketSampler(side.speech.split, replace(side.drawing, padded_share=0.0))
    batches = sorted(adaptive, key=lambda batch: batch[0].window)
    count = max(1, min(steps - 1, len(batches)))
    kept = [batches[len(batches) * (2 * index + 1) // (2 * count)] for index in range(count)]
    few = [SampledClip(draw.index, side.longest) for draw in kept[count // 2][: side.drawing.padded_size]]
    return [few, *kept], [padded, *[(1 - padded) / count] * count]


def step(index: int) -> float:
    """Take one step."""
    side = SIDE[0]
    return side.take(side.batches[index % len(side.batches)])


def learn(part: int, parts: int) -> tuple[float, list[float]]:
    """Take one of so many parts of the steps of an epoch; return the seconds and the losses."""
    side, losses = SIDE[0], []
    batches = side.batches[len(side.batches) * part // parts : len(side.batches) * (part + 1) // parts]
    start = time.perf_counter()
    for draws in batches:
        losses.append(side.take(draws))
        side.schedule.step()
    return time.perf_counter() - start, losses


def write_down(margin_s: float | None) -> dict[str, float]:
    """Measure dev."""
    return SIDE[0].write_down(margin_s)


def mean_seconds() -> float:
    """Return the mean length of the training clips."""
    return float(np.mean(SIDE[0].speech.split.column("duration_s")))


def peak_mb() -> float:
    """Return the most memory, in MB, that this side took beyond what its libraries do; on a GPU, the GPU's."""
    if SIDE[0].setup.device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return memory_mb("VmHWM") - SIDE[0].before_mb


def memory_mb(name: str) -> float:
    """Return VmRSS, what this process holds, or VmHWM, the most it ever held; 0 where the system does not tell."""
    with suppress(OSError):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))
    return 0.0
