"""Transcript formats: segments to plain text, SRT, WebVTT and JSON, with subtitle cues of at most two lines and 7 s.

Pure functions: an iterator of segments in, an iterator of pieces of text out. A piece comes as soon as its segment is
there, so that hours of speech are never held, and what is written so far can be read; only JSON needs its last piece.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from lengua.inference.transcript import Segment, Word

MAX_LINE_CHARS = 42
"""Letters of a line, the usual limit of subtitlers."""
MAX_CUE_S, MIN_CUE_S = 7.0, 0.3
SENTENCE_END, CLAUSE_END = tuple(".?!…。？！"), tuple(",;:—、，")
CUE_PAUSE_S = 0.3
"""Between two words: a good place to end a cue."""


@dataclass(frozen=True)
class CueWord:
    """A word as it stands in the text, with the space before it."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class Cue:
    """One or two lines, and when they are shown."""

    start_s: float
    end_s: float
    lines: tuple[tuple[CueWord, ...], ...]
    timed: bool
    """Whether the times of the pieces are from an alignment, and not reckoned."""

    @property
    def text(self) -> str:
        return "\n".join(_joined(line) for line in self.lines)


def make_cues(segments: Iterable[Segment]) -> Iterator[Cue]:
    """Yield the cues of segments in order: none is empty, shorter than 0.3 s, or begins before the last one ended."""
    before = 0.0
    for segment in segments:
        for pieces in split_into_cues(_aligned_cue_words(segment) or _estimated_cue_words(segment)):
            start = max(before, pieces[0].start_s)
            before = max(start + MIN_CUE_S, pieces[-1].end_s)
            yield Cue(start, before, wrap_cue(pieces), bool(segment.words))


def split_into_cues(pieces: Sequence[CueWord]) -> list[Sequence[CueWord]]:
    """Cut a text into as few cues as fit on the screen, evenly, at the ends of sentences and clauses where it can be.

    The cheapest way, found from the start: a cue costs 1, and up to 1 more for a bad end and for being short.
    """
    if not pieces:
        return []
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(pieces) + 1):
        ways = []
        for start in range(end - 1, -1, -1):
            part = pieces[start:end]
            if start < end - 1 and not _fits(part):
                break
            ways.append((best[start][0] + _cost(part, pieces[end] if end < len(pieces) else None), start))
        best.append(min(ways))
    ends = [len(pieces)]
    while ends[-1]:
        ends.append(best[ends[-1]][1])
    return [pieces[start:end] for start, end in pairwise(ends[::-1])]


def wrap_cue(pieces: Sequence[CueWord]) -> tuple[tuple[CueWord, ...], ...]:
    """Return a cue's one or two lines, of like length where there are two."""
    if len(_joined(pieces)) <= MAX_LINE_CHARS or len(pieces) == 1:
        return (tuple(pieces),)
    both = [(pieces[:at], pieces[at:]) for at in range(1, len(pieces))]
    chosen = min(both, key=lambda two: max(len(_joined(line)) for line in two))
    return tuple(tuple(line) for line in chosen)


def _fits(pieces: Sequence[CueWord]) -> bool:
    letters = sum(len(piece.text) for piece in pieces)
    if pieces[-1].end_s - pieces[0].start_s > MAX_CUE_S or letters > 2 * MAX_LINE_CHARS + 2:
        return False
    return letters <= MAX_LINE_CHARS or all(len(_joined(line)) <= MAX_LINE_CHARS for line in wrap_cue(pieces))


def _cost(pieces: Sequence[CueWord], after: CueWord | None) -> float:
    last = pieces[-1]
    if after is None or last.text.endswith(SENTENCE_END) or after.start_s - last.end_s >= CUE_PAUSE_S:
        end = 0.0
    elif last.text.endswith(CLAUSE_END):
        end = 0.2
    else:
        end = 0.5
    empty = 1 - min(1.0, sum(len(piece.text) for piece in pieces) / (2 * MAX_LINE_CHARS))
    return 1 + end + 0.5 * empty**2


