"""The README: its commands, its links and its figures."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lengua.cli import COMMANDS, parse
from lengua.files import read_json

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```\n(.*?)```", README, re.DOTALL)
LINES = [line.strip() for block in BLOCKS for line in block.splitlines()]


def test_make_targets_exist():
    targets = {line.split()[1] for line in LINES if line.startswith("make ")}
    assert {"demo", "test"} <= targets
    for target in targets:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_lengua_commands_parse(capsys):
    commands = [line.removeprefix(".venv/bin/") for line in LINES if re.match(r"(\.venv/bin/)?lengua ", line)]
    assert len(commands) >= 6
    for command in commands:
        _, name, *rest = command.split()
        assert type(parse([name, *rest])) is COMMANDS[name].options


def test_links_and_files_of_the_map_exist():
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if not link.startswith("http")]
    assert len(links) >= 4
    for link in links:
        assert (ROOT / link).exists(), link
    files = re.findall(r"\b[a-z_]+\.(?:py|ipynb|md|tsv)\b", README, re.IGNORECASE)
    have = {path.name for path in ROOT.rglob("*") if ".venv" not in path.parts}
    assert len(set(files)) > 15 and set(files) - {"metadata.csv"} <= have


def test_figures_are_made_from_the_recorded_demo():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import record_demo
    finally:
        sys.path.pop(0)
    if not record_demo.KEPT.is_file():
        pytest.fail("benchmarks/demo.json is missing: run make demo, then python benchmarks/record_demo.py")
    assert record_demo.filled(README, read_json(record_demo.KEPT)) == README
