"""Where lengua keeps what it downloads: one folder a machine, shared by all runs."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return $LENGUA_CACHE, else $XDG_CACHE_HOME/lengua, else ~/.cache/lengua. The folder may not exist yet."""
    if chosen := os.environ.get("LENGUA_CACHE"):
        return Path(chosen).expanduser().absolute()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache").absolute() / "lengua"
