"""A feature store on a Hub on loopback: pushed with its card, copied, read, streamed, measured."""

import shutil
from pathlib import Path

import pytest
import yaml
from hub_server import a_hub, sha256  # noqa: F401 - a fixture
from test_sources_hub import MIRROR, only, parquet

from lengua.data.hub_store import PRIVATE_REASONS, private_reason, store_card
from lengua.runtime.files import file_sha256, read_json, write_json

CHANGES = {
    "source": "common_voice:cv-corpus-25.0/es",
    "licence": "CC0-1.0",
    "filters": {"min_seconds": 0.2, "min_up_votes": None},
    "dropped": {"missing clip": {"count": 3, "examples": ["a"]}},
}
"""What the manifest of a release says otherwise than that of a small folder."""
IMPORTS = """
from dataclasses import replace
from pathlib import Path
from lengua.data import features
from lengua.data.hub_store import push_store
from lengua.data.hub_store import find_hub_store as find
from lengua.options import FeatureOptions, Filters
from lengua.data.streaming import Stream
"""


@pytest.fixture
def store(tiny_store, tmp_path) -> Path:
    """A store as one of Common Voice would be."""
    folder = tmp_path / "stores/es"
    shutil.copytree(tiny_store.path, folder)
    write_json(folder / "manifest.json", tiny_store.manifest | CHANGES)
    return folder


def test_a_store_of_common_voice_is_pushed_as_a_private_data_set(hub, store):
    told = only(hub.client(f"show(lambda: push_store(Path({str(store)!r}), 'ana/es'))", IMPORTS))["value"]
    repo = hub.repos["dataset", "ana/es"]
    assert told["private"] and repo.private and told["because"] == PRIVATE_REASONS["common_voice"]
    assert told["revision"] == repo.commits[-1].oid and told["url"] == f"{hub.endpoint}/datasets/ana/es"
    shards = [f"{split}/shard-00000.parquet" for split in ("dev", "test", "train")]
    assert sorted(repo.files) == sorted([".gitattributes", "README.md", "manifest.json", *shards])
    assert len(repo.commits) == 2 and "This data set is private: the terms" in repo.files["README.md"].decode()


def test_pushed_again_with_fewer_shards_none_is_left_over(hub, store):
    code = f"show(lambda: push_store(Path({str(store)!r}), 'ana/es', private=False))"
    code = f"{code}\nPath({str(store / 'dev/shard-00000.parquet')!r}).unlink()\n{code}"
    told, repo = hub.client(code, IMPORTS), hub.repos["dataset", "ana/es"]
    assert [one["value"]["private"] for one in told] == [False, False] and not repo.private
    assert "dev/shard-00000.parquet" in repo.commits[1].files and len(repo.commits) == 3
    assert "dev/shard-00000.parquet" not in repo.files and "train/shard-00000.parquet" in repo.files


def test_what_is_no_store_is_not_pushed(hub, tmp_path):
    told = only(hub.client(f"show(lambda: push_store(Path({str(tmp_path)!r}), 'ana/es'))", IMPORTS))
    assert "expected a complete feature store; found no manifest.json in" in told["error"] and not hub.repos


def test_the_card_says_whose_it_is_and_how_to_read_it(tiny_store):
    assert private_reason("folder:x") and private_reason("sample:es") is None is private_reason("hub:a/b:es")
    manifest = tiny_store.manifest | CHANGES
    card = store_card(manifest | {"attribution": 'Ana "A" Ruiz'}, "ana/es")
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "cc0-1.0" and front["language"] == ["es"]
    (config,) = front["configs"]
    assert config["data_files"][0] == {"split": "train", "path": "train/shard-*.parquet"}
    for told in (
        "cv-corpus-25.0/es",
        'Attribution: Ana "A" Ruiz.',
        "| train | 15 | 0.00 | 2 |",
        "| missing clip | 3 |",
    ):
        assert told in card
    assert "min_seconds 0.2" in card and "min_up_votes" not in card and "private" not in card
    other = store_card(manifest | {"licence": "all: rights\nreserved"}, "ana/es")
    front = yaml.safe_load(other.split("---\n")[1])
    assert (front["license"], front["license_name"]) == ("other", "all: rights\nreserved")


