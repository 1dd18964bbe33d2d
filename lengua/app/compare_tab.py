"""Espejo: one clip transcribed by the base and the fine-tuned model, in blind order; the reader picks the right one.

While the comparison is open, the transcript above waits until the reader has picked, because it would tell which side
is which. Picks are in the visit's own gr.State; the file to download is made in the browser.

    pair = BlindPair(left="hola", right="ola", tuned="left")
    tally = Tally((Pick(pair, "left"),))
    tally.counts["tuned"] == 1
    chance_bound(9, 0) == 10 / 512     if both models were alike, 9 to 0 would occur in one visit of 51
"""

import csv
import html
import io
import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import comb
from typing import Literal, NamedTuple, get_args

import gradio as gr

from lengua import audio
from lengua.app.context import AppContext, model_display_name
from lengua.app.highlighting import highlight_differences, live_note
from lengua.app.limits import Refusal
from lengua.app.microphone import HIDDEN_EVENT, MicrophoneOutput, save_on_click
from lengua.inference import Segment
from lengua.runtime.errors import LenguaError
from lengua.scoring.normalizer import normalise

PairSide = Literal["left", "right"]
PickChoice = Literal["left", "right", "both", "none"]
PICK_OUTCOMES = ("tuned", "base", "both", "none")
SIGNIFICANCE_LEVEL = 0.05
"""A count that chance gives to at most one visit in twenty is called one that means something."""
MAX_PICKS = 500
"""In one visit."""


@dataclass(frozen=True)
class BlindPair:
    """The transcripts of one clip by two models, in the order in which they were shown."""

    left: str
    right: str
    tuned: PairSide
    """Where the fine-tuned model stood."""
    seen: bool = False
    """The reader could have read the fine-tuned model's text before, so the pick is not blind."""
    seconds: float = 0.0
    """Of the clip."""

    @property
    def alike(self) -> bool:
        """Whether both are the same words: there is nothing to pick."""
        return normalise(self.left) == normalise(self.right)


@dataclass(frozen=True)
class Pick:
    """What a reader picked."""

    pair: BlindPair
    choice: PickChoice

    @property
    def winner(self) -> str:
        """One of PICK_OUTCOMES."""
        sides = {side: "tuned" if side == self.pair.tuned else "base" for side in get_args(PairSide)}
        return sides.get(self.choice, self.choice)


@dataclass(frozen=True)
class Tally:
    """All picks of a visit."""

    picks: tuple[Pick, ...] = ()
    alike: int = 0
    """Clips in which both models wrote the same words."""

    @property
    def counts(self) -> dict[str, int]:
        """How often each won, over the picks that were blind."""
        counts = Counter(pick.winner for pick in self.picks if not pick.pair.seen)
        return {winner: counts[winner] for winner in PICK_OUTCOMES}

    @property
    def seen(self) -> int:
        """Picks that do not count, because the text had been in sight."""
        return sum(pick.pair.seen for pick in self.picks)


def chance_bound(tuned: int, base: int) -> float:
    """Return a bound on how many visits would ever show such a count if both models were alike; at most 1.

    The reader sees the count after every pick and stops when it pleases, so a usual test would promise too much. This
    is one over the martingale of the uniform mixture, 2^n / ((n + 1) C(n, k)): Ville's inequality holds however often
    one looks (Robbins 1970, Annals of Mathematical Statistics 41(5)). Picks of both and none say nothing here.
    """
    n = tuned + base
    return min(1.0, (n + 1) * comb(n, tuned) / 2**n)


def picks_still_needed(tuned: int, base: int) -> int:
    """Return how many picks more, all for the one that leads, it takes until the count means something."""
    more, leads, trails = 0, max(tuned, base), min(tuned, base)
    while chance_bound(leads + more, trails) > SIGNIFICANCE_LEVEL:
        more += 1
    return more


MIN_PICKS = picks_still_needed(0, 0)
"""Picks below which no count means anything, not even all for one."""


def picks_as_json(tally: Tally, tuned: str, base: str, verdict: str) -> str:
    """Return all picks as JSON; tuned and base are the names of the models, verdict the sentence of the page."""
    value = {
        "models": {"tuned": tuned, "base": base},
        "counts": tally.counts | {"alike": tally.alike, "not_blind": tally.seen},
        "by_chance": chance_bound(tally.counts["tuned"], tally.counts["base"]),
        "verdict": verdict,
        "picks": [_row(pick) for pick in tally.picks],
    }
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def picks_as_csv(tally: Tally) -> str:
    """Return all picks as CSV. A text that a spreadsheet would take for a formula gets an apostrophe in front."""
    rows = [{name: _harmless(cell) for name, cell in _row(pick).items()} for pick in tally.picks]
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(_row(Pick(BlindPair("", "", "left"), "none"))))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _row(pick: Pick) -> dict:
    pair = pick.pair
    tuned, base = (pair.left, pair.right) if pair.tuned == "left" else (pair.right, pair.left)
    row = {"picked": pick.winner, "side": pick.choice, "blind": not pair.seen, "seconds": round(pair.seconds, 2)}
    return row | {"tuned": tuned, "base": base}


