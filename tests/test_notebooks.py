"""Every notebook: how it may look, that what it names exists, and a small run from top to bottom, offline."""

import ast
import importlib
import json
import re
import sys
import tomllib
from dataclasses import fields, is_dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from conftest import tiny_training
from IPython.core.inputtransformer2 import TransformerManager
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PATHS = sorted([*ROOT.glob("*.ipynb"), *(ROOT / "notebooks").glob("*.ipynb")])
EXECUTED = {
    "train.ipynb", "spanish_fine_tune_whisper.ipynb", "swedish_fine_tune_whisper.ipynb", "error_analysis.ipynb"
}  # fmt: skip
MOST_CELLS = {"train.ipynb": 14}
CELLS, LINES, OPTIONS, BYTES = 20, 12, 16, 900_000
"""At most: code cells, their lines, lines of the options, bytes of a notebook with its outputs."""
CELL_SECONDS = 240

PIN_OF_TORCH = re.compile(r"\btorch(audio|vision|codec)?\s*(\[\w+\])?\s*[=<>~!]=|pip install[^\n]*\btorch")
PLACE = re.compile(r"(?<![\w.:/])(~|[A-Z]:\\|/(home|root|work|tmp|usr|opt|mnt|content|Users)\b)")
SECRET = re.compile(r"\b(hf_|sk-)[A-Za-z0-9_-]{16,}|[\w.]+@[\w-]+\.[a-z]{2,}")
SOUND = re.compile(r"<(audio|video)\b|data:(audio|video)|\"(audio|video)/")

every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def tree(cell) -> ast.Module:
    """Parse a cell; magics become calls."""
    return ast.parse(TransformerManager().transform_cell(cell.source))


def tagged(notebook, tag: str):
    [cell] = [cell for cell in code_cells(notebook) if tag in tags(cell)]
    return cell


# How they look


def test_all_notebooks_are_seen_and_executed(recorder):
    assert {path.name for path in PATHS} == EXECUTED == {path.name for path in recorder.Options().notebooks}


@every_notebook
def test_it_is_valid_small_and_for_any_python3_kernel(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size <= BYTES
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) <= {"kernelspec", "language_info", "lengua"}
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)


@every_notebook
def test_cells_are_few_short_and_told_about(path):
    cells = read(path).cells
    assert 5 <= len(code_cells(read(path))) <= MOST_CELLS.get(path.name, CELLS)
    for before, cell in pairwise(cells):
        if cell.cell_type == "code":
            assert before.cell_type == "markdown", f"nothing is said before:\n{cell.source}"
            most = OPTIONS if "parameters" in tags(cell) else LINES
            assert len(cell.source.splitlines()) <= most, cell.source
    assert cells[0].cell_type == cells[-1].cell_type == "markdown"


@every_notebook
def test_cells_compute_nothing_themselves_and_show_something(path):
    for cell in code_cells(read(path)):
        defined = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
        assert not [node for node in ast.walk(tree(cell)) if isinstance(node, defined)], cell.source
        watched = "with Console(" in cell.source or "with LiveChart(" in cell.source
        shown = isinstance(tree(cell).body[-1], ast.Expr) or watched
        assert shown or {"parameters", "setup"} & set(tags(cell)), f"nothing to look at after:\n{cell.source}"


@every_notebook
def test_it_begins_with_the_setup_and_the_options(path):
    first, second, *others = code_cells(read(path))
    assert tags(first) == ["setup"] and tags(second) == ["parameters"]
    assert first.source == code_cells(read(ROOT / "train.ipynb"))[0].source
    assert all(set(tags(cell)) <= {"keep_output"} for cell in others)


@every_notebook
def test_it_pins_no_torch_and_names_no_place_or_secret(path):
    for cell in read(path).cells:
        for rule in (PIN_OF_TORCH, PLACE, SECRET):
            assert not rule.search(cell.source), f"{rule.pattern} in:\n{cell.source}"


