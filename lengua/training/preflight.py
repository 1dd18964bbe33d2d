"""Preflight: check in seconds, before any training, everything that is known to ruin it.

    require_passed(preflight(trainer, options, folder))     # raises the first failure, with cause and remedy

What is checked is what training will really use: the trainer's own dataset and collator on a few of its rows, its
tokenizer, its model and generation config, its disk and memory. `lengua.training.checks` has the criteria.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from transformers import WhisperForConditionalGeneration
from transformers.models.whisper.modeling_whisper import WhisperDecoder

from lengua.audio.log_mel import FRAMES_PER_SECOND, pad_with_silence
from lengua.audio.windows import FRAME_MULTIPLE
from lengua.data.replay import without_replay
from lengua.models.languages import LANGUAGE_NAMES
from lengua.models.tokens import IGNORE_INDEX, decode_text, max_decode_tokens
from lengua.models.whisper import AdaptiveWhisper
from lengua.options import TrainOptions
from lengua.runtime.errors import LenguaError
from lengua.runtime.files import read_json
from lengua.runtime.hub import check_token
from lengua.scoring import wer
from lengua.training import checks, hardware
from lengua.training.checks import Check, ModelInterface, TrainingExample, check_of_faults
from lengua.training.samplers import SampledClip, SampledPack, make_sampler

EXAMPLE_ROWS = 3
"""Clips that are checked; the base decodes them in its full window, the only one that an untouched Whisper knows."""
ENGLISH_ONLY_VOCABULARY = 51864
"""Tokens of the released English-only models: one fewer than of the others, so that every special id is another."""
LABEL_CHECKS = (
    checks.check_start,
    checks.check_order,
    checks.check_mask,
    checks.check_prompt,
    checks.check_end,
    checks.check_space,
    checks.check_text,
)
FIX_OTHERS_FIRST = "first put right what else is wrong"


def preflight(trainer, options: TrainOptions, folder: Path, push: str | None = None) -> list[Check]:
    """Check everything, in the order in which one thing ruins another; seconds with whisper-base on two cores.

    Nothing of the trainer, an `AdaptiveTrainer` ready to train, is changed and no random number drawn. On a wrong base,
    whose folder is given, nothing else can be judged. `push` is the owner/name that something will be uploaded to.
    """
    model = unwrap_whisper(trainer)
    done = check_base(trainer.vocabulary, model, options.language, folder)
    if any(check.passed is False for check in done[:2]):
        return done
    training = model.training
    model.eval()
    try:
        sizes = model.config.num_mel_bins, model.config.max_target_positions
        takes = ModelInterface(trainer.vocabulary, capture_generate_prompt(model), *sizes)
        examples, batch = collate_examples(trainer)
        train = None if trainer.streamed is not None else trainer.train_split.column("id")
        done += [check_dev(trainer.dev_split.column("id"), train)]
        done += [check(examples, takes) for check in LABEL_CHECKS]
        texts = _stored(trainer, "text")
        done += [checks.check_length(texts, takes), checks.check_spelling(texts), checks.check_mels(examples, takes)]
        done += [checks.check_finite(examples, _stored(trainer, "peak"))]
        done += [check(examples, takes) for check in (checks.check_silence, checks.check_range)]
        if trainer.drawing.packing:
            done.append(check_packed(trainer, takes))
        done.append(_base_loss(trainer, model, batch))
        done.append(_base_decoding(trainer, folder, done))
    finally:
        model.train(training)
    done += [hardware.check_disk(hardware.disk_needed(model), options.out), _memory(trainer, model, options)]
    return [*done, check_rights(push)] if push else done


def require_passed(done: Sequence[Check]) -> None:
    """Let nothing be trained that cannot come to good.

    Raises:
        LenguaError: a check has failed. The first is explained, the others are named.
    """
    failed = [check for check in done if check.passed is False]
    if failed:
        first, others = failed[0], ", ".join(check.name for check in failed[1:])
        found = f"{first.found} (preflight: {first.name}{f', also {others}' if others else ''})"
        raise LenguaError(first.expected, found, first.do)


# What is checked


def unwrap_whisper(trainer) -> AdaptiveWhisper:
    """Return the Whisper inside whatever the trainer wraps around it."""
    return next(module for module in trainer.model.modules() if isinstance(module, AdaptiveWhisper))


def collate_examples(trainer) -> tuple[list[TrainingExample], dict[str, torch.Tensor]]:
    """Return a few rows as the trainer's own dataset and collator make them, and their batch."""
    dataset, split = _rows(trainer)
    return collate_clips(
        trainer, [dataset[SampledClip(index, trainer.drawing.longest)] for index in typical_rows(split)]
    )


