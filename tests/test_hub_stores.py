"""A feature store on a Hub on loopback: copied, read, streamed, measured. Against the real clients."""

from pathlib import Path

from hub_server import a_hub, sha256  # noqa: F401 - a fixture
from test_sources_hub import MIRROR

from lengua.runtime.files import file_sha256, read_json

IMPORTS = """
from dataclasses import replace
from pathlib import Path
from lengua.data import features
from lengua.data.hub_store import push_store
from lengua.data.hub_store import find_hub_store as find
from lengua.options import FeatureOptions, Filters
from lengua.data.streaming import Stream
"""


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
        "expected an answer about dev/shard-00000.parquet of the data set ana/es; found the Hub in trouble (503)"
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
    from test_sources_hub import parquet

    header, *lines = (line.split("\t") for line in (release / "train.tsv").read_text(encoding="utf-8").splitlines())
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    for row in rows:
        row["audio"] = {"bytes": (release / "clips" / row["path"]).read_bytes(), "path": row["path"]}
    return parquet(rows, row_group_size=20)
