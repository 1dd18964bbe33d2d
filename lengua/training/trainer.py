"""The training stage: a store and a base model in, a run folder with a plain Whisper checkpoint out.

    lengua train stores/sample-es --out runs/spanish

transformers' Seq2SeqTrainer does the loop; what is ours is the batches (lengua.batches), the loss over all tokens of
an accumulated batch, and the choice of the best checkpoint by generated WER on dev.
"""

import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list
from transformers import PrinterCallback, Seq2SeqTrainer, set_seed

from lengua import checkpoints
from lengua.batches import ClipDataset, Collator, StreamedBatches, dev_batches, sampler_of
from lengua.errors import RequestError
from lengua.files import read_json, write_json
from lengua.labels import IGNORED, most_tokens, words_of
from lengua.mel import FRAMES_PER_SECOND
from lengua.model import AdaptiveWhisper, load_model, window_frames
from lengua.options import TrainOptions
from lengua.progress import Progress, Watch, unwatched
from lengua.store import Store
from lengua.streams import Stream
from lengua.training import learning
from lengua.training.arguments import drawing_of, training_arguments
from lengua.training.budget import measure, plan_run
from lengua.training.dev import measure_dev
from lengua.training.preflight import preflight, require
from lengua.training.record import Interruption, Recorder, describe_run, plain, read_place, write_place
from lengua.training.speech import Speech, open_speech

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
    if not 0 <= options.margin_s[0] <= options.margin_s[1]:
        raise RequestError("--margin-s LOW HIGH with LOW <= HIGH", str(options.margin_s), "swap or raise them")
    if options.minutes is not None and options.steps is not None:
        raise RequestError("--minutes or --steps", "both", "leave one out: the other follows")
    started = time.perf_counter()
    folder, origin = checkpoints.find_model(options.base)
    asked, speech = open_speech(options, folder, watch)
    _claim(asked)
    if (asked.out / "model" / "config.json").is_file():
        return _result(asked.out)
    trial = replace(asked, steps=1) if asked.minutes else asked
    trainer = build_trainer(load_model(folder, asked.language), folder, speech, trial, watch)
    require(preflight(trainer, asked, folder))
    options, plan = _planned(asked, trainer, watch, started)
    if plan:
        trainer = build_trainer(load_model(folder, options.language), folder, speech, options, watch)
    checkpoint = _newest_checkpoint(options)
    if checkpoint:
        trainer.go_on_from(checkpoint)
    if trainer.is_world_process_zero():
        write_json(options.out / "run.json", describe_run(asked, origin, finished=False) | plan)
    start = time.perf_counter()
    with Interruption(trainer):
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    if trainer.is_world_process_zero():
        _finish(trainer, folder, describe_run(asked, origin, finished=True) | plan, time.perf_counter() - start)
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
    return _result(options.out)


def build_trainer(model, folder: Path, speech: Speech, options: TrainOptions, watch: Watch) -> "AdaptiveTrainer":
    """Return the trainer of a run, ready to train."""
    set_seed(options.seed)
    model.config.use_cache = False
    model = learning.prepare(model, options)
    trainer = AdaptiveTrainer(
        model=model,
        args=training_arguments(options, speech.clips),
        options=options,
        note=note_of(options, speech.store),
        tokenizer=checkpoints.load_tokenizer(folder),
        speech=speech,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Recorder(options.out, watch, trainer))
    return trainer


def note_of(options: TrainOptions, store: Store) -> checkpoints.ModelNote:
    """Return what `lengua.json` of the checkpoint will say; what learned from packed windows is used padded."""
    window, margin = ("adaptive", options.margin_s) if options.window == "adaptive" else ("padded", (0.0, 0.0))
    attribution = store.manifest["attribution"]
    return checkpoints.ModelNote(options.base, options.language, window, margin, attribution)


