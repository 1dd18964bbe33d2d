"""The clips that benchmarks read, and a Common Voice release of any size made of them, over and over, by new names.

    python benchmarks/corpus.py --clips 20000 --folder scratch [--packed]

What decides the cost of a build is real: MP3 files, their lengths, their texts, the tables. What repeats is the speech,
so nothing is to be learnt from it. The clips are those of the development data beside the repository, in all of its
languages; without it, those of the sample, once made MP3. Equal arguments and clips give equal bytes.
"""

import csv
import gzip
import hashlib
import io
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import soundfile
from harness import ROOT, run

from lengua import audio
from lengua.data.sources import Utterance, open_source
from lengua.data.store import open_store
from lengua.runtime.errors import RequestError
from lengua.runtime.files import cache_dir, replacing

COMMON_VOICE = ROOT.parent / "shared/data/common_voice/cv-corpus-6.1-2020-12-11"
LANGUAGES = ("es", "fr", "sv-SE")
SAMPLE = "sample:es"
RELEASE, LOCALE = "cv-corpus-repeated", "es"
COLUMNS = "client_id path sentence up_votes down_votes age gender accents locale segment".split()
ROUNDS_PER_SPEAKER = 25
"""How often the same clips are the same person's: some 40 clips a speaker, as in Common Voice."""
SHARE = 0.05
"""Of dev and of test; the rest is train."""
Item = TypeVar("Item")


