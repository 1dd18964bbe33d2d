"""Callbacks that record a training run: run.json, history.jsonl, trackers; and the one that ends it on a signal.

`--report-to`: the curves of a run live in a browser, from files in the run's own folder.

    tensorboard --logdir runs                                  # --report-to tensorboard: runs/X/tensorboard
    TRACKIO_DIR=runs/X/trackio trackio show --project X        # --report-to trackio: runs/X/trackio

Both stay on this machine. history.jsonl is written all the same. Of an evaluation it has the dev WER by generation, its
interval, substitutions, deletions and insertions, the share of clips in loops, and the worst hypotheses.
"""

import contextlib
import importlib.util
import json
import os
import platform
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch
from accelerate.utils import reduce
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback
from transformers.integrations.integration_utils import rewrite_logs

from lengua import __version__
from lengua.options import TrainOptions
from lengua.runtime.errors import RequestError
from lengua.runtime.files import write_jsonl
from lengua.runtime.progress import Progress, Watch
from lengua.runtime.system import describe_hardware, git_commit
from lengua.scoring import bootstrap_interval, is_looped, score
from lengua.training.dataset import StreamedBatches
from lengua.training.runs import options_to_json, read_history

SPEED_SMOOTHING_WEIGHT = 0.1
"""Weight of the last step in the seconds a clip that are shown."""
RECORDED_PACKAGES = ("torch", "transformers", "accelerate", "numpy", "ctranslate2", "tokenizers")
ERROR_KINDS = ("substitutions", "deletions", "insertions")
MAX_WORST_SHOWN = 2
"""Hypotheses that are shown of an evaluation."""


def describe_run(options: TrainOptions, origin: str) -> dict:
    """Return what run.json of a run that begins holds: resolved options, versions, commit, hardware."""
    packages = {package: version(package) for package in RECORDED_PACKAGES}
    return {
        "options": options_to_json(options),
        "base_weights": origin,
        "finished": False,
        "versions": {"lengua": __version__, "python": platform.python_version()} | packages,
        "commit": git_commit(),
        "hardware": describe_hardware(),
    }


@dataclass
class DevEvaluation:
    """The last evaluation on dev beyond its metrics: the trainer fills it in, callbacks read it.

    Errors, words and speakers are of each clip, in the order of the split.
    """

    worst: list[dict[str, str]] = field(default_factory=list)
    """The clips with the most errors: reference and hypothesis."""
    errors: list[int] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    speakers: list[str] | None = None

    @property
    def wer(self) -> float:
        """WER over all clips, a fraction."""
        return sum(self.errors) / max(1, sum(self.words))

    def of(self, places: list[int]) -> "DevEvaluation":
        """Return what was measured on some of the clips."""
        speakers = [self.speakers[place] for place in places] if self.speakers else None
        return DevEvaluation([], *([each[place] for place in places] for each in (self.errors, self.words)), speakers)

    def measure(self, references: list[str], hypotheses: list[str], speakers: list[str] | None) -> dict[str, float]:
        """Return what the Trainer logs: rates as fractions, `looped` a share of the clips."""
        measured = score(references, hypotheses)
        low, high = bootstrap_interval(measured.counts["errors"], measured.counts["words"], speakers)
        self.errors, self.words = measured.counts["errors"].tolist(), measured.counts["words"].tolist()
        self.speakers = speakers
        worst = sorted(range(len(references)), key=lambda at: (-self.errors[at], at))[:MAX_WORST_SHOWN]
        self.worst = [{"reference": references[at], "hypothesis": hypotheses[at]} for at in worst if self.errors[at]]
        return {
            "wer": measured.wer,
            "wer_low": low,
            "wer_high": high,
            **{kind: getattr(measured, kind) for kind in ERROR_KINDS},
            "looped": sum(map(is_looped, hypotheses)) / max(1, len(hypotheses)),
        }


def format_dev_result(record: dict) -> str:
    """Say in a line how an evaluation went, and below it the worst hypotheses, from its record of history.jsonl."""
    kinds = " / ".join(str(int(record[f"dev_{kind}"])) for kind in ERROR_KINDS)
    interval = f"{100 * record['dev_wer_low']:.1f} to {100 * record['dev_wer_high']:.1f}"
    text = f"step {record['step']}: dev WER {record['dev_wer']:.1%} ({interval}), S / D / I {kinds}"
    if record["dev_looped"]:
        text += f", {record['dev_looped']:.0%} of the clips in loops"
    return text + "".join(
        f"\n  reference   {one['reference']}\n  hypothesis  {one['hypothesis'][:200]}" for one in record["worst"]
    )


