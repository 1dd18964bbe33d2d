"""Every known way to ruin a fine-tuning of Whisper, set for real in a sound run, and what preflight says to it.

    python benchmarks/traps.py --store runs/demo/store

The traps are those that public recipes fell into and their users report. The last line is one JSON object.
"""

import shutil
import tempfile
from collections import namedtuple
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import huggingface_hub
import numpy as np
import torch
from harness import BenchmarkOptions, markdown, report, run
from tokenizers import Tokenizer, models
from transformers import WhisperTokenizer
from transformers.models.whisper.modeling_whisper import shift_tokens_right

from lengua.data.store import Row, Store, open_store, shard_path, write_manifest, write_shard
from lengua.models.checkpoints import find_model
from lengua.models.tokens import IGNORE_INDEX, decoder_pair, end_token, prompt_tokens, token_id
from lengua.models.whisper import load_model
from lengua.options import BASE_MODEL, TrainOptions
from lengua.runtime.errors import LenguaError
from lengua.runtime.files import read_json, write_json
from lengua.training import hardware
from lengua.training.checks import Check
from lengua.training.data import TrainingData
from lengua.training.dataset import ClipDataset, WindowedClip
from lengua.training.preflight import preflight, unwrap_whisper
from lengua.training.trainer import build_trainer

FEW = 64
"""Clips of a split that are copied where a trap lies in the store."""


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """Set every trap, one after another, and see which check stops it."""

    store: Path = Path("runs/demo/store")
    """A feature store in Spanish, of 80 mel bins."""
    base: str = BASE_MODEL
    """The base model."""


@dataclass(frozen=True)
class Ground:
    """A sound run, in which traps are set."""

    options: TrainOptions
    """With language and learning rate."""
    store: Store
    folder: Path
    """Of the base model."""
    room: Path
    """An empty folder for what a trap has to write."""

    def trainer(self, store: Store | None = None, train: str = "train", **change):
        """Return a new trainer, as the training stage builds it."""
        options, store = replace(self.options, **change), store or self.store
        model = load_model(self.folder, options.language)
        return build_trainer(model, self.folder, TrainingData(store, store.split(train)), options)


@dataclass(frozen=True)
class Scene:
    """A trainer in which a trap is set."""

    trainer: object
    folder: Path
    patches: tuple[AbstractContextManager, ...] = ()
    """What the machine pretends meanwhile."""
    push: str | None = None


@dataclass(frozen=True)
class Trap:
    """One way to ruin a run."""

    name: str
    check: str
    """The first that must fail."""
    set: Callable[[Ground], Scene]
    trained: bool = False
    """Only a base that knows the language can tell."""


# In the labels


