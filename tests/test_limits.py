"""What is admitted: recordings within bounds, each refusal a sentence of its own, one queue, and how much a day."""

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
from lengua.app.limits import SECONDS_PER_DAY, Admission, Allowance, Limits, Refusal, TranscriberQueue, visitor_address


def request_from(host: str, **headers: str):
    return SimpleNamespace(client=SimpleNamespace(host=host), headers=headers)


def wav(path: Path, samples: np.ndarray, rate: int = 16_000, subtype: str = "PCM_16") -> str:
    soundfile.write(path, samples, rate, subtype=subtype)
    return str(path)


def written(path: Path, data: bytes) -> str:
    path.write_bytes(data)
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
    assert Wording().message(None, refusal.value.key, **refusal.value.values)
    return refusal.value


# Recordings


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


@pytest.mark.parametrize("kind", BAD)
def test_each_thing_that_can_be_wrong_has_its_own_sentence(kind, tmp_path):
    assert refused(Admission(), BAD[kind](tmp_path)).key == f"refusal.{kind}"


@pytest.mark.parametrize(
    "content",
    [
        b"\x00" * 5000,
        b"RIFF\x24\x00\x00\x00WAVEfmt ",
        b"ID3\x04" + b"\xff" * 300,
        b"<html><script>alert(1)</script></html>",
        b"\x89PNG\r\n\x1a\n" + b"\x00" * 500,  # no format that may be opened
    ],
)
def test_what_is_no_audio_is_refused_whatever_it_is_called(content, tmp_path):
    for name in ("clip.wav", "clip.webm"):
        assert refused(Admission(), written(tmp_path / name, content)).key == "refusal.unreadable"


@pytest.mark.parametrize(
    "subtype, channels", [("PCM_U8", 1), ("PCM_16", 2), ("PCM_24", 6), ("PCM_32", 1), ("FLOAT", 2), ("ULAW", 1)]
)
def test_every_width_and_number_of_channels_is_admitted(subtype, channels, tmp_path):
    samples = np.repeat(chirp(2, 200, 44_100)[:, None], channels, axis=1)
    admitted = Admission().admit(wav(tmp_path / "clip.wav", samples, 44_100, subtype), None)
    assert len(admitted) == 32_000 and np.abs(admitted).max() <= 1


def test_a_long_recording_is_admitted_unread_and_a_big_file_refused_unread(tmp_path):
    path = wav(tmp_path / "talk.wav", np.tile(chirp(2, 200, 8000), 20), 8000)
    assert Admission().admit(path, None) is None
    assert refused(Admission(Limits(seconds=39)), path).key == "refusal.too_long"
    refusal = refused(Admission(Limits(bytes=2 << 20)), written(tmp_path / "big.wav", bytes(3 << 20)))
    assert (refusal.key, refusal.values) == ("refusal.too_big", {"megabytes": 2})


def test_a_visitor_has_so_many_recordings_a_day_and_what_is_refused_does_not_count(tmp_path):
    admission = Admission(Limits(line=1), Allowance(turns=2))
    good, silent = wav(tmp_path / "a.wav", chirp(2, 200)), wav(tmp_path / "b.wav", np.zeros(32_000))
    ana, eva = request_from("203.0.113.1"), request_from("203.0.113.2")
    for _ in range(2):
        with admission.line.enter(), pytest.raises(Refusal, match="busy"):
            admission.admit(good, ana)
        assert admission.admit(good, ana) is not None
        with pytest.raises(Refusal, match="silent"):
            admission.admit(silent, ana)
    with pytest.raises(Refusal, match="enough_today"):
        admission.admit(good, ana)
    assert admission.admit(good, eva) is not None


# The queue


def test_who_comes_first_is_served_first():
    line, served, entered = TranscriberQueue(8), [], []

    def come(number: int) -> None:
        with line.enter() as ticket:
            entered.append(number)
            while ticket.wait(seconds=5.0):
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


def test_a_full_queue_refuses_and_has_a_place_again_when_somebody_leaves_or_fails():
    line = TranscriberQueue(2)
    with line.enter() as first:
        with pytest.raises(ValueError), line.enter() as second:
            assert (first.wait(0.0), second.wait(0.01)) == (0, 1)
            with pytest.raises(Refusal, match=r"refusal\.busy"):
                line.enter()
            raise ValueError
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


