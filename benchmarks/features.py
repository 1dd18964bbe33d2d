"""From MP3 clips to features on disk: the usual recipe of the notebooks against `lengua features`, in one run.

    python benchmarks/features.py --clips 2000

The usual recipe as it is published (librosa.load, WhisperFeatureExtractor padded to 30 s, WhisperTokenizer, by
`Dataset.map` into Arrow files, row by row, which is faster than in batches), and tuned: with float32 declared to
`datasets`, and written 100 rows at a time. Ours: `lengua.data.features.build`, its checks and its manifest too. Every
build has a fresh process and a fresh folder, and one thread a process: by default each would start as many as there are
cores. The clock starts when the libraries are loaded; starting worker processes counts. Sides alternate. The last line
is one JSON object.
"""

import csv
import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from statistics import median

import soundfile
from corpus import corpus, material, spread
from harness import BenchmarkOptions, FreshProcess, alternate, markdown, report, run
from memory import EVERY_S, MEASURE, memory_of_tree

from lengua import audio
from lengua.audio import log_mel
from lengua.data import features
from lengua.data.features import make_row
from lengua.data.sources import Utterance, open_source
from lengua.data.store import Row, write_shard
from lengua.models.checkpoints import find_model
from lengua.options import BASE_MODEL, FeatureOptions
from lengua.runtime.errors import LenguaError

USUAL, TUNED, OURS, FLOOR = "usual recipe", "the same, tuned", "lengua", "decode"
PROCESSES = (1, 2)
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PADDED_BYTES = 80 * log_mel.WINDOW_FRAMES * 4


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Compare the speed, the size and the memory of making features."""

    clips: int = 2000
    """Clips of the corpus. The usual recipe writes 0.96 MB for each; that is deleted after every build."""
    staged: int = 256
    """Clips on which every stage is timed alone, in one process and without writing."""
    rounds: int = 3
    """Builds of each side with each number of processes; the median counts."""


@dataclass(frozen=True)
class Built:
    """What one build made; what ours drops does not count as a clip."""

    side: str
    processes: int
    clips: int
    bytes: int
    seconds: float
    peak_mb: float
    """Of all its processes together; 0 where nobody looked."""


def main(options: Options) -> dict:
    find_model(BASE_MODEL)
    os.environ.update(dict.fromkeys(THREADS, "1"))
    with tempfile.TemporaryDirectory() as scratch:
        require_room(Path(scratch), options.clips)
        release = corpus(options.clips, Path(scratch))
        turns = [(side, processes) for processes in PROCESSES for side in SIDES]
        timed = [build(release, *turn) for at in range(options.rounds) for turn in turns[:: -1 if at % 2 else 1]]
        looked = [build(release, side, PROCESSES[-1], look_every=EVERY_S) for side in SIDES]
        stages, _ = alone(partial(time_stages, release, options.staged, options.rounds))
    return show(options, timed, looked, stages)


def require_room(folder: Path, clips: int) -> None:
    """Say how much disk will be taken.

    Raises:
        LenguaError: it is not there.
    """
    needed, free = 1.2 * clips * PADDED_BYTES / 1e9, shutil.disk_usage(folder).free / 1e9
    if free < needed:
        raise LenguaError(f"{needed:.1f} GB of free disk", f"{free:.1f} GB", "set TMPDIR, or ask for fewer --clips")
    print(f"takes up to {needed:.1f} GB of disk at a time; {free:.0f} GB are free", flush=True)


def build(release: Path, side: str, processes: int, look_every: float | None = None) -> Built:
    """Build the features of a release once, and delete them."""
    os.sync()  # nobody pays for what another has left to be written
    with tempfile.TemporaryDirectory(dir=release.parent) as folder:
        (clips, seconds), peak = alone(partial(SIDES[side], release, Path(folder) / "out", processes), look_every)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    print(f"{side}, processes: {processes}, {clips} clips in {seconds:.1f} s", flush=True)
    return Built(side, processes, clips, size, seconds, peak)


def alone(work: Callable, look_every: float | None = None) -> tuple:
    """Call `work` in a fresh process; return its result and the peak memory of all processes under it, in MB.

    Looking takes time of its own, so a build that is looked at is not timed; without it the peak is 0.
    """
    with FreshProcess() as process:
        pid, future, peak = process.call(os.getpid), process.submit(work), 0.0
        while look_every and not future.done():
            peak = max(peak, sum(memory_of_tree(pid)))
            time.sleep(look_every)
        return future.result(), peak


def ours(release: Path, out: Path, processes: int) -> tuple[int, float]:
    """Make a feature store; return how many clips it holds and the seconds."""
    start = time.perf_counter()
    result = features.build(FeatureOptions(f"common_voice:{release}", out, workers=processes))
    return sum(split["utterances"] for split in result.splits.values()), time.perf_counter() - start


def usual(release: Path, out: Path, processes: int, tuned: bool = False) -> tuple[int, float]:
    """Make features as the notebooks do, or with what makes `datasets` faster; return how many, and the seconds."""
    from datasets import Array2D, Dataset, Features, List, Value, disable_progress_bars

    disable_progress_bars()
    recipe()
    padded = Features(input_features=Array2D((80, log_mel.WINDOW_FRAMES), "float32"), labels=List(Value("int64")))
    start = time.perf_counter()
    out.mkdir()
    rows = Dataset.from_dict(paths_and_sentences(release))
    made = rows.map(
        prepare,
        num_proc=processes if processes > 1 else None,
        remove_columns=rows.column_names,
        cache_file_name=str(out / "features.arrow"),
        **({"features": padded, "writer_batch_size": 100} if tuned else {}),
    )
    return len(made), time.perf_counter() - start


@lru_cache(maxsize=1)
def recipe() -> tuple:
    """Return what a notebook loads first: librosa's loader, the feature extractor, the tokenizer."""
    from librosa import load
    from transformers import WhisperFeatureExtractor, WhisperTokenizer

    folder, _ = find_model(BASE_MODEL)
    tokenizer = WhisperTokenizer.from_pretrained(folder, language="es", task="transcribe")
    return load, WhisperFeatureExtractor.from_pretrained(folder), tokenizer


