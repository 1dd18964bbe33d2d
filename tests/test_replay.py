"""Replay: the share is exact, nothing of the run's own speech is lost, and each label is in its own language."""

import shutil
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_it_resumes_exactly, tiny_trainer, tiny_training

from lengua.data import features
from lengua.data.replay import ForeignRow, Mixture, Replay, clips_per_epoch, without_replay
from lengua.data.store import Row, Split, open_store, write_shard
from lengua.data.streaming import Stream
from lengua.models.checkpoints import load_tokenizer
from lengua.models.tokens import token_id
from lengua.options import FeatureOptions
from lengua.runtime.errors import RequestError
from lengua.runtime.files import read_json, write_json
from lengua.training.data import open_training_data
from lengua.training.dataset import ClipDataset, Collator, PackedWindow, StreamedBatches
from lengua.training.preflight import preflight
from lengua.training.samplers import BatchPlan, Packing, make_sampler
from lengua.training.train import train

DRAWING = BatchPlan(batch_size=8, margin_s=(0.3, 1.5), padded_share=0.1, seed=17)
FIRST = [[(12, 3000)], [(1, 808), (49, 808), (27, 808), (63, 808)]]


def split_of(path: Path, count: int, language: str, ids: str = "clip") -> Split:
    """Return a split of blank clips of 0.5 to 7 s."""
    lengths = np.random.default_rng(17).integers(50, 700, count).tolist()
    rows = [
        Row(f"{ids}-{at}", f"{language} {at}", language, "a", frames / 100, frames, 1.0, np.zeros((frames, 80), "u1"))
        for at, frames in enumerate(lengths)
    ]
    write_shard(path, rows)
    return Split([path], 80)


@pytest.fixture(scope="module")
def spanish(tmp_path_factory) -> Split:
    return split_of(tmp_path_factory.mktemp("es") / "shard-00000.parquet", 90, "es")


@pytest.fixture(scope="module")
def swedish(tmp_path_factory) -> Split:
    """Sixty clips that are named like the Spanish ones."""
    return split_of(tmp_path_factory.mktemp("sv") / "shard-00000.parquet", 60, "sv")


@pytest.fixture
def mixture(spanish, swedish) -> Mixture:
    return Mixture(spanish, Replay(swedish, 0.1, "es"))


@pytest.fixture(scope="session")
def swedish_store(tiny_release, tiny_model, tmp_path_factory) -> Path:
    """A store of 50 clips to train on, which say that they are in Swedish."""
    out = tmp_path_factory.mktemp("stores") / "sv"
    rows = [line.split("\t") for line in (tiny_release / "train.tsv").read_text().splitlines()[1:]]
    source = tmp_path_factory.mktemp("folder")
    shutil.copytree(tiny_release / "clips", source / "clips")
    lines = ["file_name,text,speaker,split", *(f"clips/{row[1]},{row[2]},{row[0]},train" for row in rows)]
    (source / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    wanted = FeatureOptions(f"folder:{source}", out, ("train",), language="sv", workers=1, base=str(tiny_model))
    return features.build(wanted).path


@pytest.fixture
def options(tiny_store, tiny_model, swedish_store, tmp_path):
    """Fifteen Spanish clips an epoch and five Swedish ones."""
    more = {"language": "es", "learning_rate": 1e-3, "replay": str(swedish_store), "replay_share": 0.25}
    return tiny_training(str(tiny_store.path), tiny_model, tmp_path / "run", **more)


def indices(batches) -> list[int]:
    return [draw.index for batch in batches for draw in batch]


# What is drawn


@pytest.mark.parametrize("share", [0.1, 0.25, 0.3])
def test_the_share_is_exact_and_every_own_clip_comes_once(spanish, swedish, share):
    mixture = Mixture(spanish, Replay(swedish, share, "es"))
    sampler, seen = make_sampler(mixture, DRAWING), []
    assert mixture.clips == clips_per_epoch(mixture) == 90 + {0.1: 10, 0.25: 30, 0.3: 39}[share] and len(mixture) == 150
    for epoch in range(3):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler) == DRAWING.batches(mixture.clips)
        drawn = indices(batches)
        own, replayed = [at for at in drawn if at < 90], [at for at in drawn if at >= 90]
        assert sorted(own) == list(range(90))
        assert len(set(replayed)) == len(replayed) == mixture.clips - 90
        seen.append(frozenset(replayed))
        assert list(sampler) == batches
    assert len(set(seen)) == 3


def test_in_time_everything_is_replayed(mixture):
    often = Counter(at for epoch in range(90) for at in mixture.drawn(epoch)[90:].tolist())
    assert set(often) == set(range(90, 150)) and sum(often.values()) == 900
    assert max(often.values()) < 32  # 15 each, on average


