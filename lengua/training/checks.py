"""Preflight checks, one function each over plain values: what is known to ruin a training run.

    check_end(examples, end=50257)    # Check("end token", passed=False, expected=..., found=..., do=...)

`lengua.training.preflight` calls them with what training will really use.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from tokenizers import Tokenizer

from lengua.audio.log_mel import silence_floor
from lengua.models.languages import LANGUAGE_NAMES
from lengua.models.tokens import IGNORE_INDEX, MAX_LABEL_TOKENS, decode_text, label_length, may_be_too_long, text_tokens

ENGLISH_ONLY_VOCABULARY = 51864
"""Tokens of the released English-only models: one fewer than of the others, so that every special id is another."""
LOG_MEL_TOLERANCE = 1e-3
"""Of log-mel values: a quarter of a step of the one-byte codec."""


@dataclass(frozen=True)
class Check:
    """One thing looked at."""

    name: str
    passed: bool | None
    """None: it could not be judged, and does not stop a run."""
    expected: str
    found: str
    do: str
    """The cure, should it have failed."""


@dataclass(frozen=True)
class TrainingExample:
    """One row as training will see it."""

    id: str
    text: str
    inputs: list[int]
    """Of the decoder, as collated: padded."""
    labels: list[int]
    features: np.ndarray = field(repr=False)
    """float32, shape (n_mels, window)."""
    frames: int
    """How many of them are speech."""
    peak: float

    @property
    def live(self) -> list[int]:
        """The labels that the loss looks at."""
        return [label for label in self.labels if label != IGNORE_INDEX]

    @property
    def first(self) -> int:
        """Where the first of them stands."""
        return next((place for place, label in enumerate(self.labels) if label != IGNORE_INDEX), len(self.labels) - 1)


def check_of_faults(name: str, expected: str, wrongs: Iterable[str | None], do: str) -> Check:
    """Return a check that fails with the first wrong that is found."""
    wrong = next((wrong for wrong in wrongs if wrong), None)
    return Check(name, wrong is None, expected, wrong or "as expected", do)


def merge_checks(name: str, found: Sequence[Check]) -> Check:
    """Return one check for several: the first that failed."""
    failed = next((check for check in found if check.passed is False), None)
    if failed is None:
        looked = ", ".join(dict.fromkeys(check.name for check in found))
        return Check(name, True, f"the right {looked}", "as expected", "nothing")
    return Check(name, False, failed.expected, f"{failed.name}: {failed.found}", failed.do)


# The base


def check_base(config: dict, multilingual: bool, language: str) -> Check:
    """A Whisper that was taught more than English, unless English is asked for.

    Args:
        config: of config.json.
        multilingual: what the generation config says.
    """
    kind, vocabulary = config.get("model_type"), config.get("vocab_size")
    english = vocabulary == ENGLISH_ONLY_VOCABULARY or not multilingual
    wrong = None
    if kind != "whisper":
        wrong = f"model_type {kind!r}"
    elif english and language != "en":
        wrong = f"an English-only Whisper (vocabulary {vocabulary})"
    expected = f"a Whisper that knows {LANGUAGE_NAMES.get(language, language)}"
    return check_of_faults("base model", expected, [wrong], "choose another --base, without .en in its name")


def check_language(language: str, in_tokenizer: dict[str, int | None], in_model: dict[str, int | None]) -> Check:
    """Start and language have a token, and the same for tokenizer and model.

    Args:
        in_tokenizer: ids by token; None where there is none.
        in_model: the same, by its generation config.
    """
    wrongs = [
        f"{name} is {in_tokenizer[name]} for the tokenizer and {told} for the model"
        for name, told in in_model.items()
        if told is None or in_tokenizer[name] != told
    ]
    expected = f"a tokenizer of this very model, with a token for {LANGUAGE_NAMES.get(language, language)}"
    return check_of_faults(
        "language", expected, wrongs, "take tokenizer.json and generation_config.json from one base model"
    )


def check_forced(forced: object) -> Check:
    """Nobody forces ids the old way, which some programs and versions obey and others pass over.

    Args:
        forced: forced_decoder_ids of the generation config. Those that config.json of the released models holds are
            looked at only where neither language nor task is set.
    """
    wrong = None if forced is None else f"forced_decoder_ids {forced} in the generation config"
    do = "set forced_decoder_ids to None; language and task of the generation config force the prompt"
    return check_of_faults("forced ids", "no forced_decoder_ids", [wrong], do)


# Labels


def check_start(examples: Sequence[TrainingExample], start: int) -> Check:
    """One start token, first in the decoder's input; none to be predicted. Two teach the model to stammer."""
    wrongs = (
        f"{one.inputs.count(start)} in the inputs and {one.live.count(start)} in the labels of {one.id}"
        for one in examples
        if one.inputs[0] != start or one.inputs.count(start) != 1 or start in one.live
    )
    expected = f"one <|startoftranscript|> ({start}) in front of the decoder's inputs and none in the labels"
    do = "strip the tokenizer's own from the labels: it is decoder_start_token_id, and bos_token_id is not it"
    return check_of_faults("start token", expected, wrongs, do)