def prepare(row: dict[str, str]) -> dict:
    """Turn a path and a sentence into features, float32 of shape (80, 3000), and labels."""
    load, extractor, tokenizer = recipe()
    samples, rate = load(row["path"], sr=audio.SAMPLE_RATE)
    padded = extractor(samples, sampling_rate=rate, return_tensors="np").input_features[0]
    return {"input_features": padded, "labels": tokenizer(row["sentence"]).input_ids}


def paths_and_sentences(release: Path) -> dict[str, list[str]]:
    rows = []
    for split in ("train", "dev", "test"):
        with open(release / f"{split}.tsv", encoding="utf-8", newline="") as file:
            rows += csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    paths = [str(release / "clips" / row["path"]) for row in rows]
    return {"path": paths, "sentence": [row["sentence"] for row in rows]}


SIDES = {USUAL: usual, TUNED: partial(usual, tuned=True), OURS: ours}


def time_stages(release: Path, count: int, rounds: int) -> dict[str, float]:
    """Return the milliseconds a clip of every stage by itself, in this process alone."""
    options = FeatureOptions(f"common_voice:{release}")
    read = (item for _, item in open_source(options.source).read_many(options.splits))
    chosen = spread([item for item in read if isinstance(item, Utterance)], count)
    pairs = [(clip, row) for clip in chosen if isinstance(row := make_row(clip, options), Row)]
    clips, rows = zip(*pairs, strict=True)
    data = [clip.audio.read_bytes() for clip in clips]
    decoded, samples = list(map(decode, data)), [audio.load(clip.audio) for clip in clips]
    mels = list(map(log_mel.log_mel, samples))
    stages = {
        USUAL: (prepare, [{"path": str(clip.audio), "sentence": clip.text} for clip in clips]),
        OURS: (partial(make_row, options=options), clips),
        FLOOR: (decode, data),
        "resample": (resample, decoded),
        "load": (partial(audio.load, max_seconds=options.max_seconds), [clip.audio for clip in clips]),
        "log_mel": (log_mel.log_mel, samples),
        "quantise": (log_mel.encode, mels),
        "write": (partial(write_shard, release.parent / "shard.parquet"), [rows]),
    }
    for work, inputs in stages.values():
        work(inputs[0])
    seconds = alternate({name: partial(each, *stage) for name, stage in stages.items()}, items=1, rounds=rounds)
    return {name: 1000 * times[0] / len(clips) for name, times in seconds.items()}


def each(work: Callable, inputs: Sequence, _item: int) -> None:
    for one in inputs:
        work(one)


