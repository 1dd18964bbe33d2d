"""The conversation mode in a real browser, with a server of replies that does as it is told."""

import json
import time
import zipfile

import llm_server
import pytest
from browsing import (  # noqa: F401 - some are fixtures
    SILENT_VOICE,
    SPANISH,
    Conversation,
    the_app,
    the_browser,
    the_llm,
    the_visit,
    visiting,
)

pytestmark = pytest.mark.slow
SECRET = "sk-visitor-0f1e2d3c4b5a69788796a5b4"
FAILURES = {
    "status-401": "wrong_key",
    "no-quota": "no_quota",
    "status-429": "rate_limited",
    "missing": "no_model",
    "status-500": "server_down",
    "cut-after-3": "cut",
    "refuse": "refused",
    "empty": "empty",
}
"""What the server does, and what the page says of it."""
HARM = "<img src=x onerror=\"document.title='harm'\"> **fuerte** [clic](javascript:alert(1))"


@pytest.fixture
def talk(visit, llm):
    """The conversation mode, before its first turn, and the server that just answers."""
    conversation = Conversation(visit.page)
    conversation.open()
    yield conversation
    llm.behave("")
    llm.reply = llm_server.REPLY


def test_a_turn_is_answered_and_the_whole_talk_is_sent(talk, llm):
    talk.say("Hola, me llamo Ana.")
    assert talk.answered() == [llm_server.REPLY]
    talk.say("¿Cómo me llamo?")
    assert len(talk.answered(2)) == 2
    sent = [(message["role"], message["content"]) for message in llm.asked[-1].messages]
    assert sent[0][0] == "system"
    assert sent[1:] == [("user", "Hola, me llamo Ana."), ("assistant", llm_server.REPLY), ("user", "¿Cómo me llamo?")]
    assert talk.message.input_value() == ""


def test_a_reply_comes_word_by_word_and_can_be_stopped(talk, llm, visit):
    llm.behave("slow-100ms+long-200")
    talk.say("Cuéntame algo largo.")
    visit.page.wait_for_function("() => document.querySelector('#talk-chat [data-testid=bot]')?.innerText.length > 20")
    first = talk.replies.last.inner_text()
    talk.page.locator("#talk-stop").click()
    assert talk.state("ready") == SPANISH["talk.stopped"]
    stopped = talk.replies.last.inner_text()
    assert len(first) <= len(stopped) < 1500 and talk.turns.all_inner_texts() == ["Cuéntame algo largo."]
    visit.page.wait_for_timeout(600)
    end = time.monotonic() + 20
    while not llm.asked[-1].hung_up and time.monotonic() < end:
        visit.page.wait_for_timeout(100)
    assert talk.replies.last.inner_text() == stopped and llm.asked[-1].hung_up
    llm.behave("")
    talk.say("Sigue.")
    talk.answered(2)
    assert llm.asked[-1].messages[2]["content"].startswith("palabra"), "what came of the reply stays"


def test_again_edit_undo_and_clear(talk, llm, visit):
    page = visit.page
    talk.say("Uno.")
    talk.answered()
    llm.reply = "Otra respuesta."
    page.locator("#talk-again").click()
    page.get_by_text("Otra respuesta.").wait_for()
    assert talk.replies.all_inner_texts() == ["Otra respuesta."] and talk.turns.count() == 1
    page.locator("#talk-edit").click()
    page.wait_for_function("() => document.querySelector('#talk-message textarea')?.value === 'Uno.'")
    assert talk.turns.count() == talk.replies.count() == 0
    talk.say("Dos.")
    talk.answered()
    assert llm.asked[-1].messages[1:] == [{"role": "user", "content": "Dos."}]
    page.locator("#talk-undo").click()
    talk.turns.first.wait_for(state="detached")
    talk.say("Tres.")
    talk.answered()
    page.locator("#talk-clear").click()
    talk.turns.first.wait_for(state="detached")
    assert talk.replies.count() == 0


def test_markup_is_shown_as_text_whoever_says_it(talk, llm, visit):
    llm.behave("echo")
    talk.say(HARM)
    talk.answered()
    assert talk.turns.first.inner_text() == HARM
    assert "<img" in talk.replies.first.inner_text()
    inside = visit.page.locator("#talk-chat").locator("img[src=x], script, a[href^=javascript], strong")
    assert inside.count() == 0 and visit.page.title() == "lengua"


def test_a_reply_that_fails_says_why_and_loses_no_turn(talk, llm):
    for number, (behaviour, kind) in enumerate(FAILURES.items()):
        llm.behave(behaviour)
        talk.say(f"No me pierdas: {number}.")
        assert talk.state("failed") == SPANISH[f"reply.{kind}"], behaviour
        assert talk.turns.last.inner_text() == f"No me pierdas: {number}." and talk.turns.count() == number + 1
        assert talk.replies.count() == number + (kind == "cut"), behaviour
        if kind == "cut":
            assert talk.replies.last.inner_text() == "Hola. Te oigo", "what came stays"
        llm.behave("")
        talk.page.locator("#talk-again").click()
        assert talk.answered(number + 1)[-1] == llm_server.REPLY


