"""Leaks: what of a test set stands in training, exactly and nearly, by id and by speaker; that none is missed."""

import random

import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein

from lengua.data import leakage
from lengua.data.leakage import (
    MIN_SIMILARITY,
    concatenate_sets,
    fast_normalise,
    find_leaks,
    find_near_duplicates,
    refuse_leaks,
)
from lengua.data.sources import Utterance, open_source
from lengua.runtime.errors import LenguaError, RequestError
from lengua.scoring.normalizer import normalise


def rows(*utterances: tuple[str, str, str | None]) -> dict[str, list]:
    """Return (id, text, speaker) as the columns of a split."""
    return {name: [one[at] for one in utterances] for at, name in enumerate(("id", "text", "speaker"))}


TRAIN = rows(
    ("a1", "¿Dónde está la biblioteca municipal?", "ana"),
    ("a2", "El tren sale a las nueve de la mañana.", "ana"),
    ("a3", "Sí.", "berta"),
    ("a4", "...", ""),
)


def kinds_of(*utterances) -> tuple[str, ...]:
    return find_leaks(rows(*utterances), TRAIN).kinds


# Kinds


@pytest.mark.parametrize(
    ("id_", "text", "kind"),
    [
        ("a2", "Otra cosa muy distinta.", "id"),
        ("a2", "El tren sale a las nueve de la mañana.", "id"),
        ("b1", "donde esta la biblioteca municipal", "near"),
        ("b1", "¡DÓNDE ESTÁ, LA BIBLIOTECA MUNICIPAL!", "sentence"),
        ("b1", "El tren sale a las nuevo de la mañana", "near"),
        ("b1", "El tren sale a las diez de la noche", ""),
        ("b1", "¡Sí!", "sentence"),
        ("b1", "Si", ""),
        ("b1", "¿...?", ""),
        ("b1", "", ""),
    ],
)
def test_how_an_utterance_leaks(id_, text, kind):
    assert kinds_of((id_, text, "carla")) == (kind,)


def test_a_clean_utterance_is_neither_of_them():
    test = rows(("b1", "Nada que ver con eso.", None), ("b2", "sí", None), ("a1", "...", None))
    leaks = find_leaks(test, TRAIN)
    assert leaks.kinds == ("", "sentence", "id")
    assert leaks.clean_mask.tolist() == [True, False, False]
    assert not leaks.is_clean
    both = find_leaks(test, concatenate_sets([rows(("c1", "Otra fuente.", "carla")), TRAIN]))
    assert both.kinds == ("", "sentence", "id"), "several sources are looked through as one"


def test_speakers_are_shared_only_where_they_are_known():
    test = rows(("b1", "uno", "ana"), ("b2", "dos", ""), ("b3", "tres", None), ("b4", "cuatro", "dora"))
    leaks = find_leaks(test, TRAIN)
    assert leaks.seen_speaker == (True, False, False, False)
    assert (leaks.speakers, leaks.seen_speakers) == (2, 1)
    assert leaks.counts() == {"utterances": 4, "id": 0, "sentence": 0, "near": 0, "speaker": 1, "clean": 4}


@pytest.mark.parametrize("sets", [(rows(), TRAIN), (TRAIN, rows()), (rows(), rows())])
def test_empty_sets_have_no_leaks(sets):
    leaks = find_leaks(*sets)
    assert leaks.is_clean
    assert leaks.clean_mask.dtype == bool
    assert len(leaks.clean_mask) == len(sets[0]["id"])
    assert leaks.sentence().endswith(".")


def test_a_store_is_looked_through_as_it_is(tiny_store):
    train = tiny_store.split("train")
    leaks = find_leaks(train, train)
    assert set(leaks.kinds) == {"id"}
    assert leaks.counts()["clean"] == 0


@pytest.mark.real
def test_a_leaked_split_of_the_sample_is_caught_and_the_real_one_passes():
    try:
        train, test = sample_split("train"), sample_split("test")
    except LenguaError as error:
        pytest.skip(f"the sample cannot be had here: {error}")
    clean = find_leaks(test, train)
    refuse_leaks(train["id"], {"test": test["id"]})
    assert clean.kinds.count("id") == clean.kinds.count("sentence") == 0
    assert 0 < clean.kinds.count("near") < 0.1 * len(clean.kinds), "bloqueada and desbloqueada, la letra h and a"
    assert (clean.speakers, clean.seen_speakers) == (2, 2)
    leaked = {name: test[name] + train[name][:5] for name in test}
    assert find_leaks(leaked, train).kinds == (*clean.kinds, *["id"] * 5)
    with pytest.raises(RequestError, match="found 5 of its"):
        refuse_leaks(train["id"], {"test": leaked["id"]})


def sample_split(name: str) -> dict[str, list]:
    items = [item for item in open_source("sample:es").read(name) if isinstance(item, Utterance)]
    return rows(*((item.id, item.text, item.speaker) for item in items))


# Words


