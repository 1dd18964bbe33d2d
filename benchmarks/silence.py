"""Where nobody speaks, who hears words? Two hundred recordings of silence, noise, hum, clicks, tones and breath.

    python benchmarks/silence.py                     # whisper-base
    python benchmarks/silence.py --model runs/demo

The recordings are made by sox, the same on every machine: 16 kHz, mono, 16 bit.

    sox -D -R -n -r 16000 -c 1 -b 16 OUT.wav synth 5 pinknoise gain -n -30

Transcriber with all of its gates, its bare decoding, and faster-whisper as it comes and with its voice filter, on the
same weights in int8. And the price: real clips must keep their text. The last line is one JSON object.
"""

import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from corpus import COMMON_VOICE, validated
from harness import BenchmarkOptions, markdown, report, run

from lengua import audio
from lengua.audio import log_mel
from lengua.data.sources import open_source
from lengua.inference import Transcriber
from lengua.models.checkpoints import ctranslate2_folder
from lengua.options import BASE_MODEL
from lengua.runtime.errors import RequestError
from lengua.runtime.progress import Console, Progress, Watch
from lengua.scoring.normalizer import normalise

OURS, UNGATED, PEER, PEER_VAD = "Transcriber", "no gates", "faster-whisper", "faster-whisper, vad_filter"
KEYS = {OURS: "ours", UNGATED: "ungated", PEER: "faster_whisper", PEER_VAD: "faster_whisper_vad"}


COUNT = 200
SOX = ("sox", "-D", "-R", "-n", "-r", "16000", "-c", "1", "-b", "16")
"""`-R` draws the same random numbers in every call, so each noise is cut from another place of the stream."""
HARMONICS = (7, 5, 3, 2, 1)
"""Of hum, the weakest first: each further one is mixed in as loud as all before it together."""


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Count the words that are transcribed where nobody speaks, and the real clips that lose theirs."""

    model: str = BASE_MODEL
    """Who listens: a run, a folder or a Hub id."""
    language: str = "es"
    """Language that is expected."""
    sample: str = "sample:es"
    """Source of real speech, whose test split must keep its text."""
    common_voice: Path = COMMON_VOICE / "es"
    """A language's folder of Common Voice, which must keep its text, too; where there is none, it is left out."""
    every: int = 1
    """Take one in so many recordings and clips; for a quick look."""
    others_every: int = 4
    """The other sides hear one in so many of these: they take seconds for each, and Transcriber a moment."""


@dataclass(frozen=True)
class Sound:
    """One recording to make: what it is, and the effects that make it."""

    kind: str
    name: str
    effects: tuple[str, ...]


class Written(NamedTuple):
    """What one side wrote of one recording."""

    side: str
    kind: str
    name: str
    text: str


def main(options: Options) -> dict:
    transcriber = Transcriber(options.model, options.language, compute_type="int8")
    with tempfile.TemporaryDirectory() as scratch, Console() as watch:
        recordings = make(Path(scratch))[:: options.every]
        written, suppressed = listen(transcriber, recordings, options.others_every, watch)
        kept = {name: keep(transcriber, clips[:: options.every], watch) for name, clips in speech(options)}
    return show(options, written, suppressed, kept)


def listen(
    transcriber: Transcriber, recordings: list[tuple[Sound, Path]], others_every: int, watch: Watch
) -> tuple[list[Written], Counter]:
    """Return what Transcriber wrote of every recording, and the other sides of some; and why Transcriber did not."""
    written, suppressed, others = [], Counter(), sides(transcriber)
    for done, (sound, path) in enumerate(recordings, 1):
        samples = audio.load(path)
        ours = transcriber.transcribe((samples, audio.SAMPLE_RATE))
        written.append(Written(OURS, sound.kind, sound.name, ours.text))
        suppressed.update(ours.suppressed)
        for name, transcribe in others.items() if done % others_every == 1 % others_every else ():
            written.append(Written(name, sound.kind, sound.name, transcribe(samples)))
        watch(Progress("listening to nobody", done, len(recordings), "recordings"))
    return written, suppressed


