"""Transcriber: recordings -> text."""

import time

import numpy as np

from lengua import audio
from lengua.checkpoints import default_model, find_model
from lengua.progress import Watch, unwatched
from lengua.transcription.decoding import Decoder
from lengua.transcription.segments import Transcript
from lengua.transcription.streaming import SegmentStream


class Transcriber(Decoder):
    """A model, ready to hear. Safe to share between threads: one decode at a time.

    Args:
        model: a run, a model folder or a Hub id; None for $LENGUA_MODEL, the newest run, or the base model.
        language: a code, a name or a Common Voice locale; auto: heard from the speech.
        engine: onnxruntime, ctranslate2, torch or auto.
        more: task, beam, prompt, compute_type, as `Decoder` takes them.

    Raises:
        RequestError: no such model, or one whose tokenizer is another model's.
    """

    def __init__(
        self, model: str | None = None, language: str = "es", engine: str = "auto", batch_size: int = 8, **more
    ):
        self.model = model or default_model()
        folder, self.origin = find_model(self.model)
        super().__init__(folder, language, engine, batch_size, **more)

    @property
    def n_mels(self) -> int:
        """Mel bins that the model reads."""
        return self.engine.n_mels

    def transcribe(self, source: audio.AudioInput | np.ndarray, words: bool = False) -> Transcript:
        """Turn a recording of any length into text.

        Args:
            source: a path, the bytes of a file, (samples, rate), or samples at 16 kHz.
            words: tell when each word was said, too.

        Raises:
            RequestError: it is missing or not audio.
        """
        start = time.perf_counter()
        with self.segments(source, words) as stream:
            segments = tuple(stream)
        seconds = time.perf_counter() - start
        return Transcript(segments, stream.duration_s, seconds, stream.language, dict(stream.suppressed))

    def segments(
        self,
        source: audio.AudioInput | np.ndarray,
        words: bool = False,
        watch: Watch = unwatched,
        timed: bool = False,
    ) -> SegmentStream:
        """Return the segments of a recording as a stream that hears it while one asks for them: see there."""
        return SegmentStream(self, source, words, watch, timed)
