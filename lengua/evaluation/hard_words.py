"""Which words of a test set a model gets wrong again and again: what new recordings should hold.

for word in hard_words(reading.after):
    print(word.word, word.wrong, word.said, word.heard)
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lengua.scoring import is_looped
from lengua.scoring.counts import aligned_words

LEFT_OUT = ""
"""What is heard of a word that is missing."""


@dataclass(frozen=True)
class HardWord:
    """One word of the references, as scoring compares it."""

    word: str
    said: int
    wrong: int
    heard: str
    """What was written for it most often; empty where it was left out."""
    example: str
    """The id of the first clip that has it wrong."""

    @property
    def share(self) -> float:
        """How much of the times it was said it is wrong: a fraction."""
        return self.wrong / self.said


def hard_words(records: Sequence[dict]) -> list[HardWord]:
    """Return every word that is wrong at least once: by how often, then by share, then by the alphabet.

    Clips that loop are left out: their words say nothing of the words said.

    Args:
        records: of hypotheses.jsonl, of one model and window.
    """
    said, heard, example = Counter(), defaultdict(Counter), {}
    for word, written, where in _words(records):
        said[word] += 1
        if written != word:
            heard[word][written] += 1
            example.setdefault(word, where)
    found = [
        HardWord(word, said[word], sum(wrong.values()), min(wrong, key=lambda one: (-wrong[one], one)), example[word])
        for word, wrong in heard.items()
    ]
    return sorted(found, key=lambda word: (-word.wrong, -word.share, word.word))


def _words(records: Sequence[dict]) -> Iterator[tuple[str, str, str]]:
    """Yield (word, what was written for it, id) of every word of the references."""
    kept = [record for record in records if not _loops(record)]
    if not kept:
        return
    aligned = aligned_words([record["reference"] for record in kept], [record["hypothesis"] for record in kept])
    for record, words, written, chunks in zip(
        kept, aligned.references, aligned.hypotheses, aligned.alignments, strict=True
    ):
        for chunk in chunks:
            places = range(chunk.ref_start_idx, chunk.ref_end_idx)
            heard = written[chunk.hyp_start_idx : chunk.hyp_end_idx] or [LEFT_OUT] * len(places)
            yield from ((words[place], one, record["id"]) for place, one in zip(places, heard, strict=False))


def _loops(record: dict) -> bool:
    looped = is_looped(record["hypothesis"], record.get("tokens"), record.get("duration_s"))
    return looped or "looped" in (record.get("flags") or ())
