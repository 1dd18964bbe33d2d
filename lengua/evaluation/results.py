"""A finished evaluation, opened again: its rows and records, what they say, and where the sound of its clips is.

    reading = read_evaluation(Path("runs/demo/evaluation"))
    reading.analysis["findings"], reading.before, reading.after

Folders of older versions, which hold rows and records alone, are laid open here; nothing is decoded.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from lengua.data.sources import is_source
from lengua.data.store import is_store, open_store
from lengua.evaluation import report
from lengua.evaluation.error_analysis import ModelAndWindow, analyse
from lengua.evaluation.evaluate import GENERAL_PREFIX, HYPOTHESES_FILE, RESULTS_FILE
from lengua.evaluation.report.significance import Verdict, choose_opponent
from lengua.evaluation.report.tables import by_clip
from lengua.models.checkpoints import read_note
from lengua.runtime.errors import RequestError
from lengua.runtime.files import read_json, read_jsonl


@dataclass(frozen=True)
class LoadedEvaluation:
    """What an evaluation found, of all its sets together but those of other languages."""

    folder: Path
    results: dict
    rows: list[dict]
    records: list[dict]
    store: Path | None
    """The feature store that was measured on, where it is still at hand."""
    language: str

    @cached_property
    def main(self) -> ModelAndWindow:
        """The model that was asked for, in the window that it was trained for."""
        last = self.records[-1]
        return last["model"], last["window"]

    @cached_property
    def other(self) -> str | None:
        """The label of the model that it is held against, if there is one."""
        return choose_opponent(self.rows, self.results.get("against"))

    @cached_property
    def after(self) -> list[dict]:
        """The records of the model that was asked for."""
        return [record for record in self.records if (record["model"], record["window"]) == self.main]

    @cached_property
    def before(self) -> list[dict]:
        """The opponent's records, padded if it was measured in both windows; none without an opponent."""
        theirs = [record for record in self.records if record["model"] == self.other != self.main[0]]
        return list(by_clip(theirs, "padded").values())

    @cached_property
    def pairs(self) -> list[tuple[dict, dict]]:
        """Before and after of every clip that both models transcribed, joined by set and id."""
        before = by_clip(self.before, "padded")
        return [(before[clip], after) for clip, after in by_clip(self.after, "").items() if clip in before]

    @cached_property
    def analysis(self) -> dict:
        """Findings, groups, confusions and notes, as results.json has them, or else made of the records."""
        if "groups" in self.results:
            return self.results
        note = self.folder.parent / "model"
        notes = {self.main[0]: asdict(read_note(note))} if (note / "lengua.json").is_file() else {}
        return analyse(self.records, self.language, notes, self.other)

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """Every row held against the opponent, the worse first."""
        return report.judge_rows(self.rows, self.records, self.results.get("against"))

    @property
    def headline(self) -> str:
        """Where the model is worse, undecided and better, in a sentence."""
        return report.headline(self.rows, self.verdicts)


def read_evaluation(folder: Path | str, language: str | None = None) -> LoadedEvaluation:
    """Open a finished evaluation.

    Args:
        folder: where results.json and hypotheses.jsonl are.
        language: of the references, for folders that do not say it.

    Raises:
        RequestError: there is none, or nothing was measured in it.
    """
    folder = Path(folder)
    if not (folder / RESULTS_FILE).is_file():
        do = f"measure a model first: lengua evaluate MODEL SOURCE --out {folder}"
        raise RequestError(f"an evaluation, with {RESULTS_FILE}", f"none in {folder}", do)
    results, records = read_json(folder / RESULTS_FILE), read_jsonl(folder / HYPOTHESES_FILE)
    rows, records = without_probes(results["rows"]), without_probes(records)
    if not records:
        raise RequestError(
            f"records in {folder / HYPOTHESES_FILE}", "none", "let `lengua evaluate` finish one row at least"
        )
    store = find_evaluation_store(folder)
    known = results.get("language") or language or (open_store(store).language if store else "es")
    return LoadedEvaluation(folder, results, rows, records, store, known)


def without_probes(rows: Sequence[dict]) -> list[dict]:
    """Return rows or records without other languages and other people, measured to see what was forgotten."""
    return [one for one in rows if not is_source(one["set"]) and not one["set"].startswith(GENERAL_PREFIX)]


def find_evaluation_store(evaluation: Path) -> Path | None:
    """Return the feature store behind an evaluation: its own, its run's, or the one that the run learned from."""
    run = evaluation.parent
    source = read_json(run / "run.json")["options"]["source"] if (run / "run.json").is_file() else ""
    places = [evaluation / "store", run / "store", *([Path(source)] if source and not is_source(source) else [])]
    return next((place for place in places if is_store(place)), None)
