"""The feature pipeline: source -> feature store.

    lengua features sample:es --out stores/sample-es

`make_row` turns one utterance into a row: decode, check, log-mel, one byte a value. Stores, streams and every engine
use it. `build` writes rows into shards and counts what was dropped, by reason. A shard is a fixed range of the
source's items, so it does not depend on the number of processes, and an interrupted build keeps its finished shards.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from lengua import audio
from lengua.audio import log_mel
from lengua.data import hub_store
from lengua.data.filters import filter_source
from lengua.data.hub_store import HubStore, push_store
from lengua.data.labels import clean_transcript, has_unknown_word
from lengua.data.sources import Dropped, Source, Utterance, open_source
from lengua.data.store import (
    CLEANED_KEY,
    MANIFEST_FILE,
    Row,
    Store,
    build_plan,
    count_shards,
    is_store,
    missing_shards,
    open_store,
    read_shard_summary,
    shard_path,
    write_manifest,
    write_shard,
)
from lengua.models.checkpoints import find_model, load_tokenizer
from lengua.models.tokens import MAX_LABEL_TOKENS, label_length, may_be_too_long
from lengua.options import FeatureOptions, Filters
from lengua.runtime import parallel, ray
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import exclusive, read_json, write_json
from lengua.runtime.hub import check_token
from lengua.runtime.progress import Progress, Watch, unwatched

MAX_KEPT_AUDIO_BYTES = 64 * 2**20
ITEMS_PER_SHARD = 256
PLAN_FILE = "building.json"
AugmentFunction = Callable[[str, np.ndarray], np.ndarray]
"""(id, samples) -> the samples that features are made of."""


def make_rows(
    items: Iterable[Utterance | Row | Dropped], options: FeatureOptions, alter: AugmentFunction | None = None
) -> Iterator[Row | Dropped]:
    """Turn what a source yields into rows; what is a row already, or was dropped, stays as it is."""
    return (make_row(item, options, alter) if isinstance(item, Utterance) else item for item in items)


def make_row(utterance: Utterance, options: FeatureOptions, alter: AugmentFunction | None = None) -> Row | Dropped:
    """Turn one utterance into a row, or say why not; `alter` comes after the checks."""
    if has_unknown_word(utterance.text):
        return Dropped(utterance.id, "a word that nobody understood")
    text, rules = clean_transcript(utterance.text)
    if not text:
        return Dropped(utterance.id, "no text")
    source = utterance.audio
    try:
        if (len(source) if isinstance(source, bytes) else source.stat().st_size) > MAX_KEPT_AUDIO_BYTES:
            return Dropped(utterance.id, "unreadable audio")
        samples = audio.load(source, max_seconds=options.max_seconds + 0.5)
    except Exception:  # whatever a decoder makes of a damaged file, it is one clip
        return Dropped(utterance.id, "unreadable audio")
    if reason := _unusable_reason(samples, text, options):
        return Dropped(utterance.id, reason)
    if alter:
        samples = alter(utterance.id, samples)
    peak, coded = log_mel.encode(log_mel.log_mel(samples, options.n_mels))
    return Row(
        id=utterance.id,
        text=text,
        language=utterance.language,
        speaker=utterance.speaker,
        duration_s=round(audio.duration_s(samples), 3),
        frames=len(coded),
        peak=peak,
        mel=coded,
        audio=_kept_audio(source, samples) if utterance.split in options.keep_audio else None,
        extra=utterance.extra | ({CLEANED_KEY: ", ".join(rules)} if rules else {}),
    )


def _unusable_reason(samples, text: str, options: FeatureOptions) -> str | None:
    """Return why a clip cannot be trained on or scored, or None."""
    seconds = audio.duration_s(samples)
    if seconds < options.min_seconds:
        return f"shorter than {options.min_seconds:g} s"
    if seconds > options.max_seconds:
        return f"longer than {options.max_seconds:g} s"
    if audio.is_silent(samples):
        return "no speech energy"
    rate = len(text) / seconds
    if rate > options.max_chars_per_second or (seconds > 3 and rate < options.min_chars_per_second):
        return "text and audio disagree"
    if may_be_too_long(text) and label_length(_tokenizer(options.base), text) > MAX_LABEL_TOKENS:
        return f"label over {MAX_LABEL_TOKENS} tokens"
    return None


@lru_cache(maxsize=1)
def _tokenizer(base: str):
    return load_tokenizer(find_model(base)[0])


def _kept_audio(source: Path | bytes, samples) -> bytes:
    data = source if isinstance(source, bytes) else source.read_bytes()
    known = data[:4] in (b"RIFF", b"fLaC", b"OggS") or data[:3] == b"ID3" or data[:2] in (b"\xff\xfb", b"\xff\xf3")
    return data if known else audio.as_flac(samples)


class NoUsableUtterances(LenguaError):
    """A source without one utterance in the splits that were asked for."""


@dataclass(frozen=True)
class FeatureResult:
    """A finished store and what went into it."""

    path: Path
    splits: dict[str, dict]
    dropped: dict[str, dict]
    cleaned: dict[str, dict]
    """Rules that changed texts, with counts and examples, as `dropped`."""
    bytes: int
    built: bool
    """False when the store was already complete."""
    pushed: str | None = None
    """Where on the Hub the store is."""


@exclusive
def build(options: FeatureOptions, watch: Watch = unwatched) -> FeatureResult:
    """Build the store, or take up an interrupted build, or find it complete.

    Raises:
        RequestError: an unknown source, or an output folder that holds something else.
        LenguaError: not one utterance was left.
    """
    if options.push:
        check_token(options.push)
    if remote := hub_store.find_hub_store(options.source):
        return _copy_from_hub(remote, options, watch)
    source = open_source(options.source, options.language)
    plan = build_plan(source, options)
    if _claim(options.out, plan):
        return _result(open_store(options.out), options, built=False)
    if remark := getattr(source, "remark", ""):
        watch(Progress("features", 0, None, "", remark))
    shards, done, total = Counter(), 0, count_items(source, options)
    watch(Progress("features", done, total))
    for task in _run_tasks(source, options):
        shards[task.split] += 1
        done += task.count
        watch(Progress("features", done, total))
    summaries = {
        split: [read_shard_summary(shard_path(options.out, split, index)) for index in range(shards[split])]
        for split in options.splits
    }
    counts = count_shards(summaries)
    if not any(split["utterances"] for split in counts["splits"].values()):
        why = ", ".join(f"{reason}: {one['count']}" for reason, one in counts["dropped"].items())
        found = f"none ({why or 'the source is empty'})"
        _discard(options.out, shards)  # else it would be the answer, too, once the source is put right
        raise NoUsableUtterances("at least one usable utterance", found, "look at the source, or relax the filters")
    left_out = {"left_out_by_the_source": left} if (left := getattr(source, "left_out", None)) else {}
    write_manifest(options.out, {**plan, **counts, **left_out})
    (options.out / PLAN_FILE).unlink(missing_ok=True)
    return _result(open_store(options.out), options, built=True)


def _run_tasks(source: Source, options: FeatureOptions) -> Iterator["ShardTask"]:
    options = replace(options, out=options.out.absolute())  # whoever writes it, and wherever
    work = partial(write_task, options=options)
    if options.engine == "local":
        return parallel.map_in_processes(work, plan_shards(source, options), options.workers)
    return ray.map_on_ray(work, partial(plan_shards, source, options), options.workers, options.out / PLAN_FILE)


@dataclass(frozen=True)
class ShardTask:
    """One shard: where it goes and which items of the source it holds; none where it is there already."""

    split: str
    path: Path
    count: int
    items: Sequence[Utterance | Dropped]


def _copy_from_hub(remote: HubStore, options: FeatureOptions, watch: Watch) -> FeatureResult:
    """Bring a feature store from the Hub as it is; broken off, it goes on with the shards that are missing."""
    if options.limit is not None or options.filters != Filters():
        found = f"a limit or filters for the feature store {remote.uri}"
        raise RequestError("a source of recordings, to choose from", found, "leave them out: features are made already")
    if lacking := [split for split in options.splits if split not in remote.manifest["splits"]]:
        have = ", ".join(remote.manifest["splits"])
        raise RequestError(f"the split {lacking[0]!r} in {remote.uri}", have, "name one of these with --splits")
    missing = not _claim(options.out, remote.manifest | {"splits": list(options.splits)})
    if missing:
        tell = lambda done, total: watch(Progress("copying features", done / 1e6, total / 1e6, "MB"))  # noqa: E731
        remote.copy(options.out, options.splits, tell)
        (options.out / PLAN_FILE).unlink()
    return _result(open_store(options.out), options, built=missing)


def _claim(out: Path, plan: dict) -> bool:
    """Return whether this very store is complete; claim a folder that is new or half-built by this plan.

    Raises:
        RequestError: the folder holds something else.
    """
    is_complete, planned = False, None
    if is_store(out):
        manifest = read_json(out / MANIFEST_FILE)
        if not isinstance(manifest, dict) or "splits" not in manifest:
            raise RequestError("a new or empty folder", f"another {MANIFEST_FILE} in {out}", "name another --out")
        is_complete, planned = not missing_shards(out, manifest), {**manifest, "splits": list(manifest["splits"])}
    elif (out / PLAN_FILE).is_file():
        planned = read_json(out / PLAN_FILE)
    elif out.exists() and (not out.is_dir() or set(out.iterdir()) - set(_unfinished_files(out))):
        raise RequestError("a new or empty folder", f"{out} with other things in it", "name another --out")
    if planned is not None and (differing := [key for key in plan if planned.get(key) != plan[key]]):
        what = f"{out}, made with another {', '.join(differing)}"
        raise RequestError("the store of this source and these options", what, "name another --out, or delete it")
    if is_complete:
        (out / PLAN_FILE).unlink(missing_ok=True)  # killed between the manifest and this
    else:
        write_json(out / PLAN_FILE, plan)
        (out / MANIFEST_FILE).unlink(missing_ok=True)
    for path in _unfinished_files(out):
        path.unlink()
    return is_complete


def _discard(out: Path, shards: Counter) -> None:
    """Delete what a build without a result has written, and its folders where they are empty then."""
    files = [shard_path(out, split, index) for split, count in shards.items() for index in range(count)]
    for path in [*files, out / PLAN_FILE]:
        path.unlink(missing_ok=True)
    for folder in [*{path.parent for path in files}, out]:
        with suppress(OSError):
            folder.rmdir()


def _unfinished_files(out: Path) -> list[Path]:
    return [path for pattern in (f".{PLAN_FILE}.*", f".{MANIFEST_FILE}.*", "*/.shard-*") for path in out.glob(pattern)]


def plan_shards(source: Source, options: FeatureOptions) -> Iterator[ShardTask]:
    """Yield a task whenever a shard's worth of one split has come from the source; what is left over comes last."""
    filling: dict[str, list] = {split: [] for split in options.splits}
    made: Counter = Counter()

    def task(split: str) -> ShardTask:
        items, filling[split] = filling[split], []
        path = shard_path(options.out, split, made[split])
        made[split] += 1
        return ShardTask(split, path, len(items), () if path.is_file() else items)

    for split, item in limited_items(source, options):
        filling[split].append(item)
        if len(filling[split]) == ITEMS_PER_SHARD:
            yield task(split)
    yield from (task(split) for split in options.splits if filling[split])