def test_clips_of_like_length_share_batches_whatever_their_language(mixture):
    drawing = replace(DRAWING, margin_s=(0.3, 0.3), padded_share=0.0)
    batches = list(make_sampler(mixture, drawing))
    mixed = [batch for batch in batches if len({draw.index < 90 for draw in batch}) == 2]
    assert len(mixed) >= 5
    assert np.mean([np.ptp([mixture.frames[draw.index] for draw in batch]) for batch in batches]) < 150


def test_two_ranks_see_each_once(mixture):
    batches = list(make_sampler(mixture, replace(DRAWING, padded_share=0.0), ranks=2))
    assert len(batches) == 12  # of 13, the last of which would have no partner
    shares = [indices(batches[rank::2]) for rank in range(2)]
    assert not set(shares[0]) & set(shares[1])
    drawing = replace(DRAWING, batch_size=10, padded_share=0.0)
    every = indices(make_sampler(mixture, drawing, ranks=2))
    assert sorted(every) == mixture.drawn(0).tolist()


def test_without_replay_the_draws_of_an_epoch_are_these(spanish):
    """The same in every version, or a run that goes on after an update learns clips twice."""
    batches = list(make_sampler(spanish, replace(DRAWING, batch_size=4)))
    assert sorted(indices(batches)) == list(range(90)) and len(batches) == 24
    assert [[(draw.index, draw.window) for draw in batch] for batch in batches[:2]] == FIRST


def test_columns_rows_and_names(mixture, spanish, swedish):
    assert mixture.column("id")[89:91] == ["clip-89", "replay/clip-0"] and len(set(mixture.column("id"))) == 150
    assert mixture.column("text")[90] == "sv 0" and mixture.frames.tolist()[90] == swedish.frames[0]
    own, foreign = mixture[3], mixture[93]
    assert type(own) is Row and own.id == "clip-3"
    assert type(foreign) is ForeignRow and (foreign.id, foreign.language) == ("replay/clip-3", "sv")
    assert np.array_equal(foreign.mel, swedish[3].mel)
    assert without_replay(mixture) is spanish and without_replay(spanish) is spanish
    with pytest.raises(IndexError):
        mixture[150]
    assert type(Mixture(spanish, Replay(swedish, 0.1, "sv"))[93]) is Row  # the run's language needs no other label


def test_what_is_in_dev_is_not_replayed(swedish):
    replay = Replay(swedish, 0.1, "es", barred_ids={"clip-7"}, barred_texts={"sv9"})
    assert (len(replay), replay.left_out) == (58, 2)
    assert not {"sv 7", "sv 9"} & set(replay.column("text"))
    assert [replay[at].text for at in range(58)] == replay.column("text")


def test_shares_that_cannot_be_are_refused(spanish, swedish):
    for share in (0.0, 1.0, -0.2):
        with pytest.raises(RequestError, match="--replay-share above 0 and below 1"):
            Replay(swedish, share, "es")
    with pytest.raises(RequestError, match=r"90 clips.*found 60 .* beside 90; lower --replay-share to 0\.4"):
        Mixture(spanish, Replay(swedish, 0.5, "es"))


# Labels


def languages_of(tokenizer, batch) -> list[str]:
    names = {token_id(tokenizer, f"<|{name}|>"): name for name in ("es", "sv")}
    return [names[row[1]] for row in batch["decoder_input_ids"].tolist()]


def test_each_label_is_in_its_own_language(mixture, tiny_model):
    tokenizer = load_tokenizer(tiny_model)
    clips, collate, seen = ClipDataset(mixture), Collator(tokenizer, "es"), Counter()
    for draws in make_sampler(mixture, DRAWING):
        languages = languages_of(tokenizer, collate([clips[draw] for draw in draws]))
        assert languages == ["es" if draw.index < 90 else "sv" for draw in draws]
        seen.update(languages)
    assert seen == {"es": 90, "sv": 10}


def test_the_run_says_in_what_language_its_own_labels_are(spanish, tiny_model):
    tokenizer, clips = load_tokenizer(tiny_model), ClipDataset(spanish)
    draws = next(iter(make_sampler(spanish, DRAWING)))
    assert set(languages_of(tokenizer, Collator(tokenizer, "sv")([clips[draw] for draw in draws]))) == {"sv"}


def test_a_packed_window_has_one_language(mixture, tiny_model):
    tokenizer = load_tokenizer(tiny_model)
    clips, collate = ClipDataset(mixture), Collator(tokenizer, "es")
    seen, windows = [], Counter()
    for packs in make_sampler(mixture, replace(DRAWING, packing=Packing(tokenizer, 0.3))):
        made = [clips[pack] for pack in packs]
        languages = languages_of(tokenizer, collate(made))
        for clip, language in zip(made, languages, strict=True):
            assert isinstance(clip, PackedWindow) and {row.language for row in clip.rows} == {language}
        windows.update(languages)
        seen += [draw.index for pack in packs for draw in pack.draws]
    assert sorted(seen) == mixture.drawn(0).tolist() and min(windows.values()) >= 3