def collate_packed_examples(trainer) -> dict[bool, list[TrainingExample]]:
    """Return a packed window of several clips, as training makes it, by whether its labels have timestamps."""
    dataset, split = _rows(trainer)
    packed = (batch for batch in make_sampler(split, trainer.drawing) if isinstance(batch[0], SampledPack))
    packs = [pack for batch in islice(packed, 4) for pack in batch]
    if not packs:  # too few clips for a batch of the share that is packed
        return {}
    fullest = max(packs, key=lambda pack: len(pack.draws))
    share = trainer.drawing.packing.timestamps_share
    kinds = [kind for kind, part in ((False, 1 - share), (True, share)) if part]
    return {kind: collate_clips(trainer, [dataset[replace(fullest, timestamps=kind)]])[0] for kind in kinds}


def _rows(trainer) -> tuple:
    """Return a dataset and the split behind it: of the run's own language, and dev where train is a stream."""
    if trainer.streamed is not None:
        return trainer.eval_dataset, trainer.dev_split
    return trainer.train_dataset, without_replay(trainer.train_split)


def collate_clips(trainer, clips: list) -> tuple[list[TrainingExample], dict[str, torch.Tensor]]:
    """Return what checks look at of each clip or packed window, and the batch that they make."""
    batch, examples = trainer.data_collator(clips), []
    columns = batch["decoder_input_ids"].tolist(), batch["labels"].tolist(), batch["input_features"].numpy()
    for clip, inputs, labels, features in zip(clips, *columns, strict=True):
        rows = getattr(clip, "rows", None) or (clip.row,)
        text = " ".join(row.text for row in rows)
        frames = sum(row.frames for row in rows) + sum(getattr(clip, "pauses", ()))
        examples.append(
            TrainingExample(rows[0].id, text, inputs, labels, features, frames, max(row.peak for row in rows))
        )
    return examples, batch