class AdaptiveTrainer(Seq2SeqTrainer):
    """Seq2SeqTrainer over our batches. WER comes from free-running generation and from nothing else."""

    def __init__(self, *, model, args, options: TrainOptions, note, tokenizer, speech: Speech):
        self.options, self.note, self.vocabulary = options, note, tokenizer
        self.train_split, self.dev_split = speech.train, speech.store.split("dev")
        self.drawing = drawing_of(options, window_frames(model), tokenizer)
        self.streamed, self.worst = None, []
        if isinstance(speech.train, Stream):
            batches = args.max_steps * args.gradient_accumulation_steps
            self.streamed = StreamedBatches(speech.train, self.drawing, batches)
        super().__init__(
            model=model,
            args=args,
            data_collator=Collator(tokenizer, options.language),
            train_dataset=self.streamed or ClipDataset(speech.train),
            eval_dataset=ClipDataset(self.dev_split),
            compute_loss_func=token_loss,
            compute_metrics=self._measure,
        )

    def get_train_dataloader(self):
        """Batches drawn anew in every epoch; a stream has its own share of the ranks already."""
        if self.streamed:
            return self._loader(self.streamed, batch_size=None, num_workers=0)
        sampler = sampler_of(self.train_split, self.drawing, ranks=self.args.world_size)
        return self.accelerator.prepare(self._loader(self.train_dataset, batch_sampler=sampler))

    def get_eval_dataloader(self, eval_dataset=None):
        """Dev clips, longest first, in the window that the run is trained for; every process measures all of them."""
        margin = self.note.decode_margin_s
        batches = dev_batches(self.dev_split, self.options.batch_size, margin, self.drawing.longest)
        return self._loader(self.eval_dataset, batch_sampler=batches)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None, **gen_kwargs):
        """Bound generation by the length of the window."""
        seconds = inputs["input_features"].shape[-1] / FRAMES_PER_SECOND
        most = most_tokens(seconds, self.model.config.max_target_positions)
        self._gen_kwargs = {"max_new_tokens": most, "num_beams": 1}
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys, **gen_kwargs)

    def go_on_from(self, checkpoint: Path) -> None:
        """Put a stream where it stood when a checkpoint was saved."""
        if self.streamed:
            self.streamed.place = read_place(checkpoint, self.train_split)

    def _save_rng_state(self, output_dir) -> None:
        """Save the state of randomness of this process, and where its stream stands."""
        super()._save_rng_state(output_dir)
        if self.streamed:
            write_place(Path(output_dir), self.train_split, self.streamed.place)

    def _loader(self, dataset, **how) -> torch.utils.data.DataLoader:
        how = {"num_workers": self.args.dataloader_num_workers, "pin_memory": self.args.dataloader_pin_memory} | how
        return torch.utils.data.DataLoader(dataset, collate_fn=self.data_collator, **how)

    def _measure(self, prediction) -> dict[str, float]:
        hypotheses = [words_of(self.vocabulary, ids) for ids in prediction.predictions.tolist()]
        references = [words_of(self.vocabulary, ids) for ids in prediction.label_ids.tolist()]
        told, self.worst = measure_dev(references, hypotheses, self._dev_speakers(len(references)))
        return told

    def _dev_speakers(self, clips: int) -> list[str] | None:
        """Return who speaks in the clips of dev as they were measured; several processes measure them several times."""
        order = [draw.index for draws in self.get_eval_dataloader().batch_sampler for draw in draws]
        speakers = self.dev_split.column("speaker")
        return [speakers[index] for index in order] if clips == len(order) else None


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
        changed = [key for key in before if key not in ("resume", "recipe") and before[key] != now.get(key)]
        if changed:
            what = ", ".join(f"{key} was {before.get(key)!r}, is {now.get(key)!r}" for key in changed)
            expected = f"the options that {options.out} was started with"
            raise RequestError(expected, what, "use --no-resume or another --out")
    elif options.out.exists() and any(path.name not in PARTS for path in options.out.iterdir()):
        raise RequestError("a run's folder", f"{options.out} with other things in it", "name another --out")


def _newest_checkpoint(options: TrainOptions) -> Path | None:
    """Return the newest whole checkpoint: the Trainer writes trainer_state.json last."""
    whole = [state.parent for state in (options.out / "checkpoints").glob("checkpoint-*/trainer_state.json")]
    return max(whole, key=lambda path: int(path.name.partition("-")[2]), default=None)


def _planned(asked: TrainOptions, trial: AdaptiveTrainer, watch: Watch, started: float) -> tuple[TrainOptions, dict]:
    """Return the options with steps and evaluations for the minutes that were given, and the plan as run.json has it.

    A run that was interrupted keeps its plan. Every process takes that of the first.
    """
    if asked.minutes is None:
        return asked, {}
    record = asked.out / "run.json"
    plan = read_json(record).get("plan") if asked.resume and record.is_file() else None
    if plan is None:
        cost = measure(trial)
        made = plan_run(60 * asked.minutes - (time.perf_counter() - started), cost)
        watch(Progress("plan", 0, None, "", made.sentence()))
        [plan] = broadcast_object_list([asdict(made)])
    return replace(asked, steps=plan["steps"], evaluations=plan["evaluations"]), {"plan": plan}


def _finish(trainer: AdaptiveTrainer, folder: Path, run: dict, seconds: float) -> None:
    model: AdaptiveWhisper = learning.merged(trainer.accelerator.unwrap_model(trainer.model))
    model.config.use_cache = True
    run |= {"steps": trainer.state.global_step, "dev_wer": trainer.state.best_metric}
    run["seconds"] = {"training": round(seconds, 1)}
    if trainer.streamed:
        run["left_out_since_the_last_start"] = dict(trainer.streamed.dropped)
    out = trainer.options.out
    write_json(out / "run.json", run)
    checkpoints.save_model(model, folder, out / "model", trainer.note)
    shutil.rmtree(out / "checkpoints", ignore_errors=True)


def _result(out: Path) -> TrainResult:
    run = read_json(out / "run.json")
    return TrainResult(out, out / "model", run["steps"], run["dev_wer"], run["seconds"]["training"])
