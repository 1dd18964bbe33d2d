"""What the notebooks call besides the stages: a place for the run, a live chart, tables and players to look at.

    take_secrets()                                  # tokens of Colab's Secrets; everything but publishing does without
    out = out_folder("drive:lengua/es")             # a run that survives a lost machine; "runs/es" for this one
    with LiveChart(out) as watch:
        run = train(options, watch)

Tables are Markdown, read from files or measured, never typed. Nothing here needs a notebook to be imported.
"""

from lengua.notebook.colab import SECRETS, machine, out_folder, take_secrets
from lengua.notebook.contract import preflight_table
from lengua.notebook.examples import alignment_table, examples_table, label_table, metric
from lengua.notebook.listening import example_clip, worst_clips
from lengua.notebook.live import LiveChart
from lengua.notebook.padding import padding_table
from lengua.notebook.page import microphone
from lengua.notebook.stores import splits_table

__all__ = [
    "SECRETS",
    "LiveChart",
    "alignment_table",
    "example_clip",
    "examples_table",
    "label_table",
    "machine",
    "metric",
    "microphone",
    "out_folder",
    "padding_table",
    "preflight_table",
    "splits_table",
    "take_secrets",
    "worst_clips",
]
