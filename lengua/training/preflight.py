"""Seconds before any training: everything that is known to ruin it is looked at.

    require(preflight(trainer, options, folder))   # raises the first failure, with cause and cure

Looked at is what training will really use: the trainer's own data set and collator on a few of its rows, its tokenizer,
its model and generation config, its disk and memory. How labels and features are judged stands in `checks`.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from lengua.errors import LenguaError
from lengua.files import read_json
from lengua.hub import check_token
from lengua.labels import IGNORED, end_token
from lengua.model import AdaptiveWhisper
from lengua.options import TrainOptions
from lengua.training import checks, resources
from lengua.training.checks import Check, Example
from lengua.training.looking import look_at, look_at_packs, prompt_of_generate, typical, whisper_of
from lengua.training.second_opinion import second_opinion

RELEASED_VOCABULARY = 51865
LOST = 6.0
"""Loss a token, in nats, at which a trained Whisper of the released vocabulary (10.9 at chance) has lost its way."""
PREFERENCE = 0.8
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
    model = whisper_of(trainer)
    done = _of_base(trainer.vocabulary, model, options.language, folder)
    if any(check.passed is False for check in done[:2]):
        return done
    training = model.training
    model.eval()
    try:
        examples, batch = look_at(trainer)
        done += [_dev(trainer)]
        done += _of_labels(trainer, model, examples)
        done += _of_features(trainer, model, examples)
        done += [_packed(trainer, model)] if trainer.drawing.packing else []
        done += [_loss(trainer, model, batch)]
        done += [_decoding(trainer, folder, done)]
    finally:
        model.train(training)
    done += [resources.check_disk(resources.disk_needed(model), options.out), _memory(trainer, model, options)]
    return [*done, check_rights(push)] if push else done


def require(done: Sequence[Check]) -> None:
    """Let nothing be trained that cannot come to good.

    Raises:
        LenguaError: a check has failed. The first is explained, the others are named.
    """
    failed = [check for check in done if check.passed is False]
    if failed:
        first, others = failed[0], ", ".join(check.name for check in failed[1:])
        found = f"{first.found} (preflight: {first.name}{f', also {others}' if others else ''})"
        raise LenguaError(first.expected, found, first.do)


def describe(done: Sequence[Check]) -> str:
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
def listen(trainer, model: AdaptiveWhisper, batch: dict[str, torch.Tensor]) -> tuple[float, float | None, float]:
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


def _of_labels(trainer, model: AdaptiveWhisper, examples: list[Example]) -> list[Check]:
    tokenizer, end = trainer.vocabulary, end_token(trainer.vocabulary)
    return [
        checks.check_start(examples, tokenizer.token_to_id("<|startoftranscript|>")),
        checks.check_order(examples),
        checks.check_mask(examples, end),
        checks.check_prompt(examples, prompt_of_generate(model), tokenizer),
        checks.check_end(examples, end),
        checks.check_space(examples, tokenizer),
        checks.check_text(examples, tokenizer),
        checks.check_length(_stored(trainer, "text"), tokenizer, model.config.max_target_positions),
    ]


def _of_features(trainer, model: AdaptiveWhisper, examples: list[Example]) -> list[Check]:
    return [
        checks.check_mels(examples, model.config.num_mel_bins),
        checks.check_finite(examples, _stored(trainer, "peak")),
        checks.check_silence(examples),
        checks.check_range(examples),
    ]


def _packed(trainer, model: AdaptiveWhisper) -> Check:
    """Look at windows that several clips share: what holds for one clip, and their times."""
    tokenizer, forced, positions = trainer.vocabulary, prompt_of_generate(model), model.config.max_target_positions
    start, end = (tokenizer.token_to_id(name) for name in ("<|startoftranscript|>", "<|endoftext|>"))
    found = []
    for timed, examples in look_at_packs(trainer).items():
        found += [checks.check_start(examples, start), checks.check_order(examples)]
        if timed:
            found.append(checks.check_times(examples, forced, tokenizer.token_to_id("<|0.00|>")))
        else:
            found += [checks.check_mask(examples, end), checks.check_prompt(examples, forced, tokenizer)]
        found += [checks.check_end(examples, end), checks.check_space(examples, tokenizer)]
        found += [checks.check_text(examples, tokenizer), checks.check_room(examples, positions)]
        found += [checks.check_silence(examples), checks.check_range(examples)]
    return checks.all_of("packed windows", found)


def _loss(trainer, model: AdaptiveWhisper, batch: dict[str, torch.Tensor]) -> Check:
    inputs, labels = batch["decoder_input_ids"], batch["labels"]
    words = torch.cat([inputs.flatten(), labels[labels != IGNORED]])
    mels = batch["input_features"].shape[1] == model.config.num_mel_bins
    length = inputs.shape[1] <= model.config.max_target_positions
    if not (mels and length and words.min() >= 0 and words.max() < model.config.vocab_size):
        do = "first put right what else is wrong"
        return Check("base loss", None, "clips that the base can hear", "features or labels that do not fit it", do)
    return check_loss(*listen(trainer, model, batch), model.config.vocab_size)


def _decoding(trainer, folder: Path, done: list[Check]) -> Check:
    """Decode some clips in two ways, if nothing is wrong so far and the last, the loss, is of a trained base."""
    heard = done[-1]
    if not heard.passed or any(check.passed is False for check in done):
        found = "something wrong already" if heard.passed is not None else "a base that has learnt nothing yet"
        return Check("base decoding", None, "clips that the base hears", found, "first put right what else is wrong")
    return second_opinion(trainer, folder, typical(trainer.dev_split.frames, trainer.dev_split.column("text")))


def _memory(trainer, model: AdaptiveWhisper, options: TrainOptions) -> Check:
    frames = None if trainer.streamed is not None else trainer.train_split.frames
    positions = resources.frames_of_a_clip(trainer.drawing, frames) // 2
    half = trainer.args.bf16 or trainer.args.fp16
    need, others = resources.need_of(model, positions, half), resources.other_needs(model, options, positions, half)
    return resources.check_memory(need, options.batch_size, resources.free_memory(model.device), others)


def check_loss(right: float, wrong: float | None, taught: float, vocabulary: int) -> Check:
    """A trained base hears the right text in each clip; whether it is trained at all, its own prompt tells.

    Args:
        right: loss a token, in nats, with the text of each clip.
        wrong: with that of another; None where there is only one.
        taught: the probability it gives to any task after the language.
    """
    bound = LOST * math.log(vocabulary) / math.log(RELEASED_VOCABULARY)
    expected = f"a loss under {bound:.1f} a token, and clearly less than with another clip's text"
    found = f"{right:.2f}" + ("" if wrong is None else f", and {wrong:.2f} with another's")
    do = "read some labels while listening: another clip's text, another language, a label shifted against its input"
    if not math.isfinite(right):
        return Check("base loss", False, expected, found, "take other base weights, or train with --precision fp32")
    if taught < 0.5:
        return Check("base loss", None, expected, f"{found}: not judged, for this base has learnt nothing yet", do)
    return Check("base loss", right < bound and (wrong is None or right < PREFERENCE * wrong), expected, found, do)


def check_dev(dev: Sequence[str], train: Sequence[str] | None) -> Check:
    """There is a dev split, and nothing in it is trained on: ids only, None where nobody knows those of train."""
    expected, do = "a dev split of clips that are not trained on", "build the store again with splits by speaker"
    if not dev or train is None:
        found = f"{len(dev)} clips beside a stream, whose clips nobody knows yet" if dev else "an empty one"
        return Check("dev", None if dev else False, expected, found, do)
    shared = sorted(set(dev) & set(train))
    return checks.judged("dev", expected, [f"{len(shared)} in both, {shared[0]} for one"] if shared else [], do)


def check_rights(push: str) -> Check:
    """The token of this machine may upload."""
    try:
        return Check("token", True, f"a token that may write to {push}", f"that of {check_token(push)}", "")
    except LenguaError as error:
        return Check("token", False, error.expected, error.found, error.do)
