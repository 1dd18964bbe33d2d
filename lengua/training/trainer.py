"""The training stage: a store and a base model in, a run folder with a plain Whisper checkpoint out.

    lengua train stores/sample-es --out runs/spanish

transformers' Seq2SeqTrainer does the loop; what is ours is the batches (lengua.batches), the loss over all tokens of
an accumulated batch, and the choice of the best checkpoint by generated WER on dev.
"""

import math
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PrinterCallback, Seq2SeqTrainer, Seq2SeqTrainingArguments, set_seed

from lengua import checkpoints, features
from lengua.batches import ClipDataset, Collator, LengthBuckets, dev_batches
from lengua.errors import RequestError
from lengua.files import read_json, write_json
from lengua.labels import IGNORED, most_tokens, words_of
from lengua.languages import language_code
from lengua.mel import FRAMES_PER_SECOND
from lengua.model import AdaptiveWhisper, load_model, window_frames
from lengua.options import FeatureOptions, TrainOptions
from lengua.progress import Watch, unwatched
from lengua.scoring import score
from lengua.sources import is_source
from lengua.store import Split, Store, open_store
from lengua.training.hardware import pick_device, pick_precision
from lengua.training.record import Interruption, Recorder, describe_run, plain

PARTS = ("run.json", "history.jsonl", "checkpoints", "model", "store", "evaluation", "export")
"""What may stand in a run's folder."""


@dataclass(frozen=True)
class TrainResult:
    """A finished run."""

    path: Path
    model: Path
    steps: int
    dev_wer: float
    """WER of the chosen checkpoint on dev, by generation, as a fraction."""
    seconds: float


def train(options: TrainOptions, watch: Watch = unwatched) -> TrainResult:
    """Fine-tune, or go on with an interrupted run, or find it finished.

    Raises:
        RequestError: options that contradict each other, the store or the run's folder.
        KeyboardInterrupt: stopped by SIGINT or SIGTERM, after a checkpoint was saved.
    """
    options = _resolved(options, watch)
    _claim(options)
    if (options.out / "model" / "config.json").is_file():
        return _result(options.out)
    store, (folder, origin) = open_store(Path(options.source)), checkpoints.find_model(options.base)
    model = load_model(folder, options.language)
    open_store(store.path, n_mels=model.config.num_mel_bins)
    trainer = build_trainer(model, folder, store, options, watch)
    write_json(options.out / "run.json", describe_run(options, origin, finished=False))
    start = time.perf_counter()
    with Interruption(trainer):
        trainer.train(resume_from_checkpoint=_newest_checkpoint(options))
    _finish(trainer, folder, options, origin, time.perf_counter() - start)
    return _result(options.out)


def build_trainer(model, folder: Path, store: Store, options: TrainOptions, watch: Watch) -> "AdaptiveTrainer":
    """Return the trainer of a run, ready to train."""
    set_seed(options.seed)
    model.config.use_cache = False
    train_split, dev = store.split("train"), store.split("dev")
    trainer = AdaptiveTrainer(
        model=model,
        args=training_arguments(options, len(train_split)),
        options=options,
        note=note_of(options, store),
        tokenizer=checkpoints.load_tokenizer(folder),
        train_split=train_split,
        dev_split=dev,
        callbacks=[Recorder(options.out, watch)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def note_of(options: TrainOptions, store: Store) -> checkpoints.ModelNote:
    """Return what `lengua.json` of the checkpoint will say."""
    margin = options.margin_s if options.window == "adaptive" else (0.0, 0.0)
    attribution = store.manifest["attribution"]
    return checkpoints.ModelNote(options.base, options.language, options.window, margin, attribution)


def training_arguments(options: TrainOptions, clips: int) -> Seq2SeqTrainingArguments:
    """Spell our options out for the Trainer."""
    device = pick_device(options.device)
    precision = pick_precision(options.precision, device)
    steps = total_steps(options, clips)
    every = max(1, math.ceil(steps / options.evaluations))
    return Seq2SeqTrainingArguments(
        output_dir=str(options.out / "checkpoints"),
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulation,
        learning_rate=options.learning_rate,
        warmup_steps=max(1, round(options.warmup * steps)),
        weight_decay=options.weight_decay,
        max_steps=steps,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
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
        logging_steps=5,
        disable_tqdm=True,
        report_to=[],
        seed=options.seed,
    )


def total_steps(options: TrainOptions, clips: int) -> int:
    """Return the optimiser steps of a run over `clips` training clips."""
    if options.steps is not None:
        return options.steps
    batches = math.ceil(clips / options.batch_size)
    return max(1, math.ceil(options.epochs * math.ceil(batches / options.accumulation)))


class AdaptiveTrainer(Seq2SeqTrainer):
    """Seq2SeqTrainer over our batches. WER comes from free-running generation and from nothing else."""

    def __init__(self, *, options: TrainOptions, note, tokenizer, train_split: Split, dev_split: Split, **kwargs):
        self.options, self.note, self.vocabulary = options, note, tokenizer
        self.train_split, self.dev_split = train_split, dev_split
        super().__init__(
            data_collator=Collator(tokenizer, options.language),
            train_dataset=ClipDataset(train_split),
            eval_dataset=ClipDataset(dev_split),
            compute_loss_func=token_loss,
            compute_metrics=self._measure,
            **kwargs,
        )

    def get_train_dataloader(self):
        """Batches of like length, anew in every epoch."""
        margin, share = (self.options.margin_s, self.options.padded_share)
        if self.options.window == "padded":
            margin, share = (0.0, 0.0), 1.0
        longest = window_frames(self.model)
        sampler = LengthBuckets(
            self.train_split, self.options.batch_size, margin, share, self.options.seed, longest=longest
        )
        return self.accelerator.prepare(self._loader(self.train_dataset, sampler))

    def get_eval_dataloader(self, eval_dataset=None):
        """Dev clips, longest first, in the window that the run is trained for."""
        margin = self.note.decode_margin_s
        batches = dev_batches(self.dev_split, self.options.batch_size, margin, window_frames(self.model))
        return self.accelerator.prepare(self._loader(ClipDataset(self.dev_split), batches))

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None, **gen_kwargs):
        """Bound generation by the length of the window."""
        seconds = inputs["input_features"].shape[-1] / FRAMES_PER_SECOND
        most = most_tokens(seconds, self.model.config.max_target_positions)
        self._gen_kwargs = {"max_new_tokens": most, "num_beams": 1}
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys, **gen_kwargs)

    def _loader(self, dataset, batches) -> torch.utils.data.DataLoader:
        return torch.utils.data.DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def _measure(self, prediction) -> dict[str, float]:
        hypotheses = [words_of(self.vocabulary, ids) for ids in prediction.predictions.tolist()]
        references = [words_of(self.vocabulary, ids) for ids in prediction.label_ids.tolist()]
        measured = score(references, hypotheses)
        return {"wer": measured.wer, "insertions": measured.insertions}