def _harmless(cell):
    formula = isinstance(cell, str) and (cell.startswith(("\t", "\r")) or cell.lstrip().startswith(tuple("=+-@")))
    return f"'{cell}" if formula else cell


def tally_verdict(tally: Tally, message: Callable[..., str]) -> str:
    """Return the counts in words, and how much they mean.

    Args:
        message: gives the sentence of a key, its values filled in: `functools.partial(wording.message, request)`.
    """
    counts = tally.counts
    tuned, base = counts["tuned"], counts["base"]
    chance = chance_bound(tuned, base)
    sentences = [message("mirror.count", **counts)]
    if chance <= SIGNIFICANCE_LEVEL:
        leader = message("mirror.tuned" if tuned > base else "mirror.base")
        sentences.append(message("mirror.means", odds=int(1 / chance), leader=leader))
    else:
        sentences.append(message("mirror.chance", more=picks_still_needed(tuned, base), fewest=MIN_PICKS))
    for key, count in (("mirror.seen", tally.seen), ("mirror.also_alike", tally.alike)):
        if count:
            sentences.append(message(key, count=count))
    return " ".join(sentences)


class MirrorOutputs(NamedTuple):
    """What the mirror shows, in the order of its outputs."""

    left: str = ""
    right: str = ""
    choices: dict = gr.update(visible=False)
    note: str = ""
    pair: BlindPair | None = None


class LatestRecording:
    """The recording that is in the page: a `gr.State` holds it, so that work on an older one sees that it is late."""

    def __init__(self):
        self.recording: str | None = None
        self.read: str | None = None
        """Of which the visitor had a text; decoded once more, say with other options, it is not blind."""


WAITING_CLASS = "mirror-waits"
"""The class of a sentence while the text above waits: lengua/assets/app_words.css hides it."""
WATCH_SCRIPT = f"""
const mirror = document.querySelector("#mirror");
new ResizeObserver(() => {{
    const begun = !mirror.offsetHeight && document.querySelector("#text textarea")?.value === "";
    if (begun && mirror.querySelector("button.open")) props.value = "<p class='{WAITING_CLASS}'></p>";
}}).observe(mirror);
"""
"""The page clears the text for a new recording, and hides what stands below it. From then on its text waits; an event
of Gradio's would come behind those of the microphone, and the text be read before."""


def build_compare_tab(parts: AppContext, source: MicrophoneOutput) -> None:
    """Make the mirror in an accordion of its own. Only where there is a base model: `parts.base`."""
    t, mirror = parts.wording.text, MirrorHandlers(parts)
    with gr.Accordion(t("mirror.title"), open=False, elem_id="mirror") as accordion:
        gr.Markdown(t("mirror.what"))
        again = gr.Button(t("mirror.compare"), elem_id="mirror-compare")
        note = gr.HTML(elem_id="mirror-told", js_on_load=WATCH_SCRIPT)
        with gr.Row(elem_id="mirror-sides"):
            left, right = (gr.HTML(elem_id=f"mirror-{side}") for side in get_args(PairSide))
        with gr.Row(visible=False, elem_id="mirror-choices") as choices:
            buttons = {choice: gr.Button(t(f"mirror.{choice}")) for choice in get_args(PickChoice)}
        with gr.Row(visible=False, elem_id="mirror-files") as files:
            saves = {kind: gr.Button(t(f"mirror.{kind}"), size="sm") for kind in ("json", "csv")}
    opened, pair, tally, latest = gr.State(False), gr.State(None), gr.State(Tally()), gr.State(LatestRecording())

    shown, given = [left, right, choices, note, pair], [source.recording, tally, latest]
    accordion.expand(lambda: True, None, opened, **HIDDEN_EVENT)
    # A closed mirror shows the text: a pair that waits for its pick is forgotten.
    accordion.collapse(lambda: (*MirrorOutputs(), False), None, [*shown, opened], **HIDDEN_EVENT)
    source.recording.change(mirror.recorded, [source.recording, latest], None, **HIDDEN_EVENT)
    source.ready.then(mirror.after_transcribing, [*given, opened, source.segments], [*shown, tally], **HIDDEN_EVENT)
    again.click(mirror.compare, given, [*shown, tally], **HIDDEN_EVENT)
    for choice, button in buttons.items():
        # Of a partial Gradio does not see that it wants the request; so the choice is a constant state.
        button.click(mirror.pick, [gr.State(choice), pair, tally], [*shown, tally, files], **HIDDEN_EVENT)
    for kind, button in saves.items():
        save_on_click(button, getattr(mirror, kind), tally)


