"""Training: the usual recipe against lengua, the same clips on the same machine.

    python benchmarks/training.py --store runs/demo/store
    python benchmarks/training.py --random-weights base --no-quality      # nothing to download

The usual recipe is that of the well-known notebook: WhisperForConditionalGeneration with its own loss, every clip 30 s
long, shuffled, DataCollatorSpeechSeq2SeqWithPadding: labels with the whole prompt, whose first token the collator takes
off again and the model puts back. What the notebook does to save memory on a small GPU, computing activations twice, is
left out: it would make this side slower. Its features are those of a store, padded with their own silence: what
WhisperFeatureExtractor gives, to within the rounding of one byte a value (benchmarks/store_quality.py finds the same
words in both).

Speed: steps of both sides alternate, in float32 and in bfloat16. Ours are one padded to 30 s, which counts as much as
such batches do in an epoch, and others from its shortest window to its longest; making the batch counts. Quality: both
really learn, by the same loop, from the same clips, once each, and write down dev at the same steps: the usual recipe
padded, ours in its adaptive window and padded. Every side has a process of its own. The last line is one JSON object.
"""

import json
import random
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from harness import BenchmarkOptions, FreshProcess, alternate, markdown, own_memory_mb, report, run, tell
from transformers import WhisperConfig, WhisperForConditionalGeneration, get_linear_schedule_with_warmup

from lengua.audio.log_mel import FRAMES_PER_SECOND
from lengua.data.store import open_store
from lengua.data.streaming import StreamBlock
from lengua.evaluation.report.tables import with_interval
from lengua.models.checkpoints import find_model, load_tokenizer
from lengua.models.tokens import IGNORE_INDEX, decode_text, end_token, max_decode_tokens, prompt_tokens
from lengua.models.whisper import AdaptiveWhisper, force_language, load_model, silence_transformers, window_frames
from lengua.options import BASE_MODEL, TrainOptions
from lengua.runtime.system import describe_hardware
from lengua.scoring import bootstrap_interval, score
from lengua.training.dataset import ClipDataset, Collator, WindowedClip
from lengua.training.hardware import deterministic_sums, pick_device
from lengua.training.samplers import BatchPlan, LengthBucketSampler, SampledClip, dev_batches
from lengua.training.trainer import token_loss

USUAL, OURS = "usual recipe", "lengua"
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}
DEFAULTS = TrainOptions("")
MARGIN_S = round(sum(DEFAULTS.margin_s) / 2, 2)
SIZES = {"tiny": (384, 4, 6), "base": (512, 6, 8), "small": (768, 12, 12)}
"""(d_model, layers, heads) of a released Whisper."""
RANDOM_CLIPS, RANDOM_MEAN_S, TOKENS_PER_SECOND = 512, 5.0, 4


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Compare speed, memory and quality of training."""

    store: Path = Path("runs/demo/store")
    """The clips: the splits train and dev of a feature store."""
    base: str = BASE_MODEL
    """The checkpoint to start from."""
    batch_size: int = 8
    """Clips a step."""
    steps: int = 12
    """Steps of each side whose speed is measured."""
    rounds: int = 3
    """How often each of them is taken; the median counts."""
    clips: int = 400
    """Training clips that both sides learn from, once each."""
    evaluations: int = 4
    """How often dev is written down while they do."""
    learning_rate: float = 1e-5
    """Peak of the schedule on both sides; 10 % of the steps climb to it, then it falls to zero."""
    seed: int = 17
    """Draws the clips and their order."""
    quality: bool = True
    """Let both sides learn; without it, speed and memory alone."""
    random_weights: Literal["tiny", "base", "small"] | None = None
    """A model of this shape with random weights, on random features: speed and memory alone."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where."""


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


def main(options: Options) -> dict:
    device = pick_device(options.device)
    if not options.random_weights:
        find_model(options.base)  # what is missing is reported before anything is measured
        open_store(options.store)
    chosen = (options.store, options.base, options.random_weights, options.batch_size)
    setups = {name: Setup(name, "bf16", device, *chosen, seed=options.seed) for name in (USUAL, OURS)}
    speeds = {precision: measure_speed(setups, precision, options) for precision in PRECISIONS}
    learned = None
    if options.quality and not options.random_weights:
        learned = measure_quality(setups, options)
    return show(options, device, speeds, learned)


