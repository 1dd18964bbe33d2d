"""What the modes of the page share. `launch` makes it once, for all visitors; it holds nothing of a visitor."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lengua.app.chat.history import Responder
from lengua.app.i18n import Wording
from lengua.app.limits import Admission
from lengua.inference import Transcriber


@dataclass(frozen=True)
class AppContext:
    """The hearing, the one who replies, the limits, the words."""

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


def model_display_name(transcriber: Transcriber) -> str:
    """Return what to call a model: its id, or the name of its folder, never a path of this machine."""
    return Path(transcriber.model).name if Path(transcriber.model).is_absolute() else transcriber.model
