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
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import mean, median

import inference_peers
import numpy as np
from corpus import COMMON_VOICE, spread, validated
from harness import BenchmarkOptions, FreshProcess, alternate, markdown, report, run, tell
from inference_peers import BORROWED, LONG, MARK, OURS, PEERS, SHORT, SLOW, Weights

from lengua import audio
from lengua.data.store import open_store
from lengua.models.checkpoints import ctranslate2_folder, find_model, read_note
from lengua.options import BASE_MODEL
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.system import describe_hardware
from lengua.scoring import bootstrap_unit, compare_by_bootstrap, score

PAUSE_S = (0.3, 1.2)
"""Between two sentences of the long recording."""
WORST = 0.10
"""A program whose WER is so much above ours is shown, but is not the one to beat: fast nonsense is no peer."""
NOT_WORSE = 0.02
"""The 95 % interval of our WER minus the fastest peer's must end below this."""
COLD_CLIPS = 5


@dataclass(frozen=True)
class Options(BenchmarkOptions):
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

    def __post_init__(self):
        if unknown := [name for name in self.peers if name not in PEERS]:
            raise RequestError(f"peers of {', '.join(PEERS)}", unknown[0], "name some of these")

    @property
    def programs(self) -> list[str]:
        """Ours and the chosen others, in the order of the tables."""
        return [name for name in PEERS if name in (*self.peers, OURS)]


@dataclass(frozen=True)
class Clip:
    """One recording, and its reference."""

    set: str
    speaker: str
    text: str
    samples: np.ndarray = field(repr=False)

    @property
    def seconds(self) -> float:
        return audio.duration_s(self.samples)


@dataclass(frozen=True)
class Cold:
    """A program that nobody has started yet (its files are in the system's cache): what its user waits for."""

    first_text_s: float
    """From the start of its process, over imports and weights, to the words of the first clip: median of the starts."""
    peak_mb: float
    """The most memory that the process took for its weights and five clips: the most of the starts."""


class Side:
    """A program in its process, with all clips there; called with the number of a clip."""

    def __init__(self, name: str, weights: Weights, clips: Sequence[np.ndarray]):
        self.texts: dict[int, str] = {}
        self.process = FreshProcess()
        try:
            self.process.call(open_here, name, weights, list(clips))
            self(0)  # the first call of a program is not like the others
        except BaseException:
            self.close()
            raise

    def __call__(self, item: int) -> None:
        self.texts[item] = self.process.call(transcribe_here, item)

    def long(self, samples: np.ndarray, how: dict) -> tuple[float, str]:
        """Transcribe a long recording; return the seconds that it took, and the words."""
        return self.process.call(transcribe_long_here, samples, how)

    def close(self) -> None:
        self.process.__exit__()


def main(options: Options) -> dict:
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
    most = {"clips": 3, "untouched_clips": 1, "starts": 1, "long_minutes": 1.0}
    return replace(options, **{name: min(getattr(options, name), value) for name, value in most.items()})


def on_cores(count: int) -> None:
    """Keep this process, and all that it starts, to so many cores and threads."""
    os.environ["OMP_NUM_THREADS"] = str(count)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def of_tuned(clips: Sequence[Clip], weights: Weights, options: Options) -> dict:
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
        found = verdict(fewer, *clip_by_clip(sides, len(fewer), options.rounds))
        return found | {"long": long_recording(sides, clips, options) if options.long_minutes else None}
    finally:
        close(sides)


def clip_by_clip(sides: dict[str, Side], count: int, rounds: int) -> tuple[dict, dict]:
    """Return the seconds and the words of each program for each clip."""
    tell(f"{count} clips, {len(sides)} programs in turn")
    seconds = alternate(sides, count, rounds)
    return seconds, {name: [side.texts[item] for item in range(count)] for name, side in sides.items()}


