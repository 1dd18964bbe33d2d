"""What is wrong with a model: each failure is named from its texts, a healthy model is left in peace."""

import numpy as np
import pytest
from test_autopsy import SAID, records

from lengua.evaluation.diagnosis import (
    BROKEN,
    CAUSES,
    GOOD,
    REMARK,
    WARNING,
    DiagnosisFinding,
    KnownFacts,
    diagnose_failures,
)
from lengua.evaluation.failure_modes import FailureModes, find_failure_modes

TRAINED = {"window": "adaptive", "margin_s": [0.3, 1.5]}
TRAINED_PADDED = {"window": "padded"}
MISHEARD = {"manzana": "mansana", "montaña": "montana", "hospital": "ospital", "crece": "crese", "pan": "van"}


def hearing(text: str) -> str:
    """Return what a fair model makes of a text."""
    return " ".join(MISHEARD.get(word, word) for word in text.rstrip(".").split())


def again(text: str, times: int = 9) -> str:
    return ". ".join([text] * times)


def pieces(text: str) -> str:
    """Return a text without the ends of its longer words."""
    return " ".join(word if len(word) < 4 else word[: len(word) // 2] for word in text.split())


def every(n: int, change, texts: list[str]) -> list[str]:
    """Change every n-th text."""
    return [change(text) if k % n == 0 else text for k, text in enumerate(texts)]


HEARD = [hearing(text) for text in SAID * 3]
ENGLISH = [
    "The girl is eating in the yard.", "This is the train of the mountain.", "And I don't know what you are saying.",
    "There was a dog under the table.", "It is very hot and this is the city.", "We are going to buy the bread.",
    "She is with the people of the hospital.", "The river is here and it was raining.",
]  # fmt: skip
JUNK = ["de la la que", "y y y y y y y y y y y y y", "de de de", "la que la", ".", "o no", "y", "que de que"]


def look(heard: list[str], said: list[str] | None = None, **more) -> FailureModes:
    return find_failure_modes(records(heard, said, **more), "es")


BASE = look(HEARD)


def names(model: FailureModes, **more) -> list[str]:
    return [finding.name for finding in diagnose_failures(model, BASE, **more)]


def test_a_model_that_hears_well_is_healthy():
    better = look([*SAID * 2, *HEARD[16:]])
    (found,) = diagnose_failures(better, BASE, TRAINED, "adaptive")
    assert (found.name, found.severity) == ("healthy", GOOD)
    assert found.what == f"WER is {100 * better.wer:.1f} %, the base has {100 * BASE.wer:.1f} %"
    assert names(BASE) == ["healthy"]
    assert diagnose_failures(BASE)[0].name == "healthy"


ENDLESS = look(every(4, again, HEARD))
NEVER_ENDS = look([again(text) for text in HEARD])


@pytest.mark.parametrize(
    ("model", "more", "expected"),
    [
        (ENDLESS, {"window": "adaptive"}, "short_window"),
        (ENDLESS, {"window": "adaptive", "note": TRAINED_PADDED}, "short_window"),
        (ENDLESS, {"window": "adaptive", "note": TRAINED}, "end_masked"),
        (ENDLESS, {"window": "adaptive", "note": TRAINED, "padded": BASE}, "short_window"),
        (ENDLESS, {"window": "adaptive", "note": TRAINED, "padded": ENDLESS}, "end_masked"),
        (ENDLESS, {"window": "adaptive", "padded": BASE}, "short_window"),
        (ENDLESS, {"window": "padded", "note": TRAINED}, "long_window"),
        (ENDLESS, {"window": "padded"}, "zero_padding"),
        (NEVER_ENDS, {"window": "padded", "note": TRAINED_PADDED}, "end_masked"),
        (NEVER_ENDS, {"window": "adaptive", "note": TRAINED}, "end_masked"),
        (NEVER_ENDS, {"window": "padded"}, "end_masked"),
        (look(ENGLISH * 3), {}, "language"),
        (look(["Девочка ест яблоко во дворе"] * 24), {}, "language"),
        (look(JUNK * 3), {"note": TRAINED, "window": "adaptive"}, "rate"),
        (look(["gracias por ver el vídeo"] * 24), {"note": TRAINED}, "rate"),
        (look([""] * 24), {"note": TRAINED}, "rate"),
        (look(["y " * 80] * 24), {"note": TRAINED}, "rate"),
        (look([text.partition(" ")[2] for text in HEARD]), {"note": TRAINED}, "label_shift"),
        (look([pieces(text) for text in HEARD]), {}, "label_shift"),
        (look([" ".join(text.split()[:4]) for text in HEARD]), {"note": TRAINED}, "cut"),
    ],
)  # fmt: skip
def test_failures_are_named(model, more, expected):
    found = diagnose_failures(model, BASE, **more)
    assert found[0].name == expected and found[0].severity in (BROKEN, WARNING), names(model, **more)
    weights = [finding.weight for finding in found if finding.severity == found[0].severity]
    assert weights == sorted(weights, reverse=True) and all(0 < weight <= 1 for weight in weights)
    assert len({finding.name for finding in found}) == len(found) and "healthy" not in names(model, **more)


def test_causes_that_look_alike_come_together_with_what_tells_them_apart():
    found = diagnose_failures(ENDLESS, BASE, TRAINED, "adaptive")
    assert [finding.name for finding in found[:2]] == ["end_masked", "short_window"]
    assert all("WER" in finding.what and finding.check for finding in found[:2])
    assert found[0].evidence["runs_on"] == 0.25 and found[0].evidence["hits"] > 0.8
    assert {"label_shift", "double_start"} <= set(names(look([text.partition(" ")[2] for text in HEARD])))
    assert {"rate", "prompt"} <= set(names(look(JUNK * 3)))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (KnownFacts(starts=2), "double_start"),
        (KnownFacts(says_start=True), "double_start"),
        (KnownFacts(ends=0), "end_masked"),
        (KnownFacts(filler=0.0, floor=-0.6), "zero_padding"),
        (KnownFacts(dev_loss=float("nan")), "rate"),
    ],
)
def test_what_is_known_decides_whatever_the_texts_look_like(facts, expected):
    for model in (BASE, ENDLESS, look(JUNK * 3)):
        found = diagnose_failures(model, BASE, TRAINED, "adaptive", facts=facts)
        assert (found[0].name, found[0].weight) == (expected, 1.0)


