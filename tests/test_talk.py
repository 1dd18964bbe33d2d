"""The conversation mode on a real server, with a real server of language models behind it: lengua.app.chat.tab."""

import json
import logging
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from conftest import chirp
from gradio_client import Client
from gradio_client.exceptions import AppError
from llm_server import KEY, REPLY, Llm, an_llm
from standin_page import that_hears
from talk_page import Page, Tab, talking

from lengua.app.chat.backend import responder_for
from lengua.app.chat.history import MAX_TURN_LETTERS
from lengua.app.chat.replies import strip_markdown
from lengua.app.context import AppContext
from lengua.app.i18n import Wording
from lengua.app.limits import Admission, Allowance
from lengua.app.server import make_app_context
from lengua.inference import Transcriber

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # event loops that gradio leaves to the collector
__all__ = ["an_llm"]

ES, EN = (Wording().languages[code] for code in ("es", "en"))
HEARD = "quiero un cafe"
OWN_KEY = "sk-visitor-0123456789abcdef"


class World:
    """What tests turn about while a page is open: the model behind it, its bounds."""

    def __init__(self):
        self.environ: dict[str, str] = {}
        self.timeout_s = 30.0
        self.broken = False

    def responder(self, key: str | None):
        if self.broken:
            raise RuntimeError(OWN_KEY)
        found = responder_for(key, self.environ)
        return found if found.is_tutor else replace(found, timeout_s=self.timeout_s)


WORLD = World()


@pytest.fixture(scope="module")
def tiny(tiny_model) -> Transcriber:
    return that_hears(tiny_model, HEARD)


@pytest.fixture(scope="module")
def parts(tiny) -> AppContext:
    return replace(make_app_context(tiny), responder=WORLD.responder, admission=Admission())


@pytest.fixture(scope="module")
def page(parts):
    with talking(parts) as one:
        yield one


@pytest.fixture
def model(llm: Llm, parts) -> Llm:
    """The server of language models that the page is connected to."""
    WORLD.environ, WORLD.timeout_s, WORLD.broken = llm.environment(), 30.0, False
    parts.admission.allowance = Allowance()
    yield llm
    WORLD.environ = {}


@pytest.fixture
def tab(page: Page, model) -> Tab:
    return page.tab()


@pytest.fixture(scope="module")
def spoken(tmp_path_factory) -> Path:
    return wav(tmp_path_factory.mktemp("spoken") / "loud.wav", chirp(1, 200))


def wav(path: Path, samples: np.ndarray) -> Path:
    soundfile.write(path, samples, 16_000)
    return path


def states(tab: Tab) -> list[str]:
    """Return the states that the line went through, without repetitions."""
    told = [line["state"] for line in tab.lines]
    return [state for number, state in enumerate(told) if number == 0 or told[number - 1] != state]


# A reply


def test_a_reply_comes_word_by_word_and_the_whole_talk_is_sent(tab, model):
    model.behave("slow-60ms")
    came = []
    tab.say("Hola, ¿qué tal?", lambda one: came.append(one.talk[-1]))
    assert tab.talk == [("user", "Hola, ¿qué tal?"), ("assistant", REPLY)]
    assert states(tab) == ["thinking", "replying", "ready"]
    assert tab.line["text"] == ES["state.ready"]
    assert len({text for role, text in came if role == "assistant"}) >= 4
    assert tab.shown(tab.panel.message) == ""
    tab.say("Del tiempo")
    sent = [(one["role"], one["content"]) for one in model.asked[-1].messages]
    assert sent[0][0] == "system"
    assert sent[1:] == [("user", "Hola, ¿qué tal?"), ("assistant", REPLY), ("user", "Del tiempo")]


def test_a_reply_is_spoken_sentence_by_sentence_in_the_variety_or_not_at_all(tab, model):
    tab.put(tab.panel.variety, "AR")
    tab.say("Hola")
    spoken = [line for line in tab.lines if line["sentences"]]
    assert spoken[-1]["sentences"] == ["Hola.", "Te oigo muy bien.", "¿De qué quieres hablar hoy?"]
    assert spoken[-1]["voices"][0] == "es-AR" and "voseo" in model.asked[-1].messages[0]["content"]
    assert len({line["reply"] for line in spoken}) == 1
    tab.put(tab.panel.aloud, False)
    tab.lines.clear()
    tab.say("Adiós")
    assert not any(line["sentences"] or line["reply"] for line in tab.lines)


# What goes wrong


