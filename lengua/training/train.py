"""The training stage: a store and a base model in, a run folder with a plain Whisper checkpoint out.

    lengua train stores/sample-es --out runs/spanish

Here a run is checked, planned, begun or resumed, and finished; batches, loss and evaluation are the trainer's
(lengua.training.trainer), and callbacks record it, save it and stop it.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from lengua.models import checkpoints
from lengua.models.whisper import AdaptiveWhisper, load_model, require_supported_language
from lengua.options import TrainOptions
from lengua.runtime.errors import RequestError
from lengua.runtime.files import exclusive, read_json, write_json
from lengua.runtime.progress import Progress, Watch, unwatched
from lengua.training import callbacks, parameters
from lengua.training.blending import blend
from lengua.training.callbacks import TRACKER_FOLDERS, InterruptionCallback, MetricsCallback, describe_run
from lengua.training.checkpointing import CheckpointCallback, explaining_full_disk, require_same_options
from lengua.training.data import open_training_data
from lengua.training.divergence import Guard, finish_interrupted, require_weights
from lengua.training.hardware import deterministic_sums
from lengua.training.preflight import preflight, require_passed
from lengua.training.time_budget import TimeBudgetCallback, TrainingPlan, measure_cost, parse_plan, plan_run
from lengua.training.trainer import AdaptiveTrainer, build_trainer

RUN_ENTRIES = {"run.json", "history.jsonl", "checkpoints", "model", "store", "evaluation", "export", *TRACKER_FOLDERS}
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
    stopped: str | None = None
    """Why it ended before its last step, if it did."""
    verdict: str | None = None
    """Whether dev shows that it is better than its base; None in runs of before 2026-12."""


@exclusive
def train(
    options: TrainOptions, watch: Watch = unwatched, extra_callbacks: Sequence[TrainerCallback] = ()
) -> TrainResult:
    """Fine-tune, or go on with an interrupted run, or find it finished.

    Args:
        extra_callbacks: more of transformers' callbacks; what they do is not part of the run's record.

    Raises:
        RequestError: options that contradict each other, the store or the run's folder.
        LenguaError: preflight found what would ruin the run; or the loss was lost before dev was measured at all.
        KeyboardInterrupt: stopped by SIGINT or SIGTERM, after a checkpoint was saved.
    """
    started = time.perf_counter()
    _require_consistent_options(options)
    folder, origin = checkpoints.find_model(options.base)
    require_supported_language(folder, options.language)
    options, data = open_training_data(options, folder, watch)
    _claim(options)
    if (options.out / "model" / "config.json").is_file():
        return _result(options.out)
    length = replace(options, steps=1) if options.minutes else options  # the plan sets it
    trainer = build_trainer(load_model(folder, options.language), folder, data, length)
    checked = preflight(trainer, options, folder, options.push_checkpoints)
    require_passed(checked)
    for check in checked:
        if check.passed is None:
            watch(Progress("preflight", 0, None, "", f"{check.name}: {check.found}"))
    saver = CheckpointCallback(options, watch)
    checkpoint = saver.find(options)
    run = describe_run(options, origin) | data.note
    metrics = MetricsCallback(options.out, watch, trainer.drawing.mean_size, trainer.evaluation, trainer.streamed)
    trainer.add_callback(metrics)
    if options.minutes is not None:
        plan = _plan(options, trainer, watch, started)
        trainer.set_length(plan.steps, plan.evaluations)
        trainer.add_callback(TimeBudgetCallback(plan, trainer.schedule, metrics.seconds, watch))
        run |= {"plan": asdict(plan)}
    guard = Guard(trainer.evaluation, options.patience, watch)
    for callback in (saver, guard, *callbacks.make_trackers(options), *extra_callbacks):
        trainer.add_callback(callback)  # behind those that call for evaluations and checkpoints
    _run_training(trainer, saver, guard, folder, checkpoint, run, watch)
    return _result(options.out)


def _require_consistent_options(options: TrainOptions) -> None:
    """Refuse options that contradict each other, before anything is fetched or built."""
    if not 0 <= options.margin_s[0] <= options.margin_s[1]:
        raise RequestError("--margin-s LOW HIGH with LOW <= HIGH", str(options.margin_s), "swap or raise them")
    if options.minutes is not None and options.steps is not None:
        raise RequestError("--minutes or --steps", "both", "leave one out: the other follows")
    if options.patience is not None and options.patience < 1:
        raise RequestError("--patience of 1 or more", str(options.patience), "leave it out to train to the end")
    callbacks.require_trackers_installed(options.report_to)


def _claim(options: TrainOptions) -> None:
    """Make the folder the run's own, or go on in it if it is this very run.

    Raises:
        RequestError: another run, or other things, stand there.
    """
    record = options.out / "run.json"
    if not options.resume:
        for name in ("checkpoints", "model", *TRACKER_FOLDERS):
            shutil.rmtree(options.out / name, ignore_errors=True)
    elif record.is_file():
        expected = f"the options that {options.out} was started with"
        require_same_options(read_json(record)["options"], options, expected, "another --out")
    elif options.out.exists() and {path.name for path in options.out.iterdir()} - RUN_ENTRIES:
        raise RequestError("a run's folder", f"{options.out} with other things in it", "name another --out")


def _plan(options: TrainOptions, trainer: AdaptiveTrainer, watch: Watch, started: float) -> TrainingPlan:
    """Return the plan for the minutes that were given, the same for all processes; an interrupted run keeps its own."""
    record = options.out / "run.json"
    if options.resume and record.is_file() and (kept := read_json(record).get("plan")):
        return parse_plan(kept)
    with deterministic_sums(trainer.args.device.type):
        cost = measure_cost(trainer)
    [plan] = broadcast_object_list([plan_run(60 * options.minutes - (time.perf_counter() - started), cost)])
    watch(Progress("plan", 0, None, "", plan.sentence()))
    return plan


def _run_training(trainer, saver, guard, folder: Path, checkpoint: Path | None, run: dict, watch: Watch) -> None:
    """Train from a checkpoint, or from the base, to the end; leave run.json and the model."""
    out, leads = trainer.options.out, trainer.is_world_process_zero()
    if checkpoint and trainer.streamed:
        trainer.streamed.load_position(checkpoint)
    if leads:
        write_json(out / "run.json", run)
    start = time.perf_counter()
    with explaining_full_disk(out), saver, deterministic_sums(trainer.args.device.type):
        with InterruptionCallback(trainer.args.max_steps) as interruption:
            trainer.add_callback(interruption)
            trainer.args.eval_on_start = checkpoint is None
            if not finish_interrupted(trainer, guard, checkpoint):
                trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        require_weights(trainer.state, guard.stopped)
        run |= blend(trainer, load_model(folder, trainer.options.language), watch)
        if leads:
            _finish(trainer, folder, run | {"seconds": {"training": round(time.perf_counter() - start, 1)}}, guard)
    trainer.accelerator.wait_for_everyone()
    if leads:
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
    trainer.accelerator.end_training()


def _finish(trainer: AdaptiveTrainer, folder: Path, run: dict, guard: Guard) -> None:
    """Write run.json and then the model: a run with a model is finished."""
    model: AdaptiveWhisper = parameters.merge_lora(trainer.accelerator.unwrap_model(trainer.model))
    model.config.use_cache = True
    ended = {"finished": True, "steps": trainer.state.global_step, "stopped": guard.stopped}
    if trainer.streamed:
        ended["left_out_since_the_last_start"] = dict(trainer.streamed.dropped)
    out = trainer.options.out
    write_json(out / "run.json", {"dev_wer": trainer.state.best_metric} | run | ended)
    checkpoints.save_model(model, folder, out / "model", trainer.note)


def _result(out: Path) -> TrainResult:
    run = read_json(out / "run.json")
    return TrainResult(
        out,
        out / "model",
        run["steps"],
        run["dev_wer"],
        run["seconds"]["training"],
        run.get("stopped"),
        run.get("verdict"),
    )