def long_recording(sides: dict[str, Side], clips: Sequence[Clip], options: Options) -> dict:
    """Return the verdict on one long recording of the same clips."""
    samples, text = joined(clips, options.long_minutes)
    outputs = {}
    for title, (name, how) in (LONG | (SLOW if options.all_long else {})).items():
        if name in sides:
            tell(f"{options.long_minutes:g} minutes: {title}")
            outputs[title] = sides[name].long(samples, how)
    return long_verdict(outputs, text, len(samples) / 16_000)


def cold_starts(names: Sequence[str], weights: Weights, samples: Sequence, starts: int) -> dict[str, Cold]:
    """Return what a cold start of each program costs; one that fails there is reported on standard error."""
    found = {}
    for name in names:
        tell(f"cold start: {name}")
        try:
            found[name] = cold_start(name, weights, samples, starts)
        except RuntimeError as error:
            tell(f"{name} failed: {in_one_line(error)}")
    return found


OPEN_HERE: list = []
"""The program of this process, and its clips."""


def open_here(name: str, weights: Weights, clips: list[np.ndarray]) -> None:
    OPEN_HERE[:] = [PEERS[name].open(weights), clips]


def transcribe_here(item: int) -> str:
    program, clips = OPEN_HERE
    return program(clips[item])


def transcribe_long_here(samples: np.ndarray, how: dict) -> tuple[float, str]:
    start = time.perf_counter()
    text = OPEN_HERE[0].long(samples, **how)
    return time.perf_counter() - start, text


def open_sides(names: Sequence[str], weights: Weights, clips: Sequence[np.ndarray]) -> tuple[dict[str, Side], dict]:
    """Return the programs that open here and write the first clip, and of the others why they do not.

    Only ours must: whatever keeps another program from it stands in the result.
    """
    sides, left_out = {}, {}
    for name in names:
        if reason := PEERS[name].missing(weights):
            left_out[name] = reason
            continue
        tell(f"opening {name}")
        try:
            sides[name] = Side(name, weights, clips)
        except Exception as error:
            if name == OURS:
                raise
            left_out[name] = in_one_line(error)
    return sides, left_out


def in_one_line(error: Exception) -> str:
    if isinstance(error, BrokenProcessPool):
        return "its process crashed"
    return f"{type(error).__name__}: {error}".partition("\n")[0][:200]


def cold_start(name: str, weights: Weights, clips: Sequence[np.ndarray], starts: int) -> Cold:
    """Start a program so many times anew.

    Raises:
        RuntimeError: it failed; with its last words.
    """
    with tempfile.TemporaryDirectory() as scratch:
        job = Path(scratch) / "job"
        job.write_bytes(pickle.dumps((name, weights, list(clips[:COLD_CLIPS]))))
        seconds, peaks = zip(*[_start(job) for _ in range(starts)], strict=True)
    return Cold(median(seconds), max(peaks))


