"""The well-known ways to ruin a fine-tuning of Whisper: what each did to the WER, and what `diagnosis` says of it.

    for failure in failures():
        print(failure.title, failure.wer, failure.findings[0].cure)

benchmarks/three_hundred.py makes them happen on real speech and writes the file that is read here; no figure is typed.
"""

from dataclasses import dataclass, fields
from pathlib import Path

from lengua.errors import RequestError
from lengua.evaluation.causes import Finding
from lengua.files import ASSETS, read_json

KEPT = ASSETS / "three_hundred.json"
HEALTHY, BASE = "healthy", "base"


@dataclass(frozen=True)
class Failure:
    """One thing broken, or none, and what came of it. Rates are fractions."""

    name: str
    title: str
    clips: int
    words: int
    wer: float
    wer_low: float
    wer_high: float
    substitutions: int
    deletions: int
    insertions: int
    looped: int
    """Clips that go round in circles."""
    length_limit: int
    """Clips that were stopped by the limit of tokens."""
    loss: float
    """A token, by teacher forcing: what a training log would show."""
    by_text: tuple[str, ...]
    """What the transcripts alone make of it, the likeliest first."""
    findings: tuple[Finding, ...]
    """With one batch and the settings looked at, too."""
    said: str
    heard: str
    """The clip with most words made up, else with most errors; "" where there is none."""

    @property
    def shows_in_text(self) -> bool:
        """Whether the transcripts alone are enough to name the cause."""
        return self.by_text[0] == self.findings[0].name


@dataclass(frozen=True)
class Study:
    """All failures, and how they were measured."""

    command: str
    where: str
    """Date, commit and hardware."""
    about: str
    """Model, clips and steps, in a sentence."""
    attribution: str
    """Whose the recordings and their texts are."""
    failures: dict[str, Failure]
    """By name: the untouched base first, then one thing broken at a time, the healthy run last."""


def study(path: Path = KEPT) -> Study:
    """Return what benchmarks/three_hundred.py recorded.

    Raises:
        RequestError: the file is not there, or was written by another version.
    """
    if not Path(path).is_file():
        do = "run `python benchmarks/three_hundred.py --record` in a clone of the project"
        raise RequestError("the figures of the failures", f"no file at {path}", do)
    told = read_json(path)
    try:
        found = {one["name"]: _failure(one) for one in told["failures"]}
        return Study(told["command"], told["where"], told["about"], told["attribution"], found)
    except (KeyError, TypeError) as error:
        do = "record them again: python benchmarks/three_hundred.py --record"
        raise RequestError(
            "the figures of the failures, as this version writes them", f"{error} in {path}", do
        ) from error


def failures(path: Path = KEPT) -> list[Failure]:
    """Return every failure that was measured, the base first and the healthy run last."""
    return list(study(path).failures.values())


def _failure(told: dict) -> Failure:
    values = {field.name: told[field.name] for field in fields(Failure)}
    findings = tuple(Finding(**one) for one in told["findings"])
    return Failure(**values | {"by_text": tuple(told["by_text"]), "findings": findings})
