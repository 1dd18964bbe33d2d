"""What the manifest of a feature store says: everything that decided its bytes, and what is in it.

No times and no paths, so that equal inputs give equal bytes.
"""

import json
from collections import Counter
from dataclasses import asdict
from importlib.metadata import version

from lengua import audio, mel
from lengua.labels import MAX_LABEL_TOKENS
from lengua.options import FeatureOptions
from lengua.sources import Dropped, Source
from lengua.store import ShardSummary


def plan_of(source: Source, options: FeatureOptions) -> dict:
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
            **json.loads(json.dumps(asdict(options.filters))),
        },
        "splits": list(options.splits),
        "keep_audio": list(options.keep_audio),
        "versions": {name: version(name) for name in ("numpy", "pyarrow", "soundfile", "av", "soxr", "asrfront")},
    }


def counts_of(summaries: dict[str, list[ShardSummary]]) -> dict:
    """Return what finished shards hold, by split, by language and by the reasons of what was dropped."""
    shards = [shard for split in summaries.values() for shard in split]
    languages = sum((shard.languages for shard in shards), Counter())
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


def dropped_counts(dropped: list[Dropped]) -> dict[str, dict]:
    """Return {reason: {count, examples}}, most frequent first."""
    reasons = Counter(item.reason for item in dropped)
    return {
        reason: {"count": count, "examples": [item.id for item in dropped if item.reason == reason][:5]}
        for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    }
