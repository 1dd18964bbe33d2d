"""Recipes: a YAML file that names every choice of a run, so that it can be read, repeated and compared.

    lengua train stores/es --recipe recipes/spanish.yaml --epochs 3

Keys are the fields of TrainOptions. The command line, or arguments in Python, override the recipe; the recipe overrides
the defaults. A value is parsed as its field's type: YAML alone takes 1e-5 for text and `no` for false.
"""

import difflib
import math
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from lengua.options import TrainOptions
from lengua.runtime.errors import RequestError

LENGTH_OPTIONS = {"epochs", "steps", "minutes"} & {field.name for field in fields(TrainOptions)}
"""What says how long a run is: who names one of them takes back the recipe's."""
TYPE_NAMES = {str: "text", Path: "a path", bool: "true or false", int: "a whole number", float: "a number"}


def from_recipe(path: Path | str, **given) -> TrainOptions:
    """Return the options of a recipe; what is given here goes before it.

    Raises:
        RequestError: a wrong recipe, or no source, neither given nor in it.
    """
    named = recipe_defaults(path, given) | given
    if "source" not in named:
        raise RequestError("a source to learn from", f"none in {path}", f"say it: from_recipe({str(path)!r}, source=…)")
    return TrainOptions(**named)


def recipe_defaults(path: Path | str, given: Iterable[str] = ()) -> dict[str, Any]:
    """Return {field: value} of what a recipe names and is not given otherwise, and the recipe itself."""
    given = set(given)
    dropped = given | LENGTH_OPTIONS if given & LENGTH_OPTIONS else given
    named = {name: value for name, value in load_recipe(path).items() if name not in dropped}
    return {"recipe": Path(path)} | named


def load_recipe(path: Path | str) -> dict[str, Any]:
    """Return {field of TrainOptions: value} of a recipe.

    Raises:
        RequestError: no such file, no YAML, an unknown key, or a value of another type; with file and line.
    """
    path = Path(path)
    if not path.is_file():
        do = "check the path, or begin with recipes/baseline.yaml"
        raise RequestError("a recipe in YAML", f"no file at {path}", do)
    try:
        return _options(yaml.compose(path.read_bytes(), Loader=yaml.SafeLoader), TrainOptions)
    except _RecipeError as wrong:
        raise RequestError(wrong.expected, f"{wrong.found} in {path}{_line(wrong.node)}", wrong.do) from wrong
    except yaml.YAMLError as error:
        found = getattr(error, "problem", None) or "characters that no text has"
        raise RequestError("YAML", f"{found} in {path}{_line(error, 'problem_mark')}", "mend that line") from error


class _RecipeError(Exception):
    """A complaint about one place of a recipe, which does not know its file."""

    def __init__(self, node: yaml.Node | None, expected: str, do: str, found: str = ""):
        kind = {yaml.SequenceNode: "a list", yaml.MappingNode: "options of its own"}.get(type(node))
        self.node, self.expected, self.do = node, expected, do
        self.found = found or kind or (node and node.value) or "nothing"


def _line(place, mark: str = "start_mark") -> str:
    at = getattr(place, mark, None)
    return f", line {at.line + 1}" if at else ""


def _options(node: yaml.Node | None, kind: type) -> dict[str, Any]:
    """Return {field: value} of a mapping onto an option dataclass."""
    if not isinstance(node, yaml.MappingNode):
        raise _RecipeError(node, "lines such as `epochs: 2`", "name options and their values")
    kinds = {name: kind for name, kind in get_type_hints(kind).items() if name != "recipe"}
    values = {}
    for key, value in node.value:
        name = str(key.value)
        if name not in kinds:
            nearest = difflib.get_close_matches(name, kinds, 1, cutoff=0)
            raise _RecipeError(key, "an option of `lengua train`", f"write {nearest[0]}, or leave it out")
        if name in values:
            raise _RecipeError(key, f"{name} once", "keep one of them", "it again")
        try:
            values[name] = _value(value, kinds[name])
        except RequestError as error:  # of an option that is itself a dataclass, such as `filters`
            raise _RecipeError(value, error.expected, error.do, error.found) from error
        except ValueError as error:
            raise _RecipeError(value, f"{name}: {type_name(kinds[name])}", "correct the value") from error
    return values


def _value(node: yaml.Node, kind) -> Any:
    """Return what a node says, as a value of a type.

    Raises:
        ValueError: it says something else.
    """
    if is_dataclass(kind):
        return kind(**_options(node, kind))
    parts, is_null = get_args(kind), node.tag.endswith(":null")
    if NoneType in parts:
        return None if is_null else _value(node, _without_none(parts))
    if get_origin(kind) is tuple and isinstance(node, yaml.SequenceNode):
        kinds = [parts[0]] * len(node.value) if parts[-1] is Ellipsis else parts
        return tuple(_value(item, kind) for item, kind in zip(node.value, kinds, strict=True))
    if is_null or not isinstance(node, yaml.ScalarNode) or get_origin(kind) is tuple:
        raise ValueError(node.tag)
    if get_origin(kind) is Literal:
        return parts[parts.index(node.value)]
    if kind is bool:
        if not node.tag.endswith(":bool"):
            raise ValueError(node.tag)
        return node.value.lower() in ("true", "yes", "on")
    value = kind(node.value)
    if kind is float and not math.isfinite(value):
        raise ValueError(node.value)
    return value


def _without_none(parts: tuple):
    return next(part for part in parts if part is not NoneType)


def type_name(kind) -> str:
    """Say in words what values a type has: "a whole number or null"."""
    parts = get_args(kind)
    if NoneType in parts:
        return f"{type_name(_without_none(parts))} or null"
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if get_origin(kind) is tuple:
        return f"[{type_name(parts[0])}, ...]" if parts[-1] is Ellipsis else f"[{', '.join(map(type_name, parts))}]"
    return TYPE_NAMES[kind]
