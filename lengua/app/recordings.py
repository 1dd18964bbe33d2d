"""Recordings and their corrected texts in a folder that is a valid `folder:` source after every clip.

    recordings = RecordingsFolder(Path("grabaciones"), bounds)
    recordings.add([RecordedClip(samples, "Buenos días.", "es")], take="9f3c", speaker="visit-51d0")
    lengua train folder:grabaciones

Audio is written first and the metadata last, each file atomically, so the folder can be read at any time. All file
names are made here; what a visitor writes is only ever a value in the metadata.
"""

import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from filelock import FileLock

from lengua import audio
from lengua.app.limits import FULL_WINDOW_S, Refusal
from lengua.data.sources.metadata import METADATA_NAMES
from lengua.inference import Segment
from lengua.runtime.errors import RequestError
from lengua.runtime.files import read_jsonl, write_bytes, write_jsonl
from lengua.scoring.normalizer import clean_label, normalise

KEEP_DIR_VARIABLE = "LENGUA_KEEP_DIR"
"""Names the folder where recordings outlive the visit; without it none does."""
CLIPS_FOLDER = "clips"
METADATA_FILE = "metadata.jsonl"
MAX_CLIP_LETTERS = 1000
"""Of one clip's text: 30 s of the fastest speech are some 750, and a label has 448 tokens."""
CUT_MARGIN_S = 0.3
"""Kept before and after a segment that is cut out, as far as its neighbours leave room."""
MIN_FREE_DISK_BYTES = 256 * 2**20
"""Left on the disk, always."""


@dataclass(frozen=True)
class RecordedClip:
    """A recording of at most 30 s and its reference text."""

    samples: np.ndarray
    text: str
    language: str
    hypothesis: str = ""
    """What the model wrote, before somebody corrected it."""

    @property
    def seconds(self) -> float:
        """How long it is."""
        return audio.duration_s(self.samples)


@dataclass(frozen=True)
class FolderBounds:
    """How much a folder holds."""

    clips: int
    seconds: float


LASTING_BOUNDS = FolderBounds(clips=20_000, seconds=50 * 3600)


