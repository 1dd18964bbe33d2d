"""What a visitor does in the page, and where it stands: the one place that knows its selectors.

microphone = Microphone(visit.page)
microphone.record(seconds=3)
microphone.heard()
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

LONGEST_MS = 60_000
"""That a text or a reply may take where others use the machine, too."""
STILL = "() => document.querySelector('#state .still') && document.querySelector('#text textarea')?.value"
WATCH = """([selector, before]) => { window.seen = new Promise((done) => {
    const words = (one) => (one.value ?? one.innerText).trim();
    const look = () => {
        const all = [...document.querySelectorAll(selector)];
        const now = all.slice(before).map(words).find((text) => text);
        if (now) done(performance.now()); else requestAnimationFrame(look);
    };
    look();
}); }"""
"""Keeps a promise of the moment when an element behind the first `before` ones of a selector has words."""
GONE = """() => {
    window.gone = false;
    const empty = () => document.querySelector("#text textarea")?.value === "";
    const look = () => (window.gone ||= empty()) || requestAnimationFrame(look);
    look();
}"""
"""Notes that there was no text in some frame."""
UPLOADED = """() => Math.max(...performance.getEntriesByType('resource')
    .filter((one) => /\\/upload(\\?|$)/.test(one.name)).map((one) => one.responseEnd))"""


class Microphone:
    """The first mode."""

    def __init__(self, page: "Page"):
        self.page = page
        self.text, self.state = page.locator("#text textarea"), page.locator("#state [role=status]")

    def record(self, seconds: float) -> None:
        """Record what the microphone plays."""
        self.page.locator("#recorder .record-button").click()
        self.page.locator("#recorder .stop-button").wait_for()
        self.page.wait_for_timeout(1000 * seconds)
        self.page.locator("#recorder .stop-button").click()

    def upload(self, path: Path) -> None:
        """Choose a file, the way a visitor does, who can choose the same one twice."""
        with self.page.expect_file_chooser() as chooser:
            self.page.locator("#upload").click()
        chooser.value.set_files(path)

    def clear(self) -> None:
        """Throw the recording away."""
        self.page.locator("#recorder .top-panel button").last.click()
        self.page.wait_for_function("() => document.querySelector('#text textarea')?.value === ''")

    def heard(self) -> str:
        """Wait for the whole text and return it."""
        self.page.wait_for_function(STILL, timeout=LONGEST_MS)
        return self.text.input_value()

    def heard_again(self, do: Callable[[], None]) -> str:
        """Do what has a recording heard while there is a text; wait until that is gone; return the whole new one."""
        self.page.evaluate(GONE)
        do()
        self.page.wait_for_function("() => window.gone", timeout=LONGEST_MS)
        return self.heard()

    def told(self, sentence: str) -> None:
        """Wait until the state line says a sentence."""
        self.state.filter(has_text=sentence).wait_for(timeout=LONGEST_MS)

    def milliseconds(self, path: Path) -> float:
        """Choose a file; return the time from the end of its upload to the first of its text in the page."""
        self.page.evaluate("() => performance.clearResourceTimings()")
        self.page.evaluate(WATCH, ["#text textarea", 0])
        self.upload(path)
        shown = self.page.evaluate("() => window.seen")
        return shown - self.page.evaluate(UPLOADED)


class Conversation:
    """The second mode."""

    def __init__(self, page: "Page"):
        self.page = page
        self.message, self.line = page.locator("#talk-message textarea"), page.locator("#talk-line [role=status]")
        self.replies = page.locator("#talk-chat [data-testid=bot]")
        self.turns = page.locator("#talk-chat [data-testid=user]")

    def open(self) -> None:
        """Go to the mode."""
        self.page.locator("#modes [role=tab]").nth(1).click()
        self.message.wait_for()

    def record(self, seconds: float) -> None:
        """Say what the microphone plays."""
        self.page.locator("#talk-recorder .record-button").click()
        self.page.locator("#talk-recorder .stop-button").wait_for()
        self.page.wait_for_timeout(1000 * seconds)
        self.page.locator("#talk-recorder .stop-button").click()

    def say(self, text: str) -> None:
        """Write a turn and send it."""
        self.message.fill(text)
        self.page.locator("#talk-send").click()

    def state(self, *names: str) -> str:
        """Wait until the line is in one of these states, and return what it says."""
        wanted = ", ".join(f"#talk-line [data-state={name}]" for name in names)
        self.page.locator(wanted).wait_for(timeout=LONGEST_MS)
        return self.line.inner_text()

    def answered(self, count: int = 1) -> list[str]:
        """Wait until so many replies are whole, and return all of them."""
        self.replies.nth(count - 1).wait_for(timeout=LONGEST_MS)
        self.state("ready", "speaking")
        return self.replies.all_inner_texts()

    def milliseconds(self, text: str) -> float:
        """Send a turn; return the time from the click to the first words of the reply in the page."""
        before = self.replies.count()
        self.message.fill(text)
        self.page.evaluate(WATCH, ["#talk-chat [data-testid=bot]", before])
        start = self.page.evaluate("() => { document.querySelector('#talk-send').click(); return performance.now(); }")
        shown = self.page.evaluate("() => window.seen")
        self.answered(before + 1)
        return shown - start
