"""The README: what it promises is there, and its figures are those that were measured."""

import io
import json
import re
import subprocess
from collections import Counter

import numpy as np
import pytest
from conftest import ROOT
from doc_pages import BENCHMARKS, blocks, links, module, read, typed
from report_data import evaluation

from lengua.cli import COMMANDS
from lengua.evaluation.report.tables import markdown_table
from lengua.runtime.files import read_json, write_json, write_jsonl

README = read(ROOT / "README.md")
MAP = next(block for block in blocks(README) if block.startswith("feature_extraction.py"))
UNNAMED = {".ci", ".gitignore", "README.md", "images"}
"""What the map of files need not name: how it is checked, itself, and what stands beside another folder."""


def test_a_stranger_can_read_it_through():
    lines = README.splitlines()
    assert lines[0] == "# lengua" and len(lines) < 220
    order = ["## Two commands", "## The pipeline", "## What it measures", "## Limits, and what did not work"]
    assert [line for line in lines if line in order] == order


def test_make_targets_exist():
    targets = {word for words in typed(README) if words[0] == "make" for word in words[1:]}
    assert {"demo", "test"} <= targets  # and .ci/run calls make test-all, which is both tiers
    for target in targets:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_badges_lead_to_what_is_here_or_say_yours():
    badges = re.findall(r"\[!\[([^]]*)\]\(([^)]*)\)\]\(([^)]*)\)", README)
    assert [name.partition(":")[0] for name, *_ in badges] == ["Colab", "Space", "Checkpoint"]
    for name, picture, target in badges:
        assert (ROOT / target.partition("#")[0]).is_file() and "://" not in picture + target
        assert "yours" in name or (ROOT / name.split()[-1]).is_file()
        assert f'aria-label="{name}"'.lower() in read(ROOT / picture).lower()


def test_the_map_names_what_is_there():
    named = [(line.startswith("  "), re.split(r"   +", line.strip())[0].split()) for line in MAP.splitlines()]
    inside, beside = ([name for nested, names in named if nested is side for name in names] for side in (True, False))
    assert len(inside) > 15 and all((ROOT / "lengua" / name).exists() for name in inside)
    assert len(beside) > 12 and all((ROOT / name).exists() for name in beside)
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    kept = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    top = {name.partition("/")[0] for name in kept if (ROOT / name).is_file()}
    assert top - {name.rstrip("/") for name in beside} <= UNNAMED


def test_every_stage_stands_in_the_table_of_wishes():
    named = Counter(re.findall(r"`[^`]*\blengua (\w+) [^`]*`", README)) + Counter(words[1] for words in typed(README))
    assert {"features", "train", "evaluate", "transcribe", "publish"} <= set(named)
    assert set(COMMANDS) - set(named) <= {"demo", "compare", "app", "doctor"}


def test_whose_voices_and_weights_these_are_is_told():
    notice = read(ROOT / "NOTICE")
    names = ["Allison Smith", "Digium", "Estefanía Ortiz", "June Wallack", "Carlo Flora", "Maxim Topal", "OpenAI"]
    assert all(name in README and name in notice for name in names)
    assert "NOTICE" in links(README)


def test_counts_in_sentences_are_those_of_the_files():
    misread = read(ROOT / "lengua/assets/sample_es_misread.tsv").splitlines()
    listed = [line for line in misread if line and not line.startswith("#")]
    count = int(re.search(r"(\d+) recordings of the sample are left out", README)[1])
    assert count in (len(listed), len(listed) - 1), "with or without a header"


def test_figures_are_made_from_the_recorded_demo_and_measurements():
    figures, measured, demo = (
        module("readme_figures"),
        read(BENCHMARKS / "RESULTS.md"),
        read_json(BENCHMARKS / "demo.json"),
    )
    assert figures.filled(README, measured, demo) == README, "run python benchmarks/readme_figures.py"
    rows = re.findall(r"\| \d{4}-\d\d-\d\d \| \w{7,}\+? \|", README)
    assert len(rows) == 7, "each row says when and of which tree"
    ours = figures.Section(measured, "Features").cell("clips/s, 2 processes", "lengua")
    assert figures.filled(README, measured.replace(ours, "999.9"), demo) != README
    with pytest.raises(figures.LenguaError, match="Inference"):
        figures.filled(README, measured.replace("## Inference", "## Another"), demo)


def test_leaks_in_sentences_are_those_of_the_recorded_demo():
    demo = read_json(BENCHMARKS / "demo.json")
    told = re.search(r"(\d+) of the (\d+) are nearly one .* WER is ([\d.]+ %) instead of ([\d.]+ %)\.", README)
    assert told, "the sentence on leaks has other words"
    near, clips, without, with_them = told.groups()
    assert (int(near), int(clips)) == (demo["leaks"]["near"], demo["leaks"]["utterances"])
    assert f"fine-tuned (adaptive) {without} instead of {with_them}." in " ".join(demo["notes"])


def test_a_recorded_demo_is_its_results(tmp_path):
    """What an evaluation wrote, what is kept of it and what the README says are one."""
    results, hypotheses = evaluation("uno tres", "uno dos")
    results |= {"hardware": "an abacus", "date": "1999-12-31", "commit": "abc1234"}
    results["rows"] = [row | {"decoding": "by hand"} for row in results["rows"]]
    write_json(tmp_path / "run/evaluation/results.json", results)
    write_jsonl(tmp_path / "run/evaluation/hypotheses.jsonl", hypotheses)
    write_json(tmp_path / "run/demo.json", {"seconds": {"training": 60.0, "features": 60.0}})
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    figures = module("readme_figures")
    figures.main(figures.Options(tmp_path / "run", tmp_path / "README.md", tmp_path / "demo.json"))
    kept = read_json(tmp_path / "demo.json")
    assert {name: kept[name] for name in results} == json.loads(json.dumps(results))
    written = read(tmp_path / "README.md")
    assert markdown_table(results["rows"]) in written and "| uno dos | uno tres | uno dos |" in written
    assert "an abacus; 1999-12-31, commit abc1234. The demo took 2 minutes, 1 of them training." in written


def test_the_picture_of_the_demo_is_drawn_from_the_same_figures(tmp_path):
    from PIL import Image

    from lengua.evaluation.report.tables import wer_figure

    wer_figure(read_json(BENCHMARKS / "demo.json")["rows"], tmp_path / "demo.png")
    kept, drawn = (
        np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("L"), np.float32)
        for path in (ROOT / "images/demo.png", tmp_path / "demo.png")
    )
    assert kept.shape == drawn.shape
    assert np.abs(kept - drawn).mean() < 0.5, "run make demo, or record the demo whose picture this is"
