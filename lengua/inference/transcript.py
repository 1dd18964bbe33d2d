"""What was heard: words, segments, a transcript. Times in seconds from the start of the audio."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Word:
    """A word, with the punctuation that belongs to it."""

    start_s: float
    end_s: float
    text: str
    probability: float
    """Of its tokens, the mean; 0 to 1."""


@dataclass(frozen=True)
class Segment:
    """A stretch of speech and its words. `end_s` of one is never behind `start_s` of the next."""

    start_s: float
    end_s: float
    text: str
    language: str = ""
    """Its code."""
    words: tuple[Word, ...] = ()
    """Where they were asked for."""


@dataclass(frozen=True)
class Transcript:
    """The words of one recording."""

    segments: tuple[Segment, ...]
    duration_s: float
    seconds: float
    """How long transcribing took."""
    language: str = ""
    """Its code: the one that was asked for, or that was heard in most of the speech."""
    suppressed: dict[str, int] = field(default_factory=dict)
    """How many stretches gave no text, by reason (lengua.inference.hallucinations)."""

    @property
    def text(self) -> str:
        """All words, segments joined by spaces."""
        return " ".join(segment.text for segment in self.segments if segment.text)