def check_order(examples: Sequence[TrainingExample]) -> Check:
    """Every label is the token that follows in the inputs: nothing is shifted twice, or not at all."""
    wrongs = (
        f"inputs {one.inputs[:7]} over labels {one.labels[:7]} of {one.id}"
        for one in examples
        if any(
            label != IGNORE_INDEX and following != label
            for label, following in zip(one.labels[: one.first + len(one.live) - 1], one.inputs[1:], strict=False)
        )
    )
    return check_of_faults(
        "label order", "labels that are the next token of the inputs", wrongs, "shift them once, to the left"
    )


def check_mask(examples: Sequence[TrainingExample], end: int) -> Check:
    """The prompt is hidden from the loss and from nothing else, and is the same for every clip."""
    wrongs = [_mask_wrong(one, end) for one in examples]
    prompts = {tuple(one.inputs[: one.first + 1]) for one in examples}
    wrongs += [f"{len(prompts)} unlike prompts: {sorted(prompts)[:2]}"] if len(prompts) > 1 else []
    expected = "the prompt masked in the labels and whole in the inputs, the same for every clip"
    do = (
        "build decoder_input_ids and labels apart, as lengua.models.tokens.decoder_pair does; never shift masked labels"
    )
    return check_of_faults("prompt mask", expected, wrongs, do)


def _mask_wrong(one: TrainingExample, end: int) -> str | None:
    prompt, live = one.inputs[: one.first + 1], one.labels[one.first : one.first + len(one.live)]
    if IGNORE_INDEX in one.inputs or end in prompt:
        return f"inputs of {one.id} that begin {one.inputs[:5]}, where {IGNORE_INDEX} or {end} stands for the prompt"
    if not one.live or one.live[0] > end:
        return f"labels of {one.id} that begin {one.labels[:5]}: the prompt is to be predicted"
    return f"a hole in the labels of {one.id}: {one.labels}" if IGNORE_INDEX in live else None


def check_prompt(examples: Sequence[TrainingExample], forced: Sequence[int] | str, tokenizer: Tokenizer) -> Check:
    """Training uses the prompt that generate will: language, task, no timestamps.

    Args:
        forced: what generate gave the decoder, or why it did not.
    """
    refused = isinstance(forced, str)
    wrongs = (
        [f"none from generate: {forced}"] if refused else [_prompt_wrong(one, forced, tokenizer) for one in examples]
    )
    expected = "in training the prompt that generate uses"
    do = (
        "set language and task of model.generation_config to those of the labels, as models.whisper.force_language does"
    )
    return check_of_faults("prompt", expected, wrongs, do)


def _prompt_wrong(one: TrainingExample, forced: Sequence[int], tokenizer: Tokenizer) -> str | None:
    first_special = min(forced) - 1  # <|endoftext|>, below the start token
    used = one.inputs[: len(forced)] + [token for token in one.inputs[len(forced) :][:1] if token > first_special]
    if used == list(forced):
        return None
    return f"{_spelt(used, tokenizer)} for {one.id}, and {_spelt(forced, tokenizer)} from generate"


def _spelt(tokens: Sequence[int], tokenizer: Tokenizer) -> str:
    return "".join((token >= 0 and tokenizer.id_to_token(token)) or f"[{token}]" for token in tokens)


def check_end(examples: Sequence[TrainingExample], end: int) -> Check:
    """One live end token, the last label: without it a model never stops, though its loss looks good."""
    wrongs = (
        f"{one.live.count(end)} in the labels of {one.id}, which end {one.live[-3:]}"
        for one in examples
        if one.live.count(end) != 1 or one.live[-1] != end
    )
    do = "mask padding by its place: pad_token_id is the end token, and masking every such label takes the end as well"
    return check_of_faults("end token", f"one live <|endoftext|> ({end}), the last label", wrongs, do)


def check_space(examples: Sequence[TrainingExample], tokenizer: Tokenizer) -> Check:
    """Text begins with a space, as Whisper writes it."""
    texts = {one.id: tokenizer.decode(text_tokens(tokenizer, one.labels)) for one in examples}
    wrongs = (f"{text[:20]!r} for {id}" for id, text in texts.items() if not text.startswith(" "))
    return check_of_faults(
        "leading space", "labels that begin with a space", wrongs, "put it before the text before encoding"
    )


