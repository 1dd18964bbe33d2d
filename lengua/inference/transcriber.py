"""Transcriber: recordings of any length to text, segment by segment and in constant memory.

    transcriber = Transcriber("runs/demo")                      # lengua.load is the same class
    print(transcriber.transcribe("clip.mp3").text)

    with transcriber.segments("talk.mp4") as stream:
        for segment in stream:
            print(f"{stream.position_s:.0f} of {stream.duration_s:.0f} s: {segment.text}")

blocks of samples -> speech spans (VAD) -> silence gates -> groups -> decoding -> hallucination rules -> word
timestamps -> segments.
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
"""Spans that are decoded together: first one, so that its text is there soon."""
MAX_GROUP_SPANS = 16
"""Spans of every later group; the text does not depend on the batches that the decoder makes of them."""
MAX_GROUP_S = 48.0
"""A group ends earlier once its spans last so many seconds together, which bounds memory."""

MISSING_SHARE = 0.02
"""Of a recording's declared length: as much may be the header's inaccuracy."""


class SegmentStream(Iterator[Segment]):
    """Iterator over the segments of a recording, decoded as they are requested. Also a context manager.

    One thread iterates; others may read the attributes, and call `close`: iteration then ends before the next group of
    spans is decoded.

    Args:
        decoder: a model on an engine.
        source: a path, the bytes of a file, (samples, rate), or float samples (n,) at 16 kHz.
        words: compute word timestamps.
        watch: callback for progress in seconds of audio.
        timed: trim the segment of a recording of at most 30 s to its speech; otherwise it spans the whole recording.
        track: of a container with several sound tracks; see `audio.stream`.

    Raises:
        RequestError: the file or the track is missing, or the model has no word timestamps; on the first segment, if
            the source is not audio.
    """

    def __init__(
        self,
        decoder: Decoder,
        source: audio.AudioInput | np.ndarray,
        words: bool = False,
        watch: Watch = unwatched,
        timed: bool = False,
        track: int | None = None,
    ):
        if words:
            require_word_timestamps(decoder)
        self.decoder, self.words, self.timed, self._track = decoder, words, timed, track
        self._source = (source, audio.SAMPLE_RATE) if isinstance(source, np.ndarray) else source
        self._watch, self._stage = watch, f"transcribing {source_name(self._source)}"
        if not isinstance(self._source, tuple):
            self._source = audio.require_readable(self._source)
        info = audio.recording_info(self._source, track)
        if info.tracks:
            told = f"sound track {info.track} of {len(info.tracks)} is read ({info.tracks[info.track - 1]})"
            watch(Progress(self._stage, 0, None, "", f"{told}; --track takes another"))
        self.duration_s = info.duration_s
        """Length by the file's header, None where it has none; the decoded length once iteration has ended."""
        self.position_s = 0.0
        """Seconds of the recording that are done."""
        self.suppressed: Counter[str] = Counter()
        """Spans that gave no text, counted by reason: see `lengua.inference.hallucinations`."""
        self._languages: Counter[str] = Counter()
        self._read_s, self._closed = 0.0, False
        self._segments = self._iterate()

    def __next__(self) -> Segment:
        return next(self._segments)

    def __enter__(self) -> "SegmentStream":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def close(self) -> None:
        """End the iteration and release the file; from another thread, once the present group is decoded."""
        self._closed = True
        try:
            self._segments.close()
        except ValueError:  # the generator runs in another thread, which will see the flag
            return

    @property
    def language(self) -> str:
        """Language code of most of the speech so far; before any, the requested one, or "" with auto."""
        requested = "" if self.decoder.language == AUTO_LANGUAGE else self.decoder.language
        return max(self._languages, key=self._languages.get, default=requested)

    def _iterate(self) -> Iterator[Segment]:
        with closing(audio.stream(self._source, track=self._track)) as blocks:
            for group in _group_spans(self._audible(speech_spans(self._read(blocks)))):
                if self._closed:
                    return
                yield from self._decoded(group)
                self._reach(group[-1].end / audio.SAMPLE_RATE)
            declared_s, self.duration_s = self.duration_s or 0.0, self._read_s
            self._reach(self._read_s)
            if declared_s - self._read_s > max(1.0, MISSING_SHARE * declared_s):
                told = f"the header says {declared_s:.1f} s, but no more than {self._read_s:.1f} s can be decoded"
                self._watch(Progress(self._stage, round(self._read_s, 1), None, "", told))

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

    def _audible(self, spans: Iterable[Span]) -> Iterator[Span]:
        span = None
        for span in spans:
            if reason := hallucinations.silence_reason(span.samples):
                self.suppressed[reason] += 1
            else:
                yield span
        if span is None and self._read_s:  # longer than 30 s, and nowhere in it does anybody surely speak
            self.suppressed[hallucinations.NO_SPEECH_STRETCH] += 1

    def _decoded(self, group: list[Span]) -> Iterator[Segment]:
        mels = [log_mel.log_mel(span.samples, self.decoder.engine.n_mels) for span in group]
        results = self.decoder.decode(mels)
        if self._read_s > 60:
            system.trim_heap()
        decoded = zip(results, group, strict=True)
        reasons = [hallucinations.suppression_reason(result, span.samples) for result, span in decoded]
        self.suppressed.update(filter(None, reasons))
        kept = [index for index, reason in enumerate(reasons) if not reason]
        words: list[tuple[Word, ...]] = [()] * len(kept)
        if self.words and kept:
            words = time_words(self.decoder, [mels[index] for index in kept], [results[index] for index in kept])
        for index, its_words in zip(kept, words, strict=True):
            span = group[index]
            self._languages[results[index].language] += len(span.samples)
            self._reach(span.end / audio.SAMPLE_RATE)
            is_whole = len(span.samples) == round(self._read_s * audio.SAMPLE_RATE)
            yield build_segment(span, results[index], its_words, spoken_part(span) if self.timed and is_whole else None)


