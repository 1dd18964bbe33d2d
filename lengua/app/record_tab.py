"""Corregir y guardar: correct the text, and keep recording and text as training data.

They are kept in a folder of the visit, can be downloaded as a ZIP, and are deleted when the visit ends. Only if the
operator of the app names a folder with LENGUA_KEEP_DIR are they also kept there, and then the consent box names it.

    visits = VisitFolders(Path(download_button.GRADIO_CACHE))
    folder = visits.open()
    visits.forget(folder)

The path of a visit's folder is its only key: gradio serves what is in its cache to anyone who knows the path, which
cannot be guessed.
"""

import os
import secrets
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import gradio as gr

from lengua import audio
from lengua.app.context import AppContext, model_display_name
from lengua.app.highlighting import highlight_confidence, highlight_legend, live_note, unsure_words
from lengua.app.limits import FULL_WINDOW_S, Refusal
from lengua.app.microphone import HIDDEN_EVENT, MicrophoneOutput
from lengua.app.recordings import (
    MAX_CLIP_LETTERS,
    FolderBounds,
    RecordedClip,
    RecordingsFolder,
    corrected_clips,
    lasting_folder_of,
    write_recordings_zip,
)
from lengua.app.transcribing import TranscriptionProgress, transcribe_recording
from lengua.inference import Segment

VISITS_PREFIX = "lengua-visits-"
MAX_VISIT_S = 2 * 3600
"""A visit that keeps nothing more for so long has ended. Gradio ends one an hour after its page was closed."""
VISIT_BOUNDS = FolderBounds(clips=200, seconds=30 * 60)
MAX_CORRECTED_LETTERS = 100_000
"""Letters of a corrected text that are looked at at all."""
ZIP_FOLDER = "grabaciones"
"""What the folder of recordings is called in a ZIP."""


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


@dataclass(frozen=True)
class CorrectionDraft:
    """A recording whose text is being corrected."""

    recording: str
    segments: tuple[Segment, ...]
    take: str
    """Names it among what is kept, so that a second correction replaces the first."""


@dataclass(frozen=True)
class Visit:
    """Where a visitor keeps recordings, and the name that stands for the voice."""

    folder: Path
    speaker: str


class CorrectionOutputs(NamedTuple):
    """What there is to correct, in the order of its outputs."""

    words: str = ""
    note: str = ""
    text: str = ""
    draft: CorrectionDraft | None = None
    consent: bool = False
    """Asked for anew with each recording."""
    prepare: dict = gr.update(visible=False)


def build_record_tab(parts: AppContext, source: MicrophoneOutput, environ: Mapping[str, str] = os.environ) -> None:
    """Make the mode in an accordion of its own.

    Raises:
        RequestError: the folder that the environment names cannot be used.
    """
    t, lasting = parts.wording.text, lasting_folder_of(environ)
    with gr.Accordion(t("keeping.title"), open=False, elem_id="keeping") as accordion:
        gr.Markdown(t("keeping.what"))
        if lasting is None:
            gr.Markdown(t("keeping.ends"))
        prepare = gr.Button(t("keeping.prepare"), visible=False, elem_id="keeping-prepare")
        words = gr.HTML(elem_id="keeping-words")
        text = gr.Textbox(
            label=t("keeping.text"),
            info=t("keeping.text_info"),
            lines=3,
            max_lines=12,
            max_length=MAX_CORRECTED_LETTERS,
            interactive=True,
            elem_id="keeping-text",
        )
        consent = gr.Checkbox(label=consent_text(t, lasting), elem_id="keeping-consent")
        with gr.Row():
            keep = gr.Button(t("keeping.keep"), variant="primary", interactive=False, elem_id="keeping-keep")
            download = gr.DownloadButton(t("keeping.download"), visible=False, elem_id="keeping-download")
            forget = gr.Button(t("keeping.forget"), visible=False, elem_id="keeping-forget")
        note = gr.HTML(elem_id="keeping-told")
    keeping = RecordHandlers(parts, VisitFolders(Path(download.GRADIO_CACHE)), lasting)
    opened, draft = gr.State(False), gr.State(None)
    visit = gr.State(None, time_to_live=MAX_VISIT_S, delete_callback=keeping.end)

    shown, given = [words, note, text, draft, consent, prepare], [source.recording, source.segments, draft]
    opening = accordion.expand(lambda: True, None, opened, **HIDDEN_EVENT)
    opening.then(keeping.on_opening, given, shown, **HIDDEN_EVENT)
    accordion.collapse(lambda: False, None, opened, **HIDDEN_EVENT)
    source.ready.then(keeping.after_transcribing, [*given, opened], shown, **HIDDEN_EVENT)
    prepare.click(keeping.prepare, given[:2], shown, **HIDDEN_EVENT)
    consent.change(lambda consent: gr.update(interactive=bool(consent)), consent, keep, **HIDDEN_EVENT)
    changed, one_by_one = (
        [note, visit, download, forget],
        HIDDEN_EVENT | {"concurrency_limit": 1},
    )  # decode, write files
    keep.click(keeping.keep, [draft, text, consent, visit], changed, **one_by_one)
    forget.click(keeping.forget, visit, changed, **one_by_one)


def consent_text(t, lasting: RecordingsFolder | None) -> str:
    """Return what a visitor agrees to; a lasting folder is named. t: gives the text of a key."""
    return t("keeping.consent") if lasting is None else t("keeping.consent_lasting") + f" «{lasting.folder.name}»"


