"""Pictures of the app, as Chromium shows it: the two of the README, and on request everything there is to look at.

    python benchmarks/screenshots.py                       # images/demo_microphone.png, images/demo_conversation.png
    python benchmarks/screenshots.py --all shots           # every scene, on phone and desktop, light and dark

What is said comes from the model's own test clips or from the sample; the README's conversation is with the tutor,
which needs no key. Replies of a server, and its failures, come from the test server.
"""

import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from app_browser import DESK, PHONE, Screen, Visit, chromium, program, visiting
from app_clips import chosen, five_seconds, test_server
from app_page import Conversation, Microphone
from app_server import ROOT, Server, serving
from recording import run

from lengua import audio
from lengua.runtime.progress import Console, Progress

FIGURE = Screen("figure", 820, 1300, False)
"""Of the README's pictures."""
NO_MICROPHONE = """navigator.mediaDevices.getUserMedia =
    () => Promise.reject(new DOMException("Permission denied", "NotAllowedError"))"""
REPLIES = [
    "¡Hola, Ana! Qué bonito que quieras hablar de tu barrio. ¿Cómo es tu calle?",
    "Suena tranquila. ¿Y a qué hora se llena de gente? Yo me imagino las mañanas, con el pan recién hecho.",
]
TURNS = ["Hola, me llamo Ana y quiero hablar de mi barrio.", "Mi calle es corta y tiene árboles muy viejos."]


@dataclass(frozen=True)
class Options:
    """Write pictures of the app."""

    model: str = ""
    """A run, a model folder or a Hub id. Default: runs/demo if it is there, else the base model."""
    out: Path = ROOT / "images"
    """Folder of the README's pictures."""
    all: Path | None = None
    """Folder for a picture of every scene; the README's are left alone."""
    locale: str = "es-MX"
    """Language of the browser."""
    only: str = ""
    """Scenes whose name holds this."""


@dataclass(frozen=True)
class Stage:
    """What scenes are played on."""

    clip: Path
    bad: dict[str, Path]
    """Recordings that are refused, by the name of their scene."""
    llm: object
    """The test server."""

    def talk(self, visit: Visit) -> Conversation:
        conversation = Conversation(visit.page)
        conversation.open()
        return conversation


def main(options: Options) -> None:
    """Write the pictures."""
    if program() is None:
        sys.exit("skipped: no Chromium here; on Debian: apt-get install chromium")
    name, model = chosen(options.model)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder, llm = Path(scratch), stack.enter_context(test_server())
        stage = Stage(five_seconds(folder / "clips", name, 1)[0], refused(folder), llm)
        apps = {"tutor": stack.enter_context(serving(folder / "tutor", model))}
        if options.all:
            apps["llm"] = stack.enter_context(serving(folder / "llm", model, **llm.environment("gpt-prueba")))
        browser = stack.enter_context(chromium(stage.clip))
        if options.all:
            everything(browser, apps, stage, options)
        else:
            figures(browser, apps["tutor"], stage, options)


def refused(folder: Path) -> dict[str, Path]:
    """Write recordings that are not let in."""
    paths = {name: folder / f"{name}.wav" for name in ("silent", "unreadable", "too-short")}
    soundfile.write(paths["silent"], np.zeros(3 * audio.SAMPLE_RATE), audio.SAMPLE_RATE)
    soundfile.write(paths["too-short"], np.full(800, 0.3), audio.SAMPLE_RATE)
    paths["unreadable"].write_text("esto no es un audio\n" * 50, encoding="utf-8")
    return paths


def figures(browser, app: Server, stage: Stage, options: Options) -> None:
    """Write the README's pictures."""
    for name, scene in {"demo_microphone": heard, "demo_conversation": tutored}.items():
        with visiting(browser, app.url, FIGURE, options.locale, device_scale_factor=1.5) as visit:
            scene(stage, visit)
            shoot(visit, options.out / f"{name}.png", "#foot")
            print(options.out / f"{name}.png")


def everything(browser, apps: dict[str, Server], stage: Stage, options: Options) -> None:
    """Write every scene on each screen, light and dark."""
    scenes = {name: scene for name, scene in SCENES.items() if options.only in name}
    looks = [(screen, dark) for screen in (PHONE, DESK) for dark in (False, True)]
    with Console() as watch:
        for done, (name, scene) in enumerate(scenes.items()):
            app = apps["tutor" if scene in (tutored, talk_before) else "llm"]
            for screen, dark in looks:
                watch(Progress("pictures", done, len(scenes), "scenes", f"{name}, {screen.name}"))
                script = NO_MICROPHONE if name.endswith("no-microphone") else ""
                with visiting(browser, app.url, screen, options.locale, dark, script) as visit:
                    scene(stage, visit)
                    shoot(visit, options.all / f"{name}-{screen.name}-{'dark' if dark else 'light'}.png")
                    stage.llm.behave("")
                    for error in visit.errors:
                        print(f"{name}, {screen.name}: {error}", file=sys.stderr)


