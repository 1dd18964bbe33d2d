"""Where a notebook runs: tokens from Colab's Secrets, a run's folder on Google Drive, what the machine has.

Anywhere but in Colab the environment has the tokens, and folders are folders.
"""

import os
import sys
import warnings
from pathlib import Path

from lengua.doctor import diagnose, format_doctor_report
from lengua.options import DoctorOptions
from lengua.runtime.errors import RequestError

SECRET_NAMES = ("HF_TOKEN", "OPENAI_API_KEY", "MDC_API_KEY")
"""To publish, to converse through a hosted model, to download from Mozilla Data Collective."""
DRIVE_MOUNT = Path("/content/drive")
"""Where Colab mounts Google Drive."""
DRIVE_FOLDER = "MyDrive"

warnings.filterwarnings("ignore", message="IProgress not found")  # no bar of ours is a widget


def in_colab() -> bool:
    """Return whether this is a kernel of Colab, which loads its own package before any cell runs."""
    return "google.colab" in sys.modules


def take_secrets(names: tuple[str, ...] = SECRET_NAMES) -> list[str]:
    """Put tokens of Colab's Secrets into the environment, where it has none. Returns the names of those that are there.

    Colab asks whether the notebook may read a secret; one that does not exist or is not allowed is left out.
    """
    if in_colab():
        for name in names:
            if not os.environ.get(name) and (value := _secret(name)):
                os.environ[name] = value
    return [name for name in names if os.environ.get(name)]


def _secret(name: str) -> str | None:
    from google.colab import userdata

    missing = (userdata.SecretNotFoundError, userdata.NotebookAccessError)
    try:
        return userdata.get(name)
    except (*missing, getattr(userdata, "TimeoutException", TimeoutError)):
        return None


def out_folder(name: str) -> Path:
    """Return the folder of a run; `drive:lengua/es` stands on Google Drive, which is mounted first.

    A run there goes on where it was when Colab takes the machine away: open the notebook anew and run all.

    Raises:
        RequestError: `drive:` outside of Colab, or without a folder behind it.
    """
    scheme, _, rest = name.partition(":")
    if scheme != "drive":
        return Path(name)
    if not in_colab():
        raise RequestError("Colab, for a folder on Google Drive", f"{name} elsewhere", "name a folder of this machine")
    if not rest.strip("/"):
        raise RequestError("a folder on Google Drive: drive:lengua/es", name, "name one")
    from google.colab import drive

    drive.mount(str(DRIVE_MOUNT))
    return DRIVE_MOUNT / DRIVE_FOLDER / rest.strip("/")


def describe_machine(out: Path) -> str:
    """Return what is here and what is missing, with a line for each; tokens are set or not set, never shown."""
    lost = "it survives a lost machine" if DRIVE_MOUNT in out.parents else "it is lost with this machine"
    where = f"The run goes to {out}: {lost}." if in_colab() else f"The run goes to {out}."
    return f"{format_doctor_report(diagnose(DoctorOptions()))}\n\n{where}"
