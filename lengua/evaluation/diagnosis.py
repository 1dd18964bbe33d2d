"""Diagnosis of a fine-tuned model: each failure mode with its likely cause, its cure and a check that settles it.

    case, base = find_failure_modes(records, "es"), find_failure_modes(base_records, "es")
    for finding in diagnose_failures(case, base, {"window": "padded"}, "adaptive"):
        print(finding.name, finding.what, finding.cause, finding.cure)

Whisper's failures leave fingerprints in the text: right words and then no end point to the window or the end token,
another language to decoding, nothing right at all to the learning rate. Where text cannot tell causes apart, all are
named, the likeliest first; what is known beside the text (`KnownFacts`) decides. Three failures leave hardly a mark in
the text of short clips, and `KnownFacts` alone names them: a second start token, zeros behind the speech in 30 s, and a
language that is not forced but mostly guessed right.
"""

import math
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from lengua.evaluation.failure_modes import MAJORITY_SHARE, FailureModes
from lengua.runtime.files import ASSETS
from lengua.scoring import percent

BROKEN, WARNING, GOOD, REMARK = SEVERITIES = ("broken", "warning", "good", "note")
"""In the order in which findings are listed."""


CAUSES: dict[str, dict[str, str]] = tomllib.loads((ASSETS / "causes.toml").read_text(encoding="utf-8"))
"""Words about each cause, as fields of a finding: cause, cure, check."""


@dataclass(frozen=True)
class KnownFacts:
    """What is known beside the texts; None where it is not."""

    dev_loss: float | None = None
    """By teacher forcing."""
    learning_rate: float | None = None
    """Peak of the schedule, of full training."""
    starts: int | None = None
    """How often <|startoftranscript|> stands in one row of the decoder's inputs."""
    says_start: bool | None = None
    """Whether the model, given the start token alone, mostly says it again instead of a language: what two start tokens
    teach, though it writes as well as ever if the language is forced."""
    ends: int | None = None
    """How many end tokens one row of the labels keeps in the loss."""
    filler: float | None = None
    """The value behind the speech in the features that were fed to the encoder."""
    floor: float | None = None
    """The value of silence there: the clip's largest value - 2."""
    forced: bool | None = None
    """Whether language and task were forced in decoding."""


@dataclass(frozen=True)
class DiagnosisFinding:
    """One thing that is the matter, or may be."""

    name: str
    """One of CAUSES."""
    severity: str
    """broken, warning, note or good."""
    what: str
    cause: str
    cure: str
    check: str
    """What tells it from the causes that look like it."""
    weight: float
    """How well the cause fits: 1 where it is known, less where the text tells. Findings come in this order."""
    evidence: dict[str, float] = field(default_factory=dict)


def make_finding(name: str, severity: str, what: str, weight: float, **evidence: float) -> DiagnosisFinding:
    """Return a finding with the words of its cause."""
    rounded = {key: round(value, 4) for key, value in evidence.items()}
    return DiagnosisFinding(name, severity, what, **CAUSES[name], weight=round(weight, 2), evidence=rounded)


# Borders between a clip that fails now and then and a fault of the whole model, chosen by looking at transcripts of
# whisper-base, healthy and broken; tests/test_failure_modes.py holds them to the latter.
FREQUENT_SHARE = 0.1
NEARLY_ALL_SHARE = 0.9
MIN_PATTERN_CLIPS = 2  # clips: in a small set a tenth may be one clip, and one is no pattern
KNOWN_LANGUAGE_HITS_SHARE = 0.3  # of the words right at the start of the texts
GIBBERISH_HITS_SHARE = 0.15  # whoever knows the language has more words right; a translation, hardly any
FRAGMENT_LETTERS_SHARE = 0.75  # of the letters: models that work write nearly all, one with shifted labels about half
IDENTICAL_TEXTS_SHARE = 0.2  # of the clips get one and the same text
WORSE_WER_RATIO = 1.25  # times the WER of the opponent
ALL_WRONG_WER = 0.9
HIGH_LEARNING_RATE = 1e-4  # full training diverges above; whisper-base was made with 1e-3, but in batches of 256
LOW_TRAINING_LOSS = 1.0  # of a model that writes the right words when it is given those before