def measure_speed(setups: dict[str, Setup], precision: str, options: Options) -> dict:
    """Return clips a second and peak memory of both sides, steps in turn."""
    tell(f"speed in {PRECISIONS[precision]}")
    both = {name: opened(replace(setup, precision=precision)) for name, setup in setups.items()}
    stood_for = {name: side.call(on_side, "choose", options.steps) for name, side in both.items()}
    for side in both.values():
        side.call(on_side, "step", 0)
    steps = min(map(len, stood_for.values()))
    seconds = alternate(
        {name: partial(side.call, on_side, "step") for name, side in both.items()}, steps, options.rounds
    )
    speed = {
        "clips_per_second": {name: clips_per_second(stood_for[name][:steps], seconds[name]) for name in both},
        "peak_mb": {name: side.call(on_side, "peak_mb") for name, side in both.items()},
        "mean_seconds": both[USUAL].call(on_side, "mean_seconds"),
        "steps": steps,
    }
    for side in both.values():
        side.__exit__()
    return speed


def clips_per_second(stood_for: list[tuple[int, float]], seconds: list[float]) -> float:
    """Return the clips of an epoch over its seconds, from steps that stand for a share of it each."""
    clips = sum(clips * share for clips, share in stood_for)
    return clips / sum(taken * share for taken, (_, share) in zip(seconds, stood_for, strict=True))


def measure_quality(setups: dict[str, Setup], options: Options) -> dict[str, list[dict]]:
    """Let each side learn from the same clips; return what each evaluation found."""
    more = {"clips": options.clips, "learning_rate": options.learning_rate}
    return {name: course(replace(setup, **more), options.evaluations) for name, setup in setups.items()}


def course(setup: Setup, evaluations: int) -> list[dict]:
    """Return of each evaluation the seconds of training before it, the mean loss since the last, and dev by window."""
    windows = {"padded": None} if setup.name == USUAL else {"adaptive": MARGIN_S, "padded": None}
    seconds, found = 0.0, []
    with opened(setup) as side:
        for part in range(evaluations):
            taken, losses = side.call(on_side, "learn", part, evaluations)
            seconds += taken
            dev = {window: side.call(on_side, "write_down", margin) for window, margin in windows.items()}
            found.append({"seconds": round(seconds, 1), "loss": sum(losses) / max(1, len(losses)), **dev})
            tell(f"{setup.name}, {part + 1}/{evaluations}: {json.dumps(found[-1])}")
    return found


def show(options: Options, device: str, speeds: dict, learned: dict | None) -> dict:
    rates = {precision: speed["clips_per_second"] for precision, speed in speeds.items()}
    result = {
        "speedup_usual": round(rates["bf16"][OURS] / rates["fp32"][USUAL], 2),
        "speedup_same": round(rates["bf16"][OURS] / rates["bf16"][USUAL], 2),
        "speedup_float32": round(rates["fp32"][OURS] / rates["fp32"][USUAL], 2),
        "clips_per_second": {key: {name: round(rate, 3) for name, rate in row.items()} for key, row in rates.items()},
        "peak_mb": {key: {name: round(mb) for name, mb in speed["peak_mb"].items()} for key, speed in speeds.items()},
        **qualities(learned),
        "model": f"{options.random_weights}, random weights" if options.random_weights else options.base,
        "precisions": PRECISIONS,
        "device": device,
        "hardware": describe_hardware(),
        "batch_size": options.batch_size,
        "steps": speeds["fp32"]["steps"],
        "padded_share": DEFAULTS.padded_share,
        "rounds": options.rounds,
        "clips": options.clips if learned else 0,
        "mean_seconds": round(speeds["fp32"]["mean_seconds"], 2),
    }
    lines = [*speed_lines(rates, result), *(quality_lines(learned, result, options) if learned else [])]
    title = f"Training, {result['model'].rpartition('/')[2]}, {device}"
    shown = () if options.random_weights else ("store", "clips") if learned else ("store",)
    return report(options, title, lines, result, shown)


