"""The app: record or upload and read the transcript, or talk and be answered. `lengua app`, or `python app.py`.

`build_demo` makes the page around its parts and does no work of its own; `launch` owns what belongs to the server:
model, theme, style, queue. What a visitor says is kept only where the visitor asks for it, and only for the visit.

Two endpoints are for programs, one for each mode. `/transcribe` gives (text, one sentence on how it went), `/reply`
the answer to a message. A sentence is in the language that the request prefers, Spanish if it does not say:

    from gradio_client import Client, handle_file

    client = Client("http://127.0.0.1:7860")
    text, state = client.predict(handle_file("clip.mp3"), api_name="/transcribe")
    english, state = client.predict(handle_file("clip.mp3"), "auto", "translate", api_name="/transcribe")
    answer = client.predict(text, [{"role": "assistant", "content": "Hola, ¿qué tal?"}], api_name="/reply")
"""

from importlib import import_module

# Imported at their first use: conversation without a page (lengua.app.chat) loads no gradio.
_LAZY = {"AppContext": "context", "Wording": "i18n", "build_demo": "layout"}
_LAZY |= dict.fromkeys(("Admission", "Limits", "Refusal"), "limits")
_LAZY |= dict.fromkeys(("launch", "make_app_context", "page_theme", "serve", "warm_up"), "server")

__all__ = [*_LAZY]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'lengua.app' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"lengua.app.{_LAZY[name]}"), name)
    return value
