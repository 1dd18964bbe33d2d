"""Failure modes of a model: clips that loop, run on, come out empty, in another language, or cut at either end.

    found = find_failure_modes(records, "es")
    found.wer, found.wer_without_loops, found.share("looped"), found.inventors

Everything is read from references, hypotheses and the flags that decoding left on a record. A few clips that loop can
make a WER of 300 % by themselves; the WER without them says what the others are worth. A language is recognised
by its script, or as English: a few wrong words are too little to accuse a model by.

Two measurements need the model itself, without energy gate, loop guard or second try, as other programs would run it:
`decode_unguarded` reproduces the 300 % failure (decoding in a window shorter than the one trained for), and `probe`
measures what fine-tuning may have unlearned: language identification, timestamps, silence. Other languages are
probed as test sets of their own (`lengua evaluate --probes sample:fr`).
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lengua.audio import SAMPLE_RATE, log_mel
from lengua.audio.windows import decoding_batches
from lengua.data.store import Row
from lengua.inference import Transcriber
from lengua.inference.engines import DECODER_POSITIONS
from lengua.models.tokens import decode_text, end_token, max_decode_tokens, text_tokens, token_id
from lengua.runtime.parallel import batched
from lengua.scoring import count_spelling_errors, is_looped, score
from lengua.scoring.normalizer import normalise
from lengua.scoring.wer import aligned_words

# Whisper translates into English only, so this one language can be recognised by its commonest words, two different
# ones of them, less those that the references use themselves: "is" is Dutch, too, "an" German.
ENGLISH_WORDS = frozenset(
    """about an all and are at be because been but can could don for from going have her here his how i if into
    is it its just m my not now of or our out she should so than thank that the their then there these they this
    those to very was we were what when where which who will with would you your""".split()
)
ENGLISH_SHARE = 0.25
# Scripts that are written together count as one.
SCRIPT_ALIASES = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "KATAKANA-HIRAGANA": "CJK", "FULLWIDTH": "LATIN"}
EXPECTED_SHARE = 0.02  # of the letters of all references: a script that is rarer is that of a foreign name
FOREIGN_LETTERS_SHARE = 0.5


def english_words(references: Iterable[str], language: str) -> frozenset[str]:
    """Return the words that tell English from the language of some references; none where that is English."""
    spoken = {word for reference in references for word in normalise(reference).split()}
    return frozenset() if language == "en" else ENGLISH_WORDS - spoken


def is_english(words: Sequence[str], english: frozenset[str]) -> bool:
    """Tell whether a text, in normalised words, has enough of the words that tell English."""
    found = [word for word in words if word in english]
    return len(set(found)) >= 2 and len(found) >= ENGLISH_SHARE * len(words)


def scripts_of(texts: Iterable[str]) -> set[str]:
    """Return the scripts that texts are written in: {"LATIN"}, {"CJK", "LATIN"}, ..."""
    letters = sum(map(_letters, texts), Counter())
    return {script for script, count in letters.items() if count >= EXPECTED_SHARE * letters.total()}


def is_in_other_script(text: str, expected: set[str]) -> bool:
    """Tell whether most letters of a text are of scripts that are not expected; never where nothing is expected."""
    letters = _letters(text)
    foreign = sum(count for script, count in letters.items() if script not in expected)
    return bool(expected) and foreign > FOREIGN_LETTERS_SHARE * letters.total()


def _letters(text: str) -> Counter:
    """Count the letters of a text by script."""
    names = (unicodedata.name(char, "UNKNOWN").split()[0] for char in text if char.isalpha())
    return Counter(SCRIPT_ALIASES.get(name, name) for name in names)


RECIPE_MAX_TOKENS = 225
"""Of one transcript: `generation_max_length` of the recipe that most people start from. One loop fills it."""


def decode_unguarded(
    transcriber: Transcriber, rows: Sequence[Row], margin_s: float | None, most: int = RECIPE_MAX_TOKENS
) -> list[dict]:
    """Return a record for each clip, with what `lengua.evaluation.failure_modes` looks at.

    Args:
        margin_s: seconds of silence behind the speech; None pads to 30 s.
        most: tokens of one transcript.
    """
    engine, lengths = transcriber.engine, [row.frames for row in rows]
    room = min(most, engine.most_tokens, DECODER_POSITIONS - len(transcriber.prompt))
    records = {}
    for batch, window in decoding_batches(lengths, transcriber.batch_size, margin_s, engine.window_frames):
        features = np.stack(
            [log_mel.pad_with_silence(rows[index].log_mel(), window, rows[index].peak) for index in batch]
        )
        written = engine.generate(features, transcriber.prompt, room)
        records |= {
            index: _record(transcriber, rows[index], one.tokens, room)
            for index, one in zip(batch, written, strict=True)
        }
    return [records[index] for index in range(len(rows))]


def _record(transcriber: Transcriber, row: Row, tokens: list[int], room: int) -> dict:
    cut = len(tokens) >= room and end_token(transcriber.tokenizer) not in tokens
    return {
        "id": row.id,
        "duration_s": row.duration_s,
        "reference": row.text,
        "hypothesis": decode_text(transcriber.tokenizer, tokens),
        "tokens": len(text_tokens(transcriber.tokenizer, tokens)),
        "flags": ["length_limit"] if cut else [],
    }


PROBE_CLIPS = 100
"""That are probed at most, spread over the set."""
NOISE_LEVELS_DBFS = (-60, -40, -20)
"""Of white noise: a quiet room, a fan, a street."""
NOISE_LENGTHS_S = (2, 5, 10, 30)
"""Lengths of stretches without speech."""
MAX_TIMESTAMP_OVERRUN_S = 0.5
"""A timestamp may lie this far behind the end of the clip."""


def probe(transcriber: Transcriber, rows: Sequence[Row], language: str) -> dict[str, dict]:
    """Return what is left of what every untouched Whisper can do; no language of one that speaks English only.

    Args:
        rows: clips whose language is known.
        language: theirs.
    """
    chosen = evenly_spaced_rows(rows, PROBE_CLIPS)
    return {
        "language": probe_language(transcriber, chosen, language) if transcriber.engine.multilingual else None,
        "timestamps": probe_timestamps(transcriber, chosen),
        "silence": probe_hallucinations(
            transcriber, [np.zeros(seconds * SAMPLE_RATE, np.float32) for seconds in NOISE_LENGTHS_S]
        ),
        "noise": probe_hallucinations(transcriber, white_noises()),
    }


def evenly_spaced_rows(rows: Sequence[Row], count: int) -> list[Row]:
    """Return at most so many rows, evenly over all."""
    places = sorted({round(at) for at in np.linspace(0, len(rows) - 1, min(count, len(rows)))})
    return [rows[place] for place in places]


def probe_language(transcriber: Transcriber, rows: Sequence[Row], language: str) -> dict:
    """Return in how many clips the model detects their language if none is given."""
    detected = [
        name
        for batch in batched(rows, transcriber.batch_size)
        for name in detect_languages(transcriber, [row.log_mel() for row in batch])
    ]
    others = sorted(set(detected) - {language}, key=lambda name: (-detected.count(name), name))
    return {
        "clips": len(rows),
        "right": detected.count(language),
        "others": {name: detected.count(name) for name in others},
    }


def detect_languages(transcriber: Transcriber, mels: Sequence[np.ndarray]) -> list[str]:
    """Return the language that the model detects in each clip."""
    probabilities = transcriber.engine.languages(pad_to_full_window(transcriber, mels))
    return [max(found, key=found.get) for found in probabilities]


def probe_timestamps(transcriber: Transcriber, rows: Sequence[Row]) -> dict:
    """Return in how many clips the model writes times that can be true, if it is asked for them."""
    first = token_id(transcriber.tokenizer, "<|0.00|>")
    written = generate_tokens(transcriber, [row.log_mel() for row in rows], transcriber.prompt[:-1])
    times = [[(token - first) * 0.02 for token in tokens if token >= first] for tokens in written]
    right = [is_plausible(found, row.duration_s) for found, row in zip(times, rows, strict=True)]
    return {"clips": len(rows), "right": sum(right)}


def is_plausible(times: Sequence[float], duration_s: float) -> bool:
    """Return whether times open and close, never go back, and end with the clip."""
    paired = len(times) >= 2 and len(times) % 2 == 0
    ordered = all(early <= late for early, late in pairwise(times))
    return paired and ordered and times[-1] <= duration_s + MAX_TIMESTAMP_OVERRUN_S


def probe_hallucinations(transcriber: Transcriber, sounds: Sequence[np.ndarray]) -> dict:
    """Return into how many stretches without speech the model puts words, and the longest that it wrote."""
    mels = [log_mel.log_mel(sound, transcriber.n_mels) for sound in sounds]
    texts = [decode_text(transcriber.tokenizer, ids) for ids in generate_tokens(transcriber, mels, transcriber.prompt)]
    words = [len(text.split()) for text in texts]
    return {
        "windows": len(sounds),
        "spoken": sum(map(bool, words)),
        "words": sum(words),
        "longest": max(texts, key=len),
    }


def white_noises(seed: int = 17) -> list[np.ndarray]:
    """Return white noise of every length and level: float32 in -1..1."""
    draw = np.random.default_rng(seed)
    return [
        (10 ** (level / 20) * draw.standard_normal(seconds * SAMPLE_RATE)).clip(-1, 1).astype(np.float32)
        for level in NOISE_LEVELS_DBFS
        for seconds in NOISE_LENGTHS_S
    ]


def generate_tokens(transcriber: Transcriber, mels: Sequence[np.ndarray], prompt: list[int]) -> Iterator[list[int]]:
    """Yield the tokens that follow the prompt, each clip padded to 30 s."""
    most = max_decode_tokens(log_mel.WINDOW_SECONDS)
    for batch in batched(mels, transcriber.batch_size):
        for written in transcriber.engine.generate(pad_to_full_window(transcriber, batch), prompt, most):
            yield written.tokens


def pad_to_full_window(transcriber: Transcriber, mels: Sequence[np.ndarray]) -> np.ndarray:
    """Return clips padded with their own silence: float32, shape (clips, n_mels, frames of the full window)."""
    return np.stack([log_mel.pad_with_silence(one, transcriber.engine.window_frames) for one in mels])


FAILURE_MARKS = ("looped", "length_limit", "runs_on", "empty", "wrong_language", "english", "shifted", "cut")
"""What can be the matter with a hypothesis; `length_limit`: stopped by the limit of length, not by itself; `runs_on`:
goes on after the end of the reference; `shifted`: lacks its beginning, or starts twice. One may have several marks."""
ENDLESS_MARKS = ("looped", "length_limit", "runs_on")  # of a text that does not stop when the speech does
LENGTH_FAULT_MARKS = {*ENDLESS_MARKS, "empty", "cut"}  # of a text whose length is a fault by itself

MAX_CASES = 10
"""Utterances that are shown of a kind."""
MAJORITY_SHARE = 0.5
# A text is shifted that is mostly right but lacks its first word or first letters, or says its first word twice.
MIN_CUT_WORDS = 2  # a lost last word is an error like others; more of them, and a quarter of the text, is an early end
MIN_CUT_SHARE = 0.25
MIN_RUN_ON_WORDS = 5  # words beyond the reference's, and half as many as it has: no mishearing adds so many
MIN_RUN_ON_SHARE = 0.5
SPELLING_KINDS = ("accents", "letters", "numbers", "spacing")
"""Errors that the WER counts although the words are recognised."""


@dataclass(frozen=True)
class FlaggedUtterance:
    """One utterance that is worth a look."""

    id: str
    reference: str
    hypothesis: str
    errors: int
    words: int
    insertions: int
    marks: tuple[str, ...]


@dataclass(frozen=True)
class FailureModes:
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
    """The ids of the utterances with each of FAILURE_MARKS."""
    prefix_wer: float
    """WER if every hypothesis ended after as many words as its reference: a model that only fails to stop does well."""
    hits: float
    """Share of the reference's words that are right in these first words."""
    same: float
    """Share of the utterances that got the commonest text: the same words, of at least two, however often repeated."""
    length: float
    """Letters of hypotheses per letter of references; clips that loop, run on, are empty or end early left out."""
    spelled: float
    """Share of the errors of clips that do not loop that are spelling only: accents, ñ, digits, spaces."""
    inventors: tuple[FlaggedUtterance, ...]
    """The utterances with the most insertions, most first."""
    inventors_share: float
    """Their share of all insertions."""
    worst: tuple[FlaggedUtterance, ...]
    """The utterances with the most errors, most first."""

    def share(self, mark: str) -> float:
        """Return the share of the utterances with a mark."""
        return len(self.marks[mark]) / max(1, self.utterances)

    @property
    def endless(self) -> int:
        """How many texts do not stop when the speech does."""
        return len(set().union(*(self.marks[mark] for mark in ENDLESS_MARKS)))