class RecordHandlers:
    """What the mode answers. Nothing of a visitor is in it: that comes and goes with the arguments."""

    def __init__(self, parts: AppContext, visits: VisitFolders, lasting: RecordingsFolder | None = None):
        self.parts, self.visits, self.lasting = parts, visits, lasting

    def on_opening(
        self, recording: str | None, segments: tuple[Segment, ...], draft: CorrectionDraft | None, request: gr.Request
    ) -> Iterator[tuple]:
        """Lay out the transcript, unless it is laid out already."""
        if draft is not None and draft.recording == recording:
            yield tuple(gr.skip() for _ in CorrectionOutputs._fields)
        else:
            yield from self.after_transcribing(recording, segments, draft, True, request)

    def after_transcribing(
        self,
        recording: str | None,
        segments: tuple[Segment, ...],
        draft: CorrectionDraft | None,
        opened: bool,
        request: gr.Request,
    ) -> Iterator[tuple]:
        """Lay out the new transcript where the accordion is open; a long recording only when it is asked for."""
        if not (opened and recording and segments):
            yield CorrectionOutputs()
        elif segments[-1].end_s > FULL_WINDOW_S:
            yield CorrectionOutputs(note=self._note(request, "keeping.long"), prepare=gr.update(visible=True))
        else:
            yield from self.prepare(recording, segments, request)

    def prepare(self, recording: str | None, segments: tuple[Segment, ...], request: gr.Request) -> Iterator[tuple]:
        """Decode a recording once more, word by word, in the language spoken: what was shown may be a translation."""
        if not (recording and segments):
            yield CorrectionOutputs(note=self._note(request, "keeping.nothing"))
            return
        language, words = segments[0].language or None, self.parts.transcriber.engine.aligns
        try:
            for progress in transcribe_recording(self.parts, recording, request, language, words=words):
                waits, values = progress.step == "waiting", {"ahead": progress.ahead}
                values["seconds"] = round(progress.position_s)
                yield CorrectionOutputs(
                    note=self._note(request, f"keeping.{'waiting' if waits else 'reading'}", **values)
                )
            yield self._laid_out(recording, progress, request)
        except Exception as error:
            yield CorrectionOutputs(note=self._failure(error, request))

    def keep(
        self, draft: CorrectionDraft | None, text: str, consent: bool, visit: Visit | None, request: gr.Request
    ) -> tuple[str, Visit | None, dict, dict]:
        """Keep a recording and its text. Whatever happens, the visitor reads a sentence."""
        try:
            clips = self._clips(draft, text, consent)
            visit = visit or Visit(self.visits.open(), f"v{secrets.token_hex(6)}")
            rows = self._write(clips, draft.take, visit, request)
            file = self._zip(visit, len(rows), request)
        except Exception as error:
            return self._failure(error, request), visit, gr.skip(), gr.skip()
        seconds = round(sum(row["duration_s"] for row in rows))
        note = self._note(request, "keeping.kept", clips=len(rows), seconds=seconds)
        return note, visit, gr.update(value=str(file), visible=True), gr.update(visible=True)

    def forget(self, visit: Visit | None, request: gr.Request) -> tuple[str, None, dict, dict]:
        """Remove all that was kept in this visit, from a lasting folder, too."""
        if visit is not None and self.lasting is not None:
            self.lasting.forget(visit.speaker)
        self.end(visit)
        hidden = gr.update(visible=False)
        return self._note(request, "keeping.forgotten"), None, gr.update(value=None, visible=False), hidden

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

    def _write(self, clips: list[RecordedClip], take: str, visit: Visit, request: gr.Request) -> list[dict]:
        """Write clips into every folder that they were given for; return what this visit kept so far."""
        agreed = consent_text(lambda key: self.parts.wording.message(request, key), self.lasting)
        facts = {"model": model_display_name(self.parts.transcriber), "consent": agreed}
        if self.lasting is not None:
            self.lasting.add(clips, take, visit.speaker, **facts)
        return RecordingsFolder(visit.folder / ZIP_FOLDER, VISIT_BOUNDS).add(clips, take, visit.speaker, **facts)

    def _zip(self, visit: Visit, clips: int, request: gr.Request) -> Path:
        """Write all that this visit kept as a ZIP, under a new name each time: browsers keep what they had by name."""
        for old in visit.folder.glob("*.zip"):
            old.unlink(missing_ok=True)
        name, text = (self.parts.wording.message(request, f"keeping.{key}") for key in ("readme", "readme_text"))
        out = visit.folder / f"{ZIP_FOLDER}-{clips}-{secrets.token_hex(2)}.zip"
        return write_recordings_zip(visit.folder / ZIP_FOLDER, out, ZIP_FOLDER, (name, text))

    def _laid_out(self, recording: str, progress: TranscriptionProgress, request: gr.Request) -> CorrectionOutputs:
        segments = progress.segments
        long = (progress.duration_s or progress.position_s) > FULL_WINDOW_S
        text = ("\n" if long else " ").join(segment.text for segment in segments)
        words = highlight_confidence(segments, progress.language)
        if not any(segment.words for segment in segments):
            words += self._note(request, "keeping.no_times")
        elif unsure := unsure_words(segments):
            kinds = [(kind, self.parts.wording.message(request, f"keeping.{kind}")) for kind in ("doubtful", "guessed")]
            quoted = ", ".join(f"«{word}»" for word in unsure)
            words += highlight_legend(kinds) + self._note(request, "keeping.unsure", words=quoted)
        else:
            words += self._note(request, "keeping.all_sure")
        note = self._note(request, "keeping.lines_info", segments=len(segments)) if long else ""
        return CorrectionOutputs(words, note, text, CorrectionDraft(recording, segments, secrets.token_hex(6)))

    def _note(self, request: gr.Request, key: str, **values) -> str:
        return live_note(self.parts.wording.message(request, key, **values))

    def _failure(self, error: Exception, request: gr.Request) -> str:
        return live_note(self.parts.failure_sentence(error, request, "keeping.failed"))
