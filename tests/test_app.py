"""The app on a real server on loopback, asked by gradio_client, as the page and other programs ask it."""

import copy
import json
import logging
import runpy
import socket
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from conftest import ROOT, chirp
from gradio.utils import safe_deepcopy
from gradio_client import Client, handle_file

from lengua import app
from lengua.app import server, transcribing
from lengua.app.context import AppContext
from lengua.app.layout import page_footer
from lengua.app.limits import Allowance
from lengua.app.microphone import SAVE_BUTTON_FORMATS, MicrophoneHandlers
from lengua.app.transcribing import StopSignal
from lengua.inference import Segment, Transcriber
from lengua.inference.engines import EngineOutput
from lengua.options import AppOptions
from lengua.runtime.errors import LenguaError, RequestError
from lengua.scoring import score

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # event loops that gradio leaves to the collector
SPANISH, ENGLISH = (app.Wording().languages[code] for code in ("es", "en"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def served(parts: AppContext):
    """Yield a client of the app around its parts."""
    demo = app.build_demo(parts)
    address = app.serve(demo, AppOptions(port=free_port()), wait=False)
    yield Client(address, verbose=False, analytics_enabled=False)
    demo.close(verbose=False)


@pytest.fixture(scope="module")
def tiny(tiny_model) -> Transcriber:
    return Transcriber(str(tiny_model), "es")


@pytest.fixture(scope="module")
def parts(tiny) -> AppContext:
    return app.make_app_context(tiny)


@pytest.fixture(scope="module")
def client(parts):
    yield from served(parts)


@pytest.fixture
def spoken(tmp_path) -> Path:
    """A file so like a voice that it reaches the model."""
    return wav(tmp_path / "loud.wav", chirp(2, 200))


@pytest.fixture
def says_a(tiny, monkeypatch) -> None:
    """Let the model say "a" to everything."""
    word = tiny.tokenizer.token_to_id("a")
    monkeypatch.setattr(tiny.engine, "generate", lambda features, *_: [EngineOutput([word])] * len(features))


def wav(path: Path, samples: np.ndarray, rate: int = 16_000, subtype: str = "PCM_16") -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def ask(client: Client, recording: Path | None, *more: str) -> tuple[str, str]:
    """Return (text, state) of the endpoint, after a look at what must never be in an answer."""
    answer = client.predict(recording and handle_file(str(recording)), *more, api_name="/transcribe")
    for leak in ("Traceback", "Error", "expected", str(recording), "/tmp"):
        assert leak not in " ".join(answer)
    return tuple(answer)


@pytest.mark.real
def test_real_clips_become_text(base_model, spoken_es):
    transcriber, clips = Transcriber(str(base_model), "es"), dict(list(spoken_es.items())[:2])
    for real_client in served(app.make_app_context(transcriber)):
        answers = [ask(real_client, clip) for clip in clips]
    assert [text for text, _ in answers] == [transcriber.transcribe(clip).text for clip in clips]
    assert all(state.startswith("Listo. ") and " s de audio en " in state for _, state in answers)
    assert score(list(clips.values()), [text for text, _ in answers]).cer < 0.5


def test_an_answer_is_in_the_language_of_the_request(client, spoken, tmp_path, says_a):
    english = Client(client.src, verbose=False, analytics_enabled=False, headers={"accept-language": "en-GB,es;q=0.5"})
    assert ask(english, None) == ("", ENGLISH["refusal.missing"])
    assert ask(english, spoken)[1].startswith("Done. 2.0 s of audio in ")
    text, state = ask(client, spoken)
    assert text == "a" and state.startswith("Listo. 2,0 s de audio en ")
    (tmp_path / "text.wav").write_text("esto no es un audio\n" * 50)
    assert ask(client, tmp_path / "text.wav") == ("", SPANISH["refusal.unreadable"])


def test_silence_is_told_without_a_run_of_the_model(client, tiny, tmp_path, monkeypatch):
    runs = []
    monkeypatch.setattr(tiny.engine, "generate", lambda *_: runs.append(1))
    assert ask(client, wav(tmp_path / "silence.wav", np.zeros(32_000))) == ("", SPANISH["refusal.silent"])
    assert runs == []
    monkeypatch.setattr(tiny.engine, "generate", lambda *_: [EngineOutput([])])
    assert ask(client, wav(tmp_path / "loud.wav", chirp(2, 200))) == ("", SPANISH["refusal.silent"])


def test_language_and_task_can_be_asked_for(client, tiny, spoken, monkeypatch):
    word, prompts = tiny.tokenizer.token_to_id("a"), []
    monkeypatch.setattr(tiny.engine, "multilingual", True)
    monkeypatch.setattr(tiny.engine, "languages", lambda features: [{"fr": 0.9, "es": 0.1} for _ in features])
    monkeypatch.setattr(
        tiny.engine, "generate", lambda _, prompt, *__: prompts.append(prompt) or [EngineOutput([word])]
    )
    assert ask(client, spoken, "auto")[0] == ask(client, spoken, "es", "translate")[0] == ask(client, spoken)[0] == "a"
    named = [[tiny.tokenizer.id_to_token(token).strip("<|>") for token in prompt[1:3]] for prompt in prompts]
    assert named == [["fr", "transcribe"], ["es", "translate"], ["es", "transcribe"]]


def test_a_failure_of_the_model_is_logged_and_not_shown(client, tiny, spoken, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(tiny.engine, "generate", fail)
    with caplog.at_level(logging.ERROR, "lengua.app"):
        assert ask(client, spoken) == ("", SPANISH["refusal.failed"])
    assert "secret detail" in caplog.text


def test_limits_hold_in_the_functions_too(parts, spoken, says_a):
    limited = replace(parts, admission=app.Admission(app.Limits(seconds=90, line=1), Allowance(turns=1)))
    page = MicrophoneHandlers(limited)
    with limited.admission.line.enter():
        assert page.transcribe(str(spoken), "es", "transcribe", None) == ("", SPANISH["refusal.busy"])
    assert page.transcribe(str(spoken), "es", "transcribe", None)[0] == "a", "who was sent away has lost no turn"
    assert page.transcribe(str(spoken), "es", "transcribe", None) == ("", SPANISH["refusal.enough_today"])
    long = wav(spoken.parent / "long.wav", np.zeros(95 * 4000), 4000)
    (told,) = page.write(str(long), "es", False, StopSignal(), None)
    assert told == ("", SPANISH["refusal.too_long"].format(minutes=2), ())


@pytest.mark.parametrize("data", [["a string"], [{"path": "/etc/hostname"}], [7], []])
def test_a_malformed_request_is_refused_without_a_trace(client, data):
    called = httpx.post(f"{client.src}gradio_api/call/transcribe", json={"data": data})
    assert called.status_code == 200
    event = httpx.get(f"{client.src}gradio_api/call/transcribe/{called.json()['event_id']}").text
    assert event.startswith("event: error")
    assert "Traceback" not in event and "lengua" not in event


def test_there_are_two_endpoints_with_a_description(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert sorted(endpoints) == ["/reply", "/transcribe"]
    names = [one["parameter_name"] for one in endpoints["/reply"]["parameters"]]
    assert names == ["message", "history", "situation", "level", "variety", "key"] and "sk-" not in str(endpoints)
    told = endpoints["/transcribe"]
    assert [one["parameter_name"] for one in told["parameters"]] == ["recording", "language", "task"]
    assert [one["parameter_has_default"] for one in told["parameters"]] == [False, True, True]
    assert len(told["returns"]) == 2 and "Accept-Language" in told["description"]


def test_the_example_of_the_docstring_runs(client, tiny, spoken, says_a, monkeypatch):
    monkeypatch.setattr(tiny.engine, "multilingual", True)
    monkeypatch.setattr(tiny.engine, "languages", lambda features: [{"es": 1.0} for _ in features])
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    lines = app.__doc__.partition("Client, handle_file\n")[2].splitlines()
    code = "\n".join(line.strip() for line in lines)
    code = code.replace("http://127.0.0.1:7860", client.src).replace("clip.mp3", str(spoken))
    scope = {"Client": Client, "handle_file": handle_file}
    exec(code, scope)
    assert scope["text"] == "a" and scope["state"].startswith("Listo. ") and scope["answer"]


def test_the_page_writes_and_saves_what_it_heard(parts, spoken, says_a):
    page = MicrophoneHandlers(parts)
    (told,) = page.write(str(spoken), "es", False, StopSignal(), None)
    text, state, segments = told
    assert text == "a" and state.startswith("Listo. ") and segments[0].text == "a"
    assert list(page.write(None, "es", False, StopSignal(), None)) == [("", SPANISH["state.ready"], ())]
    for kind in SAVE_BUTTON_FORMATS.values():
        file = page.file(kind, str(spoken), segments)
        assert file["name"] == f"loud.{'txt' if kind == 'text' else kind}" and "a" in file["text"]
    assert json.loads(page.file("json", str(spoken), segments)["text"])["language"] == "es"
    (shown,) = page.subtitles(segments)["subtitles"]
    assert shown["text"] == "a" and 0 <= shown["timestamp"][0] < shown["timestamp"][1] <= 2


def test_a_new_recording_drops_the_work_at_the_old_one(parts, spoken, says_a):
    page, stop = MicrophoneHandlers(parts), StopSignal()
    with parts.admission.line.enter():
        writing = page.write(str(spoken), "es", False, stop, None)
        assert next(writing)[1] == SPANISH["state.waiting"].format(ahead=1)
        page.drop(stop)
        text, state, segments = list(writing)[-1]
    assert segments == () and text["__type__"] == state["__type__"] == "update" and "value" not in state


def test_what_was_heard_stays_when_the_model_fails_later(parts, spoken, monkeypatch):
    heard = [transcribing.TranscriptionProgress("understanding", (Segment(0, 1, "hola"),), 0, 1.0, 2.0)]

    def failing(*_, **__):
        yield from heard
        raise RuntimeError("later")

    monkeypatch.setattr("lengua.app.microphone.transcribe_recording", failing)
    first, last = MicrophoneHandlers(parts).write(str(spoken), "es", False, StopSignal(), None)
    assert first[0] == "hola" and "value" not in last[0] and last[2] == heard[0].segments
    assert last[1] == SPANISH["refusal.failed"]


def test_nothing_static_is_in_one_language_only(parts):
    config = json.dumps(app.build_demo(parts).config, default=str, ensure_ascii=False)
    assert '"key": "page.tagline"' in config.replace("\\", "")
    for key in ("page.tagline", "microphone.upload", "microphone.placeholder"):
        assert SPANISH[key] not in config and ENGLISH[key] not in config


def test_opening_the_page_does_not_copy_the_model(parts, tiny, monkeypatch):
    assert copy.deepcopy(parts) is parts
    copied = []
    monkeypatch.setattr(type(tiny), "__deepcopy__", lambda self, memo: copied.append(1), raising=False)
    assert safe_deepcopy(app.build_demo(parts).config)["components"] and not copied


def test_the_foot_names_the_model_its_voices_and_no_place_of_this_machine(parts, tiny, tiny_model, monkeypatch):
    shown = " ".join(page_footer(parts))
    assert "<b>model</b>" in shown and '"page.from_folder"' in shown and "ctranslate2" in shown
    assert str(tiny_model.parent) not in shown
    monkeypatch.setattr(tiny, "note", replace(tiny.note, language="es", attribution="Una voz <CC-BY>"))
    shown = " ".join(page_footer(parts))
    assert "← openai/whisper-base" in shown and "Una voz &lt;CC-BY&gt;" in shown


def test_a_port_in_use_is_a_wrong_request(parts):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(RequestError, match="--port"):
            app.serve(app.build_demo(parts), AppOptions(port=taken.getsockname()[1]), wait=False)


@pytest.fixture
def base_is_tiny(tiny_model, monkeypatch) -> str:
    """Let the base model be the tiny one."""
    monkeypatch.setattr(server, "BASE_MODEL", str(tiny_model))
    return str(tiny_model)


@pytest.mark.parametrize("missing", ["nobody/no-such-model", "/no/such/folder"])
def test_a_page_without_its_model_serves_base_and_says_so(missing, base_is_tiny, monkeypatch, capsys):
    monkeypatch.setenv("LENGUA_MODEL", missing)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    transcriber, notice = server.open_model(AppOptions())
    assert (transcriber.model, notice) == (base_is_tiny, "page.not_found")
    assert missing in capsys.readouterr().err
    parts = app.make_app_context(transcriber, notice=notice)
    assert '"key": "page.not_found"' in json.dumps(app.build_demo(parts).config, default=str).replace("\\", "")


def test_a_model_that_was_asked_for_is_not_replaced(base_is_tiny, monkeypatch):
    monkeypatch.setenv("LENGUA_MODEL", base_is_tiny)
    with pytest.raises(LenguaError, match="no-such-folder"):
        server.open_model(AppOptions("runs/no-such-folder"))
    transcriber, notice = server.open_model(AppOptions())
    assert (transcriber.model, notice) == (base_is_tiny, None)


def test_the_base_model_is_opened_once_and_only_where_there_is_another(tiny, tiny_model):
    assert app.make_app_context(tiny).base is None
    base = app.make_app_context(tiny, AppOptions(base=str(tiny_model))).base
    assert base() is base() is not tiny
    opened = []
    failing = server.open_once("x/y", "es", lambda *asked: opened.append(asked) or len(opened) > 1 or _missing())
    with pytest.raises(LenguaError):
        failing()
    assert failing() is True and opened == [("x/y", "es")] * 2


def _missing():
    raise LenguaError("a model", "none", "wait")


def test_warming_up_runs_the_model_once(tiny, monkeypatch):
    runs, generate = [], tiny.engine.generate
    monkeypatch.setattr(tiny.engine, "generate", lambda features, *more: runs.append(1) or generate(features, *more))
    app.warm_up(tiny)
    assert 1 <= len(runs) <= 2


def test_the_program_at_the_root_is_thin_and_listens_where_the_environment_says(monkeypatch):
    assert len((ROOT / "app.py").read_text().splitlines()) <= 15
    runpy.run_path(str(ROOT / "app.py"), run_name="imported")
    asked = []
    monkeypatch.setattr(app, "launch", asked.append)
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    monkeypatch.setenv("PORT", "1234")
    monkeypatch.delenv("GRADIO_SERVER_PORT", raising=False)
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(ROOT / "app.py"), run_name="__main__")
    assert left.value.code == 0
    assert asked == [AppOptions(host="0.0.0.0", port=1234)]
