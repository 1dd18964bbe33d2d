"""The stage `lengua transcribe`: files to text, one after another, each written while it is decoded.

    for result in transcribe_files(TranscribeOptions(...)):
        ...                                                     # TranscriptChunk while decoding, FileText at the end

A file in progress is called NAME.part; a failure of one file is part of its result and does not stop the others.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from lengua import audio
from lengua.inference.subtitles import TRANSCRIPT_FORMATS
from lengua.inference.transcriber import SegmentStream, Transcriber
from lengua.inference.transcript import Segment
from lengua.options import TranscribeOptions
from lengua.runtime import system
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.progress import Watch, unwatched

PARTIAL_SUFFIX = ".part"
"""Behind the name of what is still being written; a run that is stopped or killed leaves it, to be read so far."""


def output_files(options: TranscribeOptions) -> dict[Path, Path]:
    """Return where the text of each file goes: NAME.srt, or NAME.mp3.srt where several files have that name.

    Raises:
        RequestError: no files, or two whose texts would be written over one another or mixed on standard output.
    """
    if not options.files:
        raise RequestError("at least one audio file", "none", "name files: lengua transcribe a.mp3 b.wav")
    if options.out is None:
        if options.format != "text" and len(options.files) > 1:
            found = f"{len(options.files)} files for one standard output"
            raise RequestError(f"one file to write as {options.format}", found, "name a folder for them with --out")
        return {}
    if options.out.exists() and not options.out.is_dir():
        raise RequestError("a folder after --out", f"the file {options.out}", "name a folder; it is made if need be")
    names = _names(options.files)
    taken = Counter(name.casefold() for name in names)
    if twice := [str(path) for path, name in zip(options.files, names, strict=True) if taken[name.casefold()] > 1]:
        found = f"{' and '.join(twice[:2])}, whose texts would be one file"
        raise RequestError("files of different names", found, "transcribe them in two calls, each with its own --out")
    suffix = TRANSCRIPT_FORMATS[options.format].suffix
    return {path: options.out / f"{name}{suffix}" for path, name in zip(options.files, names, strict=True)}


def _names(files: tuple[Path, ...]) -> list[str]:
    """Return the stem of each file, or its whole name where it shares the stem with another; case does not tell."""
    stems = Counter(path.stem.casefold() for path in files)
    return [path.stem if stems[path.stem.casefold()] == 1 else path.name for path in files]


class PartialFile:
    """A file that grows beside its place, and takes it when it is whole. Without a place it is none."""

    def __init__(self, out: Path | None):
        self.out, self._file = out, None
        self.path: Path | None = None
        """Where it is, once there is something of it."""

    def __enter__(self) -> "PartialFile":
        return self

    def __exit__(self, *error) -> None:
        if self._file:
            self._file.close()

    def write(self, piece: str) -> None:
        """Add a piece; whoever reads the file sees it at once."""
        if not self._file:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.path = self.out.with_name(f"{self.out.name}{PARTIAL_SUFFIX}")
            self._file = open(self.path, "w", encoding="utf-8", newline="\n")  # noqa: SIM115 (__exit__ closes it)
        self._file.write(piece)
        self._file.flush()

    def finish(self) -> None:
        """Put it in its place."""
        if self.out:
            self.write("")
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self.path, self.out)
            self.path = self.out


@dataclass(frozen=True)
class TranscriptChunk:
    """The next piece of what one file said, as it is to be shown."""

    file: Path
    text: str


@dataclass(frozen=True)
class FileText:
    """What one file said, when all of it is heard; or why it could not be read."""

    file: Path
    text: str = ""
    error: LenguaError | None = None
    out: Path | None = None
    """The file that was written; of speech that broke off, what there is of it."""
    segments: int = 0
    duration_s: float = 0.0
    seconds: float = 0.0
    """How long transcribing took."""
    language: str = ""
    """See `lengua.inference.Transcript`."""
    suppressed: dict[str, int] = field(default_factory=dict)
    """See `lengua.inference.Transcript`."""


def transcribe_files(options: TranscribeOptions, watch: Watch = unwatched) -> Iterator[TranscriptChunk | FileText]:
    """Yield what file after file says: pieces as they come, unless they go to files, and at its end the `FileText`.

    A bad file does not stop the others. Ctrl-C leaves what is written so far, and says where.

    Raises:
        RequestError: no file was named, there is no such model, or files would be written over one another.
    """
    outputs, transcriber = output_files(options), None
    system.map_large_blocks()
    for path in options.files:
        try:
            require_audio(path)
        except RequestError as error:
            yield FileText(path, error=error)
            continue
        transcriber = transcriber or open_transcriber(options)
        hearing = FileSegments(path, transcriber, options, watch)
        yield from hearing.write(outputs.get(path))


def require_audio(path: Path) -> None:
    """Refuse what is no audio by its first tenth of a second, before a model is fetched for it."""
    with closing(audio.stream(path, block_s=0.1)) as blocks:
        next(blocks)


def open_transcriber(options: TranscribeOptions) -> Transcriber:
    """Return the transcriber that the options ask for."""
    return Transcriber(
        options.model,
        options.language,
        options.engine,
        options.batch_size,
        task=options.task,
        beam=options.beam,
        prompt=options.prompt,
    )


class FileSegments(Iterator[Segment]):
    """The segments of a file, and what they sum up to. Ctrl-C ends them, so that what is written can be closed."""

    def __init__(self, path: Path, transcriber: Transcriber, options: TranscribeOptions, watch: Watch):
        self.path, self.options, self.model = path, options, transcriber.model
        timed = options.format != "text"
        self.stream: SegmentStream = transcriber.segments(path, options.words and timed, watch, timed)
        self.lines: list[str] = []  # the only thing that grows: 60 kB an hour
        self.stopped = False
        self._start = time.perf_counter()

    def __next__(self) -> Segment:
        try:
            segment = next(self.stream)
        except KeyboardInterrupt:
            self.stopped = True
            raise StopIteration from None
        self.lines.append(segment.text)
        return segment

    def write(self, out: Path | None) -> Iterator[TranscriptChunk | FileText]:
        """Write into a file, or yield piece after piece; then the `FileText`."""
        shown = f"{self.path}: " if len(self.options.files) > 1 and not out else ""
        error = None
        with closing(self.stream), PartialFile(out) as sheet:
            try:
                for piece in TRANSCRIPT_FORMATS[self.options.format].write(self, self.summary):
                    if out:
                        sheet.write(piece)
                    else:
                        yield TranscriptChunk(self.path, shown + piece)
            except LenguaError as failure:
                error = failure
            except KeyboardInterrupt:
                self.stopped = True
            if self.stopped:
                raise self._stop(sheet.path)
            if not error:
                sheet.finish()
        yield self.told(error, sheet.path)

    def told(self, error: LenguaError | None, out: Path | None) -> FileText:
        """Return what there is to tell of the file."""
        seconds, length = time.perf_counter() - self._start, self.stream.duration_s or self.stream.position_s
        figures = (len(self.lines), length, seconds, self.stream.language, dict(self.stream.suppressed))
        return FileText(self.path, " ".join(self.lines), error, out, *figures)

    def summary(self) -> dict:
        """Return what JSON says behind the segments."""
        return {
            "file": self.path.name,
            "model": self.model,
            "language": self.stream.language,
            "duration_s": round(self.stream.duration_s or self.stream.position_s, 3),
            "suppressed": dict(self.stream.suppressed),
            "complete": not self.stopped,
        }

    def _stop(self, written: Path | None) -> KeyboardInterrupt:
        where = f"in {written}" if written else "above" if self.lines and not self.options.out else "nothing"
        told = f"stopped {self.stream.position_s:.0f} s into {self.path}"
        return KeyboardInterrupt(told, f"what was heard so far is {where}")
