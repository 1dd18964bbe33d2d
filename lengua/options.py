"""Every option of every stage, each default once. The text under an option is what `lengua COMMAND --help` shows."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lengua.runtime.errors import RequestError

BASE_MODEL = "openai/whisper-base"
Positional = tyro.conf.Positional


@dataclass(frozen=True)
class Filters:
    """Which utterances of a source are wanted; nothing said, all are."""

    min_up_votes: int | None = None
    """Fewer listeners than this found the clip good: left out. Unknown votes are left out, too."""
    max_down_votes: int | None = None
    """More listeners than this found the clip bad: left out."""
    gender: tuple[str, ...] = ()
    """Only these: female, male, ... ("female" stands for female_feminine, too)."""
    age: tuple[str, ...] = ()
    """Only these: teens, twenties, ..."""
    accent: tuple[str, ...] = ()
    """Only accents with one of these words in their name, whatever the case: caribe, andino, ..."""
    max_hours: float | None = None
    """At most so many hours of each split, drawn by the seed."""
    max_utterances: int | None = None
    """At most so many utterances of each split, drawn by the seed."""
    balance_speakers: bool = False
    """Draw one clip of each speaker, then a second of each, and so on, instead of in proportion to what they gave."""
    seed: int = 17
    """Drives the draw, together with the id of each clip."""

    def __post_init__(self):
        for name in ("max_hours", "max_utterances"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise RequestError(f"{name} above 0", str(value), "leave it out to take everything")

    @property
    def has_cap(self) -> bool:
        """Whether there is anything to draw."""
        return self.max_hours is not None or self.max_utterances is not None


@dataclass(frozen=True)
class FeatureOptions:
    """Turn a speech source into a feature store: log-mel of the speech alone, one byte a value, and its labels.

    Common Voice, as it was downloaded, then training on it:
      lengua features common_voice:cv-corpus-25.0-es.tar.gz --out stores/es
      lengua train stores/es --out runs/es

    Fewer hours, of many voices:
      lengua features common_voice:cv-corpus-25.0-es.tar.gz --max-hours 20 --balance-speakers --out stores/es-20

    Your own recordings, whose metadata.csv has the columns file_name and text:
      lengua features folder:recordings --language es --out stores/mine

    Stopped, killed or out of disk, the same command goes on where it was. Figures are drawn beside the store.
    """

    source: Positional[str] = "sample:es"
    """sample:es, folder:PATH, common_voice:PATH (folder or .tar.gz), collective:ID or hub:owner/name[:config]."""
    out: Path = Path("stores/sample-es")
    """The folder to write. An interrupted build in it is taken up where it stopped."""
    splits: tuple[str, ...] = ("train", "dev", "test")
    """Which splits to read."""
    limit: int | None = None
    """At most this many utterances of each split; for a quick try."""
    language: str | None = None
    """Whisper language code or name, for sources that do not carry one: es, sv, swedish."""
    workers: int | None = None
    """Worker processes. Default: one for each core."""
    engine: Literal["local", "ray"] = "local"
    """local: processes of this machine. ray: those of Ray, here or on the cluster of RAY_ADDRESS (docs/cluster.md)."""
    n_mels: int = 80
    """Mel bins: 80, or 128 for whisper-large-v3 and turbo."""
    base: str = BASE_MODEL
    """Whose tokenizer counts label tokens (more than 448 with the prompt are dropped)."""
    min_seconds: float = 0.2
    """Shorter clips are dropped."""
    max_seconds: float = 30.0
    """Longer clips are dropped, not cut: their text would no longer fit."""
    max_chars_per_second: float = 22.0
    """Faster text than this cannot have been said: text and audio disagree, and the clip is dropped."""
    min_chars_per_second: float = 0.6
    """Slower text than this leaves speech without words; clips under 3 s are exempt."""
    keep_audio: tuple[str, ...] = ("dev", "test")
    """Splits whose compressed originals are kept in the store, so that errors can be heard."""
    push: str | None = None
    """owner/name: upload the finished store to the Hub as a data set, in one commit."""
    filters: Annotated[Filters, tyro.conf.arg(name="")] = Filters()
    """Which utterances are wanted."""


@dataclass(frozen=True)
class Augmentation:
    """What is done to the sound of a clip before its features are made, other in every epoch; 0 is nothing."""

    noise: float = 0.0
    """Share of the clips that get noise, at 10 to 30 dB below the speech."""
    speed: float = 0.0
    """Share of the clips that are said 0.9 to 1.1 times as fast."""
    volume: float = 0.0
    """Share of the clips that are made louder or softer, by up to 10 dB."""

    def __post_init__(self):
        for field in fields(self):
            if not 0 <= (share := getattr(self, field.name)) <= 1:
                raise RequestError(
                    f"{field.name} of 0 to 1", str(share), "it is a share of the clips: 0.3 is three in ten"
                )


@dataclass(frozen=True)
class TrainOptions:
    """Fine-tune Whisper with adaptive context: compute goes to speech instead of to 30 s of padding."""

    source: Positional[str]
    """A feature store, or a source (its store is then built in the run's folder first, or see --stream)."""
    out: Path = Path("runs/latest")
    """The run's folder: run.json, history.jsonl, checkpoints/, model/."""
    recipe: Path | None = None
    """A YAML file of these options, see recipes/: options given here win. In Python: training.recipes.from_recipe."""
    base: str = BASE_MODEL
    """The checkpoint to start from: a Whisper id of the Hub, or a folder."""
    language: str | None = None
    """Language token of the labels. Default: the store's own."""
    stream: bool = False
    """Read a source anew in every epoch and store only dev: for speech that is larger than the disk."""
    shuffle_window: int = 2048
    """Clips of a stream that are in memory together and shuffled; 2,048 of 5 s take some 250 MB."""
    workers: int | None = None
    """Processes that make features. Default: one for each core."""
    filters: Annotated[Filters, tyro.conf.arg(name="filters")] = Filters()
    """Which utterances of a source are wanted."""
    epochs: float = 2.0
    """How often each training clip is seen."""
    steps: int | None = None
    """Stop after this many optimiser steps instead of after --epochs."""
    minutes: float | None = None
    """Be done in this time, on this machine: it is measured first, then steps and evaluations are planned."""
    batch_size: int = 8
    """Clips a step and device."""
    accumulation: int = 1
    """Batches gathered before each optimiser step."""
    learning_rate: float | None = None
    """Peak of the schedule. Default: a fortieth of what the base was made with; lora ten times that, at most 1e-4."""
    warmup: float = 0.1
    """Share of the steps in which the rate climbs; it falls to zero afterwards."""
    weight_decay: float = 0.0
    """AdamW weight decay."""
    learn: Literal["all", "decoder", "lora"] = "all"
    """all: every weight. decoder: the encoder stays as it is. lora: few weights beside each matrix, then merged."""
    lora_rank: int = 32
    """Size of what lora learns beside each matrix."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: slower, for models that do not fit otherwise."""
    spec_augment: bool = False
    """Hide a stretch of time and a band of each clip in training, as for whisper-large-v2; never on dev."""
    augment: Annotated[Augmentation, tyro.conf.arg(name="augment")] = Augmentation()
    """What is done to the sound of clips in training, where it is at hand: with --stream."""
    replay: str | None = None
    """A second feature store, of other speech or another language, to be learned along, so that it is not forgotten."""
    replay_share: float = 0.1
    """Share of the training clips that are drawn from --replay."""
    allow_leaks: bool = False
    """Learn from a store whose train split holds clips of its dev or test, too; no WER on these is to be believed."""
    blend: bool = False
    """In the end, mix base and fine-tuned weights in the proportion that is best on dev; takes six evaluations."""
    window: Literal["adaptive", "packed", "padded"] = "adaptive"
    """adaptive: the speech and a margin. packed: utterances joined, up to 30 s. padded: always 30 s, as usual."""
    timestamps_share: float = 0.2
    """Share of packed windows whose labels tell when each utterance is said, so that long audio keeps working."""
    margin_s: tuple[float, float] = (0.3, 1.5)
    """Seconds of silence after the speech, drawn anew for every clip and epoch between these two."""
    padded_share: float = 0.1
    """Share of batches, of fewer clips, padded to 30 s: so the checkpoint stays good in programs that pad."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """auto: bfloat16 where the hardware has it, float16 on older GPUs such as T4, float32 else."""
    evaluations: int = 2
    """How often, evenly over the run, dev WER is measured by generation and a checkpoint saved."""
    patience: int | None = None
    """Stop when so many evaluations in a row brought nothing beyond the noise of dev."""
    checkpoint_minutes: float = 5.0
    """Save a checkpoint at least this often, whatever --evaluations."""
    push_checkpoints: str | None = None
    """owner/name: keep the newest checkpoint on the Hub, privately, and go on from there on another machine."""
    report_to: tuple[Literal["tensorboard", "trackio"], ...] = ()
    """Show curves live, beside history.jsonl: tensorboard, trackio."""
    resume: bool = True
    """Go on from the newest whole checkpoint in --out; --no-resume starts over."""
    seed: int = 17
    """Drives order, margins and padding, together with the epoch and the id of each clip."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""


@dataclass(frozen=True)
class EvaluateOptions:
    """Measure a model by free-running generation: WER with an interval, what is wrong and why, base beside it.

    Writes results.json, hypotheses.jsonl and report.html, a page that needs no network. A model that learned from a
    store at hand is also asked whether it knows the test set.
    """

    model: Positional[str]
    """A run, a model folder or a Hub id; faster-whisper:NAME or openai-whisper:NAME for another program."""
    source: Positional[str]
    """A feature store, or a source."""
    against: str | None = None
    """A second model to measure on the same clips. Default: the base that the first was made from; none: nobody."""
    out: Path = Path("evaluation")
    """Folder for results.json, hypotheses.jsonl and report.html."""
    split: str = "test"
    """The split to measure on. Choose models on dev; read test once."""
    by: Literal["all", "speaker"] = "all"
    """all: one row for the whole split. speaker: one row for each speaker."""
    probes: tuple[str, ...] = ()
    """Sources of other languages, to see what was forgotten: sample:fr sample:it. Silence and noise come with them."""
    language: str | None = None
    """Language to force while decoding. Default: the utterances' own."""
    engine: Literal["auto", "onnxruntime", "ctranslate2", "torch"] = "auto"
    """What decodes. auto: onnxruntime on a processor, ctranslate2 on a GPU."""
    batch_size: int = 8
    """Clips of like length decoded together."""
    resamples: int = 2000
    """Bootstrap resamples behind each interval."""
    seed: int = 17
    """Seed of the bootstrap."""


@dataclass(frozen=True)
class CompareOptions:
    """Lay runs side by side, finished or not: best dev WER, what it cost, what each did otherwise, their curves."""

    runs: Positional[tuple[Path, ...]]
    """Folders of runs: runs/baseline runs/lora, or runs/*."""
    out: Path | None = None
    """The PNG to draw; the page beside it is of the same name. Default: compare.png beside the first run."""


@dataclass(frozen=True)
class TranscribeOptions:
    """Turn speech into text, one file after another; a bad file does not stop the others.

    Audio of any length and of videos. A long file is cut at its pauses and written down as it is heard.
    """

    files: Positional[tuple[Path, ...]]
    """Audio or video files of any usual format."""
    model: str | None = None
    """A run, a model folder or a Hub id. Default: $LENGUA_MODEL, else the newest run, else whisper-base."""
    language: str = "es"
    """Language spoken: es, sv, swedish, ... auto: heard from the speech, which costs a little time."""
    task: Literal["transcribe", "translate"] = "transcribe"
    """translate: into English, with a model that has not forgotten how."""
    format: Literal["text", "srt", "vtt", "json"] = "text"
    """What is written: text, subtitles (srt, vtt), or json with times and words."""
    out: Path | None = None
    """Folder for one file each, named after it; without it, all goes to standard output."""
    words: bool = False
    """Tell when each word was said, too (json; in vtt as times within a cue)."""
    beam: int = 1
    """Width of the search. 1 is greedy; 5 is slower and now and then a little better."""
    prompt: str = ""
    """Words that are likely to come, such as names: they are shown to the model before each stretch."""
    engine: Literal["auto", "onnxruntime", "ctranslate2", "torch"] = "auto"
    """What decodes. auto: onnxruntime on a processor; on a GPU ctranslate2, or torch where that alone can use it."""
    batch_size: int = 8
    """Stretches of speech that are decoded together."""


@dataclass(frozen=True)
class PublishOptions:
    """Export a run as a folder that transformers, faster-whisper, whisper.cpp and people can read; put it on the Hub.

    Before anything leaves the machine the same clips are transcribed in every program that the formats are for. Where
    one of them says other words than the others, publishing stops and shows the clips.
    """

    run: Positional[str]
    """The run, or a model folder."""
    out: Path = Path("export")
    """The folder to write."""
    formats: tuple[Literal["hf", "ct2", "ct2-int8", "ggml"], ...] = ("hf", "ct2")
    """hf: transformers. ct2: faster-whisper and the Space (float16). ct2-int8: a quarter of hf. ggml: whisper.cpp."""
    clips: str | None = None
    """Clips for the comparison of programs: a store or a source. Default: the store that the run learned from."""
    parity_clips: int = 20
    """How many of them; 0 leaves the comparison out, and the card says so."""
    to: str | None = None
    """owner/name on the Hub: upload the folder there, as one commit with a tag."""
    private: bool = True
    """--no-private makes a repository that everybody can read."""
    tag: str | None = None
    """Name of the tag. Default: v1, v2, ... the next that is free."""
    space: str | None = None
    """owner/name of a Space: stage the app beside the model (OUT-space), and upload it."""


@dataclass(frozen=True)
class AppOptions:
    """Serve the app: record or upload and read what was said, or talk and be answered."""

    model: str | None = None
    """A run, a model folder or a Hub id. Default: $LENGUA_MODEL, else the newest run, else whisper-base."""
    base: str | None = None
    """The model that the mirror holds against it. Default: the one that it was fine-tuned from; else no mirror."""
    language: str = "es"
    """Language spoken: es, sv, swedish, ..."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all."""
    port: int = 7860
    """Port to listen on."""
    max_minutes: float = 15
    """Of the longest recording that is let in."""


@dataclass(frozen=True)
class DemoOptions:
    """Everything, small, on real speech: features, baseline, fine-tuning, evaluation, export, transcription, table."""

    out: Path = Path("runs/demo")
    """The run's folder. Interrupted, the demo goes on from what stands there."""
    epochs: float = 3.0
    """How often each training clip is seen."""
    limit: int | None = None
    """At most this many utterances of each split; for a quick try."""


@dataclass(frozen=True)
class DoctorOptions:
    """Tell what this machine has, what is missing, and what to do about it."""
