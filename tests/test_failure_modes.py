"""What a WER is made of: marks of utterances, the likely cause of a failure, what fine-tuning made a model forget."""

import numpy as np
import pytest

from lengua.evaluation import failure_modes
from lengua.evaluation.diagnosis import (
    BROKEN,
    GOOD,
    REMARK,
    WARNING,
    KnownFacts,
    diagnose_failures,
)
from lengua.evaluation.failure_modes import FAILURE_MARKS, FailureModes, find_failure_modes
from lengua.inference import Transcriber

SAID = [
    "La niña come una manzana en el patio.",
    "Mañana vuelve el tren de la montaña.",
    "Nadie sabe qué pasó con la carta.",
    "El perro duerme debajo de la mesa.",
    "Hoy hace mucho calor en la ciudad.",
    "Compramos pan y queso en el mercado.",
    "Su hermana trabaja en un hospital.",
    "El río crece cuando llueve en la sierra.",
]


def records(heard: list[str], said: list[str] | None = None, **more) -> list[dict]:
    """Return records of 3 s each; `said` is SAID by turns."""
    said = said or [SAID[k % len(SAID)] for k in range(len(heard))]
    pairs = zip(said, heard, strict=True)
    return [
        {"id": f"c{k}", "reference": one, "hypothesis": other, "duration_s": 3.0, "flags": [], **more}
        for k, (one, other) in enumerate(pairs)
    ]


def marks_of(said: str, heard: str, language: str = "es", **more) -> set[str]:
    """Return the marks of one utterance among others that are right."""
    found = find_failure_modes(records([heard, *SAID], [said, *SAID], **more), language)
    return {mark for mark, ids in found.marks.items() if "c0" in ids}


@pytest.mark.parametrize(
    ("heard", "marks"),
    [
        ("Los alumnos leen un libro nuevo cada semana.", set()),
        ("los alumnos, lén un ribro nuevo cada semana", set()),
        ("", {"empty"}),
        ("Los alumnos leen un libro nuevo cada semana. " * 6, {"looped", "runs_on"}),
        ("Los alumnos leen un libro nuevo cada semana, y esto es lo que hay por hoy", {"runs_on"}),
        ("alumnos leen un libro nuevo cada semana", {"shifted"}),
        ("os alumnos leen un libro nuevo cada semana", {"shifted"}),
        ("Los Los alumnos leen un libro nuevo cada semana", {"shifted"}),
        ("Los alumnos leen un libro", {"cut"}),
        ("Los alumnos leen un libro nuevo cada", set()),
        ("The students are going to read a new book.", {"wrong_language", "english"}),
        ("Students read a new book every week.", set()),  # none of the commonest words: left to the flag
        ("Ученики читают новую книгу каждую неделю.", {"wrong_language"}),
        ("Los alumnos leen «Война и мир» cada semana.", set()),
    ],
)
def test_marks_of_one_utterance(heard, marks):
    assert marks_of("Los alumnos leen un libro nuevo cada semana.", heard) == marks


def test_flags_of_decoding_count():
    flags = ["length_limit", "looped", "wrong_language"]
    assert marks_of("Hola a todos.", "Hola a todos.", flags=flags) == set(flags)
    assert marks_of("Hola", "Hola", tokens=400) == {"looped"}


def test_english_is_no_fault_in_english_and_common_words_of_the_references_are_none():
    said = ["The dog is in the garden.", "This is not the end of the story."]
    found = find_failure_modes(records(said, said), "en")
    assert not any(found.marks.values()) and found.wer == 0
    dutch = ["wat is dat", "die of die was het", "ik was daar"]
    assert find_failure_modes(records(["is of was"] * 3, dutch), "nl").marks["wrong_language"] == ()


def test_a_repeated_first_word_that_was_said_is_no_shift():
    assert marks_of("No no quiero ir a casa", "No no quiero ir a casa") == set()
    assert marks_of("Sí", "Si si si") == set()


def test_loops_make_the_wer_and_it_is_told_without_them():
    found = find_failure_modes(records([SAID[0], SAID[1] + " gracias" * 60, *SAID[2:]]), "es")
    assert found.wer > 1 and found.wer_without_loops == 0.0 and found.marks["looped"] == ("c1",)
    assert [case.id for case in found.inventors] == ["c1"] and found.inventors_share == 1.0
    assert found.inventors[0].insertions == found.insertions == 60 and found.worst == found.inventors
    assert found.prefix_wer == 0.0 and found.hits == 1.0


def test_the_utterances_that_are_named_come_in_order_and_are_few():
    heard = [text + " y más" * (k % 4) for k, text in enumerate(SAID * 4)]
    found = find_failure_modes(records(heard), "es", most=5)
    assert len(found.inventors) == len(found.worst) == 5
    assert [case.insertions for case in found.inventors] == [6] * 5
    assert [case.id for case in found.inventors] == sorted(case.id for case in found.inventors)
    assert found.inventors_share == pytest.approx(30 / found.insertions)


def test_the_same_text_for_many_clips():
    assert find_failure_modes(records(["y y y"] * 6 + SAID[6:]), "es").same == 0.75
    assert find_failure_modes(records(SAID)).same == 0.0
    assert find_failure_modes(records(["sí"] * 5, ["sí"] * 5)).same == 0.0


