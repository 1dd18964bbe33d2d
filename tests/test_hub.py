"""hub: questions that end, rights, one commit, stores as data sets; against a real server and the real client."""

import hashlib
import json
import random
from pathlib import Path

import pytest
import yaml
from hub_server import READER, a_hub  # noqa: F401 - a fixture

from lengua.data.hub_store import PRIVATE_REASONS, private_reason, store_card
from lengua.runtime.hub import list_visible_files, write_refusal

LOOK_UP = "from lengua.runtime.hub import fetch_repo_info"
UPLOAD = "from pathlib import Path\nfrom lengua.runtime.hub import upload_folder, check_token"
PUSH = "from pathlib import Path\nfrom lengua.data.hub_store import push_store"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a large file, a small one, an empty one and some that nobody wants to see."""
    root = tmp_path / "export"
    (root / "ct2").mkdir(parents=True)
    (root / ".cache").mkdir()
    for name in (".cache/lock", ".hidden", "config.json", "ct2/empty.json"):
        (root / name).write_text("" if "empty" in name else name)
    (root / "model.safetensors").write_bytes(random.Random(1).randbytes(300_000))
    return root


@pytest.fixture
def store(tmp_path) -> Path:
    """What looks like a complete store: a manifest and two shards."""
    return write_store(tmp_path / "stores/es", "common_voice:cv-corpus-25.0/es", shards=2)


def write_store(root: Path, source: str, shards: int) -> Path:
    for index in range(shards):
        (path := root / f"train/shard-{index:05}.parquet").parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(index).randbytes(5000))
    counts = {"utterances": 300 * shards, "hours": 0.5, "speakers": 7, "shards": shards, "bytes": 5000 * shards}
    manifest = {
        "format": "lengua-feature-store",
        "version": 1,
        "source": source,
        "revision": "abc",
        "licence": "CC0-1.0",
        "attribution": "",
        "n_mels": 80,
        "filters": {"min_seconds": 0.2, "min_up_votes": None},
        "splits": {"train": counts, "dev": {**counts, "utterances": 0, "shards": 0}},
        "languages": {"es": 300 * shards},
        "dropped": {"missing clip": {"count": 3, "examples": ["a"]}},
    }
    (root / "manifest.json").write_text(json.dumps(manifest))
    return root


def only(told: list[dict]) -> dict:
    (one,) = told
    return one


# Questions


def test_what_stands_there_is_told_without_torch(hub):
    repo = hub.repo("dataset", "ana/set", {"README.md": b"---\nlanguage: es\n---\n", "a/b.parquet": b"x"})
    code = "found = fetch_repo_info('ana/set')\nshow(lambda: (found.sha, [file.rfilename for file in found.siblings]))"
    told = only(hub.client(code, LOOK_UP))
    assert told["value"] == [repo.commits[-1].oid, ["README.md", "a/b.parquet"]] and not told["torch"]


def test_what_the_hub_refuses_is_explained(hub):
    hub.repo("dataset", "eva/gated", gated=True)
    hub.repo("dataset", "ana/forbidden")
    hub.fail("GET", "/ana/forbidden$", status=403)
    names = ["eva/missing", "eva/gated", "ana/forbidden", "no name", "ana/set@x"]
    expected = {
        "eva/missing": "expected the dataset eva/missing; found the Hub has none for this token; check the name",
        "eva/gated": "expected access to the dataset eva/gated; found it is gated; accept its terms on its page",
        "ana/forbidden": "expected a token for the dataset ana/forbidden; found one that is refused (403); make",
        "no name": "expected what the Hub accepts for the dataset no name; found Repo id must",
        "ana/set@x": "expected what the Hub accepts for the dataset ana/set@x; found Repo id must",
    }
    told = hub.client("\n".join(f"show(lambda: fetch_repo_info({name!r}))" for name in names), LOOK_UP)
    for name, one in zip(names, told, strict=True):
        assert one["error"].startswith(expected[name]) and one["exit_code"] == 2 and one["seconds"] < 2
    for token in (None, "hf_wrong"):
        told = only(hub.client("show(lambda: fetch_repo_info('eva/missing'))", LOOK_UP, token=token))
        assert "found the Hub has none for this token" in told["error"]


@pytest.mark.parametrize("fault", [{"status": 429}, {"status": 500}, {"status": 503}, {"keep": 0.5}])
def test_passing_trouble_is_waited_out(hub, fault):
    repo = hub.repo("dataset", "ana/set", {"README.md": b"x" * 4000})
    hub.fail("GET", "/api/datasets/ana/set", times=2, **fault)
    told = only(hub.client("show(lambda: fetch_repo_info('ana/set').sha)", LOOK_UP))
    assert told["value"] == repo.commits[-1].oid and 2.5 < told["seconds"] < 8
    assert hub.times("GET", "/api/datasets/ana/set") == 3


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ({"status": 429}, "too many requests (429); wait some minutes and run it again"),
        ({"status": 500}, "the Hub in trouble (500); try again later"),
        ({"keep": 0.5}, "RemoteProtocolError: "),
        ({"hang_s": 30}, "none within 1 s; check the network and try again"),
    ],
)
def test_trouble_that_stays_ends_in_seconds(hub, fault, found):
    hub.repo("dataset", "ana/set", {"README.md": b"x" * 4000})
    hub.fail("GET", "/api/datasets/ana/set", **fault)
    code = "asking.HUB_TIMEOUT_S = 1.0\nshow(lambda: fetch_repo_info('ana/set').sha)"
    told = only(hub.client(code, f"{LOOK_UP}\nfrom lengua.runtime import hub as asking"))
    assert told["error"].startswith("expected an answer about the dataset ana/set; found ") and found in told["error"]
    assert told["exit_code"] == 1 and told["seconds"] < 9
    assert hub.times("GET", "/api/datasets/ana/set") == 3


def test_no_hub_at_all(hub):
    code = "show(lambda: fetch_repo_info('ana/set'))"
    told = only(hub.client(code, LOOK_UP, HF_ENDPOINT="http://127.0.0.1:9"))
    assert "ConnectError" in told["error"] and told["seconds"] < 8
    told = only(hub.client(code, LOOK_UP, HF_HUB_OFFLINE="1"))
    assert "HF_HUB_OFFLINE is set" in told["error"] and told["seconds"] < 2 and not hub.asked


# Rights


def test_rights_are_checked_before_anything_is_sent(hub):
    code = "for name in ('ana/new', 'escuela/new', 'eva/new', 'new'): show(lambda: check_token(name))"
    mine, ours, foreign, bare = hub.client(code, UPLOAD)
    assert mine["value"] == ours["value"] == "ana"
    assert "found one of ana, who is not in eva; make a token with write access" in foreign["error"]
    assert "expected a repository as owner/name; found 'new'" in bare["error"]
    code = "show(lambda: check_token('ana/new'))\nshow(lambda: check_token('ana/new', write=False))"
    refused, reading = hub.client(code, UPLOAD, token=READER)
    assert "one that may only read" in refused["error"] and reading["value"] == "ana"
    assert (
        "none on this machine; log in"
        in only(hub.client("show(lambda: check_token('ana/new'))", UPLOAD, token=None))["error"]
    )
    wrong = only(hub.client("show(lambda: check_token('ana/new'))", UPLOAD, token="hf_wrong"))
    assert "found one that is refused (401)" in wrong["error"] and wrong["seconds"] < 2
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


def test_a_folder_becomes_one_commit(hub, folder):
    code = f"""
