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
from lengua.data.streaming import Stream
from lengua.options import TrainOptions
from lengua.runtime.errors import RequestError
from lengua.runtime.files import read_json, write_json, write_jsonl
from lengua.runtime.progress import Progress, Watch
from lengua.runtime.system import describe_hardware, git_commit
from lengua.scoring import bootstrap_interval, is_looped, score
from lengua.training.dataset import StreamedBatches, StreamPosition
from lengua.training.runs import read_history

SPEED_SMOOTHING_WEIGHT = 0.1
"""Weight of the last step in the seconds a clip that are shown."""
RECORDED_PACKAGES = ("torch", "transformers", "accelerate", "numpy", "ctranslate2", "tokenizers")


def describe_run(options: TrainOptions, origin: str) -> dict:
    """Return what run.json of a run that begins holds: resolved options, versions, commit, hardware."""
    return {
        "options": options_to_json(options),
        "base_weights": origin,
        "finished": False,
        "versions": {"lengua": __version__, "python": platform.python_version()}
        | {p: version(p) for p in RECORDED_PACKAGES},
        "commit": git_commit(),
        "hardware": describe_hardware(),
    }


def options_to_json(options: TrainOptions) -> dict:
    """Return options as JSON holds them."""
    return json.loads(json.dumps(asdict(options), default=str))


class MetricsCallback(TrainerCallback):
    """Append what the Trainer logs to history.jsonl and report the progress of training.

    Args:
        clips_per_batch: on average, of one process.
        evaluation: the last one on dev, as the trainer fills it in.
        stream: that the run learns from, if it is one; its epochs are counted instead of the Trainer's.
    """

    def __init__(
        self,
        out: Path,
        watch: Watch,
        clips_per_batch: float,
        evaluation: "DevEvaluation",
        stream: StreamedBatches | None = None,
    ):
        self.path, self.watch, self.note = out / "history.jsonl", watch, ""
        self.clips_per_batch, self.evaluation, self.stream = clips_per_batch, evaluation, stream
        self.started = self.since = time.perf_counter()
        self.per_clip: float | None = None  # seconds

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
        if "dev_wer" in record:
            record["worst"] = [asdict(example) for example in self.evaluation.worst]
            self.watch(self._progress(state, f"dev WER {record['dev_wer']:.1%}"))
            self.watch(Progress("dev", state.global_step, None, "", format_dev_result(record, self.evaluation.worst)))
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def on_step_begin(self, args, state, control, **kwargs):
        """Begin to time a step: evaluations and checkpoints between steps do not count."""
        self.since = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        """Report one step, and the clips a second of the last ones."""
        clips = self.clips_per_batch * args.gradient_accumulation_steps * args.world_size
        now = (time.perf_counter() - self.since) / clips
        self.per_clip = now if self.per_clip is None else self.per_clip + SPEED_SMOOTHING_WEIGHT * (now - self.per_clip)
        self.watch(self._progress(state, ", ".join(filter(None, (self.note, f"{1 / self.per_clip:.1f} clips/s")))))

    def _progress(self, state, note: str) -> Progress:
        return Progress("training", state.global_step, state.max_steps, "steps", note)


def rename_logs(logs: dict) -> dict:
    """Return the Trainer's names as ours: eval_wer is dev_wer, and no timings of its own."""
    kept = {key: value for key, value in logs.items() if not key.endswith(("_runtime", "_per_second", "_flos"))}
    return {f"dev_{key[5:]}" if key.startswith("eval_") else key: value for key, value in kept.items()}


def write_stream_position(checkpoint: Path, stream: Stream, place: StreamPosition) -> None:
    """Write down where the stream of this process stands."""
    record = {"revision": stream.revision, "ranks": stream.ranks, "window": stream.window, "place": asdict(place)}
    write_json(checkpoint / f"stream-{stream.rank}.json", record)


def read_stream_position(checkpoint: Path, stream: Stream) -> StreamPosition:
    """Return where the stream of this process stood at a checkpoint.

    Raises:
        RequestError: the source has changed since, or other processes took part.
    """
    record = read_json(checkpoint / f"stream-{stream.rank}.json") if stream.rank < _count_ranks(checkpoint) else {}
    now = {"revision": stream.revision, "ranks": stream.ranks, "window": stream.window}
    for name, value in now.items():
        if record.get(name) != value:
            expected = f"the stream of {checkpoint}, {name} {record.get(name)}"
            raise RequestError(expected, f"{name} {value}", "train with as before, or start over with --no-resume")
    return StreamPosition(**record["place"])


def _count_ranks(checkpoint: Path) -> int:
    return len(list(checkpoint.glob("stream-*.json")))


