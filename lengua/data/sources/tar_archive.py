"""A .tar.gz read as a stream: never unpacked, in its own order, in constant memory.

    for member in read_members(Path("cv-corpus-25.0-2026-03-09-es.tar.gz")):
        member.name, member.size, member.read()

Nothing is written, so no name in the archive can reach a file of this machine; a member that is no plain file, or
whose name would leave the folder, has its reason in `member.fault`. Compressed speech hardly shrinks further: an
archive that unpacks to a hundred times its size is refused as a bomb while it is read.
"""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lengua.runtime.errors import LenguaError, RequestError

GZIP_MAGIC = b"\x1f\x8b"
TAR_BUFFER_BYTES = 64 * 2**10
"""What tarfile holds at a time; it copies all of it for every header, so more is slower."""
MAX_UNPACKING_RATIO = 100
UNPACKING_ALLOWANCE_BYTES = 64 * 2**20
"""So much may come out of an archive whatever its size: headers and tables alone do shrink a lot."""
MAX_TAR_HEADER_BYTES = 2**20
TAR_EXTENSION_TYPES = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class BrokenArchive(Exception):
    """The archive cannot be read any further; the text tells why."""


@contextmanager
def _tar_errors() -> Iterator[None]:
    try:
        yield
    except tarfile.TarError as error:
        raise BrokenArchive(str(error)) from error


@dataclass(frozen=True)
class ArchiveMember:
    """One packed file, to be read before the next member is asked for."""

    archive: tarfile.TarFile
    header: tarfile.TarInfo
    name: str
    """Its path in the archive, without dots: "cv-corpus-25.0/es/clips/a.mp3"."""
    fault: str | None
    """Why it is not to be read: no plain file, or a name that leaves the archive's folder."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.header.size

    def read(self) -> bytes:
        """Return all of it."""
        with _tar_errors():
            return self.archive.extractfile(self.header).read()

    def lines(self) -> Iterator[bytes]:
        """Yield it line by line."""
        with _tar_errors():
            yield from self.archive.extractfile(self.header)


def require_gzip(path: Path) -> None:
    """Raise RequestError where `path` is not the start of a .tar.gz."""
    with open(path, "rb") as file:
        start = file.read(len(GZIP_MAGIC))
    if start != GZIP_MAGIC:
        found = f"{path}, which starts with {start.hex(' ') or 'nothing'}"
        raise RequestError(
            "a gzipped archive (.tar.gz), or an unpacked folder", found, "download it again, or unpack it"
        )


def read_members(path: Path) -> Iterator[ArchiveMember]:
    """Yield what is packed, but for folders, in its order.

    Raises:
        BrokenArchive: the archive is cut off or damaged; what came before was good.
        LenguaError: it unpacks to far more than speech would.
    """
    with open(path, "rb") as file, _tar_errors():
        unpacked = BoundedGzipReader(file, path)
        with tarfile.open(fileobj=unpacked, mode="r|", bufsize=TAR_BUFFER_BYTES, tarinfo=StrictTarInfo) as archive:
            while (header := archive.next()) is not None:
                archive.members.clear()  # or it would remember every one of two million
                if not header.isdir():
                    parts = [part for part in header.name.split("/") if part not in ("", ".")]
                    yield ArchiveMember(archive, header, "/".join(parts), _fault(header, parts))
        while unpacked.read(TAR_BUFFER_BYTES):  # to the very end, where the checksum stands
            pass


def _fault(header: tarfile.TarInfo, parts: list[str]) -> str | None:
    if not header.isreg() or header.issparse():
        return "link or device in the archive"
    return "name outside the archive" if header.name.startswith("/") or ".." in parts else None


class StrictTarInfo(tarfile.TarInfo):
    """A header that says when it is no header: tarfile itself takes garbage for the end of the archive."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        try:
            header = super().frombuf(buf, encoding, errors)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:
            raise BrokenArchive(f"no tar header where one should be: {error}") from error
        if header.type in TAR_EXTENSION_TYPES and header.size > MAX_TAR_HEADER_BYTES:
            raise BrokenArchive(f"a name of {header.size >> 20} MB")
        return header


class BoundedGzipReader:
    """The bytes inside a gzip file, and no more of them than speech would give."""

    def __init__(self, file: BinaryIO, path: Path):
        self.file, self.path, self.unpacked = file, path, 0
        self.gzip = gzip.GzipFile(fileobj=file)

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; none only at the end.

        Raises:
            BrokenArchive: the file ends before its own end mark, or is damaged.
            LenguaError: more has come out than `MAX_UNPACKING_RATIO` allows.
        """
        try:
            data = self.gzip.read1(size)  # what there is: before a file breaks off, too
        except EOFError as error:
            raise BrokenArchive("it ends in the middle") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise BrokenArchive(f"damaged data ({error})") from error
        self.unpacked += len(data)
        if self.unpacked > UNPACKING_ALLOWANCE_BYTES + MAX_UNPACKING_RATIO * self.file.tell():
            expected = f"an archive of speech, which unpacks to about its own size ({self.path})"
            found = f"{self.unpacked >> 20} MB out of its first {max(1, self.file.tell() >> 10)} kB"
            raise LenguaError(expected, found, "do not use this file; it is made to fill a disk")
        return data
