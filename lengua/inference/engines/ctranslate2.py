"""Whisper on CTranslate2: int8 on a processor, float16 on a GPU. Short windows are encoded without padding to 30 s.

The compute type is the default, or what `compute_type` or $LENGUA_COMPUTE_TYPE names: always the same, so that results
can be reproduced. `auto` alone times int8 against float32, once a machine, and remembers the faster; an evaluation
never does. The engine's name says which was taken.

Why a trial: with Intel's MKL int8 is by far the faster, but elsewhere (AMD, ARM) users have seen it lose to float32.
CTranslate2 does not say which library it uses; int16 exists in MKL alone, so where it is offered no trial is needed.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import ctranslate2
import numpy as np

from lengua.audio.log_mel import FRAMES_PER_SECOND
from lengua.inference.engines.base import DECODER_POSITIONS, MIN_NO_SPEECH_FOR_LOGPROB, EngineOutput
from lengua.models import checkpoints
from lengua.models.formats.ctranslate2 import ctranslate2_vocabulary
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import cache_dir, read_json, write_json
from lengua.runtime.system import describe_hardware

INT8_COMPUTE, FLOAT32_COMPUTE = "int8", "float32"
TRIAL_FRAMES, TRIAL_TOKENS = 400, 12
"""Of the window and the text: a short utterance."""
TRIAL_ROUNDS = 3
"""The best of these counts; what disturbs a machine makes it slower only."""
CLEARLY_FASTER_RATIO = 0.9
"""float32 needs four times the memory; it must take less than this part of the time."""


def int8_is_best() -> bool:
    return "int16" in ctranslate2.get_supported_compute_types("cpu")


def best_compute_type(opened: Callable[[str], ctranslate2.models.Whisper], folder: Path, longest: int) -> str:
    """Return int8 or float32, as remembered for this processor or as timed now.

    Args:
        opened: returns a model on the processor in a compute type.
        folder: of the model in CTranslate2 form, for its vocabulary.
        longest: window of the model, in frames.
    """
    kept, key = cache_dir() / "compute_types.json", f"{describe_hardware()}, ctranslate2 {ctranslate2.__version__}"
    answers = read_json(kept) if kept.is_file() else {}
    if key not in answers:
        frames = min(TRIAL_FRAMES, longest)
        end = ctranslate2_vocabulary(folder).index("<|endoftext|>")  # without which a text is as long as it may be
        seconds = {kind: time_window_s(opened(kind), end, frames) for kind in (INT8_COMPUTE, FLOAT32_COMPUTE)}
        answers[key] = {"best": choose_compute_type(seconds), "seconds": seconds}
        with suppress(OSError):  # a cache that cannot be written: timed again next time
            write_json(kept, answers)
    return answers[key]["best"]


def choose_compute_type(seconds: dict[str, float]) -> str:
    """Return float32 only where it is clearly faster."""
    return FLOAT32_COMPUTE if seconds[FLOAT32_COMPUTE] < CLEARLY_FASTER_RATIO * seconds[INT8_COMPUTE] else INT8_COMPUTE


def time_window_s(model: ctranslate2.models.Whisper, end: int, frames: int) -> float:
    """Return the seconds of a window and `TRIAL_TOKENS` tokens, the best of a few rounds after a first one."""
    window = ctranslate2.StorageView.from_array(np.zeros((1, model.n_mels, frames), np.float32))
    taken = []
    for _ in range(1 + TRIAL_ROUNDS):
        start = time.perf_counter()
        model.generate(
            window, [["<|startoftranscript|>"]], beam_size=1, max_length=2 * TRIAL_TOKENS, suppress_tokens=[end]
        )
        taken.append(time.perf_counter() - start)
    return round(min(taken[1:]), 4)


COMPUTE_TYPE_VARIABLE = "LENGUA_COMPUTE_TYPE"
DEFAULT_COMPUTE_TYPES = {"cuda": ("float16", "int8", "float32"), "cpu": ("int8", "float32")}
"""By device, the best first; old GPUs have no fast float16."""
SUPPRESSED_CONFIG_KEYS = ("suppress_ids", "suppress_ids_begin")
MAX_WINDOW_TOKENS = DECODER_POSITIONS // 2
"""As in Whisper's own decoding: half of the positions are kept for words before."""
MIN_WINDOW_FRAMES = 16
"""Of speech that align() is asked about: its median is taken over seven positions of two frames."""
SECONDS_PER_POSITION = 2 / FRAMES_PER_SECOND
"""Of one position of the encoder."""


