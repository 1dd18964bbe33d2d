"""Augmentation: the same clip, id and epoch give the same sound in any process; what was drawn is what is heard."""

import os
import subprocess
import sys
from hashlib import blake2b
from itertools import islice

import numpy as np
import pytest
from conftest import ROOT, assert_it_resumes_exactly, chirp, tiny_training
from hub_server import a_hub  # noqa: F401 - a fixture

from lengua import audio
from lengua.audio import log_mel
from lengua.audio.augmentation import (
    GAIN_RANGE_DB,
    NOISE_COLOURS,
    SNR_RANGE_DB,
    SPEED_RANGE,
    Augmenter,
    add_noise,
    apply_gain,
    change_speed,
)
from lengua.data import features
from lengua.data.features import make_row
from lengua.data.sources import Utterance
from lengua.data.store import open_store
from lengua.data.streaming import Stream
from lengua.options import Augmentation, FeatureOptions
from lengua.runtime.errors import RequestError
from lengua.training.train import train

ALL = Augmentation(noise=1.0, speed=1.0, volume=1.0)
SOME = Augmentation(noise=0.5, speed=0.5, volume=0.5)
IDS = [f"clip-{number}" for number in range(1000)]
DIGESTS = """
import sys
from hashlib import blake2b
import numpy as np
from lengua.audio.augmentation import Augmenter
from lengua.options import Augmentation
samples = np.load(sys.argv[1])
alter = Augmenter(Augmentation(noise=0.5, speed=0.5, volume=0.5), seed=17, epoch=3)
for number in range(12):
    print(blake2b(alter(f"clip-{number}", samples).tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def tone() -> np.ndarray:
    """Two seconds that swell as speech does."""
    return chirp(2.0, 220)


def stream(release, augment, workers=1, **more) -> Stream:
    return Stream(FeatureOptions(f"common_voice:{release}", workers=workers), window=32, augment=augment, **more)


def content(row) -> tuple:
    return row.id, row.text, row.duration_s, row.frames, row.peak, row.mel.tobytes()


def rows_of(blocks, count: int) -> list[tuple]:
    return [content(row) for block in islice(blocks, count) for row in block]


def power(samples: np.ndarray) -> float:
    return float(np.mean(np.square(samples, dtype=np.float64)))


# What is drawn


def test_the_shares_are_those_asked_for_and_the_sizes_fill_their_ranges():
    alter = Augmenter(Augmentation(noise=0.5, speed=0.25, volume=0.1))
    changes = [alter.change(id) for id in IDS]
    speeds = [change.speed for change in changes if change.speed != 1.0]
    gains = [change.gain_db for change in changes if change.gain_db]
    levels = [change.snr_db for change in changes if change.snr_db is not None]
    for drawn, share, (low, high) in (
        (levels, 0.5, SNR_RANGE_DB),
        (speeds, 0.25, SPEED_RANGE),
        (gains, 0.1, GAIN_RANGE_DB),
    ):
        assert len(drawn) == pytest.approx(1000 * share, abs=50)
        assert low <= min(drawn) < low + 0.1 * (high - low) and high - 0.1 * (high - low) < max(drawn) <= high
    assert {change.colour for change in changes} == set(NOISE_COLOURS)
    assert len({change.noise_seed for change in changes}) == 1000


def test_shares_are_drawn_apart_so_that_clips_with_all_and_with_nothing_are_there():
    changes = [Augmenter(SOME).change(id) for id in IDS]
    kinds = [(change.speed != 1.0, change.gain_db != 0.0, change.snr_db is not None) for change in changes]
    assert all(kinds.count(kind) == pytest.approx(125, abs=40) for kind in set(kinds)) and len(set(kinds)) == 8


def test_nothing_asked_for_is_the_very_same_samples(tone):
    assert Augmenter(Augmentation())("clip-1", tone) is tone


def test_another_process_does_the_same_and_another_epoch_or_seed_does_not(tone, tmp_path):
    np.save(tmp_path / "tone.npy", tone)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "4711"}
    command = [sys.executable, "-c", DIGESTS, str(tmp_path / "tone.npy")]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    alter = Augmenter(SOME, seed=17, epoch=3)
    here = [blake2b(alter(id, tone).tobytes()).hexdigest() for id in IDS[:12]]
    assert told == here and len(set(here)) > 8
    for other in (Augmenter(ALL, 17, 4), Augmenter(ALL, 18, 3)):
        assert not np.array_equal(other("clip-1", tone), Augmenter(ALL, 17, 3)("clip-1", tone))


def test_nobody_elses_random_numbers_are_touched(tone):
    np.random.seed(1)
    before = np.random.get_state()[1].tolist()
    Augmenter(ALL)("clip-1", tone)
    assert np.random.get_state()[1].tolist() == before


# What is done


@pytest.mark.parametrize("colour", NOISE_COLOURS)
@pytest.mark.parametrize("snr_db", [10.0, 17.5, 30.0])
def test_noise_is_as_far_below_the_speech_as_was_drawn(tone, colour, snr_db):
    for seed in (0, 5, 2**32 - 1):
        made = add_noise(tone, snr_db, colour, seed)
        assert made.dtype == np.float32 and made.shape == tone.shape
        assert 10 * np.log10(power(tone) / power(made - tone)) == pytest.approx(snr_db, abs=1.0)


def test_colours_differ_and_seeds_do():
    quiet = np.full(16_000, 1e-3, np.float32)
    spectra = {}
    for colour in NOISE_COLOURS:
        noise = add_noise(quiet, 10, colour, 7) - quiet
        energy = np.abs(np.fft.rfft(noise)) ** 2
        spectra[colour] = energy[4000:].sum() / energy[:4000].sum()  # over 4 kHz, and under it
    assert spectra["white"] == pytest.approx(1.0, abs=0.1)
    assert spectra["white"] > 4 * spectra["pink"] > 16 * spectra["brown"]
    assert not np.array_equal(add_noise(quiet, 10, "pink", 7), add_noise(quiet, 10, "pink", 8))


@pytest.mark.parametrize("speed", [0.9, 0.97, 1.06, 1.1])
def test_faster_speech_is_shorter_and_higher(speed):
    steady = np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000).astype(np.float32)
    made = change_speed(steady, speed)
    assert made.dtype == np.float32 and len(made) == pytest.approx(32_000 / speed, abs=1)
    spectrum = np.abs(np.fft.rfft(made * np.hanning(len(made))))
    assert spectrum.argmax() * 16_000 / len(made) == pytest.approx(440 * speed, abs=1.0)
    assert power(made) == pytest.approx(power(steady), rel=0.02)


def test_volume_is_as_drawn_but_never_clips(tone):
    assert 10 * np.log10(power(apply_gain(tone, -7.5)) / power(tone)) == pytest.approx(-7.5, abs=0.01)
    assert np.abs(apply_gain(tone, 10.0)).max() == pytest.approx(1.0)
    assert 10 * np.log10(power(apply_gain(tone / 10, 10.0)) / power(tone / 10)) == pytest.approx(10, abs=0.01)
    assert np.array_equal(apply_gain(np.zeros(10, np.float32), 5.0), np.zeros(10))


def test_a_clip_that_would_become_too_long_keeps_its_speed(tone):
    slow = next(id for id in IDS if Augmenter(ALL).change(id).speed < 0.95)
    assert len(Augmenter(ALL, max_seconds=2.05)(slow, tone)) == len(tone)
    assert len(Augmenter(ALL, max_seconds=2.3)(slow, tone)) > 1.05 * len(tone)


# Rows and streams


def test_duration_and_frames_of_a_row_follow_its_speed(tone):
    faster = Augmenter(Augmentation(speed=1.0))
    utterance = Utterance("clip-1", audio.as_flac(tone), "hola", "es", "a", "train")
    plain, row = (make_row(utterance, FeatureOptions(), alter) for alter in (None, faster))
    speed = faster.change("clip-1").speed
    assert speed != 1.0 and row.duration_s == pytest.approx(plain.duration_s / speed, abs=0.001)
    assert row.frames == len(log_mel.log_mel(change_speed(audio.load(utterance.audio), speed), 80)) != plain.frames


def test_what_is_left_out_does_not_depend_on_what_is_drawn(tone):
    short = Utterance("clip-1", audio.as_flac(tone), "hola", "es", "a", "train")
    for epoch in range(20):
        row = make_row(short, FeatureOptions(max_seconds=2.0), Augmenter(ALL, epoch=epoch, max_seconds=2.0))
        assert row.duration_s <= 2.0


def test_off_a_stream_is_what_it_was(tiny_release):
    plain = rows_of(Stream(FeatureOptions(f"common_voice:{tiny_release}", workers=1), window=32).blocks(), 2)
    assert rows_of(stream(tiny_release, Augmentation()).blocks(), 2) == plain and len(plain) == 50


def test_workers_do_not_matter_and_epochs_do(tiny_release):
    rows = rows_of(stream(tiny_release, SOME).blocks(), 4)
    assert rows_of(stream(tiny_release, SOME, workers=2).blocks(), 4) == rows
    first, second = rows[:50], rows[50:]
    assert [row[:2] for row in first] == [row[:2] for row in second]
    changed = [a[2:] != b[2:] for a, b in zip(first, second, strict=True)]
    assert 0.7 < np.mean(changed) < 1.0
    assert rows_of(stream(tiny_release, SOME, seed=18).blocks(), 2) != first


def test_a_stream_goes_on_from_any_block_with_the_same_bytes(tiny_release):
    blocks = list(islice(stream(tiny_release, SOME).blocks(), 5))
    again = list(islice(stream(tiny_release, SOME).blocks(1, 1), 2))
    assert [(block.epoch, block.number) for block in again] == [(1, 1), (2, 0)]
    assert [list(map(content, block)) for block in again] == [list(map(content, block)) for block in blocks[3:]]


# Options


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_that_is_none_is_refused(tiny_release, share):
    with pytest.raises(RequestError, match="speed of 0 to 1"):
        stream(tiny_release, Augmentation(speed=share))


def test_features_have_no_sound_to_augment(tiny_store, tiny_folder, tiny_model, tmp_path):
    for source in (str(tiny_store.path), tiny_folder):
        options = tiny_training(source, tiny_model, tmp_path / "run", language="es", augment=SOME)
        with pytest.raises(RequestError, match="train from a source with --stream, or use --spec-augment"):
            train(options)
    assert not (tmp_path / "run").exists()


def test_a_store_on_the_hub_has_no_sound_either(hub, tiny_store):
    code = f"""
push_store(Path({str(tiny_store.path)!r}), "ana/es")
show(lambda: Stream(FeatureOptions("hub:ana/es"), augment=Augmentation(noise=0.5)))
"""
    imports = """
from pathlib import Path
from lengua.data.hub_store import push_store
from lengua.options import Augmentation, FeatureOptions
from lengua.data.streaming import Stream
"""
    [told] = hub.client(code, imports)
    assert "expected sound to augment; found the feature store hub:ana/es" in told["error"]


# Training


def test_interrupted_it_resumes_to_the_same_losses_and_dev_is_left_as_it_is(tiny_release, tiny_model, tmp_path):
    source = f"common_voice:{tiny_release}"
    streamed = {"stream": True, "shuffle_window": 16, "workers": 1, "steps": 15, "evaluations": 1}
    options = tiny_training(source, tiny_model, tmp_path / "whole", learning_rate=1e-3, augment=SOME, **streamed)
    assert_it_resumes_exactly(options)
    features.build(FeatureOptions(source, tmp_path / "store", splits=("dev",), workers=1, base=str(tiny_model)))
    stores = [open_store(folder).split("dev") for folder in (tmp_path / "store", options.out / "store")]
    assert list(map(content, stores[0])) == list(map(content, stores[1]))
