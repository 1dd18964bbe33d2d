"""What notebooks call besides the stages: tokens, folders, the live chart, tables, players, the microphone."""

import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path
from urllib.request import urlopen

import pytest
from conftest import ROOT, tiny_training

from lengua import evaluation, notebook
from lengua.notebook import app, live, tables
from lengua.options import EvaluateOptions
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import write_jsonl
from lengua.runtime.progress import Progress
from lengua.training.checks import Check

# Colab


class Missing(Exception):
    """Colab has no such secret."""


class Denied(Exception):
    """Colab's reader did not allow it."""


@pytest.fixture
def in_colab(monkeypatch):
    """A kernel that has what Colab's kernels have: secrets, and a Drive to mount. Returns what was mounted."""
    secrets, mounted = {"HF_TOKEN": "hf_secret", "OPENAI_API_KEY": None}, []
    userdata, drive = types.ModuleType("userdata"), types.ModuleType("drive")
    userdata.SecretNotFoundError, userdata.NotebookAccessError = Missing, Denied

    def get(name):
        if name not in secrets:
            raise Missing(name)
        if secrets[name] is None:
            raise Denied(name)
        return secrets[name]

    userdata.get, drive.mount = get, mounted.append
    package = types.ModuleType("google.colab")
    package.userdata, package.drive = userdata, drive
    monkeypatch.setitem(sys.modules, "google.colab", package)
    return mounted


@pytest.fixture
def no_tokens(monkeypatch):
    """An environment without tokens, left so."""
    for name in notebook.SECRET_NAMES:
        monkeypatch.setenv(name, "")


def test_tokens_come_from_colab_where_there_are_none(in_colab, no_tokens, monkeypatch):
    assert notebook.take_secrets() == ["HF_TOKEN"]
    assert os.environ["HF_TOKEN"] == "hf_secret" and not os.environ["OPENAI_API_KEY"]
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert notebook.take_secrets() == ["HF_TOKEN"] and os.environ["HF_TOKEN"] == "hf_mine"


def test_a_run_on_drive_is_mounted_first(in_colab):
    assert notebook.out_folder("drive:lengua/es") == Path("/content/drive/MyDrive/lengua/es")
    assert in_colab == ["/content/drive"]
    assert notebook.out_folder("runs/es") == Path("runs/es") and len(in_colab) == 1
    with pytest.raises(RequestError, match="drive:lengua/es"):
        notebook.out_folder("drive:/")
    sys.modules.pop("google.colab")
    with pytest.raises(RequestError, match="Colab"):
        notebook.out_folder("drive:lengua/es")


