"""The model card: what it is, what was measured, how it was trained, on whose speech, how to use it.

    text = build_model_card(CardSources(folder, run), "owner/name", ("hf", "ct2"), on_hub=True, parity=rows)

Every figure is read from run.json, results.json, hypotheses.jsonl, the store's manifest or the comparison of
programs. What none of them holds is called unknown, and what became worse is stated first.
"""

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

TRAINED_PARTS = {"all": "all weights", "decoder": "the decoder; the encoder stayed as it was"}


def training_facts(run: Run | None, manifest: dict | None) -> dict[str, str]:
    """Return name and value of each fact; nothing without a run. Paths of this machine are not among them."""
    if run is None:
        return {}
    options, record = run.options, run.record
    facts = {
        "base": base_name(str(options["base"])),
        "recipe": run.recipe,
        "speech": _training_data(manifest),
        "language of the labels": options["language"],
        "window": _window(options),
        "length": _duration(run, options),
        "rate": _learning_rate(options),
        "learned": TRAINED_PARTS.get(options["learn"], f"lora of rank {options['lora_rank']}, merged into the weights"),
        "replayed": _replayed(options),
        "augmented": _augmented(options),
        "blended": _blended(record),
        "chosen by": f"WER on dev, {percent(record['dev_wer'])}" if record.get("dev_wer") is not None else None,
        "stopped early": record.get("stopped"),
        "hardware": record.get("hardware"),
        "time": f"{run.seconds / 60:.1f} min of training" if run.seconds else None,
        "seed": options["seed"],
        "versions": ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items()),
        "commit of lengua": record.get("commit"),
    }
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}


def _training_data(manifest: dict | None) -> str:
    train = (manifest or {}).get("splits", {}).get("train")
    if not train:
        return "not told: the store is not beside the run"
    hours, clips, speakers = train["hours"], train["utterances"], train["speakers"]
    revision = f", revision {manifest['revision']}" if manifest.get("revision") else ""
    return f"{manifest['source']}: {hours:.2f} h in {clips:,} clips of {speakers:,} speakers{revision}"


def _window(options: dict) -> str:
    if options["window"] != "adaptive":
        return {"packed": "clips joined, up to 30 s"}.get(options["window"], "30 s, as usual")
    low, high = options["margin_s"]
    return f"speech and {low:g} to {high:g} s behind it; {_share(options['padded_share'])} of the batches 30 s"


def _duration(run: Run, options: dict) -> str:
    clips = options["batch_size"] * options["accumulation"]
    epochs = f", {options['epochs']:g} epochs" if options["epochs"] else ""
    return f"{run.steps:,} steps of {clips} clips{epochs}"


def _learning_rate(options: dict) -> str | None:
    if not options["learning_rate"]:
        return None
    return f"{options['learning_rate']:g} at its peak, after {_share(options['warmup'])} of the steps; then down to 0"


def _replayed(options: dict) -> str | None:
    return f"{_share(options['replay_share'])} of the clips from a second store" if options["replay"] else None


def _augmented(options: dict) -> str | None:
    kinds = {name: options.get(f"augment.{name}") for name in ("noise", "speed", "volume")}
    told = [f"{name} in {_share(share)} of the clips" for name, share in kinds.items() if share]
    return ", ".join([*(["time and frequency masks"] if options["spec_augment"] else []), *told]) or None


def _blended(record: dict) -> str | None:
    chosen = (record.get("blend") or {}).get("chosen")
    return None if chosen is None else f"{_share(chosen)} fine-tuned weights, the rest the base's"


def _share(fraction: float) -> str:
    return f"{100 * fraction:g} %"


def find_run(name: str) -> Path | None:
    """Return the run that a name stands for; None for a model folder or a Hub id."""
    path = Path(name)
    return path if (path / "run.json").is_file() or (path / "evaluation").is_dir() else None


CARD_TEMPLATE = "card.md"


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
        return [record | {"set": public_set_name(record["set"])} for record in found]


def _results_in(path: Path) -> dict:
    """Return results.json with sets by names that may be seen."""
    found = read_json(path)
    return found | {"rows": [row | {"set": public_set_name(row["set"])} for row in found.get("rows") or []]}


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
    note = origin.note
    name = Path(model).name
    data = hub_metadata.front_matter(note, name, formats, origin.results, origin.manifest)
    spoken = LANGUAGE_NAMES.get(note.language or "", note.language or "").title()
    facts = {
        "front": TrustedMarkdown(f"---\n{data.to_yaml()}\n---"),
        "title": name,
        "note": note,
        "spoken": spoken,
        "language": note.language or "en",
        "base": code_span(note.base) if hub_metadata.base_on_hub(note.base) else hub_metadata.base_name(note.base),
        "model": model,
        "on_hub": on_hub,
        "formats": formats,
        "ct2": next(
            (folder for name, folder in (("ct2", CT2_FOLDER), ("ct2-int8", CT2_INT8_FOLDER)) if name in formats), None
        ),
        "ggml": GGML_FILE if "ggml" in formats else None,
        "trained": training_facts(origin.record, origin.manifest),
        "licence": hub_metadata.licence_sentences(note, origin.manifest, origin.results),
        **card_results.evaluation_facts(origin.results, origin.records, origin.probed),
        **card_results.parity_facts(parity),
    }
    return _tidy(render_markdown(CARD_TEMPLATE, facts))


def _tidy(text: str) -> str:
    """Join the empty lines that sections leave which are not there."""
    lines = text.split("\n")
    kept = [line for at, line in enumerate(lines) if line or at == 0 or lines[at - 1]]
    return "\n".join(kept).rstrip("\n") + "\n"