class Labels:
    """What a trap makes labels of: the decoder's inputs and labels of a text as they should be."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, text: str):
        self.folder, self.tokenizer, self.text = folder, tokenizer, text
        self.end = end_token(tokenizer)
        self.inputs, self.labels = self.pair("es")

    def pair(self, language: str, text: str | None = None) -> tuple[list[int], list[int]]:
        return decoder_pair(self.tokenizer, text or self.text, language)


def as_in_the_tutorial(made: Labels) -> tuple[list[int], list[int]]:
    """The public recipe: it strips bos_token_id, which is not the start token, and so the model adds a second."""
    whisper = WhisperTokenizer.from_pretrained(made.folder, language="es", task="transcribe")
    labels = whisper(made.text).input_ids
    labels = labels[1:] if labels[0] == whisper.bos_token_id else labels
    start = whisper.convert_tokens_to_ids("<|startoftranscript|>")
    return shift_tokens_right(torch.tensor([labels]), whisper.pad_token_id, start)[0].tolist(), labels


def no_leading_space(made: Labels) -> tuple[list[int], list[int]]:
    prompt, words = prompt_tokens(made.tokenizer, "es"), made.tokenizer.encode(made.text, add_special_tokens=False).ids
    return [*prompt, *words], [*[IGNORE_INDEX] * 3, *words, made.end]


def masked_then_shifted(made: Labels) -> tuple[list[int], list[int]]:
    """Mask the prompt in the labels and let the model make its inputs of them."""
    inputs = shift_tokens_right(torch.tensor([made.labels]), made.end, made.inputs[0])
    return inputs[0].tolist(), made.labels


LABEL_TRAPS = {
    "as in the tutorial": ("start token", as_in_the_tutorial),
    "end masked as padding": (
        "end token",
        lambda made: (made.inputs, [IGNORE_INDEX if label == made.end else label for label in made.labels]),
    ),
    "second end": ("end token", lambda made: ([*made.inputs, made.labels[-1]], [*made.labels, made.labels[-1]])),
    "no leading space": ("leading space", no_leading_space),
    "masked then shifted": ("prompt mask", masked_then_shifted),
    "prompt to be predicted": ("prompt mask", lambda made: (made.inputs, [*made.inputs[1:4], *made.labels[3:]])),
    "other prompts": ("prompt", lambda made: made.pair("es" if len(made.text) % 2 else "sv")),
    "other language": ("prompt", lambda made: made.pair("sv")),
    "prompt with timestamps": ("prompt", lambda made: ([*made.inputs[:3], *made.inputs[4:]], made.labels[1:])),
    "not shifted": ("label order", lambda made: (made.inputs, [*[IGNORE_INDEX] * 4, *made.inputs[4:]])),
    "shifted twice": ("label order", lambda made: (made.inputs, [*made.labels[1:], IGNORE_INDEX])),
    "other text": ("text", lambda made: made.pair("es", made.text[::-1])),
}
"""By name: the check that must fail, and another way to make (decoder_input_ids, labels)."""


def pairing(trainer, folder: Path, pair: Callable[[Labels], tuple]) -> Callable:
    """Return the trainer's collator, with pairs of decoder inputs and labels made in another way."""
    collate, tokenizer = trainer.data_collator, trainer.vocabulary

    def collate_otherwise(clips: list) -> dict[str, torch.Tensor]:
        pairs = [pair(Labels(folder, tokenizer, clip.row.text)) for clip in clips]
        columns = zip(("decoder_input_ids", "labels"), zip(*pairs, strict=True), strict=True)
        padding = {"decoder_input_ids": end_token(tokenizer), "labels": IGNORE_INDEX}
        return collate(clips) | {name: padded(rows, padding[name]) for name, rows in columns}

    return collate_otherwise


def with_pairs(pair: Callable[[Labels], tuple], ground: Ground) -> Scene:
    trainer = ground.trainer()
    trainer.data_collator = pairing(trainer, ground.folder, pair)
    return Scene(trainer, ground.folder)


def padded(rows: list[list[int]], value: int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(map(torch.tensor, rows)), batch_first=True, padding_value=value)


def times_backwards(batch: dict[str, torch.Tensor], tokenizer: Tokenizer) -> None:
    for name in ("decoder_input_ids", "labels"):
        for row in batch[name]:
            times = row >= token_id(tokenizer, "<|0.00|>")
            row[times] = row[times].flip(0)


def end_masked(batch: dict[str, torch.Tensor], tokenizer: Tokenizer) -> None:
    batch["labels"][batch["labels"] == end_token(tokenizer)] = IGNORE_INDEX


def with_packs(spoil: Callable, ground: Ground) -> Scene:
    """Spoil the labels of windows that clips share; single clips are left as they are."""
    trainer = ground.trainer(window="packed")
    collate, tokenizer = trainer.data_collator, trainer.vocabulary

    def collate_spoiled(clips: list) -> dict[str, torch.Tensor]:
        batch = collate(clips)
        if not isinstance(clips[0], WindowedClip):
            spoil(batch, tokenizer)
        return batch

    trainer.data_collator = collate_spoiled
    return Scene(trainer, ground.folder)


# In the base and what goes with it


def with_generation(change: dict, ground: Ground) -> Scene:
    trainer = ground.trainer()
    for name, value in change.items():
        setattr(unwrap_whisper(trainer).generation_config, name, value)
    return Scene(trainer, ground.folder)


def with_config(change: dict, ground: Ground) -> Scene:
    write_json(ground.room / "config.json", read_json(ground.folder / "config.json") | change)
    return Scene(ground.trainer(), ground.room)


def with_other_tokenizer(ground: Ground) -> Scene:
    trainer = ground.trainer()
    trainer.vocabulary = Tokenizer(models.BPE())
    ends = ["<|endoftext|>", "<|startoftranscript|>", "<|transcribe|>", "<|notimestamps|>"]
    trainer.vocabulary.add_special_tokens(ends)
    return Scene(trainer, ground.folder)


