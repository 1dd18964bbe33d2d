"""Source -> feature store: decode, log-mel, one byte a value, filter with counted reasons, write shards.

    lengua features sample:es --out stores/sample-es

A shard is a fixed run of the source's items, so it does not depend on how many processes work; a build that was
interrupted does not do finished shards again.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lengua import hub, hub_stores, ray_engine, workers
from lengua.errors import LenguaError, RequestError
from lengua.files import read_json, write_json
from lengua.hub_stores import HubStore
from lengua.manifest import counts_of, dropped_counts, plan_of
from lengua.options import FeatureOptions, Filters
from lengua.progress import Progress, Watch, unwatched
from lengua.rows import make_rows
from lengua.sources import Dropped, Source, Utterance, open_source
from lengua.sources.filters import wanted
from lengua.store import (
    MANIFEST,
    ShardSummary,
    Store,
    is_store,
    missing_shards,
    open_store,
    read_shard_summary,
    shard_path,
    write_manifest,
    write_shard,
)

ITEMS_PER_SHARD = 256
PLAN = "building.json"


class NothingUsable(LenguaError):
    """A source without one utterance in the splits that were asked for."""


@dataclass(frozen=True)
class FeatureResult:
    """A finished store and what went into it."""

    path: Path
    splits: dict[str, dict]
    dropped: dict[str, dict]
    bytes: int
    built: bool
    """False when the store was already complete."""
    pushed: str | None = None
    """Where on the Hub the store is."""


def build(options: FeatureOptions, watch: Watch = unwatched) -> FeatureResult:
    """Build the store, or take up an interrupted build, or find it complete.

    Raises:
        RequestError: an unknown source, or an output folder that holds something else.
        LenguaError: not one utterance was left.
    """
    if options.push:
        hub.check_token(options.push)
    if remote := hub_stores.find(options.source):
        return _copy(remote, options, watch)
    source = open_source(options.source, options.language)
    plan = plan_of(source, options)
    if _claim(options.out, plan):
        return _result(open_store(options.out), options, built=False)
    total = count_items(source, options)
    shards = _work(source, options, lambda done: watch(Progress("features", done, total)))
    summaries = {
        split: [read_shard_summary(shard_path(options.out, split, index)) for index in range(shards[split])]
        for split in options.splits
    }
    if not any(shard.rows for shards in summaries.values() for shard in shards):
        _refuse_empty(summaries)
    left_out = {"left_out_by_the_source": left} if (left := getattr(source, "left_out", None)) else {}
    write_manifest(options.out, {**plan, **counts_of(summaries), **left_out})
    (options.out / PLAN).unlink(missing_ok=True)
    return _result(open_store(options.out), options, built=True)


def _work(source: Source, options: FeatureOptions, tell: Callable[[int], None]) -> Counter:
    """Make every shard that is not there yet; return how many each split has."""
    shards, done = Counter(), 0
    tell(done)
    for task in _made(source, options):
        shards[task.split] += 1
        done += task.count
        tell(done)
    return shards


def _made(source: Source, options: FeatureOptions) -> Iterator["Task"]:
    """Yield each task when its shard is there, by the engine that was asked for."""
    if options.engine == "local":
        return workers.each(partial(write_task, options=options), tasks_of(source, options), options.workers)
    options = replace(options, out=options.out.absolute())  # whoever writes it, and wherever
    work, tasks = partial(write_task, options=options), partial(tasks_of, source, options)
    return ray_engine.each(work, tasks, options.workers, shared=options.out / PLAN)


@dataclass(frozen=True)
class Task:
    """One shard: where it goes and which items of the source it holds; none where it is there already."""

    split: str
    path: Path
    count: int
    items: Sequence[Utterance | Dropped]


def _copy(remote: HubStore, options: FeatureOptions, watch: Watch) -> FeatureResult:
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
        (options.out / PLAN).unlink()
    return _result(open_store(options.out), options, built=missing)


def _claim(out: Path, plan: dict) -> bool:
    """Return True where this very store is complete; make the folder ours where it is new or half-built by this plan.

    Raises:
        RequestError: the folder holds something else.
    """
    complete = False
    if is_store(out):
        manifest = read_json(out / MANIFEST)
        if not isinstance(manifest, dict) or "splits" not in manifest:
            raise RequestError("a new or empty folder", f"another {MANIFEST} in {out}", "name another --out")
        _same(out, {**manifest, "splits": list(manifest["splits"])}, plan)
        complete = not missing_shards(out, manifest)
        if not complete:
            write_json(out / PLAN, plan)
            (out / MANIFEST).unlink()
    elif (out / PLAN).is_file():
        _same(out, read_json(out / PLAN), plan)
    elif out.exists() and (not out.is_dir() or set(out.iterdir()) - set(_half_written(out))):
        raise RequestError("a new or empty folder", f"{out} with other things in it", "name another --out")
    for path in _half_written(out):
        path.unlink()
    if not complete:
        write_json(out / PLAN, plan)
    elif (out / PLAN).exists():  # killed between the manifest and this
        (out / PLAN).unlink()
    return complete


def _half_written(out: Path) -> list[Path]:
    """Return what processes that were killed left unfinished."""
    return [path for pattern in (f".{PLAN}.*", f".{MANIFEST}.*", "*/.shard-*") for path in out.glob(pattern)]


def _same(out: Path, found: dict, plan: dict) -> None:
    differing = [key for key in plan if found.get(key) != plan[key]]
    if differing:
        what = f"{out}, made with another {', '.join(differing)}"
        raise RequestError("the store of this source and these options", what, "name another --out, or delete it")


def tasks_of(source: Source, options: FeatureOptions) -> Iterator[Task]:
    """Yield a task whenever a shard's worth of one split has come from the source; what is left over comes last."""
    filling: dict[str, list] = {split: [] for split in options.splits}
    made: Counter = Counter()

    def task(split: str) -> Task:
        items, filling[split] = filling[split], []
        path = shard_path(options.out, split, made[split])
        made[split] += 1
        return Task(split, path, len(items), () if path.is_file() else items)

    for split, item in items_of(source, options):
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


def items_of(source: Source, options: FeatureOptions) -> Iterator[tuple[str, Utterance | Dropped]]:
    """Yield (split, item) of what is wanted, until every split has its limit of utterances.

    Under a limit, what the source left out does not count, and is not told.
    """
    taken: Counter = Counter()
    for split, item in wanted(source, options.splits, options.filters):
        if options.limit is not None:
            if isinstance(item, Dropped) or taken[split] == options.limit:
                continue
            taken[split] += 1
        yield split, item
        if options.limit is not None and all(taken[name] == options.limit for name in options.splits):
            return


def write_task(task: Task, options: FeatureOptions) -> Task:
    """Make one shard, unless it is there already, and return the task without its items."""
    if task.items:
        write_shard(task.path, make_rows(task.items, options))
    return replace(task, items=())


def _refuse_empty(summaries: dict[str, list[ShardSummary]]) -> None:
    dropped = dropped_counts([item for shards in summaries.values() for shard in shards for item in shard.dropped])
    why = ", ".join(f"{reason}: {value['count']}" for reason, value in dropped.items()) or "the source is empty"
    raise NothingUsable("at least one usable utterance", f"none ({why})", "look at the source, or relax the filters")


def _result(store: Store, options: FeatureOptions, built: bool) -> FeatureResult:
    manifest = store.manifest
    pushed = hub.push_store(store.path, options.push).url if options.push else None
    return FeatureResult(store.path, manifest["splits"], manifest["dropped"], manifest["bytes"], built, pushed)