# A day


def test_turns_and_replies_are_counted_apart_for_each_visitor_until_midnight():
    clock = [20_000 * SECONDS_PER_DAY - 1]
    allowance = Allowance(turns=2, replies=1, tokens=10, now=lambda: clock[0])
    assert [allowance.turn("ana") for _ in range(3)] == [True, True, False]
    assert [allowance.reply("ana", 10) for _ in range(2)] == [True, False]
    assert allowance.turn("bea") and allowance.reply("bea")
    assert allowance.left("ana") == {"turns": 0, "replies": 0, "tokens": 0}
    clock[0] += 1
    assert allowance.left("ana") == {"turns": 2, "replies": 1, "tokens": 10}
    assert allowance.turn("ana") and allowance.reply("ana", 10)


def test_the_tokens_are_of_all_visitors_what_is_free_goes_on_and_what_is_refused_is_not_counted():
    allowance = Allowance(tokens=100, replies=1)
    assert allowance.reply("a", 60) and not allowance.reply("b", 60) and allowance.reply("b", 40)
    assert not allowance.reply("c", 1) and allowance.left("c") == {"turns": 300, "replies": 1, "tokens": 0}
    assert allowance.reply("c", 0)


def test_a_visitor_is_a_hash_that_only_this_process_makes():
    one, other = Allowance(), Allowance()
    mark = one.visitor("192.0.2.1", "Firefox")
    assert mark == one.visitor("192.0.2.1", "Firefox") != other.visitor("192.0.2.1", "Firefox")
    assert len(mark) == 24 and set(mark) <= set("0123456789abcdef"), "digits of a hash: no address has a place in it"
    assert len({one.visitor(*marks) for marks in (("a", "b"), ("ab",), ("a", None), (), ("\ud800",))}) == 5


def test_the_table_is_bounded_and_those_seen_last_are_remembered():
    allowance = Allowance(turns=1, visitors=3)
    for name in "abc":
        assert allowance.turn(name)
    assert not allowance.turn("a")  # seen again
    assert allowance.turn("d")  # b goes
    assert not allowance.turn("a") and not allowance.turn("c") and allowance.turn("b")


def test_threads_take_no_more_than_there_is():
    allowance, taken = Allowance(turns=500, tokens=700), []

    def take(number: int) -> None:
        taken.extend(("turn", allowance.turn("a")) for _ in range(200))
        taken.extend(("reply", allowance.reply(f"visitor {number}", 1)) for _ in range(100))

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken.count(("turn", True)) == 500 and taken.count(("reply", True)) == 700 and len(taken) == 8 * 300


@pytest.mark.parametrize(
    "host, forwarded, address",
    [
        ("9.9.9.9", None, "9.9.9.9"),
        ("9.9.9.9", "1.1.1.1", "9.9.9.9"),  # nobody's proxy: a visitor that writes headers
        ("10.16.1.2", "1.1.1.1", "1.1.1.1"),
        ("10.16.1.2", "1.2.3.4, 1.1.1.1", "1.1.1.1"),  # only the proxy's own entry
        ("10.16.1.2", "1.1.1.1:443", "1.1.1.1"),
        ("10.16.1.2", "junk", "10.16.1.2"),
        ("127.0.0.1", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", None, "2001:db8:1:2::/64"),
        ("10.0.0.1", "[2001:db8:1:2::9]:443", "2001:db8:1:2::/64"),
        ("::ffff:9.9.9.9", None, "9.9.9.9"),
        (None, "1.1.1.1", "1.1.1.1"),
        (None, None, ""),
        ("testclient", "", ""),
    ],
)
def test_the_address_that_counts(host, forwarded, address):
    assert visitor_address(host, forwarded) == address


def test_behind_a_proxy_the_last_hop_tells_visitors_apart():
    admission = Admission()
    ana, eva = (request_from("10.0.0.5", **{"x-forwarded-for": f"1.1.1.1, 8.8.4.{host}"}) for host in (1, 2))
    assert admission.visitor(ana) != admission.visitor(eva)
    assert admission.visitor(ana) == admission.visitor(request_from("8.8.4.1", **{"x-forwarded-for": "9.9.9.9"}))
    assert "8.8" not in admission.visitor(ana) and admission.visitor(None)
