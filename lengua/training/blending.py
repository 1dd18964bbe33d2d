"""`--blend`: mix base and fine-tuned weights, each in the share that writes dev down with the fewest errors.

    blend(trainer, base)    # {"dev_wer": 0.18, "blend": {"alphas": [...], "dev_wer": [...], "chosen": 0.8}}

Straight between the two lie models that often know the new speech as well and have forgotten less of all else
(WiSE-FT: Wortsman et al., Robust fine-tuning of zero-shot models, 2022). The lowest WER wins, whatever its distance to
the others: shares side by side differ by less than the noise of dev, and any of them will do. Of equal ones the nearest
to the fine-tuned model wins. As the best of several looks at dev, it flatters a little: believe what test says.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lengua.progress import Progress, Watch
from lengua.training import learning

ALPHAS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Shares of the fine-tuned weights; 0 is the base."""

Weights = dict[str, torch.Tensor]


def blend(trainer, base, watch: Watch) -> dict:
    """Leave the trainer with the best mix of a base model and its own; return what run.json tells of it.

    Every process takes part, for all of them measure dev.
    """
    model = learning.merged(trainer.accelerator.unwrap_model(trainer.model))
    trainer.model = trainer.model_wrapped = model
    ends = weights_of(base), {name: value.clone() for name, value in weights_of(model).items()}
    measured = []
    for done, alpha in enumerate(ALPHAS):
        watch(Progress("blend", done, len(ALPHAS), "mixes", f"{alpha:.0%} fine-tuned"))
        mix(model, *ends, alpha)
        measured.append(dev_wer(trainer))
    chosen = best_of(measured)
    mix(model, *ends, chosen)
    watch(Progress("blend", len(ALPHAS), len(ALPHAS), "mixes", f"{chosen:.0%} fine-tuned"))
    watch(Progress("blend", len(ALPHAS), None, "", sentence(measured, chosen)))
    told = {"alphas": list(ALPHAS), "dev_wer": measured, "chosen": chosen}
    return {"dev_wer": min(measured), "blend": told}


def best_of(measured: list[float]) -> float:
    """Return the share with the lowest WER; of equal ones the largest."""
    return min(zip(measured, ALPHAS, strict=True), key=lambda pair: (pair[0], -pair[1]))[1]


def sentence(measured: list[float], chosen: float) -> str:
    """Say how each mix did and which one is kept."""
    table = ", ".join(f"{wer:.1%} at {alpha:g}" for alpha, wer in zip(ALPHAS, measured, strict=True))
    kept = {0.0: "the base itself: training brought nothing", 1.0: "the fine-tuned model as it is"}
    return f"dev WER by the share of fine-tuned weights: {table}; kept: {kept.get(chosen, f'{chosen:g}')}"


@torch.no_grad()
def mix(model, base: Weights, tuned: Weights, alpha: float) -> None:
    """Set a model's weights to so much of the way from the base to the fine-tuned ones; both ends are exact."""
    for name, weight in weights_of(model).items():
        weight.copy_(torch.lerp(base[name].to(weight.device), tuned[name], alpha))


def weights_of(model) -> Weights:
    """Return the weights by name, tied ones once."""
    return {name: weight.detach() for name, weight in model.named_parameters()}


def dev_wer(trainer) -> float:
    """Measure dev as in training, but as no step of it: neither history.jsonl nor curves hear of it."""
    with unheard(trainer):
        return trainer.evaluate()["eval_wer"]


@contextmanager
def unheard(trainer) -> Iterator[None]:
    """Keep what the Trainer logs from its callbacks."""
    callbacks, trainer.callback_handler.callbacks = trainer.callback_handler.callbacks, []
    try:
        yield
    finally:
        trainer.callback_handler.callbacks = callbacks
