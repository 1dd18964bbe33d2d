"""What the notebooks call besides the stages: a place for the run, a live chart, tables and players to look at.

    take_secrets()                                  # tokens of Colab's Secrets; everything but publishing does without
    out = out_folder("drive:lengua/es")             # a run that survives a lost machine; "runs/es" for this one
    with LiveChart(out) as watch:
        run = train(options, watch)

Tables are Markdown, read from files or measured, never typed. Nothing here needs a notebook to be imported.
"""

from lengua.notebook.app import microphone
from lengua.notebook.colab import SECRET_NAMES, describe_machine, out_folder, take_secrets
from lengua.notebook.live import LiveChart
from lengua.notebook.tables import (
    alignment_table,
    example_clip,
    examples_table,
    label_table,
    metric_path,
    padding_table,
    preflight_table,
    splits_table,
    worst_clips_html,
)

__all__ = [
    "SECRET_NAMES",
    "LiveChart",
    "alignment_table",
    "describe_machine",
    "example_clip",
    "examples_table",
    "label_table",
    "metric_path",
    "microphone",
    "out_folder",
    "padding_table",
    "preflight_table",
    "splits_table",
    "take_secrets",
    "worst_clips_html",
]
