"""Stop a run that has diverged, or that improves no more: by its loss, by loops on dev, by `--patience`.

    divergence_reason(history)      # None, or why the run should end and what to do, from its records alone

Whatever stops a run is a normal end: the best checkpoint on dev is its model, and run.json says why.
"""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState, TrainerState

from lengua.runtime.errors import LenguaError
from lengua.runtime.progress import Progress, Watch
from lengua.scoring import paired_bootstrap
from lengua.training.callbacks import ERROR_KINDS, DevEvaluation, rename_logs

MIN_LOOP_GROWTH_SHARE = 0.2
"""Share of the dev clips by which loops have to grow: a fifth is no longer a few unlucky clips."""
MAJORITY = 0.5
"""What is over this share is most: of errors, of clips."""
EMPTY_OUTPUT_WER = 1.0
"""WER of writing nothing at all."""
PERSISTENT_EVALUATIONS = 3
"""So many looks in a row with most clips in loops, and no fewer of them, are no warm-up any more."""
LOOP_REMEDY = (
    "lower the --learning-rate to a third; if loops began with short windows, use --window packed or padded, "
    "or --learn all, for the encoder has to learn them"
)

LOSS_REMEDY = "lower the --learning-rate to a third, or use --precision fp32 or bf16 if it is fp16"


def divergence_reason(evaluations: list[dict]) -> str | None:
    """Return why a run should end, by its records in history.jsonl up to now; None if it should go on.

    A loss that is not finite ends it at once. Loops do not at the first look: an untouched base loops in windows that
    it has never met, and the next look shows whether it is getting used to them. From then on, loops take over from a
    model that had been better than one that writes nothing: dev WER is above the interval of the best look so far, most
    errors are insertions, and either a fifth more of the clips loop than at the best of the looks before, or there are
    more errors than words. Loops from the start are recognised by three looks that get no better.
    """
    if evaluations and not math.isfinite(evaluations[-1].get("loss", 0.0)):
        return f"the loss is {evaluations[-1]['loss']} at step {evaluations[-1]['step']}; {LOSS_REMEDY}"
    *before, now = [look for look in evaluations if "dev_wer" in look] or [None]
    if not before:
        return None
    return _loops_took_over(before, now) or _loops_persist([*before, now][-PERSISTENT_EVALUATIONS:])


def _loops_took_over(before: list[dict], now: dict) -> str | None:
    best = min(before, key=lambda look: look["dev_wer"])
    fewest = min(look["dev_looped"] for look in before)
    worse = now["dev_wer"] > max(best["dev_wer"], best["dev_wer_high"])
    insertions = now["dev_insertions"] / max(1, sum(now[f"dev_{kind}"] for kind in ERROR_KINDS))
    if best["dev_wer"] >= EMPTY_OUTPUT_WER or not worse or insertions <= MAJORITY:
        return None
    if now["dev_looped"] >= fewest + MIN_LOOP_GROWTH_SHARE:
        found = f"{now['dev_looped']:.0%} of the dev clips are in loops at step {now['step']}, {fewest:.0%} before"
    elif now["dev_wer"] > EMPTY_OUTPUT_WER:
        found = f"dev WER is {now['dev_wer']:.0%} at step {now['step']}, by insertions, {best['dev_wer']:.0%} before"
    else:
        return None
    return f"{found}; {LOOP_REMEDY}"


def _loops_persist(last: list[dict]) -> str | None:
    first, now = last[0], last[-1]
    looped = all(look["dev_looped"] > MAJORITY for look in last)
    better = now["dev_looped"] < first["dev_looped"] or now["dev_wer"] < first["dev_wer"]
    if len(last) < PERSISTENT_EVALUATIONS or not looped or better:
        return None
    share = f"{now['dev_looped']:.0%} of the dev clips are in loops at step {now['step']}"
    return f"{share}, no fewer than before; {LOOP_REMEDY}"


@dataclass
class EarlyStopping:
    """Count the evaluations without a gain since the last one that was better beyond noise."""

    errors: list[int] = field(default_factory=list)
    """Of each clip, at the last evaluation that was a real improvement."""
    step: int = 0
    fruitless: int = 0

    def add(self, evaluation: DevEvaluation, step: int) -> int:
        """Add an evaluation; return how many in a row were without a gain.

        Each is held against the last real improvement, by the paired bootstrap over speakers, so that gains too small
        to be seen one by one add up.
        """
        errors, words, speakers = evaluation.errors, evaluation.words, evaluation.speakers
        if len(self.errors) != len(errors) or paired_bootstrap(self.errors, errors, words, speakers)[2] < 0:
            self.errors, self.step, self.fruitless = list(errors), step, 0
        else:
            self.fruitless += 1
        return self.fruitless


