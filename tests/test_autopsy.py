"""What a WER is made of: the marks of single utterances, and what a few of them do to the whole."""

from dataclasses import asdict

import pytest

from lengua.evaluation.failure_modes import FAILURE_MARKS, failure_sentences, find_failure_modes

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
    told = failure_sentences(found)
    assert told[0].endswith("and 0.0 % without the clips that loop")
    assert told[1] == "1 clip of 8 makes 100.0 % of all insertions"


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
    assert failure_sentences(nothing) == ["no utterances were measured"]
    silent = find_failure_modes(records(["", "Gracias."], ["", ""]), "es")
    assert (silent.wer, silent.insertions, silent.marks["empty"], silent.spelled) == (1.0, 1, ("c0",), 0.0)
    looped = find_failure_modes(records(["sí " * 50], ["sí"]), "es")
    assert looped.wer_without_loops is None and failure_sentences(looped)
    assert find_failure_modes(records(SAID), "es") == find_failure_modes(records(SAID), "es")
    assert isinstance(asdict(looped)["worst"][0]["marks"], tuple)
