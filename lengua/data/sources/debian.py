"""Debian packages as data: apt-get fetches them, dpkg-deb opens them. No root, and nothing is installed.

    unpack(("asterisk-core-sounds-es",), r"\.txt\.gz$", cache_dir() / "sample" / "prompts")

apt verifies what it downloads by the distribution's signatures. Nothing half-done looks whole, an interrupted download
is taken up where it stopped, and two processes or threads that want the same packages wait for one another.
"""

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from filelock import FileLock

from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import read_json, replacing, write_json

APT_PROGRAMS = ("apt-get", "dpkg-deb")
PACKAGES_FILE = "packages.json"
USE_OWN_RECORDINGS = "use your own recordings with folder:PATH (PATH holds metadata.csv with file_name and text)"


def unpack_packages(packages: Sequence[str], wanted: str, folder: Path) -> Path:
    """Return `folder` with the packages' files that match `wanted`, under their own paths; fetch them the first time.

    Args:
        packages: names of Debian packages.
        wanted: a regular expression that is searched for in each path, "./usr/share/...".
        folder: it is either whole or not there.

    Raises:
        RequestError: this machine has no apt.
        LenguaError: the packages cannot be downloaded, opened or written; the message has apt's own words.
    """
    if is_unpacked(folder):
        return folder
    require_apt()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if not is_unpacked(folder):
                _fill(folder, packages, wanted)
    except OSError as error:
        do = "make room and give write permission there, or set LENGUA_CACHE to another folder"
        raise LenguaError(f"a cache folder to write {folder} in", str(error), do) from error
    return folder


def is_unpacked(folder: Path) -> bool:
    """Return whether `unpack` has finished this folder before."""
    return (folder / PACKAGES_FILE).is_file()


def package_files(folder: Path) -> list[str]:
    """Return the file names, which hold the versions, of the packages that `folder` was unpacked from."""
    return read_json(folder / PACKAGES_FILE)


def require_apt() -> None:
    """Raise RequestError where apt-get or dpkg-deb is missing."""
    missing = [program for program in APT_PROGRAMS if not shutil.which(program)]
    if missing:
        expected = "a Debian or Ubuntu machine, whose package mirror holds the sample's speech"
        raise RequestError(expected, f"no {' and no '.join(missing)} on the PATH", USE_OWN_RECORDINGS)


def _fill(folder: Path, packages: Sequence[str], wanted: str) -> None:
    """Download and unpack; only whoever holds the lock may be here."""
    for stale in folder.parent.glob(f".{folder.name}-*"):  # of a process that was killed while it unpacked
        shutil.rmtree(stale)
    downloads = folder.with_name(f"{folder.name}.download")
    debs = _download(packages, downloads)
    with replacing(folder) as fresh:
        for deb in debs:
            _extract(deb, re.compile(wanted), fresh)
        write_json(fresh / PACKAGES_FILE, sorted(deb.name for deb in debs))
    shutil.rmtree(downloads, ignore_errors=True)


def _download(packages: Sequence[str], downloads: Path) -> list[Path]:
    """Fetch the packages; where the machine's package lists are missing or stale, fetch lists of our own first."""
    downloads.mkdir(exist_ok=True)
    if failure := _apt(["download", *packages], downloads):
        lists = _own_apt_state(downloads / "apt")
        failure = _apt([*lists, "-o", "APT::Update::Error-Mode=any", "update"], downloads)
        failure = failure or _apt([*lists, "download", *packages], downloads)
    if failure:
        do = f"check the network and apt's sources and run it again, or {USE_OWN_RECORDINGS}"
        raise LenguaError(f"the Debian packages {', '.join(packages)}", f"apt-get failed: {failure}", do)
    found = (downloads.glob(f"{package}_*.deb") for package in packages)
    return [max(debs, key=lambda deb: deb.stat().st_mtime) for debs in found]


def _own_apt_state(folder: Path) -> list[str]:
    """Return the options by which apt keeps its state below `folder` instead of where only root may write."""
    (folder / "lists/partial").mkdir(parents=True, exist_ok=True)
    (folder / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
    return ["-o", f"Dir::State::lists={folder / 'lists'}", "-o", f"Dir::Cache={folder / 'cache'}"]


def _apt(arguments: list[str], folder: Path) -> str:
    """Run apt-get in `folder`, where it puts what it downloads; return why it failed, or an empty string."""
    options = ["-q", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=30", "-o", "APT::Sandbox::User=root"]
    done = subprocess.run(
        ["apt-get", *options, *arguments],
        cwd=folder,
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if not done.returncode:
        return ""
    # A failed fetch tells more than apt's summary of it, an error more than a warning.
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    by_worth = [line for telling in ("", "E: ", "Failed to fetch") for line in lines if telling in line]
    return by_worth[-1] if by_worth else "it gave no reason"


def _extract(deb: Path, wanted: re.Pattern, folder: Path) -> None:
    """Write the wanted plain files of one package below `folder`, reading its tar as a stream."""
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as opening:
        try:
            with tarfile.open(fileobj=opening.stdout, mode="r|") as archive:
                for member in archive:
                    if member.isfile() and wanted.search(member.name):
                        # Without "..", no path of a package can leave the folder.
                        parts = (part for part in PurePosixPath(member.name).parts if part not in ("..", "/"))
                        target = folder.joinpath(*parts)
                        target.parent.mkdir(parents=True, exist_ok=True)
                        with archive.extractfile(member) as source, open(target, "wb") as file:
                            shutil.copyfileobj(source, file)
            opening.stdout.read()  # the padding behind the last file; unread, it would break dpkg-deb's pipe
            whole = opening.wait() == 0
        except tarfile.TarError:
            whole = False
    if not whole:
        deb.unlink()
        raise LenguaError(f"a whole Debian package {deb.name}", "a broken one, now deleted", "run it again")
