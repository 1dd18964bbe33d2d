"""Tables and players for notebooks: labels, alignments, stores, preflight checks, padding costs, clips to listen to.

    Markdown(label_table("openai/whisper-base", "Hola.", "es")), Markdown(splits_table(store))

Tables are Markdown with columns of words aligned left, which a notebook would otherwise align right. `metric_path`
finds the metric for `evaluate.load`.
"""

import gc
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer

import lengua
from lengua.audio.log_mel import FRAMES_PER_SECOND, LOG_MEL_MIN
from lengua.audio.windows import window_of
from lengua.data.sources import Utterance, open_source
from lengua.data.store import MANIFEST_FILE, open_store
from lengua.evaluation.report import html
from lengua.evaluation.report.markdown import TrustedMarkdown, escape_markdown
from lengua.evaluation.report.rendering import template_engine
from lengua.evaluation.report.tables import DASH, Table, examples
from lengua.models.checkpoints import find_model, load_tokenizer, read_window_frames
from lengua.models.tokens import IGNORE_INDEX, decoder_pair
from lengua.options import TrainOptions
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import read_json, read_jsonl
from lengua.runtime.progress import Watch, unwatched
from lengua.scoring import score
from lengua.scoring.wer import aligned_words, word_pairs

METRIC_FILE = Path("metrics/lengua_wer/lengua_wer.py")
OPERATION_NAMES = {"equal": "", "substitute": "substituted", "delete": "deleted", "insert": "inserted"}
"""What jiwer calls a chunk of an alignment, and how a table names it."""
MAX_ALIGNED_WORDS = 40
"""Words of an alignment that are shown; a loop has hundreds."""
PARTIAL_LETTER = "\ufffd"
"""What a token looks like that is only a part of a letter."""


def notebook_table(header: Sequence[str], rows: Sequence[Sequence[object]], alignment: str = "l") -> TrustedMarkdown:
    """Return a table as Markdown; a notebook puts columns of words to the right unless the rule says otherwise."""
    return Table(header, rows, alignment).to_markdown(":---")


def label_table(base: str, text: str, language: str) -> str:
    """Return what the decoder reads and what it must answer, token by token, for one text."""
    tokenizer = load_tokenizer(find_model(base)[0])
    inputs, labels = decoder_pair(tokenizer, text, language)
    rows = [
        [
            TrustedMarkdown(place),
            format_token(tokenizer, read),
            TrustedMarkdown("*not asked*") if wanted == IGNORE_INDEX else format_token(tokenizer, wanted),
        ]
        for place, (read, wanted) in enumerate(zip(inputs, labels, strict=True))
    ]
    return notebook_table(["", "the decoder reads", "it must write next"], rows, "lll")


def format_token(tokenizer: Tokenizer, token: int) -> TrustedMarkdown:
    """Return a token as Markdown: its text, a space in it made visible, and its number."""
    text = tokenizer.decode([token], skip_special_tokens=False)
    text = "(part of a letter)" if PARTIAL_LETTER in text else escape_markdown(text.replace(" ", "␣"))
    return TrustedMarkdown(f"{text} <small>{token}</small>")


def alignment_table(reference: str, hypothesis: str) -> str:
    """Return two texts word by word as they are compared, what each pair counts as, and the WER that comes of it."""
    rows, found = align_for_table(reference, hypothesis), score(reference, hypothesis)
    if len(rows) > MAX_ALIGNED_WORDS:
        rows = [*rows[:MAX_ALIGNED_WORDS], ["…", f"and {len(rows) - MAX_ALIGNED_WORDS} more words", ""]]
    kinds = f"{found.substitutions} substituted, {found.deletions} deleted, {found.insertions} inserted"
    summary = f"{kinds}; {found.words} words were said: WER {found.wer:.0%}."
    return f"{notebook_table(['said', 'heard', 'counts as'], rows, 'lll')}\n\n{summary}"


def align_for_table(reference: str, hypothesis: str) -> list[list[str]]:
    """Return [reference, hypothesis, what it counts as] of every word."""
    output = aligned_words([reference], [hypothesis])
    [ref_words], [hyp_words], [chunks] = output.references, output.hypotheses, output.alignments
    return [
        [DASH if i is None else ref_words[i], DASH if j is None else hyp_words[j], OPERATION_NAMES[kind]]
        for kind, i, j in word_pairs(chunks)
    ]


def examples_table(evaluation: Path, count: int = 10) -> str:
    """Return clips before and after that nobody chose (`report.tables.examples`), from an evaluation's folder."""
    found = examples(read_jsonl(evaluation / "hypotheses.jsonl"), count)
    return notebook_table(["said", "before", "after"], [one[1:] for one in found], "lll")


def metric_path() -> str:
    """Return what `evaluate.load` takes: our WER, in the project's tree or where a wheel put it.

    Raises:
        LenguaError: lengua was installed without it.
    """
    for path in (Path(lengua.__file__).parent.parent / METRIC_FILE, *_of_wheel()):
        if path.is_file():
            return str(path)
    do = "run the notebook from the project's tree, or install lengua from a wheel"
    raise LenguaError(f"{METRIC_FILE}", "none beside the package", do)


def _of_wheel() -> list[Path]:
    try:
        files = metadata.files("lengua") or []
    except metadata.PackageNotFoundError:
        return []
    return [Path(file.locate()).resolve() for file in files if file.as_posix().endswith(METRIC_FILE.as_posix())]


class HasManifest(Protocol):
    """A store, or the result of building one."""

    path: Path