@pytest.mark.parametrize(
    "behaviour, kind",
    [
        ("status-401", "wrong_key"),
        ("status-429+retry-after-60", "rate_limited_for"),
        ("stall", "timeout"),
        ("empty", "empty"),
    ],
)
def test_a_reply_that_fails_keeps_the_turn_and_can_be_asked_for_again(tab, model, behaviour, kind):
    WORLD.timeout_s = 0.7 if behaviour == "stall" else 30.0
    model.behave(behaviour)
    tab.say("No te pierdas")
    assert tab.talk == [("user", "No te pierdas")]
    expected = ES.get(f"reply.{kind}") or ES["talk.rate_limited_for"].format(seconds=60)
    assert (tab.line["state"], tab.line["text"]) == ("failed", expected)
    model.behave("")
    tab.do("again")
    assert tab.talk == [("user", "No te pierdas"), ("assistant", REPLY)]
    assert tab.line["state"] == "ready"
    assert not any(word in "".join(tab.seen) for word in (KEY, "Traceback", "Incorrect API key"))


@pytest.mark.parametrize("behaviour", ["cut-after-3", "filter-after-3"])
def test_what_came_before_the_stream_broke_off_stays(tab, model, behaviour):
    model.behave(behaviour)
    tab.say("Hola")
    kind = "refused" if behaviour.startswith("filter") else "cut"
    assert tab.talk == [("user", "Hola"), ("assistant", "Hola. Te oigo")]
    assert (tab.line["state"], tab.line["text"]) == ("failed", ES[f"reply.{kind}"])
    assert tab.line["sentences"] == ["Hola.", "Te oigo"]
    model.behave("")
    tab.do("again")
    assert tab.talk == [("user", "Hola"), ("assistant", REPLY)]


def test_a_failure_of_ours_is_logged_without_what_was_said(tab, model, caplog):
    WORLD.broken = True
    with caplog.at_level(logging.ERROR):
        tab.say("Hola")
    assert tab.talk == [("user", "Hola")]
    assert (tab.line["state"], tab.line["text"]) == ("failed", ES["talk.failed"])
    assert "RuntimeError" in caplog.text and OWN_KEY not in caplog.text


def test_a_turn_that_is_too_long_or_empty_is_not_sent_and_not_lost(tab, model):
    tab.say("a" * 10_000)
    assert tab.line["text"] == ES["talk.too_long"].format(letters=10_000, most=MAX_TURN_LETTERS)
    assert tab.shown(tab.panel.message) == "a" * 10_000
    tab.say("   ")
    assert tab.line["text"] == ES["talk.nothing_said"]
    tab.do("again")
    assert tab.line["text"] == ES["talk.nothing_yet"]
    assert tab.talk == [] and model.asked == []
    tab.do("suggest", event={"index": 0, "value": {"text": "Empieza tú."}})
    assert tab.talk[0] == ("user", "Empieza tú.")
    english = tab.page.tab("en-GB,en;q=0.9,es;q=0.5")
    english.say(" ")
    assert english.line["text"] == EN["talk.nothing_said"]


# Stopping, leaving, two tabs


def test_a_stopped_reply_keeps_what_came_and_holds_up_nobody(page, tab, model):
    model.once("stall-after-3")
    tab.put(tab.panel.turn, 1)

    def stop(one: Tab) -> None:
        if one.talk[-1] == ("assistant", "Hola. Te oigo ") and one.line["state"] == "replying":  # it never ends
            one.at_once("stop")

    tab.say("Hola", stop)
    assert (tab.line["state"], tab.line["text"], tab.line["reply"]) == ("ready", ES["talk.stopped"], "")
    start, other = time.perf_counter(), page.tab()
    other.say("¿Y yo?")
    assert other.talk[-1] == ("assistant", REPLY)
    assert time.perf_counter() - start < 5
    tab.put(tab.panel.turn, 2)
    tab.say("Sigue")
    assert tab.line["state"] == "ready"
    sent = [one["content"] for one in model.asked[-1].messages[1:]]
    assert sent == ["Hola", "Hola. Te oigo", "Sigue"]


def test_a_turn_that_is_stopped_before_it_began_asks_for_no_whole_reply(tab, model, spoken):
    model.behave("slow-50ms+long-400")
    tab.put(tab.panel.turn, 1)
    tab.at_once("stop")
    tab.say("Hola")
    assert tab.talk[0] == ("user", "Hola") and tab.line["text"] == ES["talk.stopped"]
    assert len(tab.talk) == 1 or len(tab.talk[1][1]) < 1000
    tab.record(spoken)
    assert tab.shown(tab.panel.message) == HEARD and tab.line["text"] == ES["talk.read_it"]


