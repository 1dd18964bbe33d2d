"""collective:ID: Mozilla Data Collective's own client against a server on loopback that speaks its interface."""

import io
import json
import random
import re
import sys
import tarfile
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec

import pytest
from test_sources_common_voice import OLD, ROOT, content, named, row, table

from lengua.data.sources import Dropped
from lengua.data.sources import common_voice as release
from lengua.data.sources.collective import downloads_folder, fetch_dataset, open
from lengua.runtime.errors import LenguaError, RequestError

needs_client = pytest.mark.skipif(not find_spec("datacollective"), reason="needs the extra [collective]")


def archive() -> bytes:
    """A release of three clips as Common Voice packs it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as packing:
        for number in range(3):
            data = random.Random(number).randbytes(300_000)
            packing.addfile(named(f"{ROOT}/clips/clip_{number}.mp3", data), io.BytesIO(data))
        for name, rows in {"dev": [row(2)], "train": [row(0), row(1), row(9)]}.items():
            data = table(OLD, *rows)
            packing.addfile(named(f"{ROOT}/{name}.tsv", data), io.BytesIO(data))
    return out.getvalue()


class Collective(BaseHTTPRequestHandler):
    """The interface: details, a download's address, and the bytes, from where they are wanted."""

    def do_GET(self):
        self.server.asked[f"GET {self.path}"] += 1
        if self.path == "/api/datasets/cv-sv":
            return self.reply_json(self.server.details)
        if self.path != "/files/archive":
            return self.reply_json({"message": "no such data set"}, self.server.refusal or 404)
        data, start = self.server.data, int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        broken = self.server.breaks > 0
        self.server.breaks -= 1
        self.wfile.write(data[start : start + (len(data) - start) // 2 if broken else None])

    def do_POST(self):
        self.server.asked[f"POST {self.path}"] += 1
        if self.headers.get("Authorization") != "Bearer key":
            return self.reply_json({"message": "bad key"}, 401)
        if self.server.refusal:
            return self.reply_json({"message": "Agree to the terms first"}, self.server.refusal)
        address = f"http://127.0.0.1:{self.server.server_port}/files/archive"
        return self.reply_json({"downloadUrl": address, "sizeBytes": len(self.server.data), "checksum": "c1"})

    def reply_json(self, value, status=200):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture
def collective(tmp_path, monkeypatch):
    """The server, with one data set, and a client that has a key for it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collective)
    server.data, server.refusal, server.breaks, server.asked = archive(), 0, 0, Counter()
    name = {"id": "cv-sv", "name": "Common Voice sv", "filename": "cv-sv.tar.gz", "licenseAbbreviation": "CC0-1.0"}
    server.details = {**name, "sizeBytes": len(server.data), "organization": {"name": "Common Voice"}}
    monkeypatch.setenv("MDC_API_URL", f"http://127.0.0.1:{server.server_port}/api")
    monkeypatch.setenv("MDC_API_KEY", "key")
    monkeypatch.setenv("LENGUA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MDC_DOWNLOAD_PATH", raising=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def refused(kind=LenguaError) -> LenguaError:
    with pytest.raises(kind) as caught:
        open("cv-sv")
    return caught.value


@needs_client
def test_downloaded_once_and_read_as_common_voice(collective):
    source = open("cv-sv")
    assert source.uri == "collective:cv-sv" and source.licence == "CC0-1.0"
    assert source.attribution == "Common Voice sv, Common Voice" and source.language == "sv"
    plain = release.open(str(downloads_folder() / "cv-sv.tar.gz"))
    for split in ("train", "dev"):
        assert [content(item) for item in source.read(split)] == [content(item) for item in plain.read(split)]
    assert [item.id for item in source.read("train")] == ["clip_0", "clip_1", "clip_9"]
    assert list(source.read("train"))[-1] == Dropped("clip_9", "missing clip")
    assert source.revision == plain.revision
    collective.asked.clear()
    assert open("cv-sv").revision == source.revision and not collective.asked
    assert sorted(path.name for path in downloads_folder().iterdir() if path.suffix != ".lock") == [
        "cv-sv.json",
        "cv-sv.tar.gz",
    ]


@needs_client
def test_a_download_that_breaks_off_goes_on(collective):
    collective.breaks = 2
    assert open("cv-sv").language == "sv" and collective.asked["GET /files/archive"] == 3
    assert (downloads_folder() / "cv-sv.tar.gz").read_bytes() == collective.data


@needs_client
def test_what_a_run_could_not_finish_the_next_one_does(collective):
    collective.breaks = 3
    error = refused()
    missing = float(re.match(r"([\d.]+) % of it still missing", error.found)[1])
    assert 10 < missing < 40 and "it goes on where it broke off" in error.do
    part = (downloads_folder() / "cv-sv.tar.gz.part").read_bytes()
    assert collective.data.startswith(part) and len(part) == pytest.approx(
        len(collective.data) * (1 - missing / 100), rel=0.01
    )
    assert open("cv-sv").language == "sv" and collective.asked["GET /files/archive"] == 4


@needs_client
@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (
            403,
            RequestError,
            "expected access to the data set cv-sv of Mozilla Data Collective; found it is refused: Agree",
        ),
        (404, RequestError, "found none of that id (404)"),
        (410, RequestError, "found it was taken away (410)"),
        (402, RequestError, "one that is paid for"),
        (429, LenguaError, "no more of them allowed for now (429); run it again later: what has come is kept"),
        (500, LenguaError, "HTTPError: 500 Server Error"),
    ],
)
def test_refusals_are_explained(collective, status, kind, told):
    collective.refusal = status
    assert told in str(refused(kind))
    assert not (downloads_folder() / "cv-sv.json").exists()


@needs_client
def test_a_key_that_is_missing_or_wrong(collective, monkeypatch):
    monkeypatch.setenv("MDC_API_KEY", "other")
    assert "a valid key in MDC_API_KEY; found one that is refused (401)" in str(refused(RequestError))
    monkeypatch.delenv("MDC_API_KEY")
    collective.asked.clear()
    assert "a key for Mozilla Data Collective in MDC_API_KEY; found none" in str(refused(RequestError))
    assert not collective.asked


@needs_client
def test_no_server_and_no_room(collective, monkeypatch, tmp_path):
    monkeypatch.setenv("MDC_API_URL", "http://127.0.0.1:9/api")
    assert "ConnectionError" in refused().found
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MDC_DOWNLOAD_PATH", str(tmp_path / "file"))
    assert "set MDC_DOWNLOAD_PATH to another" in refused(RequestError).do


@needs_client
@pytest.mark.parametrize("filename", ["../../cv-sv.tar.gz", "/tmp/x", "", None, ".bashrc"])
def test_an_archive_with_a_strange_name_is_refused(collective, filename, tmp_path):
    collective.details["filename"] = filename
    assert "an archive that is called" in refused().found
    assert not collective.asked["GET /files/archive"] and not list(tmp_path.rglob("*.tar.gz"))


@needs_client
def test_an_archive_of_another_length_is_thrown_away(collective):
    collective.details["sizeBytes"] += 1
    assert "bytes, now deleted" in refused().found and not (downloads_folder() / "cv-sv.tar.gz").exists()


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".x"])
def test_ids_that_are_none(name):
    with pytest.raises(RequestError, match="copy it from the page of the data set"):
        open(name)


def test_without_the_client_it_is_said_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("LENGUA_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "datacollective", None)
    with pytest.raises(RequestError, match=r"pip install 'lengua\[collective\]'"):
        fetch_dataset("cv-sv")
