"""A folder for what a visitor keeps while the page is open. It is gone when the visit ends.

    visits = Visits(Path(download_button.GRADIO_CACHE))
    folder = visits.open()
    visits.forget(folder)

The path is the only key to it: gradio serves what lies in its cache to whoever knows where, and nobody can guess it.
"""

import secrets
import shutil
import tempfile
import time
import weakref
from functools import cached_property
from pathlib import Path

PREFIX = "lengua-visits-"
LONGEST_S = 2 * 3600
"""A visit that keeps nothing more for so long has ended. Gradio ends one an hour after its page was closed."""


class Visits:
    """The folders of all visits of a process, under one that goes with the process.

    Args:
        cache: the folder of gradio's cache; a file anywhere else is copied there when it is downloaded, and stays.
    """

    def __init__(self, cache: Path):
        self.cache = cache

    @cached_property
    def _own(self) -> Path:
        self.cache.mkdir(parents=True, exist_ok=True)
        own = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self.cache))
        weakref.finalize(self, shutil.rmtree, own, ignore_errors=True)
        return own

    def open(self) -> Path:
        """Return the new folder of a visit, and sweep away what visits that never ended have left."""
        folder = self._own / secrets.token_urlsafe(16)
        folder.mkdir(mode=0o700)
        self._sweep()
        return folder

    def forget(self, folder: Path | None) -> None:
        """Remove a visit's folder; None is the folder of a visit that kept nothing."""
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove folders of visits that gradio dropped without a word, and of processes that were killed."""
        ended = time.time() - LONGEST_S - 3600
        for folder in self.cache.glob(f"{PREFIX}*/*"):
            if _touched(folder) < ended:
                shutil.rmtree(folder, ignore_errors=True)


def _touched(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:  # another process was faster
        return time.time()
