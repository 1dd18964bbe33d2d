"""One fine-tuned model, the same clips: faster-whisper with its own 30 s of padding against Transcriber.

    python benchmarks/inference.py --model runs/demo

Both run CTranslate2 int8 on the same weights, greedily, one clip at a time from samples in memory, in turn. The last
line is one JSON object.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from recording import alternate, markdown, record, run

from lengua import audio, mel
from lengua.checkpoints import ctranslate2_folder, find_model
from lengua.scoring import score
from lengua.sources import is_source, open_source
from lengua.store import open_store
from lengua.transcription import Transcriber


@dataclass(frozen=True)
class Options:
    """Compare the speed and the words of faster-whisper and Transcriber."""

    model: str = "runs/demo"
    """A fine-tuned run."""
    clips: str = ""
    """A store that keeps its audio, or a source URI. Default: the model's own store (RUN/store)."""
    split: str = "test"
    """The split to read."""
    limit: int = 200
    """At most this many clips, spread over the split."""
    rounds: int = 1
    """Times that each clip is timed on each side; the median counts."""
    record: bool = False
    """Write the result into benchmarks/RESULTS.md."""
    json: bool = True
    """Print one JSON object, last."""


def main(options: Options) -> dict:
    """Measure and print."""
    references, clips, language = spread(options)
    folder, _ = find_model(options.model)
    transcriber = Transcriber(options.model, language)
    peer = faster_whisper(folder)
    sides = {
        "faster-whisper": Heard(lambda samples: peer(samples, language), clips),
        "Transcriber, padded": Heard(lambda samples: transcriber.decode([mel.log_mel(samples)], None)[0].text, clips),
        "Transcriber, adaptive": Heard(lambda samples: transcriber.decode([mel.log_mel(samples)])[0].text, clips),
    }
    for side in sides.values():
        side(0)
    seconds = alternate(sides, len(clips), options.rounds)
    rates = {name: score(references, [side.texts[i] for i in range(len(clips))]).wer for name, side in sides.items()}
    return show(options, clips, seconds, rates)


class Heard:
    """A way to transcribe, and what it said to each clip."""

    def __init__(self, transcribe: Callable[[np.ndarray], str], clips: list[np.ndarray]):
        self.transcribe, self.clips, self.texts = transcribe, clips, {}

    def __call__(self, item: int) -> None:
        """Transcribe one clip."""
        self.texts[item] = self.transcribe(self.clips[item])


def spread(options: Options) -> tuple[list[str], list[np.ndarray], str]:
    """Return (texts, samples, language) of clips spread over the split."""
    name = options.clips or f"{options.model}/store"
    if is_source(name):
        items = [item for item in open_source(name, "es").read(options.split) if hasattr(item, "audio")]
        language = items[0].language
    else:
        store = open_store(Path(name))
        items, language = store.split(options.split), store.language
    count = min(options.limit, len(items))
    chosen = [items[len(items) * index // count] for index in range(count)]
    return [item.text for item in chosen], [audio.load(item.audio) for item in chosen], language


def faster_whisper(folder: Path):
    """Return a function (samples, language) -> text of faster-whisper as its users call it, timestamps off."""
    from faster_whisper import WhisperModel

    model = WhisperModel(str(ctranslate2_folder(folder)), device="cpu", compute_type="int8")

    def transcribe(samples: np.ndarray, language: str) -> str:
        segments, _ = model.transcribe(
            samples, language=language, beam_size=1, without_timestamps=True, condition_on_previous_text=False
        )
        return " ".join(segment.text.strip() for segment in segments)

    return transcribe


def show(options: Options, clips, seconds: dict, rates: dict) -> dict:
    """Print and return the figures."""
    mean = {name: 1000 * float(np.mean(times)) for name, times in seconds.items()}
    ours, theirs = "Transcriber, adaptive", "faster-whisper"
    result = {
        "clips": len(clips),
        "mean_seconds": round(float(np.mean([audio.duration_s(clip) for clip in clips])), 2),
        "ms_per_clip": {name: round(value, 1) for name, value in mean.items()},
        "wer": {name: round(rate, 4) for name, rate in rates.items()},
        "speedup": round(mean[theirs] / mean[ours], 2),
        "wer_difference": round(rates[ours] - rates[theirs], 4),
    }
    rows = [[name, f"{mean[name]:.0f}", f"{rates[name]:.1%}", f"{mean[theirs] / mean[name]:.1f}"] for name in seconds]
    lines = markdown(["int8, greedy, one clip at a time", "ms a clip", "WER", "times faster-whisper"], rows)
    lines += [
        "",
        f"{len(clips)} clips of {options.clips or 'the model’s own test set'}, mean {result['mean_seconds']} s.",
    ]
    print("\n".join(lines))
    if options.record:
        title = f"Inference: {options.clips or 'the demo’s test set'}"
        record(title, f"python benchmarks/inference.py --model {options.model}", lines)
    if options.json:
        print(json.dumps(result))
    return result


if __name__ == "__main__":
    run(main, Options)
