"""What the modes of the page share. `launch` makes it once, for all visitors; it holds nothing of a visitor."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lengua.app.chat.history import Responder
from lengua.app.i18n import Wording
from lengua.app.limits import Admission, Refusal
from lengua.inference import Transcriber
from lengua.inference.decoding import AUTO_LANGUAGE

if TYPE_CHECKING:
    import gradio as gr

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AppContext:
    """The transcriber, the one who replies, the limits, the words."""

    transcriber: Transcriber
    """The fine-tuned model."""
    wording: Wording
    admission: Admission
    responder: Callable[[str | None], Responder]
    """Gives who replies, for the key that a visitor typed (None: the one of the environment, else the tutor)."""
    base: Callable[[], Transcriber] | None = None
    """Opens, once, the model that the fine-tuned one came from, for the mirror; None where there is no other."""
    notice: str | None = None
    """Key of a sentence at the top of the page: what is not as it should be, such as another model than the usual."""

    def __deepcopy__(self, memo: dict) -> "AppContext":
        """Return the same: Gradio copies the page, and all that it reaches from there, whenever somebody opens it."""
        return self

    @property
    def spoken_language(self) -> str:
        """Code of the language of a conversation."""
        return "es" if self.transcriber.language == AUTO_LANGUAGE else self.transcriber.language

    def failure_sentence(self, error: Exception, request: "gr.Request | None", other: str = "refusal.failed") -> str:
        """Return what a visitor reads of an error: the refusal that it is, or `other`, and then it is logged."""
        if isinstance(error, Refusal):
            return self.wording.message(request, error.key, **error.values)
        log.error("%s", other, exc_info=error)
        return self.wording.message(request, other)


def model_display_name(transcriber: Transcriber) -> str:
    """Return what to call a model: its id, or the name of its folder, never a path of this machine."""
    return Path(transcriber.model).name if Path(transcriber.model).is_absolute() else transcriber.model
