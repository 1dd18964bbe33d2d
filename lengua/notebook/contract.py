"""Preflight without the flight: what `train` looks at before its first step, as a table."""

import gc
from collections.abc import Sequence
from dataclasses import replace

from lengua.checkpoints import find_model
from lengua.notebook.tables import grid
from lengua.options import TrainOptions
from lengua.progress import Watch, unwatched
from lengua.publishing.markdown import Ready

WORDS = {True: "ok", False: Ready("**wrong**"), None: "unknown"}


def preflight_table(options: TrainOptions, watch: Watch = unwatched) -> str:
    """Return the checks of `lengua.training.preflight` as Markdown; nothing is trained.

    What `train` would build first, such as the dev split of a stream, is built here already.

    Raises:
        RequestError, LenguaError: as `train` would, before its checks.
    """
    from lengua.model import load_model, require_speaks
    from lengua.training.preflight import preflight
    from lengua.training.speech import open_speech
    from lengua.training.trainer import build_trainer

    folder, _ = find_model(options.base)
    require_speaks(folder, options.language)
    asked, speech = open_speech(options, folder, watch)
    trial = replace(asked, steps=1) if asked.minutes else asked  # how many there will be is not known before
    trainer = build_trainer(load_model(folder, asked.language), folder, speech, trial, watch)
    table = as_table(preflight(trainer, asked, folder, asked.push_checkpoints))
    del trainer
    gc.collect()  # a Trainer is full of cycles, and its memory is wanted for the training itself
    return table


def as_table(checks: Sequence) -> str:
    """Return checks as Markdown: what was found, and the cure of those that failed."""
    rows = []
    for check in checks:
        cure = f". Expected {check.expected}: {check.do}" if check.passed is False else ""
        rows.append([WORDS[check.passed], check.name, f"{check.found}{cure}"])
    return grid(["", "check", "found"], rows, words=3)
