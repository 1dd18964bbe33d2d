"""The command line: `lengua COMMAND`. A stage is called with its options, and its result is printed here.

Exit code 0: done. 1: a failure of the run. 2: a wrong request. 130: stopped by Ctrl-C. An error is one message on
standard error: what was expected, what was found, what to do; --debug adds the traceback.
"""

import importlib
import io
import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, is_dataclass
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Union

import tyro

from lengua import options as opt
from lengua.runtime.errors import LenguaError, missing_package
from lengua.runtime.system import is_main_process

DESCRIPTION = (
    "Teach Whisper your mother tongue on the machine you have, then talk to it. "
    "Begin with: lengua demo. Every command also takes --json (the result as one JSON object, last) and --debug."
)
INTERRUPTED_MESSAGE = ("interrupted", "run the same command again to resume")
"""The message at Ctrl-C where the stage gives no other: what happened, and what is left of it."""


@dataclass(frozen=True)
class Command:
    """A stage and how its result is shown."""

    options: type
    stage: str
    """module:function, imported only when the command is called."""
    shown_by: str
    """A function of `lengua.printing`; what it returns, if anything, is the exit code."""
    watched: bool = True
    """Whether the stage reports progress."""


COMMANDS = {
    "demo": Command(opt.DemoOptions, "lengua.demo:run", "demo"),
    "features": Command(opt.FeatureOptions, "lengua.data.features:build", "features"),
    "train": Command(opt.TrainOptions, "lengua.training.train:train", "train"),
    "evaluate": Command(opt.EvaluateOptions, "lengua.evaluation:evaluate", "evaluate"),
    "compare": Command(opt.CompareOptions, "lengua.training.compare:compare", "compare", watched=False),
    "transcribe": Command(opt.TranscribeOptions, "lengua.inference:transcribe_files", "transcribe"),
    "publish": Command(opt.PublishOptions, "lengua.publishing:publish", "publish"),
    "app": Command(opt.AppOptions, "lengua.app:launch", "nothing", watched=False),
    "doctor": Command(opt.DoctorOptions, "lengua.doctor:diagnose", "doctor", watched=False),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _write_any_letter()
    flags = {flag: flag in arguments for flag in ("--json", "--debug")}
    arguments = [argument for argument in arguments if argument not in flags]
    try:
        options = parse_arguments(arguments or ["--help"])
        return execute(options, as_json=flags["--json"])
    except LenguaError as error:
        _print_error(error, flags["--debug"])
        return error.exit_code
    except KeyboardInterrupt as stop:
        _print_error("; ".join([*stop.args, *INTERRUPTED_MESSAGE[len(stop.args) :]]), flags["--debug"])
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        _print_error(f"expected to read and write files; found {error}; make room or check the path", flags["--debug"])
        return 1
    except Exception as error:
        missing = missing_package(error) if isinstance(error, ModuleNotFoundError) else None
        internal = f"internal error: {type(error).__name__}: {error}; run it again with --debug for the traceback"
        _print_error(missing or internal, flags["--debug"])
        return 1


def _write_any_letter() -> None:
    """Let no letter end a command: files and pipes get UTF-8, a terminal a mark for what it cannot show."""
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, io.TextIOWrapper) or stream.encoding.lower().replace("-", "") == "utf8":
            continue
        if stream.isatty():
            stream.reconfigure(errors="replace")
        else:
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def parse_arguments(arguments: list[str]):
    """Return the options of the command that was asked for; a wrong request exits with 2, --help with 0."""
    kinds = [_subcommand(name, command, arguments) for name, command in COMMANDS.items()]
    return tyro.cli(Union[tuple(kinds)], prog="lengua", description=DESCRIPTION, args=arguments)  # noqa: UP007


def _subcommand(name: str, command: Command, arguments: list[str]):
    """Return a command as tyro wants it: its help, in full where it is asked for, and its defaults, by a recipe."""
    text = cleandoc(command.options.__doc__)
    described = text if name in arguments else text.partition("\n\n")[0]
    default = _defaults_of_train(arguments) if arguments[:1] == [name] == ["train"] else tyro.MISSING_NONPROP
    return Annotated[command.options, tyro.conf.subcommand(name=name, default=default, description=described)]


def _defaults_of_train(arguments: list[str]):
    """Return the options of the recipe that the arguments name, but for what they say themselves."""
    following = zip(arguments, [*arguments[1:], None], strict=True)
    pairs = [(*argument.partition("="), after) for argument, after in following if argument.startswith("--")]
    given = {flag.removeprefix("--"): value if equals else after for flag, equals, value, after in pairs}
    if given.get("recipe") is None:
        return tyro.MISSING_NONPROP
    from lengua.training.recipes import recipe_defaults

    return opt.TrainOptions(**{"source": tyro.MISSING, **recipe_defaults(given["recipe"], given)})


def execute(options, as_json: bool = False) -> int:
    """Call the stage of these options under a progress display, then show its result. Returns the exit code."""
    from lengua.runtime.progress import Console

    command = next(command for command in COMMANDS.values() if command.options is type(options))
    module, _, function = command.stage.partition(":")
    stage = getattr(importlib.import_module(module), function)
    if not is_main_process():
        stage(options)
        return 0
    with Console() if command.watched else nullcontext() as watch:
        result = stage(options, watch) if watch else stage(options)
        if isinstance(result, Iterator):  # it comes while it is worked on
            return _print_result(result, command, as_json)
    return _print_result(result, command, as_json)


def _print_result(result, command: Command, as_json: bool) -> int:
    from lengua import printing

    if not as_json:
        return getattr(printing, command.shown_by)(result) or 0
    if isinstance(result, Iterator):
        result = [item for item in result if isinstance(item, printing.FileText)]
    print(json.dumps(result, default=_to_json, ensure_ascii=False))
    failures = [item.error for item in result if item.error] if isinstance(result, list) else []
    return max((error.exit_code for error in failures), default=0)


def _to_json(value):
    """Return what JSON cannot hold as what it can: a dataclass as a dict, a path or an error as its text."""
    if is_dataclass(value):
        return asdict(value)
    if isinstance(value, Path | Exception):
        return str(value)
    raise TypeError(f"{type(value).__name__} in a result")


def _print_error(message: object, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"lengua: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
