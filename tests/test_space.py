"""The Space: its folder runs by itself, without torch and without secrets, and goes to the Hub as one commit."""

import os
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

import httpx
import pytest
import soundfile
from browsing import Visitor, serving
from conftest import ROOT, chirp
from hub_server import a_hub  # noqa: F401 - a fixture
from huggingface_hub import SpaceCard
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lengua.models.pretrained import HUB_FILE_PATTERNS
from lengua.options import BASE_MODEL
from lengua.publishing.space import SPACE_FOLDER, package_source_files, stage_space, with_default
from lengua.runtime.hub import list_visible_files

HOME = ROOT / SPACE_FOLDER
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
MODEL_ID = "ana/whisper-es"


def pins(path: Path) -> dict[str, str]:
    rows = path.read_text(encoding="utf-8").splitlines()
    named = [Requirement(row) for row in rows if row.strip() and not row.startswith("#")]
    return {canonicalize_name(one.name): str(one.specifier) for one in named}


def needed(names: set[str]) -> set[str]:
    """Return what packages need, as installed here on Linux, all the way down; themselves included."""
    found: set[str] = set()
    while names:
        found |= names
        texts = [text for name in names for text in metadata.requires(name) or ()]
        some = [one for one in map(Requirement, texts) if one.marker is None or one.marker.evaluate({"extra": ""})]
        names = {canonicalize_name(one.name) for one in some} - found
    return found


