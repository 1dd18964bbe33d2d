"""Debian packages as data, fetched by the real apt from a package mirror made here: no network."""

import hashlib
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lengua.data.sources.debian import _extract, is_unpacked, package_files, unpack_packages
from lengua.runtime.errors import LenguaError

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(
    not (shutil.which("apt-get") and shutil.which("dpkg-deb")), reason="no apt-get or no dpkg-deb on this machine"
)


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A real package mirror in a folder, which apt is told to use instead of the machine's own; no lists yet."""
    root = tmp_path / "mirror"
    package = tmp_path / "package"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "usr/share/voice").mkdir(parents=True)
    (package / "usr/share/voice/one.ogg").write_bytes(b"sound" * 1000)
    (package / "usr/share/voice/one.png").write_bytes(b"picture")
    control = "Package: lengua-test-voice\nVersion: 1:2.0-1\nArchitecture: all\nMaintainer: x <x@y.z>\nDescription: x\n"
    (package / "DEBIAN/control").write_text(control)
    root.mkdir()
    deb = root / "lengua-test-voice.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", package, deb], check=True, capture_output=True)
    digest = hashlib.sha256(deb.read_bytes()).hexdigest()
    entry = f"{control}Filename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n"
    (root / "Packages").write_text(entry)
    (tmp_path / "lists/partial").mkdir(parents=True)
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] copy:{root} ./\n")
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list";\nDir::Etc::sourceparts "/dev/null";\n'
        f'Dir::State::lists "{tmp_path}/lists";\nDir::Cache "{tmp_path}/aptcache";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    return root


def test_package_is_fetched_without_package_lists_and_unpacked(mirror, tmp_path):
    folder = unpack_packages(["lengua-test-voice"], r"\.ogg$", tmp_path / "cache" / "voice")
    written = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert written == ["packages.json", "usr/share/voice/one.ogg"]
    assert (folder / "usr/share/voice/one.ogg").read_bytes() == b"sound" * 1000
    assert package_files(folder) == ["lengua-test-voice_1%3a2.0-1_all.deb"]
    assert not list((tmp_path / "cache").rglob("*.deb"))


def test_unpacked_package_needs_neither_mirror_nor_apt(mirror, tmp_path, monkeypatch):
    folder = unpack_packages(["lengua-test-voice"], r"\.ogg$", tmp_path / "cache" / "voice")
    shutil.rmtree(mirror)
    monkeypatch.setenv("PATH", "")
    assert unpack_packages(["lengua-test-voice"], r"\.ogg$", folder) == folder


def test_interrupted_download_is_made_whole(mirror, tmp_path):
    downloads = tmp_path / "cache" / "voice.download"
    downloads.mkdir(parents=True)
    whole = (mirror / "lengua-test-voice.deb").read_bytes()
    (downloads / "lengua-test-voice_1%3a2.0-1_all.deb").write_bytes(whole[:100])
    folder = unpack_packages(["lengua-test-voice"], r"\.ogg$", tmp_path / "cache" / "voice")
    assert (folder / "usr/share/voice/one.ogg").stat().st_size == 5000


def test_folder_without_its_list_of_packages_counts_for_nothing(mirror, tmp_path):
    (tmp_path / "cache" / "voice" / "usr").mkdir(parents=True)
    folder = unpack_packages(["lengua-test-voice"], r"\.ogg$", tmp_path / "cache" / "voice")
    assert (folder / "usr/share/voice/one.ogg").is_file()


def test_leftovers_of_a_killed_process_are_cleared_away(mirror, tmp_path):
    (tmp_path / "cache" / ".voice-abc123" / "usr").mkdir(parents=True)
    unpack_packages(["lengua-test-voice"], r"\.ogg$", tmp_path / "cache" / "voice")
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == ["voice"]


def test_threads_and_processes_wait_for_one_another(mirror, tmp_path):
    folder = tmp_path / "cache" / "voice"
    program = "import sys, pathlib; from lengua.data.sources.debian import unpack_packages as unpack"
    call = "unpack(['lengua-test-voice'], '.ogg$', pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", f"{program}; {call}", str(folder)]
    processes = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: unpack_packages(["lengua-test-voice"], ".ogg$", folder), range(3)))
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert done == [folder] * 3
    assert is_unpacked(folder)
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["voice"]


def test_failed_download_says_what_apt_said(mirror, tmp_path):
    (mirror / "lengua-test-voice.deb").unlink()
    with pytest.raises(LenguaError) as caught:
        unpack_packages(["lengua-test-voice"], r"\.ogg$", tmp_path / "cache" / "voice")
    assert "lengua-test-voice" in caught.value.expected
    assert "Failed to fetch" in caught.value.found
    assert "folder:PATH" in caught.value.do
    assert caught.value.exit_code == 1
    assert not is_unpacked(tmp_path / "cache" / "voice")


def test_broken_package_is_deleted_and_named(mirror, tmp_path):
    folder = tmp_path / "cache" / "voice"
    deb = tmp_path / "broken.deb"
    deb.write_bytes((mirror / "lengua-test-voice.deb").read_bytes()[:300])
    with pytest.raises(LenguaError, match=r"broken\.deb; found a broken one, now deleted"):
        _extract(deb, re.compile("ogg"), folder)
    assert not deb.exists()
