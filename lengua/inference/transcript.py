"""Results of transcription: words, segments and transcripts. All times are seconds from the start of the recording."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Word:
    """A word with the punctuation that belongs to it, and its time in the recording."""

    start_s: float
    end_s: float
    text: str
    probability: float
    """Mean probability of its tokens, 0 to 1."""


@dataclass(frozen=True)
class Segment:
    """The text of one span of speech, at most 28 s (30 s for a whole short clip).

    Segments of a recording are in order: `end_s` of one is never after `start_s` of the next.
    """

    start_s: float
    end_s: float
    text: str
    language: str = ""
    """Code of its language, such as "es"."""
    words: tuple[Word, ...] = ()
    """Its words with times, in order; empty unless word timestamps were requested."""


@dataclass(frozen=True)
class Transcript:
    """The text of one recording, as `Transcriber.transcribe` returns it.

    A recording without speech has no segments, an empty text, and its reasons in `suppressed`.
    """

    segments: tuple[Segment, ...]
    """In order of time."""
    duration_s: float
    """Length of the decoded audio in seconds."""
    seconds: float
    """Wall-clock seconds that the transcription took."""
    language: str = ""
    """Language code: the one requested, or with "auto" the one detected in most of the speech."""
    suppressed: dict[str, int] = field(default_factory=dict)
    """Spans that gave no text, counted by reason (lengua.inference.hallucinations)."""

    @property
    def text(self) -> str:
        return " ".join(segment.text for segment in self.segments if segment.text)
