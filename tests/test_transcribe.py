"""`lengua transcribe` as people type it: standard output while it is heard, files, bad files, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import joined

from lengua import audio
from lengua.cli import main
from lengua.inference import TRANSCRIPT_FORMATS, FileText, TranscriptChunk, transcribe_files
from lengua.inference.transcribe import output_files
from lengua.options import TranscribeOptions
from lengua.runtime.errors import RequestError
from lengua.runtime.progress import Progress


@pytest.fixture(scope="module")
def talk(spoken_es, tmp_path_factory) -> Path:
    """A file of some fifty seconds: real clips with pauses."""
    path = tmp_path_factory.mktemp("talk") / "charla.flac"
    soundfile.write(path, joined(spoken_es, 8, pause_s=2), 16_000)
    assert audio.recording_info(path).duration_s > 35
    return path


@pytest.fixture(autouse=True)
def anything_goes(monkeypatch):
    """Let pass what the tiny model says: untrained, it babbles."""
    monkeypatch.setattr("lengua.inference.hallucinations.suppression_reason", lambda decoded, samples: None)


def transcribed(*files, **options) -> list[TranscriptChunk | FileText]:
    return list(transcribe_files(TranscribeOptions(tuple(map(Path, files)), **options)))


def written(format: str, heard: list) -> str:
    return "".join(item.text for item in heard if isinstance(item, TranscriptChunk))


# Where texts go


def test_a_file_each_named_after_its_recording(tmp_path):
    files = (Path("a/uno.mp3"), Path("dos.tres.wav"))
    expected = {files[0]: tmp_path / "uno.srt", files[1]: tmp_path / "dos.tres.srt"}
    assert output_files(TranscribeOptions(files, format="srt", out=tmp_path)) == expected


def test_recordings_of_one_name_get_files_of_two(tmp_path):
    files = (Path("uno.mp3"), Path("x/UNO.wav"), Path("dos.mp3"))
    found = output_files(TranscribeOptions(files, out=tmp_path))
    assert [path.name for path in found.values()] == ["uno.mp3.txt", "UNO.wav.txt", "dos.txt"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"files": ()}, "at least one audio file"),
        ({"files": ("x/a.mp3", "y/a.mp3"), "out": "texts"}, "x/a.mp3 and y/a.mp3"),
        ({"files": ("a.mp3", "a.mp3"), "out": "texts"}, "a.mp3 and a.mp3"),
        ({"files": ("a.mp3", "b.mp3"), "format": "srt"}, "--out"),
        ({"files": ("a.mp3",), "out": __file__}, "the file"),
    ],
)
def test_nothing_is_written_over_and_nothing_mixed(options, told):
    paths = {name: value if name == "format" else Path(value) for name, value in options.items() if name != "files"}
    with pytest.raises(RequestError) as caught:
        output_files(TranscribeOptions(tuple(map(Path, options["files"])), **paths))
    assert told in str(caught.value)


# What is heard


def test_pieces_come_while_it_is_heard_and_then_what_there_is_to_tell(talk, tiny_model):
    *pieces, last = transcribed(talk, model=str(tiny_model))
    assert all(isinstance(piece, TranscriptChunk) and piece.text.endswith("\n") for piece in pieces) and len(pieces) > 3
    assert isinstance(last, FileText) and last.error is None and last.out is None
    assert " ".join(piece.text.strip() for piece in pieces) == " ".join(last.text.split())
    assert last.segments == len(pieces) and last.language == "es" and last.seconds > 0
    assert last.duration_s == pytest.approx(audio.recording_info(talk).duration_s)


@pytest.mark.parametrize("format", TRANSCRIPT_FORMATS)
def test_files_hold_what_standard_output_would_show(format, talk, tiny_model, tmp_path):
    shown = written(format, transcribed(talk, model=str(tiny_model), format=format))
    (told,) = transcribed(talk, model=str(tiny_model), format=format, out=tmp_path / "texts")
    assert told.out == tmp_path / "texts" / f"charla{TRANSCRIPT_FORMATS[format].suffix}"
    assert told.out.read_text(encoding="utf-8") == shown and len(shown) > 100
    assert [path.name for path in told.out.parent.iterdir()] == [told.out.name]
    if format == "json":
        value = json.loads(shown)
        assert len(value["segments"]) == told.segments and value["complete"] and value["language"] == "es"
        assert value["file"] == "charla.flac" and value["duration_s"] == pytest.approx(told.duration_s, abs=0.001)


def test_lines_of_several_files_begin_with_their_name_and_a_bad_one_does_not_stop_the_others(
    talk, tiny_model, tmp_path
):
    (tmp_path / "text.wav").write_text("this is not audio")
    found = transcribed(tmp_path / "text.wav", talk, tmp_path / "missing.wav", model=str(tiny_model))
    errors = [item for item in found if isinstance(item, FileText) and item.error]
    assert [item.file.name for item in errors] == ["text.wav", "missing.wav"]
    assert all(item.text.startswith(f"{talk}: ") for item in found if isinstance(item, TranscriptChunk))
    assert sum(isinstance(item, TranscriptChunk) for item in found) > 3


def test_a_file_without_speech_is_an_empty_text_and_is_told(tiny_model, tmp_path, capsys):
    soundfile.write(tmp_path / "nada.wav", np.zeros(160_000), 16_000)
    assert main(["transcribe", str(tmp_path / "nada.wav"), "--model", str(tiny_model), "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert (tmp_path / "nada.txt").read_text() == ""
    assert "nada.txt, 0 segments" in shown.out and "no energy 1" in shown.err


def test_json_of_the_command_line_is_one_object_a_file(talk, tiny_model, tmp_path, capsys):
    (tmp_path / "text.wav").write_text("this is not audio")
    assert main(["transcribe", str(talk), str(tmp_path / "text.wav"), "--model", str(tiny_model), "--json"]) == 2
    first, second = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert first["segments"] > 3 and first["text"] and first["error"] is None
    assert second["error"].startswith("expected audio") and second["segments"] == 0


def test_a_file_that_breaks_off_leaves_what_was_heard(talk, tiny_model, tmp_path, monkeypatch):
    stream = audio.stream

    def breaking(source, block_s=10.0, track=None):
        for number, block in enumerate(stream(source, block_s)):
            if number == 4:
                raise RequestError("audio", "a scratch", "copy it again")
            yield block

    monkeypatch.setattr("lengua.inference.transcriber.audio.stream", breaking)
    (told,) = transcribed(talk, model=str(tiny_model), format="srt", out=tmp_path)
    assert "a scratch" in str(told.error) and told.out == tmp_path / "charla.srt.part"
    assert told.out.read_text(encoding="utf-8").startswith("1\n") and not (tmp_path / "charla.srt").exists()


# Stopped


def stopping(after: int):
    """Return a watch that presses Ctrl-C when so many seconds are heard."""

    def watch(progress: Progress) -> None:
        if progress.done >= after:
            os.kill(os.getpid(), signal.SIGINT)

    return watch


@pytest.mark.parametrize("format", ["srt", "json"])
def test_ctrl_c_leaves_what_is_written_so_far_and_says_where(format, talk, tiny_model, tmp_path):
    options = TranscribeOptions((talk,), model=str(tiny_model), format=format, out=tmp_path)
    with pytest.raises(KeyboardInterrupt) as stop:
        list(transcribe_files(options, stopping(12)))
    (left,) = tmp_path.iterdir()
    assert left.name == f"charla{TRANSCRIPT_FORMATS[format].suffix}.part"
    told, where = stop.value.args
    assert f"s into {talk}" in told and where == f"what was heard so far is in {left}"
    text = left.read_text(encoding="utf-8")
    if format == "json":
        assert json.loads(text)["complete"] is False
    assert 20 < len(text) < 10_000


def test_a_killed_run_leaves_what_is_written_so_far(talk, tiny_model, tmp_path, monkeypatch):
    code = (
        "import os, sys; from pathlib import Path; from lengua.options import TranscribeOptions;"
        "from lengua.inference import transcribe_files, hallucinations;"
        "hallucinations.suppression_reason = lambda *said: None;"
        "kill = lambda progress: progress.done > 12 and os.kill(os.getpid(), 9);"
        "list(transcribe_files(TranscribeOptions((Path(sys.argv[1]),), model=sys.argv[2], format='srt',"
        " out=Path(sys.argv[3])), kill))"
    )
    done = subprocess.run([sys.executable, "-c", code, talk, tiny_model, tmp_path], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    srt = pytest.importorskip("srt")
    assert len(list(srt.parse((tmp_path / "charla.srt.part").read_text(encoding="utf-8")))) > 0


def test_ctrl_c_at_the_command_line(talk, tiny_model, tmp_path):
    long = tmp_path / "larga.wav"
    samples = audio.load(talk)
    with soundfile.SoundFile(long, "w", 16_000, 1) as file:
        for _ in range(60):
            file.write(samples)
    command = [sys.executable, "-m", "lengua", "transcribe", long, "--model", tiny_model, "--out", tmp_path / "out"]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    part, deadline = tmp_path / "out/larga.txt.part", time.monotonic() + 90
    while not (part.is_file() and part.stat().st_size) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in error
    assert f"s into {long}; what was heard so far is in {part}" in error
    assert part.read_text(encoding="utf-8").strip() and not part.with_suffix("").exists()
