"""Programs that open an export, each as its users call it: (folder, clips, language) -> what it transcribed.

The same decoding everywhere, so that what differs is the weights and the tokens: greedily, padded to 30 s, no
timestamps, no second try at a higher temperature. lengua's own Transcriber comes in its adaptive window, too. With
`joined`, recordings of any length by the program's own defaults.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lengua.audio import log_mel
from lengua.models.checkpoints import forced_language, read_note, read_window_frames
from lengua.models.tokens import max_decode_tokens
from lengua.publishing import programs
from lengua.publishing.export import CT2_FOLDER, CT2_INT8_FOLDER, GGML_FILE
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import read_json

ClipSamples = Sequence[np.ndarray]
"""float32 at 16 kHz, each at most 30 s."""
FASTER_WHISPER_OPTIONS = {
    "beam_size": 1,
    "temperature": 0.0,
    "without_timestamps": True,
    "max_new_tokens": programs.PARITY_MAX_TOKENS,
    "condition_on_previous_text": False,
    **dict.fromkeys(("compression_ratio_threshold", "log_prob_threshold", "no_speech_threshold")),
}
"""The thresholds that make it try again or keep silent are off."""


class ProgramOutput(NamedTuple):
    """The transcripts of a program, one of each clip."""

    texts: list[str]
    seconds: float
    """For all of them, the model being open."""
    program: str
    """Name and version, and how it computed."""


class ParityBound(NamedTuple):
    """How far from the reference program's words another program may be, as fractions; chance comes on top."""

    wer: float
    words: float


FLOAT_BOUND, INT8_BOUND = ParityBound(wer=0.02, words=0.05), ParityBound(wer=0.03, words=0.10)
"""Twenty clips of ten words are 200, so a word is half a point. benchmarks/RESULTS.md has what healthy exports differ
by, and by how much the same weights in an adaptive window do."""


@dataclass(frozen=True)
class Runtime:
    """A program and the format that it opens."""

    name: str
    format: str
    hear: Callable[..., ProgramOutput]
    """(folder, clips, language, joined=False)."""
    bound: ParityBound | None
    """None: its words are not those of the others, and nobody says they should be."""
    pads: bool = True
    """Whether it fills every clip to 30 s itself, whatever the model's window."""
    adaptive: bool = False
    """Whether it is for models alone that know short windows."""


def _by_transformers(folder: Path, clips: ClipSamples, language: str, joined: bool = False) -> ProgramOutput:
    """transformers of this process; it is asked for a language only where the checkpoint does not force one."""
    forced = forced_language(read_json(folder / "generation_config.json"))
    # as many tokens as our own decoding allows for a full window
    most = max_decode_tokens(read_window_frames(folder) / log_mel.FRAMES_PER_SECOND)
    most = None if joined else min(programs.PARITY_MAX_TOKENS, most)
    hear = programs.open_transformers(str(folder), None if forced else language, most)
    output = programs.transcribe_clips(hear, clips)
    return ProgramOutput(**output, program=f"transformers {version('transformers')}, float32")


def _by_faster_whisper(
    folder: Path, clips: ClipSamples, language: str, inside: str, compute_type: str, joined: bool = False
) -> ProgramOutput:
    """faster-whisper, which is given silence up to 30 s.

    By itself it pads with zeros of the log-mel, which are noise, and hard clips come out in other words by that alone.
    What is compared here is weights and tokens.
    """
    from faster_whisper import WhisperModel

    model = WhisperModel(str(folder / inside), device="cpu", compute_type=compute_type)

    def hear(samples: np.ndarray) -> str:
        padded = np.pad(samples, (0, max(0, log_mel.WINDOW_SAMPLES - len(samples))))
        segments, _ = model.transcribe(padded, language=language, **({} if joined else FASTER_WHISPER_OPTIONS))
        return " ".join(segment.text.strip() for segment in segments)

    output = programs.transcribe_clips(hear, clips)
    return ProgramOutput(**output, program=f"faster-whisper {version('faster-whisper')}, {compute_type}")