def splits_table(store: HasManifest) -> str:
    """Return Markdown from the manifest: clips, minutes and speakers of each split, and what was left out."""
    manifest = read_json(store.path / MANIFEST_FILE)
    rows = [
        [split, f"{count['utterances']:,}", f"{60 * count['hours']:.1f}", f"{count['speakers']:,}"]
        for split, count in manifest["splits"].items()
    ]
    for reason, found in manifest["dropped"].items():
        rows.append([TrustedMarkdown(f"*left out: {escape_markdown(reason)}*"), f"{found['count']:,}", "", ""])
    table, whose = notebook_table(["", "clips", "minutes", "speakers"], rows), manifest.get("attribution")
    return f"{table}\n\nRecordings: {escape_markdown(whose)}." if whose else table


CHECK_WORDS = {True: "ok", False: TrustedMarkdown("**wrong**"), None: "unknown"}


def preflight_table(options: TrainOptions, watch: Watch = unwatched) -> str:
    """Return the checks of `lengua.training.preflight` as Markdown; nothing is trained.

    What `train` would build first, such as the dev split of a stream, is built here already.

    Raises:
        RequestError, LenguaError: as `train` would, before its checks.
    """
    from lengua.models.whisper import load_model, require_supported_language
    from lengua.training.data import open_training_data
    from lengua.training.preflight import preflight
    from lengua.training.trainer import build_trainer

    folder, _ = find_model(options.base)
    require_supported_language(folder, options.language)
    asked, speech = open_training_data(options, folder, watch)
    trial = replace(asked, steps=1) if asked.minutes else asked  # how many there will be is not known before
    trainer = build_trainer(load_model(folder, asked.language), folder, speech, trial)
    table = checks_table(preflight(trainer, asked, folder, asked.push_checkpoints))
    del trainer
    gc.collect()  # a Trainer is full of cycles, and its memory is wanted for the training itself
    return table


def checks_table(checks: Sequence) -> str:
    """Return checks as Markdown: what was found, and the cure of those that failed."""
    rows = []
    for check in checks:
        cure = f". Expected {check.expected}: {check.do}" if check.passed is False else ""
        rows.append([CHECK_WORDS[check.passed], check.name, f"{check.found}{cure}"])
    return notebook_table(["", "check", "found"], rows, "lll")


TIMING_ROUNDS = 5
"""Measurements of each window, in turn; the median counts."""


def padding_table(base: str, seconds: float) -> str:
    """Return Markdown: milliseconds of the encoder for a clip of so many seconds, alone and in the full window."""
    folder, _ = find_model(base)
    full = read_window_frames(folder)
    windows = {"the clip alone": window_of(round(seconds * FRAMES_PER_SECOND), 0.0, full), "padded": full}
    taken = encoder_seconds(folder, list(windows.values()))
    rows = [
        [name, f"{frames / FRAMES_PER_SECOND:.1f}", f"{1000 * cost:,.1f}", f"{cost / taken[0]:.1f}"]
        for (name, frames), cost in zip(windows.items(), taken, strict=True)
    ]
    return notebook_table(["the encoder is given", "seconds", "milliseconds", "times"], rows)


def encoder_seconds(folder: Path, windows: list[int]) -> list[float]:
    """Return how long the encoder of a model folder takes on windows of so many frames, one clip each."""
    import torch

    from lengua.models.whisper import load_model
    from lengua.training.hardware import pick_device

    model = load_model(folder).eval().to(pick_device("auto"))
    taken: list[list[float]] = [[] for _ in windows]
    with torch.no_grad():
        for _ in range(TIMING_ROUNDS + 1):
            for place, frames in enumerate(windows):
                mel = torch.full((1, model.config.num_mel_bins, frames), LOG_MEL_MIN, device=model.device)
                start = time.perf_counter()
                model.model.encoder(mel).last_hidden_state.sum().item()  # a GPU is done when the sum is here
                taken[place].append(time.perf_counter() - start)
    return [statistics.median(times[1:]) for times in taken]  # the first round warms up


MAX_CANDIDATES, MIN_EXAMPLE_LETTERS = 40, 40
"""Of so many clips one is taken, whose text has about so many letters: some words, in some seconds."""


def example_clip(source: str, language: str | None = None, split: str = "test") -> Utterance:
    """Return a recording of a source with its text; of the first ones, one that says some words.

    Raises:
        RequestError: no such source, or none in this split.
    """
    items = (item for item in open_source(source, language).read(split) if isinstance(item, Utterance))
    found = list(islice(items, MAX_CANDIDATES))
    if not found:
        raise RequestError(f"recordings in {split} of {source}", "none", "name another split")
    return min(found, key=lambda item: abs(len(item.text) - MIN_EXAMPLE_LETTERS))


def worst_clips_html(evaluation: Path, store: Path | None = None, count: int = 5):
    """Return the clips with most errors as HTML to display: reference, hypotheses and a player.

    Args:
        evaluation: a folder with results.json and hypotheses.jsonl.
        store: the store that was measured on, for the sound; without it, or what it kept, there are no players.
    """
    from IPython.display import HTML

    results, records = read_json(evaluation / "results.json"), read_jsonl(evaluation / "hypotheses.jsonl")
    split = open_store(store).split(results["split"]) if store else None
    worst = html.worst_clips(results, records, split, count)
    page = template_engine(autoescape=True).get_template("worst.html")
    return HTML(page.render(worst=worst, language=results.get("language") or ""))