def with_broken_weights(ground: Ground) -> Scene:
    """Put a NaN into the weights, as half precision does."""
    trainer = ground.trainer()
    with torch.no_grad():
        unwrap_whisper(trainer).model.decoder.layer_norm.weight[0] = torch.nan
    return Scene(trainer, ground.folder)


# In the features


class Zeros(ClipDataset):
    """Pads log-mel with zeros, as a padding of arrays does."""

    def __getitem__(self, draw):
        row = self.split[draw.index]
        features = np.zeros((self.split.n_mels, draw.window), np.float32)
        features[:, : row.frames] = row.log_mel().T
        return WindowedClip(row, features)


class Louder(ClipDataset):
    def __getitem__(self, draw):
        clip = super().__getitem__(draw)
        clip.features[:, : clip.row.frames] *= 1.5
        return clip


class Broken(ClipDataset):
    def __getitem__(self, draw):
        clip = super().__getitem__(draw)
        clip.features[7, 3] = np.nan
        return clip


class Neighbours(ClipDataset):
    """Joins features and texts by order, one off."""

    def __getitem__(self, draw):
        other = super().__getitem__(replace(draw, index=(draw.index + 1) % len(self)))
        return WindowedClip(self.split[draw.index], other.features)


def with_dataset(kind: type[ClipDataset], ground: Ground, split: str = "train") -> Scene:
    """Make the features of train or dev in another way."""
    trainer = ground.trainer()
    if split == "train":
        trainer.train_dataset = kind(trainer.train_split)
    else:
        trainer.eval_dataset = kind(trainer.dev_split)
    return Scene(trainer, ground.folder)


# In the store: what becomes of the rows of train and dev


def with_store(change: Callable[[list[Row]], list[Row]], n_mels: int, ground: Ground) -> Scene:
    """Change the rows of a copy of the store."""
    counts = {}
    for name in ("train", "dev"):
        split = ground.store.split(name)
        rows = change([split[index] for index in range(min(FEW, len(split)))])
        write_shard(shard_path(ground.room, name, 0), rows)
        counts[name] = {"utterances": len(rows), "shards": 1}
    write_manifest(ground.room, ground.store.manifest | {"splits": counts, "n_mels": n_mels})
    return Scene(ground.trainer(open_store(ground.room)), ground.folder)


def peak_of_nan(rows: list[Row]) -> list[Row]:
    """Let a clip that nobody looks at hold NaN."""
    return [*rows[:-1], replace(rows[-1], peak=float("nan"))]


def text_too_long(rows: list[Row]) -> list[Row]:
    return [*rows[:-1], replace(rows[-1], text="palabra " * 500)]


def texts_one_off(rows: list[Row]) -> list[Row]:
    return [replace(row, text=other.text) for row, other in zip(rows, [*rows[1:], rows[0]], strict=True)]


def of_128_bins(rows: list[Row]) -> list[Row]:
    return [replace(row, mel=np.pad(row.mel, ((0, 0), (0, 48)), mode="edge")) for row in rows]


def with_dev_in_train(ground: Ground) -> Scene:
    return Scene(ground.trainer(train="dev"), ground.folder)


# In the machine


def with_full_disk(ground: Ground) -> Scene:
    usage = namedtuple("usage", "total used free")(2**40, 2**40 - 1000, 1000)
    return Scene(ground.trainer(), ground.folder, (patch.object(shutil, "disk_usage", return_value=usage),))


def with_little_memory(ground: Ground) -> Scene:
    return Scene(ground.trainer(), ground.folder, (patch.object(hardware, "free_memory", return_value=2**19),))


def with_reading_token(ground: Ground) -> Scene:
    account = {"name": "ana", "orgs": [], "auth": {"accessToken": {"role": "read"}}}
    answers = {"get_token": "a token", "whoami": account}
    patches = tuple(patch.object(huggingface_hub, name, return_value=value) for name, value in answers.items())
    return Scene(ground.trainer(), ground.folder, patches, push="ana/whisper-es")


