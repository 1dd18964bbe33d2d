"""The stage `lengua demo`: the whole pipeline on a small real data set, from features to a published folder.

Each step reuses what an earlier call finished, so that an interrupted demo resumes.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lengua import publishing
from lengua.data import features
from lengua.data.sources import sample
from lengua.data.store import open_store
from lengua.evaluation import evaluate
from lengua.evaluation.report import tables
from lengua.inference import Transcriber
from lengua.models import checkpoints
from lengua.options import BASE_MODEL, DemoOptions, EvaluateOptions, FeatureOptions, PublishOptions, TrainOptions
from lengua.runtime.files import read_jsonl, write_bytes, write_json
from lengua.runtime.progress import Watch, unwatched

DEMO_SOURCE = "sample:es"
TRANSCRIBED_CLIPS = 3
PARITY_CLIPS = 8
"""Clips that every program of the export transcribes; `lengua publish` takes more."""
DEMO_EVALUATIONS = 3
DEMO_LEARNING_RATE = 1e-5
"""Of the figures in README.md and LOG.md; the rule by size (lengua.training.data) would say 2.5e-5."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo has to show."""

    path: Path
    rows: list[dict]
    """Rows of results.json: each voice's test set, base and fine-tuned."""
    examples: list[tables.BeforeAfter]
    heard: list[tuple[str, str]]
    """(id, text) of clips that the exported model transcribed from their audio."""
    figure: Path
    seconds: dict[str, float]
    """How long each step took in this call."""


def run(options: DemoOptions, watch: Watch = unwatched) -> DemoResult:
    """Features, baseline, fine-tuning, evaluation, export, transcription, table.

    Raises:
        LenguaError: a step failed; the message says which clause of it to mend.
    """
    from lengua.training.train import train  # seconds of imports, so not before somebody asks for it

    seconds: dict[str, float] = {}
    step = partial(timed, seconds)
    threading.Thread(target=_fetch_quietly, daemon=True).start()
    with step("base weights"):
        checkpoints.find_model(BASE_MODEL)
    with step("features"):
        store = features.build(FeatureOptions(DEMO_SOURCE, options.out / "store", limit=options.limit), watch).path
    evaluation = EvaluateOptions(BASE_MODEL, str(store), out=options.out / "evaluation", by="speaker")
    with step("baseline"):
        if not (options.out / "model").is_dir():
            evaluate(evaluation, watch)
    with step("training"):
        schedule = {"epochs": options.epochs, "evaluations": DEMO_EVALUATIONS, "learning_rate": DEMO_LEARNING_RATE}
        train(TrainOptions(str(store), options.out, **schedule), watch)
    with step("evaluation"):
        rows = evaluate(replace(evaluation, model=str(options.out), against=BASE_MODEL), watch).rows
    with step("export"):
        export = PublishOptions(str(options.out), options.out / "export", parity_clips=PARITY_CLIPS)
        exported = publishing.publish(export, watch).path
    with step("transcription"):
        transcripts = transcribe_test_clips(exported, store, TRANSCRIBED_CLIPS)
    figure = _draw(rows, options)
    write_json(options.out / "demo.json", {"seconds": seconds})
    hypotheses = read_jsonl(options.out / "evaluation" / "hypotheses.jsonl")
    return DemoResult(options.out, rows, tables.examples(hypotheses), transcripts, figure, seconds)


def transcribe_test_clips(model: Path, store: Path, count: int) -> list[tuple[str, str]]:
    """Transcribe test clips from their stored audio, as a user would from files; clips spread over the test set."""
    transcriber = Transcriber(str(model), open_store(store).language)
    test = open_store(store).split("test")
    chosen = [test[len(test) * (2 * index + 1) // (2 * count)] for index in range(count)]
    return [(row.id, transcriber.transcribe(row.audio).text) for row in chosen]


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Note how long a step took."""
    start = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - start, 1)


def _fetch_quietly() -> None:
    """Fetch the 160 MB of the second voice while the base weights come; the features step tells of any failure."""
    for voice in sample.voices_of("es"):
        try:
            sample.fetch_voice(voice)
        except Exception:  # the features step asks again, and fails with the reason
            return


def _draw(rows: list[dict], options: DemoOptions) -> Path:
    """Draw wer.png into the run; a whole demo in the project's own tree renews images/demo.png, too."""
    figure = options.out / "wer.png"
    tables.wer_figure(rows, figure)
    if options.limit is None and Path("images").is_dir() and Path("pyproject.toml").is_file():
        write_bytes(Path("images") / "demo.png", figure.read_bytes())
    return figure
