"""What the tests share: a tiny real Whisper, a small folder of clips, its store; real weights and real clips."""

import csv
import os
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lengua.runtime.errors import LenguaError

# Threads that spin while they wait make torch a hundred times slower where two cores have other work, too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).parent.parent
COMMON_VOICE = ROOT.parent / "shared/data/common_voice/cv-corpus-6.1-2020-12-11"
BASE = "openai/whisper-base"
LEFT_BY_TOOLS = {".pytest_cache", ".ruff_cache", "__pycache__"}

MERGES = [("Ġ", "a"), ("Ġ", "e"), ("o", "s"), ("a", "r"), ("e", "n"), ("Ġ", "d"), ("Ġd", "e"), ("q", "u")]
TASKS = "translate transcribe startoflm startofprev nocaptions notimestamps".split()
END = "<|endoftext|>"

# A clip is as long as its text takes at a brisk pace, 0.3 to 0.9 s.
TEXTS = {
    "train": "sí, no, uno, dos, tres, cuatro, cinco, seis, siete, ocho, nueve, diez, el mar, la niña, qué tal",
    "dev": "hola, adiós, buen día, la montaña",
    "test": "casa, perro, un camión, el corazón, mañana",
}


def has_int8_instructions() -> bool:
    """Return whether this processor multiplies bytes without saturating on the way (VNNI); True where it cannot say."""
    flags = Path("/proc/cpuinfo")
    return not flags.is_file() or "vnni" in flags.read_text()


int8_is_close = pytest.mark.skipif(
    not has_int8_instructions(), reason="without VNNI int8 is further from float32 than a model this small bears"
)