OLD_WAY = {"forced_decoder_ids": [[1, 50262], [2, 50359]]}
TRAPS = (
    *(Trap(name, check, partial(with_pairs, pair)) for name, (check, pair) in LABEL_TRAPS.items()),
    Trap("times backwards in packed windows", "packed windows", partial(with_packs, times_backwards)),
    Trap("end masked in packed windows", "packed windows", partial(with_packs, end_masked)),
    Trap("language not forced in generate", "prompt", partial(with_generation, {"language": None})),
    Trap("another language forced in generate", "prompt", partial(with_generation, {"language": "sv"})),
    Trap("language as a tuple, by a stray comma", "prompt", partial(with_generation, {"language": ("es",)})),
    Trap("translation forced in generate", "prompt", partial(with_generation, {"task": "translate"})),
    Trap("timestamps asked for in generate", "prompt", partial(with_generation, {"return_timestamps": True})),
    Trap("forced_decoder_ids, the old way", "forced ids", partial(with_generation, OLD_WAY)),
    Trap("English-only base", "base model", partial(with_config, {"vocab_size": 51864})),
    Trap("base that is no Whisper", "base model", partial(with_config, {"model_type": "wav2vec2"})),
    Trap("tokenizer of another model", "language", with_other_tokenizer),
    Trap("NaN in the weights", "base loss", with_broken_weights),
    Trap("zeros instead of silence", "silence", partial(with_dataset, Zeros)),
    Trap("features scaled again", "feature range", partial(with_dataset, Louder)),
    Trap("NaN in features", "finite features", partial(with_dataset, Broken)),
    Trap(
        "NaN in a clip that was not looked at",
        "finite features",
        partial(with_store, peak_of_nan, 80),
    ),
    Trap("128 mel bins for a base of 80", "mel size", partial(with_store, of_128_bins, 128)),
    Trap(
        "label longer than the decoder",
        "label length",
        partial(with_store, text_too_long, 80),
    ),
    Trap("texts of other clips", "base loss", partial(with_store, texts_one_off, 80), trained=True),
    Trap("dev measured on other clips", "base decoding", partial(with_dataset, Neighbours, split="dev"), trained=True),
    Trap("dev inside train", "dev", with_dev_in_train),
    Trap("no room on the disk", "disk", with_full_disk),
    Trap("no room in memory", "memory", with_little_memory),
    Trap("token that may only read", "token", with_reading_token),
)


def spring(trap: Trap, ground: Ground) -> list[Check]:
    """Set a trap and return the checks that fail."""
    scene = trap.set(ground)
    with ExitStack() as stack:
        for pretence in scene.patches:
            stack.enter_context(pretence)
        done = preflight(scene.trainer, scene.trainer.options, scene.folder, scene.push)
    return [check for check in done if check.passed is False]


def spring_all(ground: Ground, traps: tuple[Trap, ...] = TRAPS) -> list[tuple[Trap, Check | None]]:
    """Print and return every trap and the first check that failed.

    Raises:
        LenguaError: a check fails without any trap.
    """
    sound = Trap("none", "", lambda ground: Scene(ground.trainer(), ground.folder))
    if failed := spring(sound, ground):
        raise LenguaError("a sound run to set traps in", f"{failed[0].name}: {failed[0].found}", failed[0].do)
    caught = []
    for trap in traps:
        with tempfile.TemporaryDirectory(dir=ground.room) as room:
            failed = spring(trap, replace(ground, room=Path(room)))
        caught.append((trap, failed[0] if failed else None))
        print(" | ".join(row_of(*caught[-1])), flush=True)
    return caught


def row_of(trap: Trap, check: Check | None) -> list[str]:
    """Return trap, check, and what it found."""
    return [trap.name, check.name, " ".join(check.found.split())[:100]] if check else [trap.name, "none", "nothing"]


def main(options: Options) -> dict:
    store, (folder, _) = open_store(options.store), find_model(options.base)
    with tempfile.TemporaryDirectory() as room:
        run_options = TrainOptions(
            str(options.store), Path(room) / "run", base=options.base, language="es", learning_rate=1e-5
        )
        caught = spring_all(Ground(run_options, store, folder, Path(room)))
    result = {"traps": len(caught), "caught": sum(check is not None for _, check in caught)}
    lines = [f"{result['caught']} of {result['traps']} traps are stopped before anything is trained.", ""]
    cells = [[cell.replace("|", "\\|") for cell in row_of(*pair)] for pair in caught]
    return report(options, "Traps", [*lines, *markdown(["trap", "stopped by", "found"], cells)], result)


if __name__ == "__main__":
    run(main, Options)
