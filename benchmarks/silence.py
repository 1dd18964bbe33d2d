"""Where nobody speaks, who hears words? Two hundred recordings of silence, noise, hum, clicks, tones and breath.

    python benchmarks/silence.py                     # whisper-base
    python benchmarks/silence.py --model runs/demo

Transcriber with all of its gates, its bare decoding, and faster-whisper as it comes and with its voice filter, on the
same weights in int8. And the price: real clips must keep their text. The last line is one JSON object.
"""

import csv
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from common_voice import SHARED
from recording import markdown, record, run
from silence_sounds import Sound, make

from lengua import audio
from lengua.audio import log_mel
from lengua.data.sources import open_source
from lengua.inference import Transcriber
from lengua.models.checkpoints import ctranslate2_folder
from lengua.options import BASE_MODEL
from lengua.runtime.progress import Console, Progress, Watch
from lengua.scoring.normalizer import normalise

OURS, UNGATED, PEER, PEER_VAD = "Transcriber", "no gates", "faster-whisper", "faster-whisper, vad_filter"
KEYS = {OURS: "ours", UNGATED: "ungated", PEER: "faster_whisper", PEER_VAD: "faster_whisper_vad"}


@dataclass(frozen=True)
class Options:
    """Count the words that are heard where nobody speaks, and the real clips that lose theirs."""

    model: str = BASE_MODEL
    """Who listens: a run, a folder or a Hub id."""
    language: str = "es"
    """Language that is expected."""
    sample: str = "sample:es"
    """Source of real speech, whose test split must keep its text."""
    common_voice: Path = SHARED
    """A language's folder of Common Voice, which must keep its text, too; where there is none, it is left out."""
    every: int = 1
    """Take one in so many recordings and clips; for a quick look."""
    others_every: int = 4
    """The other sides hear one in so many of these: they take seconds for each, and Transcriber a moment."""
    record: bool = False
    """Write the result into benchmarks/RESULTS.md."""
    json: bool = True
    """Print one JSON object, last."""


@dataclass
class Tally:
    """What one side heard in the recordings of one kind."""

    recordings: int = 0
    spoken: int = 0
    """Recordings that gave words."""
    words: int = 0

    def add(self, words: int) -> None:
        """Count one recording."""
        self.recordings, self.spoken, self.words = self.recordings + 1, self.spoken + bool(words), self.words + words


@dataclass
class Heard:
    """Everything that was counted."""

    tallies: dict[tuple[str, str], Tally] = field(default_factory=dict)
    """By side and kind."""
    suppressed: Counter = field(default_factory=Counter)
    """Stretches by reason, of Transcriber."""
    texts: list[tuple[str, str, str]] = field(default_factory=list)
    """(side, recording, text) of all that was heard."""

    def add(self, side: str, sound: Sound, text: str) -> None:
        """Count what a side heard in a recording."""
        words = len(normalise(text).split())
        self.tallies.setdefault((side, sound.kind), Tally()).add(words)
        if words:
            self.texts.append((side, sound.name, text))

    def sums(self, side: str) -> Tally:
        """Return all kinds of one side together."""
        ours = [tally for (name, _), tally in self.tallies.items() if name == side]
        return Tally(*(sum(getattr(tally, name) for tally in ours) for name in ("recordings", "spoken", "words")))


def main(options: Options) -> dict:
    """Measure and print."""
    transcriber = Transcriber(options.model, options.language, compute_type="int8")
    with tempfile.TemporaryDirectory() as scratch, Console() as watch:
        heard = listen(transcriber, make(Path(scratch))[:: options.every], options.others_every, watch)
        kept = {name: keep(transcriber, clips[:: options.every], watch) for name, clips in speech(options)}
    return show(options, heard, kept)


def listen(transcriber: Transcriber, recordings: list[tuple[Sound, Path]], others_every: int, watch: Watch) -> Heard:
    """Let Transcriber hear every recording, and the other sides some of them."""
    heard, others = Heard(), sides(transcriber)
    for done, (sound, path) in enumerate(recordings, 1):
        samples = audio.load(path)
        ours = transcriber.transcribe((samples, audio.SAMPLE_RATE))
        heard.add(OURS, sound, ours.text)
        heard.suppressed.update(ours.suppressed)
        for name, transcribe in others.items() if done % others_every == 1 % others_every else ():
            heard.add(name, sound, transcribe(samples))
        watch(Progress("listening to nobody", done, len(recordings), "recordings"))
    return heard


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
    """Yield (name, clips) of real speech."""
    utterances = open_source(options.sample, options.language).read("test")
    yield f"{options.sample}, test", [item.audio for item in utterances if hasattr(item, "audio")]
    table = options.common_voice / "validated.tsv"
    if table.is_file():
        with open(table, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
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


def show(options: Options, heard: Heard, kept: dict[str, dict]) -> dict:
    """Print and return the figures."""
    sums = {side: heard.sums(side) for side in KEYS}
    result = {"model": options.model, "recordings": sums[OURS].recordings}
    for side, key in KEYS.items():
        result |= {f"spoken_{key}": sums[side].spoken, f"words_{key}": sums[side].words}
    result |= {
        "recordings_others": sums[PEER].recordings,
        "suppressed": dict(heard.suppressed.most_common()),
        "kept": kept,
    }
    result["heard_ours"] = [[name, text] for side, name, text in heard.texts if side == OURS]
    lines = tables(options, heard, kept)
    print("\n".join([*lines, "", *(f"{side}: {name}: {text[:100]}" for side, name, text in heard.texts)]))
    if options.record:
        asked = {"--every": options.every, "--others-every": options.others_every}
        some = "".join(f" {name} {value}" for name, value in asked.items() if value > 1)
        command = f"python benchmarks/silence.py --model {options.model}{some}"
        record(f"Silence and noise: {options.model}", command, lines)
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    return result


def tables(options: Options, heard: Heard, kept: dict[str, dict]) -> list[str]:
    """Return what is recorded: words by kind, reasons of silence, what real speech lost."""
    kinds = dict.fromkeys(kind for _, kind in heard.tallies)
    rows = [row(kind, [heard.tallies.get((side, kind), Tally()) for side in KEYS]) for kind in kinds]
    rows.append(row("all", [heard.sums(side) for side in KEYS]))
    reasons = [[reason, str(count)] for reason, count in heard.suppressed.most_common()]
    return [
        *markdown(["words heard where nobody speaks", *KEYS], rows),
        "",
        f"{options.model}, int8, {options.language}: words, in how many recordings, of how many.",
        "",
        *markdown(["why Transcriber wrote nothing", "stretches"], reasons),
        "",
        *(f"{name}: {one['with_text']} of {one['clips']} clips keep their text." for name, one in kept.items()),
    ]


def row(kind: str, tallies: list[Tally]) -> list[str]:
    """Return one line of the table."""
    return [kind, *(f"{one.words} in {one.spoken} of {one.recordings}" for one in tallies)]


if __name__ == "__main__":
    run(main, Options)
