"""Noise, speed and volume: what is done to the sound of a clip before its features are made, other in every epoch.

    alter = Alteration(Augmentation(noise=0.5, speed=0.3), seed=17, epoch=2)
    louder_or_not = alter("common_voice_es_18306544", samples)

What is done follows from (seed, epoch, id), so that every process does the same to a clip. The libraries are those that
decode: soxr resamples, which changes the pitch along with the speed (Ko et al., Audio Augmentation for Speech
Recognition, 2015), and FFmpeg makes the noise. audiomentations 0.43 would do all three, but it brings librosa, numba
and scikit-learn into every worker, and forbids the soxr of today, whose samples the stores hold.
"""

from dataclasses import astuple, dataclass

import numpy as np

from lengua.audio import SAMPLE_RATE, duration_s
from lengua.chance import chance
from lengua.options import Augmentation

SNR_DB = (10.0, 30.0)
"""Mean power of the whole clip over that of the noise."""
SPEEDS = (0.9, 1.1)
GAIN_DB = (-10.0, 10.0)
COLOURS = ("white", "pink", "brown")
"""Hiss, and what rooms and streets are nearer to."""


@dataclass(frozen=True)
class Change:
    """What is done to one clip."""

    speed: float = 1.0
    gain_db: float = 0.0
    snr_db: float | None = None
    """None: no noise."""
    colour: str = COLOURS[0]
    noise_seed: int = 0


@dataclass(frozen=True)
class Alteration:
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
            samples = at_speed(samples, change.speed)
        samples = amplified(samples, change.gain_db)
        return samples if change.snr_db is None else noisy(samples, change.snr_db, change.colour, change.noise_seed)

    def change(self, id: str) -> Change:
        """Return what is drawn for a clip."""
        colour = COLOURS[int(self._chance(id, "colour") * len(COLOURS))]
        return Change(
            speed=self._between(id, "speed", SPEEDS) if self._is_drawn(id, "speed") else 1.0,
            gain_db=self._between(id, "volume", GAIN_DB) if self._is_drawn(id, "volume") else 0.0,
            snr_db=self._between(id, "noise", SNR_DB) if self._is_drawn(id, "noise") else None,
            colour=colour,
            noise_seed=int(self._chance(id, "noise seed") * 2**32),
        )

    def _is_drawn(self, id: str, kind: str) -> bool:
        return self._chance(id, f"whether {kind}") < getattr(self.augment, kind)

    def _between(self, id: str, kind: str, bounds: tuple[float, float]) -> float:
        low, high = bounds
        return low + (high - low) * self._chance(id, kind)

    def _chance(self, id: str, what: str) -> float:
        return chance(self.seed, self.epoch, id, f"augment {what}")


def is_on(augment: Augmentation) -> bool:
    """Return whether anything is to be done to any clip."""
    return any(astuple(augment))


def at_speed(samples: np.ndarray, speed: float) -> np.ndarray:
    """Return samples that take 1 / speed of the time."""
    import soxr

    return samples if speed == 1.0 else soxr.resample(samples, speed * SAMPLE_RATE, SAMPLE_RATE)


def amplified(samples: np.ndarray, gain_db: float) -> np.ndarray:
    """Return samples louder or softer, but no louder than they can be without being clipped."""
    most = max(1.0, 1.0 / max(1e-9, float(np.abs(samples).max(initial=0.0))))
    return samples if gain_db == 0.0 else samples * np.float32(min(10 ** (gain_db / 20), most))


def noisy(samples: np.ndarray, snr_db: float, colour: str, seed: int) -> np.ndarray:
    """Return samples with noise under them, whose mean power is `snr_db` below theirs."""
    noise = noise_of(colour, seed, len(samples))
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    scale = (power / max(1e-12, float(np.mean(noise**2))) / 10 ** (snr_db / 10)) ** 0.5
    return samples + (scale * noise).astype(np.float32)


def noise_of(colour: str, seed: int, count: int) -> np.ndarray:
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
