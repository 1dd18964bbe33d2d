"""Preflight checks over plain values: what is known to ruin a training run, one function for each.

    check_end(examples, wanted)    # Check("end token", passed=False, expected=..., found=..., do=...)

`lengua.training.preflight` calls them with what training will really use. A function under `@check_of_examples` tells
what is wrong with one example; the check fails with the first fault.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, wraps

import numpy as np
from tokenizers import Tokenizer

from lengua.audio.log_mel import silence_floor
from lengua.models.tokens import IGNORE_INDEX, decode_text, end_token, label_length, may_be_too_long, text_tokens

LOG_MEL_TOLERANCE = 1e-3
"""Of log-mel values: a quarter of a step of the one-byte codec."""
TICKS_PER_SECOND = 50
"""Of timestamp tokens."""


@dataclass(frozen=True)
class Check:
    """The result of one check."""

    name: str
    passed: bool | None
    """None: it could not be judged, and does not stop a run."""
    expected: str
    found: str
    do: str
    """The remedy, should it have failed."""


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

    @cached_property
    def live(self) -> list[int]:
        """The labels that count in the loss."""
        return [label for label in self.labels if label != IGNORE_INDEX]

    @cached_property
    def first(self) -> int:
        """Where the first of them stands."""
        return next((place for place, label in enumerate(self.labels) if label != IGNORE_INDEX), len(self.labels) - 1)

    @property
    def prompt(self) -> list[int]:
        """What the decoder is given before the first label."""
        return self.inputs[: self.first + 1]


@dataclass(frozen=True)
class ModelInterface:
    """What a model and its tokenizer take."""

    tokenizer: Tokenizer
    prompt: list[int] | str
    """What generate gives the decoder to begin with, or why it gives nothing."""
    n_mels: int
    positions: int
    """Of the decoder."""

    @cached_property
    def start(self) -> int:
        """Id of <|startoftranscript|>."""
        return self.tokenizer.token_to_id("<|startoftranscript|>")

    @cached_property
    def end(self) -> int:
        """Id of <|endoftext|>; special tokens come after it."""
        return end_token(self.tokenizer)

    def spell(self, tokens: Sequence[int]) -> str:
        """Return tokens by name."""
        return "".join((token >= 0 and self.tokenizer.id_to_token(token)) or f"[{token}]" for token in tokens)


ExamplesCheck = Callable[[Sequence[TrainingExample], ModelInterface], Check]


def check_of_faults(name: str, expected: str, faults: Iterable[str | None], do: str) -> Check:
    """Return a check that fails with the first fault."""
    fault = next((fault for fault in faults if fault), None)
    return Check(name, fault is None, expected, fault or "as expected", do)


def check_of_examples(name: str, expected: str, do: str) -> Callable[..., ExamplesCheck]:
    """Make a check from a function of (example, model) that returns what is wrong, or None."""

    def decorate(fault: Callable[[TrainingExample, ModelInterface], str | None]) -> ExamplesCheck:
        @wraps(fault)
        def check(examples: Sequence[TrainingExample], model: ModelInterface) -> Check:
            return check_of_faults(name, expected, (fault(one, model) for one in examples), do)

        return check

    return decorate


def merge_checks(name: str, checks: Sequence[Check]) -> Check:
    """Return one check for several: the first that failed."""
    for check in checks:
        if check.passed is False:
            return Check(name, False, check.expected, f"{check.name}: {check.found}", check.do)
    names = ", ".join(dict.fromkeys(check.name for check in checks))
    return Check(name, True, f"the right {names}", "as expected", "nothing")


# Labels


@check_of_examples(
    "start token",
    "one <|startoftranscript|> in front of the decoder's inputs and none in the labels",
    "strip the tokenizer's own from the labels: it is decoder_start_token_id, and bos_token_id is not it",
)
def check_start(one: TrainingExample, model: ModelInterface) -> str | None:
    """Two start tokens teach the model to stammer."""
    counts = one.inputs.count(model.start), one.live.count(model.start)
    if one.inputs[0] != model.start or counts != (1, 0):
        return f"{counts[0]} in the inputs and {counts[1]} in the labels of {one.id}"


@check_of_examples("label order", "labels that are the next token of the inputs", "shift them once, to the left")
def check_order(one: TrainingExample, model: ModelInterface) -> str | None:
    pairs = zip(one.labels[: one.first + len(one.live) - 1], one.inputs[1:], strict=False)
    if any(label not in (IGNORE_INDEX, following) for label, following in pairs):
        return f"inputs {one.inputs[:7]} over labels {one.labels[:7]} of {one.id}"


@check_of_examples(
    "prompt mask",
    "the prompt, and nothing else, masked in the labels and whole in the inputs",
    "build decoder_input_ids and labels apart, as lengua.models.tokens.decoder_pair does; never shift masked labels",
)
def check_mask(one: TrainingExample, model: ModelInterface) -> str | None:
    if IGNORE_INDEX in one.inputs or model.end in one.prompt:
        return f"inputs of {one.id} that begin {one.inputs[:5]}, with {IGNORE_INDEX} or {model.end} for the prompt"
    if not one.live or one.live[0] > model.end:
        return f"labels of {one.id} that begin {one.labels[:5]}: the prompt is to be predicted"
    if IGNORE_INDEX in one.labels[one.first : one.first + len(one.live)]:
        return f"a hole in the labels of {one.id}: {one.labels}"


@check_of_examples(
    "prompt",
    "in training the prompt that generate uses: language, task, no timestamps",
    "set language and task of model.generation_config to those of the labels, as models.whisper.force_language does",
)
def check_prompt(one: TrainingExample, model: ModelInterface) -> str | None:
    if isinstance(model.prompt, str):
        return f"none from generate: {model.prompt}"
    length = len(model.prompt)
    used = one.inputs[:length] + [token for token in one.inputs[length : length + 1] if token > model.end]
    if used != model.prompt:
        return f"{model.spell(used)} for {one.id}, and {model.spell(model.prompt)} from generate"


@check_of_examples(
    "end token",
    "one live <|endoftext|>, the last label",
    "mask padding by its place: pad_token_id is the end token, and masking every such label takes the end as well",
)
def check_end(one: TrainingExample, model: ModelInterface) -> str | None:
    """Without the end token a model never stops, though its loss looks good."""
    if one.live.count(model.end) != 1 or one.live[-1] != model.end:
        return f"{one.live.count(model.end)} in the labels of {one.id}, which end {one.live[-3:]}"


@check_of_examples("leading space", "labels that begin with a space", "put it before the text before encoding")
def check_space(one: TrainingExample, model: ModelInterface) -> str | None:
    text = model.tokenizer.decode(text_tokens(model.tokenizer, one.labels))
    return None if text.startswith(" ") else f"{text[:20]!r} for {one.id}"


@check_of_examples(
    "text",
    "labels that decode to the text of their clip",
    "use the tokenizer of the base, and join clips to labels by id and never by order",
)
def check_text(one: TrainingExample, model: ModelInterface) -> str | None:
    text = decode_text(model.tokenizer, one.labels)
    return None if text == one.text.strip() else f"{text[:60]!r} for {one.text[:60]!r} of {one.id}"


MAX_UNSPELLED_SHARE = 0.2
"""Of texts without a capital or a mark, as titles have it; above that a model learns to leave them out."""


def check_spelling(texts: Iterable[tuple[str, str]]) -> Check:
    """Tell what of the base's spelling these texts, of pairs (id, text), teach it to leave out; no reason to stop.

    Whisper writes sentences: a capital first, a mark last. WER does not count either, but readers do.
    """
    plain = [text.strip() for _, text in texts if text.strip()]
    cased = [
        first for text in plain if (first := next((one for one in text if one.isalpha()), "")).lower() != first.upper()
    ]
    small = sum(first.islower() for first in cased) / max(1, len(cased))
    bare = sum(text[-1].isalnum() for text in plain) / max(1, len(plain))
    lacking = [
        f"{share:.0%} {what}"
        for share, what in ((small, "begin with a small letter"), (bare, "end without a mark"))
        if share > MAX_UNSPELLED_SHARE
    ]
    return Check(
        "spelling",
        None if lacking else True,
        "texts with a capital first and a mark last, as the base writes them",
        f"{' and '.join(lacking)}: training unlearns what they lack" if lacking else "as expected",
        "write capitals and marks into the texts, if they are wanted",
    )


def check_length(texts: Iterable[tuple[str, str]], model: ModelInterface) -> Check:
    """No text, of (id, text), is longer than the decoder; most are too short to need counting."""
    faults = (
        f"{length} for {id}"
        for id, text in texts
        if may_be_too_long(text) and (length := label_length(model.tokenizer, text)) > model.positions
    )
    expected = f"labels of at most {model.positions} tokens, prompt and end included"
    return check_of_faults(
        "label length", expected, faults, "leave these clips out; cut, the model learns to stop early"
    )


@check_of_examples("room", "labels that fit the decoder", "put fewer clips into a window")
def check_room(one: TrainingExample, model: ModelInterface) -> str | None:
    if (length := one.first + len(one.live)) > model.positions:
        return f"{length} of at most {model.positions} tokens for the window that begins with {one.id}"


@check_of_examples(
    "times",
    "times that begin at 0.00 and ascend, two for each clip",
    "write them as lengua.models.tokens.timestamped_pair does",
)
def check_times(one: TrainingExample, model: ModelInterface) -> str | None:
    zero = model.tokenizer.token_to_id("<|0.00|>")
    times = [label - zero for label in one.live if label >= zero]
    ascend = times == sorted(times) and len(times) % 2 == 0 and times[-1:] <= [30 * TICKS_PER_SECOND]
    if not ascend or one.live[0] != zero or one.prompt != list(model.prompt[:3]):
        return f"{[time / TICKS_PER_SECOND for time in times]} s in {one.id}, after {one.inputs[:3]}"


# Features


@check_of_examples("mel size", "as many mel bins as the model takes", "build the features again with its --n-mels")
def check_mels(one: TrainingExample, model: ModelInterface) -> str | None:
    if len(one.features) != model.n_mels:
        return f"{len(one.features)} instead of {model.n_mels} for {one.id}"


def check_finite(examples: Sequence[TrainingExample], peaks: Iterable[tuple[str, float]]) -> Check:
    """No NaN and no infinity, in these clips nor in the stored peak, of (id, peak), of any: one ruins all weights."""
    faults = [f"a peak of {peak} in {id}" for id, peak in peaks if not math.isfinite(peak)]
    faults += [f"NaN or infinity in {one.id}" for one in examples if not np.isfinite(one.features).all()]
    return check_of_faults(
        "finite features", "finite features", faults, "build the features again, without these clips"
    )


@check_of_examples(
    "silence",
    "each clip filled up with its own floor",
    "pad with lengua.audio.log_mel.pad_with_silence, or pad the audio before its features are made",
)
def check_silence(one: TrainingExample, model: ModelInterface) -> str | None:
    """Behind the speech stands the clip's own silence; 0 is noise in log-mel and teaches a model to make things up."""
    behind, floor = one.features[:, one.frames :], silence_floor(one.peak)
    if not np.allclose(behind, floor, atol=LOG_MEL_TOLERANCE, equal_nan=True):
        return f"{behind.flat[0]:.3f} behind {one.id}, whose silence is {floor:.3f}"


@check_of_examples(
    "feature range",
    "features between each clip's floor and its peak",
    "feed the log-mel as it is stored: no mean, no variance, no decibels",
)
def check_range(one: TrainingExample, model: ModelInterface) -> str | None:
    low, high, floor = one.features.min(), one.features.max(), silence_floor(one.peak)
    if low < floor - LOG_MEL_TOLERANCE or high > one.peak + LOG_MEL_TOLERANCE:
        return f"{low:.3f} to {high:.3f} in {one.id}, whose range is {floor:.3f} to {one.peak:.3f}"
