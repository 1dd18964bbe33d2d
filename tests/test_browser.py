"""The page in a real browser: both languages, phone and desktop, axe-core, the microphone mode, the keyboard alone."""

import json
import re

import llm_server
import numpy as np
import pytest
import soundfile
from browsing import (  # noqa: F401 - some are fixtures
    DESK,
    NO_MICROPHONE,
    PHONE,
    SPANISH,
    WORDS,
    Conversation,
    Microphone,
    the_app,
    the_browser,
    the_llm,
    the_visit,
    violations,
    visiting,
    wait_until_usable,
)
from conftest import chirp

pytestmark = pytest.mark.slow
MIN_TARGET = 44


@pytest.fixture
def microphone(visit) -> Microphone:
    return Microphone(visit.page)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> dict:
    """Recordings to upload, by name."""
    folder = tmp_path_factory.mktemp("sounds")
    made = {name: folder / f"{name}.wav" for name in ("voice", "silence", "text", "big")}
    soundfile.write(made["voice"], chirp(2.0, 200), 16_000)
    soundfile.write(made["silence"], np.zeros(32_000), 16_000)
    made["text"].write_text("esto no es un audio\n" * 50)
    made["big"].write_bytes(b"RIFF" + bytes(50 * 2**20))
    return made


# The page


@pytest.mark.parametrize(
    "screen, locale",
    [(PHONE, "es-MX"), (PHONE, "fr-FR"), (DESK, "en-US")],
    ids=["phone in Spanish", "phone in French", "desktop in English"],
)
def test_the_page_is_in_the_language_of_the_browser_and_fits_the_screen(browser, app, screen, locale):
    words = WORDS[locale]
    with visiting(browser, app.url, screen, locale) as visit:
        page = visit.page
        assert page.locator("html").get_attribute("lang") == ("es" if words is SPANISH else "en")
        assert page.get_by_role("tab").all_inner_texts() == [words["page.microphone"], words["page.conversation"]]
        for _ in ("microphone", "conversation"):
            text = page.locator("body").inner_text()
            assert not re.search(r"\b(page|talk|microphone|keeping|mirror|state)\.[a-z_]+\b|__i18n__", text), text
            assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
            assert small_targets(page) == []
            record = page.locator(".record-button:visible").bounding_box()
            assert record["y"] + record["height"] <= screen.height, "speaking needs no scrolling"
            page.get_by_role("tab").nth(1).click()
        assert visit.errors == visit.outside == []


def small_targets(page) -> list[str]:
    """Return what is to be touched and lower than a finger."""
    return page.evaluate(
        """(least) => [...document.querySelectorAll("#modes button, #modes [role=tab], #modes textarea, #modes label")]
            .filter((one) => one.checkVisibility({ visibilityProperty: true, opacityProperty: true }))
            .filter((one) => one.tagName !== "LABEL" || one.querySelector("input[type=checkbox], input[type=radio]"))
            .map((one) => [one, one.getBoundingClientRect()])
            .filter(([one, box]) => box.height && box.height < least)
            .map(([one, box]) => `${one.id || one.ariaLabel || one.className} ${one.innerText} ${box.height}`)""",
        MIN_TARGET - 1,
    )


@pytest.mark.parametrize("screen, dark", [(PHONE, False), (DESK, True)], ids=["phone, light", "desktop, dark"])
def test_axe_finds_nothing_serious(browser, app, sounds, screen, dark):
    with visiting(browser, app.url, screen, dark=dark) as visit:
        microphone, conversation = Microphone(visit.page), Conversation(visit.page)
        assert violations(visit.page) == []
        microphone.upload(sounds["voice"])
        microphone.heard()
        for accordion in ("#options", "#keeping"):
            visit.page.locator(f"{accordion} button").first.click()
        visit.page.locator("#keeping-words .words").wait_for(timeout=60_000)  # which asks for consent anew
        visit.page.locator("#keeping-consent input").check()
        visit.page.locator("#keeping-keep:enabled").wait_for()
        assert violations(visit.page) == []
        conversation.open()
        assert violations(visit.page) == []
        conversation.say("Hola.")
        conversation.answered()
        for accordion in ("#talk-settings", "#talk-own-key", "#talk-save"):
            visit.page.locator(f"{accordion} button").first.click()
        assert violations(visit.page) == []


# Microphone


