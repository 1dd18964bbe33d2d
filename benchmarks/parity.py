"""Do the words hold where people will use the checkpoint? All formats, in every program that opens them.

    python benchmarks/parity.py --run runs/demo

The same clips in transformers 5 and 4, faster-whisper, whisper.cpp and lengua, held against transformers 5. The last
line is one JSON object: rows, and whether all are within the bounds of `lengua publish`.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import transformers_4
from recording import markdown, record, run

from lengua.models.checkpoints import find_model, read_note
from lengua.options import PublishOptions
from lengua.publishing import parity
from lengua.publishing.export import EXPORTERS
from lengua.publishing.runtimes import FLOAT_BOUND, ProgramOutput
from lengua.runtime.progress import Console, Progress, Watch


@dataclass(frozen=True)
class Options:
    """Hold every program that opens an export of a run against the others."""

    run: Path = Path("runs/demo")
    """A finished run."""
    source: str = ""
    """A store or a source of clips. Default: the test split that the run brings with it."""
    clips: int = 20
    """How many clips, spread over the split."""
    language: str = ""
    """Of the clips. Default: the one that the run learned."""
    record: bool = False
    """Write the result into benchmarks/RESULTS.md."""
    json: bool = True
    """Print one JSON object, last."""


def main(options: Options) -> dict:
    """Measure and print."""
    folder, _ = find_model(str(options.run))
    language = options.language or read_note(folder).language or "es"
    asked = PublishOptions(str(options.run), clips=options.source or None, parity_clips=options.clips)
    clips = parity.clips_for(options.run, asked, language)
    with tempfile.TemporaryDirectory() as scratch, Console() as watch:
        export(folder, Path(scratch), watch)
        found = parity.measure_parity(Path(scratch), tuple(EXPORTERS), clips, language, watch=watch)
        sides = [found.sides[0], older(Path(scratch), found), *found.sides[1:]]
    return show(options, found, sides)


def export(folder: Path, out: Path, watch: Watch) -> None:
    """Write every format."""
    for done, (name, write) in enumerate(EXPORTERS.items()):
        watch(Progress("exporting", done, len(EXPORTERS), "formats", name))
        write(folder, out)
    watch(Progress("exporting", len(EXPORTERS), len(EXPORTERS), "formats"))


def older(folder: Path, found: parity.Parity) -> parity.ProgramParity:
    """Return what transformers 4 says, held against transformers 5."""
    first = found.sides[0]
    newer = ProgramOutput(list(first.texts), 0.0, first.program)
    heard = transformers_4.hear(folder, [clip.samples for clip in found.clips])
    return parity.compare_outputs(newer, heard, "hf", FLOAT_BOUND, [clip.reference for clip in found.clips])


def show(options: Options, found: parity.Parity, sides: list[parity.ProgramParity]) -> dict:
    """Print and return the figures."""
    rows = [parity.public_row(side) | {"seconds_per_clip": round(side.seconds_per_clip, 3)} for side in sides]
    agreed = all(side.agrees for side in sides)
    table = parity.parity_table(rows)
    timed = [[*cell, f"{row['seconds_per_clip']:.2f}"] for cell, row in zip(table.rows, rows, strict=True)]
    where = options.source or f"the test split of {options.run}"
    bounds = "within their bounds" if agreed else "NOT within their bounds"
    lines = markdown([*table.header, "s a clip"], timed)
    lines += ["", f"{len(found.clips)} clips, {found.words} words, of {where}, greedily; all {bounds}."]
    print("\n".join(lines))
    if options.record:
        source = f" --source {options.source}" if options.source else ""
        record(f"The same words: {where}", f"python benchmarks/parity.py --run {options.run}{source}", lines)
    result = {"clips": len(found.clips), "words": found.words, "rows": rows, "agreed": agreed}
    if options.json:
        print(json.dumps(result))
    return result


if __name__ == "__main__":
    run(main, Options)