def of_lengua() -> set[str]:
    """Return what lengua with [app] asks for directly."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["app"]]
    return {canonicalize_name(Requirement(text).name) for text in asked}


@pytest.fixture(scope="module")
def staged(tmp_path_factory) -> Path:
    return stage_space(tmp_path_factory.mktemp("staged") / "export-space", MODEL_ID)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in list_visible_files(folder).items()}


def test_requirements_are_the_tested_versions_of_all_that_the_app_needs_and_no_torch():
    asked, tested = pins(HOME / "requirements.txt"), pins(ROOT / "constraints.txt")
    assert len(asked) > 50 and set(asked) == needed(of_lengua())
    assert asked == {name: tested[name] for name in asked}
    assert not {"torch", "transformers", "datasets", "accelerate"} & set(asked)


def test_the_front_matter_is_what_the_hub_asks_for():
    told = SpaceCard.load(HOME / "README.md").data.to_dict()
    assert (told["sdk"], told["app_file"], told["license"]) == ("gradio", "app.py", "apache-2.0")
    assert f"=={told['sdk_version']}" == pins(ROOT / "constraints.txt")["gradio"]
    assert told["python_version"] in ("3.11", "3.12") and {told["colorFrom"], told["colorTo"]} <= COLOURS
    assert (told["title"], told["pinned"], told["suggested_hardware"]) == (SPACE_FOLDER, True, "cpu-basic")
    assert len(told["short_description"]) <= 60
    (preloaded,) = told["preload_from_hub"]
    repo, files = preloaded.split()
    assert [repo] == told["models"] == [BASE_MODEL]
    assert {"config.json", "model.safetensors", "tokenizer.json"} < set(files.split(","))
    assert not [file for file in files.split(",") if not any(fnmatch(file, kind) for kind in HUB_FILE_PATTERNS)]
    assert not (HOME / "packages.txt").exists(), "PyAV and soundfile bring their own libraries"


def test_the_folder_holds_the_app_the_package_and_nothing_else(staged):
    names = set(list_visible_files(staged))
    package = {path.relative_to(ROOT).as_posix() for path in package_source_files()}
    assert (
        len(package) > 100
        and "lengua/assets/card.md" in package
        and {"lengua/app/layout.py", "lengua/assets/app.js"} < package
    )
    assert names == package | {"README.md", "requirements.txt", "app.py", "LICENSE", "NOTICE"}
    for name in package | {"LICENSE", "NOTICE"}:
        assert (staged / name).read_bytes() == (ROOT / name).read_bytes(), name
    assert not [path for path in staged.rglob("*") if "__pycache__" in path.parts or path.suffix == ".pyc"]


def test_the_model_stands_in_the_front_matter_and_in_the_program(staged):
    told = SpaceCard.load(staged / "README.md").data.to_dict()
    before = SpaceCard.load(HOME / "README.md").data.to_dict()
    assert told == before | {"models": [MODEL_ID], "preload_from_hub": [MODEL_ID, *before["preload_from_hub"]]}
    assert list(told) == list(before)
    code = "import runpy, os; runpy.run_path('app.py', run_name='imported'); print(os.environ['LENGUA_MODEL'])"
    for mine, expected in ({}, MODEL_ID), ({"LENGUA_MODEL": "eva/other"}, "eva/other"):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=staged, env=bare(staged.parent) | mine, capture_output=True, text=True
        )
        assert done.stdout == f"{expected}\n", done.stderr


@pytest.mark.parametrize("app", ['"""What it is."""\nprint(1)\n', "print(1)\n", '"""What\nit is."""\n\nimport sys\n'])
def test_the_default_comes_first_and_breaks_nothing(app, monkeypatch):
    monkeypatch.setenv("LENGUA_MODEL", "")
    monkeypatch.delenv("LENGUA_MODEL")
    model = "a\"b'\\c"
    text = with_default(app, model)
    exec(text, {"__name__": "x"})
    assert os.environ["LENGUA_MODEL"] == model
    assert not app.startswith('"""') or text.startswith(app.split('"""\n')[0])


def bare(home: Path) -> dict[str, str]:
    """Return as little of an environment as a program can run in."""
    places = {"HOME": str(home), "LENGUA_CACHE": str(home / "cache"), "PATH": "/usr/bin:/bin"}
    return places | {"HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture(scope="module")
def spoken_model(tiny_model, tmp_path_factory) -> Path:
    """A model as it is pushed: a Space without torch reads the CTranslate2 form in it."""
    from lengua.publishing.export import EXPORTERS

    out = tmp_path_factory.mktemp("model")
    for name in ("hf", "ct2"):
        EXPORTERS[name](tiny_model, out)
    return out


def test_it_builds_the_demo_from_its_own_package_without_torch(staged, spoken_model):
    code = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None       # not to be had
import lengua
from lengua.app import build_demo, make_app_context
from lengua.inference import Transcriber
import app
demo = build_demo(make_app_context(Transcriber()))
print(lengua.__file__, type(demo).__name__, len(demo.fns))
"""
    environment = bare(staged.parent) | {"LENGUA_MODEL": str(spoken_model)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=staged, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    place, kind, events = done.stdout.split()
    assert place == str(staged / "lengua/__init__.py") and kind == "Blocks" and int(events) > 0


@pytest.mark.slow
def test_without_its_model_it_serves_the_base_model_and_says_so(staged, spoken_model, tmp_path):
    environment = bare(tmp_path)
    cached = Path(environment["LENGUA_CACHE"]) / "models/openai--whisper-base"
    shutil.copytree(spoken_model, cached)
    with serving(tmp_path / "run", program=staged / "app.py", environment=environment) as app:
        page, printed = httpx.get(f"{app.url}/config").text, app.printed()
        soundfile.write(tmp_path / "voice.wav", chirp(1, 200), 16_000)
        with Visitor(app.url, "anybody") as visitor:
            assert visitor.transcribe(tmp_path / "voice.wav").data[0]
    assert "page.not_found" in page and BASE_MODEL in page and str(tmp_path) not in page
    assert MODEL_ID in printed and BASE_MODEL in printed and "Traceback" not in printed


@pytest.mark.slow
def test_it_answers_in_an_environment_of_its_own_requirements_alone(staged, spoken_model, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    (packages,) = (tmp_path / "env").glob("lib/python*/site-packages")
    asked = pins(staged / "requirements.txt")
    tops = {file.parts[0] for name in asked for file in metadata.files(name) or () if file.parts[0] != ".."}
    for top in tops:
        (packages / top).symlink_to(Path(metadata.distribution("numpy").locate_file(top)))
    assert len(tops) > len(asked) and not (packages / "torch").exists()
    program, environment = staged / "app.py", bare(tmp_path)
    with serving(tmp_path / "run", spoken_model, program, tmp_path / "env/bin/python", environment) as app:
        soundfile.write(tmp_path / "voice.wav", chirp(1, 200), 16_000)
        with Visitor(app.url, "anybody") as visitor:
            text, state = visitor.transcribe(tmp_path / "voice.wav").data
            (reply,) = visitor.call("reply", ["Hola, ¿qué tal?", [], "free", "beginner", "MX", ""]).data
        assert text and state.startswith("Listo.") and "tutor" in reply
        assert app.printed().splitlines() == [f"lengua: open {app.url}/ in a browser; Ctrl-C ends"]


def test_it_goes_to_the_hub_as_one_commit_and_only_files_of_an_older_package_go(hub, staged):
    old = {"lengua/__init__.py": b"", "lengua/gone.py": b"", "icon.png": b"mine", "README.md": b""}
    hub.repo("space", "ana/voz", old, private=True)
    hub.repo("space", "ana/theirs", {"main.py": b"", "README.md": b""}, private=True)
    names = ("ana/new", "ana/voz", "ana/theirs")
    code = "\n".join(f"show(lambda: push(Path({str(staged)!r}), {name!r}, SPACE))" for name in names)
    new, done, refused = hub.client(code, "from pathlib import Path\nfrom lengua.publishing.upload import SPACE, push")
    files, repo = contents(staged), hub.repos["space", "ana/new"]
    assert repo.private and len(repo.commits) == 2 and not repo.tags
    assert repo.files == files | {".gitattributes": b""}
    url, revision = f"{hub.endpoint}/spaces/ana/new", repo.commits[-1].oid
    assert (new["value"]["url"], new["value"]["revision"]) == (url, revision)
    assert "value" in done and hub.repos["space", "ana/voz"].files == files | {"icon.png": b"mine"}
    assert "found ana/theirs with other things (main.py); name another" in refused["error"]


@pytest.mark.slow
def test_a_wheel_brings_along_what_a_space_is_made_of(tmp_path, staged):
    tree = tmp_path / "tree"
    names = ["lengua", SPACE_FOLDER, "metrics", "pyproject.toml", "README.md", "app.py", "LICENSE", "NOTICE"]
    copied = [path for name in names for path in [ROOT / name, *(ROOT / name).rglob("*")] if path.is_file()]
    for path in copied:
        if "__pycache__" not in path.parts:
            (tree / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            (tree / path.relative_to(ROOT)).write_bytes(path.read_bytes())
    pip = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "wheel", *offline, "-w", str(tmp_path), str(tree)], check=True)
    (wheel,) = tmp_path.glob("lengua-*.whl")
    prefix = tmp_path / "prefix"
    subprocess.run([*pip, "install", *offline, "--ignore-installed", "--prefix", str(prefix), str(wheel)], check=True)
    (packages,) = prefix.glob("lib/python*/site-packages")
    code = f"""
import lengua
from pathlib import Path
from lengua.publishing.space import stage_space
print(lengua.__file__)
stage_space(Path({str(tmp_path / "space")!r}), {MODEL_ID!r})
"""
    environment = bare(tmp_path) | {"PYTHONPATH": str(packages)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert str(packages) in done.stdout
    assert contents(tmp_path / "space") == contents(staged)
