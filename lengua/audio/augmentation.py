"""Augmentation: noise, speed and volume on the waveform, SpecAugment on the log-mel; drawn anew in every epoch.

    augment = Augmenter(Augmentation(noise=0.5, speed=0.3), seed=17, epoch=2)
    louder_or_not = augment("common_voice_es_18306544", samples)

A draw depends on (seed, epoch, id), so every process changes a clip in the same way. soxr resamples, which changes
the pitch along with the speed (Ko et al., Audio Augmentation for Speech Recognition, 2015); FFmpeg makes the noise.
audiomentations 0.43 would do all three, but it brings librosa, numba and scikit-learn into every worker, and forbids
the soxr of today, whose samples the stores hold.

SpecAugment masks one time span and one frequency band with the clip's own silence. transformers masks with zeros,
which in Whisper's log-mel are noise, and draws from a global generator; here the sampler draws
(lengua.training.samplers). The sizes are those of the policy LibriSpeech Basic (Park et al., SpecAugment, 2019),
which whisper-large-v2 was trained with, without its time warp; a span is at most a share of the clip, because clips
are shorter than LibriSpeech's.
"""

from dataclasses import astuple, dataclass

import numpy as np

from lengua.audio.samples import SAMPLE_RATE, duration_s
from lengua.options import Augmentation
from lengua.runtime.rng import keyed_uniform

SNR_RANGE_DB = (10.0, 30.0)
"""Mean power of the whole clip over that of the noise."""
SPEED_RANGE = (0.9, 1.1)
GAIN_RANGE_DB = (-10.0, 10.0)
NOISE_COLOURS = ("white", "pink", "brown")
"""Hiss, and what rooms and streets are nearer to."""


@dataclass(frozen=True)
class SampledAugmentation:
    """What is done to one clip."""

    speed: float = 1.0
    gain_db: float = 0.0
    snr_db: float | None = None
    """None: no noise."""
    colour: str = NOISE_COLOURS[0]
    noise_seed: int = 0


@dataclass(frozen=True)
class Augmenter:
    """What is done to clips in one epoch: (id, samples at 16 kHz) -> samples."""

    augment: Augmentation
    seed: int = 17
    epoch: int = 0
    max_seconds: float = 30.0
    """A clip that would become longer keeps its speed."""

    def __call__(self, id: str, samples: np.ndarray) -> np.ndarray:
        """Return float32 samples, altered or the very same."""
        change = self.change(id)
        if duration_s(samples) / change.speed <= self.max_seconds:
            samples = change_speed(samples, change.speed)
        samples = apply_gain(samples, change.gain_db)
        return samples if change.snr_db is None else add_noise(samples, change.snr_db, change.colour, change.noise_seed)

    def change(self, id: str) -> SampledAugmentation:
        colour = NOISE_COLOURS[int(self._chance(id, "colour") * len(NOISE_COLOURS))]
        return SampledAugmentation(
            speed=self._between(id, "speed", SPEED_RANGE) if self._is_drawn(id, "speed") else 1.0,
            gain_db=self._between(id, "volume", GAIN_RANGE_DB) if self._is_drawn(id, "volume") else 0.0,
            snr_db=self._between(id, "noise", SNR_RANGE_DB) if self._is_drawn(id, "noise") else None,
            colour=colour,
            noise_seed=int(self._chance(id, "noise seed") * 2**32),
        )

    def _is_drawn(self, id: str, kind: str) -> bool:
        return self._chance(id, f"whether {kind}") < getattr(self.augment, kind)

    def _between(self, id: str, kind: str, bounds: tuple[float, float]) -> float:
        low, high = bounds
        return low + (high - low) * self._chance(id, kind)

    def _chance(self, id: str, what: str) -> float:
        return keyed_uniform(self.seed, self.epoch, id, f"augment {what}")


def is_augmenting(augment: Augmentation) -> bool:
    return any(astuple(augment))


def change_speed(samples: np.ndarray, speed: float) -> np.ndarray:
    """Return samples that take 1 / speed of the time."""
    import soxr

    return samples if speed == 1.0 else soxr.resample(samples, speed * SAMPLE_RATE, SAMPLE_RATE)


def apply_gain(samples: np.ndarray, gain_db: float) -> np.ndarray:
    """Return samples louder or softer, but no louder than they can be without being clipped."""
    most = max(1.0, 1.0 / max(1e-9, float(np.abs(samples).max(initial=0.0))))
    return samples if gain_db == 0.0 else samples * np.float32(min(10 ** (gain_db / 20), most))


def add_noise(samples: np.ndarray, snr_db: float, colour: str, seed: int) -> np.ndarray:
    """Return samples with noise under them, whose mean power is `snr_db` below theirs."""
    noise = coloured_noise(colour, seed, len(samples))
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    scale = (power / max(1e-12, float(np.mean(noise**2))) / 10 ** (snr_db / 10)) ** 0.5
    return samples + (scale * noise).astype(np.float32)


def coloured_noise(colour: str, seed: int, count: int) -> np.ndarray:
    """Return so many samples of noise around zero: float64; equal seeds give equal noise."""
    import av.filter

    graph = av.filter.Graph()
    source = graph.add("anoisesrc", f"color={colour}:seed={seed}:sample_rate={SAMPLE_RATE}")
    sink = graph.add("abuffersink")
    source.link_to(sink)
    graph.configure()
    frames, made = [], 0
    while made < count:
        frames.append(graph.pull().to_ndarray()[0])
        made += len(frames[-1])
    noise = np.concatenate([np.zeros(0), *frames])[:count]
    return noise - noise.mean() if count else noise


MAX_TIME_MASK_FRAMES = 100
MAX_TIME_MASK_SHARE = 0.2
MAX_FREQUENCY_MASK_SHARE = 27 / 80


@dataclass(frozen=True)
class SpecAugmentMasks:
    """What of a clip is hidden, whatever its shape: sizes and places, each between 0 and 1."""

    time: tuple[float, float]
    band: tuple[float, float]


def apply_masks(mel: np.ndarray, masks: SpecAugmentMasks, silence: float) -> np.ndarray:
    """Return a log-mel, shape (frames, n_mels), with `silence` where it is masked."""
    frames, n_mels = mel.shape
    hidden = mel.copy()
    hidden[_mask_slice(masks.time, frames, min(MAX_TIME_MASK_FRAMES, int(frames * MAX_TIME_MASK_SHARE)))] = silence
    hidden[:, _mask_slice(masks.band, n_mels, int(n_mels * MAX_FREQUENCY_MASK_SHARE))] = silence
    return hidden


def _mask_slice(mask: tuple[float, float], length: int, most: int) -> slice:
    """Return a slice of 0 to `most` entries, anywhere in `length`."""
    size, place = mask
    width = int(size * (most + 1))
    start = int(place * (length - width + 1))
    return slice(start, start + width)
