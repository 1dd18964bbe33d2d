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
from typing import TYPE_CHECKING, Literal

import numpy as np

from lengua.app.context import AppContext
from lengua.app.limits import QueueTicket, Refusal, as_refusal
from lengua.inference import Segment, Transcriber
from lengua.inference.decoding import AUTO_LANGUAGE
from lengua.models.languages import language_code
from lengua.models.tokens import PROMPT_TASKS, DecoderPrompts
from lengua.runtime.errors import RequestError
from lengua.runtime.progress import Progress

if TYPE_CHECKING:
    import gradio as gr

TranscriptionState = Literal["waiting", "understanding", "done", "stopped", "limited", "cut"]


@dataclass(frozen=True)
class TranscriptionProgress:
    """How far it is, and the transcript so far."""

    step: TranscriptionState
    """done: all is decoded. stopped: on request. limited: at the longest that is decoded. cut: the file broke off."""
    segments: tuple[Segment, ...] = ()
    ahead: int = 0
    """Others before this one, while it waits."""
    position_s: float = 0.0
    """How much of the recording is decoded."""
    duration_s: float | None = None
    seconds: float = 0.0
    """How long it took since its turn came."""
    language: str = ""
    """Code of the language: asked for, or detected."""

    @property
    def text(self) -> str:
        """All words, segments joined by spaces."""
        return " ".join(segment.text for segment in self.segments if segment.text)


class StopSignal:
    """A wish to stop the work of one visitor: a `gr.State` holds it, and the button and the work share it.

    In conversation, the wish can come before the work has begun, and new work can begin before the old has seen it. So
    the browser numbers its turns, and those up to a number are to stop. Gradio's own `cancels` misses an event that it
    does not know of yet.
    """

    def __init__(self):
        self.asked = self.dropped = False
        self.up_to = 0.0

    def ask(self, dropped: bool = False, turn: float | None = None) -> None:
        """Stop the work that goes on, if any; dropped: its text so far is not wanted, either."""
        self.asked, self.dropped = True, dropped
        self.up_to = max(self.up_to, turn or 0)

    def is_asked_for(self, turn: float | None) -> bool:
        """Whether a turn is to stop."""
        return bool(turn) and turn <= self.up_to

    def renew(self) -> None:
        """Begin new work, which nobody wished to stop."""
        self.asked = self.dropped = False


def transcribe_recording(
    parts: AppContext,
    recording: str | None,
    request: "gr.Request | None",
    language: str | None = None,
    task: str = PROMPT_TASKS[0],
    words: bool = False,
    stop: StopSignal | None = None,
) -> Iterator[TranscriptionProgress]:
    """Yield the progress after each segment, and now and then while waiting; the last is whole.

    Args:
        recording: a file, or None where there is none.
        language: a code, or auto to detect it; None: the language of the model.
        task: transcribe, or translate into English.
        words: give the times of each word and how sure the model is of it.
        stop: ends the work soon after it is asked to.

    Raises:
        Refusal: the recording is not admitted, or there is no speech in it.
    """
    stop = stop or StopSignal()
    stop.renew()
    transcriber = transcriber_for(parts.transcriber, language, task)
    samples = parts.admission.admit(recording, request)
    source = recording if samples is None else samples
    with parts.admission.line.enter() as ticket:
        yield from _wait(ticket, TranscriptionProgress("waiting"), stop)
        for progress in _transcribe(transcriber, source, words, stop, parts.admission.limits.seconds):
            yield progress
            if progress.step == "understanding":
                ticket.let_others()
                yield from _wait(ticket, progress, stop)


def transcriber_for(transcriber: Transcriber, language: str | None = None, task: str = PROMPT_TASKS[0]) -> Transcriber:
    """Return a transcriber for another language or task, on the same engine.

    The short window was learned for one language, and for writing it down; all else is decoded at 30 s.

    Raises:
        Refusal: there is no such language, or the model does not speak it or cannot translate.
    """
    if not (isinstance(language, str | None) and task in PROMPT_TASKS):  # programs send what they like
        raise Refusal("refusal.language")
    try:
        wanted = transcriber.language if language is None else language
        wanted = wanted if wanted == AUTO_LANGUAGE else language_code(wanted)
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


def progress_sentence(parts: AppContext, request: "gr.Request | None", progress: TranscriptionProgress) -> str:
    """Return the state line, in the language of a request."""
    step = progress.step
    if step == "understanding":
        step = "understanding_of" if progress.duration_s else "understanding_at"
    if step == "stopped" and not progress.segments:
        step = "stopped_at_once"

    def tenths(seconds: float) -> str:
        return f"{seconds:.1f}".replace(".", parts.wording.message(request, "state.point"))

    return parts.wording.message(
        request,
        f"state.{step}",
        ahead=progress.ahead,
        position=_clock(progress.position_s),
        duration=_clock(progress.duration_s) if step == "understanding_of" else tenths(progress.position_s),
        seconds=tenths(progress.seconds),
        minutes=round(parts.admission.limits.seconds / 60),
    )


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _wait(ticket: QueueTicket, progress: TranscriptionProgress, stop: StopSignal) -> Iterator[TranscriptionProgress]:
    """Yield how many are ahead, every second, until nobody is. Who closed the page is noticed when this is yielded."""
    while (ahead := ticket.wait(seconds=1.0)) and not stop.asked:
        yield replace(progress, step="waiting", ahead=ahead)


class _Interrupted(Exception):
    """The work is not to go on; its argument is the state it ends in."""


def _transcribe(
    transcriber: Transcriber, source: str | np.ndarray, words: bool, stop: StopSignal, limit_s: float
) -> Iterator[TranscriptionProgress]:
    """Yield after each segment but the last, and when it is over.

    Raises:
        Refusal: there is nothing in it that can be decoded.
    """
    segments, start, step = [], time.perf_counter(), "done"

    def check(progress: Progress | None = None) -> None:
        """End the work, also from within: in a long silence there are no segments to do it after."""
        if stop.asked:
            raise _Interrupted("stopped")
        if progress and progress.done > limit_s + 1:  # whatever the header of the file says
            raise _Interrupted("limited")

    stream = transcriber.segments(source, words, check, timed=True)

    def progress_at(step: TranscriptionState) -> TranscriptionProgress:
        seconds = time.perf_counter() - start
        return TranscriptionProgress(
            step, tuple(segments), 0, stream.position_s, stream.duration_s, seconds, stream.language
        )

    with stream:
        try:
            check()
            for segment in stream:
                segments.append(segment)
                if stream.position_s < (stream.duration_s or limit_s):
                    yield progress_at("understanding")
                check()
        except _Interrupted as interrupted:
            (step,) = interrupted.args
        except RequestError as error:
            if not segments:
                raise as_refusal(error) from error
            step = "cut"
    if not segments and step != "stopped":
        raise Refusal("refusal.silent")
    yield progress_at(step)
