"""Microphone mode: record or upload, read the transcript as it is decoded, save it as text or subtitles."""

import json
import logging
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import gradio as gr

from lengua import audio
from lengua.app.context import AppContext, model_display_name
from lengua.app.limits import Refusal
from lengua.app.transcribing import MicrophoneOutput, StopSignal, progress_sentence, transcribe_recording
from lengua.inference import TRANSCRIPT_FORMATS, Segment
from lengua.inference.decoding import AUTO_LANGUAGE
from lengua.inference.subtitles import make_cues
from lengua.models.languages import LANGUAGE_NAMES
from lengua.models.tokens import PROMPT_TASKS
from lengua.runtime.files import ASSETS

WAVEFORM_GREY, WAVEFORM_ORANGE = "#a8a29e", "#ea580c"
UPLOAD_TYPES = ["audio", "video", ".opus", ".oga", ".amr", ".caf", ".mkv", ".m4b", ".gsm"]
"""What the file chooser of a browser shows; what a file really is, its content tells."""
STATE_LINE_TEMPLATE = """<p role="status" class="${value.endsWith('…') ? 'moving' : 'still'}${
    REFUSALS.some((one) => value.startsWith(one)) ? ' refused' : ''}">${value}</p>"""
"""What a sentence is, it tells itself: something goes on while it ends in "…", and a refusal begins like one."""
SAVE_BUTTON_FORMATS = {"TXT": "text", "SRT": "srt", "VTT": "vtt", "JSON": "json"}
MEDIA_TYPES = {"text": "text/plain", "srt": "application/x-subrip", "vtt": "text/vtt", "json": "application/json"}
SAVE_SCRIPT = """({name, kind, text}) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], {type: kind + ";charset=utf-8"}));
    link.download = name;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}"""
"""The file is made in the browser: nothing of what was said is written on the server."""
MICROPHONE_SCRIPT = (ASSETS / "microphone.js").read_text(encoding="utf-8")

log = logging.getLogger(__name__)


def build_microphone_tab(parts: AppContext) -> MicrophoneOutput:
    """Make the microphone mode in the present block, and return what the modes below it need."""
    said, handlers = parts.wording.text, MicrophoneHandlers(parts)
    recording = make_recorder(said("microphone.recorder"))
    upload = gr.UploadButton(said("microphone.upload"), file_types=UPLOAD_TYPES, size="md", elem_id="upload")
    with gr.Row(elem_id="told"):
        state = state_line(parts)
        halt = gr.Button(said("microphone.stop"), elem_id="stop", size="sm", scale=0)
    text = _text_box(said)
    segments, stop = gr.State(()), gr.State(StopSignal())
    _save_buttons(said, handlers, recording, segments)
    with gr.Accordion(said("microphone.options"), open=False, elem_id="options"):
        language = gr.Radio(handlers.languages(), value=parts.transcriber.language, label=said("microphone.language"))
        translate = gr.Checkbox(label=said("microphone.translate"), info=said("microphone.translate_info"))
    shown = [text, state]
    upload.upload(None, upload, recording, js="(file) => file")
    recording.start_recording(None, None, shown, js=outputs_script(said, "", "state.hearing"))
    asked = [recording.change, language.input, translate.input]
    gr.on(asked, None, recording, shown, js=_arrival_script(said))
    written = gr.on(
        asked,
        handlers.write,
        [recording, language, translate, stop],
        [text, state, segments],
        api_visibility="private",
        show_progress="hidden",
        concurrency_limit=None,  # who comes first is served first by the line of `admission`, over all modes
        trigger_mode="always_last",
    )
    written.failure(None, None, shown, js=outputs_script(said, None, "refusal.failed"))
    written.success(handlers.subtitles, segments, recording, **HIDDEN_EVENT)
    halt.click(handlers.stop, stop, None, **HIDDEN_EVENT)
    gr.on([recording.start_recording, recording.clear], handlers.drop, stop, None, **HIDDEN_EVENT)
    _endpoint(parts, handlers)
    return MicrophoneOutput(recording, segments, text, written)


