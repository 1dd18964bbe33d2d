"""The house rules: who may import whom, what stays light, and that the files around the package agree."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lengua

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lengua"
# The order in which data flows: a module imports only modules above it (DESIGN, section 2).
ORDER = """
    errors options languages cache files sealing memory recipes progress ranks chance provenance text scoring hub
    audio augmentation mel windows labels layouts base_weights checkpoints sources store replay hub_stores manifest
    rows workers ray_engine features streams model batches engines transcription figures report pages evaluation runs
    comparison training publishing conversation app demo install_torch doctor printing console cli notebook __main__
""".split()
# Transcribing, as on the Space, needs no torch; neither does anything down to the checkpoints.
LIGHT = [*ORDER[: ORDER.index("checkpoints") + 1], "sources", "store", "features", "engines", "transcription", "cli"]
HEAVY = ("torch", "gradio", "transformers")
NEVER_IN_REQUIREMENTS = {"torch", "torchaudio", "torchcodec"}
LOAD = f"""
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    print(json.dumps([name, sorted(set(sys.modules) & {{*{HEAVY}}})]))
"""


def room_of(path: Path) -> str:
    """Return the name under which a file stands in ORDER: sources/folder.py belongs to sources."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def source_files() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def imported_rooms(path: Path) -> set[str]:
    """Return the modules of lengua that a file imports anywhere in it, lazily or not."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively; name the module in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        parts = [name.split(".") for name in names]
        rooms |= {part[1] for part in parts if part[0] == "lengua" and part[1:] and not part[1].startswith("__")}
    return rooms


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


def test_every_module_has_its_place_in_the_order():
    rooms = {room_of(path) for path in source_files()}
    assert rooms <= set(ORDER), f"give {sorted(rooms - set(ORDER))} a place in ORDER"
    assert len(ORDER) == len(set(ORDER))
    assert len(rooms) >= 20, f"saw only {len(rooms)} modules: {sorted(rooms)}"


def test_a_module_imports_only_modules_above_it():
    seen = 0
    for path in source_files():
        room = room_of(path)
        allowed = {room, *ORDER[: ORDER.index(room)]}
        imported = imported_rooms(path)
        assert imported <= allowed, f"{path.relative_to(ROOT)} imports {sorted(imported - allowed)} from below it"
        seen += len(imported - {room})
    assert seen >= 40, f"saw only {seen} imports"


def test_imports_are_found_in_every_form(tmp_path):
    file = tmp_path / "probe.py"
    file.write_text(
        "import lengua.audio\nfrom lengua import mel, __version__\nimport numpy\n"
        "def later():\n    from lengua.sources.folder import open\n"
    )
    assert imported_rooms(file) == {"audio", "mel", "sources"}


def test_light_modules_load_nothing_heavy():
    present = {room_of(path) for path in source_files()}
    light = [f"lengua.{name}" for name in LIGHT if name in present]
    command = [sys.executable, "-c", LOAD, "lengua", *light]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    loaded = dict(json.loads(row) for row in done.stdout.splitlines())
    assert len(loaded) >= 12
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
    named = set(re.findall(r"(?:^|`)make (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^(\w+):", makefile, flags=re.MULTILINE))
    assert {"demo", "test"} <= named <= targets
