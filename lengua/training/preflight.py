"""Preflight: check in seconds, before any training, everything that is known to ruin it.

    require_passed(preflight(trainer, options, folder))     # raises the first failure, with cause and remedy

What is checked is what training will really use: the trainer's own dataset and collator on a few of its rows, its
tokenizer, its model and generation config, its disk and memory. `lengua.training.checks` has the criteria.

`compare_decodings` transcribes the same clips as this run measures dev, and with transformers alone. The hypotheses
must be nearly the same. Where they are not, every WER of the run would be of something else: another language or task
in generate, other features, weights that were not loaded as they are.
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
from lengua.models.tokens import IGNORE_INDEX, decode_text, end_token, max_decode_tokens
from lengua.models.whisper import AdaptiveWhisper
from lengua.options import TrainOptions
from lengua.runtime.errors import LenguaError
from lengua.runtime.files import read_json
from lengua.runtime.hub import check_token
from lengua.scoring import wer
from lengua.training import checks, hardware
from lengua.training.checks import Check, TrainingExample
from lengua.training.samplers import SampledClip, SampledPack, make_sampler

EXAMPLE_ROWS = 3
"""Clips that are looked at; the base hears them in its full window, the only one that an untouched Whisper knows."""


def unwrap_whisper(trainer) -> AdaptiveWhisper:
    """Return the Whisper inside whatever the trainer wraps around it."""
    return next(module for module in trainer.model.modules() if isinstance(module, AdaptiveWhisper))


def collate_examples(trainer) -> tuple[list[TrainingExample], dict[str, torch.Tensor]]:
    """Return a few rows as the trainer's own data set and collator make them; those of dev where train is a stream."""
    dataset, split = _rows(trainer)
    clips = [
        dataset[SampledClip(index, trainer.drawing.longest)]
        for index in typical_rows(split.frames, split.column("text"))
    ]
    return _collated(trainer, clips)


def collate_packed_examples(trainer) -> dict[bool, list[TrainingExample]]:
    """Return a packed window of several clips, as training makes it, by whether its labels have timestamps."""
    dataset, split = _rows(trainer)
    packed = (batch for batch in make_sampler(split, trainer.drawing) if isinstance(batch[0], SampledPack))
    fullest = max(
        (pack for batch in islice(packed, 4) for pack in batch), key=lambda pack: len(pack.draws), default=None
    )
    if fullest is None:  # too few clips for a batch of the share that is packed
        return {}
    share = trainer.drawing.packing.timestamps_share
    kinds = [kind for kind, part in ((False, 1 - share), (True, share)) if part]
    return {kind: _collated(trainer, [dataset[replace(fullest, timestamps=kind)]])[0] for kind in kinds}


def _rows(trainer) -> tuple:
    """Return a data set and the split behind it, of the run's own language where another is replayed."""
    if trainer.streamed is not None:
        return trainer.eval_dataset, trainer.dev_split
    return trainer.train_dataset, without_replay(trainer.train_split)


def _collated(trainer, clips: list) -> tuple[list[TrainingExample], dict[str, torch.Tensor]]:
    batch = trainer.data_collator(clips)
    columns = batch["decoder_input_ids"].tolist(), batch["labels"].tolist(), batch["input_features"].numpy()
    return [_example(clip, *told) for clip, *told in zip(clips, *columns, strict=True)], batch


def _example(clip, inputs: list[int], labels: list[int], features: np.ndarray) -> TrainingExample:
    rows = getattr(clip, "rows", None) or (clip.row,)
    text, frames = " ".join(row.text for row in rows), sum(row.frames for row in rows)
    return TrainingExample(rows[0].id, text, inputs, labels, features, frames, max(row.peak for row in rows))