def qualities(learned: dict | None) -> dict:
    """Return WER of both sides after the same clips, and when ours was as good as the usual recipe in the end."""
    if not learned:
        none = ("wer_usual", "wer_ours", "wer_ours_padded", "seconds_to_usual_wer")
        return dict.fromkeys(none)
    usual, ours = learned[USUAL][-1], learned[OURS][-1]
    reached = next(
        (look["seconds"] for look in learned[OURS] if look["adaptive"]["wer"] <= usual["padded"]["wer"]), None
    )
    ratio = round(usual["seconds"] / reached, 1) if reached else None
    return {
        "wer_usual": usual["padded"]["wer"],
        "wer_ours": ours["adaptive"]["wer"],
        "wer_ours_padded": ours["padded"]["wer"],
        "intervals": {
            name: [look["wer_low"], look["wer_high"]]
            for name, look in (("usual", usual["padded"]), ("ours", ours["adaptive"]), ("ours_padded", ours["padded"]))
        },
        "seconds_to_usual_wer": {"usual": usual["seconds"], "ours": reached, "ratio": ratio},
        "course": learned,
    }


def speed_lines(rates: dict, result: dict) -> list[str]:
    rows = [
        [
            f"{name}, {PRECISIONS[key]}",
            f"{rate:.2f}",
            f"{rate / rates['fp32'][USUAL]:.1f}",
            f"{result['peak_mb'][key][name]:,}",
        ]
        for key, row in rates.items()
        for name, rate in row.items()
    ]
    head = [f"{result['model']}, batches of {result['batch_size']}", "clips/s", "times the usual in float32", "peak MB"]
    where = "on the GPU" if result["device"] == "cuda" else "beyond the libraries'"
    return [
        *markdown(head, rows),
        "",
        f"{result['steps']} steps each, in turn, median of {result['rounds']}; clips of mean "
        f"{result['mean_seconds']:.1f} s; one of ours, of fewer clips, is padded to 30 s and counts as "
        f"{100 * result['padded_share']:g} % of the steps of an epoch. Memory {where}, a process each.",
    ]


def quality_lines(learned: dict, result: dict, options: Options) -> list[str]:
    """Return the table of dev WER by step, and how soon ours was as good."""
    head = [
        "dev WER (95 % interval) after",
        *(f"{part + 1}/{options.evaluations}" for part in range(options.evaluations)),
    ]
    ways = {
        f"{USUAL}, padded": (USUAL, "padded"),
        f"{OURS}, adaptive": (OURS, "adaptive"),
        f"{OURS}, padded": (OURS, "padded"),
    }
    rows = [[title, *(with_interval(look[window]) for look in learned[name])] for title, (name, window) in ways.items()]
    rows += [
        [f"{name}, seconds of training", *(f"{look['seconds']:.0f}" for look in looks)]
        for name, looks in learned.items()
    ]
    times, dev = result["seconds_to_usual_wer"], learned[USUAL][-1]["padded"]
    minutes = options.clips / result["clips_per_second"]["fp32"][USUAL] / 60
    reached = "did not reach the usual recipe's last WER"
    if times["ours"]:
        reached = (
            f"was as good as the usual recipe in the end after {times['ours']:.0f} s, {times['ratio']:.1f} times sooner"
        )
    return [
        "",
        *markdown(head, rows),
        "",
        f"Of one epoch of {options.clips} clips, the same on both sides, rate {options.learning_rate:g}, both in "
        f"bfloat16; in float32 the usual recipe would take {minutes:.0f} minutes. "
        f"Dev: {dev['clips']} clips, {dev['words']} words, greedy. {OURS}, in its adaptive window, {reached}.",
    ]


