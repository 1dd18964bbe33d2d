"""Putting an export on the Hub: rights first, one commit, a tag, nothing half; against a real server."""

import random
from pathlib import Path

import pytest
from hub_server import READER, Hub, a_hub, sha256  # noqa: F401 - a fixture

from lengua.publishing.upload import MODEL, SPACE, foreign_files
from lengua.runtime.errors import RequestError
from lengua.runtime.hub import list_visible_files, require_unused_tag

IMPORTS = """
from pathlib import Path
from lengua.runtime import hub as uploading
from lengua.runtime.hub import set_tag, list_tags
from lengua.publishing.upload import MODEL, SPACE, push, require_may_push
"""


@pytest.fixture
def export(tmp_path) -> Path:
    """A folder as an export is made, with a large file in each of two forms."""
    folder = tmp_path / "export"
    (folder / "ctranslate2").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlanguage: es\n---\n# x\n")
    for name in ("config.json", "lengua.json", "parity.json", "tokenizer.json", "ctranslate2/config.json"):
        (folder / name).write_text("{}")
    for seed, name in enumerate(("model.safetensors", "ctranslate2/model.bin")):
        (folder / name).write_bytes(random.Random(seed).randbytes(200_000))
    return folder


def pushed(hub: Hub, folder: Path, *more: str, repo: str = "ana/model", setup: str = "", **client) -> list[dict]:
    """Push once for each of some further arguments; return what came of it."""
    calls = [f"show(lambda: push(Path({str(folder)!r}), {repo!r}, MODEL{', ' + one if one else ''}))" for one in more]
    return hub.client("\n".join([setup, *calls]), IMPORTS, **client)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in list_visible_files(folder).items()}


def test_a_push_is_one_private_commit_with_a_tag(hub, export):
    first, again = pushed(hub, export, "", "")
    repo = hub.repos["model", "ana/model"]
    assert repo.private and [one.message for one in repo.commits] == ["initial commit", "Published by lengua"]
    revision = repo.commits[-1].oid
    told = {"repo": "ana/model", "revision": revision, "tag": "v1", "url": f"{hub.endpoint}/ana/model", "private": True}
    assert first["value"] == again["value"] == told, "what is the same already is not pushed twice, nor named twice"
    assert repo.tags == {"v1": revision} and not first["torch"]
    assert repo.files == {".gitattributes": b"", **contents(export)}


def test_it_comes_back_identical(hub, export, tmp_path):
    back = tmp_path / "back"
    code = f"""
from huggingface_hub import snapshot_download
show(lambda: push(Path({str(export)!r}), 'ana/model', MODEL).tag)
show(lambda: snapshot_download('ana/model', revision='v1', local_dir={str(back)!r}))
"""
    assert hub.client(code, IMPORTS)[0]["value"] == "v1"
    assert contents(back) == contents(export)


def test_the_next_push_takes_the_place_of_the_last_and_leaves_what_is_not_ours(hub, export):
    pushed(hub, export, "")
    repo = hub.repos["model", "ana/model"]
    repo.commit({**repo.files, "notes.txt": b"mine", "samples/a.wav": b"mine"}, "by hand")
    for path in (export / "ctranslate2").iterdir():
        path.unlink()
    (export / "config.json").write_text('{"a": 1}')
    (second,) = pushed(hub, export, "")
    assert second["value"]["tag"] == "v2" and len(repo.commits) == 4
    mine = {"notes.txt": b"mine", "samples/a.wav": b"mine", ".gitattributes": b""}
    assert repo.files == {**mine, **contents(export)}
    assert "ctranslate2/model.bin" in repo.at("v1").files, "the last revision is still there, by its name"


def test_a_tag_of_ones_own_and_one_that_stands(hub, export):
    first, again = pushed(hub, export, "tag='first-try'", "tag='first-try'")
    assert first["value"]["tag"] == "first-try"
    assert again["error"].startswith("expected a new tag for ana/model; found first-try, which names revision ")
    assert again["exit_code"] == 2 and len(hub.repos["model", "ana/model"].commits) == 2
    (third,) = pushed(hub, export, "")
    assert third["value"]["tag"] == "v1", "a name of one's own is no number"


@pytest.mark.parametrize("tag", ["", "a b", "../x", "v1.", "a..b", "x.lock", "-x", "ñ"])
def test_names_that_git_does_not_take(tag):
    with pytest.raises(RequestError, match="a tag of letters"):
        require_unused_tag({}, tag, "ana/model")


def test_a_public_repository_and_one_of_other_things_are_left_alone(hub, export):
    hub.repo("model", "ana/public", {"lengua.json": b"{}"})
    theirs = hub.repo("model", "ana/other", {"pytorch_model.bin": b"x", "config.json": b"{}"}, private=True)
    hub.repo("model", "ana/empty", {".gitattributes": b"", "README.md": b"by hand"}, private=True)
    (public,) = pushed(hub, export, "", repo="ana/public")
    assert "found a public one of that name; make it private" in public["error"]
    (other,) = pushed(hub, export, "", repo="ana/other")
    assert "found ana/other with other things (config.json, pytorch_model.bin); name another" in other["error"]
    assert len(theirs.commits) == 1 and not hub.large and other["exit_code"] == 2
    (empty,) = pushed(hub, export, "", repo="ana/empty")
    assert empty["value"]["tag"] == "v1"
    (open_,) = pushed(hub, export, "private=False", repo="ana/public")
    assert open_["value"]["tag"] == "v1" and not open_["value"]["private"]
    (kept,) = pushed(hub, export, "private=False", repo="ana/empty")
    assert kept["value"]["private"], "a repository that was private is not opened, and not said to be open"