class MirrorHandlers:
    """What the mirror answers. Nothing of a visitor is in it: that comes and goes with the arguments."""

    def __init__(self, parts: AppContext):
        self.parts = parts

    def recorded(self, recording: str | None, latest: LatestRecording) -> None:
        """Note which recording is in the page."""
        latest.recording = recording

    def after_transcribing(
        self,
        recording: str | None,
        tally: Tally,
        latest: LatestRecording,
        opened: bool,
        segments: tuple[Segment, ...],
        request: gr.Request,
    ) -> Iterator[tuple]:
        """Compare the new recording if the mirror is open: then nobody has read its text yet, the first time."""
        seen = latest.read == recording
        if segments:
            latest.read = recording
        if opened and segments:
            yield from self.compare(recording, tally, latest, request, seen)
        else:
            yield *MirrorOutputs(), tally

    def compare(
        self, recording: str | None, tally: Tally, latest: LatestRecording, request: gr.Request, seen: bool = True
    ) -> Iterator[tuple]:
        """Yield what to show while both models decode the clip, and after. Whatever happens, there is a sentence.

        Args:
            seen: its text was in sight.
        """
        message, waits = partial(self.parts.wording.message, request), "" if seen else WAITING_CLASS
        latest.recording = recording
        try:
            for ahead_or_pair in self._transcribe(recording, request, seen):
                if latest.recording != recording:  # what is shown now would let the newer text be read
                    return
                if isinstance(ahead_or_pair, BlindPair):
                    yield self._show(ahead_or_pair, tally, message)
                else:
                    key = "mirror.waiting" if ahead_or_pair else "mirror.hearing"
                    yield *MirrorOutputs(note=live_note(message(key, ahead=ahead_or_pair), waits)), tally
        except Exception as error:
            key = "mirror.no_base" if isinstance(error, LenguaError) else "mirror.failed"
            yield *MirrorOutputs(note=live_note(self.parts.failure_sentence(error, request, key))), tally

    def pick(self, choice: PickChoice, pair: BlindPair | None, tally: Tally, request: gr.Request) -> tuple:
        """Count a pick, tell which side was which, and how much the count means."""
        if pair is None or len(tally.picks) >= MAX_PICKS:  # pressed twice, or by a program
            return *(gr.skip() for _ in MirrorOutputs._fields), tally, gr.skip()
        message = partial(self.parts.wording.message, request)
        tally = replace(tally, picks=(*tally.picks, Pick(pair, choice)))
        return *self._reveal(pair, message, tally_verdict(tally, message)), tally, gr.update(visible=True)

    def json(self, tally: Tally, request: gr.Request) -> dict[str, str]:
        """Return all picks as a file that the browser saves."""
        models = [model_display_name(one) for one in (self.parts.transcriber, self.parts.base())]
        text = picks_as_json(tally, *models, tally_verdict(tally, partial(self.parts.wording.message, request)))
        return {"name": "espejo.json", "kind": "application/json", "text": text}

    def csv(self, tally: Tally) -> dict[str, str]:
        """Return all picks as a file that the browser saves."""
        return {"name": "espejo.csv", "kind": "text/csv", "text": picks_as_csv(tally)}

    def _transcribe(self, recording: str | None, request: gr.Request, seen: bool) -> Iterator[int | BlindPair]:
        """Yield how many are ahead while waiting, 0 when both begin, and the pair.

        Raises:
            Refusal: the recording is not admitted, or longer than a model decodes at once.
            LenguaError: there is no base model.
        """
        samples = self.parts.admission.admit(recording, request)
        if samples is None:
            raise Refusal("mirror.too_long")
        yield 0
        base = self.parts.base()
        with self.parts.admission.line.enter() as ticket:
            while ahead := ticket.wait(seconds=1.0):
                yield ahead
            texts = [one.transcribe(samples).text for one in (self.parts.transcriber, base)]
        side = secrets.choice(get_args(PairSide))
        left, right = texts if side == "left" else reversed(texts)
        yield BlindPair(left, right, side, seen, audio.duration_s(samples))

    def _show(self, pair: BlindPair, tally: Tally, message: Callable[..., str]) -> tuple:
        """Return what to show of a pair: both sides to pick from, or, where they are alike, which is which at once."""
        if pair.alike:
            return *self._reveal(pair, message, message("mirror.alike")), replace(tally, alike=tally.alike + 1)
        left, right = (self._panel(pair, side, message) for side in get_args(PairSide))
        note = live_note(message("mirror.pick_seen")) if pair.seen else live_note(message("mirror.pick"), WAITING_CLASS)
        return *MirrorOutputs(left, right, gr.update(visible=True), note, pair), tally

    def _reveal(self, pair: BlindPair, message: Callable[..., str], sentence: str) -> MirrorOutputs:
        left, right = (self._panel(pair, side, message, named=True) for side in get_args(PairSide))
        return MirrorOutputs(left, right, note=live_note(sentence))

    def _panel(self, pair: BlindPair, side: PairSide, message: Callable[..., str], named: bool = False) -> str:
        """Return one side as HTML; named: with the model that it is of."""
        text, other = (pair.left, pair.right) if side == "left" else (pair.right, pair.left)
        model = f" · {message('mirror.tuned' if side == pair.tuned else 'mirror.base')}" if named else ""
        name = html.escape(message(f"mirror.{side}") + model)
        nothing = f"<p class='nothing-heard'>{html.escape(message('mirror.nothing'))}</p>"
        body = highlight_differences(text, other, self.parts.transcriber.language) if text else nothing
        return f"<section aria-label='{name}'><p class='side-name'>{name}</p>{body}</section>"