class MetricsCallback(TrainerCallback):
    """Append what the Trainer logs to history.jsonl and report the progress of training.

    `clips_per_batch` is a mean, of one process; of a stream, its own epochs are counted.
    """

    def __init__(self, out: Path, watch: Watch, clips_per_batch: float, evaluation: DevEvaluation, stream=None):
        self.path, self.watch, self.note = out / "history.jsonl", watch, ""
        self.clips_per_batch, self.evaluation = clips_per_batch, evaluation
        self.stream: StreamedBatches | None = stream
        self.started = self.since = time.perf_counter()
        self.per_clip: float | None = None  # seconds
        self.batches_of_dev = 0
        """Measured so far, in the evaluation that is going on."""

    def seconds(self) -> float:
        """Return the seconds of training so far, those before an interruption included."""
        return time.perf_counter() - self.started

    def on_train_begin(self, args, state, control, **kwargs):
        """Take back what an interrupted run logged after its last checkpoint, and count its seconds on."""
        before = read_history(self.path)[0] if state.global_step else []
        kept = [record for record in before if record["step"] <= state.global_step]
        self.started = time.perf_counter() - (kept[-1]["seconds"] if kept else 0.0)
        if state.is_world_process_zero:
            write_jsonl(self.path, kept)

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Write loss and rate, or the measures on dev."""
        if not state.is_world_process_zero:
            return
        epoch = self.stream.place.epoch if self.stream else round(state.epoch or 0, 4)
        record = {"step": state.global_step, **rename_logs(logs or {}), "epoch": epoch}
        record["seconds"] = round(self.seconds(), 1)
        if "loss" in record:
            self.note = f"loss {record['loss']:.2f}, rate {record['learning_rate']:.1e}"
        if "base_wer" in record:
            self.watch(Progress("dev", 0, None, "", f"the base: dev WER {record['base_wer']:.1%}, padded to 30 s"))
        if "dev_wer" in record:
            record["worst"] = self.evaluation.worst
            self._progress(state, f"dev WER {record['dev_wer']:.1%}")
            self.watch(Progress("dev", state.global_step, None, "", format_dev_result(record)))
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        """Report how far an evaluation is: that of the base, in 30 s, takes longest."""
        self.batches_of_dev += 1
        stage = "measuring dev" if state.global_step else "measuring the base on dev"
        self.watch(Progress(stage, self.batches_of_dev, len(eval_dataloader), "batches"))

    def on_evaluate(self, args, state, control, **kwargs):
        self.batches_of_dev = 0

    def on_step_begin(self, args, state, control, **kwargs):
        self.since = time.perf_counter()  # evaluations and checkpoints between steps do not count

    def on_step_end(self, args, state, control, **kwargs):
        """Report one step, and the clips a second of the last ones."""
        clips = self.clips_per_batch * args.gradient_accumulation_steps * args.world_size
        now = (time.perf_counter() - self.since) / clips
        self.per_clip = now if self.per_clip is None else self.per_clip + SPEED_SMOOTHING_WEIGHT * (now - self.per_clip)
        self._progress(state, ", ".join(filter(None, (self.note, f"{1 / self.per_clip:.1f} clips/s"))))

    def _progress(self, state, note: str) -> None:
        self.watch(Progress("training", state.global_step, state.max_steps, "steps", note))


def rename_logs(logs: dict) -> dict:
    """Return the Trainer's names as ours: eval_wer is dev_wer, and no timings of its own."""
    kept = {key: value for key, value in logs.items() if not key.endswith(("_runtime", "_per_second", "_flos"))}
    return {f"dev_{key[5:]}" if key.startswith("eval_") else key: value for key, value in kept.items()}


class InterruptionCallback(TrainerCallback):
    """Context manager: SIGINT and SIGTERM end training at the next step with a checkpoint; a second one kills."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, max_steps: int):
        self.requested, self.step, self.max_steps = False, 0, max_steps

    def __enter__(self) -> "InterruptionCallback":
        try:
            self.before = {number: signal.signal(number, self._request) for number in self.SIGNALS}
        except ValueError:  # not the main thread: a notebook's kernel interrupts by itself
            self.before = {}
        return self

    def _request(self, number, frame) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def on_step_end(self, args, state, control, **kwargs):
        """Save and stop when any of the processes was asked to."""
        self.step, self.max_steps = state.global_step, state.max_steps
        if args.world_size > 1:
            self.requested = bool(reduce(torch.tensor([int(self.requested)], device=args.device), "sum").item())
        if self.requested:
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False

    def __exit__(self, kind, error, trace) -> None:
        self._restore()
        if kind is None and self.requested and self.step < self.max_steps:
            raise KeyboardInterrupt(f"stopped at step {self.step} of {self.max_steps}, checkpoint saved")


TRACKER_FOLDERS = ("tensorboard", "trackio")
"""Of a run, by the name of the package that writes them."""


def require_trackers_installed(report_to: tuple[str, ...]) -> None:
    """Raise a RequestError where a package of `--report-to` is missing."""
    for name in report_to:
        if importlib.util.find_spec(name) is None:
            raise RequestError(f"{name}, for --report-to {name}", "it is not installed", f"pip install {name}")


def make_trackers(options: TrainOptions) -> list[TrainerCallback]:
    """Return the callbacks of `--report-to`."""
    trackers = []
    if "tensorboard" in options.report_to:
        trackers.append(TensorBoardCallback())
        # not by the variable that it would be taken from, which outlives a run
        trackers[-1].logging_dir = str(options.out / "tensorboard")
    return trackers + [TrackioCallback(options)] * ("trackio" in options.report_to)


class TrackioCallback(TrainerCallback):
    """Tells trackio what is logged, and that it is to stay here.

    That of transformers tells trackio neither where, so that all runs go to one folder of the home, nor to open no
    dashboard in a notebook; in early versions its default is a public Space. trackio reads its folder when it is
    imported: of several runs in one process the first one's folder has them all, each under its own name.
    """

    def __init__(self, options: TrainOptions):
        self.options, self.run = options, None

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        out, config = self.options.out.resolve(), asdict(self.options)
        os.environ.setdefault("TRACKIO_DIR", str(out / "trackio"))
        import trackio

        config = {name: config[name] for name in ("base", "source", "seed")}
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
            self.run = trackio.init(project=out.name, name=out.name, resume="allow", embed=False, config=config)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.run:
            self.run.log(rewrite_logs(logs or {}), step=state.global_step)

    def on_train_end(self, args, state, control, **kwargs):
        if self.run:
            import trackio

            with contextlib.redirect_stdout(sys.stderr):
                trackio.finish()
            self.run = None
