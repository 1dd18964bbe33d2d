"""The Space: the app, the package beside it, and what makes a repository a Space -> one folder that runs by itself.

    stage_space(Path("export-space"), "owner/name")
    cd export-space && pip install -r requirements.txt && python app.py

What makes it a Space, README.md and requirements.txt, stands in `whisper-spanish-conversation/` of the project's tree,
with the base model in its front matter; a wheel carries the same files to `share/lengua`. Staging puts in the model:
into the front matter, so that the Hub fetches it when it builds the Space, before the base model, which takes its place
if it is gone; and into the first statement of app.py, as the default of $LENGUA_MODEL. A variable of the Space goes
before that; but the default is part of the commit, so that the folder alone, fetched or duplicated, still knows whose
voice it is for.
"""

import ast
from importlib import metadata
from pathlib import Path

import lengua
from lengua.runtime.errors import LenguaError
from lengua.runtime.files import ASSETS, replacing, write_bytes

SPACE_FOLDER = "whisper-spanish-conversation"
PACKAGE_FOLDER = Path(lengua.__file__).parent
FILES_BESIDE_PACKAGE = ("app.py", "LICENSE", "NOTICE")
MODEL_SETTING = """
import os

os.environ.setdefault("LENGUA_MODEL", {model!r})  # by lengua publish; a variable of the Space goes before it
"""


def stage_space(out: Path, model: str) -> Path:
    """Write the folder of a Space, whole or not at all, and return it.

    Args:
        out: replaced as a whole.
        model: a model of the Hub.

    Raises:
        LenguaError: lengua was installed without the files of the Space.
    """
    home = _project_folder()
    with replacing(out) as fresh:
        for path in sorted((home / SPACE_FOLDER).iterdir()):
            if path.is_file():
                write_bytes(fresh / path.name, path.read_bytes())
        for name in FILES_BESIDE_PACKAGE:
            write_bytes(fresh / name, (home / name).read_bytes())
        for path in package_source_files():
            write_bytes(fresh / "lengua" / path.relative_to(PACKAGE_FOLDER), path.read_bytes())
        readme = (fresh / "README.md").read_text(encoding="utf-8")
        write_bytes(fresh / "README.md", with_model(readme, model).encode())
        app = (fresh / "app.py").read_text(encoding="utf-8")
        write_bytes(fresh / "app.py", with_default(app, model).encode())
    return out


def package_source_files() -> list[Path]:
    """Return the source files of the package and its data; nothing that Python or an editor left there."""
    data = [path for path in ASSETS.iterdir() if path.is_file() and path.name[0] != "."]
    return sorted([*PACKAGE_FOLDER.rglob("*.py"), *data])


def with_model(readme: str, model: str) -> str:
    """Return the README of a Space with its model in the front matter; the base model is preloaded behind it."""
    from huggingface_hub import SpaceCard

    card = SpaceCard(readme)
    others = [one for one in card.data["preload_from_hub"] if one.split()[0] != model]
    card.data.models = [model]
    card.data["preload_from_hub"] = [model, *others]
    return str(card)


def with_default(app: str, model: str) -> str:
    """Return a program whose first statement, behind its docstring, names the model to use if nobody else does."""
    tree = ast.parse(app)
    lines = app.splitlines(keepends=True)
    at = tree.body[0].end_lineno if ast.get_docstring(tree) is not None else 0
    return "".join([*lines[:at], MODEL_SETTING.format(model=model), *lines[at:]])


def _project_folder() -> Path:
    """Return the folder that holds what is not in the package: the project's tree, or what a wheel brought along."""
    for home in (PACKAGE_FOLDER.parent, *_of_wheel()):
        if all((home / name).is_file() for name in (*FILES_BESIDE_PACKAGE, f"{SPACE_FOLDER}/README.md")):
            return home
    do = "run it from the project's tree, or install lengua from a wheel"
    raise LenguaError("the files of the Space", f"none beside {PACKAGE_FOLDER}, and none that a wheel installed", do)


def _of_wheel() -> list[Path]:
    """Return where a wheel put app.py and what stands beside it; pip knows, whatever prefix it was given."""
    try:
        files = metadata.files("lengua") or []
    except metadata.PackageNotFoundError:
        return []
    return [Path(file.locate()).resolve().parent for file in files if file.as_posix().endswith("share/lengua/app.py")]
