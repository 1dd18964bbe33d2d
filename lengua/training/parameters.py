"""Trainable parameters: all of them, the decoder, or LoRA; merged, and with `--blend` mixed with the base, in the end.

    model = prepare_model(model, options)     # before training
    model = merge_lora(model)                 # after it: a plain Whisper again
    blend(trainer, base, watch)               # {"dev_wer": 0.18, "blend": {"alphas": [...], "chosen": 0.8, ...}}

AdaptiveWhisper is what is trained, measured and saved in every case: peft changes its layers in place.

Models on the straight line between base and fine-tuned weights often know the new speech as well and have forgotten
less of all else (WiSE-FT: Wortsman et al., Robust fine-tuning of zero-shot models, 2022). The mix with the lowest dev
WER wins; of equal ones the nearest to the fine-tuned model. As the best of several evaluations its dev WER is a little
too good: believe that on test.
"""

import warnings
from functools import partial

import torch

from lengua.models.whisper import AdaptiveWhisper
from lengua.options import TrainOptions
from lengua.runtime.errors import RequestError
from lengua.runtime.progress import Progress, Watch

LORA_TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
"""Attention and feed-forward of encoder and decoder: a new language is new sounds and new words. All matrices of a
layer, because LoRA on some of them falls short of training everything (Dettmers et al., QLoRA, 2023)."""


def prepare_model(model: AdaptiveWhisper, options: TrainOptions):
    """Return the model that is trained: the same one, or a `PeftModel` around it.

    Raises:
        RequestError: a rank below 1.
    """
    if options.learn == "decoder":  # as nothing before it learns either, torch keeps no activation of the encoder
        model.model.encoder.requires_grad_(False)
    learner = with_lora(model, options.lora_rank) if options.learn == "lora" else model
    if options.gradient_checkpointing:
        checkpoint_gradients(model)
    return learner


def with_lora(model: AdaptiveWhisper, rank: int):
    """Return a `PeftModel` in which a product of two thin matrices is learned beside every matrix of a layer.

    Without a task type, for peft's would hand Whisper's decoder the wrong inputs. Without dropout, so that what is
    measured on dev is what was trained, and what is merged.
    """
    from peft import LoraConfig, get_peft_model

    if rank < 1:
        raise RequestError("--lora-rank of 1 or more", str(rank), "choose 8 to 64")
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(LORA_TARGET_MODULES))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft calls transformers by a name that is on its way out
        return get_peft_model(model, config)


def merge_lora(model) -> AdaptiveWhisper:
    """Return the plain model, with what LoRA learned added to its weights."""
    merge = getattr(model, "merge_and_unload", None)
    return merge() if merge else model


def checkpoint_gradients(model: AdaptiveWhisper) -> None:
    """Compute each layer's activations again in the backward pass instead of keeping them.

    The way that is not reentrant reaches weights behind frozen inputs (LoRA's in the first layer), which the other does
    not. What is frozen altogether has no backward pass, and no input to keep for it. transformers renamed the method in
    the course of version 5.
    """
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    for layer in model.model.encoder.layers:
        layer.gradient_checkpointing = any(parameter.requires_grad for parameter in layer.parameters())


BLEND_ALPHAS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Shares of the fine-tuned weights; 0 is the base."""

WeightsByName = dict[str, torch.Tensor]


def blend(trainer, base, watch: Watch) -> dict:
    """Leave the trainer with the best mix of a base model and its own; return its entries in run.json.

    Every process takes part, for all of them measure dev.
    """
    model = merge_lora(trainer.accelerator.unwrap_model(trainer.model))
    trainer.model = trainer.model_wrapped = model
    ends = weights_by_name(base), {name: value.clone() for name, value in weights_by_name(model).items()}
    report = partial(Progress, "blend", total=len(BLEND_ALPHAS), unit="mixes")
    measured = []
    for done, alpha in enumerate(BLEND_ALPHAS):
        watch(report(done=done, note=f"{alpha:.0%} fine-tuned"))
        interpolate_weights(model, *ends, alpha)
        measured.append(measure_dev_wer(trainer))
    chosen = choose_alpha(measured)
    interpolate_weights(model, *ends, chosen)
    watch(report(done=len(BLEND_ALPHAS), note=f"{chosen:.0%} fine-tuned"))
    watch(Progress("blend", len(BLEND_ALPHAS), None, "", describe_blend(measured, chosen)))
    return {
        "dev_wer": min(measured),
        "blend": {"alphas": list(BLEND_ALPHAS), "dev_wer": measured, "chosen": chosen},
    }


def choose_alpha(measured: list[float]) -> float:
    """Return the share with the lowest WER; of equal ones the largest."""
    return min(zip(measured, BLEND_ALPHAS, strict=True), key=lambda pair: (pair[0], -pair[1]))[1]


def describe_blend(measured: list[float], chosen: float) -> str:
    """Say how each mix did and which one is kept."""
    table = ", ".join(f"{wer:.1%} at {alpha:g}" for alpha, wer in zip(BLEND_ALPHAS, measured, strict=True))
    kept = {0.0: "the base itself: training brought nothing", 1.0: "the fine-tuned model as it is"}
    return f"dev WER by the share of fine-tuned weights: {table}; kept: {kept.get(chosen, f'{chosen:g}')}"


@torch.no_grad()
def interpolate_weights(model, base: WeightsByName, tuned: WeightsByName, alpha: float) -> None:
    """Set a model's weights to so much of the way from the base to the fine-tuned ones; both ends are exact."""
    for name, weight in weights_by_name(model).items():
        weight.copy_(torch.lerp(base[name].to(weight.device), tuned[name], alpha))


def weights_by_name(model) -> WeightsByName:
    """Return the weights by name, tied ones once."""
    return {name: weight.detach() for name, weight in model.named_parameters()}


def measure_dev_wer(trainer) -> float:
    """Measure dev as in training, but as no step of it: neither history.jsonl nor trackers record it."""
    callbacks, trainer.callback_handler.callbacks = trainer.callback_handler.callbacks, []
    try:
        return trainer.evaluate()["eval_wer"]
    finally:
        trainer.callback_handler.callbacks = callbacks
