"""Training data of a run: a store, or a stream with a store of dev beside it; and a dev split where there is none.

    options, data = open_training_data(options, model_folder, watch)
    data.train, data.dev

Options that follow from the base and the store, language and learning rate, are resolved here. A store without dev
holds some clips of train out, whole speakers where there are enough of them: without dev nothing would tell which
checkpoint is best. The choice is a function of speakers and texts alone, the same in every process and at every start.

The learning rate is a fortieth of the one that a Whisper was pretrained with (Whisper paper, table 17), as Jong Wook
Kim of OpenAI advises in the README of vasistalodagala/whisper-finetune. CoRal and HiTZ train at nearly the same rates.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
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

RATES_BY_WIDTH = {384: 3.75e-5, 512: 2.5e-5, 768: 1.25e-5, 1024: 6.25e-6, 1280: 5e-6}
"""Peak of the schedule by d_model: tiny, base, small, medium, large (and turbo)."""
LORA_RATE_FACTOR, MAX_LORA_RATE = 10, 1e-4
"""Thin matrices that begin at zero want a higher rate. 1e-4 is the published rate that holds for all sizes; at 1e-3
runs are known to diverge."""
MAX_LEARNING_RATE = 1e-2
"""Nothing good was ever trained above, and 1e5 for 1e-5 is soon typed."""


def default_learning_rate(options: TrainOptions, d_model: int) -> float:
    """Return the learning rate that was asked for, else that of the nearest size.

    Raises:
        RequestError: one at which nothing can be learned.
    """
    rate = options.learning_rate
    if rate is None:
        usual = RATES_BY_WIDTH[min(RATES_BY_WIDTH, key=lambda size: abs(size - d_model))]
        return min(LORA_RATE_FACTOR * usual, MAX_LORA_RATE) if options.learn == "lora" else usual
    if not 0 < rate <= MAX_LEARNING_RATE:
        expected = f"a --learning-rate above 0, at most {MAX_LEARNING_RATE:g}"
        raise RequestError(expected, f"{rate:g}", "leave it out: the base decides")
    return rate


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
    groups = _group_by_key(map(sentence_key, texts))
    return (_fill_with_groups(groups, most) or min(groups.values(), key=len)) if len(groups) > 1 else []


def _group_by_key(keys: Iterable[str]) -> dict[str, list[int]]:
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
    general: Split | None = None
    """Other people's speech, which the run must not forget."""

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
        RequestError: something of it is not there, does not fit the base or the options, or is in train and in dev.
    """
    if is_augmenting(options.augment) and not options.stream:
        found = "features, which hold none" if not is_source(options.source) else "a source that is made a store of"
        raise RequestError("sound to augment", found, "train from a source with --stream, or use --spec-augment")
    config = whisper_config(model)
    rate, n_mels = default_learning_rate(options, config["d_model"]), config["num_mel_bins"]
    if not is_source(options.source) and options.stream:
        raise RequestError("a source to stream", f"the store {options.source}", "leave out --stream")
    wanted = _feature_options(options, n_mels)
    store = open_store(_build(wanted, watch) if is_source(options.source) else Path(options.source), n_mels)
    train = None if options.stream else store.split("train")
    splits = store.manifest["splits"]
    held_out = [name for name in ("dev", "test") if splits.get(name, {}).get("utterances")]
    if train is not None and not options.allow_leaks:
        refuse_leaks(train.column("id"), {name: store.split(name).column("id") for name in held_out})
    options = replace(options, language=_language(options, store), learning_rate=rate)
    set_aside = None
    if train is not None and "dev" not in held_out:
        train, set_aside = hold_out_dev(train)
        clips, voices = len(set_aside), len(set(set_aside.column("speaker")) - {"", None})
        count = f"{clips} clip{'s' * (clips > 1)} of {voices or 'unknown'} speaker{'s' * (voices != 1)}"
        watch(Progress("dev", 0, None, "", f"no dev split: {count} set aside from train"))
    dev = store.split("dev") if set_aside is None else set_aside
    replay = _open_replay(options, model, n_mels, dev, watch)
    if train is None:
        wanted, more = replace(wanted, language=options.language), (options.augment, options.seed, replay)
        train = Stream(wanted, "train", options.shuffle_window, *rank_and_world_size(), *more)
    elif replay:
        train = Mixture(train, replay)
    return options, TrainingData(store, train, set_aside, _open_general(options.general, n_mels))


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


def _build(wanted: FeatureOptions, watch: Watch) -> Path:
    """Build the store, or wait until the leading process of this run has."""
    while not is_main_process():
        if is_store(wanted.out):
            return wanted.out
        time.sleep(1)
    try:
        return features.build(wanted, watch).path
    except features.NoUsableUtterances as error:
        if wanted.splits != ("dev",):
            raise
        do = "leave out --stream, which sets clips of train aside, or add clips of dev to the source"
        raise RequestError("a dev split to measure on", f"{error.found} in {wanted.source}", do) from error


def _feature_options(options: TrainOptions, n_mels: int) -> FeatureOptions:
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


def _open_general(source: str | None, n_mels: int) -> Split | None:
    """Open what `--general` names: its dev split, or test where it has no dev.

    Raises:
        RequestError: a source that is not built, or a store that has neither.
    """
    if source is None:
        return None
    if is_source(source):
        do = f"build it first: lengua features {source} --out stores/general"
        raise RequestError("a feature store of other people's speech", f"the source {source}", do)
    store = open_store(Path(source), n_mels)
    has_dev = store.manifest["splits"].get("dev", {}).get("utterances")
    return store.split("dev" if has_dev else "test")


def _open_replay(options: TrainOptions, model: Path, n_mels: int, dev: Split, watch: Watch) -> Replay | None:
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
