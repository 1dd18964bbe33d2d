"""Whisper on CTranslate2: int8 on a processor, float16 on a GPU. Short windows go in as they are.

The compute type is int8 or float16 unless `compute_type` or $LENGUA_COMPUTE_TYPE names another one of CTranslate2's:
always the same, so that figures can be had again. `auto` times int8 against float32 once a machine where the best is
not known (`lengua.engines.trial`); the engine's name says what came of it.
"""

import os
from pathlib import Path

import ctranslate2
import numpy as np

from lengua import checkpoints
from lengua.engines import trial
from lengua.engines.base import DOUBT, POSITIONS, Written
from lengua.engines.wholeness import require_whole
from lengua.errors import LenguaError, RequestError
from lengua.files import read_json
from lengua.layouts import ctranslate2_vocabulary
from lengua.mel import FRAMES_PER_SECOND

COMPUTE_TYPE = "LENGUA_COMPUTE_TYPE"
USUAL = {"cuda": ("float16", "int8", "float32"), "cpu": ("int8", "float32")}
"""By device, the best first; old GPUs have no fast float16."""
SUPPRESSED = ("suppress_ids", "suppress_ids_begin")
MOST_TOKENS = POSITIONS // 2
"""As in Whisper's own decoding: half of the positions are kept for words before."""
FEWEST_FRAMES = 16
"""Of speech that align() is asked about: its median is taken over seven positions of two frames."""
SECONDS = 2 / FRAMES_PER_SECOND
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
        self._threads, self._folder = threads, converted(folder)
        self.window_frames = checkpoints.window_frames(folder)
        self.aligns = bool(told_of(self._folder).get("alignment_heads"))
        asked = compute_type or os.environ.get(COMPUTE_TYPE, "")
        timed = asked == "auto" and self._device == "cpu" and not trial.int8_is_best()
        chosen = self._timed() if timed else self._usual(asked)
        self._model = self._opened(chosen)
        self.name = f"ctranslate2 {chosen}"
        self.n_mels = self._model.n_mels
        self.most_tokens, self.multilingual = MOST_TOKENS, self._model.is_multilingual
        if self._device == "cuda":
            self._require_libraries()

    def generate(self, features: np.ndarray, prompt: list[int], max_tokens: int, beam: int = 1) -> list[Written]:
        """Return what follows the prompt."""
        most = min(max_tokens, self.most_tokens, POSITIONS - len(prompt))
        results = self._generated(features, prompt, most, beam)
        chances = [result.no_speech_prob for result in results]
        doubted = [row for row, chance in enumerate(chances) if chance > DOUBT]
        sure = dict(zip(doubted, self._mean_logprobs(features[doubted], prompt, most, beam), strict=True))
        return [
            Written(result.sequences_ids[0], sure.get(row), chance)
            for row, (result, chance) in enumerate(zip(results, chances, strict=True))
        ]

    def languages(self, features: np.ndarray) -> list[dict[str, float]]:
        """Return the probability of each language."""
        heard = self._model.detect_language(_view(features))
        return [{name.strip("<|>"): probability for name, probability in found} for found in heard]

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
        [found] = self._model.align(_view(features), start, [tokens], max(frames, FEWEST_FRAMES))
        begins: dict[int, float] = {}
        for token, position in found.alignments:  # every token, the end among them, and the positions it is heard at
            begins.setdefault(token, position * SECONDS)
        times = [begins[token] for token in range(len(tokens) + 1)]
        return list(zip(times[:-1], times[1:], found.text_token_probs, strict=True))

    def _generated(
        self, features: np.ndarray, prompt: list[int], most: int, beam: int, scores: bool = False
    ) -> list[ctranslate2.models.WhisperGenerationResult]:
        before = len(prompt) - 1  # the last token of the prompt is the first step of writing
        return self._model.generate(
            _view(features),
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

    def _timed(self) -> str:
        return trial.best_compute_type(self._opened, self._folder, self.window_frames)

    def _usual(self, asked: str) -> str:
        able = ctranslate2.get_supported_compute_types(self._device)
        if asked in ("", "auto"):
            return next(usual for usual in USUAL[self._device] if usual in able)
        if asked not in able:
            found = f"{asked!r} on {self._device}"
            raise RequestError(f"a compute type of {', '.join(sorted(able))}", found, "name one of these, or none")
        return asked

    def _require_libraries(self) -> None:
        """Encode a little of nothing: cuBLAS is loaded at its first use."""
        try:
            self._model.encode(_view(np.zeros((1, self.n_mels, FEWEST_FRAMES), np.float32)))
        except RuntimeError as error:
            do = "install what it names, or decode with --engine torch"
            raise UnusableGPU("CUDA libraries for CTranslate2", str(error), do) from error


def gpu_count() -> int:
    """Return how many GPUs CTranslate2 sees."""
    return ctranslate2.get_cuda_device_count()


def told_of(form: Path) -> dict:
    """Return config.json of a CTranslate2 form: tokens never written, languages, alignment heads.

    Raises:
        RequestError: there is none, or it names tokens that the vocabulary lacks.
    """
    if not (path := form / "config.json").is_file():
        raise RequestError("a config.json beside model.bin", f"none in {form}", "copy or convert it again")
    told, size = read_json(path), len(ctranslate2_vocabulary(form))
    strange = [token for name in SUPPRESSED for token in told.get(name) or [] if not 0 <= token < size]
    if strange:  # CTranslate2 would write beside its memory
        found = f"{strange[:3]} to suppress in {path}"
        raise RequestError(f"tokens below {size}, the size of the vocabulary", found, "convert the model again")
    return told


def converted(folder: Path) -> Path:
    """Return the CTranslate2 form of a model folder whose weights are whole."""
    if (folder / "model.safetensors").is_file():
        require_whole(folder / "model.safetensors")
    return checkpoints.ctranslate2_folder(folder)


def _view(features: np.ndarray) -> ctranslate2.StorageView:
    return CTranslate2Engine._storage.from_array(np.ascontiguousarray(features, np.float32))
