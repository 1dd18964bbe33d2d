"""The same clips in every program that an export is for. Other words than the others' stop publishing.

    clips = clips_for("runs/spanish", options)                 # ParityClip(id, reference, samples), of its test split
    found = check_parity(folder, ("hf", "ct2"), clips, "es")   # raises LenguaError, with the clips, where one differs
    found.write(folder)                                        # parity.json: figures and ids, nobody's words

transformers in float32, padded to 30 s, is what the others are held against. A program may differ from it by a stated
bound in WER, and by another in its words, since other weights can be wrong as often as the right ones.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lengua import audio
from lengua.audio import log_mel
from lengua.data.sources import Utterance, is_source, open_source
from lengua.data.store import Store, is_store, open_store
from lengua.evaluation.report.tables import Table
from lengua.models.checkpoints import read_note, require_consistent_token_ids
from lengua.options import PublishOptions
from lengua.publishing.runtimes import (
    REFERENCE_RUNTIME,
    RUNTIMES,
    ParityBound,
    ProgramOutput,
    Runtime,
    can_run,
    require_programs_installed,
)
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import write_json
from lengua.runtime.progress import Progress, Watch, unwatched
from lengua.scoring import score
from lengua.scoring.normalizer import NORMALISER_VERSION
from lengua.training.runs import read_run

PARITY_FILE = "parity.json"
CLIP_SPLITS = ("test", "dev")
CANDIDATES_PER_CLIP = 50
"""Clips of a source that are looked at for each one that is taken: a source may have no end."""
HOW_TO_NAME_CLIPS = "name a store or a source with --clips, or leave the comparison out with --parity-clips 0"
MAX_DIFFERING_CLIPS = 5
"""Clips that an error shows; it counts the others."""
EXPORT_AGAIN = "make the export again from an untouched model folder; nothing was written or uploaded"
MIN_DIFFERING_WORDS = 4
"""Words that may differ whatever the bound: as many as two points of twenty usual clips. Short ones have fewer."""
UNSURE_ERRORS_SHARE = 0.5
"""Share of the reference program's errors that may be other words elsewhere: who is in doubt decides by a hair."""
CHANCE_SIGMAS = 2.0
"""Standard deviations of WER that are chance: so many other words, each for the better or for the worse."""


class ParityClip(NamedTuple):
    """A clip of at most 30 s, and its text."""

    id: str
    reference: str
    samples: np.ndarray
    """float32 at 16 kHz."""


def clips_for(run: str | Path, options: PublishOptions, language: str | None = None) -> list[ParityClip]:
    """Return `options.parity_clips` clips of `options.clips`, else of the store that the run learned from.

    Args:
        run: a run's folder, or a model folder, which has no store of its own.
        language: that of the clips, for a source that does not tell.

    Raises:
        RequestError: no such store or source, or none that kept the sound of its clips.
    """
    if options.parity_clips <= 0:
        return []
    name = options.clips or _own_store(Path(run))
    if name is None:
        raise RequestError("clips to compare programs on", f"no store of {run} on this machine", HOW_TO_NAME_CLIPS)
    if is_source(str(name)):
        clips = _of_source(str(name), options.parity_clips, language)
    else:
        clips = _of_store(open_store(Path(name)), options.parity_clips)
    if not clips:
        raise RequestError("clips with their sound in test or dev", f"none in {name}", HOW_TO_NAME_CLIPS)
    return clips


def _own_store(run: Path) -> Path | None:
    """Return the store that a run learned from, if it is still there."""
    record = read_run(run) if run.is_dir() else None
    places = (run / "store", *([Path(record.options["source"])] if record else []))
    return next((place for place in places if is_store(place)), None)


def _of_store(store: Store, count: int) -> list[ParityClip]:
    for name in CLIP_SPLITS:
        if store.manifest["splits"].get(name, {}).get("utterances"):
            rows = _spread(store.split(name), count)
            if clips := [ParityClip(row.id, row.text, audio.load(row.audio)) for row in rows if row.audio]:
                return clips
    return []


def _of_source(uri: str, count: int, language: str | None) -> list[ParityClip]:
    source = open_source(uri, language)
    for name in CLIP_SPLITS:
        utterances = (item for item in source.read(name) if isinstance(item, Utterance))
        chosen = _spread(list(islice(utterances, CANDIDATES_PER_CLIP * count)), count)
        clips = [ParityClip(item.id, item.text, audio.load(item.audio)) for item in chosen]
        if clips := [clip for clip in clips if 0 < len(clip.samples) <= log_mel.WINDOW_SAMPLES]:
            return clips
    return []