def validated(folder: Path) -> list[dict[str, str]]:
    """Return the rows of a Common Voice folder's validated.tsv, whose quoting is raw; none where there is no table."""
    if not (folder / "validated.tsv").is_file():
        return []
    with open(folder / "validated.tsv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_clips(model: str) -> list[tuple[str, bytes | Path]]:
    """Return (text, sound) of the test clips of a run's own store, else of the sample."""
    store = Path(model) / "store"
    if (store / "manifest.json").is_file():
        kept = [(row.text, row.audio) for row in open_store(store).split("test") if row.audio]
        if kept:
            return kept
    return [(item.text, item.audio) for item in open_source(SAMPLE).read("test") if isinstance(item, Utterance)]


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Return so many items, evenly spread; all of them where there are no more."""
    count = min(count, len(items))
    return [items[len(items) * index // count] for index in range(count)]


@dataclass(frozen=True)
class Clip:
    """One real recording."""

    path: Path
    text: str
    speaker: str
    milliseconds: int


@dataclass(frozen=True)
class Material:
    """What a corpus is made of: where the clips are from, and the clips."""

    source: str
    clips: tuple[Clip, ...]

    def __str__(self) -> str:
        seconds = sum(clip.milliseconds for clip in self.clips) / 1000
        return f"{len(self.clips)} clips of {self.source}, mean {seconds / len(self.clips):.1f} s"


def corpus(clips: int, folder: Path, packed: bool = False) -> Path:
    """Return a release of so many MP3 clips: the folder of its language, or its .tar.gz; one made before is kept.

    The folder takes hardly any room: clips of the same bytes are one file under many names.

    Raises:
        RequestError: too few clips for three splits.
    """
    if clips < 20:
        raise RequestError("a corpus of 20 clips or more", str(clips), "ask for more")
    release = Path(folder) / f"{clips}-clips" / RELEASE
    out = release.with_name(f"{RELEASE}-{LOCALE}.tar.gz") if packed else release
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        (_pack if packed else _unpack)(clips, out)
    return out if packed else out / LOCALE


@cache
def material() -> Material:
    """Return the real clips, by name: the development data's, else the sample's as MP3."""
    if COMMON_VOICE.is_dir():
        found = (clip for language in LANGUAGES for clip in _released(COMMON_VOICE / language))
        return Material(f"{COMMON_VOICE.name} ({', '.join(LANGUAGES)})", tuple(found))
    return Material(f"{SAMPLE} as MP3", tuple(_sample()))


def _released(folder: Path) -> Iterator[Clip]:
    for row in sorted(validated(folder), key=lambda row: row["path"]):
        yield _clip(folder / "clips" / row["path"], row["sentence"], row["client_id"])


def _sample() -> Iterator[Clip]:
    """Yield the train split of the sample, ten clips a speaker; they are made MP3 the first time."""
    folder = cache_dir() / "benchmarks/sample_es_mp3"
    items = [item for item in open_source(SAMPLE).read("train") if isinstance(item, Utterance)]
    paths = {item.id: f"{item.id.replace('/', '_')}.mp3" for item in items}
    if not folder.is_dir():
        with replacing(folder) as fresh:
            for item in items:
                soundfile.write(fresh / paths[item.id], audio.load(item.audio), audio.SAMPLE_RATE, format="MP3")
    for place, item in enumerate(items):
        yield _clip(folder / paths[item.id], item.text, f"{item.speaker} {place // 10}")


def _clip(path: Path, text: str, speaker: str) -> Clip:
    return Clip(path, text, speaker, round(1000 * soundfile.info(path).duration))


def _tables(clips: int) -> dict[str, bytes]:
    """Return the tables of a corpus by file name; rows of one speaker stand together."""
    speakers = [_speaker(number) for number in range(clips)]
    splits = _splits(speakers)
    rows: dict[str, list] = {name: [COLUMNS] for name in ("validated", "train", "dev", "test")}
    for number in sorted(range(clips), key=lambda number: (speakers[number], number)):
        row = [speakers[number], _name(number), _real(number).text, "2", "0", "", "", "", LOCALE, ""]
        rows["validated"].append(row)
        rows[splits[speakers[number]]].append(row)
    durations = [["clip", "duration[ms]"], *([_name(n), str(_real(n).milliseconds)] for n in range(clips))]
    named = {**{f"{name}.tsv": lines for name, lines in rows.items()}, "clip_durations.tsv": durations}
    return {name: "".join("\t".join(line) + "\n" for line in named[name]).encode() for name in sorted(named)}


def _real(number: int) -> Clip:
    return material().clips[number % len(material().clips)]


def _name(number: int) -> str:
    return f"common_voice_{LOCALE}_{number:08}.mp3"


def _speaker(number: int) -> str:
    turn = number // len(material().clips) // ROUNDS_PER_SPEAKER
    return hashlib.blake2b(f"{_real(number).speaker} {turn}".encode()).hexdigest()


def _splits(speakers: list[str]) -> dict[str, str]:
    """Return the split of each speaker: by their hash, whole people to test and dev until those have their share."""
    clips = Counter(speakers)
    splits, wanted = {}, {"test": SHARE * len(speakers), "dev": SHARE * len(speakers)}
    for speaker in sorted(clips):
        splits[speaker] = next((split for split, left in wanted.items() if left >= 1), "train")
        if splits[speaker] in wanted:
            wanted[splits[speaker]] -= clips[speaker]
    return splits


def _unpack(clips: int, out: Path) -> None:
    """Make the folder: each recording is copied once, its further names are links to the copy."""
    with replacing(out) as fresh:
        (fresh / LOCALE / "clips").mkdir(parents=True)
        for number in range(clips):
            path, first = (fresh / LOCALE / "clips" / _name(n) for n in (number, number % len(material().clips)))
            shutil.copyfile(_real(number).path, path) if path == first else os.link(first, path)
        for name, data in _tables(clips).items():
            (fresh / LOCALE / name).write_bytes(data)


def _pack(clips: int, out: Path) -> None:
    """Make the archive as Common Voice packs it: clips by name, then the tables; no times in it."""
    fresh = out.with_name(f".{out.name}")
    recordings = [clip.path.read_bytes() for clip in material().clips[:clips]]
    members = {f"clips/{_name(n)}": recordings[n % len(recordings)] for n in range(clips)} | _tables(clips)
    with (
        open(fresh, "wb") as file,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as archive,
    ):
        for name, data in members.items():
            header = tarfile.TarInfo(f"{RELEASE}/{LOCALE}/{name}")
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    os.replace(fresh, out)


@dataclass(frozen=True)
class Options:
    """Make a release of Common Voice out of the same few clips."""

    folder: Path
    """Where to make it."""
    clips: int = 2000
    """How many clips."""
    packed: bool = False
    """Make a .tar.gz instead of a folder."""


def main(options: Options) -> None:
    print(f"{corpus(options.clips, options.folder, options.packed)}: {options.clips} clips out of {material()}")


if __name__ == "__main__":
    run(main, Options)
