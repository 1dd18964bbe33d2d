"""Segments -> text, SRT, WebVTT, JSON. Pure functions: an iterator of segments in, an iterator of pieces out.

A piece is written as soon as its segment is there, so hours of speech are never held; whatever is written so far can be
read, but for JSON, whose last piece closes it.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from lengua.transcription.cues import Cue, Piece, cues
from lengua.transcription.segments import Segment

Summary = Callable[[], dict]
"""What there is to tell when the last segment has come."""


def nothing_more() -> dict:
    """Tell nothing."""
    return {}


def as_text(segments: Iterable[Segment], summary: Summary = nothing_more) -> Iterator[str]:
    """Yield a line for each segment."""
    for segment in segments:
        if line := " ".join(segment.text.split()):
            yield f"{line}\n"


def as_srt(segments: Iterable[Segment], summary: Summary = nothing_more) -> Iterator[str]:
    """Yield SubRip: a number, times with a comma, one or two lines. What is a tag in it nobody agrees on."""
    for number, cue in enumerate(cues(segments), 1):
        yield f"{number}\n{_clock(cue.start_s, ',')} --> {_clock(cue.end_s, ',')}\n{cue.text}\n\n"


def as_vtt(segments: Iterable[Segment], summary: Summary = nothing_more) -> Iterator[str]:
    """Yield WebVTT (w3.org/TR/webvtt1); words whose times are known have them within their cue."""
    yield "WEBVTT\n\n"
    for cue in cues(segments):
        text = _with_times(cue) if cue.timed else _escaped(cue.text)
        yield f"{_clock(cue.start_s, '.')} --> {_clock(cue.end_s, '.')}\n{text}\n\n"


def as_json(segments: Iterable[Segment], summary: Summary = nothing_more) -> Iterator[str]:
    """Yield one JSON object: the segments whole, times in seconds, then the summary."""
    between = '{"segments": [\n'
    for segment in segments:
        yield between + json.dumps(_plain(segment), ensure_ascii=False)
        between = ",\n"
    opened = between if between.startswith("{") else "\n"
    more = (f",\n{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in summary().items())
    yield "".join([opened, "]", *more, "}\n"])


@dataclass(frozen=True)
class Format:
    """How segments are written, and what such a file is called."""

    suffix: str
    write: Callable[[Iterable[Segment], Summary], Iterator[str]]


FORMATS = {
    "text": Format(".txt", as_text),
    "srt": Format(".srt", as_srt),
    "vtt": Format(".vtt", as_vtt),
    "json": Format(".json", as_json),
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
            inside = before < at < round(cue.end_s * 1000)
            words.append(_stamped(piece) if inside else _escaped(piece.text))
            before = max(before, at)
        written.append(" ".join("".join(words).split()))
    return "\n".join(written)


def _stamped(piece: Piece) -> str:
    space = " " if piece.text[:1].isspace() else ""
    return f"{space}<{_clock(piece.start_s, '.')}>{_escaped(piece.text.lstrip())}"


def _plain(segment: Segment) -> dict:
    plain = {"start_s": round(segment.start_s, 3), "end_s": round(segment.end_s, 3), "text": segment.text}
    if segment.language:
        plain["language"] = segment.language
    if segment.words:
        plain["words"] = [
            {
                "start_s": round(word.start_s, 3),
                "end_s": round(word.end_s, 3),
                "text": word.text,
                "probability": round(word.probability, 3),
            }
            for word in segment.words
        ]
    return plain
