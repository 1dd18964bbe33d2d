"""The Hub's client and pushing an export: questions that end, rights first, one commit, a tag, nothing half.

Against a real server and the real client.
"""

import random
from pathlib import Path

import pytest
from hub_server import READER, Hub, a_hub, sha256  # noqa: F401 - a fixture

from lengua.publishing.upload import MODEL, SPACE, foreign_files
from lengua.runtime.errors import RequestError
from lengua.runtime.hub import list_visible_files, require_unused_tag, write_refusal

IMPORTS = """
from pathlib import Path
from lengua.publishing.upload import MODEL, SPACE, push
from lengua.runtime import hub
from lengua.runtime.hub import check_token, fetch_repo_info, list_tags, set_tag, upload_folder
"""
PAUSES = "pauses = []\ntime.sleep = pauses.append\n"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder as an export is made, with two large files, an empty one and some that nobody wants to see."""
    root = tmp_path / "export"
    (root / "ctranslate2").mkdir(parents=True)
    (root / ".cache").mkdir()
    (root / "README.md").write_text("---\nlanguage: es\n---\n# x\n")
    for name in (".cache/lock", ".hidden", "config.json", "lengua.json", "parity.json", "ctranslate2/config.json"):
        (root / name).write_text("{}")
    (root / "tokenizer.json").write_text("")
    for seed, name in enumerate(("model.safetensors", "ctranslate2/model.bin")):
        (root / name).write_bytes(random.Random(seed).randbytes(200_000))
    return root


def only(told: list[dict]) -> dict:
    (one,) = told
    return one


def pushed(hub: Hub, folder: Path, *more: str, repo: str = "ana/model", setup: str = "", **client) -> list[dict]:
    """Push once for each of some further arguments; return what came of it."""
    calls = [f"show(lambda: push(Path({str(folder)!r}), {repo!r}, MODEL{', ' + one if one else ''}))" for one in more]
    return hub.client("\n".join([setup, *calls]), IMPORTS, **client)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in list_visible_files(folder).items()}


# Questions


def test_what_the_hub_refuses_is_explained_and_not_asked_again(hub):
    hub.repo("dataset", "eva/gated", gated=True)
    hub.fail("GET", "/ana/forbidden$", status=403)
    hub.fail("GET", "/ana/paid$", status=402)
    expected = {
        "eva/missing": "expected the dataset eva/missing; found the Hub has none for this token; check the name",
        "eva/gated": "expected access to the dataset eva/gated; found it is gated; accept its terms on its page",
        "ana/forbidden": "expected a token for the dataset ana/forbidden; found one that is refused (403); make",
        "ana/paid": "expected an account that may have the dataset ana/paid; found one that would have to pay for it",
        "no name": "expected what the Hub accepts for the dataset no name; found Repo id must",
        "ana/set@x": "expected what the Hub accepts for the dataset ana/set@x; found Repo id must",
    }
    calls = "\n".join(f"show(lambda: fetch_repo_info({name!r}))" for name in expected)
    for start, one in zip(expected.values(), hub.client(calls, IMPORTS), strict=True):
        assert one["error"].startswith(start) and one["exit_code"] == 2 and not one["torch"]
    assert hub.times("GET", "/api/datasets/") == 4
    told = only(hub.client("show(lambda: fetch_repo_info('eva/missing'))", IMPORTS, token=None))
    assert "found the Hub has none for this token" in told["error"]


def test_passing_trouble_is_waited_out(hub):
    faults = [{"status": 429}, {"status": 500}, {"status": 503}, {"keep": 0.5}]
    for number, fault in enumerate(faults):
        hub.repo("dataset", f"ana/set{number}", {"README.md": b"x" * 4000})
        hub.fail("GET", f"/api/datasets/ana/set{number}", times=2, **fault)
    calls = "for number in range(4): show(lambda: fetch_repo_info(f'ana/set{number}').id)"
    *told, pauses = hub.client(f"{PAUSES}{calls}\nshow(lambda: pauses)", IMPORTS)
    assert [one["value"] for one in told] == [f"ana/set{number}" for number in range(4)]
    assert pauses["value"] == [1, 2] * 4 and hub.times("GET", "/api/datasets/ana/set") == 12


def test_trouble_that_stays_ends_in_seconds(hub):
    found = {
        "too many requests (429); wait some minutes and run it again": {"status": 429},
        "the Hub in trouble (500); try again later": {"status": 500},
        "RemoteProtocolError: ": {"keep": 0.5},
        "none within 0.3 s; check the network and try again": {"hang_s": 30},
    }
    for number, fault in enumerate(found.values()):
        hub.repo("dataset", f"ana/set{number}", {"README.md": b"x" * 4000})
        hub.fail("GET", f"/api/datasets/ana/set{number}", **fault)
    calls = "for number in range(4): show(lambda: fetch_repo_info(f'ana/set{number}'))"
    told = hub.client(f"{PAUSES}hub.HUB_TIMEOUT_S = 0.3\n{calls}", IMPORTS)
    for number, (one, words) in enumerate(zip(told, found, strict=True)):
        assert one["error"].startswith(f"expected an answer about the dataset ana/set{number}; found ")
        assert words in one["error"] and one["exit_code"] == 1
    assert hub.times("GET", "/api/datasets/ana/set") == 12


def test_no_hub_at_all(hub):
    code = "show(lambda: fetch_repo_info('ana/set'))"
    told = only(hub.client(code, IMPORTS, HF_ENDPOINT="http://127.0.0.1:9"))
    assert "ConnectError" in told["error"]
    told = only(hub.client(code, IMPORTS, HF_HUB_OFFLINE="1"))
    assert "HF_HUB_OFFLINE is set" in told["error"] and not hub.asked


# Rights


def test_rights_are_checked_before_anything_is_sent(hub):
    def check(*calls: str, **client) -> list[dict]:
        return hub.client("\n".join(f"show(lambda: check_token({call}))" for call in calls), IMPORTS, **client)

    mine, ours, foreign, bare = check("'ana/new'", "'escuela/new'", "'eva/new'", "'new'")
    assert mine["value"] == ours["value"] == "ana"
    assert "found one of ana, who is not in eva; make a token with write access" in foreign["error"]
    assert "expected a repository as owner/name; found 'new'" in bare["error"]
    refused, reading = check("'ana/new'", "'ana/new', write=False", token=READER)
    assert "one that may only read" in refused["error"] and reading["value"] == "ana"
    assert "none on this machine; log in" in only(check("'ana/new'", token=None))["error"]
    assert "found one that is refused (401)" in only(check("'ana/new'", token="hf_wrong"))["error"]
    assert not hub.repos


@pytest.mark.parametrize(
    ("scopes", "reason"),
    [
        ([("ana", ["repo.write"])], None),
        ([("ana/model", ["repo.content.read", "repo.write"])], None),
        ([("ana", ["repo.content.read"])], "one without repo.write for ana"),
        ([("ana/other", ["repo.write"])], "one without repo.write for ana"),
        ([], "one without repo.write for ana"),
    ],
)
def test_fine_grained_tokens(scopes, reason):
    scoped = [{"entity": {"name": name}, "permissions": permissions} for name, permissions in scopes]
    token = {"role": "fineGrained", "fineGrained": {"scoped": scoped}}
    account = {"name": "ana", "orgs": [{"name": "escuela", "roleInOrg": "read"}], "auth": {"accessToken": token}}
    assert write_refusal(account, "ana/model") == reason
    assert write_refusal(account, "escuela/model") == "one that may only read"
    assert write_refusal({"name": "ana", "auth": {"accessToken": {"role": "fineGrained"}}}, "ana/model") is None


# One commit


def test_an_upload_survives_passing_trouble_as_one_commit(hub, folder):
    faults = [
        ("POST", "ana/m0/preupload/", {"status": 500}),
        ("POST", "ana/m1/preupload/", {"keep": 0.3}),
        ("PUT", f"/lfs/{sha256(b'2' * 1000)}", {"status": 503}),
        ("PUT", f"/lfs/{sha256(b'3' * 1000)}", {"keep": 0.0}),
        ("POST", "ana/m4/commit/", {"status": 500}),
        ("POST", "ana/m5/commit/", {"keep": 0.5}),
        ("POST", "/repos/create", {"status": 429}),
    ]
    for method, path, fault in faults:
        hub.fail(method, path, times=1, **fault)
    code = f"""