class InterruptionCallback(TrainerCallback):
    """Context manager: SIGINT and SIGTERM end training at the next step with a checkpoint; a second one kills."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, max_steps: int):
        self.requested, self.step, self.max_steps = False, 0, max_steps

    def __enter__(self) -> "InterruptionCallback":
        try:
            self.before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        except ValueError:  # not the main thread: a notebook's kernel interrupts by itself
            self.before = {}
        return self

    def _note(self, number, frame) -> None:
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
    """Find the packages before anything is built.

    Raises:
        RequestError: one is not there.
    """
    for name in report_to:
        if importlib.util.find_spec(name) is None:
            raise RequestError(f"{name}, for --report-to {name}", "it is not installed", f"pip install {name}")


def make_trackers(options: TrainOptions) -> list[TrainerCallback]:
    """Return what the Trainer has to tell."""
    made = {"tensorboard": _tensorboard, "trackio": TrackioCallback}
    return [made[name](options) for name in dict.fromkeys(options.report_to)]


def _tensorboard(options: TrainOptions) -> TensorBoardCallback:
    """Return transformers' own, with its folder: the variable it would be taken from outlives a run."""
    callback = TensorBoardCallback()
    callback.logging_dir = str(options.out / "tensorboard")
    return callback


class TrackioCallback(TrainerCallback):
    """Tells trackio what is logged, and that it is to stay here.

    That of transformers tells trackio neither where, so that all runs go to one folder of the home, nor to open no
    dashboard in a notebook; in early versions its default is a public Space. trackio reads its folder when it is
    imported: of several runs in one process the first one's folder has them all, each under its own name.
    """

    def __init__(self, options: TrainOptions):
        self.name, self.options = options.out.resolve().name, options
        self.run = None

    def on_train_begin(self, args, state, control, **kwargs):
        """Begin the run, or go on with it."""
        if not state.is_world_process_zero:
            return
        os.environ.setdefault("TRACKIO_DIR", str((self.options.out / "trackio").resolve()))
        import trackio

        with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
            config = {"base": self.options.base, "source": self.options.source, "seed": self.options.seed}
            self.run = trackio.init(project=self.name, name=self.name, resume="allow", embed=False, config=config)

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Pass on loss and rate, or the measures on dev."""
        if self.run:
            self.run.log(rewrite_logs(logs or {}), step=state.global_step)

    def on_train_end(self, args, state, control, **kwargs):
        """Write down what is still on its way."""
        if self.run:
            import trackio

            with contextlib.redirect_stdout(sys.stderr):
                trackio.finish()
            self.run = None


MAX_WORST_SHOWN = 2
"""Hypotheses that are shown."""


@dataclass(frozen=True)
class DevCounts:
    """Errors and words of each clip of dev, always in the same order."""

    errors: list[int]
    words: list[int]
    speakers: list[str] | None


@dataclass(frozen=True)
class DevExample:
    """The reference of a dev clip and the hypothesis of the model."""

    reference: str
    hypothesis: str


@dataclass
class DevEvaluation:
    """The last evaluation on dev beyond its metrics: the trainer fills it in, callbacks read it."""

    worst: list[DevExample] = field(default_factory=list)
    counts: DevCounts | None = None


def measure_dev(
    references: list[str], hypotheses: list[str], speakers: list[str] | None
) -> tuple[dict[str, float], list[DevExample], DevCounts]:
    """Return what the Trainer logs (rates as fractions, `looped` a share of the clips), the worst, and every clip."""
    measured = score(references, hypotheses)
    low, high = bootstrap_interval(measured.counts["errors"], measured.counts["words"], speakers)
    metrics = {
        "wer": measured.wer,
        "wer_low": low,
        "wer_high": high,
        **{kind: getattr(measured, kind) for kind in ("substitutions", "deletions", "insertions")},
        "looped": sum(map(is_looped, hypotheses)) / max(1, len(hypotheses)),
    }
    worst = sorted(range(len(references)), key=lambda at: (-int(measured.counts["errors"][at]), at))[:MAX_WORST_SHOWN]
    clips = DevCounts(measured.counts["errors"].tolist(), measured.counts["words"].tolist(), speakers)
    return metrics, [DevExample(references[at], hypotheses[at]) for at in worst if clips.errors[at]], clips


def format_dev_result(record: dict, worst: list[DevExample]) -> str:
    """Say in a line how an evaluation went; `record` has the names of a record of history.jsonl."""
    kinds = " / ".join(str(int(record[f"dev_{kind}"])) for kind in ("substitutions", "deletions", "insertions"))
    interval = f"{100 * record['dev_wer_low']:.1f} to {100 * record['dev_wer_high']:.1f}"
    text = f"step {record['step']}: dev WER {record['dev_wer']:.1%} ({interval}), S / D / I {kinds}"
    looped = f", {record['dev_looped']:.0%} of the clips in loops" if record["dev_looped"] else ""
    examples = (f"\n  reference   {one.reference}\n  hypothesis  {one.hypothesis[:200]}" for one in worst)
    return text + looped + "".join(examples)
