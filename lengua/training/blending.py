"""What keeps a run from making Whisper worse for other people: its weights are mixed with those of the base.

    blend(trainer, base, watch)      # {"dev_wer": 0.18, "blend": {"alphas": [...], "chosen": 0.5, ...}, ...}

Models on the straight line between base and fine-tuned weights know the new speech nearly as well and have forgotten
less of all else (WiSE-FT: Wortsman et al., Robust fine-tuning of zero-shot models, 2022). The smallest share of the
fine-tuned weights is kept that dev cannot tell from the best one (paired bootstrap, 95 %): other people can. Where
`--general` names speech of other people, no share is kept at which it is recognised worse than by the base. The verdict
holds the kept mix against the base in 30 s, the window that the base knows. As the best of several evaluations its dev
WER is a little too good: believe that on test.
"""

from copy import copy
from functools import partial

import torch

from lengua.data.streaming import Stream
from lengua.runtime.progress import Progress, Watch
from lengua.scoring import WerDifference, bootstrap_unit, compare_by_bootstrap
from lengua.training.callbacks import DevEvaluation
from lengua.training.parameters import merge_lora

BLEND_ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
"""Shares of the fine-tuned weights; with less, little is left of what was learned."""
MAX_UNCHECKED_ALPHA = 0.5
"""The most that is kept where no other people are measured."""

WeightsByName = dict[str, torch.Tensor]


def blend(trainer, base, watch: Watch) -> dict:
    """Leave the trainer with the chosen mix of a base model and its own weights; return its entries in run.json.

    Every process takes part, for all of them measure dev. Without `--blend` the fine-tuned weights stay as they are,
    and only the verdict is added.
    """
    model = merge_lora(trainer.accelerator.unwrap_model(trainer.model))
    trainer.model = trainer.model_wrapped = model
    alphas = BLEND_ALPHAS if trainer.options.blend else BLEND_ALPHAS[-1:]
    ends = weights_by_name(base), {name: value.clone() for name, value in weights_by_name(model).items()}
    report = partial(Progress, "blend", total=len(alphas), unit="mixes")
    of_base, best, others = trainer.base_evaluation, trainer.best_evaluation, trainer.general_split
    interpolate_weights(model, *ends, 0.0)
    if of_base is None or best is None:  # a run that was resumed
        of_base, best = measure(trainer, trainer.dev_split.subset(trainer.base_places), padded=True), None
    general = {0.0: measure(trainer, others, padded=True)} if others else {}
    measured = {}
    for done, alpha in enumerate(alphas):
        watch(report(done=done, note=f"{alpha:.0%} fine-tuned"))
        interpolate_weights(model, *ends, alpha)
        measured[alpha] = best if best and alpha == 1 else measure(trainer, trainer.dev_split)
        if others:
            general[alpha] = measure(trainer, others)
    most = 1.0 if others or dev_has_strangers(trainer) or not trainer.options.blend else MAX_UNCHECKED_ALPHA
    chosen = choose_alpha(measured, general, most)
    interpolate_weights(model, *ends, chosen)
    watch(report(done=len(alphas), note=f"{chosen:.0%} fine-tuned"))
    entries = {"base_dev_wer": of_base.wer, "verdict": judge(of_base, measured[chosen], trainer.base_places)}
    if trainer.options.blend:
        watch(Progress("blend", len(alphas), None, "", describe_blend(measured, chosen, most)))
        rates = [measured[alpha].wer for alpha in alphas]
        entries["dev_wer"] = measured[chosen].wer
        entries["blend"] = {"alphas": list(alphas), "dev_wer": rates, "most": most, "chosen": chosen}
    if others:
        entries["general_wer"] = {f"{alpha:g}": one.wer for alpha, one in general.items()}
        entries["verdict"] += (
            f"; other people {general[0.0].wer:.1%} by the base, {general[chosen].wer:.1%} by this run"
        )
    watch(Progress("verdict", 0, None, "", entries["verdict"]))
    return entries


