"""The programs that benchmarks/inference.py lays side by side, each called as its own users would call it best.

    python benchmarks/inference_peers.py JOB        one program from a cold start; `cold_start` writes JOB and reads on

All get the same weights and the same samples (float32, 16 kHz, in memory), decode greedily and without timestamps,
know the language, and write each clip once: no second try at a higher temperature. Each has a process of its own, for
a crash of one is not the end, and is imported there when it is opened.
"""

import json
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

OURS = "Transcriber"
BATCHED = "faster-whisper int8, batched pipeline"
SHORT = "whisper.cpp float16, audio_ctx + 128"
BORROWED = "whisper.cpp float16, audio_ctx by our margin"
"""For a checkpoint that lengua trained it may be shorter: nobody who does not know lengua would set it so."""
POSITIONS_PER_SECOND = 50
WHISPER_CPP_MARGIN_S = 128 / POSITIONS_PER_SECOND
"""What users of whisper.cpp add to `audio_ctx` for a model that was never trained to do with less (its issue 1855)."""


@dataclass(frozen=True)
class Weights:
    """One checkpoint in the forms that the programs open; a form is None where it could not be made."""

    name: str
    """As our own user names it: a run, a folder, a Hub id."""
    folder: Path
    """Hugging Face."""
    ctranslate2: Path | None
    openai: Path | None
    ggml: Path | None
    language: str
    margin_s: float | None
    """Seconds behind the speech that the model was trained with; None where it knows 30 s only."""
    threads: int = 2
    refused: dict[str, str] = field(default_factory=dict)
    """Why a form could not be made, by its field."""


class Program(Protocol):
    """An open program."""

    def __call__(self, samples: np.ndarray) -> str:
        """Return the words of one clip."""

    def long(self, samples: np.ndarray) -> str:
        """Return the words of a long recording."""


class OpenAIWhisper:
    """openai-whisper, from a checkpoint file in its own form; a clip by `decode`, a long recording by `transcribe`.

    `transcribe`, and faster-whisper after it, cut the log-mel to the speech and fill it up with 0, which is noise;
    `decode` gets a clip whose sound was filled up with silence. So the words of faster-whisper differ a little.
    """

    def __init__(self, weights: Weights):
        import torch
        import whisper

        torch.set_num_threads(weights.threads)
        self.whisper, self.model = whisper, whisper.load_model(str(weights.openai), device="cpu")
        self.options = {"language": weights.language, "fp16": False, "without_timestamps": True, "temperature": 0.0}

    def __call__(self, samples: np.ndarray) -> str:
        padded = self.whisper.pad_or_trim(samples)
        features = self.whisper.log_mel_spectrogram(padded, n_mels=self.model.dims.n_mels)
        return self.whisper.decode(self.model, features, self.whisper.DecodingOptions(**self.options)).text

    def long(self, samples: np.ndarray) -> str:
        return self.model.transcribe(samples, language=self.options["language"], fp16=False)["text"]


class Transformers:
    """transformers' pipeline in float32; a long recording window after window, which asks for timestamps."""

    def __init__(self, weights: Weights):
        import torch
        from transformers import pipeline

        torch.set_num_threads(weights.threads)
        model = str(weights.folder)
        self.recognise = pipeline("automatic-speech-recognition", model=model, dtype=torch.float32, device="cpu")
        self.options = {"language": weights.language, "task": "transcribe", "num_beams": 1}

    def __call__(self, samples: np.ndarray, **more) -> str:
        raw = {"raw": samples, "sampling_rate": 16_000}
        return self.recognise(raw, generate_kwargs=dict(self.options), **more)["text"]

    def long(self, samples: np.ndarray) -> str:
        return self(samples, return_timestamps=True)


class FasterWhisper:
    """faster-whisper: window after window."""

    def __init__(self, weights: Weights, compute_type: str):
        from faster_whisper import WhisperModel

        self.model = WhisperModel(
            str(weights.ctranslate2), device="cpu", compute_type=compute_type, cpu_threads=weights.threads
        )
        self.language = weights.language
        self.once = {"temperature": 0.0, "condition_on_previous_text": False, "without_timestamps": True}
        self.once |= {"beam_size": 1}

    def __call__(self, samples: np.ndarray) -> str:
        return self.long(samples, **self.once)

    def long(self, samples: np.ndarray, **how) -> str:
        segments, _ = self.model.transcribe(samples, language=self.language, **how)
        return " ".join(segment.text.strip() for segment in segments)


class BatchedFasterWhisper(FasterWhisper):
    """faster-whisper's batched pipeline: a clip as it is, a long recording cut by its voice activity detector."""

    def __init__(self, weights: Weights):
        super().__init__(weights, "int8")
        from faster_whisper import BatchedInferencePipeline

        self.model = BatchedInferencePipeline(self.model)
        self.once |= {"batch_size": 1, "vad_filter": False}


WHISPER_CPP_CLIP = {
    "temperature_inc": 0.0,
    "no_context": True,
    "no_timestamps": True,
    "single_segment": True,
    "greedy": {"best_of": 1},
}
WHISPER_CPP_LONG = {
    "temperature_inc": 0.2,
    "no_timestamps": False,
    "single_segment": False,
    "greedy": {"best_of": 5},
    "audio_ctx": 0,
}
"""Its defaults, named, for what a clip is given stays set."""