class RecordingsFolder:
    """A folder of recordings, made with its first clip. Safe to share between threads and processes."""

    def __init__(self, folder: Path, bounds: FolderBounds):
        self.folder, self.bounds = folder, bounds
        self.table = folder / METADATA_FILE

    def add(self, clips: Sequence[RecordedClip], take: str, speaker: str, **facts: str) -> list[dict]:
        """Write clips and return the speaker's rows; what was kept of the same take is replaced.

        Args:
            take: names a recording: letters and digits.
            speaker: names whoever speaks, alike: clips of one voice are never in two splits where there are ten voices.
            facts: more columns of each row.

        Raises:
            Refusal: it would not fit.
        """
        with self.lock():
            others = [row for row in read_jsonl(self.table) if (row.get("speaker"), row.get("take")) != (speaker, take)]
            self._require_room(others, clips)
            rows = others + [_row(clip, take, number, speaker, facts) for number, clip in enumerate(clips, start=1)]
            for row, clip in zip(rows[len(others) :], clips, strict=True):
                write_bytes(self.folder / row["file_name"], audio.as_flac(clip.samples))
            self._write(rows)
        return [row for row in rows if row.get("speaker") == speaker]

    def forget(self, speaker: str) -> None:
        """Remove all clips of a speaker."""
        with self.lock():
            self._write([row for row in read_jsonl(self.table) if row.get("speaker") != speaker])

    def lock(self) -> FileLock:
        """Return the lock of all who write here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / ".lock", timeout=30)

    def _require_room(self, rows: list[dict], clips: Sequence[RecordedClip]) -> None:
        seconds = sum(float(row.get("duration_s") or 0) for row in rows) + sum(clip.seconds for clip in clips)
        if len(rows) + len(clips) > self.bounds.clips or seconds > self.bounds.seconds:
            raise Refusal("keeping.full", clips=self.bounds.clips, minutes=round(self.bounds.seconds / 60))
        if shutil.disk_usage(self.folder).free < MIN_FREE_DISK_BYTES:
            raise Refusal("keeping.no_room")

    def _write(self, rows: list[dict]) -> None:
        """Write the table, then remove the clips that are no longer in it."""
        write_jsonl(self.table, rows)
        named = {row["file_name"] for row in rows}
        for path in (self.folder / CLIPS_FOLDER).glob("*.flac"):
            if f"{CLIPS_FOLDER}/{path.name}" not in named:
                path.unlink(missing_ok=True)


def _row(clip: RecordedClip, take: str, number: int, speaker: str, facts: dict[str, str]) -> dict:
    assert take.isalnum() and speaker.isalnum()
    file_name = f"{CLIPS_FOLDER}/{speaker}-{take}-{number:03}.flac"
    row = {"file_name": file_name, "text": clip.text, "language": clip.language, "speaker": speaker}
    return row | {"duration_s": round(clip.seconds, 3), "take": take, "heard": clip.hypothesis} | facts


def lasting_folder_of(environ: Mapping[str, str], bounds: FolderBounds = LASTING_BOUNDS) -> RecordingsFolder | None:
    """Return the lasting folder that the environment names, if it does.

    Raises:
        RequestError: it holds the metadata of other recordings, or nothing can be written there.
    """
    if not environ.get(KEEP_DIR_VARIABLE):
        return None
    folder = Path(environ[KEEP_DIR_VARIABLE])
    others = [name for name in METADATA_NAMES if name != METADATA_FILE and (folder / name).exists()]
    if others:
        raise RequestError("a folder for new recordings", f"{folder} with a {others[0]}", "name an empty one")
    lasting = RecordingsFolder(folder, bounds)
    try:
        with lasting.lock():
            return lasting
    except OSError as error:
        raise RequestError("a folder that can be written", f"{error.strerror}: {folder}", "name another") from error


def corrected_clips(samples: np.ndarray, segments: Sequence[Segment], text: str, language: str) -> list[RecordedClip]:
    """Return the clips that a corrected text makes of a recording: the whole, or, over 30 s, a clip for each line.

    Args:
        samples: all of the recording, at 16 kHz.
        segments: its transcript; of a longer one, each line of the text is the reference of one of them, and a line
            without a word leaves it out.
        language: code, where a segment does not tell it.

    Raises:
        Refusal: no word in it, too many, or not as many lines as segments.
    """
    if audio.duration_s(samples) <= FULL_WINDOW_S:
        hypothesis = " ".join(segment.text for segment in segments)
        language = next((segment.language for segment in segments if segment.language), language)
        clips = [RecordedClip(samples, clean_label(text), language, hypothesis)]
    else:
        lines = [clean_label(line) for line in text.strip("\n").split("\n")]
        if len(lines) != len(segments):
            raise Refusal("keeping.lines", lines=len(lines), segments=len(segments))
        clips = [
            RecordedClip(samples[start:end], line, segment.language or language, segment.text)
            for (start, end), line, segment in zip(segment_cuts(segments, len(samples)), lines, segments, strict=True)
        ]
    clips = [clip for clip in clips if normalise(clip.text)]
    if not clips:
        raise Refusal("keeping.no_words")
    if any(len(clip.text) > MAX_CLIP_LETTERS for clip in clips):
        raise Refusal("keeping.too_many_letters", letters=MAX_CLIP_LETTERS)
    return clips


def segment_cuts(segments: Sequence[Segment], samples: int) -> list[tuple[int, int]]:
    """Return the (first, last) sample of each segment with a margin, none reaching into the next, none over 30 s."""
    middles = [(one.end_s + other.start_s) / 2 for one, other in pairwise(segments)]
    ends = [0.0, *middles, samples / audio.SAMPLE_RATE]
    cuts = []
    for segment, before, after in zip(segments, ends, ends[1:], strict=False):
        start = max(before, segment.start_s - CUT_MARGIN_S)
        end = min(after, segment.end_s + CUT_MARGIN_S, start + FULL_WINDOW_S)
        cuts.append((round(start * audio.SAMPLE_RATE), round(end * audio.SAMPLE_RATE)))
    return cuts


def write_recordings_zip(folder: Path, out: Path, name: str, note: tuple[str, str]) -> Path:
    """Write recordings as a ZIP whose one folder is `name`; note: (file name, text) of one more file in it."""
    part = out.with_name(f".{out.name}")
    with zipfile.ZipFile(part, "w") as archive:  # FLAC is compressed
        for path in [folder / METADATA_FILE, *sorted((folder / CLIPS_FOLDER).glob("*.flac"))]:
            archive.write(path, f"{name}/{path.relative_to(folder)}")
        archive.writestr(f"{name}/{note[0]}", note[1])
    return part.replace(out)