HIDDEN_EVENT = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
"""Of an event that belongs to the page alone, and does no work worth waiting for."""


def make_recorder(label, elem_id: str = "recorder") -> gr.Audio:
    """Return a recorder. It records at the rate of the models, a third of the bytes of its default."""
    waveform = gr.WaveformOptions(WAVEFORM_GREY, WAVEFORM_ORANGE, sample_rate=audio.SAMPLE_RATE)
    return gr.Audio(
        sources=["microphone"],
        type="filepath",
        label=label,
        show_label=False,
        buttons=[],
        editable=False,
        interactive=True,
        waveform_options=waveform,
        elem_id=elem_id,
    )


def state_line(parts: AppContext, elem_id: str = "state", key: str = "state.ready") -> gr.HTML:
    """Return the line that tells what is going on; it tells also what only the browser knows."""
    most = parts.admission.limits.bytes
    told = {code: _browser_texts(one, most >> 20) for code, one in parts.wording.languages.items()}
    script = f"const words = {json.dumps(told)}, most = {most};\n{MICROPHONE_SCRIPT}"
    template = STATE_LINE_TEMPLATE.replace("REFUSALS", json.dumps(_refusals(parts)))
    return gr.HTML(str(parts.wording.text(key)), html_template=template, js_on_load=script, elem_id=elem_id)


def _refusals(parts: AppContext) -> list[str]:
    """Return how the refusals begin, in all languages: up to the first value that is filled in."""
    sentences = chain.from_iterable(texts.items() for texts in parts.wording.languages.values())
    return [text.partition("{")[0] for key, text in sentences if key.startswith("refusal.")]


def _browser_texts(texts: dict[str, str], megabytes: int) -> dict[str, str]:
    """Return what the browser knows before the server does, in one language."""
    refusals = {"refused": "microphone", "missing": "no_microphone", "too_big": "too_big", "too_short": "too_short"}
    told = {name: texts[f"refusal.{key}"].format(megabytes=megabytes) for name, key in refusals.items()}
    states = {name: texts[f"state.{name}"] for name in ("hearing", "sending")}
    return told | states | {"subtitles": texts["microphone.subtitles"]}


def outputs_script(said, *values: str | None) -> str:
    """Return JavaScript that gives each output its value: None leaves it, a key of the wording gives its sentence."""
    given = [{"__type__": "update"} if one is None else str(said(one)) if "." in one else one for one in values]
    return f"() => {json.dumps(given)}"


def _arrival_script(said) -> str:
    """Return JavaScript for a recording that came, or was cleared away."""
    come, gone = (json.dumps(["", str(said(key))]) for key in ("state.understanding", "state.ready"))
    return f"(recording) => recording ? {come} : {gone}"


def _text_box(said) -> gr.Textbox:
    return gr.Textbox(
        label=said("microphone.text"),
        placeholder=said("microphone.placeholder"),
        lines=3,
        max_lines=16,
        buttons=["copy"],
        interactive=False,
        elem_id="text",
    )


def _save_buttons(said, handlers: "MicrophoneHandlers", recording: gr.Audio, segments: gr.State) -> None:
    """Make a button for each format. What it saves is made when it is clicked."""
    with gr.Row(elem_id="files", elem_classes="after"):
        gr.HTML(f"<span>{said('microphone.download')}</span>", elem_id="download")
        for name, kind in SAVE_BUTTON_FORMATS.items():
            button, made = gr.Button(name, elem_id=f"save-{kind}", size="sm", min_width=60), gr.JSON(visible=False)
            making = button.click(partial(handlers.file, kind), [recording, segments], made, **HIDDEN_EVENT)
            making.success(None, made, None, js=SAVE_SCRIPT)