def decode(data: bytes) -> tuple:
    """Return (samples, rate) of a clip: what nobody can leave out, the floor."""
    return soundfile.read(io.BytesIO(data), dtype="float32")


def resample(decoded: tuple):
    import soxr

    return soxr.resample(*decoded, audio.SAMPLE_RATE)


def show(options: Options, timed: list[Built], looked: list[Built], stages: dict[str, float]) -> dict:
    figures = measured(timed, looked, stages)
    better = {name: times_better(name, sides) for name, sides in figures.items()}
    speedup_1, speedup, speedup_compute, bytes_ratio, memory_ratio = (round(to[USUAL], 2) for to in better.values())
    tuned_1, tuned, *_ = (round(to[TUNED], 2) for to in better.values())
    result = {
        "clips": options.clips,
        "speedup": speedup,
        "speedup_1": speedup_1,
        "speedup_tuned": tuned,
        "speedup_tuned_1": tuned_1,
        "speedup_compute": speedup_compute,
        "bytes_ratio": bytes_ratio,
        "memory_ratio": memory_ratio,
        "floor_ratio": round(stages[OURS] / stages[FLOOR], 2),
        "figures": figures,
        "stages_ms": stages,
        "parts_ms": parts(timed, stages),
        "builds": [asdict(one) for one in timed + looked],
    }
    rows = [
        [name, *(f"{sides[side]:.1f}" for side in SIDES), *(f"{ratio:.1f}" for ratio in better[name].values())]
        for name, sides in figures.items()
    ]
    lines = [*markdown(["", *SIDES, "times better", "than tuned"], rows), "", *where_time_goes(result["parts_ms"])]
    kept = next(one.clips for one in looked if one.side == OURS)
    lines += ["", f"{options.clips} clips repeated from {material()}; lengua kept {kept}, and its speed counts those."]
    lines += [f"Median of {options.rounds} builds, one thread a process. Memory is {MEASURE}, in builds not timed."]
    return report(options, "Features", lines, result, shown=("clips",))


def times_better(figure: str, sides: dict[str, float]) -> dict[str, float]:
    """Return how many times better ours is than each of the others."""
    power = 1 if figure.startswith("clips/s") else -1
    return {side: (sides[OURS] / sides[side]) ** power for side in (USUAL, TUNED)}


def measured(timed: list[Built], looked: list[Built], stages: dict[str, float]) -> dict[str, dict[str, float]]:
    return {
        "clips/s, 1 process": {side: speed(timed, side, 1) for side in SIDES},
        "clips/s, 2 processes": {side: speed(timed, side, 2) for side in SIDES},
        "ms a clip, 1 core, nothing written": {side: stages[OURS if side == OURS else USUAL] for side in SIDES},
        "kB a clip on disk": {one.side: one.bytes / one.clips / 1000 for one in looked},
        "peak MB, 2 processes": {one.side: one.peak_mb for one in looked},
    }


def speed(timed: list[Built], side: str, processes: int) -> float:
    return median(one.clips / one.seconds for one in timed if (one.side, one.processes) == (side, processes))


def parts(timed: list[Built], stages: dict[str, float]) -> dict[str, float]:
    """Return the milliseconds of core time that each part of our build takes for a clip; they add up to the last."""
    per_clip = stages["load"] + stages["log_mel"] + stages["quantise"]
    one, two = (1000 * processes / speed(timed, OURS, processes) for processes in PROCESSES)
    return {
        "decode the MP3 (the floor)": stages[FLOOR],
        "resample to 16 kHz": stages["resample"],
        "open, mix down, limit": stages["load"] - stages[FLOOR] - stages["resample"],
        "log-mel of the speech": stages["log_mel"],
        "quantise to one byte": stages["quantise"],
        "clean the text, check, keep audio": stages[OURS] - per_clip,
        "write Parquet": stages["write"],
        "read the tables, manifest": one - stages[OURS] - stages["write"],
        "process border: start, hand-over, a shared machine": two - one,
        "together": two,
    }


def where_time_goes(ms: dict[str, float]) -> list[str]:
    rows = [[name, f"{part:.2f}", f"{part / ms['together']:.0%}"] for name, part in ms.items()]
    return markdown(["lengua, 2 processes", "ms of a core a clip", "share"], rows)


if __name__ == "__main__":
    run(main, Options)
