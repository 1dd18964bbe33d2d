"""Whisper on ONNX Runtime with 8-bit weights: the fastest on a processor, for one clip most of all.

A token is written by reading every weight once, and ONNX Runtime has kernels for that one row; CTranslate2 multiplies
as if there were many (`benchmarks/inference.py` lays them side by side). What a greedy search does not need is left to
CTranslate2, which is opened the first time that somebody asks: wide searches, timestamps, times of words.
"""

import os
import shutil
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np

from lengua.inference.engines.base import DECODER_POSITIONS, EngineOutput
from lengua.inference.engines.ctranslate2 import (
    MAX_WINDOW_TOKENS,
    SUPPRESSED_CONFIG_KEYS,
    CTranslate2Engine,
    ensure_ct2_folder,
    read_ct2_config,
)
from lengua.models import checkpoints
from lengua.models.formats.ctranslate2 import ctranslate2_vocabulary, read_variables
from lengua.models.formats.onnx import build_decoder, build_encoder, is_convertible, shape_of
from lengua.models.pretrained import SOURCE_DIGEST_FILE
from lengua.runtime.errors import RequestError
from lengua.runtime.files import cache_dir, file_sha256, replacing, write_bytes

ONNX_FORM_VERSION = "5"
"""Of the graphs. Another number here, and kept ones are made anew."""
MAX_CACHED_GRAPHS = 8
"""Models in the cache; the one that was unused for longest goes."""
MASKED_LOGIT = np.float32(-1e30)
"""Logit of a token that may not be written."""
MIN_MULTILINGUAL_VOCAB_SIZE = 51_865
"""Tokens of the smallest Whisper that knows languages, as CTranslate2 tells them apart."""


class NotConvertible(RequestError):
    """Weights that have no graph: of 8 bits already, or of an odd width."""