class UnusableGPU(LenguaError):
    """CTranslate2 sees a GPU but lacks the libraries to use it."""


class CTranslate2Engine:
    """The default engine.

    Features are handed to `generate` and `align`, never to `encode` first: both tell features from encoder states by
    shape[1] == n_mels, so the 80 states of a 1.6 s window would be taken for a mel of 80 bins and encoded again.

    Args:
        folder: a model folder, converted at its first use.
        threads: of the processor; 0 means as many as CTranslate2 likes.
        compute_type: see above.
        device: cuda, cpu, or the first of these that is there.

    Raises:
        RequestError: the folder is broken, or the processor cannot do the compute type.
        UnusableGPU: CUDA libraries are missing.
    """

    _storage = ctranslate2.StorageView

    def __init__(self, folder: Path, threads: int = 0, compute_type: str = "", device: str = ""):
        self._device = device or ("cuda" if gpu_count() else "cpu")
        self._threads, self._folder = threads, ensure_ct2_folder(folder)
        self.window_frames = checkpoints.read_window_frames(folder)
        self.aligns = bool(read_ct2_config(self._folder).get("alignment_heads"))
        asked = compute_type or os.environ.get(COMPUTE_TYPE_VARIABLE, "")
        if asked == "auto" and self._device == "cpu" and not int8_is_best():
            chosen = best_compute_type(self._opened, self._folder, self.window_frames)
        else:
            chosen = self._usual(asked)
        self._model = self._opened(chosen)
        self.name = f"ctranslate2 {chosen}"
        self.n_mels = self._model.n_mels
        self.most_tokens, self.multilingual = MAX_WINDOW_TOKENS, self._model.is_multilingual
        if self._device == "cuda":
            self._require_libraries()

    def generate(self, features: np.ndarray, prompt: list[int], max_tokens: int, beam: int = 1) -> list[EngineOutput]:
        most = min(max_tokens, self.most_tokens, DECODER_POSITIONS - len(prompt))
        results = self._generated(features, prompt, most, beam)
        chances = [result.no_speech_prob for result in results]
        doubted = [row for row, chance in enumerate(chances) if chance > MIN_NO_SPEECH_FOR_LOGPROB]
        sure = dict(zip(doubted, self._mean_logprobs(features[doubted], prompt, most, beam), strict=True))
        return [
            EngineOutput(result.sequences_ids[0], sure.get(row), chance)
            for row, (result, chance) in enumerate(zip(results, chances, strict=True))
        ]

    def languages(self, features: np.ndarray) -> list[dict[str, float]]:
        detected = self._model.detect_language(_storage_view(features))
        return [{name.strip("<|>"): probability for name, probability in found} for found in detected]

    def align(
        self, features: np.ndarray, prompt: list[int], tokens: list[list[int]], frames: list[int]
    ) -> list[list[tuple[float, float, float]]]:
        """Return (start, end, probability) of each token, one window after another.

        Together, CTranslate2 would take one number of frames for all, and the padding of the shorter texts for words.
        """
        rows = zip(features, tokens, frames, strict=True)
        return [self._aligned(row[None], prompt[:-1], text, length) if text else [] for row, text, length in rows]

    def _aligned(
        self, features: np.ndarray, start: list[int], tokens: list[int], frames: int
    ) -> list[tuple[float, float, float]]:
        [found] = self._model.align(_storage_view(features), start, [tokens], max(frames, MIN_WINDOW_FRAMES))
        begins: dict[int, float] = {}
        for token, position in found.alignments:  # every token, the end among them, and the positions it is aligned to
            begins.setdefault(token, position * SECONDS_PER_POSITION)
        times = [begins[token] for token in range(len(tokens) + 1)]
        return list(zip(times[:-1], times[1:], found.text_token_probs, strict=True))

    def _generated(
        self, features: np.ndarray, prompt: list[int], most: int, beam: int, scores: bool = False
    ) -> list[ctranslate2.models.WhisperGenerationResult]:
        before = len(prompt) - 1  # the last token of the prompt is the first step of writing
        return self._model.generate(
            _storage_view(features),
            [prompt] * len(features),
            beam_size=beam,
            length_penalty=float(beam > 1),  # it has no say in a greedy search, but divides the score
            max_length=max(2 * most, most + before),  # of which CTranslate2 writes half, or what `before` leaves
            return_scores=scores,
            return_no_speech_prob=True,
        )

    def _mean_logprobs(self, features: np.ndarray, prompt: list[int], most: int, beam: int) -> list[float | None]:
        """Return how sure the model is of what it writes, by writing it once more.

        CTranslate2 gives a sum over the tokens, and the end where it was reached; of a wide search, over their number.
        """
        if not len(features):
            return []
        results = self._generated(features, prompt, most, beam, scores=True)
        scored = [(result.scores[0], len(result.sequences_ids[0])) for result in results]
        means = [score * (tokens if beam > 1 else 1) / (tokens + (tokens < most)) for score, tokens in scored]
        return [mean if np.isfinite(mean) else None for mean in means]

    def _opened(self, compute_type: str) -> ctranslate2.models.Whisper:
        try:
            return ctranslate2.models.Whisper(
                str(self._folder), device=self._device, compute_type=compute_type, intra_threads=self._threads
            )
        except (RuntimeError, ValueError) as error:
            found = f"{str(error).partition(chr(10))[0]} ({self._folder})"
            raise RequestError("a whole model in CTranslate2 form", found, "copy or convert it again") from error

    def _usual(self, asked: str) -> str:
        able = ctranslate2.get_supported_compute_types(self._device)
        if asked in ("", "auto"):
            return next(usual for usual in DEFAULT_COMPUTE_TYPES[self._device] if usual in able)
        if asked not in able:
            found = f"{asked!r} on {self._device}"
            raise RequestError(f"a compute type of {', '.join(sorted(able))}", found, "name one of these, or none")
        return asked

    def _require_libraries(self) -> None:
        """Encode a little of nothing: cuBLAS is loaded at its first use."""
        try:
            self._model.encode(_storage_view(np.zeros((1, self.n_mels, MIN_WINDOW_FRAMES), np.float32)))
        except RuntimeError as error:
            do = "install what it names, or decode with --engine torch"
            raise UnusableGPU("CUDA libraries for CTranslate2", str(error), do) from error


