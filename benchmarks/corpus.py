"""A Common Voice release of any size for the benchmarks: the same few real clips, over and over, under new names.

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
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import soundfile
from recording import run

from lengua import audio
from lengua.data.sources import Utterance, open_source
from lengua.runtime.errors import RequestError
from lengua.runtime.files import cache_dir, replacing

SHARED = Path(__file__).parent.parent.parent / "shared/data/common_voice/cv-corpus-6.1-2020-12-11"
LANGUAGES = ("es", "fr", "sv-SE")
SAMPLE = "sample:es"
RELEASE, LOCALE = "cv-corpus-repeated", "es"
COLUMNS = "client_id path sentence up_votes down_votes age gender accents locale segment".split()
ROUNDS_PER_SPEAKER = 25
"""How often the same clips are the same person's: some 40 clips a speaker, as in Common Voice."""
SHARE = 0.05
"""Of dev and of test; the rest is train."""


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
    if SHARED.is_dir():
        found = (clip for language in LANGUAGES for clip in _validated(SHARED / language))
        return Material(f"{SHARED.name} ({', '.join(LANGUAGES)})", tuple(found))
    return Material(f"{SAMPLE} as MP3", tuple(_sample()))


def tables(clips: int) -> dict[str, bytes]:
    """Return the tables of a corpus by file name; rows of one speaker stand together."""
    speakers = [_speaker(number) for number in range(clips)]
    splits = _splits(speakers)
    rows: dict[str, list] = {name: [COLUMNS] for name in ("validated", "train", "dev", "test")}
    for number in sorted(range(clips), key=lambda number: (speakers[number], number)):
        text = real(number).text
        row = [speakers[number], name_of(number), text, "2", "0", "", "", "", LOCALE, ""]
        rows["validated"].append(row)
        rows[splits[speakers[number]]].append(row)
    durations = [["clip", "duration[ms]"], *([name_of(n), str(real(n).milliseconds)] for n in range(clips))]
    named = {**{f"{name}.tsv": lines for name, lines in rows.items()}, "clip_durations.tsv": durations}
    return {name: "".join("\t".join(line) + "\n" for line in named[name]).encode() for name in sorted(named)}


def real(number: int) -> Clip:
    """Return the recording behind a clip of the corpus."""
    return material().clips[number % len(material().clips)]


def name_of(number: int) -> str:
    """Return the file name of a clip of the corpus."""
    return f"common_voice_{LOCALE}_{number:08}.mp3"


def _speaker(number: int) -> str:
    turn = number // len(material().clips) // ROUNDS_PER_SPEAKER
    return hashlib.blake2b(f"{real(number).speaker} {turn}".encode()).hexdigest()


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
            path, first = (fresh / LOCALE / "clips" / name_of(n) for n in (number, number % len(material().clips)))
            shutil.copyfile(real(number).path, path) if path == first else os.link(first, path)
        for name, data in tables(clips).items():
            (fresh / LOCALE / name).write_bytes(data)


def _pack(clips: int, out: Path) -> None:
    """Make the archive as Common Voice packs it: clips by name, then the tables; no times in it."""
    fresh = out.with_name(f".{out.name}")
    with (
        open(fresh, "wb") as file,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as archive,
    ):
        for name, data in _members(clips):
            header = tarfile.TarInfo(f"{RELEASE}/{LOCALE}/{name}")
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    os.replace(fresh, out)


def _members(clips: int) -> Iterator[tuple[str, bytes]]:
    recordings = [clip.path.read_bytes() for clip in material().clips[:clips]]
    yield from ((f"clips/{name_of(n)}", recordings[n % len(recordings)]) for n in range(clips))
    yield from tables(clips).items()


def _validated(folder: Path) -> Iterator[Clip]:
    with open(folder / "validated.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    for row in sorted(rows, key=lambda row: row["path"]):
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
    """Make it and say where it is."""
    print(f"{corpus(options.clips, options.folder, options.packed)}: {options.clips} clips out of {material()}")


if __name__ == "__main__":
    run(main, Options)