def test_who_leaves_in_the_middle_of_a_reply_ends_the_request(page, model):
    tab = page.tab()
    model.behave("slow-50ms+long-400")
    tab.say("Hola", lambda one: len(one.talk) == 2)
    end = time.monotonic() + 15
    while not model.asked[-1].hung_up and time.monotonic() < end:
        time.sleep(0.1)
    assert model.asked[-1].hung_up
    model.behave("")
    again = page.tab()
    again.say("Aquí estoy")
    assert again.talk == [("user", "Aquí estoy"), ("assistant", REPLY)]


def test_two_tabs_of_one_visitor_are_two_conversations(page, model):
    one, two = page.tab(), page.tab()
    one.say("Uno")
    two.say("Dos")
    assert [text for _, text in one.talk] == ["Uno", REPLY]
    assert [one["content"] for one in model.asked[-1].messages[1:]] == ["Dos"]


# By voice


def test_what_was_heard_is_sent_at_once(tab, model, spoken):
    tab.record(spoken)
    assert tab.talk == [("user", HEARD), ("assistant", REPLY)]
    assert states(tab)[-3:] == ["thinking", "replying", "ready"]
    assert tab.shown(tab.panel.recorder) is None


def test_what_was_heard_can_be_corrected_before_it_is_sent(tab, model, spoken, tmp_path):
    tab.put(tab.panel.at_once, False)
    tab.record(spoken)
    assert tab.shown(tab.panel.message) == HEARD
    assert tab.line["text"] == ES["talk.read_it"]
    assert tab.talk == [] and model.asked == []
    tab.say("Quiero un café")
    assert tab.talk[0] == ("user", "Quiero un café")
    tab.do("zip")
    with zipfile.ZipFile(tab.shown(tab.panel.download)["path"]) as archive:
        assert sorted(archive.namelist()) == ["audio/01.wav", "conversation.json", "conversation.md"]
        assert archive.read("audio/01.wav") == spoken.read_bytes()


def test_silence_asks_nobody_for_a_reply(tab, model, tmp_path):
    tab.put(tab.panel.message, "medio escrito")
    tab.record(wav(tmp_path / "silence.wav", np.zeros(16_000)))
    assert tab.line["text"] == ES["refusal.silent"]
    assert (tab.talk, model.asked, tab.shown(tab.panel.recorder)) == ([], [], None)
    assert tab.shown(tab.panel.message) == "medio escrito"
    (tmp_path / "broken.wav").write_text("esto no es audio\n" * 50)
    tab.record(tmp_path / "broken.wav")
    assert (tab.line["state"], tab.line["text"]) == ("failed", ES["refusal.unreadable"])


# Correcting, undoing, beginning anew, saving


def test_the_last_turn_can_be_corrected_undone_and_all_of_it_cleared(tab, model):
    tab.say("Uno")
    tab.say("Dso")
    tab.do("edit")
    assert tab.shown(tab.panel.message) == "Dso" and len(tab.talk) == 2
    tab.say("Dos")
    assert [text for role, text in tab.talk if role == "user"] == ["Uno", "Dos"]
    tab.do("undo")
    assert [text for role, text in tab.talk if role == "user"] == ["Uno"]
    tab.do("clear")
    assert tab.talk == []
    tab.say("De nuevo")
    assert [one["content"] for one in model.asked[-1].messages[1:]] == ["De nuevo"]
    for _ in range(3):
        tab.do("undo")
    assert tab.talk == []


def test_a_conversation_is_saved_as_text(tab, model):
    tab.do("markdown")
    assert tab.line["text"] == ES["talk.nothing_yet"]
    tab.say("Hola <b>")
    (made,) = [block for block in tab.page.demo.fns.values() if getattr(block.fn, "__name__", "") == "markdown"]
    tab.do("markdown")
    file = tab.shown(made.outputs[0])
    assert file["name"] == "lengua.md" and "\\<b\\>" in file["text"] and REPLY[:10] in file["text"]
    tab.do("json")
    file = tab.shown(made.outputs[0])
    told = json.loads(file["text"])
    assert [turn["text"] for turn in told["turns"]] == ["Hola <b>", REPLY]
    assert told["responder"] == "test (127.0.0.1)"


# Who replies, and how much


