"""audio.stream: the same samples as `load`, in constant memory, however the recording comes and wherever it ends."""

import tracemalloc

import av
import numpy as np
import pytest
import soundfile
from test_audio import CONTAINERS, encoded, refused, tone

from lengua import audio
from lengua.runtime.errors import RequestError

FORMATS = {"a.wav": "PCM_16", "a.flac": "PCM_16", "a.ogg": "VORBIS", "a.opus": "OPUS", "a.mp3": "MPEG_LAYER_III"}


def noise(seconds: float, rate: int, level: float = 0.4) -> np.ndarray:
    """Return noise that swells, so that no two places sound alike."""
    count = round(seconds * rate)
    swell = np.abs(np.sin(np.arange(count) / rate * 3))
    return (level * swell * np.random.default_rng(17).uniform(-1, 1, count)).astype(np.float32)


def joined(source, block_s: float) -> np.ndarray:
    return np.concatenate(list(audio.stream(source, block_s)))


def same(source, block_s: float, tolerance: float = 1e-4) -> None:
    whole, blocks = audio.load(source), list(audio.stream(source, block_s))
    assert all(len(block) and block.dtype == np.float32 and block.ndim == 1 for block in blocks)
    together = np.concatenate(blocks)
    assert len(together) == len(whole)
    np.testing.assert_allclose(together, whole, atol=tolerance)


def grown(path, more: bytes, source) -> np.ndarray:
    """Stream a file that somebody adds to after its first block was read."""
    blocks = audio.stream(source, 0.25)
    found = [next(blocks)]
    with open(path, "ab") as file:
        file.write(more)
    return np.concatenate([*found, *blocks])


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("block_s", [0.01, 0.37, 10])
def test_blocks_are_what_load_gives_from_every_rate(rate, block_s, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([noise(3.123, rate)] * 2, axis=1), rate)
    same(tmp_path / "a.wav", block_s)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_blocks_are_what_load_gives_from_every_format(name, rate, tmp_path):
    kind = {"format": "OGG"} if name == "a.opus" else {}
    soundfile.write(tmp_path / name, noise(4, rate), rate, subtype=FORMATS[name], **kind)
    for block_s in (0.05, 1.0):
        same(tmp_path / name, block_s)
    same((tmp_path / name).read_bytes(), 0.5)


@pytest.mark.parametrize("name", CONTAINERS)
def test_blocks_are_what_load_gives_by_ffmpeg(name, tmp_path):
    codec, rate = CONTAINERS[name]
    path = encoded(tmp_path / name, codec, rate, noise(3, rate))
    same(path, 0.3)
    if name != "clip.g722":  # which FFmpeg knows by its name alone
        same(path.read_bytes(), 0.3)


def test_the_sound_of_a_video(tmp_path):
    same(encoded(tmp_path / "film.mp4", "aac", 44_100, noise(2, 44_100), picture=True), 0.5)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 2])
def test_blocks_of_arrays(kind, channels):
    samples = noise(2, 22_050)
    if np.issubdtype(kind, np.integer):
        samples = samples * 127 + 128 if kind is np.uint8 else samples * np.iinfo(kind).max
    shaped = samples if channels == 1 else np.stack([samples, samples / 2], axis=1)
    same((shaped.astype(kind), 22_050), 0.3)


def test_real_mp3_files(spoken_es):
    clips = [path for path in spoken_es if np.abs(audio.load(path)).max() < 1][:10]  # none that exceeds full scale
    assert len(clips) == 10
    for path in clips:
        same(path, 0.7)


def test_blocks_are_about_as_long_as_asked_for(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(5, 44_100), 44_100)
    blocks = list(audio.stream(tmp_path / "a.wav", 1.0))
    assert 5 <= len(blocks) <= 6
    assert all(abs(len(block) - 16_000) < 2000 for block in blocks[:4])


