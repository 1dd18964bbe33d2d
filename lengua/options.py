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
    """Which utterances of a source to use. Default: all."""

    min_up_votes: int | None = None
    """Drop clips with fewer up-votes than this, and clips without votes."""
    max_down_votes: int | None = None
    """Drop clips with more down-votes than this."""
    gender: tuple[str, ...] = ()
    """Use only these: female, male, ... ("female" includes female_feminine)."""
    age: tuple[str, ...] = ()
    """Use only these: teens, twenties, ..."""
    accent: tuple[str, ...] = ()
    """Use only accents whose name contains one of these words, ignoring case: caribe, andino, ..."""
    max_hours: float | None = None
    """Maximum hours per split, sampled with the seed."""
    max_utterances: int | None = None
    """Maximum utterances per split, sampled with the seed."""
    balance_speakers: bool = False
    """Sample one clip per speaker, then a second one, and so on, instead of in proportion to their clips."""
    seed: int = 17
    """Seed of the sampling, used together with the id of each clip."""

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

    If the build is stopped, killed or out of disk, the same command resumes it. Figures are drawn beside the store.
    """

    source: Positional[str] = "sample:es"
    """sample:es, folder:PATH, common_voice:PATH (folder or .tar.gz), collective:ID or hub:owner/name[:config]."""
    out: Path = Path("stores/sample-es")
    """Output folder. An interrupted build in it is resumed."""
    splits: tuple[str, ...] = ("train", "dev", "test")
    """Which splits to read."""
    limit: int | None = None
    """Maximum utterances per split, for a quick try."""
    language: str | None = None
    """Whisper language code or name, for sources that do not carry one: es, sv, swedish."""
    workers: int | None = None
    """Worker processes. Default: one per core."""
    engine: Literal["local", "ray"] = "local"
    """local: processes on this machine. ray: Ray tasks, here or on the cluster at RAY_ADDRESS (docs/cluster.md)."""
    n_mels: int = 80
    """Mel bins: 80, or 128 for whisper-large-v3 and turbo."""
    base: str = BASE_MODEL
    """Checkpoint whose tokenizer counts label tokens (more than 448 with the prompt are dropped)."""
    min_seconds: float = 0.2
    """Shorter clips are dropped."""
    max_seconds: float = 30.0
    """Longer clips are dropped, not cut, because their reference would no longer match."""
    max_chars_per_second: float = 22.0
    """Clips with more text per second are dropped: the reference does not match the audio."""
    min_chars_per_second: float = 0.6
    """Clips with less text per second are dropped: part of the speech has no text. Clips under 3 s are exempt."""
    keep_audio: tuple[str, ...] = ("dev", "test")
    """Splits whose compressed audio is kept in the store, so that reports can play it."""
    push: str | None = None
    """owner/name: upload the finished store to the Hub as a dataset, in one commit."""
    filters: Annotated[Filters, tyro.conf.arg(name="")] = Filters()
    """Which utterances to use."""


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of a clip's waveform before feature extraction, drawn anew in every epoch; 0 disables it."""

    noise: float = 0.0
    """Share of clips with added noise, at 10 to 30 dB SNR."""
    speed: float = 0.0
    """Share of clips with the speed changed by a factor of 0.9 to 1.1."""
    volume: float = 0.0
    """Share of clips with the volume changed by up to 10 dB."""

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
    """A feature store, or a source. The store of a source is built in the run's folder first; see also --stream."""
    out: Path = Path("runs/latest")
    """The run's folder: run.json, history.jsonl, checkpoints/, model/."""
    recipe: Path | None = None
    """A YAML file of these options (see recipes/). The command line overrides it. In Python: recipes.from_recipe."""
    base: str = BASE_MODEL
    """The checkpoint to fine-tune: a Whisper id of the Hub, or a folder."""
    language: str | None = None
    """Language token of the labels. Default: the store's own."""
    stream: bool = False
    """Read the source again in every epoch and store only dev, for data that is larger than the disk."""
    shuffle_window: int = 2048
    """Size of the shuffle buffer of a stream, in clips; 2,048 clips of 5 s take about 250 MB."""
    workers: int | None = None
    """Processes for feature extraction. Default: one per core."""
    filters: Annotated[Filters, tyro.conf.arg(name="filters")] = Filters()
    """Which utterances of a source to use."""
    epochs: float = 2.0
    """Passes over the training clips."""
    steps: int | None = None
    """Stop after this many optimiser steps instead of after --epochs."""
    minutes: float | None = None
    """Time budget: the speed of this machine is measured first, then steps and evaluations are planned to fit."""
    batch_size: int = 8
    """Batch size per device, in clips."""
    accumulation: int = 1
    """Gradient accumulation: batches per optimiser step."""
    learning_rate: float | None = None
    """Peak learning rate. Default: 1/40 of the rate the base was trained with; for lora ten times that, up to 1e-4."""
    warmup: float = 0.1
    """Share of steps with linear warm-up; the rate then decays linearly to zero."""
    weight_decay: float = 0.0
    """AdamW weight decay."""
    learn: Literal["all", "decoder", "lora"] = "all"
    """all: every weight. decoder: the encoder is frozen. lora: low-rank adapters, merged after training."""
    lora_rank: int = 32
    """Rank of the LoRA adapters."""
    gradient_checkpointing: bool = False
    """Recompute activations instead of storing them: slower, for models that do not fit in memory otherwise."""
    spec_augment: bool = False
    """SpecAugment: mask one time span and one frequency band per training clip, as for whisper-large-v2."""
    augment: Annotated[Augmentation, tyro.conf.arg(name="augment")] = Augmentation()
    """Waveform augmentation in training. It needs the audio, so it works with --stream only."""
    replay: str | None = None
    """A second feature store mixed in (experience replay) against catastrophic forgetting."""
    replay_share: float = 0.1
    """Share of the training clips that come from --replay."""
    allow_leaks: bool = False
    """Train although the train split contains clips of dev or test; WER on these is then meaningless."""
    general: str | None = None
    """A feature store of other people's speech, whose dev split (or test) bounds what is kept of training."""
    blend: bool = True
    """Mix base and fine-tuned weights after training, so that other people's speech is not forgotten (six evaluations):
    the smallest share of the latter that dev cannot tell from the best, and at most half where dev has no strangers."""
    window: Literal["adaptive", "packed", "padded"] = "adaptive"
    """adaptive: the speech and a margin. packed: several utterances up to 30 s. padded: always 30 s, as in Whisper."""
    packed_share: float = 0.0
    """Share of batches whose clips are joined, up to 30 s a window, for long recordings in other programs."""
    timestamps_share: float = 0.2
    """Share of packed windows whose labels have timestamps, which long-form decoding needs."""
    margin_s: tuple[float, float] = (0.3, 1.5)
    """Silence after the speech, in seconds: drawn between these two for each clip and epoch."""
    padded_share: float = 0.1
    """Share of batches padded to 30 s (with fewer clips), so that the checkpoint also works in programs that pad."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """auto: bfloat16 if the hardware supports it, float16 on older GPUs such as T4, float32 otherwise."""
    evaluations: int = 2
    """Number of evaluations, evenly spaced: dev WER is measured by generation and a checkpoint is saved."""
    patience: int | None = None
    """Early stopping: stop after this many evaluations in a row without an improvement beyond the noise of dev."""
    checkpoint_minutes: float = 5.0
    """Save a checkpoint at least this often, independent of --evaluations."""
    push_checkpoints: str | None = None
    """owner/name: keep the newest checkpoint in a private repository on the Hub, to resume on another machine."""
    report_to: tuple[Literal["tensorboard", "trackio"], ...] = ()
    """Log metrics also to tensorboard or trackio; history.jsonl is always written."""
    resume: bool = True
    """Resume from the newest complete checkpoint in --out; --no-resume starts over."""
    seed: int = 17
    """Seed of order, margins and padding, used together with the epoch and the id of each clip."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""