def test_spelling_beside_words():
    said = ["Él está aquí", "El año", "veinticinco casas"]
    found = find_failure_modes(records(["el esta aqui", "el ano", "25 cosas"], said), "es")
    assert found.spelled == pytest.approx(5 / 6) and found.wer == pytest.approx(6 / 7)


def test_edges():
    nothing = find_failure_modes([], "es")
    assert (nothing.utterances, nothing.wer, nothing.wer_without_loops, nothing.hits) == (0, 0.0, 0.0, 0.0)
    assert set(nothing.marks) == set(FAILURE_MARKS) and nothing.share("looped") == 0.0
    silent = find_failure_modes(records(["", "Gracias."], ["", ""]), "es")
    assert (silent.wer, silent.insertions, silent.marks["empty"], silent.spelled) == (1.0, 1, ("c0",), 0.0)
    looped = find_failure_modes(records(["sí " * 50], ["sí"]), "es")
    assert looped.wer_without_loops is None and looped.endless == 1


# Diagnosis

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
        (KnownFacts(forced=False), "language"),
    ],
)
def test_what_is_known_decides_whatever_the_texts_look_like(facts, expected):
    for model in (BASE, ENDLESS, look(JUNK * 3)):
        found = diagnose_failures(model, BASE, TRAINED, "adaptive", facts=facts)
        assert (found[0].name, found[0].severity) == (expected, BROKEN) and found[0].weight >= 0.95


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


def test_little_or_nothing_is_diagnosed_with_care():
    (nothing,) = diagnose_failures(look([]))
    assert (nothing.name, nothing.what) == ("undecided", "no utterances were measured")
    silent = look(["", ""], ["", ""])
    assert diagnose_failures(silent, silent)[0].severity in (GOOD, REMARK, WARNING, BROKEN)
    assert diagnose_failures(look(["hola"], ["adiós"]))[0].severity in (WARNING, BROKEN)
    assert "language" not in names(look([ENGLISH[0], *HEARD[1:]])), "one clip is none"


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


# Probes


@pytest.mark.parametrize("engine", ["ctranslate2", "torch"])
def test_every_ability_is_probed(engine, tiny_model, tiny_store, monkeypatch):
    monkeypatch.setattr(failure_modes, "NOISE_LENGTHS_S", (2, 5))
    transcriber = Transcriber(str(tiny_model), "es", engine)
    found = failure_modes.probe(transcriber, tiny_store.split("test"), "es")
    language = found["language"]
    if transcriber.engine.multilingual:
        assert language["clips"] == 5 == language["right"] + sum(language["others"].values())
        assert all(2 <= len(code) <= 3 and code.isalpha() for code in language["others"])
    else:
        assert language is None, "so few tokens are an English-only model's to CTranslate2"
    assert found["timestamps"]["clips"] == 5 and 0 <= found["timestamps"]["right"] <= 5
    silence, noise = found["silence"], found["noise"]
    assert silence["windows"] == len(failure_modes.NOISE_LENGTHS_S)
    assert noise["windows"] == len(failure_modes.NOISE_LENGTHS_S) * len(failure_modes.NOISE_LEVELS_DBFS)
    for stretch in (silence, noise):
        assert stretch["spoken"] <= stretch["windows"] and stretch["words"] >= stretch["spoken"]
        assert bool(stretch["longest"]) == bool(stretch["spoken"])


@pytest.mark.parametrize(
    ("times", "true"),
    [
        ([0.0, 1.9], True),
        ([0.0, 0.8, 0.8, 2.4], True),
        ([], False),
        ([0.0], False),
        ([0.0, 1.0, 1.0], False),
        ([1.0, 0.2], False),
        ([0.0, 2.6], False),
        ([0.0, 29.98], False),
    ],
)
def test_times_open_close_go_on_and_end_with_the_clip(times, true):
    assert failure_modes.is_plausible(times, 2.0) is true


def test_noise_has_the_levels_it_says_and_is_the_same_every_time():
    made = failure_modes.white_noises()
    levels = [20 * np.log10(np.sqrt(np.mean(one.astype(np.float64) ** 2))) for one in made]
    expected = np.repeat(failure_modes.NOISE_LEVELS_DBFS, len(failure_modes.NOISE_LENGTHS_S))
    assert np.allclose(levels, expected, atol=0.3) and np.abs(np.concatenate(made)).max() <= 1
    assert all(np.array_equal(a, b) for a, b in zip(made, failure_modes.white_noises(), strict=True))


def test_few_rows_are_all_taken_and_many_are_spread():
    assert failure_modes.evenly_spaced_rows("abc", 10) == list("abc") and failure_modes.evenly_spaced_rows(
        "abcdefghi", 3
    ) == list("aei")
    assert failure_modes.evenly_spaced_rows("a", 5) == ["a"]


@pytest.mark.slow
def test_the_untouched_base_hears_spanish_and_writes_true_times(base_model, common_voice_es):
    from test_hearers import spoken_rows

    found = failure_modes.probe(Transcriber(str(base_model), "es"), spoken_rows(common_voice_es, 6), "es")
    language = found["language"]
    assert language["right"] > max(language["others"].values(), default=0), "no language is heard more often"
    assert found["timestamps"]["right"] >= 3