@dataclass(frozen=True)
class FailureCase:
    """All that a rule may look at."""

    model: FailureModes
    base: FailureModes | None
    padded: FailureModes | None
    note: dict
    window: str
    facts: KnownFacts

    @property
    def knows(self) -> float:
        """Share of right words from which a model counts as recognising speech; less where the base hardly does."""
        of_base = MAJORITY_SHARE * self.base.hits if self.base else 1.0
        return min(KNOWN_LANGUAGE_HITS_SHARE, of_base)


def diagnose_failures(
    model: FailureModes,
    base: FailureModes | None = None,
    note: dict | None = None,
    window: str = "padded",
    padded: FailureModes | None = None,
    facts: KnownFacts | None = None,
) -> list[DiagnosisFinding]:
    """Return what is wrong, most likely first; at least one finding, if only that nothing is.

    Args:
        model: the autopsy of the model in this window.
        base: of the untouched base on the same set, padded to 30 s by the same path; what the model is held against.
        note: lengua.json of the model; None or {} of a model that was not trained here.
        window: padded or adaptive: how the model was measured.
        padded: the autopsy of the same weights in 30 s of true silence, where `window` is another.
        facts: what is known beside the texts.
    """
    if not model.utterances:
        return [make_finding("undecided", REMARK, "no utterances were measured", 1.0)]
    case = FailureCase(model, base, padded, note or {}, window, facts or KnownFacts())
    found = [one for rule in DIAGNOSIS_RULES for one in rule(case)]
    found = sorted(_strongest(found), key=lambda one: -one.weight)
    if not any(one.severity in (BROKEN, WARNING) for one in found):
        found += _without_a_failure(case)
    return sorted(found, key=lambda one: SEVERITIES.index(one.severity))


def endless_share(found: FailureModes) -> float:
    """Return the share of the clips whose texts do not stop when the speech does."""
    return found.endless / max(1, found.utterances)


def _known(case: FailureCase) -> Iterator[DiagnosisFinding]:
    """What was seen in batches and settings needs no text to prove it; it is a fault even where texts look well."""
    facts = case.facts
    if facts.starts is not None and facts.starts > 1:
        yield make_finding("double_start", BROKEN, f"a row of the inputs has {facts.starts} start tokens", 1.0)
    elif facts.says_start:
        yield make_finding("double_start", BROKEN, "after the start token the model says the start token again", 1.0)
    if facts.ends == 0:
        yield make_finding("end_masked", BROKEN, "the labels have no end token in the loss", 1.0)
    if facts.filler is not None and facts.floor is not None and facts.filler > facts.floor + 0.1:
        what = f"behind the speech stands {facts.filler:g}, where silence is {facts.floor:.2f}"
        yield make_finding("zero_padding", BROKEN, what, 1.0, filler=facts.filler, floor=facts.floor)
    if facts.forced is False:
        yield make_finding("language", BROKEN, "decoding was told no language, or another one", 0.95)
    if facts.dev_loss is not None and not math.isfinite(facts.dev_loss):
        yield make_finding("rate", BROKEN, "the loss is no number", 1.0)


def _language(case: FailureCase) -> Iterator[DiagnosisFinding]:
    share, english = case.model.share("wrong_language"), case.model.share("english")
    if share < FREQUENT_SHARE or _is_rare(case.model, len(case.model.marks["wrong_language"])):
        return
    what = f"{percent(share)} of the texts are in another language" + (", English" if english > share / 2 else "")
    weight = 1.0 if case.facts.forced is False else 0.6 + 0.35 * share
    yield make_finding("language", BROKEN, what, weight, wrong_language=share, english=english)


