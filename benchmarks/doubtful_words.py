"""How often a word is wrong, by how sure the model is of it: what the tints of the app rest on.

    python benchmarks/doubtful_words.py --models runs/demo openai/whisper-base

Real Common Voice, which neither model was chosen on. A word is wrong where the alignment with the reference, as
`lengua.scoring` compares it, has another word or none in its place. The last line is one JSON object.
"""

import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from corpus import COMMON_VOICE, validated
from harness import BenchmarkOptions, markdown, report, run

from lengua.app.highlighting import GUESSED_PROBABILITY, SURE_PROBABILITY
from lengua.evaluation.report.html import DELETED, EQUAL, word_diff
from lengua.inference import Transcriber
from lengua.runtime.progress import Console, Progress

EDGES = (0.0, 0.3, 0.5, GUESSED_PROBABILITY, 0.7, SURE_PROBABILITY, 0.9, 0.95, 1.01)
KINDS = {
    "guessed": (0.0, GUESSED_PROBABILITY),
    "doubtful": (GUESSED_PROBABILITY, SURE_PROBABILITY),
    "sure": (SURE_PROBABILITY, 1.01),
}


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Count wrong words by their probability."""

    models: tuple[str, ...] = ("runs/demo", "openai/whisper-base")
    """Runs, model folders or Hub ids."""
    clips: Path = COMMON_VOICE / "es"
    """A language's folder of Common Voice: clips/ and validated.tsv."""
    language: str = "es"
    """Its language."""


def main(options: Options) -> dict:
    if not (rows := validated(options.clips)):
        sys.exit(f"skipped: no Common Voice folder at {options.clips}; name one with --clips")
    lines, counts = [], {}
    for model in options.models:
        words = judged(model, rows, options)
        counts[model] = {kind: counted(words, *bounds) for kind, bounds in KINDS.items()}
        cells = [(f"{low} to {min(high, 1.0)}", counted(words, low, high)) for low, high in pairwise(EDGES)]
        cells += [(f"**{kind}**", count) for kind, count in counts[model].items()]
        header = [model, "words", "wrong", "share"]
        table = [[name, f"{all_}", f"{wrong}", f"{100 * wrong / max(all_, 1):.0f} %"] for name, (all_, wrong) in cells]
        lines += [*markdown(header, table), ""]
    lines.append(f"{len(rows)} validated clips of {options.clips.parent.name}.")
    result = {"clips": len(rows), "models": counts}
    return report(options, "Words that a model doubts", lines, result, shown=("models",))


def judged(model: str, rows: list[dict], options: Options) -> list[tuple[float, bool]]:
    """Return (probability, whether it is wrong) of each word that a model writes.

    A clip whose words are cut otherwise than its text is, by a lone dash for one, is left out.
    """
    transcriber, found = Transcriber(model, options.language), []
    with Console() as watch:
        for done, row in enumerate(rows, start=1):
            transcript = transcriber.transcribe(options.clips / "clips" / row["path"], words=True)
            words = [word for segment in transcript.segments for word in segment.words]
            aligned = [word for word in word_diff(row["sentence"], transcript.text) if word.kind != DELETED]
            if [word.text for word in words] == [word.text for word in aligned]:
                found += [(word.probability, one.kind != EQUAL) for word, one in zip(words, aligned, strict=True)]
            watch(Progress(f"hearing with {model}", done, len(rows), " clips"))
    return found


def counted(words: list[tuple[float, bool]], low: float, high: float) -> tuple[int, int]:
    """Return (words, wrong words) of those between two probabilities."""
    wrong = [is_wrong for probability, is_wrong in words if low <= probability < high]
    return len(wrong), sum(wrong)


if __name__ == "__main__":
    run(main, Options)
