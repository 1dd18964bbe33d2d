"""The field for a visitor's own key: Gradio hands what is typed there to the functions, and keeps it nowhere.

For every other input Gradio notes the last value in its session, and /gradio_api/deep_link writes what it noted to a
file of the server. For this field it notes an empty text.
"""

from typing import Any

import gradio as gr
from gradio.data_classes import GradioRootModel
from pydantic import ConfigDict

MOST_LETTERS = 500
"""More than any key has; what is cut off of a longer one does not matter."""


class Unsaid(GradioRootModel):
    """What was typed. Printed, dumped or saved it is nothing."""

    model_config = ConfigDict(hide_input_in_errors=True)
    root: Any = None

    def model_dump(self, *_, **__) -> str:
        """Return what Gradio notes."""
        return ""

    def __repr__(self) -> str:
        return "Unsaid()"

    __str__ = __repr__


def key_field(**look) -> gr.Textbox:
    """Return a password field; `look` are the arguments of gr.Textbox that say how it looks."""
    off = gr.InputHTMLAttributes(autocomplete="off", autocapitalize="off", autocorrect="off", spellcheck=False)
    field = gr.Textbox(type="password", html_attributes=off, **look)
    # Set here and not in a class of its own: Gradio writes a .pyi file beside the source of every component class.
    field.data_model, field.preprocess = Unsaid, _typed
    return field


def _typed(payload: Unsaid | None) -> str | None:
    """Return the key that was typed, None for none."""
    text = payload.root.strip() if payload is not None and isinstance(payload.root, str) else ""
    return text[:MOST_LETTERS] or None
