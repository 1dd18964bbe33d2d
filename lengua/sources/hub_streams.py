"""`datasets` as lengua needs it: a data set of the Hub as streams, one a split, whose audio nobody tries to decode."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from lengua.errors import RequestError
from lengua.hub.asking import PATIENCE_S, patient, root_of

# huggingface_hub makes a request again for half a minute; datasets would go on for ten.
RETRIES = {
    "STREAMING_READ_MAX_RETRIES": 1,
    "STREAMING_READ_RETRY_INTERVAL": 1,
    "STREAMING_READ_SERVER_UNAVAILABLE_RETRY_INTERVAL": 1,
    "STREAMING_READ_RATE_LIMIT_RETRY_INTERVAL": 1,
    "STREAMING_OPEN_MAX_RETRIES": 3,
    "STREAMING_OPEN_RETRY_INTERVAL": 1,
}


def open_streams(name: str, config: str | None, revision: str) -> dict:
    """Return the splits of a data set as `datasets.IterableDataset`, by name.

    With the revision given, `datasets` asks the Hub alone, and no viewer of it.

    Raises:
        RequestError: `datasets` is missing, the data set has no such config, several, none, or needs a script.
    """
    datasets = import_datasets()
    try:
        with patient(PATIENCE_S):
            splits = datasets.load_dataset(name, config, revision=revision, streaming=True)
    except ValueError as error:
        raise _about_config(error, name, config) from error
    except (FileNotFoundError, RuntimeError) as error:
        if root_of(error) is not error:
            raise root_of(error) from error
        told = str(error).partition("\n")[0]
        raise RequestError(f"a data set {name} of Parquet or audio files", told, "choose another") from error
    return {split: _undecoded(dataset, datasets) for split, dataset in splits.items()}


def import_datasets():
    """Return the package `datasets`, made less patient.

    Raises:
        RequestError: it is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        do = "install it: pip install 'lengua[train]'"
        raise RequestError("the package datasets, for hub: sources", "none on this machine", do) from error
    for name, value in RETRIES.items():
        setattr(datasets.config, name, value)
    return datasets


def _about_config(error: ValueError, name: str, config: str | None) -> RequestError:
    told = str(error)
    names = told.partition("[")[2].partition("]")[0].replace("'", "") or "none of that name"
    if "BuilderConfig" not in told and "Config name is missing" not in told:
        return RequestError(f"a data set {name} that datasets can read", told.partition("\n")[0], "choose another")
    expected = f"a config {config!r} in {name}" if config else f"one config in {name}"
    return RequestError(expected, names, f"name one of them: hub:{name}:CONFIG")


def _undecoded(dataset, datasets):
    if dataset.features is None:
        dataset = dataset._resolve_features()  # by its first rows; there is no public way
    for column, kind in dataset.features.items():
        if isinstance(kind, datasets.Audio):
            dataset = dataset.cast_column(column, datasets.Audio(decode=False))
    return dataset


@contextmanager
def event_loop() -> Iterator[None]:
    """Give a thread the event loop that `datasets` expects every thread to have."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        yield
    finally:
        asyncio.set_event_loop(None)
        loop.close()
