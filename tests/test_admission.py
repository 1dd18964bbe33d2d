"""What is let in: recordings within bounds, each refusal a sentence of its own, one line before the one transcriber."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import soundfile
from conftest import chirp

from lengua.app.i18n import Wording
from lengua.app.limits import Admission, Allowance, Limits, Refusal, TranscriberQueue


def request_from(host: str, **headers: str):
    return SimpleNamespace(client=SimpleNamespace(host=host), headers=headers)


def wav(path: Path, samples: np.ndarray, rate: int = 16_000, subtype: str = "PCM_16") -> str:
    soundfile.write(path, samples, rate, subtype=subtype)
    return str(path)


def mute_video(path: Path) -> str:
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width = video.height = 32
        for _ in range(5):
            container.mux(video.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(video.encode(None))
    return str(path)


def refused(admission: Admission, recording: str | None) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        admission.admit(recording, None)
    assert Wording().said(None, refusal.value.key, **refusal.value.values)
    return refusal.value


BAD = {
    "missing": lambda folder: None,
    "empty": lambda folder: written(folder / "empty.wav", b""),
    "unreadable": lambda folder: written(folder / "text.wav", b"esto no es un audio\n" * 50),
    "too_short": lambda folder: wav(folder / "short.wav", np.ones(800) * 0.3),
    "too_long": lambda folder: wav(folder / "long.wav", np.zeros(902 * 4000, np.float32), 4000, "PCM_U8"),
    "no_sound": lambda folder: mute_video(folder / "mute.mp4"),
    "broken": lambda folder: wav(folder / "nan.wav", np.full(16_000, np.nan, np.float32), subtype="FLOAT"),
    "silent": lambda folder: wav(folder / "silence.wav", np.zeros(32_000)),
}


def written(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("kind", BAD)
def test_each_thing_that_can_be_wrong_has_its_own_sentence(kind, tmp_path):
    refusal = refused(Admission(), BAD[kind](tmp_path))
    assert refusal.key == f"refusal.{kind}"


@pytest.mark.parametrize(
    "content, key",
    [
        (b"\x00" * 5000, "unreadable"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "unreadable"),
        (b"ID3\x04" + b"\xff" * 300, "unreadable"),
        (b"<html><script>alert(1)</script></html>", "unreadable"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 500, "unreadable"),  # no format that may be opened
    ],
)
def test_what_is_no_audio_is_told_so_whatever_it_is_called(content, key, tmp_path):
    for name in ("clip.wav", "clip.mp3", "clip.webm"):
        assert refused(Admission(), written(tmp_path / name, content)).key == f"refusal.{key}"


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_every_width_and_number_of_channels_is_let_in(subtype, channels, tmp_path):
    samples = np.repeat(chirp(2, 200, 44_100)[:, None], channels, axis=1)
    admitted = Admission().admit(wav(tmp_path / "clip.wav", samples, 44_100, subtype), None)
    assert len(admitted) == 32_000 and np.abs(admitted).max() <= 1


def test_a_long_recording_is_let_in_unread(tmp_path):
    path = wav(tmp_path / "talk.wav", np.tile(chirp(2, 200, 8000), 20), 8000)
    assert Admission().admit(path, None) is None
    assert refused(Admission(Limits(seconds=39)), path).key == "refusal.too_long"
    assert Admission(Limits(seconds=39)).limits.seconds == 39


def test_a_file_over_the_limit_is_refused_unread(tmp_path):
    refusal = refused(Admission(Limits(bytes=2 << 20)), written(tmp_path / "big.wav", bytes(3 << 20)))
    assert (refusal.key, refusal.values) == ("refusal.too_big", {"megabytes": 2})


def test_a_visitor_has_so_many_recordings_a_day_and_bad_ones_do_not_count(tmp_path):
    admission = Admission(allowance=Allowance(turns=2))
    good, silent = wav(tmp_path / "a.wav", chirp(2, 200)), wav(tmp_path / "b.wav", np.zeros(32_000))
    ana, eva = request_from("203.0.113.1"), request_from("203.0.113.2")
    for _ in range(2):
        assert admission.admit(good, ana) is not None
        with pytest.raises(Refusal, match="silent"):
            admission.admit(silent, ana)
    with pytest.raises(Refusal, match="enough_today"):
        admission.admit(good, ana)
    assert admission.admit(good, eva) is not None


def test_a_full_line_costs_no_turn(tmp_path):
    admission, ana = Admission(Limits(line=1), Allowance(turns=1)), request_from("203.0.113.1")
    good = wav(tmp_path / "a.wav", chirp(2, 200))
    with admission.line.enter(), pytest.raises(Refusal, match="busy"):
        admission.admit(good, ana)
    assert admission.admit(good, ana) is not None


def test_behind_a_proxy_the_last_hop_tells_visitors_apart():
    admission = Admission()
    ana, eva = (request_from("10.0.0.5", **{"x-forwarded-for": f"1.1.1.1, 8.8.4.{host}"}) for host in (1, 2))
    assert admission.visitor(ana) != admission.visitor(eva)
    assert admission.visitor(ana) == admission.visitor(request_from("8.8.4.1", **{"x-forwarded-for": "9.9.9.9"}))
    assert "8.8" not in admission.visitor(ana) and admission.visitor(None)


def test_who_comes_first_is_served_first():
    line, served, entered = TranscriberQueue(8), [], []

    def come(number: int) -> None:
        with line.enter() as turn:
            entered.append(number)
            while turn.wait(seconds=5.0):
                pass
            served.append(number)
            time.sleep(0.01)

    threads = [threading.Thread(target=come, args=(number,)) for number in range(6)]
    with line.enter():
        for number, thread in enumerate(threads):
            thread.start()
            while len(entered) <= number:
                time.sleep(0.001)
        assert served == [] and len(line) == 7
    for thread in threads:
        thread.join(5)
    assert served == [0, 1, 2, 3, 4, 5] and len(line) == 0


def test_a_full_line_refuses_and_has_a_place_again_when_somebody_leaves():
    line = TranscriberQueue(2)
    with line.enter() as first:
        with line.enter() as second:
            assert (first.wait(0.0), second.wait(0.01)) == (0, 1)
            with pytest.raises(Refusal, match=r"refusal\.busy"):
                line.enter()
        with line.enter() as third:
            assert third.wait(0.01) == 1
    assert len(line) == 0


def test_a_long_recording_lets_the_others_pass():
    line = TranscriberQueue(4)
    with line.enter() as long, line.enter() as short:
        assert long.wait(0.0) == 0
        long.let_others()
        assert (short.wait(0.0), long.wait(0.01)) == (0, 1)
    with line.enter() as alone:
        alone.let_others()
        assert alone.wait(0.0) == 0


def test_a_failure_gives_its_place_back():
    line = TranscriberQueue(1)
    with pytest.raises(ValueError), line.enter():
        raise ValueError
    with line.enter() as turn:
        assert turn.wait(0.0) == 0