def token_loss(outputs, labels: torch.Tensor, num_items_in_batch=None) -> torch.Tensor:
    """Cross-entropy summed over tokens, divided by the tokens of the whole accumulated batch.

    Whisper's forward takes **kwargs, so the Trainer believes that it normalises and skips its own division; its mean
    would be multiplied by the accumulation steps, and under DDP by the number of processes.
    """
    logits = outputs["logits"].float()
    total = torch.nn.functional.cross_entropy(
        logits.view(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=IGNORED, reduction="sum"
    )
    return total / (num_items_in_batch if num_items_in_batch is not None else labels.ne(IGNORED).sum())


def _resolved(options: TrainOptions, watch: Watch) -> TrainOptions:
    """Fill in what the options leave open; build the store where a source was named."""
    if not 0 <= options.margin_s[0] <= options.margin_s[1]:
        raise RequestError("--margin-s LOW HIGH with LOW <= HIGH", str(options.margin_s), "swap or raise them")
    source = options.source
    if is_source(source):
        built = features.build(
            FeatureOptions(source, options.out / "store", language=options.language, base=options.base), watch
        )
        source = str(built.path)
    store = open_store(Path(source))
    language = language_code(options.language) if options.language else store.language
    return replace(options, source=source, language=language)


def _claim(options: TrainOptions) -> None:
    """Make the folder the run's own, or go on in it if it is this very run.

    Raises:
        RequestError: another run, or other things, stand there.
    """
    record = options.out / "run.json"
    if not options.resume:
        for name in ("checkpoints", "model"):
            shutil.rmtree(options.out / name, ignore_errors=True)
    elif record.is_file():
        before, now = read_json(record)["options"], plain(options)
        changed = [key for key in now if key != "resume" and before.get(key) != now[key]]
        if changed:
            what = ", ".join(f"{key} was {before.get(key)!r}, is {now[key]!r}" for key in changed)
            expected = f"the options that {options.out} was started with"
            raise RequestError(expected, what, "use --no-resume or another --out")
    elif options.out.exists() and any(path.name not in PARTS for path in options.out.iterdir()):
        raise RequestError("a run's folder", f"{options.out} with other things in it", "name another --out")


def _newest_checkpoint(options: TrainOptions) -> str | None:
    """Return the newest whole checkpoint: the Trainer writes trainer_state.json last."""
    whole = [state.parent for state in (options.out / "checkpoints").glob("checkpoint-*/trainer_state.json")]
    newest = max(whole, key=lambda path: int(path.name.partition("-")[2]), default=None)
    return str(newest) if newest else None


def _finish(trainer: AdaptiveTrainer, folder: Path, options: TrainOptions, origin: str, seconds: float) -> None:
    model: AdaptiveWhisper = trainer.accelerator.unwrap_model(trainer.model)
    model.config.use_cache = True
    run = describe_run(options, origin, finished=True)
    run |= {"steps": trainer.state.global_step, "dev_wer": trainer.state.best_metric}
    run["seconds"] = {"training": round(seconds, 1)}
    write_json(options.out / "run.json", run)
    checkpoints.save_model(model, folder, options.out / "model", trainer.note)
    shutil.rmtree(options.out / "checkpoints", ignore_errors=True)


def _result(out: Path) -> TrainResult:
    run = read_json(out / "run.json")
    return TrainResult(out, out / "model", run["steps"], run["dev_wer"], run["seconds"]["training"])