class OnnxEngine:
    """The default engine on a processor.

    Args:
        folder: a model folder; its graphs are made at its first use and kept in the cache.
        threads: of the processor; 0 means as many as this process may use.

    Raises:
        NotConvertible: there is no graph for its weights.
        RequestError: the folder is broken.
    """

    name = "onnxruntime int8"

    def __init__(self, folder: Path, threads: int = 0):
        self._folder, self._threads = folder, threads
        self.window_frames = checkpoints.read_window_frames(folder)
        form = ensure_ct2_folder(folder)
        config, self._vocabulary = read_ct2_config(form), ctranslate2_vocabulary(form)
        graphs = ensure_graphs(form)
        self._encoder, self._decoder = (self._session(graphs / name) for name in ("encoder.onnx", "decoder.onnx"))
        self._given = [output.name for output in self._decoder.get_outputs() if output.name != "logits"]
        self._layers, shapes = (len(self._given) - 2) // 2, {one.name: one.shape for one in self._decoder.get_inputs()}
        _, heads, _, of_head = shapes["past_key_0"]
        self._nothing = np.zeros((1, heads, 0, of_head), np.float32)
        self.n_mels = self._encoder.get_inputs()[0].shape[1]
        self.most_tokens, self.multilingual = MAX_WINDOW_TOKENS, len(self._vocabulary) >= MIN_MULTILINGUAL_VOCAB_SIZE
        self.aligns, self._languages = bool(config.get("alignment_heads")), config.get("lang_ids") or []
        self._end, self._start = self._token("endoftext"), self._token("startoftranscript")
        self._plain = self._token("notimestamps")
        self._silence = self._token("nospeech") or self._token("nocaptions")
        self._mask, at_first = (self._without(config.get(name) or []) for name in SUPPRESSED_CONFIG_KEYS)
        self._first_mask = np.minimum(self._mask, at_first)

    def generate(self, features: np.ndarray, prompt: list[int], max_tokens: int, beam: int = 1) -> list[EngineOutput]:
        if beam > 1 or prompt[-1] != self._plain:
            return self._ctranslate2.generate(features, prompt, max_tokens, beam)
        most = min(max_tokens, self.most_tokens, DECODER_POSITIONS - len(prompt))
        return _Generation(self, features, prompt).to_the_end(most)

    def languages(self, features: np.ndarray) -> list[dict[str, float]]:
        writing = _Generation(self, features, [self._start])
        logits = writing.step([0], self._first_mask, "logits")[:, 0, self._languages]
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        codes = [self._vocabulary[token].strip("<|>") for token in self._languages]
        return [dict(zip(codes, (row / row.sum()).tolist(), strict=True)) for row in chances]

    def align(
        self, features: np.ndarray, prompt: list[int], tokens: list[list[int]], frames: list[int]
    ) -> list[list[tuple[float, float, float]]]:
        """Return (start, end, probability) of each token: by CTranslate2, see there."""
        return self._ctranslate2.align(features, prompt, tokens, frames)

    @cached_property
    def _ctranslate2(self) -> CTranslate2Engine:
        return CTranslate2Engine(self._folder, self._threads, device="cpu")

    def _session(self, path: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        may_use = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        options.intra_op_num_threads = self._threads or may_use
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")  # to wake up takes too long
        options.add_session_config_entry("session.force_spinning_stop", "1")  # behind it the cores are for others
        options.enable_cpu_mem_arena = False  # every window has its own length; an arena would keep room for each
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def _token(self, name: str) -> int | None:
        token = f"<|{name}|>"
        return self._vocabulary.index(token) if token in self._vocabulary else None

    def _without(self, tokens: list[int]) -> np.ndarray:
        mask = np.zeros(len(self._vocabulary), np.float32)
        mask[tokens] = MASKED_LOGIT
        return mask


class _Generation:
    """Windows that are being written out together, token after token; those that are done drop out."""

    def __init__(self, engine: OnnxEngine, features: np.ndarray, prompt: list[int]):
        self.engine, self.prompt, self.count = engine, prompt, len(features)
        self.encoded = self._encoded(features)
        self.past = {name: engine._nothing.repeat(self.count, 0) for name in self._names("past_key", "past_value")}
        self.tokens, self.position = np.array([prompt] * self.count, np.int64), 0

    def to_the_end(self, most: int) -> list[EngineOutput]:
        """Write until every window has ended, or has so many tokens."""
        engine, count = self.engine, self.count
        tokens, sums = [[] for _ in range(count)], np.zeros(count)
        chances, rows = self._begin(), list(range(count))
        for step in range(most):
            best, logprobs = self._best, self._logprobs
            for place, row in enumerate(rows):
                sums[row] += logprobs[place]
                tokens[row].append(int(best[place]))
            on = [place for place, row in enumerate(rows) if tokens[row][-1] != engine._end]
            if not on or step == most - 1:
                break
            if len(on) < len(rows):  # those that are done drop out
                rows = [rows[place] for place in on]
                self.past = {name: values[on] for name, values in self.past.items()}
                self.encoded = {name: values[on] for name, values in self.encoded.items()}
            self.tokens = best[on, None]
            self.step([0], engine._mask)
        means = sums / [max(1, len(row)) for row in tokens]
        texts = [[token for token in row if token != engine._end] for row in tokens]
        return [EngineOutput(*row) for row in zip(texts, means.tolist(), chances, strict=True)]

    def step(self, at: list[int], mask: np.ndarray, *more: str):
        """Read `tokens` and go on; return one more output of the graph, if it is named."""
        engine, (rows, count) = self.engine, self.tokens.shape
        positions = np.arange(self.position, self.position + count)
        given = {"tokens": self.tokens, "positions": positions, "at": np.array(at, np.int64), "mask": mask}
        # MatMulNBits multiplies two rows at a time, and an odd one by another kernel, which rounds in another way: its
        # result would depend on the batch. So the last row comes twice where rows and tokens make an odd number.
        is_odd = any(rows * length % 2 for length in (count, len(at)))
        given["pairs"] = np.array([*range(rows), *[rows - 1] * is_odd], np.int64)
        names = [*engine._given, *more]
        found = dict(zip(names, engine._decoder.run(names, given | self.past | self.encoded), strict=True))
        self.past = {f"past_{name}": found[name] for name in self._names("key", "value")}
        self.position += count
        self._best, self._logprobs = found["best"][:, -1], found["logprob"][:, -1]
        return found[more[0]] if more else None

    def _begin(self) -> list[float | None]:
        """Read the prompt; return the probability of <|nospeech|> behind <|startoftranscript|>, of each window."""
        engine, last = self.engine, len(self.prompt) - 1
        if engine._silence is None or engine._start not in self.prompt:
            self.step([last], engine._first_mask)
            return [None] * self.count
        logits = self.step([self.prompt.index(engine._start), last], engine._first_mask, "logits")[:, 0]
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (chances[:, engine._silence] / chances.sum(axis=1)).tolist()

    def _encoded(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """Return keys and values of cross-attention; window after window, so that none hangs on its neighbours."""
        engine = self.engine
        rows = np.ascontiguousarray(features, np.float32)
        encoded = [engine._encoder.run(None, {"features": row[None]}) for row in rows]
        names = [output.name for output in engine._encoder.get_outputs()]
        return dict(zip(names, map(np.concatenate, zip(*encoded, strict=True)), strict=True))

    def _names(self, *kinds: str) -> list[str]:
        return [f"{kind}_{layer}" for kind in kinds for layer in range(self.engine._layers)]


def ensure_graphs(form: Path) -> Path:
    """Return the folder of both graphs of a model in CTranslate2 form, made once and kept in the cache.

    Raises:
        NotConvertible: there is no graph for it.
    """
    stamp = form / SOURCE_DIGEST_FILE
    digest = stamp.read_text().strip() if stamp.is_file() else file_sha256(form / "model.bin")
    kept = cache_dir() / "onnx" / f"{digest[:16]}-{(form / 'model.bin').stat().st_size}-{ONNX_FORM_VERSION}"
    if not (kept / "decoder.onnx").is_file():
        variables = read_variables(form / "model.bin")
        if not is_convertible(variables):
            found = f"others in {form}, {shape_of(variables).width} wide"
            do = "decode with --engine ctranslate2"
            raise NotConvertible("float weights, their width a multiple of 128", found, do)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with replacing(kept) as fresh:
            write_bytes(fresh / "encoder.onnx", build_encoder(variables))
            write_bytes(fresh / "decoder.onnx", build_decoder(variables))
        by_age = sorted(filter(Path.is_dir, kept.parent.iterdir()), key=lambda path: path.stat().st_mtime)
        for path in by_age[:-MAX_CACHED_GRAPHS]:
            shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):  # a cache that only others may write
        os.utime(kept)
    return kept
