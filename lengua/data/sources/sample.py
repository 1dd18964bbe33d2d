"""`sample:es`: two voices of real Spanish speech from Debian packages, with corrected texts.

    for item in open("es").read("train"): ...
    for item in open("fr").read("test"): ...        # probes: fr, it and ru, 11 MB, all of it test
    for voice in voices_of("es"): fetch_voice(voice)    # 174 MB; may run in a thread

A `SampleVoice` says which packages hold a voice, and where the text of a clip is; a further language is a further
voice here and, where its texts need it, a table in the assets.

    correct_spelling("Su contrasena no es valida", "es")       "Su contraseña no es válida"

The telephone prompts of the first voice were written without accents. `sample_es_accents.tsv` restores them where
that is unambiguous: a word that is also right without its accent ("esta", "se") is listed with its neighbours, and a
word that cannot be corrected becomes UNCERTAIN, which drops the clip. `sample_es_misread.tsv` lists clips whose text
is not what the speaker says ("Una pesquería" over "una piscifactoría"), as decoded by whisper-base, most of them
three times; no person has listened to them all.
"""

import functools
import gzip
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lengua.data.sources import Dropped, Utterance
from lengua.data.sources.debian import is_unpacked, package_files, require_apt, unpack_packages
from lengua.data.splits import sentence_key, split_of
from lengua.models.languages import language_code
from lengua.runtime.errors import RequestError
from lengua.runtime.files import ASSETS, cache_dir

UNCERTAIN_MARK = "???"
# What hints at a sentence before or after the prompt, and nobody says.
ELLIPSIS = re.compile(r"^[\s,.…]+|\s*(?:…|\.\.\.)$")


def correct_spelling(text: str, language: str) -> str:
    """Return the text with the table's words and phrases replaced, single spaces, and no ellipsis at either end.

    A replacement starts with a capital where what it replaces does.
    """
    corrections, pattern = load_corrections(language)
    text = ELLIPSIS.sub("", " ".join(text.split()))
    return pattern.sub(lambda found: _match_case(corrections[found[0].lower()], like=found[0]), text)


@functools.cache
def load_corrections(language: str) -> tuple[dict[str, str], re.Pattern]:
    """Return the corrections of a language, by what is written in lowercase, and a pattern that finds them."""
    corrections = dict(read_table_pairs(language, "accents"))
    longest_first = "|".join(map(re.escape, sorted(corrections, key=len, reverse=True)))
    return corrections, re.compile(rf"(?<!\w)(?:{longest_first or '(?!)'})(?!\w)", re.IGNORECASE)


@functools.cache
def misread_clip_ids(language: str) -> frozenset[str]:
    """Return the ids of the clips that say other words than their text."""
    return frozenset(id_ for id_, _ in read_table_pairs(language, "misread"))


def read_table_pairs(language: str, name: str) -> list[tuple[str, str]]:
    """Return the rows of one table below its header; none where a language has no such table."""
    lines = read_table_bytes(language, name).decode("utf-8").splitlines()[1:]
    return [tuple(line.split("\t")) for line in lines]


def read_table_bytes(language: str, name: str) -> bytes:
    path = ASSETS / f"sample_{language}_{name}.tsv"
    return path.read_bytes() if path.is_file() else b""


def _match_case(replacement: str, like: str) -> str:
    """Return the replacement with a capital if `like` begins with one."""
    if not like[0].isupper():
        return replacement
    first = next((place for place, character in enumerate(replacement) if character.isalpha()), 0)
    return replacement[:first] + replacement[first].upper() + replacement[first + 1 :]


ASTERISK_SOUNDS_FOLDER = "usr/share/asterisk/sounds"
TUXPAINT_STAMPS_FOLDER = "usr/share/tuxpaint/stamps"
COPYRIGHT_FILES = r"/doc/.*/copyright$"


@dataclass(frozen=True)
class VoiceClip:
    """A recording as its package has it. `name` is its path among the voice's recordings, without the suffix."""

    name: str
    audio: Path
    text: str | None
    """None where the package has no text for it."""


@dataclass(frozen=True)
class SampleVoice:
    """One speaker of the sample, one language, and how to read her packages."""

    name: str
    language: str
    packages: tuple[str, ...]
    wanted: str
    """A regular expression over paths in the packages: the recordings, the texts, the copyright."""
    read: Callable[[Path, str], Iterator[VoiceClip]]
    licence: str
    attribution: str
    probe: bool = False
    """Whether all of it is for testing: a language to see that a model keeps, not one to learn from."""