def sides(transcriber: Transcriber) -> dict[str, Callable[[np.ndarray], str]]:
    """Return the other sides as functions samples -> text."""
    from faster_whisper import WhisperModel

    model = WhisperModel(str(ctranslate2_folder(transcriber.folder)), device="cpu", compute_type="int8")

    def peer(samples: np.ndarray, **more) -> str:
        segments, _ = model.transcribe(samples, language=transcriber.language, **more)
        return " ".join(segment.text.strip() for segment in segments)

    return {
        UNGATED: lambda samples: bare(transcriber, samples),
        PEER: peer,
        PEER_VAD: lambda samples: peer(samples, vad_filter=True),
    }


def bare(transcriber: Transcriber, samples: np.ndarray) -> str:
    """Return what the model says to the whole recording, window after window, without gates or cuts at pauses."""
    windows = [samples[at : at + log_mel.WINDOW_SAMPLES] for at in range(0, len(samples), log_mel.WINDOW_SAMPLES)]
    decoded = transcriber.decode([log_mel.log_mel(window, transcriber.n_mels) for window in windows])
    return " ".join(one.text for one in decoded)


def speech(options: Options) -> Iterator[tuple[str, list[Path | bytes]]]:
    utterances = open_source(options.sample, options.language).read("test")
    yield f"{options.sample}, test", [item.audio for item in utterances if hasattr(item, "audio")]
    if rows := validated(options.common_voice):
        yield f"Common Voice {options.language}", [options.common_voice / "clips" / row["path"] for row in rows]


def keep(transcriber: Transcriber, clips: list[Path | bytes], watch: Watch) -> dict:
    """Return how many real clips still give text, and why the others do not."""
    texts, reasons = 0, Counter()
    for done, clip in enumerate(clips, 1):
        transcript = transcriber.transcribe(clip)
        texts += bool(normalise(transcript.text))
        reasons.update(transcript.suppressed)
        watch(Progress("listening to somebody", done, len(clips), "clips"))
    return {"clips": len(clips), "with_text": texts, "share": round(texts / len(clips), 4), "refused": dict(reasons)}


def counted(written: list[Written], side: str, kind: str | None = None) -> tuple[int, int, int]:
    """Return (words, recordings that gave words, recordings) of a side, of one kind or of all."""
    words = [len(normalise(one.text).split()) for one in written if one.side == side and kind in (None, one.kind)]
    return sum(words), sum(map(bool, words)), len(words)


def show(options: Options, written: list[Written], suppressed: Counter, kept: dict[str, dict]) -> dict:
    spoken = [one for one in written if normalise(one.text)]
    result = {"model": options.model, "recordings": counted(written, OURS)[2]}
    for side, key in KEYS.items():
        result[f"words_{key}"], result[f"spoken_{key}"], _ = counted(written, side)
    result |= {"recordings_others": counted(written, PEER)[2], "suppressed": dict(suppressed.most_common())}
    result |= {"kept": kept, "heard_ours": [[one.name, one.text] for one in spoken if one.side == OURS]}
    for one in spoken:
        print(f"{one.side}: {one.name}: {one.text[:100]}")
    kinds = {**{one.kind: one.kind for one in written}, "all": None}
    cells = "{} in {} of {}".format
    rows = [[name, *(cells(*counted(written, side, kind)) for side in KEYS)] for name, kind in kinds.items()]
    reasons = [[reason, str(count)] for reason, count in suppressed.most_common()]
    lines = [
        *markdown(["words heard where nobody speaks", *KEYS], rows),
        "",
        f"{options.model}, int8, {options.language}: words, in how many recordings, of how many.",
        "",
        *markdown(["why Transcriber wrote nothing", "stretches"], reasons),
        "",
        *(f"{name}: {one['with_text']} of {one['clips']} clips keep their text." for name, one in kept.items()),
    ]
    return report(options, f"Silence and noise: {options.model}", lines, result, shown=("model",))


# The recordings


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


if __name__ == "__main__":
    run(main, Options)
