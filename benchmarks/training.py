"""Training: the usual recipe (benchmarks/usual_training.py) against lengua, the same clips on the same machine.

    python benchmarks/training.py --store runs/demo/store
    python benchmarks/training.py --random-weights base --no-quality      # nothing to download

Speed: steps of both sides alternate, in float32 and in bfloat16. Ours are one padded to 30 s, which counts as much as
such batches do in an epoch, and others from its shortest window to its longest; making the batch counts. Quality: both
really learn, by the same loop, from the same clips, once each, and write down dev at the same steps: the usual recipe
padded, ours in its adaptive window and padded. Every side has a process of its own. The last line is one JSON object.
"""

import json
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from recording import alternate, markdown, record, run
from training_sides import (
    DEFAULTS,
    OURS,
    USUAL,
    Process,
    Setup,
    choose,
    learn,
    mean_seconds,
    peak_mb,
    step,
    write_down,
)

from lengua.data.store import open_store
from lengua.evaluation.report.tables import with_interval
from lengua.models.checkpoints import find_model
from lengua.options import BASE_MODEL
from lengua.runtime.system import describe_hardware
from lengua.training.hardware import pick_device

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}
SIDES = (USUAL, OURS)
MARGIN_S = round(sum(DEFAULTS.margin_s) / 2, 2)


@dataclass(frozen=True)
class Options:
    """Compare speed, memory and quality of training."""

    store: Path = Path("runs/demo/store")
    """The clips: the splits train and dev of a feature store."""
    base: str = BASE_MODEL
    """The checkpoint to start from."""
    batch_size: int = 8
    """Clips a step."""
    steps: int = 12
    """Steps of each side whose speed is measured."""
    rounds: int = 3
    """How often each of them is taken; the median counts."""
    clips: int = 400
    """Training clips that both sides learn from, once each."""
    evaluations: int = 4
    """How often dev is written down while they do."""
    learning_rate: float = 1e-5
    """Peak of the schedule on both sides; 10 % of the steps climb to it, then it falls to zero."""
    seed: int = 17
    """Draws the clips and their order."""
    quality: bool = True
    """Let both sides learn; without it, speed and memory alone."""
    random_weights: Literal["tiny", "base", "small"] | None = None
    """A model of this shape with random weights, on random features: speed and memory alone."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where."""
    record: bool = False
    """Write the result into benchmarks/RESULTS.md."""
    json: bool = True
    """Print one JSON object, last."""


def main(options: Options) -> dict:
    """Measure and print."""
    device = pick_device(options.device)
    if not options.random_weights:
        find_model(options.base)  # what is missing is told before anything is measured
        open_store(options.store)
    chosen = (options.store, options.base, options.random_weights, options.batch_size)
    setups = {name: Setup(name, "bf16", device, *chosen, seed=options.seed) for name in SIDES}
    speeds = {precision: measure_speed(setups, precision, options) for precision in PRECISIONS}
    learned = None
    if options.quality and not options.random_weights:
        learned = measure_quality(setups, options)
    return show(options, device, speeds, learned)


def measure_speed(setups: dict[str, Setup], precision: str, options: Options) -> dict:
    """Return clips a second and peak memory of both sides, steps in turn."""
    tell(f"speed in {PRECISIONS[precision]}")
    both = {name: Process(replace(setup, precision=precision)) for name, setup in setups.items()}
    stood_for = {name: side.call(choose, options.steps) for name, side in both.items()}
    for side in both.values():
        side.call(step, 0)
    steps = min(map(len, stood_for.values()))
    seconds = alternate({name: partial(side.call, step) for name, side in both.items()}, steps, options.rounds)
    told = {
        "clips_per_second": {name: clips_per_second(stood_for[name][:steps], seconds[name]) for name in both},
        "peak_mb": {name: side.call(peak_mb) for name, side in both.items()},
        "mean_seconds": both[USUAL].call(mean_seconds),
        "steps": steps,
    }
    for side in both.values():
        side.pool.shutdown()
    return told


def clips_per_second(stood_for: list[tuple[int, float]], seconds: list[float]) -> float:
    """Return the clips of an epoch over its seconds, from steps that stand for a share of it each."""
    clips = sum(clips * share for clips, share in stood_for)
    return clips / sum(taken * share for taken, (_, share) in zip(seconds, stood_for, strict=True))


def measure_quality(setups: dict[str, Setup], options: Options) -> dict[str, list[dict]]:
    """Let each side learn from the same clips; return what each evaluation found."""
    more = {"clips": options.clips, "learning_rate": options.learning_rate}
    return {name: course(replace(setup, **more), options.evaluations) for name, setup in setups.items()}


def course(setup: Setup, evaluations: int) -> list[dict]:
    """Return of each evaluation the seconds of training before it, the mean loss since the last, and dev by window."""
    windows = {"padded": None} if setup.name == USUAL else {"adaptive": MARGIN_S, "padded": None}
    seconds, found = 0.0, []
    with Process(setup) as side:
        for part in range(evaluations):
            taken, losses = side.call(learn, part, evaluations)
            seconds += taken
            dev = {window: side.call(write_down, margin) for window, margin in windows.items()}
            found.append({"seconds": round(seconds, 1), "loss": sum(losses) / max(1, len(losses)), **dev})
            tell(f"{setup.name}, {part + 1}/{evaluations}: {json.dumps(found[-1])}")
    return found


def tell(text: str) -> None:
    """Say on standard error how far it is."""
    print(text, file=sys.stderr, flush=True)


