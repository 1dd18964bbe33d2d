"""audio: all that people call an audio file, and nothing else; `stream` gives what `load` gives, in little memory."""

import io
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from conftest import chirp

from lengua import audio
from lengua.audio import ffmpeg
from lengua.runtime.errors import RequestError

RATES = [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000]
SUBTYPES = ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"]
FULL = {np.uint8: 127, np.int8: 127, np.int16: 2**15 - 1, np.int32: 2**31 - 1, np.int64: 2**63 - 1025}
CONTAINERS = {  # name -> codec, rate: what libsndfile cannot open and FFmpeg can
    "clip.m4a": ("aac", 44_100),
    "clip.webm": ("libopus", 48_000),
    "clip.g722": ("g722", 16_000),
    "clip.aac": ("aac", 16_000),
    "clip.mka": ("libopus", 16_000),
}


def tone(rate: int, seconds: float = 0.5, hertz: float = 440, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def pitch(samples: np.ndarray) -> float:
    """Return the loudest frequency of 16 kHz audio, in Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 160_000))
    return float(spectrum.argmax()) / 10


def level(samples: np.ndarray) -> float:
    """Return the RMS of the middle half, away from the edges of filters and codecs."""
    quarter = len(samples) // 4
    return float(np.sqrt(np.mean(samples[quarter:-quarter] ** 2)))


def refused(source, **options) -> str:
    with pytest.raises(RequestError) as caught:
        audio.load(source, **options)
    message = str(caught.value)
    assert message.startswith("expected ") and message.count(";") >= 2
    return message


def encoded(path, codec: str, rate: int, samples: np.ndarray, picture: bool = False):
    """Write a mono clip by FFmpeg; with a picture it is a video."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25) if picture else None
        stream = container.add_stream(codec, rate=rate, layout="mono")
        if video:
            video.width = video.height = 32
            for _ in range(5):
                frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.rate = rate
        fifo, resampler = av.AudioFifo(), av.AudioResampler(format=stream.format, layout="mono", rate=rate)
        for block in resampler.resample(frame):
            fifo.write(block)
        while block := fifo.read(stream.frame_size or 320, partial=True):
            container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_keeps_pitch_level_and_length_from_every_rate(rate, tmp_path):
    soundfile.write(tmp_path / "tone.wav", tone(rate), rate, subtype="FLOAT")
    samples = audio.load(tmp_path / "tone.wav")
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert abs(len(samples) - 8000) <= 1
    assert pitch(samples) == pytest.approx(440, abs=0.5)
    assert level(samples) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)


def test_aliases_are_filtered_out_and_not_folded_into_speech():
    samples = audio.load((tone(48_000, hertz=11_000), 48_000))
    assert level(samples) < 1e-3  # 11 kHz does not fit in 16 kHz, and must not come back as 5 kHz


@pytest.mark.parametrize("subtype", SUBTYPES)
def test_every_width_of_wav_has_the_same_samples(subtype, tmp_path):
    soundfile.write(tmp_path / "tone.wav", tone(16_000), 16_000, subtype=subtype)
    step = {"PCM_U8": 1 / 128, "ULAW": 1 / 32}.get(subtype, 1 / 32768)
    np.testing.assert_allclose(audio.load(tmp_path / "tone.wav"), tone(16_000), atol=step)


def test_channels_are_averaged(tmp_path):
    both = np.stack([tone(16_000), np.zeros(8000, np.float32)], axis=1)
    soundfile.write(tmp_path / "stereo.wav", both, 16_000, subtype="FLOAT")
    for source in (tmp_path / "stereo.wav", (both, 16_000)):
        np.testing.assert_allclose(audio.load(source), tone(16_000) / 2, atol=1e-6)