@pytest.fixture(autouse=True)
def nothing_left_in_the_repository():
    """Fail a test that leaves files in the repository's root."""
    before = set(ROOT.iterdir())
    yield
    left = {path.name for path in set(ROOT.iterdir()) - before} - LEFT_BY_TOOLS
    assert not left, f"the test left {sorted(left)} in {ROOT}"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A full model folder: a real Whisper of some 45,000 parameters whose window is one second."""
    from transformers import WhisperFeatureExtractor, WhisperProcessor

    from lengua.models.checkpoints import ModelNote, save_model

    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = tiny_tokenizer()
    processor = WhisperProcessor(WhisperFeatureExtractor(feature_size=80, chunk_length=1), tokenizer)
    processor.save_pretrained(folder / "processor")
    tokenizer.save_vocabulary(str(folder / "processor"))
    save_model(tiny_whisper(tokenizer), folder / "processor", folder / "model", ModelNote())
    (folder / "model/lengua.json").unlink()  # like any Whisper that never met lengua
    return folder / "model"


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> str:
    """A `folder:` source of 24 clips by two speakers: 15 to train on, 4 for dev, 5 for test."""
    folder = tmp_path_factory.mktemp("grabaciones") / "tonos"
    (folder / "clips").mkdir(parents=True)
    rows = [("file_name", "text", "speaker", "split")]
    texts = [(split, text) for split, texts in TEXTS.items() for text in texts.split(", ")]
    for number, (split, text) in enumerate(texts):
        name = f"clips/{number:02}.wav"
        seconds = 0.3 + 0.6 * (len(text) - 2) / 10
        soundfile.write(folder / name, chirp(seconds, 180 + 25 * number), 16_000)
        rows.append((name, text, "ab"[number % 2], split))
    with open(folder / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return f"folder:{folder}"


@pytest.fixture(scope="session")
def tiny_store(tiny_folder, tiny_model, tmp_path_factory):
    """The feature store of `tiny_folder`, opened."""
    from lengua.data import features
    from lengua.data.store import open_store
    from lengua.options import FeatureOptions

    out = tmp_path_factory.mktemp("stores") / "tiny"
    features.build(FeatureOptions(tiny_folder, out, language="es", workers=1, base=str(tiny_model)))
    return open_store(out)


@pytest.fixture(scope="session")
def tiny_release(tmp_path_factory) -> Path:
    """A release of Common Voice of 60 MP3 clips: 50 to train on, 6 for dev, 4 for test; packed beside it as .tar.gz."""
    folder = tmp_path_factory.mktemp("release") / "cv-corpus-25.0-2026-03-09/es"
    (folder / "clips").mkdir(parents=True)
    texts = [text for texts in TEXTS.values() for text in texts.split(", ")]
    lines = {name: ["client_id\tpath\tsentence\tup_votes\tdown_votes\tlocale"] for name in TEXTS}
    for number in range(60):
        text, split = texts[number % len(texts)], "train" if number < 50 else "dev" if number < 56 else "test"
        name = f"common_voice_es_{number:05}.mp3"
        soundfile.write(folder / "clips" / name, chirp(0.3 + number / 100, 180 + 10 * number, 32_000), 32_000)
        lines[split].append(f"s{number % 7}\t{name}\t{text}\t2\t0\tes")
    for name, rows in lines.items():
        (folder / f"{name}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    with tarfile.open(folder.parent.parent / "es.tar.gz", "w:gz") as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.add(path, path.relative_to(folder.parent.parent))
    return folder


@pytest.fixture(scope="session")
def base_model() -> Path:
    """The folder of the real whisper-base."""
    from lengua.models.checkpoints import find_model

    try:
        return find_model(BASE)[0]
    except LenguaError as error:
        pytest.skip(f"needs the weights of {BASE}: {error}")


@pytest.fixture(scope="session")
def common_voice_es() -> Path:
    """A folder of real Common Voice in Spanish: clips/ and validated.tsv."""
    if not (COMMON_VOICE / "es/clips").is_dir():
        pytest.skip(f"needs Common Voice clips, which are not part of the repository: no {COMMON_VOICE}/es")
    return COMMON_VOICE / "es"


@pytest.fixture(scope="session")
def spoken_es(common_voice_es) -> dict[Path, str]:
    """Real clips that hold speech, by path, with what is said in them."""
    with open(common_voice_es / "validated.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    clips = {common_voice_es / "clips" / row["path"]: row["sentence"] for row in rows}
    assert len(clips) > 40 and all(path.is_file() for path in clips)
    return clips


def tiny_training(source: str, base: Path, out: Path, **more):
    """Return the options of six steps of four clips, in the window of the tiny model."""
    from lengua.options import TrainOptions

    usual = {"steps": 6, "batch_size": 4, "margin_s": (0.0, 0.1), "precision": "fp32", "device": "cpu"}
    usual["blend"] = False
    return TrainOptions(source, out, base=str(base), **(usual | more))


def interrupting(step: int, seen: list | None = None):
    """Return a watch that asks training to stop, as Ctrl-C does, after so many steps; it keeps what it has seen."""

    def watch(progress):
        if seen is not None:
            seen.append(progress)
        if progress.stage == "training" and progress.done == step and not progress.note.startswith("dev"):
            os.kill(os.getpid(), signal.SIGINT)

    return watch


def losses(run: Path) -> dict[int, float]:
    """Return {step: loss} of a run's history."""
    from lengua.runtime.files import read_jsonl

    return {record["step"]: record["loss"] for record in read_jsonl(run / "history.jsonl") if "loss" in record}


def assert_it_resumes_exactly(options) -> None:
    """Train for 15 steps, and again with an interruption after 7: the losses are the same."""
    from dataclasses import replace

    from lengua.training.train import train

    cut = replace(options, out=options.out.parent / "cut")
    train(options)
    with pytest.raises(KeyboardInterrupt, match=r"step [78] of 15"):
        train(cut, interrupting(7))
    train(cut)
    whole, resumed = losses(options.out), losses(cut.out)
    assert set(resumed) == set(whole) == {5, 10, 15}
    assert [resumed[step] for step in (5, 15)] == pytest.approx([whole[step] for step in (5, 15)], rel=1e-4)


