"""What is let in: recordings within bounds, one at a time over all tabs, so many a day. Asked inside the functions.

What the browser or Gradio's queue would refuse, a program that asks directly could get around.
"""

import threading
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
import numpy as np

from lengua import audio, mel
from lengua.conversation.allowance import Allowance, address_of
from lengua.errors import RequestError
from lengua.transcription import silence


@dataclass(frozen=True)
class Limits:
    """Bounds of the app, the same for every visitor."""

    seconds: float = 15 * 60
    """Of the longest recording."""
    shortest_s: float = 0.2
    bytes: int = 64 * 2**20
    """Of the biggest file; 15 minutes of the page's own recording are 29 MB."""
    line: int = 24
    """Recordings that are heard or wait for it, at once."""


class Refusal(Exception):
    """Something that is not let in: the key of the sentence that a visitor reads, and its values."""

    def __init__(self, key: str, **values):
        super().__init__(key)
        self.key, self.values = key, values


class Admission:
    """The limits, the line before the transcriber, and who had how much today. Thread-safe."""

    def __init__(self, limits: Limits = Limits(), allowance: Allowance | None = None):
        self.limits, self.allowance = limits, allowance or Allowance()
        self.line = Line(limits.line)

    def visitor(self, request: gr.Request | None) -> str:
        """Return the hash that stands for whoever asks."""
        if request is None:
            return self.allowance.visitor()
        host = request.client.host if request.client else None
        address = address_of(host, request.headers.get("x-forwarded-for"))
        return self.allowance.visitor(address, request.headers.get("user-agent"))

    def admit(self, recording: str | None, request: gr.Request | None) -> np.ndarray | None:
        """Return the samples of a short recording, None for a long one, which is to be read while it is heard.

        Raises:
            Refusal: it is missing, empty, too big, too long, too short, not audio or silent; the line is full; or today
                was enough.
        """
        samples = self.load(recording)
        if samples is not None and silence.why_silent(samples):
            raise Refusal("refusal.silent")
        if len(self.line) >= self.line.places:  # before it counts as a turn of today
            raise Refusal("refusal.busy")
        if not self.allowance.turn(self.visitor(request)):
            raise Refusal("refusal.enough_today")
        return samples

    def load(self, recording: str | None) -> np.ndarray | None:
        """Return the samples of a recording of at most 30 s, None for a longer one; both within the limits.

        Raises:
            Refusal: it is missing, empty, too big, too long, too short, or not audio.
        """
        if not recording:
            raise Refusal("refusal.missing")
        size = Path(recording).stat().st_size
        if not size:
            raise Refusal("refusal.empty")
        if size > self.limits.bytes:
            raise Refusal("refusal.too_big", megabytes=self.limits.bytes >> 20)
        try:
            told, samples = audio.seconds_of(recording), audio.load(recording, max_seconds=WHOLE_S + 1)
        except RequestError as error:
            raise as_refusal(error) from error
        seconds = audio.duration_s(samples)
        if seconds < self.limits.shortest_s:
            raise Refusal("refusal.too_short")
        if max(told or 0.0, seconds) > self.limits.seconds:
            raise Refusal("refusal.too_long", minutes=round(self.limits.seconds / 60))
        return samples if seconds <= WHOLE_S else None


WHOLE_S = mel.WINDOW_SAMPLES / audio.SAMPLE_RATE
"""The model hears so much at once."""
SIGNS = {
    "pictures": "no_sound",
    "no sound": "no_sound",
    "an empty": "empty",
    "no samples": "empty",
    "NaN": "broken",
}
"""How lengua.audio begins to say what it found."""


def as_refusal(error: RequestError) -> Refusal:
    """Return what to say of a recording that lengua.audio could not read."""
    key = next((key for sign, key in SIGNS.items() if error.found.startswith(sign)), "unreadable")
    return Refusal(f"refusal.{key}")


class Line:
    """Who waits for the one transcriber: first come, first served. Thread-safe.

    Gradio's queue has no sentence for who has to wait, or for whom there is no place; and it holds up everybody behind
    a long recording. This one does not: see `Turn.let_others`.
    """

    def __init__(self, places: int):
        self.places = places
        self._turns: list[Turn] = []
        self._moved = threading.Condition()

    def __len__(self) -> int:
        return len(self._turns)

    def enter(self) -> "Turn":
        """Return a place at the end; leave it by its `with`.

        Raises:
            Refusal: there is none left.
        """
        with self._moved:
            if len(self._turns) >= self.places:
                raise Refusal("refusal.busy")
            turn = Turn(self)
            self._turns.append(turn)
        return turn


class Turn:
    """A place in the line."""

    def __init__(self, line: Line):
        self.line = line

    def __enter__(self) -> "Turn":
        return self

    def __exit__(self, *error) -> None:
        with self.line._moved:
            self.line._turns.remove(self)
            self.line._moved.notify_all()

    def wait(self, seconds: float) -> int:
        """Return how many are ahead: 0 as soon as nobody is, else after so many seconds."""
        with self.line._moved:
            self.line._moved.wait_for(lambda: self.line._turns[0] is self, seconds)
            return self.line._turns.index(self)

    def let_others(self) -> None:
        """Go to the end of the line; wait for the turn again."""
        with self.line._moved:
            self.line._turns.remove(self)
            self.line._turns.append(self)
            self.line._moved.notify_all()
