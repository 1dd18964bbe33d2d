"""Every notebook: how it may look, that what it imports exists, and a small run from top to bottom, offline."""

import ast
import importlib
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
PATHS = sorted([*ROOT.glob("*.ipynb"), *(ROOT / "notebooks").glob("*.ipynb")])
EXECUTED = {"train.ipynb"}
MOST_CELLS, MOST_LINES, MOST_BYTES = 14, 12, 200_000

PIN_OF_TORCH = re.compile(r"\btorch(audio|vision|codec)?\s*(\[\w+\])?\s*[=<>~!]=|pip install[^\n]*\btorch")
PLACE = re.compile(r"(?<![\w.:/])(~|[A-Z]:\\|/(home|root|work|tmp|usr|opt|mnt|content|Users)\b)")
SECRET = re.compile(r"\b(hf_|sk-)[A-Za-z0-9_-]{16,}|[\w.]+@[\w-]+\.[a-z]{2,}")

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


def test_all_notebooks_are_seen_and_executed():
    assert {path.name for path in PATHS} == EXECUTED
    assert len(PATHS) >= 1


@every_notebook
def test_it_is_valid_small_and_for_any_python3_kernel(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size <= MOST_BYTES
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata


@every_notebook
def test_cells_are_few_short_and_told_about(path):
    cells = read(path).cells
    assert 1 <= len(code_cells(read(path))) <= MOST_CELLS
    for before, cell in pairwise(cells):
        if cell.cell_type == "code":
            assert before.cell_type == "markdown", f"nothing is said before:\n{cell.source}"
            assert len(cell.source.splitlines()) <= MOST_LINES, cell.source
    assert cells[0].cell_type == cells[-1].cell_type == "markdown"


@every_notebook
def test_cells_compute_nothing_themselves_and_show_something(path):
    for cell in code_cells(read(path)):
        nodes = list(ast.walk(tree(cell)))
        assert not [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
        shown = isinstance(tree(cell).body[-1], ast.Expr) or "with Console(" in cell.source
        assert shown or "parameters" in tags(cell), f"nothing to look at after:\n{cell.source}"


@every_notebook
def test_outputs_are_stripped(path):
    for cell in code_cells(read(path)):
        assert "keep_output" in tags(cell) or (cell.outputs == [] and cell.execution_count is None), cell.source


@every_notebook
def test_it_pins_no_torch_and_names_no_place_or_secret(path):
    notebook = read(path)
    for cell in notebook.cells:
        for rule in (PIN_OF_TORCH, PLACE, SECRET):
            assert not rule.search(cell.source), f"{rule.pattern} in:\n{cell.source}"


@pytest.mark.parametrize("text", ["torch==2.9", "torchaudio >= 2", "%pip install -U torch", "pip install -q 'torch'"])
def test_a_pin_of_torch_would_be_seen(text):
    assert PIN_OF_TORCH.search(text)


@pytest.mark.parametrize(
    "text", ['"/content/drive/x"', "cd /root", "~/x", "C:\\x", "hf_abcdefghijklmnopqrst", "a@b.org"]
)
def test_a_place_or_a_secret_would_be_seen(text):
    assert PLACE.search(text) or SECRET.search(text)


@every_notebook
def test_what_it_imports_from_lengua_exists(path):
    seen = 0
    for cell in code_cells(read(path)):
        for node in ast.walk(tree(cell)):
            if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "lengua":
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
                seen += len(node.names)
    assert seen >= 5


@every_notebook
def test_options_are_constants_in_one_cell(path):
    (cell,) = [cell for cell in code_cells(read(path)) if "parameters" in tags(cell)]
    assert len(options(cell)) == len(tree(cell).body) >= 3


def options(cell) -> dict:
    """Return the options of a parameters cell, which is all that may stand in one."""
    return {node.targets[0].id: ast.literal_eval(node.value) for node in tree(cell).body}


def with_options(notebook, **changed):
    """Set options of a notebook as its reader would, by editing the parameters cell."""
    (cell,) = [cell for cell in code_cells(notebook) if "parameters" in tags(cell)]
    known = options(cell)
    assert set(changed) <= set(known), f"no such option: {set(changed) - set(known)}"
    cell.source = "\n".join(f"{name} = {value!r}" for name, value in (known | changed).items())
    return notebook


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs a notebook in an empty folder, without the Hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.delenv("LENGUA_MODEL", raising=False)

    def execute(notebook):
        resources = {"metadata": {"path": str(tmp_path)}}
        return NotebookClient(notebook, timeout=90, kernel_name="python3", resources=resources).execute()

    return execute


def shown(notebook) -> str:
    """Return everything that a notebook printed or displayed as text."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    texts = [output.get("text") or output.data.get("text/markdown") or output.data["text/plain"] for output in outputs]
    return "\n".join(texts)


@pytest.mark.slow
def test_train_runs_from_top_to_bottom(run, tiny_folder, tiny_model, tmp_path):
    notebook = read(ROOT / "train.ipynb")
    done = run(with_options(notebook, SOURCE=tiny_folder, BASE=str(tiny_model), EPOCHS=1.0, BATCH_SIZE=4))
    silent = [cell.source for cell in code_cells(done) if not cell.outputs]
    assert len(silent) == 2, silent  # setup, which is skipped here, and the options
    text = shown(done)
    assert "| train | 15 |" in text
    assert "| said | before | after |" in text
    assert re.search(r"\| fine-tuned \| adaptive \|", text)
    images = [output for cell in code_cells(done) for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(images) == 3
    out = tmp_path / "runs/notebook"
    assert (out / "model/config.json").is_file() and (out / "evaluation/results.json").is_file()