class WhisperCpp:
    """whisper.cpp through pywhispercpp, float16: in its window of 30 s, or in a shorter one (`audio_ctx`).

    With flash attention, which is its default, a short window would hear what was in memory before (its issue 3941).
    """

    def __init__(self, weights: Weights, short: bool = False, borrowed: bool = False):
        from pywhispercpp.model import Model

        self.margin_s = weights.margin_s if borrowed else WHISPER_CPP_MARGIN_S if short else None
        quiet = {"print_progress": False, "print_realtime": False, "print_timestamps": False}
        self.model = Model(
            str(weights.ggml),
            redirect_whispercpp_logs_to=None,
            context_params={"use_gpu": False} | ({} if self.margin_s is None else {"flash_attn": False}),
            n_threads=weights.threads,
            language=weights.language,
            suppress_nst=True,  # the marks that the other programs suppress by themselves
            **quiet,
        )

    def __call__(self, samples: np.ndarray) -> str:
        context = 0 if self.margin_s is None else audio_context(len(samples) / 16_000, self.margin_s)
        return self._words(samples, audio_ctx=context, **WHISPER_CPP_CLIP)

    def long(self, samples: np.ndarray) -> str:
        return self._words(samples, **WHISPER_CPP_LONG)

    def _words(self, samples: np.ndarray, **how) -> str:
        return " ".join(segment.text.strip() for segment in self.model.transcribe(samples, **how))


class Lengua:
    """Ours, as a user calls it, with all that it does besides."""

    def __init__(self, weights: Weights):
        from lengua.inference import Transcriber

        self.transcriber = Transcriber(weights.name, weights.language)

    def __call__(self, samples: np.ndarray) -> str:
        return self.transcriber.transcribe((samples, 16_000)).text

    long = __call__


@dataclass(frozen=True)
class Peer:
    """How a program is opened, and what it needs for that."""

    open: Callable[[Weights], Program]
    module: str
    package: str
    form: str
    """The field of `Weights` that it opens."""
    trained: bool = False
    """Whether it is for weights that know short windows only."""

    def missing(self, weights: Weights) -> str | None:
        """Return why it cannot be opened here, or None."""
        if find_spec(self.module) is None:
            return f"not installed: pip install {self.package}"
        if self.trained and weights.margin_s is None:
            return "the weights know 30 s only"
        return None if getattr(weights, self.form) else f"no weights for it: {weights.refused.get(self.form)}"


CPP, FASTER = ("pywhispercpp", "pywhispercpp", "ggml"), ("faster_whisper", "faster-whisper", "ctranslate2")
PEERS = {
    "openai-whisper float32": Peer(OpenAIWhisper, "whisper", "openai-whisper", "openai"),
    "transformers float32": Peer(Transformers, "transformers", "transformers", "folder"),
    "faster-whisper float32": Peer(partial(FasterWhisper, compute_type="float32"), *FASTER),
    "faster-whisper int8": Peer(partial(FasterWhisper, compute_type="int8"), *FASTER),
    BATCHED: Peer(BatchedFasterWhisper, *FASTER),
    "whisper.cpp float16": Peer(WhisperCpp, *CPP),
    SHORT: Peer(partial(WhisperCpp, short=True), *CPP),
    BORROWED: Peer(partial(WhisperCpp, borrowed=True), *CPP, trained=True),
    OURS: Peer(Lengua, "lengua", "lengua", "folder"),
}
LONG = {
    "faster-whisper int8": ("faster-whisper int8", {}),
    "faster-whisper int8, vad_filter": ("faster-whisper int8", {"vad_filter": True}),
    f"{BATCHED} of 8": (BATCHED, {}),
    f"{BATCHED} of 8, without_timestamps=False": (BATCHED, {"without_timestamps": False}),
    "whisper.cpp float16": ("whisper.cpp float16", {}),
    OURS: (OURS, {}),
}
"""How a long recording is given to which program: by its own defaults, and as its users are told to."""
SLOW = {
    "faster-whisper float32": ("faster-whisper float32", {}),
    "openai-whisper float32": ("openai-whisper float32", {}),
    "transformers float32": ("transformers float32", {}),
}
"""Those that take their time with it: --all-long."""


def audio_context(seconds: float, margin_s: float) -> int:
    """Return whisper.cpp's `audio_ctx` for so much speech: positions of the encoder, 50 a second, at most 1,500."""
    return min(1500, round(POSITIONS_PER_SECOND * (seconds + margin_s)))


MARK = "inference_peers: "
"""Before what a cold process tells; programs print what they like."""


def run_cold(job: Path) -> None:
    """Open a program, tell when it has written its first clip, transcribe the others, tell the memory."""
    name, weights, clips = pickle.loads(job.read_bytes())
    program = PEERS[name].open(weights)
    print(f"\n{MARK}{json.dumps(program(clips[0]))}", flush=True)
    for clip in clips[1:]:
        program(clip)
    print(f"\n{MARK}{peak_mb()}", flush=True)


def peak_mb() -> float:
    """Return the most memory that this process ever took.

    Of the system's own account, where it has one: `ru_maxrss` begins with what the process that started this one took.
    """
    from harness import own_memory_mb  # a cold start is without it

    if most := own_memory_mb("VmHWM"):
        return most
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    run_cold(Path(sys.argv[1]))