def _endless(case: FailureCase) -> Iterator[DiagnosisFinding]:
    """The beginnings are right and the ends are missing: the window, the end token, or a few hard clips."""
    model, share = case.model, endless_share(case.model)
    more = share - (endless_share(case.base) if case.base else 0.0)
    if share == 0 or model.hits < case.knows:
        return
    evidence = {"runs_on": share, "hits": model.hits, "prefix_wer": model.prefix_wer, "wer": model.wer}
    expected = case.window == "adaptive" and case.note.get("window") != "adaptive"  # to fail: not made for it
    if more < FREQUENT_SHARE / (1 + expected) or _is_rare(model, model.endless):
        yield make_finding("loops", REMARK, f"{percent(share)} of the texts do not stop", 0.5, **evidence)
        return
    what = f"{percent(share)} of the texts begin with the right words and do not stop; {_model_quality(model)}"
    for name, weight in _endless_causes(case).items():
        yield make_finding(name, BROKEN, what, weight, **evidence)


def _endless_causes(case: FailureCase) -> dict[str, float]:
    """Weigh the causes of texts that do not stop."""
    share, trained = endless_share(case.model), bool(case.note)
    healed = case.padded is not None and endless_share(case.padded) < share / 3
    persists = case.padded is not None and not healed
    weights = {"end_masked": 0.2 + 0.3 * trained + 0.35 * (share >= NEARLY_ALL_SHARE) + 0.2 * persists - 0.3 * healed}
    if case.window == "adaptive":
        of_window = 0.75 - 0.35 * (case.note.get("window") == "adaptive") + 0.15 * healed - 0.4 * persists
        weights["short_window"] = of_window - 0.35 * (share >= NEARLY_ALL_SHARE)
        weights["zero_padding"] = 0.3 - 0.2 * healed
    elif case.note.get("window") == "adaptive":
        weights["long_window"] = 0.6 - 0.35 * (share >= NEARLY_ALL_SHARE)
    else:
        weights["zero_padding"] = 0.45 - 0.3 * (share >= NEARLY_ALL_SHARE)
    return {name: weight for name, weight in weights.items() if weight > 0.15}


def _destroyed(case: FailureCase) -> Iterator[DiagnosisFinding]:
    """Hardly a word is right, and it is no other language; of a base that knows better, or a model that was trained."""
    model, base, facts = case.model, case.base, case.facts
    if base.hits < KNOWN_LANGUAGE_HITS_SHARE if base else not case.note:
        return
    alike, empty = model.same >= IDENTICAL_TEXTS_SHARE, model.share("empty") >= MAJORITY_SHARE
    enough = KNOWN_LANGUAGE_HITS_SHARE if alike else GIBBERISH_HITS_SHARE
    if model.hits >= enough or model.share("wrong_language") >= MAJORITY_SHARE:
        return
    weight = 0.6 + 0.2 * alike + 0.1 * (endless_share(model) >= MAJORITY_SHARE) + 0.1 * empty
    if facts.learning_rate is not None:
        weight += 0.15 if facts.learning_rate > HIGH_LEARNING_RATE else -0.2
    evidence = {"hits": model.hits, "same": model.same, "empty": model.share("empty"), "runs_on": endless_share(model)}
    same = f", and {percent(model.same)} of the clips get the same text" if alike else ""
    what = f"only {percent(model.hits)} of the words are right{same}{', most texts are empty' if empty else ''}"
    low_loss = facts.dev_loss is not None and facts.dev_loss < LOW_TRAINING_LOSS
    yield make_finding("rate", BROKEN, what, min(0.99, weight - 0.4 * low_loss), **evidence)
    yield make_finding("prompt", BROKEN, what, 0.35 + 0.4 * low_loss, **evidence)


def _gap(case: FailureCase) -> Iterator[DiagnosisFinding]:
    """The loss is low and the text is wrong: teacher forcing and generation are different things."""
    loss, model = case.facts.dev_loss, case.model
    if loss is not None and loss < LOW_TRAINING_LOSS and model.wer > ALL_WRONG_WER:
        what = f"the loss on dev is {loss:.2f}, which is good, and the WER is {percent(model.wer)}, which is not"
        yield make_finding("prompt", BROKEN, what, 0.4, dev_loss=loss, wer=model.wer)


