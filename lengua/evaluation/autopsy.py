"""What a WER is made of: clips that loop, run on, fall silent, answer in another language, lose their beginning or end.

    found = autopsy(records, "es")
    found.wer, found.wer_without_loops, found.share("looped"), found.inventors

Everything is read from references and hypotheses, and from the flags that decoding left on a record. A few clips that
loop can make a WER of 300 % by themselves; the WER without them says what the others are worth.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lengua.evaluation.other_languages import english_words, is_english, is_in_other_script, scripts_of
from lengua.scoring import is_looped, orthography, percent, score
from lengua.scoring.counts import aligned_words
from lengua.text import normalise

MARKS = {
    "looped": "goes round in circles",
    "length_limit": "was stopped by the limit of length, not by itself",
    "runs_on": "goes on after what was said",
    "empty": "is empty",
    "wrong_language": "is in another language",
    "english": "is in English",
    "shifted": "lacks its beginning, or starts twice",
    "cut": "ends too early",
}
"""What can be the matter with a hypothesis, and how to say it. One may have several marks."""

MOST = 10
"""Utterances that are shown of a kind."""
MOSTLY = 0.5
CUT_WORDS = 2  # a lost last word is an error like others; more of them, and a quarter of the text, is an early end
CUT_SHARE = 0.25
RUN_ON_WORDS = 5  # words beyond the reference's, and half as many as it has: no mishearing adds so many
RUN_ON_SHARE = 0.5
UNEVEN = {"looped", "length_limit", "runs_on", "empty", "cut"}  # marks of a text whose length is a fault by itself
SPELLED = ("accents", "letters", "numbers", "spacing")


@dataclass(frozen=True)
class Case:
    """One utterance that is worth a look."""

    id: str
    reference: str
    hypothesis: str
    errors: int
    words: int
    insertions: int
    marks: tuple[str, ...]


@dataclass(frozen=True)
class Autopsy:
    """One model in one window on one set. Rates and shares are fractions."""

    utterances: int
    words: int
    wer: float
    wer_without_loops: float | None
    """Of the utterances that do not loop; None where all of them do."""
    substitutions: int
    deletions: int
    insertions: int
    marks: dict[str, tuple[str, ...]]
    """The ids of the utterances with each of MARKS."""
    prefix_wer: float
    """WER if every hypothesis ended after as many words as were said: a model that only fails to stop is good here."""
    hits: float
    """Share of the reference's words that are right in these first words."""
    same: float
    """Share of the utterances that got the commonest text: the same words, of at least two, however often said."""
    length: float
    """Letters written for each letter said, over clips that neither loop, run on, are empty nor end early: about 1."""
    spelled: float
    """Share of the errors of clips that do not loop that are spelling only: accents, ñ, digits, spaces."""
    inventors: tuple[Case, ...]
    """The utterances with the most insertions, most first."""
    inventors_share: float
    """Their share of all insertions."""
    worst: tuple[Case, ...]
    """The utterances with the most errors, most first."""

    def share(self, mark: str) -> float:
        """Return the share of the utterances with a mark."""
        return len(self.marks[mark]) / max(1, self.utterances)


def autopsy(records: Sequence[dict], language: str = "es", most: int = MOST) -> Autopsy:
    """Look into the utterances of one model, window and set.

    Marks come from a record's flags where decoding knows more than the text (looped, length_limit, wrong_language, and
    `tokens` where it is there), else from the text. Without the flag, another language is another script than the
    references', or English: other languages of one script are not told apart by a few words.

    Args:
        records: of hypotheses.jsonl.
        language: Whisper's code of what was asked for.
        most: how many utterances to name.
    """
    counts = score([r["reference"] for r in records], [r["hypothesis"] for r in records])
    cases = _cases(records, language, counts.counts)
    kept = [k for k, case in enumerate(cases) if "looped" not in case.marks]
    inventors = sorted((case for case in cases if case.insertions), key=lambda case: (-case.insertions, case.id))[:most]
    worst = sorted((case for case in cases if case.errors), key=lambda case: (-case.errors, case.id))[:most]
    first = _first_words(records)
    return Autopsy(
        utterances=len(records),
        words=counts.words,
        wer=counts.wer,
        wer_without_loops=_wer_of([cases[k] for k in kept]) if kept or not records else None,
        substitutions=counts.substitutions,
        deletions=counts.deletions,
        insertions=counts.insertions,
        marks={mark: tuple(case.id for case in cases if mark in case.marks) for mark in MARKS},
        prefix_wer=first.wer,
        hits=first.hits / max(1, first.words),
        same=_same(records),
        length=_length([case for case in cases if not UNEVEN & set(case.marks)]),
        spelled=_spelled([records[k] for k in kept], language),
        inventors=tuple(inventors),
        inventors_share=sum(case.insertions for case in inventors) / max(1, counts.insertions),
        worst=tuple(worst),
    )


