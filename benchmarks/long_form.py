"""Long recordings in every program, beside the base: does fine-tuning cost a checkpoint the words of long audio?

    python benchmarks/long_form.py --models openai/whisper-base runs/demo --store STORE

Clips of a store's test split (to choose by, name dev) are joined, with pauses between, to recordings of 75 s and of 5
minutes, and to pairs and triples; each program hears them with its own defaults and with timestamps on and off. The
last line is one JSON object.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness import BenchmarkOptions, markdown, report, run, tell

from lengua import audio
from lengua.data.store import open_store
from lengua.inference import Transcriber
from lengua.models.checkpoints import ctranslate2_folder, find_model
from lengua.models.formats.ggml import write_ggml
from lengua.options import BASE_MODEL
from lengua.publishing.joined import join
from lengua.publishing.parity import ParityClip
from lengua.scoring import score

RATE = audio.SAMPLE_RATE
Hear = Callable[[np.ndarray], str]


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Hear joined recordings with every model in every program."""

    models: tuple[str, ...] = (BASE_MODEL, "runs/demo")
    """The base first: differences are to it."""
    store: Path = Path("runs/demo/store")
    """Whose clips are joined; it must hold their audio."""
    split: str = "test"
    """Test measures; whoever chooses an option of training takes dev."""
    seconds: tuple[float, ...] = (75.0, 300.0)
    """Lengths of the recordings."""
    recordings: int = 5
    """How many of each length."""
    pauses_s: tuple[float, ...] = (0.4, 0.8, 1.5)
    """Pauses: one recording after another takes the next; pairs and triples are transcribed with each."""
    groups: int = 20
    """Pairs and triples of each pause; 0 leaves them out."""
    programs: tuple[str, ...] = ()
    """Only settings whose name begins so."""
    seed: int = 17
    """Draws the clips."""


def recordings_of(clips: list[ParityClip], seconds: float, options: Options) -> list[ParityClip]:
    """Return recordings of about so many seconds, each of its own clips as far as there are enough."""
    order, made = np.random.default_rng(options.seed).permutation(len(clips)).tolist(), []
    at = 0
    for number in range(options.recordings):
        pause, chosen, total = options.pauses_s[number % len(options.pauses_s)], [], 0.0
        while total < seconds:
            clip = clips[order[at % len(order)]]
            chosen, total, at = [*chosen, clip], total + len(clip.samples) / RATE + pause, at + 1
        made.append(join(chosen, pause))
    return made


def groups_of(clips: list[ParityClip], size: int, pause_s: float, options: Options) -> list[list[ParityClip]]:
    """Return groups of clips that are joined; the same for every pause."""
    drawn = np.random.default_rng(options.seed + size).permutation(len(clips))[: options.groups * size]
    return [[clips[index] for index in drawn[at : at + size]] for at in range(0, len(drawn) - size + 1, size)]


def programs_of(model: str, language: str, scratch: Path) -> dict[str, Callable[[], Hear]]:
    """Return how each setting is opened, by its name."""

    def faster_whisper(batched: bool, **how) -> Hear:
        from faster_whisper import BatchedInferencePipeline, WhisperModel

        opened = WhisperModel(str(ctranslate2_folder(find_model(model)[0])), device="cpu", compute_type="int8")
        hear = (BatchedInferencePipeline(opened) if batched else opened).transcribe
        return lambda samples: " ".join(part.text.strip() for part in hear(samples, language=language, **how)[0])

    def whisper_cpp(**how) -> Hear:
        from pywhispercpp.model import Model

        ggml = scratch / "ggml.bin"
        if not ggml.is_file():
            scratch.mkdir(parents=True, exist_ok=True)
            write_ggml(find_model(model)[0], ggml)
        opened = Model(
            str(ggml),
            redirect_whispercpp_logs_to=None,
            context_params={"use_gpu": False},
            n_threads=2,
            language=language,
            print_progress=False,
            print_realtime=False,
            **how,
        )
        return lambda samples: " ".join(part.text.strip() for part in opened.transcribe(samples))

    def lengua() -> Hear:
        transcriber = Transcriber(model, language)
        return lambda samples: transcriber.transcribe((samples, RATE)).text

    return {
        "lengua": lengua,
        "faster-whisper, its default": lambda: faster_whisper(False),
        "faster-whisper, without_timestamps=True": lambda: faster_whisper(False, without_timestamps=True),
        "faster-whisper batched, its default": lambda: faster_whisper(True),
        "faster-whisper batched, without_timestamps=False": lambda: faster_whisper(True, without_timestamps=False),
        "whisper.cpp, its default": lambda: whisper_cpp(),
        "whisper.cpp, no_timestamps": lambda: whisper_cpp(no_timestamps=True),
    }


def main(options: Options) -> dict:
    store = open_store(options.store)
    clips = [ParityClip(row.id, row.text, audio.load(row.audio)) for row in store.split(options.split)]
    sets = {f"{seconds:g} s": recordings_of(clips, seconds, options) for seconds in options.seconds}
    joined = {
        f"{'pairs' if size == 2 else 'triples'}, {pause:g} s": [
            join(g, pause) for g in groups_of(clips, size, pause, options)
        ]
        for size in (2, 3)
        for pause in options.pauses_s
        if options.groups
    }
    wers: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for model in options.models:
            for name, open_program in programs_of(model, store.language, Path(scratch) / str(len(wers))).items():
                if options.programs and not name.startswith(options.programs):
                    continue
                hear = open_program()
                mine = sets | (joined | {"clips": clips} if name == "lengua" else {})
                for title, recordings in mine.items():
                    texts = [hear(recording.samples) for recording in recordings]
                    counted = score([recording.reference for recording in recordings], texts)
                    wers.setdefault(model, {}).setdefault(name, {})[title] = counted.wer
                    errors = f"S {counted.substitutions} D {counted.deletions} I {counted.insertions}"
                    tell(f"{model} | {name} | {title}: {100 * counted.wer:.1f} % ({errors})")
    first, rows = wers[options.models[0]], []
    for name in first:
        for title in first[name]:
            rows.append([f"{name}, {title}", *(f"{100 * wers[model][name][title]:.1f}" for model in options.models)])
    lines = markdown(["WER (%)", *options.models], rows)
    return report(options, f"Long recordings, {store.language}", lines, wers, shown=("models", "store", "split"))


if __name__ == "__main__":
    run(main, Options)
