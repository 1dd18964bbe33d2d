"""What a run writes down while it goes: run.json, history.jsonl; and how it stops when it is told to."""

import json
import platform
import signal
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch
from accelerate.utils import reduce
from transformers import TrainerCallback

from lengua import __version__
from lengua.batches import Place
from lengua.errors import RequestError
from lengua.files import read_json, write_json, write_jsonl
from lengua.options import TrainOptions
from lengua.progress import Progress, Watch
from lengua.provenance import commit, hardware
from lengua.runs import read_history
from lengua.streams import Stream
from lengua.training.dev import remark

NEWS = 0.1
"""Weight of the last step in the seconds a clip that are shown."""
PACKAGES = ("torch", "transformers", "accelerate", "numpy", "ctranslate2", "tokenizers")


def describe_run(options: TrainOptions, origin: str) -> dict:
    """Return what run.json of a run that begins holds: resolved options, versions, commit, hardware."""
    return {
        "options": plain(options),
        "base_weights": origin,
        "finished": False,
        "versions": {"lengua": __version__, "python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "commit": commit(),
        "hardware": hardware(),
    }


def plain(options: TrainOptions) -> dict:
    """Return options as JSON holds them."""
    return json.loads(json.dumps(asdict(options), default=str))


class Recorder(TrainerCallback):
    """Appends what the Trainer logs to history.jsonl and tells the watcher how far training is."""

    def __init__(self, out: Path, watch: Watch, trainer):
        self.path, self.watch, self.note, self.trainer = out / "history.jsonl", watch, "", trainer
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
        streamed = self.trainer.streamed
        epoch = streamed.place.epoch if streamed else round(state.epoch or 0, 4)
        record = {"step": state.global_step, **renamed(logs or {}), "epoch": epoch}
        record["seconds"] = round(self.seconds(), 1)
        if "loss" in record:
            self.note = f"loss {record['loss']:.2f}, rate {record['learning_rate']:.1e}"
        if "dev_wer" in record:
            record["worst"] = [asdict(one) for one in self.trainer.worst]
            self.watch(self._progress(state, f"dev WER {record['dev_wer']:.1%}"))
            self.watch(Progress("dev", state.global_step, None, "", remark(record, self.trainer.worst)))
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def on_step_begin(self, args, state, control, **kwargs):
        """Begin to time a step: evaluations and checkpoints between steps do not count."""
        self.since = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        """Report one step, and the clips a second of the last ones."""
        clips = self.trainer.drawing.mean_size * args.gradient_accumulation_steps * args.world_size
        now = (time.perf_counter() - self.since) / clips
        self.per_clip = now if self.per_clip is None else self.per_clip + NEWS * (now - self.per_clip)
        self.watch(self._progress(state, ", ".join(filter(None, (self.note, f"{1 / self.per_clip:.1f} clips/s")))))

    def _progress(self, state, note: str) -> Progress:
        return Progress("training", state.global_step, state.max_steps, "steps", note)


def renamed(logs: dict) -> dict:
    """Return the Trainer's names as ours: eval_wer is dev_wer, and no timings of its own."""
    kept = {key: value for key, value in logs.items() if not key.endswith(("_runtime", "_per_second", "_flos"))}
    return {f"dev_{key[5:]}" if key.startswith("eval_") else key: value for key, value in kept.items()}


def write_place(checkpoint: Path, stream: Stream, place: Place) -> None:
    """Write down where the stream of this process stands."""
    told = {"revision": stream.revision, "ranks": stream.ranks, "window": stream.window, "place": asdict(place)}
    write_json(checkpoint / f"stream-{stream.rank}.json", told)


def read_place(checkpoint: Path, stream: Stream) -> Place:
    """Return where the stream of this process stood at a checkpoint.

    Raises:
        RequestError: the source has changed since, or other processes took part.
    """
    told = read_json(checkpoint / f"stream-{stream.rank}.json") if stream.rank < _ranks(checkpoint) else {}
    now = {"revision": stream.revision, "ranks": stream.ranks, "window": stream.window}
    for name, value in now.items():
        if told.get(name) != value:
            expected = f"the stream of {checkpoint}, {name} {told.get(name)}"
            raise RequestError(expected, f"{name} {value}", "train with as before, or start over with --no-resume")
    return Place(**told["place"])


def _ranks(checkpoint: Path) -> int:
    return len(list(checkpoint.glob("stream-*.json")))


class Interruption(TrainerCallback):
    """Context manager: SIGINT and SIGTERM end training at the next step with a checkpoint; a second one kills."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, trainer):
        self.asked, self.step, self.trainer = False, 0, trainer
        trainer.add_callback(self)

    def __enter__(self) -> "Interruption":
        try:
            self.before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        except ValueError:  # not the main thread: a notebook's kernel interrupts by itself
            self.before = {}
        return self

    def _note(self, number, frame) -> None:
        self.asked = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def on_step_end(self, args, state, control, **kwargs):
        """Save and stop when any of the processes was asked to."""
        self.step = state.global_step
        if args.world_size > 1:
            self.asked = bool(reduce(torch.tensor([int(self.asked)], device=args.device), "sum").item())
        if self.asked:
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False

    def __exit__(self, kind, error, trace) -> None:
        self._restore()
        if kind is None and self.asked and self.step < self.trainer.state.max_steps:
            raise KeyboardInterrupt(f"stopped at step {self.step} of {self.trainer.state.max_steps}, checkpoint saved")
