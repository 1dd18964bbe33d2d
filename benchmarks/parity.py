"""Do the words hold where people will use the checkpoint? All formats, in every program that opens them.

    python benchmarks/parity.py --run runs/demo

The same clips in transformers 5 and 4, faster-whisper, whisper.cpp and lengua, held against transformers 5. The last
line is one JSON object: rows, and whether all are within the bounds of `lengua publish`. transformers 4, where most
users are, comes by pip into lengua's cache, once, with the two packages that it needs in older versions.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness import BenchmarkOptions, markdown, report, run

from lengua.models.checkpoints import find_model, read_note
from lengua.options import PublishOptions
from lengua.publishing import parity
from lengua.publishing.export import EXPORTERS
from lengua.publishing.runtimes import FLOAT_BOUND, ProgramOutput, run_in_subprocess
from lengua.runtime.errors import LenguaError
from lengua.runtime.files import cache_dir, replacing
from lengua.runtime.progress import Console, Progress, Watch

PINNED = ("transformers==4.57.6", "huggingface_hub==0.36.2", "tokenizers==0.22.2")
"""The last transformers 4, and what it allows of the other two."""


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Hold every program that opens an export of a run against the others."""

    run: Path = Path("runs/demo")
    """A finished run."""
    source: str = ""
    """A store or a source of clips. Default: the test split that the run brings with it."""
    clips: int = 20
    """How many clips, spread over the split."""
    language: str = ""
    """Of the clips. Default: the one that the run learned."""


def main(options: Options) -> dict:
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
    for done, (name, write) in enumerate(EXPORTERS.items()):
        watch(Progress("exporting", done, len(EXPORTERS), "formats", name))
        write(folder, out)
    watch(Progress("exporting", len(EXPORTERS), len(EXPORTERS), "formats"))


def older(folder: Path, found: parity.Parity) -> parity.ProgramParity:
    """Return what transformers 4 says, held against transformers 5."""
    first = found.sides[0]
    newer = ProgramOutput(list(first.texts), 0.0, first.program)
    older_output = transcribe_by_transformers_4(folder, [clip.samples for clip in found.clips])
    return parity.compare_outputs(newer, older_output, "hf", FLOAT_BOUND, [clip.reference for clip in found.clips])


def transformers_4() -> Path:
    """Return the folder of these packages, fetching them where that was not done.

    Raises:
        LenguaError: pip cannot.
    """
    out = cache_dir() / "packages" / "-".join(PINNED).replace("==", "-")
    if not out.is_dir():
        with replacing(out) as fresh:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
            environment = {"PIP_RETRIES": "2", **os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
            command += ["--target", str(fresh), *PINNED]
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise LenguaError("transformers 4 from the package index", last, "check pip, then try again")
    return out


def transcribe_by_transformers_4(folder: Path, clips: Sequence[np.ndarray]) -> ProgramOutput:
    """Return what its pipeline says to clips, in the language that the checkpoint names."""
    output = run_in_subprocess("transformers", folder, clips, "", transformers_4())
    return ProgramOutput(output["texts"], output["seconds"], f"transformers {output['version']}, float32")


def show(options: Options, found: parity.Parity, sides: list[parity.ProgramParity]) -> dict:
    rows = [parity.public_row(side) | {"seconds_per_clip": round(side.seconds_per_clip, 3)} for side in sides]
    agreed = all(side.agrees for side in sides)
    table = parity.parity_table(rows)
    timed = [[*cell, f"{row['seconds_per_clip']:.2f}"] for cell, row in zip(table.rows, rows, strict=True)]
    where = options.source or f"the test split of {options.run}"
    bounds = "within their bounds" if agreed else "NOT within their bounds"
    lines = markdown([*table.header, "s a clip"], timed)
    lines += ["", f"{len(found.clips)} clips, {found.words} words, of {where}, greedily; all {bounds}."]
    result = {"clips": len(found.clips), "words": found.words, "rows": rows, "agreed": agreed}
    return report(options, f"The same words: {where}", lines, result, shown=("run",))


if __name__ == "__main__":
    run(main, Options)
