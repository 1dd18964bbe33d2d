"""The model card: what it is, what was measured, whose voices it heard, what it forgot, how to use it.

    text = card(Origin(folder, run), "owner/name", ("hf", "ct2"), on_hub=True, parity=rows)

Every figure is read from run.json, results.json, hypotheses.jsonl, the manifest of the store or the comparison of
programs; what is in none of them is said to be unknown. What was made worse is said first.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lengua.checkpoints import ModelNote, read_note
from lengua.files import read_json, read_jsonl
from lengua.languages import NAMES
from lengua.publishing import licences, measured, metadata
from lengua.publishing.formats import CT2, CT2_INT8, GGML
from lengua.publishing.markdown import Ready, code, rendered
from lengua.publishing.training_facts import training_facts
from lengua.runs import Run, read_run
from lengua.sources import is_source

TEMPLATE = "card.md"


@dataclass(frozen=True)
class Origin:
    """Where all that a card tells is read from."""

    folder: Path
    """The model folder."""
    run: Path | None = None
    """The run that made it, or None."""

    @cached_property
    def note(self) -> ModelNote:
        """What lengua.json says."""
        return read_note(self.folder)

    @cached_property
    def record(self) -> Run | None:
        """run.json and history.jsonl, if they are there."""
        return read_run(self.run) if self.run else None

    @cached_property
    def manifest(self) -> dict | None:
        """Of the store that was learned from, if it is still there."""
        return self.record.manifest if self.record else None

    @cached_property
    def results(self) -> dict | None:
        """results.json, if anything was measured."""
        path = self.run / "evaluation" / "results.json" if self.run else None
        found = _results_in(path) if path and path.is_file() else None
        return found if found and found.get("rows") else None

    @cached_property
    def probed(self) -> dict | None:
        """The results that tell what was forgotten: the same ones, or others in the run's folder."""
        if not self.results or self.results.get("probes"):
            return self.results
        others = [_results_in(path) for path in sorted(self.run.glob("*/results.json"))]
        of_this = [one for one in others if one.get("probes") and Path(str(one.get("model"))).name == self.run.name]
        return max(of_this, key=lambda one: str(one.get("date")), default=self.results)

    @cached_property
    def records(self) -> list[dict]:
        """The lines of hypotheses.jsonl."""
        found = read_jsonl(self.run / "evaluation" / "hypotheses.jsonl") if self.results else []
        return [record | {"set": public_set(record["set"])} for record in found]


def _results_in(path: Path) -> dict:
    """Return results.json with sets by names that may be seen."""
    found = read_json(path)
    return found | {"rows": [row | {"set": public_set(row["set"])} for row in found.get("rows") or []]}


def public_set(name: str) -> str:
    """Return the name of a set without the folders of this machine, where it is a source: folder:recordings."""
    scheme, _, rest = name.partition(":")
    return f"{scheme}:{Path(rest).name}" if is_source(name) and scheme in ("folder", "common_voice") else name


def card(origin: Origin, model: str, formats: tuple[str, ...], on_hub: bool = False, parity: dict | None = None) -> str:
    """Return the card.

    Args:
        model: what snippets open: the repository, or the folder.
        parity: what `lengua.publishing.parity` found, as JSON; None where it was left out.
    """
    note = origin.note
    name = Path(model).name
    data = metadata.front_matter(note, name, formats, origin.results, origin.manifest)
    spoken = NAMES.get(note.language or "", note.language or "").title()
    facts = {
        "front": Ready(f"---\n{data.to_yaml()}\n---"),
        "title": name,
        "note": note,
        "spoken": spoken,
        "language": note.language or "en",
        "base": code(note.base) if licences.base_on_hub(note.base) else licences.base_name(note.base),
        "model": model,
        "on_hub": on_hub,
        "formats": formats,
        "ct2": next((folder for name, folder in (("ct2", CT2), ("ct2-int8", CT2_INT8)) if name in formats), None),
        "ggml": GGML if "ggml" in formats else None,
        "trained": training_facts(origin.record, origin.manifest),
        "licence": licences.sentences(note, origin.manifest, origin.results),
        **measured.facts(origin.results, origin.records, origin.probed),
        **measured.compared(parity),
    }
    return _tidy(rendered(TEMPLATE, facts))


def _tidy(text: str) -> str:
    """Join the empty lines that sections leave which are not there."""
    lines = text.split("\n")
    kept = [line for at, line in enumerate(lines) if line or at == 0 or lines[at - 1]]
    return "\n".join(kept).rstrip("\n") + "\n"