def _by_whisper_cpp(folder: Path, clips: ClipSamples, language: str, joined: bool = False) -> ProgramOutput:
    """whisper.cpp, which may take its process down with it."""
    most = None if joined else programs.PARITY_MAX_TOKENS
    output = run_in_subprocess("whisper.cpp", folder / GGML_FILE, clips, language, most=most)
    program = f"whisper.cpp (pywhispercpp {output['version']}), float16"
    return ProgramOutput(output["texts"], output["seconds"], program)


def _by_lengua(folder: Path, clips: ClipSamples, language: str, padded: bool, joined: bool = False) -> ProgramOutput:
    """Decode by our own Transcriber, on the engine that it chooses here; a clip without looking for pauses."""
    from lengua.inference import TRAINED_MARGIN, Transcriber

    whole = (folder / "config.json").is_file()
    transcriber = Transcriber(str(folder if whole else folder / CT2_FOLDER), language)
    margin, window = (None, "padded") if padded else (TRAINED_MARGIN, "adaptive")
    window = transcriber.note.window if joined else window

    def hear(samples: np.ndarray) -> str:
        if joined:
            return transcriber.transcribe((samples, log_mel.SAMPLE_RATE)).text
        return transcriber.decode([log_mel.log_mel(samples, transcriber.n_mels)], margin)[0].text

    output = programs.transcribe_clips(hear, clips)
    return ProgramOutput(**output, program=f"lengua, {transcriber.engine.name}, {window}")


_float32 = partial(_by_faster_whisper, inside=CT2_FOLDER, compute_type="float32")
_int8 = partial(_by_faster_whisper, inside=CT2_INT8_FOLDER, compute_type="int8")
REFERENCE_RUNTIME = Runtime("transformers", "hf", _by_transformers, None, pads=False)
"""What the others are held against."""
RUNTIMES = (
    Runtime("faster-whisper", "ct2", _float32, FLOAT_BOUND),
    Runtime("lengua, padded", "ct2", partial(_by_lengua, padded=True), INT8_BOUND, pads=False),
    Runtime("lengua, adaptive", "ct2", partial(_by_lengua, padded=False), None, pads=False, adaptive=True),
    Runtime("faster-whisper", "ct2-int8", _int8, INT8_BOUND),
    Runtime("whisper.cpp", "ggml", _by_whisper_cpp, FLOAT_BOUND),
)


def can_run(runtime: Runtime, folder: Path) -> bool:
    """Return whether a program can run a model: its window, and whether it knows short ones."""
    if runtime.adaptive and read_note(folder).decode_margin_s is None:
        return False
    return not runtime.pads or read_window_frames(folder) == log_mel.WINDOW_FRAMES


def require_programs_installed(formats: Sequence[str]) -> None:
    """Refuse, before anything is built, formats whose program is not here to be asked.

    Raises:
        RequestError: names the extra that has it.
    """
    if "ggml" in formats and find_spec("pywhispercpp") is None:
        do = "run pip install 'lengua[publish]', or leave the comparison out with --parity-clips 0"
        raise RequestError("whisper.cpp to hear what ggml says", "no pywhispercpp", do)


def run_in_subprocess(
    program: str,
    model: Path,
    clips: ClipSamples,
    language: str,
    packages: Path | None = None,
    most: int | None = programs.PARITY_MAX_TOKENS,
) -> dict:
    """Run one of `programs.PARITY_PROGRAMS` in a process of its own; return its texts, seconds and version.

    Args:
        packages: a folder of packages that go before those of this environment.
        most: tokens of a clip; None for recordings of any length.

    Raises:
        LenguaError: it failed or crashed; the message has its last line.
    """
    with tempfile.TemporaryDirectory() as scratch:
        sounds, out = Path(scratch) / "clips.npz", Path(scratch) / "texts.json"
        np.savez(sounds, *clips)
        command = [sys.executable, "-P", programs.__file__, program, str(model), str(sounds), language, str(out)]
        command.append("" if most is None else str(most))
        environment = os.environ | ({"PYTHONPATH": str(packages)} if packages else {})
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
        if done.returncode == 0 and out.is_file():
            return json.loads(out.read_text(encoding="utf-8"))
    how = f"crashed (signal {-done.returncode})" if done.returncode < 0 else f"failed (exit {done.returncode})"
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    do = f"do not publish {model.name} for it; report the message with the name of the base model"
    raise LenguaError(f"{program} to open {model.name}", f"that it {how}: {last}", do)
