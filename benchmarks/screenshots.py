"""The README's two pictures of the app, as Chromium shows it: images/demo_microphone.png, images/demo_conversation.png.

    python benchmarks/screenshots.py

The speech comes from the model's own test clips or from the sample; the conversation is with the tutor, which needs
no key.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from app_page import (
    Conversation,
    Microphone,
    Screen,
    chosen,
    chromium,
    five_seconds,
    require_chromium,
    serving,
    visiting,
)
from harness import ROOT, run

from lengua import audio

FIGURE = Screen("figure", 820, 1300, False)


@dataclass(frozen=True)
class Options:
    """Write pictures of the app."""

    model: str = ""
    """A run, a model folder or a Hub id. Default: runs/demo if it is there, else the base model."""
    out: Path = ROOT / "images"
    """Folder of the pictures."""
    locale: str = "es-MX"
    """Language of the browser."""


def main(options: Options) -> None:
    require_chromium()
    name, model = chosen(options.model)
    with tempfile.TemporaryDirectory() as scratch:
        [clip] = five_seconds(Path(scratch) / "clips", name, 1)
        with serving(Path(scratch) / "app", model) as app, chromium(clip) as browser:
            for picture, scene in {"demo_microphone": transcribed, "demo_conversation": tutored}.items():
                with visiting(browser, app.url, FIGURE, options.locale, device_scale_factor=1.5) as visit:
                    scene(visit.page, clip)
                    shoot(visit.page, options.out / f"{picture}.png")
                    print(options.out / f"{picture}.png")


def transcribed(page, clip: Path) -> None:
    """Upload a clip."""
    microphone = Microphone(page)
    microphone.upload(clip)
    microphone.transcript()


def tutored(page, clip: Path) -> None:
    """Talk with the tutor: a spoken turn, then one in writing."""
    conversation = Conversation(page).open()
    conversation.record(audio.recording_info(clip).duration_s + 0.5)
    conversation.answered()
    conversation.say("Quiero hacer un dictado.")
    conversation.answered(2)


def shoot(page, path: Path) -> None:
    """Write what the page shows above its foot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page.evaluate("() => document.activeElement?.blur()")
    page.mouse.move(0, 0)
    page.add_style_tag(content=".mic-select { display: none !important; }")  # it names Chromium's own false devices
    page.wait_for_timeout(400)
    width, height = page.evaluate("document.documentElement.scrollWidth"), page.locator("#foot").bounding_box()["y"]
    page.screenshot(path=path, full_page=True, clip={"x": 0, "y": 0, "width": width, "height": height})


if __name__ == "__main__":
    run(main, Options)
