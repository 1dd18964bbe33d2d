"""Espejo: one clip through the base and the fine-tuned model, in blind order; the reader picks the one that is right.

While the mirror is open, the text above waits until the reader has picked: who has read it knows which side is which.
Picks live in the visit's own gr.State, and leave it as a file that is made in the browser.
"""

import html
import logging
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple, get_args

import gradio as gr

from lengua import audio
from lengua.app.admission import Refusal
from lengua.app.hearing import Heard
from lengua.app.microphone import SAVE
from lengua.app.parts import Parts, name_of
from lengua.app.picks import MOST_PICKS, Choice, Pair, Pick, Side, Tally, as_csv, as_json, verdict
from lengua.app.tinting import differing, note
from lengua.errors import LenguaError
from lengua.transcription import Segment

log = logging.getLogger(__name__)


class Shown(NamedTuple):
    """What the mirror shows, in the order of its outputs."""

    left: str = ""
    right: str = ""
    choices: dict = gr.update(visible=False)
    told: str = ""
    pair: Pair | None = None


class Latest:
    """The recording that is in the page: a `gr.State` holds it, so that work on an older one sees that it is late."""

    def __init__(self):
        self.recording: str | None = None
        self.heard: str | None = None
        """Of which the visitor had a text; heard once more, say with other options, it is not blind."""


WAITS = "mirror-waits"
"""The class of a sentence while the text above waits: lengua/data/app_words.css hides it."""
WATCH = f"""
const mirror = document.querySelector("#mirror");
new ResizeObserver(() => {{
    const begun = !mirror.offsetHeight && document.querySelector("#text textarea")?.value === "";
    if (begun && mirror.querySelector("button.open")) props.value = "<p class='{WAITS}'></p>";
}}).observe(mirror);
"""
"""The page clears the text for a new recording, and hides what stands below it. From then on its text waits; an event
of Gradio's would come behind those of the microphone, and the text be read before."""


def mode(parts: Parts, heard: Heard) -> None:
    """Make the mirror in an accordion of its own. Only where there is a base model: `parts.base`."""
    text, mirror = parts.wording.text, Mirror(parts)
    with gr.Accordion(text("mirror.title"), open=False, elem_id="mirror") as whole:
        gr.Markdown(text("mirror.what"))
        again = gr.Button(text("mirror.compare"), elem_id="mirror-compare")
        told = gr.HTML(elem_id="mirror-told", js_on_load=WATCH)
        with gr.Row(elem_id="mirror-sides"):
            left, right = (gr.HTML(elem_id=f"mirror-{side}") for side in get_args(Side))
        with gr.Row(visible=False, elem_id="mirror-choices") as choices:
            buttons = {choice: gr.Button(text(f"mirror.{choice}")) for choice in get_args(Choice)}
        with gr.Row(visible=False, elem_id="mirror-files") as files:
            saves = {kind: gr.Button(text(f"mirror.{kind}"), size="sm") for kind in ("json", "csv")}
    made = gr.JSON(visible=False)
    opened, pair, tally, latest = gr.State(False), gr.State(None), gr.State(Tally()), gr.State(Latest())

    shown = [left, right, choices, told, pair]
    asking = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
    whole.expand(_opened, None, opened, **asking)
    whole.collapse(_closed, None, [*shown, opened], **asking)
    inputs = [heard.recording, tally, latest]
    heard.recording.change(_recorded, [heard.recording, latest], None, **asking)
    heard.ready.then(mirror.after_hearing, [*inputs, opened, heard.segments], [*shown, tally], **asking)
    again.click(mirror.compare, inputs, [*shown, tally], **asking)
    for choice, button in buttons.items():
        button.click(getattr(mirror, f"pick_{choice}"), [pair, tally], [*shown, tally, files], **asking)
    for kind, button in saves.items():
        button.click(getattr(mirror, kind), tally, made, **asking).success(None, made, None, js=SAVE)


def _recorded(recording: str | None, latest: Latest) -> None:
    latest.recording = recording


def _opened() -> bool:
    return True


def _closed() -> tuple:
    """Forget a pair that waits for its pick: a closed mirror shows the text."""
    return *Shown(), False