def test_a_language_that_is_not_forced_is_a_fault_even_where_it_is_guessed_right():
    found = diagnose_failures(BASE, BASE, TRAINED, facts=KnownFacts(forced=False))
    assert (found[0].name, found[0].severity) == ("language", "broken")


def test_facts_that_are_in_order_name_nothing():
    facts = KnownFacts(0.4, 1e-5, starts=1, says_start=False, ends=1, filler=-0.6, floor=-0.6, forced=True)
    assert [finding.name for finding in diagnose_failures(BASE, BASE, TRAINED, facts=facts)] == ["few_data"]


def test_a_low_loss_with_a_high_wer_points_at_the_prompt():
    junk = look(JUNK * 3)
    assert names(junk, note=TRAINED, facts=KnownFacts(dev_loss=0.3, learning_rate=1e-5))[0] == "prompt"
    assert names(junk, note=TRAINED, facts=KnownFacts(dev_loss=6.0, learning_rate=1e-3))[0] == "rate"
    assert "prompt" in names(NEVER_ENDS, note=TRAINED_PADDED, facts=KnownFacts(dev_loss=0.3))


def test_one_clip_that_loops_is_no_fault_of_the_model():
    one = look([again(HEARD[0]), *HEARD[1:]])
    found = diagnose_failures(one, BASE)
    loops = next(finding for finding in found if finding.name == "loops")
    assert loops.severity == REMARK and [finding.name for finding in found] == ["loops"]


def test_where_the_base_does_not_know_the_language_nothing_was_destroyed():
    junk = look(JUNK * 3)
    assert [finding.name for finding in diagnose_failures(junk, junk, TRAINED)][-1] == "few_data"
    assert "rate" not in [finding.name for finding in diagnose_failures(junk, junk, TRAINED) + diagnose_failures(junk)]
    assert diagnose_failures(junk)[0].name == "undecided"
    poor = look([f"{text.split()[0]} ta ti tu" for text in HEARD])
    looping = look([again(text) for text in (f"{text.split()[0]} ta ti tu" for text in HEARD)])
    assert diagnose_failures(looping, poor, window="adaptive")[0].name in ("short_window", "end_masked")