def test_the_machine_is_told_and_no_token(in_colab, no_tokens, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_mine")
    told = notebook.describe_machine(Path("runs/es"))
    assert "Python" in told and "torch" in told and "runs/es: it is lost with this machine" in told
    assert "hf_secret_of_mine" not in told
    assert "survives" in notebook.describe_machine(notebook.out_folder("drive:lengua/es"))


# Tables


def rows(table: str) -> list[list[str]]:
    """Return the cells of a Markdown table, without its head."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_a_label_is_shown_token_by_token(tiny_model):
    found = rows(notebook.label_table(str(tiny_model), "sí a", "es"))
    read, wanted = [row[1] for row in found], [row[2] for row in found]
    prompt = ["startoftranscript", "es", "transcribe", "notimestamps"]
    assert [text.split("&lt;\\|")[1].split("\\|")[0] for text in read[:4]] == prompt
    assert wanted[:3] == ["*not asked*"] * 3 and "endoftext" in wanted[-1]
    assert wanted[3].startswith("␣ <small>") and "(part of a letter)" in "".join(wanted)
    assert read[4:] == wanted[3:-1]


def test_an_alignment_names_what_each_word_counts_as():
    table = notebook.alignment_table("el perro come pan", "El pero come un pan *hoy*")
    assert rows(table) == [
        ["el", "el", ""],
        ["perro", "pero", "substituted"],
        ["come", "come", ""],
        ["–", "un", "inserted"],
        ["pan", "pan", ""],
        ["–", "hoy", "inserted"],
    ]
    assert table.endswith("1 substituted, 0 deleted, 2 inserted; 4 words were said: WER 75%.")
    assert ["dos", "–", "deleted"] in rows(notebook.alignment_table("uno dos", "uno"))
    loop = notebook.alignment_table("hola", "hola " * 300)
    assert len(rows(loop)) == 41 and "and 260 more words" in loop


def test_padding_is_measured(tiny_model):
    alone, padded = rows(notebook.padding_table(str(tiny_model), 0.5))
    assert (alone[0], alone[1], alone[3]) == ("the clip alone", "0.6", "1.0")  # 50 frames, up to a multiple of 8
    assert (padded[0], padded[1]) == ("padded", "1.0")
    assert all(seconds > 0 for seconds in tables.encoder_seconds(tiny_model, [56, 100]))


def test_a_store_tells_what_is_in_it_and_whose_it_is(tiny_store, monkeypatch):
    table = notebook.splits_table(tiny_store)
    assert [row[:2] for row in rows(table)] == [["train", "15"], ["dev", "4"], ["test", "5"]]
    manifest = tiny_store.manifest | {"attribution": "Ana", "dropped": {"silence": {"count": 1200, "examples": []}}}
    monkeypatch.setattr("lengua.notebook.tables.read_json", lambda path: manifest)
    assert rows(notebook.splits_table(tiny_store))[-1][:2] == ["*left out: silence*", "1,200"]
    assert notebook.splits_table(tiny_store).endswith("\n\nRecordings: Ana.")


def test_checks_that_fail_come_with_their_cure():
    good, bad = Check("end", True, "an end", "one", "-"), Check("start", False, "one | start", "two", "take one out")
    first, second = rows(tables.checks_table([good, bad]))
    assert first == ["ok", "end", "one"]
    assert second == ["**wrong**", "start", "two. Expected one \\| start: take one out"]


@pytest.mark.slow
def test_preflight_looks_at_what_training_will_use_and_trains_nothing(tiny_store, tiny_model, tmp_path):
    table = tables.preflight_table(tiny_training(str(tiny_store.path), tiny_model, tmp_path / "run"))
    assert len(rows(table)) >= 15 and "**wrong**" not in table
    assert not (tmp_path / "run/model").exists() and not (tmp_path / "run/run.json").exists()


def test_examples_are_text_and_no_markup(tmp_path):
    said = {"id": "1", "speaker": "a", "window": "padded", "set": "test", "reference": "a|b"}
    heard = {"base": "*c* <img>", "fine-tuned": "a|b"}
    records = [said | {"model": model, "hypothesis": text} for model, text in heard.items()]
    write_jsonl(tmp_path / "hypotheses.jsonl", records)
    assert rows(notebook.examples_table(tmp_path)) == [["a\\|b", "\\*c\\* &lt;img&gt;", "a\\|b"]]


def test_the_metric_is_found_in_the_tree_and_its_absence_told(monkeypatch, tmp_path):
    assert Path(notebook.metric_path()) == ROOT / "metrics/lengua_wer/lengua_wer.py"
    monkeypatch.setattr("lengua.notebook.tables.METRIC_FILE", Path("metrics/none.py"))
    with pytest.raises(LenguaError, match="install lengua from a wheel"):
        notebook.metric_path()


# Clips


@pytest.fixture(scope="module")
def measured(tiny_store, tiny_model, tmp_path_factory) -> Path:
    """The folder of an evaluation of the tiny model."""
    out = tmp_path_factory.mktemp("evaluation")
    evaluation.evaluate(EvaluateOptions(str(tiny_model), str(tiny_store.path), out=out, resamples=20))
    return out


def test_the_worst_clips_have_players_and_their_words(measured, tiny_store):
    html = notebook.worst_clips_html(measured, tiny_store.path, 2).data
    assert html.count("<section") == html.count('<audio controls preload="none" src="data:audio/') == 2
    assert "wrong</small>" in html and 'lang="es"' in html
    assert "<dl" not in html, "Jupyter floats its terms"
    assert "no sound" in notebook.worst_clips_html(measured).data


def test_what_a_model_wrote_is_text_in_the_page(measured, tmp_path):
    records = [json.loads(line) for line in (measured / "hypotheses.jsonl").read_text().splitlines()]
    write_jsonl(tmp_path / "hypotheses.jsonl", [one | {"hypothesis": "<script>x</script>"} for one in records])
    (tmp_path / "results.json").write_bytes((measured / "results.json").read_bytes())
    html = notebook.worst_clips_html(tmp_path).data
    assert "<script>" not in html and "&lt;script&gt;" in html


def test_an_example_is_a_clip_with_some_words(tiny_folder):
    assert notebook.example_clip(tiny_folder, "es").text == "el corazón"
    assert notebook.example_clip(tiny_folder, "es", "dev").text == "la montaña"
    with pytest.raises(RequestError, match="name another split"):
        notebook.example_clip(tiny_folder, "es", "validated")


# The live chart


class Kept(list):
    """Stands in for a place in a cell, and keeps all that was shown there."""

    show = list.append


@pytest.fixture
def chart(tmp_path) -> live.LiveChart:
    chart = live.LiveChart(tmp_path, every_s=1000.0)
    chart.line, chart.chart = Kept(), Kept()
    return chart


def step(done: int, note: str = "loss 2.00") -> Progress:
    return Progress("training", done, 40, "steps", note)


def test_the_chart_has_one_place_and_is_drawn_at_evaluations_and_in_the_end(chart, tmp_path, capsys):
    chart.stream = sys.stdout  # which capsys has put there after the fixture was made
    with chart as watch:
        watch(Progress("features", 3, 3))
        watch(step(1))
        assert len(chart.chart) == 1  # its place, for nothing is written down yet
        # the last line is being written
        (tmp_path / "history.jsonl").write_text('{"step": 1, "seconds": 1.0, "loss": 2.0}\n{"step": 2, "sec')
        watch(step(2))
        assert len(chart.chart) == 1  # not so soon
        watch(step(2, "dev WER 50.0%"))
        watch(Progress("dev", 2, None, "", "step 2: dev WER 50.0%"))
        assert len(chart.chart) == 2
    assert len(chart.chart) == 3 and all(one.data.startswith(b"\x89PNG") for one in chart.chart[1:])
    assert "2/40 steps" in chart.line[-1].data and "dev WER 50.0%" in chart.line[-1].data
    said = capsys.readouterr().out
    assert "features: 3/3 clips" in said and "dev: step 2" in said and "training" not in said


def test_lines_are_not_written_faster_than_one_reads(chart):
    for done in range(1, 40):
        chart(step(done))
    assert len(chart.line) == 1
    chart(step(40))
    assert len(chart.line) == 2


# The microphone


@pytest.mark.slow
def test_the_app_is_served_until_it_is_closed(tiny_model, capsys):
    address = notebook.microphone(tiny_model, "es")
    assert urlopen(address, timeout=20).status == 200
    app.close()
    with pytest.raises(OSError):
        urlopen(address, timeout=5)


def test_an_app_that_does_not_come_up_has_its_last_words_told(tmp_path):
    with pytest.raises(LenguaError, match=f"found lengua: .*{tmp_path.name}"):
        app._started(["compare", str(tmp_path)], port=1)


TETHERED = """
import os, threading, time
from lengua.notebook.app import end_with_input
threading.Thread(target=end_with_input, daemon=True).start()
print(os.getpid(), flush=True)
time.sleep(60)
"""
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE)
time.sleep(60)
"""


def test_a_process_on_the_cord_ends_with_whoever_started_it():
    command = [sys.executable, "-c", PARENT, TETHERED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        child = int(parent.stdout.readline())
        os.kill(child, 0)  # it is there
        start = time.monotonic()
        parent.kill()  # and so not asked to tidy up
        assert parent.stdout.read() == ""  # until the child, too, has let go of it
    assert time.monotonic() - start < 30
