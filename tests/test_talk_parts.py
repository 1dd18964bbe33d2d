"""The parts of the conversation mode that need no server: text, sentences, the flow of pieces, drafts, the voice."""

import json
import shutil
import subprocess
import threading
import time
import tomllib

import pytest
from conftest import ROOT

from lengua.app.chat.history import Setting, Turn, corrected_turn
from lengua.app.chat.replies import (
    MAX_SPOKEN_LETTERS,
    chatbot_messages,
    read_in_thread,
    split_sentences,
    strip_markdown,
    voice_languages,
)
from lengua.app.chat.tab import SecretText, key_field

DATA = ROOT / "lengua/assets"


# Text


@pytest.mark.parametrize(
    "written, shown",
    [
        ("**Hola**, *amigo*.", "Hola, amigo."),
        ("# Título\nTexto", "Título\nTexto"),
        ("- uno\n* dos", "• uno\n• dos"),
        ("mira [esto](http://x.example/a)", "mira esto"),
        ("![foto](http://x.example/a.png)", "foto"),
        ("`código` y\n```python\nx = 1\n```\nfin", "código y\nx = 1\nfin"),
        ("__fuerte__", "fuerte"),
        ("Yo ____ (ser) y tú ____ (estar).", "Yo ____ (ser) y tú ____ (estar)."),
        ("2 * 3 * 4 = 24 y a_b_c", "2 * 3 * 4 = 24 y a_b_c"),
        ("**sin cerrar", "**sin cerrar"),
        ("¿Qué tal? 🙂 👩‍👧", "¿Qué tal? 🙂 👩‍👧"),
    ],
)
def test_markdown_becomes_plain_text(written, shown):
    assert strip_markdown(written) == shown


def test_what_the_tutor_says_stays_as_it_is():
    def texts(value):
        if isinstance(value, str):
            yield value
        for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from texts(one)

    said = list(texts(tomllib.loads((DATA / "tutor.toml").read_text(encoding="utf-8"))))
    assert len(said) > 40
    assert [text for text in said if strip_markdown(text) != text] == []


@pytest.mark.parametrize(
    "text, shown",
    [
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)>"),
        ("</div><!-- <?php", "&lt;/div>&lt;!-- &lt;?php"),
        ("&lt; &#60; &copy 2026", "&amp;lt; &amp;#60; &amp;copy 2026"),
        ("3 < 4 & 5 > 2, Tom & Jerry", "3 < 4 & 5 > 2, Tom & Jerry"),
        ("  dos\n  líneas 🙂", "  dos\n  líneas 🙂"),
    ],
)
def test_nothing_in_a_turn_can_begin_a_tag_or_an_entity(text, shown):
    assert chatbot_messages([Turn("user", text)]) == [{"role": "user", "content": [{"type": "text", "text": shown}]}]


# Sentences


def test_sentences_are_spoken_as_soon_as_they_are_whole():
    text = "Hola. ¿Cómo estás? Yo, muy bien… ¡Gracias! Y tú"
    assert split_sentences(text, ended=False) == ("Hola.", "¿Cómo estás?", "Yo, muy bien…", "¡Gracias!")
    assert split_sentences(text, ended=True)[-1] == "Y tú"


def test_more_text_only_adds_sentences():
    text = "El Sr. Pérez pagó 3.5 euros en EE. UU. ayer. «¡Qué caro!» dijo.\n\n1. Primero 🙂 esto\n2. Luego aquello: "
    text += "y " * 200
    before = ()
    for end in range(len(text) + 1):
        now = split_sentences(text[:end], ended=False)
        assert now[: len(before)] == before
        before = now
    assert before[0] == "El Sr. Pérez pagó 3.5 euros en EE. UU. ayer."


def test_long_sentences_are_cut_and_pictures_are_not_pronounced():
    said = split_sentences("palabra, " * 100 + "fin 🙂🎉 a 20 °C.", ended=True)
    assert len(said) > 3 and max(map(len, said)) <= MAX_SPOKEN_LETTERS
    assert " ".join(said).endswith("fin a 20 °C.")
    assert split_sentences("🙂 … —", ended=True) == ()


def test_voices_of_a_variety():
    assert voice_languages(Setting(variety="AR")) == ("es-AR", "es-419", "es-US", "es-MX", "es")
    assert voice_languages(Setting(variety="ES")) == ("es-ES", "es")
    assert voice_languages(Setting(language="sv")) == ("sv",)


# The flow of pieces


