"""transformers 4, where most users are, beside the transformers 5 of this environment.

pip puts it and the two packages that it needs in older versions into lengua's cache, once; torch and all the others
are those of this environment.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lengua.publishing.runtimes import ProgramOutput, run_in_subprocess
from lengua.runtime.errors import LenguaError
from lengua.runtime.files import cache_dir, replacing

PINNED = ("transformers==4.57.6", "huggingface_hub==0.36.2", "tokenizers==0.22.2")
"""The last transformers 4, and what it allows of the other two."""


def packages() -> Path:
    """Return the folder of these packages, fetching them where that was not done.

    Raises:
        LenguaError: pip cannot.
    """
    out = cache_dir() / "packages" / "-".join(PINNED).replace("==", "-")
    if not out.is_dir():
        with replacing(out) as fresh:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
            environment = {"PIP_RETRIES": "2", **os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
            command += ["--target", str(fresh), *PINNED]
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise LenguaError("transformers 4 from the package index", last, "check pip, then try again")
    return out


def hear(folder: Path, clips: Sequence[np.ndarray]) -> ProgramOutput:
    """Return what its pipeline says to clips, in the language that the checkpoint names."""
    heard = run_in_subprocess("transformers", folder, clips, "", packages())
    return ProgramOutput(heard["texts"], heard["seconds"], f"transformers {heard['version']}, float32")