def show(options: Options, device: str, speeds: dict, learned: dict | None) -> dict:
    """Print and return the figures."""
    rates = {precision: told["clips_per_second"] for precision, told in speeds.items()}
    result = {
        "speedup_usual": round(rates["bf16"][OURS] / rates["fp32"][USUAL], 2),
        "speedup_same": round(rates["bf16"][OURS] / rates["bf16"][USUAL], 2),
        "speedup_float32": round(rates["fp32"][OURS] / rates["fp32"][USUAL], 2),
        "clips_per_second": {key: {name: round(rate, 3) for name, rate in told.items()} for key, told in rates.items()},
        "peak_mb": {key: {name: round(mb) for name, mb in told["peak_mb"].items()} for key, told in speeds.items()},
        **qualities(learned),
        "model": f"{options.random_weights}, random weights" if options.random_weights else options.base,
        "precisions": PRECISIONS,
        "device": device,
        "hardware": describe_hardware(),
        "batch_size": options.batch_size,
        "steps": speeds["fp32"]["steps"],
        "padded_share": DEFAULTS.padded_share,
        "rounds": options.rounds,
        "clips": options.clips if learned else 0,
        "mean_seconds": round(speeds["fp32"]["mean_seconds"], 2),
    }
    lines = [*speed_lines(rates, result), *(quality_lines(learned, result, options) if learned else [])]
    print("\n".join(lines))
    if options.record:
        chosen = (
            f" --random-weights {options.random_weights}" if options.random_weights else f" --store {options.store}"
        )
        chosen += f" --clips {options.clips}" if learned else " --no-quality"
        chosen += "" if options.rounds == Options.rounds else f" --rounds {options.rounds}"
        title = f"Training, {result['model'].rpartition('/')[2]}, {device}"
        record(title, f"python benchmarks/training.py{chosen}", lines)
    if options.json:
        print(json.dumps(result))
    return result


def qualities(learned: dict | None) -> dict:
    """Return WER of both sides after the same clips, and when ours was as good as the usual recipe in the end."""
    if not learned:
        none = ("wer_usual", "wer_ours", "wer_ours_padded", "seconds_to_usual_wer")
        return dict.fromkeys(none)
    usual, ours = learned[USUAL][-1], learned[OURS][-1]
    reached = next(
        (look["seconds"] for look in learned[OURS] if look["adaptive"]["wer"] <= usual["padded"]["wer"]), None
    )
    ratio = round(usual["seconds"] / reached, 1) if reached else None
    return {
        "wer_usual": usual["padded"]["wer"],
        "wer_ours": ours["adaptive"]["wer"],
        "wer_ours_padded": ours["padded"]["wer"],
        "intervals": {
            name: [look["wer_low"], look["wer_high"]]
            for name, look in (("usual", usual["padded"]), ("ours", ours["adaptive"]), ("ours_padded", ours["padded"]))
        },
        "seconds_to_usual_wer": {"usual": usual["seconds"], "ours": reached, "ratio": ratio},
        "course": learned,
    }


def speed_lines(rates: dict, result: dict) -> list[str]:
    """Return the table of speed and memory."""
    rows = [
        [
            f"{name}, {PRECISIONS[key]}",
            f"{rate:.2f}",
            f"{rate / rates['fp32'][USUAL]:.1f}",
            f"{result['peak_mb'][key][name]:,}",
        ]
        for key, told in rates.items()
        for name, rate in told.items()
    ]
    head = [f"{result['model']}, batches of {result['batch_size']}", "clips/s", "times the usual in float32", "peak MB"]
    where = "on the GPU" if result["device"] == "cuda" else "beyond the libraries'"
    return [
        *markdown(head, rows),
        "",
        f"{result['steps']} steps each, in turn, median of {result['rounds']}; clips of mean "
        f"{result['mean_seconds']:.1f} s; one of ours, of fewer clips, is padded to 30 s and counts as "
        f"{100 * result['padded_share']:g} % of the steps of an epoch. Memory {where}, a process each.",
    ]


def quality_lines(learned: dict, result: dict, options: Options) -> list[str]:
    """Return the table of dev WER by step, and how soon ours was as good."""
    head = [
        "dev WER (95 % interval) after",
        *(f"{part + 1}/{options.evaluations}" for part in range(options.evaluations)),
    ]
    ways = {
        f"{USUAL}, padded": (USUAL, "padded"),
        f"{OURS}, adaptive": (OURS, "adaptive"),
        f"{OURS}, padded": (OURS, "padded"),
    }
    rows = [[title, *(with_interval(look[window]) for look in learned[name])] for title, (name, window) in ways.items()]
    rows += [
        [f"{name}, seconds of training", *(f"{look['seconds']:.0f}" for look in looks)]
        for name, looks in learned.items()
    ]
    times, dev = result["seconds_to_usual_wer"], learned[USUAL][-1]["padded"]
    minutes = options.clips / result["clips_per_second"]["fp32"][USUAL] / 60
    reached = "did not reach the usual recipe's last WER"
    if times["ours"]:
        reached = (
            f"was as good as the usual recipe in the end after {times['ours']:.0f} s, {times['ratio']:.1f} times sooner"
        )
    return [
        "",
        *markdown(head, rows),
        "",
        f"Of one epoch of {options.clips} clips, the same on both sides, rate {options.learning_rate:g}, both in "
        f"bfloat16; in float32 the usual recipe would take {minutes:.0f} minutes. "
        f"Dev: {dev['clips']} clips, {dev['words']} words, greedy. {OURS}, in its adaptive window, {reached}.",
    ]


if __name__ == "__main__":
    run(main, Options)
