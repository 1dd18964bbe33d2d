"""Microphone mode: record or upload, read the transcript as it is decoded, save it as text or subtitles."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gradio as gr

from lengua import audio
from lengua.app.context import AppContext, model_display_name
from lengua.app.limits import Refusal
from lengua.app.transcribing import StopSignal, progress_sentence, transcribe_recording
from lengua.inference import TRANSCRIPT_FORMATS, Segment
from lengua.inference.decoding import AUTO_LANGUAGE
from lengua.inference.subtitles import make_cues
from lengua.models.languages import LANGUAGE_NAMES
from lengua.models.tokens import PROMPT_TASKS
from lengua.runtime.files import ASSETS

UPLOAD_TYPES = ["audio", "video", ".opus", ".oga", ".amr", ".caf", ".mkv", ".m4b", ".gsm"]
"""What the file chooser of a browser shows; what a file really is, its content tells."""
STATE_LINE_TEMPLATE = """<p role="status" class="${value.endsWith('…') ? 'moving' : 'still'}${
    REFUSALS.some((one) => value.startsWith(one)) ? ' refused' : ''}">${value}</p>"""
"""Something goes on while a sentence ends in "…", and a refusal begins like one."""
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
"""The file is made in the browser: nothing of the transcript is written on the server."""
HIDDEN_EVENT = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
"""Of an event that belongs to the page alone; who comes first is served first by the queue of `admission`."""


@dataclass(frozen=True)
class MicrophoneOutput:
    """What the microphone mode hands to the modes below it."""

    recording: gr.Audio
    """Its `change` tells of each new recording, spoken or uploaded."""
    segments: gr.State
    """A tuple of `Segment`, empty before there is a text; without times of words."""
    ready: gr.events.Dependency
    """The event after which `segments` is whole: `microphone.ready.then(...)`."""


def build_microphone_tab(parts: AppContext) -> MicrophoneOutput:
    """Make the microphone mode in the present block, and return what the modes below it need."""
    t, handlers = parts.wording.text, MicrophoneHandlers(parts)
    recording = make_recorder(t("microphone.recorder"))
    upload = gr.UploadButton(t("microphone.upload"), file_types=UPLOAD_TYPES, size="md", elem_id="upload")
    with gr.Row(elem_id="told"):
        state = state_line(parts)
        halt = gr.Button(t("microphone.stop"), elem_id="stop", size="sm", scale=0)
    text = gr.Textbox(
        label=t("microphone.text"),
        placeholder=t("microphone.placeholder"),
        lines=3,
        max_lines=16,
        buttons=["copy"],
        interactive=False,
        elem_id="text",
    )
    segments, stop = gr.State(()), gr.State(StopSignal())
    with gr.Row(elem_id="files", elem_classes="after"):
        gr.HTML(f"<span>{t('microphone.download')}</span>", elem_id="download")
        for name, kind in SAVE_BUTTON_FORMATS.items():
            button = gr.Button(name, elem_id=f"save-{kind}", size="sm", min_width=60)
            save_on_click(button, partial(handlers.file, kind), [recording, segments])
    with gr.Accordion(t("microphone.options"), open=False, elem_id="options"):
        language = gr.Radio(handlers.languages(), value=parts.transcriber.language, label=t("microphone.language"))
        translate = gr.Checkbox(label=t("microphone.translate"), info=t("microphone.translate_info"))
    shown = [text, state]
    upload.upload(None, upload, recording, js="(file) => file")
    recording.start_recording(None, None, shown, js=outputs_script(t, "", "state.hearing"))
    inputs = [recording.change, language.input, translate.input]
    come, gone = (outputs_script(t, "", key) for key in ("state.understanding", "state.ready"))
    gr.on(inputs, None, recording, shown, js=f"(recording) => (recording ? {come} : {gone})()")
    given = [recording, language, translate, stop]
    written = gr.on(inputs, handlers.write, given, [*shown, segments], trigger_mode="always_last", **HIDDEN_EVENT)
    written.failure(None, None, shown, js=outputs_script(t, None, "refusal.failed"))
    written.success(handlers.subtitles, segments, recording, **HIDDEN_EVENT)
    halt.click(handlers.stop, stop, None, **HIDDEN_EVENT)
    gr.on([recording.start_recording, recording.clear], handlers.drop, stop, None, **HIDDEN_EVENT)
    _endpoint(parts, handlers)
    return MicrophoneOutput(recording, segments, written)


def save_on_click(button: gr.Button, handler: Callable, given) -> None:
    """Let a button save what a handler returns: the name, the kind and the content of a file."""
    file = gr.JSON(visible=False)
    button.click(handler, given, file, **HIDDEN_EVENT).success(None, file, None, js=SAVE_SCRIPT)


def make_recorder(label, elem_id: str = "recorder") -> gr.Audio:
    """Return a recorder. It records at the rate of the models, a third of the bytes of its default."""
    grey, orange = "#a8a29e", "#ea580c"
    return gr.Audio(
        sources=["microphone"],
        type="filepath",
        label=label,
        show_label=False,
        buttons=[],
        editable=False,
        interactive=True,
        waveform_options=gr.WaveformOptions(grey, orange, sample_rate=audio.SAMPLE_RATE),
        elem_id=elem_id,
    )


