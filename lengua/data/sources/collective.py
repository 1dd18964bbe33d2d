"""`collective:DATASET_ID`: a data set of Mozilla Data Collective, where Common Voice has been handed out since 2025.

    export MDC_API_KEY=...           # from one's account there; the data set's terms are accepted on its page
    lengua features collective:DATASET_ID

The archive is downloaded once, into $MDC_DOWNLOAD_PATH or lengua's cache, and goes on where it broke off; then it is
read as `common_voice:` reads it, never unpacked. Its terms forbid to hand it on: stores made from it stay private.
"""

import errno
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from lengua.data.sources import common_voice
from lengua.data.sources.common_voice import CommonVoiceSource
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import cache_dir, read_json, write_json

MDC_KEY_VARIABLE = "MDC_API_KEY"
DATASET_ID_PATTERN = re.compile(r"\w[\w.-]*")
MAX_DOWNLOAD_TRIES = 3
"""How often a download that breaks off is taken up again, before it is left to the next run."""


def open(dataset_id: str, language: str | None = None) -> "CollectiveSource":
    """Open a data set; download it the first time.

    Raises:
        RequestError: no key, terms not accepted, no such data set, or not one of Common Voice.
        LenguaError: the download broke off (run again, it goes on), or no more downloads are allowed for now.
    """
    if not DATASET_ID_PATTERN.fullmatch(dataset_id):
        raise RequestError("the id of a data set", repr(dataset_id), "copy it from the page of the data set")
    note = fetch_dataset(dataset_id)
    source = common_voice.open(str(downloads_folder() / note["archive"]), language)
    return CollectiveSource(source.release, source.wish, note["licence"], note["attribution"], dataset_id)


def fetch_dataset(dataset_id: str) -> dict[str, str]:
    """Return what `download` does, without asking anybody where it has been done before."""
    note = downloads_folder() / f"{dataset_id}.json"
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError("a folder for downloads", str(error), "set MDC_DOWNLOAD_PATH to another") from error
    with FileLock(note.with_suffix(".lock")):
        if not (note.is_file() and (downloads_folder() / read_json(note)["archive"]).is_file()):
            write_json(note, download_dataset(dataset_id))
    return read_json(note)


def downloads_folder() -> Path:
    """Return where downloads are kept."""
    chosen = os.environ.get("MDC_DOWNLOAD_PATH")
    return Path(chosen).expanduser() if chosen else cache_dir() / "collective"


@dataclass(frozen=True)
class CollectiveSource(CommonVoiceSource):
    """A release of Common Voice that came from Mozilla Data Collective."""

    dataset_id: str = ""

    @property
    def uri(self) -> str:
        return f"collective:{self.dataset_id}"


def download_dataset(dataset_id: str) -> dict[str, str]:
    """Download an archive, or what is missing of it; return its file name, its licence and whom to name."""
    try:
        import datacollective as client
        import datacollective.errors
    except ImportError as error:
        do = "install it: pip install 'lengua[collective]'"
        raise RequestError("the package datacollective", "none on this machine", do) from error
    if not os.environ.get(MDC_KEY_VARIABLE):
        do = f"make one in your account at Mozilla Data Collective, and set {MDC_KEY_VARIABLE} to it"
        raise RequestError(f"a key for Mozilla Data Collective in {MDC_KEY_VARIABLE}", "none", do)
    try:
        details = client.get_dataset_details(dataset_id)
        archive = _fetch(client, details)
    except (client.errors.DownloadError, OSError, RuntimeError, ValueError) as error:
        raise explain_collective_error(error, dataset_id) from error
    publisher = getattr(details.organization, "name", None) or "Mozilla Data Collective"
    licence = details.licenseAbbreviation or details.license or ""
    return {"archive": archive.name, "licence": licence, "attribution": f"{details.name or dataset_id}, {publisher}"}


def _fetch(client, details) -> Path:
    """Download what is missing of an archive, a few times where it breaks off."""
    if (name := details.filename or "") != Path(name).name or not name or name.startswith("."):
        raise ValueError(f"an archive that is called {name!r}")
    for attempt in range(MAX_DOWNLOAD_TRIES):
        try:
            where = client.download_dataset(details.id, str(downloads_folder()), show_progress=sys.stdout.isatty())
            size = (archive := Path(where)).stat().st_size
            if details.sizeBytes and size != details.sizeBytes:
                archive.unlink()
                raise RuntimeError(f"{size} of {details.sizeBytes:.0f} bytes, now deleted")
            return archive
        except client.errors.DownloadError as error:
            if isinstance(error.__cause__, KeyboardInterrupt):  # which it takes for a failed download
                raise KeyboardInterrupt from error
            if attempt == MAX_DOWNLOAD_TRIES - 1 or is_disk_full_error(error):
                raise
    raise AssertionError("the last try returns or raises")


def is_disk_full_error(error: BaseException) -> bool:
    """Return whether an error came from a disk without room."""
    return getattr(error, "errno", None) == errno.ENOSPC or (
        error.__cause__ is not None and is_disk_full_error(error.__cause__)
    )


def explain_collective_error(error: Exception, dataset_id: str) -> LenguaError:
    """Return what went wrong as one sentence."""
    from datacollective import errors

    what, message = f"the data set {dataset_id} of Mozilla Data Collective", str(error).partition("\n")[0]
    status = getattr(getattr(error, "response", None), "status_code", None)
    again = "run it again later: what has come is kept"
    if is_disk_full_error(error):
        return LenguaError(
            f"room for {what} in {downloads_folder()}", "a full disk", "make room, or set MDC_DOWNLOAD_PATH"
        )
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        return RequestError(f"a folder to write {what} in", message, "set MDC_DOWNLOAD_PATH to another")
    if isinstance(error, errors.AuthenticationError):
        return RequestError(
            f"a valid key in {MDC_KEY_VARIABLE}", "one that is refused (401)", "make a new one in your account"
        )
    if isinstance(error, errors.RateLimitError):
        return LenguaError(f"a download of {what}", "no more of them allowed for now (429)", again)
    if isinstance(error, errors.ResourceRemovedError):
        return RequestError(what, "it was taken away (410)", "choose a newer release")
    if isinstance(error, FileNotFoundError):
        return RequestError(what, "none of that id (404)", "copy the id from the page of the data set")
    if isinstance(error, PermissionError):
        do = "accept its terms on its page, with the account whose key this is"
        return RequestError(f"access to {what}", f"it is refused: {message.partition(' — ')[2] or message}", do)
    if status == 402:
        return RequestError(f"access to {what}", "one that is paid for", "buy it on its page, or choose another")
    if isinstance(error, errors.DownloadError):
        missing = f"{error.remaining_percentage:g} % of it still missing ({type(error.__cause__).__name__})"
        return LenguaError(what, missing, "run it again: it goes on where it broke off")
    return LenguaError(what, f"{type(error).__name__}: {message}", again)
