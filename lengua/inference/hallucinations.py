"""Suppression of hallucinations: text that Whisper writes where nobody speaks, such as credits of subtitlers.

Before the model stand three gates, each cheaper than the next: a span too short for a word, one without energy, one
without a voice. After the model stand three rules: its own doubt (<|nospeech|> and mean log-probability), a list of
known hallucinations, loops where there is hardly a voice. Each suppression has a short code and is counted, not hidden.

The list, `assets/ghosts.tsv`, holds phrases by language, as `lengua.scoring.normalizer.normalise` leaves them:
- never: nobody says this aloud ("Subtítulos realizados por la comunidad de Amara.org");
- weak: people do say it ("Gracias."), so it is suppressed only where little else speaks for speech.

A text is compared as a whole, never in parts: in "Gracias, hasta mañana" every word was spoken. The phrases are those
that users of Whisper report (the collection in openai/whisper's discussion 928; lists of programs around Whisper,
where two or more agree or one quotes the recording), and what whisper-base wrote into the noise of
benchmarks/silence.py.
"""

import functools
from collections.abc import Set

import numpy as np

from lengua import audio
from lengua.inference.decoding import DecodingResult
from lengua.inference.vad import VAD_FRAME_SAMPLES, speech_probabilities, voiced_s
from lengua.runtime.files import ASSETS
from lengua.scoring.normalizer import normalise

NEVER_SPOKEN, SOMETIMES_SPOKEN = "never", "weak"
PhraseWords = tuple[str, ...]


def hallucination_kind(text: str, language: str) -> str | None:
    """Return "never" or "weak" if a text is made of ghosts from its first word to its last, else None.

    Once or several times the same, or one after the other: "Thank you. Thank you. Bye." What nobody says is known in
    every language, for Whisper mixes them up; what somebody may say, in the text's own and in English.

    Args:
        text: what the model wrote.
        language: its code.
    """
    words, known = tuple(normalise(text).split()), hallucinated_phrases(NEVER_SPOKEN)
    if words and _made_of(words, known):
        return NEVER_SPOKEN
    known = known.union(*(hallucinated_phrases(SOMETIMES_SPOKEN, name) for name in (language, "en")))
    return SOMETIMES_SPOKEN if words and _made_of(words, known) else None


@functools.cache
def hallucinated_phrases(kind: str, language: str | None = None) -> frozenset[PhraseWords]:
    """Return the words of the phrases of one kind, of one language or of all."""
    rows = (row for row in read_phrase_list() if row[1] == kind and language in (None, row[0]))
    return frozenset(tuple(phrase.split()) for _, _, phrase in rows)


@functools.cache
def read_phrase_list() -> tuple[tuple[str, str, str], ...]:
    """Return the list's rows: language, kind, phrase."""
    text = (ASSETS / "ghosts.tsv").read_text(encoding="utf-8")
    return tuple(tuple(line.split("\t")) for line in text.splitlines()[1:])


def _made_of(words: PhraseWords, known: Set[PhraseWords]) -> bool:
    """Whether known phrases, one behind the other, are all of the words."""
    lengths, reached = {len(phrase) for phrase in known}, {0}
    for end in range(1, len(words) + 1):
        if any(end - length in reached and words[end - length : end] in known for length in lengths):
            reached.add(end)
    return len(words) in reached


NO_SPEECH_STRETCH = "no stretch of speech"
"""Why a recording of more than 30 s has no text where there is nothing to cut out of it."""
MIN_WORD_SAMPLES = audio.SAMPLE_RATE // 10  # no word is shorter; of a click the model would still make one

MIN_VOICE_PROBABILITY, MIN_VOICE_FRAMES = 0.2, 3
"""A voice is possible where Silero gives so much to so many of its frames, 0.1 s in all.

Far below what counts as clear speech, for a word that is lost weighs more than a noise that the model is asked about:
the rules behind it are there for that. `benchmarks/silence.py` counts both.
"""
FIRST_LOOK_SAMPLES = 63 * VAD_FRAME_SAMPLES
"""2 s, in which speech shows itself as a rule; else all is looked at."""

NO_SPEECH_THRESHOLD, LOGPROB_THRESHOLD = 0.6, -1.0
"""Of openai/whisper, transcribe.py: no_speech_threshold and logprob_threshold."""
WEAK_NO_SPEECH_THRESHOLD, WEAK_LOGPROB_THRESHOLD = 0.3, -0.5
"""Half as much doubt. Never the first alone: a fine-tuned model takes lone words that were really spoken for no speech,
but it writes them surely."""
MIN_VOICED_S, MIN_VOICED_SHARE = 0.2, 0.1
"""Less voice than this, in seconds or as a share of the stretch, is hardly any."""


def silence_reason(samples: np.ndarray) -> str | None:
    """Return why a stretch holds no speech, or None: then the model is asked.

    - "too short": under 0.1 s;
    - "no energy": no 100 ms as loud as the quietest speech, on the raw level (`audio.is_silent`);
    - "no voice": no 100 ms in which Silero thinks a voice possible.
    """
    if len(samples) < MIN_WORD_SAMPLES:
        return "too short"
    if audio.is_silent(samples):
        return "no energy"
    for part in (samples[:FIRST_LOOK_SAMPLES], samples):
        if np.count_nonzero(speech_probabilities(part) >= MIN_VOICE_PROBABILITY) >= MIN_VOICE_FRAMES:
            return None
        if len(samples) <= FIRST_LOOK_SAMPLES:
            break
    return "no voice"


def suppression_reason(decoded: DecodingResult, samples: np.ndarray) -> str | None:
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
    if _doubts(decoded, NO_SPEECH_THRESHOLD, LOGPROB_THRESHOLD):
        return "no speech"
    kind = hallucination_kind(decoded.text, decoded.language)
    doubted = _doubts(decoded, WEAK_NO_SPEECH_THRESHOLD, WEAK_LOGPROB_THRESHOLD)
    if kind == NEVER_SPOKEN or (kind and doubted):
        return "ghost"
    if not (kind or doubted or decoded.looped):
        return None  # as a rule: nothing speaks against it
    voiced = voiced_s(samples)
    if voiced < MIN_VOICED_S:
        return "ghost" if kind else "no speech" if doubted else "loop"
    return "loop" if decoded.looped and voiced < MIN_VOICED_SHARE * audio.duration_s(samples) else None


def _doubts(decoded: DecodingResult, no_speech: float, mean_logprob: float) -> bool:
    """Whether a model holds silence for likely and its own words for unlikely; one that cannot tell does not doubt."""
    return (decoded.no_speech or 0.0) > no_speech and (decoded.mean_logprob or 0.0) < mean_logprob