time.sleep = lambda seconds: None
for number in range(7):
    extra = {{"w.safetensors": str(number).encode() * 1000}}
    show(lambda: upload_folder(Path({str(folder)!r}), f"ana/m{{number}}", message="First", extra=extra))
"""
    for number, told in enumerate(hub.client(code, IMPORTS)):
        repo = hub.repos["model", f"ana/m{number}"]
        assert told["value"] == repo.commits[-1].oid
        assert [commit.message for commit in repo.commits] == ["initial commit", "First"]
        assert repo.files == contents(folder) | {"w.safetensors": str(number).encode() * 1000, ".gitattributes": b""}
    assert all(not fault.times for fault in hub.faults), "each of them happened"


# An export


def test_a_push_is_one_private_commit_with_a_tag(hub, folder):
    first, again = pushed(hub, folder, "", "")
    repo = hub.repos["model", "ana/model"]
    assert repo.private and [one.message for one in repo.commits] == ["initial commit", "Published by lengua"]
    revision = repo.commits[-1].oid
    told = {"repo": "ana/model", "revision": revision, "tag": "v1", "url": f"{hub.endpoint}/ana/model", "private": True}
    assert first["value"] == again["value"] == told, "what is the same already is not pushed twice, nor named twice"
    assert repo.tags == {"v1": revision} and not first["torch"]
    assert repo.files == {".gitattributes": b"", **contents(folder)}


def test_the_next_push_takes_the_place_of_the_last_and_leaves_what_is_not_ours(hub, folder):
    pushed(hub, folder, "")
    repo = hub.repos["model", "ana/model"]
    repo.commit({**repo.files, "notes.txt": b"mine", "samples/a.wav": b"mine"}, "by hand")
    for path in (folder / "ctranslate2").iterdir():
        path.unlink()
    (folder / "config.json").write_text('{"a": 1}')
    (second,) = pushed(hub, folder, "")
    assert second["value"]["tag"] == "v2" and len(repo.commits) == 4
    mine = {"notes.txt": b"mine", "samples/a.wav": b"mine", ".gitattributes": b""}
    assert repo.files == {**mine, **contents(folder)}
    assert "ctranslate2/model.bin" in repo.at("v1").files, "the last revision is still there, by its name"


def test_a_tag_of_ones_own_and_one_that_stands(hub, folder):
    first, again = pushed(hub, folder, "tag='first-try'", "tag='first-try'")
    assert first["value"]["tag"] == "first-try"
    assert again["error"].startswith("expected a new tag for ana/model; found first-try, which names revision ")
    assert again["exit_code"] == 2 and len(hub.repos["model", "ana/model"].commits) == 2
    (third,) = pushed(hub, folder, "")
    assert third["value"]["tag"] == "v1", "a name of one's own is no number"


@pytest.mark.parametrize("tag", ["", "a b", "../x", "v1.", "a..b", "x.lock", "-x", "ñ"])
def test_names_that_git_does_not_take(tag):
    with pytest.raises(RequestError, match="a tag of letters"):
        require_unused_tag({}, tag, "ana/model")


def test_a_public_repository_and_one_of_other_things_are_left_alone(hub, folder):
    hub.repo("model", "ana/public", {"lengua.json": b"{}"})
    theirs = hub.repo("model", "ana/other", {"pytorch_model.bin": b"x", "config.json": b"{}"}, private=True)
    hub.repo("model", "ana/empty", {".gitattributes": b"", "README.md": b"by hand"}, private=True)
    (public,) = pushed(hub, folder, "", repo="ana/public")
    assert "found a public one of that name; make it private" in public["error"]
    (other,) = pushed(hub, folder, "", repo="ana/other")
    assert "found ana/other with other things (config.json, pytorch_model.bin); name another" in other["error"]
    assert len(theirs.commits) == 1 and not hub.large and other["exit_code"] == 2
    (empty,) = pushed(hub, folder, "", repo="ana/empty")
    assert empty["value"]["tag"] == "v1"
    (open_,) = pushed(hub, folder, "private=False", repo="ana/public")
    assert open_["value"]["tag"] == "v1" and not open_["value"]["private"]
    (kept,) = pushed(hub, folder, "private=False", repo="ana/empty")
    assert kept["value"]["private"], "a repository that was private is not opened, and not said to be open"


def test_an_upload_that_breaks_off_in_the_middle_leaves_no_half_revision(hub, folder):
    pushed(hub, folder, "")
    repo, before = hub.repos["model", "ana/model"], hub.times("PUT", "/lfs/")
    for seed, name in enumerate(("model.safetensors", "ctranslate2/model.bin")):
        (folder / name).write_bytes(random.Random(10 + seed).randbytes(200_000))
    second = sha256((folder / "model.safetensors").read_bytes())
    fault = hub.fail("PUT", f"/lfs/{second}", status=403)
    (broken,) = pushed(hub, folder, "", setup="hub.LARGE_FILE_BYTES = 1000")
    assert "one that is refused (403)" in broken["error"]
    assert len(repo.commits) == 2 and list(repo.tags) == ["v1"], "what everybody sees is the last whole revision"
    fault.times = 0
    (whole,) = pushed(hub, folder, "", setup="hub.LARGE_FILE_BYTES = 1000")
    assert whole["value"]["tag"] == "v2" and len(repo.commits) == 3
    assert repo.files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert hub.times("PUT", "/lfs/") == before + 3, "what had arrived was not sent again"


def test_passing_trouble_with_a_tag_is_waited_out(hub, folder):
    faults = [("POST", "/tag/", {"status": 502}), ("POST", "/tag/", {"keep": 0.5}), ("GET", "/refs", {"status": 429})]
    for number, (method, path, fault) in enumerate(faults):
        hub.fail(method, f"ana/m{number}{path}", times=1, **fault)
    setup = "time.sleep = lambda seconds: None"
    calls = "\n".join(f"show(lambda: push(Path({str(folder)!r}), 'ana/m{number}', MODEL))" for number in range(3))
    for number, told in enumerate(hub.client(f"{setup}\n{calls}", IMPORTS)):
        repo = hub.repos["model", f"ana/m{number}"]
        assert told["value"]["tag"] == "v1" and repo.tags == {"v1": repo.commits[-1].oid} and len(repo.commits) == 2
    assert all(not fault.times for fault in hub.faults)


def test_a_revision_whose_name_was_not_given_gets_it_the_next_time(hub, folder):
    fault = hub.fail("POST", "/tag/", status=500)
    (broken,) = pushed(hub, folder, "", setup="time.sleep = lambda seconds: None")
    repo = hub.repos["model", "ana/model"]
    assert "the Hub in trouble (500)" in broken["error"] and broken["exit_code"] == 1
    assert len(repo.commits) == 2 and not repo.tags
    fault.times = 0
    (told,) = pushed(hub, folder, "")
    assert told["value"]["tag"] == "v1" and len(repo.commits) == 2


def test_a_name_that_somebody_else_takes_meanwhile_is_not_said_to_be_ours(hub, folder):
    pushed(hub, folder, "")
    code = """