def test_a_token_that_may_only_read_is_told_before_anything_is_sent(hub, export):
    (told,) = pushed(hub, export, "", token=READER)
    assert "found one that may only read" in told["error"] and told["exit_code"] == 2 and not hub.repos
    assert not hub.times("POST", "/")


def test_an_upload_that_breaks_off_in_the_middle_leaves_no_half_revision(hub, export):
    pushed(hub, export, "")
    repo, before = hub.repos["model", "ana/model"], hub.times("PUT", "/lfs/")
    for seed, name in enumerate(("model.safetensors", "ctranslate2/model.bin")):
        (export / name).write_bytes(random.Random(10 + seed).randbytes(200_000))
    second = sha256((export / "model.safetensors").read_bytes())
    fault = hub.fail("PUT", f"/lfs/{second}", status=403)
    (broken,) = pushed(hub, export, "", setup="uploading.LARGE_FILE_BYTES = 1000")
    assert "one that is refused (403)" in broken["error"]
    assert len(repo.commits) == 2 and list(repo.tags) == ["v1"], "what everybody sees is the last whole revision"
    fault.times = 0
    (whole,) = pushed(hub, export, "", setup="uploading.LARGE_FILE_BYTES = 1000")
    assert whole["value"]["tag"] == "v2" and len(repo.commits) == 3
    assert repo.files["model.safetensors"] == (export / "model.safetensors").read_bytes()
    assert hub.times("PUT", "/lfs/") == before + 3, "what had arrived was not sent again"


@pytest.mark.parametrize(
    ("method", "path", "fault"),
    [
        ("PUT", "/lfs/", {"status": 503}),
        ("POST", "/commit/", {"status": 500}),
        ("POST", "/commit/", {"keep": 0.5}),
        ("POST", "/tag/", {"status": 502}),
        ("POST", "/tag/", {"keep": 0.5}),
        ("GET", "/refs", {"status": 429}),
    ],
)
def test_passing_trouble_is_waited_out(hub, export, method, path, fault):
    hub.fail(method, path, times=1, **fault)
    (told,) = pushed(hub, export, "")
    repo = hub.repos["model", "ana/model"]
    assert told["value"]["tag"] == "v1" and repo.tags == {"v1": repo.commits[-1].oid} and len(repo.commits) == 2


def test_a_revision_whose_name_was_not_given_gets_it_the_next_time(hub, export):
    fault = hub.fail("POST", "/tag/", status=500)
    (broken,) = pushed(hub, export, "")
    repo = hub.repos["model", "ana/model"]
    assert "the Hub in trouble (500)" in broken["error"] and broken["exit_code"] == 1
    assert len(repo.commits) == 2 and not repo.tags
    fault.times = 0
    (told,) = pushed(hub, export, "")
    assert told["value"]["tag"] == "v1" and len(repo.commits) == 2


def test_a_name_that_somebody_else_takes_meanwhile_is_not_said_to_be_ours(hub, export):
    pushed(hub, export, "")
    code = """
from lengua.runtime import hub as tags
told = tags.list_tags('ana/model')
tags.list_tags = lambda *_: {}
show(lambda: tags.set_tag('ana/model', 40 * 'f', 'v1'))
"""
    (told,) = hub.client(code, IMPORTS)
    assert "as somebody else named it meanwhile" in told["error"] and told["exit_code"] == 1


def test_progress_is_told_in_megabytes(hub, export):
    setup = """
uploading.LARGE_FILE_BYTES = 1000
said = []
"""
    code = f"""{setup}
show(lambda: push(Path({str(export)!r}), 'ana/model', MODEL, watch=said.append).tag)
show(lambda: [(one.done, one.total, one.unit, one.note) for one in said])
"""
    (export / "model.safetensors").write_bytes(bytes(6_000_000))
    _, said = hub.client(code, IMPORTS)
    first, second, end = said["value"]
    assert first == [0, 6, "MB", "ctranslate2/model.bin"] and second == [0, 6, "MB", "model.safetensors"]
    assert end == [6, 6, "MB", ""]


def test_a_space_that_has_to_be_paid_for_is_explained(hub, tmp_path):
    (tmp_path / "space").mkdir()
    (tmp_path / "space/app.py").write_text("")
    hub.fail("POST", "/repos/create", status=402)
    code = f"show(lambda: push(Path({str(tmp_path / 'space')!r}), 'ana/space', SPACE))"
    (told,) = hub.client(code, IMPORTS)
    assert "found one that would have to pay for it" in told["error"] and told["exit_code"] == 2


def test_what_is_ours_in_a_folder_of_this_machine(export):
    assert foreign_files(export, MODEL) == []
    (export / "thesis.docx").write_text("mine")
    (export / ".cache").mkdir()
    (export / ".cache/x").write_text("")
    assert foreign_files(export, MODEL) == ["thesis.docx"]
    assert "model.safetensors" in foreign_files(export, SPACE)
