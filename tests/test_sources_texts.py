"""What sources share: splits by text, the cache folder, and the spelling of the sample's texts."""

from collections import Counter

import pytest

from lengua.data.sources import SPLITS
from lengua.data.sources.sample import correct_spelling, load_corrections, misread_clip_ids
from lengua.data.splits import SPLIT_UPPER_ENDS, assign_splits, sentence_key, split_name, split_of
from lengua.runtime.files import cache_dir

COMPOSTA = "La chiamata non può essere completata così come composta."


def test_normalised_text_is_letters_and_digits_without_accents():
    assert sentence_key("¿Buzón, por favor? ¡Ya 2!") == "buzonporfavorya2"
    assert sentence_key("Para  cambiar") == sentence_key("paracambiar")
    assert sentence_key("...") == ""


def test_shares_of_many_keys_are_near_81_6_13():
    counts = Counter(split_of(f"key {number}") for number in range(20_000))
    assert counts["train"] / 20_000 == pytest.approx(0.81, abs=0.01)
    assert counts["dev"] / 20_000 == pytest.approx(0.06, abs=0.01)
    assert counts["test"] / 20_000 == pytest.approx(0.13, abs=0.01)
    assert tuple(SPLIT_UPPER_ENDS) == SPLITS


def test_a_key_has_the_same_split_on_every_machine():
    keys = {"hola": "test", "gracias": "dev", "nube": "dev", "unperro": "train", "adios": "train", "cafe": "train"}
    assert {key: split_of(key) for key in keys} == keys


@pytest.mark.parametrize("count", [3, 4, 10, 15])
def test_no_split_is_empty_where_there_are_three_keys(count):
    for start in range(50):
        splits = assign_splits(f"speaker {start} {number}" for number in range(count))
        assert len(splits) == count
        assert set(splits.values()) == set(SPLITS)


def test_assigned_splits_are_the_hash_s_own_where_none_is_empty():
    keys = [f"text {number}" for number in range(500)]
    assert assign_splits(keys) == {key: split_of(key) for key in keys}
    assert assign_splits(["alone"]) == {"alone": split_of("alone")}


def test_names_of_splits():
    called = {"train": "train", "Validation": "dev", "valid": "dev", "dev": "dev", " test ": "test", "other": None}
    assert {name: split_name(name) for name in called} == called


# The cache


def test_cache_folder_is_chosen_by_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("LENGUA_CACHE", str(tmp_path / "a"))
    assert cache_dir() == tmp_path / "a"
    monkeypatch.delenv("LENGUA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache_dir() == tmp_path / "b" / "lengua"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "lengua"


# Spelling


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("Contrasena incorrecta.", "Contraseña incorrecta."),
        ("Por favor ingese su numero de telefono", "Por favor ingrese su número de teléfono"),
        ("Esta usted ahora en modo mudo.", "Está usted ahora en modo mudo."),
        ("Clave invalida para esta conferencia.", "Clave inválida para esta conferencia."),
        ("...para salir del menú.", "para salir del menú."),
        ("Para salir de la conferencia...", "Para salir de la conferencia"),
        (", porque es terrible…", "porque es terrible"),
        ("Entrada incorrecta. Buzon?", "Entrada incorrecta. ¿Buzón?"),
        ("En que carpeta desea guardar el mensaje ?", "¿En qué carpeta desea guardar el mensaje?"),
        ("numerosa", "numerosa"),
        ("  dos   espacios ", "dos espacios"),
        ("", ""),
    ],
)
def test_spelling_is_put_right(written, right):
    assert correct_spelling(written, "es") == right
    assert correct_spelling(right, "es") == right


def test_a_language_without_a_table_keeps_its_words():
    assert correct_spelling("God  morgon...", "sv") == "God morgon"


@pytest.mark.parametrize(
    ("written", "right", "language"),
    [
        ("La conferenza ? piena.", "La conferenza è piena.", "it"),
        ("La chiamata non pu? essere completata cos? come composta.", COMPOSTA, "it"),
        ("In quale cartella devo salvare il messaggio?", "In quale cartella devo salvare il messaggio?", "it"),
        ("E' in uso.", "È in uso.", "it"),
        ("Cette conférence est verouillée", "Cette conférence est verrouillée", "fr"),
        ('Entrez votre code, suivi du dièse."', "Entrez votre code, suivi du dièse.", "fr"),
        ("Vous avez étez expulsé", "Vous avez été expulsé", "fr"),
        ("Pour (emphase)", "Pour ???", "fr"),
        ("Что бы выйти из меню...", "Чтобы выйти из меню", "ru"),
    ],
)
def test_spelling_of_the_probes_is_put_right(written, right, language):
    assert correct_spelling(written, language) == right
    assert correct_spelling(right, language) == right


def test_clips_that_say_other_words_are_named():
    assert len(misread_clip_ids("es")) > 40
    assert {id_.partition("/")[0] for id_ in misread_clip_ids("es")} == {"allison", "estefania"}
    assert {id_.partition("/")[0] for id_ in misread_clip_ids("fr") | misread_clip_ids("it")} == {"june", "carlo"}
    assert misread_clip_ids("ru") == frozenset()


@pytest.mark.parametrize(("language", "least"), [("es", 100), ("fr", 50), ("it", 20), ("ru", 12)])
def test_the_table_is_sorted_lowercase_and_never_undoes_itself(language, least):
    corrections, _ = load_corrections(language)
    assert len(corrections) > least
    assert list(corrections) == sorted(corrections)
    for written, right in corrections.items():
        assert written == written.lower()
        assert written != right
        assert correct_spelling(right, language) == right, f"{written} -> {right} would be replaced again"