@dataclass(frozen=True)
class EvaluateOptions:
    """Measure a model by free-running generation: WER with an interval and an error analysis, beside its base.

    Writes results.json, hypotheses.jsonl and report.html, a page that needs no network. If the store that the model was
    trained on is at hand, the test set is also checked for leaks.
    """

    model: Positional[str]
    """A run, a model folder or a Hub id; faster-whisper:NAME or openai-whisper:NAME for another program."""
    source: Positional[str]
    """A feature store, or a source."""
    against: str | None = None
    """A second model to measure on the same clips. Default: the base of the first; none disables the comparison."""
    out: Path = Path("evaluation")
    """Folder for results.json, hypotheses.jsonl and report.html."""
    split: str = "test"
    """The split to measure on. Choose models on dev, and use test once."""
    by: Literal["all", "speaker"] = "all"
    """all: one row for the split. speaker: one row per speaker."""
    general: str | None = None
    """A store or source of other people's speech, measured beside the test set. Default: that of the run."""
    probes: tuple[str, ...] = ()
    """Sources in other languages that measure forgetting: sample:fr sample:it. Silence and noise are added."""
    language: str | None = None
    """Language to force in decoding. Default: the language of each utterance."""
    engine: Literal["auto", "onnxruntime", "ctranslate2", "torch"] = "auto"
    """Inference engine. auto: onnxruntime on a CPU, ctranslate2 on a GPU."""
    batch_size: int = 8
    """Clips per batch, bucketed by length."""
    resamples: int = 2000
    """Bootstrap resamples per interval."""
    seed: int = 17
    """Seed of the bootstrap."""


