"""`lengua transcribe`: one file after another, written down while it is heard."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from lengua import audio, memory
from lengua.errors import LenguaError, RequestError
from lengua.options import TranscribeOptions
from lengua.progress import Watch, unwatched
from lengua.transcription.segments import Segment
from lengua.transcription.sheets import Sheet, output_files
from lengua.transcription.streaming import SegmentStream
from lengua.transcription.subtitles import FORMATS
from lengua.transcription.transcriber import Transcriber


@dataclass(frozen=True)
class Heard:
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
    """See `lengua.transcription.Transcript`."""
    suppressed: dict[str, int] = field(default_factory=dict)
    """See `lengua.transcription.Transcript`."""


def transcribe_files(options: TranscribeOptions, watch: Watch = unwatched) -> Iterator[Heard | FileText]:
    """Yield what file after file says: pieces as they come, unless they go to files, and at its end the `FileText`.

    A bad file does not stop the others. Ctrl-C leaves what is written so far, and says where.

    Raises:
        RequestError: no file was named, there is no such model, or files would be written over one another.
    """
    outputs, transcriber = output_files(options), None
    memory.map_large_blocks()
    for path in options.files:
        try:
            require_audio(path)
        except RequestError as error:
            yield FileText(path, error=error)
            continue
        transcriber = transcriber or open_transcriber(options)
        hearing = Hearing(path, transcriber, options, watch)
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


class Hearing(Iterator[Segment]):
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

    def write(self, out: Path | None) -> Iterator[Heard | FileText]:
        """Write into a file, or yield piece after piece; then the `FileText`."""
        shown = f"{self.path}: " if len(self.options.files) > 1 and not out else ""
        error = None
        with closing(self.stream), Sheet(out) as sheet:
            try:
                for piece in FORMATS[self.options.format].write(self, self.summary):
                    if out:
                        sheet.write(piece)
                    else:
                        yield Heard(self.path, shown + piece)
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