class Guard(TrainerCallback, ExportableState):
    """Check each loss, each evaluation, and the weights before they are kept; stop the run for a reason.

    trainer_state.json of every checkpoint keeps its state under the name of this class: runs resume by it. After
    `max_fruitless` evaluations in a row without a gain the run ends, if that is not None.
    """

    def __init__(self, evaluation: DevEvaluation, max_fruitless: int | None, watch: Watch):
        self.evaluation, self.max_fruitless, self.watch = evaluation, max_fruitless, watch
        self.patience = EarlyStopping()
        self.stopped: str | None = None
        """Why it ended the run before its last step, if it did."""

    def state(self) -> dict:
        """Return what trainer_state.json keeps."""
        return {"args": {}, "attributes": {"patience": asdict(self.patience), "stopped": self.stopped}}

    def on_train_begin(self, args, state, control, **kwargs):
        """Go on with the patience of the checkpoint."""
        if state.global_step and (kept := _saved_attributes(state.stateful_callbacks)):
            self.patience = EarlyStopping(**kept["patience"])
        state.stateful_callbacks["Guard"] = self.state()

    def on_step_end(self, args, state, control, model=None, **kwargs):
        # before they are evaluated or saved, for losses are logged now and then, of steps before
        if not (control.should_evaluate or control.should_save):
            return
        learning = [weight for weight in model.parameters() if weight.requires_grad]
        if not torch.stack([weight.isfinite().all() for weight in learning]).all():
            found = f"the weights are no numbers any more at step {state.global_step}"
            self._stop_unsaved(f"{found}; {LOSS_REMEDY}", state, control)

    def on_log(self, args, state, control, logs=None, **kwargs):
        reason = divergence_reason([{"step": state.global_step, **logs}]) if "loss" in (logs or {}) else None
        if reason and not self.stopped:
            self._stop_unsaved(reason, state, control)

    def on_evaluate(self, args, state, control, **kwargs):
        if not state.global_step:  # the base
            return
        reason = divergence_reason([rename_logs(record) for record in state.log_history]) or self._impatience(state)
        if reason and state.global_step < state.max_steps:
            self._stop(reason, state, control)
        elif reason:
            self._report(reason, state)

    def _impatience(self, state) -> str | None:
        most = self.max_fruitless
        if most is None or self.patience.add(self.evaluation, state.global_step) < most:
            return None
        last = "the last evaluation" if most == 1 else f"the last {most} evaluations"
        return f"{last} brought nothing beyond the noise of dev since step {self.patience.step}; the best is kept"

    def _stop_unsaved(self, reason: str, state, control) -> None:
        control.should_evaluate = control.should_save = False  # it is worth neither
        self._stop(reason, state, control)

    def _stop(self, reason: str, state, control) -> None:
        self.stopped = reason
        control.should_training_stop = True
        self._report(f"stopped: {reason}", state)

    def _report(self, text: str, state) -> None:
        if state.is_world_process_zero:
            self.watch(Progress("guard", state.global_step, None, "", text))


def finish_interrupted(trainer, guard: Guard, checkpoint: Path | None) -> bool:
    """Tell whether a run had come to its end at a checkpoint, and if so load its best weights instead of training on.

    It was cut off then while it wrote its model: after the guard had stopped it, or after its last step.
    """
    state = checkpoint and TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    stopped = state and (_saved_attributes(state.stateful_callbacks) or {}).get("stopped")
    if not state or not (stopped or state.global_step >= state.max_steps):
        return False
    best = checkpoint.parent / f"checkpoint-{state.best_global_step}" if state.best_global_step else checkpoint
    if not best.is_dir():  # on another machine
        return False
    trainer.state, guard.stopped = state, stopped
    trainer.state.best_model_checkpoint = str(best)
    trainer._load_best_model()
    return True


def require_weights(state: TrainerState, stopped: str | None) -> None:
    """Raise a LenguaError where the loss was lost before the first checkpoint that was measured."""
    if stopped and state.best_model_checkpoint is None:
        found, _, do = stopped.partition("; ")
        raise LenguaError("a finite loss up to the first evaluation", found, f"{do}, and add --no-resume")


def _saved_attributes(callbacks: dict) -> dict | None:
    return callbacks.get("Guard", {}).get("attributes")