def check_text(examples: Sequence[TrainingExample], tokenizer: Tokenizer) -> Check:
    """Labels decode to what was said."""
    wrongs = (
        f"{decode_text(tokenizer, one.labels)[:60]!r} for {one.text[:60]!r} of {one.id}"
        for one in examples
        if decode_text(tokenizer, one.labels) != one.text.strip()
    )
    do = "use the tokenizer of the base, and join clips to labels by id and never by order"
    return check_of_faults("text", "labels that decode to the text of their clip", wrongs, do)


def check_length(texts: Iterable[tuple[str, str]], tokenizer: Tokenizer, positions: int = MAX_LABEL_TOKENS) -> Check:
    """No text, of (id, text), is longer than the decoder; most are too short to need counting."""
    wrongs = (
        f"{length} for {id}"
        for id, text in texts
        if may_be_too_long(text) and (length := label_length(tokenizer, text)) > positions
    )
    expected = f"labels of at most {positions} tokens, prompt and end included"
    return check_of_faults(
        "label length", expected, wrongs, "leave these clips out; cut, the model learns to stop early"
    )


def check_room(examples: Sequence[TrainingExample], positions: int = MAX_LABEL_TOKENS) -> Check:
    """Labels of joined clips fit the decoder."""
    lengths = {one.id: one.first + len(one.live) for one in examples}
    wrongs = (f"{length} for the window that begins with {id}" for id, length in lengths.items() if length > positions)
    return check_of_faults("room", f"labels of at most {positions} tokens", wrongs, "put fewer clips into a window")


def check_times(examples: Sequence[TrainingExample], forced: Sequence[int] | str, zero: int) -> Check:
    """Labels with timestamps begin at 0.00 behind language and task, and their times ascend, two for each clip.

    Args:
        forced: what generate gives the decoder without timestamps.
        zero: id of <|0.00|>.
    """
    wrongs = (
        f"{[(label - zero) / 50 for label in one.live if label >= zero]} s in {one.id}, after {one.inputs[:3]}"
        for one in examples
        if _times_wrong([label - zero for label in one.live if label >= zero])
        or one.live[0] != zero
        or one.inputs[: one.first + 1] != list(forced[:3])
    )
    do = "write them as lengua.models.tokens.timestamped_pair does"
    return check_of_faults("times", "times that begin at 0.00 and ascend, two for each clip", wrongs, do)


def _times_wrong(times: list[int]) -> bool:
    return not times or times != sorted(times) or len(times) % 2 == 1 or times[-1] > 50 * 30


# Features


def check_mels(examples: Sequence[TrainingExample], n_mels: int) -> Check:
    """Features have the mel size of the model."""
    wrongs = (f"{len(one.features)} for {one.id}" for one in examples if len(one.features) != n_mels)
    do = f"build the features again with --n-mels {n_mels}"
    return check_of_faults("mel size", f"features of {n_mels} mel bins", wrongs, do)


def check_finite(examples: Sequence[TrainingExample], peaks: Iterable[tuple[str, float]]) -> Check:
    """No NaN and no infinity, in these clips nor in the stored peak, of (id, peak), of any: one ruins all weights."""
    wrongs = [f"a peak of {peak} in {id}" for id, peak in peaks if not math.isfinite(peak)]
    wrongs += [f"NaN or infinity in {one.id}" for one in examples if not np.isfinite(one.features).all()]
    return check_of_faults(
        "finite features", "finite features", wrongs, "build the features again, without these clips"
    )


def check_silence(examples: Sequence[TrainingExample]) -> Check:
    """Behind the speech stands the clip's own silence; 0 is noise in log-mel and teaches a model to make things up."""
    wrongs = (
        f"{one.features[:, one.frames :].flat[0]:.3f} behind {one.id}, whose silence is {silence_floor(one.peak):.3f}"
        for one in examples
        if not np.allclose(
            one.features[:, one.frames :], silence_floor(one.peak), atol=LOG_MEL_TOLERANCE, equal_nan=True
        )
    )
    do = "pad with lengua.audio.log_mel.pad_with_silence, or pad the audio before its features are made"
    return check_of_faults("silence", "each clip filled up with its own floor", wrongs, do)


def check_range(examples: Sequence[TrainingExample]) -> Check:
    """Speech lies between the clip's floor and its peak: log-mel as Whisper scales it, and not normalised again."""
    wrongs = (
        f"{one.features.min():.3f} to {one.features.max():.3f} in {one.id},"
        f" whose range is {silence_floor(one.peak):.3f} to {one.peak:.3f}"
        for one in examples
        if one.features.min() < silence_floor(one.peak) - LOG_MEL_TOLERANCE
        or one.features.max() > one.peak + LOG_MEL_TOLERANCE
    )
    do = "feed the log-mel as it is stored: no mean, no variance, no decibels"
    return check_of_faults("feature range", "features between each clip's floor and its peak", wrongs, do)