def dev_has_strangers(trainer) -> bool:
    """Return whether dev has only voices that are not trained on.

    Of a stream the voices are not known before its end; where dev has many, they are those of a corpus whose splits
    share none.
    """
    speakers = trainer.dev_split.column("speaker")
    if isinstance(trainer.train_split, Stream):
        return bootstrap_unit(speakers) == "speaker"
    return all(speakers) and set(speakers).isdisjoint(trainer.train_split.column("speaker"))


def choose_alpha(measured: dict[float, DevEvaluation], general: dict[float, DevEvaluation], most: float = 1.0) -> float:
    """Return the smallest share that dev does not show to be worse than the best, by the paired bootstrap.

    Args:
        measured: dev by the share of fine-tuned weights.
        general: other people's speech, also of the base (0): where it is recognised worse than by the base, a smaller
            share is kept, the smallest at the worst. Empty if nobody else was measured.
        most: a larger share is not kept.
    """
    best = measured[min(measured, key=lambda alpha: (measured[alpha].wer, alpha))]
    found = {alpha: _difference(best, one) for alpha, one in sorted(measured.items())}
    chosen = next(alpha for alpha, worse in found.items() if not worse.shown)
    chosen = min(chosen, most)
    harmless = [alpha for alpha in found if not general or general[alpha].wer <= general[0.0].wer]
    return max([alpha for alpha in harmless if alpha <= chosen], default=min(found))


def judge(base: DevEvaluation, tuned: DevEvaluation, places: list[int]) -> str:
    """Say whether dev shows that a run is better than its base, on the places in dev that the base was measured on."""
    some = ""
    if len(places) < (clips := len(tuned.errors)):
        some, tuned = f" on {len(places)} of {clips} clips", tuned.of(places)
    found = _difference(base, tuned)
    verdict = "not shown to be better than its base" if not found.shown else "better than its base"
    if found.shown and found.difference > 0:
        verdict = "worse than its base"
    if verdict != "better than its base":
        verdict += ", which you may rather use"
    interval = f"{100 * found.difference:+.1f} points (95 %: {100 * found.low:+.1f} to {100 * found.high:+.1f})"
    return f"{verdict}: dev WER{some} {tuned.wer:.1%}, of the base (30 s) {base.wer:.1%}, {interval}"


def _difference(one: DevEvaluation, other: DevEvaluation) -> WerDifference:
    return compare_by_bootstrap(one.errors, other.errors, one.words, one.speakers)


def describe_blend(measured: dict[float, DevEvaluation], chosen: float, most: float = 1.0) -> str:
    """Say how each mix did and which one is kept."""
    why = ", the most where dev has no other voices than training" if chosen == most < 1 else ""
    table = ", ".join(f"{one.wer:.1%} at {alpha:g}" for alpha, one in measured.items())
    return f"dev WER by the share of fine-tuned weights: {table}; kept: {chosen:g}{why}"


@torch.no_grad()
def interpolate_weights(model, base: WeightsByName, tuned: WeightsByName, alpha: float) -> None:
    """Set a model's weights to so much of the way from the base to the fine-tuned ones; both ends are exact."""
    for name, weight in weights_by_name(model).items():
        weight.copy_(torch.lerp(base[name].to(weight.device), tuned[name], alpha))


def weights_by_name(model) -> WeightsByName:
    """Return the weights by name, tied ones once."""
    return {name: weight.detach() for name, weight in model.named_parameters()}


def measure(trainer, split, padded: bool = False) -> DevEvaluation:
    """Measure a split as dev is in training, but as no step of it: neither history.jsonl nor trackers record it.

    Args:
        padded: in 30 s; otherwise in the window that the run is trained for.
    """
    before = trainer.callback_handler.callbacks, trainer.dev_split, trainer.dev_margin_s
    trainer.callback_handler.callbacks, trainer.dev_split = [], split
    trainer.dev_margin_s = None if padded else trainer.dev_margin_s
    try:
        trainer.evaluate()
        return copy(trainer.evaluation)
    finally:
        trainer.callback_handler.callbacks, trainer.dev_split, trainer.dev_margin_s = before