def sentences(found: Autopsy) -> list[str]:
    """Say what was found, most telling first; only what there is to say."""
    if not found.utterances:
        return ["no utterances were measured"]
    told = []
    if found.marks["looped"] and found.wer_without_loops is not None:
        told.append(f"WER is {percent(found.wer)}, and {percent(found.wer_without_loops)} without the clips that loop")
    if found.inventors and found.inventors_share >= MOSTLY and found.insertions >= found.utterances:
        make = "makes" if len(found.inventors) == 1 else "make"
        share = f"{make} {percent(found.inventors_share)} of all insertions"
        told.append(f"{_clips(len(found.inventors))} of {found.utterances} {share}")
    for mark, what in MARKS.items():
        if ids := found.marks[mark]:
            told.append(f"{_clips(len(ids))} ({percent(found.share(mark))}): the text {what}")
    if found.spelled > 0:
        told.append(f"{percent(found.spelled)} of the errors are spelling only: accents, digits, spaces")
    return told


def _clips(count: int) -> str:
    return f"{count} clip{'s' * (count != 1)}"


def _cases(records: Sequence[dict], language: str, counts) -> list[Case]:
    references = [record["reference"] for record in records]
    expected, english = scripts_of(references), english_words(references, language)
    aligned = aligned_words(references, [record["hypothesis"] for record in records]) if records else None
    return [
        Case(
            id=record["id"],
            reference=record["reference"],
            hypothesis=record["hypothesis"],
            errors=int(counts["errors"][k]),
            words=int(counts["words"][k]),
            insertions=int(counts["insertions"][k]),
            marks=tuple(_marks(record, aligned.references[k], aligned.hypotheses[k], aligned.alignments[k]))
            + _of_language(record, aligned.hypotheses[k], expected, english),
        )
        for k, record in enumerate(records)
    ]


def _marks(record: dict, said: list[str], heard: list[str], chunks: list) -> Iterator[str]:
    """Yield the marks of one utterance but those of its language."""
    flags, seconds = record.get("flags") or (), record.get("duration_s")
    if "looped" in flags or is_looped(record["hypothesis"], record.get("tokens"), seconds):
        yield "looped"
    if "length_limit" in flags:
        yield "length_limit"
    if len(heard) - len(said) >= max(RUN_ON_WORDS, RUN_ON_SHARE * len(said)):
        yield "runs_on"
    if not heard:
        yield "empty"
    if heard and said and _is_shifted(said, heard, chunks):
        yield "shifted"
    if heard and _is_cut(said, chunks):
        yield "cut"


def _is_shifted(said: list[str], heard: list[str], chunks: list) -> bool:
    """Tell whether a text that is mostly right lacks its first word or first letters, or says its first word twice."""
    hits = sum(chunk.ref_end_idx - chunk.ref_start_idx for chunk in chunks if chunk.type == "equal")
    if len(said) < 2 or hits < MOSTLY * (len(said) - 1):
        return False
    lost = chunks[0].type == "delete"
    clipped = said[0] != heard[0] and len(heard[0]) > 1 and said[0].endswith(heard[0])
    twice = len(heard) > 1 and heard[0] == heard[1] == said[0] != said[1]
    return lost or clipped or twice


def _is_cut(said: list[str], chunks: list) -> bool:
    """Tell whether the end of a text is missing, of which the rest is mostly right."""
    if not chunks or chunks[-1].type != "delete":
        return False
    missing = len(said) - chunks[-1].ref_start_idx
    hits = sum(chunk.ref_end_idx - chunk.ref_start_idx for chunk in chunks if chunk.type == "equal")
    return missing >= max(CUT_WORDS, CUT_SHARE * len(said)) and hits > MOSTLY * (len(said) - missing)


def _of_language(record: dict, heard: list[str], expected: set[str], english: frozenset[str]) -> tuple[str, ...]:
    """Return the marks that tell of another language."""
    in_english = is_english(heard, english)
    flagged = "wrong_language" in (record.get("flags") or ())
    wrong = flagged or in_english or is_in_other_script(record["hypothesis"], expected)
    return (*(("wrong_language",) if wrong else ()), *(("english",) if in_english else ()))


def _first_words(records: Sequence[dict]):
    """Score each hypothesis cut after as many words as its reference has."""
    references = [normalise(record["reference"]) for record in records]
    pairs = zip(references, (normalise(record["hypothesis"]) for record in records), strict=True)
    return score(references, [" ".join(heard.split()[: len(said.split())]) for said, heard in pairs], str)


def _same(records: Sequence[dict]) -> float:
    """Compare texts by their different words, so that a loop is the same however long it is."""
    texts = (normalise(record["hypothesis"]).split() for record in records)
    most = max(Counter(tuple(dict.fromkeys(words)) for words in texts if len(words) > 1).values(), default=0)
    return most / len(records) if most > 1 else 0.0


def _length(cases: list[Case]) -> float:
    """Return letters written per letter said; 1 where nothing was said."""
    said = sum(len(normalise(case.reference)) for case in cases)
    return sum(len(normalise(case.hypothesis)) for case in cases) / said if said else 1.0


def _spelled(records: Sequence[dict], language: str) -> float:
    """Return the share of the errors that are spelling; loops are left out before, they would be aligned for long."""
    found = orthography([r["reference"] for r in records], [r["hypothesis"] for r in records], language)
    spelled = sum(found.counts[name] for name in SPELLED)
    return spelled / max(1, spelled + found.words)


def _wer_of(cases: list[Case]) -> float:
    return sum(case.errors for case in cases) / max(1, sum(case.words for case in cases))