def test_the_card_reads_a_row_back(tiny_store, capsys):
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


# Read back


def digests(store: Path) -> dict[str, str]:
    return {str(path.relative_to(store)): file_sha256(path) for path in store.rglob("*") if path.is_file()}


def test_a_store_pushed_and_read_back_has_the_same_rows(hub, tiny_store):
    hub.repo("dataset", "eva/voices", MIRROR)
    hub.repo("dataset", "eva/web", {**MIRROR, "manifest.json": b'{"name": "an app"}'})
    code = f"""
show(lambda: push_store(Path({str(tiny_store.path)!r}), "ana/es", private=True).revision)
show(lambda: [find(name) for name in ("hub:eva/voices", "hub:eva/web", "sample:es")])
store = find("hub:ana/es")
show(lambda: [store.revision, store.manifest])
for split in ("train", "dev", "test"):
    show(lambda: [{{**vars(row), "mel": row.mel.tobytes(), "shape": row.mel.shape}} for row in store.rows(split)])
show(lambda: list(store.rows("validated")))
"""
    revision, others, about, *splits, wrong = hub.client(code, IMPORTS)
    assert others["value"] == [None] * 3 and not revision["torch"]
    assert about["value"] == [revision["value"], tiny_store.manifest]
    seen = 0
    for name, told in zip(("train", "dev", "test"), splits, strict=True):
        for mine, theirs in zip(tiny_store.split(name), told["value"], strict=True):
            seen += 1
            assert theirs["shape"] == list(mine.mel.shape) and theirs["mel"] == sha256(mine.mel.tobytes())
            assert theirs["audio"] == (sha256(mine.audio) if mine.audio else None)
            for field in ("id", "text", "language", "speaker", "duration_s", "extra", "frames", "peak"):
                assert theirs[field] == getattr(mine, field)
    assert seen == 24
    assert "utterances of the split 'validated'; found train (15), dev (4), test (5) in hub:ana/es" in wrong["error"]


def test_it_comes_down_byte_for_byte_and_goes_on_where_it_broke_off(hub, tiny_store):
    code = f"""
push_store(Path({str(tiny_store.path)!r}), "ana/es")
options = FeatureOptions("hub:ana/es", Path("copy"))
show(lambda: features.build(options).built)
show(lambda: sorted(str(path) for path in Path("copy").rglob("*") if path.is_file()))
show(lambda: features.build(options).built)
show(lambda: features.build(options).built)
show(lambda: features.build(replace(options, out=Path("part"), splits=("dev",))).splits)
"""
    hub.fail("GET", r"/resolve/.*test/shard", times=3, status=503)
    broken, left, whole, again, part = hub.client(code, IMPORTS)
    assert "found the Hub in trouble (503)" in broken["error"]
    assert left["value"] == ["copy/building.json", "copy/dev/shard-00000.parquet", "copy/train/shard-00000.parquet"]
    assert whole["value"] is True and again["value"] is False
    assert digests(hub.home / "copy") == digests(tiny_store.path)
    assert list(part["value"]) == ["dev"] == list(read_json(hub.home / "part/manifest.json")["splits"])


def test_what_cannot_be_asked_of_finished_features(hub, tiny_store):
    code = f"""
push_store(Path({str(tiny_store.path)!r}), "ana/es")
options = FeatureOptions("hub:ana/es", Path("copy"))
show(lambda: features.build(replace(options, limit=3)))
show(lambda: features.build(replace(options, filters=Filters(max_hours=1))))
show(lambda: features.build(replace(options, splits=("train", "validated"))))
Path("copy").mkdir()
Path("copy/letter.txt").write_text("mine")
show(lambda: features.build(options))
"""
    limit, filters, split, folder = hub.client(code, IMPORTS)
    for told in (limit, filters):
        assert "found a limit or filters for the feature store hub:ana/es" in told["error"]
    assert "expected the split 'validated' in hub:ana/es; found train, dev, test" in split["error"]
    assert "found copy with other things in it" in folder["error"]


