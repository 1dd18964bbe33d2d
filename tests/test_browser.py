"""The page in a real browser: languages, screens, axe-core, keyboard, microphone, mirror, keeping, conversation."""

import json
import re
import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import llm_server
import numpy as np
import pytest
import soundfile
from browsing import (  # noqa: F401 - some are fixtures
    DESK,
    NO_MICROPHONE,
    PHONE,
    SILENT_VOICE,
    SPANISH,
    WORDS,
    Conversation,
    Microphone,
    Server,
    serving,
    the_browser,
    the_llm,
    the_visit,
    violations,
    visiting,
    wait_until_usable,
)
from conftest import chirp
from safetensors.numpy import load_file, save_file

from lengua.data.sources import SPLITS, open_source
from lengua.runtime.files import write_json

pytestmark = pytest.mark.slow
MIN_TARGET_PX = 44
SMALL_TARGETS = """(least) => [...document.querySelectorAll(
        "#modes button, #modes [role=tab], #modes textarea, #modes label")]
    .filter((one) => one.checkVisibility({ visibilityProperty: true, opacityProperty: true }))
    .filter((one) => one.tagName !== "LABEL" || one.querySelector("input[type=checkbox], input[type=radio]"))
    .map((one) => [one, one.getBoundingClientRect()])
    .filter(([one, box]) => box.height && box.height < least)
    .map(([one, box]) => `${one.id || one.ariaLabel || one.className} ${one.innerText} ${box.height}`)"""
"""What is to be touched and lower than a finger."""
WATCH_TEXT = """() => { const look = () => {
    const text = document.querySelector("#text"), words = text.querySelector("textarea")?.value;
    window.begun ||= words === "";
    if (window.begun && words && text.checkVisibility()) window.shown.push(words);
    requestAnimationFrame(look);
}; look(); }"""
"""Notes each frame in which the text of a recording that began after `begun` was set to false can be read."""
SECRET = "sk-visitor-0f1e2d3c4b5a69788796a5b4"
HARM = "<img src=x onerror=\"document.title='harm'\"> **fuerte** [clic](javascript:alert(1))"


@pytest.fixture(scope="module", name="app")
def an_app_with_a_mirror(llm, tiny_model, tmp_path_factory) -> Iterator[Server]:
    """The program with a tiny model that says it was made from another one, connected to a server of replies."""
    folder = tmp_path_factory.mktemp("app")
    shutil.copytree(tiny_model, folder / "tuned")
    write_json(folder / "tuned/lengua.json", {"base": str(tiny_model), "language": "es"})
    weights = load_file(folder / "tuned/model.safetensors")
    weights["model.decoder.embed_positions.weight"] *= -1  # so that it writes other words
    save_file(weights, folder / "tuned/model.safetensors", {"format": "pt"})
    with serving(folder / "app", folder / "tuned", **llm.environment()) as server:
        yield server
        assert "Traceback" not in server.printed()


@pytest.fixture
def microphone(visit) -> Microphone:
    return Microphone(visit.page)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> dict[str, Path]:
    """Recordings to upload, by name: 0 to 5 are so like a voice that they reach the model."""
    folder = tmp_path_factory.mktemp("sounds")
    files = {name: folder / f"{name}.wav" for name in ("silence", "text", "big", *"012345")}
    for name in "012345":
        soundfile.write(files[name], chirp(2.0 + 0.1 * int(name), 200), 16_000)
    soundfile.write(files["silence"], np.zeros(32_000), 16_000)
    files["text"].write_text("esto no es un audio\n" * 50)
    files["big"].write_bytes(b"RIFF" + bytes(50 * 2**20))
    return files


def open_accordion(page, name: str) -> None:
    page.locator(f"#{name} > button").click()
    page.locator(f"#{name} > button.open").wait_for()


def wait_for_a_pair(page) -> bool:
    """Wait until both models are done; return whether there is something to pick."""
    page.locator("#mirror-left section").wait_for(timeout=60_000)
    page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    return page.locator("#mirror-choices").is_visible()