def _spread(items: Sequence, count: int) -> list:
    return [items[place] for place in evenly_spaced_places(len(items), count)]


def evenly_spaced_places(items: int, count: int) -> list[int]:
    """Return the places of `count` of so many items, evenly from first to last."""
    count = min(items, count)
    return [items * (2 * index + 1) // (2 * count) for index in range(count)]


@dataclass(frozen=True)
class ProgramParity:
    """The transcripts of one program, held against the reference program. Rates are fractions."""

    program: str
    format: str
    wer: float
    wer_difference: float
    """Its WER minus the reference program's."""
    wer_bound: float | None
    """What that may be, up or down; None: it is shown, and never stopped."""
    words_that_differ: float
    """Word errors against the reference program's own words."""
    words_bound: float | None
    clips_that_differ: int
    seconds_per_clip: float
    texts: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether it is within its bounds."""
        if self.wer_bound is None:
            return True
        return max(abs(self.wer_difference) - self.wer_bound, self.words_that_differ - self.words_bound) < 1e-9


@dataclass(frozen=True)
class Parity:
    """The transcripts of all programs of the same clips."""

    language: str
    clips: tuple[ParityClip, ...]
    words: int
    sides: tuple[ProgramParity, ...]
    """The reference program first."""
    left_out: tuple[str, ...] = ()
    """Programs that cannot take the model."""
    joined: dict = field(default_factory=dict)
    """What `lengua.publishing.joined` adds to parity.json."""

    @property
    def agreed(self) -> bool:
        """Whether every program is within its bounds."""
        return all(side.agrees for side in self.sides)

    @property
    def rows(self) -> list[dict]:
        """A row for each program, without texts and without times: of the words, not of this machine."""
        return [public_row(side) for side in self.sides]

    def as_json(self) -> dict:
        """Return what may leave the machine: figures and ids, and no text of anybody's clips."""
        return {
            "language": self.language,
            "clips": len(self.clips),
            "words": self.words,
            "normaliser": NORMALISER_VERSION,
            "agreed": self.agreed,
            "rows": self.rows,
            "left_out": list(self.left_out),
            **self.joined,
            "ids": [clip.id for clip in self.clips],
        }

    def write(self, folder: Path) -> None:
        """Write parity.json into an export."""
        write_json(folder / PARITY_FILE, self.as_json())


def check_parity(*args, **options) -> Parity:
    """Do what `measure_parity` does, and refuse an export in which a program says other words.

    Raises:
        LenguaError: a program is beyond its bounds; the message has the clips farthest apart.
    """
    found = measure_parity(*args, **options)
    if not found.agreed:
        raise _disagreement(found)
    return found


def measure_parity(
    folder: Path,
    formats: Sequence[str],
    clips: Sequence[ParityClip],
    language: str,
    source: Path | None = None,
    watch: Watch = unwatched,
) -> Parity:
    """Transcribe the clips in every program that the formats in a folder are for.

    Args:
        folder: an export.
        source: the model folder it was made from: what transformers reads where the export has no "hf".

    Raises:
        RequestError: a program that is needed is not installed; no clips.
        LenguaError: one token with two numbers, or a program that cannot open its file.
    """
    require_programs_installed(formats)
    if not clips:
        raise RequestError("clips to compare programs on", "none", "name some with --clips, or --parity-clips 0")
    plain = plain_folder(folder, formats, source)
    require_consistent_token_ids(plain, read_note(plain).language)
    running, left_out = programs_for(formats, plain)
    texts, outputs, sides = [clip.reference for clip in clips], [], []
    for done, runtime in enumerate(running):
        watch(Progress("comparing programs", done, len(running), "programs", runtime.name))
        outputs.append(run_program(runtime, Path(folder) if outputs else plain, clips, language))
        sides.append(compare_outputs(outputs[0], outputs[-1], runtime.format, runtime.bound, texts))
    watch(Progress("comparing programs", len(running), len(running), "programs"))
    return Parity(language, tuple(clips), score(texts, texts).words, tuple(sides), left_out)


def plain_folder(folder: Path, formats: Sequence[str], source: Path | None) -> Path:
    """Return where the weights that transformers opens are: in an export without them, where it was made from."""
    return Path(folder) if "hf" in formats or source is None else Path(source)


def programs_for(formats: Sequence[str], plain: Path) -> tuple[list[Runtime], tuple[str, ...]]:
    """Return the programs that a model's formats are for, the reference first, and the names of those left out."""
    due = [runtime for runtime in RUNTIMES if runtime.format in formats]
    running = [runtime for runtime in due if can_run(runtime, plain)]
    left_out = tuple(runtime.name for runtime in due if runtime not in running and not runtime.adaptive)
    return [REFERENCE_RUNTIME, *running], left_out


def run_program(runtime: Runtime, folder: Path, clips: Sequence[ParityClip], language: str, **how) -> ProgramOutput:
    """Return what a program says; whatever it raises is an export that it cannot open."""
    try:
        return runtime.hear(folder, [clip.samples for clip in clips], language, **how)
    except (LenguaError, ImportError):
        raise
    except Exception as error:
        found = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise LenguaError(f"{runtime.name} to open its {runtime.format} of the export", found, EXPORT_AGAIN) from error


def compare_outputs(
    first: ProgramOutput, other: ProgramOutput, format: str, bound: ParityBound | None, references: Sequence[str]
) -> ProgramParity:
    """Score what one program transcribed, and count how it differs from the first."""
    scored, errors = score(references, other.texts), _distance(first.texts, other.texts)
    wer, words = score(references, first.texts).wer, max(1, score(first.texts, first.texts).words)
    chance = CHANCE_SIGMAS * sum(errors) ** 0.5 / max(1, scored.words)
    return ProgramParity(
        program=other.program,
        format=format,
        wer=scored.wer,
        wer_difference=scored.wer - wer,
        wer_bound=bound and bound.wer + chance,
        words_that_differ=sum(errors) / words,
        words_bound=bound and max(bound.words, UNSURE_ERRORS_SHARE * wer, MIN_DIFFERING_WORDS / words),
        clips_that_differ=sum(count > 0 for count in errors),
        seconds_per_clip=other.seconds / max(1, len(other.texts)),
        texts=tuple(other.texts),
    )


def _distance(texts: Sequence[str], others: Sequence[str]) -> list[int]:
    """Return the word errors of each text against its counterpart; a word too many beside none is one, too."""
    return score(list(texts), list(others)).counts["errors"].tolist()


def public_row(side: ProgramParity) -> dict:
    """Return what may be shown of a side: figures, without texts and without times."""
    shown = {key: value for key, value in asdict(side).items() if key not in ("texts", "seconds_per_clip")}
    rounded = {key: round(value, 5) if isinstance(value, float) else value for key, value in shown.items()}
    return rounded | {"agrees": side.agrees}


def parity_table(rows: Sequence[dict]) -> Table:
    """Return a line for each of the rows, as they stand in parity.json; bounds in brackets."""
    header = ["program", "opens", "WER", "points beside the first", "other words", "clips with other words"]
    lines = []
    for row in rows:
        points, words = f"{100 * row['wer_difference']:+.1f}", f"{row['words_that_differ']:.1%}"
        if row["wer_bound"] is not None:
            points, words = f"{points} ({100 * row['wer_bound']:.1f})", f"{words} ({row['words_bound']:.1%})"
        clips = str(row["clips_that_differ"])
        lines.append([row["program"], row["format"], f"{row['wer']:.1%}", points, words, clips])
    return Table(header, lines, "ll")


def _disagreement(found: Parity) -> LenguaError:
    """Return an error that shows the clips in which the programs part, those farthest apart first."""
    first, wrong = found.sides[0], [side for side in found.sides if not side.agrees]
    lines = [
        f"{side.program} on {side.format}: WER {side.wer:.1%} beside {first.wer:.1%} of {first.program}, "
        f"other words in {side.clips_that_differ} of {len(found.clips)} clips"
        for side in wrong
    ]
    for side in wrong:
        errors = _distance(first.texts, side.texts)
        farthest = sorted(filter(errors.__getitem__, range(len(errors))), key=lambda place: -errors[place])
        for place in farthest[:MAX_DIFFERING_CLIPS]:
            clip, texts = found.clips[place], {first.program: first.texts[place], side.program: side.texts[place]}
            width = max(map(len, texts))
            lines += [f"clip {clip.id}", f"  {'said':{width}}  {clip.reference}"]
            lines += [f"  {name:{width}}  {text}" for name, text in texts.items()]
    bound = f"{100 * wrong[0].wer_bound:.1f} points of WER and {wrong[0].words_bound:.0%} of the words"
    return LenguaError(f"the same words in every program, within {bound}", "\n  ".join(lines) + "\n", EXPORT_AGAIN)
