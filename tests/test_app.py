"""The app on a real server on loopback, asked by gradio_client, as the page and other programs ask it."""

import logging
import runpy
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from conftest import chirp
from gradio_client import Client, handle_file

from lengua import app
from lengua.engines import Written
from lengua.errors import RequestError
from lengua.options import AppOptions
from lengua.scoring import score
from lengua.transcription import Transcriber

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # event loops that gradio leaves to the collector


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def served(transcriber: Transcriber):
    """Yield a client of the app around a transcriber."""
    demo = app.build_demo(transcriber)
    address = app.serve(demo, AppOptions(port=free_port()), wait=False)
    yield Client(address, verbose=False, analytics_enabled=False)
    demo.close(verbose=False)


@pytest.fixture(scope="module")
def tiny_transcriber(tiny_model) -> Transcriber:
    return Transcriber(str(tiny_model), "es")


@pytest.fixture(scope="module")
def client(tiny_transcriber):
    yield from served(tiny_transcriber)


@pytest.fixture
def spoken(tmp_path) -> Path:
    """A file so like a voice that it reaches the model."""
    return wav(tmp_path / "loud.wav", chirp(2, 200))


def wav(path: Path, samples: np.ndarray, rate: int = 16_000, subtype: str = "PCM_16") -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def ask(client: Client, recording: Path | None) -> tuple[str, str]:
    """Return (text, state) of the endpoint, after a look at what must never be in an answer."""
    answer = client.predict(recording and handle_file(str(recording)), api_name="/transcribe")
    for leak in ("Traceback", "Error", "expected", str(recording), "/tmp"):
        assert leak not in " ".join(answer)
    return tuple(answer)


@pytest.mark.real
def test_real_clips_become_text(base_model, spoken_es):
    transcriber, clips = Transcriber(str(base_model), "es"), dict(list(spoken_es.items())[:2])
    for real_client in served(transcriber):
        answers = [ask(real_client, clip) for clip in clips]
    assert [text for text, _ in answers] == [transcriber.transcribe(clip).text for clip in clips]
    assert all(state.startswith("Listo. ") and " s de audio en " in state for _, state in answers)
    assert score(list(clips.values()), [text for text, _ in answers]).cer < 0.5


def test_silence_is_told_without_a_run_of_the_model(client, tiny_transcriber, tmp_path, monkeypatch):
    runs = []
    monkeypatch.setattr(tiny_transcriber.engine, "generate", lambda *_: runs.append(1))
    assert ask(client, wav(tmp_path / "silence.wav", np.zeros(32_000))) == ("", app.SILENT)
    assert runs == []


def test_sound_reaches_the_model(client, tiny_transcriber, spoken, monkeypatch):
    word = tiny_transcriber.tokenizer.token_to_id("a")
    monkeypatch.setattr(tiny_transcriber.engine, "generate", lambda *_: [Written([word])])
    text, state = ask(client, spoken)
    assert text == "a"
    assert state.startswith("Listo. 2,0 s de audio en ")


def test_a_model_that_says_nothing_counts_as_silence(client, tiny_transcriber, spoken, monkeypatch):
    monkeypatch.setattr(tiny_transcriber.engine, "generate", lambda *_: [Written([])])
    assert ask(client, spoken) == ("", app.SILENT)


def bad_files(folder: Path) -> dict[str, Path]:
    """Write one file for each thing that can be wrong with one."""
    paths = {name: folder / f"{name}.wav" for name in ("text", "empty", "short", "long")}
    paths["text"].write_text("esto no es un audio\n" * 50)
    paths["empty"].write_bytes(b"")
    wav(paths["short"], np.ones(800) * 0.3)
    wav(paths["long"], np.zeros((app.MAX_SECONDS + 2) * 4_000, np.float32), 4_000, "PCM_U8")
    return paths


@pytest.mark.parametrize(
    "kind, message",
    [("text", app.UNREADABLE), ("empty", app.EMPTY), ("short", app.TOO_SHORT), ("long", app.TOO_LONG)],
    ids=["text", "empty", "short", "long"],
)
def test_a_bad_file_gives_one_plain_sentence(client, tmp_path, kind, message):
    assert ask(client, bad_files(tmp_path)[kind]) == ("", message)


def test_no_recording_at_all(client):
    assert ask(client, None) == ("", app.MISSING)


def test_a_file_over_the_limit_is_refused_in_the_function_too(client, spoken, monkeypatch):
    monkeypatch.setattr(app, "MAX_FILE_BYTES", 1000)
    assert ask(client, spoken) == ("", app.TOO_BIG)


def test_a_failure_of_the_model_is_logged_and_not_shown(client, tiny_transcriber, spoken, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(tiny_transcriber.engine, "generate", fail)
    with caplog.at_level(logging.ERROR, "lengua.app"):
        assert ask(client, spoken) == ("", app.FAILED)
    assert "secret detail" in caplog.text


@pytest.mark.parametrize("data", [["a string"], [{"path": "/etc/hostname"}], [7], []])
def test_a_malformed_request_is_refused_without_a_trace(client, data):
    called = httpx.post(f"{client.src}gradio_api/call/transcribe", json={"data": data})
    assert called.status_code == 200
    event = httpx.get(f"{client.src}gradio_api/call/transcribe/{called.json()['event_id']}").text
    assert event.startswith("event: error")
    assert "Traceback" not in event and "lengua" not in event


def test_there_is_one_endpoint_and_one_transcription_at_a_time(client, tiny_transcriber):
    assert list(client.view_api(return_format="dict")["named_endpoints"]) == ["/transcribe"]
    (endpoint,) = [one for one in app.build_demo(tiny_transcriber).fns.values() if one.api_name == "transcribe"]
    assert (endpoint.concurrency_limit, endpoint.concurrency_id) == (1, "asr")


def test_the_footer_names_the_model_and_no_place_of_this_machine(tiny_transcriber, tiny_model):
    shown = app.footer(tiny_transcriber)
    assert "Modelo model, de una carpeta local." in shown
    assert "ctranslate2" in shown
    assert str(tiny_model.parent) not in shown


def test_the_footer_thanks_the_voices_that_the_model_learned_from(tiny_transcriber, monkeypatch):
    note = replace(tiny_transcriber.note, language="es", attribution="Una voz <CC-BY>")
    monkeypatch.setattr(tiny_transcriber, "note", note)
    shown = app.footer(tiny_transcriber)
    assert "afinado desde openai/whisper-base" in shown and "aprendió: Una voz &lt;CC-BY&gt;." in shown


def test_a_port_in_use_is_a_wrong_request(tiny_transcriber):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(RequestError, match="--port"):
            app.serve(app.build_demo(tiny_transcriber), AppOptions(port=taken.getsockname()[1]), wait=False)


def test_importing_does_no_work_and_needs_no_torch():
    code = "import sys, lengua.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


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