def typical_rows(split, count: int = EXAMPLE_ROWS) -> list[int]:
    """Return clips of about median length, each with a text of its own: neither stray words nor orations."""
    distance = abs(np.arange(len(split.frames)) - len(split.frames) // 2)
    from_the_middle = np.argsort(split.frames, kind="stable")[np.argsort(distance, kind="stable")]
    texts, chosen = split.column("text"), {}
    for index in from_the_middle.tolist():
        chosen.setdefault(texts[index], index)
        if len(chosen) == count:
            break
    return list(chosen.values())


def _stored(trainer, column: str) -> list[tuple]:
    """Return (id, value) of every row whose split is known."""
    splits = [trainer.dev_split, *([] if trainer.streamed is not None else [trainer.train_split])]
    return [pair for split in splits for pair in zip(split.column("id"), split.column(column), strict=True)]


# The base, dev and packed windows


def check_base(tokenizer, model: AdaptiveWhisper, language: str, folder: Path) -> list[Check]:
    """Check that the base is a Whisper of the language, its tokenizer its own, and no ids are forced the old way."""
    config, generation = read_json(folder / "config.json"), model.generation_config
    token, name = f"<|{language}|>", LANGUAGE_NAMES.get(language, language)
    kind, vocabulary = config.get("model_type"), config.get("vocab_size")
    languages = getattr(generation, "lang_to_id", None) or {}
    wrong = None
    if kind != "whisper":
        wrong = f"model_type {kind!r}"
    elif language != "en" and (vocabulary == ENGLISH_ONLY_VOCABULARY or not languages):
        wrong = f"an English-only Whisper (vocabulary {vocabulary})"
    ids = {"<|startoftranscript|>": generation.decoder_start_token_id, token: languages.get(token)}
    mismatches = [
        f"{text} is {tokenizer.token_to_id(text)} for the tokenizer and {id} for the model"
        for text, id in ids.items()
        if id is None or tokenizer.token_to_id(text) != id
    ]
    forced = getattr(generation, "forced_decoder_ids", None)
    return [
        check_of_faults(
            "base model", f"a Whisper that knows {name}", [wrong], "choose another --base, without .en in its name"
        ),
        check_of_faults(
            "language",
            f"a tokenizer of this very model, with a token for {name}",
            mismatches,
            "take tokenizer.json and generation_config.json from one base model",
        ),
        check_of_faults(
            "forced ids",
            "no forced_decoder_ids",
            [] if forced is None else [f"forced_decoder_ids {forced} in the generation config"],
            "set forced_decoder_ids to None; language and task of the generation config force the prompt",
        ),
    ]


def capture_generate_prompt(model: AdaptiveWhisper) -> list[int] | str:
    """Return what generate gives the decoder to begin with, or why it gives nothing."""
    if getattr(model.generation_config, "language", None) is None:
        return "it guesses the language of every clip"
    seen: list[torch.Tensor] = []
    decoder = next(module for module in model.modules() if isinstance(module, WhisperDecoder))
    handle = decoder.register_forward_pre_hook(
        lambda module, args, inputs: seen.append(inputs["input_ids"]), with_kwargs=True
    )
    window = torch.zeros(2, model.config.num_mel_bins, FRAME_MULTIPLE, device=model.device, dtype=model.dtype)
    try:
        model.generate(window, max_new_tokens=1, num_beams=1)
    except (ValueError, TypeError, KeyError) as error:
        return str(error).partition("\n")[0]
    finally:
        handle.remove()
    return seen[-1][0].tolist()


def check_dev(dev: Sequence[str], train: Sequence[str] | None) -> Check:
    """There is a dev split, and nothing in it is trained on: ids only, None where nobody knows those of train."""
    check = partial(Check, "dev", expected="a dev split of clips that are not trained on")
    check = partial(check, do="build the store again with splits by speaker")
    if not dev:
        return check(passed=False, found="an empty one")
    if train is None:
        return check(passed=None, found=f"{len(dev)} clips beside a stream, whose clips nobody knows yet")
    shared = sorted(set(dev) & set(train))
    return check(passed=not shared, found=f"{len(shared)} in both, {shared[0]} for one" if shared else "as expected")


def check_packed(trainer, takes: ModelInterface) -> Check:
    """Check windows that several clips share: what holds for one clip, and their times."""
    found = []
    for timed, examples in collate_packed_examples(trainer).items():
        labels = [one for one in LABEL_CHECKS if not timed or one not in (checks.check_mask, checks.check_prompt)]
        labels += [checks.check_times] if timed else []
        features = (checks.check_room, checks.check_silence, checks.check_range)
        found += [check(examples, takes) for check in (*labels, *features)]
    return checks.merge_checks("packed windows", found)


# The loss of the base

RELEASED_VOCABULARY = 51865
MAX_BASE_LOSS_NATS = 6.0
"""Loss a token, in nats, at which a trained Whisper of the released vocabulary (10.9 at chance) has lost its way."""
MAX_RIGHT_TO_WRONG_LOSS_RATIO = 0.8
"""A trained Whisper gives the right text less than this share of the loss of another clip's text."""
MIN_TASK_PROBABILITY = 0.5
"""That a trained Whisper gives to any task after the language."""


def _base_loss(trainer, model: AdaptiveWhisper, batch: dict[str, torch.Tensor]) -> Check:
    inputs, labels = batch["decoder_input_ids"], batch["labels"]
    tokens = torch.cat([inputs.flatten(), labels[labels != IGNORE_INDEX]])
    mels = batch["input_features"].shape[1] == model.config.num_mel_bins
    length = inputs.shape[1] <= model.config.max_target_positions
    if not (mels and length and tokens.min() >= 0 and tokens.max() < model.config.vocab_size):
        found = "features or labels that do not fit it"
        return Check("base loss", None, "clips that the base can decode", found, FIX_OTHERS_FIRST)
    return check_loss(*measure_base_losses(trainer, model, batch), model.config.vocab_size)


@torch.no_grad()
def measure_base_losses(
    trainer, model: AdaptiveWhisper, batch: dict[str, torch.Tensor]
) -> tuple[float, float | None, float]:
    """Return (loss with the right texts, with each clip's text given to the next, probability of any task).

    The last is what every Whisper that has learnt anything expects after the language.
    """
    features, inputs, labels = (batch[n].to(model.device) for n in ("input_features", "decoder_input_ids", "labels"))
    generation = model.generation_config
    start = [generation.decoder_start_token_id, generation.lang_to_id[f"<|{trainer.options.language}|>"]]
    tasks = list((getattr(generation, "task_to_id", None) or {}).values())
    with trainer.accelerator.autocast():
        encoded = model.model.encoder(features)
        right = model(encoder_outputs=encoded, decoder_input_ids=inputs)
        wrong = model(encoder_outputs=encoded, decoder_input_ids=inputs.roll(1, 0))
        begun = model(encoder_outputs=encoded, decoder_input_ids=inputs.new_tensor([start] * len(inputs)))
    losses = [trainer.compute_loss_func(*pair).item() for pair in ((right, labels), (wrong, labels.roll(1, 0)))]
    task = begun.logits[:, -1].float().softmax(-1)[:, tasks].sum(-1).mean().item()
    return losses[0], losses[1] if len(inputs) > 1 else None, task


def check_loss(right: float, wrong: float | None, task: float, vocabulary: int) -> Check:
    """A trained base expects the right text of each clip; whether it is trained at all, its own prompt tells.

    Losses are in nats a token, `wrong` with the text of another clip, if there is one.
    """
    bound = MAX_BASE_LOSS_NATS * math.log(vocabulary) / math.log(RELEASED_VOCABULARY)
    expected = f"a loss under {bound:.1f} a token, and clearly less than with another clip's text"
    found = f"{right:.2f}" + ("" if wrong is None else f", and {wrong:.2f} with another's")
    do = "read some labels while listening: another clip's text, another language, a label shifted against its input"
    if not math.isfinite(right):
        return Check("base loss", False, expected, found, "take other base weights, or train with --precision fp32")
    if task < MIN_TASK_PROBABILITY:
        return Check("base loss", None, expected, f"{found}: not judged, for this base has learnt nothing yet", do)
    passed = right < bound and (wrong is None or right < MAX_RIGHT_TO_WRONG_LOSS_RATIO * wrong)
    return Check("base loss", passed, expected, found, do)


# Decoding by the base. The hypotheses must be nearly the same as this run measures dev and with transformers alone.
# Where they are not, every WER of the run would be of something else: another language or task in generate, other
# features, weights that were not loaded as they are.

MAX_DECODING_DIFFERENCE = 0.25
"""WER of one text against the other up to which both are the same: none is expected, both being in float32."""
DECODING_CHECK = partial(
    Check,
    "base decoding",
    expected="from the run's own decoding what transformers alone writes",
    do="decode dev with the base's own generation config, language and task set, and features as they are stored",
)


def _base_decoding(trainer, folder: Path, done: list[Check]) -> Check:
    """Decode some clips in two ways, if nothing is wrong so far and the last, the loss, is of a trained base."""
    if done[-1].passed is None:
        return DECODING_CHECK(passed=None, found="a base that has learnt nothing yet", do=FIX_OTHERS_FIRST)
    if any(check.passed is False for check in done):
        return DECODING_CHECK(passed=None, found="something wrong already", do=FIX_OTHERS_FIRST)
    return compare_decodings(trainer, folder, typical_rows(trainer.dev_split))


def compare_decodings(trainer, folder: Path, clips: Sequence[int]) -> Check:
    """Decode some clips of dev in both ways, and judge."""
    try:
        measured = decode_as_measured(trainer, clips)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        return DECODING_CHECK(passed=False, found=f"none: {str(error).partition(chr(10))[0]}")
    references = [trainer.dev_split[at].text for at in clips]
    return check_decoding(references, measured, decode_with_transformers(trainer, folder, clips))


def decode_as_measured(trainer, clips: Sequence[int]) -> list[str]:
    """Return what the run's own measuring of dev makes of some of its clips, in the full window.

    In float32, like the other: half precision can make much of a language that a base hardly knows come out otherwise.
    """
    batch = trainer.data_collator(
        [trainer.eval_dataset[SampledClip(index, trainer.drawing.longest)] for index in clips]
    )
    _, tokens, _ = trainer.prediction_step(trainer.model, batch, prediction_loss_only=False)
    return [decode_text(trainer.vocabulary, ids) for ids in tokens.tolist()]


@torch.no_grad()
def decode_with_transformers(trainer, folder: Path, clips: Sequence[int]) -> list[str]:
    """Return what the weights of a folder make of the same clips by transformers alone, in float32."""
    plain = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).to(trainer.args.device).eval()
    plain.generation_config.forced_decoder_ids = None
    longest = 2 * plain.config.max_source_positions
    rows = [trainer.dev_split[index] for index in clips]
    features = torch.from_numpy(np.stack([pad_with_silence(row.log_mel(), longest, row.peak) for row in rows]))
    most = max_decode_tokens(longest / FRAMES_PER_SECOND, plain.config.max_target_positions)
    language = {"language": trainer.options.language, "task": "transcribe"}
    tokens = plain.generate(features.to(plain.device), max_new_tokens=most, num_beams=1, **language)
    return [decode_text(trainer.vocabulary, ids) for ids in tokens.tolist()]


