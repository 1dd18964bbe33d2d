"""The feature stage as the well-known notebooks for fine-tuning Whisper write it, on a Common Voice folder.

librosa.load (soundfile, soxr), WhisperFeatureExtractor padded to 30 s, WhisperTokenizer, by `Dataset.map` into Arrow
files, row by row, which is faster than in batches.
"""

import csv
import time
from functools import lru_cache
from pathlib import Path

from lengua.audio import SAMPLE_RATE
from lengua.audio.log_mel import WINDOW_FRAMES
from lengua.models.checkpoints import find_model
from lengua.options import BASE_MODEL


def usual(release: Path, out: Path, processes: int, tuned: bool = False) -> tuple[int, float]:
    """Make features as the notebooks do, or with what makes `datasets` faster; return how many, and the seconds."""
    from datasets import Array2D, Dataset, Features, List, Value, disable_progress_bars

    disable_progress_bars()
    recipe()
    padded = Features(input_features=Array2D((80, WINDOW_FRAMES), "float32"), labels=List(Value("int64")))
    start = time.perf_counter()
    out.mkdir()
    rows = Dataset.from_dict(table(release))
    made = rows.map(
        prepare,
        num_proc=processes if processes > 1 else None,
        remove_columns=rows.column_names,
        cache_file_name=str(out / "features.arrow"),
        **({"features": padded, "writer_batch_size": 100} if tuned else {}),
    )
    return len(made), time.perf_counter() - start


@lru_cache(maxsize=1)
def recipe() -> tuple:
    """Return what a notebook loads first: librosa's loader, the feature extractor, the tokenizer."""
    from librosa import load
    from transformers import WhisperFeatureExtractor, WhisperTokenizer

    folder, _ = find_model(BASE_MODEL)
    tokenizer = WhisperTokenizer.from_pretrained(folder, language="es", task="transcribe")
    return load, WhisperFeatureExtractor.from_pretrained(folder), tokenizer


def prepare(row: dict[str, str]) -> dict:
    """Turn a path and a sentence into features, float32 of shape (80, 3000), and labels."""
    load, extractor, tokenizer = recipe()
    samples, rate = load(row["path"], sr=SAMPLE_RATE)
    padded = extractor(samples, sampling_rate=rate, return_tensors="np").input_features[0]
    return {"input_features": padded, "labels": tokenizer(row["sentence"]).input_ids}


def table(release: Path) -> dict[str, list[str]]:
    """Return the paths and sentences of all splits."""
    rows = []
    for split in ("train", "dev", "test"):
        with open(release / f"{split}.tsv", encoding="utf-8", newline="") as file:
            rows += csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    paths = [str(release / "clips" / row["path"]) for row in rows]
    return {"path": paths, "sentence": [row["sentence"] for row in rows]}
