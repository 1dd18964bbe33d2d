"""Training data of a run: a store, or a stream with a store of dev beside it; and a dev split where there is none.

    options, data = open_training_data(options, model_folder, watch)
    data.train, data.dev

Options that follow from the base and the store, language and learning rate, are resolved here. A store without dev
holds some clips of train out, whole speakers where there are enough of them: without dev nothing would tell which
checkpoint is best. The choice is a function of speakers and texts alone, the same in every process and at every start.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lengua.audio.augmentation import is_augmenting
from lengua.data import features
from lengua.data.leakage import refuse_leaks
from lengua.data.replay import Mixture, Replay, clips_per_epoch
from lengua.data.sources import SPLITS, is_source
from lengua.data.splits import hash_position, sentence_key
from lengua.data.store import Split, Store, is_store, open_store
from lengua.data.streaming import Stream
from lengua.models.checkpoints import load_tokenizer
from lengua.models.languages import LANGUAGE_NAMES, language_code
from lengua.models.tokens import token_id
from lengua.models.whisper import whisper_config
from lengua.options import FeatureOptions, TrainOptions
from lengua.runtime.errors import RequestError
from lengua.runtime.progress import Progress, Watch
from lengua.runtime.system import is_main_process, rank_and_world_size
from lengua.scoring import bootstrap_unit
from lengua.training.arguments import default_learning_rate

HELD_OUT_SHARE = 0.1
MAX_HELD_OUT_CLIPS = 500
"""More would make evaluations slow, and tell little more."""


def hold_out_dev(train: Split) -> tuple[Split, Split]:
    """Return (train, dev), views of a split of which one has what the other has not.

    Raises:
        RequestError: too few clips, or one text or speaker for all.
    """
    chosen = choose_held_out(train.column("speaker"), train.column("text"))
    if not chosen:
        found = f"{len(train)} in train, none in dev, and no way to part them by text"
        raise RequestError("clips to learn from and others to measure on", found, "record more, of unlike texts")
    rest = sorted(set(range(len(train))) - set(chosen))
    return train.subset(rest), train.subset(chosen)


def choose_held_out(speakers: Sequence[str], texts: Sequence[str]) -> list[int]:
    """Return the clips to set aside: whole speakers, or all clips of a text where speakers are few or speak long."""
    most = min(MAX_HELD_OUT_CLIPS, max(1, round(HELD_OUT_SHARE * len(texts))))
    if bootstrap_unit(speakers) == "speaker":
        chosen = _fill_with_groups(_group_by_key(speakers), most)
        if 2 * len(chosen) >= most:
            return chosen
    groups = _group_by_key([sentence_key(text) for text in texts])
    if len(groups) < 2:
        return []
    return _fill_with_groups(groups, most) or min(groups.values(), key=len)


def _group_by_key(keys: Sequence[str]) -> dict[str, list[int]]:
    groups = defaultdict(list)
    for index, key in enumerate(keys):
        groups[key].append(index)
    return groups


def _fill_with_groups(groups: dict[str, list[int]], most: int) -> list[int]:
    """Return the members of whole groups, drawn by their keys, as many as there is room for."""
    chosen: list[int] = []
    for key in sorted(groups, key=hash_position):
        if len(chosen) + len(groups[key]) <= most:
            chosen += groups[key]
    return sorted(chosen)


@dataclass(frozen=True)
class TrainingData:
    """The speech of a run."""

    store: Store
    """Holds dev where there is one, and train too where that is not streamed."""
    train: Split | Mixture | Stream
    set_aside: Split | None = None
    """Clips of train that are measured on instead of learned from, where the store has no dev."""

    @property
    def dev(self) -> Split:
        return self.store.split("dev") if self.set_aside is None else self.set_aside

    @property
    def note(self) -> dict:
        """What run.json says of it: how many clips of train are measured on, if any."""
        return {} if self.set_aside is None else {"set_aside_from_train": len(self.set_aside)}

    @property
    def clips(self) -> int | None:
        """Clips of an epoch over all processes; None for a stream whose length nobody tells."""
        return self.train.items if isinstance(self.train, Stream) else clips_per_epoch(self.train)


def open_training_data(options: TrainOptions, model: Path, watch: Watch) -> tuple[TrainOptions, TrainingData]:
    """Build what has to be built; return the options with their language and learning rate, and the speech.

    Args:
        model: the folder of the base weights, whose mel size the features must have.

    Raises:
        RequestError: no such source or store, features of another mel size, a store to be streamed, another language
            than that of the speech, nothing to measure on, or clips for it among those to learn from, a learning rate
            that is none, sound to augment that is not at hand, or speech to replay that is not there or does not fit.
    """
    if is_augmenting(options.augment) and not options.stream:
        found = "features, which hold none" if not is_source(options.source) else "a source that is made a store of"
        raise RequestError("sound to augment", found, "train from a source with --stream, or use --spec-augment")
    config = whisper_config(model)
    rate, n_mels = default_learning_rate(options, config["d_model"]), config["num_mel_bins"]
    if not is_source(options.source):
        if options.stream:
            raise RequestError("a source to stream", f"the store {options.source}", "leave out --stream")
        store = open_store(Path(options.source), n_mels)
    else:
        store = open_store(_built(_features(options, n_mels), watch), n_mels)
    whole = None if options.stream else store.split("train")
    if whole is not None and not options.allow_leaks:
        refuse_leaks(whole.column("id"), _held_out(store))
    options = replace(options, language=_language(options, store), learning_rate=rate)
    if options.stream:
        replay = _replay(options, model, n_mels, store.split("dev"), watch)
        return options, TrainingData(store, _stream(options, n_mels, replay))
    return options, _with_replay(_with_dev(store, whole, watch), options, model, n_mels, watch)


def _with_dev(store: Store, whole: Split, watch: Watch) -> TrainingData:
    """Return the speech of a store, with dev out of train where there is none."""
    if store.manifest["splits"].get("dev", {}).get("utterances"):
        return TrainingData(store, whole)
    train, dev = hold_out_dev(whole)
    voices = len(set(dev.column("speaker")) - {"", None})
    told = f"{len(dev)} clip{'s' * (len(dev) > 1)} of {voices or 'unknown'} speaker{'s' * (voices != 1)}"
    watch(Progress("dev", 0, None, "", f"no dev split: {told} set aside from train"))
    return TrainingData(store, train, dev)


def _language(options: TrainOptions, store: Store) -> str:
    """Return the language that is asked for, else the store's.

    Raises:
        RequestError: one that nobody speaks there, though rows without any may be of all; none asked for or known.
    """
    spoken = [name for name in store.manifest["languages"] if name]
    if options.language is None and not spoken:
        raise RequestError("the language of the speech", f"rows without one in {store.path}", "say it: --language es")
    if options.language is None:
        return store.language
    asked = language_code(options.language)
    if spoken and asked not in spoken:
        found = f"{', '.join(LANGUAGE_NAMES.get(name, name) for name in spoken)} ({', '.join(spoken)}) in {store.path}"
        raise RequestError(
            f"speech in {LANGUAGE_NAMES[asked]} ({asked})", found, "leave out --language, or name another store"
        )
    return asked


def _built(wanted: FeatureOptions, watch: Watch) -> Path:
    """Build the store, or wait until the leading process of this run has."""
    if is_main_process():
        try:
            return features.build(wanted, watch).path
        except features.NoUsableUtterances as error:
            if wanted.splits != ("dev",):
                raise
            do = "leave out --stream, which sets clips of train aside, or add clips of dev to the source"
            raise RequestError("a dev split to measure on", f"{error.found} in {wanted.source}", do) from error
    while not is_store(wanted.out):
        time.sleep(1)
    return wanted.out


def _features(options: TrainOptions, n_mels: int) -> FeatureOptions:
    """Return what of a source is stored in the run's folder."""
    return FeatureOptions(
        options.source,
        options.out / "store",
        splits=("dev",) if options.stream else SPLITS,
        language=options.language,
        base=options.base,
        n_mels=n_mels,
        workers=options.workers,
        filters=options.filters,
    )


