"""How a WER of 300 % comes about: the classical failures of fine-tuning Whisper, made to happen on real speech.

    python benchmarks/three_hundred.py --store runs/demo/store

Each mode breaks one thing and leaves the rest as it should be: how the clips are heard (a short window, zeros behind
the speech, no language or a wrong one), how labels are made (a second start token, no end token) or the learning rate.
All that learn take the same steps on the same clips, and all write down the same test clips, greedily and up to 225
tokens as the usual recipe does, without the loop guard that lengua has elsewhere. Beside the WER stands what a training
log would show: the loss a token with the mode's own labels. `lengua.evaluation` is then asked, from the transcripts
alone, what is wrong. The last line is one JSON object. With --record the figures go into benchmarks/RESULTS.md, into
an image, and into the file that notebooks read (`lengua.notebook.error_analysis`).
"""

import datetime
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from recording import markdown, record, run
from three_hundred_modes import DEFAULTS, DETECTED, FORCED, MODES, Bench, Mode, learned, measured, placed

from lengua.audio import log_mel
from lengua.audio.windows import bucket_by_length
from lengua.evaluation.diagnosis import KnownFacts, diagnose_failures
from lengua.evaluation.failure_modes import FailureModes, find_failure_modes
from lengua.evaluation.report.figures import failures_figure
from lengua.evaluation.report.tables import with_interval
from lengua.models.tokens import decoder_pair, end_token, token_id
from lengua.notebook.error_analysis import FAILURE_STUDY_FILE
from lengua.options import BASE_MODEL
from lengua.runtime.files import read_json, write_json
from lengua.runtime.system import describe_hardware, git_commit

OUT = Path("runs/three_hundred")
"""Where the transcripts of every mode are kept, to be read; broken off, the same call goes on after the last one."""
HOW_IT_IS_SHOWN = ("record", "json", "figure", "kept")
FIGURES = "words wer wer_low wer_high substitutions deletions insertions looped length_limit loss".split()


@dataclass(frozen=True)
class Options:
    """Make Whisper fail in each of the well-known ways, and measure how badly."""

    store: Path = Path("runs/demo/store")
    """The clips: train and test of a feature store."""
    base: str = BASE_MODEL
    """The checkpoint to start from."""
    steps: int = 100
    """Optimiser steps of each mode that learns."""
    batch_size: int = 8
    """Clips a step."""
    clips: int = 80
    """Test clips, drawn by the seed."""
    max_tokens: int = 225
    """Most tokens of a transcript, as in the usual recipe: what a loop can cost."""
    seed: int = 17
    """Draws clips and batches."""
    figure: Path = Path("images/three_hundred.png")
    """Where --record draws the figure."""
    kept: Path = FAILURE_STUDY_FILE
    """Where --record keeps what notebooks tell: figures, causes and cures, one clip of each mode."""
    record: bool = False
    """Write the result into benchmarks/RESULTS.md, and the figure."""
    json: bool = True
    """Print one JSON object, last."""


def main(options: Options) -> dict:
    """Let every mode happen, measure it, have it explained, print."""
    bench, (found, where) = Bench(options), kept(options)
    untouched = bench.model()
    for name, mode in MODES.items():
        if name in found:
            continue
        tell(f"{name}: {mode.title}")
        model = untouched if mode.learns is None else learned(bench, mode)
        model.generation_config.language = None if mode.language == DETECTED else bench.language
        found[name], where = (
            measured(bench, model, mode),
            f"{datetime.date.today()}, commit {git_commit()}, {describe_hardware()}",
        )
        write_json(OUT / "modes.json", {"options": asked(options), "where": where, "modes": found})
        tell(f"  WER {found[name]['wer']:.1%}, loss {found[name]['loss']:.2f}")
    return show(options, bench, found, where)


def asked(options: Options) -> dict[str, str]:
    """Return the options that a result hangs on."""
    return {name: str(value) for name, value in vars(options).items() if name not in HOW_IT_IS_SHOWN}


def kept(options: Options) -> tuple[dict[str, dict], str]:
    """Return the modes that an earlier call with these options measured, and when and where that was."""
    before = read_json(OUT / "modes.json") if (OUT / "modes.json").is_file() else {}
    return (before["modes"], before.get("where", "")) if before.get("options") == asked(options) else ({}, "")


