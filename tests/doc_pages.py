"""What a page of Markdown says: its commands, links and examples; and whether a command is one, without running it."""

import ast
import contextlib
import importlib.util
import io
import re
import shlex
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import tyro
from conftest import ROOT

from lengua.cli import COMMANDS, parse_arguments

BENCHMARKS = ROOT / "benchmarks"
PAGES = sorted(
    [
        ROOT / "README.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / name / "README.md" for name in ("recipes", "images", "notebooks", "whisper-spanish-conversation")),
        BENCHMARKS / "RESULTS.md",
    ]
)
"""LOG.md is not among them: its commands are those of their day."""
sys.path.append(str(BENCHMARKS))  # benchmarks import one another
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\]\(([^()\s]+)\)")
SETTING = re.compile(r"[A-Z_]+=\S*")
NOT_WHOLE = ("...", "…")


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(text: str, kind: str = "") -> list[str]:
    """Return the fenced blocks of one kind; "" is what people type, and diagrams."""
    return [body for found, body in FENCE.findall(text) if found == kind]


def inline(text: str) -> list[str]:
    """Return what stands between single backticks outside of fenced blocks."""
    return INLINE.findall(FENCE.sub("", text))


def typed(text: str) -> list[list[str]]:
    """Return the lines of a page's blocks that call a program of this project, as words."""
    lines = [line for body in blocks(text) for line in body.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := words_of(line))]


def mentioned(text: str) -> list[list[str]]:
    """Return the same of the commands within its sentences and tables."""
    codes = [code for code in inline(text) if " " in code and not any(mark in code for mark in NOT_WHOLE)]
    return [words for code in codes if (words := words_of(code))]


def words_of(line: str) -> list[str]:
    """Return the words of a command, without settings before it; none where it is no program of this project."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # a quote of plain text
        return []
    words = [word for word in words if word != "&"]
    while words and SETTING.fullmatch(words[0]):
        del words[0]
    name = words[0].removeprefix(".venv/bin/") if words else ""
    return [name, *words[1:]] if name in PROGRAMS and words[1:] else []


def check(words: list[str], whole: bool = True) -> None:
    """Fail where a command is none.

    Args:
        words: with the program first.
        whole: whether nothing may be missing; "`lengua publish --space`" in a sentence is not whole.
    """
    PROGRAMS[words[0]](words[1:], whole)


def check_lengua(words: list[str], whole: bool) -> None:
    assert words[0] in COMMANDS or words[0] == "--help", f"no command {words[0]!r}"
    partial = all(word.startswith("--") for word in words[1:])
    if partial and not whole:
        assert set(words[1:]) <= flags(words[0]), f"lengua {words[0]} has no {set(words[1:]) - flags(words[0])}"
    elif not {"--help", "--json"} & set(words):
        assert type(parsed(parse_arguments, words)) is COMMANDS[words[0]].options


def check_module(words: list[str], whole: bool) -> None:
    """Check what starts processes: torchrun ... -m lengua train ..."""
    check_lengua(words[words.index("lengua") + 1 :], whole)


def check_python(words: list[str], whole: bool) -> None:
    """Check python FILE ..., python -m MODULE ..."""
    if words[0] == "-m":
        assert importlib.util.find_spec(words[1]), words
    elif words[0] == "feature_extraction.py":
        check_lengua(["features", *words[1:]], whole)
    elif (ROOT / words[0]).parent == BENCHMARKS:
        parsed(lambda rest: tyro.cli(options_of(Path(words[0]).stem), args=rest), words[1:])
    else:
        assert words == ["app.py"], words
    assert words[0] == "-m" or (ROOT / words[0]).is_file(), words


def check_make(words: list[str], whole: bool) -> None:
    targets = re.findall(r"^([\w-]+):", read(ROOT / "Makefile"), re.MULTILINE)
    assert set(words) <= set(targets), words


PROGRAMS = {
    "lengua": check_lengua,
    "torchrun": check_module,
    "accelerate": check_module,
    "python": check_python,
    "make": check_make,
}


def parsed(parser, words: list[str]):
    """Return what a parser makes of words; where it would exit, fail with what it says."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return parser(words)
    except SystemExit as stop:
        raise AssertionError(f"{' '.join(words)}\n{said.getvalue()}") from stop


@lru_cache
def flags(command: str) -> frozenset[str]:
    """Return every option of a command of lengua, from its help."""
    said = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(said):
        parse_arguments([command, "--help"])
    return frozenset(re.findall(r"--[a-z][\w.-]*", said.getvalue())) | {"--json", "--debug"}


@lru_cache
def options_of(benchmark: str) -> type:
    """Return the options of a benchmark, without what it measures with: torch and others take seconds each."""
    return defined(BENCHMARKS / f"{benchmark}.py", "Options")


def defined(path: Path, name: str):
    """Return what a file defines under a name, having run no more of the file than that needs."""
    body = ast.parse(read(path)).body
    makers = {made: node for node in body for made in made_by(node)}
    needed, ahead = set(), [name]
    while ahead:
        needed.add(one := ahead.pop())
        names = (node for node in ast.walk(makers[one]) if isinstance(node, ast.Name))
        used = {node.id for node in names if isinstance(node.ctx, ast.Load)}
        ahead += (used & makers.keys()) - needed
    part = sys.modules[f"part_of_{path.stem}"] = ModuleType(f"part_of_{path.stem}")
    part.__file__ = str(path)  # where tyro reads what stands below an option
    for node in body:
        if needed & set(made_by(node)):
            exec(compile(ast.Module([only(node, needed)], []), str(path), "exec"), vars(part))
    return getattr(part, name)


def made_by(node: ast.stmt) -> list[str]:
    """Return the names that a statement of a module makes."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [node.name] if isinstance(node, ast.ClassDef | ast.FunctionDef) else []


def only(node: ast.stmt, names: set[str]) -> ast.stmt:
    """Return an import of these names alone; other statements as they are."""
    if isinstance(node, ast.ImportFrom):
        node.names = [alias for alias in node.names if (alias.asname or alias.name) in names]
    return node


@lru_cache
def module(benchmark: str):
    """Import a benchmark under a name of its own: some are called as modules that others import."""
    name = f"benchmark_{benchmark}"
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{benchmark}.py")
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def links(text: str) -> list[str]:
    """Return what a page links to and shows, outside of its blocks."""
    return LINK.findall(FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ +(.+?) *$", FENCE.sub("", text), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}