def build_segment(
    span: Span, result: DecodingResult, words: tuple[Word, ...] = (), times: tuple[int, int] | None = None
) -> Segment:
    """Return the segment of a span; with words, it lasts from the start of the first to the end of the last.

    Args:
        words: with times from the start of the span; times beyond its end are clipped to it.
        times: (first, last) samples of the segment if they are not those of the span.
    """
    start, end = span.start / audio.SAMPLE_RATE, span.end / audio.SAMPLE_RATE
    placed, before = [], start
    for word in words:
        first = min(max(before, start + word.start_s), end)
        before = min(max(first, start + word.end_s), end)
        placed.append(Word(first, before, word.text, word.probability))
    if placed:
        return Segment(placed[0].start_s, placed[-1].end_s, result.text, result.language, tuple(placed))
    first, last = times or (span.start, span.end)
    return Segment(first / audio.SAMPLE_RATE, last / audio.SAMPLE_RATE, result.text, result.language)


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
    """A loaded Whisper that transcribes recordings; `lengua.load` is this class.

    Threads may share one: it decodes for one of them at a time.

    Args:
        model: a run, a model folder or a Hub id; None for $LENGUA_MODEL, the newest run, or the base model.
        language: a code, a name or a Common Voice locale; "auto" detects it, span by span.
        engine: "onnxruntime", "ctranslate2", "torch", or "auto" for the fastest on this machine.
        batch_size: most spans that are decoded at once; the text does not depend on it.
        more: task, beam, prompt, compute_type, as `Decoder` takes them.

    Raises:
        RequestError: there is no such model, language or engine, or the tokenizer belongs to another model.
    """

    def __init__(
        self, model: str | None = None, language: str = "es", engine: str = "auto", batch_size: int = 8, **more
    ):
        self.model = model or default_model()
        folder, self.origin = find_model(self.model)
        super().__init__(folder, language, engine, batch_size, **more)

    @property
    def n_mels(self) -> int:
        """Mel bins of the model's input, 80 or 128."""
        return self.engine.n_mels

    def transcribe(self, source: audio.AudioInput | np.ndarray, words: bool = False) -> Transcript:
        """Transcribe a recording of any length.

        Args:
            source: a path to audio or video, the bytes of such a file, (samples, rate in Hz), or float samples of
                shape (n,) at 16 kHz in -1 to 1.
            words: add word timestamps to the segments.

        Returns:
            The segments with times in seconds, their joined text, and the spans without text by reason.

        Raises:
            RequestError: the source is missing or not audio, or words are requested of a model that cannot align them.
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
        track: int | None = None,
    ) -> SegmentStream:
        """Return an iterator that decodes segments as they are requested, in constant memory; see `SegmentStream`."""
        return SegmentStream(self, source, words, watch, timed, track)