def test_what_people_are_told():
    leaked = find_leaks(rows(("a1", "x", "ana"), ("b2", "¡Sí!", "eva"), ("b3", "nuevo del todo", "eva")), TRAIN)
    told = leaked.sentence()
    assert told.startswith(
        "Of 3 test utterances, found in training: 1 as they are, 1 by their sentence (66.7 % in all)"
    )
    assert "Speakers found in training: 1 of 2, with 1 of the utterances" in told
    lawful = find_leaks(rows(("b2", "¡Sí!", "eva")), TRAIN).sentence()
    assert "Common Voice" in lawful and "lawful" in lawful
    assert "No speaker of the test set is known to be in training." in lawful
    clean = find_leaks(rows(("b3", "nuevo del todo", None)), TRAIN).sentence()
    assert "Who speaks is not known" in clean


# Refusing


def test_training_on_test_clips_is_refused():
    train = [f"clip{number}" for number in range(10)]
    with pytest.raises(RequestError) as caught:
        refuse_leaks(train, {"dev": ["x"], "test": ["y", *train[:5]]})
    assert "5 of its 6" in caught.value.found and "--allow-leaks" in caught.value.do and caught.value.exit_code == 2
    refuse_leaks(["a", "b"], {"dev": ["c"], "test": []})


# Near sentences


def test_the_fast_normaliser_is_the_slow_one():
    letters = [chr(code) for code in [*range(0x20, 0x500), *range(0x2010, 0x2040), 0x3000, 0xFB01, 0x1F600, 0xFEFF]]
    texts = [f"x{letter}" for letter in letters] + [f"{letter} [x] {letter}y" for letter in letters]
    rng = random.Random(1)
    texts += ["".join(rng.choices(letters, k=12)) for _ in range(3000)]
    texts += ["¿Dónde está? — «Aquí», dijo_él.", "Mañana… (risas) 25 %", "El niño", "Привет, мир! Ещё"]
    assert [fast_normalise(text) for text in texts] == [normalise(text) for text in texts]


def perturbed(text: str, edits: int, rng: random.Random) -> str:
    """Return the text with letters replaced, put in, and left out."""
    letters = list(text)
    for _ in range(edits):
        place = rng.randrange(len(letters) + 1)
        letters[place : place + rng.choice((0, 1))] = rng.choice(("", "ñ", "qw"))
    return "".join(letters)


def test_no_near_sentence_is_missed(monkeypatch):
    monkeypatch.setattr(leakage, "SENTENCES_PER_CHUNK", 70)
    monkeypatch.setattr(leakage, "MAX_PAIRS_AT_ONCE", 50)
    rng = random.Random(3)
    words = "el la de casa que muy tren sale perro gato nunca siempre biblioteca a y en con para".split()
    # sorted: a set has another order each time
    known = sorted({" ".join(rng.choices(words, k=rng.randint(1, 14))) for _ in range(400)})
    rng.shuffle(known)
    wanted = [perturbed(text, rng.randint(1, 2 + len(text) // 7), rng) for text in known[:300]]
    twins = find_near_duplicates(wanted, known)
    near = np.array([[Levenshtein.normalized_similarity(a, b) >= MIN_SIMILARITY for b in known] for a in wanted])
    asked = [place for place, text in enumerate(wanted) if len(text) >= 9]
    assert 50 < near[asked].any(axis=1).sum() < len(asked)
    assert ((twins >= 0) == near.any(axis=1))[asked].all()
    assert all(near[place, twin] for place, twin in enumerate(twins) if twin >= 0)
    assert (find_near_duplicates(wanted, known) == twins).all()


@pytest.mark.parametrize(
    ("wanted", "known", "twins"),
    [
        ([], ["a"], []),
        (["corta"], ["corto"], [-1]),
        (["una frase larga"], [], [-1]),
        (["пожалуйста проверьте номер"], ["привет", "пожалуйста проверьте номера"], [1]),
        (["お電話ありがとうございます今日は"], ["お電話ありがとうございます今日も"], [0]),
    ],
)
def test_near_in_any_script_and_nothing_near(wanted, known, twins):
    assert find_near_duplicates(wanted, known).tolist() == twins


@pytest.mark.slow
def test_near_sentences_are_found_in_a_large_release():
    rng = np.random.default_rng(0)
    words = ["".join(chr(97 + letter) for letter in rng.integers(26, size=rng.integers(2, 10))) for _ in range(30_000)]
    frequency = 1 / np.arange(3, len(words) + 3)

    def sentences(count: int) -> list[str]:
        sizes = rng.integers(4, 16, size=count)
        drawn = iter(rng.choice(len(words), size=sizes.sum(), p=frequency / frequency.sum()).tolist())
        return [" ".join(words[next(drawn)] for _ in range(size)) for size in sizes.tolist()]

    train, test = sentences(50_000), sentences(1_500)
    test[:300] = [f"{text[: len(text) // 2]}!x{text[len(text) // 2 + 1 :]}" for text in train[:300]]
    leaks = find_leaks(
        {"id": [f"t{n}" for n in range(1_500)], "text": test, "speaker": [""] * 1_500},
        {"id": [f"k{n}" for n in range(50_000)], "text": train, "speaker": [""] * 50_000},
    )
    assert leaks.counts()["near"] >= 250