def _stream(options: TrainOptions, n_mels: int, replay: Replay | None) -> Stream:
    rank, ranks = rank_and_world_size()
    wanted, more = _features(options, n_mels), (options.augment, options.seed, replay)
    return Stream(wanted, "train", options.shuffle_window, rank, ranks, *more)


def _with_replay(speech: TrainingData, options: TrainOptions, model: Path, n_mels: int, watch: Watch) -> TrainingData:
    """Return the speech with what is replayed beside it."""
    replay = _replay(options, model, n_mels, speech.dev, watch)
    return replace(speech, train=Mixture(speech.train, replay)) if replay else speech


def _held_out(store: Store) -> dict[str, list[str]]:
    """Return the ids that a store keeps for measuring, by split."""
    splits = store.manifest["splits"]
    return {name: store.split(name).column("id") for name in ("dev", "test") if splits.get(name, {}).get("utterances")}


def _replay(options: TrainOptions, model: Path, n_mels: int, dev: Split, watch: Watch) -> Replay | None:
    """Open the store that is replayed, if any; nothing of it is in dev."""
    if options.replay is None:
        return None
    if is_source(options.replay):
        do = f"build it first: lengua features {options.replay} --n-mels {n_mels} --out stores/replay"
        raise RequestError("a feature store to replay", f"the source {options.replay}", do)
    split = open_store(Path(options.replay), n_mels).split("train")
    for language in sorted(set(split.column("language")) - {""}):
        token_id(load_tokenizer(model), f"<|{language}|>")
    barred = set(dev.column("id")), {sentence_key(text) for text in dev.column("text")}
    replay = Replay(split, options.replay_share, options.language, options.seed, *barred)
    left_out = f"; {replay.left_out} left out, for they are in dev" if replay.left_out else ""
    share = f"{options.replay_share:.1%} of the clips from {options.replay}, which has {len(replay)}"
    watch(Progress("replay", 0, None, "", f"replay: {share}{left_out}"))
    return replay