def _beginnings(case: FailureCase) -> Iterator[DiagnosisFinding]:
    """First words are lost; or, where the shift is by a token, pieces of all words are: "trat" for "tratamiento"."""
    more, length = _more_than_base(case, "shifted"), case.model.length
    if more >= FREQUENT_SHARE:
        what = f"{percent(case.model.share('shifted'))} of the texts lack their beginning, or say it twice"
        yield make_finding("label_shift", BROKEN, what, 0.45 + 0.3 * more, shifted=more)
        yield make_finding("double_start", BROKEN, what, 0.4 + 0.3 * more, shifted=more)
    if length < FRAGMENT_LETTERS_SHARE and case.model.hits >= GIBBERISH_HITS_SHARE:
        what = f"words lack pieces: only {percent(length)} of the letters are there, in texts that do not end early"
        yield make_finding("label_shift", BROKEN, what, 0.6 + (FRAGMENT_LETTERS_SHARE - length), length=length)


def _ends(case: FailureCase) -> Iterator[DiagnosisFinding]:
    more = _more_than_base(case, "cut")
    if more >= FREQUENT_SHARE:
        what = f"{percent(case.model.share('cut'))} of the texts end before the speech does"
        yield make_finding("cut", WARNING, what, 0.5 + 0.3 * more, cut=more)


def _spelling(case: FailureCase) -> Iterator[DiagnosisFinding]:
    if case.model.spelled >= MAJORITY_SHARE and case.model.wer > 0:
        what = f"{percent(case.model.spelled)} of the errors are spelling only"
        yield make_finding("orthography", REMARK, what, 0.9, spelled=case.model.spelled)


DIAGNOSIS_RULES: list[Callable[[FailureCase], Iterator[DiagnosisFinding]]] = [
    _known, _language, _endless, _destroyed, _gap, _beginnings, _ends, _spelling
]  # fmt: skip


def _without_a_failure(case: FailureCase) -> list[DiagnosisFinding]:
    """Nothing is broken: better than the base, no better, or worse for no known reason."""
    model, base = case.model, case.base
    what = f"WER is {percent(model.wer)}"
    if base is None:
        name, severity = ("undecided", WARNING) if model.wer > ALL_WRONG_WER else ("healthy", GOOD)
        return [make_finding(name, severity, what, 0.5, wer=model.wer)]
    what += f", the base has {percent(base.wer)}"
    if model.wer > WORSE_WER_RATIO * base.wer:
        if model.wer_without_loops is not None and model.wer_without_loops <= WORSE_WER_RATIO * base.wer:
            return []  # the loops are reported, and are all there is to it
        return [make_finding("undecided", WARNING, what, 0.5, wer=model.wer, base_wer=base.wer)]
    in_vain = bool(case.note) and model.wer >= base.wer
    name, severity = ("few_data", REMARK) if in_vain else ("healthy", GOOD)
    return [make_finding(name, severity, what, 0.5, wer=model.wer, base_wer=base.wer)]


def _more_than_base(case: FailureCase, mark: str) -> float:
    """Return how much more of the texts have a mark than of the base's; 0 where it is fewer than a few clips."""
    if _is_rare(case.model, len(case.model.marks[mark])):
        return 0.0
    return case.model.share(mark) - (case.base.share(mark) if case.base else 0.0)


def _is_rare(model: FailureModes, clips: int) -> bool:
    return clips < min(MIN_PATTERN_CLIPS, model.utterances)


def _model_quality(model: FailureModes) -> str:
    if model.wer_without_loops is None:
        return f"all of them loop, WER {percent(model.wer)}"
    return f"WER {percent(model.wer)}, {percent(model.wer_without_loops)} without those that loop"


def _strongest(found: list[DiagnosisFinding]) -> list[DiagnosisFinding]:
    """Keep the best reason for each cause."""
    best: dict[str, DiagnosisFinding] = {}
    for one in found:
        best[one.name] = max(best.get(one.name, one), one, key=lambda finding: finding.weight)
    return list(best.values())