def find_failure_modes(records: Sequence[dict], language: str = "es", most: int = MAX_CASES) -> FailureModes:
    """Look into the utterances of one model, window and set.

    Marks come from a record's flags where decoding knows more than the text (looped, length_limit, wrong_language, and
    `tokens` where it is there), else from the text. Without the flag, another language is another script than the
    references', or English: other languages of one script are not distinguished by a few words.

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
    return FailureModes(
        utterances=len(records),
        words=counts.words,
        wer=counts.wer,
        wer_without_loops=_wer_of([cases[k] for k in kept]) if kept or not records else None,
        substitutions=counts.substitutions,
        deletions=counts.deletions,
        insertions=counts.insertions,
        marks={mark: tuple(case.id for case in cases if mark in case.marks) for mark in FAILURE_MARKS},
        prefix_wer=first.wer,
        hits=first.hits / max(1, first.words),
        same=_same(records),
        length=_length([case for case in cases if not LENGTH_FAULT_MARKS & set(case.marks)]),
        spelled=_spelled([records[k] for k in kept], language),
        inventors=tuple(inventors),
        inventors_share=sum(case.insertions for case in inventors) / max(1, counts.insertions),
        worst=tuple(worst),
    )


def _cases(records: Sequence[dict], language: str, counts: np.ndarray) -> list[FlaggedUtterance]:
    references = [record["reference"] for record in records]
    expected, english = scripts_of(references), english_words(references, language)
    aligned = aligned_words(references, [record["hypothesis"] for record in records])
    return [
        FlaggedUtterance(
            record["id"],
            record["reference"],
            record["hypothesis"],
            *(int(counts[name][k]) for name in ("errors", "words", "insertions")),
            marks=(
                *_marks(record, aligned.references[k], aligned.hypotheses[k], aligned.alignments[k]),
                *_language_marks(record, aligned.hypotheses[k], expected, english),
            ),
        )
        for k, record in enumerate(records)
    ]


def _marks(record: dict, reference: list[str], hypothesis: list[str], chunks: list) -> Iterator[str]:
    """Yield the marks of one utterance but those of its language; both texts as normalised words."""
    flags, seconds = record.get("flags") or (), record.get("duration_s")
    hits = sum(chunk.ref_end_idx - chunk.ref_start_idx for chunk in chunks if chunk.type == "equal")
    if "looped" in flags or is_looped(record["hypothesis"], record.get("tokens"), seconds):
        yield "looped"
    if "length_limit" in flags:
        yield "length_limit"
    if len(hypothesis) - len(reference) >= max(MIN_RUN_ON_WORDS, MIN_RUN_ON_SHARE * len(reference)):
        yield "runs_on"
    if not hypothesis:
        yield "empty"
        return
    if len(reference) >= 2 and hits >= MAJORITY_SHARE * (len(reference) - 1):
        first, written = reference[0], hypothesis[0]
        clipped = first != written and len(written) > 1 and first.endswith(written)
        if chunks[0].type == "delete" or clipped or hypothesis[:2] == [first, first] != reference[:2]:
            yield "shifted"
    if chunks and chunks[-1].type == "delete":
        there = chunks[-1].ref_start_idx
        missing = len(reference) - there
        if missing >= max(MIN_CUT_WORDS, MIN_CUT_SHARE * len(reference)) and hits > MAJORITY_SHARE * there:
            yield "cut"


def _language_marks(record: dict, words: list[str], expected: set[str], english: frozenset[str]) -> list[str]:
    in_english = is_english(words, english)
    flagged = "wrong_language" in (record.get("flags") or ())
    wrong = flagged or in_english or is_in_other_script(record["hypothesis"], expected)
    return ["wrong_language"] * wrong + ["english"] * in_english


def _first_words(records: Sequence[dict]):
    """Score each hypothesis cut after as many words as its reference has."""
    references = [normalise(record["reference"]) for record in records]
    pairs = zip(references, (normalise(record["hypothesis"]) for record in records), strict=True)
    cut = [" ".join(hypothesis.split()[: len(reference.split())]) for reference, hypothesis in pairs]
    return score(references, cut, str)


def _same(records: Sequence[dict]) -> float:
    """Compare texts by their different words, so that a loop is the same however long it is."""
    texts = (normalise(record["hypothesis"]).split() for record in records)
    most = max(Counter(tuple(dict.fromkeys(words)) for words in texts if len(words) > 1).values(), default=0)
    return most / len(records) if most > 1 else 0.0


def _length(cases: list[FlaggedUtterance]) -> float:
    """Return letters written per letter of the references; 1 where these are empty."""
    expected = sum(len(normalise(case.reference)) for case in cases)
    return sum(len(normalise(case.hypothesis)) for case in cases) / expected if expected else 1.0


def _spelled(records: Sequence[dict], language: str) -> float:
    """Return the share of the errors that are spelling; loops are left out before, they would be aligned for long."""
    found = count_spelling_errors([r["reference"] for r in records], [r["hypothesis"] for r in records], language)
    spelled = sum(found.counts[name] for name in SPELLING_KINDS)
    return spelled / max(1, spelled + found.words)


def _wer_of(cases: list[FlaggedUtterance]) -> float:
    return sum(case.errors for case in cases) / max(1, sum(case.words for case in cases))
