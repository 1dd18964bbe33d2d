"""`--report-to`: the curves of a run live in a browser, from files in the run's own folder.

    tensorboard --logdir runs                                  # --report-to tensorboard: runs/X/tensorboard
    TRACKIO_DIR=runs/X/trackio trackio show --project X        # --report-to trackio: runs/X/trackio

Both stay on this machine. history.jsonl is written all the same.
"""

import contextlib
import importlib.util
import os
import sys

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback
from transformers.integrations.integration_utils import rewrite_logs

from lengua.errors import RequestError
from lengua.options import TrainOptions

FOLDERS = ("tensorboard", "trackio")
"""Of a run, by the name of the package that writes them."""


def require_installed(report_to: tuple[str, ...]) -> None:
    """Find the packages before anything is built.

    Raises:
        RequestError: one is not there.
    """
    for name in report_to:
        if importlib.util.find_spec(name) is None:
            raise RequestError(f"{name}, for --report-to {name}", "it is not installed", f"pip install {name}")


def trackers(options: TrainOptions) -> list[TrainerCallback]:
    """Return what the Trainer has to tell."""
    made = {"tensorboard": _tensorboard, "trackio": Trackio}
    return [made[name](options) for name in dict.fromkeys(options.report_to)]


def _tensorboard(options: TrainOptions) -> TensorBoardCallback:
    """Return transformers' own, with its folder: the variable it would be taken from outlives a run."""
    callback = TensorBoardCallback()
    callback.logging_dir = str(options.out / "tensorboard")
    return callback


class Trackio(TrainerCallback):
    """Tells trackio what is logged, and that it is to stay here.

    That of transformers tells trackio neither where, so that all runs go to one folder of the home, nor to open no
    dashboard in a notebook; in early versions its default is a public Space. trackio reads its folder when it is
    imported: of several runs in one process the first one's folder has them all, each under its own name.
    """

    def __init__(self, options: TrainOptions):
        self.name, self.options = options.out.resolve().name, options
        self.run = None

    def on_train_begin(self, args, state, control, **kwargs):
        """Begin the run, or go on with it."""
        if not state.is_world_process_zero:
            return
        os.environ.setdefault("TRACKIO_DIR", str((self.options.out / "trackio").resolve()))
        import trackio

        with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
            config = {"base": self.options.base, "source": self.options.source, "seed": self.options.seed}
            self.run = trackio.init(project=self.name, name=self.name, resume="allow", embed=False, config=config)

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Pass on loss and rate, or the measures on dev."""
        if self.run:
            self.run.log(rewrite_logs(logs or {}), step=state.global_step)

    def on_train_end(self, args, state, control, **kwargs):
        """Write down what is still on its way."""
        if self.run:
            import trackio

            with contextlib.redirect_stdout(sys.stderr):
                trackio.finish()
            self.run = None
