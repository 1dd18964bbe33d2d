"""Labels, errors and examples, one line for each, as Markdown; and our metric for `evaluate`."""

from importlib import metadata
from pathlib import Path

import jiwer
from tokenizers import Tokenizer

import lengua
from lengua.checkpoints import find_model, load_tokenizer
from lengua.errors import LenguaError
from lengua.files import read_jsonl
from lengua.labels import IGNORED, decoder_pair
from lengua.notebook.tables import grid
from lengua.publishing.markdown import Ready, escaped
from lengua.report import examples
from lengua.scoring import score
from lengua.scoring.counts import aligned_words

METRIC = Path("metrics/lengua_wer/lengua_wer.py")
COUNTED = {"equal": "", "substitute": "substituted", "delete": "deleted", "insert": "inserted"}
"""What jiwer calls a chunk of an alignment, and how it is told."""
MOST_WORDS = 40
"""Words of an alignment that are shown; a loop has hundreds."""
PIECE = "\ufffd"
"""What a token looks like that is only a part of a letter."""
NOTHING = "–"


def label_table(base: str, text: str, language: str) -> str:
    """Return what the decoder reads and what it must answer, token by token, for one text."""
    tokenizer = load_tokenizer(find_model(base)[0])
    inputs, labels = decoder_pair(tokenizer, text, language)
    rows = [
        [Ready(place), shown(tokenizer, read), Ready("*not asked*") if wanted == IGNORED else shown(tokenizer, wanted)]
        for place, (read, wanted) in enumerate(zip(inputs, labels, strict=True))
    ]
    return grid(["", "the decoder reads", "it must write next"], rows, words=3)


def shown(tokenizer: Tokenizer, token: int) -> Ready:
    """Return a token as Markdown: its text, a space in it made visible, and its number."""
    text = tokenizer.decode([token], skip_special_tokens=False)
    text = "(part of a letter)" if PIECE in text else escaped(text.replace(" ", "␣"))
    return Ready(f"{text} <small>{token}</small>")


def alignment_table(reference: str, hypothesis: str) -> str:
    """Return two texts word by word as they are compared, what each pair counts as, and the WER that comes of it."""
    rows, found = aligned(reference, hypothesis), score(reference, hypothesis)
    if len(rows) > MOST_WORDS:
        rows = [*rows[:MOST_WORDS], ["…", f"and {len(rows) - MOST_WORDS} more words", ""]]
    kinds = f"{found.substitutions} substituted, {found.deletions} deleted, {found.insertions} inserted"
    told = f"{kinds}; {found.words} words were said: WER {found.wer:.0%}."
    return f"{grid(['said', 'heard', 'counts as'], rows, words=3)}\n\n{told}"


def aligned(reference: str, hypothesis: str) -> list[list[str]]:
    """Return [said, heard, what it counts as] of every word."""
    output = aligned_words([reference], [hypothesis])
    [said], [heard], [chunks] = output.references, output.hypotheses, output.alignments
    return [row for chunk in chunks for row in _rows(said, heard, chunk)]


def _rows(said: list[str], heard: list[str], chunk: jiwer.AlignmentChunk) -> list[list[str]]:
    left, right = said[chunk.ref_start_idx : chunk.ref_end_idx], heard[chunk.hyp_start_idx : chunk.hyp_end_idx]
    left, right = left or [NOTHING] * len(right), right or [NOTHING] * len(left)
    return [[*pair, COUNTED[chunk.type]] for pair in zip(left, right, strict=True)]


def examples_table(evaluation: Path, count: int = 10) -> str:
    """Return clips before and after that nobody chose (`lengua.report.examples`), from an evaluation's folder."""
    found = examples(read_jsonl(evaluation / "hypotheses.jsonl"), count)
    return grid(["said", "before", "after"], [[one.reference, one.before, one.after] for one in found], words=3)


def metric() -> str:
    """Return what `evaluate.load` takes: our WER, in the project's tree or where a wheel put it.

    Raises:
        LenguaError: lengua was installed without it.
    """
    for path in (Path(lengua.__file__).parent.parent / METRIC, *_of_wheel()):
        if path.is_file():
            return str(path)
    do = "run the notebook from the project's tree, or install lengua from a wheel"
    raise LenguaError(f"{METRIC}", "none beside the package", do)


def _of_wheel() -> list[Path]:
    try:
        files = metadata.files("lengua") or []
    except metadata.PackageNotFoundError:
        return []
    return [Path(file.locate()).resolve() for file in files if file.as_posix().endswith(METRIC.as_posix())]