class Mirror:
    """What the mirror answers. Nothing of a visitor is in it: that comes and goes with the arguments."""

    def __init__(self, parts: Parts):
        self.parts = parts

    def after_hearing(
        self,
        recording: str | None,
        tally: Tally,
        latest: Latest,
        opened: bool,
        segments: tuple[Segment, ...],
        request: gr.Request,
    ) -> Iterator[tuple]:
        """Compare what was just heard if the mirror is open: then nobody has read its text yet, the first time."""
        seen = latest.heard == recording
        if segments:
            latest.heard = recording
        if opened and segments:
            yield from self._compared(recording, tally, latest, request, seen)
        else:
            yield *Shown(), tally

    def compare(self, recording: str | None, tally: Tally, latest: Latest, request: gr.Request) -> Iterator[tuple]:
        """Compare a recording whose text was in sight."""
        yield from self._compared(recording, tally, latest, request, seen=True)

    def pick_left(self, pair: Pair | None, tally: Tally, request: gr.Request) -> tuple:
        """Count a pick, tell which side was which, and how much the count means."""
        return self._picked("left", pair, tally, request)

    def pick_right(self, pair: Pair | None, tally: Tally, request: gr.Request) -> tuple:
        """As `pick_left`."""
        return self._picked("right", pair, tally, request)

    def pick_both(self, pair: Pair | None, tally: Tally, request: gr.Request) -> tuple:
        """As `pick_left`."""
        return self._picked("both", pair, tally, request)

    def pick_none(self, pair: Pair | None, tally: Tally, request: gr.Request) -> tuple:
        """As `pick_left`."""
        return self._picked("none", pair, tally, request)

    def json(self, tally: Tally, request: gr.Request) -> dict[str, str]:
        """Return all picks as a file that the browser saves."""
        models = [name_of(one) for one in (self.parts.transcriber, self.parts.base())]
        text = as_json(tally, *models, verdict(tally, partial(self.parts.wording.said, request)))
        return {"name": "espejo.json", "kind": "application/json", "text": text}

    def csv(self, tally: Tally) -> dict[str, str]:
        """Return all picks as a file that the browser saves."""
        return {"name": "espejo.csv", "kind": "text/csv", "text": as_csv(tally)}

    def _compared(
        self, recording: str | None, tally: Tally, latest: Latest, request: gr.Request, seen: bool
    ) -> Iterator[tuple]:
        """Yield what to show while both models hear the clip, and after. Whatever happens, there is a sentence."""
        said, waits = partial(self.parts.wording.said, request), "" if seen else WAITS
        latest.recording = recording
        try:
            for ahead_or_pair in self._heard(recording, request, seen):
                if latest.recording != recording:  # what is told now would let the newer text be read
                    return
                if isinstance(ahead_or_pair, Pair):
                    yield self._compared_pair(ahead_or_pair, tally, said)
                else:
                    key = "mirror.waiting" if ahead_or_pair else "mirror.hearing"
                    yield *Shown(told=note(said(key, ahead=ahead_or_pair), waits)), tally
        except Refusal as refusal:
            yield *Shown(told=note(said(refusal.key, **refusal.values))), tally
        except LenguaError:
            log.exception("the mirror has no base model")
            yield *Shown(told=note(said("mirror.no_base"))), tally
        except Exception:  # the log has the trace
            log.exception("comparing failed")
            yield *Shown(told=note(said("mirror.failed"))), tally

    def _heard(self, recording: str | None, request: gr.Request, seen: bool) -> Iterator[int | Pair]:
        """Yield how many are ahead while waiting, 0 when both begin to hear, and the pair.

        Raises:
            Refusal: the recording is not let in, or longer than a model hears at once.
            LenguaError: there is no base model.
        """
        samples = self.parts.admission.admit(recording, request)
        if samples is None:
            raise Refusal("mirror.too_long")
        yield 0
        base = self.parts.base()
        with self.parts.admission.line.enter() as turn:
            while ahead := turn.wait(seconds=1.0):
                yield ahead
            texts = [one.transcribe(samples).text for one in (self.parts.transcriber, base)]
        side = secrets.choice(get_args(Side))
        left, right = texts if side == "left" else reversed(texts)
        yield Pair(left, right, side, seen, audio.duration_s(samples))

    def _compared_pair(self, pair: Pair, tally: Tally, said: Callable[..., str]) -> tuple:
        """Return what to show of a pair: both sides to pick from, or, where they are alike, which is which at once."""
        if pair.alike:
            return *self._revealed(pair, said, said("mirror.alike")), replace(tally, alike=tally.alike + 1)
        left, right = (self._panel(pair, side, said) for side in get_args(Side))
        told = note(said("mirror.pick_seen")) if pair.seen else note(said("mirror.pick"), WAITS)
        return *Shown(left, right, gr.update(visible=True), told, pair), tally

    def _picked(self, choice: Choice, pair: Pair | None, tally: Tally, request: gr.Request) -> tuple:
        if pair is None or len(tally.picks) >= MOST_PICKS:  # pressed twice, or by a program
            return *(gr.skip() for _ in Shown._fields), tally, gr.skip()
        said = partial(self.parts.wording.said, request)
        tally = replace(tally, picks=(*tally.picks, Pick(pair, choice)))
        return *self._revealed(pair, said, verdict(tally, said)), tally, gr.update(visible=True)

    def _revealed(self, pair: Pair, said: Callable[..., str], told: str) -> Shown:
        left, right = (self._panel(pair, side, said, named=True) for side in get_args(Side))
        return Shown(left, right, told=note(told))

    def _panel(self, pair: Pair, side: Side, said: Callable[..., str], named: bool = False) -> str:
        """Return one side as HTML; named: with the model that it is of."""
        text, other = (pair.left, pair.right) if side == "left" else (pair.right, pair.left)
        model = f" · {said('mirror.tuned' if side == pair.tuned else 'mirror.base')}" if named else ""
        name = html.escape(said(f"mirror.{side}") + model)
        nothing = f"<p class='nothing-heard'>{html.escape(said('mirror.nothing'))}</p>"
        body = differing(text, other, self.parts.transcriber.language) if text else nothing
        return f"<section aria-label='{name}'><p class='side-name'>{name}</p>{body}</section>"