def test_two_hours_in_constant_memory(tmp_path):
    path = tmp_path / "long.flac"
    minute = noise(60, 16_000)
    with soundfile.SoundFile(path, "w", 16_000, 1, format="FLAC", subtype="PCM_16") as file:
        for _ in range(120):
            file.write(minute)
    tracemalloc.start()
    count = sum(map(len, audio.stream(path)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 7200 * 16_000
    assert peak < 8 * 10 * 16_000 * 4, "eight blocks; the whole would be 460 MB"


def test_no_bound_on_how_long_a_recording_is():
    """Twelve hours are the bound of `load`: here some fourteen at the lowest rate, of an array that takes no memory."""
    silent = np.broadcast_to(np.zeros(1, np.int16), (14 * 3600 * 4000,))
    assert sum(map(len, audio.stream((silent, 4000), 600))) == 14 * 3600 * 16_000


def test_loud_samples_are_scaled_by_the_highest_peak_so_far():
    samples = np.concatenate([tone(16_000, 1), tone(16_000, 1) * 4, tone(16_000, 1)])
    blocks = list(audio.stream((samples, 16_000), 1.0))
    assert [round(float(np.abs(block).max()), 3) for block in blocks] == [0.5, 1.0, 0.25]


def test_bad_input_is_refused_as_load_refuses_it(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("Esto no es audio.\n" * 50, encoding="utf-8")
    soundfile.write(tmp_path / "header.wav", np.empty(0, np.float32), 16_000)
    bad = noise(1, 16_000)
    bad[9000] = np.nan
    soundfile.write(tmp_path / "nan.wav", bad, 16_000, subtype="FLOAT")
    sources = [tmp_path / name for name in ("missing.wav", "empty.wav", "text.wav", "header.wav", "nan.wav")]
    sources += [tmp_path, b"", b"not a sound", (np.empty(0, np.int16), 16_000), (tone(16_000), 10)]
    sources += [(np.array(["a"]), 16_000), (np.ones((2, 16_000)), 16_000), (np.float32(1), 16_000)]
    for source in sources:
        with pytest.raises(RequestError) as caught:
            list(audio.stream(source, 0.1))
        assert str(caught.value) == refused(source)


def test_a_video_without_sound_is_told_apart_from_what_is_no_audio(tmp_path):
    with av.open(str(tmp_path / "mute.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    told = refused(tmp_path / "mute.mp4")
    assert "a video with sound" in told and "pictures and no sound in" in told and "sound track" in told
    with pytest.raises(RequestError, match="no sound in"):
        next(audio.stream(tmp_path / "mute.mp4"))
    assert audio.recording_duration_s(tmp_path / "mute.mp4") is None


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.aac", "a.webm"])
def test_a_file_cut_off_in_the_middle_ends_there(name, tmp_path):
    path = tmp_path / name
    codec = {"a.aac": ("aac", 16_000), "a.webm": ("libopus", 48_000)}.get(name)
    if codec:
        encoded(path, *codec, noise(8, codec[1]))
    else:
        soundfile.write(path, noise(8, 16_000), 16_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    blocks = joined(path, 0.5)
    assert 3 < audio.duration_s(blocks) < 5
    assert len(blocks) == len(audio.load(path))


def test_a_damaged_place_does_not_end_a_recording(tmp_path):
    """libsndfile gives a FLAC up where its check sums fail; FFmpeg goes on behind that."""
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(20, 16_000), 16_000)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    path.write_bytes(data)
    found = joined(path, 0.5)
    assert 19 < audio.duration_s(found) < 20.5
    np.testing.assert_allclose(found[:100_000], noise(20, 16_000)[:100_000], atol=1e-4)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_a_file_that_grows_ends_where_it_did_when_it_was_opened(name, tmp_path):
    path = tmp_path / name
    soundfile.write(path, noise(4, 16_000), 16_000)
    before = audio.load(path)
    after = grown(path, path.read_bytes(), path)
    assert len(after) == len(before)
    np.testing.assert_allclose(after, before, atol=1e-4)


def test_what_ffmpeg_reads_of_a_growing_file_it_reads_to_the_end(tmp_path):
    path = encoded(tmp_path / "a.aac", "aac", 16_000, noise(60, 16_000))
    before = len(audio.load(path))
    after = len(grown(path, path.read_bytes(), path))
    assert after == pytest.approx(2 * before, abs=4096)


@pytest.mark.parametrize("length", [b"\0\0\0\0", b"\xff\xff\xff\xff"])
def test_a_wav_whose_recorder_never_wrote_its_length(length, tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(3, 16_000), 16_000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    place = data.index(b"data") + 4
    data[4:8] = data[place : place + 4] = length
    (tmp_path / "a.wav").write_bytes(data)
    same(tmp_path / "a.wav", 0.5)
    same(bytes(data), 0.5)
    np.testing.assert_allclose(joined(tmp_path / "a.wav", 1), noise(3, 16_000), atol=1e-4)


def test_a_flac_that_does_not_tell_its_length(tmp_path):
    soundfile.write(tmp_path / "a.flac", noise(3, 16_000), 16_000)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21] &= 0xF0  # the 36 bits of STREAMINFO that hold the number of samples
    data[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(data)
    assert audio.recording_duration_s(tmp_path / "a.flac") is None
    same(tmp_path / "a.flac", 0.5)


def test_a_stream_that_is_not_read_to_its_end_lets_go_of_the_file(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(4, 16_000), 16_000)
    blocks = audio.stream(tmp_path / "a.wav", 0.5)
    next(blocks)
    opened = _open_files(tmp_path)
    blocks.close()
    assert opened == 1 and _open_files(tmp_path) == 0


def _open_files(folder) -> int:
    from pathlib import Path

    links = Path("/proc/self/fd")
    if not links.is_dir():
        pytest.skip("tells open files by /proc")
    return sum(link.exists() and link.resolve().is_relative_to(folder.resolve()) for link in links.iterdir())


def test_seconds_by_the_header(tmp_path):
    for name, rate in (("a.wav", 44_100), ("a.flac", 16_000), ("a.ogg", 16_000), ("a.mp3", 16_000)):
        soundfile.write(tmp_path / name, noise(3, rate), rate)
        assert audio.recording_duration_s(tmp_path / name) == pytest.approx(3, abs=0.11), name
        assert audio.recording_duration_s((tmp_path / name).read_bytes()) == pytest.approx(3, abs=0.11)
    for name in ("clip.m4a", "clip.webm"):
        codec, rate = CONTAINERS[name]
        path = encoded(tmp_path / name, codec, rate, noise(3, rate))
        assert audio.recording_duration_s(path) == pytest.approx(3, abs=0.11), name
    assert audio.recording_duration_s((np.zeros(24_000), 16_000)) == 1.5
    assert audio.recording_duration_s(b"not a sound") is None
    for bad in (tmp_path / "missing.wav", tmp_path, b""):
        with pytest.raises(RequestError):
            audio.recording_duration_s(bad)
