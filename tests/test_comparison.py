"""comparison, runs, curves: runs side by side, whole or torn, and what their files cannot tell."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import tiny_training

from lengua.cli import main
from lengua.data import features
from lengua.options import CompareOptions, FeatureOptions, TrainOptions
from lengua.runtime.errors import RequestError
from lengua.runtime.files import read_json, read_jsonl, write_json, write_jsonl
from lengua.training.compare import RUNS_HEADER, compare, differences, format_option, run_names, runs_table
from lengua.training.runs import Run, read_run
from lengua.training.train import train


@pytest.fixture(scope="module")
def options(tiny_store, tiny_model, tmp_path_factory) -> TrainOptions:
    """Six steps of four clips, two evaluations."""
    return tiny_training(
        str(tiny_store.path),
        tiny_model,
        tmp_path_factory.mktemp("runs") / "slow",
        recipe=Path("recipes/slow.yaml"),
        learning_rate=1e-4,
    )


@pytest.fixture(scope="module")
def pair(options) -> tuple[Path, Path]:
    """Two finished runs, the second at a higher rate."""
    fast = replace(options, out=options.out.parent / "fast", recipe=None, learning_rate=2e-3)
    return train(options).path, train(fast).path


def copied(run: Path, folder: Path, **changed) -> Path:
    """Copy what a comparison reads of a run, with other options."""
    folder.mkdir(parents=True)
    record = read_json(run / "run.json")
    write_json(folder / "run.json", record | {"options": record["options"] | changed})
    shutil.copy(run / "history.jsonl", folder)
    return folder


def pretended(name: str, *history: dict, **options) -> Run:
    return Run(Path(name), {"options": {"source": "x", **options}, "finished": True}, list(history), 0)


def test_finished_runs_are_laid_side_by_side(pair):
    result = compare(CompareOptions(pair))
    slow, fast = result.rows
    assert (slow.run, slow.recipe, slow.differs) == ("slow", "slow", {"learning_rate": 1e-4})
    assert (fast.run, fast.recipe, fast.differs) == ("fast", None, {"learning_rate": 2e-3})
    for row in result.rows:
        kept = read_json(row.path / "run.json")
        assert row.finished and row.state == "finished" and row.base == kept["options"]["base"]
        assert (row.wer, row.steps) == (kept["dev_wer"], 6) and row.wer_low <= row.wer <= row.wer_high
        assert row.wer == min(record.get("dev_wer", 9) for record in read_jsonl(row.path / "history.jsonl"))
        assert row.best_step in (3, 6)
        assert row.seconds >= kept["seconds"]["training"] > 0
        assert row.clips_per_second == pytest.approx(6 * 4 / row.seconds, abs=0.01)
    assert result.notes == []
    assert result.figure == pair[0].parent / "compare.png" and result.figure.is_file()


def test_a_run_that_was_stopped_tells_how_far_it_came(pair, tmp_path):
    stopped = copied(pair[0], tmp_path / "stopped")
    write_json(stopped / "run.json", read_json(stopped / "run.json") | {"finished": False})
    history = (stopped / "history.jsonl").read_text().splitlines()
    history = [line for line in history if json.loads(line)["step"] == 3]
    (stopped / "history.jsonl").write_text("\n".join([*history, '{"step": 4, "loss": 1.']))  # killed while it wrote
    result = compare(CompareOptions((*pair, stopped), tmp_path / "out/figure.png"))
    row = result.rows[-1]
    assert (row.finished, row.steps, row.state) == (False, 3, "at 50 %")
    assert result.notes == [] and result.figure == tmp_path / "out/figure.png"


def test_lines_that_are_cut_off_in_the_middle_are_told(pair, tmp_path):
    torn = copied(pair[0], tmp_path / "torn")
    whole = (torn / "history.jsonl").read_text()
    (torn / "history.jsonl").write_text(f'{{"step": 1, "lo\n[1]\n{whole}')
    result = compare(CompareOptions((torn,)))
    assert result.notes == ["torn: 2 lines of history.jsonl cannot be read and are left out"]
    assert result.rows[0].wer == read_json(pair[0] / "run.json")["dev_wer"]


def test_a_run_without_a_step_has_its_line_and_no_curve(pair, tmp_path):
    fresh = copied(pair[0], tmp_path / "fresh")
    (fresh / "history.jsonl").unlink()
    write_json(fresh / "run.json", {"options": read_json(fresh / "run.json")["options"], "finished": False})
    result = compare(CompareOptions((fresh,)))
    row = result.rows[0]
    assert (row.state, row.wer, row.steps, row.clips_per_second) == ("no step yet", None, 0, None)
    assert result.figure is None and not (tmp_path / "compare.png").exists()
    assert runs_table(result.rows).rows[0] == ["fresh", "slow", "–", "0", "0 s", "–", "no step yet"]


def test_other_windows_and_other_data_are_told(options, pair, tiny_folder, tmp_path):
    built = features.build(
        FeatureOptions(tiny_folder, tmp_path / "few", language="es", workers=1, base=options.base, limit=3)
    )
    few = train(replace(options, source=str(built.path), out=tmp_path / "runs/few", steps=2, evaluations=1)).path
    padded = copied(pair[1], tmp_path / "runs/padded", window="padded")
    result = compare(CompareOptions((pair[0], few, padded)))
    assert len(result.notes) == 2 and "window that each run trained for" in result.notes[1]
    note = result.notes[0]
    assert note.startswith("dev differs") and "slow, padded on folder:tonos at " in note
    assert ", 4 clips of 0.0 min" in note and "few on folder:tonos at " in note and ", 3 clips of" in note
    differs = {}, {"steps": 2, "evaluations": 1}, {"learning_rate": 2e-3, "window": "padded"}
    assert tuple(row.differs for row in result.rows) == differs


def test_where_a_store_is_gone_its_name_tells(pair, tmp_path):
    gone = copied(pair[0], tmp_path / "gone", source="stores/gone")
    note = compare(CompareOptions((pair[1], gone))).notes[0]
    source = read_json(pair[1] / "run.json")["options"]["source"]
    assert note.endswith(f"fast on {source}; gone on stores/gone")
    assert compare(CompareOptions((gone,))).notes == []


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ((), "expected runs.*; found none named; name folders"),
        (("nowhere", "{pair}"), "folders of runs; found nothing at nowhere; check the names"),
        (("{empty}",), "expected runs, with a run.json in each; found .*empty; name folders"),
    ],
)
def test_wrong_requests_are_explained(pair, tmp_path, runs, message):
    (tmp_path / "empty").mkdir()
    paths = tuple(Path(run.format(pair=pair[0], empty=tmp_path / "empty")) for run in runs)
    with pytest.raises(RequestError, match=message):
        compare(CompareOptions(paths))


def test_what_is_no_run_among_others_is_left_out(pair, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "run.json").write_text("[]")
    (tmp_path / "compare.png").write_bytes(b"")
    result = compare(CompareOptions((pair[0], tmp_path / "notes", tmp_path, tmp_path / "compare.png", pair[0])))
    assert [row.run for row in result.rows] == ["slow"]
    assert result.notes == [
        f"{tmp_path / 'notes'} is left out: no run.json, so no run",
        f"{tmp_path} is left out: no run.json, so no run",
    ]


def test_the_command_prints_a_table_and_json(pair, capsys):
    assert main(["compare", *map(str, pair)]) == 0
    told = capsys.readouterr().out
    words = " ".join(told.split())
    assert (
        all(name in words for name in RUNS_HEADER) and "learning_rate 1e-4" in words and "learning_rate 2e-3" in words
    )
    drawn, page = pair[0].parent / "compare.png", pair[0].parent / "compare.html"
    assert told.splitlines()[-1] == f"{drawn}, {page}" and told.startswith("all from ")
    assert "slow" in page.read_text(encoding="utf-8")
    assert main(["compare", *map(str, pair), "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["run"] for row in result["rows"]] == ["slow", "fast"] and result["figure"].endswith("compare.png")


# What differs


def test_what_most_runs_have_is_not_told():
    runs = [
        pretended("a", learning_rate=1e-5, batch_size=8, seed=1, out="a"),
        pretended("b", learning_rate=1e-5, batch_size=8, seed=2, out="b"),
        pretended("c", learning_rate=5e-6, batch_size=8, seed=3, out="c", filters={"max_hours": 20.0}),
    ]
    rare = {"learning_rate": 5e-6, "seed": 3, "filters.max_hours": 20.0}
    assert differences(runs) == [{"seed": 1}, {"seed": 2}, rare]
    assert differences(runs[1:]) == [{"learning_rate": 1e-5, "seed": 2}, rare]
    assert differences(runs[:1]) == [{}]


def test_an_older_run_had_the_defaults_of_what_it_does_not_name():
    assert differences([pretended("old"), pretended("new", learn="all", weight_decay=0.0)]) == [{}, {}]
    assert differences([pretended("old"), pretended("new", learn="lora")]) == [{"learn": "all"}, {"learn": "lora"}]


def test_steps_and_minutes_take_the_place_of_epochs():
    runs = [pretended("a", steps=500, epochs=2.0), pretended("b", epochs=3.0), pretended("c", minutes=6.0)]
    assert differences(runs) == [{"steps": 500}, {"epochs": 3.0}, {"minutes": 6.0}]


def test_how_far_a_run_came_follows_from_how_its_length_was_said():
    last = {"step": 30, "seconds": 60.0, "epoch": 0.5}
    runs = [pretended("a", last, steps=120), pretended("b", last, epochs=3.0), pretended("c", last, minutes=6.0)]
    runs[2].record["plan"] = {"steps": 40}
    for run, state in zip(runs, ("at 25 %", "at 17 %", "at 75 %"), strict=True):
        assert run.state == "finished"
        assert replace(run, record=run.record | {"finished": False}).state == state


def test_options_are_written_as_people_do():
    told = {
        "learning_rate": 2.5e-5,
        "padded_share": 0.08,
        "stream": True,
        "margin_s": [0.3, 1.5],
        "epochs": 2.0,
        "filters.accent": [],
    }
    assert [format_option(*one) for one in told.items()] == [
        "learning_rate 2.5e-5",
        "padded_share 0.08",
        "stream on",
        "margin_s 0.3 1.5",
        "epochs 2",
        "filters.accent none",
    ]


def test_other_bases_and_intervals_stand_in_the_table(tmp_path):
    paths = []
    for base in ("openai/whisper-base", "openai/whisper-small"):
        folder = tmp_path / base.rpartition("-")[2]
        write_json(folder / "run.json", {"options": {"source": "x", "base": base, "epochs": 4.0}, "finished": False})
        look = {
            "step": 50,
            "seconds": 100.0,
            "epoch": 1.0,
            "dev_wer": 0.13,
            "dev_wer_low": 0.101,
            "dev_wer_high": 0.162,
        }
        write_jsonl(folder / "history.jsonl", [look, look | {"step": 60, "dev_wer": 0.2, "epoch": 3.0}])
        paths.append(folder)
    rows = compare(CompareOptions(tuple(paths))).rows
    assert runs_table(rows).rows == [
        ["base", "whisper-base", "13.0 % (10.1 to 16.2)", "60", "1.7 min", "4.8", "at 75 %"],
        ["small", "whisper-small", "13.0 % (10.1 to 16.2)", "60", "1.7 min", "4.8", "at 75 %"],
    ]
    assert [cells[1] for cells in runs_table(rows[:1]).rows] == ["–"]


def test_runs_of_one_name_are_told_apart(pair, tmp_path, monkeypatch):
    monkeypatch.chdir(pair[0])
    runs = [read_run(Path()), read_run(copied(pair[1], tmp_path / "slow")), read_run(pair[1])]
    assert run_names(runs) == [".", str(tmp_path / "slow"), "fast"]
    assert run_names(runs[:1]) == ["slow"]