def test_pieces_flow_and_an_error_comes_after_what_came_before_it():
    def pieces():
        yield "uno "
        yield "dos"
        raise ValueError("cut")

    ended, came = threading.Event(), []
    with pytest.raises(ValueError, match="cut"):
        for piece in read_in_thread(pieces(), ended.set):
            came.append(piece)
    assert "".join(came) == "uno dos"
    assert ended.is_set()


def test_who_waits_can_leave_a_flow_that_hangs():
    freed, closed, ended = threading.Event(), threading.Event(), threading.Event()

    def pieces():
        try:
            yield "uno"
            freed.wait(20)
            yield "dos"
        finally:
            closed.set()

    flow = read_in_thread(pieces(), ended.set)
    start = time.perf_counter()
    assert next(flow) == "uno"
    assert next(flow) == ""
    flow.close()
    assert time.perf_counter() - start < 3
    assert not ended.is_set()
    freed.set()
    assert closed.wait(5) and ended.wait(5)


def test_fast_pieces_are_shown_together():
    flow = list(read_in_thread((f"{number} " for number in range(2000)), lambda: None))
    assert "".join(flow).split() == [str(number) for number in range(2000)]
    assert len(flow) < 100


# Drafts


def test_a_recording_belongs_to_the_text_that_was_heard_in_it_corrected_or_not():
    draft = Turn("user", "quiero un cafe con leche", "/tmp/a.wav", ("cafe", "leche"))
    text = "Quiero un café con leche"
    assert corrected_turn(draft, text) == Turn("user", text, "/tmp/a.wav", ("leche",))
    assert corrected_turn(draft, "otra cosa distinta") == Turn("user", "otra cosa distinta")
    assert corrected_turn(Turn("user", ""), "hola") == Turn("user", "hola")


# The key


def test_what_is_typed_as_a_key_shows_nowhere():
    field = key_field(value="")
    typed = field.data_model.model_validate(" sk-secret ", context={"validate_meta": True})
    assert field.preprocess(typed) == "sk-secret"
    assert "sk-secret" not in f"{typed} {typed!r} {typed.model_dump()} {json.dumps(typed.model_dump())}"
    assert field.preprocess(SecretText(["sk"])) is None and field.preprocess(None) is None
    assert field.get_config()["type"] == "password"


# The voice of the browser, in node

VOICE = """
require(process.argv[1]);
const { Voice, chosen } = globalThis.lengua;
globalThis.SpeechSynthesisUtterance = class { constructor(text) { this.text = text; } };
const said = [], events = [];
const voices = [{ lang: "en-US" }, { lang: "es_MX" }, { lang: "es-ES", default: true }, { lang: "es-AR" }];
const synthesis = { getVoices: () => voices, speak: (one) => said.push(one), cancel: () => events.push("cancel") };
const voice = new Voice(synthesis, () => events.push(voice.speaking));
const es = ["es-MX", "es-419", "es"];
voice.follow({ reply: "a", sentences: ["Uno."], voices: es });
voice.follow({ reply: "a", sentences: ["Uno.", "Dos."], voices: es });
const during = voice.speaking;
said[0].onend(); said[1].onend();
const after = voice.speaking;
voice.follow({ reply: "b", sentences: ["Tres."], voices: es });
voice.follow({ reply: "", sentences: [], voices: [] });
const silenced = !voice.speaking;
voice.follow({ reply: "c", sentences: ["Cuatro."], voices: es });
voice.stop();
voice.follow({ reply: "c", sentences: ["Cuatro.", "Cinco."], voices: es });
voice.aloud = false;
voice.follow({ reply: "d", sentences: ["Seis."], voices: es });
const none = new Voice(undefined, () => {});
none.follow({ reply: "a", sentences: ["Uno."], voices: es });
console.log(JSON.stringify({
  said: said.map((one) => [one.text, one.lang]), during, after, silenced, left: voice.speaking, events,
  chosen: [["es-AR", "es"], ["es-419", "es"], ["sv"]].map((wishes) => chosen(voices, wishes)?.lang ?? null),
  none: none.speaking,
}));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page's script")
def test_the_voice_says_each_sentence_once_and_falls_silent_when_told():
    command = ["node", "-e", VOICE, str(DATA / "app.js")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["said"] == [[text, "es_MX"] for text in ("Uno.", "Dos.", "Tres.", "Cuatro.")]
    assert (told["during"], told["after"], told["silenced"], told["left"]) == (True, False, True, False)
    assert told["events"].count("cancel") == 2
    assert told["chosen"] == ["es-AR", "es-ES", None]
    assert told["none"] is False
