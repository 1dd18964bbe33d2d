"""A run -> a folder to hand on: the plain checkpoint, its CTranslate2 form, and a card that tells what was measured.

    lengua publish runs/spanish --out export

The folder is written whole or not at all.
"""

from dataclasses import dataclass
from pathlib import Path

from lengua.checkpoints import convert_to_ctranslate2, find_model, read_note
from lengua.errors import RequestError
from lengua.files import digest_of, read_json, replacing, write_bytes
from lengua.languages import NAMES
from lengua.options import PublishOptions
from lengua.progress import Progress, Watch, unwatched
from lengua.report import markdown_table

CT2 = "ctranslate2"


@dataclass(frozen=True)
class PublishResult:
    """What was written."""

    path: Path
    formats: tuple[str, ...]
    bytes: int


def publish(options: PublishOptions, watch: Watch = unwatched) -> PublishResult:
    """Write the folder, whole or not at all.

    Raises:
        RequestError: no such run, or the output folder holds something that is not an earlier export.
    """
    folder, _ = find_model(options.run)
    if options.out.exists() and any(options.out.iterdir()) and not (options.out / "config.json").is_file():
        raise RequestError(
            "a new folder or an earlier export", f"{options.out} with other things", "name another --out"
        )
    steps = ("card", *options.formats)
    with replacing(options.out) as fresh:
        for done, step in enumerate(steps):
            watch(Progress("publishing", done, len(steps), "parts", step))
            PARTS[step](folder, fresh, options)
    watch(Progress("publishing", len(steps), len(steps), "parts"))
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    return PublishResult(options.out, options.formats, size)


def _card(folder: Path, out: Path, options: PublishOptions) -> None:
    results = Path(options.run) / "evaluation" / "results.json"
    write_bytes(out / "README.md", card(folder, read_json(results) if results.is_file() else None).encode())
    if not (out / "config.json").exists():
        for name in ("config.json", "lengua.json"):
            if (folder / name).is_file():
                write_bytes(out / name, (folder / name).read_bytes())


def _plain(folder: Path, out: Path, options: PublishOptions) -> None:
    for path in folder.iterdir():
        if path.is_file():
            write_bytes(out / path.name, path.read_bytes())


def _ctranslate2(folder: Path, out: Path, options: PublishOptions) -> None:
    convert_to_ctranslate2(folder, out / CT2)
    write_bytes(out / CT2 / "source.sha256", (digest_of(folder / "model.safetensors") + "\n").encode())


PARTS = {"card": _card, "hf": _plain, "ct2": _ctranslate2}


def card(folder: Path, results: dict | None) -> str:
    """Return the model card: what it is, what was measured, whose voices it heard, how to use it."""
    note = read_note(folder)
    language = note.language or "en"
    name = NAMES.get(language, language).title()
    return f"""---
language: {language}
license: apache-2.0
base_model: {note.base}
pipeline_tag: automatic-speech-recognition
library_name: transformers
tags: [whisper, lengua]
---
# {note.base.rpartition("/")[2]}, fine-tuned to {name}

Fine-tuned from `{note.base}` with lengua, window {note.window}, margin {note.margin_s[0]:g} to {note.margin_s[1]:g} s.
It is a plain Whisper checkpoint and opens wherever Whisper does.

{_measured(results)}
## Use

```python
from transformers import pipeline

pipeline("automatic-speech-recognition", model=MODEL)("clip.mp3")["text"]
```

In faster-whisper, `WhisperModel("{CT2}")` opens the folder `{CT2}/`; decode with `without_timestamps=True`, as it was
trained.
"""


def _measured(results: dict | None) -> str:
    if not results or not results["rows"]:
        return "Not measured yet: `lengua evaluate` writes what belongs here.\n"
    attribution = results.get("attribution")
    lines = [
        "## Measured",
        "",
        markdown_table(results["rows"]),
        f"{results['rows'][0]['interval']}; normaliser {results['rows'][0]['normaliser']}; "
        f"{results['rows'][0]['decoding']}. {results['hardware']}, {results['date']}, commit {results['commit']}.",
        f"Speech: {results['source']}" + (f" ({attribution})." if attribution else "."),
        "",
    ]
    return "\n".join(lines)