def _endpoint(parts: AppContext, handlers: "MicrophoneHandlers") -> None:
    """Make the endpoint for programs. What goes into it and comes out of it, the page does not show."""
    with gr.Column(visible=False):
        recording = gr.Audio(type="filepath", label="recording")
        language = gr.Dropdown([AUTO_LANGUAGE, *LANGUAGE_NAMES], value=parts.transcriber.language, label="language")
        task = gr.Dropdown(list(PROMPT_TASKS), value=PROMPT_TASKS[0], label="task")
        told = [gr.Textbox(label="text"), gr.Textbox(label="state")]
        gr.Button().click(
            handlers.transcribe,
            [recording, language, task],
            told,
            api_name="transcribe",
            api_description="Turn one recording into text. Returns the text and one sentence on how it went, "
            "in the language of the request (Accept-Language), Spanish else.",
            concurrency_limit=None,
        )


class MicrophoneHandlers:
    """What happens on the server."""

    def __init__(self, parts: AppContext):
        self.parts = parts

    def languages(self) -> list[tuple[str, str]]:
        """Return the choices (name, code): the model's language, and to hear which one it is."""
        code, wording = self.parts.transcriber.language, self.parts.wording
        known = f"microphone.{code}" in wording.languages["es"]
        name = wording.text(f"microphone.{code}") if known else LANGUAGE_NAMES.get(code, code).title()
        auto = (wording.text("microphone.language_auto"), AUTO_LANGUAGE)
        return [auto] if code == AUTO_LANGUAGE else [(name, code), auto]

    def write(
        self, recording: str | None, language: str, translate: bool, stop: StopSignal, request: gr.Request
    ) -> Iterator[tuple]:
        """Yield (text, state line, segments) while a recording is heard. Whatever happens, there is one to read."""
        if not recording:  # it was cleared away
            yield "", self.parts.wording.said(request, "state.ready"), ()
            return
        segments = ()
        try:
            for hearing in transcribe_recording(
                self.parts, recording, request, language, PROMPT_TASKS[translate], stop=stop
            ):
                segments = hearing.segments
                if stop.dropped:
                    yield gr.skip(), gr.skip(), ()
                else:
                    yield hearing.text, progress_sentence(self.parts, request, hearing), segments
        except Refusal as refusal:
            yield "", self.parts.wording.said(request, refusal.key, **refusal.values), ()
        except Exception:  # the log has the trace
            log.exception("transcribing failed")
            yield gr.skip(), self.parts.wording.said(request, "refusal.failed"), segments

    def transcribe(self, recording: str | None, language: str, task: str, request: gr.Request) -> tuple[str, str]:
        """Return (text, state line) of a recording, for programs."""
        try:
            *_, last = transcribe_recording(self.parts, recording, request, language, task)
        except Refusal as refusal:
            return "", self.parts.wording.said(request, refusal.key, **refusal.values)
        except Exception:
            log.exception("transcribing failed")
            return "", self.parts.wording.said(request, "refusal.failed")
        return last.text, progress_sentence(self.parts, request, last)

    def stop(self, stop: StopSignal) -> None:
        """End the work of this visitor that goes on, if any; what it heard stays."""
        stop.ask()

    def drop(self, stop: StopSignal) -> None:
        """End it for a new recording, or for none."""
        stop.ask(dropped=True)

    def file(self, kind: str, recording: str | None, segments: tuple[Segment, ...]) -> dict[str, str]:
        """Return the name, the kind and the content of a file that holds what was heard."""
        name, form = Path(recording or "audio").stem, TRANSCRIPT_FORMATS[kind]
        text = "".join(form.write(segments, partial(self._summary, recording, segments)))
        return {"name": f"{name}{form.suffix}", "kind": MEDIA_TYPES[kind], "text": text}

    def subtitles(self, segments: tuple[Segment, ...]) -> dict:
        """Return the subtitles that the player shows."""
        shown = [{"text": cue.text, "timestamp": [cue.start_s, cue.end_s]} for cue in make_cues(segments)]
        return gr.update(subtitles=shown)

    def _summary(self, recording: str | None, segments: tuple[Segment, ...]) -> dict:
        transcriber = self.parts.transcriber
        language = segments[0].language if segments else transcriber.language
        return {"file": Path(recording or "").name, "model": model_display_name(transcriber), "language": language}
