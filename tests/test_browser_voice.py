"""Real speech into the microphone of a real browser, heard by the real whisper-base; the tutor answers, with no key."""

import pytest
from browsing import PHONE, SPANISH, Conversation, Microphone, serving, some_chromium, visiting, write_microphone

from lengua import audio
from lengua.data.sources import Utterance, open_source
from lengua.runtime.errors import LenguaError
from lengua.scoring import score

pytestmark = [pytest.mark.slow, pytest.mark.real]


@pytest.fixture(scope="module")
def utterance() -> Utterance:
    """A sentence of the sample, of two to four seconds."""
    try:
        items = list(open_source("sample:es").read("test"))
    except LenguaError as error:
        pytest.skip(f"needs the sample of real speech: {error}")
    return next(item for item in items if isinstance(item, Utterance) and 2 < seconds_of(item) < 4)


def seconds_of(utterance: Utterance) -> float:
    return audio.duration_s(audio.load(utterance.audio))


@pytest.fixture(scope="module")
def app(base_model, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("app"), base_model) as server:
        yield server


@pytest.fixture(scope="module")
def browser(utterance, tmp_path_factory):
    path = tmp_path_factory.mktemp("microphone") / "voice.wav"
    yield from some_chromium(write_microphone(path, audio.load(utterance.audio)))


def test_what_is_said_is_written(browser, app, utterance):
    with visiting(browser, app.url, PHONE) as visit:
        microphone = Microphone(visit.page)
        microphone.record(seconds_of(utterance) + 1.5)
        text = microphone.heard()
    assert score([utterance.text], [text]).cer < 0.35, (utterance.text, text)


def test_what_is_said_is_answered_by_the_tutor(browser, app, utterance):
    with visiting(browser, app.url, PHONE) as visit:
        conversation = Conversation(visit.page)
        conversation.open()
        assert SPANISH["tutor.notice"] in visit.page.locator("#talk-who").inner_text()
        conversation.record(seconds_of(utterance) + 1.5)
        (reply,), (said,) = conversation.answered(), conversation.turns.all_inner_texts()
    assert score([utterance.text], [said]).cer < 0.35, (utterance.text, said)
    assert reply.strip()
