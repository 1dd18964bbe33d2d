"""A run's folder read back: its record, history and state, whether finished, interrupted or still training."""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lengua.options import TrainOptions
from lengua.runtime.files import read_json


@dataclass(frozen=True)
class Run:
    """What run.json and history.jsonl say."""

    path: Path
    record: dict
    """run.json"""
    history: list[dict]
    """Records with step and seconds, these counted from the first start on."""
    unreadable: int
    """Lines of the history that are no records, but for a torn last one."""

    @cached_property
    def options(self) -> dict[str, Any]:
        """Its options, nested ones as `filters.max_hours`; what an older run does not name had its default.

        Epochs are None where steps or minutes say how long it is.
        """
        options = _flat(options_to_json(TrainOptions(""))) | _flat(self.record["options"])
        return options | {"epochs": None if options["steps"] or options["minutes"] else options["epochs"]}

    @cached_property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def recipe(self) -> str | None:
        """The name of the recipe that it followed."""
        return Path(self.options["recipe"]).stem if self.options["recipe"] else None

    @property
    def finished(self) -> bool:
        """Whether it came to its end."""
        return bool(self.record.get("finished"))

    @property
    def steps(self) -> int:
        """Optimiser steps that it took, as far as it wrote them down."""
        return self.history[-1]["step"] if self.history else self.record.get("steps", 0)

    @property
    def seconds(self) -> float:
        """Seconds of training, evaluations included."""
        recorded = self.record.get("seconds", {}).get("training", 0.0)
        return max(recorded, self.history[-1]["seconds"] if self.history else 0.0)

    @property
    def clips_per_second(self) -> float | None:
        """Clips of all steps over all seconds, evaluations included; those of one process."""
        clips = self.steps * self.options["batch_size"] * self.options["accumulation"]
        return round(clips / self.seconds, 2) if self.seconds else None

    @property
    def best(self) -> dict:
        """The record with the lowest WER on dev; empty before the first evaluation."""
        evaluations = [record for record in self.history if record.get("dev_wer") is not None]
        return min(evaluations, key=lambda record: record["dev_wer"], default={})

    @property
    def state(self) -> str:
        """finished, or how far it came. Whether it still goes on, its files do not tell."""
        if self.finished or not self.history:
            return "finished" if self.finished else "no step yet"
        steps = self.record.get("plan", {}).get("steps") or self.options["steps"]
        share = self.steps / steps if steps else self.history[-1].get("epoch", 0) / self.options["epochs"]
        return f"at {100 * share:.0f} %"

    @property
    def manifest(self) -> dict | None:
        """The manifest of the store that it learned from, if that is still there."""
        for store in (self.path / "store", Path(self.options["source"])):
            if (store / "manifest.json").is_file():
                return read_json(store / "manifest.json")
        return None


def read_run(path: Path) -> Run | None:
    """Return what stands in a folder; None if it is no run's."""
    record = read_json(path / "run.json") if (path / "run.json").is_file() else None
    if not isinstance(record, dict) or "options" not in record:
        return None
    return Run(path, record, *read_history(path / "history.jsonl"))


def read_history(path: Path) -> tuple[list[dict], int]:
    """Return the records of a history, and how many lines are none.

    The last line of a run that was killed, or is being written, may be torn: that is nothing to complain of.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    records = [_record(line) for line in lines]
    return [record for record in records if record], sum(record is None for record in records[:-1])


def _record(line: str) -> dict | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and {"step", "seconds"} <= record.keys() else None


def options_to_json(options: TrainOptions) -> dict:
    """Return options as run.json holds them."""
    return json.loads(json.dumps(asdict(options), default=str))


def _flat(options: dict[str, Any]) -> dict[str, Any]:
    """Name what is nested by both names, as the command line does."""
    flat = {}
    for name, value in options.items():
        flat |= {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
    return flat