def _start(job: Path) -> tuple[float, float]:
    printed, events, start = [], [], time.perf_counter()
    command = [sys.executable, inference_peers.__file__, str(job)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            if line.startswith(MARK):
                events.append((time.perf_counter() - start, json.loads(line.removeprefix(MARK))))
            else:
                printed.append(line)
    if process.returncode or len(events) != 2:
        raise RuntimeError(f"exit code {process.returncode}: {''.join(printed[-3:]).strip()}")
    return events[0][0], events[1][1]


def close(sides: dict[str, Side]) -> None:
    for side in sides.values():
        side.close()


def show(options: Options, measured: dict) -> dict:
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
    return report(options, "Inference", tables(options, measured), result, shown=("model",))


def tables(options: Options, measured: dict) -> list[str]:
    """Return all tables and what is to know about them."""
    everything, long, untouched = measured["all"], measured["long"], measured["untouched"]
    lines = [*clip_lines(everything, measured["cold"]), "", *set_lines(measured["sets"]), ""]
    sets = ", ".join(f"{one_set['clips']} of {title}" for title, one_set in measured["sets"].items())
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
        base = untouched and untouched["long"]
        lines += [
            "",
            "The same fine-tuned weights, clips joined with pauses to one recording, every program by its own",
        ]
        lines += ["defaults (temperature fallback and beams, too):", "", *long_lines(long, base)]
        if not options.all_long:
            lines += ["", f"Left out, for they take long (--all-long): {', '.join(SLOW)}."]
    return lines


# What the programs are given


def weights_of(name: str, language: str, threads: int, scratch: Path) -> Weights:
    """Find a model and write its other forms into a folder; what keeps one of them from being made is reported."""
    folder, _ = find_model(name)
    made, refused = {}, {}
    for form, make in {
        "ctranslate2": lambda folder, _: ctranslate2_folder(folder),
        "openai": as_openai,
        "ggml": as_ggml,
    }.items():
        try:
            made[form] = make(folder, scratch)
        except (ImportError, LenguaError, ValueError, RuntimeError) as error:
            made[form], refused[form] = None, str(error).partition("\n")[0]
    margin_s = read_note(folder).decode_margin_s
    return Weights(name, folder, **made, language=language, margin_s=margin_s, threads=threads, refused=refused)


def as_ctranslate2(folder: Path, scratch: Path) -> Path:
    return ctranslate2_folder(folder)


def as_openai(folder: Path, scratch: Path) -> Path:
    """Write a checkpoint file as openai-whisper's `load_model` reads it."""
    import torch

    from lengua.models.formats.openai import load_openai_model

    model, path = load_openai_model(folder), scratch / "openai.pt"
    torch.save({"dims": vars(model.dims), "model_state_dict": model.state_dict()}, path)
    return path


def as_ggml(folder: Path, scratch: Path) -> Path:
    from lengua.models.formats.ggml import write_ggml

    write_ggml(folder, path := scratch / "ggml-model.bin")
    return path


def clips_of(store: Path, split: str, common_voice: Path | None, language: str, count: int) -> list[Clip]:
    """Return so many clips of each set that is there, Common Voice first.

    Raises:
        LenguaError: neither of them is.
    """
    released = common_voice or COMMON_VOICE / language
    found = common_voice_clips(released, count)
    if (store / "manifest.json").is_file():
        found += store_clips(store, split, count)
    if not found:
        raise LenguaError("clips", f"no Common Voice at {released} and no store at {store}", "name one: --store")
    return found


def common_voice_clips(release: Path, count: int) -> list[Clip]:
    """Return clips spread over the validated ones of a language, speaker after speaker."""
    rows = sorted(validated(release), key=lambda row: (row["client_id"], row["path"]))
    title = f"Common Voice {release.name}"
    return [
        Clip(title, row["client_id"], row["sentence"], audio.load(release / "clips" / row["path"]))
        for row in spread(rows, count)
    ]


def store_clips(path: Path, split: str, count: int) -> list[Clip]:
    """Return clips spread over a split of a store.

    Raises:
        LenguaError: it kept no sound.
    """
    store = open_store(path)
    rows = spread(store.split(split), count)
    if silent := [row.id for row in rows if not row.audio]:
        found = f"none of {silent[0]} in {path}"
        raise LenguaError("a store that kept the sound of its clips", found, f"build it with --keep-audio {split}")
    title = f"{store.manifest['source']}, {split}"
    return [Clip(title, row.speaker, row.text, audio.load(row.audio)) for row in rows]


def joined(clips: Sequence[Clip], minutes: float, seed: int = 17) -> tuple[np.ndarray, str]:
    """Return (samples, text) of clips one after another with pauses, until so many minutes are full.

    Each pass over the clips has an order of its own. A pause is as loud as the quietest tenth of a second of the clip
    before it: no room is as silent as zeros.
    """
    rng = np.random.default_rng(seed)
    parts, texts, wanted, length = [], [], minutes * 60 * audio.SAMPLE_RATE, 0
    while length < wanted:
        for index in rng.permutation(len(clips)):
            pause = room_tone(clips[index].samples, rng.uniform(*PAUSE_S), rng)
            parts += [clips[index].samples, pause]
            texts.append(clips[index].text)
            length += len(clips[index].samples) + len(pause)
            if length >= wanted:
                break
    return np.concatenate(parts), " ".join(texts)


def room_tone(samples: np.ndarray, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Return noise as loud as the quietest tenth of a second of a recording."""
    size = min(audio.SAMPLE_RATE // 10, len(samples))
    blocks = samples[: len(samples) // size * size].reshape(-1, size)
    level = float(np.sqrt(np.mean(np.square(blocks), axis=1)).min())
    return (level * rng.standard_normal(round(seconds * audio.SAMPLE_RATE))).astype(np.float32)


# Figures and tables


@dataclass(frozen=True)
class Figures:
    """What one program did with the same clips as all others; rates are fractions."""

    ms: float
    """Mean of a clip."""
    ms_median: float
    rtf: float
    """Seconds of work for a second of speech."""
    wer: float
    ours_minus: float = 0.0
    """Our WER minus its own."""
    low: float = 0.0
    """Of the 95 % interval of that, by the paired bootstrap."""
    high: float = 0.0


def figures(clips: Sequence[Clip], seconds: dict[str, list[float]], texts: dict[str, list[str]]) -> dict[str, Figures]:
    """Return the figures of each program; one a clip of seconds and of texts."""
    references, speakers = [clip.text for clip in clips], [clip.speaker for clip in clips]
    scores = {name: score(references, hypotheses) for name, hypotheses in texts.items()}
    ours, speech, found = scores[OURS].counts, sum(clip.seconds for clip in clips), {}
    for name, taken in seconds.items():
        theirs = scores[name]
        paired = compare_by_bootstrap(theirs.counts["errors"], ours["errors"], ours["words"], speakers)
        times = (1000 * mean(taken), 1000 * median(taken), sum(taken) / speech)
        found[name] = Figures(*times, theirs.wer, paired.difference, paired.low, paired.high)
    return found


def fastest(cost: dict[str, float], wer: dict[str, float]) -> str | None:
    """Return the program that takes the least, other than ours and not absurd (`WORST`); None where there is none."""
    peers = [name for name in cost if name != OURS and wer[name] <= wer[OURS] + WORST]
    return min(peers, key=cost.__getitem__, default=None)


def fastest_without(found: dict[str, Figures], names: Sequence[str]) -> str | None:
    """Return the fastest peer by the mean of a clip, some left out."""
    found = {name: one for name, one in found.items() if name not in names}
    return fastest({name: one.ms for name, one in found.items()}, {name: one.wer for name, one in found.items()})


def verdict(clips: Sequence[Clip], seconds: dict[str, list[float]], texts: dict[str, list[str]]) -> dict:
    """Return what the last line says of these clips: the fastest peer, and how we stand beside it."""
    found = figures(clips, seconds, texts)
    peer, own, padding = (fastest_without(found, names) for names in ((), (BORROWED,), (BORROWED, SHORT)))
    ours, theirs = found[OURS], found.get(peer)
    return {
        "fastest_peer": peer,
        "speedup": round(theirs.ms / ours.ms, 2) if theirs else None,
        "fastest_as_its_users_run_it": own,
        "speedup_as_its_users_run_it": round(found[own].ms / ours.ms, 2) if own else None,
        "fastest_padding_peer": padding,
        "speedup_padding": round(found[padding].ms / ours.ms, 2) if padding else None,
        "wer_peer": round(theirs.wer, 4) if theirs else None,
        "wer_ours": round(ours.wer, 4),
        "difference": [round(value, 4) for value in (theirs.ours_minus, theirs.low, theirs.high)] if theirs else None,
        "not_worse": theirs.high < NOT_WORSE if theirs else None,
        "clips": len(clips),
        "speakers": len({clip.speaker for clip in clips}),
        "resampled": bootstrap_unit([clip.speaker for clip in clips]),
        "mean_seconds": round(mean(clip.seconds for clip in clips), 2),
        "programs": {name: {key: round(value, 4) for key, value in asdict(one).items()} for name, one in found.items()},
    }


def by_set(clips: Sequence[Clip], seconds: dict[str, list[float]], texts: dict[str, list[str]]) -> dict[str, dict]:
    """Return the verdict on the clips of each set."""
    verdicts = {}
    for title in dict.fromkeys(clip.set for clip in clips):
        at = [place for place, clip in enumerate(clips) if clip.set == title]
        part = [{name: [row[place] for place in at] for name, row in rows.items()} for rows in (seconds, texts)]
        verdicts[title] = verdict([clips[place] for place in at], *part)
    return verdicts


def clip_lines(measured: dict, cold: dict[str, Cold]) -> list[str]:
    """Return the table of one verdict, with memory and cold start where they were measured."""
    ours, rows = measured["programs"][OURS], []
    for name, one in measured["programs"].items():
        interval = f"{100 * one['ours_minus']:+.1f} ({100 * one['low']:+.1f} to {100 * one['high']:+.1f})"
        row = [titled(name, one["wer"], ours["wer"]), f"{one['ms']:.0f} / {one['ms_median']:.0f}"]
        row += [f"{one['ms'] / ours['ms']:.1f}", f"{one['rtf']:.3f}", f"{one['wer']:.1%}"]
        row += ["" if name == OURS else interval]
        if cold:
            started = cold.get(name)
            row += [f"{started.peak_mb:,.0f}", f"{started.first_text_s:.1f}"] if started else ["", ""]
        rows.append(row)
    head = ["greedy, one clip at a time", "ms a clip, mean / median", "times ours", "real-time factor", "WER"]
    head += ["ours minus it, points (95 %)", *(["peak MB", "s from start to first text"] if cold else [])]
    return markdown(head, rows)


def set_lines(sets: dict[str, dict]) -> list[str]:
    names = next(iter(sets.values()))["programs"]
    head = ["by set", *(f"{title}: {what}" for title in sets for what in ("ms a clip", "WER"))]
    rows = [[name] for name in names]
    for one_set in sets.values():
        for row, one in zip(rows, one_set["programs"].values(), strict=True):
            row += [f"{one['ms']:.0f}", f"{one['wer']:.1%}"]
    return markdown(head, rows)


def long_verdict(outputs: dict[str, tuple[float, str]], text: str, seconds: float) -> dict:
    """Return who was the fastest with the long recording, and how we stand beside it."""
    wer = {name: score(text, hypothesis).wer for name, (_, hypothesis) in outputs.items()}
    cost = {name: taken for name, (taken, _) in outputs.items()}
    peer = fastest(cost, wer)
    return {
        "fastest_peer": peer,
        "speedup": round(cost[peer] / cost[OURS], 2) if peer else None,
        "minutes": round(seconds / 60, 2),
        "programs": {
            name: {"seconds": round(cost[name], 2), "times_real_time": round(seconds / cost[name], 1), "wer": wer[name]}
            for name in cost
        },
    }


def long_lines(long: dict, base: dict | None = None) -> list[str]:
    """Return the table of the long recording, with the WER of untouched weights beside where they were measured."""
    programs = long["programs"]
    ours = programs[OURS]
    rows = []
    for name, one in programs.items():
        row = [titled(name, one["wer"], ours["wer"]), f"{one['seconds']:.1f}", f"{one['times_real_time']:.1f}"]
        row += [f"{one['seconds'] / ours['seconds']:.2f}", f"{one['wer']:.1%}"]
        rows.append(row + ([f"{base['programs'][name]['wer']:.1%}"] if base else []))
    head = [f"{long['minutes']:g} minutes in one", "seconds", "times real time", "times ours", "WER"]
    return markdown(head + (["WER of the base"] if base else []), rows)


def titled(name: str, wer: float, ours: float) -> str:
    """Return the name of a row, marked where the program does not count as a peer."""
    return name if wer <= ours + WORST else f"{name} (not counted)"


if __name__ == "__main__":
    run(main, Options)