def check_decoding(references: Sequence[str], measured: Sequence[str], plain: Sequence[str]) -> Check:
    """Both ways of decoding write nearly the same; the references tell whether either is of use."""
    rates = [wer(references, texts) for texts in (measured, plain)]
    found = f"WER {rates[0]:.0%} and {rates[1]:.0%} on {len(references)} clips of dev"
    if wer(plain, measured) > MAX_DECODING_DIFFERENCE:
        worst = max(range(len(plain)), key=lambda at: wer([plain[at]], [measured[at]]))
        return DECODING_CHECK(passed=False, found=f"{found}; {measured[worst][:60]!r} for {plain[worst][:60]!r}")
    if rates[1] >= 1:
        do = "listen to some clips while reading their texts, or take a base that knows the language"
        return DECODING_CHECK(passed=None, found=f"{found}, which is nothing to judge by", do=do)
    return DECODING_CHECK(passed=True, found=found)


# The machine


def _memory(trainer, model: AdaptiveWhisper, options: TrainOptions) -> Check:
    frames = None if trainer.streamed is not None else trainer.train_split.frames
    positions = hardware.max_frames_per_clip(trainer.drawing, frames) // 2
    half = trainer.args.bf16 or trainer.args.fp16
    need = hardware.memory_need(model, positions, half)
    others = hardware.alternative_needs(model, options, positions, half)
    return hardware.check_memory(need, options.batch_size, hardware.free_memory(model.device), others)


def check_rights(push: str) -> Check:
    """The token of this machine may upload."""
    try:
        return Check("token", True, f"a token that may write to {push}", f"that of {check_token(push)}", "")
    except LenguaError as error:
        return Check("token", False, error.expected, error.found, error.do)
