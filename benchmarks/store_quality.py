"""Does one byte a value cost a word? Whisper on a store's bytes, on live float32 log-mel, and on transformers' own.

    python benchmarks/store_quality.py

Three inputs of the same clips go into the same model in one batch: greedy, float32, padded to 30 s. Every clip whose
words differ is shown. The last line is one JSON object.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness import BenchmarkOptions, markdown, report, run

from lengua import audio
from lengua.audio import log_mel
from lengua.data import features
from lengua.data.store import Row, Store, open_store
from lengua.inference import Transcriber
from lengua.models.checkpoints import find_model
from lengua.options import BASE_MODEL, FeatureOptions
from lengua.runtime.errors import RequestError
from lengua.runtime.progress import Console, Progress, Watch
from lengua.scoring import wer

NAMES = {"store": "the store’s bytes", "live": "live float32", "transformers": "WhisperFeatureExtractor"}


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Compare what Whisper hears in stored and in live features."""

    store: Path | None = None
    """A store that keeps the audio of the split. Default: that of sample:es, built in a temporary folder."""
    split: str = "test"
    """The split to read."""
    limit: int | None = None
    """At most this many clips, spread over the split."""
    model: str = BASE_MODEL
    """Who listens."""


def main(options: Options) -> dict:
    with tempfile.TemporaryDirectory() as scratch, Console() as watch:
        if options.store is None:
            features.build(FeatureOptions("sample:es", Path(scratch) / "store", splits=(options.split,)), watch)
        store = open_store(options.store or Path(scratch) / "store")
        return show(options, store, list(transcripts(store, options, watch)))


def transcripts(store: Store, options: Options, watch: Watch) -> Iterator[dict[str, str]]:
    """Yield {id, reference, store, live, transformers} of each clip."""
    split, hear = store.split(options.split), Transcriber(options.model, store.language, engine="torch")
    count = min(options.limit or len(split), len(split))
    extractor = whisper_extractor(options.model)
    for done, index in enumerate(np.linspace(0, len(split) - 1, count, dtype=int).tolist(), 1):
        row = split[index]
        decoded = hear.decode(inputs(row, store.n_mels, extractor), margin_s=None)
        yield {"id": row.id, "reference": row.text} | {name: d.text for name, d in zip(NAMES, decoded, strict=True)}
        watch(Progress("listening", done, count))


def inputs(row: Row, n_mels: int, extractor) -> list[np.ndarray]:
    """Return one clip three times, each float32 of shape (frames, n_mels), in the order of `NAMES`.

    The last is 3000 frames long as it is: its padding is transformers' own, the others are refilled with their floor.

    Raises:
        RequestError: the store does not keep the audio.
    """
    if row.audio is None:
        raise RequestError("a split whose audio is kept", f"none for {row.id}", "name another --split")
    samples = audio.load(row.audio)
    padded = extractor(samples, sampling_rate=audio.SAMPLE_RATE, return_tensors="np").input_features[0]
    return [row.log_mel(), log_mel.log_mel(samples, n_mels), padded.T]


def whisper_extractor(model: str):
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor.from_pretrained(find_model(model)[0])


def show(options: Options, store: Store, clips: list[dict[str, str]]) -> dict:
    texts = {name: [clip[name] for clip in clips] for name in ["reference", *NAMES]}
    rates = {name: wer(texts["reference"], texts[name]) for name in NAMES}
    same = {name: sum(map(str.__eq__, texts["store"], texts[name])) for name in NAMES}
    differing = [clip for clip in clips if len({clip[name] for name in NAMES}) > 1]
    result = {
        "model": options.model,
        "source": store.manifest["source"],
        "clips": len(clips),
        "identical": same["live"],
        "identical_to_transformers": same["transformers"],
        "differences": differing,
        **{f"wer_{name}": round(rate, 4) for name, rate in rates.items()},
    }
    rows = [[NAMES[name], f"{rates[name]:.2%}", f"{same[name]} of {len(clips)}"] for name in NAMES]
    lines = markdown(["padded to 30 s, float32, greedy", "WER", "same text as from the store"], rows)
    lines += ["", f"{options.model}, {options.split} split of {result['source']}; every letter and mark is compared."]
    if differing:
        cells = [[clip[name].replace("|", "¦") for name in ["id", "reference", *NAMES]] for clip in differing]
        beside = markdown(["clip", "reference", *NAMES.values()], cells)
        lines += ["", *(line.replace("---:", "---") for line in beside[:2]), *beside[2:]]  # words, to the left
    return report(options, "Words lost by one byte a value", lines, result)


if __name__ == "__main__":
    run(main, Options)
