"""Corregir y guardar: put the text right, and keep recording and text as something that the next training learns from.

What is kept lies in a folder of this visit, which leaves it as a ZIP and is forgotten with it. Only where whoever runs
the app names a folder with LENGUA_KEEP_DIR does it also go there, and then the box to tick names that folder.
"""

import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import gradio as gr

from lengua import audio
from lengua.app.admission import Refusal
from lengua.app.hearing import Heard, Hearing, hear
from lengua.app.kept import MOST_LETTERS, MOST_S, Bounds, Clip, KeptFolder, corrected, lasting_folder, write_zip
from lengua.app.parts import Parts, name_of
from lengua.app.tinting import doubtful, legend, note, tinted
from lengua.app.visits import LONGEST_S, Visits
from lengua.transcription import Segment

OF_A_VISIT = Bounds(clips=200, seconds=30 * 60)
MOST_TEXT = 100_000
"""Letters of a corrected text that are looked at at all."""
FOLDER = "grabaciones"
"""What the folder of recordings is called in a ZIP."""

log = logging.getLogger(__name__)

Said = Callable[..., str]


@dataclass(frozen=True)
class Draft:
    """A recording whose text is being put right."""

    recording: str
    segments: tuple[Segment, ...]
    take: str
    """Names it among what is kept, so that a second thought replaces the first."""


@dataclass(frozen=True)
class Visit:
    """Where a visitor keeps recordings, and the name that stands for the voice."""

    folder: Path
    speaker: str


class Sheet(NamedTuple):
    """What there is to correct, in the order of its outputs."""

    words: str = ""
    told: str = ""
    text: str = ""
    draft: Draft | None = None
    consent: bool = False
    """Asked for anew with each recording."""
    prepare: dict = gr.update(visible=False)


def mode(parts: Parts, heard: Heard, environ: Mapping[str, str] = os.environ) -> None:
    """Make the mode in an accordion of its own.

    Raises:
        RequestError: the folder that the environment names cannot be used.
    """
    said, lasting = parts.wording.text, lasting_folder(environ)
    with gr.Accordion(said("keeping.title"), open=False, elem_id="keeping") as whole:
        gr.Markdown(said("keeping.what"))
        if lasting is None:
            gr.Markdown(said("keeping.ends"))
        prepare = gr.Button(said("keeping.prepare"), visible=False, elem_id="keeping-prepare")
        words = gr.HTML(elem_id="keeping-words")
        text = _text_box(said)
        consent = gr.Checkbox(label=_consent_label(said, lasting), elem_id="keeping-consent")
        with gr.Row():
            keep = gr.Button(said("keeping.keep"), variant="primary", interactive=False, elem_id="keeping-keep")
            download = gr.DownloadButton(said("keeping.download"), visible=False, elem_id="keeping-download")
            forget = gr.Button(said("keeping.forget"), visible=False, elem_id="keeping-forget")
        told = gr.HTML(elem_id="keeping-told")
    keeping = Keeping(parts, Visits(Path(download.GRADIO_CACHE)), lasting)
    opened, draft = gr.State(False), gr.State(None)
    visit = gr.State(None, time_to_live=LONGEST_S, delete_callback=keeping.end)

    asking = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
    sheet, source = [words, told, text, draft, consent, prepare], [heard.recording, heard.segments, draft]
    whole.expand(_opened, None, opened, **asking).then(keeping.on_opening, source, sheet, **asking)
    whole.collapse(_closed, None, opened, **asking)
    heard.ready.then(keeping.after_hearing, [*source, opened], sheet, **asking)
    prepare.click(keeping.prepare, source, sheet, **asking)
    consent.change(_allowed, consent, keep, **asking)
    buttons = [download, forget]
    one_by_one = asking | {"concurrency_limit": 1}  # they decode and write files
    keep.click(keeping.keep, [draft, text, consent, visit], [told, visit, *buttons], **one_by_one)
    forget.click(keeping.forget, visit, [told, visit, *buttons], **one_by_one)


