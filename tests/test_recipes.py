"""Recipes: what a file may say, who goes before whom, and that those of the repository name every choice."""

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import get_type_hints

import pytest

from lengua.cli import main, parse_arguments
from lengua.options import Augmentation, Filters, TrainOptions
from lengua.runtime.errors import RequestError
from lengua.runtime.files import read_json
from lengua.training.recipes import from_recipe, load_recipe, recipe_defaults, type_name

FOLDER = Path(__file__).parent.parent / "recipes"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
MATTERS = """
    base learn epochs batch_size accumulation learning_rate warmup weight_decay window spec_augment
    gradient_checkpointing precision evaluations seed
""".split()


def written(folder: Path, text: str) -> Path:
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    return folder / "mine.yaml"


# Those of the repository


def test_there_are_the_recipes_of_the_study():
    study = {"baseline", "lower_rate", "higher_rate", "frozen_encoder", "lora", "padded", "spec_augment", "packed"}
    assert study | {"spanish", "swedish"} <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_every_choice_that_matters(name):
    recipe = load_recipe(FOLDER / f"{name}.yaml")
    due = {*MATTERS, *(["margin_s", "padded_share"] if recipe["window"] == "adaptive" else [])}
    assert due <= recipe.keys()
    assert not {"source", "out", "resume", "device"} & recipe.keys(), "these are no choice of a recipe"
    assert f"--recipe recipes/{name}.yaml" in (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", RECIPES)
def test_the_command_over_a_recipe_is_one(name):
    command = re.search(r"^# +lengua (train .*)$", (FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), re.M)[1]
    arguments = command.replace("recipes/", f"{FOLDER}/").split()
    options = parse_arguments(arguments)
    assert options == replace(from_recipe(FOLDER / f"{name}.yaml", source=arguments[1]), out=options.out)
    assert options.out.parent == Path("runs")


def test_the_baseline_is_what_the_defaults_are():
    recipe, defaults = load_recipe(FOLDER / "baseline.yaml"), TrainOptions("")
    told = {name: value for name, value in recipe.items() if getattr(defaults, name) is not None}
    assert {name for name, value in told.items() if value != getattr(defaults, name)} <= {"evaluations"}


def test_an_experiment_differs_from_the_baseline_where_it_says():
    baseline = load_recipe(FOLDER / "baseline.yaml")
    asked = {
        "lower_rate": {"learning_rate", "epochs"},
        "higher_rate": {"learning_rate", "epochs"},
        "frozen_encoder": {"learn"},
        "lora": {"learn", "lora_rank", "learning_rate"},
        "padded": {"window", "margin_s", "padded_share"},
        "spec_augment": {"spec_augment"},
        "packed": {"window", "timestamps_share"},
    }
    for name, expected in asked.items():
        recipe = load_recipe(FOLDER / f"{name}.yaml")
        names = recipe.keys() | baseline.keys()
        assert {key for key in names if recipe.get(key) != baseline.get(key)} == expected, name


def test_the_table_is_that_of_the_files():
    lines = (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"]
    assert sorted(row[0] for row in rows) == [f"[{name}]({name}.yaml)" for name in RECIPES]
    for row in rows:
        recipe = load_recipe(FOLDER / re.search(r"\((.+)\)", row[0])[1])
        for name, cell in zip(header[1:-1], row[1:-1], strict=True):
            value = recipe[name]
            assert cell == value if isinstance(value, str) else float(cell) == value, (row[0], name)


# What a file may say


def test_values_are_read_as_their_fields_have_them(tmp_path):
    text = """
        learning_rate: 1e-5   # YAML alone: text
        language: no          # YAML alone: false
        epochs: 3
        steps: null
        margin_s: [0, 1.5]
        stream: yes
        out: runs/mine
        window: "padded"
        filters: {max_hours: 20, accent: [caribe, andino], balance_speakers: true}
        augment: {noise: 0.3}
    """
    values = load_recipe(written(tmp_path, text))
    assert values == {
        "learning_rate": 1e-5,
        "language": "no",
        "epochs": 3.0,
        "steps": None,
        "margin_s": (0.0, 1.5),
        "stream": True,
        "out": Path("runs/mine"),
        "window": "padded",
        "filters": Filters(max_hours=20.0, accent=("caribe", "andino"), balance_speakers=True),
        "augment": Augmentation(noise=0.3),
    }
    assert isinstance(values["epochs"], float) and isinstance(values["margin_s"][0], float)


@pytest.mark.parametrize(
    ("text", "expected", "found", "do"),
    [
        ("epochs: 2\nlerning_rate: 1e-5\n", "an option of `lengua train`", "lerning_rate in * line 2", "learning_rate"),
        ("learning-rate: 1e-5", "an option", "learning-rate in * line 1", "write learning_rate"),
        ("recipe: other.yaml", "an option", "recipe in * line 1", ""),
        ("filters:\n  max_hour: 2", "an option", "max_hour in * line 2", "write max_hours"),
        ("epochs: 2\nepochs: 3", "epochs once", "it again in * line 2", "keep one"),
        ("epochs: many", "epochs: a number", "many in * line 1", "correct"),
        ("epochs: .nan", "epochs: a number", ".nan in * line 1", "correct"),
        ("learning_rate: inf", "learning_rate: a number", "inf in", "correct"),
        ("warmup:", "warmup: a number", "nothing in * line 1", "correct"),
        ("batch_size: 8.5", "batch_size: a whole number", "8.5 in", "correct"),
        ("steps: [1]", "steps: a whole number or null", "a list", "correct"),
        ("stream: maybe", "stream: true or false", "maybe in", "correct"),
        ("window: adaptiv", "window: one of adaptive, ", "adaptiv in * line 1", "correct"),
        ("seed: 1\nmargin_s: [0.3]", "margin_s: [a number, a number]", "a list in * line 2", "correct"),
        ("margin_s: 0.3", "margin_s: [a number, a number]", "0.3 in", "correct"),
        ("filters: {accent: caribe}", "accent: [text, ...]", "caribe in", "correct"),
        ("filters: {max_hours: 0}", "max_hours above 0", "0.0 in * line 1", "leave it out"),
        ("filters: 20", "lines such as", "20 in * line 1", "name options"),
        ("", "lines such as", "nothing in", "name options"),
        ("- epochs", "lines such as", "a list in * line 1", "name options"),
        ("epochs: [2\n", "YAML", "line 2", "mend"),
        ("epochs: 2\n---\nepochs: 3", "YAML", "another document in * line 2", "mend"),
        ("epochs: \x00", "YAML", "characters that no text has in", "mend"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(tmp_path, text, expected, found, do):
    path = written(tmp_path, text)
    with pytest.raises(RequestError) as caught:
        load_recipe(path)
    error = caught.value
    assert expected in error.expected and do in error.do and str(path) in str(error)
    assert re.search(re.escape(found).replace(r"\*", ".*"), error.found), error.found


def test_a_recipe_that_is_not_there_is_told(tmp_path):
    for path in (tmp_path / "nowhere.yaml", tmp_path):
        with pytest.raises(RequestError, match="a recipe in YAML; found no file"):
            load_recipe(path)


def test_every_option_can_be_in_a_recipe():
    kinds = get_type_hints(TrainOptions)
    assert len(kinds) > 20
    nested = {"filters": Filters, "augment": Augmentation}
    assert all(type_name(kind) for name, kind in kinds.items() if name not in nested)
    assert all(type_name(kind) for group in nested.values() for kind in get_type_hints(group).values())


# Who goes before whom


def test_what_is_said_goes_before_the_recipe_and_the_recipe_before_defaults(tmp_path):
    recipe = written(tmp_path, "learning_rate: 3e-5\nseed: 4\nmargin_s: [0.1, 0.2]\n")
    for said in (["--recipe", f"{recipe}"], [f"--recipe={recipe}"]):
        options = parse_arguments(["train", "stores/es", *said, "--seed", "5"])
        assert (options.learning_rate, options.seed, options.margin_s) == (3e-5, 5, (0.1, 0.2))
        assert options.batch_size == TrainOptions("").batch_size and options.recipe == recipe
        assert options == from_recipe(recipe, source="stores/es", seed=5)
    options = parse_arguments(["train", "--recipe", str(recipe), "stores/es", "--margin-s", "0", "1", "--no-stream"])
    assert (options.source, options.margin_s, options.stream) == ("stores/es", (0.0, 1.0), False)


def test_filters_of_a_recipe_hold_until_one_is_said(tmp_path):
    recipe = written(tmp_path, "filters: {max_hours: 20, gender: [female], balance_speakers: true}")
    options = parse_arguments(["train", "x", "--recipe", str(recipe), "--filters.max-hours", "2"])
    assert options.filters == Filters(max_hours=2.0, gender=("female",), balance_speakers=True)


def test_a_length_that_is_said_takes_back_the_recipes(tmp_path):
    recipe = written(tmp_path, "steps: 500\nseed: 4\n")
    assert parse_arguments(["train", "x", "--recipe", str(recipe)]).steps == 500
    options = parse_arguments(["train", "x", "--recipe", str(recipe), "--epochs", "3"])
    assert (options.steps, options.epochs, options.seed) == (None, 3.0, 4)
    assert from_recipe(recipe, source="x", epochs=3.0) == options
    assert "epochs" not in recipe_defaults(written(tmp_path, "epochs: 2"), ["steps"])


def test_a_recipe_may_name_its_source(tmp_path, capsys):
    recipe = written(tmp_path, "source: sample:es\n")
    assert parse_arguments(["train", "--recipe", str(recipe)]).source == from_recipe(recipe).source == "sample:es"
    assert parse_arguments(["train", "folder:mine", "--recipe", str(recipe)]).source == "folder:mine"
    recipe = written(tmp_path, "seed: 4")
    with pytest.raises(RequestError, match="a source to learn from; found none in"):
        from_recipe(recipe)
    with pytest.raises(SystemExit) as stop:
        parse_arguments(["train", "--recipe", str(recipe)])
    assert stop.value.code == 2 and "SOURCE" in capsys.readouterr().err.upper()


def test_other_commands_have_no_recipe(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_arguments(["features", "--recipe", str(tmp_path / "nowhere.yaml")])
    assert stop.value.code == 2 and "--recipe" in capsys.readouterr().err


def test_a_run_keeps_what_it_was_really_done_with(tiny_store, tiny_model, tmp_path, capsys):
    recipe = written(
        tmp_path,
        f"base: {tiny_model}\nsteps: 500\nbatch_size: 4\nlearning_rate: 1e-3\nmargin_s: [0, 0.1]\nprecision: fp32\n",
    )
    arguments = ["train", str(tiny_store.path), "--recipe", str(recipe), "--steps", "2", "--device", "cpu"]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 0
    kept = read_json(tmp_path / "run/run.json")["options"]
    assert kept.keys() == {field.name for field in fields(TrainOptions)}
    asked = {"recipe": str(recipe), "steps": 2, "batch_size": 4, "learning_rate": 1e-3, "margin_s": [0.0, 0.1]}
    assert asked.items() <= kept.items()


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains(name, tiny_store, tiny_model, tmp_path):
    from lengua.training.train import train

    small = {"base": str(tiny_model), "steps": 2, "evaluations": 1, "batch_size": 4, "margin_s": (0.0, 0.1)}
    where = {"source": str(tiny_store.path), "out": tmp_path / name, "device": "cpu", "precision": "fp32"}
    result = train(from_recipe(FOLDER / f"{name}.yaml", **small, **where, language="es"))
    assert result.steps == 2 and (result.model / "model.safetensors").is_file()
