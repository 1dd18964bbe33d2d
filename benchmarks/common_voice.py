"""A fine-tuned run against its base on speakers it never met: real Common Voice, and other folders of recordings.

    python benchmarks/common_voice.py --model runs/demo --clips PATH/cv-corpus-6.1-2020-12-11/es --more FOLDER
    python benchmarks/common_voice.py --model runs/ca --language ca --clips None --more ../shared/data/ca_slr69

All validated clips of Common Voice are measured, and with --more the test rows of other folders of recordings; base
padded and fine-tuned in both windows, with an interval. Nothing is chosen on them. The last line is one JSON object.
"""

import csv
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from corpus import COMMON_VOICE, validated
from harness import BenchmarkOptions, report, run

from lengua.data import features
from lengua.evaluation import evaluate
from lengua.evaluation.report.tables import markdown_table
from lengua.options import BASE_MODEL, EvaluateOptions, FeatureOptions
from lengua.runtime.files import read_json
from lengua.runtime.progress import Console


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Measure a run and its base on speakers they never met."""

    model: str = "runs/demo"
    """A fine-tuned run."""
    clips: Path | None = COMMON_VOICE / "es"
    """A language's folder of Common Voice: clips/ and validated.tsv. None: only what --more names."""
    more: tuple[Path, ...] = ()
    """Folders with a metadata.csv, as `folder:` reads them, whose test rows are measured, too."""
    language: str = "es"
    """Their language."""


def main(options: Options) -> dict:
    if not options.clips and not options.more:
        sys.exit("skipped: nothing to measure; name folders with --clips or --more")
    if options.clips and not validated(options.clips):
        sys.exit(f"skipped: no Common Voice folder at {options.clips}; name one with --clips")
    with tempfile.TemporaryDirectory() as scratch, Console() as watch:
        source = as_folder(options.clips, options.more, Path(scratch) / "strangers")
        store = features.build(
            FeatureOptions(f"folder:{source}", Path(scratch) / "store", splits=("test",), language=options.language),
            watch,
        )
        measured = EvaluateOptions(
            options.model, str(store.path), against=BASE_MODEL, out=Path(scratch) / "evaluation", resamples=10_000
        )
        evaluate(measured, watch)
        results = read_json(measured.out / "results.json")
    folders = [*([options.clips.parent] if options.clips else []), *options.more]
    title = f"{'Common Voice' if options.clips else folders[0].name} {options.language}"
    rows = [{**row, "set": title} for row in results["rows"]]
    lines = [*(verdict["sentence"] for verdict in results["verdicts"]), "", *markdown_table(rows, []).splitlines()]
    where = " and ".join(folder.name for folder in folders)
    lines += ["", f"{rows[0]['utterances']} clips of {where}; {rows[0]['interval']}."]
    result = {"rows": rows, "verdicts": results["verdicts"]}
    return report(options, title, lines, result, shown=("model",))


def as_folder(clips: Path | None, more: tuple[Path, ...], out: Path) -> Path:
    """Make a `folder:` source of the validated clips and the test rows of other folders, all in its test split."""
    rows = [
        (clips / "clips" / row["path"], row["sentence"], row["client_id"])
        for row in (validated(clips) if clips else [])
    ]
    for folder in more:
        with open(folder / "metadata.csv", encoding="utf-8", newline="") as file:
            rows += [
                (folder / row["file_name"], row["text"], row["speaker"])
                for row in csv.DictReader(file)
                if row["split"] == "test"
            ]
    out.mkdir()
    with open(out / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "text", "speaker", "split"])
        for number, (path, text, speaker) in enumerate(rows):
            name = f"{number:05d}{path.suffix}"  # two folders may use the same names
            shutil.copyfile(path, out / name)
            writer.writerow([name, text, speaker, "test"])
    return out


if __name__ == "__main__":
    run(main, Options)