@pytest.mark.parametrize(
    "text",
    [
        *("torch==2.9", "torchaudio >= 2", "%pip install -U torch", "pip install -q 'torch'", '"/content/drive/x"'),
        *("cd /root", "~/x", "C:\\x", "hf_abcdefghijklmnopqrst", "a@b.org"),
    ],
)
def test_a_pin_a_place_or_a_secret_would_be_seen(text):
    assert any(rule.search(text) for rule in (PIN_OF_TORCH, PLACE, SECRET))


@every_notebook
def test_links_lead_somewhere(path):
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for link in re.findall(r"\]\(([^)#]+)", cell.source):
                assert link.startswith("https://") or (path.parent / link).is_file(), link


# What is kept of a recorded run


@every_notebook
def test_outputs_are_kept_where_that_is_meant_and_from_a_recorded_run(path):
    notebook = read(path)
    for cell in code_cells(notebook):
        assert "keep_output" in tags(cell) or (cell.outputs == [] and cell.execution_count is None), cell.source
    if any(cell.outputs for cell in code_cells(notebook)):
        told = notebook.metadata.lengua
        assert {"date", "commit", "hardware", "minutes"} <= told.keys()
        assert dict(told.parameters) == options(tagged(notebook, "parameters")), "the outputs are of other options"
        kept = [cell for cell in code_cells(notebook) if "keep_output" in tags(cell)]
        assert all(cell.outputs for cell in kept), "some of what is to be kept is not there: record it again"


@every_notebook
def test_kept_outputs_hold_no_sound_no_failure_and_no_place(path):
    for cell in code_cells(read(path)):
        for output in cell.outputs:
            assert output.output_type != "error"
            data = {kind: text for kind, text in output.get("data", {}).items() if kind != "image/png"}
            text = json.dumps({**output, "data": data}, ensure_ascii=False)
            assert not SOUND.search(text), f"sound after:\n{cell.source}"
            assert str(ROOT) not in text and str(Path.home()) not in text


@pytest.fixture
def recorder(monkeypatch):
    """The program that records notebooks."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("record_notebooks")


def small_notebook(*cells) -> nbformat.NotebookNode:
    """Return a notebook of (source, tags) cells."""
    made = [nbformat.v4.new_code_cell(source, metadata={"tags": list(names)}) for source, names in cells]
    python = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=made, metadata=python)


def test_the_recording_keeps_what_is_tagged_and_takes_the_sound_out(recorder, run):
    listen = "from IPython.display import Audio, display\nprint(1)\ndisplay(Audio([0.0, 0.1], rate=8000))"
    done = run(small_notebook(("A = 3", ["parameters"]), (listen, ["keep_output"]), (listen, [])))
    assert SOUND.search(json.dumps(done))
    kept = recorder.recorded(done, 0.5)
    first, second, third = kept.cells
    assert not SOUND.search(json.dumps(kept)) and recorder.SILENT in json.dumps(kept)
    assert second.outputs[0].text == "1\n" and first.outputs == third.outputs == []
    assert third.execution_count is None and kept.metadata.lengua.parameters == {"A": 3}


def test_the_recording_refuses_a_place_of_this_machine(recorder, run):
    from lengua.runtime.errors import LenguaError

    done = run(small_notebook(("A = 3", ["parameters"]), (f"print({str(ROOT)!r})", ["keep_output"])))
    with pytest.raises(LenguaError, match="no place of this machine"):
        recorder.recorded(done, 0.5)


# What they name


@every_notebook
def test_what_it_imports_from_lengua_exists(path):
    seen = 0
    for cell in code_cells(read(path)):
        for node in ast.walk(tree(cell)):
            if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "lengua":
                module = importlib.import_module(node.module)
                for name in (alias.name for alias in node.names):
                    assert hasattr(module, name) or find_spec(f"{node.module}.{name}"), ast.unparse(node)
                seen += len(node.names)
    assert seen >= 5


@every_notebook
def test_options_that_it_gives_exist(path):
    known = importlib.import_module("lengua.options")
    for cell in code_cells(read(path)):
        for call in (node for node in ast.walk(tree(cell)) if isinstance(node, ast.Call)):
            kind = getattr(known, getattr(call.func, "id", ""), None)
            if isinstance(kind, type) and is_dataclass(kind):
                given = {word.arg for word in call.keywords if word.arg}
                assert given <= {field.name for field in fields(kind)}, ast.unparse(call)


@every_notebook
def test_options_are_constants_in_one_cell(path):
    cell = tagged(read(path), "parameters")
    assert len(options(cell)) == len(tree(cell).body) >= 3


def options(cell) -> dict:
    """Return the options of a parameters cell, which is all that may stand in one."""
    return {node.targets[0].id: ast.literal_eval(node.value) for node in tree(cell).body}


def with_options(notebook, **changed):
    """Set options of a notebook as its reader would, by editing the parameters cell."""
    cell = tagged(notebook, "parameters")
    known = options(cell)
    assert set(changed) <= set(known), f"no such option: {set(changed) - set(known)}"
    cell.source = "\n".join(f"{name} = {value!r}" for name, value in (known | changed).items())
    return notebook


# The setup, which Colab runs first


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """An IPython in an empty folder, where `%pip` only says what it would do."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shell = InteractiveShell()
    shell.asked = []
    shell.register_magic_function(shell.asked.append, magic_name="pip")
    return shell


