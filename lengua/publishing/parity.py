"""The gate: the same clips in every program that an export is for. Other words than the others' stop publishing.

    clips = clips_for("runs/spanish", options)          # Clip(id, reference, samples), of the run's own test split
    found = check(folder, ("hf", "ct2"), clips, "es")   # raises LenguaError, with the clips, where one says otherwise
    found.write(folder)                                 # parity.json: figures and ids, nobody's words

transformers in float32, padded to 30 s, is what the others are held against. A program may differ from it by a stated
bound in WER, and by another in its words, since other weights can be wrong as often as the right ones.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lengua.checkpoints import read_note
from lengua.errors import LenguaError, RequestError
from lengua.files import write_json
from lengua.progress import Progress, Watch, unwatched
from lengua.publishing.clips import Clip, clips_for
from lengua.publishing.runtimes import (
    RUNTIMES,
    TRANSFORMERS,
    Bound,
    Heard,
    Runtime,
    require_installed,
    takes,
)
from lengua.publishing.token_ids import require_agreement
from lengua.scoring import score
from lengua.text import NORMALISER

__all__ = ["PARITY", "Clip", "Parity", "Side", "check", "clips_for", "compare", "require_installed", "table"]

PARITY = "parity.json"
SHOWN = 5
"""Clips that an error shows; it counts the others."""
AGAIN = "make the export again from an untouched model folder; nothing was written or uploaded"
FLOOR_WORDS = 4
"""Words that may differ whatever the bound: as many as two points of twenty usual clips. Short ones have fewer."""
UNSURE = 0.5
"""Share of the reference program's errors that may be other words elsewhere: who is in doubt decides by a hair."""
CHANCE = 2.0
"""Standard deviations of WER that are chance: so many other words, each for the better or for the worse."""


@dataclass(frozen=True)
class Side:
    """What one program said, held against the reference program. Rates are fractions."""

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
        over = (abs(self.wer_difference) - self.wer_bound, self.words_that_differ - self.words_bound)
        return max(over) < 1e-9


@dataclass(frozen=True)
class Parity:
    """What all programs said to the same clips."""

    language: str
    clips: tuple[Clip, ...]
    words: int
    sides: tuple[Side, ...]
    """The reference program first."""
    left_out: tuple[str, ...] = ()
    """Programs that cannot take the model."""

    @property
    def agreed(self) -> bool:
        """Whether every program is within its bounds."""
        return all(side.agrees for side in self.sides)

    @property
    def rows(self) -> list[dict]:
        """A row for each program, without texts and without times: of the words, not of this machine."""
        return [row(side) for side in self.sides]

    def as_json(self) -> dict:
        """Return what may leave the machine: figures and ids, and no text of anybody's clips."""
        head = {"language": self.language, "clips": len(self.clips), "words": self.words, "normaliser": NORMALISER}
        ids, left_out = [clip.id for clip in self.clips], list(self.left_out)
        return {**head, "agreed": self.agreed, "rows": self.rows, "left_out": left_out, "ids": ids}

    def write(self, folder: Path) -> None:
        """Write parity.json into an export."""
        write_json(folder / PARITY, self.as_json())

    def differing(self, side: Side) -> list[int]:
        """Return the places of clips in which a program has another word than the reference program, farthest first."""
        errors = _distance(self.sides[0].texts, side.texts)
        return sorted((place for place, count in enumerate(errors) if count), key=lambda place: -errors[place])


