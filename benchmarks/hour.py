"""One hour of speech through `lengua transcribe`: how fast, how soon the first words, how much memory all the while.

    python benchmarks/hour.py --minutes 60 --model runs/demo

The recording is made of the model's own test clips, or of the sample's, in a drawn order, with drawn pauses between
them, and written once. The real command transcribes it; its memory is looked at every second, beside what it has
written by then. Cues are made of what it wrote, and read by two parsers of others. The last line is one JSON object.
"""

import html
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
from corpus import test_clips
from harness import BenchmarkOptions, markdown, report, resident_mb, run

from lengua import audio
from lengua.inference import TRANSCRIPT_FORMATS, Segment
from lengua.inference.subtitles import Cue, make_cues
from lengua.scoring import score

PAUSES_S = (0.2, 3.0)
"""Between two clips, drawn evenly."""
STRETCH_MIN = 5
"""Minutes of the recording for which one peak of the memory is given; from the second on it shall not grow."""
BLOCK = 1 << 16
"""Bytes of what was written so far in which its last segment stands."""


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Transcribe a long recording and watch the memory."""

    minutes: float = 60
    """Length of the recording."""
    model: str = "runs/demo"
    """A run, a model folder or a Hub id; its own test clips are taken if it keeps their sound."""
    words: bool = False
    """Ask for word timestamps, too."""
    seed: int = 17
    """Draws the order of the clips and the pauses."""
    every_s: float = 0.2
    """Seconds between two looks at the memory."""


@dataclass(frozen=True)
class Look:
    """What there was to see at one moment."""

    seconds: float
    """Since the command was started."""
    written_s: float
    """End of the last segment that it had written; 0 before the first."""
    megabytes: float
    """Resident memory of its process."""


def main(options: Options) -> dict:
    with tempfile.TemporaryDirectory() as scratch:
        recording = Path(scratch) / "hour.flac"
        clips, texts = write(recording, options)
        looks, transcript = watched(recording, options)
        length = audio.recording_info(recording).duration_s
    segments = [Segment(one["start_s"], one["end_s"], one["text"]) for one in transcript["segments"]]
    written = " ".join(segment.text for segment in segments)
    result = {**figures(options, looks, segments, length), "wer": round(score([" ".join(texts)], [written]).wer, 4)}
    result |= {"clips": clips, "suppressed": transcript["suppressed"]}
    title = f"{options.minutes:g} minutes of speech"
    return report(options, title, table(options, result), result, shown=("minutes", "model"))


def write(path: Path, options: Options) -> tuple[int, list[str]]:
    """Write the recording; return how many clips it holds and their references."""
    clips, random = test_clips(options.model), np.random.default_rng(options.seed)
    texts, left = [], int(options.minutes * 60 * audio.SAMPLE_RATE)
    with soundfile.SoundFile(path, "w", audio.SAMPLE_RATE, 1, format="FLAC", subtype="PCM_16") as file:
        while left > 0:
            for index in random.permutation(len(clips)):
                text, sound = clips[index]
                pause = np.zeros(int(random.uniform(*PAUSES_S) * audio.SAMPLE_RATE), np.float32)
                samples = np.concatenate([audio.load(sound), pause])
                file.write(samples)
                texts.append(text)
                left -= len(samples)
                if left <= 0:
                    break
    return len(texts), texts


def watched(recording: Path, options: Options) -> tuple[list[Look], dict]:
    """Run the command; return what was seen while it ran, and what it wrote."""
    out = recording.parent / "out"
    command = [sys.executable, "-m", "lengua", "transcribe", str(recording), "--model", options.model]
    command += ["--format", "json", "--out", str(out), *(["--words"] if options.words else [])]
    started, looks = time.perf_counter(), []
    with open(recording.with_suffix(".log"), "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        while process.poll() is None:
            looks.append(Look(time.perf_counter() - started, end_in(out / "hour.json.part"), resident_mb(process.pid)))
            time.sleep(options.every_s if looks[-1].written_s else 0.05)  # the first segment is timed more closely
    if process.returncode:
        sys.exit(f"the command ended with {process.returncode}: {Path(log.name).read_text(encoding='utf-8')}")
    seconds = time.perf_counter() - started
    transcript = json.loads((out / "hour.json").read_text(encoding="utf-8"))
    return [*looks, Look(seconds, transcript["duration_s"], looks[-1].megabytes)], transcript


def end_in(path: Path) -> float:
    """Return the end of the last segment in what is written so far."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - BLOCK))
            ends = re.findall(r'^\{"start_s": [\d.]+, "end_s": ([\d.]+)', file.read().decode(errors="replace"), re.M)
    except FileNotFoundError:
        return 0.0
    return float(ends[-1]) if ends else 0.0