def typical_rows(frames: np.ndarray, texts: Sequence[str], count: int = EXAMPLE_ROWS) -> list[int]:
    """Return clips of about median length, each with a text of its own: neither stray words nor orations."""
    distance = abs(np.arange(len(frames)) - len(frames) // 2)
    from_the_middle = np.argsort(frames, kind="stable")[np.argsort(distance, kind="stable")]
    chosen: dict[str, int] = {}
    for index in from_the_middle.tolist():
        chosen.setdefault(texts[index], index)
        if len(chosen) == count:
            break
    return list(chosen.values())


def capture_generate_prompt(model: AdaptiveWhisper) -> list[int] | str:
    """Return what generate gives the decoder to begin with, or why it gives nothing."""
    if getattr(model.generation_config, "language", None) is None:
        return "it guesses the language of every clip"
    seen: list[torch.Tensor] = []
    decoder = next(module for module in model.modules() if isinstance(module, WhisperDecoder))
    handle = decoder.register_forward_pre_hook(partial(_record_decoder_inputs, seen), with_kwargs=True)
    window = torch.zeros(2, model.config.num_mel_bins, FRAME_MULTIPLE, device=model.device, dtype=model.dtype)
    try:
        model.generate(window, max_new_tokens=1, num_beams=1)
    except (ValueError, TypeError, KeyError) as error:
        return str(error).partition("\n")[0]
    finally:
        handle.remove()
    return seen[-1][0].tolist()


def _record_decoder_inputs(seen: list[torch.Tensor], module, positional, named) -> None:
    seen.append(named["input_ids"])


MAX_DECODING_DIFFERENCE = 0.25
"""WER of one text against the other up to which both are the same: none is expected, both being in float32."""
DECODING_CHECK_NAME = "base decoding"
DECODING_EXPECTED = "from the run's own decoding what transformers alone writes"
DECODING_REMEDY = (
    "decode dev with the base's own generation config, language and task set, and features as they are stored"
)


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


def compare_decodings(trainer, folder: Path, clips: Sequence[int]) -> Check:
    """Hear some clips of dev in both ways, and judge."""
    try:
        heard = decode_as_measured(trainer, clips)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        return Check(
            DECODING_CHECK_NAME, False, DECODING_EXPECTED, f"none: {str(error).partition(chr(10))[0]}", DECODING_REMEDY
        )
    return check_decoding(
        [trainer.dev_split[at].text for at in clips], heard, decode_with_transformers(trainer, folder, clips)
    )


def check_decoding(said: Sequence[str], heard: Sequence[str], published: Sequence[str]) -> Check:
    """Both ways of decoding write nearly the same; what was said tells whether either is of use."""
    apart, rates = wer(published, heard), [wer(said, texts) for texts in (heard, published)]
    found = f"WER {rates[0]:.0%} and {rates[1]:.0%} on {len(said)} clips of dev"
    if apart > MAX_DECODING_DIFFERENCE:
        worst = max(range(len(said)), key=lambda at: wer([published[at]], [heard[at]]))
        return Check(
            DECODING_CHECK_NAME,
            False,
            DECODING_EXPECTED,
            f"{found}; {heard[worst][:60]!r} for {published[worst][:60]!r}",
            DECODING_REMEDY,
        )
    if rates[1] >= 1:
        do = "listen to some clips while reading their texts, or take a base that knows the language"
        return Check(DECODING_CHECK_NAME, None, DECODING_EXPECTED, f"{found}, which is nothing to judge by", do)
    return Check(DECODING_CHECK_NAME, True, DECODING_EXPECTED, found, DECODING_REMEDY)


RELEASED_VOCABULARY = 51865
MAX_BASE_LOSS_NATS = 6.0
"""Loss a token, in nats, at which a trained Whisper of the released vocabulary (10.9 at chance) has lost its way."""
MAX_RIGHT_TO_WRONG_LOSS_RATIO = 0.8
"""A trained Whisper gives the right text less than this share of the loss of another clip's text."""


def preflight(trainer, options: TrainOptions, folder: Path, push: str | None = None) -> list[Check]:
    """Look at everything, in the order in which one thing ruins another; seconds with whisper-base on two cores.

    Nothing of the trainer is changed and no random number drawn. On a wrong base nothing else can be judged.

    Args:
        trainer: an `AdaptiveTrainer`, ready to train.
        options: with their language.
        folder: the base model's.
        push: owner/name that something will be uploaded to.
    """
    model = unwrap_whisper(trainer)
    done = _of_base(trainer.vocabulary, model, options.language, folder)
    if any(check.passed is False for check in done[:2]):
        return done
    training = model.training
    model.eval()
    try:
        examples, batch = collate_examples(trainer)
        done += [_dev(trainer)]
        done += _of_labels(trainer, model, examples)
        done += _of_features(trainer, model, examples)
        done += [_packed(trainer, model)] if trainer.drawing.packing else []
        done += [_loss(trainer, model, batch)]
        done += [_decoding(trainer, folder, done)]
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


def format_checks(done: Sequence[Check]) -> str:
    """Return the checks as text for a terminal: one line each, and the cure below those that failed."""
    width = max(len(check.name) for check in done)
    words = {True: "ok", False: "wrong", None: "unknown"}
    lines = []
    for check in done:
        lines.append(f"{words[check.passed]:<7}  {check.name:<{width}}  {check.found}")
        if check.passed is False:
            lines.append(f"{'':<7}  {'':<{width}}  -> expected {check.expected}: {check.do}")
    return "\n".join(lines)


# The checks, by what they look at


@torch.no_grad()
def measure_base_losses(
    trainer, model: AdaptiveWhisper, batch: dict[str, torch.Tensor]
) -> tuple[float, float | None, float]:
    """Return (loss with the right texts, with each clip's text given to the next, what a task is expected with).

    The last is the probability of any task after the language, which every Whisper that has learnt anything knows.
    """
    features, inputs, labels = (batch[n].to(model.device) for n in ("input_features", "decoder_input_ids", "labels"))
    told = model.generation_config
    start = [told.decoder_start_token_id, told.lang_to_id[f"<|{trainer.options.language}|>"]]
    tasks = list((getattr(told, "task_to_id", None) or {}).values())
    with trainer.accelerator.autocast():
        heard = model.model.encoder(features)
        right = model(encoder_outputs=heard, decoder_input_ids=inputs)
        wrong = model(encoder_outputs=heard, decoder_input_ids=inputs.roll(1, 0))
        begun = model(encoder_outputs=heard, decoder_input_ids=inputs.new_tensor([start] * len(inputs)))
    losses = [trainer.compute_loss_func(*pair).item() for pair in ((right, labels), (wrong, labels.roll(1, 0)))]
    taught = begun.logits[:, -1].float().softmax(-1)[:, tasks].sum(-1).mean().item()
    return losses[0], losses[1] if len(inputs) > 1 else None, taught


def _of_base(tokenizer, model: AdaptiveWhisper, language: str, folder: Path) -> list[Check]:
    told, token = model.generation_config, f"<|{language}|>"
    languages = getattr(told, "lang_to_id", None) or {}
    in_model = {"<|startoftranscript|>": told.decoder_start_token_id, token: languages.get(token)}
    in_tokenizer = {name: tokenizer.token_to_id(name) for name in in_model}
    return [
        checks.check_base(read_json(folder / "config.json"), bool(languages), language),
        checks.check_language(language, in_tokenizer, in_model),
        checks.check_forced(getattr(told, "forced_decoder_ids", None)),
    ]


def _dev(trainer) -> Check:
    train = None if trainer.streamed is not None else trainer.train_split.column("id")
    return check_dev(trainer.dev_split.column("id"), train)


def _stored(trainer, column: str) -> list[tuple]:
    """Return (id, value) of every row whose split is known."""
    splits = [trainer.dev_split, *([] if trainer.streamed is not None else [trainer.train_split])]
    return [pair for split in splits for pair in zip(split.column("id"), split.column(column), strict=True)]


def _of_labels(trainer, model: AdaptiveWhisper, examples: list[TrainingExample]) -> list[Check]:
    tokenizer, end = trainer.vocabulary, end_token(trainer.vocabulary)
    return [
        checks.check_start(examples, tokenizer.token_to_id("<|startoftranscript|>")),
        checks.check_order(examples),
        checks.check_mask(examples, end),
        checks.check_prompt(examples, capture_generate_prompt(model), tokenizer),
        checks.check_end(examples, end),
        checks.check_space(examples, tokenizer),
        checks.check_text(examples, tokenizer),
        checks.check_length(_stored(trainer, "text"), tokenizer, model.config.max_target_positions),
    ]


def _of_features(trainer, model: AdaptiveWhisper, examples: list[TrainingExample]) -> list[Check]:
    return [
        checks.check_mels(examples, model.config.num_mel_bins),
        checks.check_finite(examples, _stored(trainer, "peak")),
        checks.check_silence(examples),
        checks.check_range(examples),
    ]


def _packed(trainer, model: AdaptiveWhisper) -> Check:
    """Look at windows that several clips share: what holds for one clip, and their times."""
    tokenizer, forced, positions = trainer.vocabulary, capture_generate_prompt(model), model.config.max_target_positions
    start, end = (tokenizer.token_to_id(name) for name in ("<|startoftranscript|>", "<|endoftext|>"))
    found = []
    for timed, examples in collate_packed_examples(trainer).items():
        found += [checks.check_start(examples, start), checks.check_order(examples)]
        if timed:
            found.append(checks.check_times(examples, forced, tokenizer.token_to_id("<|0.00|>")))
        else:
            found += [checks.check_mask(examples, end), checks.check_prompt(examples, forced, tokenizer)]
        found += [checks.check_end(examples, end), checks.check_space(examples, tokenizer)]
        found += [checks.check_text(examples, tokenizer), checks.check_room(examples, positions)]
        found += [checks.check_silence(examples), checks.check_range(examples)]
    return checks.merge_checks("packed windows", found)


def _loss(trainer, model: AdaptiveWhisper, batch: dict[str, torch.Tensor]) -> Check:
    inputs, labels = batch["decoder_input_ids"], batch["labels"]
    words = torch.cat([inputs.flatten(), labels[labels != IGNORE_INDEX]])
    mels = batch["input_features"].shape[1] == model.config.num_mel_bins
    length = inputs.shape[1] <= model.config.max_target_positions
    if not (mels and length and words.min() >= 0 and words.max() < model.config.vocab_size):
        do = "first put right what else is wrong"
        return Check("base loss", None, "clips that the base can hear", "features or labels that do not fit it", do)
    return check_loss(*measure_base_losses(trainer, model, batch), model.config.vocab_size)


def _decoding(trainer, folder: Path, done: list[Check]) -> Check:
    """Decode some clips in two ways, if nothing is wrong so far and the last, the loss, is of a trained base."""
    heard = done[-1]
    if not heard.passed or any(check.passed is False for check in done):
        found = "something wrong already" if heard.passed is not None else "a base that has learnt nothing yet"
        return Check("base decoding", None, "clips that the base hears", found, "first put right what else is wrong")
    return compare_decodings(trainer, folder, typical_rows(trainer.dev_split.frames, trainer.dev_split.column("text")))


def _memory(trainer, model: AdaptiveWhisper, options: TrainOptions) -> Check:
    frames = None if trainer.streamed is not None else trainer.train_split.frames
    positions = hardware.max_frames_per_clip(trainer.drawing, frames) // 2
    half = trainer.args.bf16 or trainer.args.fp16
    need, others = (
        hardware.memory_need(model, positions, half),
        hardware.alternative_needs(model, options, positions, half),
    )
    return hardware.check_memory(need, options.batch_size, hardware.free_memory(model.device), others)


def check_loss(right: float, wrong: float | None, taught: float, vocabulary: int) -> Check:
    """A trained base hears the right text in each clip; whether it is trained at all, its own prompt tells.

    Args:
        right: loss a token, in nats, with the text of each clip.
        wrong: with that of another; None where there is only one.
        taught: the probability it gives to any task after the language.
    """
    bound = MAX_BASE_LOSS_NATS * math.log(vocabulary) / math.log(RELEASED_VOCABULARY)
    expected = f"a loss under {bound:.1f} a token, and clearly less than with another clip's text"
    found = f"{right:.2f}" + ("" if wrong is None else f", and {wrong:.2f} with another's")
    do = "read some labels while listening: another clip's text, another language, a label shifted against its input"
    if not math.isfinite(right):
        return Check("base loss", False, expected, found, "take other base weights, or train with --precision fp32")
    if taught < 0.5:
        return Check("base loss", None, expected, f"{found}: not judged, for this base has learnt nothing yet", do)
    return Check(
        "base loss",
        right < bound and (wrong is None or right < MAX_RIGHT_TO_WRONG_LOSS_RATIO * wrong),
        expected,
        found,
        do,
    )


def check_dev(dev: Sequence[str], train: Sequence[str] | None) -> Check:
    """There is a dev split, and nothing in it is trained on: ids only, None where nobody knows those of train."""
    expected, do = "a dev split of clips that are not trained on", "build the store again with splits by speaker"
    if not dev or train is None:
        found = f"{len(dev)} clips beside a stream, whose clips nobody knows yet" if dev else "an empty one"
        return Check("dev", None if dev else False, expected, found, do)
    shared = sorted(set(dev) & set(train))
    return checks.check_of_faults(
        "dev", expected, [f"{len(shared)} in both, {shared[0]} for one"] if shared else [], do
    )


def check_rights(push: str) -> Check:
    """The token of this machine may upload."""
    try:
        return Check("token", True, f"a token that may write to {push}", f"that of {check_token(push)}", "")
    except LenguaError as error:
        return Check("token", False, error.expected, error.found, error.do)
