"""files: whole or not at all, and readable for everybody."""

import hashlib
import json
import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from lengua.runtime.errors import RequestError
from lengua.runtime.files import file_sha256, read_json, read_jsonl, replacing, write_bytes, write_json, write_jsonl

KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from lengua.runtime import files
os.fsync = lambda number: os.kill(os.getpid(), signal.SIGKILL)
files.write_bytes(Path(sys.argv[1]), b"new" * 1000)
"""


def test_a_folder_takes_its_place_only_when_it_is_done(tmp_path):
    out = tmp_path / "deep" / "model"
    with replacing(out) as fresh:
        (fresh / "inner").mkdir()
        (fresh / "inner" / "a").write_text("1")
        assert fresh.parent == out.parent and not out.exists()
    assert (out / "inner" / "a").read_text() == "1"
    with replacing(out) as fresh:
        (fresh / "b").write_text("2")
    assert [path.name for path in out.iterdir()] == ["b"]
    assert [path.name for path in out.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_folder_that_fails_leaves_the_old_one(error, tmp_path):
    out = tmp_path / "model"
    out.mkdir()
    (out / "old").touch()
    with pytest.raises(error), replacing(out) as fresh:
        (fresh / "new").touch()
        raise error
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "old"]


def test_a_folder_is_readable_for_everybody(tmp_path):
    """safetensors writes for its owner only; a cache or an image is read by others, too."""
    with replacing(tmp_path / "model") as fresh:
        (fresh / "ctranslate2").mkdir(mode=0o700)
        (fresh / "ctranslate2" / "model.bin").touch(mode=0o600)
    for path in (tmp_path / "model", tmp_path / "model/ctranslate2"):
        assert path.stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "model/ctranslate2/model.bin").stat().st_mode & 0o777 == 0o644


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "inside").touch()
    with pytest.raises(OSError):
        write_bytes(tmp_path / "taken", b"data")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inside", "taken"]


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_WRITING, path], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"


def test_json_is_readable_and_comes_back(tmp_path):
    value = {"text": "¿Qué mañana?", "rates": [0.1, None], "deep": {"ñ": True}}
    write_json(tmp_path / "a.json", value)
    data = (tmp_path / "a.json").read_bytes()
    assert "¿Qué mañana?".encode() in data and data.endswith(b"}\n")
    assert read_json(tmp_path / "a.json") == value
    assert read_json(str(tmp_path / "a.json")) == value


@pytest.mark.parametrize("broken", ['{"a": ', "", "Esto no es JSON", b"\xff\xfe\x00"])
def test_json_that_is_cut_off_or_none_is_refused_by_name(broken, tmp_path):
    (tmp_path / "a.json").write_bytes(broken if isinstance(broken, bytes) else broken.encode())
    with pytest.raises(RequestError, match=r"expected JSON in .*a\.json; found "):
        read_json(tmp_path / "a.json")


def test_json_lines_come_back_also_with_odd_line_ends_inside(tmp_path):
    records = [{"text": "uno\u2028dos\u0085tres\ncuatro"}, {"text": ""}, {}]
    write_jsonl(tmp_path / "a.jsonl", records)
    assert (tmp_path / "a.jsonl").read_text("utf-8").count("\n") == 3
    assert read_jsonl(tmp_path / "a.jsonl") == records


def test_json_lines_that_are_not_there_are_none(tmp_path):
    assert read_jsonl(tmp_path / "missing.jsonl") == []
    write_jsonl(tmp_path / "empty.jsonl", [])
    assert read_jsonl(tmp_path / "empty.jsonl") == []
    (tmp_path / "last.jsonl").write_text(json.dumps({"a": 1}), encoding="utf-8")  # no line end
    assert read_jsonl(tmp_path / "last.jsonl") == [{"a": 1}]


def test_a_digest_is_sha256(tmp_path):
    data = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(data)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()
