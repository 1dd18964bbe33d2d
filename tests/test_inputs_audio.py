"""What people really bring: joined files, sound with holes, several tracks, antiphase, pipes. All of it is heard."""

import io
import os
import subprocess
import sys
import threading
from fractions import Fraction
from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from av.stream import Disposition
from test_audio import level, pitch, refused, same, tone

from lengua import audio
from lengua.data import features
from lengua.inference import Transcriber
from lengua.options import FeatureOptions

KINDS = {  # suffix -> codec, options of the container
    ".mp3": ("libmp3lame", {}),
    ".bare.mp3": ("libmp3lame", {"write_xing": "0", "id3v2_version": "0"}),
    ".opus": ("libopus", {}),
    ".ogg": ("vorbis", {}),
    ".flac": ("flac", {}),
    ".wav": ("pcm_s16le", {}),
    ".aac": ("aac", {}),
    ".ts": ("aac", {}),
}
FORMATS = {"mono": (48_000, "mono"), "stereo": (44_100, "stereo")}


def mux_sound(container, stream, samples: np.ndarray, starts_s=(0.0,)) -> None:
    """Write `samples` once for each start on the container's clock."""
    rate, layout = stream.codec_context.sample_rate, stream.codec_context.layout.name
    whole = np.repeat((samples * 32767).astype(np.int16), 1 if layout == "mono" else 2)[None]
    for start_s in starts_s:
        frame = av.AudioFrame.from_ndarray(whole, format="s16", layout=layout)
        frame.rate, at = rate, round(start_s * rate)
        fifo, resampler = av.AudioFifo(), av.AudioResampler(format=stream.format, layout=layout, rate=rate)
        for block in resampler.resample(frame):
            block.pts = None
            fifo.write(block)
        while block := fifo.read(stream.frame_size or 1024, partial=True):
            block.pts, block.time_base = at, Fraction(1, rate)
            at += block.samples
            container.mux(stream.encode(block))
    container.mux(stream.encode(None))


def add_pictures(container):
    """Add a track for pictures."""
    stream = container.add_stream("mpeg4", rate=25)
    stream.width = stream.height = 32
    return stream


def mux_pictures(container, stream) -> None:
    for number in range(5):
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, 25)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def sound_file(path: Path, rate: int, layout: str, hertz: float, starts_s=(0.0,)) -> Path:
    """Write two seconds of a tone in one of KINDS."""
    codec, options = KINDS["".join(path.suffixes)]
    if codec == "vorbis":  # FFmpeg has no good encoder of its own
        samples = tone(rate, 2, hertz)
        soundfile.write(path, samples if layout == "mono" else np.stack([samples] * 2, axis=1), rate)
        return path
    rate = 48_000 if codec == "libopus" else rate
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        mux_sound(container, stream, tone(rate, 2, hertz), starts_s)
    return path


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("second", ["the same format", "another format"])
def test_of_joined_files_all_parts_are_heard(suffix, second, tmp_path):
    formats = [FORMATS["mono"], FORMATS["mono" if second == "the same format" else "stereo"]]
    parts = [
        sound_file(tmp_path / f"{number}{suffix}", *how, hertz)
        for number, (how, hertz) in enumerate(zip(formats, (300, 700), strict=True))
    ]
    path = tmp_path / f"joined{suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    for source in (path, path.read_bytes()):
        samples = audio.load(source)
        assert audio.duration_s(samples) == pytest.approx(4, abs=0.3)
        assert pitch(samples[8_000:24_000]) == pytest.approx(300, abs=2)
        assert pitch(samples[-24_000:-8_000]) == pytest.approx(700, abs=2)
        same(source, 0.3, 0.02 if second == "another format" else 1e-3)
    declared = audio.recording_info(path).duration_s
    assert declared is None or declared > 3.9 or suffix == ".ts", (
        "a header that counts the first part says nothing of the whole"
    )


@pytest.mark.parametrize("suffix", KINDS)
def test_of_one_file_nothing_changes(suffix, tmp_path):
    path = sound_file(tmp_path / f"one{suffix}", *FORMATS["stereo"], 300)
    assert audio.decoding.split_joined(path) == [] and not audio.decoding.is_joined_mp3(path)
    assert audio.duration_s(audio.load(path)) == pytest.approx(2, abs=0.1)


def test_an_mp3_with_tags_behind_it_is_not_joined(tmp_path):
    path = sound_file(tmp_path / "one.bare.mp3", *FORMATS["stereo"], 300)
    path.write_bytes(path.read_bytes() + b"TAG" + bytes(125))
    assert not audio.decoding.is_joined_mp3(path)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_sound_keeps_its_place_on_the_containers_clock(suffix, tmp_path):
    path, second = tmp_path / f"film{suffix}", tone(48_000, 1, 300)
    with av.open(str(path), "w") as container:
        pictures, sound = add_pictures(container), container.add_stream("aac", rate=48_000, layout="mono")
        mux_pictures(container, pictures)
        mux_sound(container, sound, second, starts_s=(2.0, 5.0))
    samples = audio.load(path)
    loud = [level(samples[at : at + 8_000]) > 0.2 for at in range(1_000, 6 * 16_000 - 8_000, 8_000)]
    assert loud == [False] * 4 + [True, True] + [False] * 4 + [True], "silence where the container has no sound"
    assert audio.duration_s(samples) == pytest.approx(6, abs=0.1)
    same(path, 0.3)


