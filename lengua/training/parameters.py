"""Trainable parameters: all of them, the decoder, or LoRA, which is merged in the end.

    model = prepare_model(model, options)     # before training
    model = merge_lora(model)                 # after it: a plain Whisper again

AdaptiveWhisper is what is trained, measured and saved in every case: peft changes its layers in place.
"""

import warnings

from lengua.models.whisper import AdaptiveWhisper
from lengua.options import TrainOptions
from lengua.runtime.errors import RequestError

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
