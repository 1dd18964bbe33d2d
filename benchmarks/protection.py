"""What keeps fine-tuning from making Whisper worse for people it never heard: ways of training, on three axes.

    python benchmarks/protection.py --own STORE --strangers STORE --others STORE ... --tests STORE ...

Every variant trains on the train split of --own, and its weights are mixed with the base's in the shares of
`lengua.training.blending`, of which own dev chooses one. --strangers and --others decide between variants by the rule
in LOG.md; own test and --tests are measured and choose nothing. Runs and measurements in --out are kept, so the study
can be stopped and goes on. With --run, a finished run with the demo's options is taken for the plain variant.
"""

import json
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
import tyro
from harness import BenchmarkOptions, markdown, report, run, tell
from transformers import TrainerCallback

from lengua.data.store import open_store
from lengua.inference import TRAINED_MARGIN, Transcriber
from lengua.models.checkpoints import find_model, read_note, save_model
from lengua.models.tokens import IGNORE_INDEX
from lengua.models.whisper import load_model
from lengua.options import BASE_MODEL, TrainOptions
from lengua.runtime.files import read_json, write_json
from lengua.runtime.progress import Console
from lengua.scoring import score
from lengua.training.blending import (
    BLEND_ALPHAS,
    MAX_UNCHECKED_ALPHA,
    choose_alpha,
    interpolate_weights,
    weights_by_name,
)
from lengua.training.callbacks import DevEvaluation
from lengua.training.train import train
from lengua.training.trainer import AdaptiveTrainer, token_loss

WINDOW_FRAMES = 3000
BATCH_SIZE = 8
PADDED, ADAPTIVE = "padded", "adaptive"


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Train every variant, mix it with the base, measure it on three axes."""

    variants: tyro.conf.Positional[tuple[str, ...]] = ()
    """Which variants; default: all."""
    own: Path = Path("runs/demo/store")
    """The store to learn: train, dev and test."""
    strangers: tuple[Path, ...] = ()
    """Speech of the language by others, which decides."""
    others: tuple[Path, ...] = ()
    """Other languages, which decide, too."""
    tests: tuple[Path, ...] = ()
    """Others of the language, who are measured only."""
    run: Path | None = None
    """A finished run that is the plain variant: its mix with the base is undone."""
    out: Path = Path("runs/protection")
    """Runs and measurements."""
    every: int = 3
    """Of --strangers, every so many-th clip."""


class PullToBase(TrainerCallback):
    """Move the weights towards the base after every step, decoupled from Adam as weight decay is; `share` of the way at
    the peak of the rate (L2-SP: Li et al., Explicit inductive bias for transfer learning, ICML 2018)."""

    def __init__(self, share: float):
        self.share = share

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.base = {name: weight.detach().clone() for name, weight in model.named_parameters()}

    @torch.no_grad()
    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs):
        share = self.share * optimizer.param_groups[0]["lr"] / args.learning_rate
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                weight.lerp_(self.base[name], share)


class SlowPart(TrainerCallback):
    """Take only a share of every step in the weights whose name has `part` in it."""

    def __init__(self, part: str, share: float):
        self.part, self.share = part, share

    @torch.no_grad()
    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.before = {n: w.detach().clone() for n, w in model.named_parameters() if self.part in n and w.requires_grad}

    @torch.no_grad()
    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        for name, weight in model.named_parameters():
            if name in self.before:
                weight.lerp_(self.before[name], 1 - self.share)


class AverageAlongRun(TrainerCallback):
    """Keep an exponential moving average of the weights, and put it in their place after the last step."""

    def __init__(self, decay: float):
        self.decay, self.mean = decay, {}

    @torch.no_grad()
    def on_step_end(self, args, state, control, model=None, **kwargs):
        for name, weight in model.named_parameters():
            self.mean.setdefault(name, weight.detach().clone()).lerp_(weight, 1 - self.decay)
            if state.global_step == state.max_steps:
                weight.copy_(self.mean[name])


@contextmanager
def distilled(base: Path, share: float):
    """Add the divergence from the padded base, on the labels of the run's own clips, to the loss.

    The teacher hears the clip in 30 s, the only window that it knows, whichever window the student hears it in.
    """
    teacher, before = load_model(base).eval().requires_grad_(False), AdaptiveTrainer.compute_loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs, features, labels = model(**inputs), inputs["input_features"], inputs["labels"]
        silence = features.amin((1, 2), keepdim=True)
        silence = silence.expand(-1, features.shape[1], WINDOW_FRAMES - features.shape[2])
        with torch.no_grad():
            heard = {**inputs, "input_features": torch.cat([features, silence], 2)}
            theirs = teacher(**heard)["logits"].float()
        taught = labels.ne(IGNORE_INDEX)
        ours, theirs = (torch.log_softmax(logits[taught], -1) for logits in (outputs["logits"].float(), theirs))
        divergence = torch.nn.functional.kl_div(ours, theirs, log_target=True, reduction="sum")
        items = num_items_in_batch if num_items_in_batch is not None else taught.sum()
        loss = (1 - share) * token_loss(outputs, labels, num_items_in_batch) + share * divergence / items
        return (loss, outputs) if return_outputs else loss

    AdaptiveTrainer.compute_loss = compute_loss
    try:
        yield
    finally:
        AdaptiveTrainer.compute_loss = before


@dataclass(frozen=True)
class Variant:
    """One way of training: the demo's, changed."""

    changes: dict = field(default_factory=dict)
    """Of its options."""
    callbacks: Callable[[], list[TrainerCallback]] = list
    distil: float = 0.0
    """Share of the teacher in the loss."""
    of: str = ""
    """The variant whose training it shares, mixed otherwise."""
    factors: dict[str, float] = field(default_factory=dict)
    """Of the share that is kept, in weights whose name has the key."""


