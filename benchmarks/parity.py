"""Do the figures hold where people will use the checkpoint? Plain transformers on the test clips, padded as it pads.

    python benchmarks/parity.py --run runs/demo

WER through `transformers.pipeline` beside the padded WER that was reported. The last line is one JSON object.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from recording import markdown, record, run
from transformers import WhisperForConditionalGeneration, WhisperProcessor, pipeline

from lengua import audio
from lengua.checkpoints import find_model
from lengua.files import read_json
from lengua.scoring import score
from lengua.store import open_store


@dataclass(frozen=True)
class Options:
    """Hold a run's padded WER against plain transformers."""

    run: Path = Path("runs/demo")
    """A finished run with its store and evaluation by speaker."""
    record: bool = False
    """Write the result into benchmarks/RESULTS.md."""


def main(options: Options) -> None:
    """Measure and print."""
    texts = transcribed(options.run)
    reported = {
        row["set"]: row["wer"]
        for row in read_json(options.run / "evaluation/results.json")["rows"]
        if (row["model"], row["window"]) == ("fine-tuned", "padded")
    }
    rates = {name: score(*zip(*pairs, strict=True)).wer for name, pairs in texts.items()}
    rows = [[name, f"{reported[name]:.1%}", f"{rates[name]:.1%}"] for name in reported]
    lines = markdown(["set, padded to 30 s", "reported (CTranslate2 int8)", "transformers.pipeline (float32)"], rows)
    print("\n".join(lines))
    print(json.dumps({"reported": reported, "pipeline": rates}))
    if options.record:
        record("The same words in transformers", f"python benchmarks/parity.py --run {options.run}", lines)


def transcribed(run: Path) -> dict[str, list[tuple[str, str]]]:
    """Return {speaker: [(reference, hypothesis)]} of the test clips through the pipeline."""
    test, (folder, _) = open_store(run / "store").split("test"), find_model(str(run))
    model, processor = WhisperForConditionalGeneration.from_pretrained(folder), WhisperProcessor.from_pretrained(folder)
    recognise = pipeline(
        "automatic-speech-recognition",
        model=model,
        tokenizer=processor.tokenizer,
        feature_extractor=processor.feature_extractor,
    )
    pairs = defaultdict(list)
    for row in test:
        text = recognise({"raw": audio.load(row.audio), "sampling_rate": audio.SAMPLE_RATE})["text"]
        pairs[row.speaker].append((row.text, text))
    return dict(pairs)


if __name__ == "__main__":
    run(main, Options)