def test_a_spoken_turn_can_be_corrected_before_it_is_sent(talk, visit, llm):
    visit.page.get_by_label(SPANISH["talk.at_once"]).uncheck()
    talk.record(2.0)
    assert talk.state("ready") == SPANISH["talk.read_it"]
    assert talk.message.input_value() and talk.turns.count() == 0
    talk.say("Esto es lo que dije.")
    talk.answered()
    assert llm.asked[-1].messages[-1]["content"] == "Esto es lo que dije."


def test_a_spoken_turn_is_sent_at_once_and_goes_into_the_zip(talk, visit):
    talk.record(2.0)
    talk.answered()
    said, page = talk.turns.all_inner_texts(), visit.page
    assert len(said) == 1 and said[0].strip()
    page.locator("#talk-save button").first.click()
    saved = {}
    for kind in ("markdown", "json", "zip"):
        with page.expect_download() as coming:
            page.locator(f"#talk-save-{kind}").click()
        saved[kind] = coming.value.path()
    assert said[0].strip() in saved["markdown"].read_text(encoding="utf-8")
    assert said[0].strip() in json.dumps(json.loads(saved["json"].read_text(encoding="utf-8")), ensure_ascii=False)
    with zipfile.ZipFile(saved["zip"]) as archive:
        (clip,) = [name for name in archive.namelist() if name.endswith((".flac", ".wav"))]
        assert archive.testzip() is None and archive.getinfo(clip).file_size > 5_000


@pytest.mark.parametrize("visit", [{"script": SILENT_VOICE}], indirect=True)
def test_the_microphone_is_closed_while_the_reply_is_spoken(talk, visit, llm):
    llm.reply = "Primera frase. Segunda frase."
    talk.say("Habla.")
    talk.answered()
    assert talk.state("speaking") == SPANISH["talk.speaking"]
    visit.page.wait_for_function("() => spoken.length === 2")  # the second is given when the reply has ended
    assert visit.page.evaluate("() => spoken.map((one) => one.text)") == ["Primera frase.", "Segunda frase."]
    assert is_closed(visit)
    visit.page.evaluate("() => finishSpeaking()")
    assert is_closed(visit)
    visit.page.evaluate("() => finishSpeaking()")
    talk.state("ready")
    assert not is_closed(visit)


def is_closed(visit) -> bool:
    """Whether the recorder cannot be used."""
    return visit.page.evaluate("() => !!document.querySelector('#talk-recorder').closest('[inert]')")


def test_two_tabs_are_two_conversations(talk, browser, app, llm):
    talk.say("Soy la primera.")
    talk.answered()
    with visiting(browser, app.url) as other:
        second = Conversation(other.page)
        second.open()
        assert second.turns.count() == 0
        second.say("Soy la segunda.")
        second.answered()
    assert [message["content"] for message in llm.asked[-1].messages[1:]] == ["Soy la segunda."]
    assert talk.turns.all_inner_texts() == ["Soy la primera."]


def test_a_reload_in_the_middle_of_a_reply_begins_anew(talk, llm, visit):
    llm.behave("slow-100ms+long-300")
    talk.say("Cuéntame.")
    talk.replies.first.wait_for()
    visit.page.reload(wait_until="load")
    llm.behave("")
    talk.open()
    assert talk.turns.count() == 0
    talk.say("Otra vez.")
    assert talk.answered() == [llm_server.REPLY]
    assert [message["content"] for message in llm.asked[-1].messages[1:]] == ["Otra vez."]
    visit.errors.clear()  # of connections that the reload cut


def test_a_key_that_is_typed_serves_this_visit_and_shows_nowhere(talk, llm, visit, browser, app):
    page = visit.page
    page.locator("#talk-own-key button").first.click()
    page.locator("#talk-key input").fill(SECRET)
    talk.say("Con mi clave.")
    talk.answered()
    assert llm.asked[-1].key == SECRET
    page.locator("#talk-save button").first.click()
    for kind in ("markdown", "json", "zip"):
        with page.expect_download() as coming:
            page.locator(f"#talk-save-{kind}").click()
        assert SECRET.encode() not in coming.value.path().read_bytes()
    kept = "() => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
    assert SECRET not in page.content() + page.evaluate(kept) + page.context.storage_state().__repr__()
    llm.behave("status-401")  # the server's error repeats the key
    talk.say("¿Y ahora?")
    assert talk.state("failed") == SPANISH["reply.wrong_key"]
    assert SECRET not in page.locator("body").inner_text() + app.printed()
    llm.behave("")
    with visiting(browser, app.url) as other:
        second = Conversation(other.page)
        second.open()
        second.say("Sin clave.")
        second.answered()
    assert llm.asked[-1].key == llm_server.KEY