def set_up(shell) -> list[str]:
    """Run the setup cell and return what pip was asked."""
    shell.run_cell(code_cells(read(ROOT / "train.ipynb"))[0].source).raise_error()
    return shell.asked


def test_the_setup_leaves_an_environment_alone_that_has_everything(shell):
    assert set_up(shell) == []


def test_the_setup_brings_the_package_where_there_is_no_tree(shell, monkeypatch):
    monkeypatch.setitem(sys.modules, "asrfront", None)
    [asked] = set_up(shell)
    quiet, flag, wanted = asked.split(maxsplit=2)
    brought = Requirement(wanted.strip('"'))
    assert (quiet, flag, brought.name) == ("install", "-q", "lengua") and brought.url.startswith("git+https://")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert brought.extras <= set(project["optional-dependencies"])
    assert not re.search(r"--(upgrade|force)|\s-U\b", asked)


def test_the_setup_finds_the_tree_from_its_folder_of_notebooks(shell, tmp_path, monkeypatch):
    (tmp_path / "tree/lengua").mkdir(parents=True)
    (tmp_path / "tree/lengua/cli.py").touch()
    (tmp_path / "tree/notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "tree/notebooks")
    monkeypatch.setitem(sys.modules, "asrfront", None)
    assert set_up(shell) == ["install -q -r requirements.txt"]
    assert Path.cwd() == tmp_path / "tree"


# Runs from top to bottom


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs a notebook in an empty folder, without the Hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.delenv("LENGUA_MODEL", raising=False)

    def execute(notebook):
        resources = {"metadata": {"path": str(tmp_path)}}
        client = NotebookClient(notebook, timeout=CELL_SECONDS, kernel_name="python3", resources=resources)
        return client.execute()

    return execute


def shown(notebook) -> str:
    """Return everything that a notebook printed or displayed as text."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    texts = [
        output.get("text")
        or output.data.get("text/markdown")
        or output.data.get("text/html")
        or output.data["text/plain"]
        for output in outputs
    ]
    return "\n".join(texts)


def pictures(notebook) -> list[str]:
    """Return the first line of the cell behind each picture, in order."""
    cells = code_cells(notebook)
    return [
        cell.source.splitlines()[0]
        for cell in cells
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]


def silent(notebook) -> list[str]:
    """Return the cells that showed nothing."""
    return [cell.source for cell in code_cells(notebook) if not cell.outputs]


TINY = {"EPOCHS": 1.0, "BATCH_SIZE": 4, "EVALUATIONS": 2}


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True], ids=["store", "stream"])
def test_train_runs_from_top_to_bottom(run, tiny_folder, tiny_model, tmp_path, stream):
    notebook = read(ROOT / "train.ipynb")
    done = run(with_options(notebook, SOURCE=tiny_folder, BASE=str(tiny_model), STREAM=stream, **TINY))
    assert len(silent(done)) == 2, silent(done)  # the setup, which found everything, and the options
    assert len(pictures(done)) == 3  # a log-mel, the live chart in one place, the WER
    text = shown(done)
    assert "| test | 5 |" in text and ("| train | 15 |" in text) != stream
    assert "| ok | start token |" in text and "**wrong**" not in text
    assert "| said | before | after |" in text and "<audio controls" in text
    assert re.search(r"\| fine-tuned \| adaptive \|", text)
    assert "dev WER" in text and re.search(r"http://127\.0\.0\.1:\d+", text)
    out = tmp_path / "runs/notebook"
    for name in ("model/config.json", "evaluation/results.json", "evaluation/report.html", "export/README.md"):
        assert (out / name).is_file(), name


@pytest.mark.slow
def test_spanish_fine_tune_whisper_runs_from_top_to_bottom(run, tiny_folder, tiny_model, tmp_path):
    notebook = read(ROOT / "notebooks/spanish_fine_tune_whisper.ipynb")
    done = run(with_options(notebook, SOURCE=tiny_folder, BASE=str(tiny_model), **TINY))
    assert len(silent(done)) == 2, silent(done)
    assert len(pictures(done)) == 5  # waveform, log-mels, the padded window, the live chart, the WER
    text = shown(done)
    assert "| 0 | &lt;|startoftranscript" in text.replace("\\|", "|")
    assert "| padded | 1.0 |" in text  # all that the tiny model has
    assert "| said | heard | counts as |" in text and "'wer_low'" in text
    assert "| fine-tuned | adaptive |" in text and "<audio controls" in text
    assert (tmp_path / "runs/spanish/export/README.md").is_file()
    assert not (tmp_path / "runs/spanish/store/train").exists(), "train was to be streamed"


def pages(notebook) -> list[str]:
    """Return the HTML that the cells of a notebook show."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]


@pytest.mark.slow
def test_swedish_runs_from_top_to_bottom(run, tiny_folder, tiny_model, tmp_path):
    notebook = read(ROOT / "notebooks" / "swedish_fine_tune_whisper.ipynb")
    tiny = {"SOURCE": tiny_folder, "LANGUAGE": "sv", "BASE": str(tiny_model), "EPOCHS": 1.0, "BATCH_SIZE": 4}
    text = shown(run(with_options(notebook, **tiny)))
    assert "| train | 15 |" in text and "fine-tuned | adaptive" in text
    assert "trained with the end token masked" in text and "| speech and 0.3 s |" in text
    assert text.count("- cure") >= 6
    out = tmp_path / "runs/swedish"
    assert (out / "model/config.json").is_file() and (out / "evaluation/report.html").is_file()
    assert len(pictures(notebook)) >= 4


@pytest.mark.slow
def test_errors_are_analysed_of_a_finished_run(run, tiny_store, tiny_model, tmp_path):
    from lengua.evaluation import evaluate
    from lengua.options import EvaluateOptions
    from lengua.training.train import train

    out = tmp_path / "runs/mine"
    train(tiny_training(str(tiny_store.path), tiny_model, out, steps=2))
    evaluate(EvaluateOptions(str(out), str(tiny_store.path), out=out / "evaluation"))
    before = (out / "evaluation/results.json").read_bytes()
    notebook = with_options(read(ROOT / "notebooks" / "error_analysis.ipynb"), OUT="runs/mine")
    text = shown(run(notebook))
    for part in ("fine-tuned", "base", "over 5 utterances", "All 5 clips are by 2 speakers"):
        assert part in text
    assert len(pictures(notebook)) == 2
    assert sum(page.count("<audio") for page in pages(notebook)) >= 1
    assert (out / "evaluation/results.json").read_bytes() == before, "nothing is measured anew"


@pytest.mark.slow
def test_errors_are_analysed_where_nothing_was_measured(run, tiny_folder, tiny_model, tmp_path):
    notebook = read(ROOT / "notebooks" / "error_analysis.ipynb")
    text = shown(run(with_options(notebook, SOURCE=tiny_folder, BASE=str(tiny_model), OUT="runs/none")))
    assert "Only one model was measured" in text and "Word error rate" in text
    assert (tmp_path / "runs/none/evaluation/results.json").is_file()