def count_items(source: Source, options: FeatureOptions) -> int | None:
    """Return how many items there will be, where the source can be looked over without its audio."""
    if not hasattr(source, "survey"):
        return None
    if options.limit is None:
        return sum(1 for split in options.splits for _ in source.survey(split))
    utterances = [sum(isinstance(item, Utterance) for item in source.survey(split)) for split in options.splits]
    return sum(min(count, options.limit) for count in utterances)


def limited_items(source: Source, options: FeatureOptions) -> Iterator[tuple[str, Utterance | Dropped]]:
    """Yield (split, item) of what is wanted, until every split has its limit of utterances.

    Under a limit, what the source left out does not count, and is not reported.
    """
    taken: Counter = Counter()
    for split, item in filter_source(source, options.splits, options.filters):
        if options.limit is not None:
            if isinstance(item, Dropped) or taken[split] == options.limit:
                continue
            taken[split] += 1
        yield split, item
        if options.limit is not None and all(taken[name] == options.limit for name in options.splits):
            return


def write_task(task: ShardTask, options: FeatureOptions) -> ShardTask:
    """Make one shard, unless it is there already, and return the task without its items."""
    if task.items:
        write_shard(task.path, make_rows(task.items, options))
    return replace(task, items=())


def _result(store: Store, options: FeatureOptions, built: bool) -> FeatureResult:
    manifest = store.manifest
    pushed = push_store(store.path, options.push).url if options.push else None
    return FeatureResult(
        store.path,
        manifest["splits"],
        manifest["dropped"],
        manifest.get("cleaned", {}),
        manifest["bytes"],
        built,
        pushed,
    )
