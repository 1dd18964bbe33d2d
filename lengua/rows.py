"""Utterance -> row: decode, check, log-mel, one byte a value. The same code serves stores, streams and every engine."""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from lengua import audio, mel
from lengua.checkpoints import find_model, load_tokenizer
from lengua.errors import RequestError
from lengua.labels import MAX_LABEL_TOKENS, label_length, may_be_too_long
from lengua.options import FeatureOptions
from lengua.sources import Dropped, Utterance
from lengua.store import Row
from lengua.text import clean_label

MAX_AUDIO_BYTES = 64 * 2**20
Alter = Callable[[str, np.ndarray], np.ndarray]
"""(id, samples) -> the samples that features are made of."""


def make_rows(
    items: Iterable[Utterance | Row | Dropped], options: FeatureOptions, alter: Alter | None = None
) -> Iterator[Row | Dropped]:
    """Turn what a source yields into rows; what is a row already, or was dropped, stays as it is."""
    return (make_row(item, options, alter) if isinstance(item, Utterance) else item for item in items)


def make_row(utterance: Utterance, options: FeatureOptions, alter: Alter | None = None) -> Row | Dropped:
    """Turn one utterance into a row, or say why not; what is wanted is judged before it is altered."""
    text = clean_label(utterance.text)
    if not text:
        return Dropped(utterance.id, "no text")
    try:
        samples = audio.load(_bounded(utterance.audio), max_seconds=options.max_seconds + 0.5)
    except (RequestError, OSError):
        return Dropped(utterance.id, "unreadable audio")
    if reason := _unfit(samples, text, options):
        return Dropped(utterance.id, reason)
    if alter:
        samples = alter(utterance.id, samples)
    peak, coded = mel.encode(mel.log_mel(samples, options.n_mels))
    return Row(
        id=utterance.id,
        text=text,
        language=utterance.language,
        speaker=utterance.speaker,
        duration_s=round(audio.duration_s(samples), 3),
        frames=len(coded),
        peak=peak,
        mel=coded,
        audio=_kept_audio(utterance.audio, samples) if utterance.split in options.keep_audio else None,
        extra=utterance.extra,
    )


def _unfit(samples, text: str, options: FeatureOptions) -> str | None:
    """Return why a clip cannot be trained on or scored, or None."""
    seconds = audio.duration_s(samples)
    if seconds < options.min_seconds:
        return f"shorter than {options.min_seconds:g} s"
    if seconds > options.max_seconds:
        return f"longer than {options.max_seconds:g} s"
    if audio.is_silent(samples):
        return "no speech energy"
    rate = len(text) / seconds
    if rate > options.max_chars_per_second or (seconds > 3 and rate < options.min_chars_per_second):
        return "text and audio disagree"
    if may_be_too_long(text) and label_length(_tokenizer(options.base), text) > MAX_LABEL_TOKENS:
        return f"label over {MAX_LABEL_TOKENS} tokens"
    return None


@lru_cache(maxsize=1)
def _tokenizer(base: str):
    """Return the tokenizer that counts label tokens; few texts are long enough to need it."""
    return load_tokenizer(find_model(base)[0])


def _bounded(source: Path | bytes) -> Path | bytes:
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if size > MAX_AUDIO_BYTES:
        raise RequestError(f"a clip under {MAX_AUDIO_BYTES >> 20} MB", f"{size >> 20} MB", "cut it at pauses first")
    return source


def _kept_audio(source: Path | bytes, samples) -> bytes:
    """Return the original bytes where every player knows them, else FLAC."""
    data = source if isinstance(source, bytes) else source.read_bytes()
    known = data[:4] in (b"RIFF", b"fLaC", b"OggS") or data[:3] == b"ID3" or data[:2] in (b"\xff\xfb", b"\xff\xf3")
    return data if known else audio.as_flac(samples)
