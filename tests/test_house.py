"""The house rules: who may import whom, one name for one thing, what stays light, and that the files around agree."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lengua

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lengua"
# The order in which data flows (docs/architecture.md): a room imports only itself and rooms before it.
ROOMS = """
    runtime options audio scoring models data inference evaluation training publishing app doctor printing demo cli
    notebook __main__
""".split()
# Transcribing, as on the Space, needs no torch; neither do the feature pipeline, the command line.
LIGHT = """
    runtime.hub audio scoring models.tokens models.checkpoints data.features data.sources inference.transcriber
    inference.transcribe cli
""".split()
HEAVY = ("torch", "gradio", "transformers")
NEVER_IN_REQUIREMENTS = {"torch", "torchaudio", "torchcodec"}
LOAD = f"""
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    print(json.dumps([name, sorted(set(sys.modules) & {{*{HEAVY}}})]))
"""


@cache
def modules() -> dict[str, ast.Module]:
    """Return every module of the package, parsed, by its dotted name."""
    paths = sorted(PACKAGE.rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in zip(names, paths, strict=True)}


def room_of(module: str) -> str:
    return f"{module}.".split(".")[1]


def imports_of(tree: ast.Module) -> set[str]:
    """Return the modules of lengua that a module imports anywhere in it, lazily or not."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"import {node.module} by its full name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in modules() else node.module for name in names}
    return found & set(modules())


def public_names(tree: ast.Module) -> set[str]:
    """Return the classes and constants that a module defines without an underscore; loggers are all called log."""
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    assigned = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    targets = [name for node in assigned for target in _targets(node) for name in ast.walk(target)]
    constants = {name.id for name in targets if isinstance(name, ast.Name)}
    return {name for name in classes | constants if not name.startswith("_")} - {"log"}


def _targets(node: ast.Assign | ast.AnnAssign) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else [node.target]


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def lines(file: str) -> list[str]:
    rows = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return [row for row in rows if row.strip() and not row.startswith("#")]


def kept_files() -> list[Path]:
    """Return the files that git tracks or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def test_rooms_are_few_and_in_order():
    rooms = {room_of(name) for name in modules()} - {""}
    assert rooms == set(ROOMS), "give every room a place in ROOMS and in docs/architecture.md"
    climbs, seen = [], 0
    for name, tree in modules().items():
        for imported in imports_of(tree):
            if room_of(name) and room_of(imported):
                seen += 1
                if ROOMS.index(room_of(imported)) > ROOMS.index(room_of(name)):
                    climbs.append(f"{name} -> {imported}")
    assert seen > 300 and climbs == []


def test_no_modules_import_each_other_in_a_circle():
    """Take away, again and again, the modules that import none of those left."""
    left = {name: imports_of(tree) - {name, "lengua"} for name, tree in modules().items()}
    while leaves := [name for name, imported in left.items() if not imported & set(left)]:
        for name in leaves:
            del left[name]
    assert left == {}


def test_no_public_name_is_defined_twice():
    homes = defaultdict(list)
    for module, tree in modules().items():
        for name in public_names(tree):
            homes[name].append(module)
    assert len(homes) > 300
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def test_light_modules_load_nothing_heavy():
    command = [sys.executable, "-c", LOAD, "lengua", *(f"lengua.{name}" for name in LIGHT)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    loaded = dict(json.loads(row) for row in done.stdout.splitlines())
    assert len(loaded) == len(LIGHT) + 1
    assert {name: heavy for name, heavy in loaded.items() if heavy} == {}


def test_the_core_needs_nothing_heavy():
    assert not names(project()["dependencies"]) & set(HEAVY)


def test_the_installed_version_is_the_source_version():
    assert version("lengua") == lengua.__version__


def test_requirements_for_colab_are_loose_and_leave_its_torch_alone():
    required = [Requirement(row) for row in lines("requirements.txt")]
    assert len(required) >= 15
    assert not names(map(str, required)) & NEVER_IN_REQUIREMENTS
    assert {mark.operator for one in required for mark in one.specifier} == {">="}


def test_requirements_are_those_of_the_project():
    extras = project()["optional-dependencies"]
    known = {str(Requirement(text)) for texts in (project()["dependencies"], *extras.values()) for text in texts}
    required = {str(Requirement(row)) for row in lines("requirements.txt")}
    assert required <= known, f"with other names or bounds than in pyproject.toml: {sorted(required - known)}"
    assert names(project()["dependencies"]) <= names(required)


def test_constraints_pin_every_direct_dependency():
    pins = {canonicalize_name(one.name): one for one in map(Requirement, lines("constraints.txt"))}
    extras = project()["optional-dependencies"]
    direct = [Requirement(text) for texts in (project()["dependencies"], *extras.values()) for text in texts]
    outside = [one for one in direct if one.name != "lengua"]
    assert len(outside) >= 25
    for one in outside:
        pin = pins[canonicalize_name(one.name)]
        assert re.fullmatch(r"==[^+*]+", str(pin.specifier)), f"{pin} is not one exact version"
        assert one.specifier.contains(str(pin.specifier).removeprefix("==")), f"{pin} is below {one}"


def test_no_file_names_a_registry_or_a_place_of_one_machine():
    hosts = ["pypi|org", "python" + "hosted|org", "download.py" + "torch|org", "deb" + "ian|org", "npm" + "js|org"]
    places = ["/wo" + "rk/", "/ro" + "ot/", "/opt/wh" + "eels", "/opt/py" + "pi"]
    words = [word.replace("|", ".") for word in hosts] + places
    pattern = re.compile(r"(?<![\w.])(?:[\w-]+\.)*(?:" + "|".join(map(re.escape, words)) + ")")
    files = kept_files()
    assert len(files) >= 30
    texts = {path: path.read_bytes().decode("utf-8", errors="replace") for path in files}
    found = {str(path.relative_to(ROOT)): match[0] for path, text in texts.items() if (match := pattern.search(text))}
    assert found == {}


@pytest.mark.parametrize("target", ["help", "demo", "app", "test", "lint", "bench", "doctor", "clean"])
def test_the_makefile_explains_every_target(target):
    done = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search(rf"^  make {target} +\w", done.stdout, flags=re.MULTILINE)


def test_readme_names_only_targets_that_exist():
    named = set(re.findall(r"(?:^|`)make ([\w-]+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, flags=re.MULTILINE))
    assert {"demo", "test"} <= named <= targets
