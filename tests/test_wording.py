"""The words of the page: the same keys in each language, the same values to fill in, in the language that is wished."""

import re
import string
from types import SimpleNamespace

import pytest
from conftest import ROOT

from lengua.app.chat.history import LEVELS, REPLY_ERROR_KINDS, SITUATIONS, VARIETIES
from lengua.app.chat.tab import SAVE_FORMATS
from lengua.app.i18n import Wording
from lengua.app.limits import AUDIO_ERROR_PREFIXES
from lengua.runtime.errors import RequestError


def wishing(header: str | None):
    return SimpleNamespace(headers={} if header is None else {"accept-language": header})


def fields(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}


def test_the_languages_say_the_same_things():
    languages = Wording().languages
    assert set(languages) >= {"es", "en"} and len(languages["es"]) > 60
    for code, texts in languages.items():
        for key, text in texts.items():
            assert text.strip(), f"{code}: {key}"
            assert fields(text) == fields(languages["es"][key]), f"{code}: {key} has other values to fill in"


def test_two_languages_are_two_languages():
    spanish, english = (Wording().languages[code] for code in ("es", "en"))
    same = {key for key in spanish if spanish[key] == english[key] and len(spanish[key]) > 12}
    assert not same


@pytest.mark.parametrize(
    "header, language",
    [
        (None, "es"),
        ("", "es"),
        ("es-MX,es;q=0.9,en;q=0.8", "es"),
        ("en-US,en;q=0.9", "en"),
        ("en;q=0.5, es;q=0.9", "es"),
        ("fr-FR,fr;q=0.9,es;q=0.5", "en"),  # as the browser does with static text
        ("*", "en"),
        ("q=;;;,,", "en"),
        ("es;q=dos", "es"),
        ("x" * 10_000, "en"),
    ],
)
def test_a_request_is_answered_in_the_language_that_it_wishes_first(header, language):
    assert Wording().language(wishing(header)) == language


def test_every_sentence_that_the_program_names_is_there():
    files = list((ROOT / "lengua/app").rglob("*.py"))
    assert len(files) > 15
    source = "".join(path.read_text(encoding="utf-8") for path in files)
    sections = {key.partition(".")[0] for key in Wording().languages["es"]}
    keys = set(re.findall(rf'"((?:{"|".join(sections)})\.[a-z_]+)"', source)) - {"tutor.toml", "microphone.js"}
    keys |= {f"talk.{name}" for name in ("again", "edit", "undo", "clear", *(f"save_{name}" for name in SAVE_FORMATS))}
    keys |= {f"reply.{kind}" for kind in REPLY_ERROR_KINDS} | {f"level.{code}" for code in LEVELS}
    keys |= {f"situation.{code}" for code in SITUATIONS} | {
        f"variety.{code}" for one in VARIETIES.values() for code in one
    }
    keys |= {f"refusal.{key}" for key in AUDIO_ERROR_PREFIXES.values()}
    assert len(keys) > 140
    for code, texts in Wording().languages.items():
        assert keys <= set(texts), (code, sorted(keys - set(texts)))


def test_values_are_filled_in():
    wording = Wording()
    assert "15 minutos" in wording.message(None, "refusal.too_long", minutes=15)
    assert "15 minutes" in wording.message(wishing("en"), "refusal.too_long", minutes=15)


def test_static_text_is_left_to_the_browser():
    wording = Wording()
    assert wording.text("state.ready").to_dict() == {"__type__": "translation_metadata", "key": "state.ready"}
    assert wording.i18n.translations["en"]["state.ready"] == "All ready."
    with pytest.raises(AssertionError):
        wording.text("no.such_key")


def test_a_language_that_lacks_a_key_is_refused(tmp_path):
    (tmp_path / "app_es.toml").write_text('[a]\nb = "uno"\nc = "dos"\n')
    (tmp_path / "app_en.toml").write_text('[a]\nb = "one"\n')
    with pytest.raises(RequestError, match=r"a\.c"):
        Wording(tmp_path)
