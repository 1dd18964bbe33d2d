"""What people really bring: homes that cannot be written, old consoles, two runs in one folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lengua.data import features
from lengua.evaluation import evaluate
from lengua.options import EvaluateOptions, FeatureOptions, TrainOptions
from lengua.runtime.errors import LenguaError
from lengua.runtime.files import cache_dir, exclusive_folder, is_usable
from lengua.training.train import train

HOLD = """
import sys, time
from lengua.runtime.files import exclusive_folder
with exclusive_folder(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def no_home(monkeypatch, tmp_path) -> Path:
    """A home that cannot be made: below a file. (Root may write everywhere else.)"""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.delenv("LENGUA_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "file/home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_cache_that_cannot_be_written_is_a_temporary_one(no_home, monkeypatch):
    found = cache_dir()
    assert found.parent == no_home and found.is_dir() and found.stat().st_mode & 0o777 == 0o700
    with exclusive_folder(no_home / "store"):
        assert (found / "locks").is_dir()
    monkeypatch.setenv("LENGUA_CACHE", str(no_home / "chosen"))
    assert cache_dir() == no_home / "chosen", "what is asked for is not replaced"


def test_a_temporary_cache_of_somebody_else_is_refused(no_home):
    (no_home / "elsewhere").mkdir()
    (no_home / f"lengua-cache-{os.getuid()}").symlink_to(no_home / "elsewhere")
    with pytest.raises(LenguaError, match="set LENGUA_CACHE to another folder"):
        cache_dir()


def test_a_cache_that_is_filled_can_be_read_where_it_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "lengua/models").mkdir(parents=True)
    monkeypatch.setattr("os.access", lambda *_: False)
    assert is_usable(tmp_path / "lengua") and not is_usable(tmp_path / "other")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_transcript_is_written_as_utf8_to_a_file(encoding, tmp_path):
    code = "from lengua.cli import _write_any_letter; _write_any_letter(); print('mañana 日')"
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.stdout.decode("utf-8").strip() == "mañana 日" and done.returncode == 0


def test_a_folder_that_another_process_writes_is_refused_by_every_stage(tmp_path, tiny_store):
    out = tmp_path / "out"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline().strip() == b"held"
        for stage, options in (
            (features.build, FeatureOptions("sample:es", out)),
            (train, TrainOptions(str(tiny_store.path), out)),
            (evaluate, EvaluateOptions("runs/none", str(tiny_store.path), out=out)),
        ):
            with pytest.raises(LenguaError, match=r"out for this process alone; found another one .*; wait for it"):
                stage(options)
        assert not out.exists()
    finally:
        holder.kill()
        holder.wait()
    with exclusive_folder(out):
        pass  # killed, it holds nothing any more
