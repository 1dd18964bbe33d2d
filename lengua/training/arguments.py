"""Our options as the Trainer and the samplers want them."""

import math

from tokenizers import Tokenizer
from transformers import Seq2SeqTrainingArguments

from lengua.batches import Drawing, Packing
from lengua.errors import RequestError
from lengua.mel import WINDOW_FRAMES
from lengua.options import TrainOptions
from lengua.ranks import rank_and_ranks
from lengua.training.hardware import pick_device, pick_precision

HEADROOM = 3
"""So many times the steps of a plan may be taken, where steps turn out to be that much cheaper."""


def training_arguments(options: TrainOptions, clips: int | None) -> Seq2SeqTrainingArguments:
    """Spell our options out for the Trainer."""
    device = pick_device(options.device)
    precision = pick_precision(options.precision, device)
    steps = total_steps(options, clips, rank_and_ranks()[1])
    every = max(1, math.ceil(steps / options.evaluations))
    return Seq2SeqTrainingArguments(
        output_dir=str(options.out / "checkpoints"),
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulation,
        learning_rate=options.learning_rate,
        warmup_steps=max(1, round(options.warmup * steps)),
        weight_decay=options.weight_decay,
        max_steps=steps * (HEADROOM if options.minutes else 1),
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
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
        report_to=[],  # lengua.training.trackers tells where to
        log_level_replica="error",
        seed=options.seed,
    )


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
    batches = math.ceil(drawing_of(options).batches(clips) / ranks)
    return max(1, math.ceil(options.epochs * math.ceil(batches / options.accumulation)))


def drawing_of(options: TrainOptions, longest: int = WINDOW_FRAMES, tokenizer: Tokenizer | None = None) -> Drawing:
    """Return how the batches of a run are drawn; to count them, no tokenizer is needed.

    Raises:
        RequestError: a share that is none.
    """
    if not 0 <= options.timestamps_share <= 1:
        raise RequestError("--timestamps-share of 0 to 1", str(options.timestamps_share), "0.2 is one window in five")
    padded = options.window == "padded"
    return Drawing(
        options.batch_size,
        margin_s=(0.0, 0.0) if padded else options.margin_s,
        padded_share=1.0 if padded else options.padded_share,
        seed=options.seed,
        longest=longest,
        spec_augment=options.spec_augment,
        packing=Packing(tokenizer, options.timestamps_share) if options.window == "packed" else None,
    )