def gpu_count() -> int:
    return ctranslate2.get_cuda_device_count()


def read_ct2_config(form: Path) -> dict:
    """Return config.json of a CTranslate2 form: tokens never written, languages, alignment heads.

    Raises:
        RequestError: there is none, or it names tokens that the vocabulary lacks.
    """
    if not (path := form / "config.json").is_file():
        raise RequestError("a config.json beside model.bin", f"none in {form}", "copy or convert it again")
    config, size = read_json(path), len(ctranslate2_vocabulary(form))
    strange = [token for name in SUPPRESSED_CONFIG_KEYS for token in config.get(name) or [] if not 0 <= token < size]
    if strange:  # CTranslate2 would write beside its memory
        found = f"{strange[:3]} to suppress in {path}"
        raise RequestError(f"tokens below {size}, the size of the vocabulary", found, "convert the model again")
    return config


def ensure_ct2_folder(folder: Path) -> Path:
    """Return the CTranslate2 form of a model folder whose weights are whole."""
    if (folder / "model.safetensors").is_file():
        checkpoints.require_whole_safetensors(folder / "model.safetensors")
    return checkpoints.ctranslate2_folder(folder)


def _storage_view(features: np.ndarray) -> ctranslate2.StorageView:
    return CTranslate2Engine._storage.from_array(np.ascontiguousarray(features, np.float32))
