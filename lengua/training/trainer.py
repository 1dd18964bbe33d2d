"""The trainer of a run: transformers' Seq2SeqTrainer over our batches, loss, schedule and measure on dev.

trainer = build_trainer(load_model(folder, "es"), folder, data, options)
"""

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import PrinterCallback, Seq2SeqTrainer, Seq2SeqTrainingArguments, set_seed

from lengua.audio.log_mel import FRAMES_PER_SECOND, WINDOW_FRAMES
from lengua.data.splits import hash_position
from lengua.data.store import Store, open_store
from lengua.data.streaming import Stream
from lengua.models import checkpoints
from lengua.models.tokens import IGNORE_INDEX, decode_text, max_decode_tokens
from lengua.models.whisper import window_frames
from lengua.options import TrainOptions
from lengua.runtime.errors import RequestError
from lengua.runtime.system import rank_and_world_size
from lengua.training import parameters
from lengua.training.callbacks import DevEvaluation
from lengua.training.data import TrainingData
from lengua.training.dataset import ClipDataset, Collator, StreamedBatches
from lengua.training.hardware import pick_device, pick_precision
from lengua.training.samplers import BatchPlan, Packing, dev_batches, make_sampler
from lengua.training.time_budget import LinearSchedule


def build_trainer(model, folder: Path, data: TrainingData, options: TrainOptions) -> "AdaptiveTrainer":
    """Return the trainer of a run, ready to train."""
    set_seed(options.seed)
    model.config.use_cache = False
    model = parameters.prepare_model(model, options)
    trainer = AdaptiveTrainer(
        model=model,
        args=training_arguments(options, data.clips),
        options=options,
        note=build_model_note(options, data.store),
        tokenizer=checkpoints.load_tokenizer(folder),
        data=data,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def build_model_note(options: TrainOptions, store: Store) -> checkpoints.ModelNote:
    """Return what `lengua.json` of the checkpoint will say; what learned from packed windows is used padded."""
    window, margin = ("adaptive", options.margin_s) if options.window == "adaptive" else ("padded", (0.0, 0.0))
    stores = [store, *([open_store(Path(options.replay))] if options.replay else [])]
    attribution = "; ".join(dict.fromkeys(filter(None, (one.manifest["attribution"] for one in stores))))
    return checkpoints.ModelNote(options.base, options.language, window, margin, attribution)


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


MAX_BASE_CLIPS = 200
"""The verdict is on as many, paired, with its interval."""


def evenly_drawn(ids: Sequence[str], most: int) -> list[int]:
    """Return at most so many places, the same for the same ids whatever their order."""
    return sorted(sorted(range(len(ids)), key=lambda place: hash_position(ids[place]))[:most])


class AdaptiveTrainer(Seq2SeqTrainer):
    """Seq2SeqTrainer over our batches. WER comes from free-running generation and from nothing else."""

    def __init__(self, *, model, args, options: TrainOptions, note, tokenizer, data: TrainingData):
        self.options, self.note, self.vocabulary = options, note, tokenizer
        self.train_split, self.dev_split, self.general_split = data.train, data.dev, data.general
        self.drawing = make_batch_plan(options, window_frames(model), tokenizer)
        self.schedule = LinearSchedule(args.warmup_steps, total_steps(options, data.clips, args.world_size))
        self.streamed, self.evaluation = None, DevEvaluation()
        self.base_evaluation: DevEvaluation | None = None
        """Of the base, before the first step; None in a run that was resumed, like the next."""
        self.base_places = evenly_drawn(self.dev_split.column("id"), MAX_BASE_CLIPS)
        """Clips of dev that the base is measured on."""
        self.best_evaluation, self._best_wer = None, math.inf
        self.dev_margin_s = note.decode_margin_s
        """Seconds behind the speech in which dev is measured; None: padded."""
        if isinstance(data.train, Stream):
            batches = args.max_steps * args.gradient_accumulation_steps
            self.streamed = StreamedBatches(data.train, self.drawing, batches)
        super().__init__(
            model=model,
            args=args,
            data_collator=Collator(tokenizer, options.language),
            train_dataset=self.streamed or ClipDataset(data.train),
            eval_dataset=ClipDataset(self.dev_split),
            compute_loss_func=token_loss,
            compute_metrics=self._measure,
        )

    def set_length(self, steps: int, evaluations: int) -> None:
        """Set how long the run is, before it begins; train as if the trainer had been built for it."""
        self.options = replace(self.options, steps=steps, evaluations=evaluations)
        for name, value in length_arguments(self.options, steps).items():
            setattr(self.args, name, value)
        self.schedule = LinearSchedule(self.args.warmup_steps, steps)
        if self.streamed:
            self.streamed.batches = self.args.max_steps * self.args.gradient_accumulation_steps
        set_seed(self.args.seed)  # what was measured and checked before is not to change what is drawn

    def create_scheduler(self, num_training_steps, optimizer=None):
        """Our schedule, whose end may move; a checkpoint keeps it."""
        if self.lr_scheduler is None:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, self.schedule)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_train_dataloader(self):
        """Batches drawn anew in every epoch; a stream has its own share of the ranks already."""
        if self.streamed:
            return self._loader(self.streamed, batch_size=None, num_workers=0)
        self.sampler = make_sampler(self.train_split, self.drawing, ranks=self.args.world_size)
        return self.accelerator.prepare(self._loader(self.train_dataset, batch_sampler=self.sampler))

    def evaluate(self, *args, **how):
        """Measure dev, and remember the best evaluation."""
        metrics = super().evaluate(*args, **how)
        if metrics.get("eval_wer", math.inf) < self._best_wer:
            self._best_wer, self.best_evaluation = metrics["eval_wer"], copy(self.evaluation)
        return metrics

    def _evaluate(self, *args, **how):
        """Measure dev in the course of a run; before the first step it is the base, padded, as it knows it.

        In 30 s, and in loops where it does not know the language, the base takes long: it is measured on some clips of
        a large dev, which the verdict is on.
        """
        if self.state.global_step:
            return super()._evaluate(*args, **how)
        kept = self.dev_margin_s, self.dev_split
        self.dev_margin_s, self.dev_split = None, self.dev_split.subset(self.base_places)
        try:
            metrics = self.evaluate(metric_key_prefix="base")
        finally:
            self.dev_margin_s, self.dev_split = kept
        self.base_evaluation = copy(self.evaluation)
        return metrics

    def get_eval_dataloader(self, eval_dataset=None):
        """Dev clips, longest first, in the window that the run is trained for; every process measures all of them."""
        batches = dev_batches(self.dev_split, self.options.batch_size, self.dev_margin_s, self.drawing.longest)
        return self._loader(ClipDataset(self.dev_split), batch_sampler=batches)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None, **gen_kwargs):
        """Bound generation by the length of the window."""
        seconds = inputs["input_features"].shape[-1] / FRAMES_PER_SECOND
        most = max_decode_tokens(seconds, self.model.config.max_target_positions)
        self._gen_kwargs = {"max_new_tokens": most, "num_beams": 1}
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys, **gen_kwargs)

    def _run_epoch(self, **how) -> None:
        """Take no step beyond the last: a run may have been killed after its last checkpoint.

        The sampler learns of the epoch here: resumed with several processes, what skips batches hides it from others.
        """
        if not self.streamed:
            self.sampler.set_epoch(how["epoch"])
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(**how)
        else:
            self.control.should_training_stop = True

    def _save_rng_state(self, output_dir) -> None:
        """Save the state of randomness of this process, and where its stream stands."""
        super()._save_rng_state(output_dir)
        if self.streamed:
            self.streamed.save_position(Path(output_dir))

    def _loader(self, dataset, **how) -> torch.utils.data.DataLoader:
        how = {"num_workers": self.args.dataloader_num_workers, "pin_memory": self.args.dataloader_pin_memory} | how
        return torch.utils.data.DataLoader(dataset, collate_fn=self.data_collator, **how)

    def _measure(self, prediction) -> dict[str, float]:
        first = dict(sorted(self._first_places().items()))
        given = (prediction.label_ids, prediction.predictions)
        references, hypotheses = (
            [decode_text(self.vocabulary, ids) for ids in rows[list(first.values())].tolist()] for rows in given
        )
        speakers = self.dev_split.column("speaker")
        return self.evaluation.measure(references, hypotheses, [speakers[index] for index in first])

    def _first_places(self) -> dict[int, int]:
        """Return where each clip of dev was measured first: of each batch, all processes hand in a copy."""
        batches = self.get_eval_dataloader().batch_sampler
        order = (draw.index for draws in batches for _ in range(self.args.world_size) for draw in draws)
        first = {}
        for place, index in enumerate(order):
            first.setdefault(index, place)
        return first


def token_loss(outputs, labels: torch.Tensor, num_items_in_batch=None) -> torch.Tensor:
    """Cross-entropy summed over tokens, divided by the tokens of the whole accumulated batch.

    Whisper's forward takes **kwargs, so the Trainer believes that it normalises and skips its own division; its mean
    would be multiplied by the accumulation steps, and under DDP by the number of processes.
    """
    logits = outputs["logits"].float()
    total = torch.nn.functional.cross_entropy(
        logits.view(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=IGNORE_INDEX, reduction="sum"
    )
    return total / (num_items_in_batch if num_items_in_batch is not None else labels.ne(IGNORE_INDEX).sum())
