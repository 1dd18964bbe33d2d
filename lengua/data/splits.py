"""Which split an utterance belongs to: a stable function of its text or speaker, never of its place in a list."""

import hashlib
import unicodedata
from collections.abc import Iterable

from lengua.data.sources import SPLITS

# Upper ends of train, dev and test on the unit interval: 81 %, 6 % and 13 %.
SPLIT_UPPER_ENDS = dict(zip(SPLITS, (0.81, 0.87, 1.0), strict=True))
SPLIT_SYNONYMS = {"validation": "dev", "valid": "dev"}


def sentence_key(text: str) -> str:
    """Return the letters and digits of `text`, lowercase, without accents: "¿Buzón?" -> "buzon"."""
    decomposed = unicodedata.normalize("NFKD", text.lower())
    return "".join(character for character in decomposed if character.isalnum())


def split_name(name: str) -> str | None:
    """Return train, dev or test for what a column calls it ("Validation" -> "dev"), or None."""
    name = name.strip().lower()
    name = SPLIT_SYNONYMS.get(name, name)
    return name if name in SPLITS else None


def hash_position(key: str) -> float:
    """Return a number in [0, 1) that depends on `key` alone and is spread evenly."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def split_of(key: str) -> str:
    """Return the split whose share of the unit interval holds the position of `key`."""
    place = hash_position(key)
    return next(split for split, end in SPLIT_UPPER_ENDS.items() if place < end)


def assign_splits(keys: Iterable[str]) -> dict[str, str]:
    """Map every key to its split by `split_of`, yet leave none of the three empty where there are keys enough.

    A split that no key fell into takes the key nearest to its share out of train, or out of test for dev:
    fifteen recordings of one's own are then still trained, chosen and tested on.
    """
    splits = {key: split_of(key) for key in sorted(set(keys))}
    for empty, middle in (("dev", 0.84), ("test", 0.935), ("train", 0.405)):
        held = list(splits.values())
        movable = [key for key, split in splits.items() if held.count(split) > 1]
        if empty not in held and movable:
            splits[min(movable, key=lambda key: abs(hash_position(key) - middle))] = empty
    return splits
