"""What tests in a real browser share. Their fixtures are made once for each file that imports them:

    from browsing import the_app, the_browser, the_llm, the_visit  # noqa: F401 - fixtures

The fixture `app` is the program in a process of its own, with a tiny model; `llm` the server that replies; `browser`
Chromium, whose microphone plays a voice; `visit` the page of a visitor. Without Chromium they skip, and say so.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import llm_server
import pytest
from conftest import ROOT, chirp

from lengua.app.i18n import Wording

sys.path.insert(0, str(ROOT / "benchmarks"))
try:
    from app_page import (
        DESK,
        PHONE,
        Answer,
        Conversation,
        Microphone,
        Server,
        Visit,
        Visitor,
        chromium,
        program,
        serving,
        violations,
        visiting,
        wait_until_usable,
        write_microphone,
    )
finally:
    sys.path.remove(str(ROOT / "benchmarks"))

__all__ = ["DESK", "PHONE", "Answer", "Conversation", "Microphone", "Server", "Visit", "Visitor"]
__all__ += ["serving", "violations", "visiting", "wait_until_usable", "write_microphone"]
SPANISH, ENGLISH = (Wording().languages[code] for code in ("es", "en"))
WORDS = {"es-MX": SPANISH, "en-US": ENGLISH, "fr-FR": ENGLISH}
"""What the page says, by the language of the browser."""
SILENT_VOICE = """(() => {
    const spoken = (window.spoken = []);
    class Utterance { constructor(text) { this.text = text; } }
    const end = (one, how) => { one.over = true; one[how]?.({}); };
    const synthesis = {
        getVoices: () => [{ lang: "es-MX", name: "prueba", default: true, localService: true }],
        speak: (one) => { spoken.push(one); one.onstart?.({}); },
        cancel: () => spoken.filter((one) => !one.over).forEach((one) => end(one, "onerror")),
        addEventListener() {},
    };
    window.finishSpeaking = () => end(spoken.find((one) => !one.over), "onend");
    Object.defineProperty(window, "speechSynthesis", { value: synthesis });
    window.SpeechSynthesisUtterance = Utterance;
})()"""
"""Debian's Chromium has no voice. This one says nothing, and ends a sentence when it is told to."""
NO_MICROPHONE = """navigator.mediaDevices.getUserMedia =
    () => Promise.reject(new DOMException("Permission denied", "NotAllowedError"))"""
"""What the browser of a visitor does who does not let the page hear."""


@pytest.fixture(scope="module", name="llm")
def the_llm() -> Iterator[llm_server.Llm]:
    with llm_server.serving() as server:
        yield server


@pytest.fixture(scope="module", name="app")
def the_app(llm, tiny_model, tmp_path_factory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("app"), tiny_model, **llm.environment()) as server:
        yield server
        assert "Traceback" not in server.printed()


@pytest.fixture(scope="module", name="browser")
def the_browser(tmp_path_factory):
    yield from some_chromium(write_microphone(tmp_path_factory.mktemp("microphone") / "voice.wav", chirp(1.0, 200)))


@pytest.fixture(name="visit")
def the_visit(browser, app, request) -> Iterator[Visit]:
    """A visitor's page, in Spanish on a desktop unless a parameter says otherwise. Nothing may go wrong in it."""
    with visiting(browser, app.url, **getattr(request, "param", {})) as visit:
        yield visit
        assert visit.outside == [], "the page asked somebody else"
        assert visit.errors == [], visit.errors


def some_chromium(microphone: Path) -> Iterator:
    """Run Chromium, or skip."""
    pytest.importorskip("playwright", reason="needs Playwright: pip install lengua[dev]")
    if program() is None:
        pytest.skip("needs Chromium; on Debian: apt-get install chromium")
    with chromium(microphone) as browser:
        yield browser