def facts_of(bench: Bench, mode: Mode) -> KnownFacts:
    """Return what a batch and the settings of a mode tell, as somebody who looks at them would find it."""
    row = min(bench.rows, key=lambda row: row.frames)
    [(_, window)] = bucket_by_length([row.frames], 1, mode.margin_s, bench.longest)
    batch = bench.batch([placed(row, window, mode.behind)], [row.text], mode.learns or decoder_pair)
    start, end = token_id(bench.tokenizer, "<|startoftranscript|>"), end_token(bench.tokenizer)
    return KnownFacts(
        learning_rate=mode.rate if mode.learns else None,
        starts=int(batch["decoder_input_ids"].eq(start).sum()),
        ends=int(batch["labels"].eq(end).sum()),
        filler=float(batch["input_features"][0, :, -1].mean()),
        floor=log_mel.silence_floor(row.peak),
        forced=mode.language == FORCED,
    )


def explained(bench: Bench, found: dict[str, dict]) -> dict[str, FailureModes]:
    """Have every mode looked into as an evaluation does: by its texts alone, and with what a batch tells."""
    bodies = {name: find_failure_modes(row["records"], bench.language) for name, row in found.items()}
    for name, mode in MODES.items():
        note = {} if mode.learns is None else {"window": "adaptive", "margin_s": list(DEFAULTS.margin_s)}
        window = "padded" if mode.margin_s is None else "adaptive"
        same_padded = bodies["base"] if mode.learns is None and window == "adaptive" else None
        how = (bodies[name], bodies["base"] if name != "base" else None, note, window, same_padded)
        found[name]["by_text"] = [finding.name for finding in diagnose_failures(*how)]
        found[name]["findings"] = [asdict(finding) for finding in diagnose_failures(*how, facts_of(bench, mode))]
        found[name]["named"] = [finding["name"] for finding in found[name]["findings"]]
    return bodies


def table_of(options: Options, found: dict[str, dict]) -> list[str]:
    """Return the table and what one must know to read it."""
    head = ["one thing broken", "WER (95 % interval)", "S / D / I", "loops", "at the limit", "loss"]
    rows = []
    for name, row in found.items():
        operations = " / ".join(str(row[kind]) for kind in ("substitutions", "deletions", "insertions"))
        figures = [with_interval(row), operations, str(row["looped"]), str(row["length_limit"]), f"{row['loss']:.2f}"]
        rows.append([MODES[name].title, *figures, ", ".join(row["by_text"][:2]), row["named"][0]])
    looked_at = "With a batch: one row of inputs, labels and features is looked at, too."
    return [*markdown([*head, "named by the texts", "with a batch"], rows), "", f"{about(options, found)} {looked_at}"]


def about(options: Options, found: dict[str, dict]) -> str:
    """Say what was measured, and how."""
    base = found["base"]
    return (
        f"{Path(options.base).name}, {len(base['records'])} test clips of {base['words']} words, at most "
        f"{options.max_tokens} tokens each; those that learn take {options.steps} steps of {options.batch_size} clips. "
        "Loss: by teacher forcing, with the mode's own labels."
    )


def told(name: str, row: dict, body: FailureModes) -> dict:
    """Return what notebooks tell of a mode: `lengua.notebook.error_analysis.MeasuredFailure`."""
    [worst] = (body.inventors or body.worst)[:1] or [None]
    return {
        "name": name,
        "title": MODES[name].title,
        "clips": len(row["records"]),
        **{key: row[key] for key in FIGURES},
        "by_text": row["by_text"],
        "findings": row["findings"],
        "said": worst.reference if worst else "",
        "heard": worst.hypothesis if worst else "",
    }


def show(options: Options, bench: Bench, found: dict[str, dict], where: str) -> dict:
    """Print and return the figures."""
    bodies = explained(bench, found)
    lines, command = table_of(options, found), f"python benchmarks/three_hundred.py --store {options.store}"
    print("\n".join(lines))
    drawn = {name: row | {"title": MODES[name].title} for name, row in found.items()}
    failures_figure(drawn, options.figure if options.record else OUT / "wer.png")
    story = {"command": command, "where": where, "about": about(options, found)}
    story["attribution"] = bench.store.manifest["attribution"]
    story["failures"] = [told(name, row, bodies[name]) for name, row in found.items()]
    write_json(options.kept if options.record else OUT / "failures.json", story)
    if options.record:
        record("How 300 % comes about", command, lines)
    left = ("records", "findings")
    result = {
        "modes": {name: {key: row[key] for key in row if key not in left} for name, row in found.items()},
        "max_wer": max(row["wer"] for row in found.values()),
        "healthy_wer": found["healthy"]["wer"],
        "base_wer": found["base"]["wer"],
        "named": {name: row["named"][0] for name, row in found.items()},
    }
    if options.json:
        print(json.dumps(result))
    return result


def tell(text: str) -> None:
    """Say on standard error how far it is."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run(main, Options)
