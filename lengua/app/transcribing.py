"""A recording -> its segments as they are decoded, with the state of the work. The only way from page to model.

    for progress in transcribe_recording(parts, "talk.m4a", request):
        print(progress.step, progress.text)

All tabs, modes and programs wait in one queue for the one transcriber. A long recording lets others pass after each
of its segments.
"""

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import gradio as gr
import numpy as np

from lengua.app.context import AppContext
from lengua.app.limits import QueueTicket, Refusal, as_refusal
from lengua.inference import Segment, Transcriber, Transcript
from lengua.inference.decoding import AUTO_LANGUAGE
from lengua.models.languages import language_code
from lengua.models.tokens import PROMPT_TASKS, DecoderPrompts
from lengua.runtime.errors import RequestError
from lengua.runtime.progress import Progress

TranscriptionState = Literal["waiting", "understanding", "done", "stopped", "limited", "cut"]


@dataclass(frozen=True)
class TranscriptionProgress:
    """How far it is, and what was heard so far."""

    step: TranscriptionState
    """done: all of it is heard. stopped: on request. limited: at the longest that is heard. cut: the file broke off."""
    segments: tuple[Segment, ...] = ()
    ahead: int = 0
    """Others before this one, while it waits."""
    position_s: float = 0.0
    """How much of the recording is heard."""
    duration_s: float | None = None
    seconds: float = 0.0
    """How long it took since its turn came."""
    language: str = ""
    """Code of the language: asked for, or heard."""

    @property
    def text(self) -> str:
        """All words, segments joined by spaces."""
        return " ".join(segment.text for segment in self.segments if segment.text)

    @property
    def transcript(self) -> Transcript:
        """The same as a transcript."""
        return Transcript(self.segments, self.duration_s or self.position_s, self.seconds, self.language)


@dataclass(frozen=True)
class MicrophoneOutput:
    """What the microphone mode hands to the modes below it."""

    recording: gr.Audio
    """Its `change` tells of each new recording, spoken or uploaded."""
    segments: gr.State
    """A tuple of `Segment`, empty before there is a text; without times of words."""
    text: gr.Textbox
    ready: gr.events.Dependency
    """The event after which `segments` is whole: `heard.ready.then(...)`."""


class StopSignal:
    """A wish to stop the work of one visitor: a `gr.State` holds it, and the button and the work share it."""

    def __init__(self):
        self.asked = self.dropped = False

    def ask(self, dropped: bool = False) -> None:
        """Stop the work that is at it, if any; dropped: what it heard so far is not wanted, either."""
        self.asked, self.dropped = True, dropped

    def renew(self) -> None:
        """Begin new work, which nobody wished to stop."""
        self.asked = self.dropped = False


class TranscriptionStopped(Exception):
    """The work was asked to stop."""


class RecordingTooLong(Exception):
    """The recording goes on beyond what is heard, whatever its header told."""


def transcribe_recording(
    parts: AppContext,
    recording: str | None,
    request: gr.Request | None,
    language: str | None = None,
    task: str = PROMPT_TASKS[0],
    words: bool = False,
    stop: StopSignal | None = None,
) -> Iterator[TranscriptionProgress]:
    """Yield a `Hearing` for each segment, and now and then while waiting; the last is whole. A short clip yields one.

    Args:
        recording: a file, or None where there is none.
        language: a code, or auto to hear it; None: the language of the model.
        task: transcribe, or translate into English.
        words: tell when each word was said and how sure the model is of it.
        stop: ends the work soon after it is asked to.

    Raises:
        Refusal: the recording is not let in, or there is no speech in it.
    """
    stop = stop or StopSignal()
    stop.renew()
    transcriber = transcriber_for(parts.transcriber, language, task)
    samples = parts.admission.admit(recording, request)
    with parts.admission.line.enter() as turn:
        yield from _wait(turn, TranscriptionProgress("waiting"), stop)
        work = _TranscriptionJob(transcriber, recording if samples is None else samples, words, stop)
        for hearing in work.hearings(parts.admission.limits.seconds):
            yield hearing
            if hearing.step == "understanding":
                turn.let_others()
                yield from _wait(turn, hearing, stop)


def transcribe_whole(
    parts: AppContext, recording: str | None, request: gr.Request | None, words: bool = False
) -> Transcript:
    """Return all that is heard in a recording, in the language of the model.

    Raises:
        Refusal: the recording is not let in, or there is no speech in it.
    """
    *_, last = transcribe_recording(parts, recording, request, words=words)
    return last.transcript


