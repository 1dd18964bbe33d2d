"""Where the text of each file goes, and a file that grows while it is heard."""

import os
from collections import Counter
from pathlib import Path

from lengua.errors import RequestError
from lengua.options import TranscribeOptions
from lengua.transcription.subtitles import FORMATS

UNFINISHED = ".part"
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
    suffix = FORMATS[options.format].suffix
    return {path: options.out / f"{name}{suffix}" for path, name in zip(options.files, names, strict=True)}


def _names(files: tuple[Path, ...]) -> list[str]:
    """Return the stem of each file, or its whole name where it shares the stem with another; case does not tell."""
    stems = Counter(path.stem.casefold() for path in files)
    return [path.stem if stems[path.stem.casefold()] == 1 else path.name for path in files]


class Sheet:
    """A file that grows beside its place, and takes it when it is whole. Without a place it is none."""

    def __init__(self, out: Path | None):
        self.out, self._file = out, None
        self.path: Path | None = None
        """Where it is, once there is something of it."""

    def __enter__(self) -> "Sheet":
        return self

    def __exit__(self, *error) -> None:
        if self._file:
            self._file.close()

    def write(self, piece: str) -> None:
        """Add a piece; whoever reads the file sees it at once."""
        if not self._file:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.path = self.out.with_name(f"{self.out.name}{UNFINISHED}")
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
