"""Arguments of the Trainer and of the samplers, from TrainOptions; the default learning rate by the size of the base.

    default_learning_rate(options, d_model=512)     # 2.5e-5 for whisper-base

Jong Wook Kim of OpenAI advises a fortieth of the rate that a Whisper was pretrained with (Whisper paper, table 17), as
the README of vasistalodagala/whisper-finetune quotes him. CoRal and HiTZ train at nearly the same rates.
"""

import math

from tokenizers import Tokenizer
from transformers import Seq2SeqTrainingArguments

from lengua.audio.log_mel import WINDOW_FRAMES
from lengua.options import TrainOptions
from lengua.runtime.errors import RequestError
from lengua.runtime.system import rank_and_world_size
from lengua.training.hardware import pick_device, pick_precision
from lengua.training.samplers import BatchPlan, Packing

RATES_BY_WIDTH = {384: 3.75e-5, 512: 2.5e-5, 768: 1.25e-5, 1024: 6.25e-6, 1280: 5e-6}
"""Peak of the schedule by d_model: tiny, base, small, medium, large (and turbo)."""
LORA_RATE_FACTOR, MAX_LORA_RATE = 10, 1e-4
"""Thin matrices that begin at zero want a higher rate. 1e-4 is the published rate that holds for all sizes; at 1e-3
runs are known to diverge."""
MAX_LEARNING_RATE = 1e-2
"""Nothing good was ever trained above, and 1e5 for 1e-5 is soon typed."""


def default_learning_rate(options: TrainOptions, d_model: int) -> float:
    """Return the learning rate that was asked for, else that of the nearest size.

    Raises:
        RequestError: one at which nothing can be learned.
    """
    rate = options.learning_rate
    if rate is None:
        usual = RATES_BY_WIDTH[min(RATES_BY_WIDTH, key=lambda size: abs(size - d_model))]
        return min(LORA_RATE_FACTOR * usual, MAX_LORA_RATE) if options.learn == "lora" else usual
    if not 0 < rate <= MAX_LEARNING_RATE:
        found = f"{rate:g}"
        raise RequestError(
            f"a --learning-rate above 0, at most {MAX_LEARNING_RATE:g}", found, "leave it out: the base decides"
        )
    return rate


MAX_PAUSE_S = 1.5
"""Longest silence between utterances that share a window, where only some batches are packed."""
MAX_PLAN_STEPS_FACTOR = 3
"""So many times the steps of a plan may be taken, where steps turn out to be that much cheaper."""


def training_arguments(options: TrainOptions, clips: int | None) -> Seq2SeqTrainingArguments:
    """Return the arguments of the Trainer."""
    device = pick_device(options.device)
    precision = pick_precision(options.precision, device)
    return Seq2SeqTrainingArguments(
        output_dir=str(options.out / "checkpoints"),
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulation,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        eval_strategy="steps",
        save_strategy="steps",
        **length_arguments(options, total_steps(options, clips, rank_and_world_size()[1])),
        load_best_model_at_end=True,
        metric_for_best_model="wer",
        greater_is_better=False,
        predict_with_generate=True,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=device == "cpu",
        dataloader_num_workers=0 if device == "cpu" else 2,
        dataloader_pin_memory=device == "cuda",
        remove_unused_columns=False,
        label_names=["labels"],
        accelerator_config={"dispatch_batches": False, "even_batches": False},
        ddp_find_unused_parameters=False,
        ignore_data_skip=options.stream,  # a stream goes on from its place by itself
        logging_steps=5,
        logging_nan_inf_filter=False,  # a loss that is not finite is to be seen, and ends the run
        disable_tqdm=True,
        report_to=[],  # lengua.training.callbacks has the trackers
        log_level_replica="error",
        seed=options.seed,
    )


def length_arguments(options: TrainOptions, steps: int) -> dict[str, int]:
    """Return those arguments of the Trainer that follow from the number of steps."""
    every = max(1, math.ceil(steps / options.evaluations))
    return {
        "max_steps": steps * (MAX_PLAN_STEPS_FACTOR if options.minutes else 1),
        "warmup_steps": max(1, round(options.warmup * steps)),
        "eval_steps": every,
        "save_steps": every,
    }


def total_steps(options: TrainOptions, clips: int | None, ranks: int = 1) -> int:
    """Return the optimiser steps of a run over `clips` training clips, shared by so many processes.

    Raises:
        RequestError: nobody tells how many clips there are, and --steps does not either.
    """
    if options.steps is not None:
        return options.steps
    if clips is None:
        found = f"a stream whose length {options.source} does not tell"
        raise RequestError("the length of the run", found, "say it: --steps 1000")
    batches = math.ceil(make_batch_plan(options).batches(clips) / ranks)
    return max(1, math.ceil(options.epochs * math.ceil(batches / options.accumulation)))


def make_batch_plan(
    options: TrainOptions, longest: int = WINDOW_FRAMES, tokenizer: Tokenizer | None = None
) -> BatchPlan:
    """Return how the batches of a run are drawn; to count them, no tokenizer is needed.

    Raises:
        RequestError: a share that is none.
    """
    for name, share in (("timestamps", options.timestamps_share), ("packed", options.packed_share)):
        if not 0 <= share <= 1:
            raise RequestError(f"--{name}-share of 0 to 1", str(share), "0.2 is one in five")
    packing = None
    if options.window == "packed":
        packing = Packing(tokenizer, options.timestamps_share)
    elif options.packed_share:
        packing = Packing(tokenizer, options.timestamps_share, options.packed_share, MAX_PAUSE_S)
    padded = options.window == "padded"
    return BatchPlan(
        options.batch_size,
        margin_s=(0.0, 0.0) if padded else options.margin_s,
        padded_share=1.0 if padded else options.padded_share,
        seed=options.seed,
        longest=longest,
        spec_augment=options.spec_augment,
        packing=packing,
    )