def asterisk_clips(folder: Path, language: str) -> Iterator[VoiceClip]:
    """Yield telephone prompts. Some keys of the text differ from the file in case: `digits/1f` is digits/1F.g722."""
    texts = read_prompts(folder / f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz")
    for audio in (folder / ASTERISK_SOUNDS_FOLDER).rglob("*.g722"):
        name = audio.relative_to(folder / ASTERISK_SOUNDS_FOLDER).with_suffix("").as_posix().partition("/")[2]
        yield VoiceClip(name, audio, texts.get(name.lower()))


def read_prompts(path: Path) -> dict[str, str]:
    """Read `key: text` lines; `;` opens a comment. The first of two equal keys counts: the second is a slip."""
    texts: dict[str, str] = {}
    for line in gzip.decompress(path.read_bytes()).decode("utf-8-sig").splitlines():
        key, colon, text = line.partition(":")
        if colon and not line.startswith(";"):
            texts.setdefault(key.strip().lower(), text.strip())
    return texts


def tuxpaint_clips(folder: Path, language: str) -> Iterator[VoiceClip]:
    """Yield descriptions of Tux Paint's stamps: NAME_desc_es.ogg, its text in the line `es.utf8=` of NAME.txt."""
    ending = f"_desc_{language}.ogg"
    for audio in (folder / TUXPAINT_STAMPS_FOLDER).rglob(f"*{ending}"):
        described = audio.with_name(audio.name.removesuffix(ending))
        name = described.relative_to(folder / TUXPAINT_STAMPS_FOLDER).as_posix()
        yield VoiceClip(name, audio, read_stamp_text(described.with_name(f"{described.name}.txt"), language))


def read_stamp_text(path: Path, language: str) -> str | None:
    """Return what the line `es.utf8=...` of a stamp's description says."""
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    key = f"{language}.utf8="
    return next((line.removeprefix(key).strip() for line in lines if line.startswith(key)), None)


def asterisk_voice(name: str, language: str, licence: str, attribution: str, probe: bool = True) -> SampleVoice:
    """Return the voice of Asterisk's telephone prompts in one language."""
    packages = (f"asterisk-core-sounds-{language}-g722", f"asterisk-core-sounds-{language}")
    wanted = rf"\.g722$|core-sounds-{language}\.txt\.gz$|{COPYRIGHT_FILES}"
    return SampleVoice(name, language, packages, wanted, asterisk_clips, licence, attribution, probe)


SAMPLE_VOICES = (
    asterisk_voice(
        "allison",
        "es",
        "CC-BY-SA-3.0",
        "Allison Smith (voice), Asterisk core sounds in Spanish, financed by Digium, Inc.",
        probe=False,
    ),
    SampleVoice(
        name="estefania",
        language="es",
        packages=("tuxpaint-stamps-default",),
        wanted=rf"_desc_es\.ogg$|/stamps/.*\.txt$|{COPYRIGHT_FILES}",
        read=tuxpaint_clips,
        licence="GPL-2.0-or-later",
        attribution="Estefanía Ortiz (voice), the Tux Paint stamps by Bill Kendrick and contributors",
    ),
    asterisk_voice(
        "june",
        "fr",
        "CC-BY-SA-3.0",
        "June Wallack (voice), Clod Patry, Kristopher Lalletti and June Wallack (translation), Asterisk core "
        "sounds in French, financed by Digium, Inc., Unlimitel and BGM Informatique",
    ),
    asterisk_voice(
        "carlo",
        "it",
        "CC-BY-3.0",
        "Carlo Flora (voice), Silvia Petrin (translation), Asterisk core sounds in Italian",
    ),
    asterisk_voice("ivrvoice", "ru", "CC-BY-3.0", "Maxim Topal, ivrvoice.ru, Asterisk core sounds in Russian"),
)

SAMPLE_RULES_VERSION = 1
"""Raise this when a rule below changes what `read` yields; it is part of the revision."""

GLOSS_ONLY = re.compile(r"\s*(?:\[[^]]*\]|\([^)]*\)|<[^>]*>)\s*")
DIGIT_OR_CURRENCY = re.compile(r"[\d$€£¥]")
MIN_LONG_WORDS = 3
"""Of two letters or more, in a clip of a probe: "tre" tells whether a model writes 3, not whether it knows Italian."""


def open(name: str, language: str | None = None) -> "SampleSource":
    """Open the sample of one language. Its packages are fetched when the first item is read.

    Raises:
        RequestError: there is no sample of this language, `language` is another, or this machine has no apt.
    """
    known = sorted({voice.language for voice in SAMPLE_VOICES})
    if name not in known:
        samples = " or ".join(f"sample:{code}" for code in known)
        raise RequestError(samples, f"sample:{name}", "use folder:PATH for your own speech")
    if language and language_code(language) != name:
        raise RequestError(f"speech in {name} from sample:{name}", f"--language {language}", "leave --language out")
    if not all(is_unpacked(voice_folder(voice)) for voice in voices_of(name)):
        require_apt()
    return SampleSource(name)


def voices_of(language: str) -> list[SampleVoice]:
    return sorted((voice for voice in SAMPLE_VOICES if voice.language == language), key=lambda voice: voice.name)


def fetch_voice(voice: SampleVoice) -> Path:
    """Return the folder of a voice's recordings and texts; download it the first time, in one thread or process.

    Raises:
        RequestError: no apt on this machine.
        LenguaError: the download failed; the message has apt's own words.
    """
    return unpack_packages(voice.packages, voice.wanted, voice_folder(voice))


def voice_folder(voice: SampleVoice) -> Path:
    """Return where a voice is kept; a change of what is wanted from its packages changes the name."""
    wanted = hashlib.blake2b(repr((voice.packages, voice.wanted)).encode(), digest_size=4).hexdigest()
    return cache_dir() / "sample" / f"{voice.name}-{wanted}"


@dataclass(frozen=True)
class SampleSource:
    """The utterances of all voices of one language. Fulfils `lengua.data.sources.Source`."""

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
        packages = [package_files(fetch_voice(voice)) for voice in voices_of(self.language)]
        tables = [read_table_bytes(self.language, name) for name in ("accents", "misread")]
        stated = repr((SAMPLE_RULES_VERSION, packages, tables)).encode()
        return hashlib.blake2b(stated, digest_size=8).hexdigest()

    @cached_property
    def items(self) -> list[tuple[str, Utterance | Dropped]]:
        """Every recording with its split, by id."""
        found = [item for voice in voices_of(self.language) for item in judge_clips(voice)]
        return sorted(found, key=lambda item: item[1].id)

    def read(self, split: str) -> Iterator[Utterance | Dropped]:
        """Yield the items of one split by id; no text stands in two splits, of whichever voice."""
        return (item for its_split, item in self.items if its_split == split)

    survey = read
    """A look over a split costs no decoding here."""


def judge_clips(voice: SampleVoice) -> Iterator[tuple[str, Utterance | Dropped]]:
    """Yield each recording of a voice with its split: as an utterance, or dropped with the reason."""
    clips = sorted(voice.read(fetch_voice(voice), voice.language), key=lambda clip: clip.name)
    twins = find_duplicate_audio(clips)
    for clip in clips:
        text = correct_spelling(clip.text or "", voice.language)
        id_ = f"{voice.name}/{clip.name}"
        split = "test" if voice.probe else split_of(sentence_key(text) or clip.name)
        other_words = "other words said" if id_ in misread_clip_ids(voice.language) else None
        too_short = f"under {MIN_LONG_WORDS} words" if voice.probe and len(long_words(text)) < MIN_LONG_WORDS else None
        if reason := clip_rejection_reason(clip, text) or twins.get(clip.name) or other_words or too_short:
            yield split, Dropped(id_, reason)
        else:
            extra = {"licence": voice.licence}
            yield split, Utterance(id_, clip.audio, text, voice.language, voice.name, split=split, extra=extra)


def clip_rejection_reason(clip: VoiceClip, text: str) -> str | None:
    """Return why a clip is left out, by its text as written and as put right; None when it is not."""
    if not clip.text:
        return "no text"
    if GLOSS_ONLY.fullmatch(clip.text):
        return "not speech"
    if "[" in clip.text:
        return "gloss in text"
    if DIGIT_OR_CURRENCY.search(text):
        return "digits in text"
    if UNCERTAIN_MARK in text:
        return "uncertain text"
    return "single letter" if len(sentence_key(text)) < 2 else None


def long_words(text: str) -> list[str]:
    return [word for word in text.split() if len(sentence_key(word)) > 1]


def find_duplicate_audio(clips: list[VoiceClip]) -> dict[str, str]:
    """Return why clips whose bytes another has are left out: all but the first, or all where the texts differ."""
    groups: dict[bytes, list[VoiceClip]] = {}
    for clip in clips:
        groups.setdefault(hashlib.blake2b(clip.audio.read_bytes()).digest(), []).append(clip)
    reasons = {}
    for group in groups.values():
        agreed = len({sentence_key(clip.text or "") for clip in group}) == 1
        for clip in group[1:] if agreed else group:
            reasons[clip.name] = "duplicate audio" if agreed else "two texts for one audio"
    return reasons
