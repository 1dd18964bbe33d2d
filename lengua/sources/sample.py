"""`sample:es`: two voices of real Spanish speech out of Debian packages, with their texts put right.

    for item in open("es").read("train"): ...
    for item in open("fr").read("test"): ...        # probes: fr, it and ru, 11 MB, all of it test
    fetch("estefania")      # 160 MB; may run in a thread beside anything else

The telephone prompts of the first voice were written without accents; a table of words and phrases puts them back.
What the table cannot put right is left out rather than guessed.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lengua.cache import cache_dir
from lengua.errors import RequestError
from lengua.languages import language_code
from lengua.sources import Dropped, Utterance
from lengua.sources.debian import is_unpacked, package_files, require_apt, unpack
from lengua.sources.spelling import UNCERTAIN, misread, put_right, stored
from lengua.sources.splitting import normalised, split_of
from lengua.sources.voices import VOICES, Clip, Voice

FILTERS = 1
"""Raise this when a rule below changes what `read` yields; it is part of the revision."""

GLOSS = re.compile(r"\s*(?:\[[^]]*\]|\([^)]*\)|<[^>]*>)\s*")
DIGITS = re.compile(r"[\d$€£¥]")
MIN_WORDS = 3
"""Of two letters or more, in a clip of a probe: "tre" tells whether a model writes 3, not whether it knows Italian."""


def open(name: str, language: str | None = None) -> "SampleSource":
    """Open the sample of one language. Its packages are fetched when the first item is read.

    Raises:
        RequestError: there is no sample of this language, `language` is another, or this machine has no apt.
    """
    known = sorted({voice.language for voice in VOICES})
    if name not in known:
        samples = " or ".join(f"sample:{code}" for code in known)
        raise RequestError(samples, f"sample:{name}", "use folder:PATH for your own speech")
    if language and language_code(language) != name:
        raise RequestError(f"speech in {name} from sample:{name}", f"--language {language}", "leave --language out")
    if not all(is_unpacked(voice_folder(voice)) for voice in voices_of(name)):
        require_apt()
    return SampleSource(name)


def voices_of(language: str) -> list[Voice]:
    """Return the voices of a language, by name."""
    return sorted((voice for voice in VOICES if voice.language == language), key=lambda voice: voice.name)


def fetch(voice: Voice | str) -> Path:
    """Return the folder of a voice's recordings and texts; download it the first time.

    Threads and processes that want the same voice wait for one another.

    Raises:
        RequestError: there is no such voice, or no apt on this machine.
        LenguaError: the download failed; the message has apt's own words.
    """
    if isinstance(voice, str):
        by_name = {known.name: known for known in VOICES}
        if voice not in by_name:
            raise RequestError(f"one of the voices {', '.join(by_name)}", repr(voice), "name one of them")
        voice = by_name[voice]
    return unpack(voice.packages, voice.wanted, voice_folder(voice))


def voice_folder(voice: Voice) -> Path:
    """Return where a voice is kept; a change of what is wanted from its packages changes the name."""
    wanted = hashlib.blake2b(repr((voice.packages, voice.wanted)).encode(), digest_size=4).hexdigest()
    return cache_dir() / "sample" / f"{voice.name}-{wanted}"


@dataclass(frozen=True)
class SampleSource:
    """The utterances of all voices of one language. Fulfils `lengua.sources.Source`."""

    language: str

    @property
    def uri(self) -> str:
        return f"sample:{self.language}"

    @property
    def licence(self) -> str:
        return "; ".join(f"{voice.name}: {voice.licence}" for voice in voices_of(self.language))

    @property
    def attribution(self) -> str:
        return "; ".join(f"{voice.attribution}, {voice.licence}" for voice in voices_of(self.language))

    @cached_property
    def revision(self) -> str:
        """A hash of the packages' versions, of the tables and of the rules."""
        packages = [package_files(fetch(voice)) for voice in voices_of(self.language)]
        tables = [stored(self.language, name) for name in ("accents", "misread")]
        stated = repr((FILTERS, packages, tables)).encode()
        return hashlib.blake2b(stated, digest_size=8).hexdigest()

    @cached_property
    def items(self) -> list[tuple[str, Utterance | Dropped]]:
        """Every recording with its split, by id."""
        found = [item for voice in voices_of(self.language) for item in judged(voice)]
        return sorted(found, key=lambda item: item[1].id)

    def read(self, split: str) -> Iterator[Utterance | Dropped]:
        """Yield the items of one split by id; no text stands in two splits, of whichever voice."""
        return (item for its_split, item in self.items if its_split == split)

    survey = read
    """A look over a split costs no decoding here."""


def judged(voice: Voice) -> Iterator[tuple[str, Utterance | Dropped]]:
    """Yield each recording of a voice with its split: as an utterance, or dropped with the reason."""
    clips = voice.clips(fetch(voice))
    twins = same_audio(clips)
    for clip in clips:
        text = put_right(clip.text or "", voice.language)
        id_ = f"{voice.name}/{clip.name}"
        split = "test" if voice.probe else split_of(normalised(text) or clip.name)
        other_words = "other words said" if id_ in misread(voice.language) else None
        too_short = f"under {MIN_WORDS} words" if voice.probe and len(long_words(text)) < MIN_WORDS else None
        if reason := fault(clip, text) or twins.get(clip.name) or other_words or too_short:
            yield split, Dropped(id_, reason)
        else:
            extra = {"licence": voice.licence}
            yield split, Utterance(id_, clip.audio, text, voice.language, voice.name, split=split, extra=extra)


def fault(clip: Clip, text: str) -> str | None:
    """Return why a clip is left out, by its text as written and as put right; None when it is not."""
    if not clip.text:
        return "no text"
    if GLOSS.fullmatch(clip.text):
        return "not speech"
    if "[" in clip.text:
        return "gloss in text"
    if DIGITS.search(text):
        return "digits in text"
    if UNCERTAIN in text:
        return "uncertain text"
    return "single letter" if len(normalised(text)) < 2 else None


def long_words(text: str) -> list[str]:
    """Return the words of a text that have two letters or more."""
    return [word for word in text.split() if len(normalised(word)) > 1]


def same_audio(clips: list[Clip]) -> dict[str, str]:
    """Return why clips whose bytes another has are left out: all but the first, or all where the texts differ."""
    groups: dict[bytes, list[Clip]] = {}
    for clip in clips:
        groups.setdefault(hashlib.blake2b(clip.audio.read_bytes()).digest(), []).append(clip)
    reasons = {}
    for group in groups.values():
        agreed = len({normalised(clip.text or "") for clip in group}) == 1
        for clip in group[1:] if agreed else group:
            reasons[clip.name] = "duplicate audio" if agreed else "two texts for one audio"
    return reasons
