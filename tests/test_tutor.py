"""The tutor: says what it is, says back, asks again, dictates and marks; and works for any language."""

import itertools
import json
import subprocess
import sys

import pytest

from lengua.app.chat.history import LEVELS, SITUATIONS, ReplyError, Setting, Turn
from lengua.app.chat.tutor import Tutor, mark_dictation, tutor_texts, without_marks
from lengua.scoring import count_spelling_errors

ES = tutor_texts("es")


class Talk:
    """A talk with the tutor."""

    def __init__(self, **setting):
        self.setting, self.turns = Setting(**setting), []

    def say(self, text: str, doubtful: tuple[str, ...] = (), audio: str | None = None) -> str:
        self.turns.append(Turn("user", text, audio, doubtful))
        reply = "".join(Tutor().reply(self.turns, self.setting))
        self.turns.append(Turn("assistant", reply))
        return reply


def test_it_says_what_it_is_at_once_and_only_once():
    talk = Talk()
    first, second = talk.say("Hola, me llamo Ana."), talk.say("Vivo en Lima.")
    assert "no un modelo de lenguaje" in first and "“Hola, me llamo Ana”" in first
    assert "modelo" not in second and second.startswith("Oí: “Vivo en Lima”. ")


def test_it_can_begin():
    reply = "".join(Tutor().reply([], Setting("café")))
    assert "no un modelo de lenguaje" in reply and reply.endswith(ES["questions"]["cafe"][0])
    assert Talk(situation="cafe").say("Empieza tú.") == reply


@pytest.mark.parametrize("situation", SITUATIONS)
def test_it_asks_the_questions_of_a_situation_each_once(situation):
    talk = Talk(situation=situation)
    replies = [talk.say(f"respuesta número {number}") for number in range(len(ES["questions"][situation]) + 2)]
    asked = [sum(question in reply for reply in replies) for question in ES["questions"][situation]]
    assert set(asked) == {1}
    assert ES["done"] in replies[-2] and replies[-1] == "Oí: “respuesta número " + str(len(replies) - 1) + "”."


def test_the_same_turns_get_the_same_reply():
    talk = Talk()
    talk.say("Hola")
    again = talk.say("Bien")
    talk.turns = talk.turns[:-1]  # retry
    assert "".join(Tutor().reply(talk.turns, talk.setting)) == again
    cut = [*talk.turns, Turn("assistant", "Oí: “Bi")]
    assert "".join(Tutor().reply(cut, talk.setting)) == again


# Doubtful words


@pytest.mark.parametrize(
    "answer, begins",
    [
        ("Caza", "Ahora sí: «caza»."),
        ("ce a zeta a", "Ahora sí: «caza»."),
        ("Sí.", "Ahora sí: «caza»."),
        ("casa", "Entonces era “casa”. Gracias."),
        ("ce a ese a", "Entonces era “casa”. Gracias."),
        ("No.", "Vamos de nuevo. No estoy seguro de «caza»."),
        ("prefiero hablar de otra cosa", "Oí: “prefiero hablar"),
    ],
)
def test_it_asks_about_a_doubtful_word_and_understands_the_answer(answer, begins):
    talk = Talk()
    asked = talk.say("Estoy en la caza.", ("caza.", "la"))
    assert asked.endswith(ES["doubt"].format(word="caza"))
    assert talk.say(answer).startswith(begins)


# Dictation


def test_a_dictation_is_set_marked_and_followed_by_another():
    talk = Talk(level="beginner")
    assert talk.say("lectura").endswith("«¿Cómo está tu mamá?»"), "to be read, it is shown as it is"
    reply = talk.say("¿Cómo están tu mapa?")
    assert reply.startswith("Bien 2 de 4. No oí: “está”, “mamá”. Sobra: “están”, “mapa”.")
    talk = Talk(level="beginner")
    assert talk.say("Dictado, por favor").endswith(ES["write"].format(sentence="como esta tu mama"))
    reply = talk.say("como está tu mamá")
    assert reply.startswith("Bien 3 de 4. Tildes: es «cómo», no «como». Se escribe así: “¿Cómo está tu mamá?”")
    assert reply.endswith("«mañana es mi cumpleaños»")
    assert talk.say("Mañana es mi cumpleaños.").startswith("Perfecto")