@pytest.mark.parametrize("screen", [PHONE, DESK], ids=["phone", "desktop"])
def test_what_the_microphone_hears_is_written(browser, app, screen):
    with visiting(browser, app.url, screen) as visit:
        microphone = Microphone(visit.page)
        assert microphone.state.inner_text() == SPANISH["state.ready"]
        microphone.record(2.0)
        assert microphone.heard()
        assert microphone.state.inner_text().startswith(SPANISH["state.done"].partition("{")[0])
        assert visit.errors == []


def test_a_file_is_written_copied_and_downloaded(microphone, visit, sounds):
    microphone.upload(sounds["voice"])
    text, page = microphone.heard(), visit.page
    page.locator("#text").get_by_role("button").first.click()
    assert page.evaluate("() => navigator.clipboard.readText()").strip() == text
    for kind, suffix in {"text": ".txt", "srt": ".srt", "vtt": ".vtt", "json": ".json"}.items():
        with page.expect_download() as coming:
            page.locator(f"#save-{kind}").click()
        written = coming.value.path().read_text(encoding="utf-8")
        assert coming.value.suggested_filename.endswith(suffix)
        assert text.split()[0] in (json.dumps(json.loads(written), ensure_ascii=False) if kind == "json" else written)
    microphone.clear()
    assert microphone.state.inner_text() == SPANISH["state.ready"]


def test_the_same_file_and_other_options_are_heard_again(microphone, visit, sounds):
    microphone.upload(sounds["voice"])
    text = microphone.heard()
    assert microphone.heard_again(lambda: microphone.upload(sounds["voice"])) == text
    visit.page.locator("#options > button").click()
    translate = visit.page.locator("#options input[type=checkbox]")
    assert microphone.heard_again(translate.check), "though a tiny model translates like it writes"
    assert microphone.heard_again(translate.uncheck) == text


@pytest.mark.parametrize("locale", ["es-MX", "en-US"])
def test_what_cannot_be_heard_is_told_in_the_language_of_the_browser(browser, app, sounds, locale):
    with visiting(browser, app.url, PHONE, locale) as visit:
        microphone = Microphone(visit.page)
        for name, key in (("silence", "silent"), ("text", "unreadable"), ("big", "unreadable")):
            microphone.upload(sounds[name])
            microphone.told(WORDS[locale][f"refusal.{key}"])
            assert visit.page.locator("#state .still.refused").count() == 1
            assert microphone.text.input_value() == ""
        microphone.upload(sounds["voice"])
        assert microphone.heard(), "and the next one is heard"
        assert visit.page.locator("#state .refused").count() == 0


@pytest.mark.parametrize("locale", ["es-MX", "en-US"])
def test_a_refused_microphone_is_told_in_both_modes(browser, app, locale):
    with visiting(browser, app.url, PHONE, locale, script=NO_MICROPHONE) as visit:
        visit.page.locator("#recorder .record-button").click()
        Microphone(visit.page).told(WORDS[locale]["refusal.microphone"])
        conversation = Conversation(visit.page)
        conversation.open()
        visit.page.locator("#talk-recorder .record-button").click()
        assert conversation.state("failed") == WORDS[locale]["talk.microphone"]


# By keyboard alone


def test_all_of_it_by_keyboard_alone(visit, llm, microphone):
    page, conversation = visit.page, Conversation(visit.page)
    until_focused(page, "#recorder .record-button")
    assert shows_focus(page)
    page.keyboard.press("Enter")
    page.locator("#recorder .stop-button").wait_for()
    page.wait_for_timeout(2000)
    until_focused(page, "#recorder .stop-button")
    page.keyboard.press("Enter")
    assert microphone.heard()
    page.reload(wait_until="load")
    wait_until_usable(page)
    visit.errors.clear()  # of connections that the reload cut
    until_focused(page, "#modes [role=tab][aria-selected=false]")
    page.keyboard.press("Enter")
    conversation.message.wait_for()
    until_focused(page, "#talk-message textarea")
    assert shows_focus(page)
    page.keyboard.type("Hola.")
    page.keyboard.press("Enter")
    assert conversation.answered() == [llm_server.REPLY]


def until_focused(page, selector: str, most: int = 60) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
    pytest.fail(f"{most} times Tab do not reach {selector}")


def shows_focus(page) -> bool:
    """Whether the element with the focus can be told from the others."""
    look = "(one) => [one.outlineStyle, one.outlineWidth, one.boxShadow]"
    style, width, shadow = page.evaluate(f"() => ({look})(getComputedStyle(document.activeElement))")
    return (style != "none" and float(width.removesuffix("px")) >= 2) or shadow != "none"
