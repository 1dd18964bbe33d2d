"""Decoder: log-mel features of clips to text and token statistics, on any engine.

Detects the language where it is not given, decodes each clip in an adaptive window (its length and the margin that the
model was trained with), and decodes once more at 30 s what looped.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from lengua.audio import log_mel
from lengua.audio.windows import decoding_batches, window_of
from lengua.inference.engines import DECODER_POSITIONS, EngineOutput, open_engine
from lengua.models.checkpoints import load_tokenizer, read_note, require_tokenizer
from lengua.models.languages import language_code
from lengua.models.tokens import DecoderPrompts, decode_text, end_token, max_decode_tokens, text_tokens
from lengua.runtime.errors import RequestError
from lengua.runtime.parallel import batched
from lengua.scoring import is_looped

TRAINED_MARGIN = "trained"
"""Margin that the model was trained with; None of it (30 s) for a model that was not."""
AUTO_LANGUAGE = "auto"
"""The language is detected."""


@dataclass(frozen=True)
class DecodingResult:
    """The hypothesis of one clip."""

    text: str
    tokens: int
    looped: bool
    """The text still goes in circles after every try."""
    second_try: bool
    """The adaptive window tripped the loop guard, and the text is from 30 s."""
    at_limit: bool = False
    """The text did not end by itself, but where no more tokens were allowed."""
    language: str = ""
    """Its code, asked for or detected."""
    token_ids: tuple[int, ...] = ()
    """Of the text alone."""
    mean_logprob: float | None = None
    """See `lengua.inference.engines.EngineOutput`."""
    no_speech: float | None = None
    """See `lengua.inference.engines.EngineOutput`."""


class Decoder:
    """A model folder on an engine. Safe to share between threads: one window at a time.

    Args:
        folder: a model folder.
        language: a code, a name, a Common Voice locale; auto: detected in each clip.
        engine: onnxruntime, ctranslate2, torch or auto.
        batch_size: clips decoded together; more than `DECODE_GROUP_CLIPS` only at 30 s. It changes no text.
        task: transcribe, or translate into English.
        beam: width of the search; 1 is greedy.
        prompt: words that are likely to come, shown to the model before each clip.
        compute_type: of CTranslate2 (int8, float32, ...); auto: the faster one, timed once a machine.

    Raises:
        RequestError: a folder that is broken, or a model that cannot do what is asked.
    """

    def __init__(
        self,
        folder: Path,
        language: str = "es",
        engine: str = "auto",
        batch_size: int = 8,
        task: str = "transcribe",
        beam: int = 1,
        prompt: str = "",
        compute_type: str = "",
    ):
        if min(beam, batch_size) < 1:
            raise RequestError("a beam and a batch of 1 or more", f"{beam} and {batch_size}", "ask for 1 or more")
        self.folder, self.batch_size, self.task, self.beam = folder, batch_size, task, beam
        self.note, self.tokenizer = read_note(folder), _tokenizer(folder)
        self.language = AUTO_LANGUAGE if language == AUTO_LANGUAGE else language_code(language)
        self.prompts = DecoderPrompts(folder, self.tokenizer, task, prompt)
        self.prompt = self.prompts.of("en" if self.language == AUTO_LANGUAGE else self.language)
        require_tokenizer(folder, self.prompts.start)
        self.engine = open_engine(engine, folder, compute_type=compute_type)
        self._lock = threading.Lock()
        if self.language == AUTO_LANGUAGE and not (self.engine.multilingual or self.prompts.english_only):
            found = f"one that cannot on {self.engine.name} ({folder})"
            raise RequestError("a model that tells languages apart", found, "name the language, --language es")

    def decode(self, mels: Sequence[np.ndarray], margin_s: float | str | None = TRAINED_MARGIN) -> list[DecodingResult]:
        """Decode log-mels of clips, each at most 30 s.

        Args:
            mels: float32 of shape (frames, n_mels), as `lengua.audio.log_mel.log_mel` gives them.
            margin_s: seconds of silence behind each clip; None pads to 30 s.

        Returns:
            One `DecodingResult` for each clip, in their order.
        """
        margin = self.note.decode_margin_s if margin_s == TRAINED_MARGIN else margin_s
        languages = self.languages_of(mels)
        first = self._decode_all(mels, languages, margin)
        again = [index for index, result in enumerate(first) if result.looped] if margin is not None else []
        chosen = [mels[index] for index in again], [languages[index] for index in again]
        for index, result in zip(again, self._decode_all(*chosen, None), strict=True):
            first[index] = replace(result, second_try=True)
        return first

    def languages_of(self, mels: Sequence[np.ndarray]) -> list[str]:
        """Return the code of each clip's language: the one that was asked for, or the one detected in it at 30 s."""
        if self.language != AUTO_LANGUAGE or self.prompts.english_only:
            return ["en" if self.language == AUTO_LANGUAGE else self.language] * len(mels)
        detected, frames = [], self.engine.window_frames
        for batch in batched(mels, self.batch_size):
            features = np.stack([log_mel.pad_with_silence(mel, frames) for mel in batch])
            with self._lock:
                detected += [max(chances, key=chances.get) for chances in self.engine.languages(features)]
        return detected

    def align(
        self, clip: np.ndarray, decoded: DecodingResult, margin_s: float | None
    ) -> list[tuple[float, float, float]]:
        """Return (start in s, end in s, probability) of each token of a clip's text.

        Raises:
            RequestError: the engine cannot tell.
        """
        window = window_of(len(clip), margin_s, self.engine.window_frames)
        prompt, tokens = self.prompts.bare(decoded.language or self.language), list(decoded.token_ids)
        with self._lock:
            return self.engine.align(log_mel.pad_with_silence(clip, window)[None], prompt, [tokens], [len(clip)])[0]

    def _decode_all(
        self, mels: Sequence[np.ndarray], languages: Sequence[str], margin_s: float | None
    ) -> list[DecodingResult]:
        results: dict[int, DecodingResult] = {}
        for language in sorted(set(languages)):
            spoken = [index for index, name in enumerate(languages) if name == language]
            lengths = [len(mels[index]) for index in spoken]
            for batch, window in decoding_batches(lengths, self.batch_size, margin_s, self.engine.window_frames):
                indices = [spoken[place] for place in batch]
                found = self._decode_batch([mels[index] for index in indices], window, language)
                results.update(zip(indices, found, strict=True))
        return [results[index] for index in range(len(mels))]

    def _decode_batch(self, mels: Sequence[np.ndarray], window: int, language: str) -> list[DecodingResult]:
        prompt, features = self.prompts.of(language), np.stack([log_mel.pad_with_silence(one, window) for one in mels])
        room = min(self.engine.most_tokens, DECODER_POSITIONS - len(prompt))
        most = min(max_decode_tokens(window / log_mel.FRAMES_PER_SECOND), room)
        with self._lock:
            written = self.engine.generate(features, prompt, most, self.beam)
        seconds = [len(one) / log_mel.FRAMES_PER_SECOND for one in mels]
        return [self._to_result(*row, most, language) for row in zip(written, seconds, strict=True)]

    def _to_result(self, written: EngineOutput, seconds: float, most: int, language: str) -> DecodingResult:
        text = decode_text(self.tokenizer, written.tokens)
        ids = tuple(text_tokens(self.tokenizer, written.tokens))
        return DecodingResult(
            text,
            len(ids),
            looped=is_looped(text, len(ids), seconds),
            second_try=False,
            at_limit=len(written.tokens) >= most and end_token(self.tokenizer) not in written.tokens,
            language=language,
            token_ids=ids,
            mean_logprob=written.mean_logprob,
            no_speech=written.no_speech,
        )


def _tokenizer(folder: Path) -> Tokenizer:
    """Open the tokenizer of a model folder; `tokenizers` raises a bare Exception for a file that was cut off."""
    try:
        return load_tokenizer(folder)
    except RequestError:
        raise
    except Exception as error:
        found = f"{error} ({folder})"
        raise RequestError("a whole tokenizer.json", found, "copy it again, or from the base model") from error