def test_signs_count_where_it_was_written_and_not_where_it_was_said():
    for audio, begins in ((None, "Bien 4 de 4. Se escribe así"), ("clip.wav", "Perfecto")):
        talk = Talk(level="beginner")
        talk.say("dictado")
        assert talk.say("cómo está tu mamá", audio=audio).startswith(begins)


def test_one_can_leave_an_exercise_and_is_told_how():
    talk = Talk()
    talk.say("trabalenguas")
    assert ES["help"] in talk.say("no entiendo nada")
    assert talk.say("basta").startswith(ES["stopped"])
    assert talk.say("me gusta leer").startswith("Oí: “me gusta leer”")


def test_every_sentence_comes_before_one_comes_again():
    talk, given = Talk(level="advanced"), []
    for _ in ES["sentences"]["advanced"]:
        given.append(talk.say("dictado").rpartition("«")[2].rstrip("»"))
    assert len(set(given)) == len(given) == 10
    assert talk.say("dictado").rpartition("«")[2].rstrip("»") in given


def test_marks_tell_accents_letters_and_words_apart():
    marks = mark_dictation("El año pasado él tomó té.", "El ano pasado el tomó leche")
    assert (marks.words, marks.right) == (6, 3)
    assert marks.accents == (("él", "el"),) and marks.letters == (("año", "ano"),)
    assert (marks.missed, marks.added) == (("té",), ("leche",))
    assert mark_dictation("Sí.", "si").accents == (("sí", "si"),)
    assert mark_dictation("Sí.", "sí").is_perfect and mark_dictation("Sí.", "sí").signs
    assert not mark_dictation("Sí.", "Sí.").signs


def test_dictated_sentences_can_be_told_from_others_and_marked_in_full():
    count = 0
    for language in ("es", "en"):
        texts = tutor_texts(language)["sentences"]
        assert set(texts) == {*LEVELS, "twister"}
        sentences = list(itertools.chain.from_iterable(texts.values()))
        assert len({without_marks(one, language) for one in sentences}) == len(sentences)
        for sentence in sentences:
            assert mark_dictation(sentence, sentence, language).is_perfect
            plain = mark_dictation(sentence, without_marks(sentence, language), language)
            assert plain.signs and not plain.missed and not plain.added
            spelling = count_spelling_errors([sentence], [without_marks(sentence)], language)
            assert len(plain.accents) == spelling.counts["accents"]
            count += 1
    assert count > 45


# Any language, any input


@pytest.mark.parametrize("language", ["en", "sv", "ja", "haw"])
def test_another_language_is_said_back_with_english_around_it(language):
    talk = Talk(language=language)
    assert "“Hej på dig”" in talk.say("Hej på dig.")
    assert ("no sentences" in talk.say("dictation")) == (language != "en")


ODD = ["🙂", "...", "{word}", "«x»", "<b>", "a" * 4000, "\ud800", "¿?", "() [a-z]+ \\1", "dictado " * 99]


@pytest.mark.parametrize("text", ODD)
def test_whatever_is_said_there_is_a_reply(text):
    talk = Talk()
    replies = [talk.say(text, (text,)), talk.say("dictado"), talk.say(text), talk.say(text)]
    assert all(reply.strip() and len(reply) < 900 for reply in replies)


def test_a_reply_comes_in_sentences_costs_nothing_and_loads_no_page():
    pieces = list(Tutor().reply([Turn("user", "Hola.\nQué tal")], Setting()))
    assert len(pieces) >= 4 and "“Hola. Qué tal”" in "".join(pieces)
    with pytest.raises(ReplyError, match="10000"):
        list(Tutor().reply([Turn("user", "a" * 10_000)], Setting()))
    assert Tutor().cost([Turn("user", "hola")], Setting()) == 0
    light = "lengua.app.transcribing, lengua.app.chat.replies, lengua.app.chat.backend, lengua.app.chat.export"
    code = f"import json, sys, {light}; print(json.dumps(list({{'torch', 'gradio'}} & {{*sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_argentina_is_spoken_to_with_vos():
    talk = Talk(variety="AR", level="beginner")
    first = talk.say("Quiero un helado", ("helado",))
    assert "lo que me contás" in first and first.endswith("¿La repetís despacio o la deletreás?")
    assert talk.say("helado").startswith("Ahora sí")
    assert talk.say("lectura") == "Leé en voz alta: «¿Cómo está tu mamá?»"
    assert talk.say("¿Cómo está tu mamá?").startswith("Perfecto")