@pytest.mark.parametrize("kind", FULL, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("channels", [1, 2])
def test_integer_arrays_are_scaled_by_their_width(kind, channels):
    values = tone(16_000).astype(np.float64) * FULL[kind] + (128 if kind is np.uint8 else 0)
    samples = np.rint(values).astype(kind)
    shaped = samples if channels == 1 else np.stack([samples] * channels, axis=1)
    step = 0.01 if np.dtype(kind).itemsize == 1 else 1e-4
    np.testing.assert_allclose(audio.load((shaped, 16_000)), tone(16_000), atol=step)


def test_the_array_given_is_not_changed():
    given = tone(16_000) * 3
    before = given.copy()
    assert np.abs(audio.load((given, 16_000))).max() == pytest.approx(1)
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize(
    ("samples", "what"),
    [
        (np.array(["a", "b"]), "<U1"),
        (np.array([None, 1], dtype=object), "object"),
        (np.ones(800, np.uint16), "uint16"),
        (np.ones(800, complex), "complex128"),
        (np.ones((2, 16_000), np.float32), "(2, 16000)"),
        (np.ones((4, 4, 4), np.float32), "(4, 4, 4)"),
        (np.float32(1), "()"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arrays_that_are_no_audio_are_refused(samples, what):
    assert what in refused((samples, 16_000))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_numbers_are_refused(bad, tmp_path):
    samples = tone(16_000)
    samples[100] = bad
    soundfile.write(tmp_path / "bad.wav", samples, 16_000, subtype="FLOAT")
    assert "NaN" in refused((samples, 16_000))
    assert "bad.wav" in refused(tmp_path / "bad.wav")
    assert "NaN" in refused((samples, 44_100))


@pytest.mark.parametrize("rate", [0, -16_000, 3_999, 400_000])
def test_rates_that_no_recorder_has_are_refused(rate):
    assert f"{rate} Hz" in refused((tone(16_000), rate))


def test_what_is_not_there_or_not_audio_is_refused(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("Esto no es audio.\n" * 50, encoding="utf-8")
    (tmp_path / "noise.mp3").write_bytes(np.random.default_rng(17).bytes(5000))
    soundfile.write(tmp_path / "header.wav", np.empty(0, np.float32), 16_000)
    assert "no file at" in refused(tmp_path / "missing.wav")
    assert "no file at" in refused(str(tmp_path / "missing.wav"))
    assert "the folder" in refused(tmp_path)
    assert "0 bytes" in refused(tmp_path / "empty.wav")
    told = refused(tmp_path / "text.wav")
    assert "text.wav" in told and "Format not recognised" in told and "Invalid data found" in told
    assert "noise.mp3" in refused(tmp_path / "noise.mp3")
    assert "no samples in" in refused(tmp_path / "header.wav")
    assert "0 bytes" in refused(b"")
    assert "the recording" in refused(b"not a sound")
    assert "no samples" in refused((np.empty(0, np.int16), 16_000))
    assert "no samples" in refused((np.empty((0, 2), np.int16), 16_000))


REFERRING = {  # texts that make FFmpeg open the file that they name
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{path}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{path}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
    '<AdaptationSet mimeType="audio/mp4"><Representation id="1"><BaseURL>{path}</BaseURL></Representation>'
    "</AdaptationSet></Period></MPD>",
}


@pytest.mark.parametrize("kind", REFERRING)
@pytest.mark.parametrize("suffix", [".m3u8", ".mp3", ".ffconcat", ".mpd"])
def test_a_text_that_names_other_files_is_refused(kind, suffix, tmp_path):
    secret = encoded(tmp_path / "secret.aac", "aac", 16_000, tone(16_000, 2))
    for name in (str(secret), secret.name):
        path = (tmp_path / "upload").with_suffix(suffix)
        path.write_text(REFERRING[kind].format(path=name), encoding="utf-8")
        assert "upload" in refused(path)
        assert "the recording" in refused(path.read_bytes())


def test_no_demuxer_that_refers_to_other_files_is_allowed():
    referring = {"hls", "dash", "concat", "image2", "image2pipe", "sdp", "rtsp", "rtp", "sap", "imf", "mlv", "lavfi"}
    assert not referring & set(ffmpeg.MEDIA_FORMATS)


def test_without_the_whitelist_ffmpeg_does_open_other_files(tmp_path, monkeypatch):
    """Else the test above could not fail."""
    encoded(tmp_path / "secret.aac", "aac", 16_000, tone(16_000, 2))
    (tmp_path / "upload.mp3").write_text(REFERRING["concat"].format(path="secret.aac"), encoding="utf-8")
    monkeypatch.setattr(ffmpeg, "FFMPEG_OPTIONS", {})
    assert audio.duration_s(audio.load(tmp_path / "upload.mp3")) > 1


def test_a_name_with_a_colon_is_a_file(tmp_path):
    path = encoded(tmp_path / "nota.m4a", "aac", 16_000, tone(16_000, 1)).rename(tmp_path / "12:30 nota.m4a")
    assert audio.duration_s(audio.load(path)) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("name", CONTAINERS)
def test_what_only_ffmpeg_opens(name, tmp_path):
    codec, rate = CONTAINERS[name]
    path = encoded(tmp_path / name, codec, rate, tone(rate, 1))
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.info(path)
    samples = audio.load(path)
    assert audio.duration_s(samples) == pytest.approx(1, abs=0.1)  # codecs add a frame of delay
    assert pitch(samples) == pytest.approx(440, abs=1)
    assert level(samples) == pytest.approx(0.354, rel=0.05)
    same(path, 0.3)
    if name != "clip.g722":  # which FFmpeg knows by its name alone
        same(path.read_bytes(), 0.3)


def test_the_sound_of_a_video_from_a_path_and_from_bytes(tmp_path):
    path = encoded(tmp_path / "film.mp4", "aac", 44_100, tone(44_100, 1), picture=True)
    samples = audio.load(path)
    assert pitch(samples) == pytest.approx(440, abs=1) and audio.duration_s(samples) == pytest.approx(1, abs=0.1)
    np.testing.assert_array_equal(audio.load(path.read_bytes()), samples)


def test_damaged_files_are_read_or_refused_and_nothing_else(tmp_path):
    """Some bytes changed, in the header or anywhere, 100 times for each kind of file."""
    random = np.random.default_rng(5)
    noise = random.uniform(-0.5, 0.5, 16_000).astype(np.float32)
    for name in ("a.wav", "a.flac", "a.ogg", "a.mp3"):
        soundfile.write(tmp_path / name, noise, 16_000)
    encoded(tmp_path / "a.m4a", "aac", 16_000, noise)
    encoded(tmp_path / "a.webm", "libopus", 48_000, noise)
    read = refusals = 0
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for turn in range(100):
            damaged = bytearray(whole)
            for place in random.integers(0, 200 if turn % 2 else len(whole), random.integers(1, 12)):
                damaged[place] = random.integers(256)
            try:
                samples = audio.load(bytes(damaged), max_seconds=31)
            except RequestError:
                refusals += 1
            else:
                read += 1
                assert np.abs(samples).max(initial=0) <= 1 and samples.dtype == np.float32
    assert read + refusals == 600 and min(read, refusals) > 100


def test_vorbis_that_overshoots_is_scaled_and_not_clipped(tmp_path):
    loud = np.sign(tone(16_000, hertz=300)).astype(np.float32)
    soundfile.write(tmp_path / "loud.ogg", loud, 16_000, format="OGG", subtype="VORBIS")
    raw = soundfile.read(tmp_path / "loud.ogg", dtype="float32")[0]
    assert np.abs(raw).max() > 1.02, "the case this test is about"
    np.testing.assert_allclose(audio.load(tmp_path / "loud.ogg"), raw / np.abs(raw).max(), atol=1e-6)


def test_ten_minutes_load_whole_or_up_to_a_bound(tmp_path):
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", 16_000, 1, format="FLAC", subtype="PCM_16") as file:
        quiet = (np.random.default_rng(17).integers(-2, 3, 16_000 * 60)).astype(np.int16)
        for _ in range(10):
            file.write(quiet)
    whole = audio.load(path)
    assert audio.duration_s(whole) == 600
    tracemalloc.start()
    start = audio.load(path, max_seconds=30.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(start, whole[: int(30.5 * 16_000)])
    assert peak < 8 * start.nbytes
    assert audio.is_silent(whole)


def test_ffmpeg_stops_at_the_bound_too(tmp_path):
    path = encoded(tmp_path / "long.g722", "g722", 16_000, tone(16_000, 120))
    tracemalloc.start()
    samples = audio.load(path, max_seconds=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(samples) == 32_000 and peak < 8 * samples.nbytes
    assert audio.duration_s(audio.load(path)) == pytest.approx(120, abs=0.1)


def test_arrays_stop_at_the_bound_too():
    assert len(audio.load((tone(44_100, 3), 44_100), max_seconds=1)) == 16_000


def test_silence_is_what_no_speech_is_under():
    assert audio.is_silent(np.zeros(16_000, np.float32))
    assert audio.is_silent(np.empty(0, np.float32))
    assert audio.is_silent(tone(16_000, level=0.001))
    assert not audio.is_silent(tone(16_000, 0.05, level=0.1))
    word = np.concatenate([np.zeros(160_000, np.float32), tone(16_000, 0.2, level=0.05), np.zeros(160_000, np.float32)])
    assert not audio.is_silent(word)
    assert not audio.is_silent(np.concatenate([np.zeros(99_000, np.float32), tone(16_000, 0.2, level=0.05)]))


def test_flac_for_players_keeps_the_samples():
    samples = chirp(0.5, 220)
    data = audio.as_flac(samples)
    assert data[:4] == b"fLaC" and soundfile.info(io.BytesIO(data)).samplerate == 16_000
    np.testing.assert_allclose(audio.load(data), samples, atol=1 / 32768)


# In blocks


FORMATS = {"a.wav": "PCM_16", "a.flac": "PCM_16", "a.ogg": "VORBIS", "a.opus": "OPUS", "a.mp3": "MPEG_LAYER_III"}


def noise(seconds: float, rate: int, level: float = 0.4) -> np.ndarray:
    """Return noise that swells, so that no two places sound alike."""
    count = round(seconds * rate)
    swell = np.abs(np.sin(np.arange(count) / rate * 3))
    return (level * swell * np.random.default_rng(17).uniform(-1, 1, count)).astype(np.float32)


def blocks_joined(source, block_s: float) -> np.ndarray:
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


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 48_000])
@pytest.mark.parametrize("block_s", [0.01, 10])
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


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 2])
def test_blocks_of_arrays(kind, channels):
    samples = noise(2, 22_050)
    if np.issubdtype(kind, np.integer):
        samples = samples * 127 + 128 if kind is np.uint8 else samples * np.iinfo(kind).max
    shaped = samples if channels == 1 else np.stack([samples, samples / 2], axis=1)
    same((shaped.astype(kind), 22_050), 0.3)


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
    assert audio.recording_info(tmp_path / "mute.mp4").duration_s is None


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.aac", "a.webm"])
def test_a_file_cut_off_in_the_middle_ends_there(name, tmp_path):
    path = tmp_path / name
    codec = {"a.aac": ("aac", 16_000), "a.webm": ("libopus", 48_000)}.get(name)
    if codec:
        encoded(path, *codec, noise(8, codec[1]))
    else:
        soundfile.write(path, noise(8, 16_000), 16_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    blocks = blocks_joined(path, 0.5)
    assert 3 < audio.duration_s(blocks) < 5
    assert len(blocks) == len(audio.load(path))


def test_a_damaged_place_does_not_end_a_recording(tmp_path):
    """libsndfile gives a FLAC up where its check sums fail; FFmpeg goes on behind that."""
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(20, 16_000), 16_000)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    path.write_bytes(data)
    found = blocks_joined(path, 0.5)
    assert 19 < audio.duration_s(found) < 20.5
    np.testing.assert_allclose(found[:100_000], noise(20, 16_000)[:100_000], atol=1e-4)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3"])
def test_a_file_that_grows_ends_where_it_did_when_it_was_opened(name, tmp_path):
    path = tmp_path / name
    soundfile.write(path, noise(4, 16_000), 16_000)
    before = audio.load(path)
    after = grown(path, path.read_bytes(), path)
    assert len(after) == len(before)
    np.testing.assert_allclose(after, before, atol=1e-4)


@pytest.mark.parametrize("length", [b"\0\0\0\0", b"\xff\xff\xff\xff"])
def test_a_wav_whose_recorder_never_wrote_its_length(length, tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(3, 16_000), 16_000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    place = data.index(b"data") + 4
    data[4:8] = data[place : place + 4] = length
    (tmp_path / "a.wav").write_bytes(data)
    same(tmp_path / "a.wav", 0.5)
    same(bytes(data), 0.5)
    np.testing.assert_allclose(blocks_joined(tmp_path / "a.wav", 1), noise(3, 16_000), atol=1e-4)


def test_a_flac_that_does_not_tell_its_length(tmp_path):
    soundfile.write(tmp_path / "a.flac", noise(3, 16_000), 16_000)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21] &= 0xF0  # the 36 bits of STREAMINFO that hold the number of samples
    data[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(data)
    assert audio.recording_info(tmp_path / "a.flac").duration_s is None
    same(tmp_path / "a.flac", 0.5)


def test_a_stream_that_is_not_read_to_its_end_lets_go_of_the_file(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(4, 16_000), 16_000)
    blocks = audio.stream(tmp_path / "a.wav", 0.5)
    next(blocks)
    opened = _open_files(tmp_path)
    blocks.close()
    assert opened == 1 and _open_files(tmp_path) == 0


def _open_files(folder) -> int:
    links = Path("/proc/self/fd")
    if not links.is_dir():
        pytest.skip("tells open files by /proc")
    return sum(link.exists() and link.resolve().is_relative_to(folder.resolve()) for link in links.iterdir())


def test_seconds_by_the_header(tmp_path):
    for name, rate in (("a.wav", 44_100), ("a.flac", 16_000), ("a.ogg", 16_000), ("a.mp3", 16_000)):
        soundfile.write(tmp_path / name, noise(3, rate), rate)
        assert audio.recording_info(tmp_path / name).duration_s == pytest.approx(3, abs=0.11), name
        assert audio.recording_info((tmp_path / name).read_bytes()).duration_s == pytest.approx(3, abs=0.11)
    for name in ("clip.m4a", "clip.webm"):
        codec, rate = CONTAINERS[name]
        path = encoded(tmp_path / name, codec, rate, noise(3, rate))
        assert audio.recording_info(path).duration_s == pytest.approx(3, abs=0.11), name
    assert audio.recording_info((np.zeros(24_000), 16_000)).duration_s == 1.5
    assert audio.recording_info(b"not a sound").duration_s is None
    for bad in (tmp_path / "missing.wav", tmp_path, b""):
        with pytest.raises(RequestError):
            audio.recording_info(bad)
