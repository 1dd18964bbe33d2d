"""Engine: the protocol of a Whisper runtime. It decodes windows of log-mel features, and tells language and times."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

DECODER_POSITIONS = 448
"""Of Whisper's decoder."""
MIN_NO_SPEECH_FOR_LOGPROB = 0.2
"""Where <|nospeech|> is less likely than this, nobody asks how sure the model is of its words."""


@dataclass(frozen=True)
class EngineOutput:
    """What a model wrote for one window."""

    tokens: list[int]
    """After the prompt; the end token is there or not, as the engine has it."""
    mean_logprob: float | None = None
    """Of the natural logarithms of the probabilities of the tokens, the end among them; None where there is no doubt.

    It costs CTranslate2 a tenth of its time, so it is computed only where `no_speech` is over
    `MIN_NO_SPEECH_FOR_LOGPROB`.
    """
    no_speech: float | None = None
    """Probability of <|nospeech|> behind <|startoftranscript|>; None where the engine cannot tell."""


class Engine(Protocol):
    """Decoding of one window a row. Not for two threads at once."""

    name: str
    n_mels: int
    window_frames: int
    most_tokens: int
    """That it can write after the prompt, whatever is asked for."""
    multilingual: bool
    """Whether it can tell languages apart."""
    aligns: bool
    """Whether it can align tokens to the audio."""

    def generate(self, features: np.ndarray, prompt: list[int], max_tokens: int, beam: int = 1) -> list[EngineOutput]:
        """Return what follows the prompt, for features of shape (batch, n_mels, frames), frames <= 3000.

        Args:
            prompt: [<|startofprev|>, words before, ...] start, language, task, <|notimestamps|>. Without the last one
                it asks for timestamps.
            max_tokens: to write; fewer where prompt and text would not fit into `DECODER_POSITIONS`.
            beam: width of the search; 1 is greedy.
        """

    def languages(self, features: np.ndarray) -> list[dict[str, float]]:
        """Return the probability of each language, by its code, for windows of 30 s: shape (batch, n_mels, 3000)."""

    def align(
        self, features: np.ndarray, prompt: list[int], tokens: list[list[int]], frames: list[int]
    ) -> list[list[tuple[float, float, float]]]:
        """Return (start in s, end in s, probability) of each token, by the cross-attention of the alignment heads.

        Args:
            features: as for `generate`.
            prompt: start, language, task, <|notimestamps|>.
            tokens: the hypothesis of each window, text tokens alone.
            frames: of each window that are speech and not margin.
        """