@dataclass(frozen=True)
class CompareOptions:
    """Compare runs, finished or not: best dev WER, cost, differing options, and their curves."""

    runs: Positional[tuple[Path, ...]]
    """Folders of runs: runs/baseline runs/lora, or runs/*."""
    out: Path | None = None
    """The PNG to draw; a page with the same name is written beside it. Default: compare.png beside the first run."""


@dataclass(frozen=True)
class TranscribeOptions:
    """Transcribe audio or video files of any length; a bad file does not stop the others.

    A long file is split at its pauses, and its text is written as it is decoded.
    """

    files: Positional[tuple[Path, ...]]
    """Audio or video files; - is standard input."""
    track: int | None = None
    """Sound track of a video that has several. Default: the one marked as default, else the longest."""
    model: str | None = None
    """A run, a model folder or a Hub id. Default: $LENGUA_MODEL, else the newest run, else whisper-base."""
    language: str = "es"
    """Spoken language: es, sv, swedish, ... auto: detected from the speech, which takes a little time."""
    task: Literal["transcribe", "translate"] = "transcribe"
    """translate: into English, if the model can still do that after fine-tuning."""
    format: Literal["text", "srt", "vtt", "json"] = "text"
    """Output format: text, subtitles (srt, vtt), or json with times and words."""
    out: Path | None = None
    """Output folder, with one file per input. Default: standard output."""
    words: bool = False
    """Word timestamps (in json; in vtt as times within a cue)."""
    beam: int = 1
    """Beam size. 1 is greedy; 5 is slower and sometimes a little better."""
    prompt: str = ""
    """Expected words, such as names, given to the model before each segment."""
    engine: Literal["auto", "onnxruntime", "ctranslate2", "torch"] = "auto"
    """Inference engine. auto: onnxruntime on a CPU; on a GPU ctranslate2, or torch if only that supports it."""
    batch_size: int = 8
    """Segments decoded together."""


@dataclass(frozen=True)
class PublishOptions:
    """Export a run for transformers, faster-whisper and whisper.cpp, with a model card, and upload it to the Hub.

    Before anything is uploaded, the same clips are transcribed in every program that the formats are for. If the
    hypotheses differ, publishing stops and shows the clips.
    """

    run: Positional[str]
    """The run, or a model folder."""
    out: Path = Path("export")
    """Output folder."""
    formats: tuple[Literal["hf", "ct2", "ct2-int8", "ggml"], ...] = ("hf", "ct2")
    """hf: transformers. ct2: faster-whisper and the Space (float16). ct2-int8: a quarter of hf. ggml: whisper.cpp."""
    clips: str | None = None
    """Clips for the comparison of programs: a store or a source. Default: the store of the run."""
    parity_clips: int = 20
    """Number of these clips; 0 skips the comparison, and the card says so."""
    to: str | None = None
    """owner/name on the Hub: upload the folder, in one commit with a tag."""
    private: bool = True
    """--no-private creates a public repository."""
    tag: str | None = None
    """Name of the tag. Default: the next free one of v1, v2, ..."""
    space: str | None = None
    """owner/name of a Space: stage the app beside the model (OUT-space), and upload it."""


@dataclass(frozen=True)
class AppOptions:
    """Serve the app: transcribe speech or files, or hold a spoken conversation."""

    model: str | None = None
    """A run, a model folder or a Hub id. Default: $LENGUA_MODEL, else the newest run, else whisper-base."""
    base: str | None = None
    """The model to compare with. Default: the base of the model; without one there is no comparison."""
    language: str = "es"
    """Spoken language: es, sv, swedish, ..."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all interfaces."""
    port: int = 7860
    """Port to listen on."""
    max_minutes: float = 15
    """Maximum length of a recording, in minutes."""


@dataclass(frozen=True)
class DemoOptions:
    """Run the whole pipeline on a small set of real speech, and print the table of results."""

    out: Path = Path("runs/demo")
    """The run's folder. An interrupted demo in it is resumed."""
    epochs: float = 3.0
    """Passes over the training clips."""
    limit: int | None = None
    """Maximum utterances per split, for a quick try."""


@dataclass(frozen=True)
class DoctorOptions:
    """Report what this machine has, what is missing, and what to do about it."""
