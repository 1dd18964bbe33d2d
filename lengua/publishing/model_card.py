"""The model card: what it is, what was measured, how it was trained, on whose speech, how to use it.

    text = build_model_card(CardSources(folder, run), "owner/name", ("hf", "ct2"), on_hub=True, parity=rows)

Every figure is read from run.json, results.json, hypotheses.jsonl, the store's manifest or the comparison of
programs. What none of them holds is called unknown, and what became worse is stated first.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lengua.data.sources import is_source
from lengua.evaluation.report.markdown import TrustedMarkdown, code_span
from lengua.evaluation.report.rendering import render_markdown
from lengua.models.checkpoints import ModelNote, read_note
from lengua.models.languages import LANGUAGE_NAMES
from lengua.publishing import card_results, hub_metadata
from lengua.publishing.export import CT2_FOLDER, CT2_INT8_FOLDER, GGML_FILE
from lengua.publishing.hub_metadata import base_name
from lengua.runtime.files import read_json, read_jsonl
from lengua.scoring import percent
from lengua.training.runs import Run, read_run

CARD_TEMPLATE = "card.md"
TRAINED_PARTS = {"all": "all weights", "decoder": "the decoder; the encoder stayed as it was"}


def training_facts(run: Run | None, manifest: dict | None) -> dict[str, str]:
    """Return name and value of each fact; nothing without a run. Paths of this machine are not among them."""
    if run is None:
        return {}
    options, record = run.options, run.record
    clips, blend = options["batch_size"] * options["accumulation"], (record.get("blend") or {}).get("chosen")
    masks = ["time and frequency masks"] if options["spec_augment"] else []
    shares = {name: options.get(f"augment.{name}") for name in ("noise", "speed", "volume")}
    facts = {
        "base": base_name(str(options["base"])),
        "recipe": run.recipe,
        "speech": _training_data(manifest),
        "language of the labels": options["language"],
        "window": _window(options),
        "length": f"{run.steps:,} steps of {clips} clips"
        + (f", {options['epochs']:g} epochs" if options["epochs"] else ""),
        "rate": options["learning_rate"]
        and f"{options['learning_rate']:g} at its peak, after {_share(options['warmup'])} of the steps; then down to 0",
        "learned": TRAINED_PARTS.get(options["learn"], f"lora of rank {options['lora_rank']}, merged into the weights"),
        "replayed": options["replay"] and f"{_share(options['replay_share'])} of the clips from a second store",
        "augmented": ", ".join(
            [*masks, *(f"{name} in {_share(share)} of the clips" for name, share in shares.items() if share)]
        ),
        "blended": None if blend is None else f"{_share(blend)} fine-tuned weights, the rest the base's",
        "chosen by": f"WER on dev, {percent(record['dev_wer'])}" if record.get("dev_wer") is not None else None,
        "stopped early": record.get("stopped"),
        "hardware": record.get("hardware"),
        "time": run.seconds and f"{run.seconds / 60:.1f} min of training",
        "seed": str(options["seed"]),
        "versions": ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items()),
        "commit of lengua": record.get("commit"),
    }
    return {name: str(value) for name, value in facts.items() if value}


def _training_data(manifest: dict | None) -> str:
    train = (manifest or {}).get("splits", {}).get("train")
    if not train:
        return "unknown: the store is not beside the run"
    hours, clips, speakers = train["hours"], train["utterances"], train["speakers"]
    revision = f", revision {manifest['revision']}" if manifest.get("revision") else ""
    return f"{manifest['source']}: {hours:.2f} h in {clips:,} clips of {speakers:,} speakers{revision}"


def _window(options: dict) -> str:
    if options["window"] != "adaptive":
        return {"packed": "clips joined, up to 30 s"}.get(options["window"], "30 s, as usual")
    low, high = options["margin_s"]
    return f"speech and {low:g} to {high:g} s behind it; {_share(options['padded_share'])} of the batches 30 s"


def _share(fraction: float) -> str:
    return f"{100 * fraction:g} %"


def find_run(name: str) -> Path | None:
    """Return the run that a name stands for; None for a model folder or a Hub id."""
    path = Path(name)
    return path if (path / "run.json").is_file() or (path / "evaluation").is_dir() else None


@dataclass(frozen=True)
class CardSources:
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
        results = _read_results(path) if path and path.is_file() else {}
        return results if results.get("rows") else None

    @cached_property
    def probed(self) -> dict | None:
        """The results that tell what was forgotten: the same ones, or others in the run's folder."""
        if not self.results or self.results.get("probes"):
            return self.results
        others = [_read_results(path) for path in sorted(self.run.glob("*/results.json"))]
        of_this = [one for one in others if one.get("probes") and Path(str(one.get("model"))).name == self.run.name]
        return max(of_this, key=lambda one: str(one.get("date")), default=self.results)

    @cached_property
    def records(self) -> list[dict]:
        """The lines of hypotheses.jsonl."""
        records = read_jsonl(self.run / "evaluation" / "hypotheses.jsonl") if self.results else []
        return [record | {"set": public_set_name(record["set"])} for record in records]


def _read_results(path: Path) -> dict:
    """Return results.json with sets by names that may be seen."""
    results = read_json(path)
    return results | {"rows": [row | {"set": public_set_name(row["set"])} for row in results.get("rows") or []]}


def public_set_name(name: str) -> str:
    """Return the name of a set without the folders of this machine, where it is a source: folder:recordings."""
    scheme, _, rest = name.partition(":")
    return f"{scheme}:{Path(rest).name}" if is_source(name) and scheme in ("folder", "common_voice") else name


def build_model_card(
    origin: CardSources, model: str, formats: tuple[str, ...], on_hub: bool = False, parity: dict | None = None
) -> str:
    """Return the card.

    Args:
        model: what snippets open: the repository, or the folder.
        parity: what `lengua.publishing.parity` found, as JSON; None where it was left out.
    """
    note, name = origin.note, Path(model).name
    data = hub_metadata.front_matter(note, name, formats, origin.results, origin.manifest)
    folders = {"ct2": CT2_FOLDER, "ct2-int8": CT2_INT8_FOLDER}
    facts = {
        "front": TrustedMarkdown(f"---\n{data.to_yaml()}\n---"),
        "title": name,
        "note": note,
        "spoken": LANGUAGE_NAMES.get(note.language or "", note.language or "").title(),
        "language": note.language or "en",
        "base": code_span(note.base) if hub_metadata.base_on_hub(note.base) else base_name(note.base),
        "model": model,
        "on_hub": on_hub,
        "formats": formats,
        "ct2": next((folder for format, folder in folders.items() if format in formats), None),
        "ggml": GGML_FILE if "ggml" in formats else None,
        "trained": training_facts(origin.record, origin.manifest),
        "licence": hub_metadata.licence_sentences(note, origin.manifest, origin.results),
        **card_results.evaluation_facts(origin.results, origin.records, origin.probed),
        **card_results.parity_facts(parity),
    }
    text = render_markdown(CARD_TEMPLATE, facts)  # sections that are not there leave empty lines
    return re.sub(r"\n{3,}", "\n\n", text).rstrip("\n") + "\n"
