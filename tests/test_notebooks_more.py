"""Swedish and the error analysis, run from top to bottom, offline, on a small set of clips."""

import shutil

import pytest
from conftest import tiny_training
from test_notebooks import ROOT, code_cells, read, run, shown, with_options  # noqa: F401

NOTEBOOKS = ROOT / "notebooks"


def pictures(notebook) -> int:
    """Return how many images the cells of a notebook show."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def pages(notebook) -> list[str]:
    """Return the HTML that the cells of a notebook show."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]


@pytest.mark.slow
def test_swedish_runs_from_top_to_bottom(run, tiny_folder, tiny_model, tmp_path):  # noqa: F811
    notebook = read(NOTEBOOKS / "swedish_fine_tune_whisper.ipynb")
    tiny = {"SOURCE": tiny_folder, "LANGUAGE": "sv", "BASE": str(tiny_model), "EPOCHS": 1.0, "BATCH_SIZE": 4}
    text = shown(run(with_options(notebook, **tiny)))
    assert "| train | 15 |" in text and "fine-tuned | adaptive" in text
    assert "trained with the end token masked" in text and "| speech and 0.3 s |" in text
    assert text.count("- cure") >= 6
    out = tmp_path / "runs/swedish"
    assert (out / "model/config.json").is_file() and (out / "evaluation/report.html").is_file()
    assert pictures(notebook) >= 4


@pytest.mark.slow
def test_errors_are_analysed_of_a_finished_run(run, tiny_store, tiny_model, tmp_path):  # noqa: F811
    from lengua.evaluation import evaluate
    from lengua.options import EvaluateOptions
    from lengua.training.train import train

    out = tmp_path / "runs/mine"
    train(tiny_training(str(tiny_store.path), tiny_model, out, steps=2))
    evaluate(EvaluateOptions(str(out), str(tiny_store.path), out=out / "evaluation"))
    before = (out / "evaluation/results.json").read_bytes()
    notebook = with_options(read(NOTEBOOKS / "error_analysis.ipynb"), OUT="runs/mine")
    text = shown(run(notebook))
    for part in ("fine-tuned", "base", "over 5 utterances", "All 5 clips are by 2 speakers"):
        assert part in text
    assert pictures(notebook) == 2
    assert sum(page.count("<audio") for page in pages(notebook)) >= 1
    assert (out / "evaluation/results.json").read_bytes() == before, "nothing is measured anew"


@pytest.mark.slow
def test_errors_are_analysed_where_nothing_was_measured(run, tiny_folder, tiny_model, tmp_path):  # noqa: F811
    notebook = read(NOTEBOOKS / "error_analysis.ipynb")
    text = shown(run(with_options(notebook, SOURCE=tiny_folder, BASE=str(tiny_model), OUT="runs/none")))
    assert "Only one model was measured" in text and "Word error rate" in text
    assert (tmp_path / "runs/none/evaluation/results.json").is_file()


@pytest.mark.slow
def test_the_demo_can_be_analysed(run, tmp_path):  # noqa: F811
    demo = ROOT / "runs/demo"
    if not (demo / "evaluation/results.json").is_file():
        pytest.skip("needs a finished demo: make demo")
    shutil.copytree(demo / "evaluation", tmp_path / "runs/demo/evaluation")
    text = shown(run(read(NOTEBOOKS / "error_analysis.ipynb")))
    assert "allison" in text and "Speech and texts: Allison Smith" in text
