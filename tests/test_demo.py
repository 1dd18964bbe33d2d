"""The demo, small: every stage on real speech and real weights, twice, the second time from what stands there."""

import shutil

import pytest

from lengua import demo
from lengua.options import DemoOptions
from lengua.runtime.files import read_json


@pytest.mark.real
def test_the_demo_does_everything_and_then_finds_it_done(base_model, tmp_path, monkeypatch):
    if not shutil.which("apt-get"):
        pytest.skip("sample:es needs apt-get")
    monkeypatch.chdir(tmp_path)  # so that images/ of the tree is left alone
    options = DemoOptions(tmp_path / "runs/demo", epochs=1.0, limit=4)
    result = demo.run(options)
    names = {(row["model"], row["window"]) for row in result.rows}
    assert names == {("base", "padded"), ("fine-tuned", "padded"), ("fine-tuned", "adaptive")}
    assert read_json(options.out / "evaluation/results.json")["rows"] == result.rows
    assert result.examples and len(result.heard) == demo.TRANSCRIBED_CLIPS and any(text for _, text in result.heard)
    assert result.figure.read_bytes().startswith(b"\x89PNG")
    assert (options.out / "model/model.safetensors").is_file() and (options.out / "export/README.md").is_file()
    weights = (options.out / "model/model.safetensors").stat().st_mtime_ns
    again = demo.run(options)
    assert again.rows == result.rows and again.seconds["training"] < 2
    assert (options.out / "model/model.safetensors").stat().st_mtime_ns == weights