def _aligned_cue_words(segment: Segment) -> list[CueWord]:
    """Return timed words as the text has them: what stands between them stays as it is, spaces or none."""
    found, at = [], 0
    for word in segment.words:
        if not (text := word.text.strip()):
            continue
        place = segment.text.find(text, at)
        end = place + len(text)
        written = f" {text}" if place < 0 else segment.text[at:end]
        found.append(CueWord(word.start_s, word.end_s, written))
        at = at if place < 0 else end
    if found:
        last = found.pop()
        found.append(CueWord(last.start_s, last.end_s, last.text + segment.text[at:]))
    return found


def _estimated_cue_words(segment: Segment) -> list[CueWord]:
    texts = re.findall(rf"\s*\S{{1,{MAX_LINE_CHARS - 1}}}", segment.text)
    done = [0, *accumulate(len(text) for text in texts)]
    whole = segment.end_s - segment.start_s
    times = [segment.start_s + whole * letters / max(1, done[-1]) for letters in done]
    return [CueWord(*span, text) for span, text in zip(pairwise(times), texts, strict=True)]


def _joined(pieces: Sequence[CueWord]) -> str:
    return " ".join("".join(piece.text for piece in pieces).split())


Summary = Callable[[], dict]
"""What there is to tell when the last segment has come."""


def as_text(segments: Iterable[Segment], summary: Summary = dict) -> Iterator[str]:
    for segment in segments:
        if line := " ".join(segment.text.split()):
            yield f"{line}\n"


def as_srt(segments: Iterable[Segment], summary: Summary = dict) -> Iterator[str]:
    """Yield SubRip: a number, times with a comma, one or two lines. What is a tag in it nobody agrees on."""
    for number, cue in enumerate(make_cues(segments), 1):
        yield f"{number}\n{_clock(cue.start_s, ',')} --> {_clock(cue.end_s, ',')}\n{cue.text}\n\n"


def as_vtt(segments: Iterable[Segment], summary: Summary = dict) -> Iterator[str]:
    """Yield WebVTT (w3.org/TR/webvtt1); words whose times are known have them within their cue."""
    yield "WEBVTT\n\n"
    for cue in make_cues(segments):
        text = _with_times(cue) if cue.timed else _escaped(cue.text)
        yield f"{_clock(cue.start_s, '.')} --> {_clock(cue.end_s, '.')}\n{text}\n\n"


def as_json(segments: Iterable[Segment], summary: Summary = dict) -> Iterator[str]:
    """Yield one JSON object: the segments whole, times in seconds, then the summary."""
    between = '{"segments": [\n'
    for segment in segments:
        yield between + json.dumps(_plain(segment), ensure_ascii=False)
        between = ",\n"
    opened = between if between.startswith("{") else "\n"
    more = (f",\n{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in summary().items())
    yield "".join([opened, "]", *more, "}\n"])


@dataclass(frozen=True)
class TranscriptFormat:
    """How segments are written, and what such a file is called."""

    suffix: str
    write: Callable[[Iterable[Segment], Summary], Iterator[str]]


TRANSCRIPT_FORMATS = {
    "text": TranscriptFormat(".txt", as_text),
    "srt": TranscriptFormat(".srt", as_srt),
    "vtt": TranscriptFormat(".vtt", as_vtt),
    "json": TranscriptFormat(".json", as_json),
}


def _clock(seconds: float, point: str) -> str:
    """Return 01:02:03.456; hours have as many digits as they need, two at least."""
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    minutes, rest = divmod(whole, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest:02}{point}{thousandths:03}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _with_times(cue: Cue) -> str:
    """Return the lines with a time before each word but the first; times grow, and lie within the cue."""
    written, before = [], round(cue.start_s * 1000)
    for line in cue.lines:
        words = []
        for piece in line:
            at = round(piece.start_s * 1000)
            stamp = f"<{_clock(piece.start_s, '.')}>" if before < at < round(cue.end_s * 1000) else ""
            space = " " if piece.text[:1].isspace() else ""
            words.append(f"{space}{stamp}{_escaped(piece.text.lstrip())}")
            before = max(before, at)
        written.append(" ".join("".join(words).split()))
    return "\n".join(written)


def _plain(item: Segment | Word) -> dict:
    """Return what JSON holds of an item: times in thousandths, no language and no words where there are none."""
    plain = {name: round(value, 3) if isinstance(value, float) else value for name, value in vars(item).items()}
    if words := plain.get("words"):
        plain["words"] = [_plain(word) for word in words]
    return {name: value for name, value in plain.items() if value or name not in ("language", "words")}