# Streams


def test_beside_each_block_of_a_stream_others_are_replayed(tiny_release, swedish):
    def stream(rank=0, ranks=1):
        wanted = FeatureOptions(f"common_voice:{tiny_release}", workers=1)
        return Stream(wanted, "train", 16, rank, ranks, replay=Replay(swedish, 0.2, "es"))

    blocks = list(islice(stream().blocks(), 8))
    assert [len(block) for block in blocks] == [20, 20, 20, 2] * 2 and stream().items == 62
    replayed = [[id for id in block.column("id") if id.startswith("replay/")] for block in blocks]
    assert [len(ids) for ids in replayed] == [4, 4, 4, 0] * 2 and len(set(map(tuple, replayed))) == 7
    assert [block.column("id") for block in islice(stream().blocks(1, 1), 2)] == [b.column("id") for b in blocks[5:7]]
    others = [block.column("id")[-4:] for rank in range(2) for block in islice(stream(rank, 2).blocks(), 1)]
    assert set(others[0]) != set(others[1])
    drawn = [clip.row for batch in StreamedBatches(stream(), DRAWING, 10) for clip in batch]
    assert Counter(type(row) for row in drawn) == {Row: 50, ForeignRow: 12}
    with pytest.raises(RequestError, match="found 60 in the store to replay, beside 2048"):
        Stream(FeatureOptions(f"common_voice:{tiny_release}"), replay=Replay(swedish, 0.2, "es"))


def test_a_stream_learns_with_replay(options, tiny_release):
    streamed = {"source": f"common_voice:{tiny_release}", "stream": True, "shuffle_window": 16, "workers": 1}
    result = train(replace(options, steps=None, epochs=1.0, replay_share=0.2, **streamed))
    assert result.steps == 17  # 62 clips, four at a time, and one padded by itself


# Training


def test_a_run_counts_what_is_replayed_and_says_so(options, tiny_model):
    told = []
    asked, speech = open_training_data(
        replace(options, steps=None, epochs=3.0, padded_share=0.0), tiny_model, told.append
    )
    assert speech.clips == 20 and isinstance(speech.train, Mixture)
    assert [progress.note for progress in told if progress.stage == "replay"] == [
        f"replay: 25.0% of the clips from {options.replay}, which has 42; 8 left out, for they are in dev"
    ]
    trainer = tiny_trainer(asked, speech.store, speech.train)
    assert trainer.args.max_steps == 15
    done = {check.name: check for check in preflight(trainer, asked, tiny_model)}
    assert [name for name, check in done.items() if check.passed is False] == [] and done["dev"].passed
    for epoch in range(2):
        loader = trainer.get_train_dataloader()
        loader.batch_sampler.set_epoch(epoch)
        labels = [one for batch in loader for one in languages_of(trainer.vocabulary, batch)]
        assert Counter(labels) == {"es": 15, "sv": 5}
    dev = [one for batch in trainer.get_eval_dataloader() for one in languages_of(trainer.vocabulary, batch)]
    assert set(dev) == {"es"}


def test_interrupted_it_resumes_to_the_same_losses(options):
    assert_it_resumes_exactly(replace(options, steps=15, evaluations=3))


def test_stores_that_do_not_fit_are_refused(options, tiny_model, tiny_folder, tmp_path):
    def refused(**more):
        return open_training_data(replace(options, **more), tiny_model, lambda progress: None)

    with pytest.raises(RequestError, match="build it first: lengua features sample:es --n-mels 80"):
        refused(replay="sample:es")
    with pytest.raises(RequestError, match="expected a feature store"):
        refused(replay=str(tmp_path / "nothing"))
    features.build(FeatureOptions(tiny_folder, tmp_path / "wide", language="sv", n_mels=128, workers=1))
    with pytest.raises(RequestError, match="features of 80 mel bins; found 128"):
        refused(replay=str(tmp_path / "wide"))
    with pytest.raises(RequestError, match="lower --replay-share"):
        refused(replay_share=0.9)


def test_a_language_that_the_base_has_no_token_for_is_refused(options, tiny_model, swedish_store, tmp_path):
    rows = [replace(row, language="yue") for row in open_store(swedish_store).split("train")]
    write_shard(tmp_path / "yue/train/shard-00000.parquet", rows)
    write_json(tmp_path / "yue/manifest.json", read_json(swedish_store / "manifest.json"))
    with pytest.raises(RequestError, match=r"a tokenizer with <\|yue\|>"):
        open_training_data(replace(options, replay=str(tmp_path / "yue")), tiny_model, lambda progress: None)
