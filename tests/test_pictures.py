"""benchmarks/pictures.py: what it draws of a tiny store, what it photographs, and what it says where it cannot."""

import io
import shutil
import xml.etree.ElementTree as xml
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from doc_pages import module
from PIL import Image

from lengua.runtime.errors import RequestError
from lengua.runtime.files import write_json

pictures = module("pictures")
NAMES = ("badge_checkpoint.svg", "badge_colab.svg", "badge_space.svg")


@pytest.fixture
def options(tiny_store, tmp_path):
    """Options for a run that holds a store and a note of its margin."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/store").symlink_to(tiny_store.path)
    write_json(tmp_path / "run/model/lengua.json", {"margin_s": [0.3, 1.5]})
    return pictures.Options(run=tmp_path / "run", out=tmp_path / "images")


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"), np.int64)


def test_a_clip_is_drawn_in_both_windows(options, tiny_store):
    [path] = pictures.main(replace(options, pictures=("windows",)))
    row = pictures.typical(tiny_store)
    assert row.duration_s == max(tiny_store.split("test").column("duration_s")), "all are shorter than the usual one"
    silent = (pixels(path).sum(axis=-1) < 12).sum(axis=1)  # darker than any ink: the silence of magma
    above, *_, below = silent[silent > 30]
    assert above > 10 * below, "30 s of silence are wider than the margin"


def test_log_mels_are_those_of_the_store(options):
    [path] = pictures.main(replace(options, pictures=("log_mel",)))
    assert path.name == "log_mel.png" and pixels(path).shape[1] == 1800


def test_badges_are_those_of_the_tree(tmp_path):
    drawn = pictures.main(pictures.Options(("badges",), out=tmp_path))
    assert sorted(path.name for path in drawn) == list(NAMES)
    for path in drawn:
        assert path.read_text() == (ROOT / "images" / path.name).read_text(), "run benchmarks/pictures.py badges"
        root = xml.fromstring(path.read_text())
        assert root.get("aria-label") and float(root.get("width")) > 100 and "http:" not in "".join(root.itertext())


def test_what_is_missing_is_told(options):
    with pytest.raises(RequestError, match="run lengua evaluate"):
        pictures.main(replace(options, pictures=("report",)))
    report = options.run / "evaluation/report.html"
    report.parent.mkdir()
    report.write_text("<p>")
    with pytest.raises(RequestError, match="no-such-browser"):
        pictures.main(replace(options, pictures=("report",), chromium="no-such-browser"))


@pytest.mark.slow
def test_the_report_is_photographed(options):
    if not shutil.which("chromium"):
        pytest.skip("needs Debian's package chromium")
    report = options.run / "evaluation/report.html"
    report.parent.mkdir()
    report.write_text("<body style='margin:0;background:rgb(1,2,3)'>")
    [path] = pictures.main(replace(options, pictures=("report",)))
    width, height = pictures.REPORT
    assert pixels(path).shape[1] / pixels(path).shape[0] == pytest.approx(width / height, rel=0.01)
    assert (pixels(path)[100, 100] == (1, 2, 3)).all()
