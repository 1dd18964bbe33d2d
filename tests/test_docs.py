"""All pages: their commands parse, their links and pictures exist, their figures are those that were measured."""

import ast
import importlib
import re
from pathlib import Path

import pytest
from conftest import ROOT
from doc_pages import (
    BENCHMARKS,
    PAGES,
    anchors,
    blocks,
    check,
    defined,
    flags,
    inline,
    links,
    mentioned,
    module,
    read,
    typed,
)

from lengua.cli import COMMANDS

IMAGES = ROOT / "images"
HOSTS = {"datacollective.mozillafoundation.org", "docs.ray.io", "colab.research.google.com", "127.0.0.1"}
"""Whom pages name. The project has no public address: whoever publishes it has one, `owner/name`."""


every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def test_the_pages_are_seen():
    names = {page.relative_to(ROOT).as_posix() for page in PAGES}
    pages = "README own-recordings common-voice colab space cluster evaluation training use glossary mirror-and-keeping"
    assert {f"docs/{name}.md" for name in pages.split()} | {"README.md", "images/README.md"} <= names


@every_page
def test_what_is_typed_parses(page, monkeypatch):
    monkeypatch.chdir(ROOT)  # recipes are read
    for words in typed(read(page)):
        check(words)
    for words in mentioned(read(page)):
        check(words, whole=False)


def test_commands_are_seen():
    seen = {page.name: len(typed(read(page))) + len(mentioned(read(page))) for page in PAGES}
    assert sum(seen.values()) > 70
    assert min(seen[name] for name in ("training.md", "use.md", "evaluation.md", "common-voice.md", "RESULTS.md")) >= 5


@pytest.mark.parametrize(
    "command",
    [
        "lengua trian stores/es",
        "lengua train stores/es --learning 1e-5",
        "lengua train",
        "torchrun --nproc-per-node 4 -m lengua train stores/es --epoch 1",
        "python benchmarks/kills.py --kill 5",
        "python benchmarks/missing.py",
        "python feature_extraction.py --limits 3",
        "make demos",
    ],
)
def test_a_command_that_is_none_is_found(command):
    [words] = typed(f"```\n{command}\n```\n")
    with pytest.raises((AssertionError, FileNotFoundError)):
        check(words)


@every_page
def test_options_in_sentences_exist(page):
    known = set().union(*(flags(name) for name in COMMANDS)) | {"--record", "--help"}
    named = {word.partition("=")[0] for code in inline(read(page)) if code[:2] == "--" for word in code.split()}
    assert {word for word in named if word.startswith("--")} <= known


@every_page
def test_links_lead_somewhere(page):
    for link in links(read(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(read(target)), f"{page.name} links to {link}: no such heading"


def test_there_are_links_and_a_broken_one_would_be_seen():
    assert sum(len(links(read(page))) for page in PAGES) > 60
    assert links("see [a](b.md#c) and ![d](e.png)\n```\n[f](g)\n```\n") == ["b.md#c", "e.png"]
    assert anchors("# A `b`, [c](d)!\n## É 1_2\n") == {"a-b-c", "é-1_2"}


@every_page
def test_no_address_is_made_up(page):
    found = re.findall(r"https?://([^/\s)\"'>:]+)([^\s)\"'>]*)", read(page))
    assert {host for host, _ in found} <= HOSTS
    for host, path in found:
        assert host != "colab.research.google.com" or not path.strip("/.,)") or "/owner/name/" in path, path


@every_page
def test_python_examples_import_what_there_is(page):
    for body in blocks(read(page), "python"):
        for node in ast.walk(ast.parse(body)):
            if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "lengua":
                have = importlib.import_module(node.module)
                assert all(hasattr(have, alias.name) for alias in node.names), ast.unparse(node)


def test_the_index_names_every_page():
    index = links(read(ROOT / "docs/README.md"))
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages and pages <= set(index)


def test_every_picture_is_listed_with_the_command_that_makes_it():
    rows = [line.split(" | ") for line in read(IMAGES / "README.md").splitlines() if line.startswith("| [")]
    listed = [name for pictures, *_ in rows for name in links(pictures)]
    assert len(listed) == len(set(listed))
    assert set(listed) == {path.name for path in IMAGES.iterdir()} - {"README.md"}
    for row in rows:
        assert re.search(r"`(python benchmarks/|make )", row[-1]), row


def test_every_picture_is_shown_somewhere():
    shown = {Path(link).name for page in PAGES if page.parent != IMAGES for link in links(read(page))}
    notebooks = "".join(read(path) for path in (*ROOT.glob("*.ipynb"), *ROOT.glob("notebooks/*.ipynb")))
    pictures = {path.name for path in IMAGES.iterdir()} - {"README.md"}
    assert {name for name in pictures - shown if name not in notebooks} == set()


def test_sizes_and_speeds_in_sentences_are_those_that_were_measured():
    """Hold what pages say against RESULTS.md, to a twentieth: they are rounded, and computed from it."""
    measured = module("readme_figures").Section(read(BENCHMARKS / "RESULTS.md"), "Features")
    seconds, hours, clips = 4.88, 593, 593 * 3600 / 4.88
    usual, ours = (measured.number("kB a clip on disk", side) for side in ("usual recipe", "lengua"))
    ours *= seconds / float(measured.said(r"mean ([\d.]+) s"))
    page = read(ROOT / "docs/common-voice.md")
    rows = {name: rf"^\| {name}.* \| ([\d.]+) GB \|$" for name in ("the usual", "lengua's")}
    sizes = {name: float(re.search(row, page, re.MULTILINE)[1]) for name, row in rows.items()}
    assert sizes["the usual"] == pytest.approx(clips * usual / 1e6, rel=0.05)
    assert sizes["lengua's"] == pytest.approx(clips * ours / 1e6, rel=0.05)
    cluster = read(ROOT / "docs/cluster.md")
    rate = float(re.search(r"`RATE_PER_CORE`.*? \| ([\d.]+) ", cluster)[1])
    assert rate == pytest.approx(measured.number("clips/s, 2 processes", "lengua") / 2, rel=0.05)
    assert f"{hours} h validated" in cluster and f"{hours} of them validated" in page


def test_bounds_of_the_app_are_those_of_its_program():
    from lengua.app.chat.backend import DEFAULT_CHAT_MODEL
    from lengua.app.limits import Allowance
    from lengua.options import AppOptions

    page, allowance = read(ROOT / "docs/space.md"), Allowance().limits
    limits = defined(ROOT / "lengua/app/limits.py", "Limits")()  # gradio takes seconds
    told = [
        f"{AppOptions.max_minutes:g} minutes (`--max-minutes`), {limits.bytes >> 20} MB",
        f"{limits.line} at most are decoded or wait",
        f"{allowance['turns']} recordings, {allowance['replies']} replies",
        f"replies of {allowance['tokens']:,} tokens together",
        f"without it `{DEFAULT_CHAT_MODEL}`",
    ]
    assert [text for text in told if text not in page] == []