def figures(options: Options, looks: list[Look], segments: list[Segment], length: float) -> dict:
    stretch = min(STRETCH_MIN, options.minutes / 4) * 60
    peaks = peaks_of(looks, stretch)
    return {
        "minutes": round(length / 60, 2),
        "seconds": round(looks[-1].seconds, 1),
        "times_real_time": round(length / looks[-1].seconds, 2),
        "first_segment_s": round(next(look.seconds for look in looks if look.written_s), 2),
        "stretch_minutes": round(stretch / 60, 2),
        "peaks_mb": [round(peak) for peak in peaks],
        "growth": round(max(peaks[2:]) / peaks[1] - 1, 4),
        "segments": len(segments),
        "monotonic": all(one.start_s <= one.end_s for one in segments)
        and all(before.start_s <= after.start_s for before, after in pairwise(segments)),
        "overlaps": sum(before.end_s > after.start_s for before, after in pairwise(segments)),
        "srt_ok": agrees(parsed_srt(segments), segments),
        "vtt_ok": agrees(parsed_vtt(segments), segments),
    }


def peaks_of(looks: list[Look], stretch: float) -> list[float]:
    """Return the most memory while each stretch of the recording was transcribed, in megabytes."""
    by_stretch: dict[int, float] = {}
    for look in looks:
        number = int(look.written_s // stretch)
        by_stretch[number] = max(by_stretch.get(number, 0.0), look.megabytes)
    return [by_stretch[number] for number in sorted(by_stretch)]


def parsed_srt(segments: list[Segment]) -> Iterator[tuple[float, float, str]]:
    import srt

    for one in srt.parse("".join(TRANSCRIPT_FORMATS["srt"].write(segments, dict))):
        yield one.start.total_seconds(), one.end.total_seconds(), one.content


def parsed_vtt(segments: list[Segment]) -> Iterator[tuple[float, float, str]]:
    import webvtt

    for one in webvtt.from_string("".join(TRANSCRIPT_FORMATS["vtt"].write(segments, dict))).captions:
        yield clock(one.start), clock(one.end), html.unescape(one.text)


def clock(text: str) -> float:
    """Return the seconds of 01:02:03.456."""
    hours, minutes, seconds = text.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def agrees(parsed: Iterator[tuple[float, float, str]], segments: list[Segment]) -> bool:
    """Whether a parser found every cue, with its words and times, and none that begins before another ends."""
    found, expected = list(parsed), list(make_cues(segments))
    in_order = all(before[1] <= after[0] for before, after in pairwise(found))
    return in_order and len(found) == len(expected) and all(map(_same, found, expected))


def _same(found: tuple[float, float, str], cue: Cue) -> bool:
    start, end, text = found
    return max(abs(start - cue.start_s), abs(end - cue.end_s)) < 0.001 and text.split() == cue.text.split()


def table(options: Options, result: dict) -> list[str]:
    peaks, minutes, cues = result["peaks_mb"], result["stretch_minutes"], {True: "all cues", False: "NOT"}
    rows = [
        ["times real time", f"{result['times_real_time']:.1f}"],
        ["seconds, the start of the program included", f"{result['seconds']:.0f}"],
        ["seconds to the first segment", f"{result['first_segment_s']:.1f}"],
        [f"most memory from minute {minutes:g} to {2 * minutes:g} of the recording, MB", f"{peaks[1]}"],
        ["most memory from there on, MB", f"{max(peaks[2:])} ({result['growth']:+.1%})"],
        ["segments, overlaps", f"{result['segments']}, {result['overlaps']}"],
        ["SRT read by srt, WebVTT by webvtt-py", ", ".join(cues[result[name]] for name in ("srt_ok", "vtt_ok"))],
        ["WER", f"{result['wer']:.1%}"],
    ]
    made = f"{result['clips']} clips with pauses of {PAUSES_S[0]} to {PAUSES_S[1]} s, {result['minutes']:.1f} minutes"
    return [*markdown([f"lengua transcribe, {options.model}", ""], rows), "", f"{made}."]


if __name__ == "__main__":
    run(main, Options)