for message in ('First', 'Again'):
    show(lambda: upload_folder(Path({str(folder)!r}), 'ana/model', 'model', True, message, {{'README.md': b'Hola'}}))
"""
    first, again = hub.client(code, UPLOAD)
    repo = hub.repos["model", "ana/model"]
    assert [commit.message for commit in repo.commits] == ["initial commit", "First"] and repo.private
    assert first["value"] == again["value"] == repo.commits[-1].oid and not first["torch"]
    sent = {name: source.read_bytes() for name, source in list_visible_files(folder).items()}
    assert repo.files == {**sent, "README.md": b"Hola", ".gitattributes": b""}
    assert sorted(sent) == ["config.json", "ct2/empty.json", "model.safetensors"]
    assert hub.times("PUT", "/lfs/") == 1


def test_a_private_upload_never_lands_in_a_public_repository(hub, folder):
    hub.repo("model", "ana/model", {"a": b""})
    told = only(hub.client(f"show(lambda: upload_folder(Path({str(folder)!r}), 'ana/model', private=True))", UPLOAD))
    assert "found a public one of that name; make it private" in told["error"] and told["exit_code"] == 2
    assert list(hub.repos["model", "ana/model"].files) == ["a"] and not hub.large


@pytest.mark.parametrize(
    ("method", "path", "fault"),
    [
        ("POST", "/preupload/", {"status": 500}),
        ("POST", "/preupload/", {"keep": 0.3}),
        ("PUT", "/lfs/", {"status": 503}),
        ("PUT", "/lfs/", {"keep": 0.0}),
        ("POST", "/commit/", {"status": 500}),
        ("POST", "/commit/", {"keep": 0.5}),
        ("POST", "/repos/create", {"status": 429}),
    ],
)
def test_an_upload_survives_passing_trouble_as_one_commit(hub, folder, method, path, fault):
    hub.fail(method, path, times=1, **fault)
    told = only(hub.client(f"show(lambda: upload_folder(Path({str(folder)!r}), 'ana/model', message='First'))", UPLOAD))
    repo = hub.repos["model", "ana/model"]
    assert told["value"] == repo.commits[-1].oid
    assert [commit.message for commit in repo.commits] == ["initial commit", "First"]
    assert repo.files["model.safetensors"] == (folder / "model.safetensors").read_bytes()


def test_an_upload_that_broke_off_goes_on_where_it_stopped(hub, folder):
    (folder / "other.safetensors").write_bytes(random.Random(2).randbytes(300_000))
    missing = hashlib.sha256((folder / "other.safetensors").read_bytes()).hexdigest()
    fault = hub.fail("PUT", f"/lfs/{missing}", status=403)
    code = f"show(lambda: upload_folder(Path({str(folder)!r}), 'ana/model', message='First'))"
    broken = only(hub.client(code, UPLOAD))
    assert "one that is refused (403)" in broken["error"] and len(hub.repos["model", "ana/model"].commits) == 1
    fault.times = 0
    assert only(hub.client(code, UPLOAD))["value"] == hub.repos["model", "ana/model"].commits[-1].oid
    assert hub.times("PUT", "/lfs/") == 3, "what had arrived is not sent again"


# Stores


def test_a_store_of_common_voice_is_pushed_as_a_private_data_set(hub, store):
    told = only(hub.client(f"show(lambda: push_store(Path({str(store)!r}), 'ana/es'))", PUSH))["value"]
    repo = hub.repos["dataset", "ana/es"]
    assert told["private"] and repo.private and told["because"] == PRIVATE_REASONS["common_voice"]
    assert told["revision"] == repo.commits[-1].oid and told["url"] == f"{hub.endpoint}/datasets/ana/es"
    shards = ["train/shard-00000.parquet", "train/shard-00001.parquet"]
    assert sorted(repo.files) == [".gitattributes", "README.md", "manifest.json", *shards]
    assert len(repo.commits) == 2 and "This data set is private: the terms" in repo.files["README.md"].decode()


def test_pushed_again_with_fewer_shards_none_is_left_over(hub, store, tmp_path):
    smaller = write_store(tmp_path / "stores/smaller", "sample:es", shards=1)
    code = f"for path in {[str(store), str(smaller)]}: show(lambda: push_store(Path(path), 'ana/es', private=False))"
    told = hub.client(code, PUSH)
    repo = hub.repos["dataset", "ana/es"]
    assert [one["value"]["private"] for one in told] == [False, False] and not repo.private
    assert len(repo.commits) == 3 and sorted(path for path in repo.files if "shard" in path) == [
        "train/shard-00000.parquet"
    ]


def test_what_is_no_store_is_not_pushed(hub, folder):
    told = only(hub.client(f"show(lambda: push_store(Path({str(folder)!r}), 'ana/es'))", PUSH))
    assert "expected a complete feature store; found no manifest.json in" in told["error"] and not hub.repos


def test_which_stores_are_private_and_why():
    assert all(private_reason(f"{scheme}:x") for scheme in ("collective", "common_voice", "folder"))
    assert private_reason("sample:es") is None and private_reason("hub:a/b:es") is None


def test_the_card_says_whose_it_is_and_how_to_read_it(store):
    manifest = json.loads((store / "manifest.json").read_text())
    card = store_card({**manifest, "attribution": 'Ana "A" Ruiz'}, "ana/es")
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "cc0-1.0" and front["language"] == ["es"]
    (config,) = front["configs"]
    assert config["data_files"] == [{"split": "train", "path": "train/shard-*.parquet"}]
    for told in (
        "cv-corpus-25.0/es",
        'Attribution: Ana "A" Ruiz.',
        "| train | 600 | 0.50 | 7 |",
        "| missing clip | 3 |",
    ):
        assert told in card
    assert "min_seconds 0.2" in card and "min_up_votes" not in card and "private" not in card
    other = store_card({**manifest, "licence": "all: rights\nreserved", "attribution": ""}, "ana/es")
    front = yaml.safe_load(other.split("---\n")[1])
    assert (front["license"], front["license_name"]) == ("other", "all: rights\nreserved")


def test_the_card_reads_a_row_back(store, tiny_store, tmp_path, capsys):
    """The five lines of the card, on a store of this machine."""
    card = store_card(tiny_store.manifest, "ana/es")
    code = card.split("```python\n")[1].split("```")[0]
    shards = str(tiny_store.path / "train/*.parquet")
    code = code.replace(
        'load_dataset("ana/es", split="train"', f'load_dataset("parquet", data_files={shards!r}, split="train"'
    )
    scope: dict = {}
    exec(code, scope)
    row = tiny_store.split("train")[0]
    assert row.text in capsys.readouterr().out
    assert abs(scope["log_mel"] - row.log_mel()).max() < 1e-6
