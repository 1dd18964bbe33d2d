"""The command line as people type it: exit codes, one message, --json, --help, Ctrl-C."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lengua import cli
from lengua import options as opt
from lengua.cli import COMMANDS, main, parse_arguments
from lengua.runtime.errors import missing_package
from lengua.runtime.progress import Console, Progress


def lengua(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run the real program."""
    command = [sys.executable, "-m", "lengua", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120)


def test_help_names_every_command_and_is_quick():
    before = os.times()
    done = lengua("--help")
    after = os.times()
    assert done.returncode == 0 and all(f"• {name}" in done.stdout for name in COMMANDS)
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    assert seconds < 0.5, "of a core, whatever else the machine does"


def test_help_of_features_leads_from_an_archive_to_a_model(capsys):
    for arguments in (["features", "--help"], ["--help"]):
        with pytest.raises(SystemExit):
            parse_arguments(arguments)
        shown = " ".join(capsys.readouterr().out.split())
        assert ("common_voice:cv-corpus-25.0-es.tar.gz --out stores/es" in shown) == (len(arguments) == 2)


def test_the_contract_of_commands():
    assert list(COMMANDS) == "demo features train evaluate compare transcribe publish app doctor".split()
    kinds = {value for value in vars(opt).values() if isinstance(value, type) and value.__name__.endswith("Options")}
    assert {command.options for command in COMMANDS.values()} == kinds


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_teaches_every_option(name, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_arguments([name, "--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    for field in COMMANDS[name].options.__dataclass_fields__:
        assert re.search(rf"--{field.replace('_', '-')}\b|{field.upper()}|\[?STR|PATH", shown), field


def test_defaults_are_those_of_the_options():
    assert parse_arguments(["features"]) == opt.FeatureOptions()
    assert parse_arguments(["train", "stores/mine"]) == opt.TrainOptions("stores/mine")
    assert parse_arguments(["train", "stores/mine", "--no-resume", "--margin-s", "0.2", "1"]).margin_s == (0.2, 1.0)


def test_a_missing_file_is_one_message_and_exit_2():
    done = lengua("transcribe", "missing.wav")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "lengua: expected an audio file; found no file at missing.wav; check the path\n"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["features", "nowhere:x"], "sample:es"),
        (["features", "folder:nowhere"], "nowhere"),
        (["train", "nowhere"], "feature store"),
        (["evaluate", "nobody", "nowhere"], "feature store"),
        (["publish", "nobody"], "Hub id"),
        (["transcribe"], "FILES"),
        (["transcirbe", "a.wav"], "transcribe"),
        (["train", "x", "--epochs", "many"], "epochs"),
    ],
)
def test_wrong_requests_exit_with_2_and_no_traceback(arguments, word, tmp_path, capsys):
    try:
        code = main([*arguments, *(["--out", str(tmp_path / "out")] if arguments[0] == "features" else [])])
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2 and word.lower() in error.lower() and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_debug_adds_the_traceback(capsys):
    assert main(["train", "nowhere", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_failure_of_the_run_exits_with_1(tmp_path, capsys):
    (tmp_path / "metadata.csv").write_text("file_name,text\nnowhere.wav,hola\n")
    assert main(["features", f"folder:{tmp_path}", "--language", "es", "--out", str(tmp_path / "store")]) == 1
    assert "missing file: 1" in capsys.readouterr().err


def test_json_is_the_last_line_and_the_result(tiny_folder, tmp_path, capsys):
    arguments = ["features", tiny_folder, "--language", "es", "--out", str(tmp_path / "store"), "--workers", "1"]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["built"] and result["splits"]["train"]["utterances"] == 15
    assert main(arguments) == 0
    assert "already complete" in capsys.readouterr().out


def test_a_log_gets_plain_lines(tiny_folder, tmp_path):
    done = lengua("features", tiny_folder, "--language", "es", "--out", tmp_path / "store")
    assert done.returncode == 0 and "features: 24/24 clips" in done.stderr and "\x1b" not in done.stderr + done.stdout


def test_ctrl_c_exits_with_130_and_says_how_to_go_on(tiny_store, tiny_model, tmp_path):
    command = ["train", tiny_store.path, "--out", tmp_path / "run", "--base", tiny_model, "--steps", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "lengua", *map(str, command)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 90
    while not _steps(tmp_path / "run") and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in error
    assert re.search(r"stopped at step \d+ of 100000, checkpoint saved; run the same command again", error)
    assert list((tmp_path / "run/checkpoints").glob("checkpoint-*/trainer_state.json"))


def _steps(run: Path) -> bool:
    history = run / "history.jsonl"
    return history.is_file() and '"loss"' in history.read_text()


@pytest.mark.real
def test_one_bad_file_does_not_stop_the_others(base_model, spoken_es, tmp_path, capsys):
    clip = next(iter(spoken_es))
    (tmp_path / "text.wav").write_text("this is not audio")
    files = [str(tmp_path / "text.wav"), str(clip), str(tmp_path / "missing.wav")]
    assert main(["transcribe", *files, "--model", str(base_model)]) == 2
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{clip}: ") and len(shown.out.splitlines()) == 1
    errors = [line for line in shown.err.splitlines() if line.startswith("lengua: expected")]
    assert len(errors) == 2 and "text.wav" in errors[0] and "missing.wav" in errors[1]
    text = shown.out.removeprefix(f"{clip}: ")
    assert main(["transcribe", *files, "--model", str(base_model), "--out", str(tmp_path / "texts")]) == 2
    assert capsys.readouterr().out.startswith(f"{clip}: {tmp_path}/texts/{clip.stem}.txt, 1 segments")
    assert (tmp_path / "texts" / f"{clip.stem}.txt").read_text(encoding="utf-8") == text


@pytest.mark.parametrize(("package", "extra"), [("pyarrow", "report"), ("torch", "train"), ("gradio", "app")])
def test_a_missing_package_names_the_extra_that_brings_it(package, extra):
    error = missing_package(ModuleNotFoundError("no", name=f"{package}.parts"))
    assert package in error.found + error.expected and f"lengua[{extra}]" in error.do


def test_a_missing_package_of_nobody_is_an_internal_error(monkeypatch, capsys):
    assert missing_package(ModuleNotFoundError("no", name="nowhere")) is None
    monkeypatch.setattr(cli, "execute", lambda *_, **__: __import__("nowhere"))
    assert cli.main(["doctor"]) == 1
    assert "internal error" in capsys.readouterr().err


# Progress in a log and on a terminal


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_log_gets_the_first_and_the_last_line_of_a_stage_and_few_between():
    log = io.StringIO()
    with Console(log) as watch:
        for done in range(0, 1001):
            watch(Progress("features", done, 1000))
    lines = log.getvalue().splitlines()
    assert lines[0].startswith("features: 0/1000 clips") and lines[-1].startswith("features: 1000/1000 clips")
    assert len(lines) <= 3


def test_a_line_tells_rate_and_what_is_left():
    log = io.StringIO()
    with Console(log) as watch:
        watch(Progress("training", 10, 100, "steps"))
        watch.started -= 20
        watch.spoken = -1000
        watch(Progress("training", 20, 100, "steps", "loss 0.50"))
    assert log.getvalue().splitlines()[-1] == "training: 20/100 steps, 0.5 steps/s, 2:40 left, loss 0.50"


def test_large_numbers_are_written_out():
    log = io.StringIO()
    with Console(log) as watch:
        watch(Progress("features", 0, 1_500_000))
        watch.started -= 3600
        watch(Progress("features", 1_500_000, 1_500_000))
    assert log.getvalue().splitlines()[-1] == "features: 1500000/1500000 clips, 417 clips/s"


def test_a_terminal_gets_a_bar():
    terminal = Terminal()
    with Console(terminal) as watch:
        watch(Progress("features", 5, 10, note="2 dropped"))
        watch(Progress("features", 10, 10))
    assert "features" in terminal.getvalue() and "10/10" in terminal.getvalue()