def transcriber_for(transcriber: Transcriber, language: str | None = None, task: str = PROMPT_TASKS[0]) -> Transcriber:
    """Return a transcriber for another language or task, on the same engine.

    The short window was learned for one language, and for writing it down; all else is heard at 30 s.

    Raises:
        Refusal: there is no such language, or the model does not speak it or cannot translate.
    """
    if not (isinstance(language, str | None) and task in PROMPT_TASKS):  # programs send what they like
        raise Refusal("refusal.language")
    try:
        wanted = (
            transcriber.language
            if language is None
            else AUTO_LANGUAGE
            if language == AUTO_LANGUAGE
            else language_code(language)
        )
        if (wanted, task) == (transcriber.language, transcriber.task):
            return transcriber
        prompts = DecoderPrompts(transcriber.folder, transcriber.tokenizer, task)
        prompt = prompts.of("en" if wanted == AUTO_LANGUAGE else wanted)
    except RequestError as error:
        raise Refusal("refusal.language") from error
    if wanted == AUTO_LANGUAGE and not (transcriber.engine.multilingual or prompts.english_only):
        raise Refusal("refusal.language")
    other = copy.copy(transcriber)  # engine and lock are shared
    other.language, other.task, other.prompts, other.prompt = wanted, task, prompts, prompt
    other.note = replace(transcriber.note, window="padded")
    return other


def progress_sentence(parts: AppContext, request: gr.Request | None, hearing: TranscriptionProgress) -> str:
    """Return the state line of a hearing, in the language of a request."""
    step, seconds = hearing.step, hearing.position_s
    if step == "understanding":
        step = "understanding_of" if hearing.duration_s else "understanding_at"
    if step == "stopped" and not hearing.segments:
        step = "stopped_at_once"
    point = parts.wording.said(request, "state.point")
    return parts.wording.said(
        request,
        f"state.{step}",
        ahead=hearing.ahead,
        position=_clock(seconds),
        duration=_clock(hearing.duration_s or 0.0) if step == "understanding_of" else _tenths(seconds, point),
        seconds=_tenths(hearing.seconds, point),
        minutes=round(parts.admission.limits.seconds / 60),
    )


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _tenths(seconds: float, point: str) -> str:
    return f"{seconds:.1f}".replace(".", point)


def _wait(turn: QueueTicket, hearing: TranscriptionProgress, stop: StopSignal) -> Iterator[TranscriptionProgress]:
    """Yield how many are ahead, every second, until nobody is. Who closed the page is noticed when this is told."""
    while (ahead := turn.wait(seconds=1.0)) and not stop.asked:
        yield replace(hearing, step="waiting", ahead=ahead)


class _TranscriptionJob:
    """The hearing of one recording, when its turn has come."""

    def __init__(self, transcriber: Transcriber, source: str | np.ndarray, words: bool, stop: StopSignal):
        self.stop, self.limit_s = stop, float("inf")
        self.stream = transcriber.segments(source, words, self._watch, timed=True)
        self.segments: list[Segment] = []
        self.start = time.perf_counter()

    def hearings(self, limit_s: float) -> Iterator[TranscriptionProgress]:
        """Yield after each segment but the last, and when it is over.

        Raises:
            Refusal: there is nothing in it that can be heard.
        """
        self.limit_s, step = limit_s, "done"
        with self.stream:
            try:
                self._go_on()
                for segment in self.stream:
                    self.segments.append(segment)
                    if self.stream.position_s < (self.stream.duration_s or limit_s):
                        yield self._told("understanding")
                    self._go_on()
            except TranscriptionStopped:
                step = "stopped"
            except RecordingTooLong:
                step = "limited"
            except RequestError as error:
                if not self.segments:
                    raise as_refusal(error) from error
                step = "cut"
        if not self.segments and step != "stopped":
            raise Refusal("refusal.silent")
        yield self._told(step)

    def _told(self, step: TranscriptionState) -> TranscriptionProgress:
        stream, seconds = self.stream, time.perf_counter() - self.start
        return TranscriptionProgress(
            step, tuple(self.segments), 0, stream.position_s, stream.duration_s, seconds, stream.language
        )

    def _watch(self, progress: Progress) -> None:
        """End the work from within; in a long silence, there are no segments to do it after."""
        self._go_on()
        if progress.done > self.limit_s + 1:
            raise RecordingTooLong

    def _go_on(self) -> None:
        if self.stop.asked:
            raise TranscriptionStopped