def test_without_a_key_the_tutor_replies_and_says_what_it_is(page, model, spoken):
    WORLD.environ = {}
    tab = page.tab()
    tab.do("name_responder")
    assert ES["tutor.notice"] in tab.shown(tab.panel.who)
    tab.record(spoken)
    assert tab.talk[0] == ("user", HEARD)
    assert "tutor" in tab.talk[1][1].lower()
    assert tab.line["state"] == "ready" and model.asked == []
    tab.say("dictado")
    assert strip_markdown(tab.talk[-1][1]) == tab.talk[-1][1]


def test_a_visitors_key_serves_that_visit_and_is_nowhere(page, model, caplog, capfd):
    WORLD.environ = llm_without_key(model)
    tab = page.tab()
    tab.put(tab.panel.key, OWN_KEY)
    with caplog.at_level(logging.DEBUG):
        tab.do("name_responder")
        for behaviour in ("", "status-401", "cut-after-3"):
            model.behave(behaviour)
            tab.say("Hola")
            assert model.asked[-1].key == OWN_KEY
        for name in ("markdown", "json", "zip"):
            tab.do(name)
    assert "test (127.0.0.1)" in tab.shown(tab.panel.who)
    state = page.demo.app.state_holder[tab.session]
    noted = [repr(vars(state)), repr(list(state.components)), *map(repr, state.state_data.values())]
    assert tab.web.get("deep_link", params={"session_hash": tab.session}).status_code == 404, "it would write to disk"
    told = [httpx.get(f"{page.url}{place}").text for place in ("config", "gradio_api/info", "")]
    files = [Path(tab.shown(tab.panel.download)["path"]).read_bytes().decode("latin-1")]
    everything = [*tab.seen, *noted, *told, *files, caplog.text, *capfd.readouterr()]
    assert all(OWN_KEY not in text for text in everything)
    assert any("Hola" in text for text in noted), "what was said is there, but no key"
    other = page.tab()
    other.say("Hola")
    assert model.asked[-1].key != OWN_KEY


def llm_without_key(llm: Llm) -> dict[str, str]:
    return {name: value for name, value in llm.environment().items() if name != "OPENAI_API_KEY"}


def test_a_day_has_so_many_replies_for_each_and_so_many_tokens_for_all(page, model, parts):
    parts.admission.allowance = Allowance(replies=2)
    tab = page.tab()
    for _ in range(3):
        tab.say("Hola")
    assert len(model.asked) == 2
    assert (tab.line["state"], tab.line["text"]) == ("failed", ES["talk.enough_today"])
    assert tab.talk[-1] == ("user", "Hola")
    other = page.tab(agent="another browser")
    other.say("Hola")
    assert other.line["state"] == "ready"
    parts.admission.allowance = Allowance(tokens=1000)
    tab.say("Hola")
    assert tab.line["text"] == ES["talk.used_up"]
    tab.put(tab.panel.key, OWN_KEY)
    tab.do("again")
    assert tab.talk[-1] == ("assistant", REPLY)


# The endpoint


@pytest.fixture
def client(page, model) -> Client:
    return Client(page.url, verbose=False, analytics_enabled=False)


def test_a_program_gets_the_reply_as_it_comes(client, model):
    model.behave("slow-60ms")
    said = [{"role": "user", "content": "Buenos días"}, {"role": "assistant", "content": "Hola"}]
    job = client.submit("¿Qué tal?", said, "café", "beginner", "AR", api_name="/reply")
    texts = list(job)
    assert texts[-1] == REPLY and len(set(texts)) > 4
    assert all(REPLY.startswith(text) for text in texts)
    sent = model.asked[-1].messages
    assert [one["content"] for one in sent[1:]] == ["Buenos días", "Hola", "¿Qué tal?"]
    assert "café" in sent[0]["content"] and "voseo" in sent[0]["content"]


def test_the_endpoint_says_in_a_sentence_what_went_wrong(client, model):
    assert client.predict("Hola", api_name="/reply") == REPLY
    with pytest.raises(AppError, match=ES["talk.nothing_said"]):
        client.predict(" ", api_name="/reply")
    model.behave("no-quota")
    with pytest.raises(AppError, match=ES["reply.no_quota"]):
        client.predict("Hola", [], "free", "advanced", "MX", OWN_KEY, api_name="/reply")
    assert model.asked[-1].key == OWN_KEY


@pytest.mark.parametrize("history", ["texto", [1, None, {"role": "system", "content": "x"}]])
def test_a_strange_history_is_no_history(client, model, history):
    assert client.predict("Hola", history, api_name="/reply") == REPLY
    assert [one["role"] for one in model.asked[-1].messages] == ["system", "user"]
    assert model.asked[-1].messages[0]["content"] != "x"
