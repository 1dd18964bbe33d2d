"""Other programs and Transcriber with the same weights on the same clips: speed, words, memory, cold start.

    python benchmarks/inference.py --model runs/demo
    python benchmarks/inference.py --quick                         # a first look: 6 clips, one long minute

openai-whisper, transformers, faster-whisper (float32, int8, batched pipeline), whisper.cpp (plain, with the short
`audio_ctx` of its users, and with the still shorter one that lengua trained the weights for): each in a process of its
own, one clip at a time, in turn, on two cores. Then untouched weights, then one long recording. Programs that are not
installed are named and left out. The last line is one JSON object.
"""

import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from inference_clips import Clip, clips_of, joined, spread
from inference_figures import NOT_WORSE, WORST, by_set, clip_lines, long_lines, long_verdict, set_lines, verdict
from inference_peers import LONG, OURS, PEERS, SLOW, Weights
from inference_sides import Cold, Side, cold_start, open_sides, told
from inference_weights import weights_of
from recording import alternate, record, run

from lengua.options import BASE_MODEL
from lengua.runtime.errors import RequestError
from lengua.runtime.system import describe_hardware


@dataclass(frozen=True)
class Options:
    """Compare speed, words, memory and cold start of Transcriber with those of other programs."""

    model: str = "runs/demo"
    """A fine-tuned run: its weights are what every program gets."""
    untouched: str = BASE_MODEL
    """Weights that nobody trained, for the second table; "" leaves it out."""
    store: Path | None = None
    """The store of the second set of clips, its sound kept. Default: RUN/store."""
    split: str = "test"
    """The split of it."""
    common_voice: Path | None = None
    """A language's folder of Common Voice, for the first set. Default: shared/data beside the repository."""
    language: str = "es"
    """What is spoken."""
    clips: int = 48
    """Clips of each set at most, evenly spread over it."""
    untouched_clips: int = 8
    """Of these, so many of each set for the untouched weights."""
    rounds: int = 1
    """Times that each clip is timed; the median counts."""
    starts: int = 3
    """Cold starts of each program; 0 leaves them out, and the memory with them."""
    long_minutes: float = 20.0
    """Length of the long recording; 0 leaves it out."""
    all_long: bool = False
    """Give it to the slow programs, too."""
    peers: tuple[str, ...] = tuple(PEERS)
    """Which programs; ours always."""
    threads: int = 2
    """Cores, and threads of each program."""
    quick: bool = False
    """A first look: 3 clips of each set, one long minute, one cold start."""
    record: bool = False
    """Write the result into benchmarks/RESULTS.md."""
    json: bool = True
    """Print one JSON object, last."""

    def __post_init__(self):
        if unknown := [name for name in self.peers if name not in PEERS]:
            raise RequestError(f"peers of {', '.join(PEERS)}", unknown[0], "name some of these")

    @property
    def programs(self) -> list[str]:
        """Ours and the chosen others, in the order of the tables."""
        return [name for name in PEERS if name in (*self.peers, OURS)]


def main(options: Options) -> dict:
    """Measure and print."""
    begun = time.perf_counter()
    options = quick(options) if options.quick else options
    on_cores(options.threads)
    store = options.store or Path(options.model) / "store"
    clips = clips_of(store, options.split, options.common_voice, options.language, options.clips)
    with tempfile.TemporaryDirectory() as scratch:
        (tuned := Path(scratch) / "tuned").mkdir()
        measured = of_tuned(clips, weights_of(options.model, options.language, options.threads, tuned), options)
        measured["untouched"] = of_untouched(clips, Path(scratch), options) if options.untouched else None
    measured["minutes"] = round((time.perf_counter() - begun) / 60, 1)
    return show(options, measured)


def quick(options: Options) -> Options:
    """Return the options of a first look."""
    less = {"clips": min(options.clips, 3), "untouched_clips": min(options.untouched_clips, 1)}
    return replace(options, **less, starts=min(options.starts, 1), long_minutes=min(options.long_minutes, 1.0))


def on_cores(count: int) -> None:
    """Keep this process, and all that it starts, to so many cores and threads."""
    os.environ["OMP_NUM_THREADS"] = str(count)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def of_tuned(clips: Sequence[Clip], weights: Weights, options: Options) -> dict:
    """Return all that is measured of the fine-tuned weights."""
    samples = [clip.samples for clip in clips]
    sides, left_out = open_sides(options.programs, weights, samples)
    try:
        seconds, texts = clip_by_clip(sides, len(clips), options.rounds)
        long = long_recording(sides, clips, options) if options.long_minutes else None
    finally:
        close(sides)
    cold = cold_starts([name for name in seconds if options.starts], weights, samples, options.starts)
    sets = by_set(clips, seconds, texts)
    return {"all": verdict(clips, seconds, texts), "sets": sets, "long": long, "cold": cold, "left_out": left_out}


