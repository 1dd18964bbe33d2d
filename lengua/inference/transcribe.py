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
from lengua.inference.transcriber import Transcriber
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
    files = [Path("stdin") if str(path) == audio.STDIN else path for path in options.files]
    stems = Counter(path.stem.casefold() for path in files)
    names = [path.stem if stems[path.stem.casefold()] == 1 else path.name for path in files]
    taken = Counter(name.casefold() for name in names)
    if twice := [str(path) for path, name in zip(options.files, names, strict=True) if taken[name.casefold()] > 1]:
        found = f"{' and '.join(twice[:2])}, whose texts would be one file"
        raise RequestError("files of different names", found, "transcribe them in two calls, each with its own --out")
    suffix = TRANSCRIPT_FORMATS[options.format].suffix
    return {path: options.out / f"{name}{suffix}" for path, name in zip(options.files, names, strict=True)}


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
        if self.out:
            self.write("")
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self.path, self.out)
            self.path = self.out


@dataclass(frozen=True)
class TranscriptChunk:
    """The next piece of the transcript of one file, as it is to be shown."""

    file: Path
    text: str


@dataclass(frozen=True)
class FileText:
    """The transcript of one file, when all of it is decoded; or why it could not be read."""

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
            source = audio.require_readable(path)
            with closing(audio.stream(source, 0.1, options.track)) as blocks:
                next(blocks)  # what is no audio is refused before a model is fetched for it
        except RequestError as error:
            yield FileText(path, error=error)
            continue
        names = ("model", "language", "engine", "batch_size", "task", "beam", "prompt")
        transcriber = transcriber or Transcriber(**{name: getattr(options, name) for name in names})
        yield from _transcribe_file(path, source, outputs.get(path), transcriber, options, watch)


def _transcribe_file(
    path: Path,
    source: Path | bytes,
    out: Path | None,
    transcriber: Transcriber,
    options: TranscribeOptions,
    watch: Watch,
) -> Iterator[TranscriptChunk | FileText]:
    """Write the text of a file, or yield it piece after piece; then the `FileText`. Ctrl-C closes what is written."""
    start, timed = time.perf_counter(), options.format != "text"
    stream = transcriber.segments(source, options.words and timed, watch, timed, options.track)
    lines: list[str] = []  # the only thing that grows: 60 kB an hour
    is_stopped, error = False, None

    def segments() -> Iterator[Segment]:
        nonlocal is_stopped
        try:
            for segment in stream:
                lines.append(segment.text)
                yield segment
        except KeyboardInterrupt:
            is_stopped = True

    def summary() -> dict:
        return {
            "file": path.name,
            "model": transcriber.model,
            "language": stream.language,
            "duration_s": round(stream.duration_s or stream.position_s, 3),
            "suppressed": dict(stream.suppressed),
            "complete": not is_stopped,
        }

    with closing(stream), PartialFile(out) as file:
        try:
            for piece in TRANSCRIPT_FORMATS[options.format].write(segments(), summary):
                if out:
                    file.write(piece)
                else:
                    yield TranscriptChunk(path, f"{path}: {piece}" if len(options.files) > 1 else piece)
        except LenguaError as failure:
            error = failure
        except KeyboardInterrupt:
            is_stopped = True
        if is_stopped:
            where = f"in {file.path}" if file.path else "above" if lines and not options.out else "nothing"
            stopped = f"stopped {stream.position_s:.0f} s into {path}"
            raise KeyboardInterrupt(stopped, f"what was heard so far is {where}")
        if not error:
            file.finish()
    seconds, length = time.perf_counter() - start, stream.duration_s or stream.position_s
    figures = (len(lines), length, seconds, stream.language, dict(stream.suppressed))
    yield FileText(path, " ".join(lines), error, file.path, *figures)
