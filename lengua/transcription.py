"""Transcriber: the one decode path of evaluation, app and command line.

    transcriber = Transcriber("runs/demo")
    transcriber.transcribe("clip.mp3").text

Around `decode` stand the energy gate (silence never reaches the model), the adaptive window with the margin of the
model's own training, the loop guard with a second try at 30 s, and voice activity detection for long audio.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lengua import audio, mel
from lengua.checkpoints import default_model, find_model, load_tokenizer, read_note, require_tokenizer
from lengua.engines import open_engine
from lengua.errors import LenguaError, RequestError
from lengua.files import write_bytes
from lengua.labels import end_token, most_tokens, prompt_tokens, text_tokens, words_of
from lengua.languages import language_code
from lengua.options import TranscribeOptions
from lengua.scoring import is_looped
from lengua.windows import like_lengths

MAX_SEGMENT_SECONDS = 28
MIN_SAMPLES = audio.SAMPLE_RATE // 10  # no word is shorter; of a click the model would still make one
TRAINED = "trained"
"""Margin that the model was trained with; None of it (30 s) for a model that was not."""


@dataclass(frozen=True)
class Decoded:
    """What the model said to one clip."""

    text: str
    tokens: int
    looped: bool
    """The text still goes in circles after every try."""
    second_try: bool
    """The adaptive window tripped the loop guard, and the text is from 30 s."""
    at_limit: bool = False
    """The text did not end by itself, but where no more tokens were allowed."""


@dataclass(frozen=True)
class Segment:
    """A stretch of speech and its words; times in seconds from the start of the audio."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class Transcript:
    """The words of one recording."""

    segments: tuple[Segment, ...]
    duration_s: float
    seconds: float
    """How long transcribing took."""

    @property
    def text(self) -> str:
        """All words, segments joined by spaces."""
        return " ".join(segment.text for segment in self.segments if segment.text)


class Transcriber:
    """A model, ready to hear. Safe to share between threads: one decode at a time.

    Args:
        model: a run, a model folder or a Hub id; None for $LENGUA_MODEL, the newest run, or the base model.
        language: a code, a name or a Common Voice locale.
        engine: ctranslate2, torch or auto.

    Raises:
        RequestError: no such model, or one whose tokenizer is another model's.
    """

    def __init__(self, model: str | None = None, language: str = "es", engine: str = "auto", batch_size: int = 8):
        self.model = model or default_model()
        self.folder, self.origin = find_model(self.model)
        self.note, self.tokenizer = read_note(self.folder), load_tokenizer(self.folder)
        self.language = language_code(language)
        self.prompt = prompt_tokens(self.tokenizer, self.language)
        require_tokenizer(self.folder, self.prompt[0])
        self.engine = open_engine(engine, self.folder)
        self.batch_size = batch_size
        self._lock = threading.Lock()

    @property
    def n_mels(self) -> int:
        """Mel bins that the model reads."""
        return self.engine.n_mels

    def decode(self, mels: Sequence[np.ndarray], margin_s: float | str | None = TRAINED) -> list[Decoded]:
        """Decode log-mels of clips, each at most 30 s.

        Args:
            mels: float32 of shape (frames, n_mels), as `lengua.mel.log_mel` gives them.
            margin_s: seconds of silence behind each clip; None pads to 30 s.

        Returns:
            One `Decoded` for each clip, in their order.
        """
        margin = self.note.decode_margin_s if margin_s == TRAINED else margin_s
        first = self._decode_all(mels, margin)
        again = [index for index, result in enumerate(first) if result.looped] if margin is not None else []
        for index, result in zip(again, self._decode_all([mels[index] for index in again], None), strict=True):
            first[index] = replace(result, second_try=True)
        return first

    def transcribe(self, source: audio.AudioInput) -> Transcript:
        """Turn a recording of any length into text.

        Raises:
            RequestError: it is missing or not audio.
        """
        start = time.perf_counter()
        samples = audio.load(source)
        segments = tuple(self.segments(samples))
        return Transcript(segments, audio.duration_s(samples), time.perf_counter() - start)

    def segments(self, samples: np.ndarray) -> Iterator[Segment]:
        """Yield the segments of 16 kHz audio as they are decoded; silence yields none."""
        spans = [span for span in speech_spans(samples) if may_hold_speech(samples[slice(*span)])]
        for at in range(0, len(spans), self.batch_size):
            group = spans[at : at + self.batch_size]
            mels = [mel.log_mel(samples[slice(*span)], self.n_mels) for span in group]
            for (first, last), decoded in zip(group, self.decode(mels), strict=True):
                yield Segment(first / audio.SAMPLE_RATE, last / audio.SAMPLE_RATE, decoded.text)

    def _decode_all(self, mels: Sequence[np.ndarray], margin_s: float | None) -> list[Decoded]:
        results: dict[int, Decoded] = {}
        lengths = [len(one) for one in mels]
        for indices, window in like_lengths(lengths, self.batch_size, margin_s, self.engine.window_frames):
            features = np.stack([mel.fill(mels[index], window) for index in indices])
            most = most_tokens(window / mel.FRAMES_PER_SECOND)
            with self._lock:
                tokens = self.engine.generate(features, self.prompt, most)
            for index, found in zip(indices, tokens, strict=True):
                cut = len(found) >= min(most, self.engine.most_tokens) and end_token(self.tokenizer) not in found
                results[index] = self._decoded(found, lengths[index] / mel.FRAMES_PER_SECOND, cut)
        return [results[index] for index in range(len(mels))]

    def _decoded(self, tokens: list[int], seconds: float, at_limit: bool) -> Decoded:
        text, count = words_of(self.tokenizer, tokens), len(text_tokens(self.tokenizer, tokens))
        return Decoded(text, count, is_looped(text, count, seconds), second_try=False, at_limit=at_limit)


def may_hold_speech(samples: np.ndarray) -> bool:
    """Return whether a stretch is long and loud enough for a word: no energy, no model."""
    return len(samples) >= MIN_SAMPLES and not audio.is_silent(samples)


def speech_spans(samples: np.ndarray) -> list[tuple[int, int]]:
    """Return (first, last) samples of what to decode: the whole of a short clip, stretches of speech of a long one.

    Long audio is cut at pauses by Silero's voice activity detector (as faster-whisper packages it) to at most 28 s.
    """
    if len(samples) <= mel.WINDOW_SAMPLES:
        return [(0, len(samples))]
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    options = VadOptions(max_speech_duration_s=MAX_SEGMENT_SECONDS, min_silence_duration_ms=500, speech_pad_ms=200)
    return [(span["start"], span["end"]) for span in get_speech_timestamps(samples, options)]


@dataclass(frozen=True)
class FileText:
    """What one file said, or why it could not be read."""

    file: Path
    text: str = ""
    error: LenguaError | None = None


def transcribe_files(options: TranscribeOptions) -> Iterator[FileText]:
    """Yield the text of file after file as it comes; a bad file does not stop the others.

    Raises:
        RequestError: no file was named, or there is no such model.
    """
    if not options.files:
        raise RequestError("at least one audio file", "none", "name files: lengua transcribe a.mp3 b.wav")
    transcriber = None
    for path in options.files:
        try:
            samples = audio.load(path)
        except RequestError as error:
            yield FileText(path, error=error)
            continue
        transcriber = transcriber or Transcriber(options.model, options.language, options.engine)
        text = transcriber.transcribe((samples, audio.SAMPLE_RATE)).text
        if options.out:
            write_bytes(options.out / f"{path.name}.txt", (text + "\n").encode())
        yield FileText(path, text)