def state_line(parts: AppContext) -> gr.HTML:
    """Return the line that tells what goes on, also what the browser knows before the server does."""
    languages, most = parts.wording.languages, parts.admission.limits.bytes
    names = {"refused": "microphone", "missing": "no_microphone", "too_big": "too_big", "too_short": "too_short"}
    names = {name: f"refusal.{key}" for name, key in names.items()}
    names |= {"hearing": "state.hearing", "sending": "state.sending", "subtitles": "microphone.subtitles"}
    words = {
        code: {name: texts[key].replace("{megabytes}", str(most >> 20)) for name, key in names.items()}
        for code, texts in languages.items()
    }
    refusals = [
        text.partition("{")[0]  # up to the first value that is filled in
        for texts in languages.values()
        for key, text in texts.items()
        if key.startswith("refusal.")
    ]
    script = (ASSETS / "microphone.js").read_text(encoding="utf-8")
    return gr.HTML(
        str(parts.wording.text("state.ready")),
        html_template=STATE_LINE_TEMPLATE.replace("REFUSALS", json.dumps(refusals)),
        js_on_load=f"const words = {json.dumps(words)}, most = {most};\n{script}",
        elem_id="state",
    )


def outputs_script(t, *values: str | None) -> str:
    """Return JavaScript that gives each output its value: None leaves it, a key of the wording gives its sentence."""
    given = [{"__type__": "update"} if one is None else str(t(one)) if "." in one else one for one in values]
    return f"() => {json.dumps(given)}"


def _endpoint(parts: AppContext, handlers: "MicrophoneHandlers") -> None:
    """Make the endpoint for programs. What goes into it and comes out of it, the page does not show."""
    with gr.Column(visible=False):
        given = [
            gr.Audio(type="filepath", label="recording"),
            gr.Dropdown([AUTO_LANGUAGE, *LANGUAGE_NAMES], value=parts.transcriber.language, label="language"),
            gr.Dropdown(list(PROMPT_TASKS), value=PROMPT_TASKS[0], label="task"),
        ]
        gr.Button().click(
            handlers.transcribe,
            given,
            [gr.Textbox(label="text"), gr.Textbox(label="state")],
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
        """Return the choices (name, code): the model's language, and to detect it."""
        code, wording = self.parts.transcriber.language, self.parts.wording
        known = f"microphone.{code}" in wording.languages["es"]
        name = wording.text(f"microphone.{code}") if known else LANGUAGE_NAMES.get(code, code).title()
        auto = (wording.text("microphone.language_auto"), AUTO_LANGUAGE)
        return [auto] if code == AUTO_LANGUAGE else [(name, code), auto]

    def write(
        self, recording: str | None, language: str, translate: bool, stop: StopSignal, request: gr.Request
    ) -> Iterator[tuple]:
        """Yield (text, state line, segments) while a recording is decoded. Whatever happens, there is one to read."""
        if not recording:  # it was cleared away
            yield "", self.parts.wording.message(request, "state.ready"), ()
            return
        task, segments = PROMPT_TASKS[translate], ()
        try:
            for progress in transcribe_recording(self.parts, recording, request, language, task, stop=stop):
                segments = progress.segments
                if stop.dropped:
                    yield gr.skip(), gr.skip(), ()
                else:
                    yield progress.text, progress_sentence(self.parts, request, progress), segments
        except Exception as error:
            sentence = self.parts.failure_sentence(error, request)
            yield ("", sentence, ()) if isinstance(error, Refusal) else (gr.skip(), sentence, segments)

    def transcribe(self, recording: str | None, language: str, task: str, request: gr.Request) -> tuple[str, str]:
        """Return (text, state line) of a recording, for programs."""
        try:
            *_, last = transcribe_recording(self.parts, recording, request, language, task)
        except Exception as error:
            return "", self.parts.failure_sentence(error, request)
        return last.text, progress_sentence(self.parts, request, last)

    def stop(self, stop: StopSignal) -> None:
        """End the work of this visitor that goes on, if any; its text so far stays."""
        stop.ask()

    def drop(self, stop: StopSignal) -> None:
        """End it for a new recording, or for none."""
        stop.ask(dropped=True)

    def file(self, kind: str, recording: str | None, segments: tuple[Segment, ...]) -> dict[str, str]:
        """Return the name, the kind and the content of a file that holds the transcript."""
        transcriber, path, form = self.parts.transcriber, Path(recording or "audio"), TRANSCRIPT_FORMATS[kind]
        language = segments[0].language if segments else transcriber.language
        summary = {"file": path.name if recording else "", "model": model_display_name(transcriber)}
        text = "".join(form.write(segments, lambda: summary | {"language": language}))
        return {"name": f"{path.stem}{form.suffix}", "kind": MEDIA_TYPES[kind], "text": text}

    def subtitles(self, segments: tuple[Segment, ...]) -> dict:
        """Return the subtitles that the player shows."""
        shown = [{"text": cue.text, "timestamp": [cue.start_s, cue.end_s]} for cue in make_cues(segments)]
        return gr.update(subtitles=shown)
