"""One long recording in every program that opens an export, beside the base: are words lost in it?

    found = measure_joined(found, folder, ("ct2", "ggml"))         # beside what lengua.publishing.parity found
    joined_losses(found.joined["joined"])

The clips of the comparison are joined, and every program transcribes them by its own defaults, with these weights and
with those of the base: a model that learned from single utterances may stop behind the first of several.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from lengua.audio import log_mel
from lengua.evaluation.report.tables import DASH, Table
from lengua.models.checkpoints import find_model, read_note, read_window_frames
from lengua.publishing.export import EXPORTERS
from lengua.publishing.parity import Parity, ParityClip, plain_folder, programs_for, run_program
from lengua.publishing.runtimes import REFERENCE_RUNTIME
from lengua.runtime.errors import LenguaError
from lengua.runtime.progress import Progress, Watch, unwatched
from lengua.scoring import score

JOIN_PAUSE_S = 0.8
"""Of silence, between the clips."""
MAX_JOINED_LOSS = 0.05
"""WER above the base's; of a single recording, less is no sign of anything."""


@dataclass(frozen=True)
class JoinedWer:
    """The WER of one program, by its own defaults; rates are fractions."""

    program: str
    wer: float
    base_wer: float | None
    """Of the base in the same program; None where it is not at hand."""

    @property
    def loses_words(self) -> bool:
        """Whether the model does clearly worse than its base."""
        return self.base_wer is not None and self.wer > self.base_wer + MAX_JOINED_LOSS


def join(clips: Sequence[ParityClip], pause_s: float = JOIN_PAUSE_S) -> ParityClip:
    """Return one recording of all clips, silence between them."""
    silence = np.zeros(round(pause_s * log_mel.SAMPLE_RATE), np.float32)
    samples = np.concatenate([part for clip in clips for part in (clip.samples, silence)][:-1])
    return ParityClip("joined", " ".join(clip.reference for clip in clips), samples)


def measure_joined(
    found: Parity,
    folder: Path,
    formats: Sequence[str],
    source: Path | None = None,
    watch: Watch = unwatched,
) -> Parity:
    """Return a comparison with the joined clips in it; as it is for a model whose window is not 30 s.

    Args:
        found: what `measure_parity` found, of which the clips are joined; the other arguments are as there.
    """
    plain = plain_folder(folder, formats, source)
    if read_window_frames(plain) != log_mel.WINDOW_FRAMES:
        return found
    # our own Transcriber takes the model's window by itself, and so comes once
    running = [runtime for runtime in programs_for(formats, plain)[0] if not runtime.adaptive]
    recording, rows = join(found.clips), []
    with tempfile.TemporaryDirectory() as scratch:
        base = _export_base(plain, {runtime.format for runtime in running}, Path(scratch))
        for done, runtime in enumerate(running):
            watch(Progress("one long recording", done, len(running), "programs", runtime.name))
            mine = plain if runtime is REFERENCE_RUNTIME else Path(folder)
            outputs = [run_program(runtime, at, [recording], found.language, joined=True) for at in (mine, base) if at]
            wers = [score([recording.reference], output.texts).wer for output in outputs]
            row = JoinedWer(outputs[0].program, wers[0], wers[1] if base else None)
            rows.append(asdict(row) | {"loses_words": row.loses_words})
    watch(Progress("one long recording", len(running), len(running), "programs"))
    seconds = round(len(recording.samples) / log_mel.SAMPLE_RATE, 1)
    return replace(found, joined={"joined": rows, "joined_seconds": seconds})


def _export_base(folder: Path, formats: set[str], out: Path) -> Path | None:
    """Write what a model was made from in the same formats; None where it is untouched, or its base not at hand."""
    note = read_note(folder)
    if note.language is None:
        return None
    try:
        source = find_model(note.base)[0]
    except LenguaError:
        return None
    for name in formats:
        EXPORTERS[name](source, out)
    return out


def joined_table(rows: Sequence[dict]) -> Table:
    """Return a line for each program, of rows as they stand in parity.json."""
    lines = [
        [row["program"], *(f"{one:.1%}" if one is not None else DASH for one in (row["wer"], row["base_wer"]))]
        for row in rows
    ]
    return Table(["program", "WER", "WER of the base"], lines)


def joined_losses(rows: Sequence[dict]) -> list[str]:
    """Return a sentence for every program in which the model loses words of the joined recording."""
    return [
        f"Long recordings lose words in {row['program']}: WER {row['wer']:.1%}, of the base {row['base_wer']:.1%}."
        for row in rows
        if row["loses_words"]
    ]
