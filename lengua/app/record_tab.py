"""Corregir y guardar: correct the text, and keep recording and text as training data.

They are kept in a folder of the visit, can be downloaded as a ZIP, and are deleted when the visit ends. Only if the
operator of the app names a folder with LENGUA_KEEP_DIR are they also kept there, and then the consent box names it.

    visits = VisitFolders(Path(download_button.GRADIO_CACHE))
    folder = visits.open()
    visits.forget(folder)

The path of a visit's folder is its only key: gradio serves what is in its cache to anyone who knows the path, which
cannot be guessed.
"""

import logging
import os
import secrets
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import gradio as gr

from lengua import audio
from lengua.app.context import AppContext, model_display_name
from lengua.app.highlighting import highlight_confidence, highlight_legend, live_note, unsure_words
from lengua.app.limits import Refusal
from lengua.app.recordings import (
    MAX_CLIP_LETTERS,
    MAX_CLIP_S,
    FolderBounds,
    RecordedClip,
    RecordingsFolder,
    corrected_clips,
    lasting_folder_of,
    write_recordings_zip,
)
from lengua.app.transcribing import MicrophoneOutput, TranscriptionProgress, transcribe_recording
from lengua.inference import Segment

VISITS_PREFIX = "lengua-visits-"
MAX_VISIT_S = 2 * 3600
"""A visit that keeps nothing more for so long has ended. Gradio ends one an hour after its page was closed."""


