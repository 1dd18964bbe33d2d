"""The causes that a diagnosis can name, in plain words: why it happens, what to do, and what would settle it.

A cause here is one that others have met and measured (Whisper fine-tuned on 30 s of padding, on short windows, ...).
"""

from dataclasses import dataclass, field
from typing import NamedTuple

BROKEN, WARNING, GOOD, NOTE = SEVERITIES = ("broken", "warning", "good", "note")
"""In the order in which findings are told."""


class Cause(NamedTuple):
    """Words about one cause."""

    why: str
    cure: str
    check: str
    """What tells it from the causes that look like it."""


CAUSES = {
    "short_window": Cause(
        "the model was given less than 30 s, and it never learned where speech ends without a long silence behind it",
        "measure it padded to 30 s, or train it with short windows (lengua train does)",
        "decode the same clips padded to 30 s: if the loops go, it was the window",
    ),
    "long_window": Cause(
        "the model learned from short windows only, and 30 s of silence behind the speech are new to it",
        "use it with its own margin, or train with a share of padded batches (--padded-share 0.1)",
        "decode the same clips with its own margin: if the loops go, it was the window",
    ),
    "zero_padding": Cause(
        "the space behind the speech was filled with zeros, and a zero in log-mel is noise, not silence",
        "pad the sound before its features are made, or fill with the clip's own lowest value (lengua.mel.fill)",
        "look at the last frames of the features: silence is their lowest value, never exactly 0",
    ),
    "language": Cause(
        "decoding was not told the language or the task, so the model guesses one, or translates into English",
        "force language and task in every generate: language=..., task='transcribe', in generation_config.json, too",
        "print the tokens of one clip: after the start token must come the language, then <|transcribe|>",
    ),
    "double_start": Cause(
        "the labels begin with a second <|startoftranscript|>, so every word was learned one place too late",
        "build inputs and labels with one start token, 50258 (the tokenizer's bos_token is another one, 50257)",
        "print the decoder's inputs of one batch: 50258 must stand there once",
    ),
    "label_shift": Cause(
        "labels and inputs are shifted against each other, so the first word, or pieces of all words, are lost",
        "build inputs and labels as lengua.labels.decoder_pair does, and check one pair by eye",
        "print inputs and labels of one clip under each other: each label must be the next input",
    ),
    "end_masked": Cause(
        "the end token was left out of the loss (it is also the padding token), so the model never learned to stop",
        "keep one end token in every row of the labels, and mask only what stands behind it",
        "count the end token (50257) in a batch of labels: there must be one in each row",
    ),
    "rate": Cause(
        "the learning rate was too high, or half precision overflowed: what the model knew is destroyed",
        "begin anew from the base with a lower rate (2.5e-5 for base, 1.25e-5 for small), with warm-up",
        "look at the first steps: a loss that climbs again, or is no number, means the rate",
    ),
    "prompt": Cause(
        "the model was trained with another prompt, or other features, than it is measured with",
        "make the prompt of the labels that of decoding: start, language, <|transcribe|>, <|notimestamps|>",
        "the loss is by teacher forcing and looks good; only generated text shows what the model does",
    ),
    "cut": Cause(
        "labels were cut, clips are longer than 30 s, or decoding may write too few tokens",
        "leave out clips over 30 s and labels over 448 tokens instead of cutting them; let decoding write more",
        "look whether the clips that end early are the longest",
    ),
    "orthography": Cause(
        "the words are right and written otherwise: accents, ñ, digits, words in one or two",
        "see how your labels write them; make them alike, or read the accent-blind WER beside this one",
        "the pairs of the confusions show which spelling",
    ),
    "loops": Cause(
        "a few clips that are hard, or nearly silent, go round in circles and bring many words each",
        "use the loop guard (lengua transcribe has it); listen to these clips, their text may not be what is said",
        "the WER without the clips that loop is that of all others",
    ),
    "few_data": Cause(
        "there was too little to learn from, too little time, or the base is already as good as this data can make it",
        "add speech (more voices first), train longer, or begin from a larger base",
        "compare dev WER over the run: still falling means time, flat means data",
    ),
    "undecided": Cause(
        "no known failure fits these texts",
        "read the worst utterances beside their sound, and run the preflight on this data",
        "decode the untouched base by the same path: if it fails alike, it is the path and not the training",
    ),
    "healthy": Cause(
        "no known failure shows", "nothing needs mending", "see the groups and confusions for what is left"
    ),
}


@dataclass(frozen=True)
class Facts:
    """What is known beside the texts; None where it is not."""

    dev_loss: float | None = None
    """By teacher forcing."""
    learning_rate: float | None = None
    """Peak of the schedule, of full training."""
    starts: int | None = None
    """How often <|startoftranscript|> stands in one row of the decoder's inputs."""
    says_start: bool | None = None
    """Whether the model, given the start token alone, mostly says it again instead of a language: what two start tokens
    teach, though it writes as well as ever if the language is forced."""
    ends: int | None = None
    """How many end tokens one row of the labels keeps in the loss."""
    filler: float | None = None
    """The value behind the speech in the features that were fed to the encoder."""
    floor: float | None = None
    """The value of silence there: the clip's largest value - 2."""
    forced: bool | None = None
    """Whether language and task were forced in decoding."""


@dataclass(frozen=True)
class Finding:
    """One thing that is the matter, or may be."""

    name: str
    """One of CAUSES."""
    severity: str
    """broken, warning, note or good."""
    what: str
    cause: str
    cure: str
    check: str
    weight: float
    """How well the cause fits: 1 where it is known, less where the text tells. Findings come in this order."""
    evidence: dict[str, float] = field(default_factory=dict)


def finding(name: str, severity: str, what: str, weight: float, **evidence: float) -> Finding:
    """Return a finding with the words of its cause."""
    cause = CAUSES[name]
    rounded = {key: round(value, 4) for key, value in evidence.items()}
    return Finding(name, severity, what, cause.why, cause.cure, cause.check, round(weight, 2), rounded)
