"""Real speech into the microphone of a real browser, decoded by whisper-base; the tutor answers, with no key."""

import pytest
from browsing import PHONE, SPANISH, Conversation, Microphone, serving, some_chromium, visiting, write_microphone

from lengua import audio
from lengua.data.sources import Utterance, open_source
from lengua.runtime.errors import LenguaError
from lengua.scoring import score

pytestmark = [pytest.mark.slow, pytest.mark.real]


def a_sentence() -> tuple[Utterance, float]:
    """Return a sentence of the sample, and its two to four seconds."""
    try:
        items = list(open_source("sample:es").read("test"))
    except LenguaError as error:
        pytest.skip(f"needs the sample of real speech: {error}")
    seconds = ((item, audio.duration_s(audio.load(item.audio))) for item in items if isinstance(item, Utterance))
    return next(pair for pair in seconds if 2 < pair[1] < 4)


def test_what_is_said_is_written_and_answered_by_the_tutor(base_model, tmp_path):
    utterance, seconds = a_sentence()
    voice = write_microphone(tmp_path / "voice.wav", audio.load(utterance.audio))
    with serving(tmp_path / "app", base_model) as app:
        for browser in some_chromium(voice):
            with visiting(browser, app.url, PHONE) as visit:
                microphone, conversation = Microphone(visit.page), Conversation(visit.page)
                microphone.record(seconds + 1.5)
                text = microphone.transcript()
                conversation.open()
                assert SPANISH["tutor.notice"] in visit.page.locator("#talk-who").inner_text()
                conversation.record(seconds + 1.5)
                (reply,), (said,) = conversation.answered(), conversation.turns.all_inner_texts()
    for hypothesis in (text, said):
        assert score([utterance.text], [hypothesis]).cer < 0.35, (utterance.text, hypothesis)
    assert reply.strip()
