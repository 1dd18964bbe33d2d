"""The server: the model and its warm-up, theme and style, the bounds of Gradio's queue. `lengua app` is `launch`."""

import json
import os
import sys
import threading
from collections.abc import Callable
from functools import cache

import gradio as gr
import numpy as np
from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse

from lengua import audio
from lengua.app.chat.backend import responder_for, warm_up_client
from lengua.app.context import AppContext
from lengua.app.i18n import Wording
from lengua.app.layout import build_demo
from lengua.app.limits import Admission, Limits
from lengua.audio.log_mel import FRAMES_PER_SECOND, LOG_MEL_MIN
from lengua.inference import Transcriber
from lengua.inference.vad import speech_probabilities
from lengua.options import BASE_MODEL, AppOptions
from lengua.runtime import system
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import ASSETS

QUEUE_SIZE, MAX_THREADS = 256, 64
"""Far more than the queue of `admission` holds, so that it is that queue that refuses, with a sentence."""
MAX_SESSIONS = 1000
"""Visits and requests whose state is kept, 0.2 MB each; of more, those idle for longest are dropped."""
LANGUAGE_SCRIPT = "<script>document.documentElement.lang = %s[navigator.language.slice(0, 2)] || 'en'</script>"


def launch(options: AppOptions) -> None:
    """Serve the app until Ctrl-C.

    Raises:
        RequestError: no such model, or the port is taken.
    """
    system.map_large_blocks()
    transcriber, notice = open_model(options)
    warm_up(transcriber)
    serve(build_demo(make_app_context(transcriber, options, notice)), options)


def open_model(options: AppOptions) -> tuple[Transcriber, str | None]:
    """Return the transcriber, and the key of the notice at the top of the page, if any.

    A model that the environment names, as on a Space, gives way to the base model if it is not to be had. One that was
    asked for by --model does not.
    """
    try:
        return Transcriber(options.model, options.language), None
    except LenguaError as error:
        if options.model or not os.environ.get("LENGUA_MODEL"):
            raise
        print(f"lengua: {error}; until then this page serves {BASE_MODEL}", file=sys.stderr, flush=True)
        return Transcriber(BASE_MODEL, options.language), "page.not_found"


def make_app_context(
    transcriber: Transcriber, options: AppOptions | None = None, notice: str | None = None
) -> AppContext:
    """Return what the modes share, around a transcriber."""
    options = options or AppOptions()
    base = options.base or (transcriber.note.base if transcriber.note.language else None)
    return AppContext(
        transcriber,
        Wording(),
        Admission(Limits(seconds=60 * options.max_minutes)),
        responder_for,
        open_once(base, options.language) if base else None,
        notice,
    )


def open_once(
    model: str, language: str, opening: Callable[..., Transcriber] = Transcriber
) -> Callable[[], Transcriber]:
    """Return what opens a transcriber when it is first asked for; after a failure, the next call tries again."""
    lock, opened = threading.Lock(), cache(lambda: opening(model, language))

    def transcriber() -> Transcriber:
        with lock:
            return opened()

    return transcriber


def warm_up(transcriber: Transcriber) -> None:
    """Do once what is slow only once, so that no visitor waits for it: imports, the detector of voices, a decode."""
    audio.load((np.zeros(48_000, np.float32), 48_000))
    audio.load(audio.as_flac(np.zeros(audio.SAMPLE_RATE, np.float32)))
    speech_probabilities(np.zeros(2 * audio.SAMPLE_RATE, np.float32))
    frames = min(5 * FRAMES_PER_SECOND, transcriber.engine.window_frames)
    transcriber.decode([np.full((frames, transcriber.n_mels), LOG_MEL_MIN, dtype=np.float32)])
    warm_up_client()


def serve(demo: gr.Blocks, options: AppOptions, wait: bool = True) -> str:
    """Start the server and return its address; with `wait`, only when it has ended."""
    wording = Wording()
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")  # else each event is followed by a table of all before it
    try:
        demo.queue(max_size=QUEUE_SIZE, default_concurrency_limit=None, api_open=False).launch(
            server_name=options.host,
            server_port=options.port,
            max_threads=MAX_THREADS,
            state_session_capacity=MAX_SESSIONS,
            max_file_size=2 * Limits.bytes,  # what is over the limit gets a sentence; what is far over it is cut off
            theme=page_theme(),
            css_paths=sorted(ASSETS.glob("app*.css")),
            head=LANGUAGE_SCRIPT % json.dumps({code: code for code in wording.languages}),
            i18n=wording.i18n,
            footer_links=["api"],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
            app_kwargs={"exception_handlers": {RequestValidationError: answer_malformed, KeyError: answer_malformed}},
            _frontend=False,  # else it looks at its own page, and gives up the whole server if that takes 3 s
        )
    except OSError as error:
        found = f"port {options.port} of {options.host} taken"
        raise RequestError("a free port", found, "name another with --port") from error
    close_deep_links(demo)
    if wait:
        print(f"lengua: open {demo.local_url} in a browser; Ctrl-C ends", flush=True)
        demo.block_thread()
    return demo.local_url


def close_deep_links(demo: gr.Blocks) -> None:
    """Take away Gradio's way to share a page, which writes a visitor's texts to disk for whoever asks."""
    routes = demo.app.router.routes
    routes[:] = [route for route in routes if not getattr(route, "path", "").endswith("/deep_link")]


async def answer_malformed(request: Request, error: Exception) -> JSONResponse:
    """Answer a malformed request, or one for an unknown function; Gradio and FastAPI fail at some of these."""
    return JSONResponse({"detail": "malformed request"}, 404 if isinstance(error, KeyError) else 422)


def page_theme() -> gr.themes.Base:
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
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        color_accent="*primary_600",
        button_primary_background_fill="*primary_700",  # white letters on it have 5.2 to 1
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
    )
