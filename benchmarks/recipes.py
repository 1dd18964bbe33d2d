"""The study of the recipes: every one on the same clips, then side by side on dev and on test.

    python benchmarks/recipes.py --store runs/demo/store
    python benchmarks/recipes.py baseline lora --scale 0.25       # a quarter of each recipe's epochs

Each is a process of `lengua train` with recipes/NAME.yaml into runs/study/NAME. A run that is finished is kept and one
that was interrupted goes on, so the study can be stopped at any time. Models were chosen on dev; test is read once,
each model in the windows that it is due, and whisper-base beside them. Draws images/wer.png with --record. The last
line is one JSON object.
"""

import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro
from harness import ROOT, BenchmarkOptions, report, run, tell

from lengua.data.store import open_store
from lengua.evaluation import evaluate
from lengua.evaluation.report.tables import markdown_table
from lengua.models.checkpoints import find_model
from lengua.options import CompareOptions, EvaluateOptions
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import read_json, write_bytes
from lengua.runtime.progress import Console
from lengua.training.compare import compare, runs_table
from lengua.training.recipes import load_recipe

STUDY = ("baseline", "lower_rate", "higher_rate", "padded", "frozen_encoder", "lora", "spec_augment", "packed")


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Train with every recipe and lay the runs side by side."""

    recipes: tyro.conf.Positional[tuple[str, ...]] = STUDY
    """Names of files in recipes/."""
    store: Path = Path("runs/demo/store")
    """The clips: train, dev and test of a feature store."""
    out: Path = Path("runs/study")
    """Where the runs go, a folder each."""
    scale: float = 1.0
    """Times the epochs of each recipe."""
    base: str | None = None
    """Another checkpoint to start from than the recipes name."""
    train: str = ""
    """More options of `lengua train` for every run: --train="--steps 100 --device cpu"."""
    figure: Path = Path("images/wer.png")
    """Where --record draws the curves; without it they are drawn into --out."""
    test: bool = True
    """Measure every model on test, too; without it, dev alone, and test may follow another time."""
    resamples: int = 10_000
    """Bootstrap resamples behind each interval on test."""


def main(options: Options) -> dict:
    recipes = {name: load_recipe(ROOT / f"recipes/{name}.yaml") for name in options.recipes}
    open_store(options.store).split("test")
    bases = {options.base or str(recipe["base"]) for recipe in recipes.values()}
    if len(bases) > 1:
        raise RequestError("recipes of one base", ", ".join(sorted(bases)), "name fewer, or say --base")
    [base] = bases
    find_model(base)
    for number, (name, recipe) in enumerate(recipes.items(), start=1):
        tell(f"{name}, {number} of {len(recipes)}")
        train(name, recipe, options)
    figure = options.out / "wer.png"
    runs = tuple(options.out / name for name in recipes)
    compared = compare(CompareOptions(runs, out=figure))
    return show(options, compared, on_test(base, recipes, options) if options.test else [])


def train(name: str, recipe: dict, options: Options) -> None:
    """Train with one recipe in a process of its own, or find it done.

    Raises:
        LenguaError: the run failed; its own words stand above.
    """
    how = ["--recipe", ROOT / f"recipes/{name}.yaml", "--out", options.out / name]
    how += ["--epochs", options.scale * recipe["epochs"]] if options.scale != 1 else []
    how += ["--base", options.base] if options.base else []
    command = [sys.executable, "-m", "lengua", "train", str(options.store), *map(str, how), *shlex.split(options.train)]
    done = subprocess.run(command, stdout=sys.stderr)
    if done.returncode:
        found = f"exit code {done.returncode} of {name}"
        raise LenguaError("a finished run", found, "mend what it says above; the same command goes on from here")


def on_test(base: str, recipes: dict, options: Options) -> list[dict]:
    """Return the rows of the base and of every run on test, named after their recipes.

    A row that an earlier call measured, with the same weights, is kept by the evaluation.
    """
    rows = []
    with Console() as watch:
        for name, model in {"base": base, **{name: str(options.out / name) for name in recipes}}.items():
            out = options.out / "evaluation" if name == "base" else options.out / name / "evaluation"
            asked = EvaluateOptions(model, str(options.store), against="none", out=out, resamples=options.resamples)
            rows += [{**row, "model": name} for row in evaluate(asked, watch).rows]
    return rows


def show(options: Options, compared, rows: list[dict]) -> dict:
    lines = runs_table(compared.rows).to_markdown().splitlines()
    lines += ["", *(f"{note}." for note in compared.notes)]
    lines += ["", *markdown_table(rows).splitlines()] if rows else []
    stored = read_json(options.store / "manifest.json")["splits"]
    sizes = ", ".join(f"{name} {split['utterances']:,}" for name, split in stored.items())
    seconds = sum(one.seconds for one in compared.rows)
    interval = f" On test {rows[0]['interval']}." if rows else " Test was not measured."
    lines += ["", f"Clips: {sizes}.{interval} All runs together trained {seconds / 60:.0f} minutes."]
    if options.record:
        write_bytes(options.figure, Path(compared.figure).read_bytes())
    runs = [{**asdict(one), "path": str(one.path)} for one in compared.rows]
    result = {"runs": runs, "test": rows, "figure": compared.figure and str(compared.figure)}
    return report(options, "Recipes", lines, result, shown=("store",), positional="recipes")


if __name__ == "__main__":
    run(main, Options)