def _consent_label(said, lasting: KeptFolder | None):
    return said("keeping.consent") if lasting is None else said("keeping.consent_lasting") + f" «{lasting.folder.name}»"


def _text_box(said) -> gr.Textbox:
    return gr.Textbox(
        label=said("keeping.text"),
        info=said("keeping.text_info"),
        lines=3,
        max_lines=12,
        max_length=MOST_TEXT,
        interactive=True,
        elem_id="keeping-text",
    )


def _opened() -> bool:
    return True


def _closed() -> bool:
    return False


def _allowed(consent: bool) -> dict:
    return gr.update(interactive=bool(consent))


class Keeping:
    """What the mode answers. Nothing of a visitor is in it: that comes and goes with the arguments."""

    def __init__(self, parts: Parts, visits: Visits, lasting: KeptFolder | None = None):
        self.parts, self.visits, self.lasting = parts, visits, lasting

    def on_opening(
        self, recording: str | None, segments: tuple[Segment, ...], draft: Draft | None, request: gr.Request
    ) -> Iterator[tuple]:
        """Lay out what was heard, unless it is laid out already."""
        if draft is not None and draft.recording == recording:
            yield tuple(gr.skip() for _ in Sheet._fields)
        else:
            yield from self.after_hearing(recording, segments, draft, True, request)

    def after_hearing(
        self,
        recording: str | None,
        segments: tuple[Segment, ...],
        draft: Draft | None,
        opened: bool,
        request: gr.Request,
    ) -> Iterator[tuple]:
        """Lay out what was just heard where somebody looks; a long recording only when it is asked for."""
        if not (opened and recording and segments):
            yield Sheet()
        elif segments[-1].end_s > MOST_S:
            yield Sheet(told=self._note(request, "keeping.long"), prepare=gr.update(visible=True))
        else:
            yield from self.prepare(recording, segments, draft, request)

    def prepare(
        self, recording: str | None, segments: tuple[Segment, ...], draft: Draft | None, request: gr.Request
    ) -> Iterator[tuple]:
        """Hear a recording once more, word by word, as it was said: what was shown may be a translation."""
        if not (recording and segments):
            yield Sheet(told=self._note(request, "keeping.nothing"))
            return
        try:
            language, words = segments[0].language or None, self.parts.transcriber.engine.aligns
            for hearing in hear(self.parts, recording, request, language, words=words):
                yield Sheet(told=self._progress(hearing, request))
        except Refusal as refusal:
            yield Sheet(told=self._note(request, refusal.key, **refusal.values))
        except Exception:  # the log has the trace
            log.exception("preparing failed")
            yield Sheet(told=self._note(request, "keeping.failed"))
        else:
            yield self._laid_out(recording, hearing, request)

    def keep(
        self, draft: Draft | None, text: str, consent: bool, visit: Visit | None, request: gr.Request
    ) -> tuple[str, Visit | None, dict, dict]:
        """Keep a recording and its text. Whatever happens, the visitor reads a sentence."""
        try:
            clips = self._clips(draft, text, consent)
            visit = visit or Visit(self.visits.open(), f"v{secrets.token_hex(6)}")
            rows = self._written(clips, draft.take, visit, partial(self.parts.wording.said, request))
            file = self._zipped(visit, len(rows), request)
        except Refusal as refusal:
            return self._note(request, refusal.key, **refusal.values), visit, gr.skip(), gr.skip()
        except Exception:  # the log has the trace
            log.exception("keeping failed")
            return self._note(request, "keeping.failed"), visit, gr.skip(), gr.skip()
        seconds = round(sum(row["duration_s"] for row in rows))
        told = self._note(request, "keeping.kept", clips=len(rows), seconds=seconds)
        return told, visit, gr.update(value=str(file), visible=True), gr.update(visible=True)

    def forget(self, visit: Visit | None, request: gr.Request) -> tuple[str, None, dict, dict]:
        """Remove all that was kept in this visit, from a lasting folder, too."""
        if visit is not None and self.lasting is not None:
            self.lasting.forget(visit.speaker)
        self.end(visit)
        return self._note(request, "keeping.forgotten"), None, gr.update(value=None, visible=False), _hidden()

    def end(self, visit: Visit | None) -> None:
        """Remove the folder of a visit that is over; a lasting folder keeps what it was given."""
        self.visits.forget(visit and visit.folder)

    def _clips(self, draft: Draft | None, text: str, consent: bool) -> list[Clip]:
        if consent is not True:
            raise Refusal("keeping.consent_first")
        if draft is None:
            raise Refusal("keeping.nothing")
        if len(text) > MOST_TEXT:
            raise Refusal("keeping.too_many_letters", letters=MOST_LETTERS)
        if not Path(draft.recording).exists():  # after two hours: see lengua.app.page.DELETED
            raise Refusal("keeping.gone")
        samples = self.parts.admission.load(draft.recording)
        if samples is None:
            samples = audio.load(draft.recording, max_seconds=self.parts.admission.limits.seconds)
        return corrected(samples, draft.segments, text, self.parts.transcriber.language)

    def _written(self, clips: list[Clip], take: str, visit: Visit, said: Said) -> list[dict]:
        """Write clips into every folder that they were given for; return what this visit kept so far."""
        agreed = said("keeping.consent")
        if self.lasting is not None:
            agreed = f"{said('keeping.consent_lasting')} «{self.lasting.folder.name}»"
        facts = {"model": name_of(self.parts.transcriber), "consent": agreed}
        if self.lasting is not None:
            self.lasting.add(clips, take, visit.speaker, **facts)
        return KeptFolder(visit.folder / FOLDER, OF_A_VISIT).add(clips, take, visit.speaker, **facts)

    def _zipped(self, visit: Visit, clips: int, request: gr.Request) -> Path:
        """Write all that this visit kept as a ZIP, under a new name each time: browsers keep what they had by name."""
        for old in visit.folder.glob("*.zip"):
            old.unlink(missing_ok=True)
        said = partial(self.parts.wording.said, request)
        out = visit.folder / f"{FOLDER}-{clips}-{secrets.token_hex(2)}.zip"
        return write_zip(visit.folder / FOLDER, out, FOLDER, [(said("keeping.readme"), said("keeping.readme_text"))])

    def _laid_out(self, recording: str, hearing: Hearing, request: gr.Request) -> Sheet:
        said, segments = partial(self.parts.wording.said, request), hearing.segments
        long = (hearing.duration_s or hearing.position_s) > MOST_S
        text = ("\n" if long else " ").join(segment.text for segment in segments)
        shown = tinted(segments, hearing.language)
        if not any(segment.words for segment in segments):
            shown += note(said("keeping.no_times"))
        elif unsure := doubtful(segments):
            kinds = [(kind, said(f"keeping.{kind}")) for kind in ("doubtful", "guessed")]
            shown += legend(kinds) + note(said("keeping.unsure", words=", ".join(f"«{word}»" for word in unsure)))
        else:
            shown += note(said("keeping.all_sure"))
        told = note(said("keeping.lines_info", segments=len(segments))) if long else ""
        return Sheet(shown, told, text, Draft(recording, segments, secrets.token_hex(6)))

    def _progress(self, hearing: Hearing, request: gr.Request) -> str:
        if hearing.step == "waiting":
            return self._note(request, "keeping.waiting", ahead=hearing.ahead)
        return self._note(request, "keeping.reading", seconds=round(hearing.position_s))

    def _note(self, request: gr.Request, key: str, **values) -> str:
        return note(self.parts.wording.said(request, key, **values))


def _hidden() -> dict:
    return gr.update(visible=False)
