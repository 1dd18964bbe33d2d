"""The public names of `import lengua`: light to import, all there, and `load` is the Transcriber."""

import subprocess
import sys

import pytest
from conftest import ROOT, chirp
from small_whisper import small_whisper

import lengua
from lengua.inference import Transcriber, hallucinations


def test_the_import_loads_nothing_heavy():
    code = "import sys, lengua; print(sorted({'numpy', 'torch', 'transformers', 'gradio'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_every_public_name_resolves_and_is_documented():
    assert {"load", "features", "train", "evaluate", "publish"} <= {*lengua.__all__} <= {*dir(lengua)}
    for name in lengua.__all__:
        assert getattr(lengua, name).__doc__, name
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        lengua.nothing_of_ours  # noqa: B018


def test_load_transcribes_as_the_transcriber_does(tmp_path, monkeypatch):
    for gate in ("silence_reason", "suppression_reason"):  # a chirp is no speech, and has to reach the model here
        monkeypatch.setattr(hallucinations, gate, lambda *given: None)
    model = str(small_whisper(tmp_path / "small"))
    loaded, transcriber = lengua.load(model), Transcriber(model)
    first, second = (one.transcribe(chirp(2, 440)) for one in (loaded, transcriber))
    assert isinstance(loaded, Transcriber) and first.text == second.text != ""
    assert first.duration_s == pytest.approx(2)