class VisitFolders:
    """The folders of all visits of a process, under one that goes with the process.

    Args:
        cache: the folder of gradio's cache; a file anywhere else is copied there when it is downloaded, and stays.
    """

    def __init__(self, cache: Path):
        self.cache = cache

    @cached_property
    def _own(self) -> Path:
        self.cache.mkdir(parents=True, exist_ok=True)
        own = Path(tempfile.mkdtemp(prefix=VISITS_PREFIX, dir=self.cache))
        weakref.finalize(self, shutil.rmtree, own, ignore_errors=True)
        return own

    def open(self) -> Path:
        """Return the new folder of a visit, and sweep away what visits that never ended have left."""
        folder = self._own / secrets.token_urlsafe(16)
        folder.mkdir(mode=0o700)
        self._sweep()
        return folder

    def forget(self, folder: Path | None) -> None:
        """Remove a visit's folder; None is the folder of a visit that kept nothing."""
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove folders of visits that gradio dropped without a word, and of processes that were killed."""
        ended = time.time() - MAX_VISIT_S - 3600
        for folder in self.cache.glob(f"{VISITS_PREFIX}*/*"):
            if _touched(folder) < ended:
                shutil.rmtree(folder, ignore_errors=True)


def _touched(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:  # another process was faster
        return time.time()


VISIT_BOUNDS = FolderBounds(clips=200, seconds=30 * 60)
MAX_CORRECTED_LETTERS = 100_000
"""Letters of a corrected text that are looked at at all."""
ZIP_FOLDER = "grabaciones"
"""What the folder of recordings is called in a ZIP."""

log = logging.getLogger(__name__)

TextLookup = Callable[..., str]


@dataclass(frozen=True)
class CorrectionDraft:
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


class CorrectionOutputs(NamedTuple):
    """What there is to correct, in the order of its outputs."""

    words: str = ""
    told: str = ""
    text: str = ""
    draft: CorrectionDraft | None = None
    consent: bool = False
    """Asked for anew with each recording."""
    prepare: dict = gr.update(visible=False)


def build_record_tab(parts: AppContext, heard: MicrophoneOutput, environ: Mapping[str, str] = os.environ) -> None:
    """Make the mode in an accordion of its own.

    Raises:
        RequestError: the folder that the environment names cannot be used.
    """
    said, lasting = parts.wording.text, lasting_folder_of(environ)
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
    keeping = RecordHandlers(parts, VisitFolders(Path(download.GRADIO_CACHE)), lasting)
    opened, draft = gr.State(False), gr.State(None)
    visit = gr.State(None, time_to_live=MAX_VISIT_S, delete_callback=keeping.end)

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


def _consent_label(said, lasting: RecordingsFolder | None):
    return said("keeping.consent") if lasting is None else said("keeping.consent_lasting") + f" «{lasting.folder.name}»"


def _text_box(said) -> gr.Textbox:
    return gr.Textbox(
        label=said("keeping.text"),
        info=said("keeping.text_info"),
        lines=3,
        max_lines=12,
        max_length=MAX_CORRECTED_LETTERS,
        interactive=True,
        elem_id="keeping-text",
    )


def _opened() -> bool:
    return True


def _closed() -> bool:
    return False


def _allowed(consent: bool) -> dict:
    return gr.update(interactive=bool(consent))


class RecordHandlers:
    """What the mode answers. Nothing of a visitor is in it: that comes and goes with the arguments."""

    def __init__(self, parts: AppContext, visits: VisitFolders, lasting: RecordingsFolder | None = None):
        self.parts, self.visits, self.lasting = parts, visits, lasting

    def on_opening(
        self, recording: str | None, segments: tuple[Segment, ...], draft: CorrectionDraft | None, request: gr.Request
    ) -> Iterator[tuple]:
        """Lay out what was heard, unless it is laid out already."""
        if draft is not None and draft.recording == recording:
            yield tuple(gr.skip() for _ in CorrectionOutputs._fields)
        else:
            yield from self.after_hearing(recording, segments, draft, True, request)

    def after_hearing(
        self,
        recording: str | None,
        segments: tuple[Segment, ...],
        draft: CorrectionDraft | None,
        opened: bool,
        request: gr.Request,
    ) -> Iterator[tuple]:
        """Lay out what was just heard where somebody looks; a long recording only when it is asked for."""
        if not (opened and recording and segments):
            yield CorrectionOutputs()
        elif segments[-1].end_s > MAX_CLIP_S:
            yield CorrectionOutputs(told=self._note(request, "keeping.long"), prepare=gr.update(visible=True))
        else:
            yield from self.prepare(recording, segments, draft, request)

    def prepare(
        self, recording: str | None, segments: tuple[Segment, ...], draft: CorrectionDraft | None, request: gr.Request
    ) -> Iterator[tuple]:
        """Hear a recording once more, word by word, as it was said: what was shown may be a translation."""
        if not (recording and segments):
            yield CorrectionOutputs(told=self._note(request, "keeping.nothing"))
            return
        try:
            language, words = segments[0].language or None, self.parts.transcriber.engine.aligns
            for hearing in transcribe_recording(self.parts, recording, request, language, words=words):
                yield CorrectionOutputs(told=self._progress(hearing, request))
        except Refusal as refusal:
            yield CorrectionOutputs(told=self._note(request, refusal.key, **refusal.values))
        except Exception:  # the log has the trace
            log.exception("preparing failed")
            yield CorrectionOutputs(told=self._note(request, "keeping.failed"))
        else:
            yield self._laid_out(recording, hearing, request)

    def keep(
        self, draft: CorrectionDraft | None, text: str, consent: bool, visit: Visit | None, request: gr.Request
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

    def _clips(self, draft: CorrectionDraft | None, text: str, consent: bool) -> list[RecordedClip]:
        if consent is not True:
            raise Refusal("keeping.consent_first")
        if draft is None:
            raise Refusal("keeping.nothing")
        if len(text) > MAX_CORRECTED_LETTERS:
            raise Refusal("keeping.too_many_letters", letters=MAX_CLIP_LETTERS)
        if not Path(draft.recording).exists():  # after two hours: see lengua.app.layout.CACHE_CLEANUP_S
            raise Refusal("keeping.gone")
        samples = self.parts.admission.load(draft.recording)
        if samples is None:
            samples = audio.load(draft.recording, max_seconds=self.parts.admission.limits.seconds)
        return corrected_clips(samples, draft.segments, text, self.parts.transcriber.language)

    def _written(self, clips: list[RecordedClip], take: str, visit: Visit, said: TextLookup) -> list[dict]:
        """Write clips into every folder that they were given for; return what this visit kept so far."""
        agreed = said("keeping.consent")
        if self.lasting is not None:
            agreed = f"{said('keeping.consent_lasting')} «{self.lasting.folder.name}»"
        facts = {"model": model_display_name(self.parts.transcriber), "consent": agreed}
        if self.lasting is not None:
            self.lasting.add(clips, take, visit.speaker, **facts)
        return RecordingsFolder(visit.folder / ZIP_FOLDER, VISIT_BOUNDS).add(clips, take, visit.speaker, **facts)

    def _zipped(self, visit: Visit, clips: int, request: gr.Request) -> Path:
        """Write all that this visit kept as a ZIP, under a new name each time: browsers keep what they had by name."""
        for old in visit.folder.glob("*.zip"):
            old.unlink(missing_ok=True)
        said = partial(self.parts.wording.said, request)
        out = visit.folder / f"{ZIP_FOLDER}-{clips}-{secrets.token_hex(2)}.zip"
        return write_recordings_zip(
            visit.folder / ZIP_FOLDER, out, ZIP_FOLDER, [(said("keeping.readme"), said("keeping.readme_text"))]
        )

    def _laid_out(self, recording: str, hearing: TranscriptionProgress, request: gr.Request) -> CorrectionOutputs:
        said, segments = partial(self.parts.wording.said, request), hearing.segments
        long = (hearing.duration_s or hearing.position_s) > MAX_CLIP_S
        text = ("\n" if long else " ").join(segment.text for segment in segments)
        shown = highlight_confidence(segments, hearing.language)
        if not any(segment.words for segment in segments):
            shown += live_note(said("keeping.no_times"))
        elif unsure := unsure_words(segments):
            kinds = [(kind, said(f"keeping.{kind}")) for kind in ("doubtful", "guessed")]
            shown += highlight_legend(kinds) + live_note(
                said("keeping.unsure", words=", ".join(f"«{word}»" for word in unsure))
            )
        else:
            shown += live_note(said("keeping.all_sure"))
        told = live_note(said("keeping.lines_info", segments=len(segments))) if long else ""
        return CorrectionOutputs(shown, told, text, CorrectionDraft(recording, segments, secrets.token_hex(6)))

    def _progress(self, hearing: TranscriptionProgress, request: gr.Request) -> str:
        if hearing.step == "waiting":
            return self._note(request, "keeping.waiting", ahead=hearing.ahead)
        return self._note(request, "keeping.reading", seconds=round(hearing.position_s))

    def _note(self, request: gr.Request, key: str, **values) -> str:
        return live_note(self.parts.wording.said(request, key, **values))


def _hidden() -> dict:
    return gr.update(visible=False)