def check(
    folder: Path,
    formats: Sequence[str],
    clips: Sequence[Clip],
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
        LenguaError: one token with two numbers, or a program that says other words or cannot open its file.
    """
    found = compare(folder, formats, clips, language, source, watch)
    if not found.agreed:
        raise _disagreement(found)
    return found


def compare(
    folder: Path,
    formats: Sequence[str],
    clips: Sequence[Clip],
    language: str,
    source: Path | None = None,
    watch: Watch = unwatched,
) -> Parity:
    """Do what `check` does, but judge no words."""
    require_installed(formats)
    if not clips:
        raise RequestError("clips to compare programs on", "none", "name some with --clips, or --parity-clips 0")
    folder = Path(folder)
    plain = folder if "hf" in formats or source is None else Path(source)
    require_agreement(plain, read_note(plain).language)
    due = [runtime for runtime in RUNTIMES if runtime.format in formats]
    running = [TRANSFORMERS, *(runtime for runtime in due if takes(runtime, plain))]
    heard = []
    for done, runtime in enumerate(running):
        watch(Progress("comparing programs", done, len(running), "programs", runtime.name))
        place = plain if runtime is TRANSFORMERS else folder
        heard.append(_heard(runtime, place, clips, language))
    watch(Progress("comparing programs", len(running), len(running), "programs"))
    texts = [clip.reference for clip in clips]
    told = zip(running, heard, strict=True)
    sides = tuple(held_against(heard[0], one, runtime.format, runtime.bound, texts) for runtime, one in told)
    left_out = tuple(runtime.name for runtime in due if runtime not in running and not runtime.adaptive)
    return Parity(language, tuple(clips), score(texts, texts).words, sides, left_out)


def _heard(runtime: Runtime, folder: Path, clips: Sequence[Clip], language: str) -> Heard:
    """Return what a program says; whatever it raises is an export that it cannot open."""
    try:
        return runtime.hear(folder, [clip.samples for clip in clips], language)
    except (LenguaError, ImportError):
        raise
    except Exception as error:
        told = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise LenguaError(f"{runtime.name} to open its {runtime.format} of the export", told, AGAIN) from error


def held_against(first: Heard, heard: Heard, format: str, bound: Bound | None, references: Sequence[str]) -> Side:
    """Count what one program said, and how it differs from the first."""
    scored, errors = score(references, heard.texts), _distance(first.texts, heard.texts)
    wer, theirs = score(references, first.texts).wer, max(1, score(first.texts, first.texts).words)
    chance = CHANCE * sum(errors) ** 0.5 / max(1, scored.words)
    return Side(
        program=heard.program,
        format=format,
        wer=scored.wer,
        wer_difference=scored.wer - wer,
        wer_bound=bound and bound.wer + chance,
        words_that_differ=sum(errors) / theirs,
        words_bound=bound and max(bound.words, UNSURE * wer, FLOOR_WORDS / theirs),
        clips_that_differ=sum(count > 0 for count in errors),
        seconds_per_clip=heard.seconds / max(1, len(heard.texts)),
        texts=tuple(heard.texts),
    )


def _distance(texts: Sequence[str], others: Sequence[str]) -> list[int]:
    """Return the word errors of each text against its counterpart; a word too many beside none is one, too."""
    return score(list(texts), list(others)).counts["errors"].tolist()


def row(side: Side) -> dict:
    """Return what may be shown of a side: figures, without texts and without times."""
    private = ("texts", "seconds_per_clip")
    rounded = {key: round(value, 5) if isinstance(value, float) else value for key, value in asdict(side).items()}
    return {key: value for key, value in rounded.items() if key not in private} | {"agrees": side.agrees}


def table(rows: Sequence[dict]) -> list[list[str]]:
    """Return the header and the lines of a table of rows, as they stand in parity.json; bounds in brackets."""
    header = ["program", "opens", "WER", "points beside the first", "other words", "clips with other words"]
    return [header, *(_line(one) for one in rows)]


def _line(row: dict) -> list[str]:
    points, words = f"{100 * row['wer_difference']:+.1f}", f"{row['words_that_differ']:.1%}"
    if row["wer_bound"] is not None:
        points, words = f"{points} ({100 * row['wer_bound']:.1f})", f"{words} ({row['words_bound']:.1%})"
    return [row["program"], row["format"], f"{row['wer']:.1%}", points, words, str(row["clips_that_differ"])]


def _disagreement(found: Parity) -> LenguaError:
    """Return an error that shows the clips in which the programs part, those farthest apart first."""
    first, wrong = found.sides[0], [side for side in found.sides if not side.agrees]
    told = [
        f"{side.program} on {side.format}: WER {side.wer:.1%} beside {first.wer:.1%} of {first.program}, "
        f"other words in {side.clips_that_differ} of {len(found.clips)} clips"
        for side in wrong
    ]
    shown = [line for side in wrong for place in found.differing(side)[:SHOWN] for line in _shown(found, side, place)]
    bounds = [f"{100 * side.wer_bound:.1f} points of WER and {side.words_bound:.0%} of the words" for side in wrong]
    return LenguaError(
        f"the same words in every program, within {bounds[0]}",
        "\n  ".join([*told, *shown]) + "\n",
        AGAIN,
    )


def _shown(found: Parity, side: Side, place: int) -> list[str]:
    clip, first = found.clips[place], found.sides[0]
    said = {"said": clip.reference, first.program: first.texts[place], side.program: side.texts[place]}
    width = max(map(len, said))
    return [f"clip {clip.id}", *(f"  {name:{width}}  {text}" for name, text in said.items())]