def shoot(visit: Visit, path: Path, until: str = "") -> None:
    """Write what the page shows, all of its height or what stands before an element."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page = visit.page
    page.evaluate("() => document.activeElement?.blur()")
    page.mouse.move(0, 0)
    page.add_style_tag(content=".mic-select { display: none !important; }")  # it names Chromium's own false devices
    page.wait_for_timeout(400)
    whole = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    height = page.locator(until).bounding_box()["y"] if until else whole[1]
    page.screenshot(path=path, full_page=True, clip={"x": 0, "y": 0, "width": whole[0], "height": height})


# Scenes: what a visitor does before the picture is taken


def before(stage: Stage, visit: Visit) -> None:
    """Look at the page."""


def heard(stage: Stage, visit: Visit) -> None:
    """Upload a clip."""
    microphone = Microphone(visit.page)
    microphone.upload(stage.clip)
    microphone.heard()


def recording(stage: Stage, visit: Visit) -> None:
    """Be in the middle of a recording."""
    visit.page.locator("#recorder .record-button").click()
    visit.page.wait_for_timeout(2500)


def options(stage: Stage, visit: Visit) -> None:
    """Look at the options."""
    visit.page.locator("#options button").first.click()


def keeping(stage: Stage, visit: Visit) -> None:
    """Correct and keep."""
    heard(stage, visit)
    visit.page.locator("#keeping button").first.click()
    visit.page.wait_for_function("() => document.querySelector('#keeping-text textarea')?.value", timeout=30_000)
    visit.page.locator("#keeping-consent input").check()
    visit.page.locator("#keeping-keep").click()
    visit.page.locator("#keeping-download").wait_for()


def mirror(stage: Stage, visit: Visit) -> None:
    """Compare with the base model."""
    heard(stage, visit)
    visit.page.locator("#mirror button").first.click()
    visit.page.locator("#mirror-compare").click()
    visit.page.locator("#mirror-left section").wait_for(timeout=60_000)


def mirrored(stage: Stage, visit: Visit) -> None:
    """Pick one, where they differ."""
    mirror(stage, visit)
    if visit.page.locator("#mirror-choices button").first.is_visible():
        visit.page.locator("#mirror-choices button").first.click()
        visit.page.locator("#mirror-files").wait_for()


def refusal(name: str) -> Callable[[Stage, Visit], None]:
    """Return a scene in which a recording is refused."""

    def scene(stage: Stage, visit: Visit) -> None:
        Microphone(visit.page).upload(stage.bad[name])
        visit.page.wait_for_timeout(2000)

    return scene


def no_microphone(stage: Stage, visit: Visit) -> None:
    """Do not let the page hear."""
    visit.page.locator("#recorder .record-button").click()
    visit.page.wait_for_timeout(500)


def talk_before(stage: Stage, visit: Visit) -> None:
    """Look at the conversation."""
    stage.talk(visit)


def tutored(stage: Stage, visit: Visit) -> None:
    """Talk with the tutor: a spoken turn, then one in writing."""
    conversation = stage.talk(visit)
    conversation.record(audio.recording_duration_s(stage.clip) + 0.5)
    conversation.answered()
    conversation.say("Quiero hacer un dictado.")
    conversation.answered(2)


def answered(stage: Stage, visit: Visit) -> None:
    """Talk with a model: two turns."""
    conversation = stage.talk(visit)
    for number, (turn, reply) in enumerate(zip(TURNS, REPLIES, strict=True), 1):
        stage.llm.reply = reply
        conversation.say(turn)
        conversation.answered(number)


def thinking(stage: Stage, visit: Visit) -> None:
    """Wait for the first word."""
    stage.llm.behave("stall")
    stage.talk(visit).say(TURNS[0])
    visit.page.wait_for_timeout(800)


def settings(stage: Stage, visit: Visit) -> None:
    """Look at the settings, the key and the files."""
    answered(stage, visit)
    for accordion in ("settings", "own-key", "save"):
        visit.page.locator(f"#talk-{accordion} button").first.click()
        visit.page.wait_for_timeout(300)


def failed(behaviour: str) -> Callable[[Stage, Visit], None]:
    """Return a scene in which a reply fails."""

    def scene(stage: Stage, visit: Visit) -> None:
        answered(stage, visit)
        stage.llm.behave(behaviour)
        conversation = Conversation(visit.page)
        conversation.say("¿Y tú, dónde vives?")
        conversation.state("failed")

    return scene


def talk_no_microphone(stage: Stage, visit: Visit) -> None:
    """Do not let the conversation hear."""
    stage.talk(visit)
    visit.page.locator("#talk-recorder .record-button").click()
    visit.page.wait_for_timeout(500)


SCENES: dict[str, Callable[[Stage, Visit], None]] = {
    "microphone-1-before": before,
    "microphone-2-recording": recording,
    "microphone-3-heard": heard,
    "microphone-4-options": options,
    "microphone-5-keeping": keeping,
    "microphone-6-mirror": mirror,
    "microphone-7-mirrored": mirrored,
    "microphone-8-silent": refusal("silent"),
    "microphone-8-unreadable": refusal("unreadable"),
    "microphone-8-no-microphone": no_microphone,
    "talk-1-before": talk_before,
    "talk-2-tutor": tutored,
    "talk-3-thinking": thinking,
    "talk-4-answered": answered,
    "talk-5-settings": settings,
    "talk-6-wrong-key": failed("status-401"),
    "talk-6-server-down": failed("status-500"),
    "talk-6-cut": failed("cut-after-3"),
    "talk-6-no-microphone": talk_no_microphone,
}


if __name__ == "__main__":
    run(main, Options)
