"""What is wrong with a model, in plain words, with the likely cause and its cure.

    for finding in diagnose(autopsy(records, "es"), base, note={"window": "padded"}, window="adaptive"):
        print(finding.name, finding.what, finding.cause, finding.cure)

Whisper's failures leave fingerprints in the text. Words right and then no end: the window, or the end token. Another
language: decoding. Nothing right at all: the rate. Where text cannot tell causes apart, all are named, the likeliest
first, with the check that settles it; where more is known than the text (`Facts`), that decides. Three failures leave
hardly a mark in the text of short clips, a second start token, zeros behind the speech in 30 s, and a language that is
not forced but mostly guessed right: `Facts` alone names them.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lengua.evaluation.autopsy import Autopsy
from lengua.evaluation.causes import BROKEN, GOOD, NOTE, SEVERITIES, WARNING, Facts, Finding, finding
from lengua.scoring import percent

# Borders between a clip that fails now and then and a fault of the whole model, chosen by looking at transcripts of
# whisper-base, healthy and broken; tests/test_diagnosis.py holds them to the latter.
OFTEN = 0.1
MOSTLY = 0.5
NEARLY_ALL = 0.9
A_FEW = 2  # clips: in a small set a tenth may be one clip, and one is no pattern
KNOWS = 0.3  # of the words right at the start of the texts
JUNK = 0.15  # whoever knows the language has more words right; a translation, hardly any
IN_PIECES = 0.75  # of the letters: models that work write nearly all, one with shifted labels about half
SAME = 0.2  # of the clips get one and the same text
WORSE = 1.25  # times the WER of the opponent
ALL_WRONG = 0.9
HIGH_RATE = 1e-4  # full training diverges above; whisper-base was made with 1e-3, but in batches of 256
LOW_LOSS = 1.0  # of a model that writes the right words when it is given those before


@dataclass(frozen=True)
class Patient:
    """All that a rule may look at."""

    model: Autopsy
    base: Autopsy | None
    padded: Autopsy | None
    note: dict
    window: str
    facts: Facts

    @property
    def knows(self) -> float:
        """Share of right words from which a model may be said to hear; less where the base hardly does."""
        return KNOWS if self.base is None else min(KNOWS, MOSTLY * self.base.hits)


def diagnose(
    model: Autopsy,
    base: Autopsy | None = None,
    note: dict | None = None,
    window: str = "padded",
    padded: Autopsy | None = None,
    facts: Facts | None = None,
) -> list[Finding]:
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
        return [finding("undecided", NOTE, "no utterances were measured", 1.0)]
    patient = Patient(model, base, padded, note or {}, window, facts or Facts())
    found = [one for rule in RULES for one in rule(patient)]
    found = sorted(_strongest(found), key=lambda one: -one.weight)
    if not any(one.severity in (BROKEN, WARNING) for one in found):
        found += _without_a_failure(patient)
    return sorted(found, key=lambda one: SEVERITIES.index(one.severity))


def runs_on(found: Autopsy) -> float:
    """Return the share of the clips whose texts do not stop when the speech does."""
    endless = set().union(*(found.marks[mark] for mark in ("looped", "length_limit", "runs_on")))
    return len(endless) / max(1, found.utterances)


def _known(patient: Patient) -> Iterator[Finding]:
    """What was seen in batches and settings needs no text to prove it; it is a fault even where texts look well."""
    facts = patient.facts
    if facts.starts is not None and facts.starts > 1:
        yield finding("double_start", BROKEN, f"a row of the inputs has {facts.starts} start tokens", 1.0)
    elif facts.says_start:
        yield finding("double_start", BROKEN, "after the start token the model says the start token again", 1.0)
    if facts.ends == 0:
        yield finding("end_masked", BROKEN, "the labels have no end token in the loss", 1.0)
    if facts.filler is not None and facts.floor is not None and facts.filler > facts.floor + 0.1:
        what = f"behind the speech stands {facts.filler:g}, where silence is {facts.floor:.2f}"
        yield finding("zero_padding", BROKEN, what, 1.0, filler=facts.filler, floor=facts.floor)
    if facts.forced is False:
        yield finding("language", BROKEN, "decoding was told no language, or another one", 0.95)
    if facts.dev_loss is not None and not math.isfinite(facts.dev_loss):
        yield finding("rate", BROKEN, "the loss is no number", 1.0)


def _language(patient: Patient) -> Iterator[Finding]:
    share, english = patient.model.share("wrong_language"), patient.model.share("english")
    if share < OFTEN or len(patient.model.marks["wrong_language"]) < min(A_FEW, patient.model.utterances):
        return
    what = f"{percent(share)} of the texts are in another language" + (", English" if english > share / 2 else "")
    weight = 1.0 if patient.facts.forced is False else 0.6 + 0.35 * share
    yield finding("language", BROKEN, what, weight, wrong_language=share, english=english)


def _endless(patient: Patient) -> Iterator[Finding]:
    """The beginnings are right and the ends are missing: the window, the end token, or a few hard clips."""
    model, share = patient.model, runs_on(patient.model)
    more = share - (runs_on(patient.base) if patient.base else 0.0)
    if share == 0 or model.hits < patient.knows:
        return
    evidence = {"runs_on": share, "hits": model.hits, "prefix_wer": model.prefix_wer, "wer": model.wer}
    expected = patient.window == "adaptive" and patient.note.get("window") != "adaptive"  # to fail: not made for it
    if more < OFTEN / (1 + expected) or share * model.utterances < min(A_FEW, model.utterances):
        yield finding("loops", NOTE, f"{percent(share)} of the texts do not stop", 0.5, **evidence)
        return
    what = f"{percent(share)} of the texts begin with the right words and do not stop; {_worth(model)}"
    for name, weight in _endless_causes(patient).items():
        yield finding(name, BROKEN, what, weight, **evidence)


def _endless_causes(patient: Patient) -> dict[str, float]:
    """Weigh the causes of texts that do not stop."""
    share, trained = runs_on(patient.model), bool(patient.note)
    healed = patient.padded is not None and runs_on(patient.padded) < share / 3
    persists = patient.padded is not None and not healed
    weights = {"end_masked": 0.2 + 0.3 * trained + 0.35 * (share >= NEARLY_ALL) + 0.2 * persists - 0.3 * healed}
    if patient.window == "adaptive":
        weights["short_window"] = (
            0.75 - 0.35 * (patient.note.get("window") == "adaptive") + 0.15 * healed - 0.4 * persists
        )
        weights["short_window"] -= 0.35 * (share >= NEARLY_ALL)
        weights["zero_padding"] = 0.3 - 0.2 * healed
    elif patient.note.get("window") == "adaptive":
        weights["long_window"] = 0.6 - 0.35 * (share >= NEARLY_ALL)
    else:
        weights["zero_padding"] = 0.45 - 0.3 * (share >= NEARLY_ALL)
    return {name: weight for name, weight in weights.items() if weight > 0.15}


def _destroyed(patient: Patient) -> Iterator[Finding]:
    """Hardly a word is right, and it is no other language; of a base that knows better, or a model that was trained."""
    model, base, facts = patient.model, patient.base, patient.facts
    if base.hits < KNOWS if base else not patient.note:
        return
    alike, empty = model.same >= SAME, model.share("empty") >= MOSTLY
    if model.hits >= (KNOWS if alike else JUNK) or model.share("wrong_language") >= MOSTLY:
        return
    weight = 0.6 + 0.2 * alike + 0.1 * (runs_on(model) >= MOSTLY) + 0.1 * empty
    if facts.learning_rate is not None:
        weight += 0.15 if facts.learning_rate > HIGH_RATE else -0.2
    evidence = {
        "hits": model.hits,
        "same": model.same,
        "empty": model.share("empty"),
        "runs_on": runs_on(patient.model),
    }
    same = f", and {percent(model.same)} of the clips get the same text" if alike else ""
    what = f"only {percent(model.hits)} of the words are right{same}{', most texts are empty' if empty else ''}"
    low_loss = facts.dev_loss is not None and facts.dev_loss < LOW_LOSS
    yield finding("rate", BROKEN, what, min(0.99, weight - 0.4 * low_loss), **evidence)
    yield finding("prompt", BROKEN, what, 0.35 + 0.4 * low_loss, **evidence)


def _gap(patient: Patient) -> Iterator[Finding]:
    """The loss is low and the text is wrong: teacher forcing and generation are different things."""
    loss, model = patient.facts.dev_loss, patient.model
    if loss is not None and loss < LOW_LOSS and model.wer > ALL_WRONG:
        what = f"the loss on dev is {loss:.2f}, which is good, and the WER is {percent(model.wer)}, which is not"
        yield finding("prompt", BROKEN, what, 0.4, dev_loss=loss, wer=model.wer)


def _beginnings(patient: Patient) -> Iterator[Finding]:
    """First words are lost; or, where the shift is by a token, pieces of all words are: "trat" for "tratamiento"."""
    more, length = _more_than_base(patient, "shifted"), patient.model.length
    if more >= OFTEN:
        what = f"{percent(patient.model.share('shifted'))} of the texts lack their beginning, or say it twice"
        yield finding("label_shift", BROKEN, what, 0.45 + 0.3 * more, shifted=more)
        yield finding("double_start", BROKEN, what, 0.4 + 0.3 * more, shifted=more)
    if length < IN_PIECES and patient.model.hits >= JUNK:
        what = f"words lack pieces: only {percent(length)} of the letters are there, in texts that do not end early"
        yield finding("label_shift", BROKEN, what, 0.6 + (IN_PIECES - length), length=length)


def _ends(patient: Patient) -> Iterator[Finding]:
    more = _more_than_base(patient, "cut")
    if more >= OFTEN:
        what = f"{percent(patient.model.share('cut'))} of the texts end before the speech does"
        yield finding("cut", WARNING, what, 0.5 + 0.3 * more, cut=more)


def _spelling(patient: Patient) -> Iterator[Finding]:
    if patient.model.spelled >= MOSTLY and patient.model.wer > 0:
        what = f"{percent(patient.model.spelled)} of the errors are spelling only"
        yield finding("orthography", NOTE, what, 0.9, spelled=patient.model.spelled)


RULES: list[Callable[[Patient], Iterator[Finding]]] = [
    _known, _language, _endless, _destroyed, _gap, _beginnings, _ends, _spelling
]  # fmt: skip


def _without_a_failure(patient: Patient) -> list[Finding]:
    """Nothing is broken: better than the base, no better, or worse for no known reason."""
    model, base = patient.model, patient.base
    what = f"WER is {percent(model.wer)}"
    if base is None:
        name, severity = ("undecided", WARNING) if model.wer > ALL_WRONG else ("healthy", GOOD)
        return [finding(name, severity, what, 0.5, wer=model.wer)]
    what += f", the base has {percent(base.wer)}"
    if model.wer > WORSE * base.wer:
        if model.wer_without_loops is not None and model.wer_without_loops <= WORSE * base.wer:
            return []  # the loops are told, and are all there is to it
        return [finding("undecided", WARNING, what, 0.5, wer=model.wer, base_wer=base.wer)]
    in_vain = bool(patient.note) and model.wer >= base.wer
    name, severity = ("few_data", NOTE) if in_vain else ("healthy", GOOD)
    return [finding(name, severity, what, 0.5, wer=model.wer, base_wer=base.wer)]


def _more_than_base(patient: Patient, mark: str) -> float:
    """Return how much more of the texts have a mark than of the base's; 0 where it is fewer than a few clips."""
    few = len(patient.model.marks[mark]) < min(A_FEW, patient.model.utterances)
    return 0.0 if few else patient.model.share(mark) - (patient.base.share(mark) if patient.base else 0.0)


def _worth(model: Autopsy) -> str:
    if model.wer_without_loops is None:
        return f"all of them loop, WER {percent(model.wer)}"
    return f"WER {percent(model.wer)}, {percent(model.wer_without_loops)} without those that loop"


def _strongest(found: list[Finding]) -> list[Finding]:
    """Keep the best reason for each cause."""
    best: dict[str, Finding] = {}
    for one in found:
        if one.name not in best or one.weight > best[one.name].weight:
            best[one.name] = one
    return list(best.values())
