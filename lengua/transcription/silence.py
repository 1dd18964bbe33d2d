"""No speech, no words: what never reaches the model, and what the model wrote that nobody said.

Before the model stand three gates, each cheaper than the next: a stretch too short for a word, one without energy, one
without a voice. After it stand three rules for what slipped through: the model's own doubt, a list of ghosts, loops
where there is hardly a voice. Each refusal is a short code, and refusals are counted, not hidden.
"""

import numpy as np

from lengua import audio
from lengua.text import normalise
from lengua.transcription.decoding import Decoded
from lengua.transcription.ghosts import NEVER, ghost_kind
from lengua.transcription.voice import FRAME, voice, voiced_s

NO_STRETCH = "no stretch of speech"
"""Why a recording of more than 30 s has no text where there is nothing to cut out of it."""
MIN_SAMPLES = audio.SAMPLE_RATE // 10  # no word is shorter; of a click the model would still make one

PERHAPS, PERHAPS_FRAMES = 0.2, 3
"""A voice is possible where Silero gives so much to so many of its frames, 0.1 s in all.

Far below what counts as clear speech, for a word that is lost weighs more than a noise that the model is asked about:
the rules behind it are there for that. `benchmarks/silence.py` counts both.
"""
FIRST_LOOK = 63 * FRAME
"""2 s, in which speech shows itself as a rule; else all is looked at."""

NO_SPEECH, MEAN_LOGPROB = 0.6, -1.0
"""Of openai/whisper, transcribe.py: no_speech_threshold and logprob_threshold."""
DOUBTED, UNSURE = 0.3, -0.5
"""Half as much doubt. Never the first alone: a fine-tuned model takes lone words that were really said for no speech,
but it writes them surely."""
HARDLY_S, HARDLY_SHARE = 0.2, 0.1
"""Less voice than this, in seconds or as a share of the stretch, is hardly any."""


def why_silent(samples: np.ndarray) -> str | None:
    """Return why a stretch holds no speech, or None: then the model is asked.

    - "too short": under 0.1 s;
    - "no energy": no 100 ms as loud as the quietest speech, on the raw level (`audio.is_silent`);
    - "no voice": no 100 ms in which Silero thinks a voice possible.
    """
    if len(samples) < MIN_SAMPLES:
        return "too short"
    if audio.is_silent(samples):
        return "no energy"
    heard = _may_be_voice(samples[:FIRST_LOOK]) or (len(samples) > FIRST_LOOK and _may_be_voice(samples))
    return None if heard else "no voice"


def why_suppressed(decoded: Decoded, samples: np.ndarray) -> str | None:
    """Return why what the model wrote for a stretch is no text, or None.

    - "no words": it wrote nothing, or nothing but signs and remarks in brackets ("♪", "[Música]");
    - "no speech": <|nospeech|> was likelier than 0.6 and the tokens were unlikely, under -1 in the mean of their
      log-probabilities (openai/whisper, transcribe.py); or half as much of both, and there is hardly a voice;
    - "ghost": the whole text is known from the list of what nobody says; or from that of what people do say, and there
      is hardly a voice or half as much doubt;
    - "loop": the text goes in circles even after the second try, and there is hardly a voice.
    """
    if not normalise(decoded.text):
        return "no words"
    if _doubts(decoded, NO_SPEECH, MEAN_LOGPROB):
        return "no speech"
    kind, doubted = ghost_kind(decoded.text, decoded.language), _doubts(decoded, DOUBTED, UNSURE)
    if kind == NEVER or (kind and doubted):
        return "ghost"
    if not (kind or doubted or decoded.looped):
        return None  # as a rule: nothing speaks against it
    voiced = voiced_s(samples)
    if voiced < HARDLY_S:
        return "ghost" if kind else "no speech" if doubted else "loop"
    return "loop" if decoded.looped and voiced < HARDLY_SHARE * audio.duration_s(samples) else None


def _may_be_voice(samples: np.ndarray) -> bool:
    return np.count_nonzero(voice(samples) >= PERHAPS) >= PERHAPS_FRAMES


def _doubts(decoded: Decoded, no_speech: float, mean_logprob: float) -> bool:
    """Whether a model holds silence for likely and its own words for unlikely; one that cannot tell does not doubt."""
    return (decoded.no_speech or 0.0) > no_speech and (decoded.mean_logprob or 0.0) < mean_logprob