def download(page, selector: str) -> Path:
    with page.expect_download() as coming:
        page.locator(selector).click()
    return coming.value.path()


# The whole page


@pytest.mark.parametrize(
    "screen, locale, dark",
    [(PHONE, "es-MX", False), (PHONE, "fr-FR", True), (DESK, "en-US", True)],
    ids=["phone in Spanish", "dark phone in French", "dark desktop in English"],
)
def test_each_part_is_translated_accessible_and_fits_the_screen(browser, app, sounds, screen, locale, dark):
    words = WORDS[locale]
    with visiting(browser, app.url, screen, locale, dark=dark) as visit:
        page, microphone, conversation = visit.page, Microphone(visit.page), Conversation(visit.page)

        def check() -> str:
            text = page.locator("body").inner_text()
            assert not re.search(r"\b(page|talk|microphone|keeping|mirror|state)\.[a-z_]+\b|__i18n__", text), text
            assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
            assert page.evaluate(SMALL_TARGETS, MIN_TARGET_PX - 1) == []
            assert violations(page) == []
            return text

        def check_recorder() -> None:
            box = page.locator(".record-button:visible").bounding_box()
            assert box["y"] + box["height"] <= screen.height, "speaking needs no scrolling"

        assert page.locator("html").get_attribute("lang") == ("es" if words is SPANISH else "en")
        assert page.get_by_role("tab").all_inner_texts() == [words["page.microphone"], words["page.conversation"]]
        check_recorder()
        check()
        microphone.upload(sounds["0"])
        microphone.transcript()
        for name in ("options", "keeping", "mirror"):
            open_accordion(page, name)
        page.locator("#keeping-words .words").wait_for(timeout=60_000)  # which asks for consent anew
        page.locator("#mirror-compare").click()
        wait_for_a_pair(page)
        page.locator("#keeping-consent input").check()
        page.locator("#keeping-keep:enabled").wait_for()
        text = check()
        assert words["keeping.keep"] in text and words["mirror.compare"] in text
        conversation.open()
        check_recorder()
        check()
        conversation.say("Hola.")
        conversation.answered()
        for accordion in ("#talk-settings", "#talk-own-key", "#talk-save"):
            page.locator(f"{accordion} button").first.click()
        check()
        assert visit.errors == visit.outside == []


@pytest.mark.parametrize("locale", ["es-MX", "en-US"])
def test_what_cannot_be_heard_is_told_in_the_language_of_the_browser(browser, app, sounds, locale):
    with visiting(browser, app.url, PHONE, locale, script=NO_MICROPHONE) as visit:
        page, microphone, conversation = visit.page, Microphone(visit.page), Conversation(visit.page)
        page.locator("#recorder .record-button").click()
        microphone.wait_for_state(WORDS[locale]["refusal.microphone"])
        for name, key in (("silence", "silent"), ("text", "unreadable"), ("big", "unreadable")):
            microphone.upload(sounds[name])
            microphone.wait_for_state(WORDS[locale][f"refusal.{key}"])
            assert page.locator("#state .still.refused").count() == 1 and microphone.text.input_value() == ""
        microphone.upload(sounds["0"])
        assert microphone.transcript() and page.locator("#state .refused").count() == 0, "and the next one is heard"
        conversation.open()
        page.locator("#talk-recorder .record-button").click()
        assert conversation.state("failed") == WORDS[locale]["talk.microphone"]


def test_all_of_it_by_keyboard_alone(visit, llm, microphone):
    page, conversation = visit.page, Conversation(visit.page)
    focus(page, "#recorder .record-button")
    page.keyboard.press("Enter")
    page.locator("#recorder .stop-button").wait_for()
    page.wait_for_timeout(2000)
    focus(page, "#recorder .stop-button")
    page.keyboard.press("Enter")
    assert microphone.transcript()
    page.reload(wait_until="load")
    wait_until_usable(page)
    visit.errors.clear()  # of connections that the reload cut
    focus(page, "#modes [role=tab][aria-selected=false]")
    page.keyboard.press("Enter")
    conversation.message.wait_for()
    focus(page, "#talk-message textarea")
    page.keyboard.type("Hola.")
    page.keyboard.press("Enter")
    assert conversation.answered() == [llm_server.REPLY]