# A side: a model, its batches and its optimiser. It takes steps, learns, and writes down dev.


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
        self.setup, before = setup, own_memory_mb("VmRSS")
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
                loss = self.model(**batch).loss  # the mean over the tokens of the batch, the prompt's among them
        with deterministic_sums(self.setup.device) if ours else nullcontext():
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()  # on a GPU this waits for the step

    def write_down(self, margin_s: float | None) -> dict[str, float]:
        """Return WER on dev, by generation, and its interval; None: every clip in the full window."""
        self.model.eval()
        rows, hypotheses = [], []
        dataset = ClipDataset(self.speech.dev)
        for draws in dev_batches(self.speech.dev, self.setup.batch_size, margin_s, self.longest):
            clips = [dataset[draw] for draw in draws]
            features = torch.from_numpy(np.stack([clip.features for clip in clips])).to(self.setup.device)
            most = max_decode_tokens(features.shape[-1] / FRAMES_PER_SECOND, self.model.config.max_target_positions)
            with torch.autocast(**self.autocast), torch.no_grad():
                tokens = self.model.generate(features, max_new_tokens=most, num_beams=1, use_cache=True)
            rows += [clip.row for clip in clips]
            hypotheses += [decode_text(self.speech.tokenizer, ids) for ids in tokens.tolist()]
        self.model.train()
        measured = score([row.text for row in rows], hypotheses)
        counts, speakers = measured.counts, [row.speaker for row in rows]
        low, high = bootstrap_interval(counts["errors"], counts["words"], speakers)
        return {"wer": measured.wer, "wer_low": low, "wer_high": high, "clips": len(rows), "words": measured.words}

    def choose(self, steps: int) -> list[tuple[int, float]]:
        """Keep batches that stand for an epoch; return the clips of each, and for which share of its batches."""
        if self.setup.name == USUAL:
            self.batches = self.batches[:steps]
            shares = [1 / len(self.batches)] * len(self.batches)
        else:
            self.batches, shares = self.proportional(steps)
        return [(len(draws), share) for draws, share in zip(self.batches, shares, strict=True)]

    def proportional(self, steps: int) -> tuple[list[list[SampledClip]], list[float]]:
        """Return a padded batch and every so manieth of the others by window, and the share for which each stands."""
        padded = self.drawing.padded_share
        adaptive = LengthBucketSampler(self.speech.split, replace(self.drawing, padded_share=0.0))
        batches = sorted(adaptive, key=lambda batch: batch[0].window)
        count = max(1, min(steps - 1, len(batches)))
        kept = [batches[len(batches) * (2 * index + 1) // (2 * count)] for index in range(count)]
        few = [SampledClip(draw.index, self.longest) for draw in kept[count // 2][: self.drawing.padded_size]]
        return [few, *kept], [padded, *[(1 - padded) / count] * count]

    def step(self, index: int) -> float:
        return self.take(self.batches[index % len(self.batches)])

    def learn(self, part: int, parts: int) -> tuple[float, list[float]]:
        """Take one of so many parts of the steps of an epoch; return the seconds and the losses."""
        losses, count, start = [], len(self.batches), time.perf_counter()
        for draws in self.batches[count * part // parts : count * (part + 1) // parts]:
            losses.append(self.take(draws))
            self.schedule.step()
        return time.perf_counter() - start, losses

    def mean_seconds(self) -> float:
        return float(np.mean(self.speech.split.column("duration_s")))

    def peak_mb(self) -> float:
        """Return the most memory that this side took beyond what its libraries do; on a GPU, the GPU's."""
        if self.setup.device == "cuda":
            return torch.cuda.max_memory_allocated() / 2**20
        return own_memory_mb("VmHWM") - self.before_mb


SIDE: list[Side] = []
"""The side of this process."""


def open_side(setup: Setup) -> None:
    SIDE.append(Side(setup))


def on_side(method: str, *arguments):
    return getattr(SIDE[0], method)(*arguments)


def opened(setup: Setup) -> FreshProcess:
    """Return a fresh process with a side in it, for `on_side`."""
    process = FreshProcess()
    process.call(open_side, setup)
    return process


# The usual recipe


def shuffled(clips: int, batch_size: int, window: int, seed: int) -> list[list[SampledClip]]:
    """Return the batches of an epoch: any clips together, every one in the full window."""
    order = random.Random(seed).sample(range(clips), clips)
    return [[SampledClip(index, window) for index in order[at : at + batch_size]] for at in range(0, clips, batch_size)]


class UsualCollator:
    """Clips -> input_features (batch, n_mels, window) and labels (batch, tokens), as the notebook's collator."""

    def __init__(self, tokenizer, language: str):
        self.tokenizer, self.language = tokenizer, language

    def __call__(self, clips: list[WindowedClip]) -> dict[str, torch.Tensor]:
        features = torch.from_numpy(np.stack([clip.features for clip in clips]))
        labels = [self._label(clip.row.text) for clip in clips]
        longest = max(map(len, labels))
        return {
            "input_features": features,
            "labels": torch.tensor([[*label, *[IGNORE_INDEX] * (longest - len(label))] for label in labels]),
        }

    def _label(self, text: str) -> list[int]:
        prompt = prompt_tokens(self.tokenizer, self.language)[1:]
        words = self.tokenizer.encode(text, add_special_tokens=False).ids  # without the space before it, as there
        return [*prompt, *words, end_token(self.tokenizer)]


if __name__ == "__main__":
    run(main, Options)