def test_a_store_streams_through_passing_trouble_and_ends_with_what_stays(hub, tiny_store):
    code = f"""
push_store(Path({str(tiny_store.path)!r}), "ana/es")
show(lambda: len(list(find("hub:ana/es").rows("train"))))
show(lambda: len(list(find("hub:ana/es").rows("dev"))))
"""
    hub.fail("GET", r"/resolve/.*train/shard", times=1, keep=0.5)
    hub.fail("GET", r"/resolve/.*dev/shard", status=503)
    whole, broken = hub.client(code, IMPORTS)
    assert whole["value"] == 15
    assert (
        "expected an answer about dev/shard-00000.parquet of the dataset ana/es; found the Hub in trouble (503)"
        in broken["error"]
    )
    assert broken["seconds"] < 8


def test_folder_archive_hub_data_set_and_pushed_store_give_the_same_rows(hub, tiny_release):
    """One release of Common Voice in its four forms, as a stream of rows."""
    mirror = {"README.md": b"---\nlanguage: [es]\n---\n", "es/train-00000-of-00001.parquet": mirrored(tiny_release)}
    hub.repo("dataset", "eva/cv", mirror)
    release = str(tiny_release)
    code = f"""
def rows(source):
    blocks = Stream(FeatureOptions(source, workers=1), "train", window=64).blocks()
    row = lambda row: {{**vars(row), "mel": row.mel.tobytes()}}
    return [row(one) for one in next(blocks)]

folder = "common_voice:{release}"
push_store(features.build(FeatureOptions(folder, Path("store"), workers=1)).path, "ana/es")
for source in (folder, "common_voice:{tiny_release.parent.parent}/es.tar.gz", "hub:eva/cv", "hub:ana/es"):
    show(lambda: rows(source))
"""
    told = [one["value"] for one in hub.client(code, IMPORTS)]
    assert [len(rows) for rows in told] == [50] * 4 and len({row["id"] for row in told[0]}) == 50
    assert told[0] == told[1] == told[2] == told[3]


def test_a_run_learns_from_a_store_on_the_hub(hub, tiny_store, tiny_model):
    code = f"""
from lengua.evaluation import evaluate
from lengua.options import EvaluateOptions, TrainOptions
from lengua.training.train import train
push_store(Path({str(tiny_store.path)!r}), "ana/es")
options = TrainOptions(
    "hub:ana/es", Path("copied"), base={str(tiny_model)!r}, steps=2, batch_size=4, evaluations=1, device="cpu",
    precision="fp32", margin_s=(0.0, 0.1),
)
show(lambda: train(options).steps)
show(lambda: train(replace(options, out=Path("streamed"), stream=True, shuffle_window=16, workers=1)).steps)
show(lambda: [row["utterances"] for row in evaluate(EvaluateOptions("copied", "hub:ana/es", out=Path("out"))).rows])
show(lambda: sorted(str(path) for path in Path(".").rglob("*.parquet")))
"""
    copied, streamed, measured, shards = hub.client(code, IMPORTS, timeout=180, OMP_NUM_THREADS="1")
    assert copied["value"] == streamed["value"] == 2 and measured["value"] == [5, 5, 5]
    assert shards["value"] == [
        *(f"copied/store/{split}/shard-00000.parquet" for split in ("dev", "test", "train")),
        "out/store/test/shard-00000.parquet",
        "streamed/store/dev/shard-00000.parquet",
    ]


def mirrored(release: Path) -> bytes:
    """Return the train split of a release as the Parquet mirrors of Common Voice have it."""
    header, *lines = (line.split("\t") for line in (release / "train.tsv").read_text(encoding="utf-8").splitlines())
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    for row in rows:
        row["audio"] = {"bytes": (release / "clips" / row["path"]).read_bytes(), "path": row["path"]}
    return parquet(rows, row_group_size=20)