def test_channels_that_cancel_each_other_are_heard(tmp_path):
    voice, gap = tone(44_100, 1.5, 300), np.zeros(44_100, np.float32)
    left = np.concatenate([voice, gap, voice])
    both = np.stack([left, np.concatenate([-voice, gap, voice])], axis=1)
    soundfile.write(tmp_path / "both.wav", both, 44_100)
    for source in (tmp_path / "both.wav", (both, 44_100)):
        samples = audio.load(source)
        assert level(samples[2_000:20_000]) == pytest.approx(0.354, rel=0.05)
        assert level(samples[-20_000:-2_000]) == pytest.approx(0.354, rel=0.05)
        same(source, 1.0)
    silent_and_voice = np.stack([left, np.zeros_like(left)], axis=1)
    np.testing.assert_allclose(audio.load((silent_and_voice, 44_100)), audio.load((left / 2, 44_100)), atol=1e-5)


def two_tracks(path: Path, default: int | None) -> Path:
    """Write a video with a track of 1 s at 300 Hz and one of 2 s at 700 Hz."""
    with av.open(str(path), "w", options={"default_mode": "passthrough"}) as container:
        pictures, tracks = add_pictures(container), []
        for number, language in enumerate(("eng", "spa")):
            tracks.append(container.add_stream("aac", rate=48_000, layout="mono"))
            tracks[-1].metadata["language"] = language
            tracks[-1].disposition = Disposition.default if number == default else Disposition(0)
        mux_pictures(container, pictures)
        for track, (seconds, hertz) in zip(tracks, [(1, 300), (2, 700)], strict=True):
            mux_sound(container, track, tone(48_000, seconds, hertz))
    return path


def test_of_several_tracks_the_default_or_the_longest_or_the_one_asked_for_is_heard(tmp_path):
    marked = two_tracks(tmp_path / "marked.mkv", 0)
    assert audio.recording_info(marked).track == 1 and pitch(audio.load(marked)) == pytest.approx(300, abs=2)
    film = two_tracks(tmp_path / "film.mkv", None)
    info = audio.recording_info(film)
    assert len(info.tracks) == 2 and info.track == 2, "the longest"
    assert pitch(audio.load(film)) == pytest.approx(700, abs=2)
    assert pitch(audio.load(film, track=1)) == pytest.approx(300, abs=2)
    assert audio.recording_info(film, 1).track == 1
    message = refused(film, track=3)
    assert "sound track 3" in message and "1 (" in message and "2 (" in message and "--track" in message


def test_a_pipe_is_a_recording_and_so_is_standard_input(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(16_000, 1), 16_000)
    data = (tmp_path / "a.wav").read_bytes()
    os.mkfifo(pipe := tmp_path / "pipe")
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    assert audio.duration_s(audio.load(pipe)) == 1
    writer.join()
    code = "import sys; from lengua import audio; print([audio.duration_s(audio.load(sys.argv[1]))])"
    for name in ("-", "/dev/stdin"):
        done = subprocess.run([sys.executable, "-c", code, name], input=data, capture_output=True)
        assert done.stdout.strip() == b"[1.0]", done.stderr.decode()[-500:]


def test_names_like_those_of_a_protocol_are_files(tmp_path, monkeypatch):
    sound_file(tmp_path / "x.ts", *FORMATS["mono"], 300).rename(tmp_path / "2024-05-01T10:30:00.ts")
    monkeypatch.chdir(tmp_path)
    for name in ("2024-05-01T10:30:00.ts", Path("2024-05-01T10:30:00.ts")):
        assert audio.duration_s(audio.load(name)) == pytest.approx(2, abs=0.1)


def test_a_recording_shorter_than_its_header_says_is_told(tiny_model, tmp_path):
    path = sound_file(tmp_path / "cut.flac", *FORMATS["mono"], 300)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    seen = []
    with Transcriber(str(tiny_model), "es").segments(path, watch=seen.append) as stream:
        list(stream)
    notes = [one.note for one in seen if "header says" in one.note]
    assert len(notes) == 1 and "2.0 s" in notes[0]


def test_the_track_that_is_read_is_told(tiny_model, tmp_path):
    seen = []
    with Transcriber(str(tiny_model), "es").segments(two_tracks(tmp_path / "f.mkv", None), watch=seen.append):
        pass
    assert any("sound track 2 of 2" in one.note and "--track" in one.note for one in seen)


def test_no_clip_ends_a_build(tmp_path, monkeypatch):
    folder = tmp_path / "clips"
    folder.mkdir()
    rows = ["file_name,text,speaker,split"]
    for number, split in product(range(4), ("train", "dev")):
        soundfile.write(folder / f"{split}{number}.wav", tone(16_000, 2, 200 + 50 * number), 16_000)
        rows.append(f"{split}{number}.wav,hola {number} {split},s{split}{number},{split}")
    (folder / "metadata.csv").write_text("\n".join(rows), encoding="utf-8")

    def breaks(source, *args, **options):
        if isinstance(source, Path) and source.stem == "train1":
            raise ZeroDivisionError("what no decoder should raise")
        return load(source, *args, **options)

    load = audio.load
    monkeypatch.setattr(features.audio, "load", breaks)
    built = features.build(FeatureOptions(f"folder:{folder}", tmp_path / "store", language="es", workers=1))
    assert built.dropped["unreadable audio"]["count"] == 1
    assert built.splits["train"]["utterances"] == 3


def test_bytes_of_a_joined_file_are_bounded_by_max_seconds(tmp_path):
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(16_000, 2), 16_000, format="FLAC")
    assert audio.duration_s(audio.load(buffer.getvalue() * 3, max_seconds=5)) == 5