hub.list_tags = lambda *_: {}
show(lambda: set_tag('ana/model', 40 * 'f', 'v1'))
"""
    (told,) = hub.client(code, IMPORTS)
    assert "as somebody else named it meanwhile" in told["error"] and told["exit_code"] == 1


def test_progress_is_told_in_megabytes(hub, folder):
    setup = """
hub.LARGE_FILE_BYTES = 1000
said = []
"""
    code = f"""{setup}
show(lambda: push(Path({str(folder)!r}), 'ana/model', MODEL, watch=said.append).tag)
show(lambda: [(one.done, one.total, one.unit, one.note) for one in said])
"""
    (folder / "model.safetensors").write_bytes(bytes(6_000_000))
    _, said = hub.client(code, IMPORTS)
    first, second, end = said["value"]
    assert first == [0, 6, "MB", "ctranslate2/model.bin"] and second == [0, 6, "MB", "model.safetensors"]
    assert end == [6, 6, "MB", ""]


def test_what_is_ours_in_a_folder_of_this_machine(folder):
    assert foreign_files(folder, MODEL) == []
    (folder / "thesis.docx").write_text("mine")
    assert foreign_files(folder, MODEL) == ["thesis.docx"]
    assert "model.safetensors" in foreign_files(folder, SPACE)