VARIANTS = {
    "plain": Variant(),
    "packed 0.15": Variant({"packed_share": 0.15, "timestamps_share": 0.5}),
    "rate 2.5e-5": Variant({"learning_rate": 2.5e-5}),
    "half rate": Variant({"learning_rate": 5e-6}),
    "SpecAugment": Variant({"spec_augment": True}),
    "encoder frozen": Variant({"learn": "decoder"}),
    "encoder at a tenth": Variant(callbacks=lambda: [SlowPart("encoder", 0.1)]),
    "decoder at a tenth": Variant(callbacks=lambda: [SlowPart("decoder", 0.1)]),
    "pull 0.01": Variant(callbacks=lambda: [PullToBase(0.01)]),
    "average 0.98": Variant(callbacks=lambda: [AverageAlongRun(0.98)]),
    "teacher 0.5": Variant(distil=0.5),
    "decoder by half": Variant(of="plain", factors={"model.decoder": 0.5}),
    "encoder by half": Variant(of="plain", factors={"model.encoder": 0.5}),
    "embeddings of the base": Variant(of="plain", factors={"embed": 0.0}),
    "cross-attention alone": Variant(of="plain", factors={"model.decoder": 0.0, "encoder_attn": 1.0}),
}


@dataclass(frozen=True)
class Axis:
    """A set of clips to measure on."""

    name: str
    stores: tuple[Path, ...]
    splits: tuple[str, ...] = ("train", "dev", "test")
    every: int = 1
    windows: tuple[str, ...] = (PADDED, ADAPTIVE)

    def measure(self, model: Path, window: str, kept: dict) -> DevEvaluation:
        """Return errors and words of every clip; `kept` holds what was measured before, and takes what is new."""
        found = kept.get(key := f"{self.name}, {window}")
        if found is None:
            found = kept[key] = {"errors": [], "words": [], "speakers": []}
            for store in map(open_store, self.stores):
                splits = [name for name in self.splits if store.manifest["splits"].get(name, {}).get("utterances")]
                rows = [row for name in splits for row in store.split(name)][:: self.every]
                counts = score([row.text for row in rows], transcribe(model, rows, store.language, window)).counts
                found["errors"] += counts["errors"].tolist()
                found["words"] += counts["words"].tolist()
                found["speakers"] += [row.speaker for row in rows]
        return DevEvaluation(**found)


def transcribe(model: Path, rows: list, language: str, window: str) -> list[str]:
    """Transcribe rows in one window, those of like length together."""
    transcriber, margin = Transcriber(str(model), language), None if window == PADDED else TRAINED_MARGIN
    order, texts = sorted(range(len(rows)), key=lambda at: -rows[at].frames), {}
    for at in range(0, len(order), BATCH_SIZE):
        batch = order[at : at + BATCH_SIZE]
        texts |= zip(batch, transcriber.decode([rows[index].log_mel() for index in batch], margin), strict=True)
    return [texts[index].text for index in range(len(rows))]


