"""Two hundred recordings in which nobody speaks, made by sox: 16 kHz, mono, 16 bit, the same on every machine.

    sox -D -R -n -r 16000 -c 1 -b 16 OUT.wav synth 5 pinknoise gain -n -30

`-R` draws the same random numbers in every call, so each noise is cut from another place of the stream.
"""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from lengua.runtime.errors import RequestError

COUNT = 200
SOX = ("sox", "-D", "-R", "-n", "-r", "16000", "-c", "1", "-b", "16")
HARMONICS = (7, 5, 3, 2, 1)
"""Of hum, the weakest first: each further one is mixed in as loud as all before it together."""


@dataclass(frozen=True)
class Sound:
    """One recording to make: what it is, and the effects that make it."""

    kind: str
    name: str
    effects: tuple[str, ...]


def make(folder: Path) -> list[tuple[Sound, Path]]:
    """Make all recordings in a folder.

    Raises:
        RequestError: there is no sox.
    """
    if not shutil.which("sox"):
        raise RequestError("sox, which makes the recordings", "no such program", "apt install sox")
    made = [(sound, folder / f"{sound.name}.wav") for sound in sounds()]
    for sound, path in made:
        subprocess.run([*SOX, str(path), *sound.effects], check=True, capture_output=True)
    return made


def sounds() -> list[Sound]:
    """Return the recordings, by kind."""
    makers = (silences, noises, hums, clicks, tones, sweeps, breaths)
    return [sound for maker in makers for sound in maker()]


def silences() -> Iterator[Sound]:
    """Nothing at all, 0.5 to 60 s of it."""
    for seconds in (0.5, 1, 2, 3, 5, 10, 15, 20, 30, 60):
        yield _sound("digital silence", (seconds,), f"trim 0 {seconds}")


def noises() -> Iterator[Sound]:
    """The noise of rooms: white, pink and brown, from hardly audible to loud."""
    lengths = {"white": (0.5, 2, 5, 15, 60), "pink": (1, 3, 8, 20, 45), "brown": (0.7, 2, 6, 12, 30)}
    for colour, seconds in lengths.items():
        for place, (level, length) in enumerate(product((-70, -60, -50, -40, -30, -15), seconds)):
            start = 0.37 * place
            effects = f"synth {start + length:.2f} {colour}noise trim {start:.2f} gain -n {level}"
            yield _sound(f"{colour} noise", (level, length), effects)


def hums() -> Iterator[Sound]:
    """Mains, 50 and 60 Hz, with harmonics."""
    for base, level, seconds in product((50, 60), (-45, -25, -10), (1, 5, 20, 60)):
        first, *others = [f"sine {base * harmonic}" for harmonic in HARMONICS]
        mixed = " ".join(f"synth {tone.replace('sine', 'sine mix')}" for tone in others)
        yield _sound("hum", (base, level, seconds), f"synth {seconds} {first} {mixed} gain -n {level}")


def clicks() -> Iterator[Sound]:
    """Four milliseconds of noise, one to eight times a second: a clock, a keyboard."""
    for rate, seconds in product((1, 2, 4, 8), (1, 2, 6, 15, 40)):
        effects = f"synth 0.004 whitenoise pad 0.05 {1 / rate - 0.054:.3f} repeat {rate * seconds - 1} gain -n -6"
        yield _sound("clicks", (rate, seconds), effects)


def tones() -> Iterator[Sound]:
    """Steady tones, then beeps once a second."""
    for hertz, seconds in product((120, 440, 1000, 3000), (1, 6, 30)):
        yield _sound("tone", (hertz, seconds), f"synth {seconds} sine {hertz} gain -n -15")
    for hertz, seconds in product((440, 1000), (4, 25)):
        effects = f"synth 0.2 sine {hertz} pad 0 0.8 repeat {seconds - 1} gain -n -15"
        yield _sound("tone", ("beeps", hertz, seconds), effects)


def sweeps() -> Iterator[Sound]:
    """From low to high and back, evenly in Hz (:) and evenly in octaves (/)."""
    for (low, high), how, seconds in product(((80, 4000), (4000, 80), (200, 800), (1000, 7000)), ":/", (2, 10)):
        effects = f"synth {seconds} sine {low}{how}{high} gain -n -15"
        yield _sound("sweep", (low, high, "linear" if how == ":" else "octaves", seconds), effects)


def breaths() -> Iterator[Sound]:
    """Noise in a band that swells and fades, every three seconds: breath near a microphone."""
    for place, (centre, level, seconds) in enumerate(product((600, 1200, 2400), (-40, -20), (3, 9, 24, 45))):
        start = 0.37 * place
        noise = f"synth {start + 1.5:.2f} pinknoise trim {start:.2f} band -n {centre} {centre * 3 // 4}"
        swell = f"fade q 0.6 1.5 0.7 pad 0.3 1.2 repeat {seconds // 3 - 1}"
        yield _sound("breath", (centre, level, seconds), f"{noise} {swell} gain -n {level}")


def _sound(kind: str, what: tuple, effects: str) -> Sound:
    return Sound(kind, "-".join(map(str, (kind.replace(" ", "-"), *what))), tuple(effects.split()))