def focus(page, selector: str, most: int = 80) -> None:
    """Press Tab until an element has the focus, and see that it can be told from the others."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            break
    else:
        pytest.fail(f"{most} times Tab do not reach {selector}")
    look = "(one) => [one.outlineStyle, one.outlineWidth, one.boxShadow]"
    style, width, shadow = page.evaluate(f"() => ({look})(getComputedStyle(document.activeElement))")
    assert (style != "none" and float(width.removesuffix("px")) >= 2) or shadow != "none"


# Microphone, mirror, keeping


@pytest.mark.parametrize("visit", [{"screen": PHONE}], indirect=True)
def test_speech_and_files_are_written_copied_and_downloaded(microphone, visit, sounds):
    page = visit.page
    assert microphone.state.inner_text() == SPANISH["state.ready"]
    microphone.record(2.0)
    assert microphone.transcript()
    assert microphone.state.inner_text().startswith(SPANISH["state.done"].partition("{")[0])
    text = microphone.transcript_after(lambda: microphone.upload(sounds["0"]))
    assert microphone.transcript_after(lambda: microphone.upload(sounds["0"])) == text
    page.locator("#text").get_by_role("button").first.click()
    assert page.evaluate("() => navigator.clipboard.readText()").strip() == text
    for kind in ("text", "srt", "vtt", "json"):
        written = download(page, f"#save-{kind}").read_text(encoding="utf-8")
        assert text.split()[0] in (json.dumps(json.loads(written), ensure_ascii=False) if kind == "json" else written)
    page.locator("#options > button").click()
    translate = page.locator("#options input[type=checkbox]")
    assert microphone.transcript_after(translate.check), "though a tiny model translates like it writes"
    assert microphone.transcript_after(translate.uncheck) == text
    microphone.clear()
    assert microphone.state.inner_text() == SPANISH["state.ready"]


def test_the_text_waits_for_the_pick_from_the_first_frame_on(visit, microphone, sounds):
    page, picked = visit.page, 0
    microphone.upload(sounds["0"])
    microphone.transcript()
    open_accordion(page, "mirror")
    page.evaluate(WATCH_TEXT)
    for name in "12345":
        page.evaluate("() => { window.begun = false; window.shown = []; }")
        microphone.upload(sounds[name])
        page.wait_for_function("() => window.begun")
        if wait_for_a_pair(page):
            assert page.evaluate("() => window.shown") == []
            assert not page.locator("#text").is_visible() and not page.locator("#files").is_visible()
            page.locator("#mirror-choices button").nth(2).click()
            page.locator("#mirror-files").wait_for()
            picked += 1
        page.locator("#text").wait_for()
    counts = json.loads(download(page, "#mirror-files button >> nth=0").read_text())["counts"]
    assert counts["both"] == picked > 0 == counts["not_blind"]


def test_what_is_kept_in_the_browser_is_a_source(visit, microphone, sounds, tmp_path):
    page = visit.page
    microphone.upload(sounds["0"])
    microphone.transcript()
    open_accordion(page, "keeping")
    page.locator("#keeping-words .words").wait_for(timeout=60_000)
    assert page.locator("#keeping-words mark").count() > 0 and page.locator("#keeping-words .legend li").count() == 2
    assert page.locator("#keeping-text textarea").input_value() == microphone.text.input_value()
    assert page.locator("#keeping-keep").is_disabled()
    page.locator("#keeping-text textarea").fill("¿Sí?")
    page.locator("#keeping-consent input").check()
    page.locator("#keeping-keep:not([disabled])").click()
    page.locator("#keeping-download").wait_for(timeout=60_000)
    with zipfile.ZipFile(download(page, "#keeping-download")) as archive:
        archive.extractall(tmp_path)
    source = open_source(f"folder:{tmp_path / 'grabaciones'}")
    assert [item.text for split in SPLITS for item in source.read(split)] == ["¿Sí?"]
    microphone.upload(sounds["1"])
    page.wait_for_function("() => document.querySelector('#keeping-consent input')?.checked === false")
    page.locator("#keeping-forget").click()
    page.locator("#keeping-download").wait_for(state="hidden")


# Conversation


@pytest.fixture(scope="module")
def one_page(browser, app):
    """A page for all of these: each begins with an empty conversation."""
    with visiting(browser, app.url) as visit:
        Conversation(visit.page).open()
        yield visit


@pytest.fixture
def chat(one_page, llm):
    conversation = Conversation(one_page.page)
    yield conversation
    llm.behave("")
    llm.reply = llm_server.REPLY
    clear(conversation)
    assert one_page.outside == one_page.errors == []


def clear(chat: Conversation) -> None:
    chat.page.locator("#talk-clear").click()
    chat.turns.first.wait_for(state="detached")
    assert chat.replies.count() == 0


def test_turns_are_answered_asked_again_edited_and_undone(chat, llm):
    page = chat.page
    chat.say("Uno.")
    assert chat.answered() == [llm_server.REPLY] and chat.message.input_value() == ""
    llm.reply = "Otra respuesta."
    page.locator("#talk-again").click()
    page.get_by_text("Otra respuesta.").wait_for()
    assert chat.replies.all_inner_texts() == ["Otra respuesta."] and chat.turns.count() == 1
    page.locator("#talk-edit").click()
    page.wait_for_function("() => document.querySelector('#talk-message textarea')?.value === 'Uno.'")
    assert chat.turns.count() == chat.replies.count() == 0
    chat.say("Dos.")
    chat.answered()
    assert llm.asked[-1].messages[1:] == [{"role": "user", "content": "Dos."}]
    page.locator("#talk-undo").click()
    chat.turns.first.wait_for(state="detached")
    chat.say("Tres.")
    chat.answered()


def test_a_reply_comes_word_by_word_and_can_be_stopped(chat, llm):
    page = chat.page
    llm.behave("slow-100ms+long-200")
    chat.say("Cuéntame algo largo.")
    page.wait_for_function("() => document.querySelector('#talk-chat [data-testid=bot]')?.innerText.length > 20")
    first = chat.replies.last.inner_text()
    page.locator("#talk-stop").click()
    assert chat.state("ready") == SPANISH["talk.stopped"]
    stopped = chat.replies.last.inner_text()
    assert len(first) <= len(stopped) < 1500 and chat.turns.all_inner_texts() == ["Cuéntame algo largo."]
    end = time.monotonic() + 20
    while not llm.asked[-1].hung_up and time.monotonic() < end:
        page.wait_for_timeout(100)
    assert chat.replies.last.inner_text() == stopped and llm.asked[-1].hung_up
    llm.behave("")
    chat.say("Sigue.")
    chat.answered(2)
    assert llm.asked[-1].messages[2]["content"].startswith("palabra"), "what came of the reply stays"


def test_a_reply_that_fails_says_why_and_loses_no_turn(chat, llm):
    for number, (behaviour, kind) in enumerate({"status-401": "wrong_key", "cut-after-3": "cut"}.items()):
        llm.behave(behaviour)
        chat.say(f"No me pierdas: {number}.")
        assert chat.state("failed") == SPANISH[f"reply.{kind}"], behaviour
        assert chat.turns.last.inner_text() == f"No me pierdas: {number}." and chat.turns.count() == number + 1
        assert chat.replies.count() == number + (kind == "cut"), "what came stays"
        llm.behave("")
        chat.page.locator("#talk-again").click()
        assert chat.answered(number + 1)[-1] == llm_server.REPLY


def test_markup_is_shown_as_text_whoever_says_it(chat, llm):
    llm.behave("echo")
    chat.say(HARM)
    chat.answered()
    assert chat.turns.first.inner_text() == HARM and "<img" in chat.replies.first.inner_text()
    inside = chat.page.locator("#talk-chat").locator("img[src=x], script, a[href^=javascript], strong")
    assert inside.count() == 0 and chat.page.title() == "lengua"


def test_a_spoken_turn_is_sent_at_once_and_goes_into_the_zip_or_is_corrected_first(chat, llm):
    page = chat.page
    chat.record(2.0)
    chat.answered()
    (said,) = chat.turns.all_inner_texts()
    assert said.strip()
    page.locator("#talk-save button").first.click()
    saved = {kind: download(page, f"#talk-save-{kind}") for kind in ("markdown", "json", "zip")}
    assert said.strip() in saved["markdown"].read_text(encoding="utf-8")
    assert said.strip() in json.dumps(json.loads(saved["json"].read_text(encoding="utf-8")), ensure_ascii=False)
    with zipfile.ZipFile(saved["zip"]) as archive:
        (clip,) = [name for name in archive.namelist() if name.endswith((".flac", ".wav"))]
        assert archive.testzip() is None and archive.getinfo(clip).file_size > 5_000
    clear(chat)
    page.get_by_label(SPANISH["talk.at_once"]).uncheck()
    chat.record(2.0)
    page.locator("#talk-line").get_by_text(SPANISH["talk.read_it"]).wait_for(timeout=60_000)
    assert chat.message.input_value() and chat.turns.count() == 0
    chat.say("Esto es lo que dije.")
    chat.answered()
    assert llm.asked[-1].messages[-1]["content"] == "Esto es lo que dije."


def test_a_reload_in_the_middle_of_a_reply_begins_anew(chat, llm, one_page):
    llm.behave("slow-100ms+long-300")
    chat.say("Cuéntame.")
    chat.replies.first.wait_for()
    chat.page.reload(wait_until="load")
    llm.behave("")
    chat.open()
    assert chat.turns.count() == 0
    chat.say("Otra vez.")
    assert chat.answered() == [llm_server.REPLY]
    assert [message["content"] for message in llm.asked[-1].messages[1:]] == ["Otra vez."]
    one_page.errors.clear()  # of connections that the reload cut


@pytest.mark.parametrize("visit", [{"script": SILENT_VOICE}], indirect=True)
def test_the_microphone_is_closed_while_the_reply_is_spoken(visit, llm):
    page, chat = visit.page, Conversation(visit.page)

    def is_closed() -> bool:
        return page.evaluate("() => !!document.querySelector('#talk-recorder').closest('[inert]')")

    chat.open()
    llm.reply = "Primera frase. Segunda frase."
    chat.say("Habla.")
    chat.answered()
    llm.reply = llm_server.REPLY
    assert chat.state("speaking") == SPANISH["talk.speaking"]
    page.wait_for_function("() => spoken.length === 2")  # the second is given when the reply has ended
    assert page.evaluate("() => spoken.map((one) => one.text)") == ["Primera frase.", "Segunda frase."]
    for _ in range(2):
        assert is_closed()
        page.evaluate("() => finishSpeaking()")
    chat.state("ready")
    assert not is_closed()


def test_a_key_that_is_typed_serves_this_visit_and_shows_nowhere(visit, llm, app):
    page, chat = visit.page, Conversation(visit.page)
    chat.open()
    page.locator("#talk-own-key button").first.click()
    page.locator("#talk-key input").fill(SECRET)
    chat.say("Con mi clave.")
    chat.answered()
    assert llm.asked[-1].key == SECRET
    kept = "() => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
    assert SECRET not in page.content() + page.evaluate(kept) + page.context.storage_state().__repr__()
    llm.behave("status-401")  # the server's error repeats the key
    chat.say("¿Y ahora?")
    assert chat.state("failed") == SPANISH["reply.wrong_key"]
    assert SECRET not in page.locator("body").inner_text() + app.printed()
    llm.behave("")
