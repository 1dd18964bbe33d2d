"""Segments -> cues: what stands on the screen at a time, at most two lines and about seven seconds."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from lengua.transcription.segments import Segment

LINE = 42
"""Letters of a line, the usual limit of subtitlers."""
LONGEST_S, SHORTEST_S = 7.0, 0.3
SENTENCE_END, CLAUSE_END = tuple(".?!…。？！"), tuple(",;:—、，")
PAUSE_S = 0.3
"""Between two words: a good place to end a cue."""


@dataclass(frozen=True)
class Piece:
    """A word as it stands in the text, with the space before it."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class Cue:
    """One or two lines, and when they are shown."""

    start_s: float
    end_s: float
    lines: tuple[tuple[Piece, ...], ...]
    timed: bool
    """Whether the times of the pieces were heard, and not reckoned."""

    @property
    def text(self) -> str:
        """The lines, without any markup."""
        return "\n".join(_joined(line) for line in self.lines)


def cues(segments: Iterable[Segment]) -> Iterator[Cue]:
    """Yield the cues of segments in order: none is empty, shorter than 0.3 s, or begins before the last one ended."""
    before = 0.0
    for segment in segments:
        for pieces in cut(pieces_of(segment)):
            start = max(before, pieces[0].start_s)
            before = max(start + SHORTEST_S, pieces[-1].end_s)
            yield Cue(start, before, lines(pieces), bool(segment.words))


def pieces_of(segment: Segment) -> list[Piece]:
    """Return a segment's words with their times: as heard, else in proportion to their letters."""
    return _heard(segment) if segment.words else _reckoned(segment)


def cut(pieces: Sequence[Piece]) -> list[Sequence[Piece]]:
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


def lines(pieces: Sequence[Piece]) -> tuple[tuple[Piece, ...], ...]:
    """Return a cue's one or two lines, of like length where there are two."""
    if len(_joined(pieces)) <= LINE or len(pieces) == 1:
        return (tuple(pieces),)
    both = [(pieces[:at], pieces[at:]) for at in range(1, len(pieces))]
    chosen = min(both, key=lambda two: max(len(_joined(line)) for line in two))
    return tuple(tuple(line) for line in chosen)


def _fits(pieces: Sequence[Piece]) -> bool:
    if pieces[-1].end_s - pieces[0].start_s > LONGEST_S:
        return False
    letters = sum(len(piece.text) for piece in pieces)
    if letters > 2 * LINE + 2:
        return False
    return letters <= LINE or all(len(_joined(line)) <= LINE for line in lines(pieces))


def _cost(pieces: Sequence[Piece], after: Piece | None) -> float:
    last = pieces[-1]
    if after is None or last.text.endswith(SENTENCE_END) or after.start_s - last.end_s >= PAUSE_S:
        end = 0.0
    elif last.text.endswith(CLAUSE_END):
        end = 0.2
    else:
        end = 0.5
    empty = 1 - min(1.0, sum(len(piece.text) for piece in pieces) / (2 * LINE))
    return 1 + end + 0.5 * empty**2


def _heard(segment: Segment) -> list[Piece]:
    """Find the words in the text, so that what stands between them stays as it is, spaces or none."""
    found, at = [], 0
    for word in segment.words:
        if not (text := word.text.strip()):
            continue
        place = segment.text.find(text, at)
        end = place + len(text)
        written = f" {text}" if place < 0 else segment.text[at:end]
        found.append(Piece(word.start_s, word.end_s, written))
        at = at if place < 0 else end
    if not found:
        return _reckoned(segment)
    last = found.pop()
    return [*found, Piece(last.start_s, last.end_s, last.text + segment.text[at:])]


def _reckoned(segment: Segment) -> list[Piece]:
    texts = re.findall(rf"\s*\S{{1,{LINE - 1}}}", segment.text)
    done = [0, *accumulate(len(text) for text in texts)]
    whole = segment.end_s - segment.start_s
    times = [segment.start_s + whole * letters / max(1, done[-1]) for letters in done]
    return [Piece(*span, text) for span, text in zip(pairwise(times), texts, strict=True)]


def _joined(pieces: Sequence[Piece]) -> str:
    return " ".join("".join(piece.text for piece in pieces).split())
