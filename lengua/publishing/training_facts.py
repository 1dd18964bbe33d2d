"""run.json, for people: what was learned from what, how, on what machine and for how long."""

from pathlib import Path

from lengua.publishing.licences import base_name
from lengua.runs import Run
from lengua.scoring import percent

LEARNED = {"all": "all weights", "decoder": "the decoder; the encoder stayed as it was"}


def training_facts(run: Run | None, manifest: dict | None) -> dict[str, str]:
    """Return name and value of each fact; nothing without a run. Paths of this machine are not among them."""
    if run is None:
        return {}
    options, record = run.options, run.record
    facts = {
        "base": base_name(str(options["base"])),
        "recipe": run.recipe,
        "speech": _speech(manifest),
        "language of the labels": options["language"],
        "window": _window(options),
        "length": _length(run, options),
        "rate": _rate(options),
        "learned": LEARNED.get(options["learn"], f"lora of rank {options['lora_rank']}, merged into the weights"),
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


def _speech(manifest: dict | None) -> str:
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


def _length(run: Run, options: dict) -> str:
    clips = options["batch_size"] * options["accumulation"]
    epochs = f", {options['epochs']:g} epochs" if options["epochs"] else ""
    return f"{run.steps:,} steps of {clips} clips{epochs}"


def _rate(options: dict) -> str | None:
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


def run_of(name: str) -> Path | None:
    """Return the run that a name stands for; None for a model folder or a Hub id."""
    path = Path(name)
    return path if (path / "run.json").is_file() or (path / "evaluation").is_dir() else None