def test_a_word_of_another_language_now_and_then_is_none():
    assert "language" not in names(look([ENGLISH[0], *HEARD[1:]]))


def test_trained_in_vain_and_worse_for_no_known_reason():
    assert names(BASE, note=TRAINED) == ["few_data"]
    worse = look([text.replace("la", "una").replace("en", "sobre").replace("el", "un") for text in HEARD])
    found = diagnose_failures(worse, BASE, TRAINED)
    assert [(finding.name, finding.severity) for finding in found] == [("undecided", WARNING)]


def test_spelling_only_is_a_note():
    said = ["Él está aquí hoy", "El año pasó", "Ella volvió mañana"] * 4
    bare = [text.translate(str.maketrans("áéíóúñÉ", "aeiounE")) for text in said]
    found = diagnose_failures(look(bare, said), look(bare, said), TRAINED)
    assert [(finding.name, finding.severity) for finding in found] == [("orthography", REMARK), ("few_data", REMARK)]


def test_edges():
    (nothing,) = diagnose_failures(look([]))
    assert (nothing.name, nothing.what) == ("undecided", "no utterances were measured")
    silent = look(["", ""], ["", ""])
    assert diagnose_failures(silent, silent)[0].severity in (GOOD, REMARK, WARNING, BROKEN)
    assert diagnose_failures(look(["hola"], ["adiós"]))[0].severity in (WARNING, BROKEN)
    assert diagnose_failures(ENDLESS, BASE, TRAINED) == diagnose_failures(ENDLESS, BASE, TRAINED)


def test_every_cause_has_words_and_every_finding_is_plain():
    for name, cause in CAUSES.items():
        assert all(len(words) > 15 and not words.endswith(".") for words in cause), name
    found = diagnose_failures(NEVER_ENDS, BASE, TRAINED)[0]
    assert isinstance(found, DiagnosisFinding) and all(isinstance(value, float) for value in found.evidence.values())


@pytest.fixture(scope="module")
def decoded(base_model, spoken_es):
    """Return a function that decodes real clips with untouched weights, as one should or as one should not."""
    from lengua import audio
    from lengua.audio import log_mel
    from lengua.audio.windows import window_of
    from lengua.inference.engines.ctranslate2 import CTranslate2Engine
    from lengua.models.checkpoints import load_tokenizer
    from lengua.models.tokens import decode_text, end_token, prompt_tokens, token_id

    engine, tokenizer = CTranslate2Engine(base_model, threads=1), load_tokenizer(base_model)
    clips = sorted(spoken_es.items())
    mels = [log_mel.log_mel(audio.load(path)) for path, _ in clips]

    def decode(margin_s=None, zeros=False, translate=False, endless=False, count=8) -> FailureModes:
        prompt, heard = prompt_tokens(tokenizer, "es"), []
        if translate:
            prompt = [*prompt[:2], token_id(tokenizer, "<|translate|>"), *prompt[3:]]
        for one in mels[:count]:
            filled = log_mel.pad_with_silence(one, window_of(len(one), margin_s))
            if zeros:
                filled[:, len(one) :] = 0
            features = engine._storage.from_array(np.ascontiguousarray(filled[None]))
            suppressed = [-1, end_token(tokenizer)] if endless else [-1]
            results = engine._model.generate(
                features, [prompt], beam_size=1, max_length=200, suppress_tokens=suppressed
            )
            heard.append(decode_text(tokenizer, results[0].sequences_ids[0]))
        return look(heard, [text for _, text in clips[:count]])

    return decode


@pytest.mark.slow
def test_real_failures_of_the_untouched_base_are_named(decoded):
    healthy = decoded()
    assert [finding.name for finding in diagnose_failures(healthy, healthy)] == ["healthy"]
    found = {
        "short_window": diagnose_failures(decoded(margin_s=0.5, count=30), healthy, window="adaptive", padded=healthy),
        "end_masked": diagnose_failures(decoded(endless=True, count=4), healthy),
        "language": diagnose_failures(decoded(translate=True), healthy),
        "zero_padding": diagnose_failures(decoded(zeros=True), healthy, facts=KnownFacts(filler=0.0, floor=-0.7)),
    }
    assert {name: findings[0].name for name, findings in found.items()} == {name: name for name in found}