def tiny_trainer(options, store, train="train"):
    """Return the trainer of these options over a split of a store, or a stream, as the training stage builds it."""
    from lengua.models.whisper import load_model
    from lengua.training.data import TrainingData
    from lengua.training.trainer import build_trainer

    folder, train = Path(options.base), store.split(train) if isinstance(train, str) else train
    return build_trainer(load_model(folder, "es"), folder, TrainingData(store, train), options)


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of every file, hidden ones included, by its path in the folder."""
    from lengua.runtime.files import file_sha256

    return {str(path.relative_to(folder)): file_sha256(path) for path in folder.rglob("*") if path.is_file()}


def chirp(seconds: float, hertz: float, rate: int = 16_000) -> np.ndarray:
    """Return a rising tone with overtones, swelling four times a second as speech does."""
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * hertz * (time + 0.3 * time**2)
    tone = np.sin(phase) + 0.5 * np.sin(2 * phase) + 0.25 * np.sin(5 * phase)
    return (0.2 * tone * (1 - 0.7 * np.cos(8 * np.pi * time))).astype(np.float32)


def tiny_tokenizer():
    """Return a multilingual Whisper tokenizer over the 256 bytes and a few merges."""
    from transformers import AddedToken, WhisperTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    from lengua.models.formats.hugging_face import TIMESTAMP_TOKENS
    from lengua.models.languages import LANGUAGE_NAMES

    tokens = [*bytes_to_unicode().values(), *map("".join, MERGES), END]
    specials = ["<|startoftranscript|>", *(f"<|{name}|>" for name in [*list(LANGUAGE_NAMES)[:99], *TASKS])]
    tokenizer = WhisperTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=MERGES,
        pad_token=END,
        extra_special_tokens=specials,
    )
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in TIMESTAMP_TOKENS])
    return tokenizer


def leave(path: Path, share: float | None) -> None:
    """Leave so much of a file, from its beginning; nothing but a gap where that is None."""
    whole = path.read_bytes()
    path.unlink()
    if share is not None:
        path.write_bytes(whole[: int(share * len(whole))])


def joined(clips, count: int, pause_s: float) -> np.ndarray:
    """Return the first of some files one behind the other, each with a pause behind it: 16 kHz."""
    from lengua import audio

    pause = np.zeros(round(pause_s * audio.SAMPLE_RATE), np.float32)
    return np.concatenate([piece for path in list(clips)[:count] for piece in (audio.load(path), pause)])


def tiny_whisper(tokenizer):
    """Return an untrained Whisper for a tokenizer, with all that the generation config of a released one holds."""
    import torch
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

    def token(name: str) -> int:
        return tokenizer.convert_tokens_to_ids(f"<|{name}|>")

    end = {f"{kind}_token_id": token("endoftext") for kind in ("bos", "eos", "pad")}
    sizes = {f"{side}_{size}": value for side in ("encoder", "decoder") for size, value in TINY_SIDE.items()}
    start = {"decoder_start_token_id": token("startoftranscript")}
    torch.manual_seed(17)
    config = WhisperConfig(
        vocab_size=len(tokenizer), d_model=16, max_source_positions=50, init_std=0.3, **sizes, **end, **start
    )
    model = WhisperForConditionalGeneration(config)
    loud = tokenizer.convert_tokens_to_ids([*"abcdefghijklmnopqrstuvwxyz", *map("".join, MERGES)])
    with torch.no_grad():  # so that even an untrained model writes letters, not the timestamps that outnumber them
        model.model.decoder.embed_tokens.weight[loud] *= 3
        model.model.decoder.embed_positions.weight *= 10  # and not always the same one
    languages = tokenizer.extra_special_tokens[1:100]
    model.generation_config = GenerationConfig(
        **end,
        **start,
        alignment_heads=[[0, 0], [0, 1]],
        begin_suppress_tokens=[tokenizer.convert_tokens_to_ids("Ġ"), token("endoftext")],
        suppress_tokens=[token(name) for name in ("startoftranscript", *TASKS[:-1])],
        prev_sot_token_id=token("startofprev"),
        no_timestamps_token_id=token("notimestamps"),
        is_multilingual=True,
        lang_to_id={name: tokenizer.convert_tokens_to_ids(name) for name in languages},
        task_to_id={name: token(name) for name in ("transcribe", "translate")},
        max_initial_timestamp_index=50,
        max_length=448,
        return_timestamps=False,
    )
    return model.eval()


TINY_SIDE = {"layers": 1, "attention_heads": 2, "ffn_dim": 32}