def trained(name: str, options: Options) -> Path:
    """Return the model folder of a variant, trained unless it is there already."""
    if VARIANTS[name].of:
        return trained(VARIANTS[name].of, options)
    variant, out, extra = VARIANTS[name], options.out / name.replace(" ", "_"), VARIANTS[name].callbacks()
    usual = {"epochs": 3.0, "evaluations": 3, "learning_rate": 1e-5, "blend": False}
    # what callbacks of this file do is not part of a checkpoint
    asked = TrainOptions(str(options.own), out, **usual | variant.changes, resume=not extra)
    if name == "plain" and options.run:
        kept = read_json(options.run / "run.json").get("blend", {}).get("chosen", 1.0)
        return mixed(find_model(BASE_MODEL)[0], options.run / "model", 1 / kept, out / "model")
    if not (out / "model/config.json").is_file():
        teacher = distilled(find_model(BASE_MODEL)[0], variant.distil) if variant.distil else nullcontext()
        with Console() as watch, teacher:
            train(asked, watch, extra)
    return out / "model"


def mixed(base: Path, tuned: Path, alpha: float, out: Path, factors: dict[str, float] | None = None) -> Path:
    """Return the folder of a mix of base and fine-tuned weights; beyond 1 it undoes one."""
    if alpha == 1 and not factors:
        return tuned
    model = load_model(tuned)
    start, end = weights_by_name(load_model(base)), {n: one.clone() for n, one in weights_by_name(model).items()}
    for part, factor in (factors or {}).items():
        for name in filter(lambda name, part=part: part in name, end):
            whole = weights_by_name(model)[name]
            end[name] = torch.lerp(start[name], whole, factor)
    interpolate_weights(model, start, end, alpha)
    save_model(model, base, out, read_note(tuned))
    return out


def main(options: Options) -> dict:
    """Train, mix, measure, print."""
    base = find_model(BASE_MODEL)[0]
    dev = Axis("own dev", (options.own,), ("dev",), windows=(ADAPTIVE,))
    axes = [
        Axis("own test", (options.own,), ("test",)),
        *([Axis("strangers", options.strangers, every=options.every)] if options.strangers else []),
        *([Axis("other languages", options.others, windows=(ADAPTIVE,))] if options.others else []),
        *([Axis("strangers of the test", options.tests)] if options.tests else []),
    ]
    header = ["WER (%)", "share", "own dev", *(f"{axis.name}, {window}" for axis in axes for window in axis.windows)]
    file = options.out / "measured.json"
    kept = read_json(file) if file.is_file() else {}
    options.out.mkdir(parents=True, exist_ok=True)

    def measure(key: str, model: Path, wanted: list[tuple[Axis, str]]) -> list[DevEvaluation]:
        found = [axis.measure(model, window, kept.setdefault(key, {})) for axis, window in wanted]
        write_json(file, kept)
        return found

    padded = [(axis, PADDED) for axis in (dev, *axes)]
    wers = [one.wer for one in measure("base", base, padded)]
    rows = [
        [
            "base, padded",
            "0",
            percent(wers[0]),
            *(percent(w) for a, w in zip(axes, wers[1:], strict=True) for _ in a.windows),
        ]
    ]
    for name in options.variants or VARIANTS:
        tuned, by_alpha = trained(name, options), {}
        for alpha in BLEND_ALPHAS:
            model = mixed(base, tuned, alpha, options.out / "scratch", VARIANTS[name].factors)
            [by_alpha[alpha]] = measure(f"{name} {alpha:g}", model, [(dev, ADAPTIVE)])
        chosen = choose_alpha(by_alpha, {}, MAX_UNCHECKED_ALPHA)
        for alpha in sorted({chosen, 1.0} if name == "plain" else {chosen}):
            model = mixed(base, tuned, alpha, options.out / "scratch", VARIANTS[name].factors)
            wanted = [(axis, window) for axis in axes for window in axis.windows]
            wers = [by_alpha[alpha].wer, *(one.wer for one in measure(f"{name} {alpha:g}", model, wanted))]
            rows.append([name, f"{alpha:g}{', kept' if alpha == chosen else ''}", *map(percent, wers)])
            tell(json.dumps(dict(zip(header, rows[-1], strict=True))))
    return report(options, "Protection", markdown(header, rows), {"rows": rows}, shown=("own", "variants"))


def percent(rate: float) -> str:
    """Write a rate in per cent."""
    return f"{100 * rate:.1f}"


if __name__ == "__main__":
    run(main, Options)
