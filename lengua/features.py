"""Source -> feature store: decode, log-mel, one byte a value, filter with counted reasons, write shards.

    lengua features sample:es --out stores/sample-es

A shard is a fixed run of the source's items, so it does not depend on how many processes work; a build that was
interrupted does not do finished shards again.
"""

import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from lengua import audio, mel
from lengua.checkpoints import find_model, load_tokenizer
from lengua.errors import LenguaError, RequestError
from lengua.files import read_json, write_json
from lengua.labels import MAX_LABEL_TOKENS, label_length, may_be_too_long
from lengua.options import FeatureOptions
from lengua.progress import Progress, Watch, unwatched
from lengua.sources import Dropped, Source, Utterance, open_source
from lengua.store import (
    MANIFEST,
    Row,
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
from lengua.text import clean_label

ITEMS_PER_SHARD = 256
PLAN = "building.json"
MAX_AUDIO_BYTES = 64 * 2**20


@dataclass(frozen=True)
class FeatureResult:
    """A finished store and what went into it."""

    path: Path
    splits: dict[str, dict]
    dropped: dict[str, dict]
    bytes: int
    built: bool
    """False when the store was already complete."""


def build(options: FeatureOptions, watch: Watch = unwatched) -> FeatureResult:
    """Build the store, or take up an interrupted build, or find it complete.

    Raises:
        RequestError: an unknown source, or an output folder that holds something else.
        LenguaError: not one utterance was left.
    """
    source = open_source(options.source, options.language)
    plan = _plan(source, options)
    if _claim(options.out, plan):
        return _result(open_store(options.out), built=False)
    tasks = [task for split in options.splits for task in _tasks(source, split, options)]
    _work(tasks, options, watch)
    summaries = {split: [read_shard_summary(t.path) for t in tasks if t.split == split] for split in options.splits}
    if not any(shard.rows for shards in summaries.values() for shard in shards):
        _refuse_empty(summaries)
    write_manifest(options.out, {**plan, **_counts(summaries, options)})
    (options.out / PLAN).unlink(missing_ok=True)
    return _result(open_store(options.out), built=True)


@dataclass(frozen=True)
class Task:
    """One shard: where it goes and which items of the source it holds."""

    split: str
    path: Path
    items: list[Utterance | Dropped]


def make_row(utterance: Utterance, options: FeatureOptions) -> Row | Dropped:
    """Turn one utterance into a row, or say why not. The same code serves stores, streams and every engine."""
    text = clean_label(utterance.text)
    if not text:
        return Dropped(utterance.id, "no text")
    try:
        samples = audio.load(_bounded(utterance.audio), max_seconds=options.max_seconds + 0.5)
    except (RequestError, OSError):
        return Dropped(utterance.id, "unreadable audio")
    if reason := _unfit(samples, text, options):
        return Dropped(utterance.id, reason)
    peak, coded = mel.encode(mel.log_mel(samples, options.n_mels))
    return Row(
        id=utterance.id,
        text=text,
        language=utterance.language,
        speaker=utterance.speaker,
        duration_s=round(audio.duration_s(samples), 3),
        frames=len(coded),
        peak=peak,
        mel=coded,
        audio=_kept_audio(utterance.audio, samples) if utterance.split in options.keep_audio else None,
        extra=utterance.extra,
    )


def _unfit(samples, text: str, options: FeatureOptions) -> str | None:
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
    """Return the tokenizer that counts label tokens; few texts are long enough to need it."""
    return load_tokenizer(find_model(base)[0])


def _bounded(source: Path | bytes) -> Path | bytes:
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if size > MAX_AUDIO_BYTES:
        raise RequestError(f"a clip under {MAX_AUDIO_BYTES >> 20} MB", f"{size >> 20} MB", "cut it at pauses first")
    return source


def _kept_audio(source: Path | bytes, samples) -> bytes:
    """Return the original bytes where every player knows them, else FLAC."""
    data = source if isinstance(source, bytes) else source.read_bytes()
    known = data[:4] in (b"RIFF", b"fLaC", b"OggS") or data[:3] == b"ID3" or data[:2] in (b"\xff\xfb", b"\xff\xf3")
    return data if known else audio.as_flac(samples)


def _plan(source: Source, options: FeatureOptions) -> dict:
    """Return everything that decides the bytes of the store."""
    return {
        "source": source.uri,
        "revision": source.revision,
        "licence": source.licence,
        "attribution": source.attribution,
        "n_mels": options.n_mels,
        "sampling_rate": audio.SAMPLE_RATE,
        "hop_length": mel.HOP_LENGTH,
        "limit": options.limit,
        "filters": {
            "min_seconds": options.min_seconds,
            "max_seconds": options.max_seconds,
            "min_chars_per_second": options.min_chars_per_second,
            "max_chars_per_second": options.max_chars_per_second,
            "max_label_tokens": MAX_LABEL_TOKENS,
        },
        "splits": list(options.splits),
        "keep_audio": list(options.keep_audio),
        "versions": {name: version(name) for name in ("numpy", "pyarrow", "soundfile", "av", "soxr")},
    }


def _claim(out: Path, plan: dict) -> bool:
    """Return True where this very store is complete; make the folder ours where it is new or half-built by this plan.

    Raises:
        RequestError: the folder holds something else.
    """
    if is_store(out):
        manifest = read_json(out / MANIFEST)
        if not isinstance(manifest, dict) or "splits" not in manifest:
            raise RequestError("a new or empty folder", f"another {MANIFEST} in {out}", "name another --out")
        _same(out, {**manifest, "splits": list(manifest["splits"])}, plan)
        if not missing_shards(out, manifest):
            return True
        write_json(out / PLAN, plan)
        (out / MANIFEST).unlink()
    elif (out / PLAN).is_file():
        _same(out, read_json(out / PLAN), plan)
        for half_written in out.glob("*/.shard-*"):  # by a process that was killed
            half_written.unlink()
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RequestError("a new or empty folder", f"{out} with other things in it", "name another --out")
    write_json(out / PLAN, plan)
    return False


def _same(out: Path, found: dict, plan: dict) -> None:
    differing = [key for key in plan if found.get(key) != plan[key]]
    if differing:
        what = f"{out}, made with another {', '.join(differing)}"
        raise RequestError("the store of this source and these options", what, "name another --out, or delete it")


def _tasks(source: Source, split: str, options: FeatureOptions) -> Iterator[Task]:
    items: list[Utterance | Dropped] = list(source.read(split))
    if options.limit is not None:
        items = [item for item in items if isinstance(item, Utterance)][: options.limit]
    for index in range(-(-len(items) // ITEMS_PER_SHARD)):
        part = items[index * ITEMS_PER_SHARD : (index + 1) * ITEMS_PER_SHARD]
        yield Task(split, shard_path(options.out, split, index), part)


def write_task(task: Task, options: FeatureOptions) -> int:
    """Make one shard and return how many items it was made from."""
    made = [make_row(item, options) if isinstance(item, Utterance) else item for item in task.items]
    rows = [item for item in made if isinstance(item, Row)]
    write_shard(task.path, rows, [item for item in made if isinstance(item, Dropped)])
    return len(task.items)


def _work(tasks: list[Task], options: FeatureOptions, watch: Watch) -> None:
    """Make every shard that is not there yet: here where one process is enough, else a few at a time over several."""
    total = sum(len(task.items) for task in tasks)
    waiting = [task for task in tasks if not task.path.is_file()]
    done = total - sum(len(task.items) for task in waiting)
    workers = min(options.workers or os.cpu_count() or 1, len(waiting))
    watch(Progress("features", done, total))
    if workers <= 1:
        for task in waiting:
            done += write_task(task, options)
            watch(Progress("features", done, total))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_follow_the_parent) as pool:
        running: set[Future] = set()
        try:
            while waiting or running:
                while waiting and len(running) < 2 * workers:
                    running.add(pool.submit(write_task, waiting.pop(0), options))
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                done += sum(future.result() for future in finished)
                watch(Progress("features", done, total))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _follow_the_parent() -> None:
    """Leave Ctrl-C to the parent, so that a shard under way is finished and kept; end when the parent was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _counts(summaries: dict[str, list[ShardSummary]], options: FeatureOptions) -> dict:
    shards = [shard for split in summaries.values() for shard in split]
    languages: Counter = Counter()
    for split, parts in summaries.items():
        for index in range(len(parts)):
            languages.update(_languages(shard_path(options.out, split, index)))
    return {
        "splits": {
            split: {
                "utterances": sum(shard.rows for shard in parts),
                "hours": round(sum(shard.seconds for shard in parts) / 3600, 4),
                "speakers": len(frozenset().union(*(shard.speakers for shard in parts))),
                "shards": len(parts),
                "bytes": sum(shard.bytes for shard in parts),
            }
            for split, parts in summaries.items()
        },
        "languages": dict(sorted(languages.items())),
        "dropped": dropped_counts([item for shard in shards for item in shard.dropped]),
        "bytes": sum(shard.bytes for shard in shards),
    }


def _languages(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=["language"])["language"].to_pylist()


def dropped_counts(dropped: list[Dropped]) -> dict[str, dict]:
    """Return {reason: {count, examples}}, most frequent first."""
    reasons = Counter(item.reason for item in dropped)
    return {
        reason: {"count": count, "examples": [item.id for item in dropped if item.reason == reason][:5]}
        for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    }


def _refuse_empty(summaries: dict[str, list[ShardSummary]]) -> None:
    dropped = dropped_counts([item for shards in summaries.values() for shard in shards for item in shard.dropped])
    why = ", ".join(f"{reason}: {value['count']}" for reason, value in dropped.items()) or "the source is empty"
    raise LenguaError("at least one usable utterance", f"none ({why})", "look at the source, or relax the filters")


def _result(store: Store, built: bool) -> FeatureResult:
    manifest = store.manifest
    return FeatureResult(store.path, manifest["splits"], manifest["dropped"], manifest["bytes"], built)
