"""What a run learns from, and what it is measured on: a store, or a stream with a store of dev beside it."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from lengua import features
from lengua.errors import RequestError
from lengua.files import read_json
from lengua.languages import language_code
from lengua.options import FeatureOptions, TrainOptions
from lengua.progress import Watch
from lengua.ranks import leads, rank_and_ranks
from lengua.sources import SPLITS, is_source
from lengua.store import Split, Store, is_store, open_store
from lengua.streams import Stream


@dataclass(frozen=True)
class Speech:
    """The speech of a run."""

    store: Store
    """Holds dev, and train too where that is not streamed."""
    train: Split | Stream

    @property
    def clips(self) -> int | None:
        """Clips of an epoch over all processes; None for a stream whose length nobody tells."""
        return self.train.items if isinstance(self.train, Stream) else len(self.train)


def open_speech(options: TrainOptions, model: Path, watch: Watch) -> tuple[TrainOptions, Speech]:
    """Build what has to be built; return the options with their language, and the speech.

    Args:
        model: the folder of the base weights, whose mel size the features must have.

    Raises:
        RequestError: no such source or store, features of another mel size, or a store to be streamed.
    """
    n_mels = read_json(model / "config.json")["num_mel_bins"]
    if not is_source(options.source):
        if options.stream:
            raise RequestError("a source to stream", f"the store {options.source}", "leave out --stream")
        store = open_store(Path(options.source), n_mels)
    else:
        store = open_store(_built(_features(options, n_mels), watch), n_mels)
    language = language_code(options.language) if options.language else store.language
    train = _stream(options, n_mels) if options.stream else store.split("train")
    return replace(options, language=language), Speech(store, train)


def _built(wanted: FeatureOptions, watch: Watch) -> Path:
    """Build the store, or wait until the leading process of this run has."""
    if leads():
        return features.build(wanted, watch).path
    while not is_store(wanted.out):
        time.sleep(1)
    return wanted.out


def _features(options: TrainOptions, n_mels: int) -> FeatureOptions:
    """Return what of a source is stored in the run's folder."""
    return FeatureOptions(
        options.source,
        options.out / "store",
        splits=("dev",) if options.stream else SPLITS,
        language=options.language,
        base=options.base,
        n_mels=n_mels,
        workers=options.workers,
        filters=options.filters,
    )


def _stream(options: TrainOptions, n_mels: int) -> Stream:
    rank, ranks = rank_and_ranks()
    return Stream(_features(options, n_mels), "train", options.shuffle_window, rank, ranks)