def of_untouched(clips: Sequence[Clip], scratch: Path, options: Options) -> dict:
    """Return the verdict on weights that nobody trained; fewer clips, for ours is padded there, too."""
    titles = dict.fromkeys(clip.set for clip in clips)
    fewer = [
        clip for title in titles for clip in spread([one for one in clips if one.set == title], options.untouched_clips)
    ]
    weights = weights_of(options.untouched, options.language, options.threads, scratch)
    sides, _ = open_sides(options.programs, weights, [clip.samples for clip in fewer])
    try:
        return verdict(fewer, *clip_by_clip(sides, len(fewer), options.rounds))
    finally:
        close(sides)


def clip_by_clip(sides: dict[str, Side], count: int, rounds: int) -> tuple[dict, dict]:
    """Return the seconds and the words of each program for each clip."""
    say(f"{count} clips, {len(sides)} programs in turn")
    seconds = alternate(sides, count, rounds)
    return seconds, {name: [side.texts[item] for item in range(count)] for name, side in sides.items()}


def long_recording(sides: dict[str, Side], clips: Sequence[Clip], options: Options) -> dict:
    """Return the verdict on one long recording of the same clips."""
    samples, text = joined(clips, options.long_minutes)
    heard = {}
    for title, (name, how) in (LONG | (SLOW if options.all_long else {})).items():
        if name in sides:
            say(f"{options.long_minutes:g} minutes: {title}")
            heard[title] = sides[name].long(samples, how)
    return long_verdict(heard, text, len(samples) / 16_000)


def cold_starts(names: Sequence[str], weights: Weights, samples: Sequence, starts: int) -> dict[str, Cold]:
    """Return what a cold start of each program costs; one that fails there is told on standard error."""
    found = {}
    for name in names:
        say(f"cold start: {name}")
        try:
            found[name] = cold_start(name, weights, samples, starts)
        except RuntimeError as error:
            say(f"{name} failed: {told(error)}")
    return found


def close(sides: dict[str, Side]) -> None:
    """End all processes."""
    for side in sides.values():
        side.close()


def say(text: str) -> None:
    """Say on standard error how far it is."""
    print(text, file=sys.stderr, flush=True)


def show(options: Options, measured: dict) -> dict:
    """Print and return the figures."""
    everything, long, untouched = measured["all"], measured["long"], measured["untouched"]
    result = {
        **everything,
        "speedup_untouched": untouched and untouched["speedup"],
        "speedup_long": long and long["speedup"],
        "sets": measured["sets"],
        "untouched": untouched,
        "long": long,
        "cold": {name: vars(one) for name, one in measured["cold"].items()},
        "left_out": measured["left_out"],
        "hardware": describe_hardware(),
        "threads": options.threads,
        "minutes": measured["minutes"],
    }
    lines = tables(options, measured)
    print("\n".join(lines))
    if options.record:
        record("Inference", f"python benchmarks/inference.py{given(options)}", lines)
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    return result


def tables(options: Options, measured: dict) -> list[str]:
    """Return all tables and what is to know about them."""
    everything, long, untouched = measured["all"], measured["long"], measured["untouched"]
    lines = [*clip_lines(everything, measured["cold"]), "", *set_lines(measured["sets"]), ""]
    sets = ", ".join(f"{told['clips']} of {title}" for title, told in measured["sets"].items())
    lines += [
        f"The weights of {options.model} in every program, {options.threads} threads each, in turn; "
        f"{everything['clips']} clips ({sets}), mean {everything['mean_seconds']} s.",
        f"The fastest peer takes {everything['speedup']} times as long: {everything['fastest_peer']}.",
        f"Of those as their own users run them {everything['speedup_as_its_users_run_it']} times: "
        f"{everything['fastest_as_its_users_run_it']}.",
        f"Of those that pad to 30 s {everything['speedup_padding']} times: {everything['fastest_padding_peer']}.",
        f"A program whose WER is more than {100 * WORST:g} points above ours is shown, but is no peer. Ours is not "
        "worse if the interval of our WER minus the peer's (paired bootstrap by "
        f"{everything['resampled']}) ends below {100 * NOT_WORSE:g} points: {everything['not_worse']}.",
    ]
    if measured["left_out"]:
        lines += ["", "Left out: " + "; ".join(f"{name} ({why})" for name, why in measured["left_out"].items()) + "."]
    if untouched:
        lines += ["", f"Weights that nobody trained ({options.untouched}), ours padded to 30 s, too:", ""]
        lines += clip_lines(untouched, {})
    if long:
        lines += ["", "The same fine-tuned weights, clips joined with pauses to one recording:", "", *long_lines(long)]
        if not options.all_long:
            lines += ["", f"Left out, for they take long (--all-long): {', '.join(SLOW)}."]
    return lines


def given(options: Options) -> str:
    """Return the options that are not the default ones, as they are typed."""
    typed = ""
    for name in ("model", "untouched", "clips", "rounds", "starts", "long_minutes", "threads", "all_long"):
        value, usual = getattr(options, name), getattr(Options, name)
        if value != usual or name == "model":
            flag = f"--{name.replace('_', '-')}"
            typed += f" {flag}" if value is True else f" {flag} {shlex.quote(str(value))}"
    return typed


if __name__ == "__main__":
    run(main, Options)
