"""A recording of any length, heard from its start to its end: segment after segment, in constant memory.

    with transcriber.segments("talk.mp4") as stream:
        for segment in stream:
            print(f"{stream.position_s:.0f} of {stream.duration_s:.0f} s: {segment.text}")

blocks of sound -> stretches of speech -> no words from silence -> groups -> decoding -> words -> segments.

Transcriber: recordings -> text.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import chain, repeat

import numpy as np

from lengua import audio
from lengua.audio import log_mel
from lengua.audio.decoding import source_name
from lengua.inference import hallucinations
from lengua.inference.decoding import AUTO_LANGUAGE, Decoder, DecodingResult
from lengua.inference.transcript import Segment, Transcript, Word
from lengua.inference.vad import RING_BUFFER_SAMPLES, Span, speech_spans, spoken_part
from lengua.inference.word_timestamps import require_word_timestamps, time_words
from lengua.models.checkpoints import default_model, find_model
from lengua.runtime import system
from lengua.runtime.progress import Progress, Watch, unwatched

FIRST_GROUP_SIZES = (1, 2, 4, 8)
"""Stretches that are decoded together: first one, so that its text is there soon."""
MAX_GROUP_SPANS = 16
"""And then so many; what is said does not depend on the batches that the decoder makes of them."""
MAX_GROUP_S = 48.0
"""Or fewer, as soon as they last so long together."""


class SegmentStream(Iterator[Segment]):
    """The segments of a recording, as they are heard.

    One thread asks for segments; others may look at the attributes, and close it: then it ends before the next group
    of stretches is decoded.

    Args:
        decoder: a model on an engine.
        source: a path, the bytes of a file, (samples, rate), or samples at 16 kHz.
        words: tell when each word was said, too.
        watch: is told how far it is.
        timed: look for the times of speech in a recording of at most 30 s, too; else its one segment is all of it.

    Raises:
        RequestError: there is no such file, or nothing that tells when words were said; with the first segment, that it
            is not audio.
    """

    def __init__(
        self,
        decoder: Decoder,
        source: audio.AudioInput | np.ndarray,
        words: bool = False,
        watch: Watch = unwatched,
        timed: bool = False,
    ):
        if words:
            require_word_timestamps(decoder)
        self.decoder, self.words, self.timed = decoder, words, timed
        self._source = (source, audio.SAMPLE_RATE) if isinstance(source, np.ndarray) else source
        self._watch, self._stage = watch, f"transcribing {source_name(self._source)}"
        self.duration_s = audio.recording_duration_s(self._source)
        """By the header of the file, None where that does not tell; what it really was when all of it is heard."""
        self.position_s = 0.0
        """How much of it is heard."""
        self.suppressed: Counter[str] = Counter()
        """Stretches that gave no text, by reason: see `lengua.inference.hallucinations`."""
        self._languages: Counter[str] = Counter()
        self._read_s, self._closed = 0.0, False
        self._segments = self._heard()

    def __next__(self) -> Segment:
        return next(self._segments)

    def __enter__(self) -> "SegmentStream":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def close(self) -> None:
        """End it, and let go of the file; from another thread, as soon as the present group is decoded."""
        self._closed = True
        try:
            self._segments.close()
        except ValueError:  # it is at work in the other thread, and sees the flag
            return

    @property
    def language(self) -> str:
        """The code of the language of most of the speech so far; before any, the one that was asked for, if any."""
        asked = "" if self.decoder.language == AUTO_LANGUAGE else self.decoder.language
        return max(self._languages, key=self._languages.get, default=asked)

    def _heard(self) -> Iterator[Segment]:
        with closing(audio.stream(self._source)) as blocks:
            for group in _group_spans(self._audible(speech_spans(self._read(blocks)))):
                if self._closed:
                    return
                yield from self._decoded(group)
                self._reach(group[-1].end / audio.SAMPLE_RATE)
            self.duration_s = self._read_s
            self._reach(self._read_s)

    def _read(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for block in blocks:
            self._read_s += audio.duration_s(block)
            self._reach(self._read_s - RING_BUFFER_SAMPLES / audio.SAMPLE_RATE)  # in a long silence nothing else tells
            yield block

    def _reach(self, seconds: float) -> None:
        if seconds > self.position_s:
            self.position_s = seconds
            total = None if self.duration_s is None else round(max(self.duration_s, seconds), 1)
            self._watch(Progress(self._stage, round(seconds, 1), total, "s"))

    def _audible(self, found: Iterable[Span]) -> Iterator[Span]:
        span = None
        for span in found:
            if reason := hallucinations.silence_reason(span.samples):
                self.suppressed[reason] += 1
            else:
                yield span
        if span is None and self._read_s:  # longer than 30 s, and nowhere in it does anybody surely speak
            self.suppressed[hallucinations.NO_SPEECH_STRETCH] += 1

    def _decoded(self, group: list[Span]) -> Iterator[Segment]:
        mels = [log_mel.log_mel(span.samples, self.decoder.engine.n_mels) for span in group]
        said = self.decoder.decode(mels)
        if self._read_s > 60:
            system.trim_heap()
        reasons = [hallucinations.suppression_reason(one, span.samples) for one, span in zip(said, group, strict=True)]
        self.suppressed.update(filter(None, reasons))
        kept = [index for index, reason in enumerate(reasons) if not reason]
        timed = self._words([mels[index] for index in kept], [said[index] for index in kept])
        for index, its_words in zip(kept, timed, strict=True):
            span, language = group[index], said[index].language
            self._languages[language] += len(span.samples)
            self._reach(span.end / audio.SAMPLE_RATE)
            yield build_segment(span, said[index], its_words, self._times(span))

    def _times(self, span: Span) -> tuple[int, int]:
        whole = self.timed and span.end - span.start == round(self._read_s * audio.SAMPLE_RATE)
        return spoken_part(span) if whole else (span.start, span.end)

    def _words(self, mels: list[np.ndarray], said: list[DecodingResult]) -> list[tuple[Word, ...]]:
        return time_words(self.decoder, mels, said) if self.words and said else [()] * len(said)


def build_segment(
    span: Span, said: DecodingResult, its_words: tuple[Word, ...] = (), times: tuple[int, int] | None = None
) -> Segment:
    """Return a stretch and what was said in it; with words, it lasts from the first to the last of them.

    Args:
        its_words: with times from the start of the stretch; what is beyond its end is drawn in.
        times: the (first, last) samples of the segment if they are not those of the stretch.
    """
    start, end = span.start / audio.SAMPLE_RATE, span.end / audio.SAMPLE_RATE
    if placed := tuple(_shift_into_span(its_words, start, end)):
        return Segment(placed[0].start_s, placed[-1].end_s, said.text, said.language, placed)
    first, last = times or (span.start, span.end)
    return Segment(first / audio.SAMPLE_RATE, last / audio.SAMPLE_RATE, said.text, said.language)


def _shift_into_span(its_words: Iterable[Word], start: float, end: float) -> Iterator[Word]:
    """Yield words with times of the recording, in order, within the stretch."""
    before = start
    for word in its_words:
        first = min(max(before, start + word.start_s), end)
        before = min(max(first, start + word.end_s), end)
        yield Word(first, before, word.text, word.probability)


def _group_spans(items: Iterable[Span]) -> Iterator[list[Span]]:
    """Yield lists of 1, 2, 4, 8, then 16 spans, or as many as last for 48 s, so that all take about the same memory."""
    sizes, group, samples = chain(FIRST_GROUP_SIZES, repeat(MAX_GROUP_SPANS)), [], 0
    size = next(sizes)
    for span in items:
        group.append(span)
        samples += len(span.samples)
        if len(group) == size or samples >= MAX_GROUP_S * audio.SAMPLE_RATE:
            yield group
            group, samples, size = [], 0, next(sizes)
    if group:
        yield group


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
