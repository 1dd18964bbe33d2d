"""The base hears the same clips twice: as this run measures dev, and as transformers alone does it.

    second_opinion(trainer, folder, clips=[3, 14, 15])     # a Check

What both write must be nearly the same. Where it is not, every WER of the run would be of something else: another
language or task in generate, other features, weights that were not loaded as they are.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import WhisperForConditionalGeneration

from lengua.batches import Draw
from lengua.labels import most_tokens, words_of
from lengua.mel import FRAMES_PER_SECOND, fill
from lengua.scoring import wer
from lengua.training.checks import Check

APART = 0.25
"""WER of one text against the other up to which both are the same: none is expected, both being in float32."""
NAME = "base decoding"
EXPECTED = "from the run's own decoding what transformers alone writes"
DO = "decode dev with the base's own generation config, language and task set, and features as they are stored"


def as_measured(trainer, clips: Sequence[int]) -> list[str]:
    """Return what the run's own measuring of dev makes of some of its clips, in the full window.

    In float32, like the other: half precision can make much of a language that a base hardly knows come out otherwise.
    """
    batch = trainer.data_collator([trainer.eval_dataset[Draw(index, trainer.drawing.longest)] for index in clips])
    _, tokens, _ = trainer.prediction_step(trainer.model, batch, prediction_loss_only=False)
    return [words_of(trainer.vocabulary, ids) for ids in tokens.tolist()]


@torch.no_grad()
def as_published(trainer, folder: Path, clips: Sequence[int]) -> list[str]:
    """Return what the weights of a folder make of the same clips by transformers alone, in float32."""
    plain = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).to(trainer.args.device).eval()
    plain.generation_config.forced_decoder_ids = None
    longest = 2 * plain.config.max_source_positions
    rows = [trainer.dev_split[index] for index in clips]
    features = torch.from_numpy(np.stack([fill(row.log_mel(), longest, row.peak) for row in rows]))
    most = most_tokens(longest / FRAMES_PER_SECOND, plain.config.max_target_positions)
    language = {"language": trainer.options.language, "task": "transcribe"}
    tokens = plain.generate(features.to(plain.device), max_new_tokens=most, num_beams=1, **language)
    return [words_of(trainer.vocabulary, ids) for ids in tokens.tolist()]


def second_opinion(trainer, folder: Path, clips: Sequence[int]) -> Check:
    """Hear some clips of dev in both ways, and judge."""
    try:
        heard = as_measured(trainer, clips)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        return Check(NAME, False, EXPECTED, f"none: {str(error).partition(chr(10))[0]}", DO)
    return check_decoding([trainer.dev_split[at].text for at in clips], heard, as_published(trainer, folder, clips))


def check_decoding(said: Sequence[str], heard: Sequence[str], published: Sequence[str]) -> Check:
    """Both ways of decoding write nearly the same; what was said tells whether either is of use."""
    apart, rates = wer(published, heard), [wer(said, texts) for texts in (heard, published)]
    found = f"WER {rates[0]:.0%} and {rates[1]:.0%} on {len(said)} clips of dev"
    if apart > APART:
        worst = max(range(len(said)), key=lambda at: wer([published[at]], [heard[at]]))
        return Check(NAME, False, EXPECTED, f"{found}; {heard[worst][:60]!r} for {published[worst][:60]!r}", DO)
    if rates[1] >= 1:
        do = "listen to some clips while reading their texts, or take a base that knows the language"
        return Check(NAME, None, EXPECTED, f"{found}, which is nothing to judge by", do)
    return Check(NAME, True, EXPECTED, found, DO)
