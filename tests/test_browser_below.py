"""Mirror and keeping in a real browser: the text waits for the pick from its first frame; what is kept is a source."""

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from browsing import (  # noqa: F401 - some are fixtures
    DESK,
    PHONE,
    WORDS,
    Microphone,
    Server,
    serving,
    the_browser,
    the_visit,
    violations,
    visiting,
)
from conftest import chirp
from safetensors.numpy import load_file, save_file

from lengua.data.sources import SPLITS, open_source
from lengua.runtime.files import write_json

pytestmark = pytest.mark.slow
WATCH = """() => { const look = () => {
    const text = document.querySelector("#text"), words = text.querySelector("textarea")?.value;
    window.begun ||= words === "";
    if (window.begun && words && text.checkVisibility()) window.shown.push(words);
    requestAnimationFrame(look);
}; look(); }"""
"""Notes each frame in which the text of a recording that began after `begun` was set to false can be read."""


@pytest.fixture(scope="module", name="app")
def an_app_with_a_mirror(tiny_model, tmp_path_factory) -> Iterator[Server]:
    """The program with a tiny model that says it was made from another one."""
    folder = tmp_path_factory.mktemp("below")
    shutil.copytree(tiny_model, folder / "tuned")
    write_json(folder / "tuned/lengua.json", {"base": str(tiny_model), "language": "es"})
    weights = load_file(folder / "tuned/model.safetensors")
    weights["model.decoder.embed_positions.weight"] *= -1  # and it hears other words
    save_file(weights, folder / "tuned/model.safetensors", {"format": "pt"})
    with serving(folder / "app", folder / "tuned") as server:
        yield server
        assert "Traceback" not in server.printed()


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> list[Path]:
    """Recordings so like a voice that they reach the model."""
    paths = [tmp_path_factory.mktemp("sounds") / f"{number}.wav" for number in range(6)]
    for number, path in enumerate(paths):
        soundfile.write(path, chirp(2.0 + 0.1 * number, 200), 16_000)
    return paths


@pytest.fixture
def microphone(visit) -> Microphone:
    return Microphone(visit.page)


def open_accordion(page, name: str) -> None:
    page.locator(f"#{name} > button").click()
    page.locator(f"#{name} > button.open").wait_for()


def wait_for_a_pair(page) -> bool:
    """Wait until both models have heard; return whether there is something to pick."""
    page.locator("#mirror-left section").wait_for(timeout=60_000)
    page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    return page.locator("#mirror-choices").is_visible()


def test_the_text_waits_for_the_pick_from_the_first_frame_on(visit, microphone, sounds):
    page = visit.page
    microphone.upload(sounds[0])
    microphone.heard()
    open_accordion(page, "mirror")
    page.evaluate(WATCH)
    picked = 0
    for sound in sounds[1:]:
        page.evaluate("() => { window.begun = false; window.shown = []; }")
        microphone.upload(sound)
        page.wait_for_function("() => window.begun")
        if wait_for_a_pair(page):
            assert page.evaluate("() => window.shown") == []
            assert not page.locator("#text").is_visible() and not page.locator("#files").is_visible()
            page.locator("#mirror-choices button").nth(2).click()
            page.locator("#mirror-files").wait_for()
            picked += 1
        page.locator("#text").wait_for()
    assert picked
    with page.expect_download() as file:
        page.locator("#mirror-files button").first.click()
    told = json.loads(Path(file.value.path()).read_text())
    assert told["counts"]["both"] == picked and told["counts"]["not_blind"] == 0


def test_what_is_kept_in_the_browser_is_a_source(visit, microphone, sounds, tmp_path):
    page = visit.page
    microphone.upload(sounds[0])
    microphone.heard()
    open_accordion(page, "keeping")
    page.locator("#keeping-words .words").wait_for(timeout=60_000)
    assert page.locator("#keeping-words mark").count() > 0 and page.locator("#keeping-words .legend li").count() == 2
    assert page.locator("#keeping-text textarea").input_value() == microphone.text.input_value()
    assert page.locator("#keeping-keep").is_disabled()
    page.locator("#keeping-text textarea").fill("¿Sí?")
    page.locator("#keeping-consent input").check()
    page.locator("#keeping-keep:not([disabled])").click()
    page.locator("#keeping-download").wait_for(timeout=60_000)
    with page.expect_download() as file:
        page.locator("#keeping-download").click()
    with zipfile.ZipFile(file.value.path()) as archive:
        archive.extractall(tmp_path)
    source = open_source(f"folder:{tmp_path / 'grabaciones'}")
    assert [item.text for split in SPLITS for item in source.read(split)] == ["¿Sí?"]
    microphone.upload(sounds[1])
    microphone.page.wait_for_function("() => document.querySelector('#keeping-consent input')?.checked === false")
    page.locator("#keeping-forget").click()
    page.locator("#keeping-download").wait_for(state="hidden")


@pytest.mark.parametrize("locale", WORDS)
@pytest.mark.parametrize("screen, dark", [(PHONE, False), (DESK, True)], ids=["phone", "dark desktop"])
def test_both_are_translated_accessible_and_fit_the_screen(browser, app, sounds, screen, dark, locale):
    with visiting(browser, app.url, screen, locale, dark=dark) as visit:
        page, microphone = visit.page, Microphone(visit.page)
        microphone.upload(sounds[0])
        microphone.heard()
        for name in ("keeping", "mirror"):
            open_accordion(page, name)
        page.locator("#keeping-words .words").wait_for(timeout=60_000)
        page.locator("#mirror-compare").click()
        wait_for_a_pair(page)
        text = page.locator("body").inner_text()
        assert "__i18n__" not in text and "mirror." not in text and "keeping." not in text
        assert WORDS[locale]["keeping.keep"] in text and WORDS[locale]["mirror.compare"] in text
        assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
        assert page.locator("#keeping-consent label").last.bounding_box()["height"] >= 43
        assert violations(page) == []
        assert visit.errors == visit.outside == []
